//! Floods, and frames of all kinds: the packet process stays, within its memory; another container hardly notices; and the
//! hostile one works again as soon as it stops.

use std::time::{Duration, Instant};

use pontoon_fixtures::hostile::Flood;
use pontoon_fixtures::lab::{Container, Proc, Who, World, wait_for};

use crate::site::{Site, Way};

/// KiB that the packet process may take at most, whatever it is sent: the table's share of one container, 65,536 flows of less
/// than 200 bytes, and as many sockets as there are descriptors are about half of it.
const MEMORY: u64 = 48 << 10;
/// Frames a second of a flood during which another container's delays are measured. As many as go would be a matter of who
/// gets the machine's cores, which is not Pontoon's to say.
const PACE: &str = "10000";
/// Frames of such a flood: it outlasts the measuring.
const PACED: &str = "16000";
/// Sources of datagrams.
const SOURCES: &str = "100000";
/// Frames of a flood that is sent as fast as it goes.
const FLAT_OUT: &str = "200000";
/// How often it is measured at most; the best counts, as the machine has other things to do as well.
const TRIES: usize = 5;

/// Where clients are asked for what they see.
const SERVER: &str = "198.51.100.10:9000";

fn serve(world: &World) -> Proc {
    let load = world.server().cmd(["lab-load", "serve", "9000"]).spawn();
    world.server().wait_tcp(9000);
    load
}

/// The container can do what it could before, within `limit`.
fn assert_works(site: &Site<'_>, after: &str, limit: Duration) {
    for kind in ["tcp-rr", "udp-rr"] {
        let end = Instant::now() + limit;
        loop {
            let done = site.inside(["lab-load", kind, SERVER, "0.05"]).limit(8).run();
            if done.success() {
                break;
            }
            assert!(
                Instant::now() < end,
                "after {after}: {done}, {:?}",
                site.refusals()
            );
        }
    }
}

fn assert_bounded(site: &mut Site<'_>, after: &str) {
    site.assert_lives();
    let memory = site.memory();
    assert!(memory < MEMORY, "{memory} KiB after {after}");
}

/// The 99th percentile of a request's and its answer's time, in µs, by TCP and by UDP.
fn p99(victim: &Container<'_>) -> [f64; 2] {
    ["tcp-rr", "udp-rr"].map(|kind| {
        let figures = victim.cmd(["lab-load", kind, SERVER, "0.4"]).run().json();
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
    for to in site.name_servers() {
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
    }
    // So many sources are beyond the descriptors, at a pace at which most are served: some are refused, and told so.
    let said = site.attack(&["flood", "udp-sources", SOURCES, PACE]).run().json();
    println!("{way:?} {who:?} {SOURCES} sources: {said}, {} KiB", site.memory());
    assert!(said["prohibited"].as_u64() > Some(0), "{said}");
    assert_bounded(&mut site, SOURCES);
    assert_works(&site, SOURCES, Duration::from_secs(10));
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

/// The best of what was measured under the flood is within twice the best of what was measured without, of TCP and of UDP.
fn is_within(idle: &[[f64; 2]], loaded: &[[f64; 2]]) -> bool {
    let best = |all: &[[f64; 2]], i: usize| all.iter().map(|p| p[i]).fold(f64::INFINITY, f64::min);
    (0..2).all(|i| best(loaded, i) <= 2.0 * best(idle, i))
}

each_user! {
    /// What a container asks and is answered takes not twice as long while another floods.
    fn another_container_hardly_notices(world, who) {
        let _server = serve(world);
        let site = Site::start(world, who, Way::Run, &[], None);
        let victim = site.victim.as_ref().expect("a victim");
        let mut late = Vec::new();
        for (name, _) in Flood::ALL {
            let (mut idle, mut loaded) = (Vec::new(), Vec::new());
            for _ in 0..TRIES {
                idle.push(p99(victim));
                let flood = site.attack(&["flood", name, PACED, PACE]).spawn();
                std::thread::sleep(Duration::from_millis(200));
                loaded.push(p99(victim));
                flood.end(Duration::from_secs(60)).ok();
                if is_within(&idle, &loaded) {
                    break;
                }
            }
            println!("{who:?} {name}: p99 in µs, TCP and UDP: idle {idle:?}, loaded {loaded:?}");
            if !is_within(&idle, &loaded) {
                late.push((name, idle, loaded));
            }
        }
        assert!(late.is_empty(), "{late:?}");
    }
}

each_user! {
    /// Clients of a published port are connected before the container is asked, and this one says nothing to them.
    fn half_open_clients_of_a_published_port(world, who) {
        let _server = serve(world);
        let mut site = Site::start(world, who, Way::Run, &["-p", "7007:7"], None);
        site.inside(["nft", "add table inet f; add chain inet f i { type filter hook input priority 0; }; add rule inet f i tcp dport 7 drop"])
            .run()
            .ok();
        let clients = "ulimit -n 4000; for i in $(seq 3000); do exec {fd}<>/dev/tcp/192.0.2.1/7007; done; echo connected; sleep 100";
        let mut clients = world.server().cmd(["bash", "-c", clients]).spawn();
        clients.wait_for("connected");
        let half_open = |site: &Site<'_>| {
            let stats = site.host(["pontoon", "stats", "--json"]).run().json();
            stats[0]["flows"]["tcp/syn-received"].as_u64().unwrap_or(0)
        };
        // Their own kernel says that they are connected before the relay has seen them.
        wait_for("the clients to be seen", Duration::from_secs(10), || (half_open(&site) >= 2900).then_some(()));
        assert_bounded(&mut site, "half-open clients");
        assert_works(&site, "half-open clients", Duration::from_secs(10));
        site.victim.as_ref().expect("a victim").run(["lab-load", "tcp-rr", SERVER, "0.1"]);
        // The container has about a minute to answer.
        drop(clients);
        wait_for("the clients to be forgotten", Duration::from_secs(120), || (half_open(&site) == 0).then_some(()));
        assert_bounded(&mut site, "half-open clients");
    }
}
