//! With no descriptor left: whoever wants to tell a network what to do waits without cost, and is served when there is one.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Cmd, Proc, Who, World, wait_for};

use crate::{PLAIN, start};

/// The API's socket.
const API: &str = "/tmp/api.sock";

/// Hundredths of a second that the process has had of a processor.
fn ticks(world: &World, pid: u32) -> u64 {
    let stat = std::fs::read_to_string(world.path(&format!("/proc/{pid}/stat"))).expect("a process");
    let after_name = stat.rsplit(") ").next().expect("its fields");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let field = |i: usize| fields[i].parse::<u64>().expect("a number");
    field(11) + field(12)
}

/// The limit of open files that the process has now.
fn open_files(world: &World, pid: u32) -> u64 {
    let limits = std::fs::read_to_string(world.path(&format!("/proc/{pid}/limits"))).expect("a process");
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let soft = line.and_then(|l| l.split_whitespace().nth(3));
    soft.and_then(|n| n.parse().ok()).expect("a limit")
}

fn limit(world: &World, who: Who, pid: u32, files: u64) {
    let (pid, files) = (pid.to_string(), format!("--nofile={files}:"));
    world
        .host()
        .cmd(["prlimit", "--pid", &pid, &files])
        .who(who)
        .run()
        .ok();
}

/// The highest number of a descriptor that the process has.
fn highest(world: &World, pid: u32) -> u64 {
    let all = world.host().run(["ls", &format!("/proc/{pid}/fd")]);
    let all = all.split_whitespace().filter_map(|n| n.parse().ok());
    all.max().expect("a descriptor")
}

/// Clients of the process `pid`, which `ask` and are to get an `answer`. With `few` open files it has none left, and as many as
/// it waits for at once: `poll` takes no more than that.
fn wait_without_cost<'w>(
    world: &'w World,
    who: Who,
    (pid, few): (u32, u64),
    ask: impl Fn() -> Cmd<'w>,
    answer: &str,
) {
    let asked = || {
        let done = ask().run();
        assert!(done.text().contains(answer), "{done}");
    };
    asked();
    let usual = open_files(world, pid);
    // None is left but the one in reserve: who is let in by it is answered, or told what there is none for.
    limit(world, who, pid, highest(world, pid) + 1);
    for _ in 0..3 {
        let told = ask().run();
        let text = told.text();
        assert!(
            text.contains(answer) || text.contains("Too many open files"),
            "{told}"
        );
        assert!(told.took < Duration::from_secs(2), "{told}");
    }
    limit(world, who, pid, few);
    let mut waiting: Vec<Proc> = (0..5).map(|_| ask().spawn()).collect();
    std::thread::sleep(Duration::from_millis(300));
    let before = ticks(world, pid);
    std::thread::sleep(Duration::from_millis(1500));
    let used = ticks(world, pid) - before;
    assert!(
        used < 15,
        "{used} hundredths of a second in 1.5 s in which nothing could be done"
    );
    for client in &mut waiting {
        assert_eq!(client.poll(), None, "{} {}", client.stdout(), client.stderr());
    }
    limit(world, who, pid, usual);
    for client in waiting {
        let done = client.end(Duration::from_secs(5));
        assert!(done.text().contains(answer), "{done}");
    }
    asked();
}

each_user! {
    fn clients_of_the_control_socket_wait(world, who) {
        let a = start(world, who, "a", &PLAIN);
        let networks = a.pontoon(["network", "inspect", "a"]).run().json();
        let front = networks[0]["FrontPid"].as_u64().expect("a pid") as u32;
        let socket = format!("{}/a.sock", who.runtime_dir());
        let ask = || {
            let url = "http://pontoon/v1/containers";
            world.host().cmd(["curl", "-sS", "-m20", "--unix-socket", &socket, url]).who(who)
        };
        wait_without_cost(world, who, (front, 8), ask, r#""name":"a""#);
    }
}

each_user! {
    fn clients_of_the_slirp4netns_api_wait(world, who) {
        let bare = Bare::start(world, who);
        let target = bare.pid.to_string();
        let limited = ["prlimit", "--nofile=128:128", "pontoon", "slirp4netns", "-c", "-r", "1", "-a", API];
        let slirp = world.host().cmd(limited).args([&target, "tap0"]).who(who).spawn();
        wait_for("the byte that says ready", Duration::from_secs(5), || slirp.stdout().ends_with('1').then_some(()));
        let all = world.processes();
        let packet = all.iter().find(|(_, args)| args.starts_with("pontoon slirp4netns"));
        let packet = packet.unwrap_or_else(|| panic!("no packet process: {all:?}")).0;
        let ask = || world.host().cmd(["ncat", "-U", API]).who(who).stdin(r#"{"execute":"list_hostfwd"}"#);
        wait_without_cost(world, who, (packet, 3), ask, "entries");
    }
}
