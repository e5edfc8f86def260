//! Ping sockets and raw ICMP sockets of the real host.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use pontoon_switch::offload;
use pontoon_switch::sys::udp as sys;
use pontoon_switch::worker::Interest;
use socket2::{Domain, Protocol, Socket, Type};

use super::RealHost;
use super::udp::{is_pending, recv_error};
use crate::host::{IpVersion, PingError, PingHost, PingRecv, PingSend, PingSocket, Token};

/// Bytes of an echo header.
const HEADER: usize = 8;

/// A ping socket, or a raw ICMP socket.
#[derive(Debug)]
pub struct RealPing {
    socket: Socket,
    v6: bool,
    raw: bool,
    dont_fragment: Option<bool>,
}

impl RealHost {
    /// Takes over a raw ICMP or ICMPv6 socket that the front has opened. It is not yet watched: see
    /// [`PingHost::ping_register`].
    ///
    /// # Errors
    /// It is no raw socket.
    pub fn ping_raw(&self, socket: OwnedFd) -> io::Result<(IpVersion, RealPing)> {
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::RAW {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        socket.set_nonblocking(true)?;
        let v6 = socket.domain()? == Domain::IPV6;
        sys::report_all(socket.as_fd(), v6)?;
        sys::filter_echo_replies(socket.as_fd(), v6)?;
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        Ok((
            version,
            RealPing {
                socket,
                v6,
                raw: true,
                dont_fragment: None,
            },
        ))
    }
}

impl PingHost for RealHost {
    type Ping = RealPing;

    fn ping_open(&mut self, token: Token, version: IpVersion) -> io::Result<RealPing> {
        let v6 = version == IpVersion::V6;
        let protocol = if v6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let socket = self.datagram(version, protocol, 0)?;
        sys::report_all(socket.as_fd(), v6)?;
        self.registrar
            .register(socket.as_fd(), token.encode(), Interest::READABLE)?;
        Ok(RealPing {
            socket,
            v6,
            raw: false,
            dont_fragment: None,
        })
    }

    fn ping_register(&mut self, socket: &mut RealPing, token: Token) -> io::Result<()> {
        self.registrar
            .register(socket.socket.as_fd(), token.encode(), Interest::READABLE)
    }
}

impl PingSocket for RealPing {
    fn send(&mut self, how: &PingSend, data: &[u8]) -> io::Result<()> {
        if self.dont_fragment != Some(how.dont_fragment) {
            sys::set_dont_fragment(self.socket.as_fd(), self.v6, how.dont_fragment)?;
            self.dont_fragment = Some(how.dont_fragment);
        }
        let mut header = [if self.v6 { 128 } else { 8 }, 0, 0, 0, 0, 0, 0, 0];
        header[4..6].copy_from_slice(&how.id.to_be_bytes());
        header[6..].copy_from_slice(&how.sequence.to_be_bytes());
        if self.raw && !self.v6 {
            // The kernel fills it in for ping sockets and for ICMPv6.
            let sum = !offload::add(offload::sum(&header), offload::sum(data));
            header[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let out = sys::Outgoing {
            remote: SocketAddr::new(how.remote, 0),
            local: None,
            hop_limit: how.hop_limit,
            tos: how.tos,
            segment: None,
        };
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        match sys::send(self.socket.as_fd(), &out, &parts) {
            Err(e) if is_pending(&e) => sys::send(self.socket.as_fd(), &out, &parts),
            done => done,
        }
        .map(drop)
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<PingRecv> {
        let mut retried = false;
        loop {
            let received = match sys::recv(self.socket.as_fd(), buf) {
                Err(e) if is_pending(&e) && !retried => {
                    retried = true;
                    continue;
                }
                done => done,
            }?;
            // A raw IPv4 socket gives the IP header too.
            let at = if self.raw && !self.v6 {
                usize::from(buf[0] & 15) * 4
            } else {
                0
            };
            let reply = if self.v6 { 129 } else { 0 };
            let end = received.len;
            let Some(&[kind, _, _, _, a, b, c, d]) =
                buf[..end].get(at..).and_then(|m| m.first_chunk::<HEADER>())
            else {
                continue;
            };
            if kind == reply {
                return Ok(PingRecv {
                    offset: at + HEADER,
                    len: end - at - HEADER,
                    remote: received.remote.ip(),
                    id: u16::from_be_bytes([a, b]),
                    sequence: u16::from_be_bytes([c, d]),
                    hop_limit: received.hop_limit,
                    tos: received.tos,
                });
            }
        }
    }

    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<PingError>> {
        let Some(mut error) = recv_error(&self.socket, buf)? else {
            return Ok(None);
        };
        let echo = buf[..error.len]
            .first_chunk::<HEADER>()
            .map(|&[_, _, _, _, a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
        error.len = error.len.saturating_sub(HEADER);
        Ok(Some(PingError {
            error,
            offset: HEADER.min(buf.len()),
            echo,
        }))
    }

    fn id(&self) -> Option<u16> {
        if self.raw {
            return None;
        }
        // The kernel gives a ping socket's identifier as its port.
        self.socket
            .local_addr()
            .ok()?
            .as_socket()
            .map(|a: SocketAddr| a.port())
    }
}
