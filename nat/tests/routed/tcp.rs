//! TCP as the router follows it.

use std::time::Duration;

use pontoon_fixtures::packet::{Tcp, flags};
use pontoon_switch::DropReason;

use crate::world::*;

fn segment(src: u16, dst: u16, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Tcp<'_> {
    Tcp {
        src,
        dst,
        seq,
        ack,
        flags,
        window: 60_000,
        data,
        options: &[],
    }
}

#[test]
fn rfc5382_req2_a_connection_is_followed_from_open_to_close() {
    let mut w = World::plain();
    let port = w.connect(40_000, FAR, 80);
    assert_eq!(port, 40_000);
    assert_eq!(w.flows()[0].state, "established");
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::FIN | flags::ACK, 1001, 5001, b"")));
    assert_eq!(w.flows()[0].state, "half-closed");
    // The other half goes on, however long it is silent.
    w.pass(Duration::from_secs(3 * 3600));
    w.inward(World::far(FAR, OWN).tcp(segment(80, port, flags::ACK, 5001, 1002, b"data")));
    w.inward(World::far(FAR, OWN).tcp(segment(80, port, flags::FIN | flags::ACK, 5005, 1002, b"")));
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::ACK, 1002, 5006, b"")));
    assert_eq!(w.flows()[0].state, "time-wait");
    w.pass(Duration::from_secs(122));
    assert!(w.flows().is_empty());
}

#[test]
fn rfc5382_req2a_a_simultaneous_open_passes() {
    let mut w = World::plain();
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::SYN, 1000, 0, b"")));
    w.inward(World::far(FAR, OWN).tcp(segment(80, 40_000, flags::SYN, 5000, 0, b"")));
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::SYN | flags::ACK, 1000, 5001, b"")));
    w.inward(World::far(FAR, OWN).tcp(segment(80, 40_000, flags::SYN | flags::ACK, 5000, 1001, b"")));
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::ACK, 1001, 5001, b"")));
    assert_eq!(w.flows()[0].state, "established");
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_is_answered_after_six_seconds() {
    let mut w = World::plain();
    let syn = World::far(FAR, OWN).tcp(segment(80, 40_000, flags::SYN, 5000, 0, b""));
    w.link(WORLD, syn.clone());
    w.pass(Duration::from_millis(5_900));
    assert!(w.nothing());
    w.pass(Duration::from_millis(200));
    let (src, kind, code, _, body) = icmp(&w.one_outside());
    assert_eq!((src, kind, code), (ip(OWN), 3, 3));
    assert_eq!(body[..28], syn[14..42]);
    // Where the container opens the same connection meanwhile, nothing is said.
    w.link(WORLD, syn.clone());
    w.out(World::from(A, FAR).tcp(segment(40_000, 80, flags::SYN, 1000, 0, b"")));
    w.pass(Duration::from_secs(7));
    assert!(w.nothing());
    w.inward(syn);
}

#[test]
fn rfc5382_req5_an_established_connection_lasts_and_a_half_open_one_four_minutes() {
    let mut w = World::plain();
    w.connect(40_000, FAR, 80);
    w.out(World::from(A, FAR).tcp(segment(40_001, 80, flags::SYN, 1000, 0, b"")));
    w.pass(Duration::from_secs(240));
    assert_eq!(w.flows().len(), 2);
    w.pass(Duration::from_secs(2));
    assert_eq!(w.flows().len(), 1);
    w.pass(Duration::from_secs(2 * 3600 + 4 * 60));
    assert_eq!(w.flows().len(), 1);
}

#[test]
fn blind_resets_and_data_are_dropped_and_the_right_ones_pass() {
    let mut w = World::plain();
    let port = w.connect(40_000, FAR, 80);
    for seq in [1, 5001u32.wrapping_sub(100_000), 5001 + 200_000, 0x8000_0000] {
        w.link(
            WORLD,
            World::far(FAR, OWN).tcp(segment(80, port, flags::RST, seq, 0, b"")),
        );
        // What has been acknowledged may come again, and is worth nothing to anybody.
        if seq != 1 {
            let evil = segment(80, port, flags::ACK, seq, 1001, b"evil");
            w.link(WORLD, World::far(FAR, OWN).tcp(evil));
        }
        assert!(w.nothing(), "{seq}");
    }
    assert_eq!(w.dropped(DropReason::OutOfWindow), 7);
    assert_eq!(w.flows()[0].state, "established");
    w.inward(World::far(FAR, OWN).tcp(segment(80, port, flags::RST | flags::ACK, 5001, 1001, b"")));
    assert_eq!(w.flows()[0].state, "closed");
    w.pass(Duration::from_secs(12));
    assert!(w.flows().is_empty());
}

#[test]
fn a_segment_of_no_connection_is_reset_and_opens_none() {
    let mut w = World::plain();
    w.lan(
        A,
        World::from(A, FAR).tcp(segment(40_000, 80, flags::ACK, 1001, 5001, b"data")),
    );
    let reset = w.one_inside();
    assert_eq!(ends(&reset), format!("{FAR}:80 > {A4}:40000"));
    let pontoon_fixtures::packet::Payload::Tcp { flags: f, seq, .. } =
        pontoon_fixtures::packet::Parsed::of(&reset).unwrap().payload
    else {
        panic!("no TCP");
    };
    assert_eq!((f, seq), (flags::RST, 5001));
    w.link(
        WORLD,
        World::far(FAR, OWN).tcp(segment(80, 40_000, flags::ACK, 5001, 1001, b"data")),
    );
    assert_eq!(ends(&w.one_outside()), format!("{OWN}:40000 > {FAR}:80"));
    w.link(
        WORLD,
        World::far(FAR, OWN).tcp(segment(80, 40_000, flags::RST, 5001, 0, b"")),
    );
    assert!(w.nothing() && w.flows().is_empty());
}

#[test]
fn the_mss_is_that_of_the_narrower_link() {
    const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];
    let link = Link {
        mtu: 1400,
        ..Link::default()
    };
    let mut w = World::new(config(), link);
    let syn = Tcp {
        options: &MSS_1460,
        ..segment(40_000, 80, flags::SYN, 1000, 0, b"")
    };
    let options = |frame: &[u8]| frame[54..58].to_vec();
    assert_eq!(options(&w.out(World::from(A, FAR).tcp(syn))), [2, 4, 0x05, 0x50]);
    let answer = Tcp {
        options: &MSS_1460,
        ..segment(80, 40_000, flags::SYN | flags::ACK, 5000, 1001, b"")
    };
    assert_eq!(
        options(&w.inward(World::far(FAR, OWN).tcp(answer))),
        [2, 4, 0x05, 0x50]
    );
}
