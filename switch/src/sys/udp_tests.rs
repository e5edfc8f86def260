use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;

fn socket(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).expect("loopback");
    report_all(socket.as_fd(), addr.starts_with('[')).expect("options");
    socket
}

fn to(remote: SocketAddr) -> Outgoing {
    Outgoing {
        remote,
        local: None,
        hop_limit: None,
        tos: 0,
        segment: None,
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

#[test]
fn carries_ttl_tos_and_local_address() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let (a, b) = (socket(addr), socket(addr));
        let local = a.local_addr().expect("address");
        let how = Outgoing {
            local: Some(local.ip()),
            hop_limit: Some(7),
            tos: 0xb8,
            ..to(b.local_addr().expect("address"))
        };
        assert_eq!(
            send(a.as_fd(), &how, &[IoSlice::new(b"he"), IoSlice::new(b"llo")]).expect("send"),
            5
        );
        let mut buf = [0; 16];
        let got = wait(|| recv(b.as_fd(), &mut buf)).expect("datagram");
        assert_eq!(&buf[..got.len], b"hello");
        assert_eq!((got.remote, got.local), (local, Some(local.ip())));
        assert_eq!(
            (got.hop_limit, got.tos, got.segment, got.truncated),
            (Some(7), 0xb8, None, false)
        );
    }
}

#[test]
fn replies_from_the_address_that_was_asked() {
    let server = socket("0.0.0.0:0");
    let port = server.local_addr().expect("address").port();
    let client = socket("127.0.0.1:0");
    send(
        client.as_fd(),
        &to(([127, 0, 0, 9], port).into()),
        &[IoSlice::new(b"?")],
    )
    .expect("send");
    let mut buf = [0; 16];
    let asked = wait(|| recv(server.as_fd(), &mut buf)).expect("question");
    assert_eq!(asked.local, Some(Ipv4Addr::new(127, 0, 0, 9).into()));
    let how = Outgoing {
        local: asked.local,
        ..to(asked.remote)
    };
    send(server.as_fd(), &how, &[]).expect("reply");
    let got = wait(|| recv(client.as_fd(), &mut buf)).expect("reply");
    assert_eq!((got.remote, got.len), (([127, 0, 0, 9], port).into(), 0));
}

#[test]
fn a_refusal_stands_in_the_error_queue_with_its_datagram() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let closed = UdpSocket::bind(addr)
            .expect("loopback")
            .local_addr()
            .expect("address");
        let a = socket(addr);
        send(a.as_fd(), &to(closed), &[IoSlice::new(b"anyone?")]).expect("send");
        let mut buf = [0; 64];
        let error = wait(|| {
            recv_error(a.as_fd(), &mut buf)?.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))
        })
        .expect("error");
        let (origin, kind, code) = match closed {
            SocketAddr::V4(_) => (libc::SO_EE_ORIGIN_ICMP, 3, 3),
            SocketAddr::V6(_) => (libc::SO_EE_ORIGIN_ICMP6, 1, 4),
        };
        assert_eq!((error.origin, error.kind, error.code), (origin, kind, code));
        assert_eq!((error.remote, error.errno), (closed, libc::ECONNREFUSED));
        assert_eq!(error.offender, Some(closed.ip()));
        assert_eq!(&buf[..error.len], b"anyone?");
        assert_eq!(recv_error(a.as_fd(), &mut buf).expect("empty"), None);
    }
}

#[test]
fn too_big_with_df_tells_the_mtu() {
    for (addr, v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
        let (a, b) = (socket(addr), socket(addr));
        let how = to(b.local_addr().expect("address"));
        // With the header, more than the loopback's MTU of 65,536 can only be had over IPv6; over IPv4 the datagram's
        // own bound comes first, so the error is without an entry.
        let data = vec![0u8; 65_507];
        set_dont_fragment(a.as_fd(), v6, true).expect("DO");
        let result = send(a.as_fd(), &how, &[IoSlice::new(&data)]);
        if v6 {
            assert_eq!(result.expect_err("too big").raw_os_error(), Some(libc::EMSGSIZE));
            let mut buf = [0; 16];
            let error = recv_error(a.as_fd(), &mut buf).expect("queue").expect("an entry");
            assert_eq!(
                (error.origin, error.errno),
                (libc::SO_EE_ORIGIN_LOCAL, libc::EMSGSIZE)
            );
            assert_eq!(error.info, 65_536);
            assert_eq!(error.offender, None);
        } else {
            assert_eq!(result.expect("fits"), data.len());
        }
        set_dont_fragment(a.as_fd(), v6, false).expect("DONT");
        assert_eq!(
            send(a.as_fd(), &how, &[IoSlice::new(&data)]).expect("fragments"),
            data.len()
        );
    }
}

#[test]
fn segments_and_joins() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let (a, b) = (socket(addr), socket(addr));
        assert!(has_gso(a.as_fd()));
        set_gro(b.as_fd()).expect("UDP_GRO");
        let data: Vec<u8> = (0..2500).map(|i| i as u8).collect();
        let how = Outgoing {
            segment: Some(1000),
            ..to(b.local_addr().expect("address"))
        };
        assert_eq!(send(a.as_fd(), &how, &[IoSlice::new(&data)]).expect("send"), 2500);
        let mut buf = vec![0; 65_535];
        let mut whole = Vec::new();
        while whole.len() < 2500 {
            let got = wait(|| recv(b.as_fd(), &mut buf)).expect("datagrams");
            assert!(got.len <= 1000 || got.segment == Some(1000), "{got:?}");
            whole.extend_from_slice(&buf[..got.len]);
        }
        assert_eq!(whole, data);
    }
}

#[test]
fn a_short_buffer_is_told() {
    let (a, b) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    send(
        a.as_fd(),
        &to(b.local_addr().expect("address")),
        &[IoSlice::new(b"12345")],
    )
    .expect("send");
    let mut buf = [0; 3];
    let got = wait(|| recv(b.as_fd(), &mut buf)).expect("datagram");
    assert_eq!((got.len, got.truncated, &buf), (3, true, b"123"));
}
