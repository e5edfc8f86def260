//! What a port does for a device that lacks an offload.

use crate::frame::{Checksum, Frame, GsoKind, HEADROOM, MAX_FRAME};
use crate::offload::{self, Sums};
use crate::port::Capabilities;
use crate::{DropReason, frame::Gso};

/// The buffer in which segments are built, made when first needed: most ports never need it.
#[derive(Debug, Default)]
pub(crate) struct Software(Vec<u8>);

impl Software {
    /// Gives `frame` to `write` as a device with `capabilities` and `mtu` can take it: as it is, summed, or in segments.
    pub(crate) fn send(
        &mut self,
        frame: &mut Frame<'_>,
        capabilities: Capabilities,
        mtu: u32,
        mut write: impl FnMut(&Frame<'_>) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let whole = frame.offload.gso.is_none_or(|gso| capabilities.take(gso));
        if (frame.offload.gso.is_none() || !whole) && offload::packet_len(frame) > mtu as usize {
            return Err(DropReason::TooBig);
        }
        if !whole {
            if self.0.is_empty() {
                self.0 = vec![0; HEADROOM + MAX_FRAME];
            }
            let sums = if capabilities.checksum {
                Sums::Left
            } else {
                Sums::Filled
            };
            return offload::segment(frame, sums, &mut self.0, |segment| write(segment));
        }
        match frame.offload.checksum {
            Checksum::Partial { .. } if !capabilities.checksum => offload::complete(frame),
            Checksum::Partial { .. } | Checksum::Complete | Checksum::Valid => {}
        }
        write(frame)
    }
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self {
        checksum: true,
        tso4: true,
        tso6: true,
        uso: true,
    };

    /// Nothing: each frame whole and summed.
    pub const NONE: Self = Self {
        checksum: false,
        tso4: false,
        tso6: false,
        uso: false,
    };

    /// True if the device takes this kind of super-frame.
    pub fn take(self, gso: Gso) -> bool {
        match gso.kind {
            GsoKind::Tcp4 => self.tso4,
            GsoKind::Tcp6 => self.tso6,
            GsoKind::UdpL4 => self.uso,
        }
    }
}

/// What a failed write means.
pub(crate) fn refused(error: rustix::io::Errno) -> DropReason {
    use rustix::io::Errno;
    match error {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DropReason::QueueFull,
        Errno::MSGSIZE => DropReason::TooBig,
        Errno::BADFD | Errno::NODEV | Errno::NXIO | Errno::NETDOWN | Errno::PIPE | Errno::CONNRESET => {
            DropReason::NoPort
        }
        // EINVAL, EIO: the device does not believe the header. Anything else is no better.
        _ => DropReason::Refused,
    }
}

/// True if a failed read means that the device is gone.
pub(crate) fn gone(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(
        error,
        Errno::BADFD | Errno::BADF | Errno::NODEV | Errno::NXIO | Errno::FAULT
    )
}
