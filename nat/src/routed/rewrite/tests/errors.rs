//! Errors in transit.

use etherparse::Ipv4HeaderSlice;

use super::*;
use crate::icmp::IcmpError;

/// An error from `from` about `inner`, a frame's packet cut to `len` bytes, with `tail` behind it.
fn error_about(v6: bool, inner: &[u8], len: usize, tail: &[u8]) -> Vec<u8> {
    let from = if v6 {
        Between::v6("2001:db8::1", "fd00:2::64")
    } else {
        Between::v4("203.0.113.1", "10.0.2.100")
    };
    let quoted = &inner[ETHERNET..];
    let mut body = quoted[..len.min(quoted.len())].to_vec();
    let mut rest = [0; 4];
    if !tail.is_empty() {
        body.resize(body.len().max(128).next_multiple_of(8), 0);
        let words = body.len() / if v6 { 8 } else { 4 };
        rest[usize::from(!v6)] = u8::try_from(words).expect("short");
        body.extend(tail);
    }
    from.icmp(if v6 { 1 } else { 3 }, if v6 { 4 } else { 3 }, rest, &body)
}

fn read(bytes: &[u8]) -> Result<Quoted, DropReason> {
    let mut bytes = bytes.to_vec();
    let (frame, packet) = parse(&mut bytes, Offload::NONE);
    quoted(&packet, &frame)
}

fn rewritten(bytes: &[u8], src: IpAddr, dst: IpAddr, inner: &Tuple) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (mut frame, mut packet) = parse(&mut bytes, Offload::NONE);
    let quoted = quoted(&packet, &frame).expect("an error");
    translate_error(&mut frame, &mut packet, &quoted, src, dst, inner);
    assert_eq!(Packet::parse(PortId(1), &frame), Ok(packet));
    bytes
}

/// Bytes of the IP header and extension headers of a sample.
fn headers(bytes: &[u8]) -> usize {
    bytes.len() - ETHERNET - seen(bytes).3.len()
}

proptest! {
    #[test]
    fn errors_there_and_back(
        sample in sample(),
        ends in ends(),
        outer in ends(),
        cut in 0usize..200,
        tail in prop_oneof![Just(vec![]), Just(vec![0x20, 0, 1, 2, 0, 8, 1, 1, 9, 9, 9, 9])],
    ) {
        let inner = sample.bytes;
        let v6 = inner[ETHERNET] >> 4 == 6;
        let tuple = tuple_of(&inner, sample.offload);
        let bytes = error_about(v6, &inner, headers(&inner) + 8 + cut, &tail);
        let before = read(&bytes);
        // Eight bytes are needed, for the ports; a protocol without may be shorter.
        prop_assert_eq!(before.map(|q| q.tuple), Ok(tuple));
        let to = ends.tuple(&inner, tuple);
        let outer = outer.tuple(&inner, tuple);
        let there = rewritten(&bytes, outer.src.ip(), outer.dst.ip(), &to);
        // By etherparse: the error's own checksums, and those of what it quotes.
        let (src, dst, protocol, message) = seen(&there);
        prop_assert_eq!((src, dst), (outer.src.ip(), outer.dst.ip()));
        prop_assert_eq!(residue(src, dst, protocol, &message), 0);
        let embedded = &message[8..];
        if !v6 {
            let header = Ipv4HeaderSlice::from_slice(embedded).expect("a header");
            prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        }
        prop_assert!(there.ends_with(&tail));
        prop_assert_eq!(read(&there).map(|q| q.tuple), Ok(to));
        let (src, dst, _, _) = seen(&bytes);
        prop_assert_eq!(rewritten(&there, src, dst, &tuple), bytes);
    }

    /// The host gets back what it sent: what is quoted is as the whole packet, translated, would have been.
    #[test]
    fn what_is_quoted_is_as_the_packet_was(sample in whole_sample(), ends in ends()) {
        let inner = sample.bytes;
        let tuple = tuple_of(&inner, Offload::NONE);
        let to = ends.tuple(&inner, tuple);
        let sent = translated(&inner, Offload::NONE, &to);
        let error = error_about(inner[ETHERNET] >> 4 == 6, &sent, usize::MAX, &[]);
        let (src, dst, _, _) = seen(&error);
        let back = rewritten(&error, src, dst, &tuple);
        prop_assert_eq!(&seen(&back).3[8..], &inner[ETHERNET..]);
    }
}

#[test]
fn rfc5508_req3_what_is_not_well_made_is_refused() {
    for v6 in [false, true] {
        let inner = between(v6).udp(1000, 2000, b"data");
        let good = error_about(v6, &inner, usize::MAX, &[]);
        assert_eq!(read(&good).map(|q| q.error), Ok(IcmpError::PortUnreachable));
        let at = good.len() - inner.len() + ETHERNET;
        // REQ-3: its own checksum.
        let mut wrong = good.clone();
        wrong[at - 5] ^= 1;
        assert_eq!(read(&wrong), Err(DropReason::BadChecksum));
        // REQ-3 c: the transport checksum of what is quoted is not looked at.
        let mut odd = inner.clone();
        let last = odd.len() - 1;
        odd[last] ^= 1;
        assert!(read(&error_about(v6, &odd, usize::MAX, &[])).is_ok());
        // Less than eight bytes of the transport header.
        let short = if v6 { 40 } else { 20 } + 7;
        assert_eq!(
            read(&error_about(v6, &inner, short, &[])),
            Err(DropReason::Malformed)
        );
        // Of the other IP version.
        assert_eq!(
            read(&error_about(
                v6,
                &between(!v6).udp(1, 2, &[0; 60]),
                usize::MAX,
                &[]
            )),
            Err(DropReason::Malformed)
        );
        // About an error, which nobody may be told of.
        assert_eq!(
            read(&error_about(v6, &good, usize::MAX, &[])),
            Err(DropReason::NoFlow)
        );
        // About a later fragment.
        let pieces = packet::fragment(&between(v6).udp(1, 2, &[0; 3000]), 1500);
        assert_eq!(
            read(&error_about(v6, &pieces[1], 100, &[])),
            Err(DropReason::NoFlow)
        );
        assert!(read(&error_about(v6, &pieces[0], 100, &[])).is_ok());
    }
    // REQ-3 a: the header checksum of what is quoted.
    let mut inner = between(false).udp(1000, 2000, b"data");
    inner[ETHERNET + 1] ^= 4;
    assert_eq!(
        read(&error_about(false, &inner, usize::MAX, &[])),
        Err(DropReason::BadChecksum)
    );
}

#[test]
fn redirects_and_source_quenches_are_for_nobody() {
    let inner = between(false).udp(1000, 2000, b"data");
    for kind in [4, 5] {
        let bytes = back(false).icmp(kind, 0, [10, 0, 2, 1], &inner[ETHERNET..]);
        assert_eq!(read(&bytes), Err(DropReason::UnknownProtocol));
    }
    let inner = between(true).udp(1000, 2000, b"data");
    let bytes = back(true).icmp(137, 0, [0; 4], &inner[ETHERNET..]);
    assert_eq!(read(&bytes), Err(DropReason::UnknownProtocol));
}

#[test]
fn what_an_error_says_is_read_and_stays() {
    let said = |v6: bool, kind, code, rest: [u8; 4]| {
        let inner = between(v6).udp(1000, 2000, &[0; 100]);
        let bytes = back(v6).icmp(kind, code, rest, &inner[ETHERNET..]);
        let quoted = read(&bytes).expect("an error");
        let there = rewritten(
            &bytes,
            quoted.tuple.src.ip(),
            quoted.tuple.dst.ip(),
            &quoted.tuple.reversed(),
        );
        assert_eq!(seen(&there).3[4..8], rest);
        quoted.error
    };
    assert_eq!(said(false, 3, 4, [0, 0, 5, 0]), IcmpError::PacketTooBig(1280));
    assert_eq!(said(true, 2, 0, [0, 0, 5, 0]), IcmpError::PacketTooBig(1280));
    // A length in an ICMPv6 message of this kind would be an MTU of more than 16 MiB.
    assert_eq!(said(true, 2, 0, [16, 0, 0, 0]), IcmpError::PacketTooBig(16 << 24));
    assert_eq!(said(false, 12, 0, [20, 0, 0, 0]), IcmpError::ParameterProblem(20));
    assert_eq!(said(true, 4, 0, [0, 0, 0, 40]), IcmpError::ParameterProblem(40));
    assert_eq!(said(false, 11, 0, [0; 4]), IcmpError::HopLimitExceeded);
}
