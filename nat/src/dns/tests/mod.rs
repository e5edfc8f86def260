mod forward;
mod stream;

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
