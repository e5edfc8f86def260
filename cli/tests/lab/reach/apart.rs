//! `--icc=false` without links: containers do not hear each other, and have all else.

use pontoon_fixtures::lab::{Daemon, require, wait_for};

use super::{addresses, closed, connects, dropped, listen, mac, ping, silent, unanswered};
use crate::{container_peers, server_at, server_peers, start};

/// A network on which containers do not reach each other.
pub(super) const GUARDED: [&str; 5] = ["--icc=false", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];

each_user! {
    fn containers_do_not_reach_each_other(world, who) {
        require("arping");
        require("ndisc6");
        let d = Daemon::start(world, who);
        d.create("guarded", &GUARDED);
        let a = start(world, who, "a", &["--network", "guarded"]);
        let b = start(world, who, "b", &["--network", "guarded"]);
        let [_tcp, _udp] = container_peers(&b);
        // Whatever of it were let in to b would be seen, its own and the gateway's apart.
        let ear = listen(world, b.pid, "eth0", &format!("ether src {}", mac(&a)));
        let [ip, ip6] = addresses(&b);
        let done = a.cmd(["arping", "-c2", "-w1", "-I", "eth0", &ip]).run();
        assert!(!done.success(), "{done}");
        let done = a.cmd(["ndisc6", "-1", "-r1", "-w500", &ip6, "eth0"]).run();
        assert!(!done.success(), "{done}");
        let neighbour = mac(&b).to_string();
        for known in [false, true] {
            // Nor does it help to know who is where.
            if known {
                for to in [&ip, &ip6] {
                    a.run(["ip", "neigh", "replace", to, "lladdr", &neighbour, "dev", "eth0"]);
                }
            }
            let before = dropped(&d, "guarded", "a", "isolated");
            for to in [&ip, &ip6] {
                assert!(silent(&a, to), "echo to {to}, known: {known}");
                assert!(closed(&a, to, 9000), "TCP to {to}, known: {known}");
                assert!(unanswered(&a, to, 9000), "UDP to {to}, known: {known}");
            }
            // What asks everybody gets to the gateway, and is no drop.
            let counted = dropped(&d, "guarded", "a", "isolated") - before;
            assert!(!known || counted >= 8, "{counted} were counted");
        }
        assert_eq!(ear.stdout(), "");

        // The gateway and the way out are there for both.
        let [_tcp, _udp] = server_peers(world);
        for c in [&a, &b] {
            for to in [c.gateway(), c.gateway6()] {
                ping(c, &to.to_string()).ok();
            }
            for to in server_at(9000) {
                c.run(["lab-peer", "tcp", &to, "who"]);
                c.run(["lab-peer", "udp-echo", &to, "100"]);
            }
        }
        assert_eq!(ear.stdout(), "");
        // The ear hears: as soon as they are linked, something comes.
        d.run(["link", "a", "b", "--port", "9000"]);
        assert!(connects(&a, &ip, 9000));
        wait_for("frames at b", std::time::Duration::from_secs(5), || {
            ear.stdout().contains(".9000: ").then_some(())
        });
    }
}

each_user! {
    /// The same from the option's name in Docker, and on a network that leads nowhere.
    fn an_internal_network_can_be_guarded(world, who) {
        let d = Daemon::start(world, who);
        d.create(
            "quiet",
            &["--internal", "--subnet", "10.78.0.0/24", "--opt", "com.docker.network.bridge.enable_icc=false"],
        );
        let a = start(world, who, "a", &["--network", "quiet"]);
        let b = start(world, who, "b", &["--network", "quiet", "--expose", "9000"]);
        let [_tcp, _udp] = container_peers(&b);
        let ip = b.ip.to_string();
        assert!(silent(&a, &ip) && closed(&a, &ip, 9000));
        let done = a.cmd(["ping", "-n", "-c1", "-W1", "198.51.100.10"]).run();
        assert!(!done.success(), "there is no way out: {done}");
        d.run(["link", "a", "b"]);
        assert!(connects(&a, &ip, 9000), "the exposed port is linked");
        assert!(silent(&a, &ip));
    }
}
