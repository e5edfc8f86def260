//! Namespaces as hosts, and a switch in the test's own process between them.
//!
//! Needs root (or a user namespace with `CAP_NET_ADMIN` and a mount namespace of its own) and the tools named in
//! [`NEEDED`]. A tool that is missing fails the test and says what to install.

use std::fs::File;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Wall};

use pontoon_switch::port::veth::VethPort;
use pontoon_switch::port::{Port, Received, tap};
use pontoon_switch::sys::{packet, tun, udp};
use pontoon_switch::{
    DropReason, Features, Frame, Handle, Instant, MacAddr, Offload, Out, Policy, PortConfig, PortId,
    PortStatus, Ready, Station, Traffic, VlanTag, Worker,
};

const NEEDED: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("iperf3", "iperf3"),
    ("ethtool", "ethtool"),
];

/// A station that takes everything and says nothing.
pub(crate) struct Mute;

impl Station for Mute {
    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 0xfe])
    }
    fn frame(&mut self, _: Instant, _: PortId, _: &mut Frame<'_>, _: &mut dyn Out) {}
    fn ready(&mut self, _: Instant, _: usize, _: Ready, _: &mut dyn Out) {}
    fn flush(&mut self, _: Instant, _: &mut dyn Out) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// How a host hangs on the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    Tap,
    PlainTap,
    Veth,
}

/// A namespace that goes with its value.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ptsw-{}-{n}-{role}", std::process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    /// Runs `f` in a thread of this namespace.
    pub(crate) fn inside<R: Send + 'static>(&self, f: impl FnOnce() -> R + Send + 'static) -> R {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("open the namespace");
        std::thread::spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind))
                .expect("enter the namespace (root is needed)");
            f()
        })
        .join()
        .expect("thread in the namespace")
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0])
            .args(argv)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, argv: &[&str]) -> String {
        let out = self.command(argv).output().expect("run in the namespace");
        assert!(
            out.status.success(),
            "{argv:?} in {}: {}\n{}{}",
            self.0,
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

pub(crate) fn ip(argv: &[&str]) {
    let out = Command::new("ip").args(argv).output().expect("run ip");
    assert!(
        out.status.success(),
        "ip {argv:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

pub(crate) fn check_tools() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make network namespaces and devices: run them as root"
    );
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(tool, _)| {
            !std::env::var("PATH")
                .unwrap_or_default()
                .split(':')
                .chain(["/usr/sbin", "/sbin"])
                .any(|dir| std::path::Path::new(dir).join(tool).exists())
        })
        .map(|&(_, package)| package)
        .collect();
    assert!(
        missing.is_empty(),
        "tools are missing; run: apt-get install -y {}",
        missing.join(" ")
    );
}

/// A process that ends with its value.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hosts 1 and 2 on a switch: 10.9.0.N/24 and fd00:9::N/64.
pub(crate) struct Lab {
    pub(crate) handle: Handle<Mute>,
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) hosts: Vec<Namespace>,
    /// Where the far ends of veths live.
    pub(crate) far: Vec<Namespace>,
}

impl Lab {
    pub(crate) fn new(wires: [Wire; 2], mtu: u32, features: Features) -> Self {
        check_tools();
        let mut lab = Self::empty();
        for wire in wires {
            lab.attach(wire, mtu, features);
        }
        // Duplicate address detection and the first router solicitations.
        std::thread::sleep(Duration::from_millis(200));
        lab
    }

    pub(crate) fn empty() -> Self {
        let worker = Worker::builder().and_then(|b| b.start(Mute)).expect("worker");
        let handle = worker.handle();
        let thread = std::thread::spawn(move || worker.run().expect("worker runs"));
        Self {
            handle,
            thread: Some(thread),
            hosts: Vec::new(),
            far: Vec::new(),
        }
    }

    pub(crate) fn attach(&mut self, wire: Wire, mtu: u32, features: Features) {
        let n = self.hosts.len() + 1;
        let host = Namespace::new(&format!("h{n}"));
        let port: Box<dyn Port> = match wire {
            Wire::Tap | Wire::PlainTap => {
                let fd = host.inside(move || match wire {
                    Wire::PlainTap => tun::open_plain_tap("eth0").expect("open the plain TAP"),
                    Wire::Tap | Wire::Veth => tun::open_vnet_tap("eth0").expect("open the TAP"),
                });
                tap::adopt(fd, mtu, features).expect("adopt the TAP")
            }
            Wire::Veth => {
                let far = Namespace::new(&format!("p{n}"));
                ip(&[
                    "link",
                    "add",
                    "eth0",
                    "mtu",
                    &mtu.to_string(),
                    "netns",
                    &host.0,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "port0",
                    "mtu",
                    &mtu.to_string(),
                    "netns",
                    &far.0,
                ]);
                far.run(&["ip", "link", "set", "port0", "up"]);
                let fd = far.inside(|| {
                    packet::open_packet(interface_index("port0")).expect("open the packet socket")
                });
                self.far.push(far);
                Box::new(VethPort::adopt(fd, features).expect("adopt the packet socket"))
            }
        };
        let mtu = mtu.to_string();
        let (v4, v6) = (format!("10.9.0.{n}/24"), format!("fd00:9::{n}/64"));
        for argv in [
            &["ip", "link", "set", "lo", "up"][..],
            &["ip", "link", "set", "eth0", "mtu", &mtu, "up"],
            &["ip", "addr", "add", &v4, "dev", "eth0"],
            &["ip", "addr", "add", &v6, "dev", "eth0", "nodad"],
        ] {
            host.run(argv);
        }
        let config = PortConfig {
            name: format!("host{n}"),
            policy: Policy::default(),
        };
        let added = self
            .handle
            .call(move |network, now| network.add_port(now, port, config));
        added.expect("worker lives").expect("add the port");
        self.hosts.push(host);
    }

    pub(crate) fn ping(&self, to: &str, bytes: u32) {
        self.hosts[0].run(&[
            "ping",
            "-c",
            "3",
            "-i",
            "0.2",
            "-W",
            "2",
            "-s",
            &bytes.to_string(),
            to,
        ]);
    }

    /// A VLAN tag put on in host 1 is there in host 2. By packet sockets, since not every kernel has VLAN devices.
    pub(crate) fn carry_tag(&self) {
        let open = |host: &Namespace| {
            let fd =
                host.inside(|| packet::open_packet(interface_index("eth0")).expect("open a packet socket"));
            VethPort::adopt(fd, Features::ALL).expect("adopt the packet socket")
        };
        let (mut sender, mut receiver) = (open(&self.hosts[0]), open(&self.hosts[1]));
        let tag = VlanTag {
            tpid: 0x8100,
            tci: 0x6005,
        };
        let mut bytes = [[0xff; 6], [2, 0, 0, 0, 0, 0x77]].concat();
        bytes.extend_from_slice(&[0x81, 0, 0x60, 5, 0x88, 0xb5]);
        bytes.extend_from_slice(&[0xa5; 80]);
        sender
            .send(&mut Frame::whole(&mut bytes.clone(), Offload::NONE))
            .expect("send");
        let until = Wall::now() + Duration::from_secs(5);
        let mut buf = vec![0; 70_000];
        loop {
            assert!(Wall::now() < until, "the tagged frame did not arrive");
            if let Received::Frame(frame) = receiver.recv(&mut buf)
                && frame.ethertype() == 0x88b5
            {
                assert_eq!((frame.vlan(), frame.bytes()), (Some(tag), &bytes[..]));
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Many datagrams in one call of host 1 come one by one, and whole, in host 2. Gives what host 1's port saw of them.
    pub(crate) fn burst(&self, family: &str) -> Traffic {
        const SIZE: u16 = 1400;
        let bind = |n: usize, port: u16| {
            let address: SocketAddr = format!("{}:{port}", family.replace('N', &n.to_string()))
                .parse()
                .expect("address");
            let socket = self.hosts[n - 1].inside(move || UdpSocket::bind(address).expect("bind"));
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("socket");
            (socket, address)
        };
        let ((sender, _), (receiver, to)) = (bind(1, 7001), bind(2, 7002));
        // So that no neighbour has to be asked for in between.
        sender.send_to(b"first", to).expect("send");
        let mut buf = [0; 2000];
        assert_eq!(receiver.recv(&mut buf).expect("the first datagram"), 5);
        let before = self.ports()[0].rx;
        let payload: Vec<u8> = (0..40 * usize::from(SIZE) + 100)
            .map(|i| (i * 31 + i / 977) as u8)
            .collect();
        let how = udp::Outgoing {
            remote: to,
            local: None,
            hop_limit: None,
            tos: 0,
            segment: Some(SIZE),
        };
        udp::send(sender.as_fd(), &how, &[IoSlice::new(&payload)]).expect("send the burst");
        for (n, piece) in payload.chunks(SIZE.into()).enumerate() {
            let len = receiver
                .recv(&mut buf)
                .unwrap_or_else(|e| panic!("{family}: datagram {n}: {e}"));
            assert!(
                buf[..len] == *piece,
                "{family}: datagram {n} of {len} bytes is not what was sent"
            );
        }
        let after = self.ports()[0].rx;
        Traffic {
            frames: after.frames - before.frames,
            bytes: after.bytes - before.bytes,
        }
    }

    /// Gbit/s from host 1 to host 2 (`-R`: the other way).
    pub(crate) fn iperf(&self, to: &str, extra: &[&str]) -> f64 {
        let server = self.hosts[1]
            .command(&["iperf3", "-s", "-1"])
            .stdout(Stdio::null())
            .spawn();
        let _server = Running(server.expect("start the iperf3 server"));
        let until = Wall::now() + Duration::from_secs(5);
        while !self.hosts[1]
            .run(&["cat", "/proc/net/tcp6", "/proc/net/tcp"])
            .contains(":1451 ")
        {
            assert!(Wall::now() < until, "the iperf3 server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let argv = [
            &["timeout", "30", "iperf3", "--json", "-t", "1", "-c", to][..],
            extra,
        ]
        .concat();
        let out = self.hosts[0].run(&argv);
        let report: serde_json::Value = serde_json::from_str(&out).expect("iperf3's report");
        let end = &report["end"];
        let sum = if end["sum_received"].is_object() {
            &end["sum_received"]
        } else {
            &end["sum"]
        };
        assert!(sum["bytes"].as_f64().expect("bytes") > 0.0, "{out}");
        sum["bits_per_second"].as_f64().expect("a rate") / 1e9
    }

    pub(crate) fn ports(&self) -> Vec<PortStatus> {
        self.handle
            .call(|network, _| network.ports().collect())
            .expect("worker lives")
    }

    pub(crate) fn exercise(&self, what: &str) {
        self.ping("10.9.0.2", 56);
        self.ping("fd00:9::2", 56);
        self.carry_tag();
        // Fragments, both families.
        self.ping("10.9.0.2", 20_000);
        self.ping("fd00:9::2", 20_000);
        self.burst("10.9.0.N");
        self.burst("[fd00:9::N]");
        let rates = [
            ("TCP/IPv4", self.iperf("10.9.0.2", &[])),
            ("TCP/IPv4 back", self.iperf("10.9.0.2", &["-R"])),
            ("TCP/IPv6", self.iperf("fd00:9::2", &[])),
            ("UDP/IPv4", self.iperf("10.9.0.2", &["-u", "-b", "500M"])),
        ];
        for (kind, rate) in rates {
            println!("{what}: {kind}: {rate:.2} Gbit/s");
            assert!(rate > 0.05, "{what}: {kind}: {rate} Gbit/s");
        }
        self.report(what);
    }

    /// Shows what the ports counted, and fails if there is a drop that a sound frame never meets.
    pub(crate) fn report(&self, what: &str) {
        for port in self.ports() {
            println!(
                "{what}: {} {}: rx {:?} tx {:?} drops {:?}",
                port.name,
                port.kind,
                port.rx,
                port.tx,
                port.drops.nonzero().collect::<Vec<_>>()
            );
            for never in [
                DropReason::BadOffload,
                DropReason::Refused,
                DropReason::TooBig,
                DropReason::BadLength,
            ] {
                assert_eq!(port.drops.get(never), 0, "{what}: {} {never:?}", port.name);
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the worker panicked");
        }
    }
}

pub(crate) fn interface_index(name: &str) -> u32 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("socket");
    rustix::net::netdevice::name_to_index(&socket, name).expect("interface index")
}

pub(crate) fn largest_mean(ports: &[PortStatus]) -> u64 {
    ports
        .iter()
        .map(|p| p.rx.bytes / p.rx.frames.max(1))
        .max()
        .unwrap_or(0)
}
