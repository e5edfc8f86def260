//! Router discovery: what router advertisements say (RFC 4861 section 6.3, RFC 4191, RFC 8106).
//!
//! smoltcp's interface can do this (its feature `proto-ipv6-slaac`), but it knows one prefix of an advertisement, neither
//! lifetimes as RFC 4862 section 5.5.3 wants them kept against forgers, nor preferences, nor name servers, and it does not ask
//! whether an address is somebody else's. So the advertisement is read here, option by option.
//!
//! Addresses are made of our Ethernet address (EUI-64). That address is the gateway's own, given to it and not to a card
//! that travels, so it tells nobody anything; an address by RFC 7217 would change with the process's secret, that is at
//! every start, and flows of the outside with it.
//!
//! Everything is bounded; what exceeds a bound is not remembered. Left alone: the hop limit and the timers that an
//! advertisement suggests, its flags for DHCPv6, routes to prefixes (RFC 4191 type C hosts), redirects.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::Ipv6Net;
use pontoon_switch::{DropReason, Instant};

use super::addresses::Lifetimes;

/// Routers, prefixes and name servers at most.
pub(super) const ROUTERS: usize = 8;
pub(super) const PREFIXES: usize = 16;
pub(super) const RESOLVERS: usize = 8;
/// Solicitations in quick succession, and the time between them (RFC 4861 section 10).
const SOLICITATIONS: u8 = 3;
const INTERVAL: Duration = Duration::from_secs(4);
/// After those it is asked ever more seldom (RFC 7559): a router may come later.
const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes of an advertisement before its options.
const HEADER: usize = 16;
/// IPv6's least MTU (RFC 8200 section 5).
const MIN_MTU: u32 = 1280;

/// Option types.
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
/// Flags of a prefix.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

#[derive(Clone, Copy, Debug)]
struct Router {
    addr: Ipv6Addr,
    until: Instant,
    /// RFC 4191 section 2.1: 1 is high, 0 medium, -1 low.
    preference: i8,
}

/// A prefix that addresses may be made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Autonomous {
    pub(super) prefix: Ipv6Net,
    pub(super) lifetimes: Lifetimes,
}

/// What advertisements have said of a link.
#[derive(Debug)]
pub(super) struct Discovery {
    /// In order of preference, older ones first.
    routers: Vec<Router>,
    prefixes: Vec<(Ipv6Net, Instant)>,
    resolvers: Vec<(Ipv6Addr, Instant)>,
    mtu: Option<u16>,
    /// When the next solicitation is due, and how many went out before it.
    next: Option<Instant>,
    sent: u8,
    pause: Duration,
}

impl Discovery {
    /// Nothing is known; the first solicitation is due.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            routers: Vec::new(),
            prefixes: Vec::new(),
            resolvers: Vec::new(),
            mtu: None,
            next: Some(now),
            sent: 0,
            pause: INTERVAL,
        }
    }

    /// Begins to solicit anew.
    pub(super) fn solicit(&mut self, now: Instant) {
        (self.next, self.sent, self.pause) = (Some(now), 0, INTERVAL);
    }

    /// Takes the advertisement `body` of `src`, from its type on; hop limit, code and checksum have been checked.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for one that is to be dropped whole (RFC 4861 section 6.1.2).
    pub(super) fn advertisement(
        &mut self,
        now: Instant,
        src: Ipv6Addr,
        body: &[u8],
    ) -> Result<Vec<Autonomous>, DropReason> {
        if !src.is_unicast_link_local() || body.len() < HEADER {
            return Err(DropReason::Malformed);
        }
        let options = options(&body[HEADER..])?;
        let lifetime = Duration::from_secs(u16::from_be_bytes([body[6], body[7]]).into());
        self.router(now, src, lifetime, body[5]);
        let mut autonomous = Vec::new();
        for option in options {
            match option[0] {
                PREFIX => autonomous.extend(self.prefix(now, option)),
                MTU => self.set_mtu(option),
                RDNSS => self.name_servers(now, option),
                _ => {}
            }
        }
        if !self.routers.is_empty() {
            self.next = None;
        }
        Ok(autonomous)
    }

    /// The default routers, best first.
    pub(super) fn routers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.routers.iter().map(|r| r.addr.into())
    }

    /// True if an advertisement says that `addr` is on the link.
    pub(super) fn on_link(&self, addr: Ipv6Addr) -> bool {
        self.prefixes.iter().any(|(prefix, _)| prefix.contains(&addr))
    }

    /// The name servers.
    pub(super) fn resolvers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.resolvers.iter().map(|&(addr, _)| addr.into())
    }

    /// The link's MTU for IPv6, in bytes, if one was told.
    pub(super) fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// `addr` says that it is no router (RFC 4861 section 7.2.5). True if it was one.
    pub(super) fn no_router(&mut self, now: Instant, addr: Ipv6Addr) -> bool {
        let before = self.routers.len();
        self.routers.retain(|r| r.addr != addr);
        let gone = self.routers.len() < before;
        if gone && self.routers.is_empty() {
            self.solicit(now);
        }
        gone
    }

    /// Ends what has no lifetime left. True if a solicitation is to be sent.
    pub(super) fn flush(&mut self, now: Instant) -> bool {
        let had = !self.routers.is_empty();
        self.routers.retain(|r| r.until > now);
        self.prefixes.retain(|&(_, until)| until > now);
        self.resolvers.retain(|&(_, until)| until > now);
        if had && self.routers.is_empty() {
            self.solicit(now);
        }
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        self.sent = self.sent.saturating_add(1);
        if self.sent > SOLICITATIONS {
            self.pause = (self.pause * 2).min(LONGEST);
        }
        self.next = Some(now + self.pause);
        true
    }

    /// When [`Discovery::flush`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let routers = self.routers.iter().map(|r| r.until);
        let prefixes = self.prefixes.iter().map(|&(_, until)| until);
        let resolvers = self.resolvers.iter().map(|&(_, until)| until);
        routers.chain(prefixes).chain(resolvers).chain(self.next).min()
    }

    fn router(&mut self, now: Instant, addr: Ipv6Addr, lifetime: Duration, flags: u8) {
        if lifetime.is_zero() {
            self.no_router(now, addr);
            return;
        }
        let preference = match flags >> 3 & 3 {
            1 => 1,
            3 => -1,
            // RFC 4191 section 2.2: the reserved value is medium.
            _ => 0,
        };
        let until = now + lifetime;
        let room = self.routers.len() < ROUTERS;
        match self.routers.iter_mut().find(|r| r.addr == addr) {
            Some(router) => (router.until, router.preference) = (until, preference),
            None if room => self.routers.push(Router {
                addr,
                until,
                preference,
            }),
            None => {}
        }
        self.routers.sort_by_key(|r| -r.preference);
    }

    /// A prefix option (RFC 4861 section 4.6.2): whether the prefix is on the link is kept, whether it is for addresses is
    /// given back.
    fn prefix(&mut self, now: Instant, option: &[u8]) -> Option<Autonomous> {
        let option = option.first_chunk::<32>()?;
        let (len, flags) = (option[2], option[3]);
        let [valid, preferred] = [seconds(&option[4..])?, seconds(&option[8..])?];
        let addr = Ipv6Addr::from(*option.last_chunk::<16>()?);
        let prefix = Ipv6Net::new(addr, len).ok()?.trunc();
        if addr.is_unicast_link_local() || addr.is_multicast() {
            return None;
        }
        if flags & ON_LINK != 0 {
            self.prefixes
                .retain(|&(known, _)| known != prefix || !valid.is_zero());
            let room = self.prefixes.len() < PREFIXES && !valid.is_zero();
            match self.prefixes.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, until)) => *until = now + valid,
                None if room => {
                    self.prefixes.push((prefix, now + valid));
                }
                None => {}
            }
        }
        // RFC 4862 section 5.5.3 c and d; Ethernet's interface identifiers have 64 bits.
        let fit = flags & AUTONOMOUS != 0 && len == 64 && preferred <= valid;
        let lifetimes = Lifetimes { preferred, valid };
        fit.then_some(Autonomous { prefix, lifetimes })
    }

    fn set_mtu(&mut self, option: &[u8]) {
        if let Some(&[a, b, c, d]) = option.get(4..8) {
            let mtu = u32::from_be_bytes([a, b, c, d]);
            if mtu >= MIN_MTU {
                self.mtu = Some(u16::try_from(mtu).unwrap_or(u16::MAX));
            }
        }
    }

    /// RFC 8106 section 5.1.
    fn name_servers(&mut self, now: Instant, option: &[u8]) {
        let Some(lifetime) = option.get(4..).and_then(seconds) else {
            return;
        };
        for addr in option[8..].chunks_exact(16) {
            let Some(addr) = addr.first_chunk::<16>().map(|a| Ipv6Addr::from(*a)) else {
                continue;
            };
            self.resolvers.retain(|&(known, _)| known != addr);
            if !lifetime.is_zero() && self.resolvers.len() < RESOLVERS && !addr.is_multicast() {
                self.resolvers.push((addr, now + lifetime));
            }
        }
    }
}

/// The seconds at the start of `bytes`. All ones mean for ever, which 136 years are.
fn seconds(bytes: &[u8]) -> Option<Duration> {
    let bytes = bytes.first_chunk::<4>()?;
    Some(Duration::from_secs(u32::from_be_bytes(*bytes).into()))
}

/// The options of a message, each from its type on.
fn options(mut bytes: &[u8]) -> Result<Vec<&[u8]>, DropReason> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let len = bytes.get(1).map_or(0, |&units| usize::from(units) * 8);
        if len == 0 || len > bytes.len() {
            return Err(DropReason::Malformed);
        }
        let (option, rest) = bytes.split_at(len);
        options.push(option);
        bytes = rest;
    }
    Ok(options)
}
