//! The soak: many short connections and many idle ones; descriptors, memory and table return to where they were.
#![forbid(unsafe_code)]

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Who, World, wait_for};

const SHORT: &str = "200000";
const IDLE: &str = "5000";

/// What the packet process holds.
#[derive(Clone, Copy, Debug)]
struct Holdings {
    descriptors: usize,
    rss_kib: usize,
    flows: usize,
}

fn holdings(c: &Container<'_>, packet: u64) -> Holdings {
    let host = c.pontoon(["stats", "--json"]).run().json();
    let place = c.pontoon(["conntrack", "ls", "--json"]).run().json();
    let flows = place.as_array().expect("a list").len();
    assert!(host[0]["flows_total"].as_u64().is_some(), "{host}");
    Holdings {
        descriptors: descriptors(c, packet),
        rss_kib: rss(c, packet),
        flows,
    }
}

fn outside(world: &World, words: &[&str]) -> String {
    world.host().run(words.iter().copied())
}

fn descriptors(c: &Container<'_>, pid: u64) -> usize {
    outside(c.world(), &["ls", &format!("/proc/{pid}/fd")])
        .lines()
        .count()
}

fn rss(c: &Container<'_>, pid: u64) -> usize {
    let status = outside(c.world(), &["cat", &format!("/proc/{pid}/status")]);
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect("a number")
}

fn soak(who: Who) {
    let world = World::new(env!("CARGO_BIN_EXE_pontoon"));
    // Enough destinations for the ports: twenty addresses of each family and one server port.
    let _server = world.server().cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    world.server().wait_tcp(9000);
    world.server().run([
        "sysctl",
        "-qw",
        "net.core.somaxconn=4096",
        "net.ipv4.tcp_max_syn_backlog=4096",
    ]);
    let targets: Vec<String> = (10..30)
        .flat_map(|n| [format!("198.51.100.{n}:9000"), format!("[2001:db8:2::{n}]:9000")])
        .collect();
    let c = Container::start(&world, who, "soak", &[] as &[&str]);
    let network = c.pontoon(["network", "ls", "--json"]).run().json();
    let packet = network[0]["packet_pid"].as_u64().expect("a pid");
    // Warm: what is allocated once and kept does not count.
    c.cmd(["lab-peer", "tcp-load", "5000", "8", "64"])
        .args(&targets)
        .limit(120)
        .run()
        .ok();
    settle(&c);
    let before = holdings(&c, packet);

    let said = c
        .cmd(["lab-peer", "tcp-load", SHORT, "8", "64"])
        .args(&targets)
        .limit(600)
        .run()
        .ok();
    println!("{who:?}: {}", said.trim());
    settle(&c);
    let after_short = holdings(&c, packet);

    let mut held = c
        .cmd([
            "sh",
            "-c",
            &format!(
                "sleep 20 | lab-peer tcp-hold {IDLE} {}",
                targets.join(" ").replace('[', "'[").replace(']', "]'")
            ),
        ])
        .spawn();
    wait_for("the idle connections", Duration::from_secs(60), || {
        if let Some(status) = held.poll() {
            panic!("{status}: {}", held.stderr());
        }
        held.stdout().contains("holding").then_some(())
    });
    let holding = holdings(&c, packet);
    let idle: usize = IDLE.parse().expect("a number");
    assert!(holding.flows >= idle, "{holding:?}");
    let said = held.end(Duration::from_secs(60)).ok();
    assert!(said.contains("all 5000 alive"), "{said}");
    settle(&c);
    let after = holdings(&c, packet);
    println!(
        "{who:?}: before {before:?}, after the short ones {after_short:?}, with the idle ones {holding:?}, after {after:?}"
    );
    for now in [after_short, after] {
        assert!(
            now.descriptors <= before.descriptors + 8,
            "descriptors: {before:?}, {now:?}"
        );
        assert!(now.flows <= before.flows + 8, "flows: {before:?}, {now:?}");
        // The allocator keeps some of what it was given back; it does not grow with what has gone through.
        assert!(
            now.rss_kib <= before.rss_kib + 24 * 1024,
            "memory: {before:?}, {now:?}"
        );
    }
}

/// Waits until the flows that only await their end (TIME_WAIT) are gone.
fn settle(c: &Container<'_>) {
    let mut last = usize::MAX;
    wait_for("the table to empty", Duration::from_secs(200), || {
        let stats = c.pontoon(["stats", "--json"]).run().json();
        let now = usize::try_from(stats[0]["flows_total"].as_u64().expect("a count")).expect("a count");
        let low = now <= 8;
        if !low && now != last {
            last = now;
        }
        std::thread::sleep(Duration::from_millis(500));
        low.then_some(())
    });
}

#[test]
fn connections_leave_nothing_behind() {
    soak(Who::User);
}
