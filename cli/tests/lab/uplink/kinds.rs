//! What a link can be made of: an interface of the host, a TAP, a port of another network; a veth pair is everywhere else in these
//! tests.

use pontoon_fixtures::lab::{Bare, Daemon, Wan, Who, World};
use serde_json::json;

use super::site::attach;
use super::{came, masked};
use crate::{server_peers, start};

/// The host has an interface on the link, `p0`.
pub(super) fn on_the_link(world: &World) -> Wan<'_> {
    let wan = Wan::new(world);
    world
        .host()
        .sh("ip link add p0 type veth peer name wan0 netns router; ip link set p0 up");
    wan.plugged();
    wan
}

/// The subnets of a network on the link.
const SUBNETS: [&str; 4] = ["--subnet", "10.44.0.0/24", "--subnet", "fd44::/64"];

/// As whom the server sees a container, by both families.
fn seen_as(a: &Bare<'_>) -> [String; 2] {
    crate::server_at(9000).map(|to| {
        masked(&came(
            &a.cmd(["timeout", "5", "lab-peer", "tcp", &to, "who"]).run(),
        ))
    })
}

#[test]
fn an_interface_of_the_host() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let [_tcp, _udp] = server_peers(world);
    let host = world.host();
    let d = Daemon::start(world, Who::Root);
    let a = Bare::start(world, Who::Root);
    // With a MAC address of its own, and with the host's.
    for (link, own) in [
        ("packet:p0", true),
        ("packet:p0,mac=02:00:00:00:44:01", true),
        ("packet:p0,mac=host", false),
    ] {
        d.pontoon(["network", "create", "--uplink", link])
            .args(SUBNETS)
            .args(Wan::ADDRESSED)
            .args(["net"])
            .run()
            .ok();
        attach(&d, "net", "a", &a, 2);
        assert_eq!(
            seen_as(&a),
            ["100.64.7.77 PORT", "[2001:db8:7::77] PORT"],
            "{link}"
        );
        a.run(["lab-peer", "tcp", "198.51.100.10:9000", "echo", "3000000"]);
        d.run(["publish", "a", "8080:9000"]);
        let mut inside = a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        inside.wait_for("listening");
        for to in ["100.64.7.77:8080", "[2001:db8:7::77]:8080"] {
            world.server().run(["lab-peer", "tcp", to, "echo", "1000000"]);
        }
        let mac = host.cmd(["ip", "-j", "link", "show", "p0"]).run().json()[0]["address"].clone();
        let uplink = d.json(["network", "inspect", "net"])[0]["Uplink"].clone();
        assert_eq!(
            uplink["MacAddress"] != mac,
            own,
            "{link}: {uplink}, and the host's is {mac}"
        );
        let known = world.router().run(["ip", "neigh", "show", "100.64.7.77"]);
        let there = uplink["MacAddress"].as_str().expect("an address");
        assert!(known.contains(there), "{link}: {known}");
        // The host has an address there itself and is another host.
        host.run(["ip", "addr", "add", "100.64.7.78/24", "dev", "p0"]);
        world
            .router()
            .run(["ping", "-n", "-c2", "-i0.2", "-W9", "100.64.7.78"]);
        assert_eq!(seen_as(&a)[0], "100.64.7.77 PORT");
        host.run(["ip", "addr", "flush", "dev", "p0"]);
        d.run(["detach", "a"]);
        d.run(["network", "rm", "net"]);
        assert!(host.run(["ip", "link", "show", "p0"]).contains("UP"));
    }
    // Where the host forwards it would answer and forward as well.
    host.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    let refused = d
        .pontoon(["network", "create", "--uplink", "packet:p0,mac=host"])
        .args(SUBNETS)
        .args(Wan::ADDRESSED)
        .args(["net"])
        .run();
    let why = refused.fails();
    assert!(why.contains("forwards") && why.contains("mac=host"), "{why}");
    d.pontoon(["network", "create", "--uplink", "packet:p0"])
        .args(SUBNETS)
        .args(Wan::ADDRESSED)
        .args(["net"])
        .run()
        .ok();
    let refused = d
        .pontoon(["network", "create", "--uplink", "packet:none"])
        .args(["--uplink-address", "10.99.0.1/24", "other"])
        .run();
    assert!(refused.fails().contains("none"), "{refused}");
}

each_user! {
    /// A TAP that is made for the user, with the host's kernel behind it; as root one that the daemon makes as well.
    fn a_tap(world, who) {
        let host = world.host();
        let d = Daemon::start(world, who);
        let address = "ip addr add 100.64.8.254/24 dev vm0; ip addr add 2001:db8:8::fe/64 dev vm0 nodad; ip link set vm0 up";
        host.sh(&format!("ip tuntap add vm0 mode tap user {}; {address}", who.uid()));
        let options = [
            "--subnet", "10.44.0.0/24", "--subnet", "fd44::/64", "--uplink", "tap:vm0", "--uplink-address", "100.64.8.77/24",
            "--uplink-gateway", "100.64.8.254", "--uplink-address6", "2001:db8:8::77/64", "--uplink-gateway", "2001:db8:8::fe",
        ];
        let _nginx = host.nginx(8000);
        let check = || {
            d.create("net", &options);
            let c = start(world, who, "c", &["--network", "net", "-p", "8080:9000"]);
            let mut inside = c.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
            inside.wait_for("listening");
            for (at, seen) in [("100.64.8.254", "100.64.8.77 "), ("[2001:db8:8::fe]", "2001:db8:8::77 ")] {
                let who = c.run(["curl", "-sS", "-m5", &format!("http://{at}:8000/who")]);
                assert!(who.starts_with(seen), "{who}");
                c.sh(&format!("curl -sS -m10 http://{at}:8000/big | cmp - /tmp/nginx-host-8000/www/big"));
            }
            for at in ["100.64.8.77:8080", "[2001:db8:8::77]:8080"] {
                host.run(["lab-peer", "tcp", at, "echo", "1000000"]);
            }
            drop((inside, c));
            pontoon_fixtures::lab::wait_for("it to go", std::time::Duration::from_secs(5), || d.container("c").is_null().then_some(()));
            d.run(["network", "rm", "net"]);
        };
        check();
        assert!(host.run(["ip", "addr", "show", "vm0"]).contains("100.64.8.254"), "it was there before, and stays");
        if who == Who::Root {
            host.run(["ip", "link", "del", "vm0"]);
            // Made by the daemon: the host's end has its addresses as soon as it is there.
            let _watch = host.cmd(["bash", "-c", &format!("until ip link show vm0 >/dev/null 2>&1; do sleep 0.02; done; {address}; sleep 100")]).spawn();
            check();
            pontoon_fixtures::lab::wait_for("the TAP to go", std::time::Duration::from_secs(5), || {
                (!host.cmd(["ip", "link", "show", "vm0"]).run().success()).then_some(())
            });
        }
    }
}

each_user! {
    /// A network behind another: its gateway is a host on that one's switch, with addresses of it.
    fn a_port_of_another_network(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let d = Daemon::start(world, who);
        d.create("outer", &["--subnet", "10.45.0.0/24", "--subnet", "fd45::/64"]);
        d.create("inner", &["--subnet", "10.44.0.0/24", "--subnet", "fd44::/64", "--uplink", "switch:outer"]);
        let uplink = d.json(["network", "inspect", "inner"])[0]["Uplink"].clone();
        assert_eq!(uplink["Up"], json!(true), "{uplink}");
        let address = |family: &str| -> String {
            let all = uplink["Addresses"].as_array().expect("addresses");
            let found = all.iter().filter_map(|a| a.as_str()).find(|a| a.starts_with(family));
            found.and_then(|a| a.split('/').next()).unwrap_or_else(|| panic!("{uplink}")).to_owned()
        };
        let (ip, ip6) = (address("10.45.0."), address("fd45:"));
        let outer = start(world, who, "outer-c", &["--network", "outer"]);
        let inner = start(world, who, "inner-c", &["--network", "inner", "-p", "8080:9000"]);
        let _outer = crate::container_peers(&outer);
        let _inner = crate::container_peers(&inner);
        // A container there sees the gateway, the world sees the host.
        for (to, seen) in [(format!("{}:9000", outer.ip), format!("{ip} PORT")), (format!("[{}]:9000", outer.ip6.expect("IPv6")), format!("[{ip6}] PORT"))] {
            assert_eq!(masked(&inner.run(["lab-peer", "tcp", &to, "who"])), seen);
            inner.run(["lab-peer", "tcp", &to, "echo", "3000000"]);
            inner.run(["lab-peer", "udp-echo", &to, "4000"]);
        }
        for to in crate::server_at(9000) {
            inner.run(["lab-peer", "tcp", &to, "echo", "3000000"]);
            inner.run(["lab-peer", "udp-echo", &to, "4000"]);
        }
        inner.run(["ping", "-n", "-c2", "-i0.2", "-W9", "198.51.100.10"]);
        let hops = inner.run(["traceroute", "-n", "-q1", "-w9", "-m6", "198.51.100.10"]);
        for hop in ["10.44.0.1", "10.45.0.1", "192.0.2.254", "198.51.100.10"] {
            assert!(hops.contains(hop), "{hops}");
        }
        // Published ports are at its address there.
        for to in [format!("{ip}:8080"), format!("[{ip6}]:8080")] {
            outer.run(["lab-peer", "tcp", &to, "echo", "1000000"]);
        }
        // The outer network cannot go before, and the address is free again afterwards.
        let done = d.pontoon(["network", "rm", "outer"]).run();
        assert!(!done.success(), "{done}");
        drop((_inner, inner));
        pontoon_fixtures::lab::wait_for("it to go", std::time::Duration::from_secs(5), || d.container("inner-c").is_null().then_some(()));
        d.run(["network", "rm", "inner"]);
        let next = start(world, who, "next", &["--network", &format!("outer:ip={ip}")]);
        next.run(["ping", "-n", "-c1", "-W9", "10.45.0.1"]);
    }
}
