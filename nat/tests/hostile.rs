//! Frames that no honest stack sends: the gateway counts them and goes on.

mod support;

use std::time::Duration;

use pontoon_switch::{Checksum, Frame, Gso, GsoKind, Offload, Station};
use proptest::prelude::*;
use smoltcp::socket::tcp::State;
use smoltcp::wire::Ipv4Packet;
use support::*;

/// Frames of an honest conversation of every kind, to be spoiled.
fn honest() -> Vec<(Vec<u8>, Offload)> {
    let mut w = World::plain();
    w.sent = Some(Vec::new());
    let id = w.container.tcp_connect(SERVER);
    let id6 = w.container.tcp_connect(SERVER6);
    let udp = w.container.udp_bind(4000);
    for round in 0..6 {
        match round {
            1 => w
                .container
                .udp_send(udp, "10.0.2.2:53".parse().unwrap(), &pattern(40, 1)),
            2 => w
                .container
                .udp_send(udp, "198.51.100.10:9".parse().unwrap(), &pattern(40, 1)),
            3 => {
                w.container.tcp_send(id, &pattern(3000, 2));
                w.container.tcp_send(id6, &pattern(3000, 2));
                w.container
                    .udp_send_raw(4000, "198.51.100.10:9".parse().unwrap(), 3, &pattern(4000, 3));
                w.container
                    .ping("10.0.2.2".parse().unwrap(), 64, 1, 1, &pattern(30, 4));
                w.container
                    .ping("198.51.100.10".parse().unwrap(), 64, 1, 1, &pattern(30, 4));
            }
            4 => w.container.tcp_close(id),
            _ => {}
        }
        w.settle();
    }
    let frames = w.sent.take().unwrap_or_default();
    assert!(frames.len() > 10, "only {} frames to spoil", frames.len());
    frames
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Complete),
        Just(Checksum::Valid),
        (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop_oneof![Just(GsoKind::Tcp4), Just(GsoKind::Tcp6), Just(GsoKind::UdpL4)];
    let gso = proptest::option::of((kind, any::<u16>(), any::<u16>()).prop_map(
        |(kind, size, header_len)| Gso {
            kind,
            size,
            header_len,
            ecn: false,
        },
    ));
    (checksum, gso).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

/// After whatever it was sent, the gateway still serves: a connection opens and carries data.
fn assert_serves(w: &mut World) {
    let id = w.container.tcp_connect_from(61_000, SERVER);
    w.until(Duration::from_secs(20), "a connection after all that", |w| {
        w.container.tcp_state(id) == State::Established
    });
    w.container.tcp_send(id, b"well?");
    let far = w.gateway.host_mut().tcp.far.last().unwrap().clone();
    w.until(Duration::from_secs(5), "data after all that", |_| {
        far.take(10) == b"well?"
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_of_every_ethertype(
        bodies in proptest::collection::vec(
            (0usize..3, proptest::collection::vec(any::<u8>(), 0..200), offload()), 1..40),
    ) {
        let mut w = World::plain();
        for (kind, body, offload) in bodies {
            let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0x64];
            frame.extend([[0x08, 0x06], [0x08, 0x00], [0x86, 0xdd]][kind]);
            frame.extend(body);
            w.gateway.frame(w.now, PORT, &mut Frame::whole(&mut frame, offload), &mut w.out);
        }
        w.out.frames.clear();
        assert_serves(&mut w);
    }

    #[test]
    fn honest_frames_with_bytes_changed_and_cut(
        spoils in proptest::collection::vec(
            (any::<usize>(), proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
             proptest::option::of(any::<usize>()), any::<bool>(), proptest::option::of(offload())), 1..60),
    ) {
        let frames = honest();
        let mut w = World::plain();
        for (pick, changes, cut, mend, claim) in spoils {
            let (mut frame, mut offload) = frames[pick % frames.len()].clone();
            for (at, byte) in changes {
                let at = at % frame.len();
                frame[at] = byte;
            }
            if let Some(cut) = cut {
                frame.truncate(cut % (frame.len() + 1));
            }
            if mend && frame.len() > 34 && frame[12..14] == [8, 0] {
                let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
                // A header length beyond the bytes cannot be summed.
                if ip.header_len() <= 20 && ip.header_len() > 0 {
                    ip.fill_checksum();
                }
            }
            offload = claim.unwrap_or(offload);
            w.gateway.frame(w.now, PORT, &mut Frame::whole(&mut frame, offload), &mut w.out);
            w.gateway.flush(w.now, &mut w.out);
            w.now += Duration::from_millis(3);
        }
        w.out.frames.clear();
        // What the spoiled frames opened ends by itself.
        assert_serves(&mut w);
    }
}

/// A flood of SYNs is bounded by the container's share of the table; nothing else is lost by it.
#[test]
fn a_syn_flood_is_bounded() {
    let mut w = World::plain();
    let frames = honest();
    let (syn, offload) = frames
        .iter()
        .find(|(f, _)| f[12..14] == [8, 0] && f[23] == 6 && f[47] & 2 != 0)
        .expect("a SYN")
        .clone();
    for port in 1..=5_000u16 {
        let mut frame = syn.clone();
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        let valid = Offload {
            checksum: Checksum::Valid,
            ..offload
        };
        w.gateway
            .frame(w.now, PORT, &mut Frame::whole(&mut frame, valid), &mut w.out);
    }
    assert_eq!(w.gateway.table().container_len(PORT), 500);
    w.out.frames.clear();
    w.gateway.flush(w.now, &mut w.out);
    w.out.frames.clear();
    // Half-open flows give way to a real one.
    assert_serves(&mut w);
}
