//! A cable that is pulled, and put back or elsewhere: the other end of an interface of the host goes down and comes up, of which the
//! interface's own packet socket hears nothing.

use std::time::{Duration, Instant};

use pontoon_fixtures::lab::{Bare, Daemon, Place, Proc, Wan, Who, World, require, wait_for};
use serde_json::{Value, json};

use super::addresses::hold;
use super::kinds::on_the_link;
use super::masked;
use super::site::attach;
use crate::{server_peers, start};

/// What a carrier that is back leads to does not take longer. (The kernel itself tells of carriers once a second.)
const SOON: Duration = Duration::from_secs(2);

/// dnsmasq on the link, whose leases nobody renews while a test lasts.
fn lender(world: &World, first: &str, last: &str) -> Proc {
    world.router().dnsmasq(&[
        "--interface=w7",
        &format!("--dhcp-range={first},{last},255.255.255.0,3600"),
        "--dhcp-option=option:router,100.64.7.254",
        "--dhcp-authoritative",
        "--leasefile-ro",
        "--no-ping",
    ])
}

/// The switch's end of the cable.
fn plug(world: &World, state: &str) {
    world
        .host()
        .run(["ip", "-n", "router", "link", "set", "wan0", state]);
}

/// What `network inspect` says of the uplink.
fn uplink(d: &Daemon<'_>, network: &str) -> Value {
    d.json(["network", "inspect", network])[0]["Uplink"].clone()
}

/// Waits until an uplink has, or has not, a carrier.
fn carrier(d: &Daemon<'_>, network: &str, there: bool) {
    let what = format!("the carrier of {network} to be {there}");
    wait_for(&what, SOON + SOON, || {
        (uplink(d, network)["Carrier"] == json!(there)).then_some(())
    });
}

/// The uplink's first address, which begins so, without its prefix.
fn address(d: &Daemon<'_>, network: &str, start: &str) -> String {
    wait_for(&format!("an address {start}…"), Duration::from_secs(15), || {
        let uplink = uplink(d, network);
        let address = uplink["Addresses"][0].as_str()?.split('/').next()?.to_owned();
        address.starts_with(start).then_some(address)
    })
}

/// What hears announcements on the link.
fn ear(place: Place<'_>) -> Proc {
    require("tcpdump");
    let mut dump = place.cmd(["tcpdump", "-n", "-l", "-i", "w7", "arp"]).spawn();
    dump.wait_for("listening on");
    dump
}

/// How often an address was announced: a question for it by whoever has it.
fn announced(ear: &Proc, address: &str) -> usize {
    let heard = ear.stdout();
    let is_it = |line: &&str| {
        line.contains(&format!("who-has {address}")) && line.contains(&format!("tell {address}"))
    };
    heard.lines().filter(is_it).count()
}

fn create(d: &Daemon<'_>, network: &str, subnet: &str, more: &[&str]) {
    let mut options = vec!["--subnet", subnet, "--uplink", "packet:p0"];
    options.extend(more);
    d.create(network, &options);
}

/// The lease is confirmed and the addresses are announced at once, by each network on the interface; meanwhile it is said.
#[test]
fn a_cable_is_pulled_and_put_back() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let server = lender(world, "100.64.7.100", "100.64.7.109");
    let [_tcp, _udp] = server_peers(world);
    let _echo = world
        .server()
        .socat("TCP4-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
    let ear = ear(world.router());
    let d = Daemon::start(world, Who::Root);
    create(&d, "edge", "10.44.0.0/24", &["--subnet", "fd44::/64"]);
    create(
        &d,
        "fixed",
        "10.46.0.0/24",
        &["--uplink-address", Wan::ADDRESS, "--uplink-gateway", Wan::GATEWAY],
    );
    let leased = address(&d, "edge", "100.64.7.10");
    let fixed = address(&d, "fixed", "100.64.7.77");
    carrier(&d, "edge", true);
    let a = Bare::start(world, Who::Root);
    attach(&d, "edge", "a", &a, 2);
    let mut held = hold(&a);
    // The announcements of the beginning are over, and nothing of the kind happens by itself.
    std::thread::sleep(Duration::from_secs(4));
    let asked =
        || server.stderr().matches("DHCPDISCOVER").count() + server.stderr().matches("DHCPREQUEST").count();
    let so_far = |ear: &Proc| (asked(), announced(ear, &leased), announced(ear, &fixed));
    let before = so_far(&ear);
    std::thread::sleep(SOON);
    assert_eq!(so_far(&ear), before, "without a reason");
    for word in ["once", "twice"] {
        let before = so_far(&ear);
        plug(world, "down");
        carrier(&d, "edge", false);
        carrier(&d, "fixed", false);
        assert_eq!(uplink(&d, "edge")["Up"], json!(true));
        let listed = d.run(["network", "ls"]);
        assert_eq!(listed.matches("packet:p0 (no carrier)").count(), 2, "{listed}");
        held.say(word);
        plug(world, "up");
        let up = Instant::now();
        wait_for("the lease to be confirmed and all to be announced", SOON, || {
            let now = so_far(&ear);
            (now.0 > before.0 && now.1 > before.1 && now.2 > before.2).then_some(())
        });
        println!("{word}: after {:?}", up.elapsed());
        carrier(&d, "edge", true);
        carrier(&d, "fixed", true);
        held.wait_for(word);
        assert_eq!(address(&d, "edge", "100.64.7."), leased);
    }
    // One that is taken down itself is told of by its packet socket, and has no carrier meanwhile.
    let host = world.host();
    host.run(["ip", "link", "set", "p0", "down"]);
    carrier(&d, "edge", false);
    host.run(["ip", "link", "set", "p0", "up"]);
    carrier(&d, "edge", true);
    held.say("thrice");
    held.wait_for("thrice");
}

/// It is put elsewhere: the lease of before is no good there, and whoever answers is followed at once. That the carrier went and came is
/// seen although no message tells it.
#[test]
fn a_cable_is_put_elsewhere() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let [_tcp, _udp] = server_peers(world);
    let server = lender(world, "100.64.7.100", "100.64.7.109");
    let c = start(world, Who::Root, "c", &["--uplink", "packet:p0"]);
    let ask = || masked(&c.run(["lab-peer", "tcp", "198.51.100.10:9000", "who"]));
    assert!(ask().starts_with("100.64.7.10"), "{}", ask());
    let inspect = || c.pontoon(["network", "inspect", "c"]).run().json()[0].clone();
    // So much happens to interfaces while the front is held up that its queue of messages overflows, the cable's among them.
    let front = inspect()["FrontPid"].to_string();
    let host = world.host();
    host.run(["kill", "-STOP", &front]);
    plug(world, "down");
    drop(server);
    let _server = lender(world, "100.64.7.150", "100.64.7.159");
    host.sh(
        "ip link add noise type veth peer name noise1; ip link set noise up
         for i in $(seq 1000); do echo link set noise alias $i; done | ip -batch -",
    );
    plug(world, "up");
    host.run(["kill", "-CONT", &front]);
    // Of the sockets that listen for interfaces (group 1), with the number of messages that were lost.
    let overflown = host.sh(r#"awk '$4 == "00000001" && $9 > 0' /proc/net/netlink"#);
    assert_ne!(overflown, "", "{}", host.sh("cat /proc/net/netlink"));
    let shown = || inspect()["Uplink"].clone();
    wait_for("an address of the other server", Duration::from_secs(8), || {
        shown()["Addresses"][0]
            .as_str()
            .is_some_and(|a| a.starts_with("100.64.7.15"))
            .then_some(())
    });
    assert_eq!(shown()["Carrier"], json!(true));
    assert!(ask().starts_with("100.64.7.15"), "{}", ask());
}

/// A cable that is not there when the network is made, nor when a command joins it: that is said, and mended when it comes.
#[test]
fn a_cable_that_comes_late() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let [_tcp, _udp] = server_peers(world);
    let _server = lender(world, "100.64.7.100", "100.64.7.109");
    plug(world, "down");
    let d = Daemon::start(world, Who::Root);
    create(&d, "edge", "10.44.0.0/24", &[]);
    carrier(&d, "edge", false);
    let run = |command: &[&str]| {
        let run = world
            .host()
            .cmd(["pontoon", "run", "--network", "edge", "--"])
            .args(command);
        run.spawn()
    };
    let waiting = run(&["lab-peer", "tcp", "198.51.100.10:9000", "who"]);
    std::thread::sleep(Duration::from_millis(500));
    plug(world, "up");
    let done = waiting.end(Duration::from_secs(15));
    assert!(masked(&done.ok()).starts_with("100.64.7.10"), "{done}");
    carrier(&d, "edge", true);
}
