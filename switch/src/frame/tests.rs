use proptest::prelude::*;

use super::*;
use crate::offload::tests::{Kind, super_frame};

fn header(flags: u8, gso: u8, hdr_len: u16, size: u16, start: u16, offset: u16) -> [u8; VNET_HEADER] {
    let mut h = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, v) in [(2, hdr_len), (4, size), (6, start), (8, offset)] {
        h[at..at + 2].copy_from_slice(&v.to_ne_bytes());
    }
    h
}

#[test]
fn a_partial_checksum_must_lie_inside_the_frame() {
    let frame = [0u8; 60];
    let decode = |start, offset| Offload::decode(&header(1, 0, 0, 0, start, offset), &frame);
    assert_eq!(
        decode(34, 16).map(|o| o.checksum),
        Ok(Checksum::Partial {
            start: 34,
            offset: 16
        })
    );
    assert!(decode(34, 24).is_ok(), "the last two bytes");
    for (start, offset) in [
        (34, 25),
        (59, 0),
        (60, 0),
        (13, 6),
        (0, 0),
        (65535, 65535),
        (34, 65535),
    ] {
        assert_eq!(decode(start, offset), Err(BadHeader), "{start} {offset}");
    }
}

/// What is filled in by software is filled in after the source address was looked at.
#[test]
fn a_partial_checksum_must_lie_behind_the_ip_header() {
    for (ethertype, tag, least) in [
        ([0x08, 0x00], false, 34),
        ([0x08, 0x00], true, 38),
        ([0x86, 0xdd], false, 54),
        ([0x86, 0xdd], true, 58),
    ] {
        let mut frame = vec![0u8; 100];
        let at = if tag { 16 } else { 12 };
        frame[12..14].copy_from_slice(&[0x81, 0x00]);
        frame[at..at + 2].copy_from_slice(&ethertype);
        let decode = |start| Offload::decode(&header(1, 0, 0, 0, start, 6), &frame);
        assert!(decode(least).is_ok(), "{ethertype:?} {tag}");
        assert_eq!(decode(least - 1), Err(BadHeader), "{ethertype:?} {tag}");
    }
}

#[test]
fn a_header_length_is_taken_from_the_bytes() {
    for kind in Kind::ALL {
        let (bytes, offload) = super_frame(kind, None, 0, 5000, 1000);
        let mut h = offload.encode();
        h[2..4].copy_from_slice(&4321u16.to_ne_bytes());
        assert_eq!(Offload::decode(&h, &bytes), Ok(offload), "{kind:?}");
    }
}

#[test]
fn a_super_frame_must_be_what_it_says() {
    let (bytes, offload) = super_frame(Kind::Tcp4, None, 0, 5000, 1000);
    let good = offload.encode();
    assert!(Offload::decode(&good, &bytes).is_ok());
    // flags, gso_type, gso_size, csum_start, csum_offset, each wrong in turn.
    for (at, value) in [
        (0, vec![0]),
        (1, vec![4]),
        (1, vec![5]),
        (1, vec![3]),
        (1, vec![2]),
    ] {
        let mut h = good;
        h[at..at + value.len()].copy_from_slice(&value);
        assert_eq!(
            Offload::decode(&h, &bytes),
            Err(BadHeader),
            "byte {at} = {value:?}"
        );
    }
    for (at, value) in [(4, 0u16), (6, 30), (6, 35), (8, 6)] {
        let mut h = good;
        h[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        assert_eq!(
            Offload::decode(&h, &bytes),
            Err(BadHeader),
            "field at {at} = {value}"
        );
    }
    // No payload; a data offset below a TCP header's; a fragment.
    assert_eq!(
        Offload::decode(&good, &bytes[..usize::from(offload.gso.expect("gso").header_len)]),
        Err(BadHeader)
    );
    let mut short = bytes.clone();
    short[14 + 20 + 12] = 0x40;
    assert_eq!(Offload::decode(&good, &short), Err(BadHeader));
    let mut fragment = bytes.clone();
    fragment[14 + 6] = 0x20;
    assert_eq!(Offload::decode(&good, &fragment), Err(BadHeader));
}

#[test]
fn tags_go_in_and_out_and_take_the_offload_along() {
    let (bytes, offload) = super_frame(Kind::Tcp6, None, 0, 4000, 1000);
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(&bytes);
    let end = buf.len();
    let mut frame = Frame::new(&mut buf, HEADROOM, end, offload);
    let tag = VlanTag {
        tpid: 0x8100,
        tci: 0x6005,
    };
    assert!(frame.push_vlan(tag));
    assert_eq!(
        (frame.vlan(), frame.ethertype(), tag.id()),
        (Some(tag), 0x86dd, 5)
    );
    let tagged = frame.offload;
    assert_eq!(Offload::decode(&tagged.encode(), frame.bytes()), Ok(tagged));
    assert_eq!(frame.pop_vlan(), Some(tag));
    assert_eq!((frame.bytes(), frame.offload), (&bytes[..], offload));
    assert_eq!(frame.pop_vlan(), None);
}

#[test]
fn a_tag_needs_headroom() {
    let mut bytes = [0u8; 60];
    assert!(!Frame::whole(&mut bytes, Offload::NONE).push_vlan(VlanTag { tpid: 0x8100, tci: 1 }));
}

proptest! {
    #[test]
    fn decoding_anything_is_safe_and_true(
        header in any::<[u8; VNET_HEADER]>(),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        v6 in any::<bool>(),
    ) {
        // Make it an IP packet often enough for the inner checks to be met.
        if bytes.len() > 24 {
            bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] });
        }
        if let Ok(offload) = Offload::decode(&header, &bytes) {
            if let Checksum::Partial { start, offset } = offload.checksum {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= bytes.len());
            }
            if let Some(gso) = offload.gso {
                prop_assert!(usize::from(gso.header_len) < bytes.len() && gso.size > 0);
            }
            let mut scratch = vec![0; HEADROOM + MAX_FRAME];
            let mut copy = bytes.clone();
            let mut frame = Frame::whole(&mut copy, offload);
            let cut = crate::offload::segment::<()>(&frame, crate::offload::Sums::Filled, &mut scratch, |_| Ok(()));
            prop_assert!(cut.is_ok());
            crate::offload::complete(&mut frame);
        }
    }
}
