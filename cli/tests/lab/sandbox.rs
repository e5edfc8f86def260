//! The sandbox of the packet process: what is shut, that each switch opens its own part only, and that nothing is missed.
//!
//! That everything works in it is what the rest of the lab shows: it is on by default.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, Done, Who, World, require, wait_for};

use crate::{PLAIN, iperf3, start};

/// `SIGSYS`: how a filter kills.
const SIGSYS: i32 = 31;
/// No capability.
const NONE: &str = "0000000000000000";

fn pid(c: &Container<'_>, which: &str) -> u64 {
    let network = c.pontoon(["network", "ls", "--json"]).run().json();
    network[0][which].as_u64().expect("a pid")
}

fn packet_pid(c: &Container<'_>) -> u64 {
    pid(c, "packet_pid")
}

/// The values in `/proc/PID/status`, which must be the same for all threads.
fn status(world: &World, pid: u64) -> BTreeMap<String, String> {
    let keys = "^(NoNewPrivs|Seccomp|Cap[A-Z][a-z]+|Threads):";
    let text = world
        .host()
        .sh(&format!("grep -hE '{keys}' /proc/{pid}/task/*/status"));
    let mut values = BTreeMap::new();
    for line in text.lines() {
        let (key, value) = line.split_once(':').expect("a value");
        let before = values.insert(key.to_owned(), value.trim().to_owned());
        assert!(before.is_none_or(|b| b == value.trim()), "threads differ: {text}");
    }
    values
}

fn root_of(world: &World, pid: u64) -> Vec<String> {
    let listing = world.host().run(["ls", "-A", &format!("/proc/{pid}/root/")]);
    listing.split_whitespace().map(str::to_owned).collect()
}

each_user! {
    fn the_packet_process_is_confined(world, who) {
        let c = start(world, who, "c", &["--require-sandbox", "-p", "8080:80"]);
        let pid = packet_pid(&c);
        let is = status(world, pid);
        assert_eq!((is["NoNewPrivs"].as_str(), is["Seccomp"].as_str()), ("1", "2"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(is[set], NONE, "{set}");
        }
        assert!(is["Threads"].parse::<u32>().expect("a number") > 1, "{is:?}");
        assert_eq!(root_of(world, pid), ["etc", "run"]);
        assert_eq!(world.host().run(["find", &format!("/proc/{pid}/root/")]).lines().count(), 3);
        let mounts = world.host().run(["cat", &format!("/proc/{pid}/mounts")]);
        assert!(mounts.lines().count() == 1 && mounts.starts_with("pontoon / tmpfs ro,"), "{mounts}");
        for file in ["etc/x", "run/x", "x"] {
            let made = world.host().cmd(["touch", &format!("/proc/{pid}/root/{file}")]).run();
            assert!(made.errors().contains("Read-only file system"), "{made}");
        }
        // No descriptor of a directory, by which `..` would lead out.
        let open = world.host().sh(&format!("for fd in /proc/{pid}/fd/*; do stat -L -c %F $fd; done"));
        assert!(!open.contains("directory"), "{open}");
        let limits = world.host().run(["cat", &format!("/proc/{pid}/limits")]);
        let core = limits.lines().find(|l| l.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().filter(|w| *w == "0").count(), 2, "{core}");
        // Not dumpable: its files in /proc are root's.
        assert_eq!(world.host().run(["stat", "-c", "%u", &format!("/proc/{pid}/environ")]).trim(), "0");
        // The front needs the host's files, and can gain no privileges either.
        assert_eq!(status(world, self::pid(&c, "front_pid"))["NoNewPrivs"], "1");
        // Root's stays in the host's user namespace, where its sockets' rights come from.
        let same = world.host().sh(&format!("[ /proc/{pid}/ns/user -ef /proc/1/ns/user ] && echo same || echo own"));
        assert_eq!(same.trim(), if who == Who::Root { "same" } else { "own" });
    }
}

each_user! {
    /// Those of the daemon as well, and one that was started in the place of a dead one.
    fn a_daemons_packet_processes_are_confined(world, who) {
        let daemon = Daemon::start_with(world, who, &["--require-sandbox"]);
        daemon.create("net", &[]);
        let one = |which: &str| daemon.json(["network", "ls", "--json"])[0][which].as_u64().expect("a pid");
        let confined = |pid: u64| {
            let is = status(world, pid);
            assert_eq!((is["NoNewPrivs"].as_str(), is["Seccomp"].as_str()), ("1", "2"));
            assert_eq!((is["CapPrm"].as_str(), is["CapBnd"].as_str()), (NONE, NONE));
            assert_eq!(root_of(world, pid), ["etc", "run"]);
        };
        let first = one("packet_pid");
        confined(first);
        assert_eq!(status(world, one("front_pid"))["NoNewPrivs"], "1");
        world.host().run(["kill", "-KILL", &first.to_string()]);
        let second = wait_for("another packet process", Duration::from_secs(5), || {
            Some(one("packet_pid")).filter(|&pid| pid != first)
        });
        confined(second);
    }
}

each_user! {
    fn each_switch_opens_its_own_part(world, who) {
        let own = world.host().cmd(["grep", "^CapEff:", "/proc/self/status"]).who(who).run().ok();
        let own = own.trim_start_matches("CapEff:").trim();
        for (switch, caps, root, filter) in [
            ("--keep-capabilities", own, true, "2"),
            ("--no-empty-root", NONE, false, "2"),
            ("--no-seccomp", NONE, true, "0"),
            ("--no-landlock", NONE, true, "2"),
            ("--no-sandbox", own, false, "0"),
        ] {
            let c = start(world, who, "c", &[switch]);
            let pid = packet_pid(&c);
            let is = status(world, pid);
            assert_eq!((is["CapEff"].as_str(), is["Seccomp"].as_str()), (caps, filter), "{switch}");
            let listed = root_of(world, pid);
            assert_eq!(listed == ["etc", "run"], root, "{switch}: {listed:?}");
            assert_eq!(listed.contains(&"usr".to_owned()), !root, "{switch}: {listed:?}");
            // The front has given them up before.
            assert_eq!(is["NoNewPrivs"], "1", "{switch}");
            c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
            c.end();
        }
    }
}

/// A child of Pontoon's that confines itself as the packet process does, and then makes an attempt.
fn attempt(world: &World, who: Who, what: &str, switches: &[&str]) -> Done {
    world
        .host()
        .cmd(["pontoon", "__sandbox", what])
        .args(switches)
        .who(who)
        .run()
}

fn killed(done: &Done) -> bool {
    // Through a shell it is 128 and the signal.
    done.status
        .is_some_and(|s| s.signal() == Some(SIGSYS) || s.code() == Some(128 + SIGSYS))
}

each_user! {
    fn what_is_forbidden_kills(world, who) {
        for what in ["nothing", "thread"] {
            assert!(attempt(world, who, what, &[]).success(), "{what}");
        }
        for what in ["make-file", "unix-socket", "abstract-socket", "raw-socket", "execute", "signal", "control"] {
            let done = attempt(world, who, what, &[]);
            assert!(killed(&done), "{what}: {done}");
            let named = world.host().cmd(["pontoon", "__sandbox", what]).env("PONTOON_SECCOMP", "trap").who(who).run();
            assert!(killed(&named), "{what}: {named}");
            // The C library starts programs with signals blocked.
            let said = named.errors().contains("forbids system call number ");
            assert!(said || what == "execute", "{what}: {named}");
        }
        // Looking for a file fails, as some libraries do it in odd moments.
        let read = attempt(world, who, "read-file", &[]);
        assert!(read.code() == Some(1) && read.errors().contains("Function not implemented"), "{read}");
        // A panic says what it has to say.
        for backtrace in ["0", "1"] {
            let panic = world.host().cmd(["pontoon", "__sandbox", "panic"]).env("RUST_BACKTRACE", backtrace).who(who).run();
            assert!(panic.errors().contains("as was asked for") && !killed(&panic), "{panic}");
        }
    }
}

each_user! {
    /// Each part stands by itself: what is left when the others are off.
    fn the_parts_do_not_lean_on_each_other(world, who) {
        let only = |part: &str| -> Vec<&str> {
            ["--no-seccomp", "--no-landlock", "--no-empty-root", "--keep-capabilities"].into_iter().filter(|s| *s != part).collect()
        };
        let root = attempt(world, who, "read-file", &only("--no-empty-root"));
        assert!(root.errors().contains("No such file"), "{root}");
        let root = attempt(world, who, "make-file", &only("--no-empty-root"));
        assert!(root.errors().contains("Read-only file system"), "{root}");
        let landlock = attempt(world, who, "read-file", &only("--no-landlock"));
        assert!(landlock.errors().contains("Permission denied"), "{landlock}");
        let landlock = attempt(world, who, "signal", &only("--no-landlock"));
        assert!(landlock.errors().contains("not permitted"), "{landlock}");
        let landlock = attempt(world, who, "abstract-socket", &only("--no-landlock"));
        assert!(landlock.errors().contains("not permitted"), "{landlock}");
        let root = attempt(world, who, "abstract-socket", &only("--no-empty-root"));
        assert!(root.success(), "the root alone does not hide these: {root}");
        let capabilities = attempt(world, who, "raw-socket", &only("--keep-capabilities"));
        assert!(capabilities.errors().contains("not permitted"), "{capabilities}");
        let seccomp = attempt(world, who, "unix-socket", &only("--no-seccomp"));
        assert!(killed(&seccomp), "{seccomp}");
        let nothing = attempt(world, who, "unix-socket", &["--no-sandbox"]);
        assert!(nothing.success(), "{nothing}");
    }
}

/// Where there are capabilities in a user namespace of somebody's, they serve; where there is neither, the rest holds and
/// the log says what is missing.
#[test]
fn what_the_kernel_refuses_is_left_out_unless_it_is_required() {
    require("setpriv");
    let world = crate::world();
    let run = |script: &str| {
        world
            .host()
            .cmd(["unshare", "-Ur", "sh", "-c", script])
            .who(Who::User)
            .run()
    };
    let with = run("pontoon __sandbox nothing --require-sandbox && readlink /proc/self/ns/user");
    assert!(with.ok().contains(r#""root":"holds""#));
    // Root of that namespace forbids more of them, and gives up what it could mount with.
    let bare = |args: &str| {
        run(&format!(
            "echo 0 > /proc/sys/user/max_user_namespaces; \
             exec setpriv --bounding-set=-all --inh-caps=-all pontoon __sandbox {args}"
        ))
    };
    let without = bare("nothing");
    assert!(without.success(), "{without}");
    let is: serde_json::Value = serde_json::from_slice(&without.stdout).expect("JSON");
    assert_eq!(
        (&is["capabilities"], &is["seccomp"]),
        (&"holds".into(), &"holds".into())
    );
    assert!(is["root"]["missing"].is_string(), "{is}");
    let said = without.errors();
    assert!(
        said.lines().count() == 1 && said.contains("the sandbox is without an empty root (user namespaces"),
        "{said}"
    );
    assert!(killed(&bare("unix-socket")));
    let required = bare("nothing --require-sandbox");
    assert!(
        required.code() == Some(1) && required.errors().contains("cannot have an empty root"),
        "{required}"
    );
    assert!(bare("nothing --require-sandbox --no-empty-root").success());
}

each_user! {
    /// All that a network does, with each part of the sandbox there for certain.
    fn everything_works_inside(world, who) {
        let _nginx = world.server().nginx(80);
        let _iperf = world.server().cmd(["iperf3", "-s"]).spawn();
        world.server().wait_tcp(5201);
        let ten = world.server().dnsmasq(&["--listen-address=198.51.100.10", "--address=/example.test/192.0.2.10"]);
        let _eleven = world.server().dnsmasq(&["--listen-address=198.51.100.11", "--address=/example.test/192.0.2.11"]);
        let c = start(world, who, "c", &["--require-sandbox", "--capture", "/tmp/c.pcapng", "-p", "8080:80"]);
        assert_eq!(c.run(["curl", "-sS", "-m5", "http://198.51.100.10/"]), "hello from server\n");
        assert_eq!(c.run(["curl", "-sS", "-m5", "http://[2001:db8:2::10]/"]), "hello from server\n");
        let refused = c.cmd(["curl", "-sS", "-m5", "http://198.51.100.10:81/"]).run();
        assert!(refused.code() == Some(7) && refused.took < Duration::from_secs(2), "{refused}");
        for direction in [&[][..], &["-R"], &["-u", "-b100M"], &["-u", "-b100M", "-R"]] {
            let rate = iperf3(&c, &[&["-c", "198.51.100.10"], direction].concat());
            assert!(rate > 1e7, "{direction:?}: {rate}");
        }
        c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        c.run(["traceroute", "-n", "-q1", "-w9", "-m4", "198.51.100.10"]);
        for tcp in ["+notcp", "+tcp"] {
            assert_eq!(c.run(["dig", "+short", "+time=3", tcp, "example.test"]), "192.0.2.10\n");
        }
        drop(ten);
        world.write("/etc/resolv.conf", "nameserver 198.51.100.11\n");
        wait_for("the new resolver", Duration::from_secs(8), || {
            (c.cmd(["dig", "+short", "+time=2", "+tries=1", "example.test"]).run().text() == "192.0.2.11\n").then_some(())
        });
        let _inside = c.cmd(["socat", "TCP-LISTEN:80,fork,reuseaddr", "EXEC:'echo inside'"]).spawn();
        let ask = |port: u16| {
            world.server().cmd(["socat", "-T3", "-", &format!("TCP4:192.0.2.1:{port},connect-timeout=3")]).run().text()
        };
        wait_for("the published port", Duration::from_secs(5), || (ask(8080) == "inside\n").then_some(()));
        c.pontoon(["publish", "c", "8081:80", "8082:80/udp"]).run().ok();
        assert_eq!(ask(8081), "inside\n");
        c.pontoon(["unpublish", "c", "8081:80"]).run().ok();
        assert_eq!(ask(8081), "");
        // A second container, with a capture's thread that begins and ends while the network runs.
        let d = start(world, who, "d", &["--network", "c", "--capture", "/tmp/d.pcapng"]);
        d.run(["ping", "-n", "-c1", "-W9", &c.ip.to_string()]);
        d.end();
        for command in [&["conntrack", "ls"][..], &["conntrack", "flush"], &["fdb", "show"], &["stats"]] {
            c.pontoon(command).run().ok();
        }
        c.end();
        let shown = world.host().run(["tcpdump", "-n", "-r", "/tmp/c.pcapng"]);
        assert!(shown.contains("198.51.100.10.80: Flags [S]"), "{shown}");
    }
}

each_user! {
    /// At the limit of descriptors new flows are refused, and nothing dies.
    fn the_limit_of_descriptors_is_met_in_the_sandbox(world, who) {
        let _server = world.server().cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        world.server().wait_tcp(9000);
        let run = world.host().cmd([
            "prlimit", "--nofile=128:128", "pontoon", "run", "--name", "c", "-p", "8080:80", "--", "sleep", "60",
        ]).who(who).spawn();
        let c = wait_for("the container", Duration::from_secs(5), || {
            let all = world.host().cmd(["pontoon", "ps", "--json"]).who(who).run().json();
            all[0]["pid"].as_u64()
        });
        let inside = || world.host().cmd(["bash", "-c",
            "for i in $(seq 300); do exec {fd}<>/dev/tcp/198.51.100.10/9000 || true; done 2>&1 | tail -1"]).who(who)
            .inside(u32::try_from(c).expect("a pid")).limit(60);
        inside().run();
        let stats = world.host().cmd(["pontoon", "stats", "--json"]).who(who).run().ok();
        assert!(stats.contains("quota-full") || stats.contains("host-exhausted"), "{stats}");
        // Those ended with the shell: there is room again, and a client of the published port is answered or refused.
        wait_for("room", Duration::from_secs(20), || {
            let done = world.host().cmd(["bash", "-c", "exec 3<>/dev/tcp/198.51.100.10/9000"]).who(who)
                .inside(u32::try_from(c).expect("a pid")).run();
            done.success().then_some(())
        });
        drop(run);
    }
}

/// What the filter kills is told with what to do.
#[test]
fn the_death_by_the_filter_is_named() {
    let world = crate::world();
    let c = start(&world, Who::User, "c", &PLAIN);
    let pid = packet_pid(&c);
    world.host().run(["kill", "-SYS", &pid.to_string()]);
    let said = wait_for("the message", Duration::from_secs(5), || {
        let said = c.run.stderr();
        said.contains("SIGSYS").then_some(said)
    });
    assert!(
        said.contains("killed by its seccomp filter") && said.contains("--no-seccomp"),
        "{said}"
    );
    c.run.signal(rustix::process::Signal::TERM);
}

each_user! {
    /// `doctor` says which parts there are.
    fn doctor_tries_it(world, who) {
        let report = world.host().cmd(["pontoon", "doctor", "--json"]).who(who).run().json();
        let findings = report.as_array().expect("a list");
        for part in ["root", "capabilities", "landlock", "seccomp"] {
            let check = format!("sandbox: {part}");
            let finding = findings.iter().find(|f| f["check"] == *check).unwrap_or_else(|| panic!("no {check}: {report}"));
            assert_eq!(finding["level"], "ok", "{finding}");
        }
    }
}

trait End {
    /// Ends it, and waits until it is gone.
    fn end(self);
}

impl End for Container<'_> {
    fn end(mut self) {
        self.run.signal(rustix::process::Signal::TERM);
        self.run.wait(Duration::from_secs(10));
    }
}
