use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::*;
use crate::config::{Egress, HostLoopback};
use crate::rig::config;

const A: PortId = PortId(1);
const B: PortId = PortId(2);
const C: PortId = PortId(3);

/// Names of the rig's network, and questions to them.
struct Asked {
    names: Names,
    config: Config,
}

impl Asked {
    fn new() -> Self {
        let config = config();
        Self {
            names: Names::new(&config),
            config,
        }
    }

    fn set(&mut self, port: PortId, names: &[&str], addrs: &[&str]) {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        assert!(self.names.set(port, &names, &all(addrs)).is_empty());
    }

    fn view(&mut self, port: PortId, names: &[(&str, &[&str])]) {
        let names: Vec<_> = names.iter().map(|&(n, a)| (n.to_owned(), all(a))).collect();
        assert!(self.names.set_view(port, &names).is_empty());
    }

    /// The answers, or the code that says why there are none; `None` if the question is not for us.
    fn ask(
        &mut self,
        asker: PortId,
        name: &str,
        kind: RecordType,
    ) -> Option<Result<Vec<String>, ResponseCode>> {
        let mut m = Message::new(7, MessageType::Query, OpCode::Query);
        m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let bytes = m.to_vec().unwrap();
        let q = message::query(&bytes).unwrap();
        let got = self.names.answer(&self.config, asker, &bytes, &q, false)?;
        let got = Message::from_vec(&got).unwrap();
        Some(match got.metadata.response_code {
            ResponseCode::NoError => Ok(got.answers.iter().map(|r| r.data.to_string()).collect()),
            code => Err(code),
        })
    }

    fn a(&mut self, asker: PortId, name: &str) -> Vec<String> {
        self.ask(asker, name, RecordType::A)
            .expect("ours")
            .expect("there")
    }

    fn ptr(&mut self, asker: PortId, addr: &str) -> Option<Result<Vec<String>, ResponseCode>> {
        let IpAddr::V4(v4) = addr.parse().unwrap() else {
            panic!("{addr}")
        };
        let [a, b, c, d] = v4.octets();
        self.ask(asker, &format!("{d}.{c}.{b}.{a}.in-addr.arpa."), RecordType::PTR)
    }
}

fn all(addrs: &[&str]) -> Vec<IpAddr> {
    addrs.iter().map(|a| a.parse().unwrap()).collect()
}

#[test]
fn a_container_is_found_by_each_of_its_names_and_called_by_the_first() {
    let mut n = Asked::new();
    n.set(A, &["web", "www", "Web.mynet", "web"], &["10.0.2.100"]);
    for name in ["web.", "www.", "WEB.myNet."] {
        assert_eq!(n.a(B, name), ["10.0.2.100"], "{name}");
        // The name is there, with no address of that version: nobody else is asked for one.
        assert_eq!(n.ask(B, name, RecordType::AAAA), Some(Ok(vec![])), "{name}");
        assert_eq!(n.ask(B, name, RecordType::MX), Some(Ok(vec![])), "{name}");
    }
    assert_eq!(n.ptr(B, "10.0.2.100"), Some(Ok(vec!["web.".into()])));
    // Of other names than these nothing is known: neither beside nor below them, nor of one label.
    for name in ["mynet.", "x.web.", "db."] {
        assert_eq!(n.ask(B, name, RecordType::A), None, "{name}");
    }
    n.set(A, &["db"], &["10.0.2.101"]);
    assert_eq!(n.a(B, "db."), ["10.0.2.101"]);
    assert_eq!(n.ask(B, "web.", RecordType::A), None);
    assert_eq!(n.ptr(B, "10.0.2.100"), Some(Err(ResponseCode::NXDomain)));
    n.names.remove(A);
    assert_eq!(n.ask(B, "db.", RecordType::A), None);
}

#[test]
fn a_name_of_several_is_answered_with_all_each_first_in_turn() {
    let mut n = Asked::new();
    n.set(A, &["a", "app"], &["10.0.2.101", "fd00:2::101"]);
    n.set(B, &["b", "app"], &["10.0.2.102", "fd00:2::102"]);
    n.set(C, &["c", "app"], &["10.0.2.103"]);
    let mut firsts = Vec::new();
    for _ in 0..4 {
        let mut got = n.a(A, "app.");
        firsts.push(got[0].clone());
        // A stub resolver asks for both at once; one must not take the other's turn.
        assert_eq!(n.ask(A, "app.", RecordType::AAAA).unwrap().unwrap().len(), 2);
        got.sort();
        assert_eq!(got, ["10.0.2.101", "10.0.2.102", "10.0.2.103"]);
    }
    assert_eq!(firsts, ["10.0.2.101", "10.0.2.102", "10.0.2.103", "10.0.2.101"]);
    n.names.remove(B);
    let mut got = n.a(A, "app.");
    got.sort();
    assert_eq!(got, ["10.0.2.101", "10.0.2.103"]);
    assert_eq!(n.a(A, "a."), ["10.0.2.101"]);
    n.names.remove(A);
    n.names.remove(C);
    assert_eq!(n.ask(A, "app.", RecordType::A), None);
}

#[test]
fn names_of_other_networks_are_the_asker_s_alone() {
    let mut n = Asked::new();
    n.set(A, &["web"], &["10.0.2.100"]);
    n.view(
        B,
        &[
            ("db", &["10.7.0.5", "fd07::5"]),
            ("db.back", &["10.7.0.5"]),
            ("web", &["10.7.0.6"]),
            ("legacy", &[]),
        ],
    );
    assert_eq!(n.a(B, "DB."), ["10.7.0.5"]);
    assert_eq!(n.a(B, "db.back."), ["10.7.0.5"]);
    assert_eq!(n.ask(B, "legacy.", RecordType::A), Some(Ok(vec![])));
    assert_eq!(n.ptr(B, "10.7.0.5"), Some(Ok(vec!["db.".into()])));
    // The network's own name wins, in both directions.
    assert_eq!(n.a(B, "web."), ["10.0.2.100"]);
    assert_eq!(n.ptr(B, "10.0.2.100"), Some(Ok(vec!["web.".into()])));
    // Others are told nothing of it.
    for asker in [A, C] {
        assert_eq!(n.ask(asker, "db.", RecordType::A), None);
        assert_eq!(n.ptr(asker, "10.7.0.5"), None);
    }
    n.view(B, &[("cache", &["10.7.0.9"])]);
    assert_eq!(n.ask(B, "db.", RecordType::A), None);
    assert_eq!(n.a(B, "cache."), ["10.7.0.9"]);
    n.names.remove(B);
    assert_eq!(n.ask(B, "cache.", RecordType::A), None);
}

#[test]
fn a_view_of_an_overlapping_network_has_its_own_reverse_names() {
    let mut n = Asked::new();
    n.view(B, &[("db", &["10.0.2.77"])]);
    assert_eq!(n.ptr(B, "10.0.2.77"), Some(Ok(vec!["db.".into()])));
    assert_eq!(n.ptr(A, "10.0.2.77"), Some(Err(ResponseCode::NXDomain)));
}

#[test]
fn the_host_has_a_name_where_it_can_be_reached() {
    for (egress, loopback, there) in [
        (Egress::Host, HostLoopback::ByGateway, true),
        (Egress::Host, HostLoopback::Unreachable, false),
        (Egress::None, HostLoopback::ByGateway, false),
    ] {
        let mut n = Asked::new();
        n.config.egress = egress;
        n.config.host_loopback = loopback;
        n.names = Names::new(&n.config);
        let expected = |addr: &str| {
            Some(if there {
                Ok(vec![addr.to_owned()])
            } else {
                Err(ResponseCode::NXDomain)
            })
        };
        let name = "host.pontoon.internal.";
        assert_eq!(n.ask(A, name, RecordType::A), expected("10.0.2.2"));
        assert_eq!(n.ask(A, name, RecordType::AAAA), expected("fd00:2::2"));
        // What the address is called is not changed by that.
        assert_eq!(
            n.ptr(A, "10.0.2.2"),
            Some(Ok(vec!["gateway.pontoon.internal.".into()]))
        );
    }
}

#[test]
fn a_network_of_one_ip_version_has_names_of_that_version() {
    let mut n = Asked::new();
    n.config.subnet4 = None;
    n.names = Names::new(&n.config);
    n.set(A, &["web"], &["fd00:2::100"]);
    n.set(B, &["nobody"], &[]);
    assert_eq!(
        n.ask(A, "web.", RecordType::AAAA),
        Some(Ok(vec!["fd00:2::100".into()]))
    );
    assert_eq!(n.ask(A, "web.", RecordType::A), Some(Ok(vec![])));
    assert_eq!(
        n.ask(A, "gateway.pontoon.internal.", RecordType::A),
        Some(Ok(vec![]))
    );
    assert_eq!(n.ptr(A, "10.0.2.100"), None, "somebody else's subnet");
    // Its addresses are its own business, and the resolvers may know them.
    assert_eq!(n.ask(A, "nobody.", RecordType::A), None);
}

/// What one costs must not grow with the others: four thousand come, are renamed and go, all with one alias in common.
#[test]
fn thousands_come_and_go_each_at_the_price_of_one() {
    let time = |n: u32| {
        let mut names = Names::new(&config());
        let port = |i: u32| PortId(i + 1);
        let addr = |i: u32| IpAddr::from([10, 1, (i >> 8) as u8, i as u8]);
        let called = |i: u32, v: u32| [format!("c{i}-{v}"), format!("c{i}-{v}.net"), "all".to_owned()];
        let start = Instant::now();
        for version in 0..2 {
            for i in 0..n {
                names.set(port(i), &called(i, version), &[addr(i)]);
            }
        }
        for i in 0..n {
            names.remove(port(i));
        }
        assert!(names.containers.is_empty());
        start.elapsed()
    };
    time(100);
    // An index made anew for each would take sixteen million entries; this takes some ten milliseconds.
    assert!(time(4000) < Duration::from_secs(3));
}

#[test]
fn an_alias_of_very_many_is_answered_in_parts() {
    let mut n = Asked::new();
    for i in 0..1000u32 {
        let addr = format!("10.1.{}.{}", i / 250, i % 250);
        n.set(PortId(i), &["all"], &[&addr]);
    }
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let got = n.a(A, "all.");
        assert_eq!(got.len(), 256);
        seen.extend(got);
    }
    assert_eq!(seen.len(), 1000);
}
