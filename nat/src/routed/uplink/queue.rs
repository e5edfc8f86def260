//! Packets that wait for their neighbour's Ethernet address (RFC 4861 section 7.2.2, RFC 1122 section 2.3.2.2).
//!
//! Bounded for each neighbour, in number and in bytes, and in all; where there is no room the oldest goes, for it is the one
//! that its sender has soonest given up. A super-frame waits whole.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{Frame, MacAddr, Offload};

/// Frames for one neighbour.
pub(super) const EACH: usize = 16;
/// Bytes for one neighbour: a super-frame and what came with it.
pub(super) const EACH_BYTES: usize = 128 << 10;
/// Frames in all.
pub(super) const ALL: usize = 4096;
/// Bytes in all.
pub(super) const ALL_BYTES: usize = 1 << 20;

/// One frame that waits, with headroom before it.
#[derive(Debug)]
pub(super) struct Waiting {
    hop: IpAddr,
    buf: Box<[u8]>,
    offload: Offload,
}

impl Waiting {
    /// What the frame claims of itself.
    pub(super) fn offload(&self) -> Offload {
        self.offload
    }

    /// The bytes of the frame.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf[HEADROOM..]
    }

    /// The frame, addressed to `mac`.
    pub(super) fn to(&mut self, mac: MacAddr) -> Frame<'_> {
        self.buf[HEADROOM..HEADROOM + 6].copy_from_slice(&mac.0);
        let end = self.buf.len();
        Frame::new(&mut self.buf, HEADROOM, end, self.offload)
    }
}

/// One neighbour's frames, by the numbers under which they wait.
#[derive(Debug, Default)]
struct Line {
    numbers: VecDeque<u64>,
    bytes: usize,
}

/// All that waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the order of their coming.
    frames: BTreeMap<u64, Waiting>,
    lines: BTreeMap<IpAddr, Line>,
    bytes: usize,
    next: u64,
}

impl Queue {
    /// Keeps a copy of `frame` for `hop`; how many frames had to go for it, itself among them if it is too large to wait.
    pub(super) fn keep(&mut self, hop: IpAddr, frame: &Frame<'_>) -> usize {
        let len = frame.len();
        if len > EACH_BYTES {
            return 1;
        }
        let mut gone = 0;
        while let Some(line) = self.lines.get(&hop)
            && (line.numbers.len() >= EACH || line.bytes + len > EACH_BYTES)
            && let Some(&oldest) = line.numbers.front()
        {
            self.remove(oldest);
            gone += 1;
        }
        while (self.frames.len() >= ALL || self.bytes + len > ALL_BYTES)
            && let Some((&oldest, _)) = self.frames.first_key_value()
        {
            self.remove(oldest);
            gone += 1;
        }
        let mut buf = vec![0; HEADROOM + len].into_boxed_slice();
        buf[HEADROOM..].copy_from_slice(frame.bytes());
        let waiting = Waiting {
            hop,
            buf,
            offload: frame.offload,
        };
        self.frames.insert(self.next, waiting);
        let line = self.lines.entry(hop).or_default();
        line.numbers.push_back(self.next);
        line.bytes += len;
        self.bytes += len;
        self.next += 1;
        gone
    }

    /// Takes what waits for `hop`, in the order of its coming.
    pub(super) fn take(&mut self, hop: IpAddr) -> Vec<Waiting> {
        let Some(line) = self.lines.remove(&hop) else {
            return Vec::new();
        };
        self.bytes -= line.bytes;
        let numbers = line.numbers.iter();
        numbers.filter_map(|n| self.frames.remove(n)).collect()
    }

    /// Frames that wait, and their bytes.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.frames.len(), self.bytes)
    }

    fn remove(&mut self, number: u64) {
        let Some(waiting) = self.frames.remove(&number) else {
            return;
        };
        let len = waiting.bytes().len();
        self.bytes -= len;
        if let Some(line) = self.lines.get_mut(&waiting.hop) {
            line.numbers.retain(|&n| n != number);
            line.bytes -= len;
            if line.numbers.is_empty() {
                self.lines.remove(&waiting.hop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(queue: &mut Queue, hop: u32, mark: u8, len: usize) -> usize {
        let mut bytes = vec![mark; len];
        let hop = IpAddr::V4(hop.into());
        queue.keep(hop, &Frame::whole(&mut bytes, Offload::NONE))
    }

    #[test]
    fn the_oldest_of_a_neighbour_goes_first() {
        let mut queue = Queue::default();
        assert_eq!(keep(&mut queue, 2, 99, 60), 0);
        let gone: usize = (0..20).map(|i| keep(&mut queue, 1, i, 60)).sum();
        assert_eq!(gone, 20 - EACH);
        let taken = queue.take(IpAddr::V4(1.into()));
        let marks: Vec<u8> = taken.iter().map(|w| w.bytes()[20]).collect();
        assert_eq!(marks, (4..20).collect::<Vec<u8>>());
        assert_eq!(queue.held(), (1, 60));
    }

    #[test]
    fn bytes_are_bounded_for_each_and_in_all() {
        let mut queue = Queue::default();
        assert_eq!(keep(&mut queue, 1, 0, 65_000), 0);
        assert_eq!(keep(&mut queue, 1, 1, 65_000), 0);
        assert_eq!(keep(&mut queue, 1, 2, 65_000), 1, "the first one went");
        assert_eq!(keep(&mut queue, 1, 3, EACH_BYTES + 1), 1, "too large to wait");
        for hop in 2..100 {
            keep(&mut queue, hop, 0, 60_000);
            let (frames, bytes) = queue.held();
            assert!(bytes <= ALL_BYTES && frames <= ALL);
        }
        assert!(queue.take(IpAddr::V4(1.into())).is_empty(), "the oldest of all");
        for hop in 0..10_000 {
            keep(&mut queue, hop, 0, 14);
        }
        assert_eq!(queue.held().0, ALL);
    }
}
