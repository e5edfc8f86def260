//! Echo, traceroute and path-MTU discovery through the gateway.

use pontoon_fixtures::lab::{Options, Who, World, require};

use crate::{PLAIN, start};

each_user! {
    fn ping_reaches_the_gateway_and_the_world(world, who) {
        let c = start(world, who, "c", &PLAIN);
        let (gw, gw6) = (c.gateway().to_string(), c.gateway6().to_string());
        for to in [&*gw, &*gw6, "198.51.100.10", "2001:db8:2::10", "203.0.113.10"] {
            c.run(["ping", "-n", "-c3", "-i0.2", "-W9", to]);
        }
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s", "1472", "198.51.100.10"]);
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s", "4000", "198.51.100.10"]);
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s", "4000", &gw]);
        let done = c.cmd(["ping", "-n", "-c2", "-i0.2", "-W9", "198.18.1.1"]).run();
        assert!(done.text().contains("Unreachable") && !done.success(), "{done}");
        let done = c.cmd(["ping", "-n", "-c1", "-W9", "-t1", "198.51.100.10"]).run();
        assert!(done.text().contains("Time to live exceeded") && done.text().contains(&gw), "{done}");
        let done = c.cmd(["ping", "-n", "-c1", "-W9", "-t2", "198.51.100.10"]).run();
        assert!(done.text().contains("192.0.2.254") && done.text().contains("exceeded"), "{done}");
    }
}

each_user! {
    fn traceroute_sees_every_hop(world, who) {
        require("traceroute");
        let c = start(world, who, "c", &PLAIN);
        let (gw, gw6) = (c.gateway().to_string(), c.gateway6().to_string());
        for (args, hops) in [
            (&["-4", "198.51.100.10"][..], [&*gw, "192.0.2.254", "198.51.100.10"]),
            (&["-4", "-I", "198.51.100.10"], [&*gw, "192.0.2.254", "198.51.100.10"]),
            (&["-6", "2001:db8:2::10"], [&*gw6, "2001:db8:1::fe", "2001:db8:2::10"]),
            (&["-6", "-I", "2001:db8:2::10"], [&*gw6, "2001:db8:1::fe", "2001:db8:2::10"]),
        ] {
            let seen = c.cmd(["traceroute", "-n", "-q1", "-w9", "-m8"]).args(args).limit(40).run().ok();
            let found: Vec<&str> =
                seen.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect();
            assert_eq!(found, hops, "{args:?}:\n{seen}");
        }
    }
}

each_user! {
    /// A link of 1380 bytes on the way: the error comes back, and the container's kernel learns from it.
    fn path_mtu_is_discovered(world, who) {
        let _peer = crate::peers(world.far(), &["203.0.113.10:9000", "[2001:db8:3::10]:9000"]);
        let c = start(world, who, "c", &PLAIN);
        let done = c.cmd(["ping", "-n", "-c2", "-i0.5", "-W9", "-Mdo", "-s1400", "203.0.113.10"]).run();
        let said = done.text() + &done.errors();
        assert!(said.contains("mtu = 1380") || said.contains("mtu=1380"), "{said}");
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-Mdo", "-s1352", "203.0.113.10"]);
        let done = c.cmd(["ping", "-n", "-6", "-c3", "-i0.5", "-W9", "-Mdo", "-s1400", "2001:db8:3::10"]).run();
        let said = done.text() + &done.errors();
        assert!(said.contains("mtu: 1380") || said.contains("mtu=1380") || said.contains("mtu = 1380"), "{said}");
        // UDP: the first datagram is lost to the discovery, the next goes in fragments.
        for (to, address) in [("203.0.113.10:9000", "203.0.113.10"), ("[2001:db8:3::10]:9000", "2001:db8:3::10")] {
            assert_eq!(c.cmd(["lab-peer", "udp-echo", to, "1440"]).run().ok(), "ok\n");
            let route = c.run(["ip", "route", "get", address]);
            assert!(route.contains("mtu 1380"), "{route}");
        }
    }
}

/// Where ping sockets are shut out, root has a raw socket.
#[test]
fn root_pings_without_ping_sockets() {
    let world = closed();
    let c = start(&world, Who::Root, "c", &PLAIN);
    for to in ["198.51.100.10", "2001:db8:2::10"] {
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", to]);
    }
    let hops = c.run(["traceroute", "-n", "-I", "-q1", "-w9", "-m8", "198.51.100.10"]);
    assert!(hops.contains("192.0.2.254"), "{hops}");
}

/// Where ping sockets are shut out, an ordinary user's echo is refused and counted, `doctor` says what to set, and UDP
/// traceroute works none the less.
#[test]
fn a_user_without_ping_sockets_is_told() {
    let world = closed();
    let c = start(&world, Who::User, "c", &PLAIN);
    let done = c
        .cmd(["ping", "-n", "-c2", "-i0.2", "-W9", "198.51.100.10"])
        .run();
    assert!(!done.success(), "{done}");
    c.run(["ping", "-n", "-c1", "-W9", &c.gateway().to_string()]);
    let stats = c.pontoon(["stats", "--json"]).run().ok();
    assert!(stats.contains("host-unsupported"), "{stats}");
    let doctor = c.pontoon(["doctor"]).run();
    assert!(doctor.text().contains("ping_group_range"), "{doctor}");
    let hops = c.run(["traceroute", "-n", "-q1", "-w9", "-m8", "198.51.100.10"]);
    assert!(
        hops.contains("192.0.2.254") && hops.contains("198.51.100.10"),
        "{hops}"
    );
}

fn closed() -> World {
    World::with(
        Some(env!("CARGO_BIN_EXE_pontoon")),
        Options {
            ping_group_range: "1 0",
            ..Options::default()
        },
    )
}
