//! A network that nothing leaves, and where nothing is published.

use pontoon_fixtures::lab::{Daemon, require};

use super::{dig, gateways, knows, name_server, ping, tcp_server};
use crate::{server_peers, start};

each_user! {
    fn nothing_leaves_it(world, who) {
        require("tcpdump");
        let _dns = name_server(world);
        let _peers = server_peers(world);
        let daemon = Daemon::start(world, who);
        daemon.create("quiet", &["--internal", "--ipv6"]);
        daemon.create("other", &["--ipv6"]);
        let a = start(world, who, "a", &["--network", "quiet"]);
        let b = start(world, who, "b", &["--network", "quiet"]);
        let o = start(world, who, "o", &["--network", "other"]);
        let _servers = [tcp_server(&b), tcp_server(&o)];
        let (gateway, gateway6) = (gateways(&daemon, "quiet")[0].clone(), gateways(&daemon, "quiet")[1].clone());

        // Neighbours, by address and by name.
        for to in [b.ip, b.ip6.expect("IPv6")] {
            ping(&a, to).run().ok();
            a.run(["lab-peer", "tcp", &std::net::SocketAddr::new(to, 9000).to_string(), "echo", "100000"]);
        }
        a.run(["ping", "-n", "-c1", "-W9", "b"]);
        knows(&a, &gateway, &["b.quiet", "A"], &[&b.ip.to_string()]);

        // The way out: none is told, and none is there for who goes to the gateway all the same.
        for family in ["-4", "-6"] {
            assert_eq!(a.run(["ip", family, "route", "show", "default"]), "");
        }
        let mut seen = world.host().cmd(["tcpdump", "-n", "-l", "-i", "up0"]).spawn();
        seen.wait_for("listening on");
        for round in 0..2 {
            if round == 1 {
                a.run(["ip", "route", "add", "default", "via", &gateway]);
                a.run(["ip", "-6", "route", "add", "default", "via", &gateway6]);
            }
            for to in ["198.51.100.10", "2001:db8:2::10", "192.0.2.1", &o.ip.to_string(), &o.ip6.expect("IPv6").to_string()] {
                assert!(!a.cmd(["ping", "-n", "-c1", "-W1", to]).run().success(), "ping {to}");
                let to = std::net::SocketAddr::new(to.parse().expect("an address"), 9000).to_string();
                assert!(!a.cmd(["timeout", "2", "lab-peer", "tcp", &to, "who"]).run().success(), "TCP to {to}");
                assert!(!a.cmd(["timeout", "2", "lab-peer", "udp-ask", &to]).run().success(), "UDP to {to}");
            }
            let asked = dig(|argv| a.cmd(argv).run(), &gateway, &["example.test", "A"]);
            assert!(asked.data.is_empty() && asked.status != "NOERROR", "{}", asked.status);
            let direct = a.cmd(["dig", "+time=1", "+tries=1", "@198.51.100.10", "example.test"]).run();
            assert!(!direct.success(), "{direct}");
        }
        // A question that does leave is seen, and it is the only one.
        o.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        seen.wait_for("192.0.2.1 > 198.51.100.10: ICMP echo request");
        let text = seen.stdout();
        assert!(!text.contains(".9000") && !text.contains(".53:"), "{text}");
        assert_eq!(text.matches("ICMP echo request").count(), 1, "{text}");
        // Nor is there a way in.
        assert!(!o.cmd(["timeout", "2", "lab-peer", "tcp", &format!("{}:9000", b.ip), "who"]).run().success());
    }
}

each_user! {
    fn nothing_is_published_on_it(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("quiet", &["--internal"]);
        daemon.create("open", &[]);
        let why = daemon.pontoon(["run", "--network", "quiet", "-p", "9100:9000", "--", "true"]).run().fails();
        assert!(why.contains("nothing of") && why.contains("can be published"), "{why}");
        let c = start(world, who, "c", &["--network", "quiet"]);
        let why = daemon.pontoon(["publish", "c", "9100:9000"]).run().fails();
        assert!(why.contains("nothing of c can be published"), "{why}");
        assert_eq!(world.host().run(["ss", "-ltnH"]), "");
        // Beside a network with a way out it is that which publishes.
        let d = start(world, who, "d", &["--network", "quiet:gw-priority=9", "--network", "open", "-p", "9100:9000"]);
        let _server = tcp_server(&d);
        world.server().run(["lab-peer", "tcp", "192.0.2.1:9100", "who"]);
        ping(&d, c.ip).run().ok();
        ping(&d, "198.51.100.10").run().ok();
        // And when that is left, nothing is published any more.
        daemon.run(["network", "disconnect", "open", "d"]);
        assert!(world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run().fails().contains("refused"));
        assert_eq!(daemon.run(["port", "d"]), "");
        assert_eq!(d.run(["ip", "route", "show", "default"]), "");
        ping(&d, c.ip).run().ok();
    }
}
