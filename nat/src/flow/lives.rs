//! How long flows live: touching, timeouts, and the order in which they go when there is no room.

use std::time::Duration;

use pontoon_switch::{Instant, PortId};

use super::entry::{Ended, Entry, Flags};
use super::list::{Kind, NIL};
use super::ticks::Ticks;
use super::{Direction, FlowId, State, Table};

/// An entry moves in its expiry list at most this often.
pub(super) const TOUCH_GRAIN: Duration = Duration::from_secs(1);

const GRAIN: u32 = Ticks::in_time(TOUCH_GRAIN);

/// Ticks from the last touch that moved an entry to its end, by its state.
const ENDS: [u32; State::ALL.len()] = {
    let mut ends = [0; State::ALL.len()];
    let mut i = 0;
    while i < ends.len() {
        let state = State::ALL[i];
        ends[state as usize] = Ticks::in_time(state.timeout()) + GRAIN;
        i += 1;
    }
    ends
};

/// How many flows are passed over in search of one whose end frees a socket; if there is none among them, all of them go, so
/// that whoever goes on asking comes to those behind, and what each asking costs is bounded.
pub(super) const SEARCH: u32 = 64;

impl Table {
    /// Counts `packets` of together `bytes` in `direction` and touches the flow.
    #[inline]
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
    #[inline]
    pub fn touch(&mut self, now: Instant, id: FlowId) {
        let Some(e) = self.get_mut(id) else { return };
        let ticks = Ticks::at(now);
        if ticks.is_after(e.touched, GRAIN) {
            e.touched = ticks;
            self.latest = self.latest.max(now);
            self.move_back(id.index);
        }
    }

    /// Puts the entry at the end of the lists of its state.
    fn move_back(&mut self, index: u32) {
        let Entry { state, container, .. } = self.entries[index as usize];
        self.lists[state as usize].move_back(Kind::State, &mut self.entries, index);
        if let Some(share) = self.containers.get_mut(&container) {
            share.lists[state as usize].move_back(Kind::Container, &mut self.entries, index);
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
        self.unlink(id.index, 0);
        let e = &mut self.entries[id.index as usize];
        e.state = state;
        e.touched = Ticks::at(now);
        self.latest = self.latest.max(now);
        self.link(id.index, 0);
    }

    /// Takes the next flow that has ended by itself: evicted, or silent for its timeout. It is out of the table already.
    pub fn pop_ended(&mut self, now: Instant) -> Option<(FlowId, Ended)> {
        if let Some(ended) = self.ended.pop() {
            return Some(ended);
        }
        let ticks = Ticks::at(now);
        let id = self.oldest().find_map(|(index, e)| {
            ticks
                .is_after(e.touched, ENDS[e.state as usize])
                .then_some(FlowId {
                    index,
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
        let latest = Ticks::at(self.latest);
        let ends = (self.oldest()).map(|(_, e)| ENDS[e.state as usize] as i32 - e.touched.before(latest));
        ends.min().map(|ticks| latest.instant(self.latest, ticks))
    }

    /// Of each state the flow that was touched first, and its slot.
    fn oldest(&self) -> impl Iterator<Item = (u32, &Entry)> + '_ {
        let mut left = self.occupied;
        std::iter::from_fn(move || {
            let state = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            let head = self.lists.get(state as usize)?.head;
            Some((head, self.entries.get(head as usize)?))
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
                if !e.flags.has(Flags::SHARES_SOCKET) {
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
    pub(super) fn greediest(&self) -> Option<PortId> {
        let most = self
            .containers
            .iter()
            .max_by_key(|(port, share)| (share.len, port.0));
        most.map(|(&port, _)| port)
    }

    /// Evicts one flow that may go, of `container` if given. False if there is none.
    pub(super) fn evict(&mut self, container: Option<PortId>) -> bool {
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

    /// Ends a flow of whose end its owner has to be told.
    fn end(&mut self, id: FlowId) {
        if let Some(entry) = self.remove(id) {
            self.ended.push((id, entry));
        }
    }

    /// Appends the entry to the lists of its state; it is one `more` of its container's, or was one before.
    pub(super) fn link(&mut self, index: u32, more: u32) {
        let Entry { state, container, .. } = self.entries[index as usize];
        self.lists[state as usize].append(Kind::State, &mut self.entries, index);
        self.occupied |= 1 << state as u32;
        self.counts[state as usize] += 1;
        let share = self.containers.entry(container).or_default();
        share.len += more;
        share.lists[state as usize].append(Kind::Container, &mut self.entries, index);
    }

    /// Takes the entry out of the lists of its state; it is one `less` of its container's, or stays one.
    pub(super) fn unlink(&mut self, index: u32, less: u32) {
        let Entry { state, container, .. } = self.entries[index as usize];
        let list = &mut self.lists[state as usize];
        list.take_out(Kind::State, &mut self.entries, index);
        if list.head == NIL {
            self.occupied &= !(1 << state as u32);
        }
        self.counts[state as usize] -= 1;
        let Some(share) = self.containers.get_mut(&container) else {
            return;
        };
        share.lists[state as usize].take_out(Kind::Container, &mut self.entries, index);
        share.len -= less;
        if share.len == 0 {
            self.containers.remove(&container);
        }
    }
}
