//! `attach` and `detach`: namespaces that somebody else made, by a process or by a path.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, Who, wait_for};
use serde_json::json;

use super::{address, endpoint, ping};
use crate::start;

/// Interfaces, addresses, routes and rules, without the loopback, which is brought up in any case.
const STATE: &str = "ip -o addr | grep -v ' lo '; for f in -4 -6; do ip $f rule; ip $f route show table all | grep -v ' lo '; done; true";

each_user! {
    fn a_process_is_attached_and_detached(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("front", &["--ipv6"]);
        daemon.create("back", &["--subnet", "10.30.0.0/24"]);
        let other = start(world, who, "other", &["--network", "back"]);
        let bare = Bare::start(world, who);
        let pid = bare.pid.to_string();
        bare.run(["ip", "link", "set", "lo", "up"]);
        let before = bare.run(["sh", "-c", STATE]);
        let attach = |veth: &[&str]| {
            daemon.pontoon(["attach", &pid, "--name", "red", "--network", "front", "--network", "back:ip=10.30.0.7,alias=www", "-p", "9100:9000"])
                .args(veth)
                .run()
        };
        for veth in [&[][..], &["--veth"]] {
            assert_eq!(attach(veth).ok(), "red\n");
            let info = daemon.container("red");
            assert_eq!((&info["pid"], &info["namespace"]), (&json!(bare.pid), &json!(null)));
            let kind = if veth.is_empty() { "tap" } else { "veth" };
            assert_eq!(endpoint(&daemon, "red", "back")["kind"], kind);
            let mut server = bare.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
            server.wait_for("listening");
            world.server().run(["lab-peer", "tcp", "192.0.2.1:9100", "who"]);
            world.server().run(["lab-peer", "tcp", "[2001:db8:1::1]:9100", "who"]);
            for to in ["www", "red", "10.30.0.7"] {
                ping(&other, to).run().ok();
            }
            for to in ["198.51.100.10", "2001:db8:2::10", &other.ip.to_string()] {
                bare.run(["ping", "-n", "-c1", "-W9", to]);
            }
            assert!(attach(&[]).fails().contains("a container named red is there already"));

            assert_eq!(daemon.run(["detach", "red"]), "red\n");
            assert!(daemon.container("red").is_null());
            assert!(world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run().fails().contains("refused"));
            wait_for("everything to be as it was", Duration::from_secs(3), || {
                (bare.run(["sh", "-c", STATE]) == before).then_some(())
            });
        }
        // At once after one another: what is tidied is not what has come since.
        for _ in 0..5 {
            attach(&[]).ok();
            daemon.run(["detach", "red"]);
        }
        attach(&[]).ok();
        std::thread::sleep(Duration::from_millis(500));
        bare.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        ping(&other, "red").run().ok();
        // Its end is as a detachment, without anybody's word.
        drop(bare);
        wait_for("the end of a container", Duration::from_secs(2), || daemon.container("red").is_null().then_some(()));
        let again = Bare::start(world, who);
        daemon.run(["attach", &again.pid.to_string(), "--name", "red", "--network", "back:ip=10.30.0.7", "-p", "9100:9000"]);
        ping(&other, "10.30.0.7").run().ok();
        // And so is a sudden one.
        world.host().run(["kill", "-9", &again.pid.to_string()]);
        wait_for("the end of a container", Duration::from_secs(2), || daemon.container("red").is_null().then_some(()));
        assert_eq!(world.host().run(["ss", "-ltnH"]), "");
        assert!(daemon.pontoon(["detach", "red"]).run().fails().contains("red"));
    }
}

each_user! {
    /// By a bind mount, as `ip netns` makes them; a namespace of the user's own.
    fn a_path_is_attached_until_it_leads_there_no_more(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &["--subnet", "10.30.0.0/24"]);
        let other = start(world, who, "other", &["--network", "net"]);
        // The process that made it ends; only the path is left.
        let bare = Bare::start(world, who);
        world.host().sh(&format!("touch /run/netns/red && mount --bind /proc/{}/ns/net /run/netns/red", bare.pid));
        drop(bare);
        let attach = ["attach", "/run/netns/red", "--name", "red", "--network", "net:ip=10.30.0.7", "--network", "none-such"];
        assert!(daemon.pontoon(attach).run().fails().contains("none-such"));
        for veth in [&[][..], &["--veth"]] {
            daemon.pontoon(&attach[..6]).args(veth).run().ok();
            let info = daemon.container("red");
            assert_eq!((&info["pid"], &info["namespace"]), (&json!(null), &json!("/run/netns/red")));
            let red = world.place("red");
            red.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
            red.run(["ping", "-n", "-c1", "-W9", &other.ip.to_string()]);
            ping(&other, "red").run().ok();
            daemon.run(["detach", "red"]);
            wait_for("the interface to go", Duration::from_secs(3), || (!red.run(["ip", "-o", "link"]).contains("eth0")).then_some(()));
            let left = red.sh("ip -4 rule; ip -6 rule");
            assert!(!left.contains("from 10.30"), "{left}");
        }
        daemon.pontoon(&attach[..6]).run().ok();
        world.host().run(["ip", "netns", "del", "red"]);
        wait_for("the end of a container", Duration::from_secs(3), || daemon.container("red").is_null().then_some(()));
        drop(start(world, who, "next", &["--network", "net:ip=10.30.0.7"]));
        // By a process's own path it is that process.
        let bare = Bare::start(world, who);
        let path = format!("/proc/{}/ns/net", bare.pid);
        daemon.run(["attach", &path, "--name", "blue", "--network", "net"]);
        ping(&other, address(&daemon, "blue", "net")).run().ok();
        drop(bare);
        wait_for("the end of a container", Duration::from_secs(2), || daemon.container("blue").is_null().then_some(()));
    }
}

/// `ip netns add`, which is root's.
#[test]
fn a_named_namespace_is_attached() {
    let world = crate::world();
    let daemon = Daemon::start(&world, Who::Root);
    daemon.create("net", &["--ipv6"]);
    world.host().run(["ip", "netns", "add", "red"]);
    daemon.run([
        "attach",
        "/run/netns/red",
        "--name",
        "red",
        "--network",
        "net",
        "-p",
        "9100:9000",
    ]);
    let red = world.place("red");
    for to in ["198.51.100.10", "2001:db8:2::10"] {
        red.run(["ping", "-n", "-c1", "-W9", to]);
    }
    let mut server = red.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    server.wait_for("listening");
    world
        .server()
        .run(["lab-peer", "tcp", "192.0.2.1:9100", "echo", "100000"]);
    drop(server);
    world.host().run(["ip", "netns", "del", "red"]);
    wait_for("the end of a container", Duration::from_secs(3), || {
        daemon.container("red").is_null().then_some(())
    });
    assert_eq!(world.host().run(["ss", "-ltnH"]), "");
}

#[test]
fn somebody_elses_is_refused() {
    let world = crate::world();
    let roots = Bare::start(&world, Who::Root);
    let users = Bare::start(&world, Who::User);
    let others = Bare::start(&world, Who::Account);
    world.host().run(["ip", "netns", "add", "red"]);
    for who in Who::BOTH {
        let daemon = Daemon::start(&world, who);
        daemon.create("net", &[]);
        let attach = |target: &str| {
            daemon
                .pontoon(["attach", target, "--name", "x", "--network", "net"])
                .run()
        };
        let mut wrong = vec![
            ("1".to_owned(), "process 1"),
            ("/etc/passwd".to_owned(), "/etc/passwd is not a network namespace"),
            ("/run/netns/none-such".to_owned(), "/run/netns/none-such"),
            ("999999".to_owned(), "no process 999999"),
        ];
        if who == Who::User {
            wrong.push((roots.pid.to_string(), "belongs to user 0, not to user 23456"));
            wrong.push((others.pid.to_string(), "belongs to user 23457"));
            wrong.push(("/run/netns/red".to_owned(), "belongs to user 0"));
            wrong.push((format!("/proc/{}/ns/net", others.pid), "belongs to user 23457"));
        }
        for (target, says) in wrong {
            let why = attach(&target).fails();
            assert!(why.contains(says), "{target}: {why}");
        }
        assert_eq!(daemon.json(["ps", "--json"]), json!([]));
        // One's own, and root anybody's.
        attach(&users.pid.to_string()).ok();
        users.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        daemon.end().ok();
        wait_for("the end of an interface", Duration::from_secs(3), || {
            (!users.run(["ip", "-o", "link"]).contains("eth0")).then_some(())
        });
    }
}
