//! Who has which address on the link.
//!
//! Two kinds of entry. A *pinned* one belongs to an attached container or to a lease: whatever is heard on the wire, it
//! stays as it is. A *learned* one comes from ARP or neighbour discovery; it is bounded in number, for all and for each
//! Ethernet address, ages, and stays with its first holder for as long as that one is heard from, so that a neighbour
//! cannot take an address over by claiming it louder.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use ipnet::IpNet;
use lru::LruCache;
use pontoon_switch::{Frame, Instant, MacAddr, Offload};

use super::waiting::{Due, Waiting};
use crate::config::Config;

/// Learned entries at most.
const LEARNED: usize = 4096;
/// Learned entries at most of one Ethernet address: link-local, global and a few temporary ones.
const PER_MAC: u16 = 32;
/// Time after which a learned entry that was not heard again is forgotten.
const AGE: Duration = Duration::from_secs(600);
/// Time for which the holder of a learned address keeps it against other claims.
const HOLD: Duration = Duration::from_secs(120);
/// Time between two questions for the same address (RFC 4861 section 10, `RETRANS_TIMER`).
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Addresses for which the time of the last question is remembered.
const ASKED: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Learned {
    mac: MacAddr,
    heard: Instant,
}

/// What came of hearing that an Ethernet address has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It is so, or is so from now on.
    Accepted,
    /// The address is the gateway's, or another neighbour's.
    Conflict,
    /// Not an address that can be learned: off the link, a group, or beyond the sender's share.
    Ignored,
}

/// Who has which address.
#[derive(Debug)]
pub struct Neighbours {
    pinned: HashMap<IpAddr, MacAddr, DefaultHashBuilder>,
    /// Subnets that are reached by a neighbour, the longest prefix first.
    behind: Vec<(IpNet, IpAddr)>,
    /// In the order of hearing: a lookup does not move an entry.
    learned: LruCache<IpAddr, Learned, DefaultHashBuilder>,
    shares: HashMap<MacAddr, u16, DefaultHashBuilder>,
    asked: LruCache<IpAddr, Instant, DefaultHashBuilder>,
    waiting: Waiting,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            pinned: HashMap::default(),
            behind: Vec::new(),
            learned: LruCache::unbounded_with_hasher(DefaultHashBuilder::default()),
            shares: HashMap::default(),
            asked: LruCache::unbounded_with_hasher(DefaultHashBuilder::default()),
            waiting: Waiting::default(),
        }
    }
}

impl Neighbours {
    /// The Ethernet address of the neighbour that has `addr`, or that leads to it.
    pub fn lookup(&self, addr: IpAddr) -> Option<MacAddr> {
        self.direct(addr).or_else(|| {
            // Nearly always there are none.
            let router = self.behind.iter().find(|(net, _)| net.contains(&addr))?.1;
            self.direct(router)
        })
    }

    fn direct(&self, addr: IpAddr) -> Option<MacAddr> {
        match self.pinned.get(&addr) {
            Some(mac) => Some(*mac),
            None => self.learned.peek(&addr).map(|e| e.mac),
        }
    }

    /// Subnets that are reached by a neighbour from now on, each with its address, the longest prefix first.
    pub fn set_behind(&mut self, behind: Vec<(IpNet, IpAddr)>) {
        self.behind = behind;
    }

    /// The Ethernet address that `addr` was pinned to.
    pub fn pinned(&self, addr: IpAddr) -> Option<MacAddr> {
        self.pinned.get(&addr).copied()
    }

    /// Notes for good that `mac` has `addr`: an attached container, whatever is heard on the wire.
    pub fn pin(&mut self, addr: IpAddr, mac: MacAddr) {
        self.forget(addr);
        self.pinned.insert(addr, mac);
    }

    /// Forgets whom `addr` was pinned to.
    pub fn unpin(&mut self, addr: IpAddr) {
        self.pinned.remove(&addr);
    }

    /// Forgets every address of `mac`, pinned or learned: its port is gone. Returns the pinned ones.
    pub fn forget_mac(&mut self, mac: MacAddr) -> Vec<IpAddr> {
        let gone: Vec<IpAddr> = self
            .learned
            .iter()
            .filter(|(_, e)| e.mac == mac)
            .map(|(&a, _)| a)
            .collect();
        for addr in gone {
            self.forget(addr);
        }
        let mut unpinned = Vec::new();
        self.pinned.retain(|&addr, &mut m| {
            if m == mac {
                unpinned.push(addr);
            }
            m != mac
        });
        unpinned
    }

    /// Notes that `mac` was heard to have `addr`. Only addresses of the link are learned: the subnets' and link-local IPv6
    /// ones; and never over a pinned one, or over a learned one whose holder was heard within two minutes.
    pub fn learn(&mut self, config: &Config, now: Instant, addr: IpAddr, mac: MacAddr) -> Heard {
        if !mac.is_unicast() || !learnable(config, addr) {
            return Heard::Ignored;
        }
        if config.is_gateway(addr) || mac == config.mac {
            return Heard::Conflict;
        }
        if let Some(&holder) = self.pinned.get(&addr) {
            return if holder == mac {
                Heard::Accepted
            } else {
                Heard::Conflict
            };
        }
        match self.learned.peek(&addr) {
            Some(e) if e.mac != mac && now.since(e.heard) < HOLD => return Heard::Conflict,
            Some(e) if e.mac != mac => self.forget(addr),
            Some(_) => {
                // `get_mut` moves the entry to the front of the order of hearing.
                if let Some(e) = self.learned.get_mut(&addr) {
                    e.heard = now;
                }
                return Heard::Accepted;
            }
            None => {}
        }
        let share = self.shares.entry(mac).or_default();
        if *share >= PER_MAC {
            return Heard::Ignored;
        }
        *share += 1;
        if self.learned.len() >= LEARNED {
            self.pop_oldest();
        }
        self.learned.push(addr, Learned { mac, heard: now });
        Heard::Accepted
    }

    /// True if `addr` may be asked for now; notes the question.
    pub(super) fn may_ask(&mut self, now: Instant, addr: IpAddr) -> bool {
        if self.asked_lately(now, addr) {
            return false;
        }
        if self.asked.len() >= ASKED
            && let Some((_, &oldest)) = self.asked.peek_lru()
        {
            // A scan of the subnet must not turn into a broadcast storm: no more than so many questions a second.
            if now.since(oldest) < ASK_AGAIN {
                return false;
            }
            self.asked.pop_lru();
        }
        self.asked.push(addr, now);
        true
    }

    /// True if the last question for `addr` has not had its time.
    fn asked_lately(&self, now: Instant, addr: IpAddr) -> bool {
        let last = self.asked.peek(&addr);
        last.is_some_and(|&last| now.since(last) < ASK_AGAIN)
    }

    /// Keeps `frame`, an Ethernet frame whose destination is to be filled in, until `addr` is learned; how many older ones for
    /// it gave way, which are to be counted. None if too much waits for others. The caller asks who has `addr`
    /// ([`super::solicit`]).
    pub(crate) fn keep(
        &mut self,
        now: Instant,
        addr: IpAddr,
        frame: &[u8],
        offload: Offload,
    ) -> Option<usize> {
        self.waiting.keep(now, addr, frame, offload)
    }

    /// Hands `send` what has waited for `addr`, if that is known.
    pub(crate) fn send_waiting(&mut self, addr: IpAddr, send: impl FnMut(&mut Frame<'_>)) {
        if let Some(mac) = self.lookup(addr) {
            self.waiting.release(addr, mac, send);
        }
    }

    /// Forgets the learned entries that were not heard for ten minutes.
    pub fn expire(&mut self, now: Instant) {
        while self
            .learned
            .peek_lru()
            .is_some_and(|(_, e)| now.since(e.heard) >= AGE)
        {
            self.pop_oldest();
        }
    }

    /// The next thing to be done for packets that wait. Questions are noted, and left out where somebody else has just asked
    /// the same. Those here need no leave of [`Neighbours::may_ask`]: there are no more of them than addresses that packets
    /// wait for.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        loop {
            let due = self.waiting.due(now)?;
            if let Due::Ask(addr) = due {
                if self.asked_lately(now, addr) {
                    continue;
                }
                if self.asked.len() >= ASKED && !self.asked.contains(&addr) {
                    self.asked.pop_lru();
                }
                self.asked.push(addr, now);
            }
            return Some(due);
        }
    }

    /// When [`Neighbours::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.learned.peek_lru().map(|(_, e)| e.heard + AGE)
    }

    /// When there is something to do for packets that wait: to ask again, or to tell who sent them.
    pub fn waiting_until(&self) -> Option<Instant> {
        self.waiting.deadline()
    }

    /// Learned entries.
    pub fn learned_len(&self) -> usize {
        self.learned.len()
    }

    /// Packets that wait for a neighbour, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        self.waiting.held()
    }

    /// Every entry: address, Ethernet address, and whether it is pinned.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, MacAddr, bool)> + '_ {
        let pinned = self.pinned.iter().map(|(&a, &m)| (a, m, true));
        pinned.chain(self.learned.iter().map(|(&a, e)| (a, e.mac, false)))
    }

    fn forget(&mut self, addr: IpAddr) {
        if let Some(e) = self.learned.pop(&addr) {
            self.release(e.mac);
        }
    }

    fn pop_oldest(&mut self) {
        if let Some((_, e)) = self.learned.pop_lru() {
            self.release(e.mac);
        }
    }

    fn release(&mut self, mac: MacAddr) {
        if let Some(share) = self.shares.get_mut(&mac) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&mac);
            }
        }
    }
}

/// True for an address that a neighbour can have.
fn learnable(config: &Config, addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => config.subnet4.is_some_and(|s| {
            s.net.contains(&a)
                && (s.net.prefix_len() > 30 || (a != s.net.network() && a != s.net.broadcast()))
        }),
        IpAddr::V6(a) => {
            config.subnet6.is_some()
                && !a.is_unspecified()
                && (a.is_unicast_link_local() || config.on_link(addr))
        }
    }
}
