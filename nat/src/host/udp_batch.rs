//! Room for several received datagrams.

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::sys::udp;

use super::UdpRecv;
use crate::packet::ETHERNET;

/// Datagrams that a batch holds at most.
pub const MAX_BATCH: usize = udp::MAX_BATCH;

/// Bytes before each datagram, for the headers of the frame that it goes on in: IPv6 and UDP are the longest.
pub const ROOM_BEFORE: usize = HEADROOM + ETHERNET + 40 + 8;

/// Bytes of the longest datagram, or of several that the host joined.
const LONGEST: usize = 65_535;

/// Bytes from one datagram's room to the next's: a little more than needed, so that short datagrams, of which only the
/// beginning is touched, do not all fall to the same lines of the cache.
const STRIDE: usize = ROOM_BEFORE + LONGEST + 3 * 64 + (64 - (ROOM_BEFORE + LONGEST) % 64);

/// Several received datagrams, each with room for the longest and for headers before it. The room takes memory only as
/// far as datagrams have filled it.
#[derive(Debug, Default)]
pub struct UdpBatch {
    bytes: Vec<u8>,
    received: Vec<UdpRecv>,
    ask: usize,
}

impl UdpBatch {
    /// Asks for `n` datagrams from now on, from 1 to [`MAX_BATCH`], and forgets those that are there.
    pub fn ask(&mut self, n: usize) {
        if self.bytes.is_empty() {
            // All zeroes: the kernel's own pages, none of which is there before it is written to.
            self.bytes = vec![0; STRIDE * MAX_BATCH];
        }
        self.received.clear();
        self.ask = n.clamp(1, MAX_BATCH);
    }

    /// How many are asked for.
    pub fn asked(&self) -> usize {
        self.ask
    }

    /// What was received.
    pub fn received(&self) -> &[UdpRecv] {
        &self.received
    }

    /// Number `n` with the room before it: its data begins at [`ROOM_BEFORE`].
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        &mut self.bytes[n * STRIDE..(n + 1) * STRIDE]
    }

    /// Puts the data of numbers `first + 1` to `end - 1` behind that of `first`.
    pub fn join(&mut self, first: usize, end: usize) {
        let mut at = first * STRIDE + ROOM_BEFORE + self.received[first].len;
        for n in first + 1..end {
            let from = n * STRIDE + ROOM_BEFORE;
            let len = self.received[n].len;
            self.bytes.copy_within(from..from + len, at);
            at += len;
        }
    }

    /// Has `fill` put datagrams into the buffers that are asked for, each as long as a datagram can be, from the first on,
    /// and say what they are.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn fill<T, E>(
        &mut self,
        fill: impl FnOnce(&mut dyn Iterator<Item = &mut [u8]>, &mut dyn FnMut(UdpRecv)) -> Result<T, E>,
    ) -> Result<T, E> {
        let Self { bytes, received, ask } = self;
        received.clear();
        let mut buffers = bytes
            .chunks_exact_mut(STRIDE)
            .take(*ask)
            .map(|room| &mut room[ROOM_BEFORE..ROOM_BEFORE + LONGEST]);
        fill(&mut buffers, &mut |got| received.push(got))
    }
}
