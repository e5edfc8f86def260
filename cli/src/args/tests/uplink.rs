//! `--uplink` and what goes with it, and `pontoon route`.

use super::*;
use crate::api::{NetworkSpec, RouteRequest, UplinkSpec};

fn created(words: &[&str]) -> NetworkSpec {
    let words = [&["network", "create", "edge"], words].concat();
    match parse(&words).map(|cli| cli.command) {
        Ok(Command::Network(NetworkCommand::Create(create))) => {
            create.spec().unwrap_or_else(|e| panic!("{words:?}: {e}"))
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn uplink(words: &[&str]) -> UplinkSpec {
    created(words).uplink.expect("an uplink")
}

#[test]
fn links_are_read_as_they_are_written() {
    for (text, to, mac) in [
        ("packet:eth1", LinkTo::Packet("eth1".into()), LinkMac::Own),
        (
            "packet:eth1,mac=host",
            LinkTo::Packet("eth1".into()),
            LinkMac::Host,
        ),
        (
            "packet:eth1.7,mac=02:00:00:00:00:07",
            LinkTo::Packet("eth1.7".into()),
            LinkMac::Fixed("02:00:00:00:00:07".parse().unwrap()),
        ),
        ("tap:wan0", LinkTo::Tap("wan0".into()), LinkMac::Own),
        (
            "veth:wan0@router",
            LinkTo::Veth {
                peer: "wan0".into(),
                namespace: Netns::Path("/run/netns/router".into()),
            },
            LinkMac::Own,
        ),
        (
            "veth:wan0@4711",
            LinkTo::Veth {
                peer: "wan0".into(),
                namespace: Netns::Pid(4711),
            },
            LinkMac::Own,
        ),
        (
            "veth:wan0@/proc/4711/ns/net,mac=02:00:00:00:00:07",
            LinkTo::Veth {
                peer: "wan0".into(),
                namespace: Netns::Path("/proc/4711/ns/net".into()),
            },
            LinkMac::Fixed("02:00:00:00:00:07".parse().unwrap()),
        ),
        // A name that a process id would be taken for.
        (
            "veth:wan0@/run/netns/7",
            LinkTo::Veth {
                peer: "wan0".into(),
                namespace: Netns::Path("/run/netns/7".into()),
            },
            LinkMac::Own,
        ),
        ("switch:shop", LinkTo::Switch("shop".into()), LinkMac::Own),
    ] {
        let link = uplink(&["--uplink", text]).link;
        assert_eq!(link, UplinkLink { to, mac }, "{text}");
        assert_eq!(link.to_string(), text);
        let json = serde_json::to_string(&link).unwrap();
        assert_eq!(serde_json::from_str::<UplinkLink>(&json).unwrap(), link);
    }
}

#[test]
fn the_whole_of_an_uplink() {
    let spec = uplink(&[
        "--uplink",
        "packet:eth1",
        "--uplink-address",
        "203.0.113.9/24",
        "--uplink-address6",
        "2001:db8::9/64",
        "--uplink-gateway",
        "fe80::1",
        "--uplink-gateway",
        "203.0.113.1",
        "-o",
        "uplink-nat6=route",
    ]);
    assert_eq!(spec.address, Some("203.0.113.9/24".parse().unwrap()));
    assert_eq!(spec.address6, Some("2001:db8::9/64".parse().unwrap()));
    assert_eq!(spec.gateways.len(), 2);
    let least = uplink(&["--uplink", "tap:wan0"]);
    assert_eq!((least.address, least.address6), (None, None));
    let told = uplink(&[
        "--uplink",
        "tap:wan0",
        "--uplink-address",
        "dhcp",
        "--uplink-address6",
        "slaac",
    ]);
    assert_eq!(told.address, Some(UplinkAddress4::Dhcp));
    assert_eq!(told.address6, Some(UplinkAddress6::Slaac));
    assert_eq!(created(&[]).uplink, None);
    let args = run(&[
        "run",
        "--uplink",
        "tap:wan0",
        "--uplink-nat",
        "route",
        "--mapping",
        "connection",
    ]);
    args.check().unwrap();
    assert_eq!(args.uplink.spec().unwrap(), Some(least));
    assert_eq!(args.uplink_nat, Some(UplinkNat::Route));
    assert_eq!(args.mapping, Some(PortMapping::Connection));
}

#[test]
fn uplinks_that_cannot_be() {
    for (words, expected) in [
        (&["--uplink", "eth1"][..], "expected packet:IFACE"),
        (&["--uplink", "bridge:br0"], "expected packet:IFACE"),
        (&["--uplink", "packet:"], "not the name of an interface"),
        (
            &["--uplink", "packet:eth1,mtu=9000"],
            "not the name of an interface",
        ),
        (&["--uplink", "packet:eth1,mac=guest"], "MAC"),
        (&["--uplink", "tap:wan0,mac=host"], "packet:IFACE alone"),
        (&["--uplink", "veth:wan0"], "expected veth:PEER@NETNS"),
        (&["--uplink", "veth:wan0@../x"], "relative path"),
        (&["--uplink", "veth:wan0@0"], "no process"),
        (&["--uplink", "switch:host"], "reserved"),
        (&["--uplink-address", "dhcp"], "--uplink <LINK>"),
        (
            &["--uplink", "tap:t", "--uplink-address", "192.0.2.9"],
            "prefix length",
        ),
        (
            &["--uplink", "tap:t", "--uplink-address", "192.0.2.0/24"],
            "the first or the last",
        ),
        (
            &["--uplink", "tap:t", "--uplink-address", "192.0.2.255/24"],
            "the first or the last",
        ),
        (
            &["--uplink", "tap:t", "--uplink-address", "127.0.0.9/8"],
            "a host can have",
        ),
        (&["--uplink", "tap:t", "--uplink-address", "slaac"], "or dhcp"),
        (&["--uplink", "tap:t", "--uplink-address6", "dhcp"], "or slaac"),
        (
            &["--uplink", "tap:t", "--uplink-address6", "2001:db8::/64"],
            "anycast",
        ),
        (
            &["--uplink", "tap:t", "--uplink-address6", "fe80::9/64"],
            "can have there",
        ),
        (
            &["--uplink", "tap:t", "--uplink-gateway", "192.0.2.1"],
            "DHCP tells the router",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address6",
                "slaac",
                "--uplink-gateway",
                "fe80::1",
            ],
            "router advertisements tell the router",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address",
                "192.0.2.9/24",
                "--uplink-gateway",
                "192.0.3.1",
            ],
            "is not in 192.0.2.0/24",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address",
                "192.0.2.9/24",
                "--uplink-gateway",
                "192.0.2.9",
            ],
            "itself",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address",
                "192.0.2.9/24",
                "--uplink-gateway",
                "192.0.2.255",
            ],
            "the first or the last",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address",
                "192.0.2.9/24",
                "--uplink-gateway",
                "192.0.2.1",
                "--uplink-gateway",
                "192.0.2.2",
            ],
            "given twice",
        ),
        (
            &[
                "--uplink",
                "tap:t",
                "--uplink-address6",
                "2001:db8::9/64",
                "--uplink-gateway",
                "2001:db9::1",
            ],
            "nor link-local",
        ),
        (
            &["--uplink", "switch:a", "--uplink-address", "dhcp"],
            "no meaning on a switch",
        ),
        (
            &["--uplink", "switch:a", "--uplink-address6", "slaac"],
            "no meaning on a switch",
        ),
        (
            &[
                "--uplink",
                "switch:a",
                "--uplink-address",
                "10.0.0.9/24",
                "--uplink-gateway",
                "10.0.0.1",
            ],
            "the router is the gateway of that network",
        ),
        (&["--uplink", "tap:t", "--internal"], "--internal"),
        (&["--uplink", "tap:t", "--gateway", "none"], "--gateway none"),
        (
            &["--uplink", "tap:t", "--publish-address", "192.0.2.9"],
            "--publish-address",
        ),
    ] {
        let message = refusal(&[&["network", "create", "edge"], words].concat());
        assert!(message.contains(expected), "{words:?}: {message}");
    }
    for (words, expected) in [
        (&["--network", "a"][..], "--network joins another"),
        (
            &["--host-loopback"],
            "--host-loopback is about the host's sockets",
        ),
        (
            &["--outbound", "192.0.2.1"],
            "--outbound is about the host's sockets",
        ),
    ] {
        let message = refusal(&[&["run", "--uplink", "tap:t"], words].concat());
        assert!(message.contains(expected), "{words:?}: {message}");
    }
    let message = refusal(&["run", "--uplink", "switch:shop"]);
    assert!(
        message.contains("network create --uplink switch:shop"),
        "{message}"
    );
    assert!(refusal(&["run", "--uplink-nat", "route"]).contains("--uplink <LINK>"));
}

fn route(words: &[&str]) -> RouteArgs {
    match parse(&[&["route"], words].concat()).map(|cli| cli.command) {
        Ok(Command::Route(route)) => route,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn routes_are_said_in_the_order_of_ip_route() {
    for (words, to, via) in [
        (
            &["shop", "add", "10.31.0.0/24", "via", "back"][..],
            "10.31.0.0/24",
            RouteVia::Network("back".into()),
        ),
        (
            &["shop", "add", "fd31::7", "via", "fd30::9"],
            "fd31::7/128",
            RouteVia::Router("fd30::9".parse().unwrap()),
        ),
        (
            &["shop", "add", "0.0.0.0/0", "via", "10.30.0.9"],
            "0.0.0.0/0",
            RouteVia::Router("10.30.0.9".parse().unwrap()),
        ),
    ] {
        let args = route(words);
        assert_eq!(args.network, "shop");
        let RouteCommand::Add(add) = args.command else {
            panic!("{words:?}");
        };
        let to = to.parse().unwrap();
        assert_eq!(add.request(), RouteRequest { to, via });
    }
    assert!(matches!(
        route(&["shop", "ls", "--json"]).command,
        RouteCommand::Ls(JsonArgs { json: true })
    ));
    for word in ["del", "rm"] {
        let RouteCommand::Del(del) = route(&["shop", word, "10.31.0.0/24"]).command else {
            panic!("{word}");
        };
        assert_eq!(del.to, "10.31.0.0/24".parse().unwrap());
    }
    for (words, expected) in [
        (&["shop"][..], "add"),
        (&["shop", "add", "10.31.0.0/24"], "<via>"),
        (&["shop", "add", "10.31.0.0/24", "by", "back"], "'by'"),
        (
            &["shop", "add", "10.31.0.1/24", "via", "back"],
            "the range is 10.31.0.0/24",
        ),
        (
            &["shop", "add", "224.0.0.0/4", "via", "back"],
            "not a range that routes lead to",
        ),
        (&["shop", "add", "10.31.0.0/24", "via", "host"], "reserved"),
        (
            &["shop", "add", "10.31.0.0/24", "via", "127.0.0.1"],
            "not an address",
        ),
        (&["shop", "del"], "<CIDR>"),
        (&["none", "ls"], "reserved"),
    ] {
        let message = refusal(&[&["route"], words].concat());
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}
