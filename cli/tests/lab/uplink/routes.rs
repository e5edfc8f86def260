//! `pontoon route`: from one network to another in the direction that was allowed, and to what is behind a container.

use pontoon_fixtures::lab::{Container, Daemon, Who, World};
use serde_json::json;

use super::{came, masked};
use crate::{container_peers, start};

/// Two networks, and a container on each.
fn two<'w>(world: &'w World, who: Who) -> (Daemon<'w>, [Container<'w>; 2]) {
    let d = Daemon::start(world, who);
    d.create("one", &["--subnet", "10.44.0.0/24", "--subnet", "fd44::/64"]);
    d.create("two", &["--subnet", "10.45.0.0/24", "--subnet", "fd45::/64"]);
    let a = start(world, who, "a", &["--network", "one:ip=10.44.0.2,ip6=fd44::2"]);
    let b = start(world, who, "b", &["--network", "two:ip=10.45.0.2,ip6=fd45::2"]);
    (d, [a, b])
}

fn who_sees(c: &Container<'_>, to: &str) -> String {
    masked(&came(
        &c.cmd(["timeout", "2", "lab-peer", "tcp", to, "who"]).run(),
    ))
}

each_user! {
    fn between_networks_in_one_direction(world, who) {
        let (d, [a, b]) = two(world, who);
        let _a = container_peers(&a);
        let _b = container_peers(&b);
        let (to_b, to_b6) = ("10.45.0.2:9000", "[fd45::2]:9000");
        for to in [to_b, to_b6] {
            assert!(!who_sees(&a, to).contains("PORT"), "no way to {to} yet");
        }
        d.run(["route", "one", "add", "10.45.0.0/24", "via", "two"]);
        d.run(["route", "one", "add", "fd45::/64", "via", "two"]);
        let listed = d.json(["route", "one", "ls", "--json"]);
        assert_eq!(
            listed,
            json!([{"network": "one", "to": "10.45.0.0/24", "via": "two"}, {"network": "one", "to": "fd45::/64", "via": "two"}])
        );
        // By its own address, untranslated.
        assert_eq!(who_sees(&a, to_b), "10.44.0.2 PORT");
        assert_eq!(who_sees(&a, to_b6), "[fd44::2] PORT");
        for to in [to_b, to_b6] {
            a.run(["lab-peer", "tcp", to, "echo", "3000000"]);
            a.run(["lab-peer", "tcp", to, "source", "3000000"]);
            a.run(["lab-peer", "udp-echo", to, "20000"]);
        }
        for to in ["10.45.0.2", "fd45::2"] {
            a.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s4000", to]);
        }
        let hops = a.run(["traceroute", "-n", "-q1", "-w9", "-m5", "10.45.0.2"]);
        let hops: Vec<&str> = hops.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect();
        assert_eq!((hops.first(), hops.last(), hops.len()), (Some(&"10.44.0.1"), Some(&"10.45.0.2"), 3), "{hops:?}");
        // Nothing there opens a way back, and the world is where it was.
        assert!(!who_sees(&b, "10.44.0.2:9000").contains("PORT"));
        assert!(!who_sees(&b, "[fd44::2]:9000").contains("PORT"));
        assert!(!b.cmd(["ping", "-n", "-c1", "-W1", "10.44.0.2"]).run().success());
        a.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        b.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        // Both ways, when it is said; and no more, when it is taken back.
        d.run(["route", "two", "add", "10.44.0.0/24", "via", "one"]);
        assert_eq!(who_sees(&b, "10.44.0.2:9000"), "10.45.0.2 PORT");
        let done = d.pontoon(["network", "rm", "two"]).run();
        assert!(!done.success(), "routes lead to it: {done}");
        d.run(["route", "one", "del", "10.45.0.0/24"]);
        assert!(!who_sees(&a, to_b).contains("PORT"));
        assert_eq!(who_sees(&a, to_b6), "[fd44::2] PORT");
        assert_eq!(who_sees(&b, "10.44.0.2:9000"), "10.45.0.2 PORT");
        let done = d.pontoon(["route", "one", "del", "10.45.0.0/24"]).run();
        assert!(done.fails().contains("10.45.0.0/24"), "{done}");
    }
}

/// A container that forwards: another subnet is behind it, for those on the network and for the way out.
#[test]
fn to_a_subnet_behind_a_container() {
    let world = &crate::world();
    let [_tcp, _udp] = crate::server_peers(world);
    let (d, [a, b]) = two(world, Who::Root);
    let router = start(world, Who::Root, "router", &["--network", "one:ip=10.44.0.9"]);
    // Behind it a namespace of its own, with a server.
    let behind = pontoon_fixtures::lab::Bare::start(world, Who::Root);
    world.host().sh(&format!(
        "ip link add in0 netns {0} type veth peer name eth0 netns {1}
         nsenter -t {0} -n sh -c 'sysctl -qw net.ipv4.ip_forward=1; ip addr add 10.46.0.1/24 dev in0; ip link set in0 up'
         nsenter -t {1} -n sh -c 'ip addr add 10.46.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.46.0.1'",
        router.pid, behind.pid
    ));
    let mut server = behind.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    server.wait_for("listening");
    let to = "10.46.0.2:9000";
    assert!(!who_sees(&a, to).contains("PORT"));
    d.run(["route", "one", "add", "10.46.0.0/24", "via", "10.44.0.9"]);
    assert_eq!(who_sees(&a, to), "10.44.0.2 PORT");
    a.run(["lab-peer", "tcp", to, "echo", "3000000"]);
    // From another network, by both gateways.
    d.run(["route", "two", "add", "10.46.0.0/24", "via", "one"]);
    assert_eq!(who_sees(&b, to), "10.45.0.2 PORT");
    // And what is behind reaches the containers of the network.
    let _a = container_peers(&a);
    assert_eq!(
        masked(&came(
            &behind
                .cmd(["timeout", "2", "lab-peer", "tcp", "10.44.0.2:9000", "who"])
                .run()
        )),
        "10.46.0.2 PORT"
    );
    // What stands on another route goes before that.
    let del = |network: &str| d.pontoon(["route", network, "del", "10.46.0.0/24"]).run();
    assert!(del("one").fails().contains("that of two"));
    del("two").ok();
    assert!(!who_sees(&b, to).contains("PORT"));
    del("one").ok();
    assert!(!who_sees(&a, to).contains("PORT"));
}
