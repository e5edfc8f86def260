//! nmap at the router's address: what is open, and that nothing else is.

use pontoon_fixtures::lab::require;

use super::Site;
use super::site::{OUTSIDE, OUTSIDE6};

/// What nmap lists, without how long it took.
fn listed(text: &str) -> String {
    let port = |line: &&str| {
        line.contains("/tcp ")
            || line.contains("/udp ")
            || line
                .split_whitespace()
                .nth(1)
                .is_some_and(|w| ["open", "closed", "filtered", "open|filtered"].contains(&w))
    };
    let all = |line: &&str| line.starts_with("All ") || line.starts_with("Not shown");
    text.lines()
        .filter(|l| port(l) || all(l))
        .map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

either_way! {
    /// SYN, FIN, null, Xmas and ACK scans, one of UDP and one of protocols, with one published port of each. Of a SYN that
    /// nobody has asked for Pontoon says nothing for six seconds (RFC 5382 REQ-4); and it has no
    /// IGMP.
    fn see_what_is_published(world, way, log) {
        require("nmap");
        let site = Site::new(world, way);
        let mut tcp = site.a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        tcp.wait_for("listening");
        let mut udp = site.a.cmd(["lab-peer", "udp-serve", "10.44.0.2:9000"]).spawn();
        udp.wait_for("listening");
        site.publish("a", "8080:9000");
        site.publish("a", "8080:9000/udp");
        for (what, args) in [
            ("SYN", &["-sS", "-p8079-8081"][..]),
            ("SYN, v6", &["-6", "-sS", "-p8079-8081"]),
            ("connect", &["-sT", "-p8079-8081"]),
            ("FIN", &["-sF", "-p8079-8081"]),
            ("null", &["-sN", "-p8079-8081"]),
            ("Xmas", &["-sX", "-p8079-8081"]),
            ("ACK", &["-sA", "-p8079-8081"]),
            ("UDP", &["-sU", "-p8079-8081"]),
            ("protocols", &["-sO", "-p1,2,6,17,47,99"]),
        ] {
            let to = if args[0] == "-6" { OUTSIDE6 } else { OUTSIDE };
            let done = world.server()
                .cmd(["nmap", "-n", "-Pn", "--max-retries", "1", "--initial-rtt-timeout", "200ms", "--max-rtt-timeout", "300ms", "--reason"])
                .args(args).args([to]).run();
            log.add(what, listed(&done.ok()));
        }
    } says "
        kernel| SYN: 8079/tcp closed
        pontoon| SYN: 8079/tcp filtered
        SYN: 8080/tcp open
        kernel| SYN: 8081/tcp closed
        pontoon| SYN: 8081/tcp filtered
        kernel| SYN, v6: 8079/tcp closed
        pontoon| SYN, v6: 8079/tcp filtered
        SYN, v6: 8080/tcp open
        kernel| SYN, v6: 8081/tcp closed
        pontoon| SYN, v6: 8081/tcp filtered
        kernel| connect: 8079/tcp closed
        pontoon| connect: 8079/tcp filtered
        connect: 8080/tcp open
        kernel| connect: 8081/tcp closed
        pontoon| connect: 8081/tcp filtered
        FIN: 8079/tcp closed
        FIN: 8080/tcp closed
        FIN: 8081/tcp closed
        null: 8079/tcp closed
        null: 8080/tcp closed
        null: 8081/tcp closed
        Xmas: 8079/tcp closed
        Xmas: 8080/tcp closed
        Xmas: 8081/tcp closed
        ACK: 8079/tcp unfiltered
        ACK: 8080/tcp unfiltered
        ACK: 8081/tcp unfiltered
        UDP: 8079/udp closed
        UDP: 8080/udp open
        UDP: 8081/udp closed
        protocols: 1 open
        kernel| protocols: 2 open|filtered
        pontoon| protocols: 2 closed
        protocols: 6 open
        protocols: 17 open
        protocols: 47 closed
        protocols: 99 closed
    "
}
