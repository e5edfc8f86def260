//! `pontoon run --uplink`: a private network with a link of its own, which lives as long as its command.

use std::collections::BTreeSet;
use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Container, Done, Place, Wan, Who, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use super::addresses::dhcp;
use super::kinds::on_the_link;
use super::masked;
use crate::{container_peers, peers, server_peers, start};

mod amiss;
mod joined;

/// What a run could leave behind.
#[derive(PartialEq, Eq, Debug)]
struct Traces {
    processes: BTreeSet<String>,
    /// Network namespaces that processes live in.
    spaces: Vec<String>,
    /// The interfaces of the host and of the router, each with how often it was made promiscuous.
    links: Vec<String>,
    /// Control sockets and logs.
    files: String,
}

impl Traces {
    fn of(world: &World, who: Who) -> Self {
        // What makes the link's other end part of it may be at it.
        let plugging = |args: &String| args.starts_with("ip -n router link set");
        let links = |place: Place<'_>| -> Vec<String> {
            let all = place.cmd(["ip", "-d", "-j", "link"]).run().json();
            let link = |l: &Value| format!("{} {} {}", place.name(), l["ifname"], l["promiscuity"]);
            all.as_array().expect("links").iter().map(link).collect()
        };
        Self {
            processes: world
                .processes()
                .into_iter()
                .map(|(_, args)| args)
                .filter(|a| !plugging(a))
                .collect(),
            spaces: world.network_namespaces(),
            links: [world.host(), world.router()]
                .into_iter()
                .flat_map(links)
                .collect(),
            files: world.host().sh(&format!(
                "find {} ! -type d 2>/dev/null || true",
                who.runtime_dir()
            )),
        }
    }

    /// Wants everything to be as it was, at once or when the last of the network's processes has ended, which `run` does not wait for.
    fn same(&self, world: &World, who: Who, after: &str) {
        let mut now = Self::of(world, who);
        for _ in 0..80 {
            if now == *self {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
            now = Self::of(world, who);
        }
        assert_eq!(now, *self, "after {after}");
    }
}

/// `pontoon run` with these options and this command, to its end.
fn run(world: &World, who: Who, options: &[&str], command: &[&str]) -> Done {
    world
        .host()
        .cmd(["pontoon", "run"])
        .args(options)
        .args(["--"])
        .args(command)
        .who(who)
        .run()
}

/// What `network inspect` says of the link of a container's private network.
fn uplink(c: &Container<'_>) -> Value {
    c.pontoon(["network", "inspect", &c.name]).run().json()[0]["Uplink"].clone()
}

/// Ends a container as a service manager does, and wants its command's end to be its own.
fn end(c: Container<'_>) {
    c.run.signal(Signal::TERM);
    let done = c.run.end(Duration::from_secs(10));
    assert_eq!(done.code(), Some(128 + 15), "{done}");
}

/// The whole of README's line: an interface on a LAN with a DHCP server.
#[test]
fn an_interface_on_a_lan_with_dhcp() {
    let world = &crate::world();
    let _wan = on_the_link(world);
    let (host, near) = (world.host(), world.place("near"));
    let server = dhcp(world.router(), "100.64.7.100", "100.64.7.109");
    let _near = peers(near, &["100.64.7.10:9000"]);
    let _server = server_peers(world);
    let before = Traces::of(world, Who::Root);
    let options = ["--uplink", "packet:p0"];

    // A command that does not wait for anything.
    for to in ["100.64.7.10:9000", "198.51.100.10:9000"] {
        let done = run(world, Who::Root, &options, &["lab-peer", "tcp", to, "who"]);
        assert!(masked(&done.ok()).starts_with("100.64.7.10"), "{done}");
        before.same(world, Who::Root, "a command that was short");
    }
    assert_eq!(
        run(world, Who::Root, &options, &["sh", "-c", "exit 42"]).code(),
        Some(42)
    );
    assert_eq!(
        run(world, Who::Root, &options, &["/no/such/program"]).code(),
        Some(127)
    );
    before.same(world, Who::Root, "commands that fail");

    let c = start(
        world,
        Who::Root,
        "c",
        &["--uplink", "packet:p0", "-p", "8080:9000", "-p", "8080:9000/udp"],
    );
    let _inside = container_peers(&c);
    let own = uplink(&c);
    let address = own["Addresses"][0]
        .as_str()
        .and_then(|a| a.split('/').next())
        .expect("an address")
        .to_owned();
    let mac = own["MacAddress"].as_str().expect("a MAC address").to_owned();
    let of_host = host.cmd(["ip", "-d", "-j", "link", "show", "p0"]).run().json()[0].clone();
    assert_ne!(own["MacAddress"], of_host["address"]);
    assert_eq!(of_host["promiscuity"], 1, "{of_host}");
    assert!(
        server.stderr().contains(&format!("DHCPACK(w7) {address} {mac}")),
        "{}",
        server.stderr()
    );
    // Out: the neighbour and the world see the uplink's own address.
    for to in ["100.64.7.10", "198.51.100.10"] {
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", to]);
        let at = format!("{to}:9000");
        assert_eq!(
            masked(&c.run(["lab-peer", "tcp", &at, "who"])).trim(),
            format!("{address} PORT")
        );
        c.run(["lab-peer", "tcp", &at, "echo", "3000000"]);
        c.run(["lab-peer", "udp-echo", &at, "4000"]);
    }
    let known = near.run(["ip", "neigh", "show", &address]);
    assert!(known.contains(&mac), "{known}");
    // In: the container sees who asks.
    let at = format!("{address}:8080");
    for (from, seen) in [(near, "100.64.7.10 PORT"), (world.server(), "198.51.100.10 PORT")] {
        assert_eq!(masked(&from.run(["lab-peer", "tcp", &at, "who"])).trim(), seen);
        assert_eq!(masked(&from.run(["lab-peer", "udp-ask", &at])).trim(), seen);
        from.run(["lab-peer", "tcp", &at, "echo", "1000000"]);
    }
    let ports = c.pontoon(["port", "c"]).run().ok();
    assert!(ports.contains(&at), "{ports}");
    assert_eq!(host.run(["ss", "-ltnuH"]), "", "no socket of the host's");
    drop(_inside);
    end(c);
    before.same(world, Who::Root, "its end");
    let given_back = format!("DHCPRELEASE(w7) {address} {mac}");
    wait_for("the lease to be given back", Duration::from_secs(2), || {
        server.stderr().contains(&given_back).then_some(())
    });

    // Without a word.
    let released = || server.stderr().matches("DHCPRELEASE(w7)").count();
    let until_now = released();
    let mut c = start(world, Who::Root, "c", &options);
    c.run.signal(Signal::KILL);
    c.run.wait(Duration::from_secs(5));
    wait_for("p0 to be left alone", Duration::from_secs(8), || {
        let now = Traces::of(world, Who::Root);
        (now.links == before.links && now.processes == before.processes).then_some(())
    });
    wait_for("its lease to be given back", Duration::from_secs(2), || {
        (released() > until_now).then_some(())
    });
    assert_eq!(released(), until_now + 1);
    run(
        world,
        Who::Root,
        &["--name", "c", "--uplink", "packet:p0"],
        &["true"],
    )
    .ok();
    before.same(world, Who::Root, "one that was killed");
}

/// A pair into a namespace that `ip netns` made, both families at fixed addresses.
#[test]
fn a_pair_into_a_named_namespace() {
    let world = &crate::world();
    let wan = Wan::new(world);
    let _server = server_peers(world);
    let before = Traces::of(world, Who::Root);
    let mut options = vec!["--uplink", "veth:wan0@router", "-p", "8080:9000"];
    options.extend(Wan::ADDRESSED);
    let c = start(world, Who::Root, "c", &options);
    wan.plugged();
    let _inside = container_peers(&c);
    for (to, seen) in crate::server_at(9000)
        .iter()
        .zip(["100.64.7.77 PORT", "[2001:db8:7::77] PORT"])
    {
        assert_eq!(masked(&c.run(["lab-peer", "tcp", to, "who"])).trim(), seen);
        c.run(["lab-peer", "tcp", to, "echo", "3000000"]);
        c.run(["lab-peer", "udp-echo", to, "1400"]);
    }
    for to in ["198.51.100.10", "2001:db8:2::10"] {
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", to]);
    }
    for (at, seen) in [
        ("100.64.7.77:8080", "198.51.100.10 PORT"),
        ("[2001:db8:7::77]:8080", "[2001:db8:2::29] PORT"),
    ] {
        assert_eq!(
            masked(&world.server().run(["lab-peer", "tcp", at, "who"])).trim(),
            seen
        );
        world.server().run(["lab-peer", "tcp", at, "echo", "1000000"]);
    }
    drop(_inside);
    end(c);
    before.same(world, Who::Root, "its end");
}

each_user! {
    /// A pair into the namespace of a process of one's own: no privilege is needed.
    fn a_pair_into_a_process_namespace(world, who) {
        let lan = Bare::start(world, who);
        let before = Traces::of(world, who);
        let link = format!("veth:wan0@{}", lan.pid);
        let c = start(world, who, "c", &[
            "--uplink", &link, "--uplink-address", "100.64.8.77/24", "--uplink-gateway", "100.64.8.254",
            "--uplink-address6", "2001:db8:8::77/64", "--uplink-gateway", "2001:db8:8::fe", "-p", "8080:9000",
        ]);
        // On the link and, by the gateway only, behind it.
        lan.sh(
            "ip link set lo up; ip addr add 203.0.113.9/32 dev lo; ip addr add 2001:db8:9::9/128 dev lo
             ip addr add 100.64.8.254/24 dev wan0; ip addr add 2001:db8:8::fe/64 dev wan0 nodad",
        );
        let mut outside = lan.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        outside.wait_for("listening");
        let inside = container_peers(&c);
        for (to, seen) in [
            ("100.64.8.254:9000", "100.64.8.77 PORT"), ("203.0.113.9:9000", "100.64.8.77 PORT"),
            ("[2001:db8:8::fe]:9000", "[2001:db8:8::77] PORT"), ("[2001:db8:9::9]:9000", "[2001:db8:8::77] PORT"),
        ] {
            assert_eq!(masked(&c.run(["lab-peer", "tcp", to, "who"])).trim(), seen, "{to}");
            c.run(["lab-peer", "tcp", to, "echo", "1000000"]);
        }
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "203.0.113.9"]);
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", "2001:db8:9::9"]);
        for (at, seen) in [("100.64.8.77:8080", "100.64.8.254 PORT"), ("[2001:db8:8::77]:8080", "[2001:db8:8::fe] PORT")] {
            assert_eq!(masked(&lan.run(["lab-peer", "tcp", at, "who"])).trim(), seen);
        }
        drop((inside, outside));
        end(c);
        let there = lan.run(["ip", "-br", "link"]);
        assert!(!there.contains("wan0"), "{there}");
        before.same(world, who, "its end");
        // The next can have the link at once.
        for _ in 0..5 {
            run(world, who, &["--uplink", &link, "--uplink-address", "100.64.8.77/24"], &["true"]).ok();
            let there = lan.run(["ip", "-br", "link"]);
            assert!(!there.contains("wan0"), "{there}");
        }
    }
}

each_user! {
    /// A TAP that was made for the user, and stays; as root one that `run` makes as well, and that goes.
    fn a_tap(world, who) {
        let host = world.host();
        let address = "ip addr add 100.64.8.254/24 dev vm0; ip addr add 2001:db8:8::fe/64 dev vm0 nodad; ip link set vm0 up";
        let options = [
            "--uplink", "tap:vm0", "--uplink-address", "100.64.8.77/24", "--uplink-gateway", "100.64.8.254",
            "--uplink-address6", "2001:db8:8::77/64", "--uplink-gateway", "2001:db8:8::fe", "-p", "8080:9000",
        ];
        let check = |addressed: bool| {
            let before = Traces::of(world, who);
            let c = start(world, who, "c", &options);
            if !addressed {
                host.sh(address);
            }
            let outside = peers(host, &["100.64.8.254:9000"]);
            let inside = container_peers(&c);
            for (to, seen) in [("100.64.8.254", "100.64.8.77 PORT"), ("2001:db8:8::fe", "[2001:db8:8::77] PORT")] {
                let at = std::net::SocketAddr::new(to.parse().expect("an address"), 9000).to_string();
                assert_eq!(masked(&c.run(["lab-peer", "tcp", &at, "who"])).trim(), seen);
                c.run(["lab-peer", "tcp", &at, "echo", "1000000"]);
                c.run(["ping", "-n", "-c2", "-i0.2", "-W9", to]);
            }
            for (at, seen) in [("100.64.8.77:8080", "100.64.8.254 PORT"), ("[2001:db8:8::77]:8080", "[2001:db8:8::fe] PORT")] {
                assert_eq!(masked(&host.run(["lab-peer", "tcp", at, "who"])).trim(), seen);
            }
            drop((inside, outside));
            end(c);
            before.same(world, who, "its end");
        };
        host.sh(&format!("ip tuntap add vm0 mode tap user {}; {address}", who.uid()));
        check(true);
        assert!(host.run(["ip", "addr", "show", "vm0"]).contains("100.64.8.254"), "it was there before, and stays");
        host.run(["ip", "link", "del", "vm0"]);
        if who == Who::Root {
            check(false);
        }
    }
}

/// Who is root in namespaces of their own has all of it there: an interface of that "host".
#[test]
fn root_of_a_user_namespace_has_its_interfaces() {
    let world = &crate::world();
    let wan = Wan::new(world);
    let host = world.host();
    let mut holder = host
        .cmd([
            "unshare",
            "-Urn",
            "--mount",
            "--uts",
            "sh",
            "-c",
            "echo pid $$.; exec sleep 100000",
        ])
        .who(Who::User)
        .spawn();
    holder.wait_for(".");
    let said = holder.stdout();
    let pid = said.trim().trim_start_matches("pid ").trim_end_matches('.');
    let inside = pid.parse().expect("a pid");
    host.sh(&format!(
        "ip link add p0 netns {pid} type veth peer name wan0 netns router"
    ));
    wan.plugged();
    let _lender = dhcp(world.router(), "100.64.7.100", "100.64.7.109");
    let _server = server_peers(world);
    let run = |command: &[&str]| {
        let run = host
            .cmd(["pontoon", "run", "--uplink", "packet:p0", "--"])
            .args(command);
        run.who(Who::User).inside(inside).run()
    };
    let done = run(&["lab-peer", "tcp", "198.51.100.10:9000", "who"]);
    assert!(masked(&done.ok()).starts_with("100.64.7.10"), "{done}");
    assert_eq!(run(&["sh", "-c", "exit 7"]).code(), Some(7));
    let left = host
        .cmd(["ip", "-d", "-j", "link", "show"])
        .who(Who::User)
        .inside(inside)
        .run()
        .json();
    let names: Vec<&Value> = left
        .as_array()
        .expect("links")
        .iter()
        .map(|l| &l["ifname"])
        .collect();
    assert_eq!(names, ["lo", "p0"]);
    assert_eq!(left[1]["promiscuity"], 0, "{left}");
}
