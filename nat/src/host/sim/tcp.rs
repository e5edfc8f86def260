//! Simulated TCP sockets: two byte queues with capacities, ends of stream, resets, and a far end for the test.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use pontoon_switch::Ready;

use super::{Events, SimHost};
use crate::host::{Accepted, Connect, SendSpace, TcpHost, TcpSocket, Token};

/// What becomes of a connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Connected at once.
    Accept,
    /// Pending until [`Far::complete`] or [`Far::fail`].
    Wait,
    /// Fails at once with this error number.
    Fail(i32),
}

/// The simulated TCP world.
#[derive(Debug, Default)]
pub struct Net {
    /// What becomes of a connect to an address; [`Outcome::Fail`] with `ECONNREFUSED` for any other.
    pub servers: HashMap<SocketAddr, Outcome>,
    /// Far ends of connections that were made, oldest first.
    pub far: Vec<Far>,
    /// Capacity of the send buffer of new sockets, in bytes.
    pub send_capacity: usize,
    /// Kernel-like accounting of the send buffer of new sockets: each piece that is sent costs this much of the capacity
    /// besides its bytes, and is taken whole if it begins below the capacity. Without, a buffer takes what fits to the byte.
    pub piece_overhead: Option<usize>,
    /// Sockets that may be open at a time.
    pub descriptors: Option<usize>,
    /// How far a peek at a new socket may reach, as on a kernel without `SO_PEEK_OFF`.
    pub peek_reach: Option<u32>,
    open: Vec<Weak<RefCell<Stream>>>,
}

#[derive(Debug)]
struct Stream {
    remote: SocketAddr,
    local: SocketAddr,
    token: Option<Token>,
    events: Events,
    pending: bool,
    error: Option<i32>,
    /// From the gateway to the far end.
    sent: VecDeque<u8>,
    /// Bytes of each piece in `sent`.
    pieces: VecDeque<usize>,
    piece_overhead: Option<usize>,
    /// Sends that did not take all they were offered.
    short_sends: u64,
    send_capacity: usize,
    peek_reach: u32,
    /// A send has met a full buffer: room makes an edge.
    send_blocked: bool,
    sent_fin: bool,
    /// From the far end to the gateway.
    received: VecDeque<u8>,
    received_fin: bool,
    reset_by_far: bool,
    linger_zero: bool,
    keep_alive: bool,
    closed: bool,
    space_asked: Cell<u64>,
}

impl Stream {
    fn edge(&self, ready: Ready) {
        if let (Some(token), false) = (self.token, self.closed) {
            self.events.borrow_mut().push((token, ready));
        }
    }

    /// What of the capacity is in use.
    fn queued(&self) -> usize {
        self.sent.len() + self.pieces.len() * self.piece_overhead.unwrap_or(0)
    }

    /// A third of the buffer is free.
    fn has_third(&self) -> bool {
        self.queued() <= self.send_capacity * 2 / 3
    }

    fn present(&self) -> Ready {
        Ready {
            readable: !self.received.is_empty() || self.received_fin || self.reset_by_far,
            writable: !self.pending && self.queued() < self.send_capacity,
            error: self.error.is_some() || self.reset_by_far,
            hangup: self.received_fin || self.reset_by_far,
        }
    }
}

/// The gateway's end of a simulated connection.
#[derive(Debug)]
pub struct SimTcp(Rc<RefCell<Stream>>);

/// The far end of a simulated connection, held by the test.
#[derive(Clone, Debug)]
pub struct Far(Rc<RefCell<Stream>>);

/// How the gateway left a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// It has not.
    Open,
    /// It has sent a FIN.
    Fin,
    /// It has sent a reset.
    Reset,
}

impl Far {
    /// Where the gateway connected to, or the client's own address.
    pub fn remote(&self) -> SocketAddr {
        self.0.borrow().remote
    }

    /// A pending connect succeeds.
    pub fn complete(&self) {
        let mut s = self.0.borrow_mut();
        s.pending = false;
        s.edge(Ready {
            writable: true,
            ..Ready::default()
        });
    }

    /// A pending connect fails with an error number.
    pub fn fail(&self, errno: i32) {
        let mut s = self.0.borrow_mut();
        s.error = Some(errno);
        s.edge(Ready {
            writable: true,
            error: true,
            hangup: true,
            ..Ready::default()
        });
    }

    /// Sends data to the gateway.
    pub fn send(&self, data: &[u8]) {
        let mut s = self.0.borrow_mut();
        s.received.extend(data);
        s.edge(Ready {
            readable: true,
            ..Ready::default()
        });
    }

    /// Bytes sent that the gateway has not consumed.
    pub fn unconsumed(&self) -> usize {
        self.0.borrow().received.len()
    }

    /// Ends the far side's stream.
    pub fn finish(&self) {
        let mut s = self.0.borrow_mut();
        s.received_fin = true;
        s.edge(Ready {
            readable: true,
            hangup: true,
            ..Ready::default()
        });
    }

    /// Resets the connection.
    pub fn reset(&self) {
        let mut s = self.0.borrow_mut();
        s.reset_by_far = true;
        s.error = Some(rustix::io::Errno::CONNRESET.raw_os_error());
        s.edge(Ready {
            readable: true,
            writable: true,
            error: true,
            hangup: true,
        });
    }

    /// Takes up to `n` bytes that the gateway has sent.
    pub fn take(&self, n: usize) -> Vec<u8> {
        let mut s = self.0.borrow_mut();
        let n = n.min(s.sent.len());
        let data: Vec<u8> = s.sent.drain(..n).collect();
        let mut left = n;
        while let Some(first) = s.pieces.front_mut().filter(|_| left > 0) {
            let part = left.min(*first);
            left -= part;
            *first -= part;
            if *first == 0 {
                s.pieces.pop_front();
            }
        }
        if n > 0 && s.send_blocked && s.has_third() {
            s.send_blocked = false;
            s.edge(Ready {
                writable: true,
                ..Ready::default()
            });
        }
        data
    }

    /// How the gateway has left its side; a FIN counts once all that was sent before it is taken.
    pub fn closed(&self) -> Closed {
        let s = self.0.borrow();
        // As the kernel does: closing with unread data, or with linger 0, resets.
        if s.closed && (s.linger_zero || !s.received.is_empty()) {
            Closed::Reset
        } else if (s.sent_fin || s.closed) && s.sent.is_empty() {
            Closed::Fin
        } else {
            Closed::Open
        }
    }

    /// True if the gateway has asked the kernel to notice a dead far side.
    pub fn kept_alive(&self) -> bool {
        self.0.borrow().keep_alive
    }

    /// True if the gateway's socket is writable as the kernel has it: a third of its buffer is free.
    pub fn has_room(&self) -> bool {
        self.0.borrow().has_third()
    }

    /// How often the gateway has sent what was not wholly taken.
    pub fn short_sends(&self) -> u64 {
        self.0.borrow().short_sends
    }

    /// How often the gateway has asked for the room in the send buffer.
    pub fn space_asked(&self) -> u64 {
        self.0.borrow().space_asked.get()
    }

    /// True if the gateway holds no descriptor for it any more.
    pub fn released(&self) -> bool {
        self.0.borrow().closed
    }
}

/// A published port, and the clients waiting at it.
#[derive(Clone, Debug, Default)]
pub struct SimListener {
    waiting: Rc<RefCell<VecDeque<SimTcpParts>>>,
    error: Rc<Cell<Option<i32>>>,
}

type SimTcpParts = Rc<RefCell<Stream>>;

impl SimListener {
    /// Every accept fails with this error number from now on.
    pub fn fail(&self, errno: i32) {
        self.error.set(Some(errno));
    }

    /// A client at `peer` connects to `local`; the test hands the listener's token to the gateway itself.
    pub fn connect(&self, host: &SimHost, peer: SocketAddr, local: SocketAddr) -> Far {
        let stream = Rc::new(RefCell::new(Stream {
            local,
            ..host.tcp.stream(peer, host.events.clone(), None, false)
        }));
        self.waiting.borrow_mut().push_back(stream.clone());
        Far(stream)
    }
}

impl Net {
    fn stream(&self, remote: SocketAddr, events: Events, token: Option<Token>, pending: bool) -> Stream {
        let send_capacity = if self.send_capacity == 0 {
            256 * 1024
        } else {
            self.send_capacity
        };
        let local = if remote.is_ipv4() {
            SocketAddr::from(([192, 0, 2, 1], 40_000))
        } else {
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 40_000))
        };
        Stream {
            remote,
            local,
            token,
            events,
            pending,
            error: None,
            sent: VecDeque::new(),
            pieces: VecDeque::new(),
            piece_overhead: self.piece_overhead,
            short_sends: 0,
            send_capacity,
            peek_reach: self.peek_reach.unwrap_or(u32::MAX),
            send_blocked: false,
            sent_fin: false,
            received: VecDeque::new(),
            received_fin: false,
            reset_by_far: false,
            linger_zero: false,
            keep_alive: false,
            closed: false,
            space_asked: Cell::new(0),
        }
    }

    /// Sockets that the gateway has open.
    pub fn open(&mut self) -> usize {
        self.open
            .retain(|s| s.upgrade().is_some_and(|s| !s.borrow().closed));
        self.open.len()
    }

    fn exhausted(&mut self) -> bool {
        self.descriptors.is_some_and(|most| self.open() >= most)
    }
}

impl TcpHost for SimHost {
    type Tcp = SimTcp;
    type Listener = SimListener;

    fn tcp_connect(&mut self, token: Token, remote: SocketAddr) -> io::Result<(SimTcp, Connect)> {
        if self.tcp.exhausted() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let refused = Outcome::Fail(rustix::io::Errno::CONNREFUSED.raw_os_error());
        let connect = match self.tcp.servers.get(&remote).copied().unwrap_or(refused) {
            Outcome::Accept => Connect::Done,
            Outcome::Wait => Connect::Pending,
            Outcome::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
        };
        let stream = self.tcp.stream(
            remote,
            self.events.clone(),
            Some(token),
            connect == Connect::Pending,
        );
        let stream = Rc::new(RefCell::new(stream));
        self.tcp.open.push(Rc::downgrade(&stream));
        self.tcp.far.push(Far(stream.clone()));
        Ok((SimTcp(stream), connect))
    }

    fn tcp_accept(&mut self, listener: &mut SimListener) -> io::Result<Accepted<SimTcp>> {
        if let Some(errno) = listener.error.get() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if listener.waiting.borrow().is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.tcp.exhausted() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let stream = listener.waiting.borrow_mut().pop_front();
        let stream = stream.ok_or(io::ErrorKind::WouldBlock)?;
        self.tcp.open.push(Rc::downgrade(&stream));
        let (peer, local) = (stream.borrow().remote, stream.borrow().local);
        Ok(Accepted {
            socket: SimTcp(stream),
            peer,
            local,
        })
    }

    fn tcp_register(&mut self, socket: &SimTcp, token: Token) -> io::Result<()> {
        let mut s = socket.0.borrow_mut();
        s.token = Some(token);
        s.edge(s.present());
        Ok(())
    }

    fn tcp_rearm(&mut self, socket: &SimTcp, token: Token) -> io::Result<()> {
        let mut s = socket.0.borrow_mut();
        s.token = Some(token);
        let present = s.present();
        let room = present.writable && s.has_third();
        s.send_blocked |= !room;
        if room || present.readable {
            s.edge(Ready {
                writable: room,
                ..present
            });
        }
        Ok(())
    }

    fn tcp_refuse(&mut self, listener: &mut SimListener) -> bool {
        match listener.waiting.borrow_mut().pop_front() {
            Some(stream) => {
                let mut s = stream.borrow_mut();
                s.linger_zero = true;
                s.closed = true;
                true
            }
            None => false,
        }
    }
}

impl TcpSocket for SimTcp {
    fn connected(&mut self) -> io::Result<bool> {
        let mut s = self.0.borrow_mut();
        match s.error.take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(!s.pending),
        }
    }

    fn keep_alive(&mut self) -> io::Result<()> {
        self.0.borrow_mut().keep_alive = true;
        Ok(())
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut s = self.0.borrow_mut();
        if let Some(errno) = s.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if s.reset_by_far || s.sent_fin {
            return Err(rustix::io::Errno::PIPE.into());
        }
        let free = s.send_capacity.saturating_sub(s.queued());
        let n = match s.piece_overhead {
            Some(_) if free > 0 => data.len(),
            Some(_) => 0,
            None => data.len().min(free),
        };
        s.short_sends += u64::from(n < data.len());
        if n > 0 && s.piece_overhead.is_some() {
            s.pieces.push_back(n);
        }
        if n == 0 && !data.is_empty() {
            s.send_blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        s.sent.extend(&data[..n]);
        Ok(n)
    }

    fn send_space(&self, piece: usize) -> SendSpace {
        let s = self.0.borrow();
        s.space_asked.set(s.space_asked.get() + 1);
        let free = s.send_capacity.saturating_sub(s.queued());
        let data = |memory| match s.piece_overhead {
            Some(overhead) => memory * piece / (piece + overhead),
            None => memory,
        };
        SendSpace {
            free: data(free),
            capacity: data(s.send_capacity),
            writable: s.has_third(),
        }
    }

    fn peek(&mut self, offset: usize, buf: &mut [u8]) -> io::Result<usize> {
        let mut s = self.0.borrow_mut();
        assert!(
            offset + buf.len() <= s.peek_reach as usize,
            "peeked at {offset}, out of reach"
        );
        let n = s.received.len().saturating_sub(offset).min(buf.len());
        if n > 0 {
            for (to, from) in buf.iter_mut().zip(s.received.range(offset..offset + n)) {
                *to = *from;
            }
            return Ok(n);
        }
        if let Some(errno) = s.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if s.received_fin || s.reset_by_far {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn peek_reach(&self) -> u32 {
        self.0.borrow().peek_reach
    }

    fn consume(&mut self, n: usize) -> io::Result<()> {
        let mut s = self.0.borrow_mut();
        if n > s.received.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        s.received.drain(..n);
        Ok(())
    }

    fn shutdown_send(&mut self) -> io::Result<()> {
        self.0.borrow_mut().sent_fin = true;
        Ok(())
    }

    fn reset_on_drop(&mut self) {
        self.0.borrow_mut().linger_zero = true;
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.borrow().local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.borrow().remote)
    }
}

impl Drop for SimTcp {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}
