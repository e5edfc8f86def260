//! The attach helper and the packet process, as the front uses them: interfaces of every kind in namespaces that nobody else
//! has touched.

mod process;

use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Who, World, require, wait_for};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

use process::{Process, Switch, perform};

/// A pidfd of the process that a bare namespace is held by.
fn pidfd(bare: &Bare<'_>) -> OwnedFd {
    let unshare = bare.holder.pid();
    let children =
        std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("children");
    let pid = children
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    pidfd_open(pid, PidfdFlags::empty()).expect("pidfd")
}

/// A task to attach an interface without any route beyond its subnets.
fn attach(interface: &str, kind: &str, mtu: u32, addresses: &[&str]) -> Value {
    json!({"attach": {
        "interface": interface, "kind": kind, "mac": null, "mtu": mtu, "addresses": addresses,
        "gateways": [], "default": false, "source_table": null, "routes": [],
    }})
}

/// The same with gateways, as one of several interfaces.
fn one_of_several(
    interface: &str,
    kind: &str,
    addresses: &[&str],
    gateways: &[&str],
    default: bool,
    table: u32,
) -> Value {
    let mut task = attach(interface, kind, 1500, addresses);
    let inner = &mut task["attach"];
    inner["gateways"] = json!(gateways);
    inner["default"] = json!(default);
    inner["source_table"] = json!(table);
    task
}

/// Has an interface made in `bare`.
fn attached(world: &World, who: Who, bare: &Bare<'_>, task: &Value) -> (Value, OwnedFd) {
    let place = pidfd(bare);
    match perform(world, who, Some(place.as_fd()), task) {
        (Ok(made), Some(fd)) => (made, fd),
        other => panic!("{task}: {other:?}"),
    }
}

/// What a bare namespace's interfaces, addresses, routes and rules are.
fn state(bare: &Bare<'_>) -> String {
    // The loopback is brought up in any case.
    bare.run([
        "sh",
        "-c",
        "ip -o addr | grep -v ' lo '; for f in -4 -6; do ip $f rule; ip $f route show table all | grep -v ' lo '; done; true",
    ])
}

fn ips(nets: &[&str]) -> Vec<IpAddr> {
    nets.iter()
        .map(|n| n.parse::<ipnet::IpNet>().expect("a network").addr())
        .collect()
}

/// Bits a second that arrive at `to` in one second of iperf3.
fn iperf3(bare: &Bare<'_>, to: &str, extra: &[&str]) -> f64 {
    for _ in 0..20 {
        let report = bare.cmd(["iperf3", "-t1", "-J", "-c", to]).args(extra).run();
        let parsed: Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        match (
            &parsed["error"],
            parsed["end"]["sum_received"]["bits_per_second"].as_f64(),
        ) {
            (Value::String(e), _) if e.contains("busy") => std::thread::sleep(Duration::from_millis(100)),
            (Value::Null, Some(bits)) => return bits,
            _ => panic!("{report}"),
        }
    }
    panic!("the server stays busy")
}

each_user! {
    /// Between two veths and a TAP super-frames cross the switch whole, with partial checksums that are completed rightly; the
    /// packet process's sandbox, all parts required, lets it be.
    fn veths_carry_super_frames_whole(world, who) {
        require("iperf3");
        for mtu in [1500u16, 65520] {
            let switch = Switch::start(world, who, "10.9.0.0/24", "fd09::/64", mtu);
            let mut ports = Vec::new();
            let mut bares = Vec::new();
            for (n, kind) in ["veth", "veth", "tap"].into_iter().enumerate() {
                let bare = Bare::start(world, who);
                let (v4, v6) = (format!("10.9.0.{}/24", n + 10), format!("fd09::{}/64", n + 10));
                let nets = [v4.as_str(), v6.as_str()];
                let (made, fd) = attached(world, who, &bare, &attach("eth0", kind, mtu.into(), &nets));
                let there = bare.cmd(["ip", "-j", "link", "show", "eth0"]).run().json();
                assert_eq!(there[0]["address"], made["mac"], "{there}");
                assert_eq!((&there[0]["mtu"], &made["mtu"]), (&json!(mtu), &json!(mtu)), "{there}");
                assert_eq!(there[0]["ifindex"], made["index"], "{there}");
                let name = format!("c{n}");
                let kind = if kind == "tap" { "tap" } else { "packet" };
                ports.push(switch.add(&name, kind, &fd, &made, &ips(&nets)));
                bares.push(bare);
            }
            let _server = bares[0].cmd(["iperf3", "-s"]).spawn();
            wait_for("iperf3", Duration::from_secs(5), || bares[0].run(["ss", "-ltnH"]).contains(":5201").then_some(()));
            for client in &bares[1..] {
                client.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s9000", "10.9.0.10"]);
                client.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s9000", "fd09::10"]);
                for extra in [&[][..], &["-R"]] {
                    for to in ["10.9.0.10", "fd09::10"] {
                        let bits = iperf3(client, to, extra);
                        assert!(bits > 1e8, "{to} {extra:?} at MTU {mtu}: {bits} bit/s");
                    }
                }
                let udp = client.cmd(["iperf3", "-t1", "-J", "-u", "-b", "20M", "-c", "10.9.0.10"]).run().json();
                let lost = udp["end"]["sum"]["lost_percent"].as_f64();
                assert!(lost.is_some_and(|l| l < 5.0), "UDP at MTU {mtu}: {lost:?} % lost");
            }
            let (received, sent) = switch.frame_sizes(ports[0]);
            let (veth_received, veth_sent) = switch.frame_sizes(ports[1]);
            if std::env::var_os("PONTOON_FALLBACK").is_some() {
                continue;
            }
            // Data one way, acknowledgements the other: on average well above a frame of 1500 bytes.
            for (n, size) in [received, sent, veth_received, veth_sent].into_iter().enumerate() {
                assert!(size > 3000, "{n} at MTU {mtu}: {size} bytes a frame");
            }
        }
    }
}

each_user! {
    /// The far end says nothing of its own, the host gains no interface, and both ends go with either.
    fn a_veth_is_quiet_and_goes_with_either_end(world, who) {
        require("ethtool");
        let host = || world.host().run(["ip", "-o", "link"]);
        let before = (host(), world.network_namespaces().len());
        let switch = Switch::start(world, who, "10.9.0.0/24", "fd09::/64", 1500);
        let bare = Bare::start(world, who);
        let (made, fd) = attached(world, who, &bare, &attach("eth0", "veth", 1500, &["10.9.0.10/24", "fd09::10/64"]));
        assert_eq!(host(), before.0);
        // Super-frames of both kinds, and sums for others to finish.
        let offloads = bare.run(["ethtool", "-k", "eth0"]);
        for feature in ["tcp-segmentation-offload", "tx-udp-segmentation", "tx-checksumming"] {
            assert!(offloads.contains(&format!("{feature}: on")), "{offloads}");
        }
        let heard = || {
            let link = bare.cmd(["ip", "-s", "-j", "link", "show", "eth0"]).run().json();
            link[0]["stats64"]["rx"]["packets"].as_u64().unwrap_or_else(|| panic!("{link}"))
        };
        // As long as it would take to ask for routers and to report groups.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(heard(), 0, "frames sent by the far end");
        switch.add("c", "packet", &fd, &made, &ips(&["10.9.0.10/24", "fd09::10/64"]));
        drop(fd);
        bare.run(["ping", "-n", "-c1", "-W9", "10.9.0.1"]);
        assert!(heard() > 0);
        switch.end();
        wait_for("the end of the interface", Duration::from_secs(5), || {
            (!bare.cmd(["ip", "link", "show", "eth0"]).run().success()).then_some(())
        });

        // The other way round: the container ends, and the packet process hears of it.
        let switch = Switch::start(world, who, "10.9.0.0/24", "fd09::/64", 1500);
        let (made, fd) = attached(world, who, &bare, &attach("eth0", "veth", 1500, &["10.9.0.10/24"]));
        let port = switch.add("c", "packet", &fd, &made, &ips(&["10.9.0.10/24"]));
        drop(fd);
        drop(bare);
        let event = switch.event();
        assert_eq!(event["port-closed"]["port"], json!(port), "{event}");
        switch.end();
        wait_for("the end of the namespaces", Duration::from_secs(5), || {
            (world.network_namespaces().len() == before.1).then_some(())
        });
    }
}

each_user! {
    /// One that cannot be made as wanted leaves the namespace as it was.
    fn what_fails_leaves_nothing(world, who) {
        let bare = Bare::start(world, who);
        let place = pidfd(&bare);
        bare.run(["ip", "link", "set", "lo", "up"]);
        let before = state(&bare);
        for kind in ["tap", "veth"] {
            // The gateway of IPv6 is on no subnet: it fails when addresses, routes and rules are there.
            let task = one_of_several("eth0", kind, &["10.1.0.2/16", "fd01::2/64"], &["10.1.0.1", "fd77::1"], true, 1000);
            let (answer, fd) = perform(world, who, Some(place.as_fd()), &task);
            let why = answer.expect_err("no route to the gateway");
            assert!(why.contains("cannot add the default route through fd77::1"), "{why}");
            assert!(fd.is_none());
            wait_for("an interface to go", Duration::from_secs(5), || (state(&bare) == before).then_some(()));

            let task = attach("a-name-that-is-too-long", kind, 1500, &[]);
            perform(world, who, Some(place.as_fd()), &task).0.expect_err("no such name");
            let (_, _held) = attached(world, who, &bare, &attach("eth0", kind, 1500, &["10.1.0.2/16"]));
            let with = state(&bare);
            for again in ["tap", "veth"] {
                let task = attach("eth0", again, 1500, &["10.1.0.3/16"]);
                let (answer, _) = perform(world, who, Some(place.as_fd()), &task);
                assert!(answer.expect_err("taken").contains("has an interface eth0 already"));
            }
            assert_eq!(state(&bare), with);
            let (answer, _) = perform(world, who, Some(place.as_fd()), &json!({"detach": {"interface": "eth0", "source_table": null}}));
            answer.expect("detached");
            assert_eq!(state(&bare), before);
        }
        let task = json!({"packet": {"interface": "eth7"}});
        let why = perform(world, who, Some(place.as_fd()), &task).0.expect_err("none");
        assert!(why.contains("there is no interface eth7"), "{why}");
        let why = perform(world, who, Some(place.as_fd()), &attach("tap7", "existing-tap", 1500, &[])).0.expect_err("none");
        assert!(why.contains("the container has no TAP tap7"), "{why}");
    }
}

/// A listening socket in the world's host.
fn listen(world: &World, at: &'static str) -> TcpListener {
    let net = File::open(world.path("/proc/1/ns/net")).expect("open the namespace");
    std::thread::spawn(move || {
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(net.as_fd(), Some(kind)).expect("enter the namespace");
        TcpListener::bind(at).expect("listen")
    })
    .join()
    .expect("thread in the namespace")
}

each_user! {
    /// Of two networks one has the default route; what comes in by the other is answered by that. And the default route moves.
    fn replies_leave_by_the_interface_they_came_in_on(world, who) {
        let bare = Bare::start(world, who);
        let place = pidfd(&bare);
        // As on hosts that are strict, from which namespaces have it.
        bare.run(["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
        let nets = [["10.1.0.7/16", "fd01::7/64"], ["10.2.0.7/16", "fd02::7/64"]];
        let gateways = [["10.1.0.1", "fd01::1"], ["10.2.0.1", "fd02::1"]];
        let mut switches = Vec::new();
        for n in 0..2 {
            let [net4, net6] = [["10.1.0.0/16", "fd01::/64"], ["10.2.0.0/16", "fd02::/64"]][n];
            let switch = Switch::start(world, who, net4, net6, 1500);
            let (kind, port_kind) = [("tap", "tap"), ("veth", "packet")][n];
            let name = ["eth0", "eth1"][n];
            let task = one_of_several(name, kind, &nets[n], &gateways[n], n == 0, 1000 + n as u32);
            let (made, fd) = attached(world, who, &bare, &task);
            let port = switch.add(name, port_kind, &fd, &made, &ips(&nets[n]));
            switches.push((switch, port));
        }
        let way = |to: &str, from: Option<&str>| {
            let mut argv = vec!["ip", "-j", "route", "get", to];
            argv.extend(from.iter().flat_map(|f| ["from", f]));
            let route = bare.cmd(argv).run().json();
            route[0]["dev"].as_str().unwrap_or_else(|| panic!("{route}")).to_owned()
        };
        for (out, to4, to6) in [("eth0", "198.51.100.10", "2001:db8:2::10"), ("eth1", "10.2.3.4", "fd02::99")] {
            assert_eq!((way(to4, None), way(to6, None)), (out.to_owned(), out.to_owned()));
        }
        for (n, out) in ["eth0", "eth1"].into_iter().enumerate() {
            let [from4, from6] = [nets[n][0], nets[n][1]].map(|net| net.split('/').next().expect("an address"));
            assert_eq!(way("198.51.100.10", Some(from4)), out);
            assert_eq!(way("2001:db8:2::10", Some(from6)), out);
            // Also where the main table has another interface for it: a client on the other network.
            assert_eq!(way("10.1.9.9", Some(from4)), out);
            assert_eq!(way("fd01::9", Some(from6)), out);
        }

        // A published port on each, asked from outside.
        let server = "while :; do echo from $0 | socat -T5 -u - TCP4-LISTEN:80,reuseaddr 2>/dev/null; done";
        let _serve = bare.cmd(["sh", "-c", server, "the container"]).spawn();
        wait_for("a server", Duration::from_secs(5), || bare.run(["ss", "-ltnH"]).contains(":80").then_some(()));
        for (n, at) in ["0.0.0.0:8081", "0.0.0.0:8082"].into_iter().enumerate() {
            let (switch, port) = &switches[n];
            let socket = listen(world, at);
            let rules = json!([{"protocol": "tcp", "host": at, "container_port": 80}]);
            let reply = switch.ask(&json!({"publish": {"port": port, "rules": rules}}), &[socket.as_fd()]);
            assert!(reply["rules"].is_array(), "{reply}");
        }
        let ask = |port: u16| {
            let to = format!("TCP4:192.0.2.1:{port},connect-timeout=3");
            wait_for(&to, Duration::from_secs(10), || {
                let said = world.server().cmd(["socat", "-T3", "-u", &to, "-"]).run().text();
                (said == "from the container\n").then_some(())
            });
        };
        ask(8081);
        ask(8082);
        // The way out, by either gateway, with its own address as the source.
        let _peer = world.server().nginx(80);
        let get = || bare.run(["curl", "-sS", "-m5", "http://198.51.100.10/"]);
        assert_eq!(get(), "hello from server\n");

        // The default routes move, one goes, and it is as it was.
        let task = |interface: &str, gateways: &[&str]| json!({"default": {"interface": interface, "gateways": gateways}});
        let perform = |task: &Value| perform(world, who, Some(place.as_fd()), task).0.unwrap_or_else(|e| panic!("{task}: {e}"));
        perform(&task("eth1", &gateways[1]));
        assert_eq!((way("198.51.100.10", None), way("2001:db8:2::10", None)), ("eth1".to_owned(), "eth1".to_owned()));
        assert_eq!(get(), "hello from server\n");
        ask(8081);
        perform(&task("eth1", &[]));
        let routes = bare.run(["sh", "-c", "ip route show default; ip -6 route show default"]);
        assert_eq!(routes, "", "default routes");
        ask(8082);
        perform(&task("eth0", &gateways[0]));
        perform(&json!({"detach": {"interface": "eth1", "source_table": 1001}}));
        let left = state(&bare);
        assert!(left.contains("1000") && !left.contains("1001") && !left.contains("eth1"), "{left}");
        assert_eq!(get(), "hello from server\n");
        ask(8081);
        // Once more is no error.
        perform(&json!({"detach": {"interface": "eth1", "source_table": 1001}}));
    }
}

each_user! {
    /// Full prefixes, and a route to the one at the other end.
    fn a_wire_has_full_prefixes_and_a_route_to_its_peer(world, who) {
        let switch = Switch::start(world, who, "10.9.0.0/24", "fd09::/64", 1500);
        let ends = [("10.5.0.1", "10.5.0.2", "fd05::1", "fd05::2"), ("10.5.0.2", "10.5.0.1", "fd05::2", "fd05::1")];
        let mut bares = Vec::new();
        for (n, (own, peer, own6, peer6)) in ends.into_iter().enumerate() {
            let bare = Bare::start(world, who);
            let nets = [format!("{own}/32"), format!("{own6}/128")];
            let nets = [nets[0].as_str(), nets[1].as_str()];
            let mut task = attach("eth3", ["tap", "veth"][n], 1500, &nets);
            task["attach"]["routes"] = json!([[format!("{peer}/32"), null], [format!("{peer6}/128"), null]]);
            let (made, fd) = attached(world, who, &bare, &task);
            switch.add(&format!("end{n}"), ["tap", "packet"][n], &fd, &made, &ips(&nets));
            bares.push(bare);
        }
        bares[0].run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.5.0.2"]);
        bares[1].run(["ping", "-n", "-c2", "-i0.2", "-W9", "fd05::1"]);
    }
}

/// What is named by a path is entered by way of the user namespace that it belongs to; a TAP that was there stays there.
mod namespaces_by_path {
    use super::*;

    fn open(world: &World, path: &str) -> File {
        File::open(world.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn as_root() {
        let world = crate::world();
        world.host().run(["ip", "netns", "add", "named"]);
        let place = world.place("named");
        let file = open(&world, "/run/netns/named");
        let task = |interface: &str, kind: &str| attach(interface, kind, 1400, &["10.9.0.10/24"]);
        for kind in ["tap", "veth"] {
            let (made, fd) = perform(&world, Who::Root, Some(file.as_fd()), &task("eth0", kind));
            made.unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert!(place.run(["ip", "addr", "show", "eth0"]).contains("10.9.0.10/24"));
            drop(fd);
            wait_for("its end", Duration::from_secs(5), || {
                (!place.cmd(["ip", "link", "show", "eth0"]).run().success()).then_some(())
            });
        }
        // One that lasts, as a hypervisor's.
        place.run(["ip", "tuntap", "add", "vm0", "mode", "tap"]);
        let mac = place.cmd(["ip", "-j", "link", "show", "vm0"]).run().json()[0]["address"].clone();
        let (made, fd) = perform(
            &world,
            Who::Root,
            Some(file.as_fd()),
            &attach("vm0", "existing-tap", 1400, &[]),
        );
        assert_eq!(made.expect("attached")["mac"], mac);
        let detach = json!({"detach": {"interface": "vm0", "source_table": null}});
        perform(&world, Who::Root, Some(file.as_fd()), &detach)
            .0
            .expect("detached");
        drop(fd);
        assert!(place.run(["ip", "link", "show", "vm0"]).contains("vm0"));
        // What fails leaves it as it was.
        let before = place.run([
            "sh",
            "-c",
            "ip -4 -o addr show dev vm0; ip rule; ip -4 route show table all dev vm0",
        ]);
        let task = one_of_several(
            "vm0",
            "existing-tap",
            &["10.1.0.2/16"],
            &["10.77.0.1"],
            true,
            1000,
        );
        let (answer, _) = perform(&world, Who::Root, Some(file.as_fd()), &task);
        let why = answer.expect_err("no route to the gateway");
        assert!(why.contains("10.77.0.1"), "{why}");
        let after = place.run([
            "sh",
            "-c",
            "ip -4 -o addr show dev vm0; ip rule; ip -4 route show table all dev vm0",
        ]);
        assert_eq!(after, before);
        // An interface of that namespace, by a packet socket.
        place.run([
            "ip", "link", "add", "lan0", "mtu", "1400", "type", "veth", "peer", "name", "lan1",
        ]);
        let (made, fd) = perform(
            &world,
            Who::Root,
            Some(file.as_fd()),
            &json!({"packet": {"interface": "lan0"}}),
        );
        let made = made.expect("opened");
        assert_eq!((&made["interface"], &made["mtu"]), (&json!("lan0"), &json!(1400)));
        assert!(place.run(["ip", "link", "show", "lan0"]).contains("UP"));
        let switch = Switch::start(&world, Who::Root, "10.9.0.0/24", "fd09::/64", 1400);
        place.run(["ip", "addr", "add", "10.9.0.77/24", "dev", "lan1"]);
        place.run(["ip", "link", "set", "lan1", "up"]);
        let mut station = made.clone();
        station["mac"] = place.cmd(["ip", "-j", "link", "show", "lan1"]).run().json()[0]["address"].clone();
        switch.add(
            "lan",
            "packet",
            &fd.expect("a socket"),
            &station,
            &ips(&["10.9.0.77/24"]),
        );
        place.run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.9.0.1"]);
    }

    #[test]
    fn as_user() {
        let world = crate::world();
        let bare = Bare::start(&world, Who::User);
        let file = open(&world, &format!("/proc/{}/ns/net", bare.pid));
        for kind in ["tap", "veth"] {
            let task = attach("eth0", kind, 1400, &["10.9.0.10/24"]);
            let (made, fd) = perform(&world, Who::User, Some(file.as_fd()), &task);
            made.unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert!(bare.run(["ip", "addr", "show", "eth0"]).contains("10.9.0.10/24"));
            drop(fd);
            wait_for("its end", Duration::from_secs(5), || {
                (!bare.cmd(["ip", "link", "show", "eth0"]).run().success()).then_some(())
            });
        }
        // Root's are not his.
        world.host().run(["ip", "netns", "add", "named"]);
        let roots = open(&world, "/run/netns/named");
        let task = attach("eth0", "tap", 1400, &[]);
        let why = perform(&world, Who::User, Some(roots.as_fd()), &task)
            .0
            .expect_err("not his");
        assert!(why.contains("cannot enter the network namespace"), "{why}");
    }

    /// Without a place it is done where the helper is, which is the host's for root.
    #[test]
    fn the_host_itself() {
        let world = crate::world();
        let before = world.host().run(["ip", "-o", "addr", "show", "dev", "lo"]);
        let task = json!({"host-tap": {
            "interface": "pontoon0", "mac": "02:00:0a:09:00:05", "mtu": 1500, "addresses": ["10.9.0.5/24", "fd09::5/64"],
        }});
        let (made, fd) = perform(&world, Who::Root, None, &task);
        let (made, fd) = (made.expect("made"), fd.expect("a TAP"));
        let switch = Switch::start(&world, Who::Root, "10.9.0.0/24", "fd09::/64", 1500);
        switch.add("host", "tap", &fd, &made, &ips(&["10.9.0.5/24", "fd09::5/64"]));
        world
            .host()
            .run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.9.0.1"]);
        world.host().run(["ping", "-n", "-c2", "-i0.2", "-W9", "fd09::1"]);
        let default = world.host().run(["ip", "route", "show", "default"]);
        assert!(
            default.contains("192.0.2.254") && !default.contains("pontoon0"),
            "{default}"
        );
        assert_eq!(
            world.host().run(["ip", "-o", "addr", "show", "dev", "lo"]),
            before
        );
        let why = perform(&world, Who::User, None, &task)
            .0
            .expect_err("not allowed");
        assert!(why.contains("pontoon0"), "{why}");
    }
}

/// A helper that is told nothing ends by itself, and one that is told nonsense says so.
#[test]
fn a_helper_without_a_task_ends() {
    let world = crate::world();
    let idle = Process::start(&world, Who::Root, "__attach");
    drop(idle);
    let left = world.processes();
    assert!(left.is_empty(), "{left:?}");
}
