//! UDP sockets of the real host.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use pontoon_switch::sys::udp as sys;
use pontoon_switch::worker::Interest;
use pontoon_switch::{Feature, Features};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::RealHost;
use crate::host::{HostError, IpVersion, Origin, Token, UdpBatch, UdpHost, UdpRecv, UdpSend, UdpSocket};

/// The kernel's own ephemeral ports, where it does not say.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// A UDP socket of the real host.
#[derive(Debug)]
pub struct RealUdp {
    socket: Socket,
    v6: bool,
    /// What the socket was last told; `None` before that.
    dont_fragment: Option<bool>,
    gso: bool,
    /// Where the last datagram was going that was too big: IPv4's entry in the error queue for it has no port.
    too_big: Option<SocketAddr>,
}

impl RealHost {
    /// Takes over the socket of a published port, which the front has bound. It is not yet watched: see
    /// [`UdpHost::udp_register`].
    ///
    /// # Errors
    /// It is no UDP socket.
    pub fn udp_published(&self, socket: OwnedFd) -> io::Result<RealUdp> {
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::DGRAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        socket.set_nonblocking(true)?;
        let v6 = socket.domain()? == Domain::IPV6;
        RealUdp::new(socket, v6, self.features)
    }
}

impl RealUdp {
    fn new(socket: Socket, v6: bool, features: Features) -> io::Result<Self> {
        sys::report_all(socket.as_fd(), v6)?;
        let gso = features.allows(Feature::UdpGso) && sys::has_gso(socket.as_fd());
        if gso {
            // Linux 5.0; before it each datagram comes by itself.
            let _ = sys::set_gro(socket.as_fd());
        }
        Ok(Self {
            socket,
            v6,
            dont_fragment: None,
            gso,
            too_big: None,
        })
    }

    /// Has fragmentation allowed or not from now on, and gives the rest of `how` as the system call takes it.
    fn prepare(&mut self, how: &UdpSend) -> io::Result<sys::Outgoing> {
        if self.dont_fragment != Some(how.dont_fragment) {
            sys::set_dont_fragment(self.socket.as_fd(), self.v6, how.dont_fragment)?;
            self.dont_fragment = Some(how.dont_fragment);
        }
        Ok(sys::Outgoing {
            remote: how.remote,
            local: how.local,
            hop_limit: how.hop_limit,
            tos: how.tos,
            segment: None,
        })
    }

    fn send_once(&mut self, out: &sys::Outgoing, parts: &[IoSlice<'_>]) -> io::Result<()> {
        match sys::send(self.socket.as_fd(), out, parts) {
            Ok(_) => Ok(()),
            // An error of an earlier datagram fails this call once; it stays in the error queue.
            Err(e) if is_pending(&e) => sys::send(self.socket.as_fd(), out, parts).map(drop),
            Err(e) => {
                if Errno::from_io_error(&e) == Some(Errno::MSGSIZE) {
                    self.too_big = Some(out.remote);
                }
                Err(e)
            }
        }
    }
}

fn received(incoming: sys::Incoming) -> UdpRecv {
    UdpRecv {
        len: incoming.len,
        remote: incoming.remote,
        local: incoming.local,
        hop_limit: incoming.hop_limit,
        tos: incoming.tos,
        segment: incoming.segment,
    }
}

/// True for errors that may have been waiting on the socket rather than come from the call.
pub(super) fn is_pending(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::AGAIN | Errno::MSGSIZE | Errno::INVAL | Errno::BADF) | None
    )
}

impl UdpSocket for RealUdp {
    fn send(&mut self, how: &UdpSend, payload: &[u8]) -> io::Result<()> {
        let mut out = self.prepare(how)?;
        let Some(size) = how
            .segment
            .map(usize::from)
            .filter(|&s| s > 0 && s < payload.len())
        else {
            return self.send_once(&out, &[IoSlice::new(payload)]);
        };
        // What UDP_SEGMENT does not take at once: too many, or more than an IP packet holds.
        let room = if self.v6 { 65_527 } else { 65_507 };
        let at_once = (sys::MAX_SEGMENTS.min(room / size)).max(1) * size;
        for part in payload.chunks(at_once) {
            if self.gso && part.len() > size {
                out.segment = how.segment;
                match self.send_once(&out, &[IoSlice::new(part)]) {
                    Ok(()) => continue,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                    // A device without checksums (EIO), or segments over the path's MTU, which may be fragmented.
                    Err(_) => {}
                }
            }
            out.segment = None;
            for datagram in part.chunks(size) {
                self.send_once(&out, &[IoSlice::new(datagram)])?;
            }
        }
        Ok(())
    }

    fn send_run(
        &mut self,
        how: &UdpSend,
        size: usize,
        parts: &[IoSlice<'_>],
        from: usize,
    ) -> Result<(), (usize, io::Error)> {
        let mut out = self.prepare(how).map_err(|e| (from, e))?;
        let single = matches!(parts, [one] if one.len() <= size);
        if from == 0 && (self.gso || single) {
            out.segment = u16::try_from(size).ok().filter(|_| !single);
            match self.send_once(&out, parts) {
                Ok(()) => return Ok(()),
                Err(e) if single || e.kind() == io::ErrorKind::WouldBlock => return Err((0, e)),
                // As above: one by one some may go, and each that does not has its own reason.
                Err(_) => out.segment = None,
            }
        }
        let datagrams = parts.iter().flat_map(|part| part.chunks(size));
        for (n, datagram) in datagrams.enumerate().skip(from) {
            self.send_once(&out, &[IoSlice::new(datagram)])
                .map_err(|e| (n, e))?;
        }
        Ok(())
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<UdpRecv> {
        match sys::recv(self.socket.as_fd(), buf) {
            Err(e) if is_pending(&e) => sys::recv(self.socket.as_fd(), buf),
            done => done,
        }
        .map(received)
    }

    fn recv_many(&mut self, batch: &mut UdpBatch) -> io::Result<()> {
        let fd = self.socket.as_fd();
        let mut once =
            || batch.fill(|buffers, got| sys::recv_many(fd, buffers, |incoming| got(received(incoming))));
        match once() {
            Err(e) if is_pending(&e) => once(),
            done => done,
        }
        .map(drop)
    }

    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<HostError>> {
        let mut error = recv_error(&self.socket, buf)?;
        if let (Some(error), Some(remote)) = (&mut error, self.too_big)
            && error.origin == Origin::Local
            && error.remote.port() == 0
            && error.remote.ip() == remote.ip()
        {
            error.remote.set_port(remote.port());
        }
        Ok(error)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// Takes the next entry of `socket`'s error queue that says something.
pub(super) fn recv_error(socket: &Socket, buf: &mut [u8]) -> io::Result<Option<HostError>> {
    while let Some(error) = sys::recv_error(socket.as_fd(), buf)? {
        // `include/uapi/linux/errqueue.h`: SO_EE_ORIGIN_LOCAL, _ICMP, _ICMP6; the rest are no errors.
        let origin = match error.origin {
            1 => Origin::Local,
            2 => Origin::Icmp,
            3 => Origin::Icmp6,
            _ => continue,
        };
        return Ok(Some(HostError {
            remote: error.remote,
            origin,
            errno: error.errno,
            kind: error.kind,
            code: error.code,
            info: error.info,
            offender: error.offender,
            len: error.len,
        }));
    }
    Ok(None)
}

impl RealHost {
    /// A datagram socket for outgoing traffic, bound to the outbound address and interface, and `port`.
    pub(super) fn datagram(&self, version: IpVersion, protocol: Protocol, port: u16) -> io::Result<Socket> {
        let (domain, source): (_, IpAddr) = match version {
            IpVersion::V4 => (
                Domain::IPV4,
                self.outbound.address4.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            ),
            IpVersion::V6 => (
                Domain::IPV6,
                self.outbound.address6.unwrap_or(Ipv6Addr::UNSPECIFIED).into(),
            ),
        };
        let socket = Socket::new_raw(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        if version == IpVersion::V6 {
            socket.set_only_v6(true)?;
        }
        if let Some(interface) = &self.outbound.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(&SockAddr::from(SocketAddr::new(source, port)))?;
        Ok(socket)
    }
}

impl UdpHost for RealHost {
    type Udp = RealUdp;

    fn udp_open(&mut self, token: Token, version: IpVersion, port: Option<u16>) -> io::Result<RealUdp> {
        let socket = self.datagram(version, Protocol::UDP, port.unwrap_or(0))?;
        let socket = RealUdp::new(socket, version == IpVersion::V6, self.features)?;
        self.registrar
            .register(socket.socket.as_fd(), token.encode(), Interest::READABLE)?;
        Ok(socket)
    }

    fn udp_register(&mut self, socket: &mut RealUdp, token: Token) -> io::Result<()> {
        self.registrar
            .register(socket.socket.as_fd(), token.encode(), Interest::READABLE)
    }

    fn ephemeral_ports(&self) -> (u16, u16) {
        self.ephemeral
    }
}

/// The ports that the kernel gives out by itself.
pub(super) fn ephemeral_ports() -> (u16, u16) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_ascii_whitespace().map_while(|p| p.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => (first, last),
        _ => EPHEMERAL,
    }
}
