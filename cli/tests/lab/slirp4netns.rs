//! slirp4netns' command line: the ways to name a target, the addresses, the API, the ends; with real programs, and without
//! the engines that call it (those are `pontoon-engines`).

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Cmd, Proc, Who, World, wait_for};
use rustix::process::Signal;

use crate::{server_at, server_peers};

/// The API's socket, in the world.
const API: &str = "/tmp/api.sock";

/// `pontoon slirp4netns` with `options`, which name the target.
fn slirp<'w>(world: &'w World, who: Who, options: &[&str]) -> Cmd<'w> {
    world
        .host()
        .cmd(["pontoon", "slirp4netns"])
        .args(options)
        .who(who)
}

/// A container by `slirp4netns --configure`, up.
fn start<'w>(world: &'w World, who: Who, options: &[&str]) -> (Bare<'w>, Proc) {
    let bare = Bare::start(world, who);
    let pid = bare.pid.to_string();
    let mut all = vec!["-c", "-r", "1", pid.as_str(), "tap0"];
    all.extend(options);
    let mut slirp = slirp(world, who, &all).spawn();
    // After what it says of its addresses.
    wait_for("the byte that says ready", Duration::from_secs(5), || {
        assert!(slirp.poll().is_none(), "it ended: {}", slirp.stderr());
        slirp.stdout().ends_with('1').then_some(())
    });
    (bare, slirp)
}

/// What the API answers.
fn ask(world: &World, who: Who, request: &str) -> serde_json::Value {
    let ncat = world.host().cmd(["ncat", "-U", API]).who(who).stdin(request);
    ncat.run().json()
}

fn add(protocol: &str, host_port: u16) -> String {
    format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{protocol}","host_addr":"","host_port":{host_port},"guest_addr":"","guest_port":9000}}}}"#
    )
}

/// The lab's peer in `bare`, TCP and UDP on port 9000.
fn peers(bare: &Bare<'_>) -> [Proc; 2] {
    let mut tcp = bare.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
    let mut udp = bare.cmd(["lab-peer", "udp-serve", "10.0.2.100:9000"]).spawn();
    tcp.wait_for("listening");
    udp.wait_for("listening");
    [tcp, udp]
}

each_user! {
    /// Out by TCP, UDP, DNS and ping; in by the API, where the client is seen as who it is.
    fn the_way_out_and_the_way_in(world, who) {
        let _server = server_peers(world);
        let _dns = world.server().dnsmasq(&["--listen-address=198.51.100.10", "--address=/example.test/192.0.2.7"]);
        let (bare, _slirp) = start(world, who, &["--api-socket", API]);
        let [to, _] = server_at(9000);
        assert!(bare.run(["lab-peer", "tcp", &to, "who"]).starts_with("192.0.2.1:"));
        assert!(bare.run(["lab-peer", "udp-ask", &to]).starts_with("192.0.2.1:"));
        bare.run(["lab-peer", "tcp", &to, "echo", "3000000"]);
        assert_eq!(bare.run(["dig", "+short", "@10.0.2.3", "example.test"]), "192.0.2.7\n");
        assert_eq!(bare.run(["dig", "+short", "+tcp", "@10.0.2.3", "example.test"]), "192.0.2.7\n");
        bare.run(["ping", "-c1", "-W9", "10.0.2.2"]);
        bare.run(["ping", "-c1", "-W9", "10.0.2.3"]);

        let _peers = peers(&bare);
        assert_eq!(ask(world, who, &add("tcp", 9100)), serde_json::json!({"return": {"id": 1}}));
        assert_eq!(ask(world, who, &add("udp", 9100)), serde_json::json!({"return": {"id": 2}}));
        for kind in [&["tcp", "192.0.2.1:9100", "who"][..], &["udp-ask", "192.0.2.1:9100"]] {
            let seen = world.server().cmd(["lab-peer"]).args(kind).run().ok();
            assert!(seen.starts_with("198.51.100.10:"), "{kind:?}: {seen}");
            let seen = world.host().cmd(["lab-peer"]).args(kind).run().ok();
            assert!(seen.starts_with("10.0.2.2:"), "{kind:?}: {seen}");
        }
        let listed = ask(world, who, r#"{"execute":"list_hostfwd"}"#);
        assert_eq!(listed["entries"], listed["return"]["entries"]);
        assert_eq!(listed["entries"][1]["proto"], "udp");
        assert!(ask(world, who, &add("tcp", 9100))["error"]["detail"].as_str().is_some_and(|d| d.contains("already allocated")));
        for id in [1, 2] {
            let remove = format!(r#"{{"execute":"remove_hostfwd","arguments":{{"id":{id}}}}}"#);
            assert_eq!(ask(world, who, &remove), serde_json::json!({"return": {}}));
        }
        let gone = world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run();
        assert!(gone.fails().contains("refused"));
        assert_eq!(ask(world, who, &add("tcp", 9100)), serde_json::json!({"return": {"id": 3}}));
    }
}

each_user! {
    /// A container that has said nothing yet is asked for: neither the first connection nor the first datagram waits or is
    /// lost.
    fn what_comes_first_is_not_lost(world, who) {
        let (bare, _slirp) = start(world, who, &["-a", API]);
        let _peers = peers(&bare);
        ask(world, who, &add("udp", 9100));
        ask(world, who, &add("tcp", 9100));
        let asked = world.server().cmd(["lab-peer", "udp-ask", "192.0.2.1:9100"]).run();
        assert!(asked.ok().starts_with("198.51.100.10:"));
        let done = world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "who"]).run();
        done.ok();
        // A second of it would be a second SYN.
        assert!(done.took < Duration::from_millis(950), "{:?}", done.took);
    }
}

each_user! {
    /// The network of --cidr, DHCP, IPv6 by router advertisement, MTU and MAC address.
    fn addresses_are_slirp4netns_addresses(world, who) {
        let _server = server_peers(world);
        let options = ["--cidr", "10.7.0.0/25", "-6", "-m", "9000", "--macaddress", "0e:d4:18:d9:38:fb"];
        let (bare, _slirp) = start(world, who, &options);
        let link = bare.run(["ip", "addr", "show", "tap0"]);
        for said in ["mtu 9000", "link/ether 0e:d4:18:d9:38:fb", "inet 10.7.0.100/25"] {
            assert!(link.contains(said), "no {said}: {link}");
        }
        assert!(bare.run(["ip", "route"]).contains("default via 10.7.0.2 dev tap0"));
        let global = wait_for("an address by router advertisement", Duration::from_secs(8), || {
            let all = bare.run(["ip", "-6", "addr", "show", "tap0", "scope", "global"]);
            (all.contains("inet6 fd00::") && !all.contains("tentative")).then_some(all)
        });
        assert!(global.contains("/64"), "{global}");
        let [_, to6] = server_at(9000);
        assert!(bare.run(["lab-peer", "tcp", &to6, "who"]).starts_with("[2001:db8:1::1]:"));
        bare.run(["ping", "-6", "-c1", "-W9", "fd00::2"]);
        let lease = bare.cmd(["timeout", "10", "udhcpc", "-q", "-f", "-i", "tap0", "-s", "/bin/true"]).run();
        assert!(format!("{lease}").contains("10.7.0.15"), "{lease}");
    }
}

each_user! {
    /// The gateway's address leads to the host's loopback unless that is switched off, with the source that is asked for.
    fn the_hosts_loopback(world, who) {
        let _loopback = world.host().cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        world.host().wait_tcp(9000);
        let (open, _one) = start(world, who, &["--outbound-addr", "127.0.0.1"]);
        assert!(open.run(["lab-peer", "tcp", "10.0.2.2:9000", "who"]).starts_with("127.0.0.1:"));
        let (named, _two) = start(world, who, &["--outbound-addr", "192.0.2.1"]);
        assert!(named.run(["lab-peer", "tcp", "10.0.2.2:9000", "who"]).starts_with("192.0.2.1:"));
        let (shut, _three) = start(world, who, &["--disable-host-loopback"]);
        let refused = shut.cmd(["lab-peer", "tcp", "10.0.2.2:9000", "who"]).run();
        assert!(refused.fails().contains("Network is unreachable"), "{refused}");
        shut.run(["ping", "-c1", "-W9", "10.0.2.2"]);
        // Nor by any other of the gateway's addresses.
        for to in ["10.0.2.3:9000", "127.0.0.2:9000"] {
            assert!(!shut.cmd(["lab-peer", "tcp", to, "who"]).limit(5).run().success(), "{to}");
        }
    }
}

each_user! {
    /// Without DNS nothing answers: neither an answer nor a refusal.
    fn without_dns_there_is_silence(world, who) {
        let (bare, _slirp) = start(world, who, &["--disable-dns"]);
        let asked = bare.cmd(["dig", "+time=2", "+tries=1", "@10.0.2.3", "example.test"]).run();
        assert!(asked.text().contains("timed out") || asked.text().contains("no servers could be reached"), "{asked}");
        let begun = std::time::Instant::now();
        let tried = bare.cmd(["ncat", "-w", "2", "10.0.2.3", "53"]).run();
        assert!(!tried.success() && begun.elapsed() > Duration::from_millis(1900), "{tried}");
    }
}

each_user! {
    fn changes_of_resolv_conf_are_followed_from_outside_the_sandbox(world, who) {
        let dns = |n: u8| {
            let options = [format!("--listen-address=198.51.100.{n}"), format!("--address=/example.test/192.0.2.{n}")];
            world.server().dnsmasq(&[&options[0], &options[1]])
        };
        let _two = [dns(10), dns(11)];
        let (bare, _slirp) = start(world, who, &[]);
        let ask = || bare.cmd(["dig", "+short", "+time=5", "+tries=1", "@10.0.2.3", "example.test"]).run().text();
        assert_eq!(ask(), "192.0.2.10\n");
        world.host().sh("echo 'nameserver 198.51.100.11' > /etc/r; mv /etc/r /etc/resolv.conf");
        wait_for("the new resolver", Duration::from_secs(8), || (ask() == "192.0.2.11\n").then_some(()));
    }
}

each_user! {
    /// By signal, by SIGKILL, by its exit descriptor: no process and no socket's file is left.
    fn it_ends_and_leaves_nothing(world, who) {
        let gone = |what: &str| {
            wait_for(what, Duration::from_secs(5), || {
                let left = world.processes().iter().any(|(_, args)| args.contains("pontoon"));
                (!left && !world.path(API).exists()).then_some(())
            });
        };
        for signal in [Signal::TERM, Signal::KILL] {
            let (_bare, mut slirp) = start(world, who, &["-a", API]);
            assert!(world.path(API).exists());
            world.host().sh(&format!("kill -{} {}", signal.as_raw(), packet_process(world).0));
            assert!(slirp.wait(Duration::from_secs(5)).is_some(), "{signal:?}");
            gone("the end");
        }
        let bare = Bare::start(world, who);
        let script = format!("exec 7< <(sleep 1); exec pontoon slirp4netns -a {API} -e 7 {} tap0", bare.pid);
        let done = world.host().cmd(["bash", "-c", &script]).who(who).run();
        assert_eq!(done.code(), Some(0), "{done}");
        assert!(done.took > Duration::from_millis(900), "{done}");
        gone("the end by descriptor");
        // One that is not open has hung up.
        let pid = bare.pid.to_string();
        assert_eq!(slirp(world, who, &["-e", "9", &pid, "tap0"]).run().code(), Some(0));
    }
}

/// The id and the arguments of the packet process.
fn packet_process(world: &World) -> (u32, String) {
    let all = world.processes();
    let found = all
        .iter()
        .find(|(_, args)| args.starts_with("pontoon slirp4netns"));
    found
        .cloned()
        .unwrap_or_else(|| panic!("no packet process: {all:?}"))
}

each_user! {
    /// The packet process sees an empty root, has no capability but that of low ports, and still publishes one for root.
    fn it_is_confined_and_still_binds(world, who) {
        let (bare, _slirp) = start(world, who, &["-a", API, "--enable-sandbox", "--enable-seccomp"]);
        let (pid, _) = packet_process(world);
        let looks = |script: &str| world.host().cmd(["bash", "-c", script]).who(who).run().ok();
        assert_eq!(looks(&format!("ls -A /proc/{pid}/root")), "etc\nrun\n");
        assert_eq!(looks(&format!("ls -A /proc/{pid}/root/etc /proc/{pid}/root/run | grep -v : | tr -d '\\n'")), "");
        let status = looks(&format!("cat /proc/{pid}/status"));
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000400", "CapPrm:\t0000000000000400"] {
            assert!(status.contains(line), "no {line}: {status}");
        }
        let _peers = peers(&bare);
        let answer = ask(world, who, &add("tcp", 90));
        match who {
            Who::Root => {
                assert_eq!(answer["return"]["id"], 1);
                world.server().run(["lab-peer", "tcp", "192.0.2.1:90", "who"]);
            }
            _ => assert!(
                answer["error"]["detail"].as_str().is_some_and(|d| d.contains("ip_unprivileged_port_start")),
                "{answer}"
            ),
        }
    }
}

each_user! {
    /// Half requests, long ones and a crowd: each gets its answer, and neither packets nor others wait.
    fn hostile_clients_of_the_api_hurt_nobody(world, who) {
        let _server = server_peers(world);
        let (bare, _slirp) = start(world, who, &["-a", API]);
        let crowd = format!(
            "import socket, time\nall = []\nfor i in range(1000):\n    s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n    \
             s.connect('{API}'); s.send(b'{{\"execute\"'); all.append(s)\nprint('crowded', flush=True)\ntime.sleep(60)\n"
        );
        let mut crowd = world.host().cmd(["python3", "-c", &crowd]).who(who).spawn();
        crowd.wait_for("crowded");
        let begun = std::time::Instant::now();
        assert_eq!(ask(world, who, &add("tcp", 9100))["return"]["id"], 1);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let long = world.host().cmd(["bash", "-c", &format!("head -c 1000000 /dev/zero | ncat -U {API}")]).who(who).run();
        assert!(long.text().contains("bad request: too large message"), "{long}");
        let half = ask(world, who, r#"{"execute":"#);
        assert_eq!(half["error"]["desc"], "bad request: cannot parse JSON");
        let none = ask(world, who, r#"{"execute":"add_hostfwd","arguments":{}}"#);
        assert_eq!(none["error"]["desc"], "bad request: add_hostfwd: bad arguments.proto");
        let [to, _] = server_at(9000);
        bare.run(["lab-peer", "tcp", &to, "echo", "1000000"]);
    }
}

each_user! {
    /// A TAP that is there already, in a namespace named by its path.
    fn a_tap_that_is_there_is_taken_over(world, who) {
        let _server = server_peers(world);
        let bare = Bare::start(world, who);
        bare.run(["ip", "tuntap", "add", "name", "tap9", "mode", "tap"]);
        bare.run(["ip", "link", "set", "tap9", "up", "mtu", "4000"]);
        let (net, user) = (format!("/proc/{}/ns/net", bare.pid), format!("--userns-path=/proc/{}/ns/user", bare.pid));
        let mut slirp = slirp(world, who, &["--netns-type=path", &user, "-m", "4000", "-r", "1", &net, "tap9"]).spawn();
        wait_for("the byte that says ready", Duration::from_secs(5), || {
            assert!(slirp.poll().is_none(), "it ended: {}", slirp.stderr());
            slirp.stdout().ends_with('1').then_some(())
        });
        bare.run(["ip", "addr", "add", "10.0.2.100/24", "dev", "tap9"]);
        bare.run(["ip", "route", "add", "default", "via", "10.0.2.2"]);
        let [to, _] = server_at(9000);
        bare.run(["lab-peer", "tcp", &to, "echo", "1000000"]);
        let link = bare.run(["ip", "-o", "link", "show", "tap9"]);
        assert!(link.contains("mtu 4000"), "{link}");
    }
}

/// A TAP that was opened by somebody else and is passed as a descriptor, here without a virtio-net header.
#[test]
fn a_tap_may_be_a_descriptor() {
    let world = crate::world();
    let _server = server_peers(&world);
    let bare = Bare::start(&world, Who::Root);
    let script = format!(
        "import ctypes, fcntl, os, struct, sys\nlibc = ctypes.CDLL(None, use_errno=True)\nmine = os.open('/proc/self/ns/net', 0)\n\
         assert libc.setns(os.open('/proc/{}/ns/net', 0), 0x40000000) == 0\ntap = os.open('/dev/net/tun', os.O_RDWR)\n\
         fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'tap0', 0x1002))\nassert libc.setns(mine, 0x40000000) == 0\n\
         os.dup2(tap, 8, inheritable=True)\nos.execvp('pontoon', ['pontoon', 'slirp4netns', '-r', '1', '--netns-type=tapfd', '8'])\n",
        bare.pid
    );
    let slirp = world.host().cmd(["python3", "-c", &script]).spawn();
    wait_for("the byte that says ready", Duration::from_secs(5), || {
        slirp.stdout().ends_with('1').then_some(())
    });
    bare.run(["ip", "link", "set", "tap0", "up"]);
    bare.run(["ip", "addr", "add", "10.0.2.100/24", "dev", "tap0"]);
    bare.run(["ip", "route", "add", "default", "via", "10.0.2.2"]);
    let [to, _] = server_at(9000);
    bare.run(["lab-peer", "tcp", &to, "echo", "1000000"]);
}

each_user! {
    /// A machine that speaks by a SOCK_SEQPACKET socket, as User-mode Linux does: it asks for the gateway and pings it.
    fn a_client_by_messages(world, who) {
        let mut slirp = slirp(world, who, &["--target-type=bess", "/tmp/bess"]).spawn();
        slirp.wait_for("Waiting for connection to /tmp/bess");
        let script = "import socket, struct\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5); s.connect('/tmp/bess')\n\
            me = bytes.fromhex('020000000009'); ip = bytes([10, 0, 2, 15]); gw = bytes([10, 0, 2, 2])\n\
            s.send(b'\\xff' * 6 + me + bytes.fromhex('08060001080006040001') + me + ip + b'\\0' * 6 + gw)\n\
            def wanted(of):\n    while True:\n        f = s.recv(2000)\n        if of(f): return f\n\
            a = wanted(lambda f: f[12:14] == b'\\x08\\x06' and f[20:22] == b'\\0\\2'); assert a[28:32] == gw, a\n\
            def sum(b):\n    t = 0\n    for i in range(0, len(b), 2): t += b[i] << 8 | b[i + 1]\n    while t >> 16: t = (t & 0xffff) + (t >> 16)\n    return struct.pack('>H', t ^ 0xffff)\n\
            icmp = b'\\x08\\0\\0\\0\\0\\1\\0\\1' + b'x' * 24; icmp = icmp[:2] + sum(icmp) + icmp[4:]\n\
            h = bytes.fromhex('45000034') + b'\\0\\1\\0\\0\\x40\\1\\0\\0' + ip + gw; h = h[:10] + sum(h) + h[12:]\n\
            s.send(a[6:12] + me + b'\\x08\\0' + h + icmp)\n\
            r = wanted(lambda f: f[12:14] == b'\\x08\\0' and f[23] == 1); assert r[34] == 0 and r[42:] == b'x' * 24, r\nprint('pong')\n";
        let done = world.host().cmd(["python3", "-c", script]).who(who).run();
        assert_eq!(done.ok(), "pong\n");
        // The client has gone, and there is no other.
        let status = slirp.wait(Duration::from_secs(5)).expect("an end");
        assert!(status.success(), "{status}: {}", slirp.stderr());
        assert!(!world.path("/tmp/bess").exists());
    }
}

each_user! {
    /// What cannot be is said, by which object it is about, and leaves nothing behind.
    fn failures_are_said(world, who) {
        let bare = Bare::start(world, who);
        let pid = bare.pid.to_string();
        let (_busy, _slirp) = (bare.pid, slirp(world, who, &["-c", &pid, "tap0"]).spawn());
        wait_for("the interface", Duration::from_secs(5), || {
            bare.cmd(["ip", "addr", "show", "tap0"]).run().text().contains("inet ").then_some(())
        });
        let long = format!("/tmp/{}", "x".repeat(120));
        for (options, words) in [
            (vec![pid.as_str(), "tap0"], "in use"),
            (vec!["999999", "tap1"], "/proc/999999/ns/net"),
            (vec!["-c", "-m", "67", &pid, "tap1"], "MTU 67"),
            (vec!["-a", &long, &pid, "tap1"], "API socket path is too long"),
            (vec!["-a", "/nowhere/at/all", &pid, "tap1"], "/nowhere/at/all"),
            (vec!["--outbound-addr", "192.0.2.99", &pid, "tap1"], "192.0.2.99"),
            (vec!["--outbound-addr", "nodev0", &pid, "tap1"], "nodev0"),
            (vec!["--netns-type=tapfd", "77"], "77"),
            (vec!["--netns-type=tapfd", "1"], "TAP"),
        ] {
            let done = slirp(world, who, &options).run();
            assert_eq!(done.code(), Some(1), "{options:?}: {done}");
            assert!(done.errors().contains(words), "{options:?}: {done}");
        }
        let links = bare.run(["ip", "-br", "link"]);
        assert!(!links.contains("tap1"), "{links}");
    }
}

each_user! {
    /// Called by its name, it is what callers ask for its version.
    fn it_answers_to_the_name(world, who) {
        world.host().sh("ln -s /run/bin/pontoon /tmp/slirp4netns");
        let run = |option: &str| world.host().cmd(["/tmp/slirp4netns", option]).who(who).run();
        assert!(run("-v").ok().starts_with("slirp4netns version "));
        assert!(run("--help").ok().contains("--enable-seccomp"));
        let wrong = run("--wrong");
        assert_eq!(wrong.code(), Some(1), "{wrong}");
        assert!(wrong.errors().contains("Usage"), "{wrong}");
    }
}
