//! Links: the only traffic between two containers of a guarded network, in one direction, by name.

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, wait_for};
use serde_json::json;

use super::apart::GUARDED;
use super::{addresses, answers, at, closed, connects, ping, says, silent, unanswered};
use crate::{container_peers, start};

/// A first answer of DNS in a container.
fn dig(c: &Container<'_>, name: &str, kind: &str) -> String {
    c.cmd(["dig", "+short", "+time=2", "+tries=1", name, kind])
        .run()
        .text()
        .trim()
        .to_owned()
}

/// Whether a connection from port `from` of `c` to a port of `to` comes about.
fn connects_from(c: &Container<'_>, from: u16, to: &str, port: u16) -> bool {
    let (from, port) = (from.to_string(), port.to_string());
    c.cmd(["ncat", "-z", "-w1", "-p", &from, to, &port])
        .run()
        .success()
}

each_user! {
    /// `run --link`: names, Docker's variables, and the exposed ports, from the client to the server alone.
    fn a_link_at_start_opens_what_is_exposed(world, who) {
        let d = Daemon::start(world, who);
        d.create("guarded", &GUARDED);
        let db = start(
            world,
            who,
            "db",
            &["--network", "guarded", "--expose", "9000", "--expose", "9000/udp", "--expose", "9005/udp"],
        );
        let servers = container_peers(&db);
        let _other = says(&db, 9001, "more");
        let web = start(world, who, "web", &["--network", "guarded", "--link", "db:my-sql"]);
        let stranger = start(world, who, "stranger", &["--network", "guarded"]);
        let [ip, ip6] = addresses(&db);

        let hosts = web.run(["cat", "/etc/hosts"]);
        for name in ["my-sql", "db"] {
            for address in [&ip, &ip6] {
                assert!(hosts.lines().any(|l| l == format!("{address}\t{name}")), "{address} {name}: {hosts}");
            }
            assert_eq!((dig(&web, name, "A"), dig(&web, name, "AAAA")), (ip.clone(), ip6.clone()), "{name}");
        }
        assert_eq!(dig(&stranger, "my-sql", "A"), "", "the alias is the client's alone");

        for to in [&ip, &ip6] {
            assert!(connects(&web, to, 9000), "TCP {to}");
            assert!(answers(&web, to, 9000), "UDP {to}");
            // A service that nobody has: the server's error passes.
            let done = web.cmd(["lab-peer", "udp-echo", &at(to, 9005), "10"]).run();
            assert!(done.fails().to_lowercase().contains("refused"), "{done}");
            assert!(closed(&web, to, 9001), "TCP {to}, not exposed");
            assert!(silent(&web, to), "echo to {to}");
            assert!(closed(&stranger, to, 9000) && unanswered(&stranger, to, 9000), "{to} is linked to web alone");
        }
        // A large transfer each way, so that acknowledgements and super-frames of both ends pass.
        assert_eq!(web.run(["lab-peer", "tcp", &at(&ip, 9000), "echo", "3000000"]), "ok\n");

        // Not the other way, whatever port it comes from.
        drop(servers);
        let _servers = container_peers(&web);
        for to in &addresses(&web) {
            assert!(closed(&db, to, 9000), "TCP {to}");
            assert!(!connects_from(&db, 9000, to, 9000), "TCP {to} from the service's port");
            assert!(unanswered(&db, to, 9000), "UDP {to}");
            assert!(silent(&db, to), "echo to {to}");
        }

        let env = d.pontoon(["run", "--network", "guarded", "--name", "short", "--link", "db:my-sql", "--", "env"]).run().ok();
        for line in [
            "MY_SQL_NAME=/short/my-sql".to_owned(),
            format!("MY_SQL_PORT=tcp://{ip}:9000"),
            format!("MY_SQL_PORT_9000_TCP=tcp://{ip}:9000"),
            format!("MY_SQL_PORT_9000_TCP_ADDR={ip}"),
            "MY_SQL_PORT_9000_TCP_PORT=9000".to_owned(),
            "MY_SQL_PORT_9000_TCP_PROTO=tcp".to_owned(),
            format!("MY_SQL_PORT_9005_UDP=udp://{ip}:9005"),
        ] {
            assert!(env.lines().any(|l| l == line), "no `{line}` in:\n{env}");
        }
    }
}

each_user! {
    /// `link` and `unlink` while both run: the ports that were named and no others, and nothing once it is gone.
    fn links_come_and_go(world, who) {
        let d = Daemon::start(world, who);
        d.create("guarded", &GUARDED);
        let a = start(world, who, "a", &["--network", "guarded"]);
        let b = start(world, who, "b", &["--network", "guarded", "--expose", "9001"]);
        let [_tcp, _udp] = container_peers(&b);
        let _exposed = says(&b, 9001, "exposed");
        let [ip, ip6] = addresses(&b);
        assert!(closed(&a, &ip, 9000));
        let link = d.json(["link", "a", "b:www", "--port", "9000", "--json"]);
        assert_eq!((&link["alias"], &link["client"]), (&json!("www"), &json!("a")), "{link}");
        for to in [&ip, &ip6] {
            assert!(connects(&a, to, 9000), "TCP {to}");
            assert!(unanswered(&a, to, 9000), "UDP {to}: 9000/tcp was named");
            assert!(closed(&a, to, 9001), "TCP {to}: it is exposed, and another port was named");
        }
        assert_eq!(dig(&a, "www", "A"), ip);
        assert_eq!(d.json(["links", "--json"]).as_array().map(Vec::len), Some(1));
        assert_eq!(d.container("a")["links"][0]["server"], "b");

        // Another link between the same two is in the place of the first.
        d.run(["link", "a", "b:again", "--port", "9000/udp"]);
        assert!(answers(&a, &ip, 9000) && closed(&a, &ip, 9000));
        assert_eq!((dig(&a, "again", "A"), dig(&a, "www", "A")), (ip.clone(), String::new()));
        d.run(["link", "a", "b"]);
        assert!(connects(&a, &ip, 9001) && closed(&a, &ip, 9000), "what it exposes");

        // An open connection ends with the link, or rather: nothing of it passes any more.
        d.run(["link", "a", "b:www", "--port", "9000"]);
        let mut open = a.cmd(["lab-peer", "tcp", &at(&ip, 9000), "hold", "2000"]).spawn();
        std::thread::sleep(Duration::from_millis(500));
        d.run(["unlink", "a", "b"]);
        assert!(closed(&a, &ip, 9000) && unanswered(&a, &ip, 9000));
        assert_eq!(dig(&a, "www", "A"), "");
        assert_eq!(open.wait(Duration::from_secs(3)).filter(std::process::ExitStatus::success), None);
        assert!(d.pontoon(["unlink", "a", "b"]).run().fails().contains("no link"));

        // A link goes with either container.
        d.run(["link", "a", "b"]);
        drop(b);
        wait_for("the link to go", Duration::from_secs(5), || (d.json(["links", "--json"]) == json!([])).then_some(()));
    }
}

each_user! {
    /// Where containers reach each other anyway, a link gives names.
    fn a_link_on_an_open_network_is_names(world, who) {
        let d = Daemon::start(world, who);
        d.create("open", &["--subnet", "10.79.0.0/24"]);
        let b = start(world, who, "b", &["--network", "open"]);
        let a = start(world, who, "a", &["--network", "open", "--link", "b:www"]);
        ping(&a, "www").ok();
        d.run(["unlink", "a", "b"]);
        ping(&a, &b.ip.to_string()).ok();
        assert_eq!(dig(&a, "www", "A"), "");
    }
}

each_user! {
    fn links_that_cannot_be_are_refused(world, who) {
        let d = Daemon::start(world, who);
        d.create("one", &["--subnet", "10.77.1.0/24"]);
        d.create("two", &["--subnet", "10.77.2.0/24"]);
        let _a = start(world, who, "a", &["--network", "one"]);
        let _b = start(world, who, "b", &["--network", "two"]);
        for (arguments, text) in [
            (&["link", "a", "b"][..], "on no network together"),
            (&["link", "a", "a"], "no link to itself"),
            (&["link", "a", "nobody"], "nobody"),
            (&["unlink", "a", "b"], "no link"),
            (&["run", "--network", "one", "--link", "nobody", "--", "true"], "nobody"),
            (&["run", "--network", "one", "--link", "b", "--", "true"], "on no network together"),
        ] {
            let done = d.pontoon(arguments).run();
            assert!(done.fails().contains(text), "{arguments:?}: {done}");
        }
        assert_eq!(d.json(["links", "--json"]), json!([]));
        assert_eq!(d.json(["ps", "--json"]).as_array().map(Vec::len), Some(2), "nothing half done");
    }
}
