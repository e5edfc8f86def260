mod forwarded;

use std::net::SocketAddr;
use std::time::Duration;

use pontoon_switch::{DropReason, Instant, PortId};
use proptest::prelude::*;

use super::lives::{SEARCH, TOUCH_GRAIN};
use super::*;

const A: PortId = PortId(1);
const B: PortId = PortId(2);

fn table(total: u32, per_container: u32) -> Table {
    Table::new(Limits { total, per_container }, (1, 2))
}

fn tuple(n: u32) -> Tuple {
    let port = (n % 60_000) as u16 + 1;
    let host = 1 + n / 60_000;
    Tuple {
        protocol: Protocol::Tcp,
        src: SocketAddr::from(([10, 0, 2, 100], port)),
        dst: SocketAddr::from(([198, 51, 100, host as u8], 80)),
    }
}

fn new(n: u32, container: PortId, state: State) -> NewFlow {
    NewFlow {
        tuple: tuple(n),
        reply: None,
        container,
        outbound: true,
        state,
        data: n,
        shares_socket: false,
        mark: 0,
        track: None,
    }
}

#[test]
fn a_flow_is_found_by_either_direction() {
    let mut t = table(10, 10);
    let id = t.insert(Instant::ZERO, new(1, A, State::SynSent)).unwrap();
    assert_eq!(t.lookup(&tuple(1)), Some((id, Direction::Original)));
    assert_eq!(t.lookup(&tuple(1).reversed()), Some((id, Direction::Reply)));
    assert_eq!(t.lookup(&tuple(2)), None);
    let udp = Tuple {
        protocol: Protocol::Udp,
        ..tuple(1)
    };
    assert_eq!(t.lookup(&udp), None, "the protocol is part of the tuple");
}

#[test]
fn a_translated_flow_is_found_by_its_reply_tuple_only() {
    let mut t = table(10, 10);
    let reply = Tuple {
        dst: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        ..tuple(1).reversed()
    };
    let id = t
        .insert(
            Instant::ZERO,
            NewFlow {
                reply: Some(reply),
                ..new(1, A, State::SynSent)
            },
        )
        .unwrap();
    assert_eq!(t.lookup(&reply), Some((id, Direction::Reply)));
    assert_eq!(t.lookup(&tuple(1).reversed()), None);
    t.remove(id).unwrap();
    assert_eq!((t.lookup(&reply), t.lookup(&tuple(1))), (None, None));
}

#[test]
fn a_stale_name_finds_nothing() {
    let mut t = table(10, 10);
    let old = t.insert(Instant::ZERO, new(1, A, State::SynSent)).unwrap();
    t.remove(old).unwrap();
    let fresh = t.insert(Instant::ZERO, new(2, A, State::SynSent)).unwrap();
    assert_eq!(old.index, fresh.index, "the slot is used again");
    assert!(t.get(old).is_none() && t.remove(old).is_none());
    assert!(t.get(fresh).is_some());
}

#[test]
fn the_same_tuple_is_not_entered_twice() {
    let mut t = table(10, 10);
    t.insert(Instant::ZERO, new(1, A, State::SynSent)).unwrap();
    assert_eq!(
        t.insert(Instant::ZERO, new(1, A, State::SynSent)),
        Err(DropReason::Malformed)
    );
    assert_eq!(t.len(), 1);
}

/// RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-1: no state ends sooner than its RFC allows.
#[test]
fn timeouts_are_within_the_rfcs() {
    for &state in State::ALL {
        let at_least = match state {
            State::Established | State::HalfClosed => 2 * 3600 + 4 * 60,
            State::SynSent | State::SynReceived | State::Closing => 4 * 60,
            State::UdpNew | State::UdpReplied => 120,
            State::Echo => 60,
            State::TimeWait | State::RelayTimeWait | State::Closed | State::UdpTransaction => 0,
            State::Other => 0,
        };
        assert!(state.timeout() >= Duration::from_secs(at_least), "{state:?}");
    }
}

#[test]
fn each_state_ends_after_its_timeout_and_not_before() {
    for &state in State::ALL {
        let mut t = table(10, 10);
        let id = t.insert(Instant::ZERO, new(1, A, state)).unwrap();
        let end = Instant::ZERO + state.timeout();
        assert!(t.pop_ended(end).is_none(), "{state:?} ended early");
        let deadline = t.deadline().unwrap();
        assert!(deadline > end && deadline <= end + TOUCH_GRAIN);
        assert_eq!(t.pop_ended(deadline).map(|(i, _)| i), Some(id), "{state:?}");
        assert!(t.is_empty() && t.deadline().is_none());
    }
}

#[test]
fn a_touched_flow_lives_on() {
    let mut t = table(10, 10);
    let (a, b) = (
        t.insert(Instant::ZERO, new(1, A, State::UdpNew)).unwrap(),
        t.insert(Instant::ZERO, new(2, A, State::UdpNew)).unwrap(),
    );
    t.count(Instant::from_millis(60_000), a, Direction::Original, 1, 100);
    let end = Instant::ZERO + State::UdpNew.timeout() + TOUCH_GRAIN;
    assert_eq!(t.pop_ended(end).map(|(i, _)| i), Some(b));
    assert!(t.pop_ended(end).is_none());
    assert_eq!(
        t.view(end, a, None).unwrap().sent,
        Counters {
            packets: 1,
            bytes: 100
        }
    );
}

#[test]
fn a_full_share_evicts_closing_then_half_open_flows_of_the_same_container_only() {
    let mut t = table(100, 3);
    let other = t.insert(Instant::ZERO, new(50, B, State::TimeWait)).unwrap();
    let kept = t.insert(Instant::ZERO, new(1, A, State::Established)).unwrap();
    let half_open = t.insert(Instant::ZERO, new(2, A, State::SynReceived)).unwrap();
    let closing = t.insert(Instant::ZERO, new(3, A, State::Closing)).unwrap();
    let ended = |t: &mut Table| t.pop_ended(Instant::ZERO).map(|(i, _)| i);

    t.insert(Instant::ZERO, new(4, A, State::Established)).unwrap();
    assert_eq!(ended(&mut t), Some(closing));
    t.insert(Instant::ZERO, new(5, A, State::Established)).unwrap();
    assert_eq!(ended(&mut t), Some(half_open));
    assert_eq!(
        t.insert(Instant::ZERO, new(6, A, State::SynSent)),
        Err(DropReason::QuotaFull)
    );
    assert!(t.get(kept).is_some() && t.get(other).is_some());
    assert_eq!(t.container_len(A), 3);
}

#[test]
fn a_flow_to_evict_is_found_however_many_others_have() {
    let mut t = table(10_000, 2_000);
    for n in 0..1_999 {
        t.insert(Instant::ZERO, new(n, B, State::TimeWait)).unwrap();
    }
    let own = t.insert(Instant::ZERO, new(3_000, A, State::TimeWait)).unwrap();
    for n in 0..1_999 {
        t.insert(Instant::ZERO, new(4_000 + n, A, State::Established))
            .unwrap();
    }
    t.insert(Instant::ZERO, new(9_000, A, State::Established))
        .unwrap();
    assert_eq!(t.pop_ended(Instant::ZERO).map(|(id, _)| id), Some(own));
}

/// Whoever fills the table pays for it, though what another has would be the first to go by its state.
#[test]
fn a_full_table_takes_from_the_container_that_has_most() {
    let mut t = table(100, 90);
    let other = t.insert(Instant::ZERO, new(50, B, State::SynSent)).unwrap();
    for n in 100..250 {
        let flow = t.insert(Instant::ZERO, new(n, A, State::UdpNew));
        assert!(flow.is_ok());
        let (own, fresh) = (t.get(other).is_some(), t.get(flow.unwrap()).is_some());
        assert!(own && fresh, "at {n}");
    }
    // Up to its own bound B takes from A what A's flows have not seen an answer to.
    for n in 1_000..1_040 {
        t.insert(Instant::ZERO, new(n, B, State::Established)).unwrap();
    }
    assert_eq!((t.container_len(B), t.container_len(A)), (41, 59));
    assert!(t.get(other).is_some());
}

/// Where the greediest has nothing to lose, somebody else has.
#[test]
fn a_full_table_still_takes_what_may_go() {
    let mut t = table(3, 3);
    let half_open = t.insert(Instant::ZERO, new(1, B, State::SynSent)).unwrap();
    for n in 2..4 {
        t.insert(Instant::ZERO, new(n, A, State::Established)).unwrap();
    }
    t.insert(Instant::ZERO, new(4, A, State::SynSent)).unwrap();
    assert_eq!(t.pop_ended(Instant::ZERO).map(|(id, _)| id), Some(half_open));
}

/// Where sockets are what has run out, flows that share one are passed over; if there are no others, they go, many at a
/// time.
#[test]
fn room_for_a_socket_is_made_by_a_flow_that_has_one_for_itself() {
    let mut t = table(1_000, 1_000);
    let enter = |t: &mut Table, n: u32, shares_socket| {
        let flow = NewFlow {
            shares_socket,
            ..new(n, A, State::UdpNew)
        };
        t.insert(Instant::ZERO, flow).unwrap()
    };
    let first: Vec<FlowId> = (0..63).map(|n| enter(&mut t, n, true)).collect();
    let alone = enter(&mut t, 100, false);
    let others: Vec<FlowId> = (200..300).map(|n| enter(&mut t, n, true)).collect();
    t.make_room(A);
    assert_eq!(t.pop_ended(Instant::ZERO).map(|(id, _)| id), Some(alone));
    assert!(t.pop_ended(Instant::ZERO).is_none());
    t.make_room(A);
    assert_eq!(t.len(), 163 - SEARCH as usize);
    assert!(first.iter().chain(&others[..1]).all(|&id| t.get(id).is_none()));
    t.make_room(B);
    for _ in 0..3 {
        t.make_room(A);
    }
    assert!(t.is_empty());
}

#[test]
fn a_full_table_refuses_rather_than_evict_an_established_flow() {
    let mut t = table(2, 10);
    t.insert(Instant::ZERO, new(1, A, State::Established)).unwrap();
    t.insert(Instant::ZERO, new(2, B, State::UdpReplied)).unwrap();
    assert_eq!(
        t.insert(Instant::ZERO, new(3, B, State::SynSent)),
        Err(DropReason::TableFull)
    );
}

/// The reply tuple of flow `n`, masqueraded as `address`.
fn masqueraded(n: u32, address: [u8; 4]) -> Tuple {
    Tuple {
        dst: SocketAddr::from((address, tuple(n).src.port())),
        ..tuple(n).reversed()
    }
}

fn forwarded(n: u32, reply: Tuple) -> NewFlow {
    NewFlow {
        reply: Some(reply),
        ..new(n, A, State::SynSent)
    }
}

/// The SYN of flow `n`.
fn syn(seq: u32) -> Segment {
    Segment {
        seq,
        ack: 0,
        window: 64_000,
        flags: Flags::SYN,
        len: 0,
        window_scale: Some(7),
    }
}

proptest! {
    /// Whatever happens, index, lists, counts and slab agree.
    #[test]
    fn the_parts_of_the_table_agree(ops in proptest::collection::vec((0u8..5, 0u32..40, 0u64..400), 1..400)) {
        let mut t = table(24, 12);
        let mut now = Instant::ZERO;
        let mut live: Vec<FlowId> = Vec::new();
        for (op, n, dt) in ops {
            now += Duration::from_millis(dt * 1000);
            let state = State::ALL[n as usize % State::ALL.len()];
            match op {
                0 => live.extend(t.insert(now, new(n, PortId(n % 3), state)).ok()),
                1 => {
                    let reply = masqueraded(n, [192, 0, 2, (n % 5) as u8]);
                    let track = (n % 2 == 0).then(|| syn(n));
                    let flow = NewFlow { track, container: PortId(n % 3), state, ..forwarded(n, reply) };
                    live.extend(t.insert(now, flow).ok());
                }
                2 => if let Some(&id) = live.get(n as usize) { t.remove(id); },
                3 => if let Some(&id) = live.get(n as usize) { t.set_state(now, id, state); },
                _ => if let Some(&id) = live.get(n as usize) { t.touch(now, id); },
            }
            while let Some((id, e)) = t.pop_ended(now) {
                prop_assert!(t.get(id).is_none() && e.state() as usize <= State::ALL.len());
            }
            live.retain(|&id| t.get(id).is_some());
            prop_assert_eq!(live.len(), t.len());
            prop_assert_eq!(t.iter_from(0).count(), t.len());
            prop_assert_eq!(t.by_state().map(|(_, n)| n as usize).sum::<usize>(), t.len());
            let translated: Vec<_> = t.iter_from(0).filter(|(_, e)| e.is_forwarded()).collect();
            prop_assert_eq!(t.index.len(), t.len() + translated.len());
            let addresses: std::collections::HashSet<_> = translated
                .iter()
                .map(|&(id, _)| t.translated(id, Direction::Original).unwrap().src.ip())
                .collect();
            prop_assert_eq!(t.addresses.len(), addresses.len());
            for (id, e) in t.iter_from(0) {
                prop_assert_eq!(t.lookup(&e.tuple()), Some((id, Direction::Original)));
                let reply = t.translated(id, Direction::Original).unwrap().reversed();
                if e.is_forwarded() {
                    prop_assert_eq!(t.lookup(&reply), Some((id, Direction::Reply)));
                }
                prop_assert_eq!(t.lookup(&e.tuple().reversed()).is_some(), !e.is_forwarded());
            }
            let own: usize = (0..3).map(|port| t.of_container(PortId(port)).count()).sum();
            prop_assert_eq!(own, t.len());
            let all = [(Kind::State, &t.lists)];
            let own = t.containers.values().map(|share| (Kind::Container, &share.lists));
            let mut linked = 0;
            for (kind, list) in all.into_iter().chain(own).flat_map(|(k, lists)| lists.iter().map(move |l| (k, l))) {
                let (mut at, mut last) = (list.head, (NIL, Instant::ZERO));
                while at != NIL {
                    let e = &t.entries[at as usize];
                    let link = e.links[kind as usize];
                    let touched = e.touched.instant(now, 0);
                    prop_assert!(e.flags.has(entry::Flags::USED) && link.prev == last.0 && touched >= last.1);
                    last = (at, touched);
                    at = link.next;
                    linked += 1;
                }
                prop_assert_eq!(list.tail, last.0);
            }
            prop_assert_eq!(t.containers.values().map(|s| s.len as usize).sum::<usize>(), t.len());
            prop_assert_eq!(linked, 2 * t.len());
        }
    }
}
