//! Networks of the daemon: how they are made, what they give out, and who reaches whom on them and beyond.
//!
//! One theme a file, each with a daemon of its own and containers of both kinds: those of `pontoon run`, and namespaces that
//! somebody else made.

mod addresses;
mod attached;
mod commands;
mod default_route;
mod hairpin;
mod internal;
mod kinds;
mod names;
mod own_names;
mod several;

use std::net::IpAddr;
use std::time::Duration;

use pontoon_fixtures::lab::{Cmd, Container, Daemon, Done, Proc, World, require, wait_for};
use serde_json::Value;

/// A container's interface on a network, as `pontoon ps` knows it.
fn endpoint(daemon: &Daemon<'_>, container: &str, network: &str) -> Value {
    let info = daemon.container(container);
    let all = info["endpoints"].as_array();
    all.and_then(|all| all.iter().find(|e| e["network"] == network))
        .unwrap_or_else(|| panic!("{container} is not on {network}: {info}"))
        .clone()
}

/// A container's addresses on a network, IPv4 first.
fn addresses(daemon: &Daemon<'_>, container: &str, network: &str) -> Vec<IpAddr> {
    let addresses = serde_json::from_value(endpoint(daemon, container, network)["addresses"].clone());
    addresses.expect("addresses")
}

/// A container's first address on a network.
fn address(daemon: &Daemon<'_>, container: &str, network: &str) -> String {
    addresses(daemon, container, network)
        .first()
        .expect("an address")
        .to_string()
}

/// What `network inspect` says of one network.
fn inspect(daemon: &Daemon<'_>, network: &str) -> Value {
    daemon.json(["network", "inspect", network])[0].clone()
}

/// A network's gateways, IPv4 first.
fn gateways(daemon: &Daemon<'_>, network: &str) -> Vec<String> {
    let all = inspect(daemon, network);
    let config = all["IPAM"]["Config"].as_array().expect("ranges");
    let gateway = |c: &Value| c["Gateway"].as_str().map(str::to_owned);
    config.iter().filter_map(gateway).collect()
}

/// One echo, asked for within two seconds.
fn ping<'w>(from: &Container<'w>, to: impl ToString) -> Cmd<'w> {
    from.cmd(["ping", "-n", "-c1", "-W9", &to.to_string()])
}

/// An answer of a name server.
struct Answer {
    status: String,
    /// What it knows: sorted, without the final dots of names.
    data: Vec<String>,
}

/// Asks `server` for a name, as `dig` does; `-x` and an address for the way back.
fn dig(from: impl Fn(&[&str]) -> Done, server: &str, question: &[&str]) -> Answer {
    let at = format!("@{server}");
    let mut argv = vec![
        "dig",
        "+time=3",
        "+tries=2",
        "+noall",
        "+comments",
        "+answer",
        &at,
    ];
    argv.extend(question);
    let text = from(&argv).ok();
    let status = text
        .split_once("status: ")
        .and_then(|(_, rest)| rest.split_once(','))
        .unwrap_or_else(|| panic!("{question:?}: {text}"))
        .0;
    let record = |line: &str| {
        line.split_whitespace()
            .nth(4)
            .map(|d| d.trim_end_matches('.').to_owned())
    };
    let mut data: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with(';'))
        .filter_map(record)
        .collect();
    data.sort();
    Answer {
        status: status.to_owned(),
        data,
    }
}

/// Asks from inside a container, and wants these data.
#[track_caller]
fn knows(c: &Container<'_>, server: &str, question: &[&str], data: &[&str]) {
    let answer = dig(|argv| c.cmd(argv).run(), server, question);
    let mut data: Vec<&str> = data.to_vec();
    data.sort_unstable();
    assert_eq!(answer.data, data, "{question:?} at {server}: {}", answer.status);
    assert_eq!(answer.status, "NOERROR", "{question:?} at {server}");
}

/// Asks from inside a container, and wants no answer but the word of the servers of the world, which know no such name.
#[track_caller]
fn knows_not(c: &Container<'_>, server: &str, question: &[&str]) {
    let answer = dig(|argv| c.cmd(argv).run(), server, question);
    assert!(
        answer.data.is_empty() && answer.status == "NXDOMAIN",
        "{question:?} at {server}: {} {:?}",
        answer.status,
        answer.data
    );
}

/// The world's name server at 198.51.100.10, which is the host's: it knows example.test and that there is nothing else.
fn name_server(world: &World) -> Proc {
    world.server().dnsmasq(&[
        "--listen-address=198.51.100.10",
        "--address=/example.test/192.0.2.10",
        "--address=/#/",
    ])
}

/// A server in a container, on TCP port 9000 of every address, that says who asks.
fn tcp_server(c: &Container<'_>) -> Proc {
    let mut server = c.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    server.wait_for("listening");
    server
}

/// tcpdump at a container's interfaces, listening already. As root, whoever's the container is: it wants to be another user.
fn tcpdump(c: &Container<'_>, options: &[&str]) -> Proc {
    require("tcpdump");
    let mut capture = c
        .world()
        .host()
        .cmd(["nsenter", "-t", &c.pid.to_string(), "-n", "tcpdump", "-n", "-l"])
        .args(options)
        .spawn();
    capture.wait_for("listening on");
    capture
}

/// Waits until a container's interface is gone, with whatever led by it.
fn interface_gone(c: &Container<'_>, interface: &str) {
    wait_for("an interface to go", Duration::from_secs(3), || {
        (!c.cmd(["ip", "link", "show", interface]).run().success()).then_some(())
    });
}
