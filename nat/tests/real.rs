//! The real host's UDP and ping sockets, on the loopback of a network namespace made for the test.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use pontoon_nat::config::Outbound;
use pontoon_nat::host::real::RealHost;
use pontoon_nat::host::{
    HostError, IpVersion, Kind, Origin, PingHost, PingSend, PingSocket, ROOM_BEFORE, Token, UdpBatch,
    UdpHost, UdpSend, UdpSocket,
};
use pontoon_switch::{Feature, Features, Worker};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// Says that this process is the one inside the namespace.
const INSIDE: &str = "PONTOON_TEST_INSIDE";

/// Whether the namespace lets ping sockets be opened.
#[derive(Clone, Copy)]
enum Pings {
    Allowed,
    ShutOut,
}

/// Runs the test `name` again in a network namespace of its own. True if this is that run.
fn inside(name: &str, pings: Pings) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // A new namespace has 1 0: nobody.
    let ping_sockets = match pings {
        Pings::Allowed => "echo 0 0 > /proc/sys/net/ipv4/ping_group_range",
        Pings::ShutOut => "",
    };
    let script = format!(
        "set -e; ip link set lo up; {ping_sockets}
         ip link add narrow type veth peer name far; ip link set far up; ip link set narrow mtu 1400 up; ip addr add 198.51.100.1/24 dev narrow
         ip -6 addr add 2001:db8:7::1/64 dev narrow nodad; exec \"$0\" --exact {name} --nocapture"
    );
    let exe = std::env::current_exe().expect("this test");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", &script])
        .arg(exe)
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux, and ip, of iproute2");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "inside the namespace: {text}"
    );
    false
}

fn host(features: Features) -> RealHost {
    let builder = Worker::builder().expect("worker");
    let registrar = builder.registrar().expect("registrar");
    // The registry works on as long as anything refers to it.
    RealHost::new(registrar, features, Outbound::default()).expect("host")
}

fn token(index: u32) -> Token {
    Token {
        kind: Kind::UdpMapping,
        index,
        generation: 0,
    }
}

/// Tries until it is not `WouldBlock`, for two seconds at most.
fn wait<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match f() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

fn error_of(socket: &mut impl UdpSocket) -> HostError {
    let mut buf = [0; 64];
    wait(|| {
        socket
            .recv_error(&mut buf)?
            .ok_or_else(|| io::ErrorKind::WouldBlock.into())
    })
    .expect("an error")
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("address"), port)
}

#[test]
fn udp_sockets_of_the_real_host() {
    if !inside("udp_sockets_of_the_real_host", Pings::ShutOut) {
        return;
    }
    for features in [Features::ALL, Features::ALL.without(Feature::UdpGso)] {
        for (version, local, elsewhere) in [
            (IpVersion::V4, "127.0.0.1", "198.51.100.9"),
            (IpVersion::V6, "::1", "2001:db8:7::9"),
        ] {
            let mut host = host(features);
            udp(&mut host, version, local, elsewhere);
        }
    }
}

fn udp(host: &mut RealHost, version: IpVersion, local: &str, elsewhere: &str) {
    let mut a = host.udp_open(token(1), version, None).expect("socket");
    let mut b = host.udp_open(token(2), version, None).expect("socket");
    let port = |s: &dyn Fn() -> io::Result<SocketAddr>| s().expect("address").port();
    let (pa, pb) = (port(&|| a.local_addr()), port(&|| b.local_addr()));
    assert_eq!(
        host.udp_open(token(3), version, Some(pa))
            .expect_err("never shared")
            .kind(),
        io::ErrorKind::AddrInUse
    );

    // A datagram with everything that is carried over.
    let how = UdpSend {
        hop_limit: Some(3),
        tos: 0x28,
        ..UdpSend::to(at(local, pb))
    };
    a.send(&how, b"hello").expect("send");
    let mut buf = vec![0; 65_535];
    let got = wait(|| b.recv(&mut buf)).expect("datagram");
    assert_eq!(
        (&buf[..got.len], got.remote),
        (b"hello".as_slice(), at(local, pa))
    );
    assert_eq!(
        (got.hop_limit, got.tos, got.local),
        (Some(3), 0x28, Some(at(local, 0).ip()))
    );

    // An error that waits fails neither the next send, nor a receive, and stays to be read.
    let closed = at(local, 9);
    a.send(&UdpSend::to(closed), b"anyone?").expect("send");
    std::thread::sleep(Duration::from_millis(20));
    a.send(&UdpSend::to(at(local, pb)), b"still")
        .expect("an error of another datagram");
    assert_eq!(wait(|| b.recv(&mut buf)).expect("datagram").len, 5);
    let error = error_of(&mut a);
    assert_eq!(
        (error.remote, error.errno),
        (closed, Errno::CONNREFUSED.raw_os_error())
    );
    a.send(&UdpSend::to(closed), b"anyone?").expect("send");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        a.recv(&mut buf).expect_err("nothing there").kind(),
        io::ErrorKind::WouldBlock
    );
    error_of(&mut a);

    // Several at once, more than UDP_SEGMENT takes.
    let data: Vec<u8> = (0..90 * 100 + 50).map(|i| (i / 90) as u8).collect();
    a.send(
        &UdpSend {
            segment: Some(90),
            ..UdpSend::to(at(local, pb))
        },
        &data,
    )
    .expect("send");
    let mut whole = Vec::new();
    while whole.len() < data.len() {
        let got = wait(|| b.recv(&mut buf)).expect("datagrams");
        assert!(got.len <= 90 || got.segment == Some(90));
        whole.extend_from_slice(&buf[..got.len]);
    }
    assert_eq!(whole, data);

    // A run of datagrams in several pieces; and what is left of it from one of them on.
    let parts = [&data[..90 * 3], &data[90 * 3..90 * 10 + 50]].map(IoSlice::new);
    for (from, expected) in [(0, &data[..950]), (4, &data[360..950])] {
        a.send_run(&UdpSend::to(at(local, pb)), 90, &parts, from)
            .expect("send");
        let mut whole = Vec::new();
        while whole.len() < expected.len() {
            let got = wait(|| b.recv(&mut buf)).expect("datagrams");
            assert!(got.len == 90 || got.len == 50 || got.segment == Some(90));
            whole.extend_from_slice(&buf[..got.len]);
        }
        assert_eq!(whole, expected);
    }

    // Many at once into a batch: in order, until there are no more.
    let mut batch = UdpBatch::default();
    for n in 0..12u8 {
        a.send(&how, &vec![n; usize::from(n) * 100]).expect("send");
    }
    let mut seen = Vec::new();
    while seen.len() < 12 {
        batch.ask(5);
        wait(|| b.recv_many(&mut batch)).expect("datagrams");
        for (n, got) in batch.received().to_vec().into_iter().enumerate() {
            assert_eq!(
                (got.remote, got.tos, got.hop_limit),
                (at(local, pa), 0x28, Some(3))
            );
            assert_eq!((got.local, got.segment), (Some(at(local, 0).ip()), None));
            seen.push(batch.room(n)[ROOM_BEFORE..][..got.len].to_vec());
        }
    }
    assert!(
        seen.iter()
            .enumerate()
            .all(|(n, data)| *data == vec![n as u8; n * 100])
    );
    assert_eq!(
        b.recv_many(&mut batch).expect_err("no more").kind(),
        io::ErrorKind::WouldBlock
    );

    // Too big for the way there: told with the MTU; or fragmented, where that is allowed.
    let big = vec![0; 1450];
    let how = UdpSend {
        dont_fragment: true,
        ..UdpSend::to(at(elsewhere, 9))
    };
    let refused = a.send(&how, &big).expect_err("too big");
    assert_eq!(refused.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
    let error = error_of(&mut a);
    assert_eq!(
        (error.origin, error.info, error.remote),
        (Origin::Local, 1400, how.remote)
    );
    a.send(
        &UdpSend {
            dont_fragment: false,
            ..how
        },
        &big,
    )
    .expect("fragments");
    // Segments over the way's MTU are fragmented too.
    let how = UdpSend {
        segment: Some(1450),
        dont_fragment: false,
        ..how
    };
    a.send(&how, &vec![0; 2900]).expect("fragments of segments");
    let parts = [IoSlice::new(&[0; 2900])];
    let how = UdpSend { segment: None, ..how };
    a.send_run(&how, 1450, &parts, 0).expect("fragments of a run");
    let how = UdpSend {
        dont_fragment: true,
        ..how
    };
    for n in 0..2 {
        let (at, refused) = a.send_run(&how, 1450, &parts, n).expect_err("too big");
        assert_eq!(
            (at, refused.raw_os_error()),
            (n, Some(Errno::MSGSIZE.raw_os_error()))
        );
        assert_eq!(error_of(&mut a).info, 1400);
        assert!(a.recv_error(&mut buf).expect("queue").is_none(), "one for each");
    }

    // No way there.
    let nowhere = if version == IpVersion::V4 {
        "203.0.113.1"
    } else {
        "2001:db8:8::1"
    };
    let error = a.send(&UdpSend::to(at(nowhere, 9)), b"x").expect_err("no route");
    assert_eq!(error.raw_os_error(), Some(Errno::NETUNREACH.raw_os_error()));
}

fn raw_socket(version: IpVersion) -> OwnedFd {
    let (domain, protocol) = match version {
        IpVersion::V4 => (Domain::IPV4, Protocol::ICMPV4),
        IpVersion::V6 => (Domain::IPV6, Protocol::ICMPV6),
    };
    Socket::new(domain, Type::RAW, Some(protocol))
        .expect("raw socket")
        .into()
}

#[test]
fn ping_sockets_of_the_real_host() {
    if !inside("ping_sockets_of_the_real_host", Pings::Allowed) {
        return;
    }
    let mut host = host(Features::ALL);
    for (version, local, elsewhere) in [
        (IpVersion::V4, "127.0.0.1", "198.51.100.9"),
        (IpVersion::V6, "::1", "2001:db8:7::9"),
    ] {
        let mut socket = host.ping_open(token(1), version).expect("ping socket");
        let id = socket.id().expect("identifier");
        ping(&mut socket, id, local, elsewhere);
    }
}

#[test]
fn raw_sockets_where_ping_sockets_are_shut_out() {
    if !inside("raw_sockets_where_ping_sockets_are_shut_out", Pings::ShutOut) {
        return;
    }
    let mut host = host(Features::ALL);
    for (version, local, elsewhere) in [
        (IpVersion::V4, "127.0.0.1", "198.51.100.9"),
        (IpVersion::V6, "::1", "2001:db8:7::9"),
    ] {
        let refused = host.ping_open(token(1), version).expect_err("shut out");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let (of, mut socket) = host.ping_raw(raw_socket(version)).expect("raw");
        assert_eq!((of, socket.id()), (version, None));
        host.ping_register(&mut socket, token(2)).expect("registered");
        ping(&mut socket, 4711, local, elsewhere);
    }
}

fn ping(socket: &mut impl PingSocket, id: u16, local: &str, elsewhere: &str) {
    let remote = at(local, 0).ip();
    let how = PingSend {
        remote,
        id,
        sequence: 5,
        hop_limit: Some(9),
        tos: 0,
        dont_fragment: false,
    };
    socket.send(&how, b"are you there?").expect("send");
    let mut buf = vec![0; 4096];
    let got = wait(|| socket.recv(&mut buf)).expect("reply");
    assert_eq!((got.remote, got.id, got.sequence), (remote, id, 5));
    assert_eq!(&buf[got.offset..got.offset + got.len], b"are you there?");
    assert!(got.hop_limit.is_some());
    // Too big for the way there.
    let how = PingSend {
        remote: at(elsewhere, 0).ip(),
        dont_fragment: true,
        ..how
    };
    let refused = socket.send(&how, &vec![0; 1450]).expect_err("too big");
    assert_eq!(refused.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
    let error = socket.recv_error(&mut buf).expect("queue").expect("an error");
    assert_eq!((error.error.origin, error.error.info), (Origin::Local, 1400));
    assert!(socket.recv_error(&mut buf).expect("queue").is_none());
}
