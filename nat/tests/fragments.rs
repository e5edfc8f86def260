//! Fragments and malformed packets: properties.

mod wire;

use std::time::Duration;

use pontoon_fixtures::packet::{Parsed, Payload, fragment};
use pontoon_switch::{Checksum, DropReason, Gso, GsoKind, Offload};
use proptest::prelude::*;
use wire::*;

fn datagram(far: &str, len: usize, ident: u16, mtu: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let data: Vec<u8> = (0..len).map(|i| (i * 31 + len) as u8).collect();
    let pieces = fragment(&Wire::from(A, far).ident(ident).udp(5000, 4000, &data), mtu);
    (data, pieces)
}

proptest! {
    /// Any order, with any repetitions, gives the whole; with one piece missing, nothing.
    #[test]
    fn any_order_and_repetition_gives_the_whole_or_nothing(
        v6 in any::<bool>(),
        len in 1500usize..9000,
        mtu in 76usize..1500,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        missing in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let far = if v6 { FAR6 } else { FAR };
        let (data, mut pieces) = datagram(far, len, 9, mtu);
        if let Some(missing) = missing {
            pieces.remove(missing.index(pieces.len()));
        }
        let mut w = Wire::plain();
        // Some of them in any order, some twice, then whatever has not been sent.
        let mut sent = vec![false; pieces.len()];
        for index in order {
            let i = index.index(pieces.len());
            // A piece sent again after the whole was there would begin another.
            if sent.iter().all(|s| *s) {
                break;
            }
            sent[i] = true;
            w.send(A, pieces[i].clone());
        }
        for (i, piece) in pieces.iter().enumerate().rev() {
            if !sent[i] {
                w.send(A, piece.clone());
            }
        }
        if missing.is_some() {
            prop_assert!(w.udp().sent.is_empty());
        } else {
            prop_assert_eq!(w.sent().data, data);
        }
    }

    /// Whatever a container sends, the gateway goes on, and holds no more than it may.
    #[test]
    fn damaged_packets_do_no_harm(
        kind in 0usize..7,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        start in any::<u16>(),
        size in any::<u16>(),
        claims in 0usize..4,
    ) {
        let udp = Wire::from(B, "10.0.2.100").udp(4000, 5000, b"x");
        let mut frame = match kind {
            0 => Wire::from(A, FAR).udp(5000, 4000, b"hello"),
            1 => Wire::from(A, FAR6).udp(5000, 4000, b"hello"),
            2 => Wire::from(A, FAR).echo(1, 2, b"hello"),
            3 => Wire::from(A, FAR6).echo(1, 2, b"hello"),
            4 => Wire::from(A, FAR).icmp(3, 4, [0, 0, 5, 0], &udp[14..]),
            5 => datagram(FAR, 3000, 5, 1500).1.swap_remove(1),
            _ => datagram(FAR6, 3000, 5, 1500).1.swap_remove(0),
        };
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        let checksum = match claims {
            0 => Checksum::Complete,
            1 => Checksum::Valid,
            _ => Checksum::Partial { start, offset: size },
        };
        let gso = (claims == 3).then_some(Gso { kind: GsoKind::UdpL4, size, header_len: start, ecn: false });
        let mut w = Wire::plain();
        w.send_offloaded(A, frame, Offload { checksum, gso });
        w.pass(Duration::from_secs(700));
        prop_assert!(w.gateway.table().is_empty());
        prop_assert_eq!(w.udp().open(), 0);
        prop_assert_eq!(w.ping().open(), 0);
    }
}

#[test]
fn overlapping_pieces_end_their_datagram() {
    for far in [FAR, FAR6] {
        let mut w = Wire::plain();
        let (_, pieces) = datagram(far, 3000, 9, 1500);
        // The same piece with other contents, as one that is evil sends it.
        let mut other = pieces[1].clone();
        *other.last_mut().expect("byte") ^= 1;
        for piece in [&pieces[0], &pieces[1], &other, &pieces[2]] {
            w.send(A, piece.clone());
        }
        assert!(w.udp().sent.is_empty());
        assert!(w.dropped(DropReason::Reassembly) >= 1);
    }
}

#[test]
fn what_never_completes_is_told_when_its_time_is_up() {
    for (far, seconds, kind) in [(FAR, 30, 11), (FAR6, 60, 3)] {
        let mut w = Wire::plain();
        let (_, pieces) = datagram(far, 3000, 9, 1500);
        w.send(A, pieces[0].clone());
        assert!(w.pass(Duration::from_secs(seconds - 1)).is_empty());
        let (_, k, code, _, body) = icmp_of(&w.pass(Duration::from_secs(1)));
        assert_eq!((k, code), (kind, 1));
        assert_eq!(body[0] >> 4, if far == FAR { 4 } else { 6 });
        // Without the first piece there is nobody to tell whom.
        w.send(A, pieces[1].clone());
        assert!(w.pass(Duration::from_secs(61)).is_empty());
        assert_eq!(w.dropped(DropReason::Reassembly), 2);
    }
}

#[test]
fn rfc4787_req14a_a_flood_of_first_fragments_is_bounded_by_source() {
    let mut w = Wire::plain();
    let (data, pieces) = datagram(FAR, 3000, 1, 1500);
    let flood = (0..1000u16).map(|ident| datagram(FAR, 3000, 1000 + ident, 1500).1.swap_remove(0));
    // B's fragments suffer no harm from A's flood.
    let from_b = fragment(&Wire::from(B, FAR).ident(1).udp(5000, 4000, &data), 1500);
    w.send(B, from_b[0].clone());
    for piece in flood {
        w.send(A, piece);
    }
    assert!(w.dropped(DropReason::Reassembly) >= 1000 - 64);
    for piece in &from_b[1..] {
        w.send(B, piece.clone());
    }
    assert_eq!(w.sent().data, data);
    // And A's own latest ones are not shut out by its old ones.
    for piece in pieces {
        w.send(A, piece);
    }
    assert_eq!(w.sent().data, data);
}

/// Whoever sent what is lost is told by its port's counter: the source at its bound, the one that has most when all are at
/// theirs, and the one whose last pieces never came, without the first of them, too.
#[test]
fn what_is_lost_is_counted_at_the_port_that_sent_it() {
    let lost = |w: &Wire| [Some(A), Some(B), None].map(|port| w.dropped_at(port, DropReason::Reassembly));
    // 65 of A's from one source.
    let mut w = Wire::plain();
    for ident in 0..65 {
        w.send(A, datagram(FAR, 3000, ident, 1500).1.swap_remove(0));
    }
    assert_eq!(lost(&w), [1, 0, 0]);
    // 4 MiB are full of A's pieces, of two sources so that none is at its own bound; B's one more makes A lose.
    let mut w = Wire::plain();
    w.send(B, datagram_of(B, FAR, 60_000, 1).swap_remove(0));
    for ident in 0..60 {
        for far in [FAR, FAR6] {
            let mut pieces = datagram_of(A, far, 60_000, ident);
            pieces.pop();
            for mut piece in pieces {
                if far == FAR6 {
                    // The identification, which is the same in all that `fragment` makes.
                    piece[58..62].copy_from_slice(&u32::from(ident).to_be_bytes());
                }
                w.send(A, piece);
            }
        }
    }
    let [a, b, gateway] = lost(&w);
    assert!(a > 0 && (b, gateway) == (0, 0), "{:?}", lost(&w));
    w.send(B, datagram_of(B, FAR, 60_000, 2).swap_remove(1));
    assert_eq!(lost(&w)[1..], [0, 0]);
    w.pass(Duration::from_secs(61));
    assert_eq!(lost(&w)[1..], [2, 0]);
}

/// The pieces of a datagram of `port`'s.
fn datagram_of(port: pontoon_switch::PortId, far: &str, len: usize, ident: u16) -> Vec<Vec<u8>> {
    fragment(
        &Wire::from(port, far).ident(ident).udp(5000, 4000, &vec![7; len]),
        1500,
    )
}

#[test]
fn impossible_fragments_are_refused() {
    let mut w = Wire::plain();
    let (_, pieces) = datagram(FAR, 3000, 9, 1500);
    // More to follow, but no multiple of eight; beyond 64 KiB.
    let mut odd = pieces[0].clone();
    odd.truncate(odd.len() - 3);
    set_v4(&mut odd, 0x2000);
    w.send(A, odd);
    let mut beyond = pieces[1].clone();
    set_v4(&mut beyond, 0x1fff);
    w.send(A, beyond);
    assert_eq!(w.dropped(DropReason::Reassembly), 2);
}

/// Sets flags and offset, and makes length and checksum right.
fn set_v4(frame: &mut [u8], word: u16) {
    let len = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let sum = pontoon_switch::offload::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn tiny_links_get_fragments_that_fit() {
    for mtu in [68, 576, 1280] {
        let mut w = Wire::new(pontoon_nat::config::Config { mtu, ..config() });
        w.udp_out(5000, "198.51.100.10:4000", b"");
        let port = w.sent().port;
        let frames = w.udp_in(port, "198.51.100.10:4000", &vec![5; 2000]);
        let mut whole = 0;
        for frame in &frames {
            let p = Parsed::of(frame).expect("IP");
            assert!(p.ip_len <= usize::from(mtu));
            let Payload::Fragment { offset, data, .. } = p.payload else {
                panic!("a fragment")
            };
            assert_eq!(offset, whole);
            whole += data.len();
        }
        assert_eq!(whole, 2008);
    }
}
