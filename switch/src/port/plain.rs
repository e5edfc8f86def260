//! A TAP without a virtio-net header: each frame whole, none larger than the MTU. Used where the kernel refuses more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::frame::{Frame, HEADROOM, MAX_FRAME, Offload};
use crate::port::software::{Software, gone, refused};
use crate::port::{Capabilities, Port, Received};
use crate::sys::tun;
use crate::{DropReason, sys};

/// A TAP without a virtio-net header.
#[derive(Debug)]
pub struct PlainPort {
    fd: OwnedFd,
    mtu: u32,
    software: Software,
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
        sys::fd::set_nonblocking(fd.as_fd())?;
        Ok(Self {
            fd,
            mtu,
            software: Software::default(),
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
                Ok(n) if n > MAX_FRAME => return Received::Dropped(DropReason::BadLength),
                Ok(n) => return Received::Frame(Frame::new(buf, HEADROOM, HEADROOM + n, Offload::NONE)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Empty,
                Err(e) if gone(e) => return Received::Closed(e.into()),
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
        "plain"
    }
}
