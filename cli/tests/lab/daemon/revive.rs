//! A packet process that dies is started anew by the daemon, alone.

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, Who, World, wait_for};

use super::{address, daemon_pid, get_soon, packet_pid, ticks, web_server};
use crate::{server_peers, start};

fn kill(world: &World, pid: u64) {
    world.host().run(["kill", "-9", &pid.to_string()]);
}

/// The packet processes that no network has: those of wires.
fn wires(world: &World, daemon: &Daemon<'_>) -> Vec<u64> {
    let networks = daemon.json(["network", "ls", "--json"]);
    let of_networks: Vec<u64> = networks
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|n| n["packet_pid"].as_u64())
        .collect();
    world
        .processes()
        .into_iter()
        .filter(|(_, args)| args.contains("__packet"))
        .map(|(pid, _)| pid.into())
        .filter(|pid| !of_networks.contains(pid))
        .collect()
}

fn pings(c: &Container<'_>, to: &str) {
    wait_for(to, Duration::from_secs(3), || {
        c.cmd(["ping", "-n", "-c1", "-W1", to])
            .run()
            .success()
            .then_some(())
    });
}

each_user! {
    fn a_packet_process_is_started_anew_alone(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &["--subnet", "10.30.0.0/24"]);
        daemon.create("calm", &["--subnet", "10.31.0.0/24"]);
        let web = start(world, who, "web", &["--network", "shop:alias=www", "-p", "8080:80"]);
        let both = start(world, who, "both", &["--network", "calm", "--network", "shop"]);
        let other = start(world, who, "other", &["--network", "calm"]);
        daemon.run(["rule", "add", "deny", "web:80", "--from", "198.51.100.11"]);
        daemon.run(["wire", "web", "both", "--addresses", "10.77.0.1,10.77.0.2"]);
        let _server = web_server(&web);
        let held = ["lab-peer", "tcp", "198.51.100.10:9000", "hold", "8000"];
        let mut calm = other.cmd(held).spawn();
        let mut lost = web.cmd(held).spawn();
        wait_for("two connections", Duration::from_secs(5), || {
            let flows = daemon.json(["conntrack", "ls", "--json"]);
            (flows.to_string().matches("\"established\"").count() == 2).then_some(())
        });
        let before = (daemon.container("web"), packet_pid(&daemon, "shop"), packet_pid(&daemon, "calm"));

        kill(world, before.1);
        get_soon(world.server(), "http://192.0.2.1:8080/", "hello from web\n");
        assert_ne!(packet_pid(&daemon, "shop"), before.1);
        assert_eq!(packet_pid(&daemon, "calm"), before.2);
        let after = daemon.container("web");
        for key in ["mac", "addresses", "aliases", "interface", "default_route"] {
            assert_eq!(after["endpoints"][0][key], before.0["endpoints"][0][key], "{key}");
        }
        assert_eq!(after["published"], before.0["published"]);
        pings(&web, "198.51.100.10");
        pings(&both, &address(&after, "shop"));
        assert_eq!(both.run(["dig", "+short", "www"]).trim(), address(&after, "shop"));
        let denied = world.server().cmd(["curl", "-sS", "-m2", "--interface", "198.51.100.11", "http://192.0.2.1:8080/"]).run();
        assert!(!denied.success(), "{denied}");
        // A wire's as well.
        let [wire] = wires(world, &daemon)[..] else { panic!("one wire") };
        kill(world, wire);
        pings(&web, "10.77.0.2");
        assert_ne!(wires(world, &daemon), [wire]);

        assert!(calm.wait(Duration::from_secs(15)).is_some_and(|s| s.success()), "the other network noticed: {}", calm.stderr());
        assert!(lost.wait(Duration::from_secs(15)).is_some_and(|s| !s.success()), "a connection outlived its relay");
        drop((both, other));
        wait_for("their end", Duration::from_secs(5), || daemon.container("both").is_null().then_some(()));
        assert_eq!(wires(world, &daemon), [] as [u64; 0], "a wire goes with its container");
    }
}

each_user! {
    /// The daemon rests between its tries, and serves the others meanwhile.
    fn one_that_dies_again_and_again_costs_little(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("doomed", &["--subnet", "10.30.0.0/24"]);
        daemon.create("calm", &["--subnet", "10.31.0.0/24"]);
        let c = start(world, who, "c", &["--network", "doomed", "-p", "8080:80"]);
        let calm = start(world, who, "calm-c", &["--network", "calm"]);
        let _server = web_server(&c);
        let (pid, spared) = (daemon_pid(&daemon), packet_pid(&daemon, "calm"));
        let killer = format!(
            "n=0; while :; do for p in $(pgrep -f [_]_packet); do [ $p = {spared} ] || {{ kill -9 $p && n=$((n+1)) && echo died $n; }}; done; sleep 0.02; done"
        );
        let mut killer = world.host().cmd(["bash", "-c", &killer]).spawn();
        killer.wait_for("died");
        let (before, said) = (ticks(world, pid), killer.stdout());
        for _ in 0..5 {
            std::thread::sleep(Duration::from_secs(1));
            calm.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
            assert!(daemon.pontoon(["ps"]).run().ok().contains("calm-c"));
        }
        let deaths = killer.stdout().lines().count() - said.lines().count();
        let spent = ticks(world, pid) - before;
        println!("{who:?}: {deaths} deaths in 5 s cost {spent} hundredths of a second");
        assert!((2..=12).contains(&deaths), "{deaths} deaths in five seconds");
        assert!(spent < 100, "{spent} hundredths of a second");
        drop(killer);
        get_soon(world.server(), "http://192.0.2.1:8080/", "hello from c\n");
        pings(&c, "198.51.100.10");
    }
}

/// A network may have a name that looks like a wire's, and both are mended.
#[test]
fn a_wire_is_not_mistaken_for_a_network() {
    let world = crate::world();
    let daemon = Daemon::start(&world, Who::Root);
    for network in ["a--b", "net"] {
        daemon.create(network, &[]);
    }
    let a = start(&world, Who::Root, "a", &["--network", "net"]);
    let _b = start(&world, Who::Root, "b", &["--network", "net"]);
    daemon.run(["wire", "a", "b", "--addresses", "10.77.0.1,10.77.0.2"]);
    pings(&a, "10.77.0.2");
    let pid = daemon_pid(&daemon);
    let [wire] = wires(&world, &daemon)[..] else {
        panic!("one wire")
    };
    let before = ticks(&world, pid);
    kill(&world, wire);
    pings(&a, "10.77.0.2");
    kill(&world, packet_pid(&daemon, "a--b"));
    std::thread::sleep(Duration::from_secs(1));
    pings(&a, "10.77.0.2");
    let spent = ticks(&world, pid) - before;
    assert!(spent < 50, "{spent} hundredths of a second");
}
