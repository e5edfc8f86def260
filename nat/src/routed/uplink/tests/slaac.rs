//! Router advertisements: routers and their order, addresses and their lifetimes, what is bounded.

use super::super::slaac::{PREFIXES, RESOLVERS, ROUTERS};
use super::*;

const HOUR: u32 = 3600;

/// An advertisement being built.
#[derive(Clone)]
pub(super) struct Advert {
    src: String,
    mac: MacAddr,
    flags: u8,
    lifetime: u16,
    options: Vec<u8>,
}

impl Advert {
    pub(super) fn of(src: &str, mac: MacAddr) -> Self {
        Self {
            src: src.into(),
            mac,
            flags: 0,
            lifetime: 1800,
            options: [&[1, 1][..], &mac.0].concat(),
        }
    }

    fn lifetime(self, lifetime: u16) -> Self {
        Self { lifetime, ..self }
    }

    fn preference(self, bits: u8) -> Self {
        let flags = bits << 3;
        Self { flags, ..self }
    }

    pub(super) fn prefix(mut self, prefix: &str, flags: u8, valid: u32, preferred: u32) -> Self {
        let net: ipnet::Ipv6Net = prefix.parse().expect("a prefix");
        self.options.extend([3, 4, net.prefix_len(), flags]);
        self.options.extend(valid.to_be_bytes());
        self.options.extend(preferred.to_be_bytes());
        self.options.extend([0; 4]);
        self.options.extend(net.addr().octets());
        self
    }

    fn mtu(mut self, mtu: u32) -> Self {
        self.options.extend([5, 1, 0, 0]);
        self.options.extend(mtu.to_be_bytes());
        self
    }

    fn resolvers(mut self, lifetime: u32, addrs: &[&str]) -> Self {
        self.options.extend([25, 1 + 2 * addrs.len() as u8, 0, 0]);
        self.options.extend(lifetime.to_be_bytes());
        for addr in addrs {
            let IpAddr::V6(addr) = ip(addr) else {
                panic!("IPv6")
            };
            self.options.extend(addr.octets());
        }
        self
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let [a, b] = self.lifetime.to_be_bytes();
        let body = [&[0; 8][..], &self.options].concat();
        Between::v6(&self.src, "ff02::1")
            .macs(self.mac, MacAddr([0x33, 0x33, 0, 0, 0, 1]))
            .ttl(255)
            .icmp(134, 0, [64, self.flags, a, b], &body)
    }
}

const BOTH: u8 = 0xc0;
const OWN: &str = "2001:db8:1::ff:fe00:10";

fn slaac() -> Site {
    Site::new(world(None, Some(Addressing6::Slaac)))
}

fn configured() -> Site {
    let mut site = slaac();
    let advert = Advert::of("fe80::1", ROUTER).prefix("2001:db8:1::/64", BOTH, 24 * HOUR, 12 * HOUR);
    site.hear(&advert.frame());
    site.run(SECOND * 5);
    site.said();
    assert_eq!(site.events(), [UplinkEvent::AddressGained(ip(OWN))]);
    site
}

#[test]
fn routers_are_solicited_thrice_and_then_ever_more_seldom() {
    let mut site = slaac();
    let solicitation = Said::Routers { src: ip(LOCAL) };
    let mut count = |time| {
        site.run(time);
        site.said().iter().filter(|&s| *s == solicitation).count()
    };
    assert_eq!(count(SECOND * 3), 1);
    assert_eq!(count(SECOND * 6), 2);
    assert_eq!(count(SECOND * 4), 1, "12 s");
    assert_eq!(count(SECOND * 3600), 8, "after 8 s, 16 s, ... 1024 s");
    assert_eq!(count(SECOND * 36_000), 10);
    site.hear(&Advert::of("fe80::1", ROUTER).frame());
    site.run(SECOND * 1700);
    assert_eq!(site.said(), []);
    // The router's lifetime ends.
    site.run(SECOND * 101);
    assert_eq!(site.said(), [solicitation]);
    assert_eq!(site.uplink.hop(ip("2001:db8:9::9")), None);
}

#[test]
fn a_prefix_makes_an_address_that_is_first_asked_for() {
    let mut site = slaac();
    site.run(SECOND * 9);
    site.said();
    let advert = Advert::of("fe80::1", ROUTER)
        .prefix("2001:db8:1::/64", BOTH, 24 * HOUR, 12 * HOUR)
        .prefix("2001:db8:2::/48", BOTH, 24 * HOUR, 12 * HOUR)
        .prefix("2001:db8:3::/64", 0x80, 24 * HOUR, 12 * HOUR)
        .prefix("2001:db8:4::/64", BOTH, HOUR, 2 * HOUR)
        .prefix("fe80::/64", BOTH, 24 * HOUR, 12 * HOUR)
        .mtu(1400)
        .resolvers(600, &["2001:db8::53", "2001:db8::54"]);
    site.hear(&advert.frame());
    let probe = Said::Solicit {
        to: MacAddr([0x33, 0x33, 0xff, 0, 0, 0x10]),
        src: ip("::"),
        target: ip(OWN),
    };
    assert_eq!(site.said(), [probe]);
    assert_eq!(
        (site.uplink.address(ip("::")), site.uplink.owns(ip(OWN))),
        (None, false)
    );
    site.run(SECOND);
    assert_eq!(site.events(), [UplinkEvent::AddressGained(ip(OWN))]);
    assert_eq!(site.uplink.address(ip("::")), Some(ip(OWN)));
    assert_eq!(
        (site.uplink.mtu(ip("::")), site.uplink.mtu(ip("0.0.0.0"))),
        (1400, 1500)
    );
    let status = site.uplink.status();
    assert_eq!(status.resolvers, [ip("2001:db8::53"), ip("2001:db8::54")]);
    assert_eq!(status.gateways, [ip("fe80::1")]);
    let nets: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(nets, [format!("{LOCAL}/64"), format!("{OWN}/64")]);
    // On the link is what the router says is; the rest goes to it, whose address is known from the advertisement.
    assert_eq!(site.uplink.hop(ip("2001:db8:1::77")), Some(ip("2001:db8:1::77")));
    assert_eq!(site.uplink.hop(ip("2001:db8:3::77")), Some(ip("2001:db8:3::77")));
    assert_eq!(site.uplink.hop(ip("2001:db8:9::77")), Some(ip("fe80::1")));
    site.said();
    site.send("2001:db8:9::77");
    assert!(site.said().contains(&packet(ROUTER, "2001:db8:9::77")));
    site.run(SECOND * 600);
    assert_eq!(site.uplink.status().resolvers, [] as [IpAddr; 0]);
}

#[test]
fn an_address_that_is_anothers_is_not_taken() {
    for claim in [
        // It answers the question, or asks the same.
        advert(OTHER, MacAddr([0x33, 0x33, 0, 0, 0, 1]), OWN, "ff02::1", 0x20),
        {
            let IpAddr::V6(addr) = ip(OWN) else { panic!("IPv6") };
            Between::v6("::", "ff02::1:ff00:10")
                .macs(OTHER, MacAddr([0x33, 0x33, 0xff, 0, 0, 0x10]))
                .ttl(255)
                .icmp(135, 0, [0; 4], &addr.octets())
        },
    ] {
        let mut site = slaac();
        let advert = Advert::of("fe80::1", ROUTER).prefix("2001:db8:1::/64", BOTH, 24 * HOUR, 12 * HOUR);
        site.hear(&advert.frame());
        site.hear(&claim);
        site.run(SECOND * 60);
        assert_eq!((site.uplink.address(ip("::")), site.events()), (None, Vec::new()));
        assert!(site.drops().is_empty());
    }
}

#[test]
fn a_forger_cannot_shorten_an_address_s_life_below_two_hours() {
    let mut site = configured();
    let forged = Advert::of("fe80::1", ROUTER).prefix("2001:db8:1::/64", BOTH, 1, 1);
    site.hear(&forged.frame());
    site.run(SECOND * (2 * HOUR - 10));
    assert!(site.uplink.owns(ip(OWN)));
    // Less than two hours are left: it is not looked at.
    site.hear(&forged.frame());
    assert!(site.uplink.owns(ip(OWN)));
    site.run(SECOND * 10);
    assert!(!site.uplink.owns(ip(OWN)));
    assert_eq!(site.events(), [UplinkEvent::AddressLost(ip(OWN))]);
}

#[test]
fn a_prefix_that_is_phased_out_gives_its_place_to_another() {
    let mut site = configured();
    let renumbered = Advert::of("fe80::1", ROUTER)
        .prefix("2001:db8:1::/64", BOTH, 24 * HOUR, 0)
        .prefix("2001:db8:2::/64", BOTH, 24 * HOUR, HOUR);
    site.hear(&renumbered.frame());
    site.run(SECOND * 2);
    let new = ip("2001:db8:2::ff:fe00:10");
    assert_eq!(site.uplink.address(ip("::")), Some(new));
    assert!(site.uplink.owns(ip(OWN)), "for the flows that have it");
    assert_eq!(site.events(), [UplinkEvent::AddressGained(new)]);
    // Deprecated both: better one of them than none.
    site.run(SECOND * (HOUR + 1));
    assert!(site.uplink.address(ip("::")).is_some());
}

#[test]
fn the_best_router_that_answers_is_used() {
    let mut site = configured();
    let far = "2001:db8:9::9";
    site.hear(&Advert::of("fe80::3", OTHER).preference(3).frame());
    assert_eq!(site.uplink.hop(ip(far)), Some(ip("fe80::1")));
    let best = MacAddr([2, 0, 0, 0, 0, 0x40]);
    site.hear(&Advert::of("fe80::2", best).preference(1).frame());
    assert_eq!(
        site.uplink.hop(ip(far)),
        Some(ip("fe80::2")),
        "of high preference"
    );
    // It does not answer: after three questions the next takes its place, and no packet waits.
    for _ in 0..5 {
        site.send(far);
        site.run(SECOND);
    }
    site.said();
    site.send(far);
    assert!(site.said().contains(&packet(ROUTER, far)));
    // It answers again, and has its place again.
    site.run(SECOND * 20);
    site.hear(&advert(best, OURS, "fe80::2", LOCAL, 0xe0));
    assert_eq!(site.uplink.hop(ip(far)), Some(ip("fe80::2")));
    site.hear(&advert(ROUTER, OURS, "fe80::1", LOCAL, 0xe0));
    // It says that it is no router any more, and one takes its leave.
    site.hear(&advert(
        best,
        MacAddr([0x33, 0x33, 0, 0, 0, 1]),
        "fe80::2",
        "ff02::1",
        0x20,
    ));
    assert_eq!(site.uplink.hop(ip(far)), Some(ip("fe80::1")));
    site.hear(&Advert::of("fe80::1", ROUTER).lifetime(0).frame());
    assert_eq!(site.uplink.hop(ip(far)), Some(ip("fe80::3")));
}

#[test]
fn advertisements_of_strangers_grow_nothing() {
    let mut site = slaac();
    for i in 0..200 {
        let mut advert = Advert::of(&format!("fe80::{i:x}:1"), OTHER);
        for j in 0..4 {
            advert = advert.prefix(&format!("2001:db8:{i:x}:{j}::/64"), BOTH, 9 * HOUR, 9 * HOUR);
        }
        let advert = advert.resolvers(600, &[&format!("2001:db8::{i:x}"), &format!("2001:db8:1::{i:x}")]);
        site.hear(&advert.frame());
        let mut far = advert.frame();
        far[14 + 7] = 64;
        site.hear(&far);
        site.hear(&Advert::of("2001:db8::1", OTHER).frame());
    }
    assert_eq!(site.drops(), vec![DropReason::Malformed; 400]);
    site.run(SECOND * 10);
    let status = site.uplink.status();
    assert_eq!(
        (status.gateways.len(), status.resolvers.len()),
        (ROUTERS, RESOLVERS)
    );
    assert_eq!(status.addresses.len(), 1 + super::super::addresses::SLAAC);
    let on_link = (0..200).filter(|i| {
        let addr = ip(&format!("2001:db8:{i:x}:3::9"));
        site.uplink.hop(addr) == Some(addr)
    });
    assert_eq!(on_link.count(), PREFIXES / 4);
    assert_eq!(site.uplink.neighbours.held().0, ROUTERS);
}

#[test]
fn a_fixed_address_may_go_by_advertised_routers() {
    let mut site = Site::new(world(
        None,
        Some(Addressing6::Static {
            address: "2001:db8::10/64".parse().expect("a net"),
            gateway: None,
        }),
    ));
    let advert = Advert::of("fe80::1", ROUTER).prefix("2001:db8:1::/64", BOTH, 24 * HOUR, 12 * HOUR);
    site.hear(&advert.frame());
    site.run(SECOND * 3);
    assert_eq!(site.uplink.hop(ip("2001:db8:9::9")), Some(ip("fe80::1")));
    assert!(!site.uplink.owns(ip(OWN)), "no address of theirs");
}
