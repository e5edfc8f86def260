//! A forwarded connection, as the segments that pass by tell of it.
//!
//! # Theory of operation
//!
//! The tracker ends nothing and answers nothing: it says which segments can belong to the connection and what state these leave
//! it in. What it holds of each side is what van Rooij's "Real Stateful TCP Packet Filtering in IP Filter" found to suffice, which
//! the kernel's conntrack follows as well: how far the side has sent (*end*), how far it has acknowledged (*ack*), and the widest
//! window that it has offered. From these follow four bounds for a segment of a side, with the other as its peer:
//!
//! ```text
//! seq  ≤  peer.ack + peer.window          nothing beyond what the peer has room for
//! end  ≥  own.end  - peer.window - 1      nothing older than what may be sent again; one byte more for keep-alives and probes
//! ack  ≤  peer.end                        nothing is acknowledged that was not sent
//! ack  ≥  own.ack  - max(own.window, 66000)     nor much less than was before (RFC 5961 section 5.2)
//! ```
//!
//! Loss, reordering, retransmission, probes of a closed window, and selective acknowledgements stay within these, whatever side of
//! the tracker they happen on. Somebody who cannot see the connection has to guess both numbers.
//!
//! **Resets.** A reset whose sequence number is not in the receiver's window is dropped. One that is exactly what the receiver
//! expects next, or what the sender would send next, ends the connection. One that is elsewhere in the window passes and changes
//! nothing: the receiver answers it with a challenge (RFC 5961 section 3.2), and a true sender then sends an exact one. In answer
//! to a SYN only a reset that acknowledges it counts (RFC 9293 section 3.10.7.3).
//!
//! **SYNs.** In an open connection one from the initiator passes and changes nothing: a peer that is in the connection answers with
//! a challenge (RFC 5961 section 4), upon which an initiator that has forgotten it resets it. A peer that has forgotten it, too,
//! answers with a SYN-ACK; since that acknowledges the SYN that was let through, the connection begins anew with both. After the
//! end of a connection a SYN of the initiator begins another one (RFC 9293 section 3.6.1, RFC 6191). The other side opens nothing,
//! except that its SYN may cross the initiator's (simultaneous open, RFC 5382 REQ-2).
//!
//! ```text
//! SynSent ─ SYN-ACK, or a SYN crosses ─► SynReceived ─ both have acknowledged ─► Established ─ a FIN ─► HalfClosed
//!    ▲  RST ▼                               RST ▼                                                     │ the other FIN
//!    └─ SYN ─ Closed ◄───────────────────────── RST, in any state ──────────── TimeWait ◄─ last ACK ─ Closing
//! ```

mod segment;
mod slab;

#[cfg(test)]
mod tests;

use pontoon_switch::DropReason;

use super::{Direction, State};

pub use segment::{Flags, Segment};
pub(super) use slab::Trackers;

use segment::Kind;

/// So much may always be acknowledged late: a window without scaling, and a little (as in the kernel).
const LATE_ACK: u32 = 66_000;

/// Scale of a side that did not offer to scale.
const NOT_OFFERED: u32 = 15;

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Sequence number behind the last that it has sent.
    end: u32,
    /// Highest acknowledgement number that it has sent. Before its first: the number behind the peer's SYN, or behind its own as
    /// long as the peer's is not known.
    ack: u32,
    /// Widest window in units of 16 bytes, at most 2²⁶ (26 bits); scale (4 bits); whether [`Side::end`] is behind a FIN; whether it
    /// has acknowledged anything. The window is 0 as long as nothing was seen of the side, and only then.
    packed: u32,
}

impl Side {
    const WINDOW: u32 = (1 << 26) - 1;
    const SCALE_SHIFT: u32 = 26;
    const FIN: u32 = 1 << 30;
    const ACKED: u32 = 1 << 31;

    /// A side whose SYN is `seg`.
    fn opened(seg: &Segment) -> Self {
        let scale = seg.window_scale.map_or(NOT_OFFERED, u32::from);
        let mut side = Self {
            end: seg.end(),
            ack: seg.seq.wrapping_add(1),
            packed: scale << Self::SCALE_SHIFT,
        };
        side.widen(u32::from(seg.window));
        side
    }

    fn is_seen(&self) -> bool {
        self.packed & Self::WINDOW != 0
    }

    fn window(&self) -> u32 {
        (self.packed & Self::WINDOW) * 16
    }

    fn widen(&mut self, window: u32) {
        let units = window.div_ceil(16).clamp(1, Self::WINDOW);
        if units > self.packed & Self::WINDOW {
            self.packed = self.packed & !Self::WINDOW | units;
        }
    }

    fn scale(&self) -> u32 {
        self.packed >> Self::SCALE_SHIFT & 15
    }

    fn has(&self, flag: u32) -> bool {
        self.packed & flag != 0
    }

    fn set(&mut self, flag: u32, on: bool) {
        self.packed = if on {
            self.packed | flag
        } else {
            self.packed & !flag
        };
    }

    /// True if `ack` acknowledges this side's SYN and nothing that it has not sent; the peer was not seen before.
    fn opened_with(&self, ack: u32) -> bool {
        !after(self.ack, ack) && !after(ack, self.end)
    }
}

/// A SYN that was let through and may begin the connection anew.
#[derive(Clone, Copy, Debug)]
struct Anew {
    end: u32,
    window: u16,
    scale: Option<u8>,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tracker {
    /// By [`Direction`].
    sides: [Side; 2],
    anew: Option<Anew>,
}

impl Tracker {
    /// A connection that begins with `seg`; nothing if that is no SYN.
    pub(super) fn open(seg: &Segment) -> Option<Self> {
        (seg.kind() == Some(Kind::Syn)).then(|| Self::begun_by(seg))
    }

    fn begun_by(syn: &Segment) -> Self {
        Self {
            sides: [Side::opened(syn), Side::default()],
            anew: None,
        }
    }

    /// The state of a connection that was in `state`, after `seg`.
    ///
    /// # Errors
    /// [`DropReason::OutOfWindow`] if the segment cannot be of the connection, which is as before.
    pub(super) fn step(&mut self, state: State, dir: Direction, seg: &Segment) -> Result<State, DropReason> {
        let next = seg.kind().and_then(|kind| match state {
            State::SynSent => self.opening(kind, dir, seg),
            State::SynReceived | State::Established | State::HalfClosed | State::Closing => {
                self.open_both(state, kind, dir, seg)
            }
            State::TimeWait | State::RelayTimeWait | State::Closed => self.over(state, kind, dir, seg),
            State::UdpTransaction | State::UdpNew | State::UdpReplied | State::Echo | State::Other => None,
        });
        next.ok_or(DropReason::OutOfWindow)
    }

    /// Only the initiator's SYN is known.
    fn opening(&mut self, kind: Kind, dir: Direction, seg: &Segment) -> Option<State> {
        let [opener, answerer] = &mut self.sides;
        match (kind, dir) {
            (Kind::Syn, Direction::Original) => {
                self.let_through(seg);
                Some(State::SynSent)
            }
            (Kind::Syn, Direction::Reply) => {
                // Simultaneous open. Each expects what is behind the other's SYN.
                *answerer = Side::opened(seg);
                std::mem::swap(&mut opener.ack, &mut answerer.ack);
                Some(State::SynReceived)
            }
            (Kind::SynAck, Direction::Reply) if opener.opened_with(seg.ack) => {
                self.answered(seg);
                Some(State::SynReceived)
            }
            (Kind::SynAck, Direction::Reply) => self.begin_anew(seg),
            (Kind::Rst, Direction::Reply) => {
                let of_the_syn =
                    opener.opened_with(seg.ack) || self.anew.is_some_and(|anew| anew.end == seg.ack);
                (seg.flags.has(Flags::ACK) && of_the_syn).then_some(State::Closed)
            }
            // The peer has an older connection, and says so; the initiator's reset, which has the number of that one, is the answer.
            (Kind::Ack, Direction::Reply) => (seg.end() == seg.seq).then_some(State::SynSent),
            (Kind::Rst, Direction::Original) => Some(State::SynSent),
            (Kind::SynAck | Kind::Ack, Direction::Original) => None,
        }
    }

    /// The SYNs of both are known.
    fn open_both(&mut self, state: State, kind: Kind, dir: Direction, seg: &Segment) -> Option<State> {
        match kind {
            Kind::Syn => {
                let again = state == State::SynReceived && seg.end() == self.sides[dir as usize].end;
                match dir {
                    Direction::Original => self.let_through(seg),
                    Direction::Reply if again => {}
                    Direction::Reply => return None,
                }
                Some(state)
            }
            Kind::SynAck if self.fits(dir, seg) => {
                self.take(dir, seg);
                Some(self.state_after(state))
            }
            // The answerer chose another number, as one does that keeps no state of half-open connections.
            Kind::SynAck
                if state == State::SynReceived
                    && dir == Direction::Reply
                    && seg.ack == self.sides[Direction::Original as usize].end =>
            {
                self.answered(seg);
                Some(state)
            }
            Kind::SynAck if dir == Direction::Reply => self.begin_anew(seg),
            Kind::SynAck => None,
            Kind::Ack => {
                self.fits(dir, seg).then(|| self.take(dir, seg))?;
                Some(self.state_after(state))
            }
            Kind::Rst => {
                let (own, peer) = self.both(dir);
                let exact = seg.seq == peer.ack || seg.seq == own.end;
                self.resets(dir, seg)
                    .then_some(if exact { State::Closed } else { state })
            }
        }
    }

    /// Nothing is left but what was on its way.
    fn over(&mut self, state: State, kind: Kind, dir: Direction, seg: &Segment) -> Option<State> {
        if (kind, dir) == (Kind::Syn, Direction::Original) {
            *self = Self::begun_by(seg);
            return Some(State::SynSent);
        }
        if !self.sides.iter().all(Side::is_seen) {
            return None;
        }
        match kind {
            Kind::Syn => None,
            Kind::SynAck | Kind::Ack => {
                self.fits(dir, seg).then(|| self.take(dir, seg))?;
                Some(state)
            }
            // A reset does not cut the wait short (RFC 1337).
            Kind::Rst => self.resets(dir, seg).then_some(state),
        }
    }

    /// The sender of a segment in that direction, and its peer.
    fn both(&self, dir: Direction) -> (&Side, &Side) {
        let [original, reply] = &self.sides;
        match dir {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    /// True if the segment is within the bounds.
    fn fits(&self, dir: Direction, seg: &Segment) -> bool {
        let (own, peer) = self.both(dir);
        let newest = peer.ack.wrapping_add(peer.window());
        let oldest = own.end.wrapping_sub(peer.window() + 1);
        let late = own.ack.wrapping_sub(own.window().max(LATE_ACK));
        !after(seg.seq, newest)
            && !after(oldest, seg.end())
            && !after(seg.ack, peer.end)
            && !after(late, seg.ack)
    }

    /// True if the reset's sequence number is in the receiver's window.
    fn resets(&self, dir: Direction, seg: &Segment) -> bool {
        let (_, peer) = self.both(dir);
        !after(peer.ack, seg.seq) && !after(seg.seq, peer.ack.wrapping_add(peer.window()))
    }

    /// Learns from a segment that is within the bounds.
    fn take(&mut self, dir: Direction, seg: &Segment) {
        let scaled = !seg.flags.has(Flags::SYN) && self.sides.iter().all(|s| s.scale() != NOT_OFFERED);
        let own = &mut self.sides[dir as usize];
        let fin = seg.flags.has(Flags::FIN);
        if after(seg.end(), own.end) {
            // What is sent behind a FIN makes that none.
            own.end = seg.end();
            own.set(Side::FIN, fin);
        } else if fin && seg.end() == own.end {
            own.set(Side::FIN, true);
        }
        own.widen(u32::from(seg.window) << if scaled { own.scale() } else { 0 });
        if after(seg.ack, own.ack) {
            own.ack = seg.ack;
        }
        own.set(Side::ACKED, true);
    }

    /// The state that the sides are in, neither of which has reset the other.
    fn state_after(&mut self, state: State) -> State {
        let [a, b] = &self.sides;
        if state == State::SynReceived {
            if !(a.has(Side::ACKED) && b.has(Side::ACKED)) {
                return state;
            }
            // A SYN that was sent again was this connection's: a late answer to it does not begin another.
            self.anew = None;
        }
        match (a.has(Side::FIN), b.has(Side::FIN)) {
            (false, false) => State::Established,
            (true, false) | (false, true) => State::HalfClosed,
            (true, true) if after(a.end, b.ack) || after(b.end, a.ack) => State::Closing,
            (true, true) => State::TimeWait,
        }
    }

    /// The initiator's SYN was answered by `syn_ack`.
    fn answered(&mut self, syn_ack: &Segment) {
        let [opener, answerer] = &mut self.sides;
        *answerer = Side::opened(syn_ack);
        answerer.ack = syn_ack.ack;
        answerer.set(Side::ACKED, true);
        opener.ack = syn_ack.seq.wrapping_add(1);
        opener.set(Side::ACKED, false);
    }

    /// Remembers a SYN that is not the one the connection began with, or that one again.
    fn let_through(&mut self, syn: &Segment) {
        self.anew = Some(Anew {
            end: syn.end(),
            window: syn.window,
            scale: syn.window_scale,
        });
    }

    /// Begins anew with the SYN that was let through, if that is what `syn_ack` acknowledges.
    fn begin_anew(&mut self, syn_ack: &Segment) -> Option<State> {
        let anew = self.anew.filter(|anew| anew.end == syn_ack.ack)?;
        *self = Self::begun_by(&Segment {
            seq: anew.end.wrapping_sub(1),
            ack: 0,
            window: anew.window,
            flags: Flags::SYN,
            len: 0,
            window_scale: anew.scale,
        });
        self.answered(syn_ack);
        Some(State::SynReceived)
    }
}

/// True if sequence number `a` is behind `b`.
fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}
