use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use pontoon_fixtures::packet::{Between, Parsed, Payload};
use pontoon_fixtures::sim::{self, Container, TcpId};
use pontoon_switch::{DropReason, Frame, MacAddr, Offload, PortId};
use proptest::prelude::*;

use super::{Dns, DnsStats};
use crate::host::sim::SimHost;
use crate::host::sim::tcp::{Far, Outcome};
use crate::host::sim::udp::Sent;
use crate::host::{HostError, Origin};
use crate::rig::{CONTAINER, GATEWAY, PORT, Rig};

const FIRST: &str = "198.51.100.53:53";
const SECOND: &str = "203.0.113.53:53";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn question(id: u16, name: &str, kind: RecordType) -> Message {
    let mut m = Message::new(id, MessageType::Query, OpCode::Query);
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    m
}

fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    question(id, name, kind).to_vec().unwrap()
}

/// The answer of a resolver to `query`: 192.0.2.80.
fn answer(query: &[u8]) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let mut m = Message::response(asked.metadata.id, OpCode::Query);
    let q = asked.queries[0].clone();
    m.add_answer(Record::from_rdata(
        q.name().clone(),
        60,
        RData::A(A::new(192, 0, 2, 80)),
    ));
    m.add_query(q);
    m.to_vec().unwrap()
}

/// What a router says of a question to `remote` that nobody there takes.
fn unreachable(remote: &str) -> HostError {
    HostError {
        remote: at(remote),
        origin: Origin::Icmp,
        errno: 111,
        kind: 3,
        code: 3,
        info: 0,
        offender: None,
        len: 0,
    }
}

struct Server {
    rig: Rig,
    dns: Dns<SimHost>,
}

impl Server {
    fn new() -> Self {
        let rig = Rig::new();
        Self {
            dns: Dns::new(&rig.config),
            rig,
        }
    }

    fn ask_from(&mut self, mac: MacAddr, src: &str, port: u16, payload: &[u8]) {
        let dst = if src.contains(':') {
            "fd00:2::2"
        } else {
            "10.0.2.2"
        };
        let mut frame = Between::new(src.parse().unwrap(), dst.parse().unwrap())
            .macs(mac, GATEWAY)
            .udp(port, 53, payload);
        self.rig.packet(&mut frame, |cx, p, f| {
            let data = p.transport(f)[8..].to_vec();
            self.dns.query_udp(cx, p, port, &data);
        });
    }

    /// The container is called `name` from now on.
    fn called(&mut self, name: &str, addrs: &[IpAddr]) {
        assert!(self.dns.set_endpoint(PORT, &[name.to_owned()], addrs).is_empty());
    }

    fn ask(&mut self, payload: &[u8]) {
        self.ask_from(CONTAINER, "10.0.2.100", 5353, payload);
    }

    /// The answers to the client since the last call.
    fn answers(&mut self) -> Vec<Vec<u8>> {
        let sent = self.rig.sent();
        let data = |f: &Vec<u8>| {
            let p = Parsed::of(f).expect("checksums that are right");
            assert_eq!((p.src_mac, p.dst_mac), (GATEWAY, CONTAINER));
            match p.payload {
                Payload::Udp { src: 53, data, .. } => data.to_vec(),
                other => panic!("{other:?}"),
            }
        };
        sent.iter().map(data).collect()
    }

    fn answered(&mut self) -> Message {
        let answers = self.answers();
        assert_eq!(answers.len(), 1);
        Message::from_vec(&answers[0]).unwrap()
    }

    /// What was sent to resolvers since the last call.
    fn upstream(&mut self) -> Vec<Sent> {
        self.rig.host.udp.borrow_mut().sent.drain(..).collect()
    }

    fn inject(&mut self, port: u16, remote: &str, data: &[u8]) {
        assert!(self.rig.host.udp.borrow_mut().inject(port, at(remote), data));
        self.events();
    }

    fn events(&mut self) {
        for (token, ready) in self.rig.host.take_ready() {
            self.dns.ready(&mut self.rig.cx(), token, ready);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.rig.now += Duration::from_millis(millis);
        self.dns.flush(&mut self.rig.cx());
    }

    fn open(&mut self) -> usize {
        self.rig.host.udp.borrow_mut().open() + self.rig.host.tcp.open()
    }
}

#[test]
fn names_of_the_network_are_answered_here() {
    let mut s = Server::new();
    let addrs: Vec<IpAddr> = vec!["10.0.2.100".parse().unwrap(), "fd00:2::100".parse().unwrap()];
    let names = ["Web".to_owned(), "a..b".to_owned()];
    assert_eq!(s.dns.set_endpoint(PORT, &names, &addrs), ["a..b"]);
    let mut ask = |name: &str, kind| {
        s.ask(&query(77, name, kind));
        let m = s.answered();
        assert_eq!(
            (m.metadata.id, m.metadata.message_type),
            (77, MessageType::Response)
        );
        assert!(m.metadata.recursion_available);
        assert_eq!(m.queries[0].name().to_ascii(), name);
        let data: Vec<String> = m.answers.iter().map(|r| r.data.to_string()).collect();
        (m.metadata.response_code, data.join(" "))
    };
    let ok = ResponseCode::NoError;
    assert_eq!(ask("web.", RecordType::A), (ok, "10.0.2.100".into()));
    assert_eq!(ask("wEB.", RecordType::AAAA), (ok, "fd00:2::100".into()));
    assert_eq!(ask("web.", RecordType::MX), (ok, String::new()), "NODATA");
    assert_eq!(ask("printer.lab.", RecordType::A), (ok, "10.9.8.7".into()));
    assert_eq!(ask("printer.lab.", RecordType::AAAA), (ok, String::new()));
    assert_eq!(
        ask("gateway.pontoon.internal.", RecordType::A),
        (ok, "10.0.2.2".into())
    );
    assert_eq!(
        ask("gateway.pontoon.internal.", RecordType::AAAA),
        (ok, "fd00:2::2".into())
    );
    assert_eq!(
        ask("nobody.pontoon.internal.", RecordType::A).0,
        ResponseCode::NXDomain
    );
    assert_eq!(
        ask("100.2.0.10.in-addr.arpa.", RecordType::PTR),
        (ok, "Web.".into())
    );
    let v6 = "0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(ask(v6, RecordType::PTR), (ok, "Web.".into()));
    assert_eq!(
        ask("7.2.0.10.in-addr.arpa.", RecordType::PTR).0,
        ResponseCode::NXDomain,
        "not told to resolvers"
    );
    assert!(s.upstream().is_empty());
    // Neither a name of a network nor one beside ours is ours.
    s.dns.detach(PORT);
    for name in ["web.", "web.lab.", "7.0.9.10.in-addr.arpa.", "xpontoon.internal."] {
        s.ask(&query(1, name, RecordType::A));
        assert_eq!(s.upstream().len(), 1, "{name}");
        s.ask_from(CONTAINER, "10.0.2.100", 6000, &query(1, name, RecordType::A));
        assert_eq!(s.upstream().len(), 1, "{name}");
        s.pass(10_000);
        s.answers();
    }
}

#[test]
fn edns_is_answered_in_kind_and_long_answers_are_truncated() {
    let mut s = Server::new();
    let many: Vec<IpAddr> = (1..=60).map(|i| IpAddr::from([10, 0, 2, i])).collect();
    s.called("many", &many);
    s.ask(&query(1, "many.", RecordType::A));
    let m = s.answered();
    assert!(m.metadata.truncation && m.answers.is_empty() && m.edns.is_none());
    let mut q = question(1, "many.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    q.set_edns(edns);
    s.ask(&q.to_vec().unwrap());
    let m = s.answered();
    assert_eq!((m.answers.len(), m.metadata.truncation), (60, false));
    assert_eq!(m.edns.unwrap().max_payload(), 1232);
}

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
        seen.insert((super::message::id(&up[0].data), up[0].port));
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
    let end = super::message::query(&up.data).unwrap().end;
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
        let mut ids: Vec<u16> = s.answers().iter().map(|m| super::message::id(m)).collect();
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
    let fail = super::message::error(&up.data, 2);
    s.inject(up.port, SECOND, &fail);
    assert_eq!(
        s.answered().metadata.response_code,
        ResponseCode::ServFail,
        "the last one's word counts"
    );

    // SERVFAIL by the first: the second may know better.
    s.ask(&query(2, "a.example.", RecordType::A));
    let up = s.upstream().remove(0);
    s.inject(up.port, FIRST, &super::message::error(&up.data, 2));
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

#[test]
fn without_a_way_out_nobody_is_asked() {
    let mut s = Server::new();
    s.rig.config.egress = crate::config::Egress::None;
    s.called("web", &["10.0.2.100".parse().unwrap()]);
    s.ask(&query(1, "web.", RecordType::A));
    assert_eq!(s.answered().answers.len(), 1);
    for name in ["example.org.", "nobody.", "1.2.0.192.in-addr.arpa."] {
        s.ask(&query(2, name, RecordType::A));
        assert_eq!(
            s.answered().metadata.response_code,
            ResponseCode::Refused,
            "{name}"
        );
    }
    assert!(s.upstream().is_empty());
    assert_eq!((s.dns.stats().refused, s.dns.outstanding()), (3, 0));
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let mut s = Server::new();
    let good = query(1, "a.example.", RecordType::A);
    let mut response = good.clone();
    response[2] |= 0x80;
    for silent in [&good[..11], b"", &response] {
        s.ask(silent);
        assert!(s.answers().is_empty());
        assert_eq!(s.rig.dropped(), [DropReason::Malformed]);
    }
    let mut two = good.clone();
    two[5] = 2;
    let mut update = good.clone();
    update[2] |= 5 << 3;
    let mut compressed = good.clone();
    compressed[12] = 0xc0;
    for (bytes, code) in [
        (&two, ResponseCode::FormErr),
        (&compressed, ResponseCode::FormErr),
        (&good[..good.len() - 1].to_vec(), ResponseCode::FormErr),
        (&update, ResponseCode::NotImp),
    ] {
        s.ask(bytes);
        let got = s.answers().remove(0);
        assert_eq!(u16::from(got[3] & 15), u16::from(code));
        assert!(got.len() <= bytes.len(), "nothing is amplified");
    }
    assert!(s.upstream().is_empty());
    assert_eq!(s.open(), 0);
}

/// A server with a simulated container that speaks TCP to it.
struct Tcp {
    server: Server,
    client: Container,
}

impl Tcp {
    fn new() -> Self {
        let mut server = Server::new();
        for addr in ["10.0.2.100", "fd00:2::100"] {
            server.rig.neighbours.pin(addr.parse().unwrap(), CONTAINER);
        }
        let config = sim::Config {
            tso: true,
            ..sim::Config::default()
        };
        Self {
            server,
            client: Container::new(config),
        }
    }

    /// Lets frames and time pass for `millis`.
    fn run(&mut self, millis: u64) {
        let mut link = crate::link::Link::new(&self.server.rig.config);
        let end = self.server.rig.now + Duration::from_millis(millis);
        while self.server.rig.now < end {
            self.server.rig.now += Duration::from_millis(1);
            self.client.poll(self.server.rig.now);
            let mut frames: VecDeque<_> = self.client.transmit().into();
            while let Some((mut bytes, offload)) = frames.pop_front() {
                if bytes[12..14] == [8, 6] {
                    link.arp(
                        &mut self.server.rig.cx(),
                        PORT,
                        &mut Frame::whole(&mut bytes, offload),
                    );
                    continue;
                }
                let frame = Frame::whole(&mut bytes, offload);
                let packet = crate::packet::Packet::parse(self.server.rig.port, &frame).unwrap();
                let mut cx = self.server.rig.cx();
                if !link.icmpv6_link(&mut cx, &packet, &frame) {
                    self.server.dns.segment(&mut cx, &packet, &frame);
                }
            }
            self.server.events();
            if self
                .server
                .dns
                .deadline()
                .is_some_and(|at| at <= self.server.rig.now)
            {
                self.server.dns.flush(&mut self.server.rig.cx());
                assert!(
                    self.server
                        .dns
                        .deadline()
                        .is_none_or(|at| at > self.server.rig.now),
                    "a deadline that stays is a loop"
                );
            }
            for frame in self.server.rig.sent() {
                self.client.receive(&frame, Offload::NONE);
            }
        }
    }

    fn connect(&mut self, to: &str) -> TcpId {
        let id = self.client.tcp_connect(at(to));
        self.run(20);
        id
    }

    fn send(&mut self, id: TcpId, message: &[u8]) {
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        assert_eq!(self.client.tcp_send(id, &framed), framed.len());
        self.run(20);
    }

    fn receive(&mut self, id: TcpId) -> Vec<Message> {
        self.run(20);
        let mut data = self.client.tcp_recv(id, 100_000);
        loop {
            let more = self.client.tcp_recv(id, 100_000);
            if more.is_empty() {
                break;
            }
            data.extend(more);
        }
        let mut rest = &data[..];
        let mut messages = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let (m, next) = tail.split_at(u16::from_be_bytes(*length).into());
            messages.push(Message::from_vec(m).unwrap());
            rest = next;
        }
        messages
    }

    fn far(&mut self) -> Far {
        self.server
            .rig
            .host
            .tcp
            .far
            .pop()
            .expect("a connection to a resolver")
    }
}

#[test]
fn tcp_clients_are_answered_from_here_and_from_there() {
    for (gateway, partial) in [("10.0.2.2:53", true), ("[fd00:2::2]:53", false)] {
        let mut t = Tcp::new();
        t.server.called("web", &["10.0.2.100".parse().unwrap()]);
        t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Wait);
        let id = t.connect(gateway);
        assert_eq!(t.server.dns.connections(), 1, "{partial}");
        // Several on one connection; the slow one delays nobody.
        t.send(id, &query(1, "far.example.", RecordType::A));
        t.send(id, &query(2, "web.", RecordType::A));
        let got = t.receive(id);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].metadata.id, got[0].answers.len()), (2, 1));
        let far = t.far();
        assert!(far.take(1000).is_empty(), "not before it is connected");
        far.complete();
        t.run(5);
        let sent = far.take(1000);
        let length = u16::from_be_bytes([sent[0], sent[1]]);
        assert_eq!(usize::from(length), sent.len() - 2);
        let a = answer(&sent[2..]);
        let framed = [&(a.len() as u16).to_be_bytes(), &a[..]].concat();
        // In two pieces, within the length.
        far.send(&framed[..1]);
        t.run(5);
        far.send(&framed[1..]);
        let got = t.receive(id);
        assert_eq!((got[0].metadata.id, got[0].answers.len()), (1, 1));
        assert!(far.released());
        // The client is done.
        t.client.tcp_close(id);
        t.run(50);
        assert_eq!(
            (
                t.server.dns.connections(),
                t.server.dns.outstanding(),
                t.server.open()
            ),
            (0, 0, 0)
        );
    }
}

#[test]
fn who_asks_by_tcp_is_known_by_the_port() {
    let mut t = Tcp::new();
    let view = [("db".to_owned(), vec!["10.7.0.5".parse().unwrap()])];
    t.server.dns.set_view(PORT, &view);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(1, "db.", RecordType::A));
    assert_eq!(t.receive(id)[0].answers.len(), 1);
    // Another port that speaks in this one's name.
    t.server.rig.port = PortId(99);
    t.client.tcp_send(id, &[0]);
    t.run(20);
    assert!(t.server.rig.dropped().contains(&DropReason::BadSourceAddress));
    // The container has gone, and its address with it: the next one begins anew.
    t.server.dns.detach(PORT);
    assert_eq!(t.server.dns.connections(), 0);
    t.client.tcp_abort(id);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(2, "db.", RecordType::A));
    assert!(t.receive(id)[0].answers.is_empty());
}

#[test]
fn a_client_that_has_ended_its_side_is_still_answered() {
    let mut t = Tcp::new();
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Accept);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(1, "far.example.", RecordType::A));
    t.client.tcp_close(id);
    t.run(50);
    let far = t.far();
    let sent = far.take(1000);
    let a = answer(&sent[2..]);
    far.send(&[&(a.len() as u16).to_be_bytes(), &a[..]].concat());
    assert_eq!(t.receive(id).len(), 1);
    t.run(50);
    assert_eq!(t.server.dns.connections(), 0);
}

#[test]
fn tcp_failures_are_servfail_and_large_answers_come_whole() {
    let mut t = Tcp::new();
    let id = t.connect("10.0.2.2:53");
    // Both refuse.
    t.send(id, &query(1, "far.example.", RecordType::A));
    assert_eq!(t.receive(id)[0].metadata.response_code, ResponseCode::ServFail);
    // The first is silent, the second hangs up, until patience ends.
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Wait);
    t.server.rig.host.tcp.servers.insert(at(SECOND), Outcome::Accept);
    t.send(id, &query(2, "far.example.", RecordType::A));
    t.run(4100);
    let far = t.far();
    assert_eq!(far.remote(), at(SECOND));
    far.finish();
    t.run(4100);
    assert_eq!(t.receive(id)[0].metadata.response_code, ResponseCode::ServFail);
    assert_eq!((t.server.open(), t.server.dns.outstanding()), (0, 0));
    // More than any buffer on the way.
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Accept);
    t.send(id, &query(3, "far.example.", RecordType::A));
    let far = t.far();
    let sent = far.take(1000);
    let asked = Message::from_vec(&sent[2..]).unwrap();
    let mut m = Message::response(asked.metadata.id, OpCode::Query);
    m.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name();
    for i in 0..2000u32 {
        let [_, _, c, d] = i.to_be_bytes();
        m.add_answer(Record::from_rdata(
            name.clone(),
            60,
            RData::A(A::new(10, 1, c, d)),
        ));
    }
    let a = m.to_vec().unwrap();
    assert!(a.len() > 32_000);
    far.send(&[&(a.len() as u16).to_be_bytes(), &a[..]].concat());
    t.run(500);
    assert_eq!(t.receive(id)[0].answers.len(), 2000);
}

#[test]
fn idle_half_open_and_broken_connections_end() {
    let mut t = Tcp::new();
    let ids: Vec<TcpId> = (0..8).map(|_| t.connect("10.0.2.2:53")).collect();
    assert_eq!(t.server.dns.connections(), 8);
    // The ninth of one container has to wait for its turn.
    let ninth = t.connect("10.0.2.2:53");
    assert_eq!(t.server.dns.connections(), 8);
    assert!(t.server.rig.dropped().contains(&DropReason::QuotaFull));
    t.client.tcp_abort(ninth);
    // A length that no query has.
    assert_eq!(t.client.tcp_send(ids[0], &[0xff, 0xff, 1, 2, 3]), 5);
    t.run(20);
    assert_eq!(t.server.dns.connections(), 7);
    // One stops in the middle of a query, the others say nothing.
    assert_eq!(t.client.tcp_send(ids[1], &[0, 40, 1, 2, 3]), 5);
    t.run(32_000);
    assert_eq!(t.server.dns.connections(), 0);
    let again = t.connect("10.0.2.2:53");
    t.server.called("web", &["10.0.2.100".parse().unwrap()]);
    t.send(again, &query(2, "web.", RecordType::A));
    assert_eq!(t.receive(again).len(), 1);
}

#[test]
fn pipelined_questions_are_all_answered() {
    let mut t = Tcp::new();
    t.server.called("web", &["10.0.2.100".parse().unwrap()]);
    let id = t.connect("10.0.2.2:53");
    let mut all = Vec::new();
    for i in 0..500u16 {
        let q = query(i, "web.", RecordType::A);
        all.extend((q.len() as u16).to_be_bytes());
        all.extend(q);
    }
    assert_eq!(t.client.tcp_send(id, &all), all.len());
    t.run(300);
    let mut ids: Vec<u16> = t.receive(id).iter().map(|m| m.metadata.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn random_messages_panic_nobody(mut bytes in prop::collection::vec(any::<u8>(), 0..300), name in "[a-z.]{0,70}") {
        let mut s = Server::new();
        s.dns.set_endpoint(PORT, &["web".to_owned(), name], &["10.0.2.100".parse().unwrap()]);
        s.ask(&bytes);
        // As a question, and as one for a name of ours with rubbish behind it.
        if bytes.len() >= 12 {
            bytes[2] = 1;
            bytes[4..6].copy_from_slice(&[0, 1]);
            s.ask_from(CONTAINER, "10.0.2.100", 1, &bytes);
            let mut q = query(1, "web.", RecordType::A);
            q[6..12].copy_from_slice(&bytes[..6]);
            q.extend(&bytes);
            s.ask_from(CONTAINER, "10.0.2.100", 2, &q);
        }
        // As an answer.
        s.ask_from(CONTAINER, "10.0.2.100", 3, &query(1, "far.example.", RecordType::A));
        if let Some(up) = s.upstream().pop() {
            let mut a = up.data.clone();
            a[2] |= 0x80;
            a.extend(&bytes);
            s.inject(up.port, FIRST, &bytes);
            s.inject(up.port, FIRST, &a);
        }
        s.pass(10_000);
        prop_assert_eq!(s.dns.outstanding(), 0);
        prop_assert_eq!(s.open(), 0);
    }

    #[test]
    fn random_segments_panic_nobody(bytes in prop::collection::vec(any::<u8>(), 0..100), flags in any::<u8>()) {
        let mut s = Server::new();
        let mut segment = bytes;
        if segment.len() >= 20 {
            segment[2..4].copy_from_slice(&[0, 53]);
            segment[12] = 0x50;
            segment[13] = flags;
        }
        let mut frame = Between::v4("10.0.2.100", "10.0.2.2").macs(CONTAINER, GATEWAY).ip(6, &segment);
        for offload in [Offload::NONE, Offload { checksum: pontoon_switch::Checksum::Valid, gso: None }] {
            let mut bytes = frame.clone();
            let f = Frame::whole(&mut bytes, offload);
            let p = crate::packet::Packet::parse(PORT, &f).unwrap();
            s.dns.segment(&mut s.rig.cx(), &p, &f);
            s.pass(100);
        }
        frame.clear();
    }
}

#[test]
fn statistics_tell_what_was_done() {
    let mut s = Server::new();
    s.called("web", &["10.0.2.100".parse().unwrap()]);
    s.ask(&query(1, "web.", RecordType::A));
    s.ask(&query(2, "far.example.", RecordType::A));
    s.pass(8000);
    let DnsStats {
        questions,
        local,
        forward,
        ..
    } = s.dns.stats();
    assert_eq!((questions, local, forward.failed), (2, 1, 1));
}
