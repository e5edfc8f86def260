//! The gateway's own addresses on an uplink: whether somebody else has them, and saying that we do (RFC 5227, RFC 4862).
//!
//! A fixed address is the operator's word: it is used at once, announced, and defended for good. One that DHCP or a router
//! advertisement gave is first asked for; if somebody else has it, it is given up. An IPv4 address in use is defended once in
//! ten seconds; a leased one that is claimed again within those is given up too (RFC 5227 section 2.4 b, for a fixed one c).
//!
//! RFC 5227 has a host ask for four to seven seconds, for the slow networks of its day, and lets a link that answers sooner
//! say so. The links meant here answer in a millisecond, and the servers that lend addresses try them first: an address is
//! asked for three times within a second.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pontoon_switch::{Instant, MacAddr};

use super::events::Events;
use super::wire::Wire;
use crate::link::ndp;

/// Addresses by router advertisements at most: a prefix more than that makes none.
pub(super) const SLAAC: usize = 8;
/// Questions for an IPv4 address before it is used (RFC 5227 `PROBE_NUM`), and for an IPv6 one (RFC 4862
/// `DupAddrDetectTransmits`).
const PROBES4: u8 = 3;
const PROBES6: u8 = 1;
/// Time between two of them and after the last.
const PROBE4: Duration = Duration::from_millis(300);
/// The same (RFC 4861 `RETRANS_TIMER`).
const PROBE6: Duration = Duration::from_secs(1);
/// Announcements, and the time between them (RFC 5227 `ANNOUNCE_NUM`, `ANNOUNCE_INTERVAL`).
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE: Duration = Duration::from_secs(2);
/// An address is defended no more often than that (`DEFEND_INTERVAL`).
const DEFEND: Duration = Duration::from_secs(10);
/// What a router that nobody authenticates may shorten a lifetime to (RFC 4862 section 5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);

/// Where an address comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The configuration.
    Static,
    /// Made of our Ethernet address, for the link alone.
    LinkLocal,
    /// A lease.
    Dhcp,
    /// A router advertisement's prefix.
    Slaac,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Being asked for; not yet ours.
    Probing {
        sent: u8,
        next: Instant,
    },
    /// In use, and being told of.
    Announcing {
        sent: u8,
        next: Instant,
    },
    Settled,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    net: IpNet,
    origin: Origin,
    phase: Phase,
    /// Last defence.
    defended: Option<Instant>,
    /// Until when it is the choice for new flows, and used at all; without end if there is none.
    preferred: Option<Instant>,
    valid: Option<Instant>,
    /// True once it is no longer the choice for new flows.
    deprecated: bool,
}

/// What somebody else's claim to an address means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// The address is not ours.
    None,
    /// It stays ours.
    Defended,
    /// It is ours no longer.
    GivenUp(Origin),
}

/// Lifetimes of a prefix, as an advertisement tells them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lifetimes {
    pub(super) preferred: Duration,
    pub(super) valid: Duration,
}

/// The gateway's addresses on one link.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    own: Vec<Own>,
}

/// The link-local address of `mac` (RFC 4291 appendix A).
pub(super) fn link_local(mac: MacAddr) -> Ipv6Net {
    let net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
    eui64(net, mac)
}

/// The address of `mac` within the /64 `prefix`.
pub(super) fn eui64(prefix: Ipv6Net, mac: MacAddr) -> Ipv6Net {
    let mut octets = prefix.network().octets();
    let [a, b, c, d, e, f] = mac.0;
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Net::new_assert(octets.into(), prefix.prefix_len())
}

impl Own {
    fn usable(&self) -> bool {
        !matches!(self.phase, Phase::Probing { .. })
    }

    fn gained(&self, events: &mut Events) {
        if self.origin != Origin::LinkLocal {
            events.gained(self.net.addr());
        }
    }

    fn lost(&self, events: &mut Events) {
        if self.origin != Origin::LinkLocal && self.usable() {
            events.lost(self.net.addr());
        }
    }
}

impl Addresses {
    /// Adds `net`'s address.
    pub(super) fn add(&mut self, now: Instant, net: IpNet, origin: Origin, events: &mut Events) {
        let (sent, next) = (0, now);
        let phase = match origin {
            Origin::Static | Origin::LinkLocal => Phase::Announcing { sent, next },
            Origin::Dhcp | Origin::Slaac => Phase::Probing { sent, next },
        };
        let own = Own {
            net,
            origin,
            phase,
            defended: None,
            preferred: None,
            valid: None,
            deprecated: false,
        };
        if own.usable() {
            own.gained(events);
        }
        self.own.push(own);
    }

    /// The leased address is `net` from now on; none if there is no lease.
    pub(super) fn lease(&mut self, now: Instant, net: Option<Ipv4Net>, events: &mut Events) {
        let old = self.own.iter_mut().find(|o| o.origin == Origin::Dhcp);
        match (old, net) {
            (Some(own), Some(net)) if own.net.addr() == IpAddr::V4(net.addr()) => own.net = net.into(),
            (_, net) => {
                self.remove(|own| own.origin == Origin::Dhcp, events);
                if let Some(net) = net {
                    self.add(now, net.into(), Origin::Dhcp, events);
                }
            }
        }
    }

    /// A router advertises `prefix` for addresses (RFC 4862 section 5.5.3 d and e).
    pub(super) fn advertised(
        &mut self,
        now: Instant,
        prefix: Ipv6Net,
        mac: MacAddr,
        lifetimes: Lifetimes,
        events: &mut Events,
    ) {
        let net = IpNet::V6(eui64(prefix, mac));
        if !self.own.iter().any(|o| o.net == net) {
            let full = self.own.iter().filter(|o| o.origin == Origin::Slaac).count() >= SLAAC;
            if full || lifetimes.valid.is_zero() {
                return;
            }
            self.add(now, net, Origin::Slaac, events);
        }
        let own = self.own.iter_mut().find(|o| o.net == net);
        let Some(own) = own.filter(|o| o.origin == Origin::Slaac) else {
            // A fixed one of the same prefix lives as long as the configuration says.
            return;
        };
        own.preferred = Some(now + lifetimes.preferred);
        own.deprecated = lifetimes.preferred.is_zero();
        let left = own.valid.map_or(Duration::ZERO, |valid| valid.since(now));
        own.valid = if lifetimes.valid > TWO_HOURS || lifetimes.valid > left {
            Some(now + lifetimes.valid)
        } else if left <= TWO_HOURS {
            own.valid
        } else {
            Some(now + TWO_HOURS)
        };
    }

    /// True if `addr` is in use.
    pub(super) fn owns(&self, addr: IpAddr) -> bool {
        self.own.iter().any(|o| o.net.addr() == addr && o.usable())
    }

    /// True if `addr` is in use or being asked for.
    pub(super) fn has(&self, addr: IpAddr) -> bool {
        self.own.iter().any(|o| o.net.addr() == addr)
    }

    /// The address of `like`'s version for what leaves for the world: one that is still preferred if there is one.
    pub(super) fn global(&self, like: IpAddr) -> Option<IpAddr> {
        let fit = self.own.iter().filter(|o| {
            o.usable() && o.origin != Origin::LinkLocal && o.net.addr().is_ipv4() == like.is_ipv4()
        });
        fit.min_by_key(|o| o.deprecated).map(|o| o.net.addr())
    }

    /// What questions are asked from: our address of `target`'s version, of the same subnet if there is one, IPv6's
    /// link-local one first. Unspecified if there is none.
    pub(super) fn asker(&self, target: IpAddr) -> IpAddr {
        let fit = self
            .own
            .iter()
            .filter(|o| o.usable() && o.net.addr().is_ipv4() == target.is_ipv4());
        let best = fit.max_by_key(|o| (o.origin == Origin::LinkLocal, o.net.contains(&target)));
        best.map_or(unspecified(target), |o| o.net.addr())
    }

    /// True if `addr` lies in the subnet of an address of ours; an advertised prefix alone does not make it so (RFC 5942).
    pub(super) fn on_link(&self, addr: IpAddr) -> bool {
        let mut own = self.own.iter();
        own.any(|o| o.usable() && o.origin != Origin::Slaac && o.net.contains(&addr))
    }

    /// True if `addr` is the broadcast address of a subnet of ours.
    pub(super) fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        let mut own = self.own.iter();
        own.any(|o| matches!(o.net, IpNet::V4(net) if net.prefix_len() < 31 && net.broadcast() == addr))
    }

    /// The groups at which the IPv6 ones, in use or being asked for, are solicited; one may come more than once.
    pub(super) fn solicited_nodes(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.own.iter().filter_map(|o| match o.net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(ndp::solicited_node(net.addr())),
        })
    }

    /// Those in use, with their prefixes.
    pub(super) fn usable(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.own.iter().filter(|o| o.usable()).map(|o| o.net)
    }

    /// Somebody at `mac` uses `addr`, or is asking for it as we are.
    pub(super) fn claimed(
        &mut self,
        now: Instant,
        addr: IpAddr,
        mac: MacAddr,
        wire: &mut Wire<'_>,
        events: &mut Events,
    ) -> Claim {
        let Some(at) = self.own.iter().position(|o| o.net.addr() == addr) else {
            return Claim::None;
        };
        let own = &mut self.own[at];
        let again = own.defended.is_some_and(|last| now.since(last) < DEFEND);
        let given_up = !own.usable() || (own.origin == Origin::Dhcp && again);
        if given_up {
            tracing::warn!(%addr, %mac, "the address is another host's; it is given up");
            let own = self.own.remove(at);
            own.lost(events);
            return Claim::GivenUp(own.origin);
        }
        if !again {
            tracing::warn!(%addr, %mac, "another host claims the gateway's address; it is defended");
            own.defended = Some(now);
            wire.announce(addr);
        }
        Claim::Defended
    }

    /// Tells of every address again: the link has come up.
    pub(super) fn announce_again(&mut self, now: Instant) {
        for own in self.own.iter_mut().filter(|o| o.usable()) {
            own.phase = Phase::Announcing { sent: 0, next: now };
        }
    }

    /// Sends the questions and announcements that are due, and ends what has no lifetime left.
    pub(super) fn flush(&mut self, now: Instant, wire: &mut Wire<'_>, events: &mut Events) {
        self.remove(|own| own.valid.is_some_and(|until| until <= now), events);
        for own in &mut self.own {
            own.deprecated |= own.preferred.is_some_and(|until| until <= now);
            let addr = own.net.addr();
            let (probes, pause) = match addr {
                IpAddr::V4(_) => (PROBES4, PROBE4),
                IpAddr::V6(_) => (PROBES6, PROBE6),
            };
            if let Phase::Probing { sent, next } = own.phase
                && next <= now
            {
                if sent < probes {
                    wire.probe(addr);
                    let next = now + pause;
                    own.phase = Phase::Probing { sent: sent + 1, next };
                } else {
                    own.phase = Phase::Announcing { sent: 0, next: now };
                    own.gained(events);
                }
            }
            if let Phase::Announcing { sent, next } = own.phase
                && next <= now
            {
                wire.announce(addr);
                let (sent, next) = (sent + 1, now + ANNOUNCE);
                own.phase = if sent < ANNOUNCEMENTS {
                    Phase::Announcing { sent, next }
                } else {
                    Phase::Settled
                };
            }
        }
    }

    /// When [`Addresses::flush`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let step = |own: &Own| match own.phase {
            Phase::Probing { next, .. } | Phase::Announcing { next, .. } => Some(next),
            Phase::Settled => None,
        };
        let preferred = |own: &Own| own.preferred.filter(|_| !own.deprecated);
        let times = self.own.iter().flat_map(|o| [step(o), o.valid, preferred(o)]);
        times.flatten().min()
    }

    fn remove(&mut self, which: impl Fn(&Own) -> bool, events: &mut Events) {
        self.own.retain(|own| {
            let gone = which(own);
            if gone {
                own.lost(events);
            }
            !gone
        });
    }
}

/// The unspecified address of `like`'s version.
pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
