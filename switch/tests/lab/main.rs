//! The switch with real devices: TAPs and veths in namespaces of the test's own, driven by ping and iperf3. What it needs says
//! [`harness`].

use std::time::Duration;

use pontoon_switch::port::veth::VethPort;
use pontoon_switch::sys::packet;
use pontoon_switch::{Feature, Features, Policy, PortConfig, VlanId, VlanMode, Worker};

use harness::{Lab, Mute, Namespace, Wire, check_tools, interface_index, ip, largest_mean};

mod harness;

#[test]
fn a_veth_that_goes_down_comes_back() {
    let lab = Lab::new([Wire::Veth, Wire::Tap], 1500, Features::ALL);
    lab.ping("10.9.0.2", 56);
    lab.far[0].run(&["ip", "link", "set", "port0", "down"]);
    std::thread::sleep(Duration::from_millis(100));
    lab.far[0].run(&["ip", "link", "set", "port0", "up"]);
    lab.ping("10.9.0.2", 56);
    assert_eq!(lab.ports().len(), 2);
}

#[test]
fn tap_to_tap() {
    let lab = Lab::new([Wire::Tap, Wire::Tap], 1500, Features::ALL);
    lab.exercise("TAP-TAP 1500");
    assert!(
        largest_mean(&lab.ports()) > 3000,
        "no super-frames crossed the switch"
    );
}

#[test]
fn tap_to_tap_at_the_largest_mtu() {
    Lab::new([Wire::Tap, Wire::Tap], 65_520, Features::ALL).exercise("TAP-TAP 65520");
}

#[test]
fn tap_to_tap_without_uso() {
    let features = Features::ALL.without(Feature::Uso);
    Lab::new([Wire::Tap, Wire::Tap], 1500, features).exercise("TAP-TAP without USO");
}

#[test]
fn tap_to_tap_without_tso() {
    let features = Features::ALL.without(Feature::Tso);
    let lab = Lab::new([Wire::Tap, Wire::Tap], 1500, features);
    lab.exercise("TAP-TAP without TSO");
    assert!(largest_mean(&lab.ports()) <= 1518);
}

#[test]
fn plain_tap_to_plain_tap() {
    let lab = Lab::new([Wire::PlainTap, Wire::PlainTap], 1500, Features::ALL);
    assert!(lab.ports().iter().all(|p| p.kind == "plain"));
    lab.exercise("plain-plain");
}

#[test]
fn tap_to_plain_tap_is_cut_in_software() {
    let lab = Lab::new([Wire::Tap, Wire::PlainTap], 1500, Features::ALL);
    lab.exercise("TAP-plain");
    let ports = lab.ports();
    assert!(
        ports[0].rx.bytes / ports[0].rx.frames.max(1) > 3000,
        "no super-frames came to be cut"
    );
}

#[test]
fn veth_to_veth() {
    let lab = Lab::new([Wire::Veth, Wire::Veth], 1500, Features::ALL);
    lab.exercise("veth-veth");
    assert!(
        largest_mean(&lab.ports()) > 3000,
        "no super-frames crossed the switch"
    );
}

#[test]
fn tap_to_veth() {
    Lab::new([Wire::Tap, Wire::Veth], 1500, Features::ALL).exercise("TAP-veth");
}

/// Two switches with a trunk between them and a host behind an access port of each: super-frames get a tag, cross the wire with it,
/// and lose it again.
#[test]
fn a_trunk_between_two_switches_carries_super_frames() {
    check_tools();
    let vlan = VlanId::new(10).expect("a VLAN");
    let mut labs = [(); 2].map(|()| Lab::empty());
    let wire = Namespace::new("trunk");
    ip(&[
        "link", "add", "left", "netns", &wire.0, "type", "veth", "peer", "name", "right", "netns", &wire.0,
    ]);
    // Both hosts belong to the first, so that what is run there meets them by number.
    labs[0].attach(Wire::Tap, 1500, Features::ALL);
    let [near, far] = &mut labs;
    std::mem::swap(&mut near.handle, &mut far.handle);
    near.attach(Wire::Veth, 1500, Features::ALL);
    std::mem::swap(&mut near.handle, &mut far.handle);
    for (lab, end) in labs.iter().zip(["left", "right"]) {
        wire.run(&["ip", "link", "set", end, "up"]);
        let fd = wire.inside(|| packet::open_packet(interface_index(end)).expect("open the packet socket"));
        let port = Box::new(VethPort::adopt(fd, Features::ALL).expect("adopt the packet socket"));
        let trunk = VlanMode::Trunk {
            native: None,
            allowed: [vlan].into_iter().collect(),
        };
        let with = |vlan| Policy {
            vlan,
            ..Policy::default()
        };
        let (trunk, access) = (with(trunk), with(VlanMode::Access(vlan)));
        let added = lab.handle.call(move |network, now| {
            let host = network.ports().next().expect("the host's port").id;
            network.set_policy(host, access)?;
            let config = PortConfig {
                name: "trunk".to_owned(),
                policy: trunk,
            };
            network.add_port(now, port, config)
        });
        added.expect("worker lives").expect("add the trunk");
    }
    std::thread::sleep(Duration::from_millis(200));
    let lab = &labs[0];
    lab.ping("10.9.0.2", 56);
    lab.ping("fd00:9::2", 20_000);
    lab.burst("10.9.0.N");
    lab.burst("[fd00:9::N]");
    for (to, extra) in [("10.9.0.2", &[][..]), ("10.9.0.2", &["-R"]), ("fd00:9::2", &[])] {
        let rate = lab.iperf(to, extra);
        println!("trunk: {to} {extra:?}: {rate:.2} Gbit/s");
        assert!(rate > 0.05, "{rate} Gbit/s");
    }
    for lab in &labs {
        assert!(
            largest_mean(&lab.ports()[1..]) > 3000,
            "no super-frames crossed the trunk"
        );
        lab.report("trunk");
    }
}

/// A host interface that puts segments together (GRO), as those of a LAN do, and a LAN whose hosts send each frame whole.
#[test]
fn what_a_host_interface_has_put_together_is_taken() {
    let lab = Lab::new([Wire::Veth, Wire::Tap], 1450, Features::ALL);
    assert_eq!(lab.ports()[0].mtu, 1450, "as the interface has it");
    lab.far[0].run(&["ethtool", "-K", "port0", "gro", "on"]);
    let offloads = ["tso", "off", "gso", "off", "tx", "off"];
    lab.hosts[0].run(&[&["ethtool", "-K", "eth0"][..], &offloads].concat());
    let before = lab.ports()[0].rx;
    lab.iperf("10.9.0.2", &[]);
    lab.iperf("fd00:9::2", &[]);
    let after = lab.ports()[0].rx;
    let mean = (after.bytes - before.bytes) / (after.frames - before.frames).max(1);
    assert!(mean > 3000, "{mean} bytes each: nothing was put together");
    lab.carry_tag();
    lab.ping("10.9.0.2", 20_000);
    lab.ping("fd00:9::2", 20_000);
    lab.report("host interface with GRO");
}

#[test]
fn veth_to_tap_without_any_feature() {
    let features = Features::ALL.without_any();
    Lab::new([Wire::Veth, Wire::PlainTap], 1500, features).exercise("veth-plain, no features");
}

#[test]
fn a_device_that_goes_is_reported_and_removed() {
    for (wire, device) in [
        (Wire::Veth, "port0"),
        (Wire::Tap, "eth0"),
        (Wire::PlainTap, "eth0"),
    ] {
        removal(wire, device);
    }
}

fn removal(wire: Wire, device: &str) {
    check_tools();
    let builder = Worker::builder().expect("worker");
    let events = builder.events();
    let worker = builder.start(Mute).expect("worker");
    let handle = worker.handle();
    let thread = std::thread::spawn(move || worker.run().expect("worker runs"));
    let mut lab = Lab {
        handle,
        thread: Some(thread),
        hosts: Vec::new(),
        far: Vec::new(),
    };
    lab.attach(wire, 1500, Features::ALL);
    lab.far
        .first()
        .unwrap_or(&lab.hosts[0])
        .run(&["ip", "link", "del", device]);
    match events.recv_timeout(Duration::from_secs(5)).expect("an event") {
        pontoon_switch::Event::PortClosed { name, .. } => assert_eq!(name, "host1"),
    }
    assert_eq!(lab.ports().len(), 0);
}
