//! Conversations by TCP.

use std::net::SocketAddr;
use std::time::Duration;

use pontoon_fixtures::sim::TcpId;
use pontoon_nat::host::sim::tcp::{Closed, Far};
use smoltcp::socket::tcp::State;

use super::World;

pub const SECOND: Duration = Duration::from_secs(1);

/// Opens a connection to `server`, which accepts.
pub fn open(w: &mut World, server: SocketAddr) -> (TcpId, Far) {
    let id = w.container.tcp_connect(server);
    w.until(5 * SECOND, "connected", |w| {
        w.container.tcp_state(id) == State::Established
    });
    let far = w
        .gateway
        .host_mut()
        .tcp
        .far
        .last()
        .expect("a connection on the host")
        .clone();
    (id, far)
}

/// Nothing is left: no flow, no socket.
pub fn assert_clean(w: &mut World) {
    w.pass(15 * SECOND);
    assert_eq!(w.gateway.table().len(), 0, "{:?}", w.gateway.flow_counts());
    assert_eq!(w.gateway.host_mut().tcp.open(), 0, "sockets left open");
}

/// Sends `data` from the container and takes it at the far end, at most `pace` bytes at a time.
pub fn upload(w: &mut World, id: TcpId, far: &Far, data: &[u8], pace: usize) {
    let (mut sent, mut got) = (0, Vec::new());
    w.until(3600 * SECOND, "upload", |w| {
        sent += w.container.tcp_send(id, &data[sent..]);
        got.extend(far.take(pace));
        got.len() >= data.len()
    });
    assert!(got == data, "bytes differ");
}

/// Sends `data` from the far end and takes it in the container, at most `pace` bytes at a time.
pub fn download(w: &mut World, id: TcpId, far: &Far, data: &[u8], pace: usize) {
    far.send(data);
    let mut got = Vec::new();
    w.until(3600 * SECOND, "download", |w| {
        got.extend(w.container.tcp_recv(id, pace));
        got.len() >= data.len()
    });
    assert!(got == data, "bytes differ");
}

/// Closes in order, container first, and checks that nothing is left.
pub fn close(w: &mut World, id: TcpId, far: &Far) {
    w.container.tcp_close(id);
    w.until(60 * SECOND, "the container's FIN passed on", |_| {
        far.closed() == Closed::Fin
    });
    far.finish();
    w.until(60 * SECOND, "the socket released", |_| far.released());
    assert_clean(w);
}
