//! The UDP relay against RFC 4787, and published UDP.

mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use pontoon_fixtures::packet::{Parsed, Tcp, flags, fragment};
use pontoon_nat::config::{Filtering, HostLoopback};
use pontoon_nat::host::{UdpRecv, UdpSend, UdpSocket};
use pontoon_switch::{Checksum, DropReason, Gso, GsoKind, Offload};
use wire::*;

#[test]
fn rfc4787_req1_endpoint_independent_mapping() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:53", b"one");
    let first = w.sent();
    w.udp_out(5000, "203.0.113.20:4000", b"two");
    let second = w.sent();
    assert_eq!(first.port, second.port);
    assert_eq!(first.how.remote, addr("198.51.100.10:53"));
    assert_eq!(second.data, b"two");
    // Another port of the container, and another container, have their own.
    w.udp_out(5001, "198.51.100.10:53", b"three");
    assert_ne!(w.sent().port, first.port);
    w.send(B, Wire::from(B, FAR).udp(5000, 53, b"four"));
    assert_ne!(w.sent().port, first.port);
    assert_eq!(w.udp().open(), 3);
}

#[test]
fn rfc4787_req3_ports_are_preserved_and_not_shared() {
    let mut w = Wire::plain();
    w.udp_out(40_404, "198.51.100.10:53", b"mine");
    assert_eq!(w.sent().port, 40_404);
    // The same port of another container gets another one of the host.
    w.send(B, Wire::from(B, FAR).udp(40_404, 53, b"taken"));
    assert_ne!(w.sent().port, 40_404);
    // A port outside the range that the host gives out may be wanted by a service of the host's.
    w.udp_out(8080, "198.51.100.10:53", b"not mine");
    let port = w.sent().port;
    assert!(port >= 32_768, "{port}");
}

#[test]
fn rfc4787_req4_parity_is_preserved() {
    let mut w = Wire::plain();
    for sport in [5004, 5005, 6001, 6003, 7000, 7002] {
        w.udp_out(sport, "198.51.100.10:9", b"");
        assert_eq!(w.sent().port % 2, sport % 2, "{sport}");
    }
}

#[test]
fn rfc4787_req5_mapping_lasts_two_minutes() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"hello");
    let port = w.sent().port;
    w.pass(Duration::from_secs(119));
    let (_, _, data) = udp_of(&w.udp_in(port, "198.51.100.10:4000", b"late"));
    assert_eq!(data, b"late");
    // With nothing said for five minutes more, all of it is gone: flow, mapping, socket.
    w.pass(Duration::from_secs(310));
    assert_eq!((w.gateway.table().len(), w.udp().open()), (0, 0));
    assert!(!w.udp().inject(port, addr("198.51.100.10:4000"), b"too late"));
}

#[test]
fn rfc4787_req5a_well_known_ports_are_shorter() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:53", b"question");
    w.pass(Duration::from_secs(29));
    assert_eq!(w.udp().open(), 1);
    w.pass(Duration::from_secs(3));
    assert_eq!(w.udp().open(), 0);
}

#[test]
fn rfc4787_req6_outbound_refreshes() {
    let mut w = Wire::plain();
    for _ in 0..5 {
        w.udp_out(5000, "198.51.100.10:4000", b"still here");
        w.pass(Duration::from_secs(100));
        assert_eq!(w.udp().open(), 1);
    }
    let ports: std::collections::HashSet<u16> = w.udp().sent.iter().map(|s| s.port).collect();
    assert_eq!(ports.len(), 1);
}

#[test]
fn rfc4787_req7_a_client_in_the_containers_subnet_appears_as_the_gateway() {
    let mut w = Wire::plain();
    w.publish_dns();
    let (src, ..) = udp_of(&w.udp_in(8053, "10.0.2.77:50000", b"?"));
    assert_eq!(src.ip(), ip("10.0.2.2"));
    w.udp_out(53, &src.to_string(), b"!");
    assert_eq!(w.sent().how.remote, addr("10.0.2.77:50000"));
}

#[test]
fn rfc4787_req8_address_dependent_filtering() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"hello");
    let port = w.sent().port;
    assert!(w.udp_in(port, "203.0.113.20:4000", b"a stranger").is_empty());
    assert_eq!(w.dropped(DropReason::Filtered), 1);
    let (src, dst, data) = udp_of(&w.udp_in(port, "198.51.100.10:9999", b"another port"));
    assert_eq!((src, dst), (addr("198.51.100.10:9999"), addr("10.0.2.100:5000")));
    assert_eq!(data, b"another port");
}

#[test]
fn rfc4787_req8_endpoint_independent_filtering_by_choice() {
    let mut w = Wire::new(pontoon_nat::config::Config {
        filtering: Filtering::EndpointIndependent,
        ..config()
    });
    w.udp_out(5000, "198.51.100.10:4000", b"hello");
    let port = w.sent().port;
    let (src, _, data) = udp_of(&w.udp_in(port, "203.0.113.20:4000", b"a stranger"));
    assert_eq!(
        (src, data.as_slice()),
        (addr("203.0.113.20:4000"), b"a stranger".as_slice())
    );
}

#[test]
fn rfc4787_req9_hairpin_shows_the_external_address() {
    let mut w = Wire::plain();
    // B opens its mapping towards the host's address, as a peer told it A's and its own.
    w.udp_out(5000, "198.51.100.10:3478", b"stun");
    let a = w.sent().port;
    w.send(B, Wire::from(B, FAR).udp(6000, 3478, b"stun"));
    let b = w.sent().port;
    w.send(B, Wire::from(B, "192.0.2.1").udp(6000, a, b"punch"));
    assert_eq!(w.dropped(DropReason::Filtered), 1);
    let (src, dst, data) = udp_of(&w.udp_out(5000, &format!("192.0.2.1:{b}"), b"hello"));
    assert_eq!(
        (src, dst),
        (addr(&format!("192.0.2.1:{a}")), addr("10.0.2.101:6000"))
    );
    assert_eq!(data, b"hello");
    let answer = w.send(B, Wire::from(B, "192.0.2.1").udp(6000, a, b"hello yourself"));
    let (src, dst, _) = udp_of(&answer);
    assert_eq!(
        (src, dst),
        (addr(&format!("192.0.2.1:{b}")), addr("10.0.2.100:5000"))
    );
}

#[test]
fn rfc4787_req11_behaviour_is_deterministic() {
    // The same filtering and mapping when the port could not be preserved as when it could.
    for sport in [40_404, 8080] {
        let mut w = Wire::plain();
        w.udp_out(sport, "198.51.100.10:4000", b"");
        let port = w.sent().port;
        w.udp_out(sport, "203.0.113.20:1", b"");
        assert_eq!(w.sent().port, port);
        assert!(w.udp_in(port, "192.0.2.99:1", b"").is_empty());
    }
}

#[test]
fn rfc4787_req12_errors_end_no_mapping_and_reach_the_container() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"anyone?");
    let port = w.sent().port;
    let error = icmp_error("198.51.100.10:4000", 3, 3, 0, FAR);
    assert!(w.udp().inject_error(port, error, b"anyone?"));
    let (from, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip(FAR), 3, 3));
    assert_eq!(
        quoted(&body),
        (addr("10.0.2.100:5000"), addr("198.51.100.10:4000"))
    );
    assert_eq!(&body[28..], b"anyone?");
    udp_of(&w.udp_in(port, "198.51.100.10:4000", b"now"));
}

#[test]
fn errors_of_routers_and_of_ipv6_are_carried_over() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:33434", b"probe");
    let port = w.sent().port;
    w.udp().inject_error(
        port,
        icmp_error("198.51.100.10:33434", 11, 0, 0, "192.0.2.254"),
        b"probe",
    );
    let (from, kind, code, ..) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip("192.0.2.254"), 11, 0));
    w.udp_out(5000, "[2001:db8:2::10]:33434", b"probe");
    let port = w.sent().port;
    let error = icmp_error("[2001:db8:2::10]:33434", 1, 4, 0, FAR6);
    w.udp().inject_error(port, error, b"probe");
    let (from, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip(FAR6), 1, 4));
    assert_eq!(quoted(&body).1, addr("[2001:db8:2::10]:33434"));
}

#[test]
fn rfc4787_req13_too_big_with_df_is_told_with_the_mtu() {
    let mut w = Wire::plain();
    w.udp().path_mtu.insert(ip(FAR), 1400);
    w.udp().path_mtu.insert(ip(FAR6), 1300);
    let big = vec![7; 1440];
    let frames = w.send(A, Wire::from(A, FAR).dont_fragment().udp(5000, 4000, &big));
    let (from, kind, code, rest, body) = icmp_of(&frames);
    assert_eq!(
        (from, kind, code, rest),
        (ip("10.0.2.2"), 3, 4, [0, 0, 0x05, 0x78])
    );
    assert_eq!(quoted(&body).0, addr("10.0.2.100:5000"));
    let frames = w.send(A, Wire::from(A, FAR6).udp(5000, 4000, &big));
    let (_, kind, code, rest, _) = icmp_of(&frames);
    assert_eq!((kind, code, u32::from_be_bytes(rest)), (2, 0, 1300));
    // Without DF the host fragments.
    assert!(w.send(A, Wire::from(A, FAR).udp(5000, 4000, &big)).is_empty());
    assert!(!w.sent().how.dont_fragment);
}

#[test]
fn rfc4787_req14_fragments_in_any_order() {
    let mut w = Wire::plain();
    let data: Vec<u8> = (0..65_507u32).map(|i| (i * 7) as u8).collect();
    for far in [FAR, FAR6] {
        let mut pieces = fragment(&Wire::from(A, far).ident(77).udp(5000, 4000, &data), 1500);
        pieces.reverse();
        let middle = pieces.len() / 2;
        pieces.swap(0, middle);
        for piece in pieces {
            assert!(w.send(A, piece).is_empty());
        }
        let sent = w.sent();
        assert_eq!(sent.data, data);
        assert!(!sent.how.dont_fragment);
        // The answer is as long, and comes in fragments that the link carries.
        assert!(w.udp().inject(sent.port, sent.how.remote, &data));
        let frames = w.settle();
        assert!(
            frames.len() > 40 && frames.iter().all(|f| f.len() <= 1514),
            "{}",
            frames.len()
        );
        assert_eq!(reassemble(&frames), data);
    }
}

/// The UDP payload of a fragmented datagram.
fn reassemble(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for (i, frame) in frames.iter().enumerate() {
        match Parsed::of(frame).expect("IP").payload {
            pontoon_fixtures::packet::Payload::Fragment {
                ident,
                offset,
                more,
                data,
            } => {
                assert_eq!((offset, more), (whole.len(), i + 1 < frames.len()));
                ids.insert(ident);
                whole.extend_from_slice(data);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids.len(), 1);
    let length = usize::from(u16::from_be_bytes([whole[4], whole[5]]));
    assert_eq!(length, whole.len());
    whole.split_off(8)
}

#[test]
fn ttl_tos_and_empty_datagrams_are_carried() {
    let mut w = Wire::plain();
    w.send(
        A,
        Wire::from(A, FAR)
            .ttl(17)
            .tos(0xb8)
            .dont_fragment()
            .udp(5000, 4000, b""),
    );
    let sent = w.sent();
    let how = sent.how;
    assert_eq!(
        (how.hop_limit, how.tos, how.dont_fragment, sent.data.len()),
        (Some(16), 0xb8, true, 0)
    );
    let received = UdpRecv {
        len: 0,
        remote: addr("198.51.100.10:4000"),
        local: None,
        hop_limit: Some(9),
        tos: 0x2e,
        segment: None,
    };
    w.udp().receive(sent.port, received, b"");
    let frames = w.settle();
    let p = Parsed::of(&frames[0]).expect("IP");
    assert_eq!((p.ttl, p.tos), (8, 0x2e));
    assert_eq!(udp_of(&frames).2, b"");
}

#[test]
fn the_last_hop_is_answered_by_the_gateway() {
    let mut w = Wire::plain();
    for far in [FAR, FAR6] {
        let (from, kind, code, ..) = icmp_of(&w.send(A, Wire::from(A, far).ttl(1).udp(5000, 33434, b"")));
        let expected = if far == FAR {
            ("10.0.2.2", 11)
        } else {
            ("fd00:2::2", 3)
        };
        assert_eq!((from, kind, code), (ip(expected.0), expected.1, 0));
    }
    assert_eq!(w.udp().open(), 0);
    assert_eq!(w.dropped(DropReason::HopLimit), 2);
}

#[test]
fn checksums_are_verified_unless_partial_or_absent() {
    let mut w = Wire::plain();
    let good = Wire::from(A, FAR).udp(5000, 4000, b"data");
    let mut bad = good.clone();
    *bad.last_mut().expect("byte") ^= 1;
    w.send(A, bad.clone());
    assert_eq!(w.dropped(DropReason::BadChecksum), 1);
    // A partial checksum is good by definition.
    let partial = Offload {
        checksum: Checksum::Partial { start: 34, offset: 6 },
        gso: None,
    };
    w.send_offloaded(A, bad.clone(), partial);
    assert_eq!(w.sent().data.len(), 4);
    // Zero is none over IPv4, and not allowed over IPv6.
    bad[34 + 6..34 + 8].fill(0);
    w.send(A, bad);
    assert_eq!(w.sent().data.len(), 4);
    let mut six = Wire::from(A, FAR6).udp(5000, 4000, b"data");
    six[54 + 6..54 + 8].fill(0);
    w.send(A, six);
    assert_eq!(w.dropped(DropReason::BadChecksum), 2);
}

#[test]
fn super_frames_are_carried_both_ways() {
    let mut w = Wire::plain();
    let data: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    let gso = |header_len| Gso {
        kind: GsoKind::UdpL4,
        size: 1200,
        header_len,
        ecn: false,
    };
    let offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 6 },
        gso: Some(gso(42)),
    };
    w.send_offloaded(A, Wire::from(A, FAR).udp(5000, 4000, &data), offload);
    let sent = w.sent();
    assert_eq!((sent.how.segment, &sent.data), (Some(1200), &data));
    let flows = w.gateway.flows(w.now, None, 0, 10).0;
    assert_eq!((flows[0].1.sent.packets, flows.len()), (5, 1));
    let received = UdpRecv {
        len: 5000,
        remote: addr("198.51.100.10:4000"),
        local: None,
        hop_limit: None,
        tos: 0,
        segment: Some(1200),
    };
    w.udp().receive(sent.port, received, &data);
    let frames = w.settle_offloaded();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, offload);
    let pieces: Vec<Vec<u8>> = pontoon_fixtures::packet::explode(&frames[0].0, frames[0].1);
    let whole: Vec<u8> = pieces
        .iter()
        .flat_map(|f| udp_of(std::slice::from_ref(f)).2)
        .collect();
    assert_eq!((pieces.len(), whole), (5, data.clone()));
    // Segments over the link's MTU come one by one, in fragments.
    w.udp().receive(
        sent.port,
        UdpRecv {
            segment: Some(2500),
            ..received
        },
        &data,
    );
    let frames = w.settle();
    assert_eq!(frames.len(), 4);
    assert_eq!(
        [reassemble(&frames[..2]), reassemble(&frames[2..])].concat(),
        data
    );
}

#[test]
fn forbidden_destinations_are_refused_with_an_error() {
    let mut w = Wire::plain();
    for dst in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.2.2",
        "::ffff:127.0.0.1",
        "::1",
        "fe80::1",
    ] {
        let (_, kind, code, ..) = icmp_of(&w.send(A, Wire::from(A, dst).udp(5000, 4000, b"let me in")));
        let expected = if ip(dst).is_ipv4() { (3, 13) } else { (1, 1) };
        assert_eq!((kind, code), expected, "{dst}");
    }
    assert_eq!((w.dropped(DropReason::Forbidden), w.udp().open()), (7, 0));
}

#[test]
fn the_gateway_leads_to_the_hosts_loopback_if_told_so() {
    let mut w = Wire::new(pontoon_nat::config::Config {
        host_loopback: HostLoopback::ByGateway,
        ..config()
    });
    let mut service = w
        .gateway
        .host_mut()
        .udp_bound(addr("127.0.0.1:7000"))
        .expect("bound");
    w.udp_out(5000, "10.0.2.2:7000", b"ping");
    let mut buf = [0; 16];
    let got = service.recv(&mut buf).expect("datagram");
    assert_eq!(
        (&buf[..got.len], got.remote.ip()),
        (b"ping".as_slice(), ip("127.0.0.1"))
    );
    service.send(&UdpSend::to(got.remote), b"pong").expect("send");
    let (src, dst, data) = udp_of(&w.settle());
    assert_eq!((src, dst), (addr("10.0.2.2:7000"), addr("10.0.2.100:5000")));
    assert_eq!(data, b"pong");
}

#[test]
fn failures_of_the_host_are_told_and_counted() {
    let mut w = Wire::plain();
    use rustix::io::Errno;
    for (errno, kind, code) in [
        (Errno::NETUNREACH, 3, 0),
        (Errno::HOSTUNREACH, 3, 1),
        (Errno::ACCESS, 3, 13),
        (Errno::PERM, 3, 13),
    ] {
        w.udp().failures.push_back(errno.raw_os_error());
        let (from, k, c, ..) = icmp_of(&w.udp_out(5000, "198.51.100.10:4000", b"x"));
        assert_eq!((from, k, c), (ip("10.0.2.2"), kind, code), "{errno}");
    }
    assert_eq!(w.dropped(DropReason::HostError), 4);
    w.udp().failures.push_back(Errno::AGAIN.raw_os_error());
    assert!(w.udp_out(5000, "198.51.100.10:4000", b"x").is_empty());
    assert_eq!(w.dropped(DropReason::HostFull), 1);
}

#[test]
fn rfc5508_req8_refusals_for_want_of_resources_are_told() {
    let mut w = Wire::plain();
    w.udp().descriptors = Some(0);
    let (_, kind, code, ..) = icmp_of(&w.udp_out(5000, "198.51.100.10:4000", b"x"));
    assert_eq!((kind, code), (3, 13));
    assert_eq!(w.dropped(DropReason::HostExhausted), 1);
    assert_eq!(w.gateway.table().len(), 0);
    // With descriptors again, it goes on.
    w.udp().descriptors = None;
    assert!(w.udp_out(5000, "198.51.100.10:4000", b"x").is_empty());
    w.sent();
}

#[test]
fn the_quota_of_flows_bounds_a_container() {
    let mut w = Wire::plain();
    for i in 0..50 {
        w.udp_out(10_000 + i, "198.51.100.10:4000", b"x");
        let port = w.sent().port;
        // Answered, so that none may be evicted for another.
        w.udp_in(port, "198.51.100.10:4000", b"y");
    }
    let (_, kind, code, ..) = icmp_of(&w.udp_out(20_000, "198.51.100.10:4000", b"x"));
    assert_eq!((kind, code), (3, 13));
    assert_eq!(w.dropped(DropReason::QuotaFull), 1);
    assert_eq!((w.gateway.table().len(), w.udp().open()), (50, 50));
}

#[test]
fn a_greedy_container_leaves_sockets_to_its_neighbour() {
    let mut w = Wire::plain();
    w.gateway.limit_sockets(27);
    for i in 0..40 {
        w.udp_out(10_000 + i, "198.51.100.10:4000", b"x");
        let sent: Vec<_> = w.udp().sent.drain(..).collect();
        for sent in sent {
            // Answered, so that none may be evicted for another.
            assert!(w.udp().inject(sent.port, addr("198.51.100.10:4000"), b"y"));
        }
        w.settle();
    }
    assert_eq!(w.dropped(DropReason::QuotaFull), 16);
    assert_eq!(w.udp().open(), 24);
    w.send(B, Wire::from(B, FAR).udp(5000, 4000, b"neighbour"));
    assert_eq!(w.sent().data, b"neighbour");
    // A further destination of a socket that is there needs none.
    assert!(w.udp_out(10_000, "203.0.113.20:4000", b"z").is_empty());
    w.sent();
    // When its flows end, it may open others.
    w.pass(Duration::from_secs(600));
    assert_eq!(w.udp().open(), 0);
    assert!(w.udp_out(20_000, "198.51.100.10:4000", b"again").is_empty());
    w.sent();
}

#[test]
fn a_container_at_its_share_of_sockets_loses_what_was_never_answered() {
    let mut w = Wire::plain();
    w.gateway.limit_sockets(9);
    for i in 0..9 {
        w.udp_out(10_000 + i, "198.51.100.10:4000", b"x");
    }
    assert_eq!(w.dropped(DropReason::QuotaFull), 1);
    assert_eq!(w.udp().open(), 7);
    w.udp().sent.clear();
    assert!(w.udp_out(10_008, "198.51.100.10:4000", b"x").is_empty());
    assert_eq!(w.sent().data, b"x", "room was made for it");
}

/// One port of A's that talks to ever new destinations, as far as its flows go and beyond: it loses those of its own that
/// never saw an answer, and nothing of anybody's that did.
#[test]
fn one_mapping_with_flows_without_end_harms_only_itself() {
    for (total, per_container) in [(20_000, 10_000), (10_000, 10_000)] {
        let mut w = Wire::new(pontoon_nat::config::Config {
            max_flows: total,
            max_flows_per_container: per_container,
            ..config()
        });
        w.gateway.limit_sockets(200);
        // Each has a flow that was answered, and B one that waits for its answer.
        let mut answered = Vec::new();
        for (port, sport) in [(A, 7777), (A, 6000), (B, 6000)] {
            w.send(port, Wire::from(port, FAR).udp(sport, 4000, b"hello"));
            let host = w.sent().port;
            assert_eq!(w.udp_in(host, "198.51.100.10:4000", b"yes").len(), 1);
            answered.push(host);
        }
        w.send(B, Wire::from(B, FAR).udp(6001, 53, b"question"));
        let waits = w.sent().port;
        for n in 0..40_000 {
            w.hand(A, Wire::from(A, "198.18.0.1").udp(7777, 1024 + n, b"flood"));
            if n % 64 == 0 {
                w.settle();
                w.udp().sent.clear();
            }
        }
        w.settle();
        w.udp().sent.clear();
        // The table is full of them, but for what B has; no frame was refused, no socket was opened.
        assert_eq!(w.gateway.table().container_len(A), per_container.min(total - 2));
        assert_eq!(w.gateway.table().container_len(B), 2);
        assert_eq!(
            w.dropped(DropReason::QuotaFull) + w.dropped(DropReason::TableFull),
            0
        );
        assert_eq!(w.udp().open(), 4);
        for host in answered {
            assert_eq!(w.udp_in(host, "198.51.100.10:4000", b"still").len(), 1);
        }
        assert_eq!(w.udp_in(waits, "198.51.100.10:53", b"answer").len(), 1);
        // B opens what it likes.
        for sport in 7000..7050 {
            w.send(B, Wire::from(B, FAR).udp(sport, 4000, b"new"));
            assert_eq!(w.sent().data, b"new");
        }
        assert_eq!(w.gateway.table().container_len(B), 52);
        w.pass(Duration::from_secs(700));
        assert_eq!((w.gateway.table().len(), w.udp().open()), (0, 0));
    }
}

/// A container whose share of sockets is used up by ports that nobody answered gets a new one at the second try, though a port
/// of its own with many destinations has older flows.
#[test]
fn a_mapping_with_many_flows_does_not_keep_sockets_from_its_container() {
    let mut w = Wire::new(pontoon_nat::config::Config {
        max_flows: 1000,
        max_flows_per_container: 1000,
        ..config()
    });
    w.gateway.limit_sockets(9);
    for n in 0..50 {
        w.udp_out(7777, &format!("198.18.0.1:{}", 1000 + n), b"many");
    }
    for n in 0..7 {
        w.udp_out(10_000 + n, "198.51.100.10:4000", b"one");
    }
    assert_eq!(w.udp().open(), 8);
    assert_eq!(w.dropped(DropReason::QuotaFull), 0);
    w.udp().sent.clear();
    // In vain: the flow that goes is the one that the many began with.
    w.udp_out(20_000, "198.51.100.10:4000", b"x");
    for n in 0..5 {
        w.udp_out(20_000 + n, "198.51.100.10:4000", b"x");
        assert!(w.udp_out(20_000 + n, "198.51.100.10:4000", b"again").is_empty());
        assert_eq!(w.sent().data, b"again");
    }
    assert_eq!(w.dropped(DropReason::QuotaFull), 6);
    // 49 of the many, and as many others as there are sockets.
    assert_eq!(w.gateway.table().len(), 49 + 7);
    assert_eq!(w.udp().open(), 8);
}

/// The flow that asks is not the one that goes, though its kind would be the first to.
#[test]
fn room_is_made_for_flows_of_every_kind() {
    let out = Wire::from(A, FAR);
    let syn = out.tcp(Tcp {
        src: 5000,
        dst: 80,
        flags: flags::SYN,
        ..Tcp::default()
    });
    for (what, frame) in [
        ("TCP", syn),
        ("echo", out.echo(7, 1, b"x")),
        ("DNS", out.udp(5000, 53, b"x")),
    ] {
        let mut w = Wire::plain();
        w.gateway.limit_sockets(9);
        for i in 0..8 {
            w.udp_out(10_000 + i, "198.51.100.10:4000", b"x");
        }
        for _ in 0..3 {
            w.send(A, frame.clone());
        }
        assert_eq!(w.dropped(DropReason::QuotaFull), 1, "{what}");
    }
}

#[test]
fn an_evicted_flow_takes_its_mapping_along() {
    let mut w = Wire::plain();
    for i in 0..200 {
        assert!(w.udp_out(10_000 + i, "198.51.100.10:4000", b"x").is_empty());
        w.sent();
    }
    assert_eq!((w.gateway.table().len(), w.udp().open()), (50, 50));
}

#[test]
fn a_published_port_shows_the_clients_address() {
    let mut w = Wire::plain();
    for (bound, container, client) in [
        ("0.0.0.0:8053", "10.0.2.100:53", "198.51.100.10:4242"),
        ("[::]:8053", "[fd00:2::100]:53", "[2001:db8:2::10]:4242"),
    ] {
        let socket = w.gateway.host_mut().udp_bound(addr(bound)).expect("bound");
        w.gateway
            .publish_udp(A, addr(container), socket)
            .expect("published");
        let received = UdpRecv {
            len: 0,
            remote: addr(client),
            local: Some(if addr(client).is_ipv4() {
                ip("192.0.2.1")
            } else {
                ip("2001:db8::1")
            }),
            hop_limit: Some(50),
            tos: 0,
            segment: None,
        };
        assert!(w.udp().receive(8053, received, b"question"));
        let (src, dst, data) = udp_of(&w.settle());
        assert_eq!(
            (src, dst, data.as_slice()),
            (addr(client), addr(container), b"question".as_slice())
        );
        // The answer leaves by the published socket, from the address that was asked.
        w.udp_out(53, client, b"answer");
        let sent = w.sent();
        assert_eq!(
            (sent.port, sent.how.remote, sent.how.local),
            (8053, addr(client), received.local)
        );
    }
    let flows = w.gateway.flows(w.now, None, 0, 10).0;
    assert!(
        flows.iter().all(|(_, f)| !f.outbound && f.state == "replied"),
        "{flows:?}"
    );
}

#[test]
fn clients_on_the_host_itself_appear_as_the_gateway_each_with_a_port() {
    let mut w = Wire::plain();
    w.publish_dns();
    let mut seen = std::collections::HashMap::new();
    for client in ["127.0.0.1:5000", "127.0.0.1:50000", "192.0.2.1:50000"] {
        let received = UdpRecv {
            len: 0,
            remote: addr(client),
            local: Some(addr(client).ip()),
            hop_limit: None,
            tos: 0,
            segment: None,
        };
        assert!(w.udp().receive(8053, received, b"?"));
        let (src, ..) = udp_of(&w.settle());
        assert_eq!(src.ip(), ip("10.0.2.2"), "{client}");
        assert!(seen.insert(src, addr(client)).is_none(), "{src} twice");
    }
    for (shown, client) in seen {
        let mut socket = w.gateway.host_mut().udp_bound(client).expect("bound");
        w.udp_out(53, &shown.to_string(), b"!");
        assert_eq!(
            socket.recv(&mut [0; 8]).expect("answer").remote,
            SocketAddr::new(client.ip(), 8053)
        );
    }
}

#[test]
fn errors_about_a_published_ports_answers_reach_the_container() {
    let mut w = Wire::plain();
    w.publish_dns();
    w.udp_in(8053, "198.51.100.10:4242", b"?");
    w.udp_out(53, "198.51.100.10:4242", b"!");
    w.udp()
        .inject_error(8053, icmp_error("198.51.100.10:4242", 3, 3, 0, FAR), b"!");
    let (from, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((from, kind, code), (ip(FAR), 3, 3));
    assert_eq!(quoted(&body), (addr("10.0.2.100:53"), addr("198.51.100.10:4242")));
}

#[test]
fn unpublishing_and_detaching_leave_nothing() {
    let mut w = Wire::plain();
    let rule = w.publish_dns();
    w.udp_in(8053, "198.51.100.10:4242", b"?");
    w.udp_out(5000, "198.51.100.10:4000", b"x");
    assert_eq!(w.gateway.unpublish(&[rule]), 1);
    assert_eq!(w.gateway.unpublish(&[rule]), 0);
    assert_eq!((w.gateway.table().len(), w.udp().open()), (1, 1));
    w.publish_dns();
    w.udp_in(8053, "198.51.100.10:4242", b"?");
    struct Nowhere;
    impl pontoon_switch::Out for Nowhere {
        fn send(&mut self, _: &mut pontoon_switch::Frame<'_>) {}
        fn send_by(&mut self, _: pontoon_switch::PortId, _: &mut pontoon_switch::Frame<'_>) {}
        fn drop(&mut self, _: Option<pontoon_switch::PortId>, _: DropReason) {}
    }
    w.gateway.detach(w.now, A, &mut Nowhere);
    assert_eq!((w.gateway.table().len(), w.udp().open()), (0, 0));
}

#[test]
fn published_and_outbound_flows_of_one_port_do_not_mix() {
    let mut w = Wire::plain();
    w.publish_dns();
    // The container speaks first, by its mapping; then the same peer comes by the published port.
    w.udp_out(53, "198.51.100.10:4242", b"out");
    let mapping = w.sent().port;
    let (src, ..) = udp_of(&w.udp_in(8053, "198.51.100.10:4242", b"in"));
    assert_eq!(src.ip(), ip("10.0.2.2"));
    w.udp_out(53, &src.to_string(), b"to the client");
    assert_eq!(w.sent().port, 8053);
    w.udp_out(53, "198.51.100.10:4242", b"to the peer");
    assert_eq!(w.sent().port, mapping);
}

#[test]
fn a_container_may_call_its_own_published_port() {
    let mut w = Wire::plain();
    w.publish_dns();
    let (shown, dst, data) = udp_of(&w.udp_out(5000, "192.0.2.1:8053", b"self"));
    assert_eq!(
        (shown.ip(), dst, data.as_slice()),
        (ip("10.0.2.2"), addr("10.0.2.100:53"), b"self".as_slice())
    );
    let (src, dst, data) = udp_of(&w.udp_out(53, &shown.to_string(), b"me"));
    assert_eq!((src, dst), (addr("192.0.2.1:8053"), addr("10.0.2.100:5000")));
    assert_eq!(data, b"me");
}

#[test]
fn a_burst_is_read_to_its_end_in_turns() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"x");
    let port = w.sent().port;
    for n in 0..1000u32 {
        assert!(w.udp().inject(port, addr("198.51.100.10:4000"), &n.to_be_bytes()));
    }
    let frames = w.settle();
    let numbers: Vec<u32> = frames
        .iter()
        .map(|f| u32::from_be_bytes(udp_of(std::slice::from_ref(f)).2.try_into().expect("four")))
        .collect();
    assert!(
        numbers.iter().copied().eq(0..1000),
        "{} of 1000, in order",
        numbers.len()
    );
    // And as many errors, within the rate at which a container is told.
    for _ in 0..200 {
        w.udp()
            .inject_error(port, icmp_error("198.51.100.10:4000", 3, 3, 0, FAR), b"x");
    }
    assert_eq!(w.settle().len(), 200);
}
