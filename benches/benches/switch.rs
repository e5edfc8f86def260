//! What the switch itself costs: a decision, a checksum, the cutting of a super-frame, a frame from wire to wire.
//!
//! `cargo bench -p pontoon-benches --bench switch`
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Instant as Clock;

use pontoon_benches::fabric::{Mute, populate};
use pontoon_benches::frames::{MSS, mac, neighbours, tcp};
use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::offload::{self, Sums};
use pontoon_switch::port::pair::{Packet, Wire, pair};
use pontoon_switch::{Frame, Ingress, Instant, MacAddr, Network, Policy, PortConfig, Station, Switch};

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
            let frames = populate(&mut switch, to, addresses);
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
    for len in [20, 64, 1500, 65_535] {
        let bytes = vec![0x5a; len];
        let each = time(100_000, |_| {
            black_box(offload::sum(black_box(&bytes)));
        });
        println!("{:<44} {each:>12.1}", format!("checksum of {len} bytes"));
    }
    let between = neighbours(mac(1), mac(0));
    let mut sample = tcp(&between, (5000, 80), 64_000);
    let mut scratch = vec![0; HEADROOM + MAX_FRAME];
    let each = time(5_000, |_| {
        let frame = Frame::whole(&mut sample.bytes, sample.offload);
        let cut = offload::segment::<()>(&frame, Sums::Filled, &mut scratch, |segment| {
            black_box(segment.bytes());
            Ok(())
        });
        assert!(cut.is_ok());
    });
    println!(
        "{:<44} {each:>12.1}",
        format!("cutting 64,000 bytes into segments of {MSS}")
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
    receiver.push_bytes(&tcp(&neighbours(MacAddr::BROADCAST, mac(1)), (5000, 80), 100).bytes);
    network.poll_port(Instant::ZERO, to, 1);
    let sample = tcp(&between, (5000, 80), 1000);
    let each = time(100_000, |_| {
        sender.push(Packet {
            bytes: sample.bytes.clone(),
            offload: sample.offload,
        });
        network.poll_port(Instant::ZERO, from, 1);
        assert!(receiver.pop().is_some());
    });
    println!("{:<44} {each:>12.1}", "wire to wire in memory, 1054 bytes");
}
