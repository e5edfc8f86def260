//! The conntrack table: every flow, of any protocol, is one entry in it.
//!
//! # Theory of operation
//!
//! Entries lie in a dense slab and are named by a [`FlowId`]: slot and generation, so that a stale name finds nothing.
//! One hash index leads from a tuple to its entry, in both directions: the tuple as its initiator sends it, and, where
//! the translated tuple is known and unique (frame-level egress), the tuple of the replies. A packet of the original
//! direction reversed is found by reversing its tuple, so that a flow whose translation lives in a host socket needs
//! one index record only. A forwarded flow is always entered with its reply tuple, be it the same reversed: that is how
//! the two kinds are told apart. Tuples are chosen by attackers; the index is keyed by a secret of the process (SipHash-1-3).
//!
//! Each state belongs to one timeout class, and each class has one list in the order of the last touch. Touching moves
//! an entry to the tail, expiring takes from the head: both O(1) whatever the table's size. To keep the lists off the
//! way of each frame, an entry is moved at most once a second; it therefore lives at least its timeout and at most a second more.
//!
//! The table is bounded as a whole and for each container; an entry is in a second list, of its state and container, for
//! the latter's sake. When a bound is met, closing flows go first, then half-open ones,
//! then those that never saw an answer; an established flow is never evicted. When the whole table is full, it is the
//! container that has most of it that loses one, so that one container's many flows do not cost another its few. What was
//! evicted or has expired is handed to the gateway ([`Table::pop_ended`]), which tells the relay that owns it.
//!
//! What a container has used up may also be its host sockets ([`Table::make_room`]). Then a flow that has its socket for
//! itself is looked for: of one UDP port that talks to ten thousand others, ending one flow frees an entry and no socket.
//!
//! # Memory
//!
//! A forwarded flow costs 128 bytes of entry, 21 of index at a million (two records), and, if it is TCP, 32 for the tracker of its
//! connection ([`track`]), which lie apart so that other flows do not pay for them. The slab grows by a quarter at a time, and
//! never beyond the bound.

mod entry;
mod index;
mod list;
mod lives;
mod protocol;
mod sip;
mod state;
mod ticks;
mod track;
mod translation;
mod tuple;
mod view;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use hashbrown::{HashMap, HashTable};
use pontoon_switch::{DropReason, Instant, PortId};

pub use entry::{Ended, Entry};
pub use protocol::Protocol;
pub use state::State;
pub use track::{Flags, Segment};
pub use tuple::{Direction, Tuple};
pub use view::{Counters, FlowView};

use index::REPLY_BIT;
use list::{Kind, Link, List, NIL};
use ticks::Ticks;
use track::{Tracker, Trackers};
use translation::{Addresses, Translation};
use tuple::Packed;

/// The name of a flow: a slot of the table and the slot's generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowId {
    /// Slot.
    pub index: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// How many flows there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// In all; at most 2³¹ − 1.
    pub total: u32,
    /// Of each container.
    pub per_container: u32,
}

/// A flow to be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFlow {
    /// The tuple as its initiator sends it.
    pub tuple: Tuple,
    /// The tuple of its replies, if it is to be found by it. A source that is not the original destination is DNAT, a
    /// destination that is not the original source is SNAT; a forwarded flow without either has its tuple reversed here.
    pub reply: Option<Tuple>,
    /// The container's port.
    pub container: PortId,
    /// True if the container is the initiator.
    pub outbound: bool,
    /// Its first state.
    pub state: State,
    /// The owner's slot for it.
    pub data: u32,
    /// True if the host socket that it goes by is there for others, too.
    pub shares_socket: bool,
    /// The mark of the rule that it came by; 0 if there is none.
    pub mark: u32,
    /// Of a TCP connection that is to be followed, the SYN that begins it.
    pub track: Option<Segment>,
}

/// What a container has in the table.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    len: u32,
    lists: [List; State::ALL.len()],
}

/// Every flow of a gateway.
#[derive(Debug)]
pub struct Table {
    entries: Vec<Entry>,
    free: u32,
    len: u32,
    index: HashTable<u32>,
    addresses: Addresses,
    trackers: Trackers,
    key: (u64, u64),
    lists: [List; State::ALL.len()],
    /// Which of the lists have an entry: one bit each.
    occupied: u32,
    counts: [u32; State::ALL.len()],
    containers: HashMap<PortId, Share>,
    ended: Vec<(FlowId, Ended)>,
    limits: Limits,
    /// The latest moment that an entry was touched at: what the entries' ticks are told by.
    latest: Instant,
    /// How often a flow was to be entered.
    asked: u64,
}

impl Table {
    /// An empty table. `key` is the secret of its hash index: random, except in a test.
    pub fn new(limits: Limits, key: (u64, u64)) -> Self {
        let limits = Limits {
            total: limits.total.min(REPLY_BIT - 1),
            ..limits
        };
        Self {
            entries: Vec::new(),
            free: NIL,
            len: 0,
            index: HashTable::new(),
            addresses: Addresses::default(),
            trackers: Trackers::default(),
            key,
            lists: [List::default(); State::ALL.len()],
            occupied: 0,
            counts: [0; State::ALL.len()],
            containers: HashMap::new(),
            ended: Vec::new(),
            limits,
            latest: Instant::ZERO,
            asked: 0,
        }
    }

    /// How often a flow was to be entered so far.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Flows now.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Flows of `container` now.
    pub fn container_len(&self, container: PortId) -> u32 {
        self.containers.get(&container).map_or(0, |share| share.len)
    }

    /// How many flows are in each state, in the order of [`State::ALL`], leaving out states without any.
    pub fn by_state(&self) -> impl Iterator<Item = (State, u32)> + '_ {
        State::ALL
            .iter()
            .map(|&s| (s, self.counts[s as usize]))
            .filter(|&(_, n)| n > 0)
    }

    /// Bytes that the table holds, by the capacity of its parts.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.index.allocation_size()
            + self.addresses.memory()
            + self.trackers.memory()
            + self.containers.allocation_size()
            + self.ended.capacity() * size_of::<(FlowId, Ended)>()
    }

    /// The entry named `id`, unless it has ended.
    pub fn get(&self, id: FlowId) -> Option<&Entry> {
        self.entries
            .get(id.index as usize)
            .filter(|e| e.flags.has(entry::Flags::USED) && e.generation == id.generation)
    }

    fn get_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index as usize)
            .filter(|e| e.flags.has(entry::Flags::USED) && e.generation == id.generation)
    }

    /// Enters a flow. If a bound is met, a closing, half-open or unanswered flow may be evicted for it.
    ///
    /// # Errors
    /// [`DropReason::QuotaFull`] if the container's share is used up, [`DropReason::TableFull`] if the table is, or flows are
    /// translated to 65,535 addresses already, [`DropReason::Malformed`] if one of the tuples is in the table already,
    /// [`DropReason::OutOfWindow`] if the connection to be followed does not begin with a SYN.
    pub fn insert(&mut self, now: Instant, new: NewFlow) -> Result<FlowId, DropReason> {
        self.asked += 1;
        let protocol = new.tuple.protocol.number();
        let original = Packed::new(&new.tuple);
        let reply = new.reply.map(|t| Packed::new(&t));
        let is_taken = |tuple: &Packed| self.find(tuple, protocol).is_some();
        if is_taken(&original) || reply.is_some_and(|r| r == original || is_taken(&r)) {
            return Err(DropReason::Malformed);
        }
        let tracker = match new.track {
            None => None,
            Some(seg) => Some(Tracker::open(&seg).ok_or(DropReason::OutOfWindow)?),
        };
        let translation = match reply {
            None => Translation::NONE,
            Some(reply) => (self.addresses)
                .translate(&original, &reply)
                .ok_or(DropReason::TableFull)?,
        };
        if let Err(reason) = self.make_place(new.container) {
            self.addresses.release(&translation);
            return Err(reason);
        }
        let index = self.claim();
        let generation = self.entries[index as usize].generation;
        self.entries[index as usize] = Entry {
            original,
            translation,
            generation,
            data: new.data,
            mark: new.mark,
            tracker: tracker.map_or(NIL, |t| self.trackers.insert(t, self.limits.total)),
            protocol,
            state: new.state,
            flags: entry::Flags::USED
                .with(entry::Flags::OUTBOUND, new.outbound)
                .with(entry::Flags::REPLY, reply.is_some())
                .with(entry::Flags::SHARES_SOCKET, new.shares_socket),
            sent: Counters::default(),
            received: Counters::default(),
            links: [Link::NONE; 2],
            touched: Ticks::at(now),
            created: (now.millis() / 1000) as u32,
            container: new.container,
        };
        self.latest = self.latest.max(now);
        self.index_insert(index);
        if reply.is_some() {
            self.index_insert(index | REPLY_BIT);
        }
        self.link(index, 1);
        self.len += 1;
        Ok(FlowId { index, generation })
    }

    /// Ends the flow and returns it; its owner is not told.
    pub fn remove(&mut self, id: FlowId) -> Option<Ended> {
        self.get(id)?;
        let index = id.index;
        let reply = self.entries[index as usize]
            .is_forwarded()
            .then(|| self.reply_of(&self.entries[index as usize]));
        if reply.is_some() {
            self.index_remove(index | REPLY_BIT);
        }
        self.index_remove(index);
        self.unlink(index, 1);
        let e = &mut self.entries[index as usize];
        let entry = e.clone();
        e.flags = entry::Flags::default();
        e.generation = e.generation.wrapping_add(1);
        e.links[0].next = self.free;
        self.free = index;
        self.len -= 1;
        self.addresses.release(&entry.translation);
        if entry.tracker != NIL {
            self.trackers.remove(entry.tracker);
        }
        Some(Ended { entry, reply })
    }

    /// The tuple with which a packet of the flow that came in `direction` goes on: translated as the flow is. Nothing if the flow
    /// has ended.
    pub fn translated(&self, id: FlowId, direction: Direction) -> Option<Tuple> {
        let e = self.get(id)?;
        Some(match direction {
            Direction::Original => self.reply_of(e).reversed(),
            Direction::Reply => e.tuple().reversed(),
        })
    }

    /// The tuple of the flow's replies as they come in.
    fn reply_of(&self, e: &Entry) -> Tuple {
        if e.is_forwarded() {
            (self.addresses.reply(&e.original, &e.translation)).unpack(e.protocol())
        } else {
            e.tuple().reversed()
        }
    }

    /// Holds a segment of a followed connection against what is known of that, and gives the connection's state after it. Of a
    /// flow that is not followed, its state.
    ///
    /// # Errors
    /// [`DropReason::OutOfWindow`] if it cannot be the connection's, which is then left as it was; [`DropReason::NoFlow`] if the
    /// flow has ended.
    pub fn follow(
        &mut self,
        now: Instant,
        id: FlowId,
        direction: Direction,
        seg: &Segment,
    ) -> Result<State, DropReason> {
        let e = self.get(id).ok_or(DropReason::NoFlow)?;
        let (old, tracker) = (e.state, e.tracker);
        let Some(tracker) = self.trackers.get_mut(tracker) else {
            return Ok(old);
        };
        let state = tracker.step(old, direction, seg)?;
        self.set_state(now, id, state);
        Ok(state)
    }

    /// Marks the flow.
    pub fn set_mark(&mut self, id: FlowId, mark: u32) {
        if let Some(e) = self.get_mut(id) {
            e.mark = mark;
        }
    }

    /// The flow as it is shown, unless it has ended; `relayed` is the tuple of its replies, source and destination, where the relay
    /// of a host socket knows it.
    pub fn view(
        &self,
        now: Instant,
        id: FlowId,
        relayed: Option<(SocketAddr, SocketAddr)>,
    ) -> Option<FlowView> {
        let e = self.get(id)?;
        let tuple = e.tuple();
        let reply = relayed.unwrap_or_else(|| {
            let t = self.reply_of(e);
            (t.src, t.dst)
        });
        Some(FlowView {
            protocol: e.protocol().name().into_owned(),
            number: e.protocol,
            state: e.state.name().to_owned(),
            outbound: e.outbound(),
            original: (tuple.src, tuple.dst),
            reply,
            age: (now.millis() / 1000).saturating_sub(u64::from(e.created)),
            expires: (e.touched.instant(now, 0) + e.state.timeout())
                .since(now)
                .as_secs(),
            sent: e.sent,
            received: e.received,
            mark: e.mark,
        })
    }

    /// The flows of `container`, state by state, found without looking at those of others.
    pub fn of_container(&self, container: PortId) -> impl Iterator<Item = (FlowId, &Entry)> + '_ {
        let lists = self.containers.get(&container).map(|share| &share.lists);
        lists.into_iter().flatten().flat_map(|list| {
            let entry = |index: u32| self.entries.get(index as usize).map(|e| (self.id(index), e));
            std::iter::successors(entry(list.head), move |(_, e)| {
                entry(e.links[Kind::Container as usize].next)
            })
        })
    }

    /// Every flow, in the order of the slots, from slot `from` on.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = (FlowId, &Entry)> + '_ {
        self.entries
            .iter()
            .enumerate()
            .skip(from as usize)
            .filter(|(_, e)| e.flags.has(entry::Flags::USED))
            .map(|(i, e)| {
                (
                    FlowId {
                        index: i as u32,
                        generation: e.generation,
                    },
                    e,
                )
            })
    }

    /// The name of the flow that is in slot `index`.
    fn id(&self, index: u32) -> FlowId {
        FlowId {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Makes place for one more flow of `container`, evicting one if a bound is met.
    fn make_place(&mut self, container: PortId) -> Result<(), DropReason> {
        if self.container_len(container) >= self.limits.per_container && !self.evict(Some(container)) {
            return Err(DropReason::QuotaFull);
        }
        // The greediest has something to lose in nearly every case; where all of its flows are established, another has.
        if self.len >= self.limits.total && !self.evict(self.greediest()) && !self.evict(None) {
            return Err(DropReason::TableFull);
        }
        Ok(())
    }

    /// A free slot.
    fn claim(&mut self) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.entries[index as usize].links[0].next;
            return index;
        }
        let len = self.entries.len();
        if len == self.entries.capacity() {
            let most = (self.limits.total as usize).saturating_sub(len).max(1);
            self.entries.reserve_exact((len / 4).max(64).min(most));
        }
        self.entries.push(Entry::vacant());
        len as u32
    }
}
