//! `--network none`, `host` and `container:NAME`: what Docker means by them.

use std::time::Duration;

use pontoon_fixtures::lab::{Cmd, Container, Proc, Who, World, wait_for};
use rustix::process::Signal;

use crate::lifecycle::nothing_left;
use crate::{PLAIN, start};

/// `pontoon run --network MODE OPTIONS -- bash -ec SCRIPT`.
fn run<'w>(world: &'w World, who: Who, mode: &str, options: &[&str], script: &str) -> Cmd<'w> {
    world
        .host()
        .cmd(["pontoon", "run", "--network", mode])
        .args(options)
        .args(["--", "bash", "-ec", script])
        .who(who)
}

/// One that stays until its standard input ends.
fn staying(world: &World, who: Who, mode: &str, options: &[&str], script: &str) -> Proc {
    let script = format!("{script}\necho it is up; cat >/dev/null");
    let mut run = run(world, who, mode, options, &script).held().spawn();
    run.wait_for("it is up");
    run
}

/// Tries to see the control sockets that are in the world, in every way that the container's root has.
fn control_directory_is_covered(world: &World, who: Who, mode: &str) {
    let dir = who.runtime_dir();
    let sockets = world.host().sh(&format!("find {dir} -type s"));
    let socket = sockets.lines().next().expect("a control socket").to_owned();
    let script = format!(
        "test ! -e {socket}
         umount {dir} 2>/dev/null || true; test ! -e {socket}
         umount -l {dir} 2>/dev/null || true; test ! -e {socket}
         mount --move {dir} /mnt 2>/dev/null || true; test ! -e {socket}
         if unshare -Urm sh -c 'umount -l {dir}; test -e {socket}' 2>/dev/null; then exit 9; fi
         test ! -e /proc/1/root{socket}
         if pontoon ps 2>/dev/null | grep -w c; then exit 8; fi"
    );
    run(world, who, mode, &[], &script).run().ok();
    // A working directory that is covered is entered by its path.
    let inside = format!("cd {dir} && pontoon run --network {mode} -- sh -c 'ls -A . /proc/1/cwd/; pwd'");
    let seen = world.host().cmd(["sh", "-c", &inside]).who(who).run().ok();
    assert_eq!(seen, format!(".:\n\n/proc/1/cwd/:\n{dir}\n"));
}

each_user! {
    fn none_is_the_loopback_alone(world, who) {
        let seen = run(world, who, "none", &["--name", "quiet"], "
            ip -o link | wc -l; ip route show table main; ip -6 route show default; ls /sys/class/net; hostname; cat /etc/hostname
            ping -n -c1 -W2 127.0.0.1 >/dev/null; ping -n -c1 -W2 ::1 >/dev/null
            echo 1 ends; cat /proc/sys/kernel/ns_last_pid >/dev/null; head -c5 /proc/1/comm
        ").run().ok();
        assert_eq!(seen, "1\nlo\nquiet\nquiet\n1 ends\nconta");
        let done = run(world, who, "none", &[], "curl -sS -m5 http://198.51.100.10/").run();
        assert!(done.errors().contains("Could not connect") || done.errors().contains("Failed to connect"), "{done}");
        // The host's servers and its own names.
        let files = run(world, who, "none", &["--hostname", "h", "--add-host", "db:10.0.0.9"], "
            cat /etc/resolv.conf; getent hosts db; hostname").run().ok();
        assert!(files.starts_with("nameserver 198.51.100.10\n10.0.0.9") && files.ends_with("h\n"), "{files}");
        assert_eq!(run(world, who, "none", &[], "exit 42").run().code(), Some(42));
        // There is nothing besides its own processes, and nothing that is listed.
        let mut run = staying(world, who, "none", &["--name", "stays"], "");
        assert!(!world.processes().iter().any(|(_, args)| args.contains("__front") || args.contains("__packet")));
        let listed = world.host().cmd(["pontoon", "ps", "--json"]).who(who).run().ok();
        assert_eq!(listed.trim(), "[]");
        run.signal(Signal::KILL);
        run.wait(Duration::from_secs(5));
        nothing_left(world, who);
    }
}

each_user! {
    fn host_is_the_hosts_stack(world, who) {
        let host = world.host();
        let loopback = host.socat("TCP4-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr", "EXEC:'echo host loopback'");
        let server = world.server().socat("TCP4-LISTEN:80,fork,reuseaddr", "EXEC:'echo hello from server'");
        assert_eq!(run(world, who, "host", &[], "ip -o addr").run().ok(), host.run(["ip", "-o", "addr"]));
        let seen = run(world, who, "host", &[], "
            socat -u -T3 TCP4:198.51.100.10:80 -
            socat -u -T3 TCP4:127.0.0.1:7000 -
            hostname; cat /etc/resolv.conf /etc/hosts /etc/hostname
            echo $$; ls /proc | grep -c '^[0-9]' >/dev/null
        ").run().ok();
        let files = host.run(["cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]);
        assert!(seen.starts_with(&format!("hello from server\nhost loopback\nlabhost\n{files}")), "{seen}");
        // Its host name is a copy; its processes are its own.
        let renamed = run(world, who, "host", &["--hostname", "other"], "hostname; hostname third; hostname").run().ok();
        assert_eq!((renamed.as_str(), host.run(["hostname"]).trim()), ("other\nthird\n", "labhost"));
        let more = run(world, who, "host", &["--add-host", "db:10.0.0.9"], "getent hosts db localhost; cat /etc/resolv.conf").run().ok();
        assert!(more.contains("10.0.0.9") && more.contains("nameserver 198.51.100.10"), "{more}");
        assert!(!host.run(["cat", "/etc/hosts"]).contains("10.0.0.9"));
        // What it listens on is the host's.
        let mut inside = staying(world, who, "host", &[], "socat TCP4-LISTEN:8090,fork,reuseaddr EXEC:'echo from inside' &");
        host.wait_tcp(8090);
        assert_eq!(world.server().run(["socat", "-u", "-T3", "TCP4:192.0.2.1:8090", "-"]), "from inside\n");
        // Nothing of the host can be changed.
        let done = run(world, who, "host", &[], "ip link set lo down").run();
        assert!(done.fails().contains("Operation not permitted"), "{done}");
        inside.signal(Signal::TERM);
        inside.wait(Duration::from_secs(5));
        drop((loopback, server));
        nothing_left(world, who);
    }
}

/// Addresses of eth0.
const ADDRESSES: &str = "ip -o addr show dev eth0 | awk '{print $4}'";

each_user! {
    fn a_containers_network_is_shared(world, who) {
        let _nginx = world.server().nginx(80);
        let c = start(world, who, "c", &["-p", "8091:8091", "--hostname", "first"]);
        let mode = "container:c";
        let seen = run(world, who, mode, &[], &format!("{ADDRESSES}; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname")).run().ok();
        assert_eq!(seen, c.sh(&format!("{ADDRESSES}; hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname")));
        let get = "curl -sS -m5 http://198.51.100.10/";
        assert_eq!(run(world, who, mode, &[], get).run().ok(), "hello from server\n");
        run(world, who, mode, &[], "ping -n -c1 -W2 198.51.100.10").run().ok();
        assert_eq!(run(world, who, mode, &[], "exit 7").run().code(), Some(7));
        // Processes are not: each sees its own, and ends with its own.
        let own = run(world, who, mode, &[], "cat /proc/1/comm; ! pgrep -x sleep; ! ipcs -q | grep 0x").run().ok();
        assert!(own.starts_with("container-init"), "{own}");
        assert!(c.sh("cat /proc/1/comm; pgrep -x sleep").starts_with("container-init"));

        // What it listens on is behind the other's published port, and on the other's loopback.
        let mut side = staying(world, who, mode, &[], "socat TCP6-LISTEN:8091,fork,reuseaddr EXEC:'echo from the side' &");
        let ask = |to: &str| format!("socat -u -T3 {to} -");
        wait_for("the server", Duration::from_secs(5), || {
            (c.cmd(["sh", "-c", &ask("TCP4:127.0.0.1:8091")]).run().text() == "from the side\n").then_some(())
        });
        assert_eq!(world.server().sh(&ask("TCP4:192.0.2.1:8091")), "from the side\n");
        control_directory_is_covered(world, who, mode);
        // It ends by itself, and the other does not notice.
        side.signal(Signal::KILL);
        side.wait(Duration::from_secs(5));
        wait_for("its server's end", Duration::from_secs(5), || c.run(["ss", "-ltnH"]).is_empty().then_some(()));
        assert_eq!(c.sh(get), "hello from server\n");
        let processes = world.processes();
        assert!(!processes.iter().any(|(_, args)| args.contains("socat")), "{processes:?}");
    }
}

/// With subordinate ids as well, which both have.
#[test]
fn a_network_is_shared_with_subordinate_ids() {
    let world = crate::world();
    let c = start(&world, Who::Account, "c", &PLAIN);
    let script =
        format!("{ADDRESSES}; cat /proc/self/uid_map; setpriv --reuid 33 --regid 33 --clear-groups id -u");
    let seen = run(&world, Who::Account, "container:c", &[], &script).run().ok();
    assert_eq!(seen, c.sh(&script));
    assert!(seen.ends_with("33\n"), "{seen}");
    control_directory_is_covered(&world, Who::Account, "container:c");
}

each_user! {
    /// What is left when the other ends is the loopback.
    fn a_shared_network_outlives_its_container(world, who) {
        let c = start(world, who, "c", &PLAIN);
        let script = "for i in $(seq 100); do ip -o link | grep -q eth0 || break; sleep 0.1; done
            ip -o link | awk '{print $2}'; ping -n -c1 -W2 127.0.0.1 >/dev/null; hostname; head -1 /etc/hosts; exit 5";
        let mut side = run(world, who, "container:c", &[], &format!("echo it is up; {script}")).spawn();
        side.wait_for("it is up");
        let Container { run: mut first, .. } = c;
        first.signal(Signal::KILL);
        assert!(first.wait(Duration::from_secs(5)).is_some());
        let done = side.end(Duration::from_secs(20));
        assert_eq!((done.code(), done.text().as_str()), (Some(5), "it is up\nlo:\nc\n127.0.0.1\tlocalhost\n"), "{done}");
        nothing_left(world, who);
    }
}

each_user! {
    fn what_cannot_be_is_refused(world, who) {
        let refused = |argv: &[&str], why: &str| {
            let done = world.host().cmd(["pontoon", "run"]).args(argv).args(["--", "true"]).who(who).run();
            assert_eq!(done.code(), Some(125), "{argv:?}: {done}");
            assert!(done.errors().contains(why), "{argv:?}: {done}");
        };
        refused(&["--network", "container:nobody"], "no container named nobody is running");
        refused(&["--network", "none", "-p", "80"], "leave out --publish");
        refused(&["--network", "host", "--ip", "10.0.2.7"], "leave out --ip");
        refused(&["--network", "container:c", "--hostname", "x"], "leave out --hostname");
        refused(&["--name", "none"], "`none` is reserved");
        refused(&["--name", "container:x"], "is reserved");
        nothing_left(world, who);
        let _c = start(world, who, "c", &PLAIN);
        for mode in ["none", "host"] {
            control_directory_is_covered(world, who, mode);
        }
    }
}
