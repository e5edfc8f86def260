//! Ports of both kinds in containers: TAPs, and veth pairs with their far end read by a packet socket.

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, require, wait_for};

use super::{ping, tcpdump};
use crate::{iperf3, start};

/// The mean size of the frames of a container's port: received, sent.
fn frame_sizes(daemon: &Daemon<'_>, c: &Container<'_>) -> (u64, u64) {
    let stats = daemon.json(["stats", "--json"]);
    let ports = stats
        .as_array()
        .expect("networks")
        .iter()
        .flat_map(|n| n["ports"].as_array().expect("ports"));
    let port = ports
        .clone()
        .find(|p| p["name"] == *c.name)
        .unwrap_or_else(|| panic!("{stats}"));
    let n = |what: &str| port[what].as_u64().expect("a counter");
    (
        n("rx_bytes") / n("rx_frames").max(1),
        n("tx_bytes") / n("tx_frames").max(1),
    )
}

fn iperf3_server(c: &Container<'_>) -> pontoon_fixtures::lab::Proc {
    require("iperf3");
    let server = c.cmd(["iperf3", "-s"]).spawn();
    wait_for("iperf3", Duration::from_secs(5), || {
        c.run(["ss", "-ltnH"]).contains(":5201").then_some(())
    });
    server
}

each_user! {
    /// Super-frames cross from each kind to each whole, at a small MTU and at the largest, in both versions of IP.
    fn super_frames_cross_whole_between_both_kinds(world, who) {
        let daemon = Daemon::start(world, who);
        for mtu in ["1500", "65520"] {
            let network = format!("n{mtu}");
            daemon.create(&network, &["--ipv6", "--mtu", mtu]);
            let name = |n: &str| format!("{n}{mtu}");
            let server = start(world, who, &name("server"), &["--network", &network, "--veth"]);
            let veth = start(world, who, &name("veth"), &["--network", &network, "--veth"]);
            let tap = start(world, who, &name("tap"), &["--network", &network]);
            let _serves = iperf3_server(&server);
            for client in [&veth, &tap] {
                let there = client.cmd(["ip", "-d", "-j", "link", "show", "eth0"]).run().json();
                assert_eq!(there[0]["mtu"].to_string(), mtu, "{there}");
                let kind = if client.name.starts_with("veth") { "veth" } else { "tun" };
                assert_eq!(there[0]["linkinfo"]["info_kind"], kind, "{there}");
                for to in [server.ip, server.ip6.expect("IPv6")] {
                    client.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s9000", &to.to_string()]);
                    for back in [&[][..], &["-R"]] {
                        let bits = iperf3(client, &[&["-c", &to.to_string()], back].concat());
                        assert!(bits > 1e8, "{to} {back:?} at MTU {mtu}: {bits} bit/s");
                    }
                }
                ping(client, "198.51.100.10").run().ok();
                ping(client, "2001:db8:2::10").run().ok();
            }
            if std::env::var_os("PONTOON_FALLBACK").is_some() {
                continue;
            }
            // Data one way, acknowledgements the other: on average well above a frame of 1500 bytes.
            for c in [&server, &veth, &tap] {
                let (received, sent) = frame_sizes(&daemon, c);
                assert!(received > 3000 && sent > 3000, "{} at MTU {mtu}: {received}, {sent} bytes a frame", c.name);
            }
        }
    }
}

each_user! {
    /// As tcpdump sees them in the peer: whole frames from either kind, and sums that are right.
    fn tcpdump_sees_whole_frames_and_right_sums(world, who) {
        require("ethtool");
        let daemon = Daemon::start(world, who);
        daemon.create("net", &["--ipv6"]);
        let _nginx = world.server().nginx(80);
        for (n, (from, to)) in [(&["--veth"][..], &["--veth"][..]), (&["--veth"], &[]), (&[], &["--veth"])].into_iter().enumerate() {
            let name = |who: &str| format!("{who}{n}");
            let from = start(world, who, &name("from"), &[&["--network", "net"], from].concat());
            let to = start(world, who, &name("to"), &[&["--network", "net"], to].concat());
            let mut server = to.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
            server.wait_for("listening");
            let capture = |filter: &str| tcpdump(&to, &["-vv", "-i", "eth0", filter]);
            let peers = [to.ip, to.ip6.expect("IPv6")].map(|ip| std::net::SocketAddr::new(ip, 9000).to_string());
            if std::env::var_os("PONTOON_FALLBACK").is_none() {
                let whole = capture("greater 9000");
                for peer in &peers {
                    from.run(["lab-peer", "tcp", peer, "echo", "3000000"]);
                }
                wait_for("frames of more than 9000 bytes, both ways and versions", Duration::from_secs(3), || {
                    let text = whole.stdout();
                    [from.ip, from.ip6.expect("IPv6"), to.ip, to.ip6.expect("IPv6")]
                        .iter()
                        .all(|ip| text.contains(&format!("{ip}.")))
                        .then_some(())
                });
            }
            // Sums that the sender makes itself, as nobody makes them on the way.
            from.run(["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"]);
            let sums = capture("tcp dst port 9000");
            for peer in &peers {
                from.run(["lab-peer", "tcp", peer, "sink", "100000"]);
            }
            wait_for("segments with sums", Duration::from_secs(3), || {
                (sums.stdout().matches("(correct)").count() > 20).then_some(())
            });
            let text = sums.stdout();
            assert!(!text.contains("incorrect"), "{text}");
            // What the gateway sends is right as well, for who does not trust it to have been looked at.
            to.run(["ethtool", "-K", "eth0", "rx", "off"]);
            to.run(["curl", "-sS", "-m10", "-o", "/dev/null", "http://198.51.100.10/big"]);
            to.run(["curl", "-sS", "-m10", "-o", "/dev/null", "http://[2001:db8:2::10]/big"]);
        }
    }
}
