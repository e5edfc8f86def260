//! What the switch itself costs: a decision, a checksum, the cutting of a super-frame, a frame from wire to wire.
//!
//! `cargo bench -p pontoon-benches --bench switch`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant as Clock;

use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::offload::{self, Sums};
use pontoon_switch::port::pair::{Packet, Wire, pair};
use pontoon_switch::{
    Checksum, Frame, Gso, GsoKind, Ingress, Instant, MacAddr, Network, Offload, Out, Policy, PortConfig,
    PortId, Ready, Station, Switch,
};

struct Mute;

impl Station for Mute {
    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 0xfe])
    }
    fn frame(&mut self, _: Instant, _: PortId, _: &mut Frame<'_>, _: &mut dyn Out) {}
    fn ready(&mut self, _: Instant, _: usize, _: Ready, _: &mut dyn Out) {}
    fn flush(&mut self, _: Instant, _: &mut dyn Out) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn mac(n: u16) -> MacAddr {
    let [a, b] = n.to_be_bytes();
    MacAddr([2, 0, 0, 1, a, b])
}

/// A TCP/IPv4 super-frame of `payload` bytes.
fn super_frame(dst: MacAddr, src: MacAddr, payload: usize) -> (Vec<u8>, Offload) {
    let mut bytes = [&dst.0[..], &src.0, &[8, 0, 0x45, 0]].concat();
    bytes.extend_from_slice(&((40 + payload) as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 5, 10, 0, 2, 6]);
    bytes.extend_from_slice(&[
        0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(bytes.len() + payload, 0x5a);
    let gso = Gso {
        kind: GsoKind::Tcp4,
        size: 1460,
        header_len: 54,
        ecn: false,
    };
    (
        bytes,
        Offload {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            gso: Some(gso),
        },
    )
}

/// Nanoseconds for each call of `f`.
fn time(calls: u32, mut f: impl FnMut(u32)) -> f64 {
    for n in 0..calls / 10 {
        f(n);
    }
    let start = Clock::now();
    for n in 0..calls {
        f(n);
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn main() {
    println!("{:<44} {:>12}", "", "ns each");
    for addresses in [2u16, 1000] {
        for (kind, guarded) in [("open", false), ("guarded", true)] {
            let mut switch = Switch::new(Some(Mute.mac()));
            let container = ["10.0.2.0/24".parse().expect("a network")];
            let policy = if guarded {
                Policy::container(mac(0), container)
            } else {
                Policy::default()
            };
            let from = switch.add_port(&policy).expect("room");
            let to = switch.add_port(&Policy::default()).expect("room");
            for n in 1..=addresses {
                let (bytes, _) = super_frame(MacAddr::BROADCAST, mac(n), 100);
                switch.decide(Instant::ZERO, Ingress::Port(to), &bytes);
            }
            let frames: Vec<_> = (1..=addresses)
                .map(|n| super_frame(mac(n), mac(0), 100).0)
                .collect();
            let each = time(1_000_000, |n| {
                let bytes = &frames[n as usize % frames.len()];
                black_box(switch.decide(Instant::ZERO, Ingress::Port(from), black_box(bytes)));
            });
            println!(
                "{:<44} {each:>12.1}",
                format!("decision, {kind} port, {addresses} addresses")
            );
        }
    }
    for len in [64, 1500, 65_535] {
        let bytes = vec![0x5a; len];
        let each = time(100_000, |_| {
            black_box(offload::sum(black_box(&bytes)));
        });
        println!("{:<44} {each:>12.1}", format!("checksum of {len} bytes"));
    }
    let (mut bytes, offload) = super_frame(mac(1), mac(0), 64_000);
    let mut scratch = vec![0; HEADROOM + MAX_FRAME];
    let each = time(5_000, |_| {
        let frame = Frame::whole(&mut bytes, offload);
        let cut = offload::segment::<()>(&frame, Sums::Filled, &mut scratch, |segment| {
            black_box(segment.bytes());
            Ok(())
        });
        assert!(cut.is_ok());
    });
    println!(
        "{:<44} {each:>12.1}",
        "cutting 64,000 bytes into segments of 1460"
    );

    let mut network = Network::new(Mute);
    let mut add = || {
        let (port, end) = pair(Wire::default());
        let id = network
            .add_port(Instant::ZERO, Box::new(port), PortConfig::default())
            .expect("room");
        (id, end)
    };
    let ((from, sender), (to, receiver)) = (add(), add());
    receiver.push_bytes(&super_frame(MacAddr::BROADCAST, mac(1), 100).0);
    network.poll_port(Instant::ZERO, to, 1);
    let (bytes, offload) = super_frame(mac(1), mac(0), 1000);
    let each = time(100_000, |_| {
        sender.push(Packet {
            bytes: bytes.clone(),
            offload,
        });
        network.poll_port(Instant::ZERO, from, 1);
        assert!(receiver.pop().is_some());
    });
    println!("{:<44} {each:>12.1}", "wire to wire in memory, 1054 bytes");
}
