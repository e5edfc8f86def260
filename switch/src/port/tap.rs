//! A TAP with a virtio-net header, by a descriptor that somebody else opened.
//!
//! The fast port: super-frames and partial checksums pass as they are. The descriptor keeps the container's namespace
//! alive and goes on working after the last process in it has ended: who attached it has to say when it is over.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::features::{Feature, Features};
use crate::frame::{Frame, HEADROOM, MAX_FRAME, Offload, VNET_HEADER};
use crate::port::plain::PlainPort;
use crate::port::software::{Software, gone, refused};
use crate::port::{Capabilities, Port, Received};
use crate::sys::tun::{self, TapOffload};
use crate::{DropReason, sys};

/// The port for the TAP behind `fd`: a [`TapPort`] if it has a virtio-net header, a [`PlainPort`] if not.
///
/// `mtu` is that of the interface, in bytes of an IP packet; the descriptor does not tell.
///
/// # Errors
/// Those of [`sys::tun::identify`]: `fd` is no TAP, or its device is gone.
pub fn adopt(fd: OwnedFd, mtu: u32, features: Features) -> io::Result<Box<dyn Port>> {
    if tun::identify(fd.as_fd())?.vnet_header {
        Ok(Box::new(TapPort::adopt(fd, mtu, features)?))
    } else {
        Ok(Box::new(PlainPort::adopt(fd, mtu)?))
    }
}

/// A TAP with a virtio-net header.
#[derive(Debug)]
pub struct TapPort {
    fd: OwnedFd,
    mtu: u32,
    capabilities: Capabilities,
    software: Software,
}

impl TapPort {
    /// Takes `fd` over, sets the size of its header, and asks the kernel for as many offloads as it has.
    ///
    /// # Errors
    /// Those of [`sys::tun::identify`], and `EINVAL` if the TAP has no virtio-net header.
    pub fn adopt(fd: OwnedFd, mtu: u32, features: Features) -> io::Result<Self> {
        if !tun::identify(fd.as_fd())?.vnet_header {
            return Err(Errno::INVAL.into());
        }
        tun::set_vnet_header_size(fd.as_fd(), VNET_HEADER)?;
        sys::fd::set_nonblocking(fd.as_fd())?;
        let capabilities = probe(fd.as_fd(), features)?;
        Ok(Self {
            fd,
            mtu,
            capabilities,
            software: Software::default(),
        })
    }
}

/// Asks for less and less until the kernel agrees. What it may leave undone in frames we read is also what it takes from
/// us: a TAP accepts every super-frame it knows, so only the kinds matter.
fn probe(fd: BorrowedFd<'_>, features: Features) -> io::Result<Capabilities> {
    let checksum = Capabilities {
        checksum: true,
        ..Capabilities::NONE
    };
    let tso = Capabilities {
        tso4: true,
        tso6: true,
        ..checksum
    };
    let steps = [
        (
            TapOffload::USO,
            Capabilities::ALL,
            features.allows(Feature::Tso) && features.allows(Feature::Uso),
        ),
        (TapOffload::TSO, tso, features.allows(Feature::Tso)),
        (TapOffload::CHECKSUM, checksum, true),
        (TapOffload::NONE, Capabilities::NONE, true),
    ];
    let mut refusal = Errno::INVAL.into();
    for (offload, capabilities, allowed) in steps {
        if !allowed {
            continue;
        }
        match tun::set_offload(fd, offload) {
            Ok(()) => return Ok(capabilities),
            Err(e) => refusal = e,
        }
    }
    Err(refusal)
}

impl Port for TapPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        // The header is read into the headroom, right before the frame: one buffer, one read.
        let from = HEADROOM - VNET_HEADER;
        let n = loop {
            match rustix::io::read(&self.fd, &mut buf[from..]) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Empty,
                Err(e) if gone(e) => return Received::Closed(e.into()),
                Err(_) => return Received::Dropped(DropReason::ReadError),
            }
        };
        frame_in(buf, n)
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let fd = &self.fd;
        self.software.send(frame, self.capabilities, self.mtu, |frame| {
            write(fd.as_fd(), frame)
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn kind(&self) -> &'static str {
        "tap"
    }
}

/// The frame in `buf`, of which the `n` bytes read end where it does: its virtio-net header lies in the headroom, right before it.
pub(crate) fn frame_in(buf: &mut [u8], n: usize) -> Received<'_> {
    let from = HEADROOM - VNET_HEADER;
    let end = from + n;
    // A read into a buffer too short loses the rest without a word.
    if n < VNET_HEADER || end - HEADROOM > MAX_FRAME {
        return Received::Dropped(DropReason::BadLength);
    }
    let Some(header) = buf[from..].first_chunk::<VNET_HEADER>() else {
        return Received::Dropped(DropReason::BadLength);
    };
    match Offload::decode(header, &buf[HEADROOM..end]) {
        Ok(offload) => Received::Frame(Frame::new(buf, HEADROOM, end, offload)),
        Err(_) => Received::Dropped(DropReason::BadOffload),
    }
}

/// Writes a frame behind its virtio-net header.
pub(crate) fn write(fd: BorrowedFd<'_>, frame: &Frame<'_>) -> Result<(), DropReason> {
    let header = frame.offload.encode();
    loop {
        match rustix::io::writev(fd, &[IoSlice::new(&header), IoSlice::new(frame.bytes())]) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(refused(e)),
        }
    }
}
