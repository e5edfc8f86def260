//! Who may speak to the daemon, wherever its socket lies.

use std::time::Duration;

use pontoon_fixtures::lab::{Daemon, Who, wait_for};

use crate::start;

/// A directory that is open to all, which nobody is advised to make.
const OPEN: &str = "/tmp/open/d.sock";

each_user! {
    fn others_and_containers_are_refused(world, who) {
        let host = world.host();
        host.sh("mkdir -p /tmp/open; chmod 1777 /tmp/open");
        // The tests' own commands ask at the usual place.
        let place = format!("{}/daemon.sock", who.runtime_dir());
        let usual = Daemon::start(world, who);
        usual.create("net", &[]);
        let c = start(world, who, "c", &["--network", "net"]);
        let mut beside = host.cmd(["pontoon", "daemon", "--socket", OPEN, "--state", "/tmp/open/state"]).who(who).spawn();
        let ask = |socket: &str| ["curl", "-sS", "-m5", "-w", " %{http_code}", "--unix-socket", socket, "http://x/v1/networks"].map(str::to_owned);
        pontoon_fixtures::lab::wait_for("its socket", std::time::Duration::from_secs(5), || {
            host.cmd(ask(OPEN)).who(who).run().text().ends_with(" 200").then_some(())
        });
        host.run(["chmod", "777", OPEN]);
        // Another user is kept out by the directory, and where that is open, by who he is.
        let stranger = if who == Who::Root { Who::User } else { Who::Account };
        assert!(!host.cmd(ask(&place)).who(stranger).run().success());
        let other = host.cmd(ask(OPEN)).who(stranger).run().ok();
        assert!(other.ends_with(" 403") && other.contains(&format!("user {}", stranger.uid())), "{other}");
        // A container has its owner's user id. The usual place is hidden from it, the open one is not.
        assert!(!c.cmd(ask(&place)).run().success());
        let inside = c.cmd(ask(OPEN)).run().ok();
        assert!(inside.ends_with(" 403") && inside.contains("another user namespace"), "{inside}");
        let from_other = c.cmd(["sh", "-c", &format!("PONTOON_SOCKET={OPEN} pontoon network create mine")]).run();
        assert!(from_other.fails().contains("another user namespace"), "{from_other}");
        // Nor is a namespace that he made himself.
        let unshared = host.cmd(["unshare", "-Ur"]).args(ask(OPEN)).who(who).run().ok();
        assert!(unshared.ends_with(" 403"), "{unshared}");
        let owner = host.cmd(ask(OPEN)).who(who).run().ok();
        assert_eq!(owner, "[] 200", "nobody has made anything");
        assert!(beside.poll().is_none());
    }
}

each_user! {
    /// What is attached must be the caller's.
    fn namespaces_of_others_are_refused(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let refused = |target: &str, says: &str| {
            let done = daemon.pontoon(["attach", target, "--name", "x", "--network", "net"]).limit(10).run();
            assert!(done.fails().contains(says), "{target}: {done}");
            assert!(daemon.container("x").is_null());
        };
        refused("999999", "there is no process 999999");
        refused("/run/netns/none-such", "/run/netns/none-such");
        refused("/etc/hostname", "is not a network namespace");
        refused("/tmp", "is not a network namespace");
        world.host().cmd(["mkfifo", "/tmp/pipe"]).who(who).run().ok();
        // Opening one waits for its other end, which never comes.
        refused("/tmp/pipe", "is not a network namespace");
        refused("/dev/null", "is not a network namespace");
        let own = world.host().cmd(["sleep", "1000"]).who(who).spawn();
        // Just after the fork it is still called as who began it.
        let pid = wait_for("sleep", Duration::from_secs(5), || {
            let all = world.processes();
            all.iter().find(|(_, args)| args == "sleep 1000").map(|(pid, _)| pid.to_string())
        });
        refused(&pid, "in the host's network namespace");
        refused(&format!("/proc/{pid}/ns/net"), "host's network namespace");
        drop(own);
        if who == Who::User {
            world.host().run(["ip", "netns", "add", "roots"]);
            refused("/run/netns/roots", "/run/netns/roots");
            let other = pontoon_fixtures::lab::Bare::start(world, Who::Account);
            refused(&other.pid.to_string(), &format!("belongs to user {}", Who::Account.uid()));
        }
        assert_eq!(daemon.json(["ps", "--json"]), serde_json::json!([]));
        let addresses = daemon.json(["network", "inspect", "net"]);
        assert_eq!(addresses[0]["Containers"], serde_json::json!({}));
    }
}
