//! The trackers of all followed connections.

use super::Tracker;

/// Trackers in slots.
#[derive(Debug, Default)]
pub(in crate::flow) struct Trackers {
    slots: Vec<Tracker>,
    free: Vec<u32>,
}

impl Trackers {
    /// Puts `tracker` into a free slot; there are at most `limit` at a time.
    pub(in crate::flow) fn insert(&mut self, tracker: Tracker, limit: u32) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = tracker;
            return index;
        }
        let len = self.slots.len();
        if len == self.slots.capacity() {
            let most = (limit as usize).saturating_sub(len).max(1);
            self.slots.reserve_exact((len / 4).max(64).min(most));
        }
        self.slots.push(tracker);
        len as u32
    }

    /// The tracker in slot `index`, if there is such a slot.
    pub(in crate::flow) fn get_mut(&mut self, index: u32) -> Option<&mut Tracker> {
        self.slots.get_mut(index as usize)
    }

    /// Frees slot `index`.
    pub(in crate::flow) fn remove(&mut self, index: u32) {
        self.free.push(index);
    }

    /// Bytes held.
    pub(in crate::flow) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Tracker>() + self.free.capacity() * size_of::<u32>()
    }
}
