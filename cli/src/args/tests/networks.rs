//! `run --network` and `network create`.

use super::*;
use crate::api::{EndpointKind, EndpointSpec, GatewayChoice, NetworkSpec};

fn create(words: &[&str]) -> NetworkSpec {
    match parse(&[&["network", "create"], words].concat()).map(|cli| cli.command) {
        Ok(Command::Network(NetworkCommand::Create(create))) => {
            create.spec().unwrap_or_else(|e| panic!("{words:?}: {e}"))
        }
        other => panic!("{words:?}: {other:?}"),
    }
}

fn on(network: &str) -> EndpointSpec {
    EndpointSpec {
        network: network.to_owned(),
        ..EndpointSpec::default()
    }
}

#[test]
fn a_container_has_an_interface_on_each_network() {
    let args = run(&["run", "--name", "web"]);
    args.check().unwrap();
    assert_eq!(args.endpoints("web"), [on("web")]);
    let args = run(&["run", "--network", "a", "--net", "b:gw-priority=3", "--veth"]);
    args.check().unwrap();
    let veth = |endpoint| EndpointSpec {
        kind: EndpointKind::Veth,
        ..endpoint
    };
    let second = EndpointSpec {
        gw_priority: 3,
        ..on("b")
    };
    assert_eq!(args.endpoints("x"), [veth(on("a")), veth(second)]);
}

#[test]
fn addresses_go_to_the_one_network_there_is() {
    let words = [
        "--ip",
        "10.0.2.9",
        "--ip6",
        "fd00::9",
        "--mac-address",
        "02:00:00:00:00:09",
        "--network-alias",
        "www",
    ];
    let expected = |network: &str, aliases: &[&str]| EndpointSpec {
        ip: Some("10.0.2.9".parse().unwrap()),
        ip6: Some("fd00::9".parse().unwrap()),
        mac: Some("02:00:00:00:00:09".parse().unwrap()),
        aliases: aliases.iter().map(|&a| a.to_owned()).collect(),
        ..on(network)
    };
    let args = run(&[&["run"], &words[..]].concat());
    args.check().unwrap();
    assert_eq!(args.endpoints("web"), [expected("web", &["www"])]);
    let args = run(&[&["run", "--network", "a:alias=db"], &words[..]].concat());
    args.check().unwrap();
    assert_eq!(args.endpoints("web"), [expected("a", &["db", "www"])]);
}

#[test]
fn modes_leave_no_interfaces() {
    for mode in ["none", "host", "container:db"] {
        let args = run(&["run", "--network", mode, "--", "true"]);
        args.check().unwrap();
        assert!(args.endpoints("x").is_empty(), "{mode}");
        assert_eq!(args.network[0].to_string(), mode);
        for (options, named) in [
            (&["-p", "80"][..], "--publish"),
            (&["-P", "--expose", "80"], "--publish-all"),
            (&["--ip", "10.0.2.7"], "--ip"),
            (&["--ip6", "fd00::7"], "--ip6"),
            (&["--mac-address", "02:00:00:00:00:01"], "--mac-address"),
            (&["--network-alias", "www"], "--network-alias"),
            (&["--veth"], "--veth"),
            (&["--link", "db"], "--link"),
            (&["--capture", "f"], "--capture"),
            (&["--no-seccomp"], "sandbox"),
        ] {
            let why = refusal(&[&["run", "--network", mode], options].concat());
            let wanted = format!("--network {mode} there is no switch");
            assert!(why.contains(&wanted) && why.contains(named), "{options:?}: {why}");
        }
    }
    for (mode, option, value) in [
        ("host", "--dns-search", "example.org"),
        ("container:db", "--dns-search", "example.org"),
        ("container:db", "--hostname", "x"),
        ("container:db", "--add-host", "a:10.0.0.1"),
    ] {
        let why = refusal(&["run", "--network", mode, option, value]);
        assert!(why.contains("leave out") && why.contains(option), "{why}");
    }
    for (mode, option, value) in [
        ("none", "--dns-search", "example.org"),
        ("none", "--hostname", "x"),
        ("host", "--hostname", "x"),
        ("host", "--add-host", "a:10.0.0.1"),
    ] {
        run(&["run", "--network", mode, option, value]).check().unwrap();
    }
}

#[test]
fn networks_that_do_not_go_together() {
    for (words, expected) in [
        (
            &["run", "--network", "a", "--network", "b", "--ip", "10.0.2.9"][..],
            "--network N:ip=10.0.2.9",
        ),
        (
            &["run", "--network", "a", "--network", "b", "--ip6", "fd00::9"],
            "--network N:ip6=fd00::9",
        ),
        (
            &[
                "run",
                "--network",
                "a",
                "--network",
                "b",
                "--mac-address",
                "02:00:00:00:00:09",
            ],
            "--network N:mac=02:00:00:00:00:09",
        ),
        (
            &[
                "run",
                "--network",
                "a",
                "--network",
                "b",
                "--network-alias",
                "www",
            ],
            "--network N:alias=www",
        ),
        (
            &["run", "--network", "a:ip=10.0.2.9", "--ip", "10.0.2.9"],
            "say the same thing",
        ),
        (&["run", "--network", "a", "--network", "a:vlan=3"], "given twice"),
        (
            &["run", "--network", "a", "--network", "none"],
            "--network none stands alone",
        ),
        (&["run", "--network", "host", "--network", "host"], "stands alone"),
        (
            &["run", "--network", "none", "--subnet", "10.0.2.0/24"],
            "cannot be used with",
        ),
        (&["run", "--network", "a", "--no-sandbox"], "confined already"),
        (&["run", "--network", "a:colour=red"], "`colour` is none of"),
        (&["run", "--name", "host"], "`host` is reserved"),
        (&["run", "--name", "daemon"], "`daemon` is reserved"),
        (&["run", "--name", "container:x"], "is reserved"),
        (&["ps", "--network", "host"], "is reserved"),
        (&["network", "inspect", "none"], "is reserved"),
        (&["network", "create", "none"], "`none` is reserved"),
        (&["network", "create", "container:x"], "is reserved"),
        (
            &["attach", "1", "--name", "host", "--network", "a"],
            "`host` is reserved",
        ),
        (
            &["attach", "1", "--name", "c", "--network", "host"],
            "`host` is reserved",
        ),
    ] {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}

#[test]
fn a_network_by_default() {
    let spec = create(&["shop"]);
    // As a request has it that names nothing else.
    let least: NetworkSpec = serde_json::from_str(r#"{"name":"shop"}"#).unwrap();
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        serde_json::to_value(&least).unwrap()
    );
    assert!(spec.icc && !spec.internal && !spec.ipv6);
}

#[test]
fn the_whole_of_network_create() {
    let spec = create(&[
        "--subnet",
        "10.30.0.0/16",
        "--subnet",
        "fd30::/64",
        "--gateway",
        "10.30.0.254",
        "--gateway",
        "fd30::fe",
        "--ip-range",
        "10.30.5.0/24",
        "--ip-range",
        "fd30::5:0/112",
        "--reserve",
        "10.30.5.1",
        "--reserve",
        "fd30::5:1",
        "--mtu",
        "9000",
        "--icc=false",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--publish-address",
        "127.0.0.1",
        "-o",
        "storm=off",
        "--opt",
        "trunk=3,4",
        "back",
    ]);
    assert_eq!(spec.name, "back");
    assert_eq!(
        spec.gateway,
        GatewayChoice::At(vec!["10.30.0.254".parse().unwrap(), "fd30::fe".parse().unwrap()])
    );
    assert_eq!(spec.ip_ranges.len(), 2);
    assert_eq!(spec.reserved.len(), 2);
    assert!(spec.ipv6 && !spec.icc);
    assert_eq!(spec.mtu, 9000);
    assert_eq!(spec.publish_address, Some(Ipv4Addr::LOCALHOST.into()));
    let options: Vec<(&str, &str)> = spec
        .options
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(options, [("storm", "off"), ("trunk", "3,4")]);
    assert_eq!(create(&["--gateway", "none", "lan"]).gateway, GatewayChoice::None);
    assert!(create(&["--icc", "a"]).icc && create(&["--icc=true", "a"]).icc);
    assert!(create(&["--internal", "a"]).internal);
    assert!(create(&["--ipv6", "a"]).ipv6);
}

#[test]
fn networks_that_cannot_be() {
    for (words, expected) in [
        (&["--subnet", "10.0.2.5/24", "a"][..], "the range is 10.0.2.0/24"),
        (&["--subnet", "fd00::1/64", "a"], "the range is fd00::/64"),
        (&["--subnet", "10.0.2.0/31", "a"], "no room"),
        (
            &["--subnet", "10.0.2.0/24", "--subnet", "10.0.3.0/24", "a"],
            "given twice for IPv4",
        ),
        (&["--gateway", "10.0.2.1", "a"], "needs a --subnet that it is in"),
        (
            &["--subnet", "10.0.2.0/24", "--gateway", "10.0.3.1", "a"],
            "--gateway 10.0.3.1 is not in --subnet 10.0.2.0/24",
        ),
        (
            &["--subnet", "10.0.2.0/24", "--gateway", "fd00::1", "a"],
            "--gateway fd00::1 needs a --subnet",
        ),
        (
            &["--subnet", "10.0.2.0/24", "--gateway", "10.0.2.255", "a"],
            "the first or the last",
        ),
        (
            &["--subnet", "fd00::/64", "--gateway", "fd00::", "a"],
            "anycast address of fd00::/64",
        ),
        (
            &[
                "--subnet",
                "10.0.2.0/24",
                "--gateway",
                "10.0.2.1",
                "--gateway",
                "10.0.2.2",
                "a",
            ],
            "--gateway is given twice for IPv4",
        ),
        (
            &[
                "--subnet",
                "10.0.2.0/24",
                "--gateway",
                "none",
                "--gateway",
                "10.0.2.1",
                "a",
            ],
            "--gateway none stands alone",
        ),
        (&["--gateway", "some", "a"], "`some` is not an IP address"),
        (
            &["--gateway", "none", "--publish-address", "127.0.0.1", "a"],
            "it is the gateway that publishes",
        ),
        (&["--ip-range", "10.0.2.0/25", "a"], "needs a --subnet"),
        (
            &["--subnet", "10.0.2.0/24", "--ip-range", "10.0.3.0/25", "a"],
            "is not in --subnet",
        ),
        (
            &["--subnet", "10.0.2.0/24", "--ip-range", "10.0.2.0/23", "a"],
            "is not a part of --subnet 10.0.2.0/24",
        ),
        (&["--ip-range", "10.0.2.1/25", "a"], "the range is 10.0.2.0/25"),
        (&["--reserve", "10.0.2.7", "a"], "needs a --subnet"),
        (
            &["--subnet", "10.0.2.0/24", "--reserve", "10.0.2.0", "a"],
            "the first or the last",
        ),
        (
            &[
                "--subnet",
                "10.0.2.0/24",
                "--gateway",
                "10.0.2.1",
                "--reserve",
                "10.0.2.1",
                "a",
            ],
            "the gateway's address",
        ),
        (&["--ipv6", "--mtu", "1279", "a"], "raise --mtu 1279"),
        (
            &["--subnet", "fd00::/64", "--mtu", "1279", "a"],
            "raise --mtu 1279",
        ),
        (&["--mtu", "67", "a"], "67 is not in 68..=65520"),
        (
            &["--internal", "--publish-address", "127.0.0.1", "a"],
            "cannot be used with",
        ),
        (
            &["--publish-address", "224.0.0.1", "a"],
            "that can be listened on",
        ),
        (&["--icc=maybe", "a"], "invalid value 'maybe'"),
        (&["--dns", "0.0.0.0", "a"], "not the address of a server"),
        (&["-o", "parent", "a"], "expected KEY=VALUE"),
        (&["-o", "=eth0", "a"], "expected KEY=VALUE"),
        (&["-o", "vlan=1", "-o", "vlan=2", "a"], "-o vlan is given twice"),
    ] {
        let words = [&["network", "create"], words].concat();
        let message = refusal(&words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}

#[test]
fn connecting() {
    let words = [
        "network",
        "connect",
        "--ip",
        "10.30.0.7",
        "--ip6",
        "fd30::7",
        "--mac",
        "02:00:00:00:00:07",
        "--alias",
        "www",
        "--alias",
        "db",
        "--gw-priority",
        "-3",
        "--vlan",
        "7",
        "--veth",
        "back",
        "web",
    ];
    let Ok(Command::Network(NetworkCommand::Connect(args))) = parse(&words).map(|cli| cli.command) else {
        panic!("{words:?}");
    };
    let request = args.request();
    assert_eq!(request.container, "web");
    assert_eq!(
        request.endpoint,
        EndpointSpec {
            ip: Some("10.30.0.7".parse().unwrap()),
            ip6: Some("fd30::7".parse().unwrap()),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            aliases: vec!["www".into(), "db".into()],
            gw_priority: -3,
            kind: EndpointKind::Veth,
            vlan: Some(7),
            ..on("back")
        }
    );
    for (words, expected) in [
        (&["network", "connect", "back"][..], "<CONTAINER>"),
        (
            &["network", "connect", "--ip", "fd30::7", "back", "web"],
            "belongs to ip6",
        ),
        (&["network", "rm"], "<NAME>"),
        (&["network", "disconnect", "back"], "<CONTAINER>"),
    ] {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}
