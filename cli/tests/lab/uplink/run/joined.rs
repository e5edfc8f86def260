//! `run --network`: whoever joins a network with an uplink begins with its address, as the private network's command does.

use std::time::{Duration, Instant};

use pontoon_fixtures::lab::{Bare, Daemon, Done, Proc, require, wait_for};

use super::masked;

/// Where the world is, behind the link.
const WORLD: &str = "203.0.113.9:9000";

/// Who waits for an address in vain takes ten seconds.
const AT_ONCE: Duration = Duration::from_secs(6);

/// What an ordinary user can be a DHCP server with.
const UDHCPD: &str = "start 100.64.8.100\nend 100.64.8.109\ninterface wan0\nlease_file /tmp/joined.leases\npidfile /tmp/joined.pid\n\
                      option subnet 255.255.255.0\noption router 100.64.8.254\noption lease 3600\n";

each_user! {
    /// Several networks, one that is a port of another, another container's: each waits for the server that comes late. Afterwards
    /// nothing is waited for, nor where the link is lost, which is said.
    fn who_joins_begins_with_the_address(world, who) {
        require("busybox");
        world.write("/tmp/udhcpd.conf", UDHCPD);
        let lan = Bare::start(world, who);
        let joined = Bare::start(world, who);
        let daemon = Daemon::start(world, who);
        let link = format!("veth:wan0@{}", lan.pid);
        daemon.create("plain", &[]);
        daemon.create("edge", &["--subnet", "10.44.0.0/24", "--uplink", &link]);
        daemon.create("inner", &["--subnet", "10.46.0.0/24", "--uplink", "switch:edge"]);
        lan.sh("ip link set lo up; ip addr add 203.0.113.9/32 dev lo; ip addr add 100.64.8.254/24 dev wan0");
        let mut outside = lan.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        outside.wait_for("listening");
        // What runs already is attached at once.
        let begun = Instant::now();
        daemon.run(["attach", &joined.pid.to_string(), "--name", "joined", "--network", "edge"]);
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        let awaits = daemon.json(["network", "inspect", "edge"])[0]["Uplink"]["Awaits"].clone();
        assert_eq!(awaits, serde_json::json!(["dhcp"]));

        let run = |networks: &[&str]| -> Proc {
            let networks = networks.iter().flat_map(|n| ["--network", n]);
            let run = world.host().cmd(["pontoon", "run"]).args(networks);
            run.args(["--", "lab-peer", "tcp", WORLD, "who"]).who(who).spawn()
        };
        let seen = |done: &Done| {
            let seen = masked(&done.ok());
            assert!(seen.starts_with("100.64.8.10") && seen.trim().ends_with(" PORT"), "{done}");
            assert_eq!(done.errors(), "", "{done}");
        };
        let waiting = [run(&["edge", "plain"]), run(&["inner"]), run(&["container:joined"])];
        std::thread::sleep(Duration::from_millis(300));
        let _server = lan.cmd(["busybox", "udhcpd", "-f", "-a", "100", "/tmp/udhcpd.conf"]).spawn();
        for run in waiting {
            seen(&run.end(Duration::from_secs(20)));
        }
        for networks in [&["edge", "plain"][..], &["inner"]] {
            let done = run(networks).end(Duration::from_secs(5));
            seen(&done);
            assert!(done.took < AT_ONCE, "{done}");
        }

        drop((_server, outside, lan));
        wait_for("the link to be lost", Duration::from_secs(8), || {
            let uplink = daemon.json(["network", "inspect", "edge"])[0]["Uplink"].clone();
            uplink["Error"].as_str().is_some_and(|e| e.contains("has ended")).then_some(())
        });
        let done = world.host().cmd(["pontoon", "run", "--network", "edge", "--", "true"]).who(who).run();
        let said = format!("the uplink {link} of network edge does not work: ");
        assert_eq!(done.errors().matches(&said).count(), 1, "{done}");
        assert!(done.success() && done.took < AT_ONCE, "{done}");
    }
}
