//! Flows that are forwarded: both tuples, marks, trackers, and what a million of them hold.

use super::*;

#[test]
fn a_packet_goes_on_with_the_tuple_of_the_other_side() {
    let end = |octets: [u8; 4], port| SocketAddr::from((octets, port));
    let (inside, outside) = (tuple(1).src, tuple(1).dst);
    let (ours, server) = (end([192, 0, 2, 1], 40_000), end([10, 0, 2, 7], 8080));
    for (reply, goes_on) in [
        // Masquerade, DNAT, both (hairpin), neither.
        ((outside, ours), (ours, outside)),
        ((server, inside), (inside, server)),
        ((server, ours), (ours, server)),
        ((outside, inside), (inside, outside)),
    ] {
        let mut t = table(10, 10);
        let protocol = Protocol::Tcp;
        let (src, dst) = reply;
        let reply = Tuple { protocol, src, dst };
        let id = t.insert(Instant::ZERO, forwarded(1, reply)).unwrap();
        assert_eq!(t.lookup(&tuple(1)), Some((id, Direction::Original)));
        assert_eq!(t.lookup(&reply), Some((id, Direction::Reply)));
        let (src, dst) = goes_on;
        let there = Tuple { protocol, src, dst };
        assert_eq!(t.translated(id, Direction::Original), Some(there));
        assert_eq!(t.translated(id, Direction::Reply), Some(tuple(1).reversed()));
        let view = t.view(Instant::ZERO, id, None).unwrap();
        assert_eq!(view.reply, (reply.src, reply.dst));
        assert_eq!(t.remove(id).unwrap().reply(), Some(reply));
        assert_eq!((t.translated(id, Direction::Reply), t.addresses.len()), (None, 0));
    }
}

#[test]
fn a_relayed_flow_is_not_translated() {
    let mut t = table(10, 10);
    let id = t.insert(Instant::ZERO, new(1, A, State::SynSent)).unwrap();
    assert_eq!(t.translated(id, Direction::Original), Some(tuple(1)));
    assert_eq!(t.translated(id, Direction::Reply), Some(tuple(1).reversed()));
    assert_eq!(t.remove(id).unwrap().reply(), None);
}

#[test]
fn a_reply_tuple_is_not_entered_twice() {
    let mut t = table(10, 10);
    let reply = masqueraded(1, [192, 0, 2, 1]);
    t.insert(Instant::ZERO, forwarded(1, reply)).unwrap();
    for flow in [
        forwarded(2, reply),
        forwarded(2, tuple(1)),
        forwarded(2, tuple(2)),
        NewFlow {
            tuple: reply,
            ..new(2, A, State::SynSent)
        },
    ] {
        assert_eq!(t.insert(Instant::ZERO, flow), Err(DropReason::Malformed));
    }
    assert_eq!((t.len(), t.index.len(), t.addresses.len()), (1, 2, 1));
}

#[test]
fn a_refused_flow_leaves_nothing_behind() {
    let mut t = table(1, 1);
    t.insert(Instant::ZERO, new(1, A, State::Established)).unwrap();
    let refused = forwarded(2, masqueraded(2, [192, 0, 2, 1]));
    assert_eq!(t.insert(Instant::ZERO, refused), Err(DropReason::QuotaFull));
    assert_eq!((t.addresses.len(), t.index.len()), (0, 1));
}

#[test]
fn a_protocol_without_ports_is_followed_by_its_addresses() {
    let mut t = table(10, 10);
    let of = |number| Tuple {
        protocol: Protocol::Other(number),
        src: SocketAddr::from(([10, 0, 2, 100], 0)),
        dst: SocketAddr::from(([198, 51, 100, 1], 0)),
    };
    for number in [47, 50, 132, 253] {
        let flow = NewFlow {
            tuple: of(number),
            ..new(1, A, State::Other)
        };
        let id = t.insert(Instant::ZERO, flow).unwrap();
        assert_eq!(t.lookup(&of(number).reversed()), Some((id, Direction::Reply)));
        assert_eq!(t.lookup(&of(number)), Some((id, Direction::Original)));
        assert_eq!(t.get(id).unwrap().tuple(), of(number));
    }
    let names: Vec<_> = (t.iter_from(0))
        .map(|(id, _)| t.view(Instant::ZERO, id, None).unwrap())
        .map(|v| (v.protocol, v.number, v.state))
        .collect();
    let expected = [("gre", 47), ("esp", 50), ("sctp", 132), ("253", 253)];
    assert_eq!(
        names,
        expected.map(|(name, n)| (name.to_owned(), n, "generic".to_owned()))
    );
}

#[test]
fn every_protocol_number_is_one_protocol() {
    for number in 0..=255 {
        for (address, known) in [("192.0.2.1", [1, 6, 17]), ("2001:db8::1", [6, 17, 58])] {
            let protocol = Protocol::of(number, address.parse().unwrap());
            assert_eq!(protocol.number(), number);
            assert_eq!(matches!(protocol, Protocol::Other(_)), !known.contains(&number));
        }
    }
}

#[test]
fn a_mark_is_set_and_shown() {
    let mut t = table(10, 10);
    let marked = NewFlow {
        mark: 7,
        ..new(1, A, State::SynSent)
    };
    let id = t.insert(Instant::ZERO, marked).unwrap();
    assert_eq!(t.view(Instant::ZERO, id, None).unwrap().mark, 7);
    t.set_mark(id, u32::MAX);
    assert_eq!(t.get(id).unwrap().mark(), u32::MAX);
    t.remove(id);
    t.set_mark(id, 3);
    assert_eq!(
        t.entries[id.index as usize].mark,
        u32::MAX,
        "a stale name marks nothing"
    );
}

#[test]
fn the_flows_of_a_container_are_found_by_its_own_lists() {
    let mut t = table(100, 100);
    for n in 0..60 {
        let state = State::ALL[n as usize % State::ALL.len()];
        t.insert(Instant::ZERO, new(n, PortId(n % 3), state)).unwrap();
    }
    let mut own: Vec<u32> = t.of_container(A).map(|(_, e)| e.data()).collect();
    own.sort_unstable();
    assert_eq!(own, (0..60).filter(|n| n % 3 == 1).collect::<Vec<_>>());
    assert!(
        t.of_container(A)
            .all(|(id, e)| t.get(id).unwrap().data() == e.data())
    );
    assert_eq!(t.of_container(PortId(9)).count(), 0);
}

#[test]
fn a_followed_connection_has_the_state_and_timeout_that_its_segments_give_it() {
    let mut t = table(10, 10);
    let flow = |n| NewFlow {
        track: Some(syn(100)),
        ..forwarded(n, masqueraded(n, [192, 0, 2, 1]))
    };
    let begun = NewFlow {
        track: Some(Segment {
            flags: Flags::ACK,
            ..syn(100)
        }),
        ..flow(1)
    };
    assert_eq!(t.insert(Instant::ZERO, begun), Err(DropReason::OutOfWindow));
    let id = t.insert(Instant::ZERO, flow(1)).unwrap();
    let other = t.insert(Instant::ZERO, flow(2)).unwrap();
    let later = Instant::from_millis(5_000);
    let answer = Segment {
        flags: Flags::SYN.with(Flags::ACK),
        ack: 101,
        ..syn(500)
    };
    let follow = |t: &mut Table, dir, seg| t.follow(later, id, dir, &seg);
    assert_eq!(follow(&mut t, Direction::Reply, answer), Ok(State::SynReceived));
    let ack = Segment {
        flags: Flags::ACK,
        ack: 501,
        ..syn(101)
    };
    assert_eq!(follow(&mut t, Direction::Original, ack), Ok(State::Established));
    assert_eq!(t.view(later, id, None).unwrap().expires, 432_000);
    let wild = Segment { seq: 1 << 31, ..ack };
    assert_eq!(
        follow(&mut t, Direction::Original, wild),
        Err(DropReason::OutOfWindow)
    );
    assert_eq!(t.get(id).unwrap().state(), State::Established);
    assert_eq!(t.get(other).unwrap().state(), State::SynSent);
    t.remove(id);
    assert_eq!(follow(&mut t, Direction::Original, ack), Err(DropReason::NoFlow));
    // A flow that is not followed is not judged.
    let plain = t.insert(Instant::ZERO, new(3, A, State::UdpNew)).unwrap();
    assert_eq!(t.follow(later, plain, Direction::Reply, &wild), Ok(State::UdpNew));
    // The tracker's slot is used again.
    let held = t.trackers.memory();
    for n in 10..1_000 {
        let id = t.insert(Instant::ZERO, flow(n)).unwrap();
        t.remove(id);
    }
    assert!(t.trackers.memory() <= held + 64);
}

#[test]
fn flows_end_in_time_after_years() {
    let start = Instant::from_millis(4 * 365 * 86_400_000);
    let mut t = table(10, 10);
    let id = t.insert(start, new(1, A, State::Established)).unwrap();
    assert_eq!(t.view(start, id, None).unwrap().expires, 432_000);
    let end = start + State::Established.timeout() + TOUCH_GRAIN;
    assert_eq!(t.deadline(), Some(end));
    assert!(t.pop_ended(Instant::from_micros(end.micros() - 1)).is_none());
    assert!(t.pop_ended(end).is_some());
}

/// The million flows of one kind that memory is asked about.
fn million(protocol: Protocol, state: State, track: Option<Segment>) -> Table {
    let n = 1_000_000;
    let mut t = table(n, n);
    for i in 0..n {
        let [_, a, b, c] = i.to_be_bytes();
        let src = SocketAddr::from(([10, 0, 2, c], 1024));
        let dst = SocketAddr::from(([198, 18 + a, b, c], 80));
        let flow = NewFlow {
            tuple: Tuple { protocol, src, dst },
            reply: Some(Tuple {
                protocol,
                src: dst,
                dst: SocketAddr::from(([192, 0, 2, 1], 1024 + c as u16)),
            }),
            track,
            ..new(i, PortId(i % 64), state)
        };
        t.insert(Instant::ZERO, flow).unwrap();
    }
    assert_eq!(t.len(), n as usize);
    t
}

#[test]
fn a_million_followed_connections_fit_in_200_bytes_each() {
    let t = million(Protocol::Tcp, State::Established, Some(syn(1)));
    assert!(
        t.memory() / t.len() <= 185,
        "{} bytes a flow",
        t.memory() / t.len()
    );
    let id = t.id(500_000);
    let (there, back) = (
        t.get(id).unwrap().tuple(),
        t.translated(id, Direction::Original).unwrap(),
    );
    assert_eq!(t.lookup(&there), Some((id, Direction::Original)));
    assert_eq!(t.lookup(&back.reversed()), Some((id, Direction::Reply)));
}

/// What filtering them takes comes on top ([`crate::routed::ports`]).
#[test]
fn a_million_datagram_flows_fit_in_150_bytes_each() {
    let t = million(Protocol::Udp, State::UdpReplied, None);
    assert!(
        t.memory() / t.len() <= 150,
        "{} bytes a flow",
        t.memory() / t.len()
    );
}
