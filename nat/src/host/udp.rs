//! UDP sockets of the host: unconnected, one for each mapping of a container, each published port, each question of
//! the DNS forwarder.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use super::{Token, UdpBatch};

/// A version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// The version of `addr`.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// How a datagram leaves the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpSend {
    /// Where to.
    pub remote: SocketAddr,
    /// The host's address it comes from, for a published port (`IP_PKTINFO`); the host's choice if `None`.
    pub local: Option<IpAddr>,
    /// TTL or hop limit, from 1; the host's default if `None`.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
    /// Payload bytes of each datagram but the last, where the payload is that of several (`UDP_SEGMENT`). A host
    /// without that sends them one by one.
    pub segment: Option<u16>,
    /// Whether the host may fragment it: if not, one that is too big fails and the path's MTU comes by
    /// [`UdpSocket::recv_error`].
    pub dont_fragment: bool,
}

impl UdpSend {
    /// To `remote`, with everything else left to the host.
    pub fn to(remote: SocketAddr) -> Self {
        Self {
            remote,
            local: None,
            hop_limit: None,
            tos: 0,
            segment: None,
            dont_fragment: false,
        }
    }
}

/// What came with a received datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpRecv {
    /// Bytes in the buffer: the payload of one datagram, or of several (see `segment`).
    pub len: usize,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The host's address it was sent to.
    pub local: Option<IpAddr>,
    /// TTL or hop limit it had left.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
    /// Payload bytes of each datagram but the last, if the host joined several of one sender (`UDP_GRO`).
    pub segment: Option<u16>,
}

/// Who told the host of an error (`ee_origin`, `include/uapi/linux/errqueue.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The host itself, whose `errno` counts: no route, a firewall of its own, too big for the path.
    Local,
    /// An ICMP error.
    Icmp,
    /// An ICMPv6 error.
    Icmp6,
}

/// An error about a datagram sent earlier, from the socket's error queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostError {
    /// Where the datagram was going; the port is 0 for a ping socket.
    pub remote: SocketAddr,
    /// Who says so.
    pub origin: Origin,
    /// The kernel's `errno` for it.
    pub errno: i32,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Next-hop MTU in bytes where the error has one (`EMSGSIZE`), or the pointer of a parameter problem.
    pub info: u32,
    /// The router or host that sent the ICMP error.
    pub offender: Option<IpAddr>,
    /// Bytes that are known of the datagram's payload, in the buffer given; 0 if none.
    pub len: usize,
}

/// Datagrams that [`UdpSocket::send_run`] takes at most (`UDP_MAX_SEGMENTS` before Linux 6.9).
pub const MAX_RUN: usize = 64;

/// Number `n` of the datagrams of `size` bytes in `parts`; see [`UdpSocket::send_run`]. Empty behind the last.
pub fn nth<'p>(parts: &'p [IoSlice<'_>], size: usize, n: usize) -> &'p [u8] {
    let mut before = n;
    for part in parts {
        let here = part.len().div_ceil(size);
        if before < here {
            return &part[before * size..part.len().min((before + 1) * size)];
        }
        before -= here;
    }
    &[]
}

/// Makes UDP sockets.
pub trait UdpHost {
    /// A socket.
    type Udp: UdpSocket + std::fmt::Debug;

    /// Opens a socket for outgoing datagrams, bound to the outbound address if one is configured, and to `port` if that
    /// is given; events come under `token`.
    ///
    /// # Errors
    /// `AddrInUse` if `port` is taken (never shared), `PermissionDenied` if it is not ours to bind, no descriptor or
    /// memory left (`EMFILE`, `ENFILE`, `ENOBUFS`), `EAFNOSUPPORT` without that version of IP.
    fn udp_open(&mut self, token: Token, version: IpVersion, port: Option<u16>) -> io::Result<Self::Udp>;

    /// Lets the events of `socket` come under `token`: for the socket of a published port, which is made outside the gateway.
    fn udp_register(&mut self, socket: &mut Self::Udp, token: Token) -> io::Result<()>;

    /// The ports that the host gives out by itself, first and last (`ip_local_port_range`).
    fn ephemeral_ports(&self) -> (u16, u16);
}

/// A UDP socket of the host, never blocking and never connected.
pub trait UdpSocket {
    /// Sends one datagram, or several if `how` has a segment size. An error waiting on the socket (about an earlier
    /// datagram) does not fail it: it stays in the queue of [`UdpSocket::recv_error`].
    ///
    /// # Errors
    /// The host's own: `WouldBlock` with its buffer full, `ENETUNREACH`, `EHOSTUNREACH`, `EACCES` or `EPERM` by its
    /// firewall, `EMSGSIZE` (the MTU follows in the error queue), `ENOBUFS`.
    fn send(&mut self, how: &UdpSend, payload: &[u8]) -> io::Result<()>;

    /// Sends datagrams in order, from number `from` on, as if by [`UdpSocket::send`] each: as many as it can by one
    /// call. Those in `parts` are of `size` bytes each, none empty, the last of all perhaps shorter; no part begins or
    /// ends within one. They are [`MAX_RUN`] at most and fit one IP packet together; `how` has no segment size.
    ///
    /// # Errors
    /// The number of the first that was not sent, and why: those before it were. It is for the caller to go on behind it.
    fn send_run(
        &mut self,
        how: &UdpSend,
        size: usize,
        parts: &[IoSlice<'_>],
        from: usize,
    ) -> Result<(), (usize, io::Error)>;

    /// Takes the next datagram. One longer than `buf` loses its end; `buf` of 65,535 bytes loses none.
    ///
    /// # Errors
    /// `WouldBlock` if none is there. Waiting errors are no failure here: see [`UdpSocket::recv_error`].
    fn recv(&mut self, buf: &mut [u8]) -> io::Result<UdpRecv>;

    /// Takes the next datagrams into `batch`, as many as [are asked for](UdpBatch::ask) or there are. If it gets fewer
    /// than were asked for, there are no more, and whatever comes later makes an edge: nothing has to be tried again.
    ///
    /// # Errors
    /// Those of [`UdpSocket::recv`]; the batch is then empty.
    fn recv_many(&mut self, batch: &mut UdpBatch) -> io::Result<()>;

    /// Takes the next error about an earlier datagram, with what is known of its payload in `buf`; `None` if none waits.
    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<HostError>>;

    /// Its own address.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
