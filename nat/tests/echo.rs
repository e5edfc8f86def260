//! Echo and ICMP errors against RFC 5508.

mod wire;

use std::time::Duration;

use pontoon_fixtures::packet::{Between, Parsed, fragment};
use pontoon_nat::host::{HostError, IpVersion, Origin};
use pontoon_switch::DropReason;
use rustix::io::Errno;
use wire::*;

fn ping(w: &mut Wire, dst: &str, id: u16, sequence: u16, data: &[u8]) -> Vec<Vec<u8>> {
    w.send(A, Wire::from(A, dst).echo(id, sequence, data))
}

fn id_and_sequence(rest: [u8; 4]) -> (u16, u16) {
    (
        u16::from_be_bytes([rest[0], rest[1]]),
        u16::from_be_bytes([rest[2], rest[3]]),
    )
}

#[test]
fn rfc5508_req1_queries_and_their_answers_pass() {
    for (far, reply) in [(FAR, 0), (FAR6, 129)] {
        let mut w = Wire::plain();
        w.send(A, Wire::from(A, far).ttl(9).tos(0x20).echo(77, 3, b"payload"));
        let sent = w.echoed();
        assert_eq!((sent.how.remote, sent.how.sequence), (ip(far), 3));
        assert_eq!(
            (sent.how.hop_limit, sent.how.tos, sent.data.as_slice()),
            (Some(8), 0x20, b"payload".as_slice())
        );
        assert_ne!(sent.how.id, 77);
        assert!(w.ping().reply(ip(far), sent.how.id, 3, b"payload"));
        let frames = w.settle();
        assert_eq!(Parsed::of(&frames[0]).expect("IP").ttl, 59);
        let (from, kind, code, rest, body) = icmp_of(&frames);
        assert_eq!(
            (from, kind, code, id_and_sequence(rest)),
            (ip(far), reply, 0, (77, 3))
        );
        assert_eq!(body, b"payload");
    }
}

#[test]
fn rfc5508_req1a_mapping_is_external_host_independent() {
    let mut w = Wire::plain();
    ping(&mut w, FAR, 77, 1, b"");
    let first = w.echoed().how.id;
    ping(&mut w, FAR2, 77, 2, b"");
    assert_eq!(w.echoed().how.id, first);
    ping(&mut w, FAR, 78, 1, b"");
    assert_ne!(w.echoed().how.id, first);
    // Who was not asked is not heard.
    assert!(w.ping().reply(ip("192.0.2.77"), first, 1, b""));
    assert!(w.settle().is_empty());
    assert_eq!(w.dropped(DropReason::Filtered), 1);
}

#[test]
fn rfc5508_req2_a_query_lasts_sixty_seconds() {
    let mut w = Wire::plain();
    ping(&mut w, FAR, 77, 1, b"");
    let id = w.echoed().how.id;
    w.pass(Duration::from_secs(60));
    assert!(w.ping().reply(ip(FAR), id, 1, b"late"));
    assert_eq!(icmp_of(&w.settle()).4, b"late");
    w.pass(Duration::from_secs(62));
    assert_eq!((w.gateway.table().len(), w.ping().open()), (0, 0));
}

#[test]
fn rfc5508_req3_an_error_with_a_wrong_checksum_is_dropped() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"x");
    let inner = Between::v4(FAR, "10.0.2.100").udp(4000, 5000, b"x");
    let mut error = Wire::from(A, FAR).icmp(3, 3, [0; 4], &inner[14..]);
    w.send(A, error.clone());
    assert_eq!(w.dropped(DropReason::BadChecksum), 0);
    *error.last_mut().expect("byte") ^= 1;
    w.send(A, error);
    assert_eq!(w.dropped(DropReason::BadChecksum), 1);
    // a: the same for the IP header of the embedded packet.
    let mut inner = inner;
    inner[14 + 8] ^= 1;
    w.send(A, Wire::from(A, FAR).icmp(3, 3, [0; 4], &inner[14..]));
    assert_eq!(w.dropped(DropReason::BadChecksum), 2);
}

#[test]
fn rfc5508_req4_an_error_from_outside_without_a_mapping_is_dropped() {
    let mut w = Wire::plain();
    ping(&mut w, FAR, 77, 1, b"x");
    let id = w.echoed().how.id;
    w.ping()
        .inject_error((id, 1), icmp_error("192.0.2.77:0", 3, 1, 0, "192.0.2.254"), b"x");
    assert!(w.settle().is_empty());
    assert_eq!(w.dropped(DropReason::NoFlow), 1);
    // With one, its embedded packet is as the container sent it, its type and code unchanged.
    w.ping().inject_error(
        (id, 1),
        icmp_error("198.51.100.10:0", 3, 1, 0, "192.0.2.254"),
        b"x",
    );
    let (from, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip("192.0.2.254"), 3, 1));
    let inner = [vec![0; 12], vec![8, 0], body].concat();
    let p = Parsed::of(&inner).expect("IP");
    assert_eq!((p.src, p.dst), (ip("10.0.2.100"), ip(FAR)));
    assert_eq!(&inner[14 + 24..14 + 28], &[0, 77, 0, 1]);
}

#[test]
fn rfc5508_req5_an_error_of_a_container_without_a_mapping_is_dropped() {
    let mut w = Wire::plain();
    let inner = Between::v4(FAR, "10.0.2.100").udp(4000, 5000, b"x");
    assert!(
        w.send(A, Wire::from(A, FAR).icmp(3, 3, [0; 4], &inner[14..]))
            .is_empty()
    );
    assert_eq!(w.dropped(DropReason::NoFlow), 1);
    // One about another container's flow is none either.
    w.send(B, Wire::from(B, FAR).udp(6000, 4000, b"x"));
    let inner = Between::v4(FAR, "10.0.2.101").udp(4000, 6000, b"x");
    w.send(A, Wire::from(A, FAR).icmp(3, 3, [0; 4], &inner[14..]));
    assert_eq!(w.dropped(DropReason::NoFlow), 2);
    // With a mapping there is no way to send it on by a socket, and it is counted.
    w.send(B, Wire::from(B, FAR).icmp(3, 3, [0; 4], &inner[14..]));
    assert_eq!(w.dropped(DropReason::HostUnsupported), 1);
}

#[test]
fn rfc5508_req6_errors_neither_refresh_nor_end_a_query() {
    let mut w = Wire::plain();
    ping(&mut w, FAR, 77, 1, b"");
    let id = w.echoed().how.id;
    w.pass(Duration::from_secs(55));
    w.ping().inject_error(
        (id, 1),
        icmp_error("198.51.100.10:0", 3, 1, 0, "192.0.2.254"),
        b"",
    );
    assert_eq!(w.settle().len(), 1);
    assert_eq!(w.gateway.table().len(), 1);
    w.pass(Duration::from_secs(8));
    assert_eq!(w.gateway.table().len(), 0);
}

#[test]
fn rfc5508_req7_hairpinned_queries_and_errors_pass() {
    // The host answers for its own address, as for any other.
    let mut w = Wire::plain();
    ping(&mut w, "192.0.2.1", 77, 1, b"self");
    let id = w.echoed().how.id;
    w.ping().reply(ip("192.0.2.1"), id, 1, b"self");
    assert_eq!(icmp_of(&w.settle()).0, ip("192.0.2.1"));
    // An error about a datagram to another container's closed mapping comes from the host's address.
    w.udp_out(5000, "203.0.113.20:4000", b"x");
    let port = w.sent().port;
    w.udp_out(5000, "192.0.2.1:41999", b"x");
    w.udp()
        .inject_error(port, icmp_error("192.0.2.1:41999", 3, 3, 0, "192.0.2.1"), b"x");
    let (from, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip("192.0.2.1"), 3, 3));
    assert_eq!(quoted(&body), (addr("10.0.2.100:5000"), addr("192.0.2.1:41999")));
}

#[test]
fn rfc5508_req8_refusals_are_told_as_prohibited() {
    let mut w = Wire::plain();
    w.ping().descriptors = Some(0);
    let (from, kind, code, ..) = icmp_of(&ping(&mut w, FAR, 77, 1, b""));
    assert_eq!((from, kind, code), (ip("10.0.2.2"), 3, 13));
    assert_eq!(
        (w.dropped(DropReason::HostExhausted), w.gateway.table().len()),
        (1, 0)
    );
    let (_, kind, code, ..) = icmp_of(&ping(&mut w, "169.254.169.254", 77, 1, b""));
    assert_eq!((kind, code), (3, 13));
    assert_eq!(w.dropped(DropReason::Forbidden), 1);
}

#[test]
fn rfc5508_req10_time_exceeded_and_unreachable_are_carried() {
    let mut w = Wire::plain();
    for (far, errors) in [
        (FAR, [(11, 0, 0), (3, 0, 0), (3, 1, 0), (3, 4, 1400), (3, 13, 0)]),
        (FAR6, [(3, 0, 0), (1, 0, 0), (1, 3, 0), (2, 0, 1400), (1, 1, 0)]),
    ] {
        let offender = if far == FAR {
            "192.0.2.254"
        } else {
            "2001:db8:9::1"
        };
        for (n, (kind, code, info)) in errors.into_iter().enumerate() {
            ping(&mut w, far, 77, n as u16, b"probe");
            let id = w.echoed().how.id;
            let remote = std::net::SocketAddr::new(ip(far), 0).to_string();
            w.ping().inject_error(
                (id, n as u16),
                icmp_error(&remote, kind, code, info, offender),
                b"probe",
            );
            let (from, k, c, rest, body) = icmp_of(&w.settle());
            assert_eq!((from, k, c), (ip(offender), kind, code));
            assert_eq!(u32::from_be_bytes(rest), info);
            let at = if far == FAR { 20 } else { 40 };
            assert_eq!(&body[at + 4..at + 8], &[0, 77, 0, n as u8]);
            assert_eq!(&body[at + 8..], b"probe");
        }
    }
}

#[test]
fn rfc5508_req11_other_messages_are_not_passed_on() {
    let mut w = Wire::plain();
    // Timestamp, address mask, redirect, router solicitation: dropped and counted.
    for kind in [13, 17, 5, 10] {
        assert!(
            w.send(A, Wire::from(A, FAR).icmp(kind, 0, [0; 4], &[0; 12]))
                .is_empty()
        );
    }
    assert_eq!(w.dropped(DropReason::UnknownProtocol), 4);
    assert_eq!((w.gateway.table().len(), w.ping().open()), (0, 0));
}

#[test]
fn a_local_refusal_for_size_is_told_with_the_mtu() {
    let mut w = Wire::plain();
    ping(&mut w, FAR, 77, 9, b"");
    let id = w.echoed().how.id;
    let error = HostError {
        remote: addr("198.51.100.10:0"),
        origin: Origin::Local,
        errno: Errno::MSGSIZE.raw_os_error(),
        kind: 0,
        code: 0,
        info: 1280,
        offender: None,
        len: 0,
    };
    w.ping().inject_error((id, 9), error, b"");
    let (from, kind, code, rest, _) = icmp_of(&w.settle());
    assert_eq!((from, kind, code, rest), (ip("10.0.2.2"), 3, 4, [0, 0, 5, 0]));
}

#[test]
fn without_ping_sockets_a_raw_one_serves_all() {
    let mut w = Wire::plain();
    w.ping().allowed = false;
    let (_, kind, code, ..) = icmp_of(&ping(&mut w, FAR, 77, 1, b""));
    assert_eq!((kind, code), (3, 13));
    assert_eq!(w.dropped(DropReason::HostUnsupported), 1);
    let raw = w.gateway.host_mut().ping_raw(IpVersion::V4);
    w.gateway.set_raw(IpVersion::V4, raw).expect("registered");
    ping(&mut w, FAR, 77, 1, b"a");
    let a = w.echoed().how.id;
    w.send(B, Wire::from(B, FAR).echo(77, 1, b"b"));
    let b = w.echoed().how.id;
    assert_ne!(a, b);
    w.ping().reply(ip(FAR), b, 1, b"b");
    let frames = w.settle();
    assert_eq!(Parsed::of(&frames[0]).expect("IP").dst, ip("10.0.2.101"));
    assert_eq!(id_and_sequence(icmp_of(&frames).3), (77, 1));
    // What the host itself is answered is nobody's here, and no drop either.
    let before = w.dropped(DropReason::NoFlow) + w.dropped(DropReason::Filtered);
    w.ping().reply(ip(FAR), 9999, 1, b"");
    assert!(w.settle().is_empty());
    assert_eq!(
        w.dropped(DropReason::NoFlow) + w.dropped(DropReason::Filtered),
        before
    );
    w.pass(Duration::from_secs(65));
    assert_eq!(w.gateway.table().len(), 0);
}

#[test]
fn echo_of_any_length_passes_in_fragments() {
    let mut w = Wire::plain();
    let data: Vec<u8> = (0..20_000).map(|i| i as u8).collect();
    for far in [FAR, FAR6] {
        for piece in fragment(&Wire::from(A, far).echo(5, 6, &data), 1500) {
            w.send(A, piece);
        }
        let sent = w.echoed();
        assert_eq!(sent.data, data);
        w.ping().reply(ip(far), sent.how.id, 6, &data);
        let frames = w.settle();
        assert!(
            frames.len() == 14 && frames.iter().all(|f| f.len() <= 1514),
            "{}",
            frames.len()
        );
    }
    // The gateway answers its own as well.
    let mut frames = Vec::new();
    for piece in fragment(&Wire::from(A, "10.0.2.2").echo(5, 6, &data), 1500) {
        frames.extend(w.send(A, piece));
    }
    assert!(
        frames.len() == 14 && frames.iter().all(|f| f.len() <= 1514),
        "{}",
        frames.len()
    );
}

#[test]
fn errors_are_not_sent_about_errors_groups_or_fragments_and_only_so_many() {
    let mut w = Wire::plain();
    // About an error there is none, even if it cannot be taken.
    let inner = Between::v4(FAR, "10.0.2.100").udp(4000, 5000, b"x");
    assert!(
        w.send(A, Wire::from(A, "169.254.1.1").icmp(3, 3, [0; 4], &inner[14..]))
            .is_empty()
    );
    // A multicast that reaches the gateway is nobody's.
    assert!(w.send(A, Wire::from(A, "224.0.0.9").udp(1, 2, b"x")).is_empty());
    let mut told = 0;
    for _ in 0..3000 {
        told += w.udp_out(5000, "127.0.0.1:1", b"x").len();
    }
    assert_eq!(told, 1000);
    assert_eq!(w.dropped(DropReason::RateLimited), 2000);
    w.pass(Duration::from_millis(10));
    let after: usize = (0..100).map(|_| w.udp_out(5000, "127.0.0.1:1", b"x").len()).sum();
    assert_eq!(after, 10);
}

#[test]
fn an_error_quotes_no_more_than_it_may() {
    let mut w = Wire::plain();
    let big = vec![1; 1400];
    let frames = w.send(A, Wire::from(A, "127.0.0.1").udp(5000, 1, &big));
    assert_eq!(Parsed::of(&frames[0]).expect("IP").ip_len, 576);
    let frames = w.send(A, Wire::from(A, "::1").udp(5000, 1, &big));
    assert_eq!(Parsed::of(&frames[0]).expect("IP").ip_len, 1280);
}

#[test]
fn too_big_for_the_path_is_told_with_the_mtu_by_a_raw_socket_too() {
    for allowed in [true, false] {
        let mut w = Wire::plain();
        w.ping().allowed = allowed;
        w.ping().path_mtu.insert(ip(FAR), 1300);
        let raw = w.gateway.host_mut().ping_raw(IpVersion::V4);
        w.gateway.set_raw(IpVersion::V4, raw).expect("registered");
        let frame = Wire::from(A, FAR).dont_fragment().echo(77, 12, &[0; 1400]);
        let (from, kind, code, rest, body) = icmp_of(&w.send(A, frame));
        assert_eq!((from, kind, code, rest), (ip("10.0.2.2"), 3, 4, [0, 0, 5, 0x14]));
        assert_eq!(&body[24..28], &[0, 77, 0, 12]);
    }
}
