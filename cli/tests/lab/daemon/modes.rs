//! `--network none`, `host` and `container:NAME` beside the daemon and its networks.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, wait_for};

use super::{address, get_soon, socket};
use crate::start;

each_user! {
    fn the_network_of_a_daemons_container_is_shared(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &["--subnet", "10.30.0.0/24"]);
        daemon.create("back", &[]);
        let web = start(world, who, "web", &["--network", "shop", "--network", "back", "-p", "8080:80"]);
        let db = start(world, who, "db", &["--network", "back"]);
        let in_web = |script: &str| {
            world.host().cmd(["pontoon", "run", "--network", "container:web", "--", "bash", "-ec", script]).who(who)
        };
        let addresses = "ip -o addr show scope global | awk '{print $2, $4}'";
        assert_eq!(in_web(addresses).run().ok(), web.sh(addresses));
        assert_eq!(in_web("dig +short db").run().ok().trim(), address(&daemon.container("db"), "back"));
        in_web(&format!("ping -n -c1 -W2 {}; hostname | grep -x web", db.ip)).run().ok();
        // A server beside it answers on its published port.
        world.write("/tmp/side/index.html", "from the side\n");
        let side = in_web("echo up; exec busybox httpd -f -p 80 -h /tmp/side").spawn();
        get_soon(world.server(), "http://192.0.2.1:8080/", "from the side\n");
        assert_eq!(daemon.json(["ps", "--json"]).as_array().map(Vec::len), Some(2), "one container, two commands");
        drop(side);
        // One that was attached has no process of ours to share it by, but its own.
        let bare = Bare::start(world, who);
        daemon.run(["attach", &bare.pid.to_string(), "--name", "bare", "--network", "shop"]);
        let shared = world.host().cmd(["pontoon", "run", "--network", "container:bare", "--", "ip", "-o", "addr"]).who(who).run();
        assert!(shared.ok().contains("10.30.0."), "{shared}");
    }
}

each_user! {
    fn the_others_have_nothing_of_the_daemons(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &[]);
        let run = |mode: &str, script: &str| {
            world.host().cmd(["pontoon", "run", "--network", mode, "--", "bash", "-c", script]).who(who).run()
        };
        assert_eq!(run("none", "ls /sys/class/net").ok(), "lo\n");
        assert_eq!(run("host", "ip -o addr").ok(), world.host().run(["ip", "-o", "addr"]));
        for mode in ["none", "host", "shop"] {
            // The daemon's socket is hidden from containers, and nobody listens for them elsewhere.
            let done = run(mode, &format!("test -e {} || pontoon network create mine", socket(who)));
            assert!(!done.success(), "{mode}: {done}");
        }
        let mixed = daemon.pontoon(["run", "--network", "none", "--network", "shop", "--", "true"]).run();
        assert!(!mixed.success(), "{mixed}");
        assert_eq!(daemon.json(["network", "ls", "--json"]).as_array().map(Vec::len), Some(1));
        wait_for("no container", Duration::from_secs(5), || (daemon.json(["ps", "--json"]) == serde_json::json!([])).then_some(()));
    }
}
