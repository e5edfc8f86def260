//! The probe (`benches/src/bin/pontoon-probe`): what a machine's system calls allow a switch or a relay that does next to
//! nothing else. No stack that anybody could use, so it is no peer of Pontoon's.
//!
//! ```text
//! probea / probex  eth0 10.86.0.2/24, default route ── TAP ── pontoon-probe relay ── sockets in `host`
//!   └ eth1 10.86.1.1/24 ── TAP ── pontoon-probe forward ── TAP ── eth0 10.86.1.2/24  probeb / probey
//! ```

use anyhow::{Context, Result, ensure};
use pontoon_fixtures::lab::{World, build};

use super::{Inside, Plan, Running, install, new};

/// The first address is the gateway's, whose MAC the relay takes for granted.
const CONTAINER: &str = r#"
ip link set lo up
ip link set eth0 mtu $1 up
ip addr add 10.86.0.2/24 dev eth0
ip neigh add 10.86.0.1 lladdr 02:00:00:00:00:01 dev eth0
ip route add default via 10.86.0.1
"#;

/// Builds the probe and puts it into the world.
pub(crate) fn provide(world: &World) -> Result<()> {
    install(
        world,
        "pontoon-probe",
        &build("pontoon-benches", "pontoon-probe", &["--release"]),
    )
}

/// Starts `relay`, and `forward` if there is a neighbour.
pub(super) fn start(world: &World, plan: Plan) -> Result<Running<'_>> {
    let (a, b) = if plan.mtu == 1500 {
        ("probea", "probeb")
    } else {
        ("probex", "probey")
    };
    for name in [a, b] {
        // There if it has died before.
        let _ = world.host().cmd(["ip", "netns", "del", name]).run();
        world.host().run(["ip", "netns", "add", name]);
    }
    let sh = |place: &'static str, script: &str, arg: &str| -> Result<()> {
        let done = world.place(place).cmd(["sh", "-ec", script, "sh", arg]).run();
        ensure!(done.success(), "{}", done.errors().trim());
        Ok(())
    };
    let probe = |args: &[&str]| {
        let mut proc = world.host().cmd(["pontoon-probe"]).args(args).spawn();
        proc.wait_for("up");
        proc
    };
    let mtu = plan.mtu.to_string();
    let mut procs = vec![probe(&["relay", a, "eth0", &mtu])];
    sh(a, CONTAINER, &mtu).context("set the container up")?;
    let mut neighbour = None;
    if plan.neighbour {
        procs.push(probe(&["forward", a, "eth1", b, "eth0"]));
        for (place, device, address) in [(a, "eth1", "10.86.1.1/24"), (b, "eth0", "10.86.1.2/24")] {
            let script = format!("ip addr add {address} dev $1; ip link set $1 mtu {mtu} up");
            sh(place, &script, device).context("set the neighbour up")?;
        }
        neighbour = Some((Inside::Namespace(b), "10.86.1.2".to_owned()));
    }
    Ok(Running {
        neighbour,
        ..new(world, Inside::Namespace(a), 0, procs)
    })
}
