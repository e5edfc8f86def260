//! Simulated UDP sockets: what the gateway sent is a list, what it gets a test injects.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};

use pontoon_switch::Ready;
use rustix::io::Errno;

use super::{Events, SimHost};
use crate::host::{HostError, IpVersion, Token, UdpBatch, UdpHost, UdpRecv, UdpSend, UdpSocket};

/// A datagram that the gateway sent, or several with a segment size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// The socket's own port.
    pub port: u16,
    /// How.
    pub how: UdpSend,
    /// The payload.
    pub data: Vec<u8>,
}

/// The simulated UDP world.
#[derive(Debug)]
pub struct Net {
    /// The host's own addresses: a datagram to one of them reaches the socket with its port. The first is the source of
    /// others.
    pub addresses: Vec<IpAddr>,
    /// What was sent to elsewhere, oldest first.
    pub sent: VecDeque<Sent>,
    /// Sockets that may be open at a time.
    pub descriptors: Option<usize>,
    /// Error numbers with which the next sends fail, oldest first.
    pub failures: VecDeque<i32>,
    /// The path's MTU to addresses: a datagram that may not be fragmented and is longer fails.
    pub path_mtu: HashMap<IpAddr, u32>,
    /// The ports that the host gives out by itself.
    pub ephemeral: (u16, u16),
    next_port: u16,
    open: Vec<Weak<RefCell<Socket>>>,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            addresses: vec![
                Ipv4Addr::new(192, 0, 2, 1).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
                Ipv4Addr::LOCALHOST.into(),
                Ipv6Addr::LOCALHOST.into(),
            ],
            sent: VecDeque::new(),
            descriptors: None,
            failures: VecDeque::new(),
            path_mtu: HashMap::new(),
            ephemeral: (32_768, 60_999),
            next_port: 40_000,
            open: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    token: Option<Token>,
    events: Events,
    received: VecDeque<(UdpRecv, Vec<u8>)>,
    errors: VecDeque<(HostError, Vec<u8>)>,
}

impl Socket {
    fn edge(&self) {
        if let Some(token) = self.token {
            let ready = Ready {
                readable: !self.received.is_empty(),
                error: !self.errors.is_empty(),
                ..Ready::default()
            };
            self.events.borrow_mut().push((token, ready));
        }
    }
}

/// The gateway's end of a simulated UDP socket.
#[derive(Clone, Debug)]
pub struct SimUdp {
    socket: Rc<RefCell<Socket>>,
    net: Rc<RefCell<Net>>,
}

impl Net {
    fn sockets(&mut self) -> impl Iterator<Item = Rc<RefCell<Socket>>> + '_ {
        self.open.retain(|s| s.strong_count() > 0);
        self.open.iter().filter_map(Weak::upgrade)
    }

    fn find(&mut self, version: IpVersion, port: u16) -> Option<Rc<RefCell<Socket>>> {
        self.sockets().find(|s| {
            let local = s.borrow().local;
            local.port() == port && IpVersion::of(local.ip()) == version
        })
    }

    /// Sockets open now.
    pub fn open(&mut self) -> usize {
        self.sockets().count()
    }

    /// `data` of `received.remote` comes to the socket with `port`. False if there is none.
    pub fn receive(&mut self, port: u16, received: UdpRecv, data: &[u8]) -> bool {
        let Some(socket) = self.find(IpVersion::of(received.remote.ip()), port) else {
            return false;
        };
        let mut socket = socket.borrow_mut();
        socket.received.push_back((
            UdpRecv {
                len: data.len(),
                ..received
            },
            data.to_vec(),
        ));
        socket.edge();
        true
    }

    /// `data` of `remote` comes to the socket with `port`, with 60 hops left. False if there is none.
    pub fn inject(&mut self, port: u16, remote: SocketAddr, data: &[u8]) -> bool {
        let local = self
            .addresses
            .iter()
            .copied()
            .find(|a| a.is_ipv4() == remote.is_ipv4());
        let received = UdpRecv {
            len: data.len(),
            remote,
            local,
            hop_limit: Some(60),
            tos: 0,
            segment: None,
        };
        self.receive(port, received, data)
    }

    /// An error about a datagram of the socket with `port` comes, with what is known of its payload.
    pub fn inject_error(&mut self, port: u16, error: HostError, data: &[u8]) -> bool {
        let Some(socket) = self.find(IpVersion::of(error.remote.ip()), port) else {
            return false;
        };
        let mut socket = socket.borrow_mut();
        socket.errors.push_back((
            HostError {
                len: data.len(),
                ..error
            },
            data.to_vec(),
        ));
        socket.edge();
        true
    }
}

impl SimHost {
    /// A bound socket, as the front makes them for published ports.
    pub fn udp_bound(&mut self, local: SocketAddr) -> io::Result<SimUdp> {
        self.udp_socket(None, local)
    }

    fn udp_socket(&mut self, token: Option<Token>, mut local: SocketAddr) -> io::Result<SimUdp> {
        let mut net = self.udp.borrow_mut();
        let open = net.open();
        if net.descriptors.is_some_and(|n| open >= n) {
            return Err(Errno::MFILE.into());
        }
        let version = IpVersion::of(local.ip());
        if local.port() == 0 {
            while net.next_port < net.ephemeral.0 || {
                let port = net.next_port;
                net.find(version, port).is_some()
            } {
                net.next_port += 1;
            }
            local.set_port(net.next_port);
            net.next_port += 1;
        } else if net.find(version, local.port()).is_some() {
            return Err(Errno::ADDRINUSE.into());
        }
        let socket = Rc::new(RefCell::new(Socket {
            local,
            token,
            events: self.events.clone(),
            received: VecDeque::new(),
            errors: VecDeque::new(),
        }));
        net.open.push(Rc::downgrade(&socket));
        Ok(SimUdp {
            socket,
            net: self.udp.clone(),
        })
    }
}

impl UdpHost for SimHost {
    type Udp = SimUdp;

    fn udp_open(&mut self, token: Token, version: IpVersion, port: Option<u16>) -> io::Result<SimUdp> {
        let any: IpAddr = match version {
            IpVersion::V4 => Ipv4Addr::UNSPECIFIED.into(),
            IpVersion::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.udp_socket(Some(token), SocketAddr::new(any, port.unwrap_or(0)))
    }

    fn udp_register(&mut self, socket: &mut SimUdp, token: Token) -> io::Result<()> {
        let mut socket = socket.socket.borrow_mut();
        socket.token = Some(token);
        if !socket.received.is_empty() || !socket.errors.is_empty() {
            socket.edge();
        }
        Ok(())
    }

    fn ephemeral_ports(&self) -> (u16, u16) {
        self.udp.borrow().ephemeral
    }
}

impl UdpSocket for SimUdp {
    fn send(&mut self, how: &UdpSend, payload: &[u8]) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        if let Some(errno) = net.failures.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let headers = if how.remote.is_ipv4() { 28 } else { 48 };
        let size = how.segment.map_or(payload.len(), usize::from);
        if let Some(&mtu) = net.path_mtu.get(&how.remote.ip())
            && how.dont_fragment
            && size + headers > mtu as usize
        {
            let error = HostError {
                remote: how.remote,
                origin: crate::host::Origin::Local,
                errno: Errno::MSGSIZE.raw_os_error(),
                kind: 0,
                code: 0,
                info: mtu,
                offender: None,
                len: 0,
            };
            self.socket.borrow_mut().errors.push_back((error, Vec::new()));
            return Err(Errno::MSGSIZE.into());
        }
        let port = self.socket.borrow().local.port();
        if !net.addresses.contains(&how.remote.ip()) {
            net.sent.push_back(Sent {
                port,
                how: *how,
                data: payload.to_vec(),
            });
            return Ok(());
        }
        // The host talks to itself from the address that is asked.
        let source = SocketAddr::new(how.local.unwrap_or(how.remote.ip()), port);
        let received = UdpRecv {
            len: payload.len(),
            remote: source,
            local: Some(how.remote.ip()),
            hop_limit: how.hop_limit,
            tos: how.tos,
            segment: how.segment,
        };
        net.receive(how.remote.port(), received, payload);
        Ok(())
    }

    fn send_run(
        &mut self,
        how: &UdpSend,
        size: usize,
        parts: &[IoSlice<'_>],
        from: usize,
    ) -> Result<(), (usize, io::Error)> {
        let datagrams: Vec<&[u8]> = parts.iter().flat_map(|part| part.chunks(size)).collect();
        if from == 0 && datagrams.len() > 1 {
            let all = UdpSend {
                segment: u16::try_from(size).ok(),
                ..*how
            };
            let errors = self.socket.borrow().errors.len();
            match self.send(&all, &datagrams.concat()) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err((0, e)),
                // The kernel leaves nothing in the error queue for segments that are too big.
                Err(_) => self.socket.borrow_mut().errors.truncate(errors),
            }
        }
        for (n, datagram) in datagrams.into_iter().enumerate().skip(from) {
            self.send(how, datagram).map_err(|e| (n, e))?;
        }
        Ok(())
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<UdpRecv> {
        let (received, data) = self
            .socket
            .borrow_mut()
            .received
            .pop_front()
            .ok_or(io::ErrorKind::WouldBlock)?;
        let len = data.len().min(buf.len());
        buf[..len].copy_from_slice(&data[..len]);
        Ok(UdpRecv { len, ..received })
    }

    fn recv_many(&mut self, batch: &mut UdpBatch) -> io::Result<()> {
        batch.fill(|buffers, got| {
            let mut none = true;
            for buffer in buffers {
                match self.recv(buffer) {
                    Ok(received) => got(received),
                    Err(e) if none => return Err(e),
                    Err(_) => break,
                }
                none = false;
            }
            Ok(())
        })
    }

    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<HostError>> {
        Ok(self.socket.borrow_mut().errors.pop_front().map(|(error, data)| {
            let len = data.len().min(buf.len());
            buf[..len].copy_from_slice(&data[..len]);
            HostError { len, ..error }
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.borrow().local)
    }
}
