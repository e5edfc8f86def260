//! A patch cable between two switches, or a switch and a gateway, of one machine: one end of a Unix socket pair.
//!
//! Each message is a virtio-net header and a frame, so super-frames and partial checksums cross whole. Nothing of the kernel's
//! network has a part in it: making one takes no privilege and leaves no interface. What the other end is too slow for is
//! dropped, as at any device's queue (`queue-full`); it tells when the other end is closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use crate::frame::{Frame, HEADROOM, VNET_HEADER};
use crate::port::software::Software;
use crate::port::{Capabilities, Port, Received, tap};
use crate::{DropReason, sys};

/// Room for what is under way, in bytes; the system's maximum where that is less. A super-frame counts with its overhead.
const QUEUE_BYTES: usize = 16 << 20;

/// One end of a patch cable.
#[derive(Debug)]
pub struct PatchPort {
    fd: OwnedFd,
    mtu: u32,
    software: Software,
}

/// A new cable: its two ends.
///
/// # Errors
/// No descriptor is left.
pub fn cable() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let ends = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    for end in [&ends.0, &ends.1] {
        // The forced size needs a capability over the host.
        if sockopt::set_socket_send_buffer_size_force(end, QUEUE_BYTES).is_err() {
            sockopt::set_socket_send_buffer_size(end, QUEUE_BYTES)?;
        }
    }
    Ok(ends)
}

impl PatchPort {
    /// Takes over one end. `mtu` is that of the link, in bytes of an IP packet.
    ///
    /// # Errors
    /// `ENOTSOCK` and `EINVAL` if `fd` is something else.
    pub fn adopt(fd: OwnedFd, mtu: u32) -> io::Result<Self> {
        if sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(Errno::INVAL.into());
        }
        sys::fd::set_nonblocking(fd.as_fd())?;
        Ok(Self {
            fd,
            mtu,
            software: Software::default(),
        })
    }
}

impl Port for PatchPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        let from = HEADROOM - VNET_HEADER;
        let n = loop {
            match rustix::io::read(&self.fd, &mut buf[from..]) {
                Ok(0) => return Received::Closed(Errno::PIPE.into()),
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Empty,
                Err(e) => return Received::Closed(e.into()),
            }
        };
        tap::frame_in(buf, n)
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let fd = &self.fd;
        self.software.send(frame, Capabilities::ALL, self.mtu, |frame| {
            tap::write(fd.as_fd(), frame)
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn kind(&self) -> &'static str {
        "patch"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{MAX_FRAME, Offload};

    fn ends(mtu: u32) -> (PatchPort, PatchPort) {
        let (a, b) = cable().unwrap();
        (
            PatchPort::adopt(a, mtu).unwrap(),
            PatchPort::adopt(b, mtu).unwrap(),
        )
    }

    #[test]
    fn what_goes_in_at_one_end_comes_out_at_the_other() {
        let (mut a, mut b) = ends(1500);
        let mut bytes = *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5hello";
        a.send(&mut Frame::whole(&mut bytes, Offload::NONE)).unwrap();
        let mut buf = vec![0; HEADROOM + MAX_FRAME];
        match b.recv(&mut buf) {
            Received::Frame(frame) => assert_eq!(frame.bytes(), bytes),
            other => panic!("{other:?}"),
        }
        assert!(matches!(b.recv(&mut buf), Received::Empty));
    }

    #[test]
    fn a_full_cable_drops_and_a_closed_one_says_so() {
        let (mut a, mut b) = ends(65_520);
        let mut bytes = vec![2; 60_000];
        let sent = (0..10_000)
            .take_while(|_| a.send(&mut Frame::whole(&mut bytes, Offload::NONE)).is_ok())
            .count();
        assert!((1..10_000).contains(&sent), "{sent}");
        assert_eq!(
            a.send(&mut Frame::whole(&mut bytes, Offload::NONE)),
            Err(DropReason::QueueFull)
        );
        drop(a);
        let mut buf = vec![0; HEADROOM + MAX_FRAME];
        let got = std::iter::from_fn(|| matches!(b.recv(&mut buf), Received::Frame(_)).then_some(())).count();
        assert_eq!(got, sent);
        assert!(matches!(b.recv(&mut buf), Received::Closed(_)));
    }

    #[test]
    fn another_kind_of_descriptor_is_refused() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert!(PatchPort::adopt(read, 1500).is_err());
    }
}
