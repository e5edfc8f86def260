//! A DHCP server (RFC 2131, RFC 2132) for one subnet.
//!
//! # Theory of operation
//!
//! An attached container has its address already; DHCP tells it the same one ([`Server::assign`]). Others on the link (a
//! virtual machine behind a port) get an address of a small range at the subnet's end. A lease is held by its client's
//! Ethernet address and bound at the DHCPREQUEST; an offer alone holds its address for half a minute. Both are bounded by
//! the range. A bound address is pinned in [`Neighbours`], so that no other neighbour can claim it.
//!
//! The server is the only one of its subnet, so it says DHCPNAK to whatever is not so (section 4.3.2).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pontoon_switch::frame::Checksum;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload};
use smoltcp::wire::{DhcpPacket, IpAddress, IpProtocol, UdpPacket};

use super::Neighbours;
use crate::config::{Config, Egress, Subnet4};
use crate::cx::Cx;
use crate::packet::{IpRepr, Packet};

/// The server's and the client's port.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Bytes of a message before its options, the magic cookie included (RFC 2131 section 2).
const FIXED: usize = 240;
/// The least message that any relay or client takes (RFC 1542 section 2.1).
const SHORTEST: usize = 300;
/// The least that every client receives, headers of IP and UDP included (RFC 2131 section 2).
const LEAST_MAXIMUM: u16 = 576;

/// Addresses of the range at most.
const RANGE: u32 = 64;
/// How long an offer is held.
const OFFER: Duration = Duration::from_secs(30);
/// A lease's time, in seconds.
const LEASE: u32 = 3600;
/// Declined addresses remembered at most, and for how long: a client that declines whatever it is offered must not use
/// up the range.
const DECLINED: usize = 8;
const DECLINED_FOR: Duration = Duration::from_secs(600);

/// Message types (RFC 2132 section 9.6).
mod kind {
    pub(super) const DISCOVER: u8 = 1;
    pub(super) const OFFER: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const DECLINE: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const NAK: u8 = 6;
    pub(super) const RELEASE: u8 = 7;
    pub(super) const INFORM: u8 = 8;
}

/// Option codes (RFC 2132; 119 is RFC 3397).
mod option {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const NAME_SERVER: u8 = 6;
    pub(super) const DOMAIN_NAME: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const BROADCAST: u8 = 28;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const MESSAGE: u8 = 56;
    pub(super) const MAXIMUM: u8 = 57;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const END: u8 = 255;
}

/// A lease of the range, as listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address.
    pub addr: Ipv4Addr,
    /// Who has it.
    pub mac: MacAddr,
    /// When it ends if it is not renewed.
    pub expires: Instant,
}

#[derive(Debug)]
struct Held {
    mac: MacAddr,
    expires: Instant,
    /// True once the client has requested what it was offered.
    bound: bool,
    /// True if the address is pinned on the lease's account.
    pinned: bool,
}

/// The server's memory.
#[derive(Debug)]
pub(super) struct Server {
    range: Option<(u32, u32)>,
    assigned: HashMap<MacAddr, Ipv4Addr>,
    held: HashMap<Ipv4Addr, Held>,
    declined: VecDeque<(Ipv4Addr, Instant)>,
}

/// What of a client's message counts.
struct Message<'a> {
    xid: [u8; 4],
    secs: [u8; 2],
    broadcast: bool,
    mac: MacAddr,
    ciaddr: Ipv4Addr,
    kind: u8,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    client: Option<&'a [u8]>,
    maximum: u16,
}

/// An answer to be sent.
struct Answer {
    kind: u8,
    /// The client's address: what is offered or confirmed; unspecified for NAK and for INFORM's ACK.
    yours: Ipv4Addr,
    lease: Option<u32>,
    why: &'static str,
}

impl Answer {
    fn nak(why: &'static str) -> Self {
        Self {
            kind: kind::NAK,
            yours: Ipv4Addr::UNSPECIFIED,
            lease: None,
            why,
        }
    }
}

impl Server {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            range: config.subnet4.and_then(range_of),
            assigned: HashMap::new(),
            held: HashMap::new(),
            declined: VecDeque::new(),
        }
    }

    pub(super) fn assign(&mut self, mac: MacAddr, addr: Ipv4Addr) {
        // Address management has the last word: a lease of that address ends here, and so do those of that client.
        self.held.retain(|&held, h| held != addr && h.mac != mac);
        self.assigned.insert(mac, addr);
    }

    pub(super) fn unassign(&mut self, mac: MacAddr) {
        self.assigned.remove(&mac);
    }

    pub(super) fn range(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.range.map(|(a, b)| (a.into(), b.into()))
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = Lease> + '_ {
        let bound = self.held.iter().filter(|(_, h)| h.bound);
        bound.map(|(&addr, h)| Lease {
            addr,
            mac: h.mac,
            expires: h.expires,
        })
    }

    /// Ends what is over.
    pub(super) fn expire(&mut self, now: Instant, neighbours: &mut Neighbours) {
        while self.declined.front().is_some_and(|&(_, until)| until <= now) {
            self.declined.pop_front();
        }
        if self.held.values().all(|h| h.expires > now) {
            return;
        }
        self.held.retain(|&addr, h| {
            let keep = h.expires > now;
            if !keep {
                unpin(neighbours, addr, h);
            }
            keep
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        // At most 64 leases.
        self.held.values().map(|h| h.expires).min()
    }

    pub(super) fn handle<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        frame: &Frame<'_>,
    ) -> Result<(), DropReason> {
        let subnet = cx.config.subnet4.ok_or(DropReason::UnknownProtocol)?;
        let payload = datagram(packet, frame)?;
        let message = parse(payload)?;
        // A client speaks for itself alone; else one neighbour could use up the range or end another's lease.
        if message.mac != packet.src_mac || !message.mac.is_unicast() || message.mac == cx.config.mac {
            return Err(DropReason::BadSourceAddress);
        }
        self.expire(cx.now, cx.neighbours);
        if let Some(answer) = self.decide(cx.now, cx.neighbours, subnet, &message) {
            send(cx, subnet, &message, &answer);
        }
        Ok(())
    }

    /// The answer to `m`, if there is one (RFC 2131 section 4.3).
    fn decide(
        &mut self,
        now: Instant,
        neighbours: &mut Neighbours,
        subnet: Subnet4,
        m: &Message<'_>,
    ) -> Option<Answer> {
        match m.kind {
            kind::DISCOVER => {
                let addr = self.choose(now, neighbours, subnet, m.mac, m.requested)?;
                self.hold(now + OFFER, addr, m.mac);
                Some(Answer {
                    kind: kind::OFFER,
                    yours: addr,
                    lease: Some(LEASE),
                    why: "",
                })
            }
            kind::REQUEST => self.request(now, neighbours, subnet, m),
            kind::DECLINE => {
                if let Some(addr) = m
                    .requested
                    .filter(|a| self.held.get(a).is_some_and(|h| h.mac == m.mac))
                {
                    self.give_up(neighbours, addr);
                    if self.declined.len() >= DECLINED {
                        self.declined.pop_front();
                    }
                    self.declined.push_back((addr, now + DECLINED_FOR));
                }
                None
            }
            kind::RELEASE => {
                if self.held.get(&m.ciaddr).is_some_and(|h| h.mac == m.mac) {
                    self.give_up(neighbours, m.ciaddr);
                }
                None
            }
            kind::INFORM if subnet.net.contains(&m.ciaddr) => Some(Answer {
                kind: kind::ACK,
                yours: Ipv4Addr::UNSPECIFIED,
                lease: None,
                why: "",
            }),
            _ => None,
        }
    }

    /// DHCPREQUEST in each of a client's states (section 4.3.2).
    fn request(
        &mut self,
        now: Instant,
        neighbours: &mut Neighbours,
        subnet: Subnet4,
        m: &Message<'_>,
    ) -> Option<Answer> {
        if m.server.is_some_and(|s| s != subnet.gateway) {
            // SELECTING, and another was selected.
            let offered: Vec<Ipv4Addr> = self
                .held
                .iter()
                .filter(|(_, h)| h.mac == m.mac && !h.bound)
                .map(|(&a, _)| a)
                .collect();
            for addr in offered {
                self.give_up(neighbours, addr);
            }
            return None;
        }
        // SELECTING and INIT-REBOOT name the address in the option, RENEWING and REBINDING have it.
        let addr = match m.requested {
            Some(addr) => addr,
            None if !m.ciaddr.is_unspecified() => m.ciaddr,
            None => return Some(Answer::nak("no address requested")),
        };
        if !subnet.net.contains(&addr) {
            return Some(Answer::nak("wrong network"));
        }
        // A client that has outlived our memory of it keeps its address if nobody else has it.
        if self.choose(now, neighbours, subnet, m.mac, Some(addr)) != Some(addr) {
            return Some(Answer::nak("not your address"));
        }
        self.hold(now + Duration::from_secs(LEASE.into()), addr, m.mac);
        if let Some(h) = self.held.get_mut(&addr) {
            h.bound = true;
            if neighbours.pinned(addr.into()).is_none() {
                neighbours.pin(addr.into(), m.mac);
                h.pinned = true;
            }
        }
        Some(Answer {
            kind: kind::ACK,
            yours: addr,
            lease: Some(LEASE),
            why: "",
        })
    }

    /// The address for `mac`: assigned, held, the one it wants, or the next free one.
    fn choose(
        &self,
        now: Instant,
        neighbours: &Neighbours,
        subnet: Subnet4,
        mac: MacAddr,
        want: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        if let Some(&addr) = self.assigned.get(&mac) {
            return Some(addr);
        }
        if let Some((&addr, _)) = self.held.iter().find(|(_, h)| h.mac == mac) {
            return Some(addr);
        }
        let (first, last) = self.range?;
        let free = |addr: &Ipv4Addr| {
            !subnet.is_gateway(*addr)
                && !self.held.contains_key(addr)
                && !self.assigned.values().any(|a| a == addr)
                && !self.declined.iter().any(|&(a, until)| a == *addr && until > now)
                && neighbours.lookup(IpAddr::V4(*addr)).is_none_or(|m| m == mac)
        };
        let wanted = want.filter(|&a| (first..=last).contains(&u32::from(a)) && free(&a));
        wanted.or_else(|| (first..=last).map(Ipv4Addr::from).find(free))
    }

    /// Holds `addr` for `mac` until `expires`, if it is of the range; an assigned address needs no holding.
    fn hold(&mut self, expires: Instant, addr: Ipv4Addr, mac: MacAddr) {
        if self.assigned.contains_key(&mac) {
            return;
        }
        let h = self.held.entry(addr).or_insert(Held {
            mac,
            expires,
            bound: false,
            pinned: false,
        });
        h.expires = h.expires.max(expires);
    }

    fn give_up(&mut self, neighbours: &mut Neighbours, addr: Ipv4Addr) {
        if let Some(h) = self.held.remove(&addr) {
            unpin(neighbours, addr, &h);
        }
    }
}

fn unpin(neighbours: &mut Neighbours, addr: Ipv4Addr, h: &Held) {
    if h.pinned && neighbours.pinned(addr.into()) == Some(h.mac) {
        neighbours.unpin(addr.into());
    }
}

/// The range that is asked for, or the last quarter of the subnet's addresses, at most [`RANGE`] of them.
fn range_of(subnet: Subnet4) -> Option<(u32, u32)> {
    if let Some((first, last)) = subnet.dhcp {
        return Some((first.into(), last.into()));
    }
    if subnet.net.prefix_len() > 29 {
        return None;
    }
    let (network, broadcast) = (u32::from(subnet.net.network()), u32::from(subnet.net.broadcast()));
    let count = ((broadcast - network - 1) / 4).min(RANGE);
    Some((broadcast - count, broadcast - 1))
}

/// The payload of the UDP datagram in `packet`, checked.
fn datagram<'f>(packet: &Packet, frame: &'f Frame<'_>) -> Result<&'f [u8], DropReason> {
    if packet.fragment.is_some() || packet.protocol != IpProtocol::Udp {
        return Err(DropReason::Malformed);
    }
    let udp = UdpPacket::new_checked(packet.transport(frame)).map_err(|_| DropReason::Malformed)?;
    let (src, dst) = (IpAddress::from(packet.src), IpAddress::from(packet.dst));
    if frame.offload.checksum == Checksum::Complete && !udp.verify_checksum(&src, &dst) {
        return Err(DropReason::BadChecksum);
    }
    if udp.dst_port() != SERVER_PORT {
        return Err(DropReason::UnknownProtocol);
    }
    Ok(udp.payload())
}

fn parse(payload: &[u8]) -> Result<Message<'_>, DropReason> {
    let dhcp = DhcpPacket::new_checked(payload).map_err(|_| DropReason::Malformed)?;
    // BOOTREQUEST over Ethernet, with DHCP's cookie, not from a relay.
    if payload.len() < FIXED || payload[..3] != [1, 1, 6] || payload[236..FIXED] != [0x63, 0x82, 0x53, 0x63] {
        return Err(DropReason::Malformed);
    }
    if !dhcp.relay_agent_ip().is_unspecified() {
        return Err(DropReason::Forbidden);
    }
    let mut m = Message {
        xid: [payload[4], payload[5], payload[6], payload[7]],
        secs: [payload[8], payload[9]],
        broadcast: payload[10] & 0x80 != 0,
        mac: dhcp.client_hardware_address().into(),
        ciaddr: dhcp.client_ip(),
        kind: 0,
        requested: None,
        server: None,
        client: None,
        maximum: LEAST_MAXIMUM,
    };
    let address = |data: &[u8]| data.first_chunk::<4>().map(|b| Ipv4Addr::from(*b));
    let mut rest = &payload[FIXED..];
    while let &[code, ref tail @ ..] = rest {
        match code {
            0 => {
                rest = tail;
                continue;
            }
            option::END => break,
            _ => {}
        }
        let Some((&len, tail)) = tail.split_first() else {
            return Err(DropReason::Malformed);
        };
        let Some((data, tail)) = tail.split_at_checked(len.into()) else {
            return Err(DropReason::Malformed);
        };
        rest = tail;
        match (code, data) {
            (option::MESSAGE_TYPE, &[k]) => m.kind = k,
            (option::REQUESTED, _) => m.requested = address(data),
            (option::SERVER, _) => m.server = address(data),
            (option::CLIENT, _) => m.client = Some(data),
            (option::MAXIMUM, &[a, b]) => m.maximum = u16::from_be_bytes([a, b]).max(LEAST_MAXIMUM),
            _ => {}
        }
    }
    if m.kind == 0 {
        return Err(DropReason::Malformed);
    }
    Ok(m)
}

/// Writes options one behind the other, leaving out what does not fit.
struct Options<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl Options<'_> {
    fn put(&mut self, code: u8, data: &[u8]) {
        // One byte stays for the end.
        if data.is_empty() || data.len() > 255 || self.at + 2 + data.len() + 1 > self.buf.len() {
            return;
        }
        self.buf[self.at] = code;
        self.buf[self.at + 1] = data.len() as u8;
        self.buf[self.at + 2..self.at + 2 + data.len()].copy_from_slice(data);
        self.at += 2 + data.len();
    }

    fn end(self) -> usize {
        self.buf[self.at] = option::END;
        self.at + 1
    }
}

/// Sends `answer` where section 4.1 says.
fn send<H>(cx: &mut Cx<'_, H>, subnet: Subnet4, m: &Message<'_>, answer: &Answer) {
    let nak = answer.kind == kind::NAK;
    let (mac, to) = if nak {
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    } else if !m.ciaddr.is_unspecified() {
        (m.mac, m.ciaddr)
    } else if m.broadcast || answer.yours.is_unspecified() {
        (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
    } else {
        (m.mac, answer.yours)
    };
    let config = cx.config;
    let largest = usize::from(m.maximum.min(config.mtu).max(LEAST_MAXIMUM)) - 28;
    let buf = cx.payload(to.into());
    let message = &mut buf[8..8 + largest];
    message.fill(0);
    message[..4].copy_from_slice(&[2, 1, 6, 0]);
    message[4..8].copy_from_slice(&m.xid);
    message[8..10].copy_from_slice(&m.secs);
    message[10] = if m.broadcast { 0x80 } else { 0 };
    if !nak {
        message[12..16].copy_from_slice(&m.ciaddr.octets());
        message[16..20].copy_from_slice(&answer.yours.octets());
    }
    message[28..34].copy_from_slice(&m.mac.0);
    message[236..FIXED].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let mut options = Options {
        buf: &mut message[FIXED..],
        at: 0,
    };
    options.put(option::MESSAGE_TYPE, &[answer.kind]);
    options.put(option::SERVER, &subnet.gateway.octets());
    // RFC 6842: the client's identifier comes back as it was.
    options.put(option::CLIENT, m.client.unwrap_or_default());
    if nak {
        options.put(option::MESSAGE, answer.why.as_bytes());
    } else {
        if let Some(lease) = answer.lease {
            options.put(option::LEASE_TIME, &lease.to_be_bytes());
            options.put(option::RENEWAL, &(lease / 2).to_be_bytes());
            options.put(option::REBINDING, &(lease / 8 * 7).to_be_bytes());
        }
        let gateway = subnet.gateway.octets();
        options.put(option::SUBNET_MASK, &subnet.net.netmask().octets());
        match config.egress {
            Egress::Host | Egress::Uplink => options.put(option::ROUTER, &gateway),
            Egress::None => {}
        }
        if let Some(server) = subnet.name_server() {
            options.put(option::NAME_SERVER, &server.octets());
        }
        options.put(option::BROADCAST, &subnet.net.broadcast().octets());
        options.put(option::MTU, &config.mtu.to_be_bytes());
        let domain = config.search.first().map(String::as_bytes).unwrap_or_default();
        options.put(option::DOMAIN_NAME, domain);
        options.put(option::SEARCH, &super::encode_domains(&config.search, 255));
    }
    let length = (FIXED + options.end()).max(SHORTEST);

    let mut udp = UdpPacket::new_unchecked(&mut buf[..8 + length]);
    udp.set_src_port(SERVER_PORT);
    udp.set_dst_port(CLIENT_PORT);
    udp.set_len((8 + length) as u16);
    // Clients read packet sockets, where a partial checksum is a wrong one: it is whole.
    udp.fill_checksum(&subnet.gateway.into(), &to.into());
    let ip = IpRepr::new(subnet.gateway.into(), to.into(), IpProtocol::Udp);
    cx.transmit_to(mac, &ip, 8 + length, Offload::NONE);
}
