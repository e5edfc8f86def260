//! Whom the gateway reaches on an uplink, and how that is found out and kept true (RFC 826, RFC 4861 sections 7.2 and 7.3).
//!
//! ```text
//!            wanted              answer               30 s              wanted
//!  (nothing) ──────► Asking ──────────────► Reachable ────► (stale) ──────────► Probing
//!      ▲               │ 3 questions           ▲                                  │  │ 3 questions to it,
//!      │ 10 s          ▼                       └──────────── answer ──────────────┘  │ 3 to all
//!      └──────────── Failed ◄───────────────────────────────────────────────────────┘
//! ```
//!
//! ARP and neighbour discovery share these states; a question is an ARP request or a solicitation. Entries are made by what
//! the gateway itself wants to send, and by the routers that advertise themselves, never by what strangers say. Those with
//! an address and those without are two tables, so that a scan of the link, which asks for thousands that are not there,
//! forgets nobody that is.
//!
//! RFC 4861 waits five seconds (DELAY) before it probes a stale neighbour that is used, for a hint of the transport's that
//! all is well. A router gets no such hints, so the probe goes out at once; packets go on to the old address meanwhile. A
//! neighbour that did not answer three questions of its own is suspected ([`Rank::Failed`]), and a default router's place
//! is taken by another; three more go to all, for it may have another Ethernet address now.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use pontoon_switch::{Frame, Instant, MacAddr};

use super::queue::{Queue, Waiting};

/// Neighbours with an address, at most; the longest unused goes.
pub(super) const KNOWN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Neighbours that are asked for or did not answer, at most.
pub(super) const ASKED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Time between two questions (RFC 4861 section 10, `RETRANS_TIMER`).
const RETRY: Duration = Duration::from_secs(1);
/// Questions to all (`MAX_MULTICAST_SOLICIT`), and to the neighbour itself (`MAX_UNICAST_SOLICIT`).
const QUESTIONS: u8 = 3;
/// How long an answer is believed (`REACHABLE_TIME`).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long packets to a neighbour that did not answer fail at once.
const FAILED: Duration = Duration::from_secs(10);

/// A question to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    /// Who is asked for.
    pub(super) target: IpAddr,
    /// To this address alone, else to all.
    pub(super) mac: Option<MacAddr>,
}

/// Where a packet is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// To this Ethernet address.
    To(MacAddr),
    /// Nowhere yet: it may wait ([`Neighbours::keep`]).
    Wait,
    /// Nowhere: the neighbour does not answer.
    Failed,
}

/// How much what was heard proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// An answer to us: the neighbour is there and hears us.
    Answer,
    /// A claim to all: it says where the neighbour is now, not that it hears us.
    Claim,
    /// A word that must not replace what is known (a neighbour advertisement without the override flag).
    Hint,
}

/// How good a choice a neighbour is among several routers (RFC 4861 section 6.3.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Rank {
    /// It does not answer.
    Failed,
    /// Nothing is known of it.
    Unknown,
    /// Reachable, or probably so.
    Good,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Confirmed; stale from then on.
    Reachable { until: Instant },
    /// That many questions have gone out.
    Probing { asked: u8, next: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Known {
    mac: MacAddr,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Asking { asked: u8, next: Instant },
    Failed { until: Instant, again: Instant },
}

/// What became of time's passing, or of a full table.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Questions to be sent.
    pub(super) asks: Vec<Ask>,
    /// Packets whose neighbour did not answer.
    pub(super) failed: Vec<Waiting>,
}

/// The neighbours of one link.
#[derive(Debug)]
pub(super) struct Neighbours {
    known: LruCache<IpAddr, Known>,
    asked: LruCache<IpAddr, Asked>,
    /// When something is to be done for whom: for each that is asked for or probed, exactly one.
    timers: BTreeSet<(Instant, IpAddr)>,
    queue: Queue,
}

impl Neighbours {
    pub(super) fn new() -> Self {
        Self {
            known: LruCache::new(KNOWN),
            asked: LruCache::new(ASKED),
            timers: BTreeSet::new(),
            queue: Queue::default(),
        }
    }

    /// Where a packet by way of `hop` goes; questions and what fell out of the tables are added to `due`.
    pub(super) fn way(&mut self, now: Instant, hop: IpAddr, due: &mut Due) -> Way {
        if let Some(known) = self.known.get_mut(&hop) {
            if let State::Reachable { until } = known.state
                && until <= now
            {
                let next = now + RETRY;
                known.state = State::Probing { asked: 1, next };
                self.timers.insert((next, hop));
                let mac = Some(known.mac);
                due.asks.push(Ask { target: hop, mac });
            }
            return Way::To(known.mac);
        }
        match self.asked.get_mut(&hop) {
            Some(Asked::Asking { .. }) => Way::Wait,
            Some(Asked::Failed { until, again }) if now < *until => {
                if *again <= now {
                    *again = now + RETRY;
                    due.asks.push(Ask {
                        target: hop,
                        mac: None,
                    });
                }
                Way::Failed
            }
            Some(Asked::Failed { .. }) | None => {
                self.ask(now, hop, due);
                Way::Wait
            }
        }
    }

    /// The Ethernet address of `addr`, if it is known.
    pub(super) fn mac(&self, addr: IpAddr) -> Option<MacAddr> {
        self.known.peek(&addr).map(|known| known.mac)
    }

    /// Keeps a copy of `frame` until `hop` answers; how many older ones went for it.
    pub(super) fn keep(&mut self, hop: IpAddr, frame: &Frame<'_>) -> usize {
        self.queue.keep(hop, frame)
    }

    /// Notes that `addr` was heard to be at `mac`. What waited for that is to be sent there. Somebody that nobody asked for
    /// is not remembered.
    pub(super) fn heard(&mut self, now: Instant, addr: IpAddr, mac: MacAddr, how: Heard) -> Vec<Waiting> {
        if let Some(known) = self.known.peek(&addr).copied() {
            let same = known.mac == mac;
            let confirmed = State::Reachable {
                until: now + REACHABLE,
            };
            let stale = State::Reachable { until: now };
            let state = match how {
                Heard::Answer => Some(confirmed),
                Heard::Claim if same => None,
                Heard::Claim => Some(stale),
                // RFC 4861 section 7.2.5: it makes the entry doubtful and changes nothing.
                Heard::Hint if !same && matches!(known.state, State::Reachable { .. }) => Some(stale),
                Heard::Hint => None,
            };
            if let Some(state) = state {
                let mac = if how == Heard::Hint { known.mac } else { mac };
                self.set_known(addr, Known { mac, state });
            }
            return Vec::new();
        }
        if self.asked.peek(&addr).is_none() {
            return Vec::new();
        }
        self.insert(now, addr, mac, how == Heard::Answer);
        self.queue.take(addr)
    }

    /// Notes the Ethernet address that a router tells of itself. What waited for that is to be sent there.
    pub(super) fn introduce(&mut self, now: Instant, addr: IpAddr, mac: MacAddr) -> Vec<Waiting> {
        if self.known.contains(&addr) {
            return self.heard(now, addr, mac, Heard::Claim);
        }
        self.insert(now, addr, mac, false);
        self.queue.take(addr)
    }

    /// How good a next hop `addr` is.
    pub(super) fn rank(&self, addr: IpAddr) -> Rank {
        match (self.known.peek(&addr), self.asked.peek(&addr)) {
            (Some(known), _) => match known.state {
                State::Probing { asked, .. } if asked > QUESTIONS => Rank::Failed,
                State::Probing { .. } | State::Reachable { .. } => Rank::Good,
            },
            (None, Some(Asked::Failed { .. })) => Rank::Failed,
            (None, Some(Asked::Asking { .. }) | None) => Rank::Unknown,
        }
    }

    /// Does what is due. Those that `keep_asking` names are asked for again when they have failed.
    pub(super) fn expire(&mut self, now: Instant, keep_asking: impl Fn(IpAddr) -> bool) -> Due {
        let mut due = Due::default();
        while let Some(&(at, addr)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if self.known.contains(&addr) {
                self.probe(now, addr, &mut due);
            } else {
                self.ask_again(now, addr, &keep_asking, &mut due);
            }
        }
        due
    }

    /// When [`Neighbours::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Forgets how sure it is of everybody: whom is used is asked next time.
    pub(super) fn doubt(&mut self, now: Instant) {
        for (_, known) in self.known.iter_mut() {
            if let State::Reachable { until } = &mut known.state {
                *until = now.min(*until);
            }
        }
    }

    /// One more question for a neighbour that is probed; after the last it has failed.
    fn probe(&mut self, now: Instant, addr: IpAddr, due: &mut Due) {
        let Some(Known {
            mac,
            state: State::Probing { asked, .. },
        }) = self.known.peek(&addr).copied()
        else {
            return;
        };
        if asked >= 2 * QUESTIONS {
            self.known.pop(&addr);
            self.fail(now, addr, due);
            return;
        }
        let next = now + RETRY;
        let asked = asked + 1;
        self.set_known(
            addr,
            Known {
                mac,
                state: State::Probing { asked, next },
            },
        );
        let mac = (asked <= QUESTIONS).then_some(mac);
        due.asks.push(Ask { target: addr, mac });
    }

    /// One more question for a neighbour without an address; the end of its failure, if it had failed.
    fn ask_again(
        &mut self,
        now: Instant,
        addr: IpAddr,
        keep_asking: &impl Fn(IpAddr) -> bool,
        due: &mut Due,
    ) {
        match self.asked.peek(&addr).copied() {
            Some(Asked::Asking { asked, .. }) if asked < QUESTIONS => {
                let next = now + RETRY;
                self.set_asked(
                    addr,
                    Asked::Asking {
                        asked: asked + 1,
                        next,
                    },
                    due,
                );
                due.asks.push(Ask {
                    target: addr,
                    mac: None,
                });
            }
            Some(Asked::Asking { .. }) => self.fail(now, addr, due),
            Some(Asked::Failed { .. }) => {
                self.asked.pop(&addr);
                if keep_asking(addr) {
                    self.ask(now, addr, due);
                }
            }
            None => {}
        }
    }

    /// Begins to ask for `addr`.
    fn ask(&mut self, now: Instant, addr: IpAddr, due: &mut Due) {
        let next = now + RETRY;
        self.set_asked(addr, Asked::Asking { asked: 1, next }, due);
        due.asks.push(Ask {
            target: addr,
            mac: None,
        });
    }

    fn fail(&mut self, now: Instant, addr: IpAddr, due: &mut Due) {
        let (until, again) = (now + FAILED, now + RETRY);
        self.set_asked(addr, Asked::Failed { until, again }, due);
        due.failed.append(&mut self.queue.take(addr));
    }

    /// Remembers `addr` at `mac`: confirmed, or stale.
    fn insert(&mut self, now: Instant, addr: IpAddr, mac: MacAddr, confirmed: bool) {
        if let Some(asked) = self.asked.pop(&addr) {
            self.timers.remove(&(asked.timer(), addr));
        }
        let until = if confirmed { now + REACHABLE } else { now };
        let state = State::Reachable { until };
        self.set_known(addr, Known { mac, state });
    }

    fn set_known(&mut self, addr: IpAddr, known: Known) {
        if let Some(timer) = known.timer() {
            self.timers.insert((timer, addr));
        }
        // What it replaces, or what the table had no more room for.
        if let Some((gone, old)) = self.known.push(addr, known)
            && let Some(timer) = old.timer()
            && (gone != addr || known.timer() != Some(timer))
        {
            self.timers.remove(&(timer, gone));
        }
    }

    fn set_asked(&mut self, addr: IpAddr, asked: Asked, due: &mut Due) {
        let timer = asked.timer();
        if let Some((gone, old)) = self.asked.push(addr, asked) {
            self.timers.remove(&(old.timer(), gone));
            if gone != addr {
                due.failed.append(&mut self.queue.take(gone));
            }
        }
        self.timers.insert((timer, addr));
    }

    /// Neighbours with an address, without one, timers, and what waits.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize, (usize, usize)) {
        (
            self.known.len(),
            self.asked.len(),
            self.timers.len(),
            self.queue.held(),
        )
    }
}

impl Known {
    fn timer(&self) -> Option<Instant> {
        match self.state {
            State::Probing { next, .. } => Some(next),
            State::Reachable { .. } => None,
        }
    }
}

impl Asked {
    fn timer(&self) -> Instant {
        match *self {
            Self::Asking { next, .. } => next,
            Self::Failed { until, .. } => until,
        }
    }
}
