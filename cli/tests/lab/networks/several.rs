//! Several networks in one container: replies, live changes, and what is asked for twice.

use pontoon_fixtures::lab::{Container, Daemon, wait_for};

use super::{address, addresses, endpoint, interface_gone, knows, ping, tcp_server, tcpdump};
use crate::start;

/// Frames of a container's interface: received, sent.
fn frames(c: &Container<'_>, interface: &str) -> (u64, u64) {
    let link = c.cmd(["ip", "-s", "-j", "link", "show", interface]).run().json();
    let of = |way: &str| link[0]["stats64"][way]["packets"].as_u64().expect("a counter");
    (of("rx"), of("tx"))
}

each_user! {
    /// Each answers where it was asked, however the default route leads.
    fn replies_leave_by_the_interface_they_came_in_on(world, who) {
        let daemon = Daemon::start(world, who);
        for name in ["a", "b", "c"] {
            daemon.create(name, &["--ipv6"]);
        }
        let networks = ["a", "b", "c"];
        let hub = start(world, who, "hub", &["--network", "a", "--network", "b", "--network", "c", "-p", "9100:9000"]);
        let _server = tcp_server(&hub);
        for network in networks {
            let peer = start(world, who, &format!("peer-{network}"), &["--network", network]);
            let interface = endpoint(&daemon, "hub", network)["interface"].as_str().expect("a name").to_owned();
            let others = networks.iter().filter(|n| **n != network);
            let others: Vec<String> = others.map(|n| endpoint(&daemon, "hub", n)["interface"].as_str().expect("a name").to_owned()).collect();
            let before: Vec<_> = others.iter().map(|i| frames(&hub, i)).collect();
            let own = frames(&hub, &interface);
            for to in addresses(&daemon, "hub", network) {
                let to = std::net::SocketAddr::new(to, 9000).to_string();
                peer.run(["lab-peer", "tcp", &to, "echo", "300000"]);
            }
            let after = frames(&hub, &interface);
            assert!(after.0 > own.0 + 20 && after.1 > own.1 + 20, "{network}: {own:?} {after:?}");
            let after: Vec<_> = others.iter().map(|i| frames(&hub, i)).collect();
            // Neighbours may be looked for meanwhile.
            for (n, (was, is)) in before.iter().zip(&after).enumerate() {
                assert!(is.0 - was.0 < 10 && is.1 - was.1 < 10, "{network}, {}: {was:?} {is:?}", others[n]);
            }
        }
        // What is sent from an address leaves by its interface, by its own gateway.
        for network in networks {
            let interface = endpoint(&daemon, "hub", network)["interface"].as_str().expect("a name").to_owned();
            let mut capture = tcpdump(&hub, &["-i", &interface, "icmp[icmptype] == icmp-echo or icmp6[icmp6type] == icmp6-echo"]);
            for (from, to) in addresses(&daemon, "hub", network).into_iter().zip(["198.51.100.10", "2001:db8:2::10"]) {
                hub.run(["ping", "-n", "-c1", "-W9", "-I", &from.to_string(), to]);
                capture.wait_for(&format!("{from} > {to}"));
            }
        }
        // So does the answer to somebody outside, who came by the gateway of the default route.
        let said = world.server().run(["lab-peer", "tcp", "192.0.2.1:9100", "who"]);
        assert!(said.starts_with("198.51.100.10:"), "{said}");
    }
}

each_user! {
    fn networks_are_joined_and_left_while_it_runs(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("a", &[]);
        daemon.create("b", &["--subnet", "10.30.0.0/24", "--subnet", "fd30::/64"]);
        let c = start(world, who, "c", &["--network", "a"]);
        let peer = start(world, who, "peer", &["--network", "b"]);
        let rules = || c.sh("for f in -4 -6; do ip $f rule; ip $f route show table all | grep -v ' lo ' || true; done");
        let (before, links) = (rules(), c.run(["ls", "/sys/class/net"]));
        daemon.run(["network", "connect", "--ip", "10.30.0.7", "--ip6", "fd30::7", "--mac", "02:00:00:00:00:07", "--alias", "www", "b", "c"]);
        assert_eq!(c.run(["cat", "/sys/class/net/eth1/address"]).trim(), "02:00:00:00:00:07");
        assert_eq!(addresses(&daemon, "c", "b"), ["10.30.0.7", "fd30::7"].map(|a| a.parse::<std::net::IpAddr>().expect("an address")));
        for to in ["10.30.0.7", "fd30::7", "www", "c"] {
            ping(&peer, to).run().ok();
        }
        ping(&c, peer.ip).run().ok();
        ping(&c, "peer").run().ok();
        for (words, says) in [
            (&["connect", "b", "c"][..], "container c is on network b already"),
            (&["connect", "nosuch", "c"], "no network named nosuch"),
            (&["connect", "b", "nosuch"], "no container named nosuch"),
            (&["connect", "--ip", "10.30.0.7", "a", "peer"], "10.30.0.7"),
            (&["disconnect", "a", "peer"], "container peer is not on network a"),
            (&["disconnect", "nosuch", "c"], "no network named nosuch"),
        ] {
            let why = daemon.pontoon(["network"]).args(words).run().fails();
            assert!(why.contains(says), "{words:?}: {why}");
        }
        daemon.run(["network", "disconnect", "b", "c"]);
        interface_gone(&c, "eth1");
        wait_for("rules to go", std::time::Duration::from_secs(2), || (rules() == before).then_some(()));
        assert_eq!(c.run(["ls", "/sys/class/net"]), links);
        assert!(!ping(&peer, "10.30.0.7").run().success());
        ping(&c, "198.51.100.10").run().ok();
        // Again and again, at once: what is taken away is not what has come since.
        for _ in 0..8 {
            daemon.run(["network", "connect", "b", "c"]);
            ping(&c, peer.ip).run().ok();
            daemon.run(["network", "disconnect", "b", "c"]);
        }
        daemon.run(["network", "connect", "--ip", "10.30.0.7", "b", "c"]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        ping(&peer, "10.30.0.7").run().ok();
        knows(&c, &c.gateway().to_string(), &["peer", "A"], &[&address(&daemon, "peer", "b")]);
    }
}

each_user! {
    fn what_is_asked_of_one_interface_names_its_network(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("a", &["--subnet", "10.30.0.0/24", "--subnet", "fd30::/64"]);
        daemon.create("b", &[]);
        let run = |more: &[&str]| daemon.pontoon(["run"]).args(more).args(["--", "true"]).run();
        for (option, value, says) in [
            ("--ip", "10.30.0.7", "N:ip=10.30.0.7"),
            ("--ip6", "fd30::7", "N:ip6=fd30::7"),
            ("--mac-address", "02:00:00:00:00:07", "N:mac=02:00:00:00:00:07"),
            ("--network-alias", "www", "N:alias=www"),
        ] {
            let why = run(&["--network", "a", "--network", "b", option, value]).fails();
            assert!(why.contains(says), "{option}: {why}");
            // Beside one network it says enough.
            run(&["--network", "a", option, value]).ok();
        }
        for (more, says) in [
            (&["--network", "a", "--network", "a"][..], "--network a is given twice"),
            (&["--network", "a:ip=10.30.0.7", "--ip", "10.30.0.8"], "say the same thing"),
            (&["--network", "a", "--network", "none"], "--network none stands alone"),
            (&["--network", "a", "--subnet", "10.0.0.0/24"], "--subnet"),
        ] {
            let why = run(more).fails();
            assert!(why.contains(says), "{more:?}: {why}");
        }
        let c = start(world, who, "c", &["--network", "b", "--network", "a:ip=10.30.0.7,alias=www"]);
        assert_eq!(address(&daemon, "c", "a"), "10.30.0.7");
        knows(&c, &c.gateway().to_string(), &["www", "A"], &["10.30.0.7"]);
    }
}
