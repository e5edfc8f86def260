//! Networks beside each other: with the same addresses, with those of the host's own networks, and no way between.

use pontoon_fixtures::lab::{Container, Daemon};

use super::{closed, hear, listen, ping, says, silent};
use crate::{PLAIN, server_at, server_peers, start};

const SAME: [&str; 4] = ["--subnet", "10.88.0.0/24", "--subnet", "fd88::/64"];

each_user! {
    fn two_networks_may_have_the_same_addresses(world, who) {
        let d = Daemon::start(world, who);
        let [_tcp, _udp] = server_peers(world);
        let mut all: Vec<Container<'_>> = Vec::new();
        for (network, third) in [("red", "30"), ("blue", "40")] {
            d.create(network, &SAME);
            for n in ["10", "20", third] {
                let endpoint = format!("{network}:ip=10.88.0.{n},ip6=fd88::{n}");
                all.push(start(world, who, &format!("{network}-{n}"), &["--network", &endpoint]));
            }
        }
        let [red, red_20, red_30, blue, blue_20, blue_40] = &all[..] else { unreachable!("six were started") };
        let _servers = [red_20, blue_20].map(|c| says(c, 80, &c.name));
        let ear = listen(world, blue_40.pid, "eth0", "src host 10.88.0.30 or src host fd88::30");
        for (c, there, other) in [(red, ["10.88.0.30", "fd88::30"], "10.88.0.40"), (blue, ["10.88.0.40", "fd88::40"], "10.88.0.30")] {
            let own = if c.name == red.name { &red_20.name } else { &blue_20.name };
            for to in ["10.88.0.20", "fd88::20"] {
                assert_eq!(hear(c, to, 80).trim(), own, "{} asks {to}", c.name);
            }
            for to in there {
                ping(c, to).ok();
            }
            assert!(silent(c, other), "{other} is on the other network");
            // Both lead out, though nobody outside could tell them apart.
            for to in server_at(9000) {
                c.run(["lab-peer", "tcp", &to, "who"]);
            }
        }
        ping(red_30, "10.88.0.20").ok();
        assert!(silent(red_30, "10.88.0.40") && silent(red_30, "fd88::40"));
        assert_eq!(ear.stdout(), "");
        // A name is known where its container is.
        for (asker, name, known) in [(red, "red-20", true), (red, "blue-20", false), (blue, "red-20", false)] {
            let answer = asker.cmd(["dig", "+short", "+time=2", "+tries=1", name]).run().text();
            assert_eq!(answer.contains("10.88.0.20"), known, "{} asks for {name}: {answer}", asker.name);
        }
        // One that is on both cannot tell them apart either, and each answers by the interface it was asked on.
        d.run(["network", "connect", "blue", "red-30", "--ip", "10.88.0.31", "--ip6", "fd88::31"]);
        ping(blue, "10.88.0.31").ok();
        ping(blue, "fd88::31").ok();
        ping(red, "10.88.0.30").ok();
    }
}

each_user! {
    /// Other addresses: to name them, or their gateway, leads nowhere.
    fn a_neighbouring_network_cannot_be_named(world, who) {
        let d = Daemon::start(world, who);
        d.create("red", &["--subnet", "10.88.1.0/24", "--subnet", "fd88:1::/64"]);
        d.create("blue", &["--subnet", "10.88.2.0/24", "--subnet", "fd88:2::/64"]);
        let red = start(world, who, "red", &["--network", "red"]);
        let blue = start(world, who, "blue", &["--network", "blue"]);
        let private = start(world, who, "private", &PLAIN);
        let _servers = [&blue, &private].map(|c| says(c, 80, "private"));
        let targets = [
            blue.ip.to_string(),
            blue.ip6.expect("IPv6").to_string(),
            blue.gateway().to_string(),
            blue.gateway6().to_string(),
            private.ip.to_string(),
        ];
        let ear = listen(world, blue.pid, "eth0", "host 10.88.1.2 or host 10.88.2.9 or net 10.88.1.0/24");
        for to in &targets {
            assert!(silent(&red, to), "{to} answers");
            assert!(closed(&red, to, 80), "{to} is connected to");
        }
        // With a route that says it is on the link, or by its gateway's address as one's own gateway.
        let (gateway, blue_gateway) = (red.gateway().to_string(), blue.gateway().to_string());
        let hardware = red.cmd(["ip", "-j", "neigh", "show", &gateway]).run().json();
        let hardware = hardware[0]["lladdr"].as_str().expect("it was used").to_owned();
        red.run(["ip", "route", "add", "10.88.2.0/24", "dev", "eth0"]);
        assert!(silent(&red, &targets[0]));
        red.run(["ip", "neigh", "replace", &targets[0], "lladdr", &hardware, "dev", "eth0"]);
        assert!(silent(&red, &targets[0]) && closed(&red, &targets[0], 80));
        red.run(["ip", "route", "del", "10.88.2.0/24", "dev", "eth0"]);
        red.run(["ip", "route", "add", "10.88.2.0/24", "via", &gateway]);
        assert!(silent(&red, &targets[0]) && closed(&red, &targets[0], 80));
        let done = red.cmd(["ip", "route", "add", "203.0.113.0/24", "via", &blue_gateway, "dev", "eth0", "onlink"]).run();
        done.ok();
        assert!(silent(&red, "203.0.113.10"), "the other network's gateway is none of its own");
        // As that network's own address, which its port security knows nothing of.
        red.run(["ip", "addr", "add", "10.88.2.9/24", "dev", "eth0"]);
        assert!(silent(&red, &targets[0]));
        assert_eq!(ear.stdout(), "");
        ping(&blue, &blue_gateway).ok();
    }
}

each_user! {
    /// A network with the addresses of the host's own uplink: its neighbours are the network's, and the way out is there.
    fn addresses_may_be_the_hosts_own(world, who) {
        let d = Daemon::start(world, who);
        let [_tcp, _udp] = server_peers(world);
        d.create("over", &["--subnet", "192.0.2.0/24", "--gateway", "192.0.2.254", "--subnet", "2001:db8:1::/64", "--gateway", "2001:db8:1::fe"]);
        let a = start(world, who, "a", &["--network", "over:ip=192.0.2.1,ip6=2001:db8:1::1", "-p", "9100:80"]);
        let b = start(world, who, "b", &["--network", "over:ip=192.0.2.7"]);
        let _server = says(&a, 80, "served by a");
        for to in ["192.0.2.1", "2001:db8:1::1"] {
            assert_eq!(hear(&b, to, 80).trim(), "served by a", "the host's address is the container's here");
        }
        for c in [&a, &b] {
            for to in server_at(9000) {
                c.run(["lab-peer", "tcp", &to, "who"]);
                c.run(["lab-peer", "udp-echo", &to, "1000"]);
            }
            c.run(["ping", "-n", "-c1", "-W9", "203.0.113.10"]);
        }
        // For those outside the address is the host's, as ever.
        let outside = world.server().cmd(["socat", "-t2", "-T3", "-", "TCP4:192.0.2.1:9100,connect-timeout=2"]).run();
        assert_eq!(outside.text().trim(), "served by a", "{outside}");
        world.server().run(["ping", "-n", "-c1", "-W9", "192.0.2.1"]);
        assert!(!world.host().run(["ip", "addr"]).contains("192.0.2.7"), "nothing of the host has changed");
    }
}
