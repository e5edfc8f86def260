//! Segments that have overtaken others on their way to the relay.
//!
//! The relay holds no data, with this exception: where frames of one flow take ways of their own (a bridge in the container
//! whose packets the kernel handles on several processors), two super-frames swap places now and then, within
//! microseconds. To drop the second would have the container send it again piece by piece, by its timer if nothing follows:
//! seconds for what was never lost. So it is kept until the first is here.
//!
//! What is kept is little, bounded for all and for each container, and worth nothing: whoever keeps another's out loses it
//! a retransmission.

use std::collections::VecDeque;

use pontoon_switch::PortId;

use super::seq::Seq;
use crate::slab::Key;

/// Segments at most, of up to 64 KiB each.
const ALL: usize = 64;
/// Segments at most of one container.
const EACH: usize = 16;

/// Data, and perhaps the end, of a connection, from `seq` on.
#[derive(Debug)]
pub(super) struct Held {
    key: Key,
    port: PortId,
    pub(super) seq: Seq,
    pub(super) data: Box<[u8]>,
    pub(super) fin: bool,
}

impl Held {
    fn end(&self) -> Seq {
        self.seq.plus(self.data.len() as u32 + u32::from(self.fin))
    }
}

/// The segments, in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    held: VecDeque<Held>,
}

impl Reorder {
    /// True if nothing is kept, which is nearly always so.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Keeps a segment of the connection `key` of the container at `port`. Room is made by what has been there longest.
    pub(super) fn keep(&mut self, key: Key, port: PortId, seq: Seq, data: &[u8], fin: bool) {
        if self
            .held
            .iter()
            .any(|h| h.key == key && h.seq == seq && h.data.len() >= data.len())
        {
            return;
        }
        if self.held.iter().filter(|h| h.port == port).count() >= EACH
            && let Some(oldest) = self.held.iter().position(|h| h.port == port)
        {
            self.held.remove(oldest);
        } else if self.held.len() >= ALL {
            self.held.pop_front();
        }
        self.held.push_back(Held {
            key,
            port,
            seq,
            data: data.into(),
            fin,
        });
    }

    /// The segment of `key` that goes on at `next`, which it may begin before; what lies before it altogether is forgotten.
    pub(super) fn next(&mut self, key: Key, next: Seq) -> Option<Held> {
        self.held.retain(|h| h.key != key || h.end().after(next));
        let fits = |h: &Held| h.key == key && !h.seq.after(next);
        let found = self.held.iter().position(fits)?;
        self.held.remove(found)
    }

    /// Forgets what is kept of `key`.
    pub(super) fn forget(&mut self, key: Key) {
        self.held.retain(|h| h.key != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortId = PortId(1);

    fn key(index: u32) -> Key {
        Key { index, generation: 0 }
    }

    #[test]
    fn what_goes_on_is_found_across_the_wrap_and_what_is_over_is_forgotten() {
        let mut reorder = Reorder::default();
        let start = Seq(u32::MAX - 9);
        for (at, len) in [(30, 10), (10, 10), (12, 4)] {
            reorder.keep(key(1), PORT, start.plus(at), &vec![at as u8; len], false);
        }
        reorder.keep(key(2), PORT, start.plus(10), &[7; 5], false);
        assert!(reorder.next(key(1), start.plus(9)).is_none(), "a gap is left");
        let held = reorder.next(key(1), start.plus(10)).expect("it goes on");
        assert_eq!((held.seq, held.data.len()), (start.plus(10), 10));
        assert!(reorder.next(key(1), start.plus(20)).is_none());
        assert_eq!(reorder.held.len(), 2, "what lay within the other is forgotten");
        // One that begins before is as good.
        assert!(reorder.next(key(1), start.plus(35)).is_some());
        reorder.forget(key(2));
        assert!(reorder.held.is_empty());
    }

    #[test]
    fn an_end_without_data_is_kept_too() {
        let mut reorder = Reorder::default();
        reorder.keep(key(1), PORT, Seq(50), &[], true);
        assert!(reorder.next(key(1), Seq(50)).is_some_and(|h| h.fin));
    }

    #[test]
    fn nobody_keeps_more_than_a_share() {
        let mut reorder = Reorder::default();
        for n in 0..100 {
            reorder.keep(key(n), PortId(1), Seq(n), &[1], false);
        }
        assert_eq!(reorder.held.len(), EACH);
        assert!(reorder.next(key(99), Seq(99)).is_some(), "the newest is there");
        for port in 2..20 {
            for n in 0..100 {
                reorder.keep(key(n), PortId(port), Seq(n), &[1], false);
            }
        }
        assert_eq!(reorder.held.len(), ALL);
    }
}
