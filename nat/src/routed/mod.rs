//! Routed egress: packets are translated and forwarded, not ended.
//!
//! # Theory of operation
//!
//! The gateway stands on further links besides its switch ([`Uplink`]): one that leads to the world, with an address of the
//! gateway's own there, and others that lead to the gateways of other networks. A packet between any two of these links is
//! *forwarded* ([`forward`]): looked up in the conntrack table ([`crate::flow`]), held against the state of its connection,
//! rewritten in place ([`rewrite`]), with its hop limit less one, and sent to the next hop's Ethernet address. A super-frame stays
//! one, a partial checksum stays partial.
//!
//! The first packet of a flow decides what becomes of the others ([`open`]). What leaves by the link to the world is masqueraded:
//! its source becomes the gateway's address there, and a port that [`ports`] allots. What comes to that address is led to
//! containers by the rules of publishing ([`rules`]), or by a mapping that a container has made, or is the gateway's own business:
//! there it is a host like others. Links to other networks are plainly routed, and only one side opens flows by each.
//!
//! ICMP errors are translated by the packet that they quote ([`errors`]), in both directions alike; those that arise here are sent to
//! the side that the packet came from. Fragments are put together first; what does not fit the next link is cut or answered ([`cut`]).
//!
//! Nothing here depends on how many flows there are but the memory, and nothing is asked of the host: the links' descriptors are
//! ports of the worker.

pub mod config;
pub mod cut;
mod errors;
mod forward;
mod links;
mod open;
pub mod ports;
pub mod rewrite;
mod routes;
mod rules;
mod source_route;
mod unsolicited;
pub mod uplink;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use pontoon_switch::{Frame, Instant, Out, PortId};

pub use config::{Addressing4, Addressing6, LinkKind, Mapping, Nat, Route, UplinkConfig, Via};
pub use rules::RoutedRule;
pub use uplink::{Uplink, UplinkStatus};

use crate::config::{Config, Egress, Filtering};
use crate::cx::Cx;
use crate::flow::{self, Direction, Ended, Entry, FlowId, Tuple};
use crate::icmp::RateLimiter;
use crate::publish::{RuleId, Target};
use cut::Cutter;
use links::{Between, Links};
use ports::Ports;
use routes::{Routes, Way};
use rules::Rules;
use unsolicited::Unsolicited;
use uplink::UplinkEvent;

/// Where a packet comes from or goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// The network's own link, behind the switch.
    Lan,
    /// A link of the gateway's own: its place among them.
    Link(usize),
}

/// The gateway as a router.
#[derive(Debug)]
pub struct Router {
    links: Links,
    routes: Routes,
    rules: Rules,
    ports: Ports,
    /// The containers' ports by their addresses.
    owners: HashMap<IpAddr, PortId>,
    unsolicited: Unsolicited,
    cutter: Cutter,
    /// The identification last given to a packet that was cut.
    ident: u32,
    /// Errors and resets told to whoever is beyond the links.
    told: RateLimiter,
    secret: (u64, u64),
}

impl Router {
    /// A router without links.
    pub fn new(secret: (u64, u64), filtering: Filtering) -> Self {
        Self {
            links: Links::default(),
            routes: Routes::default(),
            rules: Rules::default(),
            ports: Ports::new(secret, filtering),
            owners: HashMap::new(),
            unsolicited: Unsolicited::default(),
            cutter: Cutter::default(),
            ident: secret.0 as u32,
            told: RateLimiter::of_world(),
            secret,
        }
    }

    /// Stands on one more link, whose port is `port`.
    pub fn add_link(&mut self, now: Instant, port: PortId, config: UplinkConfig) {
        let (a, b) = self.secret;
        let secret = (a ^ u64::from(port.0), b);
        self.links.add(now, port, config, secret);
    }

    /// Leaves the link of `port`: the flows by it end, but for those by a link to the world, which wait for the next one. A lease is
    /// given back if the link is still there to say so. False if there is none.
    pub fn remove_link(&mut self, flows: &mut flow::Table, port: PortId, out: &mut dyn Out) -> bool {
        let Some(at) = self.links.of(port) else {
            return false;
        };
        self.links[at].leave(out);
        if let Some(gone) = self.links.remove(at) {
            self.end_flows(flows, |e, _| {
                let between = Between::of(e);
                between.from == gone || between.to == gone
            });
        }
        true
    }

    /// The link of `port` has been down: its addresses are confirmed, its neighbours doubted.
    pub fn link_up(&mut self, now: Instant, port: PortId) {
        if let Some(at) = self.links.of(port) {
            self.links[at].renew(now);
        }
    }

    /// The links as they are now.
    pub fn links(&self) -> impl Iterator<Item = (PortId, UplinkStatus)> + '_ {
        self.links.iter().map(|l| (l.port(), l.status()))
    }

    /// Routes beyond the network's own subnets from now on. Flows that would leave another way now end.
    pub fn set_routes<H>(&mut self, cx: &mut Cx<'_, H>, routes: Vec<Route>) {
        self.routes.set(routes);
        cx.neighbours.set_behind(self.routes.behind_neighbours(cx.config));
        let (links, table, config) = (&self.links, &self.routes, cx.config);
        let leaves_by = |dst: IpAddr| match table.way(config, dst) {
            Way::Lan(_) => Some(0),
            Way::Peer(port) => links.of(PortId(port)).map(|at| links.number(Side::Link(at))),
            Way::World(_) => links.number_of_world(),
            Way::Elsewhere => None,
        };
        let doomed = doomed(cx.flows, |e, to| {
            leaves_by(to.dst.ip()) != Some(Between::of(e).to)
        });
        self.remove(cx.flows, doomed);
    }

    /// The routes in force, the longest prefix first.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// Leads what comes to a port of the gateway's to a container. False if another rule has that port.
    pub fn publish(&mut self, id: RuleId, rule: RoutedRule) -> bool {
        let inserted = self.rules.insert(id, rule);
        if inserted {
            // Whoever has been allotted it keeps it until its flows end: rules are looked at first only for new ones.
            self.ports.reserve(rule.protocol(), rule.host);
        }
        inserted
    }

    /// Takes rules back; the flows that came by them end. How many there were.
    pub fn unpublish(&mut self, flows: &mut flow::Table, ids: &[RuleId]) -> usize {
        let mut gone = HashSet::new();
        for &id in ids {
            if let Some(rule) = self.rules.remove(id) {
                self.ports.unreserve(rule.protocol(), rule.host);
                gone.insert(id.0);
            }
        }
        if !gone.is_empty() {
            self.end_flows(flows, |e, _| gone.contains(&e.mark()));
        }
        gone.len()
    }

    /// Takes note of a container's addresses.
    pub fn attach(&mut self, port: PortId, addresses: &[IpAddr]) {
        self.ports.attach(port);
        self.owners.extend(addresses.iter().map(|&a| (a, port)));
    }

    /// Forgets a container: its rules, its flows and those to it end.
    pub fn detach(&mut self, flows: &mut flow::Table, port: PortId) {
        for id in self.rules.of(port) {
            if let Some(rule) = self.rules.remove(id) {
                self.ports.unreserve(rule.protocol(), rule.host);
            }
        }
        self.ports.detach(port);
        let addresses: HashSet<IpAddr> = self
            .owners
            .iter()
            .filter(|&(_, &p)| p == port)
            .map(|(&a, _)| a)
            .collect();
        self.owners.retain(|_, p| *p != port);
        self.end_flows(flows, |e, to| {
            e.container() == port || addresses.contains(&to.dst.ip())
        });
    }

    /// Ends the flows of clients that may use `target` no more.
    pub fn end_denied<H>(&mut self, cx: &mut Cx<'_, H>, target: Target) {
        let (port, transport, container_port) = target;
        let sources = cx.sources;
        let owners = &self.owners;
        let denied = |e: &Entry, to: &Tuple| {
            rules::transport(e.protocol()) == Some(transport)
                && to.dst.port() == container_port
                && owners.get(&to.dst.ip()) == Some(&port)
                && sources.denies(target, e.tuple().src.ip())
        };
        let doomed = doomed(cx.flows, denied);
        self.remove(cx.flows, doomed);
    }

    /// A forwarded flow has been taken out of the table: lets go of its port.
    pub fn ended(&mut self, flow: &Ended) {
        if let Some(reply) = flow.reply() {
            self.ports.release(&flow.tuple(), &reply);
        }
    }

    /// Ends those of all forwarded flows that are to end, by their entry and by the tuple that their packets leave with.
    fn end_flows(&mut self, flows: &mut flow::Table, which: impl Fn(&Entry, &Tuple) -> bool) {
        let doomed = doomed(flows, which);
        self.remove(flows, doomed);
    }

    fn remove(&mut self, flows: &mut flow::Table, doomed: Vec<FlowId>) {
        for id in doomed {
            if let Some(entry) = flows.remove(id) {
                self.ended(&entry);
            }
        }
    }

    /// True if `addr` is the gateway's own, and packets to it are this router's business.
    pub fn is_own(&self, config: &Config, addr: IpAddr) -> bool {
        (config.egress == Egress::Uplink && config.is_gateway(addr))
            || self.links.iter().any(|l| l.owns(addr))
    }

    /// True if there are neither links nor routes, as on most networks: nobody pays for them there.
    fn is_idle(&self) -> bool {
        self.links.is_empty() && self.routes.is_empty()
    }

    /// True if a container's packet to `dst` is this router's to deal with, and not a relay's.
    pub fn takes(&self, config: &Config, dst: IpAddr) -> bool {
        if self.is_idle() && config.egress != Egress::Uplink {
            return false;
        }
        self.routes.way(config, dst) != Way::Elsewhere && !config.on_link(dst) || self.is_own(config, dst)
    }

    /// True if a container's packet to `dst` is this router's to pass on, and not for the gateway itself.
    pub fn takes_elsewhere(&self, config: &Config, dst: IpAddr) -> bool {
        self.takes(config, dst) && !config.is_gateway(dst) && !self.is_own(config, dst)
    }

    /// True if `src` is the address of somebody behind a router on the switch.
    pub fn is_behind(&self, config: &Config, src: IpAddr) -> bool {
        matches!(self.routes.way(config, src), Way::Lan(router) if router != src)
    }

    /// Takes a container's whole packet that [`Router::takes`].
    pub fn lan_packet<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &crate::packet::Packet,
        frame: &mut Frame<'_>,
    ) {
        self.forward(cx, Side::Lan, packet, frame);
    }

    /// Takes a frame that came by the link of `port`.
    pub fn link_frame<H>(&mut self, cx: &mut Cx<'_, H>, port: PortId, frame: &mut Frame<'_>) {
        let Some(at) = self.links.of(port) else {
            return cx.drop(port, pontoon_switch::DropReason::NoPort);
        };
        match self.links[at].receive(cx.now, frame, cx.out) {
            uplink::Received::Done => {}
            uplink::Received::Packet(packet) => self.beyond_packet(cx, at, &packet, frame),
        }
    }

    /// Does what is due, and what the links have to say.
    pub fn flush<H>(&mut self, cx: &mut Cx<'_, H>) {
        if self.links.is_empty() {
            return;
        }
        for at in 0..self.links.len() {
            self.links[at].flush(cx.now, cx.out);
            while let Some(event) = self.links[at].take_event() {
                match event {
                    UplinkEvent::AddressLost(address) => {
                        // What was translated to it has no way back.
                        self.end_flows(cx.flows, |e, to| {
                            e.tuple().dst.ip() == address || to.src.ip() == address
                        });
                    }
                    UplinkEvent::AddressGained(address) => self.gained(cx, at, address),
                    UplinkEvent::Unreachable(frames) => {
                        for (mut frame, offload) in frames {
                            self.undelivered(cx, &mut Frame::whole(&mut frame, offload));
                        }
                    }
                }
            }
        }
        self.expire_fragments(cx);
        while let Some((link, packet)) = self.unsolicited.pop_due(cx.now) {
            if let Some(at) = self.links.of(link) {
                self.tell(
                    cx,
                    Side::Link(at),
                    &packet,
                    crate::icmp::IcmpError::PortUnreachable,
                );
            }
        }
    }

    /// The link at `at` has got an address.
    fn gained<H>(&mut self, cx: &mut Cx<'_, H>, at: usize, address: IpAddr) {
        if cx.config.on_link(address) {
            tracing::error!(
                %address,
                "the link to the world gives an address of the containers' own subnet: choose another --subnet"
            );
        } else {
            tracing::info!(%address, "the gateway has an address on its link to the world");
        }
        if self.links.inherits(at) {
            let links = &self.links;
            let stranded = doomed(cx.flows, |e, to| links.is_stranded(cx.config, at, address, e, to));
            self.remove(cx.flows, stranded);
        }
    }

    /// When [`Router::flush`] next has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.links.is_empty() {
            return None;
        }
        let links = self.links.iter().filter_map(|l| l.deadline());
        links
            .chain(self.links.iter().filter_map(|l| l.fragments.deadline()))
            .chain(self.unsolicited.deadline())
            .min()
    }

    /// Bytes held for mapped ports.
    pub fn memory(&self) -> usize {
        self.ports.memory()
    }
}

/// The forwarded flows that are to end.
fn doomed(flows: &flow::Table, which: impl Fn(&Entry, &Tuple) -> bool) -> Vec<FlowId> {
    let to_end = |&(id, e): &(FlowId, &Entry)| {
        let leaves = flows.translated(id, Direction::Original);
        e.is_forwarded() && leaves.is_some_and(|to| which(e, &to))
    };
    flows.iter_from(0).filter(to_end).map(|(id, _)| id).collect()
}

/// The other direction.
fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Original => Direction::Reply,
        Direction::Reply => Direction::Original,
    }
}
