//! The decision, the forwarding table, and the way of a frame from wire to wire.

use std::hint::black_box;

use pontoon_benches::fabric::{Mute, Still, populate};
use pontoon_benches::frames::{SUPER_PAYLOAD, Sample, mac, neighbours, tcp};
use pontoon_switch::fdb::{Fdb, Learn};
use pontoon_switch::{
    Decision, DropReason, Flood, Ingress, Instant, MacAddr, Network, Policy, PortConfig, PortId, Reach,
    Station, StormLimit, Switch,
};

use crate::meter::{counted, row};

const ROUNDS: u32 = 500;

/// Addresses that the switch knows.
const ADDRESSES: u16 = 1000;

pub(crate) fn decision() {
    let mut switch = Switch::new(Some(Mute.mac()));
    // With the limit of a container, but never at its end: that is not what is counted here.
    let guarded = Policy {
        storm: Some(StormLimit::per_second(1_000_000)),
        ..Policy::container(mac(0), ["10.0.2.5/32".parse().expect("a network")])
    };
    let guarded = switch.add_port(&guarded).expect("room");
    let open = switch.add_port(&Policy::default()).expect("room");
    let to = switch.add_port(&Policy::default()).expect("room");
    let frames = populate(&mut switch, to, ADDRESSES);
    let mut decide =
        |name, from: PortId, frame: &dyn Fn(usize) -> Vec<u8>, expected: &dyn Fn(usize) -> Decision| {
            row(name, ROUNDS, |n| {
                let n = n as usize % frames.len();
                let bytes = frame(n);
                let mut decision = None;
                counted(&mut || {
                    decision = Some(switch.decide(Instant::ZERO, Ingress::Port(from), black_box(&bytes)));
                });
                assert_eq!(decision, Some(expected(n)));
            });
        };
    let known = |n: usize| frames[n].clone();
    decide("guarded-port", guarded, &known, &|_| Decision::Port(to));
    let from = |src: MacAddr, dst: MacAddr| tcp(&neighbours(dst, src), (5000, 80), 100).bytes;
    let other = |n: usize| {
        let mut bytes = frames[n].clone();
        bytes[6..12].copy_from_slice(&mac(5000).0);
        bytes
    };
    decide("open-port", open, &other, &|_| Decision::Port(to));
    let station = |_: usize| from(mac(0), Mute.mac());
    decide("station", guarded, &station, &|_| Decision::Station);
    // Many, as where one falls in the table is left to chance.
    let nobody = |n: usize| mac(6000 + n as u16);
    let unknown = |n: usize| from(mac(0), nobody(n));
    let flood = |reach| Decision::Flood(Flood { reach, vlan: 0 });
    decide("unknown", guarded, &unknown, &|n| {
        flood(Reach::Unknown(nobody(n)))
    });
    let broadcast = |_: usize| from(mac(0), MacAddr::BROADCAST);
    decide("broadcast", guarded, &broadcast, &|_| flood(Reach::Everyone));
    let spoofed = |_: usize| from(mac(7), mac(1));
    decide("drop-by-policy", guarded, &spoofed, &|_| {
        Decision::Drop(DropReason::Spoofed)
    });
}

pub(crate) fn fdb() {
    let (here, there) = (PortId(1), PortId(2));
    let now = Instant::ZERO;
    let mut fdb = Fdb::default();
    for n in 0..ADDRESSES {
        assert_eq!(fdb.learn(now, 0, mac(n), here), Learn::New);
    }
    let address = |n: u32| mac(n as u16 % ADDRESSES);
    row("lookup", ROUNDS, |n| {
        let mut found = None;
        counted(&mut || found = fdb.lookup(now, 0, black_box(address(n))));
        assert_eq!(found, Some(here));
    });
    row("lookup-unknown", ROUNDS, |n| {
        let mut found = None;
        counted(&mut || found = fdb.lookup(now, 0, black_box(mac(20_000 + n as u16))));
        assert_eq!(found, None);
    });
    row("learn-known", ROUNDS, |n| {
        let mut learned = None;
        counted(&mut || learned = Some(fdb.learn(now, 0, black_box(address(n)), here)));
        assert_eq!(learned, Some(Learn::Known));
    });
    row("learn-new", ROUNDS, |n| {
        let mut learned = None;
        counted(&mut || learned = Some(fdb.learn(now, 0, black_box(mac(30_000 + n as u16)), there)));
        assert_eq!(learned, Some(Learn::New));
    });
}

pub(crate) fn forward() {
    let between = neighbours(mac(1), mac(0));
    path("super-frame", tcp(&between, (5000, 80), SUPER_PAYLOAD));
    // The shortest frame but for its trailer: an acknowledgement.
    path("64-bytes", tcp(&between, (5000, 80), 10));
}

fn path(name: &str, sample: Sample) {
    let mut network = Network::new(Mute);
    let len = sample.bytes.len() as u64;
    let hello = tcp(&neighbours(MacAddr::BROADCAST, mac(1)), (80, 5000), 0);
    let mut add = |sample: Sample| {
        let (port, far) = Still::new(sample);
        let id = network
            .add_port(Instant::ZERO, Box::new(port), PortConfig::default())
            .expect("room");
        (id, far)
    };
    let ((from, sender), (to, receiver)) = (add(sample), add(hello));
    receiver.send(1);
    network.poll_port(Instant::ZERO, to, 1);
    row(name, ROUNDS, |_| {
        let before = receiver.taken();
        sender.send(1);
        counted(&mut || {
            network.poll_port(Instant::ZERO, from, 1);
        });
        assert_eq!(receiver.taken(), before + len);
    });
}
