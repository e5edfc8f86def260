//! Name servers and search lists of a network's own, and the name of the host.

use pontoon_fixtures::lab::Daemon;

use super::{gateways, knows, knows_not, name_server};
use crate::start;

each_user! {
    fn a_network_has_its_own_servers_and_search_list(world, who) {
        let _dns = name_server(world);
        let _other = world.server().dnsmasq(&[
            "--listen-address=198.51.100.11",
            "--address=/www.sub.test/192.0.2.11",
            "--address=/example.test/192.0.2.12",
            "--address=/#/",
        ]);
        let daemon = Daemon::start(world, who);
        daemon.create("usual", &[]);
        daemon.create("other", &["--dns", "198.51.100.11", "--dns-search", "sub.test", "--dns-search", "test"]);
        let usual = start(world, who, "usual", &["--network", "usual"]);
        let other = start(world, who, "other", &["--network", "other"]);
        knows(&usual, &usual.gateway().to_string(), &["example.test", "A"], &["192.0.2.10"]);
        knows(&other, &other.gateway().to_string(), &["example.test", "A"], &["192.0.2.12"]);
        let file = other.run(["cat", "/etc/resolv.conf"]);
        assert!(file.contains("search sub.test test") && file.contains(&format!("nameserver {}", other.gateway())), "{file}");
        assert!(other.run(["getent", "ahostsv4", "www"]).contains("192.0.2.11"));
        assert!(other.run(["getent", "ahostsv4", "example"]).contains("192.0.2.12"));
        assert!(other.run(["getent", "ahostsv4", "other"]).contains(&other.ip.to_string()));
    }
}

each_user! {
    /// It is there where it leads somewhere.
    fn the_host_has_a_name_where_it_is_allowed(world, who) {
        let _dns = name_server(world);
        let _server = world.host().socat("TCP4-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr", "EXEC:'echo host loopback'");
        let _six = world.host().socat("TCP6-LISTEN:7001,bind=[::1],fork,reuseaddr", "EXEC:'echo host loopback'");
        let daemon = Daemon::start(world, who);
        daemon.create("open", &["--ipv6", "--opt", "host-loopback=true"]);
        daemon.create("shut", &["--ipv6"]);
        let open = start(world, who, "o", &["--network", "open"]);
        let shut = start(world, who, "s", &["--network", "shut"]);
        let name = "host.pontoon.internal";
        let [four, six] = [0, 1].map(|n| gateways(&daemon, "open")[n].clone());
        for gateway in [&four, &six] {
            knows(&open, gateway, &[name, "A"], &[&four]);
            knows(&open, gateway, &[name, "AAAA"], &[&six]);
        }
        for gateway in gateways(&daemon, "shut") {
            knows_not(&shut, &gateway, &[name, "A"]);
        }
        for to in [format!("TCP4:{name}:7000"), format!("TCP6:{name}:7001")] {
            let to = format!("{to},connect-timeout=3");
            assert_eq!(open.run(["socat", "-t3", "-T5", "-u", &to, "-"]), "host loopback\n");
        }
        let to = format!("TCP4:{}:7000,connect-timeout=3", shut.gateway());
        assert!(!shut.cmd(["socat", "-t3", "-T5", "-u", &to, "-"]).run().text().contains("host"));
    }
}
