//! Router advertisements (RFC 4861 section 6.2): the prefix, the MTU, the name server (RFC 8106) and a default route, for
//! those who ask and, now and then, for all.

use std::net::Ipv6Addr;
use std::time::Duration;

use pontoon_switch::{DropReason, Instant, MacAddr};

use super::ndp::{self, ALL_NODES, ROUTER_ADVERT, SOURCE_LINK_LAYER};
use crate::config::{Config, Egress};
use crate::cx::Cx;
use crate::packet::Packet;

/// `MaxRtrAdvInterval` and `MinRtrAdvInterval` (section 6.2.1), in seconds.
const MAX_INTERVAL: u64 = 600;
const MIN_INTERVAL: u64 = 200;
/// `MAX_INITIAL_RTR_ADVERTISEMENTS` and `MAX_INITIAL_RTR_ADVERT_INTERVAL` (section 10).
const INITIAL: u32 = 3;
const INITIAL_INTERVAL: u64 = 16;
/// `AdvDefaultLifetime`: three times the longest interval. RFC 8106 section 5.1 asks the same of RDNSS and DNSSL.
const ROUTER_LIFETIME: u16 = 1800;
/// `AdvValidLifetime` and `AdvPreferredLifetime`, in seconds.
const VALID: u32 = 2_592_000;
const PREFERRED: u32 = 604_800;

/// The options' types: prefix information, MTU (RFC 4861 section 4.6), RDNSS and DNSSL (RFC 8106 sections 5.1, 5.2).
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// The prefix option's flags: on-link and autonomous.
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

/// The times of the unsolicited advertisements.
#[derive(Debug)]
pub(super) struct Advertiser {
    next: Option<Instant>,
    sent: u32,
    seed: u64,
}

impl Advertiser {
    pub(super) fn new(config: &Config) -> Self {
        let [a, b, c, d, e, f] = config.mac.0;
        Self {
            next: config.subnet6.map(|_| Instant::ZERO),
            sent: 0,
            seed: u64::from_be_bytes([0, 1, a, b, c, d, e, f]),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Advertises to all if it is time.
    pub(super) fn flush<H>(&mut self, cx: &mut Cx<'_, H>) {
        if self.next.is_none_or(|at| at > cx.now) {
            return;
        }
        advertise(cx, ALL_NODES, ndp::group_mac(ALL_NODES));
        self.sent = self.sent.saturating_add(1);
        // Section 6.2.4: a random time within the interval keeps the routers of a link from falling into step. It need
        // not be secret.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let wait = MIN_INTERVAL + (self.seed >> 33) % (MAX_INTERVAL - MIN_INTERVAL + 1);
        let wait = if self.sent < INITIAL {
            wait.min(INITIAL_INTERVAL)
        } else {
            wait
        };
        self.next = Some(cx.now + Duration::from_secs(wait));
    }
}

/// Answers a router solicitation, to the one who asked.
///
/// Section 6.2.6 allows an answer to one; where the solicitation names no address it goes to all nodes by IP but to the
/// asker's Ethernet address (RFC 6085), so that a flood of solicitations is no flood for others.
pub(super) fn solicitation<H>(
    cx: &mut Cx<'_, H>,
    packet: &Packet,
    src: Ipv6Addr,
    body: &[u8],
) -> Result<(), DropReason> {
    let options = body.get(8..).ok_or(DropReason::Malformed)?;
    let source = ndp::link_layer(options, SOURCE_LINK_LAYER)?;
    if src.is_unspecified() {
        // Section 6.1.1.
        if source.is_some() {
            return Err(DropReason::Malformed);
        }
        advertise(cx, ALL_NODES, packet.src_mac);
        return Ok(());
    }
    if !src.is_unicast_link_local() && !cx.config.on_link(src.into()) {
        return Err(DropReason::BadSourceAddress);
    }
    if source.is_some_and(|mac| mac != packet.src_mac) {
        return Err(DropReason::BadSourceAddress);
    }
    if source.is_some() && cx.learn(src.into(), packet.src_mac) == super::Heard::Conflict {
        return Err(DropReason::BadSourceAddress);
    }
    advertise(cx, src, packet.src_mac);
    Ok(())
}

fn advertise<H>(cx: &mut Cx<'_, H>, to: Ipv6Addr, mac: MacAddr) {
    let config = cx.config;
    ndp::send(cx, mac, config.link_local6(), to, |b| build(config, b));
}

/// Writes the advertisement into `b`; bytes written.
fn build(config: &Config, b: &mut [u8]) -> usize {
    let Some(subnet) = config.subnet6 else {
        return 0;
    };
    let mut w = Writer { b, at: 0 };
    // Hop limit 64; neither managed nor other configuration; reachable and retransmission times unspecified.
    w.put(&[ROUTER_ADVERT, 0, 0, 0, 64, 0]);
    let lifetime = match config.egress {
        Egress::Host | Egress::Uplink => ROUTER_LIFETIME,
        // Section 4.2: no default router. The rest of the advertisement counts all the same.
        Egress::None => 0,
    };
    w.put(&lifetime.to_be_bytes());
    w.put(&[0; 8]);

    w.put(&[SOURCE_LINK_LAYER, 1]);
    w.put(&config.mac.0);

    w.put(&[MTU, 1, 0, 0]);
    w.put(&u32::from(config.mtu).to_be_bytes());

    // RFC 4862 section 5.5.3: an Ethernet interface makes an address of a /64 only.
    let flags = if subnet.net.prefix_len() == 64 {
        ON_LINK | AUTONOMOUS
    } else {
        ON_LINK
    };
    w.put(&[PREFIX, 4, subnet.net.prefix_len(), flags]);
    w.put(&VALID.to_be_bytes());
    w.put(&PREFERRED.to_be_bytes());
    w.put(&[0; 4]);
    w.put(&subnet.net.network().octets());

    if let Some(server) = subnet.name_server() {
        w.put(&[RDNSS, 3, 0, 0]);
        w.put(&u32::from(ROUTER_LIFETIME).to_be_bytes());
        w.put(&server.octets());
    }

    let domains = super::encode_domains(&config.search, MAX_DOMAINS);
    if !domains.is_empty() {
        let units = 1 + domains.len().div_ceil(8);
        w.put(&[DNSSL, units as u8, 0, 0]);
        w.put(&u32::from(ROUTER_LIFETIME).to_be_bytes());
        w.put(&domains);
        w.put(&[0; 7][..(units - 1) * 8 - domains.len()]);
    }
    w.at
}

/// Bytes of search domains at most, so that an advertisement fits the least MTU of IPv6.
const MAX_DOMAINS: usize = 1000;

struct Writer<'a> {
    b: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.b[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}
