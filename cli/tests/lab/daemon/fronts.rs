//! The daemon beside private networks: one list, names looked for with the daemon first, and none given twice.

use std::time::Duration;

use pontoon_fixtures::lab::{Daemon, wait_for};

use super::{address, get_soon, web_server};
use crate::{PLAIN, start};

each_user! {
    fn both_are_listed_and_used(world, who) {
        let _nginx = world.server().nginx(80);
        let alone = start(world, who, "alone", &["-p", "8081:80"]);
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &[]);
        let web = start(world, who, "web", &["--network", "shop", "-p", "8080:80"]);
        let _servers = [web_server(&web), web_server(&alone)];
        // A private network takes further containers as ever.
        let second = start(world, who, "second", &["--network", "alone"]);
        assert_eq!(second.run(["curl", "-sS", "-m3", "http://alone/"]), "hello from alone\n");
        assert_eq!(second.run(["curl", "-sS", "-m3", "http://198.51.100.10/"]), "hello from server\n");
        get_soon(world.server(), "http://192.0.2.1:8080/", "hello from web\n");
        get_soon(world.server(), "http://192.0.2.1:8081/", "hello from alone\n");

        let names = |argv: &[&str]| {
            let all = daemon.json(argv);
            let names: Vec<String> = all.as_array().expect("a list").iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect();
            names.join(" ")
        };
        assert_eq!(names(&["ps", "--json"]), "web alone second");
        assert_eq!(names(&["ps", "--json", "--network", "alone"]), "alone second");
        assert_eq!(names(&["network", "ls", "--json"]), "shop alone");
        let table = daemon.run(["network", "ls"]);
        assert!(table.lines().any(|l| l.starts_with("alone ") && l.contains("private")), "{table}");
        assert!(table.lines().any(|l| l.starts_with("shop ") && !l.contains("private")), "{table}");
        let inspected = daemon.json(["network", "inspect", "alone", "shop"]);
        assert_eq!((&inspected[0]["Private"], &inspected[1]["Private"]), (&true.into(), &false.into()), "{inspected}");
        for (port, of) in [("8080", "web"), ("8081", "alone")] {
            assert!(daemon.run(["port", of]).contains(port));
        }
        daemon.run(["publish", "alone", "8083:80"]);
        daemon.run(["publish", "web", "8084:80"]);
        get_soon(world.server(), "http://192.0.2.1:8083/", "hello from alone\n");
        get_soon(world.server(), "http://192.0.2.1:8084/", "hello from web\n");
        for c in [&web, &alone] {
            c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        }
        for what in ["stats", "fdb", "conntrack"] {
            let argv: &[&str] = match what { "stats" => &["stats", "--json"], "fdb" => &["fdb", "show", "--json"], _ => &["conntrack", "ls", "--json"] };
            let said = daemon.json(argv).to_string();
            assert!(said.contains("\"shop\"") && said.contains("\"alone\""), "{what}: {said}");
        }
        let metrics = daemon.run(["metrics", "--network", "alone"]);
        assert!(metrics.contains("container=\"second\"") && !metrics.contains("\"web\""), "{metrics}");
        // No container is on networks of both, nor on the other's.
        let both = daemon.pontoon(["run", "--network", "shop", "--network", "alone", "--", "true"]).run();
        assert!(both.fails().contains("a private network has its containers to itself"), "{both}");
        assert!(!daemon.pontoon(["network", "connect", "shop", "alone"]).run().success());
        assert!(daemon.pontoon(["network", "rm", "alone"]).run().fails().contains("is a private network"));
        assert_eq!(daemon.run(["network", "prune"]), "");
        // The private ones end with their containers, whatever the daemon does, and the other way round.
        daemon.end().ok();
        assert_eq!(second.run(["curl", "-sS", "-m3", "http://alone/"]), "hello from alone\n");
    }
}

each_user! {
    fn no_name_is_given_twice(world, who) {
        let refused = |argv: &[&str], says: &str| {
            let done = world.host().cmd(["pontoon"]).args(argv).who(who).run();
            assert!(done.fails().contains(says), "{argv:?}: {done}");
        };
        // Without a daemon everything says what is to be done.
        refused(&["network", "create", "shop"], "start it with `pontoon daemon`");
        refused(&["attach", "1", "--name", "x", "--network", "shop"], "no network named shop");
        let alone = start(world, who, "alone", &PLAIN);
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &["--subnet", "10.30.0.0/24"]);
        refused(&["network", "create", "alone"], "a private network named alone is running");
        refused(&["network", "create", "shop"], "exists already");
        // A private network is named after its first container.
        refused(&["run", "--name", "shop", "--", "true"], "is the daemon's");
        for reserved in ["none", "host", "container", "daemon", "container:x"] {
            refused(&["network", "create", reserved], "reserved");
            refused(&["run", "--name", reserved, "--", "true"], "reserved");
            refused(&["attach", "1", "--name", reserved, "--network", "shop"], "reserved");
        }
        for bad in ["", "a b", "-x", "a/b", "x\u{e4}"] {
            assert!(!daemon.pontoon(["network", "create", "--", bad]).run().success(), "{bad}");
        }
        // Containers of one front have different names; a network's is no container's.
        let web = start(world, who, "web", &["--network", "shop"]);
        refused(&["run", "--name", "web", "--network", "shop", "--", "true"], "named web is there already");
        let same = start(world, who, "shop", &["--network", "shop"]);
        assert_eq!(web.run(["dig", "+short", "shop"]).trim(), same.ip.to_string());
        refused(&["attach", &web.pid.to_string(), "--name", "again", "--network", "shop"], "eth0");
        assert!(daemon.container("again").is_null());
        // Once it is free, it can be had.
        drop(alone);
        wait_for("the private network's end", Duration::from_secs(5), || {
            daemon.pontoon(["network", "create", "alone"]).run().success().then_some(())
        });
        refused(&["run", "--name", "alone", "--", "true"], "is the daemon's");
        let joined = start(world, who, "joined", &["--network", "alone"]);
        assert_ne!(address(&daemon.container("joined"), "alone"), web.ip.to_string());
        refused(&["network", "rm", "alone"], "joined");
        drop(joined);
        wait_for("the container's end", Duration::from_secs(5), || daemon.container("joined").is_null().then_some(()));
        daemon.run(["network", "rm", "alone"]);
        world.host().cmd(["pontoon", "run", "--name", "alone", "--", "true"]).who(who).run().ok();
    }
}
