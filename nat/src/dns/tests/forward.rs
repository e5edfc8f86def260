//! Questions that resolvers are asked.

use super::*;

#[test]
fn the_rest_is_forwarded_as_it_is() {
    let mut s = Server::new();
    for (mac, client, resolver) in [
        (CONTAINER, "10.0.2.100", FIRST),
        (CONTAINER, "fd00:2::100", FIRST),
    ] {
        let mut q = query(4711, "www.Example.org.", RecordType::A);
        // Something behind the question that only its writer understands.
        q.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00");
        q[11] = 1;
        s.ask_from(mac, client, 5353, &q);
        let up = s.upstream();
        assert_eq!(up.len(), 1);
        assert_eq!(up[0].how.remote, at(resolver));
        assert_eq!(up[0].data[2..], q[2..], "raw but for the identification");
        assert!(s.answers().is_empty());
        let mut a = answer(&up[0].data);
        a.extend(b"whatever follows");
        s.inject(up[0].port, resolver, &a);
        let got = s.answers();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0][..2], 4711u16.to_be_bytes());
        assert_eq!(got[0][2..], a[2..]);
        assert_eq!((s.dns.outstanding(), s.open(), s.dns.deadline()), (0, 0, None));
    }
    // Identifications and ports are ours, and differ, of as many as there may be sockets.
    let mut seen = std::collections::HashSet::new();
    for i in 0..32 {
        s.ask(&query(i, "a.example.", RecordType::A));
        let up = s.upstream();
        seen.insert((crate::dns::message::id(&up[0].data), up[0].port));
    }
    let ids: std::collections::HashSet<u16> = seen.iter().map(|&(id, _)| id).collect();
    let ports: std::collections::HashSet<u16> = seen.iter().map(|&(_, p)| p).collect();
    assert!(ids.len() > 28, "{}", ids.len());
    assert_eq!(ports.len(), 32);
}

#[test]
fn forged_answers_count_for_nothing() {
    let mut s = Server::new();
    s.ask(&query(1, "www.example.org.", RecordType::A));
    let up = s.upstream().remove(0);
    let good = answer(&up.data);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut other_name = good.clone();
    other_name[13] ^= 1;
    let mut other_kind = good.clone();
    let end = crate::dns::message::query(&up.data).unwrap().end;
    other_kind[end - 3] = 28;
    let mut a_query = good.clone();
    a_query[2] &= 0x7f;
    s.inject(up.port, "192.0.2.66:53", &good);
    s.inject(up.port, "198.51.100.53:5353", &good);
    // The second resolver has not been asked yet.
    s.inject(up.port, SECOND, &good);
    for forged in [&other_id[..], &other_name, &other_kind, &a_query, b"", b"\0\0"] {
        s.inject(up.port, FIRST, forged);
    }
    assert!(s.answers().is_empty());
    assert_eq!(s.dns.stats().forward.mismatched, 9);
    s.inject(up.port, FIRST, &good);
    assert_eq!(s.answered().answers.len(), 1);
}

#[test]
fn silent_resolvers_are_followed_by_the_next_and_then_by_servfail() {
    let mut s = Server::new();
    let q = query(9, "slow.example.", RecordType::A);
    s.ask(&q);
    let mut asked: Vec<SocketAddr> = s.upstream().iter().map(|u| u.how.remote).collect();
    // The client repeats itself meanwhile; nothing more is asked for that.
    s.pass(500);
    s.ask(&q);
    assert!(s.upstream().is_empty());
    let start = s.rig.now;
    while s.dns.outstanding() > 0 {
        let due = s.dns.deadline().unwrap();
        assert!(due > s.rig.now);
        s.rig.now = due;
        s.dns.flush(&mut s.rig.cx());
        asked.extend(s.upstream().iter().map(|u| u.how.remote));
    }
    assert_eq!(asked, [at(FIRST), at(SECOND), at(FIRST), at(SECOND)]);
    assert_eq!(s.rig.now.since(start), Duration::from_millis(7500));
    let m = s.answered();
    assert_eq!(
        (m.metadata.id, m.metadata.response_code),
        (9, ResponseCode::ServFail)
    );
    assert_eq!(m.queries[0].name().to_ascii(), "slow.example.");
    assert_eq!((s.open(), s.dns.deadline()), (0, None));

    // A late answer of the first is as good as one of the second.
    s.ask(&q);
    let up = s.upstream().remove(0);
    s.pass(2000);
    assert_eq!(s.upstream()[0].how.remote, at(SECOND));
    s.inject(up.port, FIRST, &answer(&up.data));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::NoError);
}

#[test]
fn without_a_socket_it_is_a_failure_at_once_and_counted() {
    let mut s = Server::new();
    s.rig.host.udp.borrow_mut().descriptors = Some(0);
    s.ask(&query(1, "a.example.", RecordType::A));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(s.rig.dropped(), [DropReason::HostExhausted]);
    s.rig.host.udp.borrow_mut().descriptors = None;
    s.ask(&query(2, "a.example.", RecordType::A));
    assert_eq!((s.upstream().len(), s.dns.outstanding()), (1, 1));
}

#[test]
fn where_descriptors_are_few_so_are_the_sockets() {
    for (limit, sockets) in [(0, 2), (64, 4), (usize::MAX, 32)] {
        let mut s = Server::new();
        s.dns.limit(limit);
        for id in 0..100 {
            s.ask(&query(id, "a.example.", RecordType::A));
        }
        assert_eq!((s.dns.outstanding(), s.open()), (100, sockets), "{limit}");
        assert!(s.rig.dropped().is_empty());
        // Whose answer is whose is known all the same.
        for up in s.upstream() {
            s.inject(up.port, FIRST, &answer(&up.data));
        }
        let mut ids: Vec<u16> = s.answers().iter().map(|m| crate::dns::message::id(m)).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        assert_eq!((s.dns.outstanding(), s.open(), s.dns.deadline()), (0, 0, None));
    }
}

#[test]
fn without_a_further_descriptor_questions_share_what_there_is() {
    let mut s = Server::new();
    s.rig.host.udp.borrow_mut().descriptors = Some(1);
    for id in 0..10 {
        s.ask(&query(id, "a.example.", RecordType::A));
    }
    assert_eq!((s.dns.outstanding(), s.open()), (10, 1));
    assert_eq!(s.dns.stats().forward.opened, 1);
}

#[test]
fn a_shared_socket_takes_so_many_questions_and_no_more() {
    let mut s = Server::new();
    s.dns.limit(0);
    let mut ports = std::collections::HashSet::new();
    for n in 0..4000u32 {
        // There are always a few, so that no socket is ever without one.
        s.ask_from(
            CONTAINER,
            "10.0.2.100",
            1000 + (n % 60_000) as u16,
            &query(n as u16, "a.example.", RecordType::A),
        );
        if n >= 8 {
            let up = s.rig.host.udp.borrow_mut().sent.pop_front().unwrap();
            ports.insert(up.port);
            s.inject(up.port, FIRST, &answer(&up.data));
        }
    }
    assert!(s.open() <= 4);
    assert!(ports.len() >= 4000 / 256, "{} ports", ports.len());
    // Nor for longer than some seconds.
    let mut s = Server::new();
    s.dns.limit(0);
    let mut ports = std::collections::HashSet::new();
    for n in 0..60 {
        s.ask(&query(n, "a.example.", RecordType::A));
        s.pass(1000);
        let up = s.upstream();
        ports.extend(up.iter().map(|u| u.port));
        if let Some(up) = up.first().filter(|_| n > 1) {
            s.inject(up.port, FIRST, &answer(&up.data));
        }
    }
    assert!(ports.len() >= 4, "{} ports", ports.len());
}

/// Whose servers never answer is asked for again from elsewhere once a socket takes no more: no port stays for their sake.
#[test]
fn silent_names_keep_no_socket_open() {
    let mut s = Server::new();
    s.dns.limit(0);
    let mut last: std::collections::HashMap<u16, Duration> = Default::default();
    let start = s.rig.now;
    for n in 0..600u32 {
        let name = if n % 10 == 0 {
            "silent.example."
        } else {
            "quick.example."
        };
        s.ask(&query(n as u16, name, RecordType::A));
        s.pass(50);
        for up in s.upstream() {
            let age = last.entry(up.port).or_insert(s.rig.now.since(start));
            let age = s.rig.now.since(start) - *age;
            assert!(age <= Duration::from_secs(10), "{age:?}");
            if !up.data.windows(6).any(|w| w == b"silent") {
                s.inject(up.port, FIRST, &answer(&up.data));
            }
        }
        assert!(s.open() <= 4);
    }
    assert!(last.len() > 6, "{}", last.len());
}

#[test]
fn an_error_is_about_the_question_that_it_quotes() {
    let mut s = Server::new();
    s.rig.host.udp.borrow_mut().descriptors = Some(1);
    for id in 0..3 {
        s.ask(&query(id, "a.example.", RecordType::A));
    }
    let up = s.upstream();
    let error = unreachable(FIRST);
    let quoted = &up[1].data[..8];
    assert!(
        s.rig
            .host
            .udp
            .borrow_mut()
            .inject_error(up[1].port, error, quoted)
    );
    s.events();
    let next = s.upstream();
    assert_eq!(next.len(), 1);
    assert_eq!((next[0].how.remote, &next[0].data), (at(SECOND), &up[1].data));
    // Without a quotation it is about all that wait for that resolver.
    assert!(s.rig.host.udp.borrow_mut().inject_error(up[1].port, error, &[]));
    s.events();
    let next = s.upstream();
    assert_eq!(next.len(), 2);
    assert!(next.iter().all(|n| n.how.remote == at(SECOND)));
}

#[test]
fn refusals_of_every_kind_lead_on_at_once() {
    let mut s = Server::new();
    // An ICMP error for the first, SERVFAIL by the second.
    s.ask(&query(1, "a.example.", RecordType::A));
    let up = s.upstream().remove(0);
    assert!(
        s.rig
            .host
            .udp
            .borrow_mut()
            .inject_error(up.port, unreachable(FIRST), &[])
    );
    s.events();
    let up = s.upstream().remove(0);
    assert_eq!(up.how.remote, at(SECOND));
    let fail = crate::dns::message::error(&up.data, 2);
    s.inject(up.port, SECOND, &fail);
    assert_eq!(
        s.answered().metadata.response_code,
        ResponseCode::ServFail,
        "the last one's word counts"
    );

    // SERVFAIL by the first: the second may know better.
    s.ask(&query(2, "a.example.", RecordType::A));
    let up = s.upstream().remove(0);
    s.inject(up.port, FIRST, &crate::dns::message::error(&up.data, 2));
    assert!(s.answers().is_empty());
    let up = s.upstream().remove(0);
    assert_eq!(up.how.remote, at(SECOND));
    s.inject(up.port, SECOND, &answer(&up.data));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::NoError);

    // No way to any: SERVFAIL at once. So with no resolver, and with no descriptor.
    s.rig.host.udp.borrow_mut().failures.extend([101; 8]);
    s.ask(&query(3, "a.example.", RecordType::A));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
    s.rig.host.udp.borrow_mut().descriptors = Some(0);
    s.ask(&query(4, "a.example.", RecordType::A));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
    s.dns.set_resolvers(Vec::new());
    s.ask(&query(5, "a.example.", RecordType::A));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
    // Resolvers come and go while it runs.
    s.rig.host.udp.borrow_mut().descriptors = None;
    s.dns.set_resolvers(vec![at("[2001:db8::53]:53")]);
    s.ask(&query(6, "a.example.", RecordType::A));
    let up = s.upstream().remove(0);
    s.inject(up.port, "[2001:db8::53]:53", &answer(&up.data));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::NoError);
    assert_eq!(s.open(), 0);
}

#[test]
fn answers_that_the_link_does_not_take_are_truncated() {
    let mut s = Server::new();
    s.ask(&query(1, "big.example.", RecordType::TXT));
    let up = s.upstream().remove(0);
    let mut big = answer(&up.data);
    big.resize(1473, 0);
    s.inject(up.port, FIRST, &big);
    let m = s.answered();
    assert!(m.metadata.truncation && m.answers.is_empty());
    s.ask(&query(1, "big.example.", RecordType::TXT));
    let up = s.upstream().remove(0);
    let mut fits = answer(&up.data);
    fits.resize(1472, 0);
    // A truncated answer of the resolver is passed on as it is.
    fits[2] |= 2;
    s.inject(up.port, FIRST, &fits);
    let got = s.answers().remove(0);
    assert_eq!(got[2..], fits[2..]);
}

#[test]
fn outstanding_questions_are_bounded_for_each_and_for_all() {
    let mut s = Server::new();
    // Each on a port of the switch of its own: half of what is left is for each.
    let mut outstanding = 0;
    for (port, share) in [(1, 4096), (2, 4096), (3, 2731), (4, 1820)] {
        for i in 0..=share {
            s.rig.port = PortId(port);
            s.ask_from(
                CONTAINER,
                &format!("10.0.2.{port}"),
                5000,
                &query(i, "a.example.", RecordType::A),
            );
        }
        outstanding += usize::from(share);
        assert_eq!(s.dns.outstanding(), outstanding);
        assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
        assert_eq!(s.rig.dropped(), [DropReason::QuotaFull], "{port}");
    }
    assert_eq!((s.dns.stats().share, s.dns.stats().full), (4, 0));
    assert_eq!(s.open(), 64);
    s.pass(8000);
    assert_eq!((s.dns.outstanding(), s.open(), s.dns.deadline()), (0, 0, None));
    s.rig.sent();
    s.upstream();
    s.ask(&query(1, "a.example.", RecordType::A));
    assert_eq!(s.upstream().len(), 1, "room again");
}

#[test]
fn questions_that_wait_for_long_give_way_to_new_ones() {
    let mut s = Server::new();
    for i in 0..4096 {
        s.ask(&query(i, "silent.example.", RecordType::A));
    }
    s.pass(1900);
    s.ask(&query(5000, "quick.example.", RecordType::A));
    assert_eq!(s.answered().metadata.response_code, ResponseCode::ServFail);
    assert_eq!(s.rig.dropped(), [DropReason::QuotaFull]);
    s.pass(100);
    s.upstream();
    s.ask(&query(5001, "quick.example.", RecordType::A));
    let m = s.answered();
    assert_eq!(
        (m.metadata.id, m.metadata.response_code),
        (0, ResponseCode::ServFail),
        "the oldest"
    );
    assert_eq!(s.dns.outstanding(), 4096);
    let up = s.upstream().remove(0);
    s.inject(up.port, FIRST, &answer(&up.data));
    let m = s.answered();
    assert_eq!((m.metadata.id, m.answers.len()), (5001, 1));
}
