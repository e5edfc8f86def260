//! What the world says when something does not work, told to containers: ICMP errors with the packet that they are about.

use std::collections::BTreeSet;

use super::{Site, came, pinged};

either_way! {
    /// Every hop is seen, the router itself the first.
    fn traceroute(world, way, log) {
        let site = Site::new(world, way);
        // Port 80 is traceroute's for TCP.
        let _nginx = world.server().nginx(80);
        for args in [
            &["-4", "-U", "198.51.100.10"][..],
            &["-4", "198.51.100.10"],
            &["-4", "-I", "198.51.100.10"],
            &["-4", "-T", "198.51.100.10"],
            &["-4", "-I", "203.0.113.10"],
            &["-4", "100.64.7.10"],
            &["-6", "-U", "2001:db8:2::10"],
            &["-6", "2001:db8:2::10"],
            &["-6", "-I", "2001:db8:2::10"],
            &["-6", "-T", "2001:db8:2::10"],
        ] {
            let done = site.a.cmd(["traceroute", "-n", "-q1", "-w9", "-m6"]).args(args).limit(40).run();
            log.add(&args.join(" "), hops(&done.ok()));
        }
    } says "
        -4 -U 198.51.100.10: 10.44.0.1 100.64.7.254 198.51.100.10
        -4 198.51.100.10: 10.44.0.1 100.64.7.254 198.51.100.10
        -4 -I 198.51.100.10: 10.44.0.1 100.64.7.254 198.51.100.10
        -4 -T 198.51.100.10: 10.44.0.1 100.64.7.254 198.51.100.10
        -4 -I 203.0.113.10: 10.44.0.1 100.64.7.254 203.0.113.10
        -4 100.64.7.10: 10.44.0.1 100.64.7.10
        -6 -U 2001:db8:2::10: fd44::1 2001:db8:7::fe 2001:db8:2::10
        -6 2001:db8:2::10: fd44::1 2001:db8:7::fe 2001:db8:2::10
        -6 -I 2001:db8:2::10: fd44::1 2001:db8:7::fe 2001:db8:2::10
        -6 -T 2001:db8:2::10: fd44::1 2001:db8:7::fe 2001:db8:2::10
    "
}

/// Who answered at each distance, with what else is said of that: `!H` and its like.
fn hops(text: &str) -> String {
    let hop = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let marks: String = words.iter().filter(|w| w.starts_with('!')).copied().collect();
        format!("{}{marks}", words.get(1).unwrap_or(&"?"))
    };
    text.lines().skip(1).map(hop).collect::<Vec<_>>().join(" ")
}

either_way! {
    /// Nets that the world's router has no way to, that it does not let in, and that it swallows: the kind of each error, to ping,
    /// traceroute, TCP and UDP.
    fn unreachable(world, way, log) {
        let site = Site::new(world, way);
        for (net, to) in [
            ("unreachable", "198.18.1.1"), ("prohibited", "198.18.2.1"), ("unreachable, v6", "2001:db8:f1::1"),
        ] {
            let at = std::net::SocketAddr::new(to.parse().expect("an address"), 9000).to_string();
            log.add(&format!("{net}: ping"), pinged(&site.a.cmd(["ping", "-n", "-c1", "-W9", to]).run()));
            let trace = site.a.cmd(["traceroute", "-n", "-q1", "-w9", "-m2", to]).run().ok();
            log.add(&format!("{net}: traceroute"), hops(&trace));
            // The world's router says of a route that it has no way five times and then once a second, whoever asks (`error_burst`
            // of the kernel's, which no namespace has of its own).
            std::thread::sleep(std::time::Duration::from_millis(2500));
            // An error that is there before `connect` has gone to sleep counts with the next SYN.
            log.add(&format!("{net}: TCP"), came(&site.a.cmd(["timeout", "5", "lab-peer", "tcp", &at, "who"]).run()));
        }
        for (net, to) in [("silent", "198.18.3.1"), ("silent, v6", "2001:db8:f3::1")] {
            log.add(&format!("{net}: ping"), pinged(&site.a.cmd(["ping", "-n", "-c1", "-W1", to]).run()));
        }
        for (what, args) in [
            ("the first hop's end", &["-t1", "198.51.100.10"][..]),
            ("the second hop's", &["-t2", "198.51.100.10"]),
            ("the first hop's end, v6", &["-t1", "2001:db8:2::10"]),
            ("the second hop's, v6", &["-t2", "2001:db8:2::10"]),
            ("of fragments", &["-t1", "-s4000", "198.51.100.10"]),
        ] {
            log.add(what, pinged(&site.a.cmd(["ping", "-n", "-c1", "-W9"]).args(args).run()));
        }
    } says "
        unreachable: ping: From 100.64.7.254 Destination Host Unreachable
        unreachable: ping: 0 received
        unreachable: traceroute: 10.44.0.1 100.64.7.254!H
        unreachable: TCP: No route to host (os error 113)
        prohibited: ping: From 100.64.7.254 Packet filtered
        prohibited: ping: 0 received
        prohibited: traceroute: 10.44.0.1 100.64.7.254!X
        prohibited: TCP: No route to host (os error 113)
        unreachable, v6: ping: From 2001:db8:7::fe Destination unreachable: No route
        unreachable, v6: ping: 0 received
        unreachable, v6: traceroute: fd44::1 2001:db8:7::fe!N
        unreachable, v6: TCP: Network is unreachable (os error 101)
        silent: ping: 0 received
        silent, v6: ping: 0 received
        the first hop's end: From 10.44.0.1 Time to live exceeded
        the first hop's end: 0 received
        the second hop's: From 100.64.7.254 Time to live exceeded
        the second hop's: 0 received
        the first hop's end, v6: From fd44::1 Time exceeded: Hop limit
        the first hop's end, v6: 0 received
        the second hop's, v6: From 2001:db8:7::fe Time exceeded: Hop limit
        the second hop's, v6: 0 received
        of fragments: From 10.44.0.1 Time to live exceeded
        of fragments: 0 received
    "
}

either_way! {
    /// A link of 1380 bytes on the way out: containers learn of it, and everything gets through. Those on a network of the daemon's have
    /// a table of routes for the addresses of each interface; what Linux has learnt of a path is kept with the route that the packet left
    /// by, and for IPv6 a new socket that has no address yet does not look there.
    fn a_narrow_link_outside(world, way, log) {
        let site = Site::new(world, way);
        let _peers = crate::peers(world.far(), &["203.0.113.10:9000", "[2001:db8:3::10]:9000"]);
        for (family, to, at) in [("v4", "203.0.113.10", "203.0.113.10:9000"), ("v6", "2001:db8:3::10", "[2001:db8:3::10]:9000")] {
            let knows = |c: &pontoon_fixtures::lab::Bare<'_>| {
                let own = c.run(["ip", "-br", "addr", "show", "eth0", "scope", "global"]);
                let own = own.split_whitespace().find(|a| a.contains(':') == to.contains(':') && a.contains('/'));
                let from = own.and_then(|a| a.split('/').next()).expect("an address");
                let route = c.run(["ip", "route", "get", to, "from", from]);
                let words: Vec<&str> = route.split_whitespace().collect();
                let at = words.iter().position(|w| *w == "mtu");
                at.map_or("nothing", |i| words[i + 1]).to_owned()
            };
            log.add(&format!("{family} asked"), pinged(&site.a.cmd(["ping", "-n", "-c1", "-W9", "-Mdo", "-s1400", to]).run()));
            log.add(&format!("{family} learnt"), knows(&site.a));
            log.add(&format!("{family} fits"), pinged(&site.a.cmd(["ping", "-n", "-c1", "-W9", "-Mdo", "-s1320", to]).run()));
            // By UDP, and by TCP, of another container that has not heard of it.
            log.add(&format!("{family} UDP"), came(&site.b.cmd(["lab-peer", "udp-echo", at, "1440"]).run()));
            log.add(&format!("{family} learnt"), knows(&site.b));
            log.add(&format!("{family} UDP again"), came(&site.b.cmd(["lab-peer", "udp-echo", at, "1440"]).run()));
            site.b.run(["ip", "route", "flush", "cache"]);
            site.b.sh("ip -6 route flush cache");
            for talk in ["sink", "source", "echo"] {
                log.add(&format!("{family} TCP {talk}"), came(&site.b.cmd(["lab-peer", "tcp", at, talk, "3000000"]).run()));
            }
        }
    } says "
        v4 asked: From 100.64.7.254 Frag needed and DF set (mtu = 1380)
        v4 asked: 0 received
        v4 learnt: 1380
        v4 fits: 1 received
        v4 UDP: Message too long (os error 90)
        v4 learnt: 1380
        v4 UDP again: ok
        v4 TCP sink: ok
        v4 TCP source: ok
        v4 TCP echo: ok
        v6 asked: From 2001:db8:7::fe Packet too big: mtu=1380
        v6 asked: 0 received
        v6 learnt: 1380
        v6 fits: 1 received
        v6 UDP: Message too long (os error 90)
        v6 learnt: 1380
        kernel| v6 UDP again: ok
        pontoon| v6 UDP again: Message too long (os error 90)
        v6 TCP sink: ok
        v6 TCP source: ok
        v6 TCP echo: ok
    "
}

either_way! {
    /// Networks with a smaller MTU than the link outside: clients of a published port learn of it, and segments are made to fit.
    fn a_narrow_network_inside(world, way, log) {
        let site = Site::with(world, way, 1400, &[]);
        let mut inside = site.a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        inside.wait_for("listening");
        let mut datagrams = site.a.cmd(["lab-peer", "udp-serve", "10.44.0.2:9000", "[fd44::2]:9000"]).spawn();
        datagrams.wait_for("listening");
        site.publish("a", "8080:9000");
        site.publish("a", "8080:9000/udp");
        let server = world.server();
        let mut dump = server
            .cmd(["tcpdump", "-n", "-l", "-i", "s0", "tcp[tcpflags] & tcp-syn != 0 or (ip6 and ip6[6] = 6 and ip6[53] & 2 != 0)"])
            .spawn();
        dump.wait_for("listening on");
        let _outside = server.cmd(["lab-peer", "tcp-serve", "9100"]).spawn();
        server.wait_tcp(9100);
        for (family, to, outside) in [
            ("v4", "100.64.7.77:8080", "198.51.100.10:9100"),
            ("v6", "[2001:db8:7::77]:8080", "[2001:db8:2::10]:9100"),
        ] {
            for talk in ["sink", "source"] {
                log.add(&format!("{family} in {talk}"), came(&server.cmd(["lab-peer", "tcp", to, talk, "3000000"]).run()));
            }
            log.add(&format!("{family} out"), came(&site.a.cmd(["lab-peer", "tcp", outside, "source", "3000000"]).run()));
            // Don't Fragment, as Linux sets it: the first is lost to the discovery.
            log.add(&format!("{family} UDP"), came(&server.cmd(["lab-peer", "udp-echo", to, "1440"]).run()));
            log.add(&format!("{family} UDP again"), came(&server.cmd(["lab-peer", "udp-echo", to, "1440"]).run()));
            let address = if family == "v4" { "100.64.7.77" } else { "2001:db8:7::77" };
            let route = server.run(["ip", "route", "get", address]);
            log.add(&format!("{family} the client learnt"), route.contains("mtu 1400"));
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        log.add("announced", segment_sizes(&dump.stdout()));
    } says "
        v4 in sink: ok
        v4 in source: ok
        v4 out: ok
        v4 UDP: Message too long (os error 90)
        v4 UDP again: ok
        v4 the client learnt: true
        v6 in sink: ok
        v6 in source: ok
        v6 out: ok
        v6 UDP: Message too long (os error 90)
        v6 UDP again: ok
        v6 the client learnt: true
        announced: v4 from the server, answer: 1460
        announced: v4 from the server, question: 1460
        announced: v4 to the server, answer: 1360
        announced: v4 to the server, question: 1360
        announced: v6 from the server, answer: 1440
        announced: v6 from the server, question: 1440
        announced: v6 to the server, answer: 1340
        announced: v6 to the server, question: 1340
    "
}

either_way! {
    /// A network of an MTU of 65520 behind a link of 1500: segments are clamped, both ways, and nothing is lost to discovery.
    fn segments_fit_the_link(world, way, log) {
        let site = Site::with(world, way, 65_520, &[]);
        let [_tcp, _udp] = crate::server_peers(world);
        let mut inside = site.a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        inside.wait_for("listening");
        site.publish("a", "8080:9000");
        let mut outer = world.server().cmd(["tcpdump", "-n", "-l", "-i", "s0", "tcp"]).spawn();
        let mut inner = site.a.as_root(["tcpdump", "-n", "-l", "-i", "eth0", "tcp"]).spawn();
        outer.wait_for("listening on");
        inner.wait_for("listening on");
        for (family, to) in ["v4", "v6"].iter().zip(crate::server_at(9000)) {
            log.add(&format!("{family} out"), came(&site.a.cmd(["lab-peer", "tcp", &to, "echo", "5000000"]).run()));
        }
        for (family, to) in [("v4", "100.64.7.77:8080"), ("v6", "[2001:db8:7::77]:8080")] {
            log.add(&format!("{family} in"), came(&world.server().cmd(["lab-peer", "tcp", to, "echo", "5000000"]).run()));
        }
        for (family, to, own) in [("v4", "198.51.100.10", "10.44.0.3"), ("v6", "2001:db8:2::10", "fd44::3")] {
            log.add(&format!("{family} told"), pinged(&site.a.cmd(["ping", "-n", "-c1", "-W9", "-Mdo", "-s4000", to]).run()));
            // A datagram of its own network's size has to be cut.
            log.add(&format!("{family} cut"), pinged(&site.b.cmd(["ping", "-n", "-c2", "-i0.2", "-W9", "-Mdont", "-s4000", "-I", own, to]).run()));
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        log.add("outside", segment_sizes(&outer.stdout()));
        log.add("inside", segment_sizes(&inner.stdout()));
    } says "
        v4 out: ok
        v6 out: ok
        v4 in: ok
        v6 in: ok
        v4 told: From 10.44.0.1 Frag needed and DF set (mtu = 1500)
        v4 told: 0 received
        v4 cut: 2 received
        v6 told: From fd44::1 Packet too big: mtu=1500
        v6 told: 0 received
        v6 cut: From fd44::1 Packet too big: mtu=1500
        v6 cut: 1 received
        outside: v4 from the server, answer: 1460
        outside: v4 from the server, question: 1460
        outside: v4 to the server, answer: 1460
        outside: v4 to the server, question: 1460
        outside: v6 from the server, answer: 1440
        outside: v6 from the server, question: 1440
        outside: v6 to the server, answer: 1440
        outside: v6 to the server, question: 1440
        inside: v4 from the server, answer: 1460
        inside: v4 from the server, question: 1460
        inside: v4 to the server, answer: 65480
        inside: v4 to the server, question: 65480
        inside: v6 from the server, answer: 1440
        inside: v6 from the server, question: 1440
        inside: v6 to the server, answer: 65460
        inside: v6 to the server, question: 65460
    "
}

/// What TCP's ends announced as the largest segment, as `tcpdump` shows it, each once.
fn segment_sizes(dump: &str) -> String {
    let size = |line: &str| {
        let mss = line.split("mss ").nth(1)?.split([',', ']']).next()?;
        let family = if line.contains("IP6") { "v6" } else { "v4" };
        let to_server = line.contains("> 198.51.100.") || line.contains("> 2001:db8:2:");
        let direction = if to_server { "to" } else { "from" };
        let kind = if line.contains("Flags [S.]") {
            "answer"
        } else {
            "question"
        };
        Some(format!("{family} {direction} the server, {kind}: {mss}"))
    };
    let sizes: BTreeSet<String> = dump.lines().filter_map(size).collect();
    Vec::from_iter(sizes).join("\n")
}
