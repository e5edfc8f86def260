//! Networks that the host is on, or its LAN: an interface of the host as a port, a TAP that is there, and one that is made.

use pontoon_fixtures::lab::{
    Bare, Cmd, Container, Daemon, Nginx, Place, Proc, Who, World, require, wait_for,
};

use super::{connects, hear, ping, says};
use crate::start;

/// A LAN beyond the host's interface `p0`: a router with DHCP, a web server, and an address behind it.
struct Lan<'w> {
    place: Place<'w>,
    nginx: Nginx,
    dnsmasq: Proc,
}

impl<'w> Lan<'w> {
    fn new(world: &'w World) -> Self {
        let host = world.host();
        host.sh("ip netns add lan
             ip link add p0 type veth peer name l0 netns lan
             ip link set p0 up
             ip -n lan link set lo up
             ip -n lan link set l0 up
             ip -n lan addr add 10.66.0.1/24 dev l0
             ip -n lan addr add fd66::1/64 dev l0 nodad
             ip -n lan addr add 172.31.9.9/32 dev lo");
        let place = world.place("lan");
        let nginx = place.nginx(80);
        let dnsmasq = place.dnsmasq(&[
            "--interface=l0",
            "--dhcp-range=10.66.0.50,10.66.0.99,255.255.255.0,10m",
            "--dhcp-authoritative",
            "--leasefile-ro",
            "--address=/name.lan/10.66.0.1",
        ]);
        Self {
            place,
            nginx,
            dnsmasq,
        }
    }
}

/// A namespace attached to the network `lan`, and what it is asked to do.
fn attached<'w>(world: &'w World, d: &Daemon<'w>, name: &str, options: &[&str]) -> Bare<'w> {
    let bare = Bare::start(world, Who::Root);
    let pid = bare.pid.to_string();
    d.pontoon(["attach", &pid, "--name", name])
        .args(options)
        .run()
        .ok();
    bare
}

/// An address by the LAN's own DHCP; it is configured as the lease says.
fn lease(bare: &Bare<'_>) -> String {
    let ask = [
        "udhcpc",
        "-i",
        "eth0",
        "-q",
        "-n",
        "-f",
        "-t5",
        "-T2",
        "-s",
        "/tmp/configure",
    ];
    let lease = bare.run(ask);
    let ip = lease.lines().find_map(|l| l.strip_prefix("ip="));
    ip.unwrap_or_else(|| panic!("no address: {lease}")).to_owned()
}

fn curl<'w>(cmd: Cmd<'w>, url: &str) -> String {
    cmd.args(["curl", "-sS", "-m5", url]).run().ok()
}

/// Macvlan's job: containers on the host's LAN, with addresses that its own DHCP server gives them.
#[test]
fn containers_stand_on_the_lan() {
    let world = &crate::world();
    require("udhcpc");
    let lan = Lan::new(world);
    let d = Daemon::start(world, Who::Root);
    d.create("lan", &["--gateway", "none", "--opt", "parent=p0"]);
    world.write(
        "/tmp/configure",
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\nip route add default via $router\nenv\n",
    );
    world.host().run(["chmod", "755", "/tmp/configure"]);
    let one = attached(world, &d, "one", &["--network", "lan"]);
    let two = attached(world, &d, "two", &["--network", "lan", "--veth"]);
    let (ip, ip2) = (lease(&one), lease(&two));
    assert_ne!(ip, ip2);
    assert!(
        lan.dnsmasq.stderr().contains(&format!("DHCPACK(l0) {ip}")),
        "{}",
        lan.dnsmasq.stderr()
    );
    for (bare, neighbour) in [(&one, &ip2), (&two, &ip)] {
        // The LAN's hosts, what is behind its router, and each other.
        for to in ["10.66.0.1", "172.31.9.9", neighbour] {
            bare.run(["ping", "-n", "-c2", "-i0.2", "-W9", to]);
        }
        assert_eq!(curl(bare.cmd([""; 0]), "http://10.66.0.1/"), "hello from lan\n");
        let asks = curl(bare.cmd([""; 0]), "http://172.31.9.9/who");
        let own = if neighbour == &ip2 { &ip } else { &ip2 };
        assert!(
            asks.starts_with(&format!("{own} ")),
            "its own address is seen: {asks}"
        );
        bare.run([
            "sh",
            "-c",
            "curl -sS -m10 http://10.66.0.1/big | cmp - /tmp/nginx-lan-80/www/big",
        ]);
        assert_eq!(
            bare.run(["dig", "+short", "@10.66.0.1", "name.lan"]),
            "10.66.0.1\n"
        );
    }
    // And the other way.
    let _server = one
        .cmd(["socat", "TCP4-LISTEN:80,fork,reuseaddr", "SYSTEM:echo container"])
        .spawn();
    wait_for("the server", std::time::Duration::from_secs(5), || {
        one.run(["ss", "-ltnH"]).contains(":80").then_some(())
    });
    lan.place.run(["ping", "-n", "-c2", "-i0.2", "-W9", &ip2]);
    for place in [lan.place.cmd([""; 0]), two.cmd([""; 0])] {
        let said = place
            .args([
                "socat",
                "-t2",
                "-T3",
                "-",
                &format!("TCP4:{ip}:80,connect-timeout=2"),
            ])
            .run();
        assert_eq!(said.text(), "container\n", "{said}");
    }
    // It is no place for another DHCP server, as no network is.
    let rogue = one.cmd([
        "dnsmasq",
        "--no-daemon",
        "--port=0",
        "--conf-file=/dev/null",
        "--interface=eth0",
        "--bind-interfaces",
        "--dhcp-range=10.66.0.200,10.66.0.210,255.255.255.0",
        "--dhcp-authoritative",
        "--leasefile-ro",
        "--no-ping",
    ]);
    let mut rogue = rogue.spawn();
    rogue.wait_for("DHCP, IP range");
    let again = two
        .cmd([
            "udhcpc",
            "-i",
            "eth0",
            "-q",
            "-n",
            "-f",
            "-t5",
            "-T2",
            "-s",
            "/bin/true",
        ])
        .run();
    assert!(
        again.text().contains(&ip2) || again.errors().contains(&ip2),
        "{again}"
    );
    assert!(super::dropped(&d, "lan", "one", "rogue-dhcp") > 0);
    // Nothing can be published where there is no gateway, and the host keeps its interface.
    let done = d.pontoon(["publish", "one", "8080:80"]).run();
    assert!(done.fails().contains("no network that has a gateway"), "{done}");
    drop((one, two));
    wait_for("them to go", std::time::Duration::from_secs(5), || {
        (d.json(["ps", "--json"]) == serde_json::json!([])).then_some(())
    });
    d.run(["network", "rm", "lan"]);
    assert!(world.host().run(["ip", "link", "show", "p0"]).contains("UP"));
    drop(lan.nginx);
}

/// The same with addresses of the daemon's, beside those that the LAN's DHCP gives, and the LAN's own router.
#[test]
fn addresses_on_the_lan_may_be_given() {
    let world = &crate::world();
    let lan = Lan::new(world);
    let d = Daemon::start(world, Who::Root);
    d.create(
        "lan",
        &[
            "--gateway",
            "none",
            "--subnet",
            "10.66.0.0/24",
            "--ip-range",
            "10.66.0.128/25",
            "--subnet",
            "fd66::/64",
            "--opt",
            "router=10.66.0.1,fd66::1",
            "--opt",
            "parent=p0",
        ],
    );
    let a = start(world, Who::Root, "a", &["--network", "lan"]);
    let b = start(
        world,
        Who::Root,
        "b",
        &["--network", "lan:ip=10.66.0.200,ip6=fd66::200"],
    );
    assert!(a.ip >= std::net::IpAddr::from([10, 66, 0, 128]), "{}", a.ip);
    assert_eq!(
        (a.gateway().to_string(), a.gateway6().to_string()),
        ("10.66.0.1".into(), "fd66::1".into())
    );
    for to in ["10.66.0.1", "fd66::1", "172.31.9.9", "10.66.0.200", "fd66::200"] {
        ping(&a, to).ok();
    }
    assert_eq!(seen_as(&b, "172.31.9.9"), b.ip.to_string());
    let _server = says(&b, 81, "container");
    for to in ["TCP4:10.66.0.200:81", "TCP6:[fd66::200]:81"] {
        let said = lan.place.cmd(["socat", "-t2", "-T3", "-", to]).run();
        assert_eq!(said.text(), "container\n", "{said}");
    }
    // Port security knows the addresses here.
    a.run(["ip", "addr", "add", "10.66.0.222/32", "dev", "eth0"]);
    let done = a
        .cmd(["ping", "-n", "-c1", "-W1", "-I", "10.66.0.222", "10.66.0.1"])
        .run();
    assert!(!done.success(), "{done}");
    assert!(super::dropped(&d, "lan", "a", "bad-source-address") > 0);
    // The host itself is not asked for on its interface: what it is not on, it does not reach.
    let done = world
        .host()
        .cmd(["ping", "-n", "-c1", "-W1", "10.66.0.200"])
        .run();
    assert!(!done.success(), "{done}");
    let done = d
        .pontoon(["run", "--network", "lan", "-p", "8080:80", "--", "true"])
        .run();
    assert!(done.fails().contains("has no gateway"), "{done}");
}

/// As whom nginx at `to` sees a container.
fn seen_as(c: &Container<'_>, to: &str) -> String {
    let who = c.run(["curl", "-sS", "-m5", &format!("http://{to}/who")]);
    who.split(' ').next().unwrap_or_default().to_owned()
}

/// `host-tap`: the host reaches containers by their addresses, and they the host, as through docker0.
#[test]
fn the_host_itself_can_be_on_a_network() {
    let world = &crate::world();
    let host = world.host();
    let d = Daemon::start(world, Who::Root);
    d.create(
        "near",
        &[
            "--subnet",
            "10.67.0.0/24",
            "--subnet",
            "fd67::/64",
            "--opt",
            "host-tap=near0",
        ],
    );
    let c = start(world, Who::Root, "c", &["--network", "near"]);
    let shown = host.cmd(["ip", "-j", "addr", "show", "near0"]).run().json();
    let of = |family: &str| -> String {
        let all = shown[0]["addr_info"].as_array().expect("addresses");
        let found = all
            .iter()
            .find(|a| a["family"] == family && a["scope"] == "global");
        found
            .and_then(|a| a["local"].as_str())
            .unwrap_or_else(|| panic!("{shown}"))
            .to_owned()
    };
    let (own, own6) = (of("inet"), of("inet6"));
    for to in super::addresses(&c) {
        host.run(["ping", "-n", "-c2", "-i0.2", "-W9", &to]);
    }
    for to in [&own, &own6] {
        ping(&c, to).ok();
    }
    let _server = says(&c, 80, "container");
    let said = host
        .cmd(["socat", "-t2", "-T3", "-", &format!("TCP4:{}:80", c.ip)])
        .run();
    assert_eq!(said.text(), "container\n", "{said}");
    let _nginx = host.nginx(8000);
    assert_eq!(
        c.run(["curl", "-sS", "-m5", &format!("http://{own}:8000/")]),
        "hello from host\n"
    );
    assert!(
        c.run(["curl", "-sS", "-m5", &format!("http://[{own6}]:8000/who")])
            .starts_with(&c.ip6.expect("IPv6").to_string())
    );
    c.run([
        "sh",
        "-c",
        &format!("curl -sS -m10 http://{own}:8000/big | cmp - /tmp/nginx-host-8000/www/big"),
    ]);
    // The host's default route is the one it had, and the network leads out as ever.
    assert!(
        host.run(["ip", "route", "show", "default"])
            .contains("192.0.2.254")
    );
    c.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
    // Nobody is given the host's address.
    let done = d
        .pontoon(["run", "--network", &format!("near:ip={own}"), "--", "true"])
        .run();
    assert!(done.fails().contains(&own), "{done}");
    drop(c);
    wait_for("it to go", std::time::Duration::from_secs(5), || {
        d.container("c").is_null().then_some(())
    });
    d.run(["network", "rm", "near"]);
    let gone = host.cmd(["ip", "link", "show", "near0"]).run();
    assert!(!gone.success(), "{gone}");
}

each_user! {
    /// `tap=NAME`: one that somebody made for this user, as a virtual machine's, with the host's kernel behind it.
    fn a_tap_that_is_there_can_be_a_port(world, who) {
        let host = world.host();
        host.sh(&format!(
            "ip tuntap add vm0 mode tap user {}; ip addr add 10.68.0.99/24 dev vm0; ip link set vm0 up",
            who.uid()
        ));
        let d = Daemon::start(world, who);
        d.create("with", &["--subnet", "10.68.0.0/24", "--reserve", "10.68.0.99", "--opt", "tap=vm0"]);
        let c = start(world, who, "c", &["--network", "with"]);
        ping(&c, "10.68.0.99").ok();
        host.run(["ping", "-n", "-c2", "-i0.2", "-W9", &c.ip.to_string()]);
        host.run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.68.0.1"]);
        let _nginx = host.nginx(8000);
        assert_eq!(c.run(["curl", "-sS", "-m5", "http://10.68.0.99:8000/"]), "hello from host\n");
        let _server = says(&c, 80, "container");
        let said = host.cmd(["socat", "-t2", "-T3", "-", &format!("TCP4:{}:80", c.ip)]).run();
        assert_eq!(said.text(), "container\n", "{said}");
        // Two of them are neighbours as before, and it stays when the network goes.
        let other = start(world, who, "other", &["--network", "with"]);
        assert!(connects(&other, &c.ip.to_string(), 80));
        assert_eq!(hear(&other, &c.ip.to_string(), 80), "container\n");
        drop((c, other));
        wait_for("them to go", std::time::Duration::from_secs(5), || {
            (d.json(["ps", "--json"]) == serde_json::json!([])).then_some(())
        });
        d.run(["network", "rm", "with"]);
        assert!(host.run(["ip", "addr", "show", "vm0"]).contains("10.68.0.99/24"));
    }
}
