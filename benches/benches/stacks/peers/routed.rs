//! Pontoon's routed egress: a network of the daemon's, as root, with a link of its own to the server, on which frames are
//! rewritten. Its container is a namespace with a TAP, as by default.

use std::time::Duration;

use anyhow::{Result, ensure};
use pontoon_fixtures::lab::{World, wait_for};

use super::{Inside, Plan, Running, new};
use crate::net::LIMITS;

/// The server's end of the link, as the daemon has made it, gets the addresses that the other links' ends have.
const SERVER: &str = "for i in $(seq 10 29); do ip addr add 198.19.2.$i/24 dev ls2; done; ip link set ls2 up";

/// The ports of the network's only address that lead to the container's port 9000, for connections that are made in turn.
const IN_TURN: std::ops::RangeInclusive<u16> = 13_000..=13_007;

/// Starts a daemon, a network and a namespace on it.
pub(super) fn start(world: &World, plan: Plan) -> Result<Running<'_>> {
    let host = world.host();
    let name = if plan.mtu == 1500 { "rc1" } else { "rc3" };
    // There if it was started before; the interface goes with the daemon of that time, but not at once.
    let _ = host.cmd(["ip", "netns", "del", name]).run();
    let _ = host.cmd(["ip", "-n", "server", "link", "del", "ls2"]).run();
    host.run(["ip", "netns", "add", name]);
    world.place(name).sh(LIMITS);
    let daemon = host
        .cmd([
            "pontoon",
            "daemon",
            "--state",
            &format!("/tmp/routed-{}.json", plan.n),
        ])
        .spawn();
    wait_for("the daemon", Duration::from_secs(10), || {
        host.cmd(["pontoon", "rule", "ls"]).run().success().then_some(())
    });
    let mut running = Running {
        net: 2,
        published_at: format!("1:{}-{}", IN_TURN.start(), IN_TURN.end()),
        ..new(world, Inside::Namespace(name), plan.n, vec![daemon])
    };
    let mtu = plan.mtu.to_string();
    let create = [
        "network",
        "create",
        "routed",
        "--subnet",
        "10.90.0.0/24",
        "--mtu",
        &mtu,
        "--uplink",
        "veth:ls2@server",
        "--uplink-address",
        "198.19.2.1/24",
        "--opt",
        "uplink-mtu=1500",
    ];
    let (load, bulk) = (
        format!("{}:9000", running.load_port),
        format!("{}:5201", running.bulk_port),
    );
    let target = format!("/run/netns/{name}");
    let attach = [
        "attach",
        &target,
        "--name",
        name,
        "--network",
        "routed",
        "-p",
        &load,
        "-p",
        &bulk,
    ];
    let in_turn: Vec<String> = IN_TURN.map(|port| format!("{port}:9000")).collect();
    let attach: Vec<&str> = attach
        .into_iter()
        .chain(in_turn.iter().flat_map(|rule| ["-p", rule]))
        .collect();
    for args in [&create[..], &attach[..]] {
        let done = host.pontoon(args).run();
        ensure!(done.success(), "{}", done.errors().trim());
        if args[0] == "network" {
            world.server().sh(SERVER);
        }
    }
    ensure!(running.alive(), "{}", running.last_words());
    Ok(running)
}
