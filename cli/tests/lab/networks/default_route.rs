//! Which of several networks a container's default route leads to, and what is published with it.

use pontoon_fixtures::lab::{Container, Daemon, Done};

use super::{address, endpoint, gateways, interface_gone, ping, tcp_server};
use crate::start;

/// The network whose interface `pontoon ps` says the default route leads to; one at most.
fn default_network(daemon: &Daemon<'_>, container: &str) -> Option<String> {
    let info = daemon.container(container);
    let all = info["endpoints"].as_array().expect("interfaces");
    let mut those = all.iter().filter(|e| e["default_route"] == true);
    let one = those.next()?["network"].as_str().map(str::to_owned);
    assert!(those.next().is_none(), "two default routes: {info}");
    one
}

/// Wants the default route of a container to lead to the gateway of `network`, and to be of use.
#[track_caller]
fn leads_to(daemon: &Daemon<'_>, c: &Container<'_>, network: &str) {
    assert_eq!(default_network(daemon, &c.name).as_deref(), Some(network));
    let interface = endpoint(daemon, &c.name, network)["interface"].clone();
    for (family, gateway) in ["-4", "-6"].into_iter().zip(gateways(daemon, network)) {
        let routes = c
            .cmd(["ip", "-j", family, "route", "show", "default"])
            .run()
            .json();
        let only = routes.as_array().expect("routes");
        assert_eq!(only.len(), 1, "{routes}");
        assert_eq!(
            (&only[0]["gateway"], &only[0]["dev"]),
            (&gateway.into(), &interface),
            "{routes}"
        );
    }
    ping(c, "198.51.100.10").run().ok();
    ping(c, "2001:db8:2::10").run().ok();
}

each_user! {
    /// The first of those with the highest priority that have a way out.
    fn it_follows_priority_and_order(world, who) {
        let daemon = Daemon::start(world, who);
        for name in ["a", "b", "c"] {
            daemon.create(name, &["--ipv6"]);
        }
        daemon.create("quiet", &["--internal"]);
        for (n, (networks, network)) in [
            (&["b", "a"][..], "b"),
            (&["a", "b:gw-priority=1"], "b"),
            (&["a:gw-priority=-1", "b", "c"], "b"),
            (&["quiet:gw-priority=9", "c"], "c"),
            (&["a:gw-priority=2", "b:gw-priority=3", "c:gw-priority=3"], "b"),
        ].into_iter().enumerate() {
            let options: Vec<&str> = networks.iter().flat_map(|n| ["--network", *n]).collect();
            let c = start(world, who, &format!("c{n}"), &options);
            leads_to(&daemon, &c, network);
            let count = c.run(["ls", "/sys/class/net"]).split_whitespace().filter(|i| i.starts_with("eth")).count();
            assert_eq!(count, networks.len());
        }
        let none = start(world, who, "inside", &["--network", "quiet"]);
        assert_eq!(default_network(&daemon, "inside"), None);
        assert_eq!(none.run(["ip", "route", "show", "default"]), "");
    }
}

each_user! {
    fn it_moves_as_networks_come_and_go(world, who) {
        let daemon = Daemon::start(world, who);
        for name in ["a", "b", "c"] {
            daemon.create(name, &["--ipv6"]);
        }
        let c = start(world, who, "c", &["--network", "a", "--network", "b"]);
        leads_to(&daemon, &c, "a");
        daemon.run(["network", "disconnect", "a", "c"]);
        leads_to(&daemon, &c, "b");
        interface_gone(&c, "eth0");
        daemon.run(["network", "connect", "--gw-priority", "5", "c", "c"]);
        leads_to(&daemon, &c, "c");
        daemon.run(["network", "connect", "a", "c"]);
        leads_to(&daemon, &c, "c");
        daemon.run(["network", "disconnect", "b", "c"]);
        leads_to(&daemon, &c, "c");
        daemon.run(["network", "disconnect", "c", "c"]);
        leads_to(&daemon, &c, "a");
        // An interface that somebody in the container takes away is as one that is disconnected.
        daemon.run(["network", "connect", "b", "c"]);
        let first = endpoint(&daemon, "c", "a")["interface"].as_str().expect("a name").to_owned();
        c.run(["ip", "link", "del", &first]);
        pontoon_fixtures::lab::wait_for("the other network", std::time::Duration::from_secs(3), || {
            (default_network(&daemon, "c").as_deref() == Some("b")).then_some(())
        });
        leads_to(&daemon, &c, "b");
    }
}

each_user! {
    /// A published port is reached by the gateway that the default route leads to, whichever that is.
    fn published_ports_move_with_it(world, who) {
        let daemon = Daemon::start(world, who);
        for name in ["a", "b"] {
            daemon.create(name, &["--ipv6"]);
        }
        let c = start(world, who, "c", &["--network", "a", "--network", "b", "-p", "9100:9000"]);
        let _server = tcp_server(&c);
        let ask = |to: &str| -> Done { world.server().cmd(["lab-peer", "tcp", to, "who"]).run() };
        let reached = || {
            for (to, from) in [("192.0.2.1:9100", "198.51.100.10:"), ("[2001:db8:1::1]:9100", "[2001:db8:2::")] {
                assert!(ask(to).ok().starts_with(from), "{to}");
            }
            let port = daemon.run(["port", "c"]);
            assert_eq!(port.lines().filter(|l| *l == "9000/tcp -> 0.0.0.0:9100").count(), 1, "{port}");
        };
        reached();
        // The container sees a client of the host as the gateway that is in between.
        let seen = |network: &str| {
            let from = world.host().run(["lab-peer", "tcp", "127.0.0.1:9100", "who"]);
            let gateway = &gateways(&daemon, network)[0];
            assert!(from.starts_with(&format!("{gateway}:")), "{from} is not {gateway}");
        };
        seen("a");
        daemon.run(["network", "disconnect", "a", "c"]);
        reached();
        seen("b");
        daemon.run(["network", "connect", "a", "c", "--gw-priority", "1"]);
        reached();
        seen("a");
        daemon.run(["network", "disconnect", "b", "c"]);
        reached();
        seen("a");
        daemon.run(["unpublish", "c", "9100:9000"]);
        assert!(ask("192.0.2.1:9100").fails().contains("refused"));
        assert_eq!(address(&daemon, "c", "a"), c.run(["hostname", "-I"]).split(' ').next().expect("an address"));
    }
}
