//! The state file: always whole, never lost, and only one daemon's.

use std::time::Duration;

use pontoon_fixtures::lab::{Daemon, Who, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use super::{get_soon, socket, web_server};
use crate::start;

fn parse(world: &World, path: &str) -> Value {
    let text = world.read(path);
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)))
}

each_user! {
    /// Killed at any moment, with changes on their way, it leaves a state behind that the next begins with.
    fn it_is_whole_at_every_moment(world, who) {
        let mut daemon = Daemon::start(world, who);
        daemon.create("stays", &["--subnet", "10.30.0.0/24"]);
        let web = start(world, who, "web", &["--network", "stays", "-p", "8080:80"]);
        let _server = web_server(&web);
        let change = "for i in $(seq 1000); do
            pontoon network create n$i; pontoon rule add deny web:80 --from 203.0.113.$((i % 250))
            pontoon publish web $((9000 + i)):80; pontoon unpublish web $((9000 + i)):80; pontoon network rm n$i
        done 2>/dev/null";
        let mut deaths = 0;
        for pause in [30, 50, 70, 110, 130, 170, 190, 230] {
            let changes = world.host().cmd(["sh", "-c", change]).who(who).spawn();
            // Read over and over while it is written, as well.
            for _ in 0..pause / 10 {
                std::thread::sleep(Duration::from_millis(10));
                parse(world, &daemon.state());
            }
            daemon.kill();
            drop(changes);
            let state = parse(world, &daemon.state());
            assert!(state["networks"].to_string().contains("stays"), "{state}");
            daemon.again();
            deaths += 1;
        }
        assert_eq!(deaths, 8);
        get_soon(world.server(), "http://192.0.2.1:8080/", "hello from web\n");
        assert!(daemon.json(["rule", "ls", "--json"]).as_array().is_some_and(|r| !r.is_empty()), "changes were made");
        let owner = world.host().run(["stat", "-c", "%a %u", &daemon.state()]);
        assert_eq!(owner, format!("600 {}\n", who.uid()));
        let files = world.host().sh(&format!("ls {}*", daemon.state()));
        assert!(files.lines().count() <= 2, "{files}");
    }
}

each_user! {
    /// What it cannot read it leaves as it is, and says so; so does every command, as there is no daemon then.
    fn one_that_is_not_understood_is_left_alone(world, who) {
        let mut daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        daemon.kill();
        let good = world.read(&daemon.state());
        let half = &good[..good.len() / 2];
        let other = String::from_utf8_lossy(&good).replace("\"version\": 1", "\"version\": 99");
        for (bad, says) in [(half, "not what a daemon wrote"), (b"", "not what a daemon wrote"), (other.as_bytes(), "version 99")] {
            world.write(&daemon.state(), bad);
            let done = world.host().cmd(["pontoon", "daemon", "--state", &daemon.state()]).who(who).limit(10).run();
            let why = done.fails();
            assert!(why.contains(says) && why.contains(&daemon.state()), "{done}");
            assert_eq!(world.read(&daemon.state()), bad, "it is as it was");
            assert!(!world.path(&socket(who)).exists(), "no socket is left");
            assert!(world.processes().is_empty(), "{:?}", world.processes());
            assert!(daemon.pontoon(["rule", "ls"]).run().fails().contains("no daemon listens"));
        }
        world.write(&daemon.state(), &good);
        daemon.again();
        assert_eq!(daemon.json(["network", "ls", "--json"])[0]["name"], "net");
    }
}

each_user! {
    /// Networks that were removed stay so, with all that hung on them; also where somebody took one out of the file.
    fn what_was_removed_stays_so(world, who) {
        let mut daemon = Daemon::start(world, who);
        for network in ["kept", "gone", "lost"] {
            daemon.create(network, &[]);
        }
        let web = start(world, who, "web", &["--network", "kept", "--network", "lost", "-p", "8080:80"]);
        let _single = start(world, who, "single", &["--network", "lost", "-p", "8081:80"]);
        let _server = web_server(&web);
        daemon.run(["network", "rm", "gone"]);
        daemon.run(["rule", "add", "deny", "web:80", "--from", "203.0.113.0/24"]);
        daemon.run(["rule", "rm", "1"]);
        daemon.kill();
        let mut state = parse(world, &daemon.state());
        state["networks"].as_array_mut().expect("networks").retain(|n| n["plan"]["name"] != "lost");
        world.write(&daemon.state(), state.to_string());
        daemon.again();
        let networks = daemon.json(["network", "ls", "--json"]);
        assert_eq!(networks.as_array().map(Vec::len), Some(1), "{networks}");
        assert_eq!(daemon.json(["rule", "ls", "--json"]), serde_json::json!([]));
        get_soon(world.server(), "http://192.0.2.1:8080/", "hello from web\n");
        let containers = daemon.json(["ps", "--json"]);
        assert_eq!(containers.as_array().map(Vec::len), Some(1), "one on no network is none: {containers}");
        assert_eq!(containers[0]["endpoints"].as_array().map(Vec::len), Some(1), "{containers}");
        daemon.create("gone", &[]);
        daemon.create("lost", &[]);
        let rule = daemon.json(["rule", "add", "deny", "web:80", "--from", "203.0.113.0/24", "--json"]);
        assert_eq!(rule["id"], 2, "numbers of rules are not used again");
    }
}

each_user! {
    fn a_second_daemon_is_refused(world, who) {
        let host = world.host();
        let mut first = Daemon::start(world, who);
        first.create("net", &[]);
        let before = world.read(&first.state());
        let second = host.cmd(["pontoon", "daemon", "--state", "/tmp/second.json"]).who(who).limit(10).run();
        let why = second.fails();
        assert!(why.contains("a daemon listens on") && why.contains(&socket(who)) && why.contains("--socket"), "{second}");
        assert!(!world.path("/tmp/second.json").exists());
        // Nor does it touch the first one's state, should it be told to.
        host.cmd(["pontoon", "daemon", "--state", &first.state()]).who(who).limit(10).run().fails();
        assert_eq!(world.read(&first.state()), before);
        assert!(first.proc.poll().is_none());
        assert_eq!(first.json(["network", "ls", "--json"])[0]["name"], "net");
        // Beside it, on a socket of its own.
        host.cmd(["mkdir", "-m", "700", "/tmp/beside"]).who(who).run().ok();
        let path = "/tmp/beside/d.sock";
        let beside = host.cmd(["pontoon", "daemon", "--socket", path, "--state", "/tmp/beside/state"]).who(who).spawn();
        let ask = |argv: &[&str]| host.cmd(["pontoon"]).args(argv).who(who).env("PONTOON_SOCKET", path).run();
        wait_for("the second daemon", Duration::from_secs(5), || ask(&["rule", "ls"]).success().then_some(()));
        ask(&["network", "create", "net"]).ok();
        ask(&["network", "create", "mine"]).ok();
        assert!(!first.json(["network", "ls", "--json"]).to_string().contains("mine"));
        let listed = ask(&["network", "ls", "--json"]).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        assert!(ask(&["run", "--network", "mine", "--", "ip", "addr"]).ok().contains("eth0"));
        // PONTOON_SOCKET says to a daemon where to listen, too.
        let third = host.cmd(["pontoon", "daemon", "--state", "/tmp/beside/third"]).env("PONTOON_SOCKET", path).who(who).limit(10).run();
        assert!(third.fails().contains(path), "{third}");
        let relative = host.cmd(["pontoon", "rule", "ls"]).env("PONTOON_SOCKET", "d.sock").who(who).run();
        assert!(relative.fails().contains("PONTOON_SOCKET=d.sock is not an absolute path"), "{relative}");
        beside.signal(Signal::TERM);
        assert!(beside.end(Duration::from_secs(5)).success());
        assert!(!world.path(path).exists(), "the socket goes with the daemon");
    }
}

each_user! {
    /// Without --state it is where such files are, and no other user can read it.
    fn it_has_a_place_of_its_own(world, who) {
        let host = world.host();
        host.run(["sh", "-c", "mkdir -p /tmp/home && chmod 777 /tmp/home"]);
        let home = format!("/tmp/home/{}", who.uid());
        host.cmd(["mkdir", &home]).who(who).run().ok();
        let daemon = host.cmd(["pontoon", "daemon"]).env("HOME", &home).env("XDG_STATE_HOME", &format!("{home}/state")).who(who).spawn();
        let create = || host.cmd(["pontoon", "network", "create", "net"]).who(who).run().success();
        wait_for("the daemon", Duration::from_secs(5), || create().then_some(()));
        let path = format!("{home}/state/pontoon/state.json");
        assert_eq!(parse(world, &path)["networks"][0]["plan"]["name"], "net");
        assert_eq!(host.run(["stat", "-c", "%a", &path]), "600\n");
        assert_eq!(host.run(["stat", "-c", "%a", &format!("{home}/state/pontoon")]), "700\n");
        drop(daemon);
        let _daemon = host.cmd(["pontoon", "daemon"]).env("HOME", &home).who(who).spawn();
        if who == Who::User {
            wait_for("the state", Duration::from_secs(5), || {
                host.cmd(["pontoon", "network", "create", "other"]).who(who).run().success().then_some(())
            });
            assert_eq!(parse(world, &format!("{home}/.local/state/pontoon/state.json"))["networks"][0]["plan"]["name"], "other");
        }
    }
}
