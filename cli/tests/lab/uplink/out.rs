//! From containers to the world: echo, TCP, UDP, and that the world sees the router's address.

use pontoon_fixtures::lab::wait_for;

use super::{Site, came, masked, pinged};
use crate::{server_at, server_peers};

either_way! {
    /// Echo of every size, to everyone on the way. Of a neighbour in vain looked for Pontoon tells by the address that the container
    /// knows it by, as RFC 1812 section 4.3.2.4 asks; the kernel by that of the link where the neighbour is not.
    fn echo(world, way, log) {
        let site = Site::new(world, way);
        let ping = |args: &[&str]| {
            pinged(&site.a.cmd(["ping", "-n", "-c2", "-i0.2", "-W9"]).args(args).run())
        };
        for (what, args) in [
            ("the gateway", &["10.44.0.1"][..]),
            ("the gateway, v6", &["fd44::1"]),
            ("its address outside", &["100.64.7.77"]),
            ("its address outside, v6", &["2001:db8:7::77"]),
            ("a neighbour outside", &["100.64.7.10"]),
            ("a neighbour outside, v6", &["2001:db8:7::10"]),
            ("a server", &["198.51.100.10"]),
            ("a server, v6", &["2001:db8:2::10"]),
            ("behind a narrow link", &["-Mdont", "-s1372", "203.0.113.10"]),
            ("a full frame", &["-s1472", "198.51.100.10"]),
            ("in fragments", &["-s4000", "198.51.100.10"]),
            ("in fragments, v6", &["-s4000", "2001:db8:2::10"]),
            ("as much as there is", &["-s65000", "198.51.100.10"]),
            ("fragments to the gateway", &["-s4000", "10.44.0.1"]),
            ("nobody at home", &["-c1", "-W4", "100.64.7.99"]),
        ] {
            log.add(what, ping(args));
        }
        // Both at once with the same identifier: each hears its own answers.
        let one = site.a.cmd(["ping", "-n", "-c3", "-i0.2", "-W9", "-e", "77", "198.51.100.10"]).spawn();
        let two = site.b.cmd(["ping", "-n", "-c3", "-i0.2", "-W9", "-e", "77", "198.51.100.10"]).run();
        log.add("two with one identifier", pinged(&two));
        log.add("two with one identifier", pinged(&one.end(std::time::Duration::from_secs(10))));
    } says "
        the gateway: 2 received
        the gateway, v6: 2 received
        its address outside: 2 received
        its address outside, v6: 2 received
        a neighbour outside: 2 received
        a neighbour outside, v6: 2 received
        a server: 2 received
        a server, v6: 2 received
        behind a narrow link: 2 received
        a full frame: 2 received
        in fragments: 2 received
        in fragments, v6: 2 received
        as much as there is: 2 received
        fragments to the gateway: 2 received
        kernel| nobody at home: From 100.64.7.77 Destination Host Unreachable
        pontoon| nobody at home: From 10.44.0.1 Destination Host Unreachable
        nobody at home: 0 received
        two with one identifier: 3 received
        two with one identifier: 3 received
    "
}

either_way! {
    /// Pages, long streams, half-closed and reset connections; as whom the server sees it.
    fn tcp(world, way, log) {
        let site = Site::new(world, way);
        let _nginx = world.server().nginx(80);
        let [_tcp, _udp] = server_peers(world);
        for (family, to) in [("v4", "198.51.100.10"), ("v6", "[2001:db8:2::10]")] {
            for (name, c) in [("a", &site.a), ("b", &site.b)] {
                let curl = |path: &str| came(&c.cmd(["curl", "-sS", "-m5", &format!("http://{to}{path}")]).run());
                log.add(&format!("{family} {name} a page"), curl("/"));
                log.add(&format!("{family} {name} seen as"), masked(&curl("/who")));
            }
            let big = format!("curl -sS -m20 http://{to}/big | cmp - /tmp/nginx-server-80/www/big && echo whole");
            log.add(&format!("{family} eight megabytes"), came(&site.a.cmd(["bash", "-c", &big]).run()));
        }
        for (family, to) in ["v4", "v6"].iter().zip(server_at(9000)) {
            for talk in [
                &["who"][..], &["echo", "3000000"], &["sink", "5000000"], &["source", "5000000"], &["source", "500000", "300"], &["slow", "1000000"],
                &["reset"], &["abort"], &["hold", "300"],
            ] {
                let done = site.a.cmd(["lab-peer", "tcp", &to]).args(talk).run();
                log.add(&format!("{family} {}", talk[0]), masked(&came(&done)));
            }
        }
        for to in ["198.51.100.10:9", "[2001:db8:2::10]:9"] {
            log.add("a closed port", came(&site.a.cmd(["lab-peer", "tcp", to, "who"]).run()));
        }
    } says "
        v4 a a page: hello from server
        v4 a seen as: 100.64.7.77 PORT
        v4 b a page: hello from server
        v4 b seen as: 100.64.7.77 PORT
        v4 eight megabytes: whole
        v6 a a page: hello from server
        v6 a seen as: 2001:db8:7::77 PORT
        v6 b a page: hello from server
        v6 b seen as: 2001:db8:7::77 PORT
        v6 eight megabytes: whole
        v4 who: 100.64.7.77 PORT
        v4 echo: ok
        v4 sink: ok
        v4 source: ok
        v4 source: ok
        v4 slow: ok
        v4 reset: reset
        v4 abort: nothing
        v4 hold: ok
        v6 who: [2001:db8:7::77] PORT
        v6 echo: ok
        v6 sink: ok
        v6 source: ok
        v6 source: ok
        v6 slow: ok
        v6 reset: reset
        v6 abort: nothing
        v6 hold: ok
        a closed port: Connection refused (os error 111)
        a closed port: Connection refused (os error 111)
    "
}

either_way! {
    /// Datagrams of every size, those that take fragments among them.
    fn udp(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = server_peers(world);
        for (family, to) in ["v4", "v6"].iter().zip(server_at(9000)) {
            for size in ["0", "1", "1452", "1472", "1473", "9000", "65000"] {
                log.add(&format!("{family} {size} bytes"), came(&site.a.cmd(["lab-peer", "udp-echo", &to, size]).run()));
            }
            log.add(&format!("{family} seen as"), masked(&came(&site.a.cmd(["lab-peer", "udp-ask", &to]).run())));
        }
        for to in server_at(9) {
            log.add("a closed port", came(&site.a.cmd(["lab-peer", "udp-echo", &to, "10"]).run()));
        }
    } says "
        v4 0 bytes: ok
        v4 1 bytes: ok
        v4 1452 bytes: ok
        v4 1472 bytes: ok
        v4 1473 bytes: ok
        v4 9000 bytes: ok
        v4 65000 bytes: ok
        v4 seen as: 100.64.7.77 PORT
        v6 0 bytes: ok
        v6 1 bytes: ok
        v6 1452 bytes: ok
        v6 1472 bytes: ok
        v6 1473 bytes: ok
        v6 9000 bytes: ok
        v6 65000 bytes: ok
        v6 seen as: [2001:db8:7::77] PORT
        a closed port: Connection refused (os error 111)
        a closed port: Connection refused (os error 111)
    "
}

either_way! {
    /// iperf3, both ways, and what it says of datagrams: none lost at a rate that everything here can do.
    fn streams(world, way, log) {
        let site = Site::new(world, way);
        let _server = world.server().iperf3(5201);
        for (what, args) in [
            ("out", &["-c", "198.51.100.10"][..]),
            ("in", &["-c", "198.51.100.10", "-R"]),
            ("out, v6", &["-c", "2001:db8:2::10", "-P", "4"]),
            ("in, v6", &["-c", "2001:db8:2::10", "-R", "-P", "4"]),
            ("datagrams", &["-c", "198.51.100.10", "-u", "-b", "10M"]),
            ("datagrams in", &["-c", "198.51.100.10", "-u", "-b", "10M", "-R"]),
        ] {
            let report = wait_for("iperf3's server", std::time::Duration::from_secs(10), || {
                let done = site.a.cmd(["iperf3", "-t1", "-J"]).args(args).run();
                let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
                let busy = report["error"].as_str().is_some_and(|e| e.contains("busy"));
                (!busy).then_some(report)
            });
            let end = &report["end"];
            let moved = end["sum_received"]["bits_per_second"].as_f64().or(end["sum"]["bits_per_second"].as_f64());
            let lost = end["sum"]["lost_packets"].as_u64().map(|n| format!(", {n} lost")).unwrap_or_default();
            // Whoever is slower than that has lost or sent again nearly everything.
            let fast = moved.is_some_and(|bits| bits > 9e6);
            log.add(what, if fast { format!("flows{lost}") } else { report.to_string() });
        }
    } says "
        out: flows
        in: flows
        out, v6: flows
        in, v6: flows
        datagrams: flows, 0 lost
        datagrams in: flows, 0 lost
    "
}

either_way! {
    /// What the wire shows: one hop less, type of service and Don't Fragment as they were, the sender's port.
    fn headers(world, way, log) {
        let site = Site::new(world, way);
        let mut dump = world
            .server()
            .cmd(["tcpdump", "-n", "-v", "-l", "-i", "s0", "-c", "4", "udp and dst port 9999"])
            .spawn();
        dump.wait_for("listening on");
        for (to, options) in [
            ("UDP4-SENDTO:198.51.100.10:9999", "ip-ttl=33,ip-tos=0x28,sourceport=40001"),
            ("UDP4-SENDTO:198.51.100.10:9999", "ip-mtu-discover=2,sourceport=40002"),
            ("UDP4-SENDTO:198.51.100.10:9999", "ip-mtu-discover=0,sourceport=40003"),
            ("UDP6-SENDTO:[2001:db8:2::10]:9999", "ipv6-unicast-hops=44,ipv6-tclass=0x68,sourceport=40004"),
        ] {
            site.a.sh(&format!("echo x | socat -u - '{to},{options}'"));
        }
        let seen = dump.end(std::time::Duration::from_secs(10)).text();
        for line in shown(&seen) {
            log.add("seen", line);
        }
    } says "
        seen: tos 0x28, ttl 31, flags [DF], 100.64.7.77.40001 > 198.51.100.10.9999
        seen: tos 0x0, ttl 62, flags [DF], 100.64.7.77.40002 > 198.51.100.10.9999
        seen: tos 0x0, ttl 62, flags [none], 100.64.7.77.40003 > 198.51.100.10.9999
        seen: class 0x68, hlim 42, 2001:db8:7::77.40004 > 2001:db8:2::10.9999
    "
}

/// What `tcpdump -v` says of headers, a line for each packet.
fn shown(text: &str) -> Vec<String> {
    let keep = |part: &str| {
        ["tos ", "ttl ", "flags ", "class ", "hlim "]
            .iter()
            .any(|k| part.starts_with(k))
    };
    let mut lines = Vec::new();
    let mut head = Vec::new();
    for line in text.lines() {
        let (header, ends) = match line.split_once(" > ") {
            Some((before, after)) => {
                let from = before.rsplit(' ').next().unwrap_or_default();
                let to = after.split(": ").next().unwrap_or_default();
                (before, Some(format!("{from} > {to}")))
            }
            None => (line, None),
        };
        let parts = header.split(['(', ')', ',']).map(str::trim);
        head.extend(parts.filter(|p| keep(p)).map(str::to_owned));
        if let Some(ends) = ends {
            head.push(ends);
            lines.push(head.join(", "));
            head.clear();
        }
    }
    lines
}
