//! Which port of the router's a container's becomes, and who may answer there: RFC 4787 and RFC 5382.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, World, wait_for};

use super::{Log, Site, Way, came};
use crate::server_peers;

/// As whom the lab's TCP peer sees a client that comes from `port`.
fn tcp_from(c: &Bare<'_>, port: &str, to: &str) -> String {
    came(&c.cmd(["lab-peer", "tcp-from", port, to]).run())
        .trim()
        .to_owned()
}

/// The same of the lab's UDP peer.
fn udp_from(c: &Bare<'_>, port: u16, to: &str) -> String {
    let done = c.cmd(["lab-peer", "udp-from", &port.to_string(), to]).run();
    came(&done).trim().to_owned()
}

/// What is expected of a port that could not be kept.
fn another(seen: &str, wanted: u16) -> String {
    let port: u16 = seen.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(0);
    let class = |p: u16| p >= 1024;
    match () {
        () if port == wanted => "kept".to_owned(),
        () if port == 0 => format!("none: {seen}"),
        () if class(port) != class(wanted) => format!("another, of another class: {port}"),
        () => "another of its class".to_owned(),
    }
}

either_way! {
    /// Kept where it is free; else another of the same range (RFC 4787 REQ-3), and of UDP the same parity (REQ-4), of which the
    /// kernel knows nothing.
    fn are_kept_where_they_are_free(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = server_peers(world);
        for (family, to) in ["v4", "v6"].iter().zip(crate::server_at(9000)) {
            for port in [40_001u16, 1024, 65_535, 777] {
                log.add(&format!("{family} TCP from {port}"), tcp_from(&site.a, &port.to_string(), &to));
                log.add(&format!("{family} UDP from {port}"), udp_from(&site.a, port, &to));
                // The first of them still has its mapping.
                let second = another(&tcp_from(&site.b, &port.to_string(), &to), port);
                log.add(&format!("{family} TCP from {port} too"), second);
                let seen = udp_from(&site.b, port, &to);
                log.add(&format!("{family} UDP from {port} too"), another(&seen, port));
                if way == Way::Pontoon {
                    let got: u16 = seen.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
                    assert_eq!(got % 2, port % 2, "the parity of {port} stays: {seen}");
                }
            }
        }
    } says "
        v4 TCP from 40001: 100.64.7.77:40001
        v4 UDP from 40001: 100.64.7.77:40001
        v4 TCP from 40001 too: another of its class
        v4 UDP from 40001 too: another of its class
        v4 TCP from 1024: 100.64.7.77:1024
        v4 UDP from 1024: 100.64.7.77:1024
        v4 TCP from 1024 too: another of its class
        v4 UDP from 1024 too: another of its class
        v4 TCP from 65535: 100.64.7.77:65535
        v4 UDP from 65535: 100.64.7.77:65535
        v4 TCP from 65535 too: another of its class
        v4 UDP from 65535 too: another of its class
        v4 TCP from 777: 100.64.7.77:777
        v4 UDP from 777: 100.64.7.77:777
        v4 TCP from 777 too: another of its class
        v4 UDP from 777 too: another of its class
        v6 TCP from 40001: [2001:db8:7::77]:40001
        v6 UDP from 40001: [2001:db8:7::77]:40001
        v6 TCP from 40001 too: another of its class
        v6 UDP from 40001 too: another of its class
        v6 TCP from 1024: [2001:db8:7::77]:1024
        v6 UDP from 1024: [2001:db8:7::77]:1024
        v6 TCP from 1024 too: another of its class
        v6 UDP from 1024 too: another of its class
        v6 TCP from 65535: [2001:db8:7::77]:65535
        v6 UDP from 65535: [2001:db8:7::77]:65535
        v6 TCP from 65535 too: another of its class
        v6 UDP from 65535 too: another of its class
        v6 TCP from 777: [2001:db8:7::77]:777
        v6 UDP from 777: [2001:db8:7::77]:777
        v6 TCP from 777 too: another of its class
        v6 UDP from 777 too: another of its class
    "
}

/// One container's socket to one peer, another's of the same port to a second peer, and each to both.
fn mappings(site: &Site<'_>, log: &mut Log) {
    for (family, to) in [
        ("v4", ["198.51.100.10:9000", "198.51.100.11:9000"]),
        ("v6", ["[2001:db8:2::10]:9000", "[2001:db8:2::11]:9000"]),
    ] {
        let done = site.a.cmd(["lab-peer", "udp-ask"]).args(to).run().ok();
        let mut seen: Vec<&str> = done.lines().collect();
        seen.dedup();
        log.add(&format!("{family} one socket's ports"), seen.len());
        log.add(&format!("{family} the first"), udp_from(&site.a, 41_000, to[0]));
        log.add(
            &format!("{family} the same of another to another peer"),
            another(&udp_from(&site.b, 41_000, to[1]), 41_000),
        );
        log.add(
            &format!("{family} TCP, the first"),
            tcp_from(&site.a, "41000", to[0]),
        );
        log.add(
            &format!("{family} TCP, the same of another to another peer"),
            another(&tcp_from(&site.b, "41000", to[1]), 41_000),
        );
    }
}

either_way! {
    /// Pontoon's mapping is endpoint-independent (RFC 4787 REQ-1, RFC 5382 REQ-1), so a port is one container's; the kernel gives one
    /// away as often as there are peers.
    fn are_one_containers(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = server_peers(world);
        mappings(&site, log);
    } says "
        v4 one socket's ports: 1
        v4 the first: 100.64.7.77:41000
        kernel| v4 the same of another to another peer: kept
        pontoon| v4 the same of another to another peer: another of its class
        v4 TCP, the first: 100.64.7.77:41000
        kernel| v4 TCP, the same of another to another peer: kept
        pontoon| v4 TCP, the same of another to another peer: another of its class
        v6 one socket's ports: 1
        v6 the first: [2001:db8:7::77]:41000
        kernel| v6 the same of another to another peer: kept
        pontoon| v6 the same of another to another peer: another of its class
        v6 TCP, the first: [2001:db8:7::77]:41000
        kernel| v6 TCP, the same of another to another peer: kept
        pontoon| v6 TCP, the same of another to another peer: another of its class
    "
}

either_way! {
    /// `mapping=connection` is what the kernel does.
    fn are_a_connections_by_choice(world, way, log) {
        let site = Site::with(world, way, 1500, &["--opt", "mapping=connection"]);
        let [_tcp, _udp] = server_peers(world);
        mappings(&site, log);
    } says "
        v4 one socket's ports: 1
        v4 the first: 100.64.7.77:41000
        v4 the same of another to another peer: kept
        v4 TCP, the first: 100.64.7.77:41000
        v4 TCP, the same of another to another peer: kept
        v6 one socket's ports: 1
        v6 the first: [2001:db8:7::77]:41000
        v6 the same of another to another peer: kept
        v6 TCP, the first: [2001:db8:7::77]:41000
        v6 TCP, the same of another to another peer: kept
    "
}

/// What a mapping of a container's hears after a word to the server: from another port of that, and from another address.
fn heard(world: &World, site: &Site<'_>) -> String {
    let mut mapped = site
        .a
        .cmd(["lab-peer", "udp-mapped", "198.51.100.10:9000", "2"])
        .spawn();
    mapped.wait_for("mapped");
    let external = wait_for("the mapping", Duration::from_secs(5), || {
        let said = mapped.stdout();
        let line = said.lines().find_map(|l| l.strip_prefix("mapped "));
        line.filter(|_| said.ends_with('\n')).map(str::to_owned)
    });
    let say = |from: &str, text: &str| ["lab-peer", "udp-say", from, &external, text].map(str::to_owned);
    world.server().run(say("7777", "another port"));
    site.near().run(say("9000", "a stranger"));
    let text = mapped.end(Duration::from_secs(10)).ok();
    text.lines()
        .filter(|l| !l.starts_with("mapped "))
        .map(|l| format!("{l}\n"))
        .collect()
}

either_way! {
    /// Pontoon's filtering is address-dependent (RFC 4787 REQ-8), the kernel's address- and port-dependent.
    fn are_open_to_whom_was_spoken_to(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = server_peers(world);
        log.add("heard", heard(world, &site));
        if let Some(daemon) = site.daemon() {
            let stats = daemon.run(["stats", "net", "--json"]);
            assert!(stats.contains("\"filtered\""), "the stranger is counted: {stats}");
        }
    } says "
        pontoon| heard: 198.51.100.10:7777 another port
        heard: done
    "
}

/// RFC 4787 REQ-8: endpoint-independent filtering by choice.
#[test]
fn are_open_to_everyone_by_choice() {
    let world = &crate::world();
    let site = Site::with(world, Way::Pontoon, 1500, &["--opt", "udp-filtering=endpoint"]);
    let [_tcp, _udp] = server_peers(world);
    let heard = heard(world, &site);
    assert_eq!(
        heard,
        "198.51.100.10:7777 another port\n100.64.7.10:9000 a stranger\ndone\n"
    );
}
