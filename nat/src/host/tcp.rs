//! TCP sockets of the host, as the relay uses them: the kernel's buffers are the only buffers.

use std::io;
use std::net::SocketAddr;

use super::Token;

/// How far a connect got at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connect {
    /// Connected.
    Done,
    /// On its way; writability tells the outcome ([`TcpSocket::connected`]).
    Pending,
}

/// A connection accepted on a published port.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub socket: S,
    /// The client.
    pub peer: SocketAddr,
    /// The host's address that the client reached.
    pub local: SocketAddr,
}

/// Room in the send buffer of a socket, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendSpace {
    /// Free, a low estimate: that much is very likely taken by [`TcpSocket::send`].
    pub free: usize,
    /// What the buffer holds in all.
    pub capacity: usize,
    /// The kernel calls the socket writable: a third of the buffer's memory is free. If not, an edge comes when it is
    /// ([`TcpHost::tcp_rearm`]).
    pub writable: bool,
}

/// Kernel memory that a piece of data is taken to cost in a send buffer besides its own length, in bytes: `struct sk_buff`,
/// room for headers and `struct skb_shared_info`, as `SKB_TRUESIZE` in the kernel's `skbuff.h` sums them. Computed for the
/// worst case, not measured: pieces that the kernel puts together cost far less.
pub(super) const PIECE_OVERHEAD: usize = 1280;

/// The data, sent in pieces of `piece` bytes, that fit `memory` bytes of a send buffer.
pub(super) fn data_in(memory: usize, piece: usize) -> usize {
    let piece = piece.max(1);
    (memory as u64 * piece as u64 / (piece + PIECE_OVERHEAD) as u64) as usize
}

/// Makes TCP sockets.
pub trait TcpHost {
    /// A connection.
    type Tcp: TcpSocket + std::fmt::Debug;
    /// A published port.
    type Listener: std::fmt::Debug;

    /// Begins to connect to `remote`; events come under `token`.
    ///
    /// # Errors
    /// The host's own: `ConnectionRefused`, `NetworkUnreachable`, `HostUnreachable`, or no descriptor left (`EMFILE`).
    fn tcp_connect(&mut self, token: Token, remote: SocketAddr) -> io::Result<(Self::Tcp, Connect)>;

    /// Takes the next waiting client of `listener`. The socket is not yet registered for events: see [`TcpHost::tcp_register`].
    ///
    /// # Errors
    /// `WouldBlock` when none waits; no descriptor left (`EMFILE`), in which case the client goes on waiting.
    fn tcp_accept(&mut self, listener: &mut Self::Listener) -> io::Result<Accepted<Self::Tcp>>;

    /// Lets events of `socket` come under `token`.
    fn tcp_register(&mut self, socket: &Self::Tcp, token: Token) -> io::Result<()>;

    /// Has the present readiness of a registered `socket` reported again, and its next change, under `token`, which may be
    /// another than before: for a caller that waits without having met `WouldBlock`.
    fn tcp_rearm(&mut self, socket: &Self::Tcp, token: Token) -> io::Result<()>;

    /// Refuses the next waiting client of `listener` with a reset, by the descriptor kept in reserve for it. True if
    /// there was one.
    fn tcp_refuse(&mut self, listener: &mut Self::Listener) -> bool;
}

/// A TCP connection of the host. Dropping it closes it in order (FIN, or RST if unread data remain).
pub trait TcpSocket {
    /// How a pending connect ended: `Ok(false)` while it is pending still.
    fn connected(&mut self) -> io::Result<bool>;

    /// Has the kernel ask the far side, after long silence, whether it is there; repeated calls cost nothing. A socket of
    /// [`TcpHost::tcp_accept`] does so already.
    ///
    /// # Errors
    /// The kernel's: the connection lives on unwatched.
    fn keep_alive(&mut self) -> io::Result<()>;

    /// Sends what fits of `data`; bytes taken, which may be fewer than offered.
    fn send(&mut self, data: &[u8]) -> io::Result<usize>;

    /// Room in the send buffer for data that are sent in pieces of `piece` bytes: small ones cost up to twice their length
    /// in the kernel's memory.
    fn send_space(&self, piece: usize) -> SendSpace;

    /// Copies received bytes from `offset` (in bytes behind the first unconsumed one) on into `buf`, without consuming
    /// them. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there is none behind `offset` yet; `ConnectionReset` once (remember it: a later call gives 0).
    fn peek(&mut self, offset: usize, buf: &mut [u8]) -> io::Result<usize>;

    /// How far behind the first unconsumed byte a peek may end: no more than this may be under way at a time.
    fn peek_reach(&self) -> u32;

    /// Takes `n` received bytes off the socket; they must have been peeked at.
    fn consume(&mut self, n: usize) -> io::Result<()>;

    /// Ends our sending side (FIN).
    fn shutdown_send(&mut self) -> io::Result<()>;

    /// Closes with a reset (`SO_LINGER` 0) when it is dropped.
    fn reset_on_drop(&mut self);

    /// Its own address, for listing.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The far side's address.
    ///
    /// # Errors
    /// It is connected no more.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
}
