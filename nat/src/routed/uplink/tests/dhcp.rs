//! DHCP: a lease won, kept, lost, changed, declined, and confirmed when the link comes up again.

use super::*;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;

const SERVER: &str = "192.0.2.1";

/// A client's message, as far as a server cares.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    kind: u8,
    to: MacAddr,
    dst: IpAddr,
    xid: [u8; 4],
    ciaddr: IpAddr,
    requested: Option<IpAddr>,
    client: Vec<u8>,
}

fn message(frame: &[u8]) -> Option<Message> {
    if frame[12..14] != [8, 0] {
        return None;
    }
    let packet = Parsed::of(frame)?;
    let Payload::Udp {
        src: 68,
        dst: 67,
        data,
    } = packet.payload
    else {
        return None;
    };
    assert_eq!(data[..4], [1, 1, 6, 0]);
    assert_eq!(data[28..34], OURS.0);
    let (mut kind, mut requested, mut client) = (0, None, Vec::new());
    let mut options = &data[240..];
    while let [code, len, rest @ ..] = options
        && *code != 255
    {
        let (value, rest) = rest.split_at(usize::from(*len));
        match code {
            53 => kind = value[0],
            50 => requested = Some(super::v4(value)),
            61 => client = value.to_vec(),
            _ => {}
        }
        options = rest;
    }
    Some(Message {
        kind,
        to: packet.dst_mac,
        dst: packet.dst,
        xid: data[4..8].try_into().expect("four"),
        ciaddr: super::v4(&data[12..]),
        requested,
        client,
    })
}

/// A server: what it lends, and what is out of order with it.
struct Server {
    address: &'static str,
    lease: u32,
    options: Vec<u8>,
    silent: bool,
    nak: bool,
    heard: Vec<Message>,
}

impl Server {
    fn new() -> Self {
        Self {
            address: "192.0.2.50",
            lease: 3600,
            options: [
                &[3, 4][..],
                &[192, 0, 2, 1],
                &[6, 8],
                &[192, 0, 2, 53, 192, 0, 2, 54],
            ]
            .concat(),
            silent: false,
            nak: false,
            heard: Vec::new(),
        }
    }

    fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame[12..14] == [8, 6] && frame[38..42] == [192, 0, 2, 1] && !self.silent {
            return Some(arp(ROUTER, OURS, 2, SERVER, self.address));
        }
        let message = message(frame)?;
        assert_eq!(
            message.client,
            [&[1][..], &OURS.0].concat(),
            "the client's identifier"
        );
        self.heard.push(message.clone());
        let kind = match message.kind {
            DISCOVER => OFFER,
            REQUEST if self.nak => NAK,
            REQUEST => ACK,
            _ => return None,
        };
        let IpAddr::V4(yours) = ip(self.address) else {
            panic!("IPv4")
        };
        let mut body = vec![0; 240];
        body[..4].copy_from_slice(&[2, 1, 6, 0]);
        body[4..8].copy_from_slice(&message.xid);
        body[16..20].copy_from_slice(&yours.octets());
        body[28..34].copy_from_slice(&OURS.0);
        body[236..].copy_from_slice(&[99, 130, 83, 99]);
        body.extend([53, 1, kind, 54, 4, 192, 0, 2, 1, 1, 4, 255, 255, 255, 0, 51, 4]);
        body.extend(self.lease.to_be_bytes());
        body.extend(&self.options);
        body.push(255);
        let unicast = Between::v4(SERVER, self.address).macs(ROUTER, OURS);
        (!self.silent).then(|| unicast.udp(67, 68, &body))
    }
}

struct Lab {
    site: Site,
    server: Server,
    /// Everything said but DHCP.
    others: Vec<Said>,
}

impl Lab {
    fn new() -> Self {
        Self {
            site: Site::new(world(Some(Addressing4::Dhcp), None)),
            server: Server::new(),
            others: Vec::new(),
        }
    }

    /// One with a lease.
    fn leased() -> Self {
        let mut lab = Self::new();
        lab.run(SECOND * 10);
        assert_eq!(lab.site.events(), [UplinkEvent::AddressGained(ip("192.0.2.50"))]);
        lab.server.heard.clear();
        lab.others.clear();
        lab
    }

    fn run(&mut self, time: Duration) {
        let end = self.site.now + time;
        while self.site.now < end {
            self.site.run(Duration::from_millis(50));
            while let frames = self.site.frames()
                && !frames.is_empty()
            {
                for frame in frames {
                    if message(&frame).is_none() {
                        self.others.push(read(&frame));
                    }
                    if let Some(answer) = self.server.answer(&frame) {
                        assert_eq!(self.site.hear(&answer), Received::Done);
                    }
                }
            }
        }
    }

    fn kinds(&mut self) -> Vec<u8> {
        self.server.heard.drain(..).map(|m| m.kind).collect()
    }

    fn has(&self, addr: &str) -> bool {
        self.site.uplink.address(ip("0.0.0.0")) == Some(ip(addr))
    }
}

#[test]
fn a_lease_gives_address_router_and_name_servers() {
    let mut lab = Lab::new();
    assert_eq!(lab.site.uplink.hop(ip("198.51.100.7")), None);
    lab.run(Duration::from_millis(500));
    assert_eq!(lab.kinds(), [DISCOVER, REQUEST]);
    assert!(
        lab.site.uplink.address(ip("0.0.0.0")).is_none(),
        "it is still being asked for"
    );
    lab.run(SECOND * 5);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressGained(ip("192.0.2.50"))]);
    assert!(lab.has("192.0.2.50") && lab.site.uplink.owns(ip("192.0.2.50")));
    let said = |sender: &str| Said::Arp {
        to: MacAddr::BROADCAST,
        reply: false,
        sender: ip(sender),
        target: ip("192.0.2.50"),
    };
    // Three probes, two announcements (RFC 5227).
    let (probe, announcement) = (said("0.0.0.0"), said("192.0.2.50"));
    assert_eq!(
        lab.others,
        [
            probe.clone(),
            probe.clone(),
            probe,
            announcement.clone(),
            announcement
        ]
    );
    let status = lab.site.uplink.status();
    assert_eq!(status.addresses[0].to_string(), "192.0.2.50/24");
    assert_eq!(status.gateways, [ip(SERVER)]);
    assert_eq!(status.resolvers, [ip("192.0.2.53"), ip("192.0.2.54")]);
    assert_eq!(lab.site.uplink.hop(ip("198.51.100.7")), Some(ip(SERVER)));
    assert!(lab.site.drops().is_empty());
}

#[test]
fn a_lease_is_renewed_in_silence_by_a_word_to_its_server() {
    let mut lab = Lab::leased();
    lab.run(SECOND * 3600 * 5);
    let heard = std::mem::take(&mut lab.server.heard);
    assert!(heard.len() >= 9, "every half hour: {}", heard.len());
    for renewal in heard {
        assert_eq!((renewal.kind, renewal.to), (REQUEST, ROUTER));
        assert_eq!((renewal.dst, renewal.ciaddr), (ip(SERVER), ip("192.0.2.50")));
        assert_eq!(renewal.requested, None);
    }
    assert!(lab.has("192.0.2.50") && lab.site.events().is_empty());
    assert!(lab.site.drops().is_empty());
}

#[test]
fn a_lease_that_nobody_renews_is_rebound_then_lost_then_won_again() {
    let mut lab = Lab::leased();
    lab.server.silent = true;
    lab.run(SECOND * 3590);
    let rebinding = lab.server.heard.iter().filter(|m| m.to.is_broadcast());
    assert!(rebinding.count() >= 1, "to any server at last");
    assert!(lab.has("192.0.2.50"));
    lab.site.events();
    lab.run(SECOND * 60);
    assert_eq!(lab.site.events()[0], UplinkEvent::AddressLost(ip("192.0.2.50")));
    assert_eq!(lab.site.uplink.hop(ip("198.51.100.7")), None);
    assert_eq!(lab.site.uplink.status().gateways, [] as [IpAddr; 0]);
    lab.server.silent = false;
    lab.run(SECOND * 20);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressGained(ip("192.0.2.50"))]);
}

#[test]
fn a_refused_renewal_ends_the_lease_and_another_address_follows() {
    let mut lab = Lab::leased();
    (lab.server.nak, lab.server.address) = (true, "192.0.2.60");
    lab.run(SECOND * 1810);
    // A server that refuses what it offers is not asked without end.
    let kinds = lab.kinds();
    assert_eq!(kinds[..3], [REQUEST, DISCOVER, REQUEST]);
    assert!(kinds.len() < 45, "{} messages in twenty seconds", kinds.len());
    lab.server.nak = false;
    lab.run(SECOND * 30);
    assert_eq!(
        lab.site.events(),
        [
            UplinkEvent::AddressLost(ip("192.0.2.50")),
            UplinkEvent::AddressGained(ip("192.0.2.60")),
        ]
    );
}

#[test]
fn a_renewal_may_change_the_rest() {
    let mut lab = Lab::leased();
    // Classless static routes replace the router (RFC 3442): a network, a default, a network on the link.
    lab.server.options = [
        &[6, 4, 192, 0, 2, 55, 26, 2, 0x05, 0x14][..],
        &[121, 8 + 5 + 7],
        &[24, 198, 51, 100, 192, 0, 2, 2],
        &[0, 192, 0, 2, 3],
        &[16, 172, 16, 0, 0, 0, 0],
    ]
    .concat();
    lab.run(SECOND * 1810);
    let status = lab.site.uplink.status();
    assert_eq!(status.resolvers, [ip("192.0.2.55")]);
    assert_eq!(status.gateways, [ip("192.0.2.3")]);
    assert_eq!(lab.site.uplink.mtu(ip("0.0.0.0")), 1300);
    let hop = |dst: &str| lab.site.uplink.hop(ip(dst));
    assert_eq!(hop("198.51.100.7"), Some(ip("192.0.2.2")));
    assert_eq!(hop("203.0.113.7"), Some(ip("192.0.2.3")));
    assert_eq!(hop("172.16.9.9"), Some(ip("172.16.9.9")));
    assert!(lab.site.events().is_empty(), "the address is the same");
}

#[test]
fn an_address_that_is_anothers_is_declined_and_another_asked_for_after_ten_seconds() {
    let mut lab = Lab::new();
    lab.run(Duration::from_millis(500));
    lab.site.hear(&arp(OTHER, OURS, 2, "192.0.2.50", "0.0.0.0"));
    lab.server.address = "192.0.2.60";
    lab.run(SECOND * 9);
    assert_eq!(
        lab.server.heard.last().expect("a word").requested,
        Some(ip("192.0.2.50"))
    );
    assert_eq!(lab.kinds(), [DISCOVER, REQUEST, DECLINE]);
    assert!(lab.site.events().is_empty(), "it was never ours");
    lab.run(SECOND * 5);
    assert_eq!(lab.kinds(), [DISCOVER, REQUEST]);
    assert!(lab.has("192.0.2.60"));
}

#[test]
fn a_leased_address_is_defended_once_then_given_up() {
    let mut lab = Lab::leased();
    let claim = arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.50", "192.0.2.50");
    lab.site.hear(&claim);
    lab.run(SECOND);
    assert!(lab.has("192.0.2.50"));
    assert_eq!(lab.others.len(), 1, "defended: {:?}", lab.others);
    lab.site.hear(&claim);
    lab.run(SECOND);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressLost(ip("192.0.2.50"))]);
    assert_eq!(lab.kinds(), [DECLINE]);
}

#[test]
fn rfc5227_section2_4_b_a_leased_address_is_kept_if_it_is_claimed_no_more_than_once_in_ten_seconds() {
    let mut lab = Lab::leased();
    let announcement = Said::Arp {
        to: MacAddr::BROADCAST,
        reply: false,
        sender: ip("192.0.2.50"),
        target: ip("192.0.2.50"),
    };
    let claim = arp(OTHER, MacAddr::BROADCAST, 1, "192.0.2.50", "192.0.2.50");
    for _ in 0..5 {
        lab.site.hear(&claim);
        lab.run(SECOND * 10);
        assert_eq!(
            std::mem::take(&mut lab.others),
            std::slice::from_ref(&announcement)
        );
    }
    assert!(lab.has("192.0.2.50") && lab.kinds().is_empty());
    lab.site.hear(&claim);
    lab.run(Duration::from_millis(9900));
    lab.site.hear(&claim);
    lab.run(SECOND);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressLost(ip("192.0.2.50"))]);
    assert_eq!(lab.kinds(), [DECLINE]);
}

#[test]
fn when_the_link_comes_up_again_the_lease_is_looked_after_and_kept_meanwhile() {
    let mut lab = Lab::leased();
    lab.site.uplink.renew(lab.site.now);
    lab.run(SECOND * 2);
    assert_eq!(lab.kinds(), [DISCOVER, REQUEST]);
    assert!(lab.has("192.0.2.50") && lab.site.events().is_empty());
    // No server on the other side yet: the lease lasts until its end.
    lab.server.silent = true;
    lab.site.uplink.renew(lab.site.now);
    lab.run(SECOND * 3590);
    assert!(lab.has("192.0.2.50") && lab.site.events().is_empty());
    lab.run(SECOND * 20);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressLost(ip("192.0.2.50"))]);
    // Another network there.
    (lab.server.silent, lab.server.address) = (false, "192.0.2.70");
    lab.run(SECOND * 10);
    assert_eq!(lab.site.events(), [UplinkEvent::AddressGained(ip("192.0.2.70"))]);
    lab.server.address = "192.0.2.71";
    lab.site.uplink.renew(lab.site.now);
    lab.run(SECOND * 10);
    assert_eq!(
        lab.site.events(),
        [
            UplinkEvent::AddressLost(ip("192.0.2.70")),
            UplinkEvent::AddressGained(ip("192.0.2.71")),
        ]
    );
}

#[test]
fn messages_that_are_not_ours_are_not_believed() {
    let mut lab = Lab::new();
    lab.site.run(Duration::from_millis(10));
    let discover = lab.site.frames().remove(0);
    let good = lab.server.answer(&discover).expect("an offer");
    let data = 14 + 20 + 8;
    for at in [data + 4, data + 28, data + 236] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let udp = 14 + 20 + 6;
        bad[udp..udp + 2].fill(0);
        assert_eq!(lab.site.hear(&bad), Received::Done);
        assert_eq!(lab.site.frames(), [] as [Vec<u8>; 0]);
    }
    let mut bad = good.clone();
    bad[data + 16] ^= 1;
    lab.site.hear(&bad);
    assert_eq!(lab.site.drops(), [DropReason::BadChecksum]);
    lab.site.hear(&good);
    let request = message(&lab.site.frames().remove(0)).expect("a request");
    assert_eq!(
        (request.kind, request.requested),
        (REQUEST, Some(ip("192.0.2.50")))
    );
    // Where there is no client the port is nobody's.
    let mut site = Site::settled();
    let datagram = Between::v4(SERVER, "192.0.2.10")
        .macs(ROUTER, OURS)
        .udp(67, 68, b"?");
    assert!(matches!(site.hear(&datagram), Received::Packet(_)));
}

#[test]
fn a_lease_is_given_back_to_its_server_alone_when_the_link_goes() {
    let mut lab = Lab::new();
    lab.run(SECOND * 10);
    let asked = lab.server.heard.last().map(|m| m.xid);
    assert!(asked.is_some() && lab.has("192.0.2.50"));
    // However long the neighbour has not been asked for.
    lab.server.silent = true;
    lab.run(SECOND * 60);
    let mut tap = Tap::default();
    lab.site.uplink.leave(&mut tap);
    let [(frame, _)] = tap.frames.as_slice() else {
        panic!("{:?}", tap.frames)
    };
    let said = message(frame).expect("a message");
    assert_ne!(Some(said.xid), asked, "a transaction of its own");
    assert_eq!(
        said,
        Message {
            kind: RELEASE,
            to: ROUTER,
            dst: ip(SERVER),
            xid: said.xid,
            ciaddr: ip("192.0.2.50"),
            requested: None,
            client: [&[1][..], &OURS.0].concat(),
        }
    );
    let parsed = Parsed::of(frame).expect("a packet");
    assert_eq!((parsed.src, parsed.src_mac), (ip("192.0.2.50"), OURS));
    // And once.
    let mut tap = Tap::default();
    lab.site.uplink.leave(&mut tap);
    assert!(tap.frames.is_empty());
    // Nothing to give back, nothing said.
    let mut lab = Lab::new();
    lab.site.uplink.leave(&mut tap);
    assert!(tap.frames.is_empty());
}
