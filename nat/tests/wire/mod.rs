//! A gateway between containers that are packet literals and a simulated host, on a virtual clock.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "../config/mod.rs"]
mod shared;

use std::cell::RefMut;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Parsed, Payload, explode};
use pontoon_nat::config::Config;
use pontoon_nat::host::sim::{SimHost, ping, udp};
use pontoon_nat::host::{HostError, Origin};
use pontoon_nat::publish::RuleId;
use pontoon_nat::{Endpoint, Gateway, Secrets};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId, Station};

pub(crate) use shared::GATEWAY;

pub const A: PortId = PortId(1);
pub const B: PortId = PortId(2);

/// Somebody beyond the host, and another.
pub const FAR: &str = "198.51.100.10";
pub const FAR2: &str = "203.0.113.20";
pub const FAR6: &str = "2001:db8:2::10";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A gateway whose bounds are soon met.
pub fn config() -> Config {
    Config {
        max_flows: 100,
        max_flows_per_container: 50,
        ..shared::config()
    }
}

#[derive(Debug, Default)]
struct Recorder {
    frames: Vec<(Vec<u8>, Offload)>,
    drops: HashMap<(Option<PortId>, DropReason), u64>,
}

impl Out for Recorder {
    fn send_by(&mut self, _uplink: PortId, frame: &mut Frame<'_>) {
        self.send(frame);
    }

    fn send(&mut self, frame: &mut Frame<'_>) {
        self.frames.push((frame.bytes().to_vec(), frame.offload));
    }

    fn drop(&mut self, ingress: Option<PortId>, reason: DropReason) {
        *self.drops.entry((ingress, reason)).or_default() += 1;
    }
}

/// Containers A (10.0.2.100, fd00:2::100) and B (…101), the gateway, the host.
pub struct Wire {
    pub now: Instant,
    pub gateway: Gateway<SimHost>,
    /// Router advertisements to all that were sent so far.
    pub advertisements: usize,
    out: Recorder,
}

pub fn mac(port: PortId) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, port.0 as u8])
}

impl Wire {
    /// Publishes the host's UDP port 8053 on IPv4 as port 53 of container A.
    pub fn publish_dns(&mut self) -> RuleId {
        let socket = self
            .gateway
            .host_mut()
            .udp_bound(addr("0.0.0.0:8053"))
            .expect("bound");
        self.gateway
            .publish_udp(A, addr("10.0.2.100:53"), socket)
            .expect("published")
    }

    pub fn new(config: Config) -> Self {
        let secrets = Secrets {
            index: (1, 2),
            sequence: (3, 4),
        };
        let gateway = Gateway::new(config, SimHost::default(), secrets);
        let mut wire = Self {
            now: Instant::from_millis(1000),
            gateway,
            advertisements: 0,
            out: Recorder::default(),
        };
        for (port, last) in [(A, 100), (B, 101)] {
            let addresses = [format!("10.0.2.{last}"), format!("fd00:2::{last}")];
            wire.attach(
                port,
                &[&format!("c{last}")],
                &addresses.each_ref().map(String::as_str),
            );
        }
        wire.settle();
        wire
    }

    /// A container comes to `port`.
    pub fn attach(&mut self, port: PortId, names: &[&str], addresses: &[&str]) {
        self.gateway.attach(Endpoint {
            port,
            name: format!("port {}", port.0),
            names: names.iter().map(|&n| n.to_owned()).collect(),
            mac: mac(port),
            addresses: addresses.iter().map(|a| ip(a)).collect(),
        });
    }

    /// The container at `port` goes.
    pub fn detach(&mut self, port: PortId) {
        self.gateway.detach(self.now, port, &mut self.out);
        self.settle();
    }

    pub fn plain() -> Self {
        Self::new(config())
    }

    /// A packet of `port`'s container to `dst`.
    pub fn from(port: PortId, dst: &str) -> Between {
        let last = 99 + port.0;
        match ip(dst) {
            IpAddr::V4(_) => Between::v4(&format!("10.0.2.{last}"), dst),
            IpAddr::V6(_) => Between::v6(&format!("fd00:2::{last}"), dst),
        }
        .macs(mac(port), GATEWAY)
    }

    /// Hands a frame of `port`'s to the gateway; the frames that come of it.
    pub fn send(&mut self, port: PortId, frame: Vec<u8>) -> Vec<Vec<u8>> {
        self.send_offloaded(port, frame, Offload::NONE)
    }

    pub fn send_offloaded(&mut self, port: PortId, mut frame: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
        self.gateway.frame(
            self.now,
            port,
            &mut Frame::whole(&mut frame, offload),
            &mut self.out,
        );
        self.settle()
    }

    /// Hands a frame of `port`'s to the gateway within a batch that goes on.
    pub fn hand(&mut self, port: PortId, mut frame: Vec<u8>) {
        let mut frame = Frame::whole(&mut frame, Offload::NONE);
        self.gateway.frame(self.now, port, &mut frame, &mut self.out);
    }

    /// A sends `data` from `sport` to `dst`.
    pub fn udp_out(&mut self, sport: u16, dst: &str, data: &[u8]) -> Vec<Vec<u8>> {
        let dst = addr(dst);
        let frame = Self::from(A, &dst.ip().to_string()).udp(sport, dst.port(), data);
        self.send(A, frame)
    }

    /// Lets the gateway see what has happened; the frames that come of it, each whole.
    pub fn settle(&mut self) -> Vec<Vec<u8>> {
        self.settle_offloaded()
            .iter()
            .flat_map(|(f, o)| explode(f, *o))
            .collect()
    }

    /// As [`Wire::settle`], with the frames as they are.
    pub fn settle_offloaded(&mut self) -> Vec<(Vec<u8>, Offload)> {
        loop {
            // What waits for the end of the batch may reach another socket of the host.
            self.gateway.flush(self.now, &mut self.out);
            let ready = self.gateway.host_mut().take_ready();
            let done = ready.is_empty();
            for (token, ready) in ready {
                self.gateway.ready(self.now, token.encode(), ready, &mut self.out);
            }
            self.gateway.flush(self.now, &mut self.out);
            if done && self.gateway.deadline().is_none_or(|d| d > self.now) {
                break;
            }
        }
        // Router advertisements are not what these tests are about.
        let advertisement = |f: &[u8]| f.first() == Some(&0x33);
        let mut frames = std::mem::take(&mut self.out.frames);
        let all = frames.len();
        frames.retain(|(f, _)| !advertisement(f));
        self.advertisements += all - frames.len();
        frames
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Duration) -> Vec<Vec<u8>> {
        self.now += span;
        self.settle()
    }

    pub fn udp(&mut self) -> RefMut<'_, udp::Net> {
        self.gateway.host_mut().udp.borrow_mut()
    }

    pub fn ping(&mut self) -> RefMut<'_, ping::Net> {
        self.gateway.host_mut().ping.borrow_mut()
    }

    /// The one datagram that the host sent since.
    pub fn sent(&mut self) -> udp::Sent {
        let sent: Vec<_> = self.udp().sent.drain(..).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.into_iter().next().expect("one")
    }

    /// The one echo request that the host sent since.
    pub fn echoed(&mut self) -> ping::Sent {
        let sent: Vec<_> = self.ping().sent.drain(..).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.into_iter().next().expect("one")
    }

    /// `data` comes from `remote` to the host's `port`; the frames that come of it.
    pub fn udp_in(&mut self, port: u16, remote: &str, data: &[u8]) -> Vec<Vec<u8>> {
        assert!(
            self.udp().inject(port, addr(remote), data),
            "no socket with port {port}"
        );
        self.settle()
    }

    /// Drops for `reason`, wherever they were counted.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let all = self.out.drops.iter().filter(|((_, r), _)| *r == reason);
        all.map(|(_, n)| n).sum()
    }

    /// Drops for `reason` that were counted at `port`; at the gateway itself, if `None`.
    pub fn dropped_at(&self, port: Option<PortId>, reason: DropReason) -> u64 {
        self.out.drops.get(&(port, reason)).copied().unwrap_or(0)
    }
}

/// An ICMP error as the error queue has it.
pub fn icmp_error(remote: &str, kind: u8, code: u8, info: u32, offender: &str) -> HostError {
    let remote = addr(remote);
    let origin = if remote.is_ipv4() {
        Origin::Icmp
    } else {
        Origin::Icmp6
    };
    HostError {
        remote,
        origin,
        errno: 111,
        kind,
        code,
        info,
        offender: Some(ip(offender)),
        len: 0,
    }
}

/// The only frame, as a UDP datagram: source, destination, data.
pub fn udp_of(frames: &[Vec<u8>]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    assert_eq!(frames.len(), 1, "{} frames", frames.len());
    let p = Parsed::of(&frames[0]).expect("IP");
    match p.payload {
        Payload::Udp { src, dst, data } => (
            SocketAddr::new(p.src, src),
            SocketAddr::new(p.dst, dst),
            data.to_vec(),
        ),
        other => panic!("{other:?}"),
    }
}

/// The only frame, as an ICMP message: source, type, code, the four bytes, the rest.
pub fn icmp_of(frames: &[Vec<u8>]) -> (IpAddr, u8, u8, [u8; 4], Vec<u8>) {
    assert_eq!(frames.len(), 1, "{} frames", frames.len());
    let p = Parsed::of(&frames[0]).expect("IP");
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

/// Ports and addresses of the packet that an ICMP error quotes.
pub fn quoted(body: &[u8]) -> (SocketAddr, SocketAddr) {
    let word = |i: usize| u16::from_be_bytes([body[i], body[i + 1]]);
    if body[0] >> 4 == 4 {
        let at = |i: usize| IpAddr::from(<[u8; 4]>::try_from(&body[i..i + 4]).unwrap());
        (
            SocketAddr::new(at(12), word(20)),
            SocketAddr::new(at(16), word(22)),
        )
    } else {
        let at = |i: usize| IpAddr::from(<[u8; 16]>::try_from(&body[i..i + 16]).unwrap());
        (
            SocketAddr::new(at(8), word(40)),
            SocketAddr::new(at(24), word(42)),
        )
    }
}
