//! Ports of containers at the router's address: in every form, for everyone or for some, and from inside.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Done, Place, Proc};

use super::{Site, came, masked};

/// The lab's peers in a container: TCP on port 9000 and UDP on the ports from 9000 on.
fn serve(c: &Bare<'_>, number: u8, ports: std::ops::RangeInclusive<u16>) -> Vec<Proc> {
    let udp: Vec<String> = ports
        .clone()
        .flat_map(|p| [format!("10.44.0.{number}:{p}"), format!("[fd44::{number}]:{p}")])
        .collect();
    let tcp = ports.map(|p| c.cmd(["lab-peer", "tcp-serve", &p.to_string()]));
    let mut all: Vec<Proc> = tcp.map(|c| c.spawn()).collect();
    all.push(c.cmd(["lab-peer", "udp-serve"]).args(udp).spawn());
    for proc in &mut all {
        proc.wait_for("listening");
    }
    all
}

/// Who the container sees, asked from outside by TCP.
fn who(from: Place<'_>, to: &str) -> String {
    masked(&came(
        &from.cmd(["timeout", "4", "lab-peer", "tcp", to, "who"]).run(),
    ))
}

fn udp(from: Place<'_>, to: &str) -> Done {
    from.cmd(["timeout", "3", "lab-peer", "udp-ask", to]).run()
}

either_way! {
    /// The container sees its client's own address, TCP and UDP, both families; a range is led port by port, and what is taken
    /// back is closed: to the kernel it is a host's port, of which Pontoon says nothing for a while (RFC 5382 REQ-4).
    fn in_every_form(world, way, log) {
        let site = Site::new(world, way);
        let _a = serve(&site.a, 2, 9000..=9003);
        let _b = serve(&site.b, 3, 9000..=9000);
        let server = world.server();
        for what in ["8080:9000", "8080:9000/udp", "100.64.7.77:8081:9000", "[2001:db8:7::77]:8082:9000", "8100-8103:9000-9003", "8100-8103:9000-9003/udp"] {
            site.publish("a", what);
        }
        site.publish("b", "8090:9000");
        for port in [8080, 8081, 8082, 8090, 8100, 8103, 8104] {
            for at in ["100.64.7.77", "[2001:db8:7::77]"] {
                let to = format!("{at}:{port}");
                log.add(&to, who(server, &to));
            }
        }
        for port in [8080, 8103] {
            for at in ["100.64.7.77", "[2001:db8:7::77]"] {
                let to = format!("{at}:{port}");
                log.add(&format!("UDP {to}"), masked(&came(&udp(server, &to))));
                log.add(&format!("UDP {to} from a neighbour"), masked(&came(&udp(site.near(), &to))));
            }
        }
        log.add("long", came(&server.cmd(["lab-peer", "tcp", "100.64.7.77:8080", "echo", "3000000"]).run()));
        log.add("long", came(&server.cmd(["lab-peer", "tcp", "[2001:db8:7::77]:8080", "source", "3000000"]).run()));
        log.add("large", came(&server.cmd(["lab-peer", "udp-echo", "100.64.7.77:8080", "60000"]).run()));
        log.add("from behind a narrow link", came(&world.far().cmd(["lab-peer", "tcp", "100.64.7.77:8080", "echo", "3000000"]).run()));
        site.unpublish("a", "8100-8103:9000-9003");
        site.unpublish("a", "100.64.7.77:8081:9000");
        for port in [8080, 8081, 8100] {
            let to = format!("100.64.7.77:{port}");
            log.add(&format!("later {to}"), who(server, &to));
        }
        log.add("later UDP", masked(&came(&udp(server, "100.64.7.77:8100"))));
    } says "
        100.64.7.77:8080: 198.51.100.10 PORT
        [2001:db8:7::77]:8080: [2001:db8:2::29] PORT
        100.64.7.77:8081: 198.51.100.10 PORT
        kernel| [2001:db8:7::77]:8081: Connection refused (os error 111)
        pontoon| [2001:db8:7::77]:8081: no answer
        kernel| 100.64.7.77:8082: Connection refused (os error 111)
        pontoon| 100.64.7.77:8082: no answer
        [2001:db8:7::77]:8082: [2001:db8:2::29] PORT
        100.64.7.77:8090: 198.51.100.10 PORT
        [2001:db8:7::77]:8090: [2001:db8:2::29] PORT
        100.64.7.77:8100: 198.51.100.10 PORT
        [2001:db8:7::77]:8100: [2001:db8:2::29] PORT
        100.64.7.77:8103: 198.51.100.10 PORT
        [2001:db8:7::77]:8103: [2001:db8:2::29] PORT
        kernel| 100.64.7.77:8104: Connection refused (os error 111)
        pontoon| 100.64.7.77:8104: no answer
        kernel| [2001:db8:7::77]:8104: Connection refused (os error 111)
        pontoon| [2001:db8:7::77]:8104: no answer
        UDP 100.64.7.77:8080: 198.51.100.10 PORT
        UDP 100.64.7.77:8080 from a neighbour: 100.64.7.10 PORT
        UDP [2001:db8:7::77]:8080: [2001:db8:2::29] PORT
        UDP [2001:db8:7::77]:8080 from a neighbour: [2001:db8:7::10] PORT
        UDP 100.64.7.77:8103: 198.51.100.10 PORT
        UDP 100.64.7.77:8103 from a neighbour: 100.64.7.10 PORT
        UDP [2001:db8:7::77]:8103: [2001:db8:2::29] PORT
        UDP [2001:db8:7::77]:8103 from a neighbour: [2001:db8:7::10] PORT
        long: ok
        long: ok
        large: ok
        from behind a narrow link: ok
        later 100.64.7.77:8080: 198.51.100.10 PORT
        kernel| later 100.64.7.77:8081: Connection refused (os error 111)
        pontoon| later 100.64.7.77:8081: no answer
        kernel| later 100.64.7.77:8100: Connection refused (os error 111)
        pontoon| later 100.64.7.77:8100: no answer
        later UDP: 198.51.100.10 PORT
    "
}

either_way! {
    /// A client who connects from one of its ports to two published ports that lead to one of a container's: to the container
    /// both would be one connection, so the second has another port there. Both live at the same time, each with its own data.
    fn by_two_ports_from_one(world, way, log) {
        let site = Site::new(world, way);
        // It says whom it sees, and then what it hears.
        let echo = "SYSTEM:echo sees $SOCAT_PEERADDR $SOCAT_PEERPORT; exec cat";
        let _four = site.a.cmd(["socat", "-t2", "TCP4-LISTEN:9000,fork,reuseaddr", echo]).spawn();
        let _six = site.a.cmd(["socat", "-t2", "TCP6-LISTEN:9000,fork,reuseaddr,ipv6only=1", echo]).spawn();
        pontoon_fixtures::lab::wait_for("both servers", Duration::from_secs(5), || {
            (site.a.run(["ss", "-ltnH", "sport", "=", "9000"]).lines().count() == 2).then_some(())
        });
        site.publish("a", "8080:9000");
        site.publish("a", "8081:9000");
        for (family, at, own) in [("4", "100.64.7.77", "198.51.100.10"), ("6", "[2001:db8:7::77]", "[2001:db8:2::10]")] {
            let mut both = [8080, 8081].map(|port| {
                let to = format!("TCP{family}:{at}:{port},bind={own}:7777,reuseaddr");
                let mut client = world.server().cmd(["socat", "-t2", "-", &to]).held().spawn();
                client.wait_for("sees ");
                client
            });
            for round in 0..3 {
                for (i, c) in both.iter_mut().enumerate() {
                    c.say(&format!("{round} of {i}."));
                }
                for (i, c) in both.iter_mut().enumerate() {
                    c.wait_for(&format!("{round} of {i}."));
                }
            }
            for (i, c) in both.iter().enumerate() {
                let all = c.stdout();
                let (seen, words) = all.split_once('\n').expect("lines");
                let port = if seen.ends_with(" 7777") { "its own port" } else { "another port" };
                log.add(&format!("v{family} {i}"), format!("{port}: {}", words.replace('\n', " ")));
            }
        }
    } says "
        v4 0: its own port: 0 of 0. 1 of 0. 2 of 0.
        v4 1: another port: 0 of 1. 1 of 1. 2 of 1.
        v6 0: its own port: 0 of 0. 1 of 0. 2 of 0.
        v6 1: another port: 0 of 1. 1 of 1. 2 of 1.
    "
}

either_way! {
    /// Rules on clients hold from the moment they are there, for those who are connected as well.
    fn for_some(world, way, log) {
        let site = Site::new(world, way);
        let _a = serve(&site.a, 2, 9000..=9000);
        site.publish("a", "8080:9000");
        let server = world.server();
        let served = |from: &str| {
            let to = if from.contains(':') {
                format!("TCP6:[2001:db8:7::77]:8080,bind=[{from}],connect-timeout=2")
            } else {
                format!("TCP4:100.64.7.77:8080,bind={from},connect-timeout=2")
            };
            let done = server.cmd(["socat", "-t2", "-T3", "-", &to]).stdin("who\n").run();
            if done.text().contains(from) { "served" } else { "not served" }
        };
        let all = |log: &mut Log, when: &str| {
            for from in ["198.51.100.10", "198.51.100.11", "2001:db8:2::10", "2001:db8:2::11"] {
                log.add(&format!("{when} {from}"), served(from));
            }
        };
        all(log, "everyone");
        site.deny("a", 9000, "198.51.100.11");
        site.deny("a", 9000, "2001:db8:2::10/127");
        all(log, "some");
        site.deny("a", 9000, "198.51.100.0/24");
        log.add("denied 198.51.100.10", served("198.51.100.10"));
        log.add("denied a neighbour", who(site.near(), "100.64.7.77:8080"));
        site.allow_all();
        all(log, "again");
    } says "
        everyone 198.51.100.10: served
        everyone 198.51.100.11: served
        everyone 2001:db8:2::10: served
        everyone 2001:db8:2::11: served
        some 198.51.100.10: served
        some 198.51.100.11: not served
        some 2001:db8:2::10: not served
        some 2001:db8:2::11: not served
        denied 198.51.100.10: not served
        denied a neighbour: 100.64.7.10 PORT
        again 198.51.100.10: served
        again 198.51.100.11: served
        again 2001:db8:2::10: served
        again 2001:db8:2::11: served
    "
}

either_way! {
    /// RFC 4787 REQ-9, RFC 5382 REQ-8: by the router's address containers reach what is published, each other's and their
    /// own, as if they came from outside.
    fn from_inside(world, way, log) {
        let site = Site::new(world, way);
        let _a = serve(&site.a, 2, 9000..=9000);
        site.publish("a", "8080:9000");
        site.publish("a", "8080:9000/udp");
        for (name, c) in [("its own", &site.a), ("its neighbour's", &site.b)] {
            for to in ["100.64.7.77:8080", "[2001:db8:7::77]:8080"] {
                let tcp = |talk: &[&str]| masked(&came(&c.cmd(["timeout", "5", "lab-peer", "tcp", to]).args(talk).run()));
                log.add(&format!("{name} {to}"), tcp(&["who"]));
                log.add(&format!("{name} {to}"), tcp(&["echo", "2000000"]));
                let udp = c.cmd(["timeout", "2", "lab-peer", "udp-ask", to]).run();
                log.add(&format!("{name} {to} UDP"), masked(&came(&udp)));
            }
        }
        log.add("a closed port", came(&site.b.cmd(["timeout", "2", "lab-peer", "tcp", "100.64.7.77:8081", "who"]).run()));
    } says "
        its own 100.64.7.77:8080: 100.64.7.77 PORT
        its own 100.64.7.77:8080: ok
        its own 100.64.7.77:8080 UDP: 100.64.7.77 PORT
        its own [2001:db8:7::77]:8080: [2001:db8:7::77] PORT
        its own [2001:db8:7::77]:8080: ok
        its own [2001:db8:7::77]:8080 UDP: [2001:db8:7::77] PORT
        its neighbour's 100.64.7.77:8080: 100.64.7.77 PORT
        its neighbour's 100.64.7.77:8080: ok
        its neighbour's 100.64.7.77:8080 UDP: 100.64.7.77 PORT
        its neighbour's [2001:db8:7::77]:8080: [2001:db8:7::77] PORT
        its neighbour's [2001:db8:7::77]:8080: ok
        its neighbour's [2001:db8:7::77]:8080 UDP: [2001:db8:7::77] PORT
        a closed port: Connection refused (os error 111)
    "
}

either_way! {
    /// A client of a published UDP port who is answered after a while, from many ports at once, and with the container's address
    /// unknown to it.
    fn answers_come_from_where_was_asked(world, way, log) {
        let site = Site::new(world, way);
        let _a = serve(&site.a, 2, 9000..=9001);
        for what in ["8080:9000/udp", "8081:9001/udp"] {
            site.publish("a", what);
        }
        // One socket asks both, and takes only what comes from there.
        let both = world.server().cmd(["lab-peer", "udp-ask", "100.64.7.77:8080", "100.64.7.77:8081"]).limit(20).run();
        log.add("both", masked(&came(&both)));
        // A word of the container's own from its published port goes out by that port.
        let mut ear = world.server().cmd(["lab-peer", "udp-listen", "9999", "3000"]).spawn();
        ear.wait_for("listening");
        site.b.run(["lab-peer", "udp-say", "9000", "198.51.100.10:9999", "b"]);
        let heard = ear.end(Duration::from_secs(10)).ok();
        log.add("heard", heard.lines().skip(1).collect::<Vec<_>>().join("\n"));
    } says "
        both: 198.51.100.10 PORT
        both: 198.51.100.10 PORT
        heard: 100.64.7.77:9000 b
    "
}

either_way! {
    /// RFC 5382 REQ-4: a SYN that nobody has asked for is not answered for six seconds, in which its own SYN may make a way in; then
    /// that the port is unreachable. The kernel's router is a host with a closed port.
    fn what_nobody_asked_for_waits(world, way, log) {
        let _site = Site::new(world, way);
        for to in ["100.64.7.77:8080", "[2001:db8:7::77]:8080"] {
            let done = world.server().cmd(["lab-peer", "tcp", to, "who"]).run();
            let when = match done.took.as_millis() {
                0..2000 => "at once",
                // The SYN is sent again after one, three and seven seconds; the error is there by itself.
                5900..7500 => "after six seconds",
                _ => "late",
            };
            log.add(to, format!("{}, {when}", came(&done)));
        }
    } says "
        kernel| 100.64.7.77:8080: Connection refused (os error 111), at once
        kernel| [2001:db8:7::77]:8080: Connection refused (os error 111), at once
        pontoon| 100.64.7.77:8080: Connection refused (os error 111), after six seconds
        pontoon| [2001:db8:7::77]:8080: Connection refused (os error 111), after six seconds
    "
}
