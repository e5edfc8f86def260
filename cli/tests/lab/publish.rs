//! Published ports: TCP and UDP, both families, ranges, random ones, live changes, real client addresses.

use std::time::Duration;

use pontoon_fixtures::lab::wait_for;

use crate::{PLAIN, container_peers, start};

each_user! {
    /// The server in the container sees the client's address; a client on the host appears as the gateway.
    fn the_container_sees_the_real_client(world, who) {
        let c = start(world, who, "c", &["-p", "9100:9000", "-p", "9100:9000/udp"]);
        let [_tcp, _udp] = container_peers(&c);
        let outside = world.server();
        assert!(outside.run(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).starts_with("198.51.100.10:"));
        assert!(outside.run(["lab-peer", "tcp", "[2001:db8:1::1]:9100", "who"]).starts_with("[2001:db8:2::"));
        assert!(outside.run(["lab-peer", "udp-ask", "192.0.2.1:9100"]).starts_with("198.51.100.10:"));
        assert!(outside.run(["lab-peer", "udp-ask", "[2001:db8:1::1]:9100"]).starts_with("[2001:db8:2::"));
        let (gw, gw6) = (format!("{}:", c.gateway()), format!("[{}]:", c.gateway6()));
        for (to, gw) in [("127.0.0.1:9100", &gw), ("192.0.2.1:9100", &gw), ("[::1]:9100", &gw6)] {
            for kind in [&["tcp", to, "who"][..], &["udp-ask", to]] {
                let seen = world.host().cmd(["lab-peer"]).args(kind).run().ok();
                assert!(seen.starts_with(gw.as_str()), "{kind:?}: {seen} is not {gw}");
            }
        }
    }
}

each_user! {
    fn ranges_random_ports_and_host_addresses(world, who) {
        let c = start(
            world,
            who,
            "c",
            &["-p", "9101-9103:9000-9002", "-p", "127.0.0.1:9110:9000", "-p", "[::1]:9111:9000", "-p", "9000", "-P", "--expose", "9000/udp"],
        );
        let [_tcp, _udp] = container_peers(&c);
        let host = world.host();
        let who_at = |to: &str| host.cmd(["lab-peer", "tcp", to, "who"]).run();
        who_at("127.0.0.1:9101").ok();
        who_at("192.0.2.1:9101").ok();
        who_at("127.0.0.1:9110").ok();
        who_at("[::1]:9111").ok();
        assert!(who_at("192.0.2.1:9110").fails().contains("refused"));
        assert!(who_at("127.0.0.1:9111").fails().contains("refused"));
        // Nothing listens on 9001 of the container: the client, connected before it was known, is reset.
        assert!(!who_at("127.0.0.1:9102").success());

        let ports = c.pontoon(["port", "c"]).run().ok();
        for line in ["9000/tcp -> 0.0.0.0:9101", "9002/tcp -> 0.0.0.0:9103", "9000/tcp -> 127.0.0.1:9110", "9000/tcp -> [::1]:9111"] {
            assert!(ports.lines().any(|l| l == line), "no `{line}` in:\n{ports}");
        }
        // The random ones: what `port` prints is what works.
        let one = c.pontoon(["port", "c", "9000/udp"]).run().ok();
        let at = one.lines().find_map(|l| l.strip_prefix("0.0.0.0:")).unwrap_or_else(|| panic!("{one}"));
        assert!(host.run(["lab-peer", "udp-ask", &format!("192.0.2.1:{at}")]).contains(&c.gateway().to_string()));
        let listed = c.pontoon(["port", "c", "--json"]).run().json();
        assert!(listed.as_array().is_some_and(|l| l.len() >= 6), "{listed}");
    }
}

each_user! {
    fn ports_come_and_go_while_it_runs(world, who) {
        let c = start(world, who, "c", &PLAIN);
        let [_tcp, _udp] = container_peers(&c);
        let host = world.host();
        let who_at = |to: &str| host.cmd(["lab-peer", "tcp", to, "who"]).run();
        assert!(!who_at("127.0.0.1:9100").success());
        c.pontoon(["publish", "c", "9100:9000", "9100:9000/udp", "9101-9102:9000-9001"]).run().ok();
        who_at("127.0.0.1:9100").ok();
        who_at("127.0.0.1:9101").ok();
        host.run(["lab-peer", "udp-echo", "127.0.0.1:9100", "100"]);
        assert_eq!(c.pontoon(["port", "c", "9000/udp"]).run().ok().lines().next(), Some("0.0.0.0:9100"));
        // An open connection outlives its rule; new ones are refused.
        let open = world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "hold", "3000"]).spawn();
        std::thread::sleep(Duration::from_millis(500));
        c.pontoon(["unpublish", "c", "9100:9000"]).run().ok();
        assert!(who_at("127.0.0.1:9100").fails().contains("refused"));
        who_at("127.0.0.1:9101").ok();
        host.run(["lab-peer", "udp-echo", "127.0.0.1:9100", "100"]);
        open.end(Duration::from_secs(10)).ok();
        // Taken: an error that names the port, and nothing half done.
        let _nginx = host.nginx(8088);
        let done = c.pontoon(["publish", "c", "9105:9000", "8088:9000"]).run();
        assert!(done.fails().contains("8088"), "{done}");
        assert!(who_at("127.0.0.1:9105").fails().contains("refused"), "all or nothing");
        let done = c.pontoon(["unpublish", "c", "9199:9000"]).run();
        assert!(done.fails().contains("9199"), "{done}");
    }
}

each_user! {
    fn a_taken_port_is_an_error_at_once(world, who) {
        let host = world.host();
        let _nginx = host.nginx(8080);
        let done = host.cmd(["pontoon", "run", "-p", "8080:80", "--", "true"]).who(who).run();
        let why = done.fails();
        assert!(why.contains("8080") && done.took < Duration::from_secs(5), "{done}");
        let udp = host.cmd(["socat", "-u", "UDP4-RECV:8081", "-"]).spawn();
        host.wait_udp(8081);
        let done = host.cmd(["pontoon", "run", "-p", "8081:80/udp", "--", "true"]).who(who).run();
        assert!(done.fails().contains("8081"), "{done}");
        drop(udp);
        let c = start(world, who, "c", &["-p", "8082:80"]);
        let done = host.cmd(["pontoon", "run", "-p", "8082:80", "--", "true"]).who(who).run();
        assert!(done.fails().contains("8082"), "{done}");
        drop(c);
    }
}

each_user! {
    /// A client of a container that does not listen is reset, not left hanging.
    fn a_container_that_refuses_resets_the_client(world, who) {
        let c = start(world, who, "c", &["-p", "9100:9000", "-p", "9100:9000/udp"]);
        let done = world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run();
        assert!(!done.success() && done.took < Duration::from_secs(5), "{done}");
        let [_tcp, _udp] = container_peers(&c);
        wait_for("a server that came later", Duration::from_secs(3), || {
            world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run().success().then_some(())
        });
    }
}

/// Root may bind low ports; an ordinary user is told what would allow it.
#[test]
fn low_ports_are_for_those_who_may() {
    use pontoon_fixtures::lab::Who;
    let world = crate::world();
    let c = start(&world, Who::Root, "c", &["-p", "80:9000"]);
    let [_tcp, _udp] = container_peers(&c);
    world.server().run(["lab-peer", "tcp", "192.0.2.1:80", "who"]);
    let done = world
        .host()
        .cmd(["pontoon", "run", "-p", "81:80", "--", "true"])
        .who(Who::User)
        .run();
    let why = done.fails();
    assert!(
        why.contains("81") && why.contains("ip_unprivileged_port_start"),
        "{done}"
    );
}
