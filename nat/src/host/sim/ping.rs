//! Simulated ping sockets: requests are a list, replies and errors a test injects.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use pontoon_switch::Ready;
use rustix::io::Errno;

use super::{Events, SimHost};
use crate::host::{HostError, IpVersion, Origin, PingError, PingHost, PingRecv, PingSend, PingSocket, Token};

/// An echo request that the gateway sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// How; the identifier is that which the far side sees.
    pub how: PingSend,
    /// The data.
    pub data: Vec<u8>,
}

/// The simulated world of echo.
#[derive(Debug)]
pub struct Net {
    /// Requests sent, oldest first.
    pub sent: VecDeque<Sent>,
    /// Whether ping sockets may be opened (`ping_group_range`).
    pub allowed: bool,
    /// Sockets that may be open at a time.
    pub descriptors: Option<usize>,
    /// Error numbers with which the next sends fail, oldest first.
    pub failures: VecDeque<i32>,
    /// The path's MTU to addresses: a request that may not be fragmented and is longer fails.
    pub path_mtu: HashMap<IpAddr, u32>,
    next_id: u16,
    open: Vec<Weak<RefCell<Socket>>>,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            sent: VecDeque::new(),
            allowed: true,
            descriptors: None,
            failures: VecDeque::new(),
            path_mtu: HashMap::new(),
            next_id: 100,
            open: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Socket {
    version: IpVersion,
    /// `None` for a raw socket, which gets everything.
    id: Option<u16>,
    token: Option<Token>,
    events: Events,
    received: VecDeque<(PingRecv, Vec<u8>)>,
    errors: VecDeque<(PingError, Vec<u8>)>,
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

/// The gateway's end of a simulated ping socket.
#[derive(Clone, Debug)]
pub struct SimPing {
    socket: Rc<RefCell<Socket>>,
    net: Rc<RefCell<Net>>,
}

impl Net {
    fn find(&mut self, version: IpVersion, id: u16) -> Option<Rc<RefCell<Socket>>> {
        self.open.retain(|s| s.strong_count() > 0);
        self.open.iter().filter_map(Weak::upgrade).find(|s| {
            let s = s.borrow();
            s.version == version && s.id.is_none_or(|own| own == id)
        })
    }

    /// Sockets open now.
    pub fn open(&mut self) -> usize {
        self.open.retain(|s| s.strong_count() > 0);
        self.open.len()
    }

    /// `remote` answers the request with `id` and `sequence`. False if nobody listens.
    pub fn reply(&mut self, remote: IpAddr, id: u16, sequence: u16, data: &[u8]) -> bool {
        let Some(socket) = self.find(IpVersion::of(remote), id) else {
            return false;
        };
        let mut socket = socket.borrow_mut();
        let reply = PingRecv {
            offset: 8,
            len: data.len(),
            remote,
            id,
            sequence,
            hop_limit: Some(60),
            tos: 0,
        };
        socket.received.push_back((reply, data.to_vec()));
        socket.edge();
        true
    }

    /// An error about the request with `echo`'s identifier and sequence number comes.
    pub fn inject_error(&mut self, echo: (u16, u16), error: HostError, data: &[u8]) -> bool {
        let Some(socket) = self.find(IpVersion::of(error.remote.ip()), echo.0) else {
            return false;
        };
        let mut socket = socket.borrow_mut();
        let error = PingError {
            error,
            offset: 8,
            echo: Some(echo),
        };
        socket.errors.push_back((error, data.to_vec()));
        socket.edge();
        true
    }
}

impl SimHost {
    /// A raw socket, as the front makes them.
    pub fn ping_raw(&mut self, version: IpVersion) -> SimPing {
        self.ping_socket(None, version, None)
    }

    fn ping_socket(&mut self, token: Option<Token>, version: IpVersion, id: Option<u16>) -> SimPing {
        let socket = Rc::new(RefCell::new(Socket {
            version,
            id,
            token,
            events: self.events.clone(),
            received: VecDeque::new(),
            errors: VecDeque::new(),
        }));
        self.ping.borrow_mut().open.push(Rc::downgrade(&socket));
        SimPing {
            socket,
            net: self.ping.clone(),
        }
    }
}

impl PingHost for SimHost {
    type Ping = SimPing;

    fn ping_open(&mut self, token: Token, version: IpVersion) -> io::Result<SimPing> {
        let id = {
            let mut net = self.ping.borrow_mut();
            if !net.allowed {
                return Err(Errno::ACCESS.into());
            }
            let open = net.open();
            if net.descriptors.is_some_and(|n| open >= n) {
                return Err(Errno::MFILE.into());
            }
            net.next_id += 1;
            net.next_id
        };
        Ok(self.ping_socket(Some(token), version, Some(id)))
    }

    fn ping_register(&mut self, socket: &mut SimPing, token: Token) -> io::Result<()> {
        socket.socket.borrow_mut().token = Some(token);
        Ok(())
    }
}

impl PingSocket for SimPing {
    fn send(&mut self, how: &PingSend, data: &[u8]) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        if let Some(errno) = net.failures.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let headers = if how.remote.is_ipv4() { 28 } else { 48 };
        if let Some(&mtu) = net.path_mtu.get(&how.remote)
            && how.dont_fragment
            && data.len() + headers > mtu as usize
        {
            let error = HostError {
                remote: SocketAddr::new(how.remote, 0),
                origin: Origin::Local,
                errno: Errno::MSGSIZE.raw_os_error(),
                kind: 0,
                code: 0,
                info: mtu,
                offender: None,
                len: 0,
            };
            let error = PingError {
                error,
                offset: 8,
                echo: None,
            };
            self.socket.borrow_mut().errors.push_back((error, Vec::new()));
            return Err(Errno::MSGSIZE.into());
        }
        let id = self.socket.borrow().id.unwrap_or(how.id);
        net.sent.push_back(Sent {
            how: PingSend { id, ..*how },
            data: data.to_vec(),
        });
        Ok(())
    }

    fn recv(&mut self, buf: &mut [u8]) -> io::Result<PingRecv> {
        let (reply, data) = self
            .socket
            .borrow_mut()
            .received
            .pop_front()
            .ok_or(io::ErrorKind::WouldBlock)?;
        let len = data.len().min(buf.len() - reply.offset);
        buf[reply.offset..reply.offset + len].copy_from_slice(&data[..len]);
        Ok(PingRecv { len, ..reply })
    }

    fn recv_error(&mut self, buf: &mut [u8]) -> io::Result<Option<PingError>> {
        Ok(self
            .socket
            .borrow_mut()
            .errors
            .pop_front()
            .map(|(mut error, data)| {
                let len = data.len().min(buf.len() - error.offset);
                buf[error.offset..error.offset + len].copy_from_slice(&data[..len]);
                error.error.len = len;
                error
            }))
    }

    fn id(&self) -> Option<u16> {
        self.socket.borrow().id
    }
}
