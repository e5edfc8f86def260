//! The stacks that are measured, and how a container behind each is started.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pontoon_fixtures::lab::{Bare, Cmd, PATH, Proc, Who, World};

use crate::net;
use crate::process::{self, Pids, Program};

mod ovs;
mod probe;
mod routed;

pub(crate) use probe::provide as provide_probe;

/// What a column is to Pontoon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Pontoon itself, in whatever way.
    Ours,
    /// What a user would pick instead.
    Other,
    /// What the kernel does, with privilege.
    Kernel,
    /// What system calls allow.
    Probe,
}

/// A column of the table.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Programs whose processes count as the stack's own; the first is what `--<peer> PATH` replaces.
    pub(crate) programs: &'static [&'static str],
    /// In which rows it can take part.
    pub(crate) can: Can,
    start: for<'w> fn(&'w World, Plan) -> Result<Running<'w>>,
    /// How its start is measured, for a namespace that is there and with one of its own: what `lab-load` is told, if it can
    /// be started so.
    pub(crate) ready: &'static [&'static str],
    pub(crate) ready_run: &'static [&'static str],
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Of the container's interface.
    pub(crate) mtu: u32,
    /// Tells the containers of a run apart.
    pub(crate) n: u16,
    /// With a second container on the same network.
    pub(crate) neighbour: bool,
}

/// Which rows a peer can take part in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Can {
    All,
    /// No network that several containers share.
    NoNeighbours,
    /// Nothing but that.
    OnlyNeighbours,
    /// Bulk data of one stream that the container began.
    OnlyBulk,
}

/// How Pontoon's `slirp4netns` is timed.
const READY: &[&str] = &[
    "ready-fd",
    "20",
    "pontoon",
    "slirp4netns",
    "--configure",
    "--ready-fd=0",
    "{pid}",
    "tap0",
];

/// All columns, Pontoon first. `before` is there only if `--before PATH` names another Pontoon.
pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "pontoon",
        kind: Kind::Ours,
        programs: &["pontoon"],
        can: Can::All,
        start: |world, plan| pontoon(world, plan, "pontoon", false),
        ready: READY,
        ready_run: &["ready", "20", "pontoon", "run", "--", "lab-load", "now"],
    },
    Peer {
        name: "before",
        kind: Kind::Ours,
        programs: &["pontoon-before"],
        can: Can::All,
        start: |world, plan| pontoon(world, plan, "pontoon-before", false),
        ready: &[],
        ready_run: &["ready", "20", "pontoon-before", "run", "--", "lab-load", "now"],
    },
    Peer {
        name: "fallback",
        kind: Kind::Ours,
        programs: &["pontoon"],
        can: Can::All,
        start: |world, plan| pontoon(world, plan, "pontoon", true),
        ready: READY,
        ready_run: &["ready", "20", "pontoon", "run", "--", "lab-load", "now"],
    },
    Peer {
        name: "routed",
        kind: Kind::Ours,
        programs: &["pontoon"],
        can: Can::NoNeighbours,
        start: routed::start,
        ready: &[],
        ready_run: &[],
    },
    Peer {
        name: "slirp4netns",
        kind: Kind::Other,
        programs: &["slirp4netns"],
        can: Can::NoNeighbours,
        start: slirp4netns,
        ready: &[
            "ready-fd",
            "20",
            "slirp4netns",
            "--configure",
            "--ready-fd=0",
            "{pid}",
            "tap0",
        ],
        ready_run: &[],
    },
    Peer {
        name: "pasta",
        kind: Kind::Other,
        programs: &["pasta", "pasta.avx2", "passt", "passt.avx2"],
        can: Can::NoNeighbours,
        start: pasta,
        ready: &[],
        ready_run: &[
            "ready",
            "20",
            "pasta",
            "--config-net",
            "-q",
            "-t",
            "none",
            "-u",
            "none",
            "-T",
            "none",
            "-U",
            "none",
            "--",
            "lab-load",
            "now",
        ],
    },
    Peer {
        name: "kernel",
        kind: Kind::Kernel,
        programs: &[],
        can: Can::All,
        start: kernel,
        ready: &[],
        ready_run: &[],
    },
    Peer {
        name: "ovs",
        kind: Kind::Other,
        programs: &["ovs-vswitchd"],
        can: Can::OnlyNeighbours,
        start: |world, _| ovs::start(world, "ohost", false),
        ready: &[],
        ready_run: &[],
    },
    Peer {
        name: "ovs-tso",
        kind: Kind::Other,
        programs: &["ovs-vswitchd"],
        can: Can::OnlyNeighbours,
        start: |world, _| ovs::start(world, "ohostt", true),
        ready: &[],
        ready_run: &[],
    },
    Peer {
        name: "probe",
        kind: Kind::Probe,
        programs: &["pontoon-probe"],
        can: Can::OnlyBulk,
        start: probe::start,
        ready: &[],
        ready_run: &[],
    },
];

/// Where a container is.
#[derive(Clone, Debug)]
pub(crate) enum Inside {
    /// In the namespaces of this process of the ordinary user.
    Process(u32),
    /// In a named network namespace, as root.
    Namespace(&'static str),
}

/// A container with network.
pub(crate) struct Running<'w> {
    pub(crate) world: &'w World,
    pub(crate) inside: Inside,
    /// A second container on the same network, and its address.
    pub(crate) neighbour: Option<(Inside, String)>,
    /// The stack's own processes.
    pub(crate) pids: Pids,
    /// The third number of the addresses of host and server: 198.19.N.
    pub(crate) net: u8,
    /// Where connections to its port 9000 are made in turn, as `lab-load` takes it: the last numbers of the host's addresses, and
    /// the ports. Eight pairs of address and port, as one has source ports for some 14,000 connections a minute only.
    pub(crate) published_at: String,
    /// Host ports that lead to its ports 9000 and 5201.
    pub(crate) load_port: u16,
    pub(crate) bulk_port: u16,
    /// The network's name, for `pontoon stats`.
    pub(crate) network: Option<String>,
    /// `lab-load serve` in it, once a row needs it.
    pub(crate) server: Option<Proc>,
    // The stack first; all end when this is dropped.
    procs: Vec<Proc>,
}

impl Peer {
    /// True for Pontoon with every fall-back forced.
    pub(crate) fn fallback(&self) -> bool {
        self.name == "fallback"
    }

    /// Starts a container behind it.
    pub(crate) fn start<'w>(&self, world: &'w World, plan: Plan) -> Result<Running<'w>> {
        for program in self.programs.iter().take(1) {
            ensure!(installed(world, program).is_some(), "{program} is not installed");
        }
        let programs: Vec<Program> = self
            .programs
            .iter()
            .filter_map(|p| process::program(&installed(world, p)?))
            .collect();
        let before = process::running(&programs, world.init());
        let mut running = (self.start)(world, plan)?;
        running.pids = process::running(&programs, world.init())
            .difference(&before)
            .copied()
            .collect();
        if let Inside::Process(pid) = running.inside {
            net::raise_limits(world, pid)?;
        }
        Ok(running)
    }
}

impl<'w> Running<'w> {
    /// A command in the container.
    pub(crate) fn cmd(&self, argv: &[&str]) -> Cmd<'w> {
        cmd(self.world, &self.inside, argv)
    }

    /// True while all of the stack runs.
    pub(crate) fn alive(&mut self) -> bool {
        self.procs.iter_mut().all(|p| p.poll().is_none())
    }

    /// The last thing the stack said before it died.
    pub(crate) fn last_words(&mut self) -> String {
        let said = self.procs.iter_mut().find_map(|p| {
            let status = p.poll()?;
            let errors = p.stderr();
            let last = errors.lines().last().unwrap_or_default().trim().to_owned();
            Some(format!("died ({status}): {last}"))
        });
        said.unwrap_or_else(|| "does not answer".to_owned())
    }
}

/// A command in a container of `world`.
pub(crate) fn cmd<'w>(world: &'w World, inside: &Inside, argv: &[&str]) -> Cmd<'w> {
    match *inside {
        Inside::Process(pid) => world.host().cmd(argv).who(Who::User).inside(pid),
        Inside::Namespace(name) => world.place(name).cmd(argv),
    }
}

/// Where a program is in the world, as seen from outside.
fn installed(world: &World, program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|dir| world.path(&format!("{dir}/{program}")))
        .find(|p| p.exists())
}

/// Puts the program at `path` first in everybody's `PATH`, under the name the peer starts it by.
pub(crate) fn install(world: &World, program: &str, path: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let content = std::fs::read(path).with_context(|| format!("read {path}"))?;
    let at = world.path(&format!("/run/bin/{program}"));
    std::fs::write(&at, content).with_context(|| format!("write {program} in the world"))?;
    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn new<'w>(world: &'w World, inside: Inside, n: u16, procs: Vec<Proc>) -> Running<'w> {
    Running {
        world,
        inside,
        neighbour: None,
        pids: Pids::new(),
        net: 0,
        published_at: format!("1-8:{}", 11_000 + n),
        load_port: 11_000 + n,
        bulk_port: 10_000 + n,
        network: None,
        server: None,
        procs,
    }
}

fn pontoon<'w>(world: &'w World, plan: Plan, program: &str, fallback: bool) -> Result<Running<'w>> {
    let Plan { mtu, n, neighbour } = plan;
    let name = format!("p{n}");
    let (load, bulk) = (format!("{}:9000", 11_000 + n), format!("{}:5201", 10_000 + n));
    let mtu = mtu.to_string();
    let options = ["--mtu", &mtu, "-p", &load, "-p", &bulk];
    let (first, run, _) = pontoon_run(world, program, fallback, &name, &options)?;
    let mut procs = vec![run];
    let mut second = None;
    if neighbour {
        let joined = format!("{name}b");
        let (inside, run, address) = pontoon_run(world, program, fallback, &joined, &["--network", &name])?;
        procs.push(run);
        second = Some((inside, address));
    }
    Ok(Running {
        neighbour: second,
        network: Some(name),
        ..new(world, first, n, procs)
    })
}

/// A container that sleeps, and its IPv4 address.
fn pontoon_run(
    world: &World,
    program: &str,
    fallback: bool,
    name: &str,
    options: &[&str],
) -> Result<(Inside, Proc, String)> {
    let mut cmd = world
        .host()
        .cmd([program, "run", "--name", name])
        .args(options)
        .args(["--", "sh", "-c", "echo container is up; exec sleep 100000"])
        .who(Who::User);
    if fallback {
        cmd = cmd.env("PONTOON_FALLBACK", "all");
    }
    let mut run = cmd.spawn();
    run.wait_for("container is up");
    let all = world
        .host()
        .cmd([program, "ps", "--json"])
        .who(Who::User)
        .run()
        .json();
    let me = all
        .as_array()
        .and_then(|a| a.iter().find(|c| c["name"] == name))
        .with_context(|| format!("no {name} in `{program} ps`"))?;
    let pid = me["pid"].as_u64().context("no pid in `pontoon ps`")?;
    let address = me["endpoints"][0]["addresses"][0]
        .as_str()
        .context("no address in `pontoon ps`")?;
    Ok((Inside::Process(u32::try_from(pid)?), run, address.to_owned()))
}

fn slirp4netns(world: &World, Plan { mtu, n, .. }: Plan) -> Result<Running<'_>> {
    let Bare { holder, pid, .. } = Bare::start(world, Who::User);
    let api = format!("/tmp/slirp-{n}.sock");
    let _ = std::fs::remove_file(world.path(&api));
    let slirp = world
        .host()
        .cmd(["slirp4netns", "--configure", "--mtu", &mtu.to_string()])
        .args(["--api-socket", &api, &pid.to_string(), "tap0"])
        .who(Who::User)
        .spawn();
    let running = up(new(world, Inside::Process(pid), n, vec![slirp, holder]))?;
    for (host, guest) in [(running.load_port, 9000), (running.bulk_port, 5201)] {
        let ask = format!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"tcp","host_addr":"0.0.0.0","host_port":{host},"guest_addr":"10.0.2.100","guest_port":{guest}}}}}"#
        );
        let mut stream = UnixStream::connect(world.path(&api)).context("slirp4netns's API socket")?;
        stream.write_all(ask.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(!answer.contains("error"), "add_hostfwd: {answer}");
    }
    Ok(running)
}

fn pasta(world: &World, Plan { mtu, n, .. }: Plan) -> Result<Running<'_>> {
    let Bare { holder, pid, .. } = Bare::start(world, Who::User);
    let publish = format!("{}:9000,{}:5201", 11_000 + n, 10_000 + n);
    let pasta = world
        .host()
        .cmd(["pasta", "--config-net", "-f", "-q", "-m", &mtu.to_string()])
        // By default it would look for ports to publish each second.
        .args(["-t", &publish, "-u", "none", "-T", "none", "-U", "none"])
        .args([&pid.to_string()])
        .who(Who::User)
        .spawn();
    up(new(world, Inside::Process(pid), n, vec![pasta, holder]))
}

fn kernel(world: &World, plan: Plan) -> Result<Running<'_>> {
    let name = if plan.mtu == 1500 { "k1" } else { "k3" };
    Ok(Running {
        neighbour: plan
            .neighbour
            .then(|| (Inside::Namespace("k2"), "10.88.0.3".to_owned())),
        net: 1,
        published_at: format!("1-8:{}", net::KERNEL_LOAD),
        load_port: net::KERNEL_LOAD,
        bulk_port: net::KERNEL_BULK,
        ..new(world, Inside::Namespace(name), 0, Vec::new())
    })
}

/// Waits for a default route: the stack is up.
fn up(mut running: Running<'_>) -> Result<Running<'_>> {
    for _ in 0..100 {
        if !running.alive() {
            bail!("{}", running.last_words());
        }
        if running.cmd(&["ip", "route"]).run().text().contains("default") {
            return Ok(running);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("no default route after 5 s")
}
