//! One flow, in two cache lines: a lookup reads the first, counting the second.

use std::ops::Deref;

use pontoon_switch::PortId;

use super::list::{Link, NIL};
use super::ticks::Ticks;
use super::translation::Translation;
use super::tuple::Packed;
use super::{Counters, Protocol, State, Tuple};

/// True and false of an entry, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// The slot has a flow in it.
    pub(super) const USED: Self = Self(1);
    /// The container is the initiator.
    pub(super) const OUTBOUND: Self = Self(2);
    /// The reply tuple is in the index.
    pub(super) const REPLY: Self = Self(4);
    /// The host socket that it goes by is there for others, too.
    pub(super) const SHARES_SOCKET: Self = Self(8);

    pub(super) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    /// With `flag` if `on`.
    pub(super) const fn with(self, flag: Self, on: bool) -> Self {
        Self(if on { self.0 | flag.0 } else { self.0 })
    }
}

/// One flow.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Entry {
    pub(super) original: Packed,
    pub(super) translation: Translation,
    pub(super) generation: u32,
    pub(super) data: u32,
    pub(super) mark: u32,
    /// Slot of its connection's tracker, or [`NIL`].
    pub(super) tracker: u32,
    /// Number of its protocol.
    pub(super) protocol: u8,
    pub(super) state: State,
    pub(super) flags: Flags,

    pub(super) sent: Counters,
    pub(super) received: Counters,
    pub(super) links: [Link; 2],
    /// Last touch that moved it.
    pub(super) touched: Ticks,
    /// When it was made, in seconds.
    pub(super) created: u32,
    pub(super) container: PortId,
}

impl Entry {
    /// A slot without a flow.
    pub(super) fn vacant() -> Self {
        Self {
            original: Packed::default(),
            translation: Translation::NONE,
            generation: 0,
            data: 0,
            mark: 0,
            tracker: NIL,
            protocol: 0,
            state: State::Closed,
            flags: Flags::default(),
            sent: Counters::default(),
            received: Counters::default(),
            links: [Link::NONE; 2],
            touched: Ticks::default(),
            created: 0,
            container: PortId(0),
        }
    }

    /// The tuple as its initiator sends it.
    pub fn tuple(&self) -> Tuple {
        self.original.unpack(self.protocol())
    }

    /// The container's port.
    pub fn container(&self) -> PortId {
        self.container
    }

    /// True if the container is the initiator.
    pub fn outbound(&self) -> bool {
        self.flags.has(Flags::OUTBOUND)
    }

    /// Its protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol::of(self.protocol, self.original.source())
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The owner's slot for it.
    pub fn data(&self) -> u32 {
        self.data
    }

    /// The mark of the rule that it came by.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// True if an answer has been seen.
    pub fn is_answered(&self) -> bool {
        self.received.packets > 0
    }

    /// True if its reply tuple is in the table: its packets are forwarded, not relayed by a host socket.
    pub fn is_forwarded(&self) -> bool {
        self.flags.has(Flags::REPLY)
    }
}

/// A flow that is out of the table; reads as the entry it was.
#[derive(Clone, Debug)]
pub struct Ended {
    pub(super) entry: Entry,
    pub(super) reply: Option<Tuple>,
}

impl Ended {
    /// The tuple of its replies, if it was in the table.
    pub fn reply(&self) -> Option<Tuple> {
        self.reply
    }
}

impl Deref for Ended {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_two_cache_lines_and_what_a_lookup_reads_is_the_first() {
        assert_eq!(size_of::<Entry>(), 128);
        assert_eq!(std::mem::offset_of!(Entry, sent), 64);
    }
}
