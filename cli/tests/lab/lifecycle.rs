//! Exit status, signals, sudden ends, bad input: nothing is left behind, and nothing of the host changes.

use std::time::Duration;

use pontoon_fixtures::lab::{Who, World, wait_for};
use rustix::process::Signal;

use crate::{PLAIN, server_peers, start};

/// All that Pontoon could change of the host, but for what changes by itself.
fn snapshot(world: &World) -> String {
    world.host().sh(
        "for f in '' -6; do ip $f rule; ip $f route show table all; done; ip -j addr; ip -j link; nft list ruleset; \
         bridge link; bridge fdb | sort; ip netns list; cat /proc/mounts; ls -la /run /run/netns /etc /dev/net | grep -vE '\\.$|pontoon$'; \
         cat /etc/resolv.conf /etc/hosts /etc/hostname; hostname; \
         sysctl -a 2>/dev/null | grep -E '^(net|user|kernel.(hostname|unprivileged|yama))' | \
           grep -vE 'nf_conntrack_count|\\.gc_|rt6|random|inet_peer|netdev_rss_key|stable_secret|tcp_fastopen_key|kernel.ns_last_pid'",
    )
}

/// Wants the world as empty as it was: no process, namespace or socket of Pontoon's.
pub(crate) fn nothing_left(world: &World, who: Who) {
    wait_for("the end of every process", Duration::from_secs(8), || {
        let left = world.processes();
        left.is_empty().then_some(()).or_else(|| {
            std::thread::sleep(Duration::from_millis(100));
            None
        })
    });
    assert_eq!(world.network_namespaces().len(), 1, "network namespaces");
    let files = world.host().sh(&format!(
        "find {} ! -type d 2>/dev/null || true",
        who.runtime_dir()
    ));
    assert_eq!(files, "", "files under {}", who.runtime_dir());
    let listening = world.host().run(["ss", "-ltnuH"]);
    assert_eq!(listening, "", "listening sockets");
}

each_user! {
    /// One idle connection and nothing else: no process of the network wakes up.
    fn an_idle_network_sleeps(world, who) {
        let _server = world.server().cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        world.server().wait_tcp(9000);
        let c = start(world, who, "idle", &PLAIN);
        let network = c.pontoon(["network", "ls", "--json"]).run().json();
        let pids: Vec<u64> = ["packet_pid", "front_pid"].iter().map(|p| network[0][p].as_u64().expect("a pid")).collect();
        let _held = c.cmd(["lab-peer", "tcp", "198.51.100.10:9000", "hold", "60000"]).spawn();
        let switches = || {
            let counts: Vec<String> = pids
                .iter()
                .map(|pid| world.host().sh(&format!("grep -H ctxt_switches /proc/{pid}/task/*/status")))
                .collect();
            counts.concat()
        };
        // Neighbours are confirmed, and the timer of the connection's SYN is let go, within seconds.
        wait_for("four seconds of sleep", Duration::from_secs(40), || {
            let before = switches();
            std::thread::sleep(Duration::from_secs(4));
            (switches() == before).then_some(())
        });
    }
}

each_user! {
    fn the_exit_status_is_the_commands(world, who) {
        let run = |argv: &[&str]| world.host().cmd(["pontoon", "run", "--"]).args(argv).who(who).run();
        assert_eq!(run(&["true"]).code(), Some(0));
        assert_eq!(run(&["sh", "-c", "exit 42"]).code(), Some(42));
        assert_eq!(run(&["sh", "-c", "kill -TERM $$"]).code(), Some(128 + 15));
        assert_eq!(run(&["/no/such/program"]).code(), Some(127));
        assert_eq!(run(&["/etc/hostname"]).code(), Some(126));
        let echo = world.host().cmd(["pontoon", "run", "--", "cat"]).who(who).stdin("through").run();
        assert_eq!(echo.ok(), "through");
        // The command's own environment and limit of open files, no more descriptors than its three.
        let own = world.host().sh("ulimit -n");
        assert_eq!(run(&["sh", "-c", "ulimit -n"]).ok(), own);
        assert_eq!(run(&["sh", "-c", "ls /proc/self/fd | wc -l"]).ok().trim(), "4");
        // Without a command it is $SHELL.
        let shell = world.host().cmd(["pontoon", "run"]).who(who).stdin("ip -o link | wc -l\nexit 5\n").run();
        assert_eq!((shell.code(), shell.text().trim()), (Some(5), "2"), "{shell}");
        nothing_left(world, who);
    }
}

each_user! {
    fn signals_are_passed_on(world, who) {
        for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
            let script = format!("trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done");
            let mut run = world.host().cmd(["pontoon", "run", "--", "bash", "-c", &script]).who(who).spawn();
            run.wait_for("ready");
            run.signal(signal);
            let done = run.end(Duration::from_secs(5));
            assert_eq!((done.code(), done.text().contains(&format!("got {name}"))), (Some(9), true), "{done}");
        }
        nothing_left(world, who);
    }
}

each_user! {
    /// Whatever the command left running in the background ends with the container.
    fn a_killed_run_leaves_nothing(world, who) {
        let mut run = world
            .host()
            .cmd(["pontoon", "run", "-p", "8080:80", "--name", "k", "--", "sh", "-c", "sleep 3000 & echo ready; sleep 4000"])
            .who(who)
            .spawn();
        run.wait_for("ready");
        run.signal(Signal::KILL);
        run.wait(Duration::from_secs(5));
        wait_for("the end of all processes", Duration::from_secs(8), || world.processes().is_empty().then_some(()));
        assert_eq!(world.network_namespaces().len(), 1);
        assert_eq!(world.host().run(["ss", "-ltnuH"]), "");
        // A socket file may be left by kill -9, but it is in nobody's way.
        assert_eq!(world.host().cmd(["pontoon", "ps", "--json"]).who(who).run().json(), serde_json::json!([]));
        let again = world.host().cmd(["pontoon", "run", "--name", "k", "-p", "8080:80", "--", "true"]).who(who).run();
        again.ok();
        nothing_left(world, who);
    }
}

each_user! {
    fn bad_input_leaves_nothing(world, who) {
        for (args, says) in [
            (&["--ip", "10.9.9.9"][..], "10.9.9.9"),
            (&["--subnet", "10.0.0.0/33"], "10.0.0.0/33"),
            (&["--mtu", "67"], "67"),
            (&["--mtu", "65521"], "65521"),
            (&["-p", "99999:80"], "99999"),
            (&["-p", "80-90:80-85"], "80-90"),
            (&["--mac-address", "ff:ff:ff:ff:ff:ff"], "ff:ff:ff:ff:ff:ff"),
            (&["--network", "nosuch"], "nosuch"),
            (&["--name", "../evil"], "../evil"),
            (&["--name", ""], "name"),
            (&["--outbound", "192.0.2.99"], "192.0.2.99"),
            (&["--outbound", "nodev0"], "nodev0"),
            (&["--capture", "/no/such/dir/file"], "/no/such/dir/file"),
            (&["--add-host", "x"], "x"),
            (&["-p", "203.0.113.77:80:80"], "203.0.113.77"),
        ] {
            let done = world.host().cmd(["pontoon", "run"]).args(args).args(["--", "touch", "/tmp/ran"]).who(who).run();
            assert!(done.fails().contains(says), "{args:?}: {done}");
            assert!(done.took < Duration::from_secs(5), "{args:?}: {done}");
        }
        assert!(!world.path("/tmp/ran").exists(), "the command was never run");
        for args in [&["port", "nosuch"][..], &["publish", "nosuch", "80:80"], &["network", "inspect", "nosuch"], &["conntrack", "ls", "--container", "nosuch"]] {
            let done = world.host().cmd(["pontoon"]).args(args).who(who).run();
            assert!(done.fails().contains("nosuch"), "{args:?}: {done}");
        }
        let c = start(world, who, "c", &PLAIN);
        let done = world.host().cmd(["pontoon", "run", "--name", "c", "--", "true"]).who(who).run();
        assert!(done.fails().contains('c'), "a name that is taken: {done}");
        let done = world.host().cmd(["pontoon", "run", "--network", "c", "--ip", &c.ip.to_string(), "--", "true"]).who(who).run();
        assert!(done.fails().contains(&c.ip.to_string()), "an address that is taken: {done}");
        drop(c);
        nothing_left(world, who);
    }
}

each_user! {
    /// Nothing of the host changes: neither while a container runs and works, nor after.
    fn nothing_of_the_host_changes(world, who) {
        let _peers = server_peers(world);
        // What is made once and stays: the directory of the control sockets.
        world.host().cmd(["pontoon", "run", "--", "true"]).who(who).run().ok();
        let before = snapshot(world);
        {
            let c = start(world, who, "c", &["-p", "9100:9000"]);
            c.run(["lab-peer", "tcp", "198.51.100.10:9000", "echo", "100000"]);
            c.run(["lab-peer", "udp-echo", "198.51.100.10:9000", "1000"]);
            c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
            same(&before, &snapshot(world), "while it runs");
        }
        same(&before, &snapshot(world), "afterwards");
    }
}

fn same(before: &str, after: &str, when: &str) {
    let was: std::collections::BTreeSet<&str> = before.lines().collect();
    let is: std::collections::BTreeSet<&str> = after.lines().collect();
    let lost: Vec<_> = was.difference(&is).collect();
    let new: Vec<_> = is.difference(&was).collect();
    assert!(
        lost.is_empty() && new.is_empty(),
        "{when}: gone {lost:#?}, new {new:#?}"
    );
}

/// Without access to /dev/net/tun the error says so and what to do; `doctor` too.
#[test]
fn a_closed_tun_device_is_explained() {
    let options = pontoon_fixtures::lab::Options {
        tun_mode: "600",
        ..Default::default()
    };
    let world = World::with(Some(env!("CARGO_BIN_EXE_pontoon")), options);
    let done = world
        .host()
        .cmd(["pontoon", "run", "--", "true"])
        .who(Who::User)
        .run();
    assert!(done.fails().contains("/dev/net/tun"), "{done}");
    let doctor = world.host().cmd(["pontoon", "doctor"]).who(Who::User).run();
    assert!(doctor.text().contains("/dev/net/tun"), "{doctor}");
    nothing_left(&world, Who::User);
}
