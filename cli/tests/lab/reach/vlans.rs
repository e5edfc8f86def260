//! VLANs: containers with access to one each, a LAN whose frames have tags, and those who must have none.
//!
//! No kernel device for VLANs is needed: beyond the host's interface is another daemon's network with a trunk of its own, and
//! raw frames besides. `tcpdump` between the two sees the tags.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Cmd, Container, Daemon, Place, Proc, Who, World, wait_for};
use pontoon_fixtures::packet::Between;
use pontoon_switch::MacAddr;

use super::{closed, dropped, hex, mac, ping, says, send_raw, silent, wait_dropped};
use crate::start;

/// The far daemon's socket.
const SOCKET: &str = "/tmp/far.sock";

/// What is beyond the host's interface `p0`: a daemon in a network namespace of its own, and its interface `l0`.
struct Far<'w> {
    place: Place<'w>,
    _daemon: Proc,
}

impl<'w> Far<'w> {
    fn new(world: &'w World) -> Self {
        world.host().sh("ip netns add lan
             ip link add p0 type veth peer name l0 netns lan
             ip link set p0 up
             ip -n lan link set lo up
             ip -n lan link set l0 up");
        let place = world.place("lan");
        let daemon = place
            .cmd([
                "pontoon",
                "daemon",
                "--socket",
                SOCKET,
                "--state",
                "/tmp/far.json",
            ])
            .spawn();
        let far = Self {
            place,
            _daemon: daemon,
        };
        wait_for("the far daemon", Duration::from_secs(10), || {
            far.pontoon(&["rule", "ls"]).run().success().then_some(())
        });
        far
    }

    fn pontoon(&self, arguments: &[&str]) -> Cmd<'w> {
        self.place
            .cmd(["pontoon"])
            .args(arguments)
            .env("PONTOON_SOCKET", SOCKET)
    }

    /// A namespace on the far network's VLAN, with this address.
    fn peer(&self, name: &str, vlan: &str, ip: &str) -> Bare<'w> {
        let bare = Bare::start(self.place.world(), Who::Root);
        let (pid, endpoint) = (bare.pid.to_string(), format!("far:vlan={vlan},ip={ip}"));
        self.pontoon(&["attach", &pid, "--name", name, "--network", &endpoint])
            .run()
            .ok();
        bare
    }

    /// What passes the interface, with tags.
    fn ear(&self, filter: &str) -> Proc {
        let mut ear = self
            .place
            .cmd([
                "tcpdump",
                "-n",
                "-e",
                "-l",
                "--immediate-mode",
                "-i",
                "l0",
                filter,
            ])
            .spawn();
        ear.wait_for("listening on");
        ear
    }

    /// Sends a raw frame from the far side.
    fn send(&self, frame: &[u8]) {
        self.place
            .run(["lab-hostile", "frames", "l0", "1", "1000", &hex(frame)]);
    }
}

/// The host's side: three containers with the trunk 10, 20.
fn near<'w>(world: &'w World, d: &Daemon<'w>) -> [Container<'w>; 3] {
    d.create(
        "near",
        &[
            "--gateway",
            "none",
            "--subnet",
            "10.66.0.0/16",
            "--opt",
            "parent=p0",
            "--opt",
            "trunk=10,20",
        ],
    );
    [
        ("ten", "vlan=10,ip=10.66.0.10"),
        ("twenty", "vlan=20,ip=10.66.0.20"),
        ("plain", "ip=10.66.0.30"),
    ]
    .map(|(name, endpoint)| {
        start(
            world,
            Who::Root,
            name,
            &["--network", &format!("near:{endpoint}")],
        )
    })
}

/// With this tag, before the one that is there.
fn tagged(frame: &[u8], vlan: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(12..12, [0x81, 0, 0, vlan]);
    frame
}

#[test]
fn each_vlan_is_a_network_of_its_own() {
    let world = &crate::world();
    let far = Far::new(world);
    far.pontoon(&[
        "network",
        "create",
        "far",
        "--gateway",
        "none",
        "--subnet",
        "10.66.0.0/16",
        "--opt",
        "parent=l0",
        "--opt",
        "trunk=10,20,30",
    ])
    .run()
    .ok();
    let d = Daemon::start(world, Who::Root);
    let [ten, twenty, untagged] = near(world, &d);
    let beyond_10 = far.peer("p10", "10", "10.66.0.11");
    let beyond_20 = far.peer("p20", "20", "10.66.0.21");
    let beyond_30 = far.peer("p30", "30", "10.66.0.31");
    let ear = far.ear("vlan");
    let without = far.ear("not vlan and (arp or ip)");

    ping(&ten, "10.66.0.11").ok();
    ping(&twenty, "10.66.0.21").ok();
    beyond_10.run(["ping", "-n", "-c2", "-i0.2", "-W9", "10.66.0.10"]);
    let seen = ear.stdout();
    for line in ["vlan 10, p 0, ethertype IPv4", "vlan 20, p 0, ethertype IPv4"] {
        assert!(seen.contains(line), "no `{line}` in {seen}");
    }
    // Tags neither spoil checksums nor segmentation, in either direction.
    let [_tcp, _udp] = crate::container_peers(&ten);
    beyond_10.run(["lab-peer", "tcp", "10.66.0.10:9000", "echo", "5000000"]);
    beyond_10.run(["lab-peer", "udp-echo", "10.66.0.10:9000", "20000"]);
    let _server = says(&twenty, 80, "twenty");
    assert_eq!(
        beyond_20.run(["socat", "-t2", "-T3", "-", "TCP4:10.66.0.20:80"]),
        "twenty\n"
    );

    // Of the other VLANs, of none, and of one that the trunk does not carry, nobody is there.
    for (c, others) in [
        (&ten, ["10.66.0.20", "10.66.0.21", "10.66.0.30", "10.66.0.31"]),
        (&twenty, ["10.66.0.10", "10.66.0.11", "10.66.0.30", "10.66.0.31"]),
        (
            &untagged,
            ["10.66.0.10", "10.66.0.11", "10.66.0.21", "10.66.0.31"],
        ),
    ] {
        for to in others {
            assert!(silent(c, to), "{} reaches {to}", c.name);
        }
    }
    let done = beyond_30.cmd(["ping", "-n", "-c1", "-W1", "10.66.0.10"]).run();
    assert!(!done.success(), "{done}");
    assert!(dropped(&d, "near", "p0", "vlan") > 0, "VLAN 30 ends at the trunk");
    assert!(closed(&twenty, "10.66.0.11", 9000));
    assert_eq!(without.stdout(), "", "a trunk has no untagged frames");
    let fdb = d.json(["fdb", "show", "--json"]);
    for (mac, vlan) in [(mac(&ten), 10), (mac(&twenty), 20)] {
        let rows = fdb.as_array().expect("rows");
        let found = rows
            .iter()
            .any(|r| r["mac"] == mac.to_string() && r["vlan"] == vlan);
        assert!(found, "{mac} in VLAN {vlan}: {fdb}");
    }
}

/// Who has no tags cannot make any: neither as another VLAN's member, nor with two tags, of which a trunk takes one away.
#[test]
fn containers_cannot_choose_their_vlan() {
    let world = &crate::world();
    let far = Far::new(world);
    let d = Daemon::start(world, Who::Root);
    let [ten, _twenty, untagged] = near(world, &d);
    // Everything but what is honest: VLAN 10 of ten's own.
    let ear = far.ear("udp port 7");
    for (c, tags) in [
        (&untagged, &[&[10][..], &[20], &[10, 20], &[1]][..]),
        (&ten, &[&[20][..], &[10, 20], &[20, 10], &[30]]),
    ] {
        let plain = Between::new(c.ip, IpAddr::from([10, 66, 255, 255]))
            .macs(mac(c), MacAddr::BROADCAST)
            .udp(7, 7, b"hop");
        for tags in tags {
            let before = dropped(&d, "near", &c.name, "vlan");
            let frame = tags
                .iter()
                .rev()
                .fold(plain.clone(), |frame, &vlan| tagged(&frame, vlan));
            send_raw(c, &[frame]);
            wait_dropped(&d, "near", &c.name, "vlan", before, 1);
        }
    }
    assert_eq!(ear.stdout(), "");
    // With its own tag, or none, it is what it is.
    let plain = Between::new(ten.ip, IpAddr::from([10, 66, 255, 255]))
        .macs(mac(&ten), MacAddr::BROADCAST)
        .udp(7, 7, b"honest");
    send_raw(&ten, &[plain.clone(), tagged(&plain, 10)]);
    wait_for("both", Duration::from_secs(5), || {
        (ear.stdout().matches("vlan 10, p 0").count() == 2).then_some(())
    });

    // A peer of raw frames: it asks in VLAN 10 and is answered there, and nowhere else.
    let asking = Between::new(Ipv4Addr::new(10, 66, 0, 77).into(), ten.ip)
        .macs(MacAddr([2, 0, 0, 0, 0, 0x77]), MacAddr::BROADCAST)
        .arp_request();
    let answers = far.ear("vlan and arp and ether dst 02:00:00:00:00:77");
    for vlan in [20, 30, 10] {
        far.send(&tagged(&asking, vlan));
    }
    far.send(&asking);
    wait_for("an answer", Duration::from_secs(5), || {
        answers
            .stdout()
            .contains(&format!("is-at {}", mac(&ten)))
            .then_some(())
    });
    wait_dropped(&d, "near", "p0", "vlan", 0, 2);
    let seen = answers.stdout();
    assert_eq!(seen.matches("is-at").count(), 1, "{seen}");
    assert!(seen.contains("vlan 10,"), "{seen}");
}

each_user! {
    /// The gateway is in the VLAN that it is told to be in, for those with access to that and for nobody else.
    fn the_gateway_can_be_in_a_vlan(world, who) {
        let d = Daemon::start(world, who);
        d.create("net", &["--subnet", "10.70.0.0/24", "--subnet", "fd70::/64", "--opt", "vlan=10"]);
        let [ten, other, twenty, plain] = [("ten", ":vlan=10"), ("other", ":vlan=10"), ("twenty", ":vlan=20"), ("plain", "")]
            .map(|(name, vlan)| start(world, who, name, &["--network", &format!("net{vlan}"), "-p", "80"]));
        let (gateway, gateway6) = (ten.gateway().to_string(), ten.gateway6().to_string());
        for to in [&*gateway, &gateway6, "198.51.100.10", "2001:db8:2::10", &other.ip.to_string()] {
            ping(&ten, to).ok();
        }
        assert_eq!(ten.run(["dig", "+short", "other"]).trim(), other.ip.to_string());
        for c in [&twenty, &plain] {
            for to in [&*gateway, &gateway6, "198.51.100.10", &ten.ip.to_string()] {
                assert!(silent(c, to), "{} reaches {to}", c.name);
            }
        }
        // A published port leads to the one and not to the others.
        for (c, served) in [(&ten, true), (&twenty, false)] {
            let _server = says(c, 80, "served");
            let port = c.pontoon(["port", &c.name, "80"]).run().ok();
            let port = port.lines().find_map(|l| l.strip_prefix("0.0.0.0:")).expect("a port").to_owned();
            let to = format!("TCP4:192.0.2.1:{port},connect-timeout=2");
            let said = world.server().cmd(["socat", "-t2", "-T3", "-", &to]).run();
            assert_eq!(said.text() == "served\n", served, "{}: {said}", c.name);
        }
    }
}
