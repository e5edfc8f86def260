//! What is cut is put together again by the reassembler, and read by etherparse in between.

use std::time::Duration;

use etherparse::IpSlice;
use pontoon_fixtures::packet::{self, Between, Parsed, Payload, Tcp, explode, flags};
use pontoon_switch::{Checksum, Frame, Gso, GsoKind, Instant, Offload, PortId};
use proptest::prelude::*;

use super::*;
use crate::fragment::Reassembler;
use crate::packet::ETHERNET;

const LINK: PortId = PortId(3);

fn between(v6: bool) -> Between {
    if v6 {
        Between::v6("fd00:2::64", "2001:db8::10")
    } else {
        Between::v4("10.0.2.100", "198.51.100.10").ident(77)
    }
}

fn bytes_of(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + len) as u8).collect()
}

fn parse(frame: &Frame<'_>) -> Packet {
    Packet::parse(LINK, frame).expect("a packet")
}

/// What leaves of a packet, which was put together of pieces of `largest` bytes if that is said.
fn cut(
    bytes: &[u8],
    offload: Offload,
    mtu: u16,
    largest: Option<(u16, bool)>,
) -> Result<Vec<Vec<u8>>, TooBig> {
    let mut bytes = bytes.to_vec();
    let mut frame = Frame::whole(&mut bytes, offload);
    let mut packet = parse(&frame);
    if let Some((largest, dont_fragment)) = largest {
        packet.largest_fragment = Some(largest);
        packet.dont_fragment = dont_fragment;
    }
    let asked = check(&frame, &packet, mtu);
    let mut pieces = Vec::new();
    let mut ident = 0x0001_ffff;
    let mut take = |piece: &mut Frame<'_>| pieces.push((piece.bytes().to_vec(), piece.offload));
    let sent = Cutter::default().send(&mut frame, &packet, mtu, &mut ident, &mut take);
    assert_eq!(sent, asked, "as was said before");
    sent?;
    if let [(_, offload)] = &pieces[..] {
        assert!(ident == 0x0001_ffff || *offload == Offload::NONE);
    }
    Ok(pieces.into_iter().map(|(bytes, _)| bytes).collect())
}

/// Every piece by etherparse: within the MTU, of one datagram, one behind the other.
fn look_at(pieces: &[Vec<u8>], mtu: u16) {
    let mut whole = 0;
    for (i, piece) in pieces.iter().enumerate() {
        assert!(
            piece.len() - ETHERNET <= usize::from(mtu),
            "{} bytes",
            piece.len()
        );
        let (offset, more, len) = match IpSlice::from_slice(&piece[ETHERNET..]).expect("an IP packet") {
            IpSlice::Ipv4(ip) => {
                let h = ip.header();
                assert_eq!(h.header_checksum(), h.to_header().calc_header_checksum());
                assert_eq!(usize::from(h.total_len()), piece.len() - ETHERNET);
                (
                    usize::from(h.fragments_offset().value()) * 8,
                    h.more_fragments(),
                    ip.payload().payload.len(),
                )
            }
            IpSlice::Ipv6(ip) => {
                assert!(ip.is_payload_fragmented());
                let (header, ..) = etherparse::Ipv6Extensions::from_slice(
                    ip.header().next_header(),
                    &piece[ETHERNET + 40..],
                )
                .expect("extension headers");
                let h = header.fragment.expect("a fragment header");
                assert_eq!(h.identification, 0x0002_0000);
                // Behind it all is data.
                let unfragmentable = header.hop_by_hop_options.map_or(0, |h| h.header_len())
                    + header.routing.as_ref().map_or(0, |r| r.routing.header_len());
                (
                    usize::from(h.fragment_offset.value()) * 8,
                    h.more_fragments,
                    piece.len() - ETHERNET - 48 - unfragmentable,
                )
            }
        };
        assert_eq!((offset, more), (whole, i + 1 < pieces.len()));
        whole += len;
    }
}

/// The packet that the reassembler makes of `pieces`.
fn together(pieces: &[Vec<u8>]) -> (Vec<u8>, Packet) {
    let mut reassembler = Reassembler::of_world();
    let mut whole = None;
    for piece in pieces {
        let mut piece = piece.clone();
        let frame = Frame::whole(&mut piece, Offload::NONE);
        let packet = parse(&frame);
        assert!(whole.is_none(), "not whole before its last piece");
        whole = reassembler.packet(Instant::ZERO, &packet, &frame, &mut |lost| panic!("{lost:?}"));
    }
    assert!(reassembler.is_empty());
    let mut whole = whole.expect("all pieces were there");
    let packet = whole.packet;
    (whole.frame().bytes().to_vec(), packet)
}

/// `bytes` with no identification, flags and header checksum, which cutting gives anew.
fn but_for_the_place(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes[ETHERNET] >> 4 == 4 {
        bytes[ETHERNET + 4..ETHERNET + 8].fill(0);
        bytes[ETHERNET + 10..ETHERNET + 12].fill(0);
    }
    bytes
}

/// Puts `options` behind an IPv4 header.
fn with_options(bytes: &mut Vec<u8>, options: &[u8]) {
    let at = ETHERNET + 20;
    bytes.splice(at..at, options.iter().copied());
    bytes[ETHERNET] += u8::try_from(options.len() / 4).expect("ten words");
    let total = u16::try_from(bytes.len() - ETHERNET).expect("a packet");
    bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
    bytes[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = packet::fold(packet::sum_of(&bytes[ETHERNET..at + options.len()]));
    bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts extension headers without meaning behind an IPv6 header.
fn with_extensions(bytes: &mut Vec<u8>, kinds: &[u8]) {
    let (mut at, mut names) = (ETHERNET + 40, ETHERNET + 6);
    for &kind in kinds {
        let header = [
            bytes[names],
            0,
            if kind == 43 { 0 } else { 1 },
            if kind == 43 { 0 } else { 4 },
            0,
            0,
            0,
            0,
        ];
        bytes[names] = kind;
        bytes.splice(at..at, header);
        (names, at) = (at, at + 8);
    }
    let len = u16::try_from(bytes.len() - ETHERNET - 40).expect("a packet");
    bytes[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&len.to_be_bytes());
}

proptest! {
    #[test]
    fn pieces_of_ipv4_give_the_packet_again(
        len in 1usize..9000,
        mtu in 68u16..1600,
        options in 0usize..=10,
        partial in any::<bool>(),
        order in any::<prop::sample::Index>(),
    ) {
        let mut bytes = between(false).udp(5000, 4000, &bytes_of(len));
        // A timestamp is in the first only, a stream identifier in all: the middle ones.
        let some = [0x88, 4, 1, 2, 0x44, 8, 5, 0, 0, 0, 0, 0, 1, 1, 1, 0x88, 4, 3, 4];
        // Cut off anywhere: what cannot be ends the list.
        let list: Vec<u8> = some.into_iter().chain([0; 21]).take(options * 4).collect();
        with_options(&mut bytes, &list);
        let whole = bytes.clone();
        let offload = if partial { make_partial(&mut bytes, ETHERNET + 20 + list.len()) } else { Offload::NONE };
        let mut pieces = cut(&bytes, offload, mtu, None).expect("no DF");
        if bytes.len() - ETHERNET <= usize::from(mtu) {
            prop_assert_eq!(pieces, [bytes]);
            return Ok(());
        }
        look_at(&pieces, mtu);
        let turn = order.index(pieces.len());
        pieces.rotate_left(turn);
        let (again, packet) = together(&pieces);
        prop_assert_eq!(but_for_the_place(&again), but_for_the_place(&whole));
        prop_assert!(!packet.dont_fragment);
        let largest = pieces.iter().map(|p| p.len() - ETHERNET).max();
        prop_assert_eq!(packet.largest_fragment.map(usize::from), largest);
    }

    #[test]
    fn pieces_of_ipv6_give_the_packet_again(
        len in 1500usize..9000,
        mtu in 1280u16..1600,
        extensions in prop::sample::select(vec![&[][..], &[0], &[60], &[0, 60, 43, 60], &[43], &[0, 60]]),
        order in any::<prop::sample::Index>(),
    ) {
        let mut bytes = between(true).udp(5000, 4000, &bytes_of(len));
        with_extensions(&mut bytes, extensions);
        if bytes.len() - ETHERNET > usize::from(mtu) {
            prop_assert_eq!(cut(&bytes, Offload::NONE, mtu, None), Err(TooBig(u32::from(mtu))));
        }
        let mut pieces = cut(&bytes, Offload::NONE, mtu, Some((mtu, false))).expect("came in pieces");
        if let [piece] = &pieces[..] {
            prop_assert_eq!(piece, &bytes);
            return Ok(());
        }
        let turn = order.index(pieces.len());
        if !extensions.contains(&60) {
            look_at(&pieces, mtu);
        }
        pieces.rotate_left(turn);
        let (again, packet) = together(&pieces);
        prop_assert_eq!(again, bytes);
        prop_assert!(!packet.dont_fragment);
    }

    #[test]
    fn a_super_frame_that_does_not_fit_is_its_segments_in_pieces(
        len in 3000usize..20_000,
        mtu in 576u16..1600,
        udp in any::<bool>(),
    ) {
        let (bytes, offload) = super_frame(udp, &bytes_of(len));
        let pieces = cut(&bytes, offload, mtu, None).expect("no DF");
        if mtu >= if udp { 20 + 8 + 1400 } else { 20 + 20 + 1400 } {
            prop_assert_eq!(pieces, [bytes]);
            return Ok(());
        }
        let mut reassembler = Reassembler::of_world();
        let mut segments = Vec::new();
        for mut piece in pieces {
            prop_assert!(piece.len() - ETHERNET <= usize::from(mtu));
            let frame = Frame::whole(&mut piece, Offload::NONE);
            let packet = parse(&frame);
            if packet.fragment.is_none() {
                segments.push(piece);
            } else if let Some(mut whole) = reassembler.packet(Instant::ZERO, &packet, &frame, &mut |l| panic!("{l:?}")) {
                segments.push(whole.frame().bytes().to_vec());
            }
        }
        let all: Vec<u8> = segments.iter().flat_map(|s| match Parsed::of(s).expect("right").payload {
            Payload::Tcp { data, .. } | Payload::Udp { data, .. } => data.to_vec(),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(all, bytes_of(len));
        prop_assert_eq!(segments.len(), explode(&bytes, offload).len());
    }
}

/// A super-frame with segments of 1400 bytes.
fn super_frame(udp: bool, data: &[u8]) -> (Vec<u8>, Offload) {
    let (mut bytes, kind, header) = if udp {
        (between(false).udp(5000, 4000, data), GsoKind::UdpL4, 8)
    } else {
        let tcp = Tcp {
            src: 5000,
            dst: 4000,
            flags: flags::ACK,
            data,
            ..Tcp::default()
        };
        (between(false).tcp(tcp), GsoKind::Tcp4, 20)
    };
    let offload = make_partial(&mut bytes, ETHERNET + 20);
    let header_len = u16::try_from(ETHERNET + 20 + header).expect("short");
    let gso = Some(Gso {
        kind,
        size: 1400,
        header_len,
        ecn: false,
    });
    (bytes, Offload { gso, ..offload })
}

/// Makes the transport checksum of an IPv4 packet partial.
fn make_partial(bytes: &mut [u8], at: usize) -> Offload {
    let protocol = bytes[ETHERNET + 9];
    let offset = if protocol == 6 { 16 } else { 6 };
    let len = u32::try_from(bytes.len() - at).expect("a packet");
    let pseudo = packet::sum_of(&bytes[ETHERNET + 12..ETHERNET + 20]) + u32::from(protocol) + len;
    bytes[at + offset..at + offset + 2].copy_from_slice(&(!packet::fold(pseudo)).to_be_bytes());
    let checksum = Checksum::Partial {
        start: u16::try_from(at).expect("short"),
        offset: u16::try_from(offset).expect("short"),
    };
    Offload { checksum, gso: None }
}

/// RFC 791 section 3.1: the copied flag.
#[test]
fn options_are_in_each_piece_that_are_to_be_copied() {
    let (timestamp, stream) = ([0x44, 8, 5, 0, 0, 0, 0, 0], [0x88, 4, 3, 4]);
    let mut bytes = between(false).udp(1, 2, &bytes_of(3000));
    with_options(&mut bytes, &[&[1, 1, 1, 1][..], &timestamp, &stream].concat());
    let pieces = cut(&bytes, Offload::NONE, 1500, None).expect("no DF");
    let options =
        |piece: &[u8]| piece[ETHERNET + 20..ETHERNET + usize::from(piece[ETHERNET] & 15) * 4].to_vec();
    assert_eq!(options(&pieces[0]), options(&bytes));
    assert_eq!(pieces.len(), 3);
    assert!(pieces[1..].iter().all(|p| options(p) == stream));
}

#[test]
fn what_may_not_be_cut_is_too_big() {
    let data = bytes_of(2000);
    let df = between(false).dont_fragment().udp(1, 2, &data);
    assert_eq!(cut(&df, Offload::NONE, 1500, None), Err(TooBig(1500)));
    assert_eq!(cut(&df, Offload::NONE, 2028, None).map(|p| p.len()), Ok(1));
    let (mut bytes, offload) = super_frame(false, &data);
    bytes[ETHERNET + 6] = 0x40;
    with_options(&mut bytes, &[]);
    assert_eq!(cut(&bytes, offload, 1400, None), Err(TooBig(1400)));
    assert_eq!(cut(&bytes, offload, 1440, None), Ok(vec![bytes]));
}

/// As the kernel's `frag_max_size`: what came in pieces of 600 bytes does not leave in larger ones.
#[test]
fn what_came_in_pieces_is_not_cut_larger_than_it_came() {
    for (v6, largest, limit) in [(false, 600, 600), (true, 1300, 1300), (true, 600, 1280)] {
        let bytes = between(v6).udp(1, 2, &bytes_of(1440));
        let pieces = cut(&bytes, Offload::NONE, 1500, Some((largest, false))).expect("it may");
        assert!(pieces.len() > 1);
        look_at(&pieces, limit);
        assert_eq!(but_for_the_place(&together(&pieces).0), but_for_the_place(&bytes));
    }
}

/// Pieces with DF are to find out the path's MTU: those that fit keep it, of others the sender is told.
#[test]
fn pieces_with_df_go_on_as_such() {
    let bytes = between(false).udp(1, 2, &bytes_of(3000));
    let pieces = cut(&bytes, Offload::NONE, 1500, Some((1400, true))).expect("they fitted");
    look_at(&pieces, 1400);
    assert!(pieces.iter().all(|p| p[ETHERNET + 6] & 0x40 != 0));
    assert_eq!(
        cut(&bytes, Offload::NONE, 1300, Some((1400, true))),
        Err(TooBig(1300))
    );
    assert!(
        cut(&bytes, Offload::NONE, 1300, Some((1400, false))).is_ok(),
        "no DF"
    );
    let bytes = between(true).udp(1, 2, &bytes_of(3000));
    assert_eq!(
        cut(&bytes, Offload::NONE, 1300, Some((1400, false))),
        Err(TooBig(1300))
    );
}

/// A peer may stand for many: it has more room than a container, and leaves half to others.
#[test]
fn the_world_has_a_larger_quota() {
    for (mut reassembler, quota) in [(Reassembler::of_containers(), 64), (Reassembler::of_world(), 512)] {
        let mut lost = 0;
        for ident in 0..600 {
            let mut piece = packet::fragment(&between(false).ident(ident).udp(1, 2, &bytes_of(2000)), 1500)
                .swap_remove(0);
            let frame = Frame::whole(&mut piece, Offload::NONE);
            let whole = reassembler.packet(Instant::ZERO, &parse(&frame), &frame, &mut |_| lost += 1);
            assert!(whole.is_none());
        }
        assert_eq!(lost, 600 - quota);
        // What is left is told of when its time is up, each with its first piece.
        let mut told = 0;
        reassembler.expire(Instant::ZERO + Duration::from_secs(30), &mut |lost| {
            assert_eq!(lost.ingress, LINK);
            assert_eq!(lost.exceeded.map(|p| p[0]), Some(0x45));
            told += 1;
        });
        assert_eq!(told, quota);
    }
}
