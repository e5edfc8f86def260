//! Who reaches whom on user-defined networks: isolation and links, port security, storm control, rules on clients, wires,
//! networks beside each other, and networks that the host or its LAN is on.
//!
//! That something does not arrive is seen where it would: `tcpdump` runs there, and what it shows ends with a frame that
//! may pass and was sent last. So it is not looked for too early, and the ear is known to hear.

mod apart;
mod beside;
mod claims;
mod lan;
mod links;
mod refusals;
mod rules;
mod storm;
mod vlans;
mod wires;

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, Done, Proc, World, require, wait_for};
use pontoon_switch::MacAddr;

/// What `tcpdump` sees on an interface of the network namespace of process `pid`, a line for each frame; it listens
/// already.
fn listen(world: &World, pid: u32, interface: &str, filter: &str) -> Proc {
    require("tcpdump");
    // Not from within the container's user namespace: there tcpdump has no other user to become.
    let enter = ["nsenter", "-t", &pid.to_string(), "-n", "--"].map(str::to_owned);
    let tcpdump = [
        "tcpdump",
        "-n",
        "-e",
        "-l",
        "--immediate-mode",
        "-i",
        interface,
        filter,
    ];
    let mut ear = world.host().cmd(enter).args(tcpdump).spawn();
    ear.wait_for("listening on");
    ear
}

/// Why frames of a container were dropped at its port, and how many.
fn drops(d: &Daemon<'_>, network: &str, container: &str) -> BTreeMap<String, u64> {
    let stats = d.json(["stats", network, "--json"]);
    let ports = stats[0]["ports"].as_array().expect("ports");
    let port = ports.iter().find(|p| p["name"] == container);
    let port = port.unwrap_or_else(|| panic!("{container} has no port on {network}: {stats}"));
    serde_json::from_value(port["drops"].clone()).expect("counters")
}

/// How many frames of a container have been dropped for `reason`.
fn dropped(d: &Daemon<'_>, network: &str, container: &str, reason: &str) -> u64 {
    drops(d, network, container)
        .get(reason)
        .copied()
        .unwrap_or_default()
}

/// Waits until at least `more` frames than `before` have been dropped for `reason`.
fn wait_dropped(d: &Daemon<'_>, network: &str, container: &str, reason: &str, before: u64, more: u64) {
    wait_for(
        &format!("{more} more drops of {container} for {reason}"),
        Duration::from_secs(5),
        || (dropped(d, network, container, reason) >= before + more).then_some(()),
    );
}

/// The MAC address of a container's first interface.
fn mac(c: &Container<'_>) -> MacAddr {
    let link = c.cmd(["ip", "-j", "link", "show", "eth0"]).run().json();
    let text = link[0]["address"].as_str().expect("an address");
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no MAC address"))
}

/// A container's addresses as text.
fn addresses(c: &Container<'_>) -> [String; 2] {
    [c.ip.to_string(), c.ip6.expect("IPv6").to_string()]
}

/// Pings `to` twice, and waits longer for an answer than it can take.
fn ping(c: &Container<'_>, to: &str) -> Done {
    c.cmd(["ping", "-n", "-c2", "-i0.2", "-W9", to]).run()
}

/// Whether no ping to `to` is answered for as long as an answer takes here.
fn silent(c: &Container<'_>, to: &str) -> bool {
    let done = c.cmd(["ping", "-n", "-c2", "-i0.2", "-W1", to]).run();
    !done.success()
}

/// Whether a TCP connection to a port of `to` comes about. A kernel that has looked for a neighbour in vain says so to some
/// that come later, so it is tried again.
fn connects(c: &Container<'_>, to: &str, port: u16) -> bool {
    (0..4).any(|_| connects_within(c, to, port, "2"))
}

/// Whether nothing comes of a TCP connection to a port of `to` for as long as one takes here.
fn closed(c: &Container<'_>, to: &str, port: u16) -> bool {
    !connects_within(c, to, port, "1")
}

fn connects_within(c: &Container<'_>, to: &str, port: u16, seconds: &str) -> bool {
    let port = port.to_string();
    c.cmd(["ncat", "-z", "-w", seconds, to, &port]).run().success()
}

/// Whether a UDP port of `to`, where `lab-peer` listens, answers.
fn answers(c: &Container<'_>, to: &str, port: u16) -> bool {
    answers_within(c, to, port, "9")
}

/// Whether it does not for as long as an answer takes here.
fn unanswered(c: &Container<'_>, to: &str, port: u16) -> bool {
    !answers_within(c, to, port, "1.5")
}

fn answers_within(c: &Container<'_>, to: &str, port: u16, seconds: &str) -> bool {
    let to = at(to, port);
    c.cmd(["timeout", seconds, "lab-peer", "udp-ask", &to])
        .run()
        .success()
}

/// An address with a port.
fn at(ip: &str, port: u16) -> String {
    std::net::SocketAddr::new(ip.parse().expect("an address"), port).to_string()
}

/// A TCP server in a container that says `what` to whoever comes, by IPv4 and IPv6.
fn says(c: &Container<'_>, port: u16, what: &str) -> Proc {
    let listen = format!("TCP6-LISTEN:{port},fork,reuseaddr");
    let server = c.cmd(["socat", &listen, &format!("SYSTEM:echo {what}")]).spawn();
    wait_for("a server in a container", Duration::from_secs(5), || {
        c.run(["ss", "-ltnH"])
            .contains(&format!(":{port} "))
            .then_some(())
    });
    server
}

/// What a server that says something says; empty if there is no answer.
fn hear(c: &Container<'_>, to: &str, port: u16) -> String {
    let kind = if to.contains(':') {
        format!("TCP6:[{to}]:{port},connect-timeout=2")
    } else {
        format!("TCP4:{to}:{port},connect-timeout=2")
    };
    c.cmd(["socat", "-t2", "-T3", "-", &kind]).run().text()
}

/// Sends raw frames once from a container's `eth0`, as its kernel would not.
fn send_raw(c: &Container<'_>, frames: &[Vec<u8>]) {
    let count = frames.len().to_string();
    c.cmd(["lab-hostile", "frames", "eth0", &count, "1000"])
        .args(frames.iter().map(|f| hex(f)))
        .run()
        .ok();
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
