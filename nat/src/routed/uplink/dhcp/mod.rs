//! The DHCP client (RFC 2131): smoltcp's, in an interface of its own whose wire are two queues.
//!
//! # Theory of operation
//!
//! [`Client::input`] puts a server's message into the one queue, [`Client::poll`] lets the interface run and takes what it
//! says from the other. The interface has no neighbours of its own: whomever it asks for by ARP is answered here with an
//! address that means nothing, and what it sends to one host, to renew a lease, goes the way of every other packet of the
//! gateway's ([`Said::To`]).
//!
//! smoltcp's socket leaves out what follows; it is done here.
//! - It shows of a lease the first router and three name servers. The acknowledgement is read here as well: all routers, all
//!   name servers, the MTU, and the classless static routes of RFC 3442.
//! - It cannot decline an address that is somebody else's ([`Client::decline`]).
//! - It answers a refusal by beginning anew at once, without end if the server refuses again. A second passes first.
//! - It cannot ask whether a lease is still good when the link comes up (INIT-REBOOT). It is made to discover anew, and the
//!   lease is kept meanwhile, until it ends: the server, which knows us by our Ethernet address, offers the same again
//!   ([`Client::confirm`]).
//! - It gives no lease back ([`Client::release`]), as is due where the link goes for good. A gateway that ends and is to start again
//!   keeps its lease, and asks for the same address then.
//!
//! What it cannot do and nobody does for it: it retries at fixed intervals of discovery, refuses an acknowledgement without a
//! subnet mask, and takes the first offer.

mod lease;
mod queues;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pontoon_switch::{Instant, MacAddr};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, RetryConfig, Socket};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetProtocol, HardwareAddress, IpCidr, IpProtocol, Ipv4Cidr,
};

use lease::Answer;
pub(super) use lease::Lease;
use queues::Queues;

use crate::packet::{ETHERNET, IpRepr};
use crate::sum;

/// The ports of RFC 2131.
pub(super) const SERVER: u16 = 67;
pub(super) const CLIENT: u16 = 68;
/// The options asked for: mask, router, name servers, MTU, classless static routes.
const WANTED: &[u8] = &[1, 3, 6, 26, 121];
/// How often a server is looked for. One that first tries whether the address is free takes three seconds.
const DISCOVER: Duration = Duration::from_secs(5);
/// How long nothing is asked after an address was declined (RFC 2131 section 3.1.5).
const DECLINED: Duration = Duration::from_secs(10);
/// Messages that wait for [`Client::poll`] at most.
const INWARD: usize = 8;
/// How long nothing is asked after a refusal (DHCPNAK): the socket would begin again at once, and a server that refuses what
/// it has offered would have it run in circles.
const REFUSED: Duration = Duration::from_secs(1);
/// Whom the interface believes its neighbours to be.
const NOBODY: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0]);

/// An IPv4 packet that the client says, without an Ethernet header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// To all.
    All(Vec<u8>),
    /// To one host.
    To(Ipv4Addr, Vec<u8>),
}

/// The client of one link.
pub(super) struct Client {
    mac: MacAddr,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Queues,
    lease: Option<Lease>,
    /// Who handed us the last acknowledgement: the server, or a router on the way to it.
    server_mac: MacAddr,
    /// The transaction under way, as its messages say.
    transaction: Option<u32>,
    /// What the last acknowledgement of that transaction said.
    acknowledged: Option<Lease>,
    /// The server refused what was asked for.
    refused: bool,
    /// The lease is kept while the socket, which has forgotten it, looks for a server.
    confirming: bool,
    quiet: Option<Instant>,
    deadline: Option<Instant>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for `mac` on a link of `mtu` bytes, which begins to discover at once. `seed` is for its transaction numbers.
    pub(super) fn new(mac: MacAddr, mtu: u16, seed: u64, now: Instant) -> Self {
        let mut wire = Queues::new(mtu.max(lease::MIN_MTU));
        let mut config = Config::new(HardwareAddress::Ethernet(mac.into()));
        config.random_seed = seed;
        let interface = Interface::new(config, &mut wire, now.into());
        let mut socket = Socket::new();
        socket.set_parameter_request_list(WANTED);
        let mut retry = RetryConfig::default();
        retry.discover_timeout = DISCOVER.into();
        socket.set_retry_config(retry);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self {
            mac,
            interface,
            sockets,
            socket,
            wire,
            lease: None,
            server_mac: MacAddr::BROADCAST,
            transaction: None,
            acknowledged: None,
            refused: false,
            confirming: false,
            quiet: None,
            deadline: Some(now),
        }
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Takes a server's message: the IPv4 `packet` of a UDP datagram from [`SERVER`] to [`CLIENT`], checksums verified, and the
    /// `message` in it; `sender` sent the frame.
    pub(super) fn input(&mut self, now: Instant, sender: MacAddr, packet: &[u8], message: &[u8]) {
        if self.quiet.is_some_and(|until| now < until) || self.wire.inward.len() >= INWARD {
            return;
        }
        match self
            .transaction
            .and_then(|t| lease::answer(now, self.mac, t, message))
        {
            Some(Answer::Refused) => {
                self.refused = true;
                self.deadline = Some(now);
                return;
            }
            Some(Answer::Granted(lease)) => {
                self.acknowledged = Some(lease);
                self.server_mac = sender;
            }
            None => {}
        }
        let mut frame = Vec::with_capacity(ETHERNET + packet.len());
        frame.extend(self.mac.0);
        frame.extend(NOBODY.0);
        frame.extend(u16::from(EthernetProtocol::Ipv4).to_be_bytes());
        frame.extend(packet);
        self.wire.inward.push_back(frame);
        self.deadline = Some(now);
    }

    /// Does what is due. What it says is added to `said`. True if the lease is another now, or none.
    pub(super) fn poll(&mut self, now: Instant, said: &mut Vec<Said>) -> bool {
        if let Some(until) = self.quiet {
            if now < until {
                return false;
            }
            self.quiet = None;
        }
        let before = self.lease.clone();
        if std::mem::take(&mut self.refused) {
            self.lease = self.lease.take().filter(|_| self.confirming);
            self.restart(now + REFUSED);
            return !lease::same(before.as_ref(), self.lease.as_ref());
        }
        // The second round is for what waited for a neighbour in the first.
        for _ in 0..2 {
            self.interface.poll(now.into(), &mut self.wire, &mut self.sockets);
            self.drain(said);
            self.events();
        }
        self.wire.inward.clear();
        self.renewed();
        if self.confirming && self.lease.as_ref().is_none_or(|lease| lease.expires <= now) {
            self.confirming = false;
            self.lease = None;
        }
        let address = self.lease.as_ref().map(|lease| lease.address.addr());
        if self.interface.ipv4_addr() != address {
            self.interface.update_ip_addrs(|addresses| {
                addresses.clear();
                // The whole world is on the link of this interface: see the head of this file.
                addresses.extend(address.map(|address| IpCidr::Ipv4(Ipv4Cidr::new(address, 0))));
            });
        }
        self.set_deadline(now);
        !lease::same(before.as_ref(), self.lease.as_ref())
    }

    /// When [`Client::poll`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Gives the lease up because the address is somebody else's: what is to be told the server.
    pub(super) fn decline(&mut self, now: Instant) -> Option<Said> {
        let lease = self.lease.take()?;
        let body = self.message(DhcpMessageType::Decline, &lease);
        self.restart(now + DECLINED);
        Some(Said::All(datagram(
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            &body?,
        )))
    }

    /// Gives the lease back, as the link goes for good (RFC 2131 section 4.4.6): whom to send what, to the server alone. Nobody answers
    /// that.
    pub(super) fn release(&mut self) -> Option<(MacAddr, Vec<u8>)> {
        let lease = self.lease.take()?;
        let body = self.message(DhcpMessageType::Release, &lease)?;
        Some((
            self.server_mac,
            datagram(lease.address.addr(), lease.server, &body),
        ))
    }

    /// A message by which an address is given back or up.
    fn message(&self, message_type: DhcpMessageType, lease: &Lease) -> Option<Vec<u8>> {
        let address = lease.address.addr();
        let releases = message_type == DhcpMessageType::Release;
        let message = DhcpRepr {
            message_type,
            transaction_id: self.transaction.unwrap_or_default().wrapping_add(1),
            secs: 0,
            client_hardware_address: self.mac.into(),
            // RFC 2131 table 5: one that is released is still the client's, one that is declined never was.
            client_ip: if releases { address } else { Ipv4Addr::UNSPECIFIED },
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: (!releases).then_some(address),
            client_identifier: Some(self.mac.into()),
            server_identifier: Some(lease.server),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut DhcpPacket::new_unchecked(&mut body)).ok()?;
        Some(body)
    }

    /// The link has come up again, perhaps another one: looks for a server, and keeps the lease meanwhile.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.confirming = self.lease.is_some();
        self.restart(now);
    }

    /// Has the socket begin anew at `at`, and takes note of its losing its lease.
    fn restart(&mut self, at: Instant) {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        socket.reset();
        while socket.poll().is_some() {}
        self.acknowledged = None;
        self.transaction = None;
        self.wire.inward.clear();
        self.quiet = Some(at);
        self.deadline = Some(at);
    }

    /// Takes what the interface said: answers its questions for neighbours, passes the rest on.
    fn drain(&mut self, said: &mut Vec<Said>) {
        for frame in std::mem::take(&mut self.wire.outward) {
            let Some((header, packet)) = frame.split_at_checked(ETHERNET) else {
                continue;
            };
            match EthernetProtocol::from(u16::from_be_bytes([header[12], header[13]])) {
                EthernetProtocol::Arp => self.wire.inward.extend(self.neighbour(packet)),
                EthernetProtocol::Ipv4 => {
                    // Behind an IPv4 header without options and one of UDP.
                    if let Some(Ok(message)) = packet.get(28..).map(DhcpPacket::new_checked) {
                        self.transaction = Some(message.transaction_id());
                    }
                    let Some(dst) = packet.get(16..).and_then(|b| b.first_chunk::<4>()) else {
                        continue;
                    };
                    let dst = Ipv4Addr::from(*dst);
                    said.push(if dst.is_broadcast() {
                        Said::All(packet.to_vec())
                    } else {
                        Said::To(dst, packet.to_vec())
                    });
                }
                EthernetProtocol::Ipv6 | EthernetProtocol::Unknown(_) => {}
            }
        }
    }

    /// The answer to the interface's ARP request `message`.
    fn neighbour(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = ArpPacket::new_checked(message).ok()?;
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr: asker,
            target_protocol_addr: target,
            ..
        }) = ArpRepr::parse(&message)
        else {
            return None;
        };
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: NOBODY,
            source_protocol_addr: target,
            target_hardware_addr: self.mac.into(),
            target_protocol_addr: asker,
        };
        let mut frame = vec![0; ETHERNET + answer.buffer_len()];
        frame[..6].copy_from_slice(&self.mac.0);
        frame[6..12].copy_from_slice(&NOBODY.0);
        frame[12..14].copy_from_slice(&u16::from(EthernetProtocol::Arp).to_be_bytes());
        answer.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        Some(frame)
    }

    /// Follows what the socket says of its lease.
    fn events(&mut self) {
        let mut lost = false;
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        while let Some(event) = socket.poll() {
            match event {
                Event::Configured(config) => {
                    let addr = config.address.address();
                    let acknowledged = self.acknowledged.take();
                    if let Some(lease) = acknowledged.filter(|lease| lease.address.addr() == addr) {
                        self.lease = Some(lease);
                        self.confirming = false;
                    } else {
                        // Two servers' words crossed: begin again rather than use half of each.
                        lost = true;
                    }
                }
                Event::Deconfigured if self.confirming => {}
                Event::Deconfigured => self.lease = None,
            }
        }
        if lost {
            socket.reset();
        }
    }

    /// Follows an acknowledgement that brought the socket nothing new: a renewal, whose other options may be new to us.
    fn renewed(&mut self) {
        let acknowledged = self.acknowledged.take();
        if let Some(old) = &mut self.lease
            && let Some(new) = acknowledged
            && !self.confirming
            && new.address == old.address
        {
            *old = new;
        }
    }

    fn set_deadline(&mut self, now: Instant) {
        let poll = self
            .interface
            .poll_at(now.into(), &self.sockets)
            .map(|at| Instant::from_micros(u64::try_from(at.total_micros()).unwrap_or_default()));
        let lease = self.lease.as_ref().filter(|_| self.confirming);
        let times = [poll, lease.map(|lease| lease.expires)];
        self.deadline = times.into_iter().flatten().min();
    }
}

/// The IPv4 packet of a client's message.
fn datagram(src: Ipv4Addr, dst: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let (src, dst) = (IpAddr::V4(src), IpAddr::V4(dst));
    let len = 8 + message.len();
    let mut udp = Vec::with_capacity(len);
    for field in [CLIENT, SERVER, len as u16, 0] {
        udp.extend(field.to_be_bytes());
    }
    udp.extend(message);
    // RFC 768: a sum of zero is sent as all ones.
    let whole = match sum::whole(src, dst, IpProtocol::Udp, &udp) {
        0 => 0xffff,
        whole => whole,
    };
    udp[6..8].copy_from_slice(&whole.to_be_bytes());
    let ip = IpRepr::new(src, dst, IpProtocol::Udp);
    let mut packet = vec![0; ip.header_len()];
    ip.emit(&mut packet, len, 0);
    packet.extend(udp);
    packet
}
