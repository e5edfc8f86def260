//! Two ends of a wire in memory, for tests and simulations: what one sends, the other receives.
//!
//! Either end can be put on a switch as a [`Port`] while the other is worked by hand.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DropReason;
use crate::frame::{Frame, HEADROOM, MAX_FRAME, Offload};
use crate::port::software::Software;
use crate::port::{Capabilities, Port, Received};

/// A frame in a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The frame's bytes.
    pub bytes: Vec<u8>,
    /// What it claims of itself.
    pub offload: Offload,
}

/// What a wire in memory is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// Largest IP packet that is not a super-frame, in bytes.
    pub mtu: u32,
    /// What both ends take as it is.
    pub capabilities: Capabilities,
    /// Frames that wait in each direction before more are dropped.
    pub capacity: usize,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            mtu: 1500,
            capabilities: Capabilities::ALL,
            capacity: 1024,
        }
    }
}

type Queue = Arc<Mutex<VecDeque<Packet>>>;

/// One end.
#[derive(Debug)]
pub struct PairPort {
    wire: Wire,
    to: Queue,
    from: Queue,
    software: Software,
}

/// Both ends of a wire.
pub fn pair(wire: Wire) -> (PairPort, PairPort) {
    let (a, b) = (Queue::default(), Queue::default());
    let end = |to: &Queue, from: &Queue| PairPort {
        wire,
        to: Arc::clone(to),
        from: Arc::clone(from),
        software: Software::default(),
    };
    (end(&a, &b), end(&b, &a))
}

impl PairPort {
    /// Sends `packet` as it is: no check, no segmentation. False if the queue is full.
    pub fn push(&self, packet: Packet) -> bool {
        let mut queue = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let room = queue.len() < self.wire.capacity;
        if room {
            queue.push_back(packet);
        }
        room
    }

    /// Sends a plain frame with a whole checksum. False if the queue is full.
    pub fn push_bytes(&self, bytes: &[u8]) -> bool {
        self.push(Packet {
            bytes: bytes.to_vec(),
            offload: Offload::NONE,
        })
    }

    /// The next frame that the other end sent.
    pub fn pop(&self) -> Option<Packet> {
        self.from
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Frames waiting to be taken from this end.
    pub fn waiting(&self) -> usize {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Port for PairPort {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        let Some(packet) = self.pop() else {
            // The only holder of this queue: the other end is gone.
            return if Arc::strong_count(&self.from) == 1 {
                Received::Closed(io::ErrorKind::BrokenPipe.into())
            } else {
                Received::Empty
            };
        };
        if packet.bytes.len() > MAX_FRAME {
            return Received::Dropped(DropReason::BadLength);
        }
        let end = HEADROOM + packet.bytes.len();
        buf[HEADROOM..end].copy_from_slice(&packet.bytes);
        // Held against the bytes as any other port's, so that a test meets the same checks.
        match Offload::decode(&packet.offload.encode(), &packet.bytes) {
            Ok(offload) => Received::Frame(Frame::new(buf, HEADROOM, end, offload)),
            Err(_) => Received::Dropped(DropReason::BadOffload),
        }
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let (to, capacity) = (&self.to, self.wire.capacity);
        self.software
            .send(frame, self.wire.capabilities, self.wire.mtu, |frame| {
                let mut queue = to.lock().unwrap_or_else(PoisonError::into_inner);
                if queue.len() >= capacity {
                    return Err(DropReason::QueueFull);
                }
                queue.push_back(Packet {
                    bytes: frame.bytes().to_vec(),
                    offload: frame.offload,
                });
                Ok(())
            })
    }

    fn capabilities(&self) -> Capabilities {
        self.wire.capabilities
    }

    fn mtu(&self) -> u32 {
        self.wire.mtu
    }

    fn kind(&self) -> &'static str {
        "pair"
    }
}
