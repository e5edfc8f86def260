//! What addresses a network gives to whom.

use std::collections::BTreeSet;
use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Container, Daemon, World, require, wait_for};

use super::{addresses, gateways, inspect, ping};
use crate::start;

/// The lease that DHCP gives in a container, as `udhcpc` hands it to its script.
fn lease(world: &World, c: &Container<'_>, options: &[&str]) -> String {
    require("udhcpc");
    let script = format!("/tmp/lease-{}", c.name);
    let out = format!("{script}.out");
    world.write(
        &script,
        format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {out}\nexit 0\n"),
    );
    world
        .host()
        .sh(&format!("chmod 755 {script}; touch {out}; chmod 666 {out}"));
    let argv = [
        "udhcpc", "-i", "eth0", "-q", "-n", "-f", "-t3", "-T2", "-s", &script,
    ];
    c.cmd(argv).args(options).run().ok();
    String::from_utf8(world.read(&out)).expect("text")
}

each_user! {
    fn ranges_that_are_chosen_are_nobody_elses(world, who) {
        // The host has an address in the first one.
        world.host().run(["ip", "addr", "add", "10.89.0.7/32", "dev", "lo"]);
        let daemon = Daemon::start(world, who);
        let mut seen = BTreeSet::new();
        for name in ["a", "b", "c"] {
            daemon.create(name, &["--ipv6"]);
            for range in inspect(&daemon, name)["IPAM"]["Config"].as_array().expect("ranges") {
                assert!(seen.insert(range["Subnet"].as_str().expect("a range").to_owned()), "{seen:?}: {range}");
            }
        }
        let four: Vec<&str> = seen.iter().filter(|s| !s.contains(':')).map(String::as_str).collect();
        assert_eq!(four, ["10.89.1.0/24", "10.89.2.0/24", "10.89.3.0/24"]);
        assert_eq!(seen.iter().filter(|s| s.starts_with("fd") && s.ends_with("/64")).count(), 3, "{seen:?}");
        // What is removed can be chosen again.
        daemon.run(["network", "rm", "b"]);
        daemon.create("d", &[]);
        assert_eq!(inspect(&daemon, "d")["IPAM"]["Config"][0]["Subnet"], "10.89.2.0/24");
    }
}

each_user! {
    fn addresses_come_from_the_range(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("back", &[
            "--subnet", "10.30.0.0/16", "--gateway", "10.30.42.1", "--ip-range", "10.30.5.0/29", "--reserve", "10.30.5.2",
        ]);
        let first = start(world, who, "first", &["--network", "back"]);
        let second = start(world, who, "second", &["--network", "back"]);
        let third = start(world, who, "third", &["--network", "back"]);
        let given = [&first, &second, &third].map(|c| c.ip.to_string());
        assert_eq!(given, ["10.30.5.0", "10.30.5.1", "10.30.5.3"]);
        assert_eq!(first.gateway().to_string(), "10.30.42.1");
        let seen = first.cmd(["ip", "-j", "-4", "addr", "show", "eth0"]).run().json();
        assert_eq!(seen[0]["addr_info"][0]["prefixlen"], 16, "{seen}");
        ping(&first, third.ip).run().ok();
        ping(&first, "198.51.100.10").run().ok();
        // One that is reserved, and one beside the range, are for those who ask.
        for wanted in ["10.30.5.2", "10.30.9.9"] {
            let c = start(world, who, "asks", &["--network", &format!("back:ip={wanted}")]);
            assert_eq!(c.ip.to_string(), wanted);
            ping(&c, first.ip).run().ok();
            drop(c);
            wait_for("the end of a container", Duration::from_secs(3), || daemon.container("asks").is_null().then_some(()));
        }
    }
}

each_user! {
    fn an_address_is_one_containers(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("back", &["--subnet", "10.30.0.0/24", "--subnet", "fd30::/64"]);
        daemon.create("four", &["--subnet", "10.40.0.0/24"]);
        let c = start(world, who, "c", &["--network", "back:ip=10.30.0.7,ip6=fd30::7,mac=02:00:00:00:00:07"]);
        assert_eq!(addresses(&daemon, "c", "back"), ["10.30.0.7", "fd30::7"].map(|a| a.parse::<std::net::IpAddr>().expect("an address")));
        assert_eq!(c.run(["cat", "/sys/class/net/eth0/address"]).trim(), "02:00:00:00:00:07");
        for (network, says) in [
            ("back:ip=10.30.0.7", "address 10.30.0.7 is in use on this network"),
            ("back:ip6=fd30::7", "address fd30::7 is in use on this network"),
            ("back:mac=02:00:00:00:00:07", "MAC address 02:00:00:00:00:07 is in use on network back"),
            ("back:ip=10.30.0.1", "address 10.30.0.1 is the gateway's"),
            ("back:ip=10.30.0.255", "address 10.30.0.255 is no host address"),
            ("back:ip=10.31.0.7", "address 10.31.0.7 is not in the network's subnet 10.30.0.0/24"),
            ("back:ip6=fd31::7", "address fd31::7 is not in the network's subnet fd30::/64"),
            ("four:ip6=fd31::7", "network four has no IPv6 addresses to give, so not fd31::7: leave ip6 out"),
            ("back:ip=fd30::9", "fd30::9"),
            ("back:ip=10.30.0.8,ip=10.30.0.9", "`ip` is given twice"),
            ("back:colour=red", "colour"),
        ] {
            let why = daemon.pontoon(["run", "--network", network, "--", "true"]).run().fails();
            assert!(why.contains(says), "{network}: {why}");
        }
        // Nothing was kept of what was refused.
        for n in 2..7 {
            let network = format!("back:ip=10.30.0.{n},ip6=fd30::{n}");
            daemon.run(["run", "--network", &network, "--", "true"]);
        }
        // Free again when its container has ended.
        drop(c);
        let again = || daemon.pontoon(["run", "--network", "back:ip=10.30.0.7", "--", "true"]).run();
        wait_for("an address to be free", Duration::from_secs(3), || again().success().then_some(()));
    }
}

each_user! {
    fn a_full_network_says_so_until_somebody_ends(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("tiny", &["--subnet", "10.30.0.0/29"]);
        let mut containers = Vec::new();
        let refused = loop {
            let probe = daemon.pontoon(["run", "--network", "tiny", "--", "true"]).run();
            if !probe.success() {
                break probe.fails();
            }
            // Its address is given again to the next only after the others.
            containers.push(start(world, who, &format!("c{}", containers.len()), &["--network", "tiny"]));
            assert!(containers.len() <= 5, "more than six hosts but for the gateway");
        };
        assert!(containers.len() >= 2, "{} containers in a /29", containers.len());
        assert!(refused.contains("no address is left in 10.30.0.0/29"), "{refused}");
        let probe = || daemon.pontoon(["run", "--network", "tiny", "--", "true"]).run();
        // One by an end as usual, one by a sudden one.
        let first = containers.remove(0);
        drop(first);
        wait_for("room after an end", Duration::from_secs(3), || probe().success().then_some(()));
        let again = start(world, who, "again", &["--network", "tiny"]);
        assert!(probe().fails().contains("no address is left"));
        world.host().run(["kill", "-9", &containers[0].pid.to_string()]);
        wait_for("room after a kill", Duration::from_secs(3), || probe().success().then_some(()));
        ping(&again, containers[1].ip).run().ok();
    }
}

each_user! {
    fn both_families_and_ipv6_alone(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("both", &["--ipv6"]);
        daemon.create("six", &["--subnet", "fd31:0:0:5::/64"]);
        let a = start(world, who, "a", &["--network", "both"]);
        let b = start(world, who, "b", &["--network", "both"]);
        for to in [b.ip, b.ip6.expect("IPv6"), a.gateway6(), "2001:db8:2::10".parse().expect("an address")] {
            ping(&a, to).run().ok();
        }
        // Neither has an address of IPv4, and they reach each other by name and the world beyond.
        let bare = Bare::start(world, who);
        daemon.run(["attach", &bare.pid.to_string(), "--name", "first", "--network", "six:ip6=fd31:0:0:5::99"]);
        assert_eq!(addresses(&daemon, "first", "six"), ["fd31:0:0:5::99".parse::<std::net::IpAddr>().expect("an address")]);
        assert_eq!(gateways(&daemon, "six"), ["fd31:0:0:5::1"]);
        let script = "ping -n -c1 -W2 2001:db8:2::10 && ping -n -c1 -W2 $(getent ahostsv6 first | head -n1 | cut -d' ' -f1) && ip -4 -o addr show dev eth0 | wc -l";
        let seen = daemon.run(["run", "--network", "six", "--", "bash", "-ec", script]);
        assert!(seen.contains("from fd31:0:0:5::99") && seen.ends_with("\n0\n"), "{seen}");
    }
}

each_user! {
    /// DHCP gives a container what it has already: chosen, wanted, or from a range.
    fn dhcp_gives_the_same(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("plain", &["--dns-search", "sub.test"]);
        daemon.create("ranged", &["--subnet", "10.30.0.0/16", "--gateway", "10.30.42.1", "--ip-range", "10.30.5.0/24"]);
        for (name, network) in [("chosen", "plain"), ("from-range", "ranged"), ("wanted", "ranged:ip=10.30.77.7")] {
            let c = start(world, who, name, &["--network", network]);
            let lease = lease(world, &c, &[]);
            let gateway = c.gateway();
            for line in [format!("ip={}", c.ip), format!("router={gateway}"), format!("dns={gateway}")] {
                assert!(lease.lines().any(|l| l == line), "{name}: no `{line}` in:\n{lease}");
            }
            if network == "plain" {
                assert!(lease.lines().any(|l| l.starts_with("search=") && l.contains("sub.test")) || lease.contains("sub.test"), "{lease}");
            }
            // Whatever else it asks for.
            let asked = self::lease(world, &c, &["-r", "10.30.5.99"]);
            assert!(asked.lines().any(|l| l == format!("ip={}", c.ip)), "{name}: {asked}");
        }
    }
}
