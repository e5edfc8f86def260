//! What user-defined networks ask of the gateway: names by who asks, networks without a way out, gateways without an
//! address or with one IP version only, and rules on the clients of published ports.

mod wire;

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use pontoon_fixtures::packet::{Between, Tcp, flags};
use pontoon_nat::config::{Config, Egress, HostLoopback};
use pontoon_nat::publish::{SourceAction, SourceRule, Transport};
use pontoon_switch::{DropReason, MacAddr, PortId, Station};
use wire::*;

/// `port`'s container asks for `name` at the gateway; code and answers.
fn ask(w: &mut Wire, port: PortId, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let at = if w.gateway.config().subnet4.is_some() {
        "10.0.2.2"
    } else {
        "fd00:2::2"
    };
    let mut m = Message::new(7, MessageType::Query, OpCode::Query);
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let frame = Wire::from(port, at).udp(5353, 53, &m.to_vec().unwrap());
    let (src, _, data) = udp_of(&w.send(port, frame));
    assert_eq!(src, format!("{}:53", bracket(at)).parse().unwrap());
    let m = Message::from_vec(&data).unwrap();
    let answers = m.answers.iter().map(|r| r.data.to_string()).collect();
    (m.metadata.response_code, answers)
}

fn bracket(addr: &str) -> String {
    match addr.parse().unwrap() {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => format!("[{a}]"),
    }
}

fn syn(port: PortId, dst: &str) -> Vec<u8> {
    Wire::from(port, dst).tcp(Tcp {
        src: 40_000,
        dst: 80,
        flags: flags::SYN,
        window: 1000,
        ..Tcp::default()
    })
}

fn without_egress() -> Wire {
    Wire::new(Config {
        egress: Egress::None,
        host_loopback: HostLoopback::ByGateway,
        resolvers: vec![addr("198.51.100.53:53")],
        ..config()
    })
}

mod names {
    use super::*;

    #[test]
    fn names_and_views_change_while_containers_run_and_are_seen_at_once() {
        let mut w = Wire::plain();
        let ok = |addrs: &[&str]| {
            let addrs = addrs.iter().map(|&a| a.to_owned()).collect::<Vec<_>>();
            (ResponseCode::NoError, addrs)
        };
        assert_eq!(ask(&mut w, A, "c101.", RecordType::A), ok(&["10.0.2.101"]));
        assert!(
            w.gateway
                .set_endpoint_names(B, vec!["db".into(), "db.back".into()])
        );
        assert_eq!(ask(&mut w, A, "db.back.", RecordType::A), ok(&["10.0.2.101"]));
        assert_eq!(ask(&mut w, A, "c101.", RecordType::A).0, ResponseCode::ServFail);
        assert_eq!(
            ask(&mut w, A, "101.2.0.10.in-addr.arpa.", RecordType::PTR),
            ok(&["db."])
        );
        let other = ("mail".to_owned(), vec![ip("10.7.0.5")]);
        assert!(w.gateway.set_view(A, vec![other.clone()]));
        assert_eq!(ask(&mut w, A, "mail.", RecordType::A), ok(&["10.7.0.5"]));
        assert_eq!(ask(&mut w, B, "mail.", RecordType::A).0, ResponseCode::ServFail);
        // Of nobody.
        assert!(!w.gateway.set_view(PortId(9), vec![other]));
        assert!(!w.gateway.set_endpoint_names(PortId(9), vec!["x".into()]));
        // Gone with the port.
        w.detach(A);
        w.attach(A, &["c100"], &["10.0.2.100", "fd00:2::100"]);
        assert_eq!(ask(&mut w, A, "mail.", RecordType::A).0, ResponseCode::ServFail);
    }

    /// A container that has taken another's address is known by its port all the same.
    #[test]
    fn who_asks_is_known_by_the_port() {
        let mut w = Wire::plain();
        w.gateway
            .set_view(B, vec![("mail".to_owned(), vec![ip("10.7.0.5")])]);
        let mut m = Message::new(7, MessageType::Query, OpCode::Query);
        m.add_query(Query::query(Name::from_ascii("mail.").unwrap(), RecordType::A));
        let as_b = Wire::from(B, "10.0.2.2").udp(5353, 53, &m.to_vec().unwrap());
        let (.., data) = udp_of(&w.send(A, as_b));
        assert!(Message::from_vec(&data).unwrap().answers.is_empty());
    }

    #[test]
    fn a_container_may_have_addresses_of_one_version_or_none() {
        let mut w = Wire::plain();
        w.attach(PortId(3), &["four"], &["10.0.2.4"]);
        w.attach(PortId(4), &["six"], &["fd00:2::6"]);
        w.attach(PortId(5), &["none"], &[]);
        w.attach(PortId(6), &[], &["10.0.2.7"]);
        let nodata = (ResponseCode::NoError, vec![]);
        assert_eq!(ask(&mut w, A, "four.", RecordType::AAAA), nodata);
        assert_eq!(ask(&mut w, A, "six.", RecordType::A), nodata);
        assert_eq!(ask(&mut w, A, "six.", RecordType::AAAA).1, ["fd00:2::6"]);
        assert_eq!(ask(&mut w, A, "none.", RecordType::A).0, ResponseCode::ServFail);
        for port in 3..7 {
            w.detach(PortId(port));
        }
        assert_eq!(ask(&mut w, A, "six.", RecordType::AAAA).0, ResponseCode::ServFail);
    }
}

mod no_way_out {
    use super::*;

    /// RFC 1812 section 5.2.7.1: code 13; RFC 4443 section 3.1: code 1.
    #[test]
    fn what_would_leave_is_prohibited_and_counted_and_makes_no_flow() {
        let mut w = without_egress();
        for (dst, expected) in [(FAR, (3, 13)), (FAR6, (1, 1))] {
            let to = Wire::from(A, dst);
            let stray = Tcp {
                src: 40_000,
                dst: 80,
                flags: flags::ACK,
                ..Tcp::default()
            };
            let packets = [
                ("TCP", syn(A, dst)),
                ("stray TCP", to.tcp(stray)),
                ("UDP", to.udp(5000, 9, b"x")),
                ("echo", to.echo(1, 1, b"x")),
                ("SCTP", to.ip(132, &[0; 16])),
            ];
            for (n, (what, frame)) in packets.into_iter().enumerate() {
                let counted = w.dropped(DropReason::NoEgress);
                let (_, kind, code, ..) = icmp_of(&w.send(A, frame));
                assert_eq!((kind, code), expected, "{what} to {dst}");
                assert_eq!(
                    w.dropped(DropReason::NoEgress),
                    counted + 1,
                    "{what} to {dst}: {n}"
                );
            }
        }
        // Nor to the host's loopback, though the gateway's address leads there elsewhere.
        for gateway in ["10.0.2.2", "fd00:2::2"] {
            icmp_of(&w.send(A, syn(A, gateway)));
            icmp_of(&w.send(A, Wire::from(A, gateway).udp(5000, 9, b"x")));
        }
        assert_eq!(w.dropped(DropReason::NoEgress), 14);
        assert_eq!(w.gateway.table().len(), 0);
        let host = w.gateway.host_mut();
        assert_eq!(
            (host.tcp.open(), host.udp.borrow_mut().open()),
            (0, 0),
            "no socket"
        );
    }

    #[test]
    fn the_gateway_itself_answers_echo_and_the_network_s_names() {
        let mut w = without_egress();
        let (_, kind, ..) = icmp_of(&w.send(A, Wire::from(A, "10.0.2.2").echo(1, 1, b"x")));
        assert_eq!(kind, 0);
        assert_eq!(ask(&mut w, A, "c101.", RecordType::A).1, ["10.0.2.101"]);
        assert_eq!(
            ask(&mut w, A, "example.org.", RecordType::A).0,
            ResponseCode::Refused
        );
        assert_eq!(
            ask(&mut w, A, "host.pontoon.internal.", RecordType::A).0,
            ResponseCode::NXDomain
        );
        assert!(w.udp().sent.is_empty());
    }

    #[test]
    fn no_default_route_is_offered() {
        for (egress, routes) in [(Egress::Host, true), (Egress::None, false)] {
            let mut w = Wire::new(Config { egress, ..config() });
            // DHCP: option 3.
            let message = discover();
            let frame = Between::v4("0.0.0.0", "255.255.255.255")
                .macs(mac(A), MacAddr::BROADCAST)
                .udp(68, 67, &message);
            let (.., offer) = udp_of(&w.send(A, frame));
            let options = options(&offer);
            assert_eq!(options.contains(&3), routes, "{options:?}");
            assert!(options.contains(&1) && options.contains(&6) && options.contains(&51));
            // A router advertisement's lifetime.
            let solicit = Between::v6("fe80::1:1", "ff02::2")
                .macs(mac(A), MacAddr([0x33, 0x33, 0, 0, 0, 2]))
                .ttl(255)
                .icmp(133, 0, [0; 4], &[]);
            let got = w.send(A, solicit);
            let advert = got.iter().find(|f| f[54] == 134).expect("an advertisement");
            let lifetime = u16::from_be_bytes([advert[60], advert[61]]);
            assert_eq!(lifetime > 0, routes);
            // The prefix is on the link all the same.
            assert!(advert.windows(4).any(|o| o == [3, 4, 64, 0xc0]));
        }
    }

    /// A DHCPDISCOVER of A's.
    fn discover() -> Vec<u8> {
        let mut m = vec![0; 240];
        m[..3].copy_from_slice(&[1, 1, 6]);
        m[28..34].copy_from_slice(&mac(A).0);
        m[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        m.extend([53, 1, 1, 255]);
        m
    }

    /// The codes of a DHCP message's options.
    fn options(message: &[u8]) -> Vec<u8> {
        let mut codes = Vec::new();
        let mut rest = &message[240..];
        while let [code, len, tail @ ..] = rest {
            if *code == 255 {
                break;
            }
            codes.push(*code);
            rest = &tail[usize::from(*len)..];
        }
        codes
    }
}

mod without_addresses {
    use super::*;

    #[test]
    fn a_gateway_without_a_subnet_is_silent() {
        let mut w = Wire::new(Config {
            subnet4: None,
            subnet6: None,
            resolvers: vec![addr("198.51.100.53:53")],
            ..config()
        });
        let dhcp = {
            let mut m = vec![0; 300];
            m[..3].copy_from_slice(&[1, 1, 6]);
            m[28..34].copy_from_slice(&mac(A).0);
            m[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
            m
        };
        let broadcast = Between::v4("0.0.0.0", "255.255.255.255").macs(mac(A), MacAddr::BROADCAST);
        let all_routers = MacAddr([0x33, 0x33, 0, 0, 0, 2]);
        let to_all = [
            Wire::from(A, "10.0.2.2").arp_request(),
            broadcast.udp(68, 67, &dhcp),
            Between::v6("fe80::1:1", "ff02::2")
                .macs(mac(A), all_routers)
                .ttl(255)
                .icmp(133, 0, [0; 4], &[]),
        ];
        for frame in to_all {
            assert_eq!(w.send(A, frame), Vec::<Vec<u8>>::new());
        }
        let mut to_it = vec![syn(A, FAR), syn(A, FAR6)];
        for dst in ["10.0.2.2", "fd00:2::2", FAR] {
            let to = Wire::from(A, dst);
            to_it.extend([to.udp(5000, 53, b"x"), to.echo(1, 1, b"x"), to.ip(132, &[0; 16])]);
        }
        let count = to_it.len() as u64;
        for frame in to_it {
            assert_eq!(w.send(A, frame), Vec::<Vec<u8>>::new());
        }
        assert_eq!(w.dropped(DropReason::UnknownProtocol), count);
        // Nor of itself, at any time; nor for a client of a published port.
        w.publish_dns();
        assert!(w.udp().inject(8053, addr("198.51.100.10:4242"), b"a client"));
        assert_eq!(w.settle(), Vec::<Vec<u8>>::new());
        for _ in 0..100 {
            assert_eq!(w.pass(Duration::from_secs(60)), Vec::<Vec<u8>>::new());
        }
        assert_eq!(w.advertisements, 0);
        assert_eq!(w.gateway.table().len(), 0);
        assert_eq!(w.gateway.deadline(), None);
    }

    #[test]
    fn an_ipv6_network_needs_no_ipv4() {
        let mut w = Wire::new(Config {
            subnet4: None,
            ..config()
        });
        w.udp_out(5000, &format!("[{FAR6}]:9"), b"out");
        let sent = w.sent();
        assert_eq!(sent.how.remote, addr(&format!("[{FAR6}]:9")));
        let (src, dst, data) = udp_of(&w.udp_in(sent.port, &format!("[{FAR6}]:9"), b"in"));
        assert_eq!(
            (src, dst, &data[..]),
            (
                addr(&format!("[{FAR6}]:9")),
                addr("[fd00:2::100]:5000"),
                &b"in"[..]
            )
        );
        assert_eq!(ask(&mut w, A, "c101.", RecordType::AAAA).1, ["fd00:2::101"]);
        let (_, kind, ..) = icmp_of(&w.send(A, Wire::from(A, "fd00:2::2").echo(1, 1, b"x")));
        assert_eq!(kind, 129);
        // An IPv4 client of a published port is led to the IPv6 address, as the gateway.
        let socket = w.gateway.host_mut().udp_bound(addr("0.0.0.0:8053")).unwrap();
        w.gateway
            .publish_udp(A, addr("[fd00:2::100]:53"), socket)
            .unwrap();
        let (src, ..) = udp_of(&w.udp_in(8053, "198.51.100.10:4242", b"?"));
        assert_eq!(src.ip(), ip("fd00:2::2"));
        // IPv4 is not spoken: neither answered nor forwarded.
        for frame in [
            Wire::from(A, "10.0.2.2").arp_request(),
            Wire::from(A, FAR).udp(5000, 9, b"x"),
            Wire::from(A, "10.0.2.2").echo(1, 1, b"x"),
        ] {
            assert_eq!(w.send(A, frame), Vec::<Vec<u8>>::new());
        }
        assert_eq!(w.dropped(DropReason::BadSourceAddress), 2);
    }
}

mod sources {
    use super::*;

    const CLIENT: &str = "198.51.100.10:4242";

    fn deny(net: &str) -> SourceRule {
        SourceRule {
            action: SourceAction::Deny,
            net: net.parse().unwrap(),
        }
    }

    fn allow(net: &str) -> SourceRule {
        SourceRule {
            action: SourceAction::Allow,
            ..deny(net)
        }
    }

    fn set(w: &mut Wire, rules: Vec<SourceRule>) {
        assert!(w.gateway.set_sources(A, Transport::Udp, 53, rules));
    }

    #[test]
    fn datagrams_of_a_denied_client_are_dropped_and_counted_and_others_pass() {
        let mut w = Wire::plain();
        // Before anything is published.
        set(&mut w, vec![allow("198.51.100.11/32"), deny("198.51.100.0/24")]);
        w.publish_dns();
        assert!(w.udp_in(8053, CLIENT, b"?").is_empty());
        assert_eq!((w.dropped(DropReason::Denied), w.gateway.table().len()), (1, 0));
        assert_eq!(w.udp_in(8053, "198.51.100.11:4242", b"?").len(), 1);
        assert_eq!(w.udp_in(8053, "203.0.113.20:4242", b"?").len(), 1);
        // Another container's port of the same number is another's.
        let socket = w.gateway.host_mut().udp_bound(addr("0.0.0.0:8054")).unwrap();
        w.gateway.publish_udp(B, addr("10.0.2.101:53"), socket).unwrap();
        assert_eq!(w.udp_in(8054, CLIENT, b"?").len(), 1);
        // A second publication of the same port is under the same rules.
        let socket = w.gateway.host_mut().udp_bound(addr("0.0.0.0:8055")).unwrap();
        w.gateway.publish_udp(A, addr("10.0.2.100:53"), socket).unwrap();
        assert!(w.udp_in(8055, CLIENT, b"?").is_empty());
        set(&mut w, Vec::new());
        assert_eq!(w.udp_in(8053, CLIENT, b"?").len(), 1);
        assert!(!w.gateway.set_sources(PortId(9), Transport::Udp, 53, Vec::new()));
    }

    #[test]
    fn a_new_rule_ends_the_flows_of_those_it_denies() {
        let mut w = Wire::plain();
        w.publish_dns();
        w.udp_in(8053, CLIENT, b"?");
        w.udp_in(8053, "203.0.113.20:4242", b"?");
        assert_eq!(w.gateway.table().len(), 2);
        set(&mut w, vec![deny("198.51.100.0/24")]);
        assert!(
            w.gateway.deadline().is_some_and(|at| at <= w.now),
            "at once, not with the next frame"
        );
        w.settle();
        assert_eq!((w.gateway.table().len(), w.dropped(DropReason::Denied)), (1, 1));
        // The container's answer has nowhere to go.
        w.udp_out(53, CLIENT, b"!");
        assert_ne!(w.sent().port, 8053, "it goes by a mapping of its own");
    }

    #[test]
    fn rules_go_with_the_container() {
        let mut w = Wire::plain();
        set(&mut w, vec![deny("0.0.0.0/0")]);
        w.detach(A);
        w.attach(A, &["c100"], &["10.0.2.100"]);
        w.publish_dns();
        assert_eq!(w.udp_in(8053, CLIENT, b"?").len(), 1);
    }

    #[test]
    fn a_client_on_the_host_is_denied_by_its_own_address() {
        let mut w = Wire::plain();
        w.publish_dns();
        set(&mut w, vec![deny("127.0.0.0/8")]);
        assert!(w.udp_in(8053, "127.0.0.1:5000", b"?").is_empty());
        // The container would see both as the gateway.
        assert_eq!(w.udp_in(8053, "10.0.2.77:5000", b"?").len(), 1);
    }
}
