//! The conntrack table: every flow, of any protocol, is one entry in it.
//!
//! # Theory of operation
//!
//! Entries lie in a dense slab and are named by a [`FlowId`]: slot and generation, so that a stale name finds nothing.
//! One hash index leads from a tuple to its entry, in both directions: the tuple as its initiator sends it, and, where
//! the translated tuple is known and unique (frame-level egress), the tuple of the replies. A packet of the original
//! direction reversed is found by reversing its tuple, so that a flow whose translation lives in a host socket needs
//! one index record only. Tuples are chosen by attackers; the index is keyed by a secret of the process (SipHash-1-3).
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

mod list;
mod state;
mod tuple;
mod view;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::{HashMap, HashTable};
use pontoon_switch::{DropReason, Instant, PortId};
use siphasher::sip::SipHasher13;

pub use state::State;
pub use tuple::{Direction, Protocol, Tuple};
pub use view::{Counters, FlowView};

use list::{Kind, Link, List, NIL};
use tuple::Packed;

/// An entry moves in its expiry list at most this often.
const TOUCH_GRAIN: Duration = Duration::from_secs(1);

/// How many flows are passed over in search of one whose end frees a socket; if there is none among them, all of them go, so
/// that whoever goes on asking comes to those behind, and what each asking costs is bounded.
const SEARCH: u32 = 64;

/// In an index record: the tuple is the reply's.
const REPLY_BIT: u32 = 1 << 31;

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
    /// The translated tuple of its replies, if it is to be found by it.
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
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Entry {
    original: Packed,
    reply: Packed,
    sent: Counters,
    received: Counters,
    /// Last touch that moved it, in microseconds.
    touched: u64,
    /// When it was made, in seconds.
    created: u32,
    generation: u32,
    links: [Link; 2],
    container: PortId,
    data: u32,
    protocol: Protocol,
    state: State,
    outbound: bool,
    has_reply: bool,
    shares_socket: bool,
    used: bool,
}

impl Entry {
    /// The tuple as its initiator sends it.
    pub fn tuple(&self) -> Tuple {
        self.original.unpack(self.protocol)
    }

    /// The container's port.
    pub fn container(&self) -> PortId {
        self.container
    }

    /// True if the container is the initiator.
    pub fn outbound(&self) -> bool {
        self.outbound
    }

    /// Its protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The owner's slot for it.
    pub fn data(&self) -> u32 {
        self.data
    }

    /// The flow as it is shown; `reply` is the translated tuple, where its owner knows it.
    pub fn view(&self, now: Instant, reply: Option<(SocketAddr, SocketAddr)>) -> FlowView {
        let tuple = self.tuple();
        let reply = reply.unwrap_or_else(|| {
            let t = if self.has_reply {
                self.reply.unpack(self.protocol)
            } else {
                tuple.reversed()
            };
            (t.src, t.dst)
        });
        let expires = Instant::from_micros(self.touched) + self.state.timeout();
        FlowView {
            protocol: self.protocol.name().to_owned(),
            state: self.state.name().to_owned(),
            outbound: self.outbound,
            original: (tuple.src, tuple.dst),
            reply,
            age: (now.millis() / 1000).saturating_sub(u64::from(self.created)),
            expires: expires.since(now).as_secs(),
            sent: self.sent,
            received: self.received,
        }
    }
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
    key: (u64, u64),
    lists: [List; State::ALL.len()],
    counts: [u32; State::ALL.len()],
    containers: HashMap<PortId, Share>,
    ended: Vec<(FlowId, Entry)>,
    limits: Limits,
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
            key,
            lists: [List::default(); State::ALL.len()],
            counts: [0; State::ALL.len()],
            containers: HashMap::new(),
            ended: Vec::new(),
            limits,
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
        self.entries.capacity() * size_of::<Entry>() + self.index.allocation_size()
    }

    /// Finds the flow that a packet with `tuple` belongs to, and the packet's direction in it.
    pub fn lookup(&self, tuple: &Tuple) -> Option<(FlowId, Direction)> {
        let packed = Packed::new(tuple);
        self.find(&packed, tuple.protocol).or_else(|| {
            let (id, direction) = self.find(&packed.reversed(), tuple.protocol)?;
            // A tuple of the replies, reversed, is one that nobody sends in a translated flow.
            (direction == Direction::Original && !self.entries[id.index as usize].has_reply)
                .then_some((id, Direction::Reply))
        })
    }

    /// Finds the flow whose initiator sends `tuple`.
    pub fn lookup_original(&self, tuple: &Tuple) -> Option<FlowId> {
        self.find(&Packed::new(tuple), tuple.protocol)
            .and_then(|(id, direction)| (direction == Direction::Original).then_some(id))
    }

    /// The entry named `id`, unless it has ended.
    pub fn get(&self, id: FlowId) -> Option<&Entry> {
        self.entries
            .get(id.index as usize)
            .filter(|e| e.used && e.generation == id.generation)
    }

    fn get_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index as usize)
            .filter(|e| e.used && e.generation == id.generation)
    }

    /// Enters a flow. If a bound is met, a closing, half-open or unanswered flow may be evicted for it.
    ///
    /// # Errors
    /// [`DropReason::QuotaFull`] if the container's share is used up, [`DropReason::TableFull`] if the table is,
    /// [`DropReason::Malformed`] if the tuple is in the table already.
    pub fn insert(&mut self, now: Instant, new: NewFlow) -> Result<FlowId, DropReason> {
        self.asked += 1;
        let protocol = new.tuple.protocol;
        let original = Packed::new(&new.tuple);
        let reply = new.reply.map(|t| Packed::new(&t));
        if self.find(&original, protocol).is_some()
            || reply.is_some_and(|r| self.find(&r, protocol).is_some())
        {
            return Err(DropReason::Malformed);
        }
        if self.container_len(new.container) >= self.limits.per_container && !self.evict(Some(new.container))
        {
            return Err(DropReason::QuotaFull);
        }
        // The greediest has something to lose in nearly every case; where all of its flows are established, another has.
        if self.len >= self.limits.total && !self.evict(self.greediest()) && !self.evict(None) {
            return Err(DropReason::TableFull);
        }
        let index = self.claim();
        let generation = self.entries[index as usize].generation;
        self.entries[index as usize] = Entry {
            original,
            reply: reply.unwrap_or_default(),
            sent: Counters::default(),
            received: Counters::default(),
            touched: now.micros(),
            created: (now.millis() / 1000) as u32,
            generation,
            links: [Link::NONE; 2],
            container: new.container,
            data: new.data,
            protocol,
            state: new.state,
            outbound: new.outbound,
            has_reply: reply.is_some(),
            shares_socket: new.shares_socket,
            used: true,
        };
        self.index_insert(index);
        if reply.is_some() {
            self.index_insert(index | REPLY_BIT);
        }
        self.link(index);
        self.len += 1;
        self.counts[new.state as usize] += 1;
        self.containers.entry(new.container).or_default().len += 1;
        Ok(FlowId { index, generation })
    }

    /// Counts `packets` of together `bytes` in `direction` and touches the flow.
    pub fn count(&mut self, now: Instant, id: FlowId, direction: Direction, packets: u64, bytes: u64) {
        if let Some(e) = self.get_mut(id) {
            let c = match direction {
                Direction::Original => &mut e.sent,
                Direction::Reply => &mut e.received,
            };
            c.packets += packets;
            c.bytes += bytes;
            self.touch(now, id);
        }
    }

    /// Begins the flow's timeout anew.
    pub fn touch(&mut self, now: Instant, id: FlowId) {
        let Some(e) = self.get_mut(id) else { return };
        if now.since(Instant::from_micros(e.touched)) >= TOUCH_GRAIN {
            e.touched = now.micros();
            self.unlink(id.index);
            self.link(id.index);
        }
    }

    /// Puts the flow in `state` and begins that state's timeout.
    pub fn set_state(&mut self, now: Instant, id: FlowId, state: State) {
        let Some(old) = self.get(id).map(Entry::state) else {
            return;
        };
        if old == state {
            return;
        }
        self.unlink(id.index);
        let e = &mut self.entries[id.index as usize];
        e.state = state;
        e.touched = now.micros();
        self.counts[old as usize] -= 1;
        self.counts[state as usize] += 1;
        self.link(id.index);
    }

    /// Ends the flow and returns it; its owner is not told.
    pub fn remove(&mut self, id: FlowId) -> Option<Entry> {
        self.get(id)?;
        let index = id.index;
        if self.entries[index as usize].has_reply {
            self.index_remove(index | REPLY_BIT);
        }
        self.index_remove(index);
        self.unlink(index);
        let e = &mut self.entries[index as usize];
        let entry = e.clone();
        e.used = false;
        e.generation = e.generation.wrapping_add(1);
        e.links[0].next = self.free;
        self.free = index;
        self.len -= 1;
        self.counts[entry.state as usize] -= 1;
        if let Some(share) = self.containers.get_mut(&entry.container) {
            share.len -= 1;
            if share.len == 0 {
                self.containers.remove(&entry.container);
            }
        }
        Some(entry)
    }

    /// Takes the next flow that has ended by itself: evicted, or silent for its timeout. It is out of the table already.
    pub fn pop_ended(&mut self, now: Instant) -> Option<(FlowId, Entry)> {
        if let Some(ended) = self.ended.pop() {
            return Some(ended);
        }
        let id = State::ALL.iter().find_map(|&state| {
            let head = self.lists[state as usize].head;
            let e = self.entries.get(head as usize)?;
            (Instant::from_micros(e.touched) + state.timeout() + TOUCH_GRAIN <= now).then_some(FlowId {
                index: head,
                generation: e.generation,
            })
        })?;
        self.remove(id).map(|e| (id, e))
    }

    /// When the next flow ends by itself, if nothing touches it.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.ended.is_empty() {
            return Some(Instant::ZERO);
        }
        State::ALL
            .iter()
            .filter_map(|&state| {
                let e = self.entries.get(self.lists[state as usize].head as usize)?;
                Some(Instant::from_micros(e.touched) + state.timeout() + TOUCH_GRAIN)
            })
            .min()
    }

    /// Every flow, in the order of the slots, from slot `from` on.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = (FlowId, &Entry)> + '_ {
        self.entries
            .iter()
            .enumerate()
            .skip(from as usize)
            .filter(|(_, e)| e.used)
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

    /// A host socket is what `container` has too many of: ends one flow of its own that may be evicted and has its socket for
    /// itself; if the first [`SEARCH`] that may be evicted share theirs, all of these.
    pub fn make_room(&mut self, container: PortId) {
        let Some(share) = self.containers.get(&container) else {
            return;
        };
        let mut passed = 0;
        let mut alone = None;
        'search: for &state in State::EVICTION_ORDER {
            let mut index = share.lists[state as usize].head;
            while let Some(e) = self.entries.get(index as usize) {
                if !e.shares_socket {
                    alone = Some(self.id(index));
                    break 'search;
                }
                passed += 1;
                if passed == SEARCH {
                    break 'search;
                }
                index = e.links[Kind::Container as usize].next;
            }
        }
        if let Some(id) = alone {
            return self.end(id);
        }
        for _ in 0..passed {
            self.evict(Some(container));
        }
    }

    /// The container that has most flows.
    fn greediest(&self) -> Option<PortId> {
        let most = self
            .containers
            .iter()
            .max_by_key(|(port, share)| (share.len, port.0));
        most.map(|(&port, _)| port)
    }

    /// Evicts one flow that may go, of `container` if given. False if there is none.
    fn evict(&mut self, container: Option<PortId>) -> bool {
        let lists = match container {
            None => Some(&self.lists),
            Some(c) => self.containers.get(&c).map(|share| &share.lists),
        };
        let victim = lists.and_then(|lists| {
            let mut heads = State::EVICTION_ORDER.iter().map(|&s| lists[s as usize].head);
            heads.find(|&head| head != NIL)
        });
        let Some(index) = victim else { return false };
        self.end(self.id(index));
        true
    }

    /// The name of the flow that is in slot `index`.
    fn id(&self, index: u32) -> FlowId {
        FlowId {
            index,
            generation: self.entries[index as usize].generation,
        }
    }

    /// Ends a flow of whose end its owner has to be told.
    fn end(&mut self, id: FlowId) {
        if let Some(entry) = self.remove(id) {
            self.ended.push((id, entry));
        }
    }

    fn claim(&mut self) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.entries[index as usize].links[0].next;
            return index;
        }
        self.entries.push(Entry {
            original: Packed::default(),
            reply: Packed::default(),
            sent: Counters::default(),
            received: Counters::default(),
            touched: 0,
            created: 0,
            generation: 0,
            links: [Link::NONE; 2],
            container: PortId(0),
            data: 0,
            protocol: Protocol::Tcp,
            state: State::Closed,
            outbound: false,
            has_reply: false,
            shares_socket: false,
            used: false,
        });
        self.entries.len() as u32 - 1
    }

    /// Appends the entry to the lists of its state.
    fn link(&mut self, index: u32) {
        let Entry { state, container, .. } = self.entries[index as usize];
        self.lists[state as usize].append(Kind::State, &mut self.entries, index);
        let share = self.containers.entry(container).or_default();
        share.lists[state as usize].append(Kind::Container, &mut self.entries, index);
    }

    /// Takes the entry out of the lists of its state.
    fn unlink(&mut self, index: u32) {
        let Entry { state, container, .. } = self.entries[index as usize];
        self.lists[state as usize].take_out(Kind::State, &mut self.entries, index);
        if let Some(share) = self.containers.get_mut(&container) {
            share.lists[state as usize].take_out(Kind::Container, &mut self.entries, index);
        }
    }

    fn find(&self, packed: &Packed, protocol: Protocol) -> Option<(FlowId, Direction)> {
        let hash = hash(self.key, packed, protocol);
        let record = *self.index.find(hash, |&r| {
            let e = &self.entries[(r & !REPLY_BIT) as usize];
            e.protocol == protocol && *record_tuple(e, r) == *packed
        })?;
        let index = record & !REPLY_BIT;
        let direction = if record & REPLY_BIT == 0 {
            Direction::Original
        } else {
            Direction::Reply
        };
        Some((
            FlowId {
                index,
                generation: self.entries[index as usize].generation,
            },
            direction,
        ))
    }

    fn index_insert(&mut self, record: u32) {
        let (key, entries) = (self.key, &self.entries);
        let hash_of = |r: &u32| {
            let e = &entries[(*r & !REPLY_BIT) as usize];
            hash(key, record_tuple(e, *r), e.protocol)
        };
        let h = hash_of(&record);
        self.index.insert_unique(h, record, hash_of);
    }

    fn index_remove(&mut self, record: u32) {
        let e = &self.entries[(record & !REPLY_BIT) as usize];
        let h = hash(self.key, record_tuple(e, record), e.protocol);
        if let Ok(found) = self.index.find_entry(h, |&r| r == record) {
            found.remove();
        }
    }
}

/// The tuple that an index record stands for.
fn record_tuple(e: &Entry, record: u32) -> &Packed {
    if record & REPLY_BIT == 0 {
        &e.original
    } else {
        &e.reply
    }
}

fn hash(key: (u64, u64), packed: &Packed, protocol: Protocol) -> u64 {
    SipHasher13::new_with_keys(key.0, key.1 ^ protocol as u64).hash(&packed.0)
}
