//! The gateway as a station: sorts frames to its parts and lends them what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::station::TURN;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Out, PortId, Ready, Station};
use smoltcp::wire::{EthernetProtocol, IpProtocol};

use crate::config::{Config, Forbidden};
use crate::cx::Cx;
use crate::dns::{self, Dns};
use crate::flow::{self, FlowView, Limits, Protocol};
use crate::fragment::Reassembler;
use crate::host::real::RealHost;
use crate::host::{Host, IpVersion, Kind, Token};
use crate::icmp::{self, ContainerError, IcmpError};
use crate::link::{Link, Neighbours};
use crate::packet::Packet;
use crate::publish::{RuleId, Sources, Target, Transport};
use crate::share::Shares;
use crate::slab::Key;
use crate::udp::Datagram;
use crate::{tcp, udp};

mod endpoints;

/// A container on the network, as the gateway knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its port on the switch.
    pub port: PortId,
    /// Its name, for people.
    pub name: String,
    /// The names that the gateway's DNS has for it: its own, aliases. The first is what its addresses are called.
    pub names: Vec<String>,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses, of either IP version or both; none if they are its own business.
    pub addresses: Vec<IpAddr>,
}

/// A port to publish: a bound socket of the host, and what it leads to.
#[derive(Debug)]
pub struct Published {
    /// The container's port on the switch.
    pub port: PortId,
    /// TCP (a listening socket) or UDP.
    pub transport: Transport,
    /// The container's address and port.
    pub container: SocketAddr,
    /// The socket.
    pub socket: OwnedFd,
}

/// Secrets that keep what attackers choose from being foreseen.
#[derive(Clone, Copy, Debug)]
pub struct Secrets {
    /// Key of the conntrack table's index.
    pub index: (u64, u64),
    /// Key of TCP's initial sequence numbers.
    pub sequence: (u64, u64),
}

impl Secrets {
    /// Random ones.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0u8; 32];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
        }
        let word = |i: usize| {
            bytes[i * 8..]
                .first_chunk::<8>()
                .map_or(0, |b| u64::from_ne_bytes(*b))
        };
        Ok(Self {
            index: (word(0), word(1)),
            sequence: (word(2), word(3)),
        })
    }
}

/// What all parts of the gateway share.
#[derive(Debug)]
struct Shared<H> {
    host: H,
    flows: flow::Table,
    config: Config,
    neighbours: Neighbours,
    buf: Box<[u8]>,
    shares: Shares,
    sources: Sources,
    errors: icmp::RateLimiter,
    ident: u16,
}

impl<H> Shared<H> {
    fn cx<'a>(&'a mut self, now: Instant, out: &'a mut dyn Out) -> Cx<'a, H> {
        Cx {
            now,
            out,
            host: &mut self.host,
            flows: &mut self.flows,
            config: &self.config,
            neighbours: &mut self.neighbours,
            buf: &mut self.buf,
            shares: &mut self.shares,
            sources: &self.sources,
            errors: &mut self.errors,
            ident: &mut self.ident,
        }
    }
}

/// The gateway of one network.
pub struct Gateway<H: Host> {
    shared: Shared<H>,
    link: Link,
    tcp: tcp::Relay<H>,
    udp: udp::Relay<H>,
    echo: icmp::EchoRelay<H>,
    fragments: Reassembler,
    dns: Dns<H>,
    endpoints: BTreeMap<PortId, Endpoint>,
    rules: BTreeMap<RuleId, Rule>,
    next_rule: u32,
    /// Ports of containers whose rules on clients have changed since the last flush.
    resourced: BTreeSet<Target>,
}

/// A publishing rule in force: where its socket is.
#[derive(Clone, Copy, Debug)]
struct Rule {
    port: PortId,
    transport: Transport,
    key: Key,
}

impl<H: Host> Gateway<H> {
    /// A gateway without containers.
    pub fn new(config: Config, host: H, secrets: Secrets) -> Self {
        let limits = Limits {
            total: config.max_flows,
            per_container: config.max_flows_per_container,
        };
        Self {
            link: Link::new(&config),
            tcp: tcp::Relay::new(secrets.sequence),
            udp: udp::Relay::new(),
            echo: icmp::EchoRelay::default(),
            fragments: Reassembler::default(),
            dns: Dns::new(&config),
            shared: Shared {
                host,
                flows: flow::Table::new(limits, secrets.index),
                neighbours: Neighbours::default(),
                buf: vec![0; HEADROOM + MAX_FRAME].into_boxed_slice(),
                shares: Shares::default(),
                sources: Sources::default(),
                errors: icmp::RateLimiter::default(),
                ident: secrets.index.0 as u16,
                config,
            },
            endpoints: BTreeMap::new(),
            rules: BTreeMap::new(),
            next_rule: 1,
            resourced: BTreeSet::new(),
        }
    }

    /// Bounds how many host sockets the containers may hold in all.
    pub fn limit_sockets(&mut self, limit: u32) {
        self.shared.shares.limit(limit);
    }

    /// Bounds how many host sockets name servers may be asked by, within what is bearable at all; they are besides those
    /// of [`Gateway::limit_sockets`].
    pub fn limit_name_sockets(&mut self, limit: usize) {
        self.dns.limit(limit);
    }

    /// The host's sockets.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.shared.host
    }

    /// The conntrack table.
    pub fn table(&self) -> &flow::Table {
        &self.shared.flows
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Leads clients of `listener` to `container` at `port`.
    pub fn publish_tcp(&mut self, port: PortId, container: SocketAddr, listener: H::Listener) -> RuleId {
        let other = |a: &&IpAddr| a.is_ipv4() != container.is_ipv4();
        let alternate = self
            .endpoints
            .get(&port)
            .and_then(|e| e.addresses.iter().find(other).copied());
        let key = self.tcp.publish(port, container, alternate, listener);
        self.add_rule(Rule {
            port,
            transport: Transport::Tcp,
            key,
        })
    }

    /// Leads clients of `socket`, which is bound and not yet watched, to `container` at `port`.
    ///
    /// # Errors
    /// The poll refuses the socket.
    pub fn publish_udp(&mut self, port: PortId, container: SocketAddr, socket: H::Udp) -> io::Result<RuleId> {
        let key = self.udp.publish(&mut self.shared.host, port, container, socket)?;
        Ok(self.add_rule(Rule {
            port,
            transport: Transport::Udp,
            key,
        }))
    }

    /// Sends echo requests by `socket`, a raw one, where the host shuts ping sockets out.
    ///
    /// # Errors
    /// The poll refuses the socket.
    pub fn set_raw(&mut self, version: IpVersion, socket: H::Ping) -> io::Result<()> {
        self.echo.set_raw(&mut self.shared.host, version, socket)
    }

    fn add_rule(&mut self, rule: Rule) -> RuleId {
        let id = RuleId(self.next_rule);
        self.next_rule += 1;
        self.rules.insert(id, rule);
        self.shared.shares.keep(self.rules.len());
        id
    }

    /// The tokens under which published TCP ports report.
    pub fn listener_tokens(&self) -> Vec<Token> {
        self.tcp.listener_tokens()
    }

    /// Takes a published port back. TCP's flows that came by it live on; UDP's, whose socket it was,
    /// end. False if there is no such rule.
    pub fn unpublish(&mut self, rule: RuleId) -> bool {
        let removed = self.rules.remove(&rule);
        self.shared.shares.keep(self.rules.len());
        match removed {
            None => false,
            Some(Rule {
                transport: Transport::Tcp,
                key,
                ..
            }) => self.tcp.unpublish(key),
            Some(Rule {
                transport: Transport::Udp,
                key,
                ..
            }) => self.udp.unpublish(&mut self.shared.flows, key),
        }
    }

    /// Up to `limit` flows from slot `from` of the table on, of `container` if given, and the slot to go on from.
    pub fn flows(
        &self,
        now: Instant,
        container: Option<PortId>,
        from: u32,
        limit: usize,
    ) -> (Vec<(PortId, FlowView)>, Option<u32>) {
        let mut flows = Vec::new();
        for (id, entry) in self.shared.flows.iter_from(from) {
            if container.is_some_and(|c| c != entry.container()) {
                continue;
            }
            if flows.len() == limit {
                return (flows, Some(id.index));
            }
            let reply = match entry.protocol() {
                Protocol::Tcp => self.tcp.reply_tuple(entry),
                Protocol::Udp => self.udp.reply_tuple(entry),
                Protocol::Icmp | Protocol::Icmp6 => self.echo.reply_tuple(entry),
            };
            flows.push((entry.container(), entry.view(now, reply)));
        }
        (flows, None)
    }

    /// Ends every flow, or those of `container`; how many there were.
    pub fn flush_flows(&mut self, now: Instant, container: Option<PortId>, out: &mut dyn Out) -> u64 {
        let doomed: Vec<flow::FlowId> = self
            .shared
            .flows
            .iter_from(0)
            .filter(|(_, e)| container.is_none_or(|c| c == e.container()))
            .map(|(id, _)| id)
            .collect();
        for &id in &doomed {
            if let Some(entry) = self.shared.flows.remove(id) {
                self.end(now, id, &entry, out);
            }
        }
        doomed.len() as u64
    }

    /// Flows by protocol and state, as `tcp/established`.
    pub fn flow_counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (state, n) in self.shared.flows.by_state() {
            *counts
                .entry(format!("{}/{}", state.protocol(), state.name()))
                .or_default() += u64::from(n);
        }
        counts
    }

    /// Upstream name servers from now on.
    pub fn set_resolvers(&mut self, resolvers: Vec<SocketAddr>) {
        self.dns.set_resolvers(resolvers.clone());
        self.shared.config.resolvers = resolvers;
    }

    /// Names besides the containers' from now on.
    pub fn set_hosts(&mut self, hosts: Vec<(String, IpAddr)>) {
        self.dns.set_hosts(&self.shared.config, &hosts);
        self.shared.config.hosts = hosts;
    }

    /// A flow is out of the table: its relay lets go of what it holds for it.
    fn end(&mut self, now: Instant, id: flow::FlowId, entry: &flow::Entry, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        match entry.protocol() {
            Protocol::Tcp => self.tcp.ended(&mut cx, id, entry),
            Protocol::Udp => self.udp.ended(id, entry),
            Protocol::Icmp | Protocol::Icmp6 => self.echo.ended(entry),
        }
    }

    fn ip(&mut self, now: Instant, ingress: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let packet = match Packet::parse(ingress, frame) {
            Ok(packet) => packet,
            Err(reason) => return out.drop(Some(ingress), reason),
        };
        let mut cx = self.shared.cx(now, out);
        if packet.protocol == IpProtocol::Icmpv6
            && packet.fragment.is_none()
            && self.link.icmpv6_link(&mut cx, &packet, frame)
        {
            return;
        }
        if is_dhcp(&packet, frame) {
            return self.link.dhcp(&mut cx, &packet, frame);
        }
        if is_group(packet.dst) {
            // Flooded to all; the gateway's copy has been looked at.
            return;
        }
        self.unicast(now, packet, frame, out);
    }

    /// A whole packet to one destination.
    fn unicast(&mut self, now: Instant, packet: Packet, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        let to_gateway = cx.config.is_gateway(packet.dst);
        let may_send = cx.config.on_link(packet.src) || (to_gateway && is_link_local(packet.src));
        if !may_send {
            return cx.drop(packet.ingress, DropReason::BadSourceAddress);
        }
        if packet.fragment.is_some() {
            if let Some(mut whole) = self.fragments.packet(&mut cx, &packet, frame) {
                let packet = whole.packet;
                self.unicast(now, packet, &mut whole.frame(), out);
            }
            return;
        }
        let is_echo = matches!(packet.protocol, IpProtocol::Icmp | IpProtocol::Icmpv6);
        if cx.config.is_silent(packet.dst) && !is_echo {
            return cx.drop(packet.ingress, DropReason::Forbidden);
        }
        if to_gateway {
            let answered = match packet.protocol {
                IpProtocol::Icmp | IpProtocol::Icmpv6
                    if packet.end - packet.ip > usize::from(cx.config.mtu) =>
                {
                    icmp::answer_echo(&mut cx, &packet, frame);
                    true
                }
                IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                    self.link.echo(&mut cx, &packet, frame);
                    true
                }
                IpProtocol::Udp if is_dns(cx.config, &packet, frame) => {
                    match Datagram::parse(&packet, frame) {
                        Ok(d) => self.dns.query_udp(&mut cx, &packet, d.src.port(), d.data),
                        Err(reason) => cx.drop(packet.ingress, reason),
                    }
                    true
                }
                IpProtocol::Tcp if is_dns(cx.config, &packet, frame) => {
                    self.dns.segment(&mut cx, &packet, frame);
                    true
                }
                _ => false,
            };
            if answered {
                return;
            }
        } else if cx.config.on_link(packet.dst) {
            // A neighbour is asked for by its own Ethernet address, not by the gateway's.
            cx.drop(packet.ingress, DropReason::Forbidden);
            return icmp::send_error(&mut cx, packet.quoted(frame), None, IcmpError::HostUnreachable);
        } else if packet.hop_limit <= 1 {
            cx.drop(packet.ingress, DropReason::HopLimit);
            return icmp::send_error(&mut cx, packet.quoted(frame), None, IcmpError::HopLimitExceeded);
        }
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.packet(&mut cx, &packet, frame),
            IpProtocol::Udp => self.udp.packet(&mut cx, &packet, frame),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.icmp(now, &packet, frame, out),
            _ => {
                let (reason, error) = match cx.config.destination(packet.dst) {
                    Err(Forbidden::NoEgress) if !to_gateway => (DropReason::NoEgress, IcmpError::Prohibited),
                    Ok(_) | Err(_) => (DropReason::UnknownProtocol, IcmpError::ProtocolUnreachable),
                };
                cx.drop(packet.ingress, reason);
                icmp::send_error(&mut cx, packet.quoted(frame), None, error);
            }
        }
    }
}

impl<H: Host> Gateway<H> {
    /// A whole ICMP packet to beyond the link: an echo request, or an error about what the container got.
    fn icmp(&mut self, now: Instant, packet: &Packet, frame: &Frame<'_>, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        match icmp::from_container(&cx, packet, frame) {
            // The container's link has become narrower than its MSS said.
            Ok(ContainerError {
                flow,
                tuple,
                error: IcmpError::PacketTooBig(mtu),
            }) if tuple.protocol == Protocol::Tcp => {
                self.tcp.packet_too_big(&mut cx, flow, mtu);
            }
            // No host socket can send an error on.
            Ok(_) => cx.drop(packet.ingress, DropReason::HostUnsupported),
            Err(DropReason::UnknownProtocol) => self.echo.packet(&mut cx, packet, frame),
            Err(reason) => cx.drop(packet.ingress, reason),
        }
    }
}

impl Gateway<RealHost> {
    /// Sends echo requests by `socket`, a raw one of the front's, where the host shuts ping sockets out.
    ///
    /// # Errors
    /// The descriptor is not a raw socket, or the poll refuses it.
    pub fn set_raw_socket(&mut self, socket: OwnedFd) -> io::Result<()> {
        let (version, socket) = self.shared.host.ping_raw(socket)?;
        self.set_raw(version, socket)
    }

    /// Publishes a port: clients of the host's socket are led to the container.
    ///
    /// # Errors
    /// The descriptor is not a socket of the kind, or the poll refuses it.
    pub fn publish(&mut self, published: Published) -> io::Result<RuleId> {
        let Published {
            port,
            transport,
            container,
            socket,
        } = published;
        match transport {
            Transport::Tcp => {
                let token = self.tcp.next_listener_token();
                let listener = self.shared.host.tcp_listener(socket, token)?;
                Ok(self.publish_tcp(port, container, listener))
            }
            Transport::Udp => {
                let socket = self.shared.host.udp_published(socket)?;
                self.publish_udp(port, container, socket)
            }
        }
    }
}

impl<H: Host> Station for Gateway<H> {
    fn mac(&self) -> MacAddr {
        self.shared.config.mac
    }

    fn frame(&mut self, now: Instant, ingress: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let Some(&[a, b]) = frame.bytes().get(12..14) else {
            return out.drop(Some(ingress), DropReason::BadLength);
        };
        match EthernetProtocol::from(u16::from_be_bytes([a, b])) {
            EthernetProtocol::Arp if self.shared.config.has_subnet() => {
                self.link.arp(&mut self.shared.cx(now, out), ingress, frame);
            }
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 if self.shared.config.has_subnet() => {
                self.ip(now, ingress, frame, out);
            }
            // What went to all is not meant for this gateway more than for others.
            EthernetProtocol::Arp
            | EthernetProtocol::Ipv4
            | EthernetProtocol::Ipv6
            | EthernetProtocol::Unknown(_) => {
                let group = MacAddr::first(frame.bytes()).is_some_and(MacAddr::is_group);
                if !group {
                    out.drop(Some(ingress), DropReason::UnknownProtocol);
                }
            }
        }
    }

    fn ready(&mut self, now: Instant, token: usize, ready: Ready, out: &mut dyn Out) {
        let Some(token) = Token::decode(token) else { return };
        let mut cx = self.shared.cx(now, out);
        match token.kind {
            Kind::Tcp => self.tcp.ready(&mut cx, token, ready),
            Kind::TcpListener => self.tcp.listener_ready(&mut cx, token),
            Kind::UdpMapping | Kind::UdpPublished => self.udp.ready(&mut cx, token, ready),
            Kind::Ping => self.echo.ready(&mut cx, token, ready),
            Kind::Dns => self.dns.ready(&mut cx, token, ready),
        }
    }

    fn flush(&mut self, now: Instant, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        for (container, transport, port) in std::mem::take(&mut self.resourced) {
            match transport {
                Transport::Tcp => self.tcp.end_denied(&mut cx, container, port),
                Transport::Udp => self.udp.end_denied(&mut cx, container, port),
            }
        }
        self.link.flush(&mut cx);
        self.tcp.flush(&mut cx);
        self.udp.flush(&mut cx);
        self.echo.flush(&mut cx);
        self.fragments.expire(&mut cx);
        self.dns.flush(&mut cx);
        while let Some((id, entry)) = self.shared.flows.pop_ended(now) {
            self.end(now, id, &entry, out);
        }
    }

    fn costly(&self) -> u64 {
        // A socket is a turn's worth; the first packet to somebody costs the host a route and a neighbour, a question to a
        // resolver about as much.
        TURN * (self.shared.shares.asked() + self.dns.opened()) + self.shared.flows.asked() + self.dns.sent()
    }

    fn deadline(&self) -> Option<Instant> {
        [
            self.link.deadline(),
            self.tcp.deadline(),
            self.udp.deadline(),
            self.echo.deadline(),
            self.fragments.deadline(),
            self.dns.deadline(),
            self.shared.flows.deadline(),
            (!self.resourced.is_empty()).then_some(Instant::ZERO),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// True for a packet to a DHCP server: UDP to port 67, whatever its addresses.
fn is_dhcp(packet: &Packet, frame: &Frame<'_>) -> bool {
    packet.protocol == IpProtocol::Udp
        && packet.fragment.is_none()
        && packet.dst.is_ipv4()
        && packet.transport(frame).get(2..4) == Some(&[0, 67])
}

/// True for a packet, of UDP or TCP, to the DNS server.
fn is_dns(config: &Config, packet: &Packet, frame: &Frame<'_>) -> bool {
    packet.transport(frame).get(2..4) == Some(&dns::PORT.to_be_bytes()) && config.is_name_server(packet.dst)
}

fn is_group(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
