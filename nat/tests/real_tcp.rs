//! The real host's TCP sockets on loopback, with what the kernel has and with the fall-backs.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pontoon_nat::config::Outbound;
use pontoon_nat::host::real::{RealHost, RealTcp};
use pontoon_nat::host::{Kind, TcpHost, TcpSocket, Token};
use pontoon_switch::{Feature, Features, Worker};

const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

fn features() -> [Features; 2] {
    let bare = Features::ALL.without(Feature::PeekOff).without(Feature::MemInfo);
    [Features::ALL, bare]
}

/// A connection from the host to `listener`, and its far end.
fn connect(host: &mut RealHost, listener: &TcpListener) -> (RealTcp, TcpStream) {
    let token = Token {
        kind: Kind::Tcp,
        index: 1,
        generation: 0,
    };
    let address = listener.local_addr().expect("address");
    let (mut socket, _) = host.tcp_connect(token, address).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    assert!(wait(|| socket.connected().map(|done| done.then_some(()))).is_some());
    (socket, far)
}

/// Tries until it gives something, for two seconds at most.
fn wait<T>(mut f: impl FnMut() -> io::Result<Option<T>>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match f() {
            Ok(Some(done)) => return Some(done),
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}"),
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::yield_now();
    }
}

/// What a peek gives once it does not have to wait.
fn peek(socket: &mut RealTcp, offset: usize, buf: &mut [u8]) -> io::Result<usize> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match socket.peek(offset, buf) {
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {}
            done => return done,
        }
    }
}

fn each(mut f: impl FnMut(&mut RealHost, &TcpListener)) {
    for features in features() {
        for loopback in LOOPBACKS {
            let builder = Worker::builder().expect("worker");
            let registrar = builder.registrar().expect("registrar");
            let mut host = RealHost::new(registrar, features, Outbound::default()).expect("host");
            let address: SocketAddr = loopback.parse().expect("address");
            f(&mut host, &TcpListener::bind(address).expect("loopback"));
        }
    }
}

#[test]
fn peeks_find_every_offset_the_end_of_the_stream_and_a_reset() {
    each(|host, listener| {
        let (mut socket, mut far) = connect(host, listener);
        let mut buf = [0; 16];
        assert_eq!(
            socket.peek(0, &mut buf).expect_err("nothing").kind(),
            ErrorKind::WouldBlock
        );
        far.write_all(b"0123456789").expect("write");
        assert_eq!(peek(&mut socket, 9, &mut buf).expect("the last"), 1);
        assert_eq!(peek(&mut socket, 0, &mut buf[..4]).expect("the first"), 4);
        assert_eq!(&buf[..4], b"0123");
        assert_eq!(peek(&mut socket, 4, &mut buf[..4]).expect("on"), 4);
        assert_eq!(&buf[..4], b"4567");
        assert_eq!(
            socket.peek(10, &mut buf).expect_err("no more").kind(),
            ErrorKind::WouldBlock
        );
        socket.consume(3).expect("there");
        assert_eq!(peek(&mut socket, 0, &mut buf).expect("the rest"), 7);
        assert_eq!(&buf[..7], b"3456789");
        far.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(peek(&mut socket, 7, &mut buf).expect("the end"), 0);
        assert_eq!(peek(&mut socket, 5, &mut buf).expect("before the end"), 2);

        let (mut socket, mut far) = connect(host, listener);
        far.write_all(b"0123456789").expect("write");
        assert_eq!(peek(&mut socket, 0, &mut buf).expect("data"), 10);
        socket2::SockRef::from(&far)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
        drop(far);
        assert_eq!(
            peek(&mut socket, 10, &mut buf).expect_err("reset").kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(peek(&mut socket, 0, &mut buf).expect("data before it"), 10);
    });
}

/// Data and the end that come together, between any two steps of a peek.
#[test]
fn the_end_of_the_stream_never_overtakes_data() {
    each(|host, listener| {
        for n in 0..400u32 {
            let (mut socket, mut far) = connect(host, listener);
            let mut buf = [0; 16];
            far.write_all(b"a").expect("write");
            assert_eq!(peek(&mut socket, 0, &mut buf).expect("data"), 1);
            let sender = std::thread::spawn(move || {
                for _ in 0..n % 64 * 20 {
                    std::hint::spin_loop();
                }
                far.write_all(b"b").expect("write");
                far.shutdown(Shutdown::Write).expect("shutdown");
                far
            });
            assert_eq!(peek(&mut socket, 1, &mut buf).expect("data"), 1, "round {n}");
            sender.join().expect("sender");
        }
    });
}
