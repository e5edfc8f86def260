//! `pontoon daemon`: what outlives it, who is served by it, what it says of itself, and how many it bears.
//!
//! What its networks do for their containers is tested elsewhere: this is about the process.

mod api;
mod fronts;
mod hanging;
mod manual;
mod metrics;
mod modes;
mod peers;
mod restart;
mod revive;
mod scale;
mod service;
mod state;

use pontoon_fixtures::lab::{Container, Daemon, Done, Place, Proc, Who, World};
use serde_json::Value;

/// The daemon's socket, unless it is told otherwise.
fn socket(who: Who) -> String {
    format!("{}/daemon.sock", who.runtime_dir())
}

/// A container's interface on a network, as `pontoon ps` has it.
fn endpoint(container: &Value, network: &str) -> Value {
    let all = container["endpoints"].as_array();
    let found = all.and_then(|all| all.iter().find(|e| e["network"] == network));
    found
        .cloned()
        .unwrap_or_else(|| panic!("not on {network}: {container}"))
}

/// The container's IPv4 address on a network.
fn address(container: &Value, network: &str) -> String {
    let endpoint = endpoint(container, network);
    let address = endpoint["addresses"][0].as_str();
    address
        .unwrap_or_else(|| panic!("no address: {endpoint}"))
        .to_owned()
}

/// The packet process of a network.
fn packet_pid(daemon: &Daemon<'_>, network: &str) -> u64 {
    let all = daemon.json(["network", "ls", "--json"]);
    let found = all
        .as_array()
        .and_then(|all| all.iter().find(|n| n["name"] == network));
    let pid = found.and_then(|n| n["packet_pid"].as_u64());
    pid.unwrap_or_else(|| panic!("no network {network}: {all}"))
}

/// An HTTP server on port 80 of a container, whose page is `hello from NAME`.
fn web_server(c: &Container<'_>) -> Proc {
    pontoon_fixtures::lab::require("busybox");
    let root = format!("/tmp/www-{}", c.name);
    c.world()
        .write(&format!("{root}/index.html"), format!("hello from {}\n", c.name));
    let server = c.cmd(["busybox", "httpd", "-f", "-p", "80", "-h", &root]).spawn();
    let listening = || c.run(["ss", "-ltnH"]).contains(":80 ").then_some(());
    pontoon_fixtures::lab::wait_for("a web server", std::time::Duration::from_secs(5), listening);
    server
}

/// What a page is, asked for from a place by `curl`.
fn get(place: Place<'_>, url: &str) -> Done {
    place.cmd(["curl", "-sS", "-m3", url]).run()
}

/// Asks for a page until it is what is wanted, or three seconds have passed.
fn get_soon(place: Place<'_>, url: &str, wanted: &str) {
    let got = || (get(place, url).text() == wanted).then_some(());
    pontoon_fixtures::lab::wait_for(url, std::time::Duration::from_secs(3), got);
}

/// Hundredths of a second that a process has had of a processor, without its children.
fn ticks(world: &World, pid: u64) -> u64 {
    let stat = std::fs::read_to_string(world.path(&format!("/proc/{pid}/stat"))).expect("a process");
    let after_name = stat.rsplit(") ").next().expect("its fields");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let field = |i: usize| fields[i].parse::<u64>().expect("a number");
    field(11) + field(12)
}

/// The daemon's own process, by its number in the world.
fn daemon_pid(daemon: &Daemon<'_>) -> u64 {
    let all = daemon.json(["network", "ls", "--json"]);
    let found = all
        .as_array()
        .and_then(|all| all.iter().find(|n| n["persistent"] == true));
    let pid = found.and_then(|n| n["front_pid"].as_u64());
    pid.unwrap_or_else(|| panic!("no network of the daemon's: {all}"))
}
