//! The stacks that are measured, Pontoon first.

use std::time::Duration;

use pontoon_fixtures::lab::{Cmd, Container, Proc, Who, World, wait_for};

/// A stack: how it is called, and how a container behind it is started.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) start: for<'w> fn(&'w World, u32) -> Running<'w>,
}

/// All stacks.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "pontoon",
        start: pontoon,
    },
    Peer {
        name: "slirp4netns",
        start: slirp4netns,
    },
    Peer {
        name: "pasta",
        start: pasta,
    },
];

/// A container with network.
pub(crate) struct Running<'w> {
    world: &'w World,
    pid: u32,
    procs: Vec<Proc>,
}

impl<'w> Running<'w> {
    /// A command in the container.
    pub(crate) fn cmd(&self, argv: &[&str]) -> Cmd<'w> {
        self.world.host().cmd(argv).who(Who::User).inside(self.pid)
    }
}

fn pontoon(world: &World, mtu: u32) -> Running<'_> {
    let c = Container::start(world, Who::User, &format!("m{mtu}"), ["--mtu", &mtu.to_string()]);
    Running {
        world,
        pid: c.pid,
        procs: vec![c.run],
    }
}

fn slirp4netns(world: &World, mtu: u32) -> Running<'_> {
    let (holder, pid) = namespace(world);
    let slirp = world
        .host()
        .cmd([
            "slirp4netns",
            "--configure",
            "--mtu",
            &mtu.to_string(),
            &pid.to_string(),
            "tap0",
        ])
        .who(Who::User)
        .spawn();
    up(Running {
        world,
        pid,
        procs: vec![slirp, holder],
    })
}

fn pasta(world: &World, mtu: u32) -> Running<'_> {
    let (holder, pid) = namespace(world);
    let pasta = world
        .host()
        .cmd([
            "pasta",
            "--config-net",
            "-f",
            "-q",
            "-m",
            &mtu.to_string(),
            &pid.to_string(),
        ])
        .who(Who::User)
        .spawn();
    up(Running {
        world,
        pid,
        procs: vec![pasta, holder],
    })
}

/// A process of the ordinary user in namespaces of its own, as `Cmd::inside` enters them, and its number in the world.
fn namespace(world: &World) -> (Proc, u32) {
    let mut holder = world
        .host()
        .cmd([
            "unshare",
            "-Urn",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            // Its number outside: /proc is still the world's.
            "read -r pid rest < /proc/self/stat; echo pid $pid; exec sleep 100000",
        ])
        .who(Who::User)
        .spawn();
    holder.wait_for("pid ");
    let said = wait_for("a pid", Duration::from_secs(5), || {
        Some(holder.stdout()).filter(|s| s.ends_with('\n'))
    });
    let pid = said.trim().trim_start_matches("pid ").parse().expect("a pid");
    (holder, pid)
}

/// Waits for a default route: the stack is up.
fn up(mut running: Running<'_>) -> Running<'_> {
    wait_for("a default route", Duration::from_secs(10), || {
        if let Some(status) = running.procs[0].poll() {
            let stack = &mut running.procs[0];
            panic!(
                "the stack ended with {status}:\n{}{}",
                stack.stdout(),
                stack.stderr()
            );
        }
        running
            .cmd(&["ip", "route"])
            .run()
            .text()
            .contains("default")
            .then_some(())
    });
    running
}
