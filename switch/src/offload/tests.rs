use proptest::prelude::*;

use super::*;
use crate::frame::{MAX_FRAME, VlanTag};

/// A kind of super-frame to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp4, Self::Tcp6, Self::Udp4, Self::Udp6];

    fn is_v6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6)
    }

    fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }
}

/// A super-frame with `payload` bytes counting up, in segments of `size`, behind `extensions` extension headers of IPv6
/// (or words of IPv4 options).
pub(crate) fn super_frame(
    kind: Kind,
    vlan: Option<VlanTag>,
    extensions: usize,
    payload: usize,
    size: u16,
) -> (Vec<u8>, Offload) {
    let mut b = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if let Some(tag) = vlan {
        b.extend_from_slice(&tag.tpid.to_be_bytes());
        b.extend_from_slice(&tag.tci.to_be_bytes());
    }
    let l4 = if kind.is_tcp() { 32 } else { 8 };
    let protocol = if kind.is_tcp() { 6 } else { 17 };
    let l4_len = l4 + payload;
    let (src, dst): (Vec<u8>, Vec<u8>) = if kind.is_v6() {
        (
            (0..16).map(|i| 0xa0 + i).collect(),
            (0..16).map(|i| 0x31 + i).collect(),
        )
    } else {
        (vec![10, 9, 0, 1], vec![10, 9, 0, 2])
    };
    if kind.is_v6() {
        b.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        b.extend_from_slice(
            &u16::try_from(l4_len + extensions * 8)
                .expect("fits")
                .to_be_bytes(),
        );
        b.extend_from_slice(&[if extensions > 0 { 60 } else { protocol }, 64]);
        b.extend_from_slice(&src);
        b.extend_from_slice(&dst);
        for i in 0..extensions {
            // Destination options: four bytes of padding.
            b.extend_from_slice(&[
                if i + 1 < extensions { 60 } else { protocol },
                0,
                1,
                4,
                0,
                0,
                0,
                0,
            ]);
        }
    } else {
        let at = b.len() + 2;
        b.extend_from_slice(&[0x08, 0x00, 0x45 + extensions as u8, 0]);
        b.extend_from_slice(
            &u16::try_from(20 + extensions * 4 + l4_len)
                .expect("fits")
                .to_be_bytes(),
        );
        b.extend_from_slice(&[0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
        b.extend_from_slice(&src);
        b.extend_from_slice(&dst);
        b.extend(std::iter::repeat_n([1, 1, 1, 1], extensions).flatten());
        let value = checksum(&b[at..]);
        b[at + 10..at + 12].copy_from_slice(&value.to_be_bytes());
    }
    let transport = b.len();
    let mut pseudo: Vec<u8> = [src, dst].concat();
    pseudo.extend_from_slice(&[0, protocol]);
    pseudo.extend_from_slice(&u16::try_from(l4_len).expect("fits").to_be_bytes());
    let partial = sum(&pseudo).to_be_bytes();
    if kind.is_tcp() {
        b.extend_from_slice(&[0x13, 0x88, 0, 80, 0xff, 0xff, 0xf0, 0, 1, 2, 3, 4]);
        // CWR, ACK, PSH, FIN.
        b.extend_from_slice(&[0x80, 0x99, 1, 0, partial[0], partial[1], 0, 0]);
        b.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    } else {
        b.extend_from_slice(&[0x13, 0x88, 0, 53]);
        b.extend_from_slice(&u16::try_from(l4_len).expect("fits").to_be_bytes());
        b.extend_from_slice(&partial);
    }
    let header_len = b.len();
    b.extend((0..payload).map(|i| (i * 7 + i / 251) as u8));
    let gso_kind = match kind {
        Kind::Tcp4 => GsoKind::Tcp4,
        Kind::Tcp6 => GsoKind::Tcp6,
        Kind::Udp4 | Kind::Udp6 => GsoKind::UdpL4,
    };
    let offset = if kind.is_tcp() { 16 } else { 6 };
    let fit = |n: usize| u16::try_from(n).expect("fits");
    let gso = Gso {
        kind: gso_kind,
        size,
        header_len: fit(header_len),
        ecn: kind.is_tcp(),
    };
    let checksum = Checksum::Partial {
        start: fit(transport),
        offset,
    };
    (
        b,
        Offload {
            checksum,
            gso: Some(gso),
        },
    )
}

/// The sum as RFC 1071 states it, word by word.
fn simple_sum(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// True if smoltcp, which knows nothing of this module, finds every checksum right.
fn verified(bytes: &[u8], kind: Kind, extensions: usize, tagged: bool) -> bool {
    use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
    let ip = &bytes[if tagged { 18 } else { 14 }..];
    let (src, dst, transport): (IpAddress, IpAddress, &[u8]) = if kind.is_v6() {
        let packet = Ipv6Packet::new_checked(ip).expect("IPv6");
        assert_eq!(packet.total_len(), ip.len());
        (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            &ip[40 + extensions * 8..],
        )
    } else {
        let packet = Ipv4Packet::new_checked(ip).expect("IPv4");
        assert_eq!(usize::from(packet.total_len()), ip.len());
        if !packet.verify_checksum() {
            return false;
        }
        (
            packet.src_addr().into(),
            packet.dst_addr().into(),
            &ip[20 + extensions * 4..],
        )
    };
    if kind.is_tcp() {
        TcpPacket::new_checked(transport)
            .expect("TCP")
            .verify_checksum(&src, &dst)
    } else {
        let packet = UdpPacket::new_checked(transport).expect("UDP");
        assert_eq!(usize::from(packet.len()), transport.len());
        packet.verify_checksum(&src, &dst)
    }
}

fn cut(bytes: &[u8], offload: Offload, sums: Sums) -> Vec<(Vec<u8>, Offload)> {
    let mut copy = bytes.to_vec();
    let mut scratch = vec![0; HEADROOM + MAX_FRAME];
    let mut segments = Vec::new();
    segment::<()>(&Frame::whole(&mut copy, offload), sums, &mut scratch, |s| {
        segments.push((s.bytes().to_vec(), s.offload));
        Ok(())
    })
    .expect("nothing fails");
    assert_eq!(copy, bytes, "the super-frame is left as it was");
    segments
}

#[test]
fn tcp_flags_and_numbers_are_per_segment() {
    let (bytes, offload) = super_frame(Kind::Tcp4, None, 0, 2500, 1000);
    let segments = cut(&bytes, offload, Sums::Filled);
    let flags: Vec<u8> = segments.iter().map(|(s, _)| s[14 + 20 + 13]).collect();
    assert_eq!(
        flags,
        [0x90, 0x10, 0x19],
        "CWR on the first, PSH and FIN on the last"
    );
    let ids: Vec<u16> = segments
        .iter()
        .map(|(s, _)| u16::from_be_bytes([s[18], s[19]]))
        .collect();
    assert_eq!(ids, [0xfffe, 0xffff, 0]);
    let sequences: Vec<u32> = segments
        .iter()
        .map(|(s, _)| u32::from_be_bytes([s[38], s[39], s[40], s[41]]))
        .collect();
    assert_eq!(sequences, [0xffff_f000, 0xffff_f3e8, 0xffff_f7d0]);
}

#[test]
fn a_failing_consumer_ends_it() {
    let (mut bytes, offload) = super_frame(Kind::Udp6, None, 0, 5000, 1000);
    let mut scratch = vec![0; HEADROOM + MAX_FRAME];
    let mut seen = 0;
    let result = segment(
        &Frame::whole(&mut bytes, offload),
        Sums::Filled,
        &mut scratch,
        |_| {
            seen += 1;
            if seen == 2 { Err("full") } else { Ok(()) }
        },
    );
    assert_eq!((result, seen), (Err("full"), 2));
}

#[test]
fn a_checksum_of_zero_is_sent_as_ones() {
    // The sum over start.. is 0xffff, so its inverse is zero: UDP would take that for `none`.
    let mut bytes = vec![0u8; 60];
    bytes[50..52].copy_from_slice(&[0xff, 0xff]);
    let mut frame = Frame::whole(
        &mut bytes,
        Offload {
            checksum: Checksum::Partial { start: 34, offset: 6 },
            gso: None,
        },
    );
    complete(&mut frame);
    assert_eq!(&frame.bytes()[40..42], [0xff, 0xff]);
    assert_eq!(frame.offload, Offload::NONE);
}

#[test]
fn the_packet_length_of_a_super_frame_is_its_segments() {
    let tag = Some(VlanTag { tpid: 0x8100, tci: 5 });
    for (vlan, expected) in [(None, 20 + 32 + 1448), (tag, 20 + 32 + 1448)] {
        let (mut bytes, offload) = super_frame(Kind::Tcp4, vlan, 0, 20_000, 1448);
        assert_eq!(packet_len(&Frame::whole(&mut bytes, offload)), expected);
    }
}

#[test]
fn a_sum_that_carries_everywhere_is_right() {
    for len in 0..200 {
        let ones = vec![0xff; len];
        assert_eq!(sum(&ones), simple_sum(&ones), "{len} bytes");
        assert_eq!(header_sum(&ones), sum(&ones), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn the_fast_sum_is_the_simple_one(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        // Both zeroes of ones' complement are the same number.
        prop_assert_eq!(sum(&bytes) % 0xffff, simple_sum(&bytes) % 0xffff);
        prop_assert_eq!(sum(&bytes) == 0, bytes.iter().all(|&b| b == 0));
        let header = &bytes[..bytes.len().min(20)];
        prop_assert_eq!(header_sum(header), sum(header));
    }

    #[test]
    fn segments_make_up_the_payload_and_are_summed_right(
        kind in proptest::sample::select(&Kind::ALL[..]),
        tci in proptest::option::of(1u16..4095),
        extensions in 0usize..4,
        payload in 1usize..20_000,
        size in 8u16..9000,
        sums in proptest::sample::select(&[Sums::Filled, Sums::Left][..]),
    ) {
        let vlan = tci.map(|tci| VlanTag { tpid: 0x8100, tci });
        let (bytes, offload) = super_frame(kind, vlan, extensions, payload, size);
        prop_assert_eq!(Offload::decode(&offload.encode(), &bytes), Ok(offload));
        let header_len = usize::from(offload.gso.expect("gso").header_len);
        let segments = cut(&bytes, offload, sums);
        prop_assert_eq!(segments.len(), payload.div_ceil(usize::from(size)));
        let mut whole = Vec::new();
        for (mut segment, claim) in segments {
            whole.extend_from_slice(&segment[header_len..]);
            prop_assert_eq!(claim.gso, None);
            let mut frame = Frame::whole(&mut segment, claim);
            match sums {
                Sums::Filled => prop_assert_eq!(claim.checksum, Checksum::Complete),
                Sums::Left => {
                    prop_assert_eq!(claim.checksum, offload.checksum);
                    complete(&mut frame);
                }
            }
            prop_assert!(verified(frame.bytes(), kind, extensions, vlan.is_some()));
        }
        prop_assert_eq!(&whole[..], &bytes[header_len..]);
    }

    #[test]
    fn completing_a_plain_frame_sums_it_right(
        kind in proptest::sample::select(&Kind::ALL[..]),
        payload in 0usize..1400,
    ) {
        let (mut bytes, offload) = super_frame(kind, None, 0, payload, 1);
        let mut frame = Frame::whole(&mut bytes, Offload { gso: None, ..offload });
        complete(&mut frame);
        prop_assert!(verified(frame.bytes(), kind, 0, false));
    }
}
