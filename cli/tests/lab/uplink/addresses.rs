//! The gateway's address on its link: by DHCP and by router advertisements, both from dnsmasq or another server of the world's
//! router, and what happens when it changes; and links on which containers' addresses stay what they are.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, Place, Proc, Wan, Who, World, require, wait_for};
use serde_json::Value;

use super::site::{Site, Way, attach};
use super::{masked, pinged};

/// A network whose link to the world is given addresses by others, and a container on it.
struct Client<'w> {
    daemon: Daemon<'w>,
    a: Bare<'w>,
    _wan: Wan<'w>,
}

impl<'w> Client<'w> {
    fn new(world: &'w World, wan: Wan<'w>, options: &[&str]) -> Self {
        let daemon = Daemon::start(world, Who::Root);
        let mut all = vec![
            "--subnet",
            "10.44.0.0/24",
            "--subnet",
            "fd44::/64",
            "--uplink",
            "veth:wan0@router",
        ];
        all.extend(options);
        daemon.create("net", &all);
        wan.plugged();
        let a = Bare::start(world, Who::Root);
        attach(&daemon, "net", "a", &a, 2);
        Self { daemon, a, _wan: wan }
    }

    /// What `network inspect` says of the link.
    fn uplink(&self) -> Value {
        self.daemon.json(["network", "inspect", "net"])[0]["Uplink"].clone()
    }

    /// Waits until the gateway has an address that begins so.
    fn address(&self, start: &str) -> String {
        wait_for(&format!("an address {start}…"), Duration::from_secs(25), || {
            let uplink = self.uplink();
            let all = uplink["Addresses"].as_array()?;
            let address = all
                .iter()
                .find_map(|a| a.as_str().filter(|a| a.starts_with(start)));
            address.and_then(|a| a.split('/').next()).map(str::to_owned)
        })
    }

    /// Waits until it has none that begins so.
    fn address_gone(&self, start: &str) {
        wait_for(&format!("the end of {start}…"), Duration::from_secs(25), || {
            let uplink = self.uplink();
            let all = uplink["Addresses"].as_array()?.clone();
            all.iter()
                .all(|a| !a.as_str().is_some_and(|a| a.starts_with(start)))
                .then_some(())
        });
    }

    /// As whom the server sees the container.
    fn seen_as(&self, server: &str) -> String {
        let who = self.a.run(["lab-peer", "tcp", server, "who"]);
        masked(&who).trim().to_owned()
    }

    fn ping(&self, to: &str) -> String {
        pinged(&self.a.cmd(["ping", "-n", "-c2", "-i0.2", "-W9", to]).run())
    }
}

/// dnsmasq on the link, with leases of these addresses that are to be renewed after four seconds.
pub(super) fn dhcp(router: Place<'_>, first: &str, last: &str) -> Proc {
    router.dnsmasq(&[
        "--interface=w7",
        &format!("--dhcp-range={first},{last},255.255.255.0,120"),
        "--dhcp-option=option:router,100.64.7.254",
        "--dhcp-option=option:T1,4",
        "--dhcp-option=option:T2,8",
        "--dhcp-authoritative",
        "--leasefile-ro",
        "--no-ping",
    ])
}

/// What announces addresses on the link.
fn arp(world: &World) -> Proc {
    require("tcpdump");
    let mut dump = world
        .router()
        .cmd(["tcpdump", "-n", "-l", "-i", "w7", "arp"])
        .spawn();
    dump.wait_for("listening on");
    dump
}

/// A connection of the container's to the server that stays, by which "one" has been said and come back.
pub(super) fn hold(a: &Bare<'_>) -> Proc {
    let mut client = a
        .cmd(["socat", "-t1", "-", "TCP4:198.51.100.10:9200"])
        .held()
        .spawn();
    client.say("one");
    client.wait_for("one");
    client
}

#[test]
fn a_lease_is_taken_renewed_and_followed_to_another_address() {
    let world = &crate::world();
    let wan = Wan::new(world);
    let server = dhcp(world.router(), "100.64.7.100", "100.64.7.109");
    let [_tcp, _udp] = crate::server_peers(world);
    let _echo = world
        .server()
        .socat("TCP4-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
    let ear = arp(world);
    let client = Client::new(world, wan, &["--uplink-address", "dhcp"]);
    let first = client.address("100.64.7.10");
    let uplink = client.uplink();
    assert_eq!(
        uplink["Gateways"],
        serde_json::json!(["100.64.7.254"]),
        "{uplink}"
    );
    assert_eq!(
        uplink["Resolvers"],
        serde_json::json!(["100.64.7.254"]),
        "{uplink}"
    );
    assert_eq!(client.seen_as("198.51.100.10:9000"), format!("{first} PORT"));
    let announced = |address: &str| format!("who-has {address} tell {address}");
    wait_for("the announcement", Duration::from_secs(5), || {
        let heard = ear
            .stdout()
            .replace(&format!("({})", "ff:ff:ff:ff:ff:ff"), "")
            .replace("  ", " ");
        heard.contains(&announced(&first)).then_some(())
    });

    // Renewed, and nothing changes for those who are connected.
    let mut held = hold(&client.a);
    let renewals = || server.stderr().matches("DHCPACK").count();
    let before = renewals();
    wait_for("a renewal", Duration::from_secs(12), || {
        (renewals() > before).then_some(())
    });
    held.say("two");
    held.wait_for("two");
    assert_eq!(client.address("100.64.7."), first);

    // Another server knows nothing of it and lends another.
    drop(server);
    let server = dhcp(world.router(), "100.64.7.150", "100.64.7.159");
    let second = client.address("100.64.7.15");
    assert_eq!(client.seen_as("198.51.100.10:9000"), format!("{second} PORT"));
    wait_for("the announcement", Duration::from_secs(5), || {
        let heard = ear
            .stdout()
            .replace(&format!("({})", "ff:ff:ff:ff:ff:ff"), "")
            .replace("  ", " ");
        heard.contains(&announced(&second)).then_some(())
    });
    // What went by the old address is over.
    let flows = client.daemon.run(["conntrack", "ls", "--network", "net"]);
    assert!(!flows.contains(&format!("dst={first} ")), "{flows}");
    let done = world.server().cmd(["ping", "-n", "-c1", "-W1", &first]).run();
    assert!(!done.success(), "the old address is nobody's: {done}");
    // New ones are not.
    let _again = hold(&client.a);
    assert_eq!(client.ping("198.51.100.10"), "2 received");

    // The network goes for good, and the address is free for others.
    client.daemon.run(["detach", "a"]);
    client.daemon.run(["network", "rm", "net"]);
    wait_for("the lease to be given back", Duration::from_secs(2), || {
        let released = format!("DHCPRELEASE(w7) {second} ");
        server.stderr().contains(&released).then_some(())
    });
}

#[test]
fn a_lease_that_is_lost_is_told_and_taken_again() {
    require("busybox");
    let world = &crate::world();
    let wan = Wan::new(world);
    world.write(
        "/tmp/udhcpd.conf",
        "start 100.64.7.100\nend 100.64.7.109\ninterface w7\nlease_file /tmp/udhcpd.leases\nmin_lease 5\noffer_time 5\n\
         option subnet 255.255.255.0\noption router 100.64.7.254\noption lease 8\n",
    );
    world.write("/tmp/udhcpd.leases", "");
    let serve = || {
        let server = world
            .router()
            .cmd(["busybox", "udhcpd", "-f", "/tmp/udhcpd.conf"])
            .spawn();
        world.router().wait_udp(67);
        server
    };
    let server = serve();
    let client = Client::new(world, wan, &["--uplink-address", "dhcp"]);
    client.address("100.64.7.10");
    assert_eq!(client.ping("198.51.100.10"), "2 received");
    drop(server);
    client.address_gone("100.64.7.10");
    let gateway = "10.44.0.1";
    assert_eq!(
        client.ping("198.51.100.10"),
        format!("From {gateway} Destination Net Unreachable\n0 received")
    );
    // What is on the network itself goes on, and the world as soon as there is an address again.
    assert_eq!(client.ping(gateway), "2 received");
    let _server = serve();
    client.address("100.64.7.10");
    assert_eq!(client.ping("198.51.100.10"), "2 received");
}

/// An address that somebody else has is not taken.
#[test]
fn an_address_that_is_taken_is_declined() {
    let world = &crate::world();
    let wan = Wan::new(world);
    world
        .host()
        .run(["ip", "-n", "near", "addr", "add", "100.64.7.100/24", "dev", "e0"]);
    let server = dhcp(world.router(), "100.64.7.100", "100.64.7.101");
    // As if it had lent that one before, so that it is offered first.
    let client = Client::new(world, wan, &["--uplink-address", "dhcp"]);
    let got = client.address("100.64.7.10");
    assert_eq!(got, "100.64.7.101", "{}", server.stderr());
    assert_eq!(client.ping("198.51.100.10"), "2 received");
}

#[test]
fn router_advertisements_give_an_address_and_a_router() {
    let world = &crate::world();
    let wan = Wan::new(world);
    let _server = world.router().dnsmasq(&[
        "--interface=w7",
        "--enable-ra",
        "--dhcp-range=2001:db8:7::,ra-only,64",
        "--ra-param=w7,high,4",
    ]);
    let [_tcp, _udp] = crate::server_peers(world);
    let client = Client::new(world, wan, &["--uplink-address6", "slaac"]);
    let address = client.address("2001:db8:7:");
    let uplink = client.uplink();
    let gateways = uplink["Gateways"].as_array().expect("gateways");
    assert!(
        gateways
            .iter()
            .any(|g| g.as_str().is_some_and(|g| g.starts_with("fe80:"))),
        "{uplink}"
    );
    assert_eq!(
        client.seen_as("[2001:db8:2::10]:9000"),
        format!("[{address}] PORT")
    );
    assert_eq!(client.ping("2001:db8:2::10"), "2 received");
    assert_eq!(client.ping("2001:db8:7::10"), "2 received");
    // There is no IPv4 on that link.
    assert_eq!(
        client.ping("198.51.100.10"),
        "From 10.44.0.1 Destination Net Unreachable\n0 received"
    );
}

/// `uplink-nat=route`: the world knows the way to the containers, and sees their own addresses.
#[test]
fn addresses_may_stay_as_they_are() {
    let world = &crate::world();
    let site = Site::with(
        world,
        Way::Pontoon,
        1500,
        &["--opt", "uplink-nat=route", "--opt", "uplink-nat6=route"],
    );
    world
        .router()
        .sh("ip route add 10.44.0.0/24 via 100.64.7.77; ip -6 route add fd44::/64 via 2001:db8:7::77");
    let [_tcp, _udp] = crate::server_peers(world);
    let mut inside = site.a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    inside.wait_for("listening");
    let server = world.server();
    let ask = |from: pontoon_fixtures::lab::Cmd<'_>, to: &str| {
        super::came(&from.args(["timeout", "2", "lab-peer", "tcp", to, "who"]).run())
    };
    assert_eq!(
        masked(&ask(site.a.cmd([""; 0]), "198.51.100.10:9000")),
        "10.44.0.2 PORT"
    );
    assert_eq!(
        masked(&ask(site.b.cmd([""; 0]), "[2001:db8:2::10]:9000")),
        "[fd44::3] PORT"
    );
    // Large packets and errors as ever.
    for to in ["198.51.100.10", "2001:db8:2::10"] {
        site.a.run(["ping", "-n", "-c2", "-i0.2", "-W9", "-s4000", to]);
    }
    let hops = site
        .a
        .run(["traceroute", "-n", "-q1", "-w9", "-m5", "198.51.100.10"]);
    assert!(
        hops.contains("10.44.0.1") && hops.contains("100.64.7.254") && hops.contains("198.51.100.10"),
        "{hops}"
    );
    // From the world echo, and what is published: by the container's own address and port, and by the gateway's.
    server.run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.44.0.2"]);
    server.run(["ping", "-n", "-c2", "-i0.2", "-W9", "fd44::2"]);
    assert_ne!(
        masked(&ask(server.cmd([""; 0]), "10.44.0.2:9000")),
        "198.51.100.10 PORT"
    );
    site.publish("a", "8080:9000");
    for to in ["10.44.0.2:9000", "100.64.7.77:8080"] {
        assert_eq!(
            masked(&ask(server.cmd([""; 0]), to)),
            "198.51.100.10 PORT",
            "{to}"
        );
    }
    for to in ["[fd44::2]:9000", "[2001:db8:7::77]:8080"] {
        assert_eq!(
            masked(&ask(server.cmd([""; 0]), to)),
            "[2001:db8:2::29] PORT",
            "{to}"
        );
    }
    site.deny("a", 9000, "198.51.100.10");
    assert_ne!(
        masked(&ask(server.cmd([""; 0]), "10.44.0.2:9000")),
        "198.51.100.10 PORT"
    );
}
