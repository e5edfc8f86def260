//! Port security, with real programs where there are some that lie: what a container claims to be and is not never gets to
//! its neighbour, and each claim is counted by its own reason.

use std::net::IpAddr;
use std::time::Duration;

use pontoon_fixtures::hostile::{Host, Scene, claims};
use pontoon_fixtures::lab::{Bare, Container, Daemon, Proc, require, wait_for};
use pontoon_fixtures::packet::Between;
use pontoon_switch::MacAddr;

use super::{addresses, dropped, hex, listen, mac, ping, send_raw, silent, wait_dropped};
use crate::start;

/// An address on the network that nobody has.
const NOBODY: [&str; 2] = ["10.77.0.99", "fd77::99"];
/// A hardware address that nobody has.
const NO_MAC: &str = "02:de:ad:be:ef:01";

const SUBNETS: [&str; 4] = ["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];

/// A container that lies, its neighbour, and what the neighbour hears of the lies.
struct Street<'w> {
    d: Daemon<'w>,
    bad: Container<'w>,
    good: Container<'w>,
    gateway: [String; 2],
    ear: Proc,
}

impl<'w> Street<'w> {
    fn new(world: &'w pontoon_fixtures::lab::World, who: pontoon_fixtures::lab::Who) -> Self {
        let d = Daemon::start(world, who);
        d.create("street", &SUBNETS);
        let bad = start(world, who, "bad", &["--network", "street"]);
        let good = start(world, who, "good", &["--network", "street"]);
        let gateway = [bad.gateway().to_string(), bad.gateway6().to_string()];
        // Honest until here: both know each other and the gateway.
        for to in addresses(&good).iter().chain(&gateway) {
            ping(&bad, to).ok();
            ping(&good, to).ok();
        }
        let from = mac(&bad);
        let [gw, gw6] = &gateway;
        let [nobody, nobody6] = NOBODY;
        let lies = [
            format!("ether src {NO_MAC}"),
            format!("host {nobody} or host {nobody6}"),
            format!("ether src {from} and (src host {gw} or src host {gw6})"),
            format!("ether src {from} and udp and (src port 67 or src port 547)"),
            format!("ether src {from} and icmp6 and (ip6[40] = 134 or ip6[40] = 136 or ip6[40] = 137)"),
            "ether[0:4] = 0x0180c200 or ether[0:4] = 0x01000ccc".to_owned(),
            // What may pass, and comes last.
            format!("ether src {from} and icmp"),
        ]
        .map(|l| format!("({l})"));
        let ear = listen(world, good.pid, "eth0", &lies.join(" or "));
        Self {
            d,
            bad,
            good,
            gateway,
            ear,
        }
    }

    /// `lie` is counted for `reason`.
    fn counts(&self, what: &str, reason: &str, lie: impl FnOnce(&Container<'w>)) {
        eprintln!("{what}");
        let before = dropped(&self.d, "street", "bad", reason);
        lie(&self.bad);
        wait_dropped(&self.d, "street", "bad", reason, before, 1);
    }

    /// What the neighbour has heard; that the liar has its own addresses is true.
    fn heard(&self) -> String {
        let [_, own6] = addresses(&self.bad);
        let link_local = self
            .bad
            .run(["ip", "-j", "-6", "addr", "show", "eth0", "scope", "link"]);
        let true_of = |line: &str| {
            let target = line.split_once(", neighbor advertisement, tgt is ");
            let target = target.and_then(|(_, rest)| rest.split(',').next());
            target.is_some_and(|t| {
                t == own6 || (t.starts_with("fe80") && link_local.contains(&format!("\"{t}\"")))
            })
        };
        let all = self.ear.stdout();
        all.split_inclusive('\n').filter(|l| !true_of(l)).collect()
    }

    /// The neighbour has heard nothing of all this, but hears what is true.
    fn nothing_was_heard(&self) {
        assert_eq!(self.heard(), "", "the neighbour heard lies");
        ping(&self.bad, &self.good.ip.to_string()).ok();
        let heard = wait_for("the truth", Duration::from_secs(5), || {
            Some(self.heard()).filter(|s| s.contains("echo request"))
        });
        assert!(heard.lines().all(|l| l.contains("ICMP echo")), "{heard}");
    }
}

each_user! {
    fn addresses_of_others_are_not_believed(world, who) {
        require("arping");
        require("ndisc6");
        let street = Street::new(world, who);
        let [good, good6] = addresses(&street.good);
        let [gw, gw6] = street.gateway.clone();
        let own = mac(&street.bad).to_string();
        street.counts("another hardware address", "spoofed", |c| {
            c.run(["ip", "link", "set", "eth0", "address", NO_MAC]);
            assert!(silent(c, &good));
            c.run(["ip", "link", "set", "eth0", "address", &own]);
            // It is believed again at once.
            ping(c, &good).ok();
        });
        for (nobody, to, length) in [(NOBODY[0], &good, "32"), (NOBODY[1], &good6, "128")] {
            street.counts("a source address of its own choice", "bad-source-address", |c| {
                let net = format!("{nobody}/{length}");
                let own = c.sh(&format!("ip addr add {net} dev eth0 $([ {length} = 32 ] || echo nodad)"));
                assert_eq!(own, "");
                let done = c.cmd(["ping", "-n", "-c1", "-W1", "-I", nobody, to]).run();
                assert!(!done.success(), "{done}");
                c.run(["ip", "addr", "del", &net, "dev", "eth0"]);
            });
        }
        street.counts("ARP: the gateway's address, as the sender of a question", "bad-source-address", |c| {
            let done = c.cmd(["arping", "-c1", "-w1", "-S", &gw, "-I", "eth0", &good]).run();
            assert!(!done.success(), "{done}");
        });
        street.counts("ARP: the gateway's address, told to all", "bad-source-address", |c| {
            let _ = c.cmd(["arping", "-U", "-c1", "-w1", "-S", &gw, "-I", "eth0", &gw]).run();
        });
        street.counts("ND: the gateway's address, as the sender of a question", "bad-source-address", |c| {
            let net = format!("{gw6}/128");
            c.run(["ip", "addr", "add", &net, "dev", "eth0", "nodad"]);
            let done = c.cmd(["ndisc6", "-1", "-r1", "-w500", "-s", &gw6, &good6, "eth0"]).run();
            assert!(!done.success(), "{done}");
            c.run(["ip", "addr", "del", &net, "dev", "eth0"]);
        });
        // The ear was for lies; the one ping between was true.
        let heard = street.heard();
        assert!(heard.lines().all(|l| l.contains("ICMP echo")), "{heard}");
        // Who is the gateway is what it was.
        let known = street.d.json(["network", "inspect", "street"]).to_string();
        for to in [&gw, &gw6] {
            let neighbour = street.good.cmd(["ip", "-j", "neigh", "show", to]).run().json();
            let hardware = neighbour[0]["lladdr"].as_str().expect("it was pinged");
            assert!(known.contains(hardware), "{to} is at {hardware}: {known}");
            assert_ne!(hardware, own);
        }
        ping(&street.good, &gw).ok();
        ping(&street.good, &gw6).ok();
    }
}

each_user! {
    /// dnsmasq in a container, as a DHCP server and as a router: the neighbour gets the network's own lease.
    fn servers_of_addresses_are_not_heard(world, who) {
        require("udhcpc");
        let street = Street::new(world, who);
        let server = [
            "dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--interface=eth0", "--bind-interfaces",
            "--dhcp-range=10.77.0.200,10.77.0.210,255.255.255.0", "--dhcp-range=fd77::,ra-only", "--enable-ra",
            "--ra-param=eth0,high,5", "--dhcp-authoritative", "--leasefile-ro", "--no-ping", "--log-dhcp",
        ];
        world.write("/tmp/lease", "#!/bin/sh\n[ \"$1\" = bound ] && env\nexit 0\n");
        world.host().run(["chmod", "755", "/tmp/lease"]);
        let mut dnsmasq = None;
        street.counts("a router's advertisement", "rogue-router", |c| {
            let mut proc = c.cmd(server).spawn();
            proc.wait_for("DHCP, IP range");
            dnsmasq = Some(proc);
        });
        street.counts("a DHCP server's offer", "rogue-dhcp", |_| {
            let ask = ["udhcpc", "-i", "eth0", "-q", "-n", "-f", "-t3", "-T2", "-s", "/tmp/lease"];
            let lease = street.good.run(ask);
            let line = |l: String| assert!(lease.lines().any(|x| x == l), "no `{l}` in:\n{lease}");
            line(format!("serverid={}", street.gateway[0]));
            line(format!("ip={}", street.good.ip));
        });
        let dnsmasq = dnsmasq.expect("it was started");
        let said = dnsmasq.stderr();
        assert!(said.contains("DHCPOFFER"), "the server has heard the question, and has answered: {said}");
        street.nothing_was_heard();
        let routes = street.good.run(["ip", "-6", "route", "show", "default"]);
        assert_eq!(routes.lines().count(), 1, "{routes}");
    }
}

/// A frame of a bridge: spanning tree's and Cisco's, by their groups.
fn bridge_frames(from: MacAddr) -> Vec<Vec<u8>> {
    let bpdu = [0x42, 0x42, 0x03, 0, 0, 0, 0, 0, 0x80, 0, 2, 0, 0, 0, 0, 1];
    [
        [0x01, 0x80, 0xc2, 0, 0, 0x00],
        [0x01, 0x80, 0xc2, 0, 0, 0x0e],
        [0x01, 0x80, 0xc2, 0, 0, 0x21],
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd],
    ]
    .into_iter()
    .map(|to: [u8; 6]| {
        let mut frame = [&to[..], &from.0, &16u16.to_be_bytes(), &bpdu].concat();
        frame.resize(60, 0);
        frame
    })
    .collect()
}

fn host(mac: MacAddr, [four, six]: [String; 2]) -> Host {
    format!("{mac},{four},{six}").parse().expect("a host")
}

each_user! {
    /// What no honest program sends, by raw frames: every claim of the hostile container's, and what bridges tell each other.
    fn raw_frames_do_not_pass(world, who) {
        let street = Street::new(world, who);
        let neighbour = street.bad.cmd(["ip", "-j", "neigh", "show", &street.gateway[0]]).run().json();
        let gateway: MacAddr = neighbour[0]["lladdr"].as_str().and_then(|m| m.parse().ok()).expect("it was pinged");
        let scene = Scene {
            own: host(mac(&street.bad), addresses(&street.bad)),
            gateway: host(gateway, street.gateway.clone()),
            names: host(gateway, street.gateway.clone()),
            victim: host(mac(&street.good), addresses(&street.good)),
            server: host(MacAddr([2, 0, 0, 0, 0, 9]), ["198.51.100.10".to_owned(), "2001:db8:2::10".to_owned()]),
        };
        for (what, frame) in claims(&scene) {
            let reason = match what {
                "mac of the victim" | "mac of the gateway" | "mac of nobody" => "spoofed",
                // No address of anybody's: a frame from a group is none at all.
                "mac of all" | "no mac" => "bad-source",
                "arp: for the victim's hardware" => "spoofed",
                "redirect" | "router advertisement" => "rogue-router",
                _ if what.starts_with("dhcp") => "rogue-dhcp",
                _ => "bad-source-address",
            };
            street.counts(what, reason, |c| send_raw(c, &[frame]));
        }
        for frame in bridge_frames(mac(&street.bad)) {
            street.counts("a bridge's frame", "reserved", |c| send_raw(c, &[frame]));
        }
        // Behind a tag nothing of it is truer.
        let mut tagged = Between::new(IpAddr::from([10, 77, 0, 99]), street.good.ip)
            .macs(mac(&street.bad), mac(&street.good))
            .udp(9, 9, b"tagged");
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        street.counts("behind a tag", "bad-source-address", |c| send_raw(c, &[tagged]));
        street.nothing_was_heard();
    }
}

each_user! {
    /// A container with a veth, whose frames come from a packet socket, is held to the same.
    fn a_veth_is_no_way_around(world, who) {
        let d = Daemon::start(world, who);
        d.create("street", &SUBNETS);
        let good = start(world, who, "good", &["--network", "street"]);
        let bad = Bare::start(world, who);
        let endpoint = "street:ip=10.77.0.9,ip6=fd77::9,mac=02:00:00:00:00:09";
        d.run(["attach", &bad.pid.to_string(), "--name", "bad", "--network", endpoint, "--veth"]);
        let [ip, ip6] = addresses(&good);
        let ping = |from: &[&str], to: &str| bad.cmd(["ping", "-n", "-c2", "-i0.2", "-W1"]).args(from).args([to]).run();
        let gateway = good.gateway().to_string();
        for to in [&ip, &ip6, &gateway] {
            ping(&[], to).ok();
        }
        let lies = format!("ether src {NO_MAC} or host 10.77.0.99 or host fd77::99 or (ether src 02:00:00:00:00:09 and src host {gateway})");
        let ear = listen(world, good.pid, "eth0", &lies);
        let lied = |reason: &str, lie: &[&[&str]]| {
            let before = dropped(&d, "street", "bad", reason);
            for command in lie {
                let _ = bad.cmd(*command).run();
            }
            wait_dropped(&d, "street", "bad", reason, before, 1);
        };
        lied(
            "spoofed",
            &[
                &["ip", "link", "set", "eth0", "address", NO_MAC],
                &["ping", "-n", "-c1", "-W1", &ip],
                &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:09"],
            ],
        );
        lied(
            "bad-source-address",
            &[
                &["ip", "addr", "add", "10.77.0.99/32", "dev", "eth0"],
                &["ping", "-n", "-c1", "-W1", "-I", "10.77.0.99", &ip],
                &["ip", "addr", "del", "10.77.0.99/32", "dev", "eth0"],
            ],
        );
        lied(
            "bad-source-address",
            &[
                &["ip", "addr", "add", "fd77::99/128", "dev", "eth0", "nodad"],
                &["ping", "-n", "-c1", "-W1", "-I", "fd77::99", &ip6],
                &["ip", "addr", "del", "fd77::99/128", "dev", "eth0"],
            ],
        );
        lied("bad-source-address", &[&["arping", "-c1", "-w1", "-S", &gateway, "-I", "eth0", &ip]]);
        for frame in bridge_frames(MacAddr([2, 0, 0, 0, 0, 9])) {
            lied("reserved", &[&["lab-hostile", "frames", "eth0", "1", "1000", &hex(&frame)]]);
        }
        assert_eq!(ear.stdout(), "");
        // A kernel that has looked for a neighbour in vain says so to some that ask later.
        for to in [&ip, &ip6, &gateway] {
            wait_for("an honest answer", Duration::from_secs(5), || ping(&[], to).success().then_some(()));
        }
    }
}
