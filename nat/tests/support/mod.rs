//! A gateway between a simulated container and a simulated host, on a virtual clock.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "../config/mod.rs"]
mod shared;
pub mod tcp;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use pontoon_fixtures::packet::explode;
use pontoon_fixtures::sim::{self, Container};
use pontoon_nat::config::Config;
use pontoon_nat::host::sim::SimHost;
use pontoon_nat::host::sim::tcp::Outcome;
use pontoon_nat::{Endpoint, Gateway, Secrets};
use pontoon_switch::{DropReason, Frame, Instant, Offload, Out, PortId, Station};

pub(crate) use shared::config;

/// The container's port.
pub const PORT: PortId = PortId(1);

/// A server that accepts.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)), 80);
/// The same in IPv6.
pub const SERVER6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10)), 80);

/// What the gateway sent and dropped.
#[derive(Debug, Default)]
pub struct Recorder {
    pub frames: Vec<(Vec<u8>, Offload)>,
    pub drops: HashMap<DropReason, u64>,
}

impl Out for Recorder {
    fn send_by(&mut self, _uplink: PortId, frame: &mut Frame<'_>) {
        self.send(frame);
    }

    fn send(&mut self, frame: &mut Frame<'_>) {
        self.frames.push((frame.bytes().to_vec(), frame.offload));
    }

    fn drop(&mut self, _ingress: Option<PortId>, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }
}

/// Container, gateway, host.
pub struct World {
    pub now: Instant,
    pub container: Container,
    pub gateway: Gateway<SimHost>,
    pub out: Recorder,
    /// What the container has sent, if it is being noted.
    pub sent: Option<Vec<(Vec<u8>, Offload)>>,
    /// What the gateway has sent, if it is being noted.
    pub received: Option<Vec<Vec<u8>>>,
    /// Largest frame and super-frame that the gateway has sent, in bytes.
    pub largest: usize,
    /// How many it has sent.
    pub frames: usize,
}

impl World {
    pub fn new(container: sim::Config, config: Config) -> Self {
        let mut host = SimHost::default();
        host.tcp.servers.insert(SERVER, Outcome::Accept);
        host.tcp.servers.insert(SERVER6, Outcome::Accept);
        let secrets = Secrets {
            index: (1, 2),
            sequence: (3, 4),
        };
        let mut gateway = Gateway::new(config, host, secrets);
        gateway.attach(Endpoint {
            port: PORT,
            name: "one".to_owned(),
            names: vec!["one".to_owned()],
            mac: container.mac,
            addresses: container.addresses.iter().map(|a| a.0).collect(),
        });
        Self {
            now: Instant::from_millis(1000),
            container: Container::new(container),
            gateway,
            out: Recorder::default(),
            sent: None,
            received: None,
            largest: 0,
            frames: 0,
        }
    }

    pub fn plain() -> Self {
        Self::new(sim::Config::default(), config())
    }

    /// One round of everything at the present moment. True if anything moved.
    fn round(&mut self) -> bool {
        self.container.poll(self.now);
        let mut moved = false;
        for (mut bytes, offload) in self.container.transmit() {
            moved = true;
            if let Some(sent) = &mut self.sent {
                sent.push((bytes.clone(), offload));
            }
            self.gateway.frame(
                self.now,
                PORT,
                &mut Frame::whole(&mut bytes, offload),
                &mut self.out,
            );
        }
        for (token, ready) in self.gateway.host_mut().take_ready() {
            moved = true;
            self.gateway.ready(self.now, token.encode(), ready, &mut self.out);
        }
        self.gateway.flush(self.now, &mut self.out);
        for (bytes, offload) in std::mem::take(&mut self.out.frames) {
            moved = true;
            self.largest = self.largest.max(bytes.len());
            self.frames += 1;
            if let Some(received) = &mut self.received {
                received.push(bytes.clone());
            }
            for packet in explode(&bytes, offload) {
                assert_sound(&packet);
            }
            self.container.receive(&bytes, offload);
        }
        moved
    }

    /// Lets everything happen that happens now.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.round() {
                return;
            }
        }
        panic!("something goes on for ever at {:?}", self.now);
    }

    /// Lets time pass: everything due within `span` happens, each thing at its moment.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.settle();
            let due = [self.container.deadline(), self.gateway.deadline()]
                .into_iter()
                .flatten()
                .min();
            match due {
                // A deadline in the past has had its chance in `settle`.
                Some(due) if due <= end => self.now = due.max(self.now + Duration::from_micros(100)),
                _ => break,
            }
            if self.now > end {
                break;
            }
        }
        self.now = end;
        self.settle();
    }

    /// Lets time pass until `done`, or fails after `most`.
    pub fn until(&mut self, most: Duration, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + most;
        loop {
            self.settle();
            if done(self) {
                return;
            }
            assert!(self.now < end, "not within {most:?}: {what}");
            let due = [self.container.deadline(), self.gateway.deadline()]
                .into_iter()
                .flatten()
                .min();
            let next = due.unwrap_or(end).max(self.now + Duration::from_micros(100));
            self.now = next.min(self.now + Duration::from_millis(50)).min(end);
        }
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.out.drops.get(&reason).copied().unwrap_or(0)
    }
}

/// `n` bytes that tell where they are.
pub fn pattern(n: usize, seed: u32) -> Vec<u8> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

/// Whatever the gateway puts on the wire parses, and its checksums are right, by an implementation that is neither the
/// gateway's nor smoltcp's.
fn assert_sound(frame: &[u8]) {
    let headers = PacketHeaders::from_ethernet_slice(frame).expect("a frame that parses");
    let payload = headers.payload.slice();
    match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert!(same(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap()));
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            assert!(same(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap()));
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv4(ip, payload));
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            assert_eq!(Ok(udp.checksum), udp.calc_checksum_ipv6(ip, payload));
        }
        (Some(NetHeaders::Ipv4(_, _)), Some(TransportHeader::Icmpv4(icmp))) => {
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Icmpv6(icmp))) => {
            let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload);
            assert_eq!(Ok(icmp.checksum), sum);
        }
        // ARP; fragments, whose sum is that of the whole.
        (_, None) | (None, Some(_)) | (Some(NetHeaders::Arp(_)), Some(_)) => {}
        (Some(net), Some(other)) => panic!("the gateway never sends this: {net:?} {other:?}"),
    }
}

/// Zero has two forms in ones' complement. UDP tells them apart; for TCP the kernel, too, writes either.
fn same(a: u16, b: u16) -> bool {
    a == b || (a == 0xffff && b == 0)
}
