//! TCP sockets of the real host.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use pontoon_switch::Feature;
use pontoon_switch::sys::tcp as sys;
use pontoon_switch::worker::Interest;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::{RealHost, spare_descriptor};
use crate::host::tcp::data_in;
use crate::host::{Accepted, Connect, SendSpace, TcpHost, TcpSocket, Token};

/// Silence after which the far side is asked whether it is there (RFC 9293 section 3.8.4).
const KEEP_ALIVE: Duration = Duration::from_secs(2 * 3600);

/// How far a peek reaches where the kernel has no `SO_PEEK_OFF`: each copies all that is before it. Two super-frames keep a
/// container, which is as near as its TAP, busy; more would be copied again and again.
const SKIP_MAX: u32 = 128 << 10;

thread_local! {
    /// Where a peek without `SO_PEEK_OFF` puts the bytes that it skips.
    static SKIPPED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TCP connection of the real host.
///
/// What most connections never need costs them no call: options are set when they begin to matter.
#[derive(Debug)]
pub struct RealTcp {
    socket: Socket,
    peek: Peek,
    delay: Delay,
    keep_alive: bool,
    meminfo: bool,
}

/// Where the kernel's next peek reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peek {
    /// At the first unconsumed byte, always: there is no `SO_PEEK_OFF`.
    First,
    /// There too, as no offset has been set yet.
    Unset,
    /// At this offset.
    At(u32),
}

/// Whether a small segment waits for the acknowledgement of another (RFC 9293 section 3.7.4, Nagle's algorithm).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delay {
    /// It would, but none has been sent that it might wait for.
    Fresh,
    /// It would wait for the first.
    Possible,
    /// It does not (`TCP_NODELAY`).
    None,
}

/// A listening socket that the front has bound.
#[derive(Debug)]
pub struct RealListener {
    socket: Socket,
}

impl RealHost {
    /// Watches a listening socket under `token`.
    ///
    /// # Errors
    /// The descriptor is no socket, or the poll refuses it.
    pub fn tcp_listener(&mut self, socket: OwnedFd, token: Token) -> io::Result<RealListener> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // Those that are accepted inherit all of it (`sk_clone` and `tcp_create_openreq_child` in the kernel).
        socket.set_tcp_nodelay(true)?;
        socket.set_out_of_band_inline(true)?;
        set_keep_alive(&socket)?;
        self.registrar
            .register(socket.as_fd(), token.encode(), Interest::READABLE)?;
        Ok(RealListener { socket })
    }

    fn adopt(&self, socket: Socket, v4: bool, delay: Delay, keep_alive: bool) -> RealTcp {
        let has_peek_offset = if v4 {
            self.peek_offset.v4
        } else {
            self.peek_offset.v6
        };
        RealTcp {
            socket,
            peek: if has_peek_offset { Peek::Unset } else { Peek::First },
            delay,
            keep_alive,
            meminfo: self.features.allows(Feature::MemInfo),
        }
    }
}

impl TcpHost for RealHost {
    type Tcp = RealTcp;
    type Listener = RealListener;

    fn tcp_connect(&mut self, token: Token, remote: SocketAddr) -> io::Result<(RealTcp, Connect)> {
        let socket = self.outgoing(remote.ip(), Type::STREAM, Protocol::TCP)?;
        // Before there can be data: an urgent byte that has come is not to be had in line any more.
        socket.set_out_of_band_inline(true)?;
        let connect = connect(&socket, &SockAddr::from(remote))?;
        let tcp = self.adopt(socket, remote.is_ipv4(), Delay::Fresh, false);
        self.tcp_register(&tcp, token)?;
        Ok((tcp, connect))
    }

    fn tcp_accept(&mut self, listener: &mut RealListener) -> io::Result<Accepted<RealTcp>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = rustix::net::acceptfrom_with(&listener.socket, flags)?;
        let peer: SocketAddr = peer
            .and_then(|a| SocketAddr::try_from(a).ok())
            .ok_or_else(|| io::Error::from(Errno::AFNOSUPPORT))?;
        let socket = Socket::from(socket);
        let tcp = self.adopt(socket, peer.is_ipv4(), Delay::None, true);
        let local = tcp.local_addr()?;
        Ok(Accepted {
            socket: tcp,
            peer,
            local,
        })
    }

    fn tcp_register(&mut self, socket: &RealTcp, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registrar
            .register(socket.socket.as_fd(), token.encode(), interest)
    }

    fn tcp_rearm(&mut self, socket: &RealTcp, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registrar
            .reregister(socket.socket.as_fd(), token.encode(), interest)
    }

    fn tcp_refuse(&mut self, listener: &mut RealListener) -> bool {
        drop(self.reserve.take());
        let accepted = rustix::net::accept_with(&listener.socket, SocketFlags::CLOEXEC);
        let refused = accepted.is_ok_and(|fd| Socket::from(fd).set_linger(Some(Duration::ZERO)).is_ok());
        self.reserve = spare_descriptor().ok();
        refused
    }
}

impl TcpSocket for RealTcp {
    fn connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn keep_alive(&mut self) -> io::Result<()> {
        if !self.keep_alive {
            set_keep_alive(&self.socket)?;
            self.keep_alive = true;
        }
        Ok(())
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        self.delay = match self.delay {
            Delay::Fresh => Delay::Possible,
            Delay::Possible => {
                self.socket.set_tcp_nodelay(true)?;
                Delay::None
            }
            Delay::None => Delay::None,
        };
        Ok(rustix::net::send(
            &self.socket,
            data,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?)
    }

    fn send_space(&self, piece: usize) -> SendSpace {
        let fd = self.socket.as_fd();
        if self.meminfo
            && let Ok(buffer) = sys::send_buffer(fd)
        {
            let (size, queued) = (buffer.size as usize, buffer.queued as usize);
            let free = size.saturating_sub(queued);
            return SendSpace {
                // What is queued in parts costs more than it seems to: an eighth less is nearly always taken.
                free: data_in(free, piece).min(free - free / 8),
                capacity: data_in(size, piece),
                // As `sk_stream_is_writeable` in the kernel has it.
                writable: free >= queued / 2,
            };
        }
        let size = self.socket.send_buffer_size().unwrap_or(0);
        let queued = sys::unacknowledged(fd).unwrap_or(0) as usize;
        let mut space = space_without_meminfo(size, queued, piece);
        if !space.writable {
            // A guess so far.
            let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
            let polled = rustix::event::poll(&mut fds, Some(&rustix::time::Timespec::default()));
            space.writable = polled.is_ok() && fds[0].revents().contains(PollFlags::OUT);
        }
        space
    }

    fn peek(&mut self, offset: usize, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        let wanted = u32::try_from(offset).unwrap_or(u32::MAX);
        match self.peek {
            Peek::First => return self.peek_without_offset(offset, buf),
            // Most connections have all that was peeked at acknowledged before there is more.
            Peek::Unset if wanted == 0 => return sys::peek(fd, buf),
            Peek::At(at) if at == wanted => {}
            Peek::Unset | Peek::At(_) => {
                sys::set_peek_offset(fd, wanted as i32)?;
                self.peek = Peek::At(wanted);
            }
        }
        let n = sys::peek(fd, buf)?;
        self.peek = Peek::At(wanted + n as u32);
        Ok(n)
    }

    fn peek_reach(&self) -> u32 {
        match self.peek {
            Peek::First => SKIP_MAX,
            Peek::Unset | Peek::At(_) => u32::MAX,
        }
    }

    fn consume(&mut self, n: usize) -> io::Result<()> {
        let mut left = n;
        while left > 0 {
            match sys::discard(self.socket.as_fd(), left)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => left -= got,
            }
        }
        // The kernel takes what was consumed off its offset, too (sk_peek_offset_bwd).
        if let Peek::At(at) = &mut self.peek {
            *at = at.saturating_sub(n as u32);
        }
        Ok(())
    }

    fn shutdown_send(&mut self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    fn reset_on_drop(&mut self) {
        // Without linger, closing does it too where data are unread; an error leaves that.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(Errno::AFNOSUPPORT))
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket
            .peer_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::from(Errno::AFNOSUPPORT))
    }
}

impl RealTcp {
    /// A peek that copies what is before `offset`, too.
    fn peek_without_offset(&self, offset: usize, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        if offset == 0 {
            return sys::peek(fd, buf);
        }
        match self.peek_skipping(offset, buf)? {
            None => return Ok(0),
            Some(n @ 1..) => return Ok(n),
            Some(0) => {}
        }
        // Nothing behind the offset: whether ever, only the poll tells.
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        rustix::event::poll(&mut fds, Some(&rustix::time::Timespec::default()))?;
        let flags = fds[0].revents();
        if !flags.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Data may have come together with the end, after they were looked for.
        if let Some(n @ 1..) = self.peek_skipping(offset, buf)? {
            return Ok(n);
        }
        if flags.contains(PollFlags::ERR) {
            let error = self.socket.take_error()?;
            return Err(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
        }
        Ok(0)
    }

    /// The bytes behind `offset` that there are now; `None` if there are none at all and the stream has ended.
    fn peek_skipping(&self, offset: usize, buf: &mut [u8]) -> io::Result<Option<usize>> {
        SKIPPED.with_borrow_mut(|skip| {
            if skip.len() < offset {
                skip.resize(offset.next_power_of_two(), 0);
            }
            sys::peek_behind(self.socket.as_fd(), &mut skip[..offset], buf)
        })
    }
}

/// The room in a send buffer of `size` bytes of kernel memory that holds `queued` bytes of data; what those cost in
/// memory is not known, but guessed by the pieces they come in. A quarter is left for what the guess misses.
fn space_without_meminfo(size: usize, queued: usize, piece: usize) -> SendSpace {
    let capacity = data_in(size, piece);
    SendSpace {
        free: (capacity / 4 * 3).saturating_sub(queued),
        capacity,
        writable: queued <= capacity / 2,
    }
}

/// Begins to connect. Where the far side is near (this machine, its containers), the answer has come before `connect`
/// returns but is looked at only then: asked once more, the socket says how it ended, and no event need be waited for.
fn connect(socket: &Socket, remote: &SockAddr) -> io::Result<Connect> {
    let pending = |e: &io::Error, errno: Errno| e.raw_os_error() == Some(errno.raw_os_error());
    match socket.connect(remote) {
        Ok(()) => return Ok(Connect::Done),
        Err(e) if pending(&e, Errno::INPROGRESS) => {}
        Err(e) => return Err(e),
    }
    match socket.connect(remote) {
        Ok(()) => Ok(Connect::Done),
        Err(e) if pending(&e, Errno::ALREADY) => Ok(Connect::Pending),
        Err(e) => Err(e),
    }
}

/// Has a dead far side noticed. (`TcpKeepalive` turns it on as well as setting the time.)
fn set_keep_alive(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// True if TCP sockets of `domain` have `SO_PEEK_OFF` (Linux 6.9; IPv6 6.11).
pub(super) fn has_peek_offset(domain: Domain) -> bool {
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
        .is_ok_and(|s| sys::set_peek_offset(s.as_fd(), 0).is_ok())
}

/// Has the port chosen when the socket connects. Where the kernel cannot, it is chosen now, which still works.
pub(super) fn leave_port_to_connect(socket: &Socket) {
    let _ = sys::set_bind_address_no_port(socket.as_fd());
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use pontoon_switch::{Features, Worker};

    use super::*;
    use crate::config::Outbound;
    use crate::host::Kind;

    /// Whoever waits for the edge of a socket that has become writable finds it so, or would wait in a circle; it takes a
    /// large segment then.
    #[test]
    fn a_writable_socket_has_room() {
        for (features, size) in [
            (Features::ALL, 100),
            (Features::ALL, 65_000),
            (Features::ALL.without(Feature::MemInfo), 100),
            (Features::ALL.without(Feature::MemInfo), 65_000),
        ] {
            let registrar = Worker::builder().unwrap().registrar().unwrap();
            let mut host = RealHost::new(registrar, features, Outbound::default()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let token = Token {
                kind: Kind::Tcp,
                index: 0,
                generation: 0,
            };
            let address = listener.local_addr().unwrap();
            let (mut socket, _) = host.tcp_connect(token, address).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let data = vec![0; size];
            while socket.send(&data).is_ok() {}
            let mut buf = vec![0; 10_000];
            loop {
                let mut fds = [PollFd::new(&socket.socket, PollFlags::OUT)];
                rustix::event::poll(&mut fds, Some(&rustix::time::Timespec::default())).unwrap();
                let space = socket.send_space(size);
                let writable = fds[0].revents().contains(PollFlags::OUT);
                assert_eq!(space.writable, writable, "{features:?} {size} {space:?}");
                if writable {
                    assert!(
                        socket.send(&[0; 65_000]).unwrap() >= 40_000,
                        "{features:?} {size} {space:?}"
                    );
                    break;
                }
                far.read_exact(&mut buf).unwrap();
            }
        }
    }
}
