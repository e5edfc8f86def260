//! UDP in batches: what comes within one batch leaves by few calls, and nobody can tell but by the time it takes.

mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;

use pontoon_fixtures::packet::{Parsed, explode};
use pontoon_nat::host::UdpRecv;
use pontoon_nat::host::sim::udp::Sent;
use pontoon_switch::DropReason;
use rustix::io::Errno;
use wire::*;

/// The datagrams that `sent` was, one by one.
fn datagrams(sent: &Sent) -> Vec<Vec<u8>> {
    match sent.how.segment {
        Some(size) => sent.data.chunks(usize::from(size)).map(<[u8]>::to_vec).collect(),
        None => vec![sent.data.clone()],
    }
}

fn all_sent(w: &mut Wire) -> Vec<Sent> {
    w.udp().sent.drain(..).collect()
}

/// Has A say `data` to `dst` within the present batch.
fn say(w: &mut Wire, sport: u16, dst: &str, data: &[u8]) {
    let dst = addr(dst);
    w.hand(
        A,
        Wire::from(A, &dst.ip().to_string()).udp(sport, dst.port(), data),
    );
}

#[test]
fn a_run_goes_by_one_call_and_ends_with_a_shorter_one() {
    let mut w = Wire::plain();
    for far in ["198.51.100.10:4000", "[2001:db8:2::10]:4000"] {
        for len in [100, 100, 100, 40, 100, 200, 200] {
            say(&mut w, 5000, far, &vec![len as u8; len]);
        }
        assert!(w.udp().sent.is_empty(), "until the batch ends");
        w.settle();
        let sent = all_sent(&mut w);
        let lens: Vec<Vec<usize>> = sent
            .iter()
            .map(|s| datagrams(s).iter().map(Vec::len).collect())
            .collect();
        assert_eq!(lens, [vec![100, 100, 100, 40], vec![100], vec![200, 200]]);
        let counted = w.gateway.flows(w.now, None, 0, 10).0;
        let ours = counted
            .iter()
            .find(|f| f.1.original.1 == addr(far))
            .expect("the flow");
        let header = if far.starts_with('[') { 48 } else { 28 };
        assert_eq!((ours.1.sent.packets, ours.1.sent.bytes), (7, 840 + 7 * header));
    }
}

#[test]
fn what_goes_another_way_is_another_run() {
    let mut w = Wire::plain();
    let far = Wire::from(A, FAR);
    let frames = [
        far.udp(5000, 4000, b"0"),
        far.tos(0x28).udp(5000, 4000, b"1"),
        far.ttl(9).udp(5000, 4000, b"2"),
        far.ttl(1).udp(5000, 4000, b"the gateway's"),
        far.dont_fragment().udp(5000, 4000, b"3"),
        far.udp(5000, 4000, b"4"),
    ];
    for frame in frames {
        w.hand(A, frame);
    }
    icmp_of(&w.settle());
    let sent = all_sent(&mut w);
    let data: Vec<&[u8]> = sent.iter().map(|s| s.data.as_slice()).collect();
    assert_eq!(data, [b"0", b"1", b"2", b"3", b"4"]);
    let how: Vec<_> = sent
        .iter()
        .map(|s| (s.how.tos, s.how.hop_limit, s.how.dont_fragment))
        .collect();
    assert_eq!(
        how,
        [
            (0, Some(63), false),
            (0x28, Some(63), false),
            (0, Some(8), false),
            (0, Some(63), true),
            (0, Some(63), false)
        ]
    );
}

#[test]
fn each_flow_keeps_its_order_and_boundaries_whatever_comes_between() {
    let mut w = Wire::plain();
    let mut said: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
    let mut heard: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
    let (mut x, mut runs) = (1u32, 0);
    let mut random = |n: u32| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 16) % n
    };
    for n in 0..4000u32 {
        let dst = addr(&format!("198.51.100.{}:4000", 10 + random(5)));
        let len = [0, 4, 64, 64, 64, 64, 64, 64, 1000, 1472][random(10) as usize];
        let mut data = vec![0; len];
        if let Some(first) = data.first_chunk_mut() {
            *first = n.to_be_bytes();
        }
        say(&mut w, 5000, &dst.to_string(), &data);
        said.entry(dst).or_default().push(data);
        // Batches longer than what waits at most, too.
        if random(150) == 0 {
            w.settle();
            let sent = all_sent(&mut w);
            runs += sent.len();
            for s in sent {
                heard.entry(s.how.remote).or_default().extend(datagrams(&s));
            }
        }
    }
    w.settle();
    for s in all_sent(&mut w) {
        heard.entry(s.how.remote).or_default().extend(datagrams(&s));
    }
    assert_eq!(heard, said);
    assert!(runs < 2500, "{runs} calls");
}

#[test]
fn an_error_within_a_run_is_told_of_its_own_datagram() {
    let mut w = Wire::plain();
    // The device has no checksums; then its firewall does not like the second.
    w.udp().failures.extend([Errno::IO.raw_os_error()]);
    for text in [b"one", b"two"] {
        say(&mut w, 5000, "198.51.100.10:4000", text);
    }
    assert!(w.settle().is_empty());
    let sent = all_sent(&mut w);
    assert_eq!((sent.len(), sent[1].data.as_slice()), (2, b"two".as_slice()));

    w.udp()
        .failures
        .extend([Errno::IO, Errno::PERM].map(Errno::raw_os_error));
    for text in [b"one", b"two", b"six"] {
        say(&mut w, 5000, "198.51.100.10:4000", text);
    }
    let (_, kind, code, _, body) = icmp_of(&w.settle());
    assert_eq!((kind, code), (3, 13));
    assert_eq!(
        quoted(&body),
        (addr("10.0.2.100:5000"), addr("198.51.100.10:4000"))
    );
    assert_eq!(&body[28..], b"one");
    let data: Vec<_> = all_sent(&mut w).into_iter().map(|s| s.data).collect();
    assert_eq!(data, [b"two", b"six"]);
    assert_eq!(w.dropped(DropReason::HostError), 1);
    let flow = w.gateway.flows(w.now, None, 0, 1).0.remove(0).1;
    assert_eq!((flow.sent.packets, flow.sent.bytes), (4, 4 * 31));
}

#[test]
fn a_run_over_the_paths_mtu_is_told_datagram_by_datagram() {
    let mut w = Wire::plain();
    w.udp().path_mtu.insert(ip(FAR), 1400);
    for len in [1440, 1440, 1440, 1300] {
        w.hand(
            A,
            Wire::from(A, FAR).dont_fragment().udp(5000, 4000, &vec![7; len]),
        );
    }
    let frames = w.settle();
    assert_eq!(frames.len(), 3, "one for each that was too big");
    for frame in frames {
        let (_, kind, code, rest, _) = icmp_of(&[frame]);
        assert_eq!((kind, code, rest), (3, 4, [0, 0, 0x05, 0x78]));
    }
    assert_eq!(w.sent().data.len(), 1300);
    // Without DF the host fragments each.
    for _ in 0..3 {
        say(&mut w, 5000, "198.51.100.10:4000", &[7; 1440]);
    }
    assert!(w.settle().is_empty());
    assert_eq!(all_sent(&mut w).iter().flat_map(datagrams).count(), 3);
}

#[test]
fn a_full_socket_drops_the_run_without_a_word() {
    let mut w = Wire::plain();
    w.udp().failures.push_back(Errno::AGAIN.raw_os_error());
    for _ in 0..5 {
        say(&mut w, 5000, "198.51.100.10:4000", b"x");
    }
    assert!(w.settle().is_empty());
    assert_eq!((w.dropped(DropReason::HostFull), w.udp().sent.len()), (5, 0));
}

#[test]
fn what_waits_of_a_port_taken_back_is_counted() {
    let mut w = Wire::plain();
    let rule = w.publish_dns();
    let frames = w.udp_in(8053, "198.51.100.10:4242", b"?");
    assert!(Parsed::of(&frames[0]).is_some());
    say(&mut w, 53, "198.51.100.10:4242", b"!");
    say(&mut w, 53, "198.51.100.10:4242", b"!");
    assert_eq!(w.gateway.unpublish(&[rule]), 1);
    w.settle();
    assert_eq!((w.dropped(DropReason::NoFlow), w.udp().sent.len()), (2, 0));
}

/// The UDP payloads of frames, with who sent them, and into how many frames they were put.
fn heard(w: &mut Wire) -> (Vec<(SocketAddr, Vec<u8>)>, Vec<usize>) {
    let frames = w.settle_offloaded();
    let pieces: Vec<_> = frames.iter().map(|(f, o)| explode(f, *o)).collect();
    let counts = pieces.iter().map(Vec::len).collect();
    let datagrams = pieces
        .iter()
        .flatten()
        .map(|f| udp_of(std::slice::from_ref(f)))
        .map(|(src, _, data)| (src, data))
        .collect();
    (datagrams, counts)
}

fn received(remote: &str, tos: u8, hop_limit: u8) -> UdpRecv {
    UdpRecv {
        len: 0,
        remote: addr(remote),
        local: None,
        hop_limit: Some(hop_limit),
        tos,
        segment: None,
    }
}

#[test]
fn what_waits_of_one_sender_comes_as_one_super_frame() {
    for far in ["198.51.100.10:4000", "[2001:db8:2::10]:4000"] {
        let mut w = Wire::plain();
        w.udp_out(5000, far, b"hello");
        let port = w.sent().port;
        let lens = [100, 100, 100, 40, 100, 0, 0, 1452, 1452, 2000, 2000];
        for (n, &len) in lens.iter().enumerate() {
            assert!(w.udp().inject(port, addr(far), &vec![n as u8; len]));
        }
        // The last two are over the link's MTU: one by one, in fragments.
        let fragments = w.settle_offloaded().split_off(5);
        assert!(fragments.len() >= 4 && fragments.iter().all(|(f, _)| f.len() <= 1514));
        let lens = [100, 100, 100, 40, 0, 0, 1452, 1452];
        for (n, &len) in lens.iter().enumerate() {
            assert!(w.udp().inject(port, addr(far), &vec![n as u8; len]));
        }
        let (datagrams, counts) = heard(&mut w);
        assert_eq!(counts, [4, 1, 1, 2]);
        for (n, (datagram, len)) in datagrams.iter().zip(lens).enumerate() {
            assert_eq!(*datagram, (addr(far), vec![n as u8; len]));
        }
        let flow = w.gateway.flows(w.now, None, 0, 1).0.remove(0).1;
        assert_eq!(flow.received.packets, 11 + 8);
    }
}

#[test]
fn what_differs_comes_apart_and_in_order() {
    let mut w = Wire::plain();
    w.publish_dns();
    let kinds = [
        ("198.51.100.10:4242", 0, 60),
        ("198.51.100.10:4242", 0, 60),
        ("198.51.100.10:4243", 0, 60),
        ("198.51.100.10:4242", 0x28, 60),
        ("198.51.100.10:4242", 0x28, 59),
        ("198.51.100.10:4242", 0x28, 59),
    ];
    for (n, (remote, tos, hops)) in kinds.into_iter().enumerate() {
        let datagram = received(remote, tos, hops);
        assert!(w.udp().receive(8053, datagram, &[n as u8; 3]));
    }
    let (datagrams, counts) = heard(&mut w);
    assert_eq!(counts, [2, 1, 1, 2]);
    let expected: Vec<_> = kinds
        .into_iter()
        .enumerate()
        .map(|(n, (remote, ..))| (addr(remote), vec![n as u8; 3]))
        .collect();
    assert_eq!(datagrams, expected);
    // What the kernel has joined already goes on as it is.
    let joined = UdpRecv {
        segment: Some(2),
        ..received("198.51.100.10:4242", 0, 60)
    };
    for _ in 0..2 {
        assert!(w.udp().receive(8053, joined, b"aabbc"));
    }
    assert_eq!(heard(&mut w).1, [3, 3]);
}

#[test]
fn a_stranger_within_a_batch_is_kept_out_of_it() {
    let mut w = Wire::plain();
    w.udp_out(5000, "198.51.100.10:4000", b"hello");
    let port = w.sent().port;
    for from in ["198.51.100.10", "203.0.113.20", "203.0.113.20", "198.51.100.10"] {
        assert!(w.udp().inject(port, addr(&format!("{from}:4000")), b"x"));
    }
    let (datagrams, _) = heard(&mut w);
    assert_eq!(datagrams, vec![(addr("198.51.100.10:4000"), b"x".to_vec()); 2]);
    assert_eq!(w.dropped(DropReason::Filtered), 2);
}
