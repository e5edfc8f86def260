//! Telling the link which groups the gateway listens to (MLD: RFC 3810, RFC 2710).
//!
//! # Theory of operation
//!
//! Who has an IPv6 address is asked for it at the address's solicited-node group, and has to join that group before it asks
//! whether somebody else has the address (RFC 4861 section 7.2.1, RFC 4862 section 5.4.2). A switch that follows MLD carries a
//! group's frames only to where somebody said that he listens. So a [`Listener`] says it: when an address comes whose group
//! has not been joined, when the last address of a group goes, when the link has come up again, and when a router or a switch
//! asks.
//!
//! ```text
//!   address comes ──► change: begins ── now, and once more within a second ──► quiet
//!   address goes  ──► change: ends   ── now, and once more within a second ──► forgotten
//!   question      ──► answer, after a random part of the time that it allows; an earlier one that is due sooner serves both
//! ```
//!
//! Who asks in version 1 is answered in version 1, and everybody else too for as long as such a querier may be there
//! ([`OLDER`], RFC 3810 section 8.2.1): a report for each group, to the group; and an end that is said once, to all routers.
//! Reports of others are not heard. Version 1 would have one of them stand for ours, and version 2 has no such thing, for a
//! switch wants to know of each.
//!
//! A question about certain sources of a group is answered as one about the group is: from every source, which is all that is
//! ever listened to. So no sources are remembered. All-nodes is never told of (RFC 3810 section 6), and IPv4 has no groups
//! here.
//!
//! Anybody on the link may ask. There is one answer that waits for all groups and one for each, and none goes out within
//! [`PAUSE`] of another: questions make neither memory nor more frames than that. What a question can do is have our version
//! be the older one for some minutes.
//!
//! Reports come from the link-local address. It is the gateway's from the start, as a fixed one is (see [`super::addresses`]);
//! without it, they would come from nowhere (RFC 3590).

use std::net::Ipv6Addr;
use std::time::Duration;

use pontoon_switch::{DropReason, Frame, Instant};
use siphasher::sip::SipHasher13;
use smoltcp::wire::{IpProtocol, Ipv6OptionRepr, Ipv6OptionRouterAlert, Ipv6OptionsIterator, MldRecordType};

use super::Uplink;
use super::receive::{icmpv6, verify};
use super::wire::Wire;
use crate::link::ndp;
use crate::packet::Packet;

/// A question, of either version (RFC 3810 section 5.1).
const QUERY: u8 = 130;
/// Bytes of a question of version 1, and the fewest of one of version 2 (section 8.1).
const OLD_QUERY: usize = 24;
const QUERY_HEADER: usize = 28;
/// How often a change is told (section 9.1, Robustness Variable).
const ROBUSTNESS: u8 = 2;
/// The second time within that of the first (section 9.11, Unsolicited Report Interval; RFC 2710 section 7.10).
const REPEAT: Duration = Duration::from_secs(1);
const OLD_REPEAT: Duration = Duration::from_secs(10);
/// How long an older querier is thought to be there after it asked (section 9.12, with the default intervals, as its questions tell
/// none).
pub(super) const OLDER: Duration = Duration::from_secs(2 * 125 + 10);
/// Answers are that far apart at least.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Query {
    /// True if it is of version 1.
    old: bool,
    /// The group that is asked about; all if there is none.
    group: Option<Ipv6Addr>,
    /// The time within which answers are wanted.
    within: Duration,
}

/// A group that is listened to, or was until lately.
#[derive(Clone, Copy, Debug)]
struct Group {
    addr: Ipv6Addr,
    /// False if it was left.
    joined: bool,
    /// How often that is still to be told, and when next.
    change: Option<(u8, Instant)>,
    /// When a question about it is to be answered.
    answer: Option<Instant>,
}

/// The groups of one link, and what is to be said of them.
#[derive(Debug)]
pub(super) struct Listener {
    /// No more than the gateway has addresses, and those just left.
    groups: Vec<Group>,
    /// When a question about all groups is to be answered.
    answer: Option<Instant>,
    /// When the next answer may go out.
    pause: Instant,
    /// Version 1 is spoken until then.
    older: Option<Instant>,
    key: (u64, u64),
    drawn: u64,
}

impl Listener {
    /// Listens to nothing yet. `key` is for times that should not be foreseen.
    pub(super) fn new(key: (u64, u64)) -> Self {
        Self {
            groups: Vec::new(),
            answer: None,
            pause: Instant::ZERO,
            older: None,
            key,
            drawn: 0,
        }
    }

    /// The groups listened to are `wanted` from now on, where any may be named more than once.
    pub(super) fn listen(&mut self, now: Instant, wanted: &[Ipv6Addr]) {
        self.age(now);
        let change = Some((ROBUSTNESS, now));
        for group in &mut self.groups {
            let joined = wanted.contains(&group.addr);
            if joined != group.joined {
                *group = Group {
                    joined,
                    change,
                    answer: None,
                    ..*group
                };
            }
        }
        for &addr in wanted {
            if !self.groups.iter().any(|g| g.addr == addr) {
                self.groups.push(Group {
                    addr,
                    joined: true,
                    change,
                    answer: None,
                });
            }
        }
    }

    /// Tells of every group again: the link has come up.
    pub(super) fn report_again(&mut self, now: Instant) {
        self.age(now);
        for group in self.groups.iter_mut().filter(|g| g.joined) {
            group.change = Some((ROBUSTNESS, now));
        }
    }

    /// True if `group` is listened to.
    pub(super) fn has(&self, group: Ipv6Addr) -> bool {
        self.groups.iter().any(|g| g.joined && g.addr == group)
    }

    /// Takes a question (RFC 3810 section 6.2, RFC 2710 section 4).
    pub(super) fn asked(&mut self, now: Instant, query: Query) {
        self.age(now);
        if query.old {
            if self.older.is_none() {
                self.forget_what_is_due();
            }
            self.older = Some(now + OLDER);
        }
        if self.older.is_none() && query.group.is_none() {
            let at = now + self.random(query.within);
            sooner(&mut self.answer, at);
            return;
        }
        for i in 0..self.groups.len() {
            let Group { addr, joined, .. } = self.groups[i];
            if joined && query.group.is_none_or(|asked| asked == addr) {
                let at = now + self.random(query.within);
                // An answer for all that is due sooner serves this question too.
                if self.answer.is_none_or(|all| all > at) {
                    sooner(&mut self.groups[i].answer, at);
                }
            }
        }
    }

    /// Says what is due, from our address `from`.
    pub(super) fn flush(&mut self, now: Instant, from: Ipv6Addr, wire: &mut Wire<'_>) {
        self.age(now);
        let old = self.older.is_some();
        let answering = self.pause <= now;
        let all = answering && self.answer.take_if(|at| *at <= now).is_some();
        let (mut changes, mut answers) = (Vec::new(), Vec::new());
        for i in 0..self.groups.len() {
            let again = now + self.random(if old { OLD_REPEAT } else { REPEAT });
            let group = &mut self.groups[i];
            if let Some((left, _)) = group.change.take_if(|(_, next)| *next <= now) {
                changes.push((group.joined, group.addr));
                // Version 1 says once that it listens no more (RFC 2710 section 4).
                let left = if old && !group.joined { 0 } else { left - 1 };
                group.change = (left > 0).then_some((left, again));
            }
            let asked = answering && group.answer.is_some_and(|at| at <= now);
            if group.joined && (all || asked) {
                group.answer = None;
                answers.push(group.addr);
            }
        }
        self.groups.retain(|g| g.joined || g.change.is_some());
        if !answers.is_empty() {
            self.pause = now + PAUSE;
        }
        if old {
            let answers = answers.into_iter().map(|addr| (true, addr));
            for (joined, addr) in changes.into_iter().chain(answers) {
                wire.report_old(from, addr, joined);
            }
            return;
        }
        let changes = changes.into_iter().map(|(joined, addr)| match joined {
            true => (MldRecordType::ChangeToExclude, addr),
            false => (MldRecordType::ChangeToInclude, addr),
        });
        wire.report(from, &changes.collect::<Vec<_>>());
        let answers = answers
            .into_iter()
            .map(|addr| (MldRecordType::ModeIsExclude, addr));
        wire.report(from, &answers.collect::<Vec<_>>());
    }

    /// When [`Listener::flush`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let changes = self.groups.iter().filter_map(|g| g.change);
        let answers = self.groups.iter().filter_map(|g| g.answer).chain(self.answer);
        let answer = answers.min().map(|at| at.max(self.pause));
        changes.map(|(_, next)| next).chain(answer).min()
    }

    /// Speaks version 2 again when there has been no querier of version 1 for long.
    fn age(&mut self, now: Instant) {
        if self.older.take_if(|until| *until <= now).is_some() {
            self.forget_what_is_due();
        }
    }

    /// RFC 3810 section 8.2.1: a change of version cancels what is to be said.
    fn forget_what_is_due(&mut self) {
        self.answer = None;
        self.groups.retain(|g| g.joined);
        for group in &mut self.groups {
            (group.change, group.answer) = (None, None);
        }
    }

    /// A time between none and `within`, in milliseconds.
    fn random(&mut self, within: Duration) -> Duration {
        self.drawn += 1;
        let (a, b) = self.key;
        let drawn = SipHasher13::new_with_keys(a, b).hash(&self.drawn.to_be_bytes());
        let choices = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(drawn % choices)
    }

    /// Groups that something is remembered of.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.groups.len()
    }
}

impl Query {
    /// Reads a question from its type on; its checksum has been verified.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for one of no version, or about what is no group.
    fn parse(body: &[u8]) -> Result<Self, DropReason> {
        let Some(fixed) = body.first_chunk::<OLD_QUERY>() else {
            return Err(DropReason::Malformed);
        };
        let code = u16::from_be_bytes([fixed[4], fixed[5]]);
        let mut group = [0; 16];
        group.copy_from_slice(&fixed[8..]);
        let group = Ipv6Addr::from(group);
        if !group.is_unspecified() && !group.is_multicast() {
            return Err(DropReason::Malformed);
        }
        let old = body.len() == OLD_QUERY;
        let within = if old {
            u32::from(code)
        } else {
            let Some(&[_, _, a, b]) = body.get(OLD_QUERY..QUERY_HEADER) else {
                return Err(DropReason::Malformed);
            };
            let sources = usize::from(u16::from_be_bytes([a, b]));
            if body.len() < QUERY_HEADER + sources * 16 {
                return Err(DropReason::Malformed);
            }
            response_time(code)
        };
        Ok(Self {
            old,
            group: (!group.is_unspecified()).then_some(group),
            within: Duration::from_millis(within.into()),
        })
    }
}

/// The milliseconds that a Maximum Response Code stands for (RFC 3810 section 5.1.3).
fn response_time(code: u16) -> u32 {
    let code = u32::from(code);
    if code < 0x8000 {
        code
    } else {
        (code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3)
    }
}

/// `at`, unless something is due sooner.
fn sooner(due: &mut Option<Instant>, at: Instant) {
    *due = Some(due.map_or(at, |other| other.min(at)));
}

/// True if the packet's hop-by-hop options ask routers to look at it for MLD's sake (RFC 2711).
fn alerts(packet: &Packet, frame: &Frame<'_>) -> bool {
    let extensions = &frame.bytes()[packet.ip + 40..packet.payload];
    let &[_, units, ..] = extensions else {
        return false;
    };
    let first = IpProtocol::from(frame.bytes()[packet.ip + 6]);
    let Some(options) = extensions.get(2..8 + usize::from(units) * 8) else {
        return false;
    };
    let alert = Ipv6OptionRepr::RouterAlert(Ipv6OptionRouterAlert::MulticastListenerDiscovery);
    first == IpProtocol::HopByHop && Ipv6OptionsIterator::new(options).any(|option| option == Ok(alert))
}

impl Uplink {
    /// Listens to the groups of the addresses there are now.
    pub(super) fn listen(&mut self, now: Instant) {
        let wanted: Vec<Ipv6Addr> = self.addresses.solicited_nodes().collect();
        self.listener.listen(now, &wanted);
    }

    /// Takes a question about groups. False if the packet is none.
    pub(super) fn queries(
        &mut self,
        now: Instant,
        packet: &Packet,
        frame: &Frame<'_>,
    ) -> Result<bool, DropReason> {
        let Some((src, dst, body)) = icmpv6(packet, frame) else {
            return Ok(false);
        };
        if body.first() != Some(&QUERY) {
            return Ok(false);
        }
        // RFC 3810 section 6.2: it has to come from the link, and to have come as one that routers look at.
        if !src.is_unicast_link_local() || self.owns(packet.src) {
            return Err(DropReason::BadSourceAddress);
        }
        if packet.hop_limit != 1 || !alerts(packet, frame) {
            return Err(DropReason::Malformed);
        }
        verify(packet, frame, body)?;
        let query = Query::parse(body)?;
        // Section 5.1.15: whatever it is about, it counts at each address that is ours.
        if dst != ndp::ALL_NODES && !self.owns(packet.dst) && !self.listener.has(dst) {
            return Err(DropReason::Forbidden);
        }
        self.listener.asked(now, query);
        Ok(true)
    }
}
