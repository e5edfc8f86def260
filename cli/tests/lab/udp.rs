//! UDP through the gateway: mappings and filtering of RFC 4787, datagrams of every size, errors.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use pontoon_fixtures::lab::{Container, World};

use crate::{PLAIN, container_peers, server_at, server_peers, start};

each_user! {
    fn datagrams_of_every_size_come_back(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        for to in server_at(9000) {
            for size in ["0", "1", "1000", "1472", "1473", "9000", "65000"] {
                assert_eq!(c.run(["lab-peer", "udp-echo", &to, size]), "ok\n", "{size} bytes to {to}");
            }
        }
        assert_eq!(c.run(["lab-peer", "udp-echo", "198.51.100.10:9000", "65507"]), "ok\n");
        assert_eq!(c.run(["lab-peer", "udp-echo", "[2001:db8:2::10]:9000", "65487"]), "ok\n");
    }
}

each_user! {
    fn datagrams_of_every_size_come_in(world, who) {
        let c = start(world, who, "c", &["-p", "9100:9000/udp"]);
        let [_tcp, _udp] = container_peers(&c);
        for to in ["192.0.2.1:9100", "[2001:db8:1::1]:9100"] {
            for size in ["0", "1", "1472", "1473", "9000", "65000"] {
                assert_eq!(world.server().run(["lab-peer", "udp-echo", to, size]), "ok\n", "{size} bytes to {to}");
            }
        }
        assert_eq!(world.server().run(["lab-peer", "udp-echo", "192.0.2.1:9100", "65507"]), "ok\n");
    }
}

each_user! {
    /// RFC 4787 REQ-1: one host port for one socket of the container, whoever it talks to.
    fn mapping_is_endpoint_independent(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        for all in [["198.51.100.10:9000", "198.51.100.11:9000"], ["[2001:db8:2::10]:9000", "[2001:db8:2::11]:9000"]] {
            let answers = c.cmd(["lab-peer", "udp-ask"]).args(all).run().ok();
            let distinct: BTreeSet<&str> = answers.lines().collect();
            assert_eq!(distinct.len(), 1, "{answers}");
        }
    }
}

/// What a mapping of `c` hears, after `c` has sent to the server: from another port of that, and from a stranger.
fn heard(world: &World, c: &Container<'_>) -> String {
    let mut mapped = c
        .cmd(["lab-peer", "udp-mapped", "198.51.100.10:9000", "3"])
        .spawn();
    mapped.wait_for("mapped");
    let mut external = String::new();
    pontoon_fixtures::lab::wait_for("the mapping", Duration::from_secs(5), || {
        let said = mapped.stdout();
        external = said
            .lines()
            .find_map(|l| l.strip_prefix("mapped "))
            .filter(|_| said.ends_with('\n'))?
            .to_owned();
        Some(())
    });
    let external: SocketAddr = external.parse().expect("an address");
    let to = external.to_string();
    world
        .server()
        .run(["lab-peer", "udp-say", "7777", &to, "same address, other port"]);
    // From `far`, which the container has not spoken to.
    world
        .far()
        .run(["lab-peer", "udp-say", "9000", &to, "a stranger"]);
    mapped.end(Duration::from_secs(10)).ok()
}

each_user! {
    /// RFC 4787 REQ-8: the mapping takes datagrams from an address the container has sent to, from any of its ports,
    /// and from no other.
    fn filtering_is_address_dependent(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        let said = heard(world, &c);
        assert!(said.contains("198.51.100.10:7777 same address, other port"), "{said}");
        assert!(!said.contains("a stranger"), "{said}");
        let stats = c.pontoon(["stats", "--json"]).run().ok();
        assert!(stats.contains("filtered"), "the drop is counted by its reason: {stats}");
    }
}

each_user! {
    /// RFC 4787 REQ-8: endpoint-independent filtering by choice.
    fn filtering_is_endpoint_independent_by_choice(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &["--udp-filtering", "endpoint"]);
        let said = heard(world, &c);
        assert!(said.contains("198.51.100.10:7777 same address, other port"), "{said}");
        assert!(said.contains("a stranger"), "{said}");
    }
}

each_user! {
    /// RFC 4787 REQ-9: a container reaches a published port, and another's mapping, by the outside address.
    fn hairpin_leads_back(world, who) {
        let a = start(world, who, "a", &["-p", "9100:9000/udp", "-p", "9100:9000/tcp"]);
        let b = start(world, who, "b", &["--network", "a"]);
        let [_tcp, _udp] = container_peers(&a);
        for c in [&a, &b] {
            assert_eq!(c.run(["lab-peer", "udp-echo", "192.0.2.1:9100", "100"]), "ok\n");
            assert_eq!(c.run(["lab-peer", "tcp", "192.0.2.1:9100", "echo", "100000"]), "ok\n");
            let seen = c.run(["lab-peer", "tcp", "192.0.2.1:9100", "who"]);
            assert!(!seen.starts_with("127."), "never the host's loopback: {seen}");
        }
    }
}

each_user! {
    /// The host's ICMP port unreachable reaches the container's socket.
    fn port_unreachable_comes_back(world, who) {
        let c = start(world, who, "c", &PLAIN);
        for to in server_at(9) {
            let done = c.cmd(["lab-peer", "udp-echo", &to, "10"]).run();
            assert!(done.fails().contains("refused") && done.took < Duration::from_secs(4), "{done}");
        }
        // No program is told of these unless it asks; traceroute does.
        for to in ["198.18.1.1", "2001:db8:f1::1"] {
            let seen = c.cmd(["traceroute", "-n", "-q1", "-w9", "-m4", to]).run().ok();
            assert!(seen.contains("!H") || seen.contains("!N"), "{to}: {seen}");
        }
        // An error on one destination does not spoil another.
        let [_tcp, _udp] = server_peers(world);
        assert_eq!(c.run(["lab-peer", "udp-echo", "198.51.100.10:9000", "10"]), "ok\n");
    }
}

each_user! {
    /// The container's TTL less one is on the wire.
    fn the_ttl_is_carried_over(world, who) {
        let c = start(world, who, "c", &PLAIN);
        let mut dump = world
            .server()
            .cmd(["tcpdump", "-n", "-v", "-l", "-i", "s0", "-c", "2", "udp and dst port 9999"])
            .spawn();
        dump.wait_for("listening on");
        c.sh("echo x | socat -u - UDP4-SENDTO:198.51.100.10:9999,ip-ttl=33,ip-tos=0x28");
        c.sh("echo x | socat -u - 'UDP6-SENDTO:[2001:db8:2::10]:9999,ipv6-unicast-hops=44'");
        let seen = dump.end(Duration::from_secs(10)).text();
        // One for the gateway, one for the router.
        assert!(seen.contains("ttl 31") && seen.contains("tos 0x28"), "{seen}");
        assert!(seen.contains("hlim 42"), "{seen}");
    }
}
