//! A link of the gateway's besides its switch: its addresses there, and whom it reaches by it.
//!
//! # Theory of operation
//!
//! On an uplink the gateway is a *host* among others, not the one whom the others ask. [`Uplink`] is that host, as far as
//! there is no more to it than the link: its addresses ([`addresses`]), where they come from ([`dhcp`], [`slaac`]), its
//! neighbours' Ethernet addresses and the packets that wait for them ([`neighbours`], [`queue`]), the groups that it listens
//! to ([`mld`]), and what it says to all that ([`wire`]). What it does not do is IP: a packet that is not the link's own
//! business is given to the router ([`Received::Packet`]), which translates and forwards it, and gives it back with a next hop
//! ([`Uplink::transmit`]).
//!
//! ```text
//!   frame ──► receive ─┬─ ARP, neighbour and listener discovery, router advertisements, DHCP ──► taken here
//!                      └─ IP ──► Received::Packet ──► router
//!   router ──► hop(dst) ──► transmit ─┬─ address known ──► out.send_by
//!                                     └─ not yet ──► waits ─┬─ answer ──► out.send_by
//!                                                           └─ none ────► UplinkEvent::Unreachable ──► router
//! ```
//!
//! This link is the outside: whoever is on it may say anything. Nothing here grows with what strangers send, and what is
//! learned can be no worse than on any Ethernet. A packet socket sees frames for others, which are passed over in silence.
//! It does not tell of carrier: that the link is up again is for others to find out and say ([`Uplink::renew`]).
//!
//! A link to another gateway ([`LinkKind::Peer`]) is a cable between two stations: no addresses, no questions; every frame
//! goes to the one who is there.
//!
//! What a host on an Ethernet may do and this one does not: follow redirects, pick routers at random among equals, send from
//! temporary addresses.

mod addresses;
mod dhcp;
mod events;
mod hear;
mod mld;
mod neighbours;
mod queue;
mod receive;
mod routers;
mod slaac;
#[cfg(test)]
mod tests;
mod wire;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Out, PortId};
use serde::{Deserialize, Serialize};
use smoltcp::wire::EthernetProtocol;

pub use events::UplinkEvent;
pub use receive::Received;

use super::config::{Addressing4, Addressing6, LinkKind, UplinkConfig};
use crate::packet::ETHERNET;
use addresses::{Addresses, Origin};
use dhcp::{Client, Said};
use events::Events;
use mld::Listener;
use neighbours::{Due, Neighbours, Way};
use queue::Waiting;
use slaac::Discovery;
use wire::Wire;

/// A link as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// The gateway's Ethernet address on it.
    pub mac: MacAddr,
    /// MTU in bytes.
    pub mtu: u16,
    /// The gateway's addresses on it with their prefixes.
    pub addresses: Vec<IpNet>,
    /// The routers that it uses.
    pub gateways: Vec<IpAddr>,
    /// The name servers that DHCP and router advertisements tell.
    pub resolvers: Vec<IpAddr>,
}

/// One link of the gateway's, of either kind.
#[derive(Debug)]
pub struct Uplink {
    port: PortId,
    config: UplinkConfig,
    addresses: Addresses,
    neighbours: Neighbours,
    listener: Listener,
    events: Events,
    /// Routers of the configuration.
    gateways: Vec<IpAddr>,
    dhcp: Option<Box<Client>>,
    discovery: Option<Discovery>,
}

impl Uplink {
    /// The link at `port` as `config` describes it. Nothing is sent yet, but something is due at once. `secret` is for what
    /// strangers should not guess.
    pub fn new(port: PortId, config: UplinkConfig, secret: (u64, u64), now: Instant) -> Self {
        let mut uplink = Self {
            port,
            addresses: Addresses::default(),
            neighbours: Neighbours::new(),
            listener: Listener::new(secret),
            events: Events::default(),
            gateways: Vec::new(),
            dhcp: None,
            discovery: None,
            config,
        };
        let (ipv4, ipv6) = uplink.addressing();
        let (mac, mtu) = (uplink.config.mac, uplink.config.mtu);
        match ipv4 {
            Some(Addressing4::Static { address, gateway }) => {
                uplink.add(now, address.into(), Origin::Static);
                uplink.gateways.extend(gateway.map(IpAddr::from));
            }
            Some(Addressing4::Dhcp) => {
                let seed = secret.0 ^ secret.1.rotate_left(port.0 % 64);
                uplink.dhcp = Some(Box::new(Client::new(mac, mtu, seed, now)));
            }
            None => {}
        }
        if ipv6.is_some() {
            uplink.add(now, addresses::link_local(mac).into(), Origin::LinkLocal);
        }
        match ipv6 {
            Some(Addressing6::Static { address, gateway }) => {
                uplink.add(now, address.into(), Origin::Static);
                uplink.gateways.extend(gateway.map(IpAddr::from));
                uplink.discovery = gateway.is_none().then(|| Discovery::new(now));
            }
            Some(Addressing6::Slaac) => uplink.discovery = Some(Discovery::new(now)),
            None => {}
        }
        uplink
    }

    /// The link's port.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// What the link was told to be.
    pub fn config(&self) -> &UplinkConfig {
        &self.config
    }

    /// The largest IP packet of `like`'s version that the link takes, in bytes: what the configuration says, or less if a
    /// server or a router says so.
    pub fn mtu(&self, like: IpAddr) -> u16 {
        let told = match like {
            IpAddr::V4(_) => self.lease().and_then(|lease| lease.mtu),
            IpAddr::V6(_) => self.discovery.as_ref().and_then(Discovery::mtu),
        };
        told.map_or(self.config.mtu, |mtu| mtu.min(self.config.mtu))
    }

    /// The gateway's own global address of `like`'s version; none if it has none (yet).
    pub fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.global(like)
    }

    /// True if `addr` is the gateway's on this link, IPv6's link-local one included.
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.addresses.owns(addr)
    }

    /// Sends `frame`, whole but for its Ethernet header, to the next hop `hop` ([`Uplink::hop`]), as soon as that one's Ethernet
    /// address is known. A frame that cannot wait, or that a later one takes the place of, is counted
    /// [`DropReason::NoNeighbour`]; so is one whose next hop does not answer, which [`UplinkEvent::Unreachable`] tells of.
    pub fn transmit(&mut self, now: Instant, frame: &mut Frame<'_>, hop: IpAddr, out: &mut dyn Out) {
        if frame.len() < ETHERNET {
            out.drop(None, DropReason::BadLength);
            return;
        }
        let ours = self.config.mac;
        let ethertype = match hop {
            IpAddr::V4(_) => EthernetProtocol::Ipv4,
            IpAddr::V6(_) => EthernetProtocol::Ipv6,
        };
        let header = &mut frame.bytes_mut()[..ETHERNET];
        header[6..12].copy_from_slice(&ours.0);
        header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
        let mut due = Due::default();
        let way = match self.config.kind {
            LinkKind::Peer { mac, .. } => Way::To(mac),
            LinkKind::World { .. } => self.neighbours.way(now, hop, &mut due),
        };
        match way {
            Way::To(mac) => {
                frame.bytes_mut()[..6].copy_from_slice(&mac.0);
                out.send_by(self.port, frame);
            }
            Way::Wait => {
                for _ in 0..self.neighbours.keep(hop, frame) {
                    out.drop(None, DropReason::NoNeighbour);
                }
            }
            Way::Failed => {
                self.events.unreachable(frame.bytes(), frame.offload);
                out.drop(None, DropReason::NoNeighbour);
            }
        }
        self.settle(due, out);
    }

    /// Does what is due: questions, announcements, leases, lifetimes.
    pub fn flush(&mut self, now: Instant, out: &mut dyn Out) {
        // Groups first: who asks for an address listens at its group already.
        if self.listener.deadline().is_some_and(|at| at <= now) {
            let from = self.link_local();
            let mut wire = Wire::new(self.port, self.config.mac, out);
            self.listener.flush(now, from, &mut wire);
        }
        self.flush_dhcp(now, out);
        self.flush_discovery(now, out);
        if self.addresses.deadline().is_some_and(|at| at <= now) {
            let mut wire = Wire::new(self.port, self.config.mac, out);
            self.addresses.flush(now, &mut wire, &mut self.events);
            self.listen(now);
        }
        if self.neighbours.deadline().is_some_and(|at| at <= now) {
            let routers: Vec<IpAddr> = self.routers().collect();
            let due = self.neighbours.expire(now, |addr| routers.contains(&addr));
            self.settle(due, out);
        }
    }

    /// When [`Uplink::flush`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let times = [
            self.dhcp.as_ref().and_then(|dhcp| dhcp.deadline()),
            self.discovery.as_ref().and_then(Discovery::deadline),
            self.addresses.deadline(),
            self.listener.deadline(),
            self.neighbours.deadline(),
        ];
        times.into_iter().flatten().min()
    }

    /// True if `addr` is the gateway's own here, or is to be when it turns out that nobody has it.
    pub(super) fn claims(&self, addr: IpAddr) -> bool {
        self.addresses.has(addr)
    }

    /// The next thing that the router should know.
    pub fn take_event(&mut self) -> Option<UplinkEvent> {
        self.events.take()
    }

    /// The link has come up again, and may lead elsewhere: DHCP looks whether its lease is still good, routers are solicited,
    /// our addresses are announced, our groups reported, and neighbours are asked before they are believed for long.
    pub fn renew(&mut self, now: Instant) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.confirm(now);
        }
        if let Some(discovery) = &mut self.discovery {
            discovery.solicit(now);
        }
        self.addresses.announce_again(now);
        self.listener.report_again(now);
        self.neighbours.doubt(now);
    }

    /// The gateway leaves the link for good: what a server has lent is given back.
    pub fn leave(&mut self, out: &mut dyn Out) {
        if let Some((mac, packet)) = self.dhcp.as_mut().and_then(|dhcp| dhcp.release()) {
            self.wire(out)
                .send(&mut framed(&packet), mac, EthernetProtocol::Ipv4);
        }
    }

    /// The link as it is now.
    pub fn status(&self) -> UplinkStatus {
        let leased = self.lease().map_or(&[][..], |lease| &lease.resolvers);
        let leased = leased.iter().map(|&addr| IpAddr::V4(addr));
        let discovery = self.discovery.iter();
        let advertised = discovery.flat_map(Discovery::resolvers);
        UplinkStatus {
            mac: self.config.mac,
            mtu: self.config.mtu,
            addresses: self.addresses.usable().collect(),
            gateways: self.routers().collect(),
            resolvers: leased.chain(advertised).collect(),
        }
    }

    fn addressing(&self) -> (Option<Addressing4>, Option<Addressing6>) {
        match self.config.kind {
            LinkKind::World { ipv4, ipv6, .. } => (ipv4, ipv6),
            LinkKind::Peer { .. } => (None, None),
        }
    }

    fn add(&mut self, now: Instant, net: IpNet, origin: Origin) {
        self.addresses.add(now, net, origin, &mut self.events);
        self.listen(now);
    }

    fn lease(&self) -> Option<&dhcp::Lease> {
        self.dhcp.as_ref().and_then(|dhcp| dhcp.lease())
    }

    fn link_local(&self) -> Ipv6Addr {
        addresses::link_local(self.config.mac).addr()
    }

    /// The way onto the link.
    fn wire<'a>(&self, out: &'a mut dyn Out) -> Wire<'a> {
        Wire::new(self.port, self.config.mac, out)
    }

    /// Sends the questions of `due`, and gives up what failed.
    fn settle(&mut self, due: Due, out: &mut dyn Out) {
        for ask in due.asks {
            let asker = self.addresses.asker(ask.target);
            self.wire(out).ask(ask, asker);
        }
        for waiting in due.failed {
            self.events.unreachable(waiting.bytes(), waiting.offload());
            out.drop(None, DropReason::NoNeighbour);
        }
    }

    /// Sends what has waited to `mac`.
    fn release(&mut self, waiting: Vec<Waiting>, mac: MacAddr, out: &mut dyn Out) {
        for mut waiting in waiting {
            out.send_by(self.port, &mut waiting.to(mac));
        }
    }

    fn flush_dhcp(&mut self, now: Instant, out: &mut dyn Out) {
        let Some(dhcp) = &mut self.dhcp else {
            return;
        };
        if dhcp.deadline().is_none_or(|at| at > now) {
            return;
        }
        let mut said = Vec::new();
        if dhcp.poll(now, &mut said) {
            let address: Option<Ipv4Net> = dhcp.lease().map(|lease| lease.address);
            self.addresses.lease(now, address, &mut self.events);
        }
        for said in said {
            self.say(now, said, out);
        }
    }

    /// Sends what the DHCP client says.
    fn say(&mut self, now: Instant, said: Said, out: &mut dyn Out) {
        match said {
            Said::All(packet) => {
                let mut buf = framed(&packet);
                self.wire(out)
                    .send(&mut buf, MacAddr::BROADCAST, EthernetProtocol::Ipv4);
            }
            Said::To(dst, packet) => {
                let mut buf = framed(&packet);
                let end = buf.len();
                let mut frame = Frame::new(&mut buf, HEADROOM, end, pontoon_switch::Offload::NONE);
                let hop = self.hop(dst.into()).unwrap_or(IpAddr::V4(dst));
                self.transmit(now, &mut frame, hop, out);
            }
        }
    }

    fn flush_discovery(&mut self, now: Instant, out: &mut dyn Out) {
        if let Some(discovery) = &mut self.discovery
            && discovery.flush(now)
        {
            let from = self.link_local();
            self.wire(out).solicit_routers(from);
        }
    }
}

/// `packet` behind [`HEADROOM`] and the room for an Ethernet header.
fn framed(packet: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; HEADROOM + ETHERNET];
    buf.extend(packet);
    buf
}
