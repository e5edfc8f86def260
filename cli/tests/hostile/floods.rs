//! Floods, and frames of all kinds: the packet process stays, within its memory; another container hardly notices; and the
//! hostile one works again as soon as it stops.

use std::time::Duration;

use pontoon_fixtures::hostile::Flood;
use pontoon_fixtures::lab::{Container, Proc, Who, World, wait_for};

use crate::site::{Site, Way};

/// KiB that the packet process may take at most, whatever it is sent: the table's share of one container, 65,536 flows of less
/// than 200 bytes, and as many sockets as there are descriptors are about half of it.
const MEMORY: u64 = 48 << 10;
/// Frames a second of a flood during which another container's delays are measured: more than can be served where each opens
/// a socket. As many as go would be a matter of who gets the machine's cores, which is not Pontoon's to say.
const PACE: &str = "20000";
/// Frames of such a flood: it outlasts the measuring.
const PACED: &str = "50000";
/// Frames of a flood that is sent as fast as it goes.
const FLAT_OUT: &str = "200000";
/// How often the measuring is tried: the machine has other things to do as well.
const TRIES: usize = 3;

/// Where clients are asked for what they see.
const SERVER: &str = "198.51.100.10:9000";

fn serve(world: &World) -> Proc {
    let load = world.server().cmd(["lab-load", "serve", "9000"]).spawn();
    world.server().wait_tcp(9000);
    load
}

/// The container can do what it could before, within `limit`.
fn assert_works(site: &Site<'_>, after: &str, limit: Duration) {
    wait_for(&format!("a connection after {after}"), limit, || {
        let done = site.inside(["lab-load", "tcp-rr", SERVER, "0.05"]).limit(8).run();
        done.success().then_some(())
    });
    wait_for(&format!("a datagram after {after}"), limit, || {
        let done = site.inside(["lab-load", "udp-rr", SERVER, "0.05"]).limit(8).run();
        done.success().then_some(())
    });
}

fn assert_bounded(site: &mut Site<'_>, after: &str) {
    site.assert_lives();
    let memory = site.memory();
    assert!(memory < MEMORY, "{memory} KiB after {after}");
}

/// The 99th percentile of a request's and its answer's time, in µs, by TCP and by UDP.
fn p99(victim: &Container<'_>) -> [f64; 2] {
    ["tcp-rr", "udp-rr"].map(|kind| {
        let figures = victim.cmd(["lab-load", kind, SERVER, "0.5"]).run().json();
        figures["p99_us"].as_f64().unwrap_or_else(|| panic!("{figures}"))
    })
}

fn frames_of_all_kinds(world: &World, who: Who, way: Way) {
    let _server = serve(world);
    let mut site = Site::start(world, who, way, &[], None);
    for what in [
        &["claims"][..],
        &["corpus"],
        &["random", "1", "200000"],
        &["corpus"],
    ] {
        let said = site.attack(what).run().json();
        println!("{way:?} {who:?} {what:?}: {said}, {} KiB", site.memory());
        assert!(said["sent"].as_u64() > Some(10), "{said}");
        assert_bounded(&mut site, &format!("{what:?}"));
        assert_works(&site, &format!("{what:?}"), Duration::from_secs(10));
    }
    for to in [site.name_server(), site.gateway()[1]] {
        let to = std::net::SocketAddr::new(to.parse().expect("an address"), 53).to_string();
        site.inside(["lab-hostile", "questions", &to])
            .limit(120)
            .run()
            .ok();
    }
    assert_bounded(&mut site, "questions that are none");
    if way == Way::Run {
        let drops = site.drops();
        for reason in [
            "spoofed",
            "bad-source-address",
            "bad-source",
            "rogue-dhcp",
            "rogue-router",
            "malformed",
            "bad-checksum",
            "forbidden",
            "unknown-protocol",
            "hop-limit",
        ] {
            assert!(drops.get(reason).is_some_and(|&n| n > 0), "{reason}: {drops:?}");
        }
        // The victim heard nothing that it believed.
        let victim = site.victim.as_ref().expect("a victim");
        victim.run(["lab-load", "tcp-rr", SERVER, "0.1"]);
        let routes = victim.run(["sh", "-c", "ip -6 addr; ip -6 route; ip neigh"]);
        assert!(!routes.contains("bad"), "{routes}");
        let own = site.inside(["cat", "/sys/class/net/eth0/address"]).run().text();
        let gateways: Vec<&str> = routes
            .lines()
            .filter(|l| site.gateway().iter().any(|g| l.starts_with(g)))
            .collect();
        assert!(
            gateways.iter().all(|l| own.is_empty() || !l.contains(own.trim())),
            "{routes}"
        );
    }
}

each_user! {
    fn frames_of_all_kinds_in_run(world, who) {
        frames_of_all_kinds(world, who, Way::Run);
    }
}

each_user! {
    fn frames_of_all_kinds_in_slirp4netns(world, who) {
        frames_of_all_kinds(world, who, Way::Slirp);
    }
}

fn floods(world: &World, who: Who, way: Way) {
    let _server = serve(world);
    let mut site = Site::start(world, who, way, &[], None);
    for (name, _) in Flood::ALL {
        let said = site.attack(&["flood", name, FLAT_OUT]).run().json();
        println!("{way:?} {who:?} {name}: {said}, {} KiB", site.memory());
        assert_eq!(said["sent"].as_u64(), FLAT_OUT.parse().ok(), "{said}");
        assert_bounded(&mut site, name);
        assert_works(&site, name, Duration::from_secs(10));
        if name == "udp-sources" {
            // 128,000 sources: beyond the descriptors, so some were refused, and told so.
            assert!(said["prohibited"].as_u64() > Some(0), "{said}");
        }
    }
    let refusals = site.refusals();
    assert!(
        (1..=5).contains(&refusals.len()) && refusals[0].contains("quota-full"),
        "{refusals:?}"
    );
    if way == Way::Run {
        let drops = site.drops();
        for reason in [
            "quota-full",
            "reassembly",
            "spoofed",
            "bad-source-address",
            "rate-limited",
        ] {
            assert!(drops.get(reason).is_some_and(|&n| n > 100), "{reason}: {drops:?}");
        }
    }
}

each_user! {
    fn floods_in_run(world, who) {
        floods(world, who, Way::Run);
    }
}

each_user! {
    fn floods_in_slirp4netns(world, who) {
        floods(world, who, Way::Slirp);
    }
}

each_user! {
    /// What a container asks and is answered takes not twice as long while another floods.
    fn another_container_hardly_notices(world, who) {
        let _server = serve(world);
        let site = Site::start(world, who, Way::Run, &[], None);
        let victim = site.victim.as_ref().expect("a victim");
        let mut late = Vec::new();
        for (name, _) in Flood::ALL {
            let mut tried = Vec::new();
            for _ in 0..TRIES {
                let idle = p99(victim);
                let flood = site.attack(&["flood", name, PACED, PACE]).spawn();
                std::thread::sleep(Duration::from_millis(200));
                let loaded = p99(victim);
                flood.end(Duration::from_secs(60)).ok();
                tried.push((idle, loaded));
                if (0..2).all(|i| loaded[i] <= 2.0 * idle[i]) {
                    break;
                }
            }
            println!("{who:?} {name}: p99 in µs, idle and loaded, TCP and UDP: {tried:?}");
            // Each of the two by its best try.
            let within = |i: usize| tried.iter().any(|(idle, loaded)| loaded[i] <= 2.0 * idle[i]);
            if !(within(0) && within(1)) {
                late.push((name, tried));
            }
        }
        assert!(late.is_empty(), "{late:?}");
    }
}
