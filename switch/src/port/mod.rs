//! Ports: where frames enter and leave.

pub mod pair;
pub mod patch;
pub mod plain;
mod software;
pub mod tap;
pub mod veth;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::calls::{Arg, Call};
use crate::{DropReason, Frame};

/// The system calls of ports that are adopted, used and dropped.
pub const CALLS: &[Call] = &[
    Call::any(libc::SYS_read, "a frame comes from a TAP"),
    Call::any(libc::SYS_writev, "a frame goes out behind its header"),
    Call::any(libc::SYS_write, "a frame goes out to a TAP without one"),
    Call::any(libc::SYS_recvmsg, "a frame comes from a packet socket"),
    Call::any(libc::SYS_close, "the port goes"),
    Call::only(
        libc::SYS_fcntl,
        &[
            &[Arg::is(1, libc::F_GETFL as u32)],
            &[Arg::is(1, libc::F_SETFL as u32)],
        ],
        "a descriptor that was passed is not to block",
    ),
    Call::only(
        libc::SYS_ioctl,
        &[
            &[Arg::is(1, libc::TUNGETIFF as u32)],
            &[Arg::is(1, libc::TUNSETVNETHDRSZ as u32)],
            &[Arg::is(1, libc::TUNSETOFFLOAD as u32)],
            &[Arg::is(1, libc::SIOCGIFNAME as u32)],
            &[Arg::is(1, libc::SIOCGIFMTU as u32)],
        ],
        "what a TAP is and which offloads it takes; name and MTU of a packet socket's interface",
    ),
    Call::any(libc::SYS_getsockname, "a packet socket's interface"),
    Call::any(
        libc::SYS_getsockopt,
        "whether a packet socket has a virtio-net header; what kind of socket a patch cable is",
    ),
    Call::only(
        libc::SYS_setsockopt,
        &[
            &[
                Arg::is(1, libc::SOL_PACKET as u32),
                Arg::is(2, libc::PACKET_ADD_MEMBERSHIP as u32),
            ],
            &[
                Arg::is(1, libc::SOL_PACKET as u32),
                Arg::is(2, libc::PACKET_DROP_MEMBERSHIP as u32),
            ],
        ],
        "whether a packet socket's interface is still there",
    ),
    Call::any(
        libc::SYS_uname,
        "whether the kernel knows UDP super-frames on packet sockets",
    ),
];

/// A port's number on its switch. Numbers are not used again while the switch lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u32);

impl PortId {
    /// Ports that a switch can have at a time.
    pub const MAX_PORTS: usize = (1 << Self::SLOT_BITS) - 1;

    /// The number under which the station itself is listed; no wire has it.
    pub const STATION: Self = Self(0);

    const SLOT_BITS: u32 = 12;

    /// The number of the port in `slot` of the switch's dense table, in its `generation`th use.
    pub(crate) const fn of_slot(slot: usize, generation: u32) -> Self {
        Self(generation << Self::SLOT_BITS | slot as u32)
    }

    /// The place in the switch's dense table.
    pub(crate) const fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a port's device takes as it is, so that software need not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP super-frames over IPv4.
    pub tso4: bool,
    /// TCP super-frames over IPv6.
    pub tso6: bool,
    /// UDP super-frames, both versions.
    pub uso: bool,
}

/// What reading a port gave.
#[derive(Debug)]
pub enum Received<'b> {
    /// A frame.
    Frame(Frame<'b>),
    /// Something that is no frame; it was consumed and is to be counted.
    Dropped(DropReason),
    /// Nothing more for now.
    Empty,
    /// The device is gone: the port is to be removed.
    Closed(io::Error),
}

/// One wire of the switch.
pub trait Port: Send {
    /// The descriptor to watch (edge-triggered, readable); none for a port in memory.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Reads one frame into `buf` (at least [`crate::frame::HEADROOM`] + [`crate::frame::MAX_FRAME`] bytes).
    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b>;

    /// Writes one frame, whole or, where the device lacks an offload, segmented and summed in software. Never blocks.
    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason>;

    /// What the device takes as it is.
    fn capabilities(&self) -> Capabilities;

    /// Largest IP packet it carries, in bytes, for a frame that is not a super-frame.
    fn mtu(&self) -> u32;

    /// The kind, as listed: `tap`, `veth`, `pair`, …
    fn kind(&self) -> &'static str;
}
