//! Links that cannot be had, and links that give nothing: what is said, and that nothing is left behind.

use std::time::Duration;

use pontoon_fixtures::lab::{Who, wait_for};
use rustix::process::Signal;

use super::super::addresses::dhcp;
use super::super::kinds::on_the_link;
use super::{Traces, run};

/// What is said of the options that are needed, which end the same way.
const NEEDS_A_LINK: &[&str] = &["--uplink <LINK>"];

each_user! {
    /// What it is about, and what to do, with the status of `run`'s own failures.
    fn what_cannot_be_had_is_said(world, who) {
        let before = Traces::of(world, who);
        world.host().sh("ip link add p0 type veth peer name p1; ip link set p0 up; ip link set p1 up; ip addr add 10.66.0.1/24 dev p0");
        let only_root = |says: &'static [&'static str]| -> &'static [&'static str] {
            if who == Who::Root { says } else { &["only root", "p0"] }
        };
        let theirs: &[&str] = if who == Who::Root {
            &["veth:w0@1 ", "process 1 is in the host's network namespace", "start it in one of its own"]
        } else {
            &["veth:w0@1 ", "process 1 belongs to user 0"]
        };
        let at = ["--uplink", "packet:p0", "--uplink-address", "10.66.0.9/24"];
        let with = |more: &[&'static str]| -> Vec<&str> { [&at, more].concat() };
        let of = |words: &[&'static str]| words.to_vec();
        for (args, says) in [
            // What is not there, or not that.
            (of(&["--uplink", "packet:none0"]), &["packet:none0", "there is no interface none0"][..]),
            (of(&["--uplink", "packet:lo"]), &["packet:lo", "lo is no Ethernet interface"]),
            (of(&["--uplink", "tap:p0"]), &["tap:p0", "the interface p0 is no TAP"]),
            (of(&["--uplink", "veth:w0@none"]), &["veth:w0@none", "namespace /run/netns/none", "No such file"]),
            (of(&["--uplink", "veth:w0@999999"]), &["veth:w0@999999", "there is no process 999999"]),
            (of(&["--uplink", "veth:w0@1"]), theirs),
            (of(&["--uplink", "veth:w0"]), &["expected veth:PEER@NETNS"]),
            (of(&["--uplink", "p0"]), &["expected packet:IFACE, tap:NAME, veth:PEER@NETNS"]),
            (of(&["--uplink", "switch:outer"]), &["switch:outer is for networks of the daemon", "network create --uplink switch:outer"]),
            // Addresses.
            (of(&["--uplink", "packet:p0", "--uplink-address", "10.66.0.1/24"]), &["the host has 10.66.0.1 on p0", "give the uplink another"]),
            (of(&["--uplink", "packet:p0", "--uplink-address", "10.0.2.9/24"]), &["10.0.2.0/24", "overlap", "choose another --subnet"]),
            (of(&["--uplink", "packet:p0", "--uplink-gateway", "10.66.0.254"]), &["--uplink-gateway 10.66.0.254", "fixed --uplink-address"]),
            (with(&["--uplink-gateway", "10.67.0.254"]), &["10.67.0.254 is not in 10.66.0.0/24"]),
            (with(&["--uplink-address6", "2001:db8::9/64", "--uplink-mtu", "1000"]), &["an MTU of 1280", "leave --uplink-address6 out"]),
            (with(&["--uplink-mtu", "9000"]), only_root(&["packet:p0", "an MTU of 1500", "9000", "leave it out"])),
            (with(&["-p", "192.0.2.1:80:80"]), only_root(&["192.0.2.1", "at the address of its uplink (10.66.0.9)", "name that, or none"])),
            // What contradicts it.
            (with(&["--network", "other"]), &["--network joins another", "leave one of them out"]),
            (with(&["--network", "none"]), &["with --network none there is no switch", "leave out --uplink"]),
            (with(&["--network", "host"]), &["with --network host there is no switch", "leave out --uplink"]),
            (with(&["--outbound", "192.0.2.1"]), &["--outbound is about the host's sockets", "leave one of them out"]),
            (with(&["--host-loopback"]), &["--host-loopback is about the host's sockets", "leave one of them out"]),
            // What needs it.
            (of(&["--uplink-address", "10.66.0.9/24"]), NEEDS_A_LINK),
            (of(&["--uplink-address6", "slaac"]), NEEDS_A_LINK),
            (of(&["--uplink-gateway", "10.66.0.9"]), NEEDS_A_LINK),
            (of(&["--uplink-nat", "route"]), NEEDS_A_LINK),
            (of(&["--uplink-mtu", "1500"]), NEEDS_A_LINK),
            (of(&["--mapping", "endpoint"]), NEEDS_A_LINK),
        ] {
            let done = run(world, who, &args, &["touch", "/tmp/ran"]);
            let said = done.fails();
            assert!(says.iter().all(|words| said.contains(words)), "{args:?}, wanted {says:?}: {done}");
            assert_eq!(done.code(), Some(125), "{done}");
            assert!(done.took < Duration::from_secs(5), "{done}");
        }
        if who == Who::User {
            for (link, about) in [("packet:p0", "p0"), ("tap:none0", "none0")] {
                let said = run(world, who, &["--uplink", link], &["touch", "/tmp/ran"]).fails();
                assert!(said.contains(link) && said.contains("only root") && said.contains(about), "{said}");
            }
            let said = run(world, who, &["--uplink", "veth:w0@router"], &["touch", "/tmp/ran"]).fails();
            assert!(said.contains("/run/netns/router belongs to user 0, not to user 23456"), "{said}");
        }
        assert!(!world.path("/tmp/ran").exists(), "the command was never run");
        world.host().sh("ip link del p0");
        before.same(world, who, "what was refused");
    }
}

/// Nobody gives an address: that is said, and the command is run all the same; a signal reaches it at once.
#[test]
fn nobody_gives_an_address() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let before = Traces::of(world, Who::Root);
    let options = [
        "--uplink",
        "packet:p0",
        "--uplink-address",
        "dhcp",
        "--uplink-address6",
        "slaac",
    ];
    let done = run(
        world,
        Who::Root,
        &options,
        &["ping", "-n", "-c1", "-W1", "198.51.100.10"],
    );
    let said = done.errors();
    for words in [
        "packet:p0 of network box-",
        "by DHCP nor by router advertisements",
        "--uplink-address",
    ] {
        assert!(said.contains(words), "{done}");
    }
    assert!(done.text().contains("Destination Net Unreachable"), "{done}");
    assert_eq!(done.code(), Some(1), "{done}");
    before.same(world, Who::Root, "a command without a way");

    let waiting = world
        .host()
        .cmd(["pontoon", "run"])
        .args(options)
        .args(["--", "sleep", "100"])
        .spawn();
    wait_for("the uplink", Duration::from_secs(5), || {
        (Traces::of(world, Who::Root).links != before.links).then_some(())
    });
    waiting.signal(Signal::TERM);
    let done = waiting.end(Duration::from_secs(5));
    assert_eq!(done.code(), Some(128 + 15), "{done}");
    before.same(world, Who::Root, "one that was told to end while it waited");
}

/// What a LAN lends is the container's own range: said, instead of a network on which nothing is reached.
#[test]
fn an_address_of_the_networks_own_range_is_explained() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let _server = dhcp(world.router(), "100.64.7.100", "100.64.7.109");
    let done = run(
        world,
        Who::Root,
        &["--uplink", "packet:p0", "--subnet", "100.64.0.0/16"],
        &["true"],
    );
    let said = done.errors();
    for words in ["packet:p0", "100.64.7.10", "100.64.0.0/16", "another --subnet"] {
        assert!(said.contains(words), "{done}");
    }
}
