//! Neighbours: questions, queues, confirmation, failure, and other routers.

use pontoon_fixtures::packet::coalesce;

use super::super::neighbours::{ASKED, KNOWN};
use super::super::queue::{ALL, ALL_BYTES, EACH};
use super::*;

#[test]
fn a_packet_waits_for_the_answer_and_goes_there() {
    let mut site = Site::settled();
    site.send("198.51.100.7");
    site.send("198.51.100.8");
    assert_eq!(
        site.said(),
        [question("192.0.2.1")],
        "one question for the router"
    );
    site.router_answers(ROUTER);
    assert_eq!(
        site.said(),
        [packet(ROUTER, "198.51.100.7"), packet(ROUTER, "198.51.100.8")]
    );
    site.send("198.51.100.7");
    assert_eq!(site.said(), [packet(ROUTER, "198.51.100.7")]);
    // Whom is on the link is asked for himself.
    site.send("192.0.2.77");
    assert_eq!(site.said(), [question("192.0.2.77")]);
    assert!(site.drops().is_empty() && site.events().is_empty());
}

#[test]
fn the_same_by_neighbour_discovery() {
    let mut site = Site::settled();
    site.send("2001:db8:ffff::7");
    let group = MacAddr([0x33, 0x33, 0xff, 0, 0, 1]);
    let asked = Said::Solicit {
        to: group,
        src: ip(LOCAL),
        target: ip("2001:db8::1"),
    };
    assert_eq!(site.said(), [asked]);
    site.hear(&advert(ROUTER, OURS, "2001:db8::1", LOCAL, 0xe0));
    assert_eq!(site.said(), [packet(ROUTER, "2001:db8:ffff::7")]);
}

#[test]
fn three_questions_a_second_apart_then_the_packet_is_given_back() {
    let mut site = Site::settled();
    site.send("192.0.2.77");
    site.run(SECOND * 3 - Duration::from_millis(1));
    assert_eq!(site.said(), vec![question("192.0.2.77"); 3]);
    assert!(site.events().is_empty());
    site.run(Duration::from_millis(2));
    let events = site.events();
    let [UplinkEvent::Unreachable(frames)] = &events[..] else {
        panic!("{events:?}")
    };
    let whole = Parsed::of(&frames[0].0).expect("the packet whole, with its checksums");
    assert_eq!(whole.dst, ip("192.0.2.77"));
    assert_eq!(site.drops(), [DropReason::NoNeighbour]);
    // While it is known to be dead packets fail at once, and it is asked for once a second.
    for _ in 0..30 {
        site.send("192.0.2.77");
        site.run(Duration::from_millis(100));
    }
    assert_eq!(site.said().len(), 2, "in three seconds less one tenth");
    assert_eq!(site.drops().len(), 30);
    assert!(matches!(&site.events()[..], [UplinkEvent::Unreachable(f)] if f.len() == 30));
    // It comes back.
    site.hear(&arp(OTHER, OURS, 2, "192.0.2.77", "192.0.2.10"));
    site.send("192.0.2.77");
    assert_eq!(site.said(), [packet(OTHER, "192.0.2.77")]);
    assert!(site.drops().is_empty());
}

#[test]
fn a_dead_neighbour_is_forgotten_to_be_dead() {
    let mut site = Site::settled();
    site.send("192.0.2.77");
    site.run(SECOND * 14);
    site.said();
    site.drops();
    site.send("192.0.2.77");
    assert_eq!(site.said(), [question("192.0.2.77")]);
    assert!(site.drops().is_empty(), "it waits again");
    assert_eq!(site.uplink.neighbours.held(), (0, 1, 1, (1, 47)));
}

#[test]
fn a_neighbour_in_use_is_confirmed_every_thirty_seconds_by_a_question_to_it_alone() {
    let mut site = Site::settled();
    site.send("198.51.100.7");
    site.router_answers(ROUTER);
    site.said();
    let mut probes = 0;
    for _ in 0..120 {
        site.run(SECOND);
        site.send("198.51.100.7");
        for said in site.said() {
            match said {
                Said::Arp {
                    to,
                    reply: false,
                    target,
                    ..
                } => {
                    assert_eq!((to, target), (ROUTER, ip("192.0.2.1")));
                    probes += 1;
                    site.router_answers(ROUTER);
                }
                said => assert_eq!(said, packet(ROUTER, "198.51.100.7")),
            }
        }
    }
    assert!((3..=4).contains(&probes), "{probes} probes in two minutes");
    // One that is not used is left in peace.
    site.run(SECOND * 600);
    assert_eq!(site.said(), []);
    assert_eq!(site.uplink.neighbours.held(), (1, 0, 0, (0, 0)));
}

#[test]
fn a_neighbour_that_falls_silent_is_asked_itself_then_all_are_then_it_is_given_up() {
    let mut site = Site::settled();
    site.send("198.51.100.7");
    site.router_answers(ROUTER);
    site.run(SECOND * 31);
    site.said();
    let mut asked = Vec::new();
    for _ in 0..7 {
        site.send("198.51.100.7");
        site.run(SECOND);
        for said in site.said() {
            if let Said::Arp { to, .. } = said {
                asked.push(to);
            }
        }
    }
    let (it, all) = (ROUTER, MacAddr::BROADCAST);
    assert_eq!(asked[..6], [it, it, it, all, all, all]);
    let events = site.events();
    assert!(matches!(&events[..], [UplinkEvent::Unreachable(_)]), "{events:?}");
}

#[test]
fn a_neighbour_that_moves_is_followed_at_once() {
    let mut site = Site::settled();
    site.send("198.51.100.7");
    site.router_answers(ROUTER);
    site.send("2001:db8:ffff::7");
    site.hear(&advert(ROUTER, OURS, "2001:db8::1", LOCAL, 0xe0));
    site.said();
    // Fail-over: a gratuitous request, a gratuitous reply, an advertisement that overrides.
    site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.1", "192.0.2.1"));
    site.send("198.51.100.7");
    assert!(site.said().contains(&packet(OTHER, "198.51.100.7")));
    site.hear(&arp(ROUTER, MacAddr::BROADCAST, 2, "192.0.2.1", "192.0.2.1"));
    site.send("198.51.100.7");
    assert!(site.said().contains(&packet(ROUTER, "198.51.100.7")));
    let all = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    site.hear(&advert(OTHER, all, "2001:db8::1", "ff02::1", 0xa0));
    site.send("2001:db8:ffff::7");
    assert!(site.said().contains(&packet(OTHER, "2001:db8:ffff::7")));
    // One that does not override only raises a doubt: RFC 4861 section 7.2.5.
    site.hear(&advert(OTHER, OURS, "2001:db8::1", LOCAL, 0xe0));
    site.hear(&advert(ROUTER, OURS, "2001:db8::1", LOCAL, 0xc0));
    site.send("2001:db8:ffff::7");
    let said = site.said();
    let probe = Said::Solicit {
        to: OTHER,
        src: ip(LOCAL),
        target: ip("2001:db8::1"),
    };
    assert!(said.contains(&probe) && said.contains(&packet(OTHER, "2001:db8:ffff::7")));
}

#[test]
fn what_nobody_asked_for_is_not_remembered() {
    let mut site = Site::settled();
    for i in 1..=250 {
        let addr = format!("192.0.2.{i}");
        if i != 10 {
            site.hear(&arp(OTHER, OURS, 2, &addr, "192.0.2.10"));
            site.hear(&arp(OTHER, MacAddr::BROADCAST, 1, &addr, &addr));
            site.hear(&advert(OTHER, OURS, &format!("2001:db8::f:{i:x}"), LOCAL, 0x60));
        }
    }
    assert_eq!(site.uplink.neighbours.held(), (0, 0, 0, (0, 0)));
    assert_eq!(site.said(), []);
}

#[test]
fn the_queue_of_a_neighbour_is_bounded_and_the_oldest_goes() {
    let mut site = Site::settled();
    for _ in 0..EACH + 5 {
        site.send("198.51.100.7");
    }
    site.send("198.51.100.9");
    assert_eq!(site.drops(), vec![DropReason::NoNeighbour; 6]);
    site.said();
    site.router_answers(ROUTER);
    let said = site.said();
    assert_eq!(said.len(), EACH);
    assert_eq!(said.last(), Some(&packet(ROUTER, "198.51.100.9")));
}

#[test]
fn a_super_frame_waits_whole() {
    let mut site = Site::settled();
    let segment = |i: u32| {
        let data = vec![7; 1000];
        Between::v4("10.0.2.5", "198.51.100.7").tcp(pontoon_fixtures::packet::Tcp {
            seq: i * 1000,
            flags: 16,
            data: &data,
            ..Default::default()
        })
    };
    let (mut bytes, offload) = coalesce((0..40).map(segment).collect()).remove(0);
    assert!(offload.gso.is_some() && bytes.len() > 40_000);
    let before = bytes.clone();
    let mut frame = Frame::whole(&mut bytes, offload);
    site.uplink
        .transmit(site.now, &mut frame, ip("192.0.2.1"), &mut site.tap);
    site.said();
    site.router_answers(ROUTER);
    let (sent, with) = site.tap.frames.remove(0);
    assert_eq!((&sent[12..], with), (&before[12..], offload));
    assert_eq!(sent[..6], ROUTER.0);
}

#[test]
fn a_scan_of_the_link_forgets_nobody_and_keeps_its_bounds() {
    let mut config = fixed();
    config.kind = LinkKind::World {
        ipv4: Some(Addressing4::Static {
            address: "10.0.0.10/8".parse().expect("a net"),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        }),
        ipv6: None,
        nat4: Nat::Masquerade,
        nat6: Nat::Masquerade,
        mapping: Mapping::EndpointIndependent,
    };
    let mut site = Site::new(config);
    site.send("198.51.100.7");
    site.hear(&arp(ROUTER, OURS, 2, "10.0.0.1", "10.0.0.10"));
    for i in 0..3000_u16 {
        let [a, b] = i.to_be_bytes();
        site.send(&format!("10.7.{a}.{b}"));
    }
    let (known, asked, timers, (frames, bytes)) = site.uplink.neighbours.held();
    assert_eq!((known, asked, timers), (1, ASKED.get(), ASKED.get()));
    assert!(frames <= ALL && bytes <= ALL_BYTES);
    assert_eq!(
        site.drops().len(),
        3000 - ASKED.get(),
        "those that fell out were counted"
    );
    site.said();
    site.send("198.51.100.7");
    assert_eq!(site.said(), [packet(ROUTER, "198.51.100.7")]);
    site.run(SECOND * 20);
    assert_eq!(
        site.uplink.neighbours.held(),
        (1, 0, 0, (0, 0)),
        "nothing is left"
    );
}

#[test]
fn the_table_of_neighbours_is_bounded() {
    let mut table = super::super::neighbours::Neighbours::new();
    let mut due = Due::default();
    for i in 0..KNOWN.get() as u32 + 500 {
        let addr = IpAddr::V4((0x0a00_0000 + i).into());
        table.way(Instant::ZERO, addr, &mut due);
        table.heard(Instant::ZERO, addr, OTHER, super::super::neighbours::Heard::Claim);
        // Stale, so a probe and a timer.
        table.way(Instant::ZERO, addr, &mut due);
    }
    let (known, asked, timers, _) = table.held();
    assert_eq!((known, asked, timers), (KNOWN.get(), 0, KNOWN.get()));
}
