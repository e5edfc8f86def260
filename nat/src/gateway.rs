//! The gateway as a station: sorts frames to its parts and lends them what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::station::TURN;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Out, PortId, Ready, Station};
use smoltcp::wire::EthernetProtocol;

use crate::config::Config;
use crate::cx::Cx;
use crate::dns::Dns;
use crate::flow::{self, Limits};
use crate::fragment::Reassembler;
use crate::host::real::RealHost;
use crate::host::{Host, IpVersion, Kind, Token};
use crate::icmp;
use crate::link::{Link, Neighbours};
use crate::publish::{RuleId, Sources, Target, Transport};
use crate::routed::Router;
use crate::share::Shares;
use crate::slab::Key;
use crate::{tcp, udp};

mod endpoints;
mod flows;
mod packets;
mod uplinks;

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
    router: Router,
    endpoints: BTreeMap<PortId, Endpoint>,
    rules: BTreeMap<RuleId, Rule>,
    next_rule: u32,
    /// Ports of containers whose rules on clients have changed since the last flush.
    resourced: BTreeSet<Target>,
}

/// A publishing rule in force, and where it is.
#[derive(Clone, Copy, Debug)]
struct Rule {
    port: PortId,
    lead: Lead,
}

/// By whom a rule leads clients to the container.
#[derive(Clone, Copy, Debug)]
enum Lead {
    /// By TCP's relay, under this key.
    Tcp(Key),
    /// By UDP's relay, under this key.
    Udp(Key),
    /// By the router, under the rule's number.
    Routed,
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
            fragments: Reassembler::of_containers(),
            dns: Dns::new(&config),
            router: Router::new(secrets.index, config.filtering),
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
            lead: Lead::Tcp(key),
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
            lead: Lead::Udp(key),
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
        self.shared.shares.keep(self.sockets_of_rules());
        id
    }

    /// The tokens under which published TCP ports report.
    pub fn listener_tokens(&self) -> Vec<Token> {
        self.tcp.listener_tokens()
    }

    /// Takes published ports back. TCP's flows that came by a listening socket live on; UDP's, whose socket it was,
    /// end, and so do the router's. How many of the rules there were.
    pub fn unpublish(&mut self, rules: &[RuleId]) -> usize {
        let (mut gone, mut routed) = (0, Vec::new());
        for &rule in rules {
            let Some(removed) = self.rules.remove(&rule) else {
                continue;
            };
            gone += usize::from(match removed.lead {
                Lead::Tcp(key) => self.tcp.unpublish(key),
                Lead::Udp(key) => self.udp.unpublish(&mut self.shared.flows, key),
                Lead::Routed => {
                    routed.push(rule);
                    false
                }
            });
        }
        self.shared.shares.keep(self.sockets_of_rules());
        gone + self.router.unpublish(&mut self.shared.flows, &routed)
    }

    /// Descriptors that are rules' sockets.
    fn sockets_of_rules(&self) -> usize {
        let has_socket = |r: &&Rule| matches!(r.lead, Lead::Tcp(_) | Lead::Udp(_));
        self.rules.values().filter(has_socket).count()
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

    fn uplink_frame(&mut self, now: Instant, uplink: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        self.router
            .link_frame(&mut self.shared.cx(now, out), uplink, frame);
    }

    fn uplink_up(&mut self, now: Instant, uplink: PortId) {
        self.router.link_up(now, uplink);
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
        for target in std::mem::take(&mut self.resourced) {
            let (container, transport, port) = target;
            self.router.end_denied(&mut cx, target);
            match transport {
                Transport::Tcp => self.tcp.end_denied(&mut cx, container, port),
                Transport::Udp => self.udp.end_denied(&mut cx, container, port),
            }
        }
        self.link.flush(&mut cx);
        if cx.neighbours.waiting_until().is_some_and(|at| at <= now) {
            packets::ask_again(&mut cx, &mut self.router);
        }
        self.tcp.flush(&mut cx);
        self.udp.flush(&mut cx);
        self.echo.flush(&mut cx);
        self.fragments
            .expire(now, &mut |what| packets::lost(&mut cx, what));
        self.dns.flush(&mut cx);
        self.router.flush(&mut cx);
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
            self.shared.neighbours.waiting_until(),
            self.tcp.deadline(),
            self.udp.deadline(),
            self.echo.deadline(),
            self.fragments.deadline(),
            self.dns.deadline(),
            self.router.deadline(),
            self.shared.flows.deadline(),
            (!self.resourced.is_empty()).then_some(Instant::ZERO),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;
