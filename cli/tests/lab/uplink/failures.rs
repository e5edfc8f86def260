//! A link that goes and comes back, a router that is replaced, neighbours that are not there: what can be lived through is.

use std::time::Duration;

use pontoon_fixtures::lab::Proc;

use super::{Log, Site, came, pinged};

/// Connections of a container to the server, one a family: what is said to them comes back.
fn connections(site: &Site<'_>) -> [Proc; 2] {
    ["TCP4:198.51.100.10:9200", "TCP6:[2001:db8:2::10]:9200"].map(|to| {
        let mut client = site.a.cmd(["socat", "-t1", "-", to]).held().spawn();
        client.say("at first");
        client.wait_for("at first");
        client
    })
}

/// Says a word to both and waits until it is back, which takes a retransmission or two where one was lost.
fn still_there(connections: &mut [Proc; 2], word: &str) -> &'static str {
    for c in connections.iter_mut() {
        c.say(word);
    }
    for c in connections.iter_mut() {
        c.wait_for(word);
    }
    "both families"
}

/// Another container has not sent anything yet, and does.
fn new_ones(site: &Site<'_>, log: &mut Log) {
    for (what, to) in [("new", "198.51.100.10"), ("new, v6", "2001:db8:2::10")] {
        log.add(
            what,
            pinged(&site.b.cmd(["ping", "-n", "-c2", "-i0.2", "-W9", to]).run()),
        );
    }
}

either_way! {
    /// The far end of the link goes down and comes up again.
    fn the_link_goes_down_and_up(world, way, log) {
        let site = Site::new(world, way);
        let _echo = world.server().socat("TCP6-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
        let mut both = connections(&site);
        let link = |state: &str| world.host().run(["ip", "-n", "router", "link", "set", "wan0", state]);
        link("down");
        for c in &mut both {
            c.say("into the void");
        }
        std::thread::sleep(Duration::from_secs(1));
        link("up");
        for c in &mut both {
            c.wait_for("into the void");
        }
        log.add("live", still_there(&mut both, "and on"));
        new_ones(&site, log);
    } says "
        live: both families
        new: 2 received
        new, v6: 2 received
    "
}

either_way! {
    /// Another machine takes over the router's addresses, and says so (gratuitous ARP, unsolicited advertisement).
    fn the_router_is_replaced(world, way, log) {
        let site = Site::new(world, way);
        let _echo = world.server().socat("TCP6-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
        let mut both = connections(&site);
        // What has just been confirmed is not believed to have changed within a second.
        std::thread::sleep(Duration::from_millis(1200));
        world.router().sh(
            "sysctl -qw net.ipv4.conf.w7.arp_notify=1 net.ipv6.conf.w7.ndisc_notify=1
             ip link set w7 address 02:00:00:00:07:fd",
        );
        log.add("live", still_there(&mut both, "and on"));
        new_ones(&site, log);
    } says "
        live: both families
        new: 2 received
        new, v6: 2 received
    "
}

either_way! {
    /// Nobody has the address: an error for what has waited, to each protocol, and the next tries are told as well. (As to the address
    /// that tells it, see `out::echo`.)
    fn a_neighbour_is_not_there(world, way, log) {
        let site = Site::new(world, way);
        for (family, to) in [("v4", "100.64.7.99:9"), ("v6", "[2001:db8:7::99]:9")] {
            for which in ["the first", "the next"] {
                let done = site.a.cmd(["timeout", "8", "lab-peer", "tcp", to, "who"]).run();
                log.add(&format!("{family} {which} connection"), came(&done));
            }
        }
        // It comes, and is found.
        world.host().run(["ip", "-n", "near", "addr", "add", "100.64.7.99/24", "dev", "e0"]);
        world.host().run(["ip", "-n", "near", "addr", "add", "2001:db8:7::99/64", "dev", "e0", "nodad"]);
        for (family, to) in [("v4", "100.64.7.99"), ("v6", "2001:db8:7::99")] {
            let done = site.a.cmd(["ping", "-n", "-c3", "-i0.5", "-W9", to]).run();
            log.add(&format!("{family} there now"), done.success());
        }
    } says "
        v4 the first connection: No route to host (os error 113)
        v4 the next connection: No route to host (os error 113)
        v6 the first connection: No route to host (os error 113)
        v6 the next connection: No route to host (os error 113)
        v4 there now: true
        v6 there now: true
    "
}

either_way! {
    /// One frame in fifty is lost, in each direction: connections get through, as what is in the window passes in whatever order it comes.
    fn the_link_is_bad(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = crate::server_peers(world);
        let mut inside = site.b.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        inside.wait_for("listening");
        site.publish("b", "8080:9000");
        world.router().sh("nft 'table inet bad { chain f { type filter hook forward priority 0; numgen random mod 50 0 drop; }; }'");
        for to in crate::server_at(9000) {
            for talk in ["sink", "source", "echo"] {
                let done = site.a.cmd(["lab-peer", "tcp", &to, talk, "500000"]).limit(60).run();
                log.add(&format!("out {talk}"), came(&done));
            }
        }
        for to in ["100.64.7.77:8080", "[2001:db8:7::77]:8080"] {
            let done = world.server().cmd(["lab-peer", "tcp", to, "echo", "500000"]).limit(60).run();
            log.add("in echo", came(&done));
        }
    } says "
        out sink: ok
        out source: ok
        out echo: ok
        out sink: ok
        out source: ok
        out echo: ok
        in echo: ok
        in echo: ok
    "
}
