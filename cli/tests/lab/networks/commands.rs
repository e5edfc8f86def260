//! `network create`, `ls`, `inspect`, `rm` and `prune`, and what they refuse.

use std::time::Duration;

use pontoon_fixtures::lab::{Daemon, wait_for};
use serde_json::json;

use super::{address, endpoint, inspect};
use crate::lifecycle::nothing_left;
use crate::start;

each_user! {
    fn networks_come_and_go(world, who) {
        let daemon = Daemon::start(world, who);
        assert_eq!(daemon.json(["network", "ls", "--json"]), json!([]));
        assert_eq!(daemon.run(["network", "create", "shop"]), "shop\n");
        daemon.create("back", &["--internal", "--subnet", "10.30.0.0/16"]);
        daemon.create("spare", &["--icc=false"]);
        daemon.create("lan", &["--gateway", "none"]);
        let all = daemon.json(["network", "ls", "--json"]);
        let names: Vec<&str> = all.as_array().expect("a list").iter().filter_map(|n| n["name"].as_str()).collect();
        assert_eq!(names, ["back", "lan", "shop", "spare"]);
        let table = daemon.run(["network", "ls"]);
        for (name, says) in [("back", "internal"), ("back", "10.30.0.0/16"), ("spare", "icc=false"), ("lan", "gateway=none"), ("shop", "1500")] {
            assert!(table.lines().any(|l| l.starts_with(name) && l.contains(says)), "{name}, {says}:\n{table}");
        }

        // A name is taken once, by a network of whatever kind.
        let taken = daemon.pontoon(["network", "create", "shop"]).run().fails();
        assert!(taken.contains("a network named shop exists already"), "{taken}");
        let private = world.host().cmd(["pontoon", "run", "--name", "shop", "--", "true"]).who(who).run().fails();
        assert!(private.contains("shop"), "{private}");
        let alone = start(world, who, "alone", &crate::PLAIN);
        let taken = daemon.pontoon(["network", "create", "alone"]).run().fails();
        assert!(taken.contains("alone"), "{taken}");
        let own = daemon.pontoon(["network", "rm", "alone"]).run().fails();
        assert!(own.contains("alone is a private network: it goes with its last container"), "{own}");

        // In use: not removed, nor pruned; the others are.
        let c = start(world, who, "c", &["--network", "shop"]);
        let used = daemon.pontoon(["network", "rm", "shop"]).run().fails();
        assert!(used.contains("network shop has containers: detach or disconnect c first"), "{used}");
        let rm = daemon.pontoon(["network", "rm", "spare", "nosuch"]).run();
        let missing = rm.fails();
        assert!(missing.contains("no network named nosuch"), "{missing}");
        assert_eq!(rm.text(), "spare\n");
        assert_eq!(daemon.run(["network", "prune"]), "back\nlan\n");
        assert_eq!(daemon.json(["network", "prune", "--json"]), json!([]));
        c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        drop(c);
        wait_for("a network without containers", Duration::from_secs(3), || {
            daemon.pontoon(["network", "rm", "shop"]).run().success().then_some(())
        });
        assert!(!daemon.run(["network", "ls"]).contains("shop"));
        drop(alone);
        daemon.end().ok();
        nothing_left(world, who);
    }
}

each_user! {
    /// Each says what is wrong, and none leaves a network behind.
    fn what_cannot_be_is_refused(world, who) {
        let daemon = Daemon::start(world, who);
        for name in ["none", "host", "container", "container:c", "daemon"] {
            let why = daemon.pontoon(["network", "create", name]).run().fails();
            assert!(why.contains("reserved"), "{name}: {why}");
        }
        for name in ["", "../evil", "-x", "a b"] {
            let why = daemon.pontoon(["network", "create", "--", name]).run().fails();
            assert!(why.contains("name"), "{name}: {why}");
        }
        let subnet = ["--subnet", "10.30.0.0/24"];
        for (more, says) in [
            (&["--subnet", "10.31.0.0/24"][..], "--subnet is given twice for IPv4"),
            (&["--gateway", "10.31.0.1"], "--gateway 10.31.0.1 is not in --subnet 10.30.0.0/24"),
            (&["--gateway", "10.30.0.255"], "10.30.0.255"),
            (&["--gateway", "10.30.0.0"], "10.30.0.0"),
            (&["--gateway", "fd00::1"], "--gateway fd00::1 needs a --subnet"),
            (&["--gateway", "none", "--gateway", "10.30.0.1"], "--gateway none stands alone"),
            (&["--ip-range", "10.31.0.0/25"], "--ip-range 10.31.0.0/25 is not in --subnet 10.30.0.0/24"),
            (&["--ip-range", "10.30.0.0/16"], "--ip-range 10.30.0.0/16"),
            (&["--reserve", "10.31.0.9"], "--reserve 10.31.0.9 is not in --subnet"),
            (&["--reserve", "10.30.0.255"], "10.30.0.255"),
            (&["--gateway", "10.30.0.9", "--reserve", "10.30.0.9"], "--reserve 10.30.0.9 is the gateway's"),
            (&["-o", "colour=red"], "--opt colour=red: there is no such option"),
            (&["-o", "storm=fast"], "--opt storm=fast"),
            (&["-o", "vlan=4095"], "--opt vlan=4095"),
            (&["-o", "dhcp-range=10.31.0.1-10.31.0.9"], "dhcp-range"),
            (&["-o", "outbound=192.0.2.99"], "192.0.2.99"),
            (&["-o", "parent=nodev0"], "nodev0"),
            (&["-o", "icc"], "icc"),
            (&["--mtu", "67"], "67"),
            (&["--mtu", "1279", "--ipv6"], "IPv6 needs an MTU of 1280"),
            (&["--internal", "--publish-address", "127.0.0.1"], "--publish-address"),
            (&["--dns", "0.0.0.0"], "0.0.0.0"),
            (&["--dns-search", "a..b"], "a..b"),
        ] {
            let why = daemon.pontoon(["network", "create", "x"]).args(subnet).args(more).run().fails();
            assert!(why.contains(says), "{more:?}: {why}");
        }
        for (range, says) in [
            ("10.30.0.0/33", "10.30.0.0/33"),
            ("10.30.0.5/24", "10.30.0.0/24"),
            ("127.0.0.0/8", "127.0.0.0/8"),
            ("224.0.0.0/8", "224.0.0.0/8"),
            ("10.30.0.1/32", "no room"),
            ("fe80::/64", "fe80::/64"),
        ] {
            let why = daemon.pontoon(["network", "create", "x", "--subnet", range]).run().fails();
            assert!(why.contains(says), "{range}: {why}");
        }
        assert_eq!(daemon.json(["network", "ls", "--json"]), json!([]));
        let nowhere = daemon.pontoon(["run", "--network", "x", "--", "true"]).run().fails();
        assert!(nowhere.contains('x'), "{nowhere}");
        daemon.end().ok();
        let alone = world.host().cmd(["pontoon", "network", "create", "x"]).who(who).run().fails();
        assert!(alone.contains("pontoon daemon"), "{alone}");
        nothing_left(world, who);
    }
}

each_user! {
    /// Ranges that overlap each other's, one's the host's own: each network is a world for itself.
    fn ranges_may_overlap(world, who) {
        let daemon = Daemon::start(world, who);
        let mut containers = Vec::new();
        for (name, subnet) in [("one", "10.30.0.0/24"), ("two", "10.30.0.0/24"), ("wide", "10.30.0.0/16"), ("hosts", "192.0.2.0/24")] {
            daemon.create(name, &["--subnet", subnet]);
            let first = format!("{name}-first");
            containers.push(start(world, who, &first, &["--network", name]));
        }
        let [one, two, wide, hosts] = &containers[..] else { panic!("four containers") };
        assert_eq!((one.ip, one.ip, two.ip), (two.ip, wide.ip, "10.30.0.2".parse().expect("an address")));
        for (c, name) in containers.iter().zip(["one", "two", "wide", "hosts"]) {
            c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
            let third = start(world, who, &format!("{name}-second"), &["--network", name]);
            c.run(["ping", "-n", "-c1", "-W9", &third.ip.to_string()]);
        }
        // The second of network two is nobody on network one.
        let _second = start(world, who, "second", &["--network", "two:ip=10.30.0.77"]);
        two.run(["ping", "-n", "-c1", "-W9", "10.30.0.77"]);
        for c in [one, wide, hosts] {
            assert!(!c.cmd(["ping", "-n", "-c1", "-W1", "10.30.0.77"]).run().success());
        }
    }
}

each_user! {
    /// What reads `docker network inspect` reads this.
    fn inspect_has_dockers_layout(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("docker0", &[
            "--subnet", "172.17.0.0/16", "--gateway", "172.17.42.1", "--ip-range", "172.17.8.0/24", "--subnet", "fd17::/64",
            "-o", "com.docker.network.bridge.enable_icc=false", "--publish-address", "127.0.0.1", "--mtu", "9000",
            "--dns-search", "sub.test",
        ]);
        let c = start(world, who, "web", &["--network", "docker0:ip=172.17.8.9,alias=www"]);
        let seen = inspect(&daemon, "docker0");
        for (key, value) in [
            ("Name", json!("docker0")),
            ("Scope", json!("local")),
            ("EnableIPv6", json!(true)),
            ("Internal", json!(false)),
            ("DNSSearch", json!(["sub.test"])),
            ("IPAM", json!({"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "172.17.0.0/16", "IPRange": "172.17.8.0/24", "Gateway": "172.17.42.1"},
                {"Subnet": "fd17::/64", "Gateway": "fd17::1"},
            ]})),
            ("Options", json!({
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
                "com.docker.network.driver.mtu": "9000",
            })),
        ] {
            assert_eq!(seen[key], value, "{key}");
        }
        let is_id = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(is_id(seen["Id"].as_str().expect("an id")), "{seen}");
        let members = seen["Containers"].as_object().expect("containers");
        let (id, member) = members.iter().next().expect("one");
        assert!(members.len() == 1 && is_id(id) && is_id(member["EndpointID"].as_str().expect("an id")), "{seen}");
        assert_eq!(member["Name"], "web");
        assert_eq!(member["IPv4Address"], "172.17.8.9/16");
        assert_eq!(member["IPv6Address"], format!("{}/64", c.ip6.expect("IPv6")));
        assert_eq!(member["MacAddress"], endpoint(&daemon, "web", "docker0")["mac"]);
        let link = c.cmd(["ip", "-j", "link", "show", "eth0"]).run().json();
        assert_eq!((&member["MacAddress"], &link[0]["mtu"]), (&link[0]["address"], &json!(9000)));
        // Those that there are, and an error for the rest.
        daemon.create("other", &[]);
        let some = daemon.pontoon(["network", "inspect", "other", "nosuch", "docker0"]).run();
        assert!(some.fails().contains("no network named nosuch"), "{some}");
        let shown: serde_json::Value = serde_json::from_slice(&some.stdout).expect("JSON");
        assert_eq!((&shown[0]["Name"], &shown[1]), (&json!("other"), &seen));
        assert_eq!(address(&daemon, "web", "docker0"), "172.17.8.9");
    }
}
