//! A gateway between containers and a link to the world, all of them packet literals, on a virtual clock.

#[path = "../config/mod.rs"]
mod shared;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use pontoon_fixtures::packet::{ARP, Between, IPV6, Parsed, Payload, Tcp, explode};
use pontoon_nat::config::{Config, Egress};
use pontoon_nat::flow::FlowView;
use pontoon_nat::host::sim::SimHost;
use pontoon_nat::publish::{RuleId, Transport};
use pontoon_nat::routed::{
    Addressing4, Addressing6, LinkKind, Mapping, Nat, Route, RoutedRule, UplinkConfig,
};
use pontoon_nat::{Endpoint, Gateway, Secrets};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId, Station};

pub(crate) use shared::GATEWAY;

/// The gateway on the link to the world.
pub(crate) const OUTSIDE: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);
/// Whoever else is there.
pub(crate) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 9, 1]);
/// Two containers.
pub(crate) const A: PortId = PortId(1);
pub(crate) const B: PortId = PortId(2);
/// The links.
pub(crate) const WORLD: PortId = PortId(9);
pub(crate) const PEER: PortId = PortId(10);

/// The gateway's addresses on the link to the world.
pub(crate) const OWN: &str = "192.0.2.77";
pub(crate) const OWN6: &str = "2001:db8:1::77";
/// Somebody in the world, and another.
pub(crate) const FAR: &str = "198.51.100.10";
pub(crate) const FAR2: &str = "203.0.113.20";
pub(crate) const FAR6: &str = "2001:db8:2::10";
/// The containers.
pub(crate) const A4: &str = "10.0.2.100";
pub(crate) const B4: &str = "10.0.2.101";
pub(crate) const A6: &str = "fd00:2::100";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A gateway without host sockets, whose bounds are soon met.
pub(crate) fn config() -> Config {
    Config {
        egress: Egress::Uplink,
        max_flows: 100,
        max_flows_per_container: 50,
        ..shared::config()
    }
}

/// The link to the world.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) mtu: u16,
    pub(crate) nat4: Nat,
    pub(crate) nat6: Nat,
    pub(crate) mapping: Mapping,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            mtu: 1500,
            nat4: Nat::Masquerade,
            nat6: Nat::Masquerade,
            mapping: Mapping::EndpointIndependent,
        }
    }
}

#[derive(Debug, Default)]
struct Recorder {
    lan: Vec<(Vec<u8>, Offload)>,
    links: Vec<(PortId, Vec<u8>, Offload)>,
    drops: HashMap<(Option<PortId>, DropReason), u64>,
}

impl Out for Recorder {
    fn send(&mut self, frame: &mut Frame<'_>) {
        self.lan.push((frame.bytes().to_vec(), frame.offload));
    }

    fn send_by(&mut self, uplink: PortId, frame: &mut Frame<'_>) {
        self.links.push((uplink, frame.bytes().to_vec(), frame.offload));
    }

    fn drop(&mut self, ingress: Option<PortId>, reason: DropReason) {
        *self.drops.entry((ingress, reason)).or_default() += 1;
    }
}

/// Containers A and B, the gateway, the world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) gateway: Gateway<SimHost>,
    out: Recorder,
    lan: Vec<(Vec<u8>, Offload)>,
    outside: Vec<(Vec<u8>, Offload)>,
    peer: Vec<(Vec<u8>, Offload)>,
    /// Whether neighbours on the link to the world answer.
    pub(crate) answering: bool,
}

pub(crate) fn mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port.0 as u8])
}

impl World {
    pub(crate) fn plain() -> Self {
        Self::new(config(), Link::default())
    }

    pub(crate) fn new(config: Config, link: Link) -> Self {
        let mut world = Self::without_links(config);
        world.add_world(link, OWN, OWN6);
        world
    }

    /// The link to the world, on which the gateway has these addresses, or one of them.
    pub(crate) fn add_world<'a>(
        &mut self,
        link: Link,
        own: impl Into<Option<&'a str>>,
        own6: impl Into<Option<&'a str>>,
    ) {
        let ipv4 = own.into().map(|own| Addressing4::Static {
            address: format!("{own}/24").parse().unwrap(),
            gateway: Some("192.0.2.1".parse().unwrap()),
        });
        let ipv6 = own6.into().map(|own6| Addressing6::Static {
            address: format!("{own6}/64").parse().unwrap(),
            gateway: Some("2001:db8:1::1".parse().unwrap()),
        });
        self.add_link(link, ipv4, ipv6);
    }

    /// As [`World::add_world`], with addresses from wherever.
    pub(crate) fn add_link(&mut self, link: Link, ipv4: Option<Addressing4>, ipv6: Option<Addressing6>) {
        let config = UplinkConfig {
            mac: OUTSIDE,
            mtu: link.mtu,
            kind: LinkKind::World {
                ipv4,
                ipv6,
                nat4: link.nat4,
                nat6: link.nat6,
                mapping: link.mapping,
            },
        };
        self.gateway.add_uplink(self.now, WORLD, config);
        self.settle();
        self.pass(Duration::from_secs(5));
        self.outside.clear();
        self.lan.clear();
    }

    /// The gateway leaves a link; false if there was none.
    pub(crate) fn leave(&mut self, link: PortId) -> bool {
        self.gateway.remove_uplink(link, &mut self.out)
    }

    pub(crate) fn without_links(config: Config) -> Self {
        let secrets = Secrets {
            index: (1, 2),
            sequence: (3, 4),
        };
        let mut world = Self {
            now: Instant::from_millis(1000),
            gateway: Gateway::new(config, SimHost::default(), secrets),
            out: Recorder::default(),
            lan: Vec::new(),
            outside: Vec::new(),
            peer: Vec::new(),
            answering: true,
        };
        for (port, last) in [(A, 100), (B, 101)] {
            world.gateway.attach(Endpoint {
                port,
                name: format!("c{last}"),
                names: vec![format!("c{last}")],
                mac: mac(port),
                addresses: vec![ip(&format!("10.0.2.{last}")), ip(&format!("fd00:2::{last}"))],
            });
        }
        world
    }

    /// A link to another network's gateway, whose containers are in 10.0.3.0/24.
    pub(crate) fn add_peer(&mut self, ours_open: bool) {
        let kind = LinkKind::Peer {
            mac: MacAddr([2, 0, 0, 0, 8, 2]),
            ours_open,
        };
        let config = UplinkConfig {
            mac: MacAddr([2, 0, 0, 0, 8, 1]),
            mtu: 1500,
            kind,
        };
        self.gateway.add_uplink(self.now, PEER, config);
    }

    pub(crate) fn set_routes(&mut self, routes: Vec<Route>) {
        self.gateway.set_routes(self.now, routes, &mut self.out);
    }

    pub(crate) fn publish(
        &mut self,
        transport: Transport,
        host: &str,
        port: PortId,
        container: &str,
    ) -> RuleId {
        let rule = RoutedRule {
            port,
            transport,
            host: host.parse().unwrap(),
            container: container.parse().unwrap(),
        };
        self.gateway.publish_routed(rule).expect("published")
    }

    /// A packet of `port`'s container to `dst`.
    pub(crate) fn from(port: PortId, dst: &str) -> Between {
        let last = 99 + port.0;
        match ip(dst) {
            IpAddr::V4(_) => Between::v4(&format!("10.0.2.{last}"), dst),
            IpAddr::V6(_) => Between::v6(&format!("fd00:2::{last}"), dst),
        }
        .macs(mac(port), GATEWAY)
    }

    /// A packet of `src` in the world to `dst`.
    pub(crate) fn far(src: &str, dst: &str) -> Between {
        Between::new(ip(src), ip(dst)).macs(ROUTER, OUTSIDE)
    }

    /// The container at `port` sends a frame.
    pub(crate) fn lan(&mut self, port: PortId, frame: Vec<u8>) {
        self.lan_offloaded(port, frame, Offload::NONE);
    }

    pub(crate) fn lan_offloaded(&mut self, port: PortId, mut frame: Vec<u8>, offload: Offload) {
        let mut frame = Frame::whole(&mut frame, offload);
        self.gateway.frame(self.now, port, &mut frame, &mut self.out);
        self.settle();
    }

    /// A frame comes by a link.
    pub(crate) fn link(&mut self, link: PortId, frame: Vec<u8>) {
        self.link_offloaded(link, frame, Offload::NONE);
    }

    pub(crate) fn link_offloaded(&mut self, link: PortId, mut frame: Vec<u8>, offload: Offload) {
        let mut frame = Frame::whole(&mut frame, offload);
        self.gateway
            .uplink_frame(self.now, link, &mut frame, &mut self.out);
        self.settle();
    }

    /// Sends from A to somebody, and gives the one frame that leaves for the world.
    pub(crate) fn out(&mut self, frame: Vec<u8>) -> Vec<u8> {
        self.lan(A, frame);
        self.one_outside()
    }

    /// Somebody in the world sends, and the one frame is given that comes to the containers.
    pub(crate) fn inward(&mut self, frame: Vec<u8>) -> Vec<u8> {
        self.link(WORLD, frame);
        self.one_inside()
    }

    /// Lets the gateway do what is due now; neighbours on the link to the world answer.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            self.gateway.flush(self.now, &mut self.out);
            self.lan.append(&mut self.out.lan);
            let sent = std::mem::take(&mut self.out.links);
            let done = sent.is_empty();
            for (port, frame, offload) in sent {
                match self.answer(&frame) {
                    Some(mut answer) if self.answering && port == WORLD => {
                        let mut frame = Frame::whole(&mut answer, Offload::NONE);
                        self.gateway
                            .uplink_frame(self.now, port, &mut frame, &mut self.out);
                    }
                    Some(_) if port == WORLD => {}
                    Some(_) | None if port == WORLD => self.outside.push((frame, offload)),
                    Some(_) | None => self.peer.push((frame, offload)),
                }
            }
            if done && self.out.lan.is_empty() && self.gateway.deadline().is_none_or(|d| d > self.now) {
                return;
            }
        }
        panic!("something goes on for ever at {:?}", self.now);
    }

    /// The answer of the world's neighbours to a question about an address that is not the gateway's. Everything else that is
    /// no packet of a flow has none, and is of no interest here.
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame[12..14] == ARP.to_be_bytes() {
            let asks = frame[21] == 1 && frame[28..32] != frame[38..42];
            let mut reply = frame.to_vec();
            reply[..6].copy_from_slice(&frame[6..12]);
            reply[6..12].copy_from_slice(&ROUTER.0);
            reply[21] = if asks { 2 } else { 1 };
            reply[22..28].copy_from_slice(&ROUTER.0);
            reply[28..32].copy_from_slice(&frame[38..42]);
            reply[32..38].copy_from_slice(&frame[22..28]);
            reply[38..42].copy_from_slice(&frame[28..32]);
            if !asks {
                // An announcement: nobody minds.
                reply[12..14].copy_from_slice(&[0x88, 0xb5]);
            }
            return Some(reply);
        }
        // Without a look at checksums: those of others are the tests' business.
        if frame[12..14] != IPV6.to_be_bytes() || frame[20] != 58 || frame.len() < 78 {
            let solicits =
                frame[12..14] == IPV6.to_be_bytes() && frame[20] == 58 && frame.get(54) == Some(&133);
            return solicits.then(|| vec![0; 60]);
        }
        let address = |at: usize| Ipv6Addr::from(*frame[at..].first_chunk::<16>().expect("an address"));
        let (src, target) = (address(22), address(62));
        match frame[54] {
            // Duplicate address detection: nobody has it.
            135 if src.is_unspecified() => Some(vec![0; 60]),
            135 => {
                let mut advert = target.octets().to_vec();
                advert.extend([2, 1]);
                advert.extend(ROUTER.0);
                let answer = Between::new(target.into(), src.into())
                    .macs(ROUTER, OUTSIDE)
                    .ttl(255)
                    .icmp(136, 0, [0x60, 0, 0, 0], &advert);
                Some(answer)
            }
            133 | 136 | 143 => Some(vec![0; 60]),
            _ => None,
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.gateway.deadline().filter(|&d| d <= end) {
            self.now = due.max(self.now + Duration::from_micros(100));
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// What has left for the world since, each frame whole.
    pub(crate) fn outside(&mut self) -> Vec<Vec<u8>> {
        whole(&std::mem::take(&mut self.outside))
    }

    pub(crate) fn outside_offloaded(&mut self) -> Vec<(Vec<u8>, Offload)> {
        std::mem::take(&mut self.outside)
    }

    /// What has come to the containers since, but router advertisements.
    pub(crate) fn inside(&mut self) -> Vec<Vec<u8>> {
        let mut frames = std::mem::take(&mut self.lan);
        frames.retain(|(f, _)| f.first() != Some(&0x33));
        whole(&frames)
    }

    pub(crate) fn inside_offloaded(&mut self) -> Vec<(Vec<u8>, Offload)> {
        std::mem::take(&mut self.lan)
    }

    pub(crate) fn peer_offloaded(&mut self) -> Vec<(Vec<u8>, Offload)> {
        std::mem::take(&mut self.peer)
    }

    /// What has left for the other network since.
    pub(crate) fn at_peer(&mut self) -> Vec<Vec<u8>> {
        whole(&std::mem::take(&mut self.peer))
    }

    pub(crate) fn one_outside(&mut self) -> Vec<u8> {
        one(self.outside())
    }

    pub(crate) fn one_inside(&mut self) -> Vec<u8> {
        one(self.inside())
    }

    /// As [`World::one_outside`], without a look at its checksum.
    pub(crate) fn one_outside_unverified(&mut self) -> Vec<u8> {
        let mut frames = self.outside_offloaded();
        assert_eq!(frames.len(), 1);
        frames.remove(0).0
    }

    pub(crate) fn nothing(&mut self) -> bool {
        self.inside().is_empty() && self.outside().is_empty() && self.at_peer().is_empty()
    }

    /// Drops for `reason`, wherever they were counted.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        let all = self.out.drops.iter().filter(|((_, r), _)| *r == reason);
        all.map(|(_, n)| n).sum()
    }

    pub(crate) fn flows(&self) -> Vec<FlowView> {
        let (flows, _) = self.gateway.flows(self.now, None, 0, 1000);
        flows.into_iter().map(|(_, flow)| flow).collect()
    }

    /// A's TCP connection to `dst`, opened by both: the sequence numbers go on at 1001 and 5001. The port seen outside.
    pub(crate) fn connect(&mut self, sport: u16, dst: &str, dport: u16) -> u16 {
        let far = |dst: &str, to: u16| {
            Self::far(dst, own_like(dst)).tcp(Tcp {
                src: dport,
                dst: to,
                seq: 5000,
                ack: 1001,
                flags: 18,
                window: 60_000,
                ..Tcp::default()
            })
        };
        let segment = |flags, seq, ack| Tcp {
            src: sport,
            dst: dport,
            seq,
            ack,
            flags,
            window: 60_000,
            ..Tcp::default()
        };
        let syn = self.out(Self::from(A, dst).tcp(segment(2, 1000, 0)));
        let port = tcp_ports(&syn).0;
        self.inward(far(dst, port));
        self.out(Self::from(A, dst).tcp(segment(16, 1001, 5001)));
        port
    }
}

pub(crate) fn own_like(other: &str) -> &'static str {
    if ip(other).is_ipv4() { OWN } else { OWN6 }
}

fn whole(frames: &[(Vec<u8>, Offload)]) -> Vec<Vec<u8>> {
    frames.iter().flat_map(|(f, o)| explode(f, *o)).collect()
}

fn one(frames: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(frames.len(), 1, "{frames:02x?}");
    frames.into_iter().next().expect("one")
}

/// Source and destination ports of a TCP or UDP packet.
pub(crate) fn tcp_ports(frame: &[u8]) -> (u16, u16) {
    match Parsed::of(frame).expect("IP").payload {
        Payload::Tcp { src, dst, .. } | Payload::Udp { src, dst, .. } => (src, dst),
        other => panic!("{other:?}"),
    }
}

/// `src:port > dst:port` of a TCP or UDP packet.
pub(crate) fn ends(frame: &[u8]) -> String {
    let (from, to) = tcp_ports(frame);
    let p = Parsed::of(frame).expect("IP");
    format!(
        "{} > {}",
        std::net::SocketAddr::new(p.src, from),
        std::net::SocketAddr::new(p.dst, to)
    )
}

/// Source, type, code, the four bytes, the rest of an ICMP message.
pub(crate) fn icmp(frame: &[u8]) -> (IpAddr, u8, u8, [u8; 4], Vec<u8>) {
    let p = Parsed::of(frame).expect("IP");
    match p.payload {
        Payload::Icmp {
            kind,
            code,
            rest,
            body,
        } => (p.src, kind, code, rest, body.to_vec()),
        other => panic!("{other:?}"),
    }
}
