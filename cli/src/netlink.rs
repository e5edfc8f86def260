//! A small synchronous netlink socket: what it takes to make and configure a few interfaces (`rtnetlink(7)`).
//!
//! Addresses, routes and rules are values, [`Entry`]s, so that who adds several can take back those before the one that
//! fails.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, Nla,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoTun, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use pontoon_switch::MacAddr;
use rustix::io::Errno;

mod carrier;

pub(crate) use carrier::{Bell, Carrier};

/// The routing table that everything without a rule of its own uses.
pub(crate) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Where our rules stand: after those that people make without saying where, before that of the main table (32766).
const PRIORITY: u32 = 32_000;

/// `IFLA_TUN_PERSIST` of linux/if_link.h: whether a TUN or TAP stays without anybody who has it open.
const TUN_PERSIST: u16 = 6;

/// An interface as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    /// Its index.
    pub(crate) index: u32,
    /// Its MAC address; zeroes for one that has none.
    pub(crate) mac: MacAddr,
    /// Its MTU in bytes.
    pub(crate) mtu: u32,
    /// Whether its frames are Ethernet's; not so with the loopback interface, TUN, PPP and WireGuard.
    pub(crate) ethernet: bool,
    /// Whether it has been brought up.
    pub(crate) up: bool,
    /// Whether it is part of another: of a bridge, a bond, a VRF.
    pub(crate) enslaved: bool,
    /// Its carrier.
    pub(crate) carrier: Carrier,
    /// What it is.
    pub(crate) kind: LinkKind,
}

/// Kinds of interfaces, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkKind {
    /// A TUN or TAP that goes with whoever has it open.
    Tun,
    /// A TUN or TAP that stays.
    LastingTun,
    /// An end of a veth pair.
    Veth,
    /// Any other.
    Other,
}

/// A veth pair to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    /// Name of the end here.
    pub(crate) name: &'a str,
    /// Its MAC address; the kernel's choice if none.
    pub(crate) mac: Option<MacAddr>,
    /// Name of the other end.
    pub(crate) far: &'a str,
    /// The network namespace that the other end is made in.
    pub(crate) far_namespace: BorrowedFd<'a>,
    /// MTU of both, in bytes.
    pub(crate) mtu: u32,
}

/// Something in an interface's configuration that can be added and removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// An address with its prefix; one of IPv6 is usable at once, without duplicate address detection.
    Address {
        /// Of the interface with this index.
        index: u32,
        /// The address.
        net: IpNet,
    },
    /// A route.
    Route(Route),
    /// A rule: what comes from this address looks into this table first.
    Rule {
        /// The address.
        from: IpAddr,
        /// The table's number.
        table: u32,
    },
}

/// A route through an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// Where to.
    pub(crate) to: IpNet,
    /// By which router; on the link itself if none.
    pub(crate) via: Option<IpAddr>,
    /// Index of the interface.
    pub(crate) index: u32,
    /// The table's number.
    pub(crate) table: u32,
}

impl Route {
    /// The default route of table `table` by `gateway`.
    pub(crate) fn default_by(gateway: IpAddr, index: u32, table: u32) -> Self {
        Self {
            to: everywhere(gateway.is_ipv4()),
            via: Some(gateway),
            index,
            table,
        }
    }
}

/// The network that every address is in, of IPv4 or IPv6.
pub(crate) fn everywhere(ipv4: bool) -> IpNet {
    if ipv4 {
        IpNet::V4(ipnet::Ipv4Net::default())
    } else {
        IpNet::V6(ipnet::Ipv6Net::default())
    }
}

/// A netlink socket in the network namespace it was made in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the current network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Interface `name`.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Link> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(link), NLM_F_REQUEST)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(described(&link)),
            Some(_) | None => Err(Errno::NODEV.into()),
        }
    }

    /// Sets the MAC address, the MTU (bytes) and the length of the transmit queue (packets) of interface `index`, those of
    /// them that are given.
    pub(crate) fn set_link(
        &mut self,
        index: u32,
        mac: Option<MacAddr>,
        mtu: Option<u32>,
        queue: Option<u32>,
    ) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes
            .extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        link.attributes.extend(queue.map(LinkAttribute::TxQueueLen));
        self.tell(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Brings interface `index` up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.set_flags(index, LinkFlags::Up)
    }

    /// Brings interface `index` up, without ARP.
    pub(crate) fn set_up_mute(&mut self, index: u32) -> io::Result<()> {
        self.set_flags(index, LinkFlags::Up | LinkFlags::Noarp)
    }

    fn set_flags(&mut self, index: u32, flags: LinkFlags) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.header.change_mask = flags;
        self.tell(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Makes a veth pair; both ends are down.
    ///
    /// # Errors
    /// `EEXIST` if there is an interface of that name.
    pub(crate) fn make_veth(&mut self, pair: &Pair<'_>) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![
            LinkAttribute::IfName(pair.far.to_owned()),
            LinkAttribute::Mtu(pair.mtu),
            LinkAttribute::NetNsFd(pair.far_namespace.as_raw_fd()),
        ];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(pair.name.to_owned()),
            LinkAttribute::Mtu(pair.mtu),
        ];
        link.attributes
            .extend(pair.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.tell(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes interface `index`, and with it its addresses and routes.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.tell(RouteNetlinkMessage::DelLink(link), 0)
    }

    /// Adds an entry. A default route of the main table takes the place of the one that is there, as does any route of
    /// another table.
    pub(crate) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let replaces = matches!(entry, Entry::Route(r) if r.to.prefix_len() == 0 || r.table != MAIN);
        let flags = NLM_F_CREATE | if replaces { NLM_F_REPLACE } else { NLM_F_EXCL };
        self.tell(
            match entry {
                Entry::Address { index, net } => RouteNetlinkMessage::NewAddress(address(*index, *net)),
                Entry::Route(r) => {
                    let mut message = route(r);
                    message.header.scope = if r.via.is_none() && r.to.addr().is_ipv4() {
                        RouteScope::Link
                    } else {
                        RouteScope::Universe
                    };
                    message.header.kind = RouteType::Unicast;
                    RouteNetlinkMessage::NewRoute(message)
                }
                Entry::Rule { from, table } => RouteNetlinkMessage::NewRule(rule(*from, *table)),
            },
            flags,
        )
    }

    /// Removes an entry; false if there is no such entry.
    pub(crate) fn remove(&mut self, entry: &Entry) -> io::Result<bool> {
        removed(self.tell(
            match entry {
                Entry::Address { index, net } => RouteNetlinkMessage::DelAddress(address(*index, *net)),
                Entry::Route(r) => RouteNetlinkMessage::DelRoute(route(r)),
                Entry::Rule { from, table } => RouteNetlinkMessage::DelRule(rule(*from, *table)),
            },
            0,
        ))
    }

    /// Removes every rule that leads to `table`.
    pub(crate) fn remove_rules(&mut self, table: u32) -> io::Result<()> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            message.header.action = RuleAction::ToTable;
            message.attributes = vec![RuleAttribute::Table(table), RuleAttribute::Priority(PRIORITY)];
            while removed(self.tell(RouteNetlinkMessage::DelRule(message.clone()), 0))? {}
        }
        Ok(())
    }

    /// Sends a request that is only acknowledged.
    fn tell(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// Sends a request; gives the one message that answers it, or nothing if it is only acknowledged.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(invalid)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(e) if e.code.is_some() => Err(e.to_io()),
                NetlinkPayload::InnerMessage(m) => Ok(Some(m)),
                _ => Ok(None),
            };
        }
    }
}

/// Whether there was something to remove: what the kernel says of an entry that is not there, its interface gone among the
/// reasons, or the whole IP version.
fn removed(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) => match Errno::from_io_error(&e) {
            Some(
                Errno::SRCH
                | Errno::NOENT
                | Errno::NODEV
                | Errno::ADDRNOTAVAIL
                | Errno::AFNOSUPPORT
                | Errno::OPNOTSUPP,
            ) => Ok(false),
            Some(_) | None => Err(e),
        },
    }
}

fn described(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        mac: MacAddr::default(),
        mtu: 0,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up: message.header.flags.contains(LinkFlags::Up),
        enslaved: false,
        carrier: Carrier::of(message),
        kind: LinkKind::Other,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).map_or(link.mac, MacAddr);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.enslaved = *index != 0,
            LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
            _ => {}
        }
    }
    link
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let lasts = |info: &InfoTun| {
        let mut value = vec![0; info.value_len()];
        info.emit_value(&mut value);
        info.kind() == TUN_PERSIST && value.first().is_some_and(|&v| v != 0)
    };
    let mut kind = LinkKind::Other;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => kind = LinkKind::Veth,
            LinkInfo::Kind(InfoKind::Tun) => kind = LinkKind::Tun,
            LinkInfo::Data(InfoData::Tun(all)) if all.iter().any(lasts) => kind = LinkKind::LastingTun,
            _ => {}
        }
    }
    kind
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.family = family(net.addr());
    message.attributes.push(AddressAttribute::Address(net.addr()));
    match net {
        IpNet::V4(net) => {
            message
                .attributes
                .push(AddressAttribute::Local(net.addr().into()));
            if net.prefix_len() < 31 {
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(net.broadcast()));
            }
        }
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

/// A route, of any scope and kind: so it is found when it is to be removed.
fn route(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.to.addr());
    header.destination_prefix_length = route.to.prefix_len();
    header.protocol = RouteProtocol::Static;
    header.scope = RouteScope::NoWhere;
    header.kind = RouteType::Unspec;
    // Greater numbers stand in an attribute only.
    header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![
        RouteAttribute::Table(route.table),
        RouteAttribute::Oif(route.index),
    ];
    if route.to.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(of_route(route.to.network())));
    }
    message
        .attributes
        .extend(route.via.map(|via| RouteAttribute::Gateway(of_route(via))));
    message
}

fn rule(from: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(from);
    message.header.src_len = if from.is_ipv4() { 32 } else { 128 };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(from),
        RuleAttribute::Table(table),
        RuleAttribute::Priority(PRIORITY),
    ];
    message
}

fn of_route(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(a) => RouteAddress::Inet(a),
        IpAddr::V6(a) => RouteAddress::Inet6(a),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
