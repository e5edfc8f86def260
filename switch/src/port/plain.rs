//! A descriptor that gives and takes frames as they are: each whole, none larger than the MTU.
//!
//! It is a TAP without a virtio-net header, where the kernel refuses more or somebody else has made it so, or a
//! `SOCK_SEQPACKET` socket with a frame in each message, by which virtual machines (User-mode Linux's `bess` transport)
//! speak.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketType;

use crate::frame::{Frame, HEADROOM, MAX_FRAME, Offload};
use crate::port::software::{Software, gone, refused};
use crate::port::{Capabilities, Port, Received};
use crate::sys::tun;
use crate::{DropReason, sys};

/// A port without offloads.
#[derive(Debug)]
pub struct PlainPort {
    fd: OwnedFd,
    mtu: u32,
    software: Software,
    kind: Kind,
}

/// What is behind the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tap,
    Messages,
}

impl PlainPort {
    /// Takes over the TAP behind `fd`, whose interface has `mtu`.
    ///
    /// # Errors
    /// Those of [`sys::tun::identify`], and `EINVAL` if the TAP has a virtio-net header.
    pub fn adopt(fd: OwnedFd, mtu: u32) -> io::Result<Self> {
        if tun::identify(fd.as_fd())?.vnet_header {
            return Err(Errno::INVAL.into());
        }
        Self::new(fd, mtu, Kind::Tap)
    }

    /// Takes over the connected `SOCK_SEQPACKET` socket `fd`, whose other end has an interface of `mtu`.
    ///
    /// # Errors
    /// `EINVAL` if it is another kind of socket, `ENOTSOCK` if it is none.
    pub fn adopt_socket(fd: OwnedFd, mtu: u32) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(Errno::INVAL.into());
        }
        Self::new(fd, mtu, Kind::Messages)
    }

    fn new(fd: OwnedFd, mtu: u32, kind: Kind) -> io::Result<Self> {
        sys::fd::set_nonblocking(fd.as_fd())?;
        Ok(Self {
            fd,
            mtu,
            software: Software::default(),
            kind,
        })
    }
}

impl Port for PlainPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        loop {
            match rustix::io::read(&self.fd, &mut buf[HEADROOM..]) {
                // An empty message cannot be told from the end, and is no frame either.
                Ok(0) if self.kind == Kind::Messages => {
                    return Received::Closed(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(n) if n > MAX_FRAME => return Received::Dropped(DropReason::BadLength),
                Ok(n) => return Received::Frame(Frame::new(buf, HEADROOM, HEADROOM + n, Offload::NONE)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Empty,
                Err(e) if gone(e) || e == Errno::CONNRESET => return Received::Closed(e.into()),
                Err(_) => return Received::Dropped(DropReason::ReadError),
            }
        }
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let fd = &self.fd;
        self.software.send(frame, Capabilities::NONE, self.mtu, |frame| {
            loop {
                match rustix::io::write(fd, frame.bytes()) {
                    Ok(_) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(refused(e)),
                }
            }
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Tap => "plain",
            Kind::Messages => "messages",
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, socketpair};

    use super::*;

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("pair")
    }

    #[test]
    fn each_message_of_a_socket_is_a_frame_and_its_end_closes_the_port() {
        let (ours, theirs) = pair(SocketType::SEQPACKET);
        let mut port = PlainPort::adopt_socket(ours, 1500).expect("a port");
        let mut buf = vec![0; HEADROOM + MAX_FRAME];
        assert!(matches!(port.recv(&mut buf), Received::Empty));
        for size in [60, 1514] {
            rustix::net::send(&theirs, &vec![7; size], SendFlags::empty()).expect("send");
        }
        for size in [60, 1514] {
            match port.recv(&mut buf) {
                Received::Frame(frame) => assert_eq!(frame.bytes(), vec![7; size]),
                other => panic!("{other:?}"),
            }
        }
        let mut out = vec![9; HEADROOM + 60];
        let mut frame = Frame::new(&mut out, HEADROOM, HEADROOM + 60, Offload::NONE);
        port.send(&mut frame).expect("room");
        let mut got = [0; 100];
        assert_eq!(rustix::io::read(&theirs, &mut got).expect("read"), 60);
        // Nobody reads: what finds no room is dropped and counted, and nobody waits.
        let full = (0..10_000).find_map(|_| port.send(&mut frame).err());
        assert_eq!(full, Some(DropReason::QueueFull));
        drop(theirs);
        assert!(matches!(port.recv(&mut buf), Received::Closed(_)));
        assert!(port.send(&mut frame).is_err());
    }

    #[test]
    fn a_stream_is_no_port() {
        let (ours, _theirs) = pair(SocketType::STREAM);
        assert!(PlainPort::adopt_socket(ours, 1500).is_err());
    }
}
