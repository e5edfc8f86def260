//! Published ports at the host's addresses, from containers.

use pontoon_fixtures::lab::{Container, Daemon};

use super::{ping, tcp_server};
use crate::{container_peers, start};

/// The host's addresses, with the published port.
const AT: [&str; 2] = ["192.0.2.1:9100", "[2001:db8:1::1]:9100"];

fn ask(c: &Container<'_>, to: &str) -> pontoon_fixtures::lab::Done {
    c.cmd(["timeout", "5", "lab-peer", "tcp", to, "echo", "200000"])
        .run()
}

each_user! {
    /// A container's own and its neighbour's, TCP and UDP; a container of either kind.
    fn ones_own_and_the_neighbours(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &["--ipv6"]);
        let web = start(world, who, "web", &["--network", "net", "-p", "9100:9000", "-p", "9100:9000/udp"]);
        let _serves = container_peers(&web);
        let neighbour = start(world, who, "neighbour", &["--network", "net"]);
        let veth = start(world, who, "veth", &["--network", "net", "--veth"]);
        for c in [&web, &neighbour, &veth] {
            for to in AT {
                ask(c, to).ok();
                c.run(["lab-peer", "udp-echo", to, "1000"]);
            }
        }
        // The port that is published, and nothing else of the host's.
        assert!(!ask(&neighbour, "192.0.2.1:9000").success());
        daemon.run(["unpublish", "web", "9100:9000"]);
        for c in [&web, &neighbour] {
            assert!(!ask(c, AT[0]).success());
            c.run(["lab-peer", "udp-echo", AT[0], "1000"]);
        }
    }
}

each_user! {
    /// From one network to another there is no way but through published ports.
    fn between_networks_only_what_is_published(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("one", &["--ipv6"]);
        daemon.create("two", &["--ipv6"]);
        let web = start(world, who, "web", &["--network", "one", "-p", "9100:9000"]);
        let other = start(world, who, "other", &["--network", "two"]);
        let _server = tcp_server(&web);
        for to in AT {
            ask(&other, to).ok();
        }
        for ip in [web.ip, web.ip6.expect("IPv6")] {
            assert!(!ping(&other, ip).run().success(), "{ip}");
            assert!(!ask(&other, &std::net::SocketAddr::new(ip, 9000).to_string()).success(), "{ip}");
        }
        // Nor by the other network's gateway.
        let gateway = other.gateway();
        other.run(["ip", "route", "add", &format!("{}/32", web.ip), "via", &gateway.to_string()]);
        assert!(!ask(&other, &format!("{}:9000", web.ip)).success());
    }
}
