//! The one seam to the host's sockets.
//!
//! A real host ([`real`]) makes system calls; a simulated one ([`sim`]) is a network in memory with a virtual clock.
//! Nothing else in this crate touches a descriptor. Every operation is non-blocking: `WouldBlock` means that an edge
//! follows, delivered to the gateway as a [`Token`] with what became ready.

mod ping;
pub mod real;
pub mod sim;
mod tcp;
mod udp;
mod udp_batch;

pub use ping::{PingError, PingHost, PingRecv, PingSend, PingSocket};
pub use tcp::{Accepted, Connect, SendSpace, TcpHost, TcpSocket};
pub use udp::{HostError, IpVersion, MAX_RUN, Origin, UdpHost, UdpRecv, UdpSend, UdpSocket, nth};
pub use udp_batch::{MAX_BATCH, ROOM_BEFORE, UdpBatch};

/// Everything that a gateway needs of a host.
pub trait Host: TcpHost + UdpHost + PingHost {}

impl<H: TcpHost + UdpHost + PingHost> Host for H {}

/// What a readiness event is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A TCP relay's socket; the index is that of its connection.
    Tcp,
    /// A published TCP port.
    TcpListener,
    /// A UDP mapping of a container.
    UdpMapping,
    /// A published UDP port.
    UdpPublished,
    /// A ping socket, or the raw socket in its place.
    Ping,
    /// A socket of the DNS forwarder.
    Dns,
}

/// Names the owner of a host socket in readiness events. The generation tells an event for a socket that was closed
/// meanwhile from one for its successor in the same slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Whose it is.
    pub kind: Kind,
    /// Slot in the owner's slab.
    pub index: u32,
    /// The slot's generation; its low 24 bits count.
    pub generation: u32,
}

const KINDS: [Kind; 6] = [
    Kind::Tcp,
    Kind::TcpListener,
    Kind::UdpMapping,
    Kind::UdpPublished,
    Kind::Ping,
    Kind::Dns,
];

impl Token {
    /// As the number that the poll carries: kind in bits 56 to 58, generation in 32 to 55, index below. The bits above
    /// are the worker's.
    pub fn encode(self) -> usize {
        let kind = KINDS.iter().position(|&k| k == self.kind).unwrap_or_default();
        (kind << 56) | ((self.generation as usize & 0xff_ffff) << 32) | self.index as usize
    }

    /// The token in `n`, or `None` if no token encodes so.
    pub fn decode(n: usize) -> Option<Self> {
        let kind = *KINDS.get(n >> 56)?;
        Some(Self {
            kind,
            index: n as u32,
            generation: (n >> 32) as u32 & 0xff_ffff,
        })
    }

    /// True if this token is of `generation`.
    pub fn is_of(self, generation: u32) -> bool {
        self.generation == generation & 0xff_ffff
    }
}
