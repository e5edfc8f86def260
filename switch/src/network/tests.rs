mod model;
mod parted;

use std::sync::{Arc, Mutex};

use super::*;
use crate::frame::{Checksum, Offload};
use crate::mac::MacAddr;
use crate::offload::tests::{Kind, super_frame};
use crate::policy::MacPolicy;
use crate::port::pair::{Packet, PairPort, Wire, pair};

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

/// Sends every frame back to where it came from, in place; says hello to everyone when it is flushed after a call.
#[derive(Default)]
struct Echo {
    seen: Vec<PortId>,
    hello: bool,
    /// For each frame of [`COSTLY`] bytes a turn, for each of [`HALF`] half a turn.
    costly: u64,
}

/// Lengths of the frames for which [`Echo`] pretends to do something costly.
const COSTLY: usize = 99;
const HALF: usize = 98;

impl Station for Echo {
    fn mac(&self) -> MacAddr {
        GATEWAY
    }
    fn frame(&mut self, _: Instant, ingress: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        self.seen.push(ingress);
        self.costly += match frame.len() {
            COSTLY => TURN,
            HALF => TURN / 2,
            _ => 0,
        };
        if frame.len() < 20 {
            out.drop(Some(ingress), DropReason::Malformed);
            return;
        }
        let src = frame.src();
        frame.bytes_mut()[..6].copy_from_slice(&src.0);
        frame.bytes_mut()[6..12].copy_from_slice(&GATEWAY.0);
        out.send(frame);
    }
    fn ready(&mut self, _: Instant, _: usize, _: Ready, _: &mut dyn Out) {}
    fn flush(&mut self, _: Instant, out: &mut dyn Out) {
        if std::mem::take(&mut self.hello) {
            let mut bytes = frame(MacAddr::BROADCAST, GATEWAY, 40);
            out.send(&mut Frame::whole(&mut bytes, Offload::NONE));
        }
    }
    fn costly(&self) -> u64 {
        self.costly
    }
    fn deadline(&self) -> Option<Instant> {
        self.hello.then_some(Instant::ZERO)
    }
}

fn frame(dst: MacAddr, src: MacAddr, len: usize) -> Vec<u8> {
    let mut b = [&dst.0[..], &src.0, &[0x88, 0xb5]].concat();
    b.resize(len, 0x55);
    b
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

struct Net {
    network: Network<Echo>,
    ids: Vec<PortId>,
    ends: Vec<PairPort>,
}

fn net(wires: &[Wire]) -> Net {
    let mut net = Net {
        network: Network::new(Echo::default()),
        ids: Vec::new(),
        ends: Vec::new(),
    };
    for (n, wire) in wires.iter().enumerate() {
        let (port, end) = pair(*wire);
        let config = PortConfig {
            name: format!("c{n}"),
            policy: Policy::default(),
        };
        net.ids.push(
            net.network
                .add_port(Instant::ZERO, Box::new(port), config)
                .expect("room"),
        );
        net.ends.push(end);
    }
    net
}

impl Net {
    fn send(&mut self, from: usize, packet: Packet) {
        assert!(self.ends[from].push(packet));
        self.network.poll_all(Instant::ZERO);
    }

    fn send_bytes(&mut self, from: usize, bytes: Vec<u8>) {
        self.send(
            from,
            Packet {
                bytes,
                offload: Offload::NONE,
            },
        );
    }

    fn drops(&self, port: usize) -> Vec<(DropReason, u64)> {
        self.network
            .port(self.ids[port])
            .expect("a port")
            .drops
            .nonzero()
            .collect()
    }
}

#[test]
fn frames_find_their_way_and_are_counted() {
    let mut net = net(&[Wire::default(); 3]);
    net.send_bytes(0, frame(mac(2), mac(1), 60));
    assert!(net.ends[1].pop().is_some() && net.ends[2].pop().is_some() && net.ends[0].pop().is_none());
    net.send_bytes(1, frame(mac(1), mac(2), 100));
    assert_eq!(
        net.ends[0].pop().map(|p| p.bytes),
        Some(frame(mac(1), mac(2), 100))
    );
    assert!(net.ends[2].pop().is_none());
    let status: Vec<PortStatus> = net.network.ports().collect();
    assert_eq!(
        (status[0].rx, status[0].tx),
        (
            Traffic { frames: 1, bytes: 60 },
            Traffic {
                frames: 1,
                bytes: 100
            }
        )
    );
    assert_eq!((status[0].kind, &status[0].name[..]), ("pair", "c0"));
    let table: Vec<MacAddr> = net.network.fdb(Instant::ZERO).map(|e| e.mac).collect();
    assert!(table.contains(&GATEWAY) && table.contains(&mac(1)) && table.contains(&mac(2)));
}

#[test]
fn the_station_answers_and_speaks_by_itself() {
    let mut net = net(&[Wire::default(); 2]);
    net.send_bytes(0, frame(GATEWAY, mac(1), 60));
    assert_eq!(
        net.ends[0].pop().map(|p| p.bytes),
        Some(frame(mac(1), GATEWAY, 60))
    );
    net.send_bytes(1, frame(MacAddr::BROADCAST, mac(2), 60));
    assert_eq!(
        net.ends[0].pop().map(|p| p.bytes),
        Some(frame(MacAddr::BROADCAST, mac(2), 60))
    );
    assert_eq!(
        net.ends[1].pop().map(|p| p.bytes),
        Some(frame(mac(2), GATEWAY, 60))
    );
    assert_eq!(net.network.station().seen, net.ids);
    net.network.station_mut().hello = true;
    assert_eq!(net.network.deadline(), Some(Instant::ZERO));
    net.network.flush(Instant::ZERO);
    assert!(net.ends[0].pop().is_some() && net.ends[1].pop().is_some());
    let here = net.network.with_station(Instant::ZERO, |station, out| {
        out.send(&mut Frame::whole(&mut frame(mac(1), GATEWAY, 33), Offload::NONE));
        station.seen.len()
    });
    assert_eq!((here, net.ends[0].pop().map(|p| p.bytes.len())), (2, Some(33)));
}

#[test]
fn drops_are_counted_where_they_happen() {
    let small = Wire {
        capacity: 1,
        mtu: 100,
        ..Wire::default()
    };
    let mut net = net(&[Wire::default(), small]);
    net.send_bytes(1, frame(mac(9), mac(2), 60));
    net.send_bytes(0, frame(mac(2), GATEWAY, 60));
    net.send_bytes(0, frame(GATEWAY, mac(1), 16));
    assert_eq!(
        net.drops(0),
        [(DropReason::Spoofed, 1), (DropReason::Malformed, 1)]
    );
    net.send_bytes(0, frame(mac(2), mac(1), 115));
    net.send_bytes(0, frame(mac(2), mac(1), 114));
    net.send_bytes(0, frame(mac(2), mac(1), 114));
    assert_eq!(
        net.drops(1),
        [(DropReason::QueueFull, 1), (DropReason::TooBig, 1)]
    );
    net.network.with_station(Instant::ZERO, |_, out| {
        out.drop(None, DropReason::NoFlow);
        out.send(&mut Frame::whole(&mut [0; 5], Offload::NONE));
    });
    let station: Vec<_> = net.network.station_drops().nonzero().collect();
    assert_eq!(station, [(DropReason::BadLength, 1), (DropReason::NoFlow, 1)]);
}

#[test]
fn a_super_frame_passes_untouched_or_is_cut() {
    let bare = Wire {
        capabilities: Capabilities::NONE,
        ..Wire::default()
    };
    let sums = Wire {
        capabilities: Capabilities {
            checksum: true,
            ..Capabilities::NONE
        },
        ..Wire::default()
    };
    let mut net = net(&[Wire::default(), Wire::default(), bare, sums]);
    let (mut bytes, offload) = super_frame(Kind::Tcp4, None, 0, 40_000, 1448);
    bytes[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    net.network.station_mut().seen.clear();
    net.send(
        0,
        Packet {
            bytes: bytes.clone(),
            offload,
        },
    );
    assert_eq!(
        net.ends[1].pop(),
        Some(Packet {
            bytes: bytes.clone(),
            offload
        })
    );
    let count = |end: &PairPort| std::iter::from_fn(|| end.pop()).collect::<Vec<_>>();
    let cut = count(&net.ends[2]);
    assert_eq!(cut.len(), 40_000usize.div_ceil(1448));
    assert!(
        cut.iter()
            .all(|p| p.offload == Offload::NONE && p.bytes.len() <= 1514)
    );
    let partial = count(&net.ends[3]);
    assert_eq!(partial.len(), cut.len());
    assert!(partial.iter().all(|p| p.offload
        == Offload {
            checksum: offload.checksum,
            gso: None
        }));
    assert!(matches!(offload.checksum, Checksum::Partial { .. }));
}

#[test]
fn segments_too_large_for_the_wire_are_not_cut_for_it() {
    let bare = Wire {
        capabilities: Capabilities::NONE,
        mtu: 1400,
        ..Wire::default()
    };
    let mut net = net(&[Wire::default(), bare]);
    let (mut bytes, offload) = super_frame(Kind::Tcp4, None, 0, 40_000, 1448);
    bytes[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    net.send(0, Packet { bytes, offload });
    assert_eq!(net.drops(1), [(DropReason::TooBig, 1)]);
}

#[test]
fn a_lying_header_is_dropped_at_its_port() {
    let mut net = net(&[Wire::default(); 2]);
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 50,
            offset: 60,
        },
        gso: None,
    };
    net.send(
        0,
        Packet {
            bytes: frame(MacAddr::BROADCAST, mac(1), 60),
            offload,
        },
    );
    assert_eq!(net.drops(0), [(DropReason::BadOffload, 1)]);
    assert!(net.ends[1].pop().is_none());
}

#[test]
fn a_port_that_ends_is_removed_and_reported() {
    let mut net = net(&[Wire::default(); 2]);
    net.ends.truncate(1);
    assert!(!net.network.poll_port(Instant::ZERO, net.ids[1], 10));
    let closed = net.network.take_closed();
    assert_eq!(
        (closed.len(), closed[0].id, &closed[0].config.name[..]),
        (1, net.ids[1], "c1")
    );
    assert!(net.network.take_closed().is_empty() && net.network.port(net.ids[1]).is_none());
    assert_eq!(
        net.network.remove_port(net.ids[0]).map(|(c, _)| c.name),
        Some("c0".into())
    );
    assert_eq!(net.network.ports().count(), 0);
}

#[test]
fn a_port_yields_after_its_budget() {
    let mut net = net(&[Wire::default(); 2]);
    for _ in 0..10 {
        net.ends[0].push_bytes(&frame(mac(2), mac(1), 60));
    }
    assert!(net.network.poll_port(Instant::ZERO, net.ids[0], 8));
    assert_eq!(net.ends[1].waiting(), 8);
    assert!(!net.network.poll_port(Instant::ZERO, net.ids[0], 8));
    for _ in 0..40 {
        net.ends[0].push_bytes(&frame(GATEWAY, mac(1), 60_000));
    }
    assert!(
        net.network.poll_port(Instant::ZERO, net.ids[0], 64),
        "bytes count too"
    );
    assert!(net.network.port(net.ids[0]).expect("a port").rx.frames < 40);
}

#[test]
fn a_port_yields_after_frames_that_were_costly() {
    let mut net = net(&[Wire::default(); 2]);
    for len in [60, COSTLY, 60, HALF, 60, HALF, 60] {
        net.ends[0].push_bytes(&frame(GATEWAY, mac(1), len));
    }
    let mut taken = Vec::new();
    while net.network.poll_port(Instant::ZERO, net.ids[0], 64) {
        taken.push(net.network.port(net.ids[0]).expect("a port").rx.frames);
    }
    assert_eq!(taken, [2, 6]);
    assert_eq!(net.network.port(net.ids[0]).expect("a port").rx.frames, 7);
}

#[test]
fn policies_are_bound_and_exchanged() {
    let mut net = net(&[Wire::default(); 2]);
    let only = Policy {
        mac: MacPolicy::Only(mac(1)),
        ..Policy::default()
    };
    assert!(net.network.set_policy(net.ids[0], only.clone()).expect("free"));
    let taken = net.network.set_policy(net.ids[1], only).expect_err("taken");
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    net.send_bytes(0, frame(mac(2), mac(3), 60));
    assert_eq!(net.drops(0), [(DropReason::Spoofed, 1)]);
}

type Log = Arc<Mutex<Vec<(Direction, usize)>>>;

struct Recorder(Log);

impl Capture for Recorder {
    fn frame(&mut self, _: Instant, direction: Direction, frame: &Frame<'_>) {
        self.0.lock().expect("lock").push((direction, frame.len()));
    }
}

#[test]
fn a_capture_sees_both_ways_of_its_port_only() {
    let mut net = net(&[Wire::default(); 3]);
    let log = Log::default();
    assert!(
        net.network
            .set_tap(net.ids[0], Some(Box::new(Recorder(Arc::clone(&log)))))
    );
    net.send_bytes(0, frame(mac(2), mac(1), 60));
    net.send_bytes(1, frame(mac(1), mac(2), 70));
    net.send_bytes(2, frame(mac(2), mac(3), 80));
    assert!(net.network.set_tap(net.ids[0], None));
    net.send_bytes(1, frame(mac(1), mac(2), 90));
    assert_eq!(
        *log.lock().expect("lock"),
        [(Direction::In, 60), (Direction::Out, 70)]
    );
    assert!(!net.network.set_tap(PortId(77), None));
}
