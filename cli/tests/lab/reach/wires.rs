//! Wires: two containers, an interface in each, and nobody else.

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, Who, World, wait_for};
use serde_json::json;

use super::{at, listen, mac, ping, silent};
use crate::{container_peers, start};

/// Three containers, none of which reaches another.
fn apart<'w>(world: &'w World, who: Who) -> (Daemon<'w>, [Container<'w>; 3]) {
    let d = Daemon::start(world, who);
    let all = ["a", "b", "c"].map(|name| {
        d.create(&format!("net-{name}"), &[]);
        start(world, who, name, &["--network", &format!("net-{name}")])
    });
    (d, all)
}

fn wires(d: &Daemon<'_>) -> usize {
    d.json(["wires", "--json"]).as_array().expect("a list").len()
}

/// The routes and addresses of a container's wire; what is said instead if there is none.
fn interface(c: &Container<'_>, name: &str) -> String {
    c.sh(&format!(
        "(ip -o addr show dev {name}; ip route show dev {name}; ip -6 route show dev {name}) 2>&1 || true"
    ))
}

each_user! {
    fn a_wire_carries_everything_and_nobody_listens(world, who) {
        let (d, [a, b, c]) = apart(world, who);
        let [_tcp, _udp] = container_peers(&b);
        let tap = listen(world, c.pid, "eth0", "host 10.1.1.2 or host fd01::2");
        let beside = listen(world, a.pid, "eth0", "host 10.1.1.2 or host fd01::2");
        assert!(silent(&a, "10.1.1.2"));
        let wire = d.json(["wire", "a", "b", "--addresses", "10.1.1.1,10.1.1.2", "--json"]);
        assert_eq!((&wire["a"]["address"], &wire["b"]["address"]), (&json!("10.1.1.1"), &json!("10.1.1.2")), "{wire}");
        let seen = interface(&a, "wire0");
        assert!(seen.contains("10.1.1.1/32") && seen.contains("10.1.1.2"), "{seen}");
        ping(&a, "10.1.1.2").ok();
        ping(&b, "10.1.1.1").ok();
        a.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-Mdo", "-s", "60000", "10.1.1.2"]);
        assert_eq!(a.run(["lab-peer", "tcp", "10.1.1.2:9000", "echo", "20000000"]), "ok\n");
        assert!(a.run(["lab-peer", "tcp", "10.1.1.2:9000", "who"]).starts_with("10.1.1.1:"));
        // Frames of any kind: addresses that nobody gave, and its own choice of hardware address.
        a.run(["ip", "link", "set", "wire0", "address", "02:00:00:00:99:99"]);
        a.run(["ip", "addr", "add", "172.20.9.1/24", "dev", "wire0"]);
        b.run(["ip", "addr", "add", "172.20.9.2/24", "dev", "wire0"]);
        ping(&a, "172.20.9.2").ok();

        let done = d.pontoon(["wire", "b", "a"]).run();
        assert!(done.fails().contains("wired already"), "{done}");
        // What each had is as it was; and nobody has seen anything.
        a.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        assert!(silent(&c, "10.1.1.2"));
        let lines = tap.stdout();
        let hers = mac(&c).to_string();
        assert!(lines.lines().all(|l| l.contains(&hers)), "only its own questions: {lines}");
        // Before the wire was there a's question left by the default route, and once only.
        assert!(!beside.stdout().contains("10.1.1.1"), "{}", beside.stdout());
        d.run(["unwire", "b", "a"]);
        wait_for("the interfaces to go", Duration::from_secs(5), || {
            let gone = |c: &Container<'_>| interface(c, "wire0").contains("does not exist");
            (gone(&a) && gone(&b)).then_some(())
        });
        assert!(silent(&a, "10.1.1.2"));
        assert_eq!(wires(&d), 0);
    }
}

each_user! {
    /// Addresses of the daemon's choice, of IPv6, and more than one wire to a container.
    fn a_container_can_have_several_wires(world, who) {
        let (d, [a, b, c]) = apart(world, who);
        let [_tcp, _udp] = container_peers(&a);
        let first = d.json(["wire", "a", "b", "--json"]);
        let second = d.json(["wire", "c", "a", "--addresses", "fd01::1,fd01::2", "--json"]);
        let third = d.json(["wire", "b", "c", "--json"]);
        let of = |wire: &serde_json::Value, end: &str, what: &str| wire[end][what].as_str().expect("text").to_owned();
        ping(&b, &of(&first, "a", "address")).ok();
        ping(&c, &of(&second, "b", "address")).ok();
        ping(&b, &of(&third, "b", "address")).ok();
        assert_eq!((of(&first, "a", "interface"), of(&second, "b", "interface")), ("wire0".into(), "wire1".into()));
        let seen = interface(&a, "wire1");
        assert!(seen.contains("fd01::2/128") && seen.contains("fd01::1 "), "{seen}");
        assert!(b.run(["lab-peer", "tcp", &at(&of(&first, "a", "address"), 9000), "who"]).contains(&of(&first, "b", "address")));
        // What is between a and b does not lead to c, though b knows how to ask.
        let other = of(&third, "b", "address");
        assert!(silent(&a, &other), "{other} is no end of a wire of a's");
        assert_eq!(wires(&d), 3);

        // The end of a container is the end of its wires, and of no others.
        drop(b);
        wait_for("two wires to go", Duration::from_secs(5), || (wires(&d) == 1).then_some(()));
        wait_for("their other ends to go", Duration::from_secs(5), || {
            interface(&a, "wire0").contains("does not exist").then_some(())
        });
        ping(&c, "fd01::2").ok();
    }
}

each_user! {
    fn wires_that_cannot_be_are_refused(world, who) {
        let (d, [_a, b, _c]) = apart(world, who);
        for (arguments, text) in [
            (&["wire", "a", "a"][..], "two containers"),
            (&["wire", "a", "nobody"], "nobody"),
            (&["wire", "a", "b", "--addresses", "10.1.1.1,fd01::2"], "families"),
            (&["wire", "a", "b", "--addresses", "10.1.1.1,10.1.1.1"], "10.1.1.1"),
            (&["wire", "a", "b", "--addresses", "10.1.1.1"], "--addresses"),
            (&["unwire", "a", "b"], "wire"),
        ] {
            let done = d.pontoon(arguments).run();
            assert!(done.fails().contains(text), "{arguments:?}: {done}");
        }
        assert_eq!(wires(&d), 0);
        let seen = interface(&b, "wire0");
        assert!(seen.contains("does not exist"), "nothing half done: {seen}");
    }
}
