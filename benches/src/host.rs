//! A host whose sockets answer at once and always the same: what it costs is a few instructions.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use pontoon_nat::host::{
    Accepted, Connect, HostError, IpVersion, PingError, PingHost, PingRecv, PingSend, PingSocket, SendSpace,
    TcpHost, TcpSocket, Token, UdpBatch, UdpHost, UdpRecv, UdpSend, UdpSocket,
};

/// Who answers on the other side.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)), 80);

/// The host's own address.
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000);

/// What the far side of every socket does.
#[derive(Debug, Default)]
pub struct Wire {
    /// Bytes that a TCP socket has for the gateway.
    pub arriving: Cell<usize>,
    /// A TCP stream ends behind those.
    pub ended: Cell<bool>,
    /// Bytes that the sockets took.
    pub taken: Cell<usize>,
    /// Datagrams that wait at a UDP socket, or super-frames of them.
    pub datagrams: Cell<usize>,
    /// Payload bytes of each of those.
    pub datagram_len: Cell<usize>,
    /// Their segment size.
    pub segment: Cell<Option<u16>>,
    /// The token under which the last socket was opened.
    pub token: RefCell<Option<Token>>,
}

/// The host.
#[derive(Debug, Default)]
pub struct Host(Rc<Wire>);

/// Any of its sockets.
#[derive(Debug)]
pub struct Socket(Rc<Wire>);

impl Host {
    /// The far side.
    pub fn wire(&self) -> Rc<Wire> {
        self.0.clone()
    }

    fn open(&self, token: Token) -> Socket {
        *self.0.token.borrow_mut() = Some(token);
        Socket(self.0.clone())
    }
}

impl TcpHost for Host {
    type Tcp = Socket;
    type Listener = Infallible;

    fn tcp_connect(&mut self, token: Token, _: SocketAddr) -> io::Result<(Socket, Connect)> {
        Ok((self.open(token), Connect::Done))
    }
    fn tcp_accept(&mut self, listener: &mut Infallible) -> io::Result<Accepted<Socket>> {
        match *listener {}
    }
    fn tcp_register(&mut self, _: &Socket, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn tcp_rearm(&mut self, _: &Socket, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn tcp_refuse(&mut self, listener: &mut Infallible) -> bool {
        match *listener {}
    }
}

impl TcpSocket for Socket {
    fn connected(&mut self) -> io::Result<bool> {
        Ok(true)
    }
    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.taken.set(self.0.taken.get() + data.len());
        Ok(data.len())
    }
    fn send_space(&self, _piece: usize) -> SendSpace {
        SendSpace {
            free: 4 << 20,
            capacity: 4 << 20,
            writable: true,
        }
    }
    fn peek(&mut self, offset: usize, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.arriving.get().saturating_sub(offset).min(buf.len());
        if n == 0 && !self.0.ended.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    }
    fn peek_reach(&self) -> u32 {
        u32::MAX / 2
    }
    fn consume(&mut self, n: usize) -> io::Result<()> {
        self.0.arriving.set(self.0.arriving.get() - n);
        Ok(())
    }
    fn shutdown_send(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn keep_alive(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn reset_on_drop(&mut self) {}
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(HOST)
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(SERVER)
    }
}

impl UdpHost for Host {
    type Udp = Socket;

    fn udp_open(&mut self, token: Token, _: IpVersion, _: Option<u16>) -> io::Result<Socket> {
        Ok(self.open(token))
    }
    fn udp_register(&mut self, _: &mut Socket, _: Token) -> io::Result<()> {
        Ok(())
    }
    fn ephemeral_ports(&self) -> (u16, u16) {
        (32_768, 60_999)
    }
}

impl UdpSocket for Socket {
    fn send(&mut self, _: &UdpSend, payload: &[u8]) -> io::Result<()> {
        self.0.taken.set(self.0.taken.get() + payload.len());
        Ok(())
    }
    fn send_run(
        &mut self,
        _: &UdpSend,
        _: usize,
        parts: &[IoSlice<'_>],
        _: usize,
    ) -> Result<(), (usize, io::Error)> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.0.taken.set(self.0.taken.get() + len);
        Ok(())
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<UdpRecv> {
        let waiting = self.0.datagrams.get();
        if waiting == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.datagrams.set(waiting - 1);
        Ok(UdpRecv {
            len: self.0.datagram_len.get(),
            remote: SERVER,
            local: Some(HOST.ip()),
            hop_limit: Some(60),
            tos: 0,
            segment: self.0.segment.get(),
        })
    }
    fn recv_many(&mut self, batch: &mut UdpBatch) -> io::Result<()> {
        let asked = batch.asked();
        batch.fill(|_, got| {
            got(UdpSocket::recv(self, &mut [])?);
            (1..asked)
                .map_while(|_| UdpSocket::recv(self, &mut []).ok())
                .for_each(got);
            Ok(())
        })
    }
    fn recv_error(&mut self, _: &mut [u8]) -> io::Result<Option<HostError>> {
        Ok(None)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(HOST)
    }
}

impl PingHost for Host {
    type Ping = Socket;

    fn ping_open(&mut self, token: Token, _: IpVersion) -> io::Result<Socket> {
        Ok(self.open(token))
    }
    fn ping_register(&mut self, _: &mut Socket, _: Token) -> io::Result<()> {
        Ok(())
    }
}

impl PingSocket for Socket {
    fn send(&mut self, _: &PingSend, data: &[u8]) -> io::Result<()> {
        self.0.taken.set(self.0.taken.get() + data.len());
        Ok(())
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<PingRecv> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn recv_error(&mut self, _: &mut [u8]) -> io::Result<Option<PingError>> {
        Ok(None)
    }
    fn id(&self) -> Option<u16> {
        Some(1)
    }
}
