//! Echo requests by the host: ping sockets (`SOCK_DGRAM` with `IPPROTO_ICMP`), or a raw socket where the host shuts those out.

use std::io;
use std::net::IpAddr;

use super::{HostError, IpVersion, Token};

/// How an echo request leaves the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingSend {
    /// Where to.
    pub remote: IpAddr,
    /// The identifier; a ping socket puts its own in its place.
    pub id: u16,
    /// The sequence number.
    pub sequence: u16,
    /// TTL or hop limit, from 1; the host's default if `None`.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
    /// Whether the host may fragment it.
    pub dont_fragment: bool,
}

/// An echo reply. Its data begin at `offset` of the buffer and are `len` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingRecv {
    /// Where the data begin.
    pub offset: usize,
    /// Bytes of data.
    pub len: usize,
    /// Who answered.
    pub remote: IpAddr,
    /// The identifier: of a ping socket its own, of a raw socket anybody's.
    pub id: u16,
    /// The sequence number.
    pub sequence: u16,
    /// TTL or hop limit it had left.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
}

/// An error about an earlier echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingError {
    /// What happened; its `len` bytes of data begin at `offset` of the buffer.
    pub error: HostError,
    /// Where the data begin.
    pub offset: usize,
    /// The request's identifier and sequence number, if the error says.
    pub echo: Option<(u16, u16)>,
}

/// Makes sockets for echo.
pub trait PingHost {
    /// A ping socket, or a raw one.
    type Ping: PingSocket + std::fmt::Debug;

    /// Opens a ping socket, bound to the outbound address if one is configured; events come under `token`.
    ///
    /// # Errors
    /// `PermissionDenied` where the host shuts ping sockets out (`ping_group_range`), no descriptor left (`EMFILE`),
    /// `EAFNOSUPPORT` without that version of IP.
    fn ping_open(&mut self, token: Token, version: IpVersion) -> io::Result<Self::Ping>;

    /// Lets the events of `socket` come under `token`: for a raw socket, which is made outside the gateway.
    fn ping_register(&mut self, socket: &mut Self::Ping, token: Token) -> io::Result<()>;
}

/// A socket of the host that sends echo requests and gets the answers, never blocking.
pub trait PingSocket {
    /// Sends an echo request with `data` behind its header. A waiting error does not fail it.
    ///
    /// # Errors
    /// The host's own, as of [`super::UdpSocket::send`].
    fn send(&mut self, how: &PingSend, data: &[u8]) -> io::Result<()>;

    /// Takes the next echo reply; anything else that the socket gets is passed over.
    ///
    /// # Errors
    /// `WouldBlock` if none is there.
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<PingRecv>;

    /// Takes the next error about an earlier request; `None` if none waits.
    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<PingError>>;

    /// The identifier it sends with, if it is a ping socket.
    fn id(&self) -> Option<u16>;
}
