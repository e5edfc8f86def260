//! Storm control: how much of a broadcast flood the neighbours get.

use std::time::Instant;

use pontoon_fixtures::lab::{Container, Daemon, Who, World};
use pontoon_fixtures::packet::Between;
use pontoon_switch::MacAddr;

use super::{dropped, hex, mac, ping, wait_dropped};
use crate::start;

/// Frames of a flood.
const FRAMES: u64 = 3000;
/// How many of them are sent in a second.
const RATE: u64 = 2000;
/// What a container may send unless told otherwise.
const LIMIT: u64 = 512;

/// Frames that have come to a container's interface.
fn received(c: &Container<'_>) -> u64 {
    let link = c.cmd(["ip", "-j", "-s", "link", "show", "eth0"]).run().json();
    link[0]["stats64"]["rx"]["packets"].as_u64().expect("a counter")
}

/// Floods a network with the option `storm`, if any: how many frames the neighbour got, how many were dropped for it, and how
/// long it took, in seconds.
fn flood(world: &World, who: Who, d: &Daemon<'_>, network: &str, storm: Option<&str>) -> (u64, u64, f64) {
    let option = storm.map(|s| format!("storm={s}"));
    let option: Vec<&str> = option.iter().flat_map(|o| ["--opt", o.as_str()]).collect();
    d.create(network, &option);
    let loud = start(world, who, &format!("loud-{network}"), &["--network", network]);
    let near = start(world, who, &format!("near-{network}"), &["--network", network]);
    let gateway = loud.gateway().to_string();
    for to in [&gateway, &near.ip.to_string()] {
        ping(&loud, to).ok();
    }
    let before = received(&near);
    let frame = Between::new(loud.ip, std::net::Ipv4Addr::BROADCAST.into())
        .macs(mac(&loud), MacAddr::BROADCAST)
        .udp(9, 9, b"to all");
    let count = FRAMES.to_string();
    let begun = Instant::now();
    let sending = loud
        .cmd([
            "lab-hostile",
            "frames",
            "eth0",
            &count,
            &RATE.to_string(),
            &hex(&frame),
        ])
        .spawn();
    // Meanwhile what is for one alone gets where it goes.
    quiet_frames_pass(&loud, &near, &gateway);
    sending.end(std::time::Duration::from_secs(20)).ok();
    let took = begun.elapsed().as_secs_f64();
    let name = loud.name.as_str();
    let heard = || received(&near) - before;
    let stormy = || dropped(d, network, name, "storm");
    // Every frame is in one of the two, once all have come through; a few of the kernels' own are as well.
    let end = Instant::now() + std::time::Duration::from_secs(10);
    while heard() + stormy() < FRAMES {
        let stats = d.json(["stats", network, "--json"]);
        assert!(
            Instant::now() < end,
            "{} and {} of the flood: {stats}",
            heard(),
            stormy()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    (heard(), stormy(), took)
}

fn quiet_frames_pass(loud: &Container<'_>, near: &Container<'_>, gateway: &str) {
    ping(loud, gateway).ok();
    ping(loud, &near.ip.to_string()).ok();
    ping(near, &loud.ip.to_string()).ok();
}

each_user! {
    fn a_flood_to_all_is_cut_down_and_counted(world, who) {
        let d = Daemon::start(world, who);
        for (network, option, limit) in [("usual", None, LIMIT), ("strict", Some("50"), 50)] {
            let (heard, stormy, took) = flood(world, who, &d, network, option);
            // A second's worth at once, then at the limit's pace; a few frames of the kernels' own count as well.
            let most = limit as f64 * (1.0 + took);
            assert!(
                heard as f64 <= most + 50.0 && heard >= limit,
                "storm {option:?}: {heard} frames in {took} s, of at most about {most}"
            );
            assert!(stormy >= FRAMES - heard, "storm {option:?}: {stormy} dropped, {heard} heard");
        }
    }
}

each_user! {
    fn the_limit_can_be_turned_off(world, who) {
        let d = Daemon::start(world, who);
        let (heard, stormy, _) = flood(world, who, &d, "open", Some("off"));
        assert!(heard >= FRAMES && stormy == 0, "{heard} heard, {stormy} dropped");
        let done = d.pontoon(["network", "create", "--opt", "storm=0", "never"]).run();
        assert!(done.fails().contains("storm=0"), "{done}");
    }
}

each_user! {
    /// What is for an address that nobody has gets to no container, each of which is known, and counts all the same.
    fn frames_for_nobody_reach_nobody(world, who) {
        let d = Daemon::start(world, who);
        d.create("net", &["--subnet", "10.82.0.0/24"]);
        let loud = start(world, who, "loud", &["--network", "net"]);
        let near = start(world, who, "near", &["--network", "net"]);
        ping(&loud, &near.ip.to_string()).ok();
        let before = received(&near);
        let frame = Between::new(loud.ip, std::net::IpAddr::from([10, 82, 0, 77]))
            .macs(mac(&loud), MacAddr([2, 0, 0, 0, 0, 0x77]))
            .udp(9, 9, b"to nobody");
        let (count, rate) = (FRAMES.to_string(), RATE.to_string());
        loud.run(["lab-hostile", "frames", "eth0", &count, &rate, &hex(&frame)]);
        wait_dropped(&d, "net", "loud", "storm", 0, 300);
        let heard = received(&near) - before;
        assert!(heard < 50, "{heard} frames");
        ping(&near, &loud.ip.to_string()).ok();
    }
}
