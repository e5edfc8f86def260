//! Whoever hangs holds up nobody else: clients, containers, attach helpers.

use std::time::{Duration, Instant};

use pontoon_fixtures::lab::{Bare, Daemon, Proc, World, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use super::{address, socket};
use crate::start;

/// No answer takes longer while others hang.
const PROMPT: Duration = Duration::from_secs(2);

/// Runs something that is to be done at once.
fn promptly<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    assert!(begun.elapsed() < PROMPT, "{what} took {:?}", begun.elapsed());
    result
}

each_user! {
    fn clients_that_stall(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let socket = format!("UNIX-CONNECT:{}", socket(who));
        let stalled = |sends: &str| {
            let mut client = world.host().cmd(["socat", "-t20", "-", &socket]).who(who).held().spawn();
            client.say(sends);
            client
        };
        // Nothing, half a head, a head without its body, and an answer that nobody reads.
        let half = "POST /v1/networks HTTP/1.1\r\nHost: x\r";
        let no_body = "POST /v1/networks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r";
        let _clients: Vec<_> = ["", half, no_body].iter().cycle().take(30).map(|s| stalled(s)).collect();
        let bare = Bare::start(world, who);
        promptly("attach", || daemon.run(["attach", &bare.pid.to_string(), "--name", "bare", "--network", "net"]));
        promptly("ps", || assert!(daemon.run(["ps"]).contains("bare")));
        promptly("publish", || daemon.run(["publish", "bare", "8080:80"]));
        promptly("detach", || daemon.run(["detach", "bare"]));
        bare.run(["sh", "-c", "ip -o link | grep -c . | grep -x 1"]);
        // A request that takes too long is told so, and its connection given up.
        let slow = stalled(half);
        wait_for("408", Duration::from_secs(10), || slow.stdout().contains(" 408 ").then_some(()));
    }
}

each_user! {
    /// More than are served at once wait until those who stall are given up.
    fn more_clients_than_are_served_at_once(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let socket = socket(who);
        let many = format!("for i in $(seq 80); do (exec socat -u UNIX-CONNECT:{socket} - </dev/null & wait) & done; echo all; sleep 100");
        let mut clients = world.host().cmd(["bash", "-c", &many]).who(who).spawn();
        clients.wait_for("all");
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        daemon.run(["network", "create", "other"]);
        println!("{who:?}: served after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}

each_user! {
    fn containers_that_are_stopped(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let stopped = Bare::start(world, who);
        let (first, second) = (start(world, who, "first", &["--network", "net"]), Bare::start(world, who));
        let pid = stopped.pid.to_string();
        world.host().run(["kill", "-STOP", &pid]);
        // Its namespaces can be entered all the same.
        promptly("attach", || daemon.run(["attach", &pid, "--name", "stopped", "--network", "net", "-p", "8080:80"]));
        world.host().run(["kill", "-STOP", &first.pid.to_string()]);
        promptly("another", || daemon.run(["attach", &second.pid.to_string(), "--name", "second", "--network", "net"]));
        let to = address(&daemon.container("stopped"), "net");
        second.run(["ping", "-n", "-c1", "-W9", &to]);
        promptly("detach", || daemon.run(["detach", "stopped"]));
        promptly("ps", || daemon.run(["ps"]));
        world.host().run(["kill", "-CONT", &pid, &first.pid.to_string()]);
        // One that ends while it is attached leaves nothing.
        for _ in 0..5 {
            let short = Bare::start(world, who);
            let attach = daemon.pontoon(["attach", &short.pid.to_string(), "--name", "short", "--network", "net"]).spawn();
            drop(short);
            let _ = attach.end(Duration::from_secs(5));
            wait_for("its end", Duration::from_secs(5), || daemon.container("short").is_null().then_some(()));
        }
        let listed = daemon.json(["ps", "--json"]);
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    }
}

/// Stops the next attach helper that the daemon starts; none if that was too quick to be seen.
fn stop_next_helper(daemon: u32) -> Option<u32> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).expect("the daemon runs");
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if command.windows(8).any(|w| w == b"__attach") {
                    let pid: u32 = child.parse().expect("a number");
                    signal(pid, Signal::STOP);
                    return Some(pid);
                }
            }
        }
        if Instant::now() > end {
            return None;
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a number");
    // One that has ended already was too quick for us, as the test finds.
    let _ = kill_process(pid, signal);
}

/// Stops the helper that what `begin` starts needs: what was started, and the helper's number. What was done before it was seen is
/// taken back by `undo`, and begun again.
fn stopped_midway(world: &World, daemon: u32, begin: impl Fn() -> Proc, undo: impl Fn()) -> (Proc, u32) {
    for _ in 0..20 {
        let catch = std::thread::spawn(move || stop_next_helper(daemon));
        let mut begun = begin();
        let caught = catch.join().expect("a look");
        let done = begun.wait(Duration::from_millis(300)).is_some();
        match caught {
            Some(helper) if !done && has_hung(world) => return (begun, helper),
            // Too late, if at all: it had answered.
            Some(helper) => signal(helper, Signal::CONT),
            None => {}
        }
        begun.end(Duration::from_secs(15)).ok();
        undo();
    }
    panic!("no helper was seen")
}

/// Whether a helper is there, which otherwise lasts for milliseconds.
fn has_hung(world: &World) -> bool {
    world
        .processes()
        .iter()
        .any(|(_, args)| args.contains("__attach"))
}

each_user! {
    /// The attachment fails in the end, and everybody else is served meanwhile; one that hangs as it tidies up, too.
    fn helpers_that_hang(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("net", &["--subnet", "10.30.0.0/24"]);
        let (hung, other) = (Bare::start(world, who), Bare::start(world, who));
        let pid = daemon.proc.pid();
        let attach = || daemon.pontoon(["attach", &hung.pid.to_string(), "--name", "hung", "--network", "net:ip=10.30.0.2"]).spawn();
        let (attach, _) = stopped_midway(world, pid, attach, || drop(daemon.run(["detach", "hung"])));
        promptly("another", || daemon.run(["attach", &other.pid.to_string(), "--name", "other", "--network", "net", "-p", "8080:80"]));
        promptly("ps", || assert!(!daemon.run(["ps"]).contains("hung")));
        promptly("create", || daemon.create("second", &[]));
        other.run(["ping", "-n", "-c1", "-W9", "10.30.0.1"]);
        let done = attach.end(Duration::from_secs(15));
        assert!(done.fails().contains("does not answer"), "{done}");
        wait_for("the helper's end", Duration::from_secs(3), || (!has_hung(world)).then_some(()));
        // All that it had is free again.
        let again = || drop(daemon.run(["attach", &hung.pid.to_string(), "--name", "hung", "--network", "net:ip=10.30.0.2"]));
        again();

        let (detach, helper) = stopped_midway(world, pid, || daemon.pontoon(["detach", "hung"]).spawn(), again);
        promptly("ps", || assert!(!daemon.run(["ps"]).contains("hung")));
        promptly("disconnect", || daemon.run(["network", "inspect", "net"]));
        other.run(["ping", "-n", "-c1", "-W9", "10.30.0.1"]);
        signal(helper, Signal::CONT);
        assert!(detach.end(Duration::from_secs(12)).success());
    }
}

each_user! {
    /// The helper that makes a network's uplink: everybody else is served meanwhile, the network is nobody's, and nothing of it is left.
    fn an_uplink_whose_helper_hangs(world, who) {
        let mut daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let (lan, other) = (Bare::start(world, who), Bare::start(world, who));
        let link = format!("veth:wan0@{}", lan.pid);
        let options = ["--subnet", "10.44.0.0/24", "--uplink", &link, "--uplink-address", "100.64.8.77/24"];
        let create = |daemon: &Daemon<'_>| daemon.pontoon(["network", "create", "edge"]).args(options).spawn();
        let names = |daemon: &Daemon<'_>| -> Vec<String> {
            let listed = daemon.json(["network", "ls", "--json"]);
            listed.as_array().expect("networks").iter().map(|n| n["name"].as_str().expect("a name").to_owned()).collect()
        };
        let remove = |daemon: &Daemon<'_>| drop(daemon.pontoon(["network", "rm", "edge"]).run());
        let (creating, _) = stopped_midway(world, daemon.proc.pid(), || create(&daemon), || remove(&daemon));
        // All at once, as all has to be done while the helper is waited for.
        let refused = [&["network", "rm", "edge"][..], &["network", "create", "edge"], &["network", "inspect", "edge"],
                       &["network", "create", "inner", "--uplink", "switch:edge"], &["run", "--network", "edge", "--", "true"]];
        let refused = refused.map(|args| daemon.pontoon(args.iter().copied()).spawn());
        promptly("ps", || daemon.run(["ps"]));
        promptly("ls", || assert_eq!(names(&daemon), ["net"]));
        for refused in refused {
            let done = refused.end(Duration::from_secs(3));
            assert!(done.fails().contains("network edge is being made"), "{done}");
        }
        promptly("attach", || daemon.run(["attach", &other.pid.to_string(), "--name", "other", "--network", "net", "-p", "8080:80"]));
        promptly("create", || daemon.create("second", &[]));
        promptly("prune", || assert_eq!(daemon.run(["network", "prune"]).trim(), "second"));
        let done = creating.end(Duration::from_secs(15));
        assert!(done.fails().contains("does not answer"), "{done}");
        wait_for("the helper's end", Duration::from_secs(3), || (!has_hung(world)).then_some(()));
        assert_eq!(names(&daemon), ["net"]);
        // What it had is free again, and a daemon that ends meanwhile leaves nothing either.
        let (creating, helper) = stopped_midway(world, daemon.proc.pid(), || create(&daemon), || remove(&daemon));
        daemon.run(["publish", "other", "8081:81"]);
        daemon.kill();
        signal(helper, Signal::CONT);
        assert!(!creating.end(Duration::from_secs(5)).success());
        daemon.again();
        assert_eq!(names(&daemon), ["net"]);
        wait_for("the link's end", Duration::from_secs(5), || (!lan.run(["ip", "link"]).contains("wan0")).then_some(()));
        daemon.create("edge", &options);
        assert!(lan.run(["ip", "link"]).contains("wan0"));
    }
}
