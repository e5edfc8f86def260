//! The lab: the real binary with real programs, in networks of the test's own (`pontoon_fixtures::lab`).
//!
//! Each test builds its world, as root, and runs Pontoon in it as root, as an ordinary user without an account, or as
//! both. With `PONTOON_FALLBACK=all` in the environment the whole suite runs on the fall-backs of every optional kernel
//! feature.
#![forbid(unsafe_code)]

/// A test body that runs as root and as an ordinary user, each in a world of its own.
macro_rules! each_user {
    ($(#[doc = $doc:literal])* fn $name:ident($world:ident, $who:ident) $body:block) => {
        $(#[doc = $doc])*
        mod $name {
            // A body may need none of them.
            #[allow(unused_imports)]
            use super::*;
            fn body($world: &pontoon_fixtures::lab::World, $who: pontoon_fixtures::lab::Who) $body
            #[test]
            fn as_root() {
                body(&$crate::world(), pontoon_fixtures::lab::Who::Root);
            }
            #[test]
            fn as_user() {
                body(&$crate::world(), pontoon_fixtures::lab::Who::User);
            }
        }
    };
}

mod attach;
mod control;
mod daemon;
mod dns;
mod exhausted;
mod icmp;
mod inside;
mod isolation;
mod lifecycle;
mod modes;
mod networks;
#[path = "../openapi/mod.rs"]
mod openapi;
mod publish;
mod reach;
mod run;
mod sandbox;
mod slirp4netns;
mod tcp;
mod udp;
mod uplink;

use std::net::SocketAddr;

use pontoon_fixtures::lab::{Container, Place, Proc, Who, World};

/// A world with the binary under test in it.
fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_pontoon"))
}

/// No options for `pontoon run`.
const PLAIN: [&str; 0] = [];

/// The addresses of the server that tests talk to, one a family, with this port.
fn server_at(port: u16) -> [String; 2] {
    [
        format!("198.51.100.10:{port}"),
        format!("[2001:db8:2::10]:{port}"),
    ]
}

/// The lab's peer in `place`, TCP and UDP on port 9000.
fn peers(place: Place<'_>, udp: &[&str]) -> [Proc; 2] {
    let tcp = place.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    let udp = place.cmd(["lab-peer", "udp-serve"]).args(udp).spawn();
    place.wait_tcp(9000);
    place.wait_udp(9000);
    [tcp, udp]
}

/// The lab's peer in the server's namespace, TCP and UDP on port 9000 of two addresses of each family.
fn server_peers(world: &World) -> [Proc; 2] {
    peers(
        world.server(),
        &[
            "198.51.100.10:9000",
            "198.51.100.11:9000",
            "[2001:db8:2::10]:9000",
            "[2001:db8:2::11]:9000",
        ],
    )
}

/// The lab's peer inside a container.
fn container_peers(c: &Container<'_>) -> [Proc; 2] {
    let tcp = c.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    let mut udp = vec![SocketAddr::new(c.ip, 9000).to_string()];
    udp.extend(c.ip6.map(|ip| SocketAddr::new(ip, 9000).to_string()));
    let mut udp = c.cmd(["lab-peer", "udp-serve"]).args(udp).spawn();
    udp.wait_for("listening");
    let mut tcp = tcp;
    tcp.wait_for("listening");
    [tcp, udp]
}

/// Bit/s that arrived, as iperf3 in `c` reports. A server that is not yet done with the test before is asked again; a
/// run that failed otherwise is a failure.
fn iperf3(c: &Container<'_>, args: &[&str]) -> f64 {
    for _ in 0..20 {
        let report = c.cmd(["iperf3", "-t1", "-J"]).args(args).run();
        let parsed: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        match parsed["error"].as_str() {
            Some(e) if e.contains("busy") => std::thread::sleep(std::time::Duration::from_millis(100)),
            Some(e) => panic!("{args:?}: {e}: {report}"),
            None => {
                return parsed["end"]["sum_received"]["bits_per_second"]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{report}"));
            }
        }
    }
    panic!("{args:?}: the server stays busy")
}

/// A container with options, started by `who`.
fn start<'w>(world: &'w World, who: Who, name: &str, options: &[&str]) -> Container<'w> {
    Container::start(world, who, name, options)
}
