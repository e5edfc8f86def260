//! A packet socket on one end of a veth pair (or on any other interface).
//!
//! On a host interface it hears all of that LAN (it is promiscuous), as a bridge does, but not what the host itself sends there:
//! containers on such a port do not reach the host by it, nor it them, as with macvlan. Segments that the host has put together
//! (GRO) come as the super-frames they have become; those of a card that does so by itself (LRO) have lost the checksum that a
//! super-frame must claim and are dropped (`bad-offload`): the kernel turns LRO off for bridges too, here the administrator does.
//! The MTU is the interface's when the port is made.
//!
//! The kernel takes VLAN tags out of what it gives to a packet socket; they are put back here. Unlike a TAP's, this
//! descriptor tells when the device goes (`ENETDOWN`, and no interface any more).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::features::{Feature, Features};
use crate::frame::{Frame, HEADROOM, MAX_FRAME, Offload, VNET_HEADER, VlanTag};
use crate::port::software::{Software, gone};
use crate::port::{Capabilities, Port, Received, tap};
use crate::sys::packet;
use crate::{DropReason, sys};

/// A packet socket with a virtio-net header, as [`packet::open_packet`] makes them.
#[derive(Debug)]
pub struct VethPort {
    fd: OwnedFd,
    mtu: u32,
    capabilities: Capabilities,
    software: Software,
}

impl VethPort {
    /// Takes over a packet socket that is bound to its interface. The MTU is asked of the kernel.
    ///
    /// # Errors
    /// `ENODEV` if the interface is gone, `EINVAL` if `fd` is another kind of socket or lacks the virtio-net header.
    pub fn adopt(fd: OwnedFd, features: Features) -> io::Result<Self> {
        let index = packet::interface(fd.as_fd())?.ok_or(Errno::NODEV)?;
        if !packet::has_vnet_header(fd.as_fd())? {
            return Err(Errno::INVAL.into());
        }
        let (_, mtu) = packet::interface_mtu(fd.as_fd(), index)?;
        sys::fd::set_nonblocking(fd.as_fd())?;
        let tso = features.allows(Feature::Tso);
        let uso = tso && features.allows(Feature::Uso) && kernel_knows_uso();
        let capabilities = Capabilities {
            checksum: true,
            tso4: tso,
            tso6: tso,
            uso,
        };
        Ok(Self {
            fd,
            mtu,
            capabilities,
            software: Software::default(),
        })
    }
}

/// UDP super-frames in a virtio-net header came with Linux 6.2. A packet socket has no option that would tell, and a
/// frame to try it with would be seen on the wire.
fn kernel_knows_uso() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 2)
}

impl Port for VethPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        let mut header = [0; VNET_HEADER];
        let taken = loop {
            let error = match packet::receive(self.fd.as_fd(), &mut header, &mut buf[HEADROOM..]) {
                Ok(taken) => break taken,
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                Some(Errno::AGAIN) => return Received::Empty,
                // Down, and perhaps up again later.
                Some(Errno::NETDOWN) if packet::still_there(self.fd.as_fd()) => {
                    return Received::Dropped(DropReason::ReadError);
                }
                Some(Errno::NETDOWN) => return Received::Closed(error),
                Some(e) if gone(e) => return Received::Closed(error),
                Some(_) | None => return Received::Dropped(DropReason::ReadError),
            }
        };
        if taken.truncated || taken.len > MAX_FRAME {
            return Received::Dropped(DropReason::BadLength);
        }
        let end = HEADROOM + taken.len;
        // The header counts from where the tag was taken out, so it is read first.
        let Ok(offload) = Offload::decode(&header, &buf[HEADROOM..end]) else {
            return Received::Dropped(DropReason::BadOffload);
        };
        let mut frame = Frame::new(buf, HEADROOM, end, offload);
        if let Some((tpid, tci)) = taken.vlan
            && !frame.push_vlan(VlanTag { tpid, tci })
        {
            return Received::Dropped(DropReason::BadLength);
        }
        Received::Frame(frame)
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let fd = &self.fd;
        self.software.send(frame, self.capabilities, self.mtu, |frame| {
            tap::write(fd.as_fd(), frame)
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn kind(&self) -> &'static str {
        "veth"
    }
}
