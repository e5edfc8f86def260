//! What happens to packets as such: hop limits, sizes, super-frames, fragments, checksums.

use pontoon_fixtures::packet::{Parsed, Payload, Tcp, explode, flags, fragment};
use pontoon_nat::config::Config;
use pontoon_switch::{Checksum, DropReason, Gso, GsoKind, Offload};

use crate::world::*;

#[test]
fn the_last_hop_is_told_on_both_sides() {
    let mut w = World::plain();
    w.lan(A, World::from(A, FAR).ttl(1).udp(5000, 7, b"x"));
    let (src, kind, code, ..) = icmp(&w.one_inside());
    assert_eq!((src, kind, code), (ip("10.0.2.2"), 11, 0));
    assert!(w.flows().is_empty());
    w.out(World::from(A, FAR).udp(5000, 7, b"x"));
    w.link(WORLD, World::far(FAR, OWN).ttl(1).udp(7, 5000, b"y"));
    let (src, kind, code, _, body) = icmp(&w.one_outside());
    assert_eq!((src, kind, code), (ip(OWN), 11, 0));
    assert_eq!(body[16..20], [192, 0, 2, 77], "as it came");
    assert_eq!(w.flows()[0].received.packets, 0);
    // To the gateway itself the last hop is enough.
    w.link(WORLD, World::far(FAR, OWN).ttl(1).echo(7, 1, b"x"));
    assert_eq!(icmp(&w.one_outside()).1, 0);
}

#[test]
fn what_is_too_big_for_the_next_link_is_told_or_cut() {
    let link = Link {
        mtu: 1000,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    let data = [7; 1200];
    w.lan(A, World::from(A, FAR).dont_fragment().udp(5000, 7, &data));
    let (_, kind, code, rest, body) = icmp(&w.one_inside());
    assert_eq!((kind, code, rest), (3, 4, [0, 0, 0x03, 0xe8]));
    assert_eq!(body[12..20], [10, 0, 2, 100, 198, 51, 100, 10], "as it came");
    w.lan(A, World::from(A, FAR6).udp(5000, 7, &data));
    let (_, kind, _, rest, _) = icmp(&w.one_inside());
    assert_eq!((kind, rest), (2, [0, 0, 0x03, 0xe8]));
    assert!(w.flows().is_empty());
    w.lan(A, World::from(A, FAR).udp(5000, 7, &data));
    let pieces = w.outside();
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|p| Parsed::of(p).unwrap().ip_len <= 1000));
    assert_eq!(Parsed::of(&pieces[1]).unwrap().src, ip(OWN));
}

#[test]
fn super_frames_stay_whole_and_partial_checksums_partial() {
    let mut w = World::plain();
    w.connect(40_000, FAR, 80);
    let data = vec![5; 20_000];
    let mut frame = World::from(A, FAR).dont_fragment().tcp(Tcp {
        src: 40_000,
        dst: 80,
        seq: 1001,
        ack: 5001,
        flags: flags::ACK,
        window: 60_000,
        data: &data,
        ..Tcp::default()
    });
    // As the kernel leaves it: the pseudo-header's sum.
    let len = (frame.len() - 34) as u32;
    let pseudo = [10u32 << 8, 2 << 8 | 100, 198 << 8 | 51, 100 << 8 | 10, 6, len]
        .iter()
        .sum::<u32>();
    let folded = ((pseudo & 0xffff) + (pseudo >> 16)) as u16;
    frame[50..52].copy_from_slice(&folded.to_be_bytes());
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1460,
            header_len: 54,
            ecn: false,
        }),
    };
    w.lan_offloaded(A, frame, offload);
    let sent = w.outside_offloaded();
    assert_eq!((sent.len(), sent[0].1), (1, offload));
    // Cut and summed by an independent hand, each is right.
    let pieces = explode(&sent[0].0, sent[0].1);
    assert_eq!(pieces.len(), 14);
    for piece in &pieces {
        assert_eq!(Parsed::of(piece).unwrap().src, ip(OWN));
    }
    let flow = &w.flows()[0];
    assert_eq!(flow.sent.packets, 2 + 14);
}

#[test]
fn rfc4787_req14_fragments_in_any_order() {
    let mut w = World::plain();
    let data: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
    w.out(World::from(A, FAR).udp(5000, 7, b"x"));
    for (reverse, ident) in [(false, 1), (true, 2)] {
        let mut pieces = fragment(&World::from(A, FAR).ident(ident).udp(5000, 7, &data), 1500);
        if reverse {
            pieces.reverse();
        }
        for piece in pieces {
            w.lan(A, piece);
        }
        let sent = w.outside();
        assert_eq!(sent.len(), 3);
        let mut back = fragment(&World::far(FAR, OWN).ident(ident).udp(7, 5000, &data), 1500);
        if reverse {
            back.reverse();
        }
        for piece in back {
            w.link(WORLD, piece);
        }
        let got = w.inside();
        assert_eq!(got.len(), 3);
        let all: usize = got
            .iter()
            .map(|p| match Parsed::of(p).unwrap().payload {
                Payload::Fragment { data, .. } => data.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(all, 4008);
        assert!(got.iter().all(|p| Parsed::of(p).unwrap().dst == ip(A4)));
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut w = World::plain();
    let mut frame = World::from(A, FAR).udp(5000, 7, b"spoilt");
    frame[45] ^= 4;
    w.lan(A, frame);
    let sent = w.one_outside_unverified();
    let mut mended = sent.clone();
    mended[45] ^= 4;
    assert!(std::panic::catch_unwind(|| Parsed::of(&sent).is_some()).is_err());
    assert!(Parsed::of(&mended).is_some());
}

#[test]
fn packets_for_groups_and_loopback_leave_by_no_link() {
    let mut w = World::plain();
    for dst in ["127.0.0.1", "0.0.0.0", "240.0.0.1", "169.254.169.254"] {
        w.lan(A, World::from(A, dst).udp(5000, 7, b"x"));
        assert!(w.outside().is_empty(), "{dst}");
    }
    assert!(w.dropped(DropReason::Forbidden) >= 3);
}

#[test]
fn a_narrow_network_gets_what_comes_cut_or_tells() {
    let config = Config {
        mtu: 576,
        subnet6: None,
        ..config()
    };
    let mut w = World::new(config, Link::default());
    w.out(World::from(A, FAR).udp(5000, 7, b"x"));
    w.link(
        WORLD,
        World::far(FAR, OWN).dont_fragment().udp(7, 5000, &[1; 1000]),
    );
    let (src, kind, code, rest, body) = icmp(&w.one_outside());
    assert_eq!((src, kind, code, rest), (ip(OWN), 3, 4, [0, 0, 2, 0x40]));
    assert_eq!(body[16..20], [192, 0, 2, 77]);
    w.link(WORLD, World::far(FAR, OWN).udp(7, 5000, &[1; 1000]));
    assert_eq!(w.inside().len(), 2);
}
