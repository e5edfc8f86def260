//! The lists that entries are in, by slot numbers within the slab.

use super::Entry;

/// End of a list.
pub(super) const NIL: u32 = u32::MAX;

/// Neighbours of an entry in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Link {
    pub(super) const NONE: Self = Self { prev: NIL, next: NIL };
}

/// Which of its two lists an entry is followed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// All entries of its state.
    State,
    /// Those of its state and container.
    Container,
}

/// A doubly linked list of entries, oldest touch first.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { head: NIL, tail: NIL }
    }
}

impl List {
    /// Appends the entry in slot `index`.
    pub(super) fn append(&mut self, kind: Kind, entries: &mut [Entry], index: u32) {
        let tail = std::mem::replace(&mut self.tail, index);
        if tail == NIL {
            self.head = index;
        } else {
            entries[tail as usize].links[kind as usize].next = index;
        }
        entries[index as usize].links[kind as usize] = Link {
            prev: tail,
            next: NIL,
        };
    }

    /// Takes the entry in slot `index` out.
    pub(super) fn take_out(&mut self, kind: Kind, entries: &mut [Entry], index: u32) {
        let Link { prev, next } = entries[index as usize].links[kind as usize];
        if prev == NIL {
            self.head = next;
        } else {
            entries[prev as usize].links[kind as usize].next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            entries[next as usize].links[kind as usize].prev = prev;
        }
    }

    /// Puts the entry in slot `index`, which is in the list, at its end.
    pub(super) fn move_back(&mut self, kind: Kind, entries: &mut [Entry], index: u32) {
        if self.tail != index {
            self.take_out(kind, entries, index);
            self.append(kind, entries, index);
        }
    }
}
