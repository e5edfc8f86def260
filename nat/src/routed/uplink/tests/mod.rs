//! An uplink in memory: a virtual clock, a recording door, and neighbours that are told when to answer.
//!
//! Frames are built and read by hand here, so that nothing under test checks itself.

mod addresses;
mod dhcp;
mod mld;
mod neighbours;
mod peer;
mod receive;
mod slaac;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Parsed, Payload};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId};

use super::*;
use crate::routed::config::{Mapping, Nat};

pub(super) const PORT: PortId = PortId(9);
pub(super) const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x10]);
/// The link-local address of [`OURS`], by RFC 4291 appendix A.
pub(super) const LOCAL: &str = "fe80::ff:fe00:10";
pub(super) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x20]);
pub(super) const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x30]);

/// What left by the uplink, and what was dropped.
#[derive(Default)]
pub(super) struct Tap {
    pub(super) frames: Vec<(Vec<u8>, Offload)>,
    pub(super) drops: Vec<(Option<PortId>, DropReason)>,
}

impl Out for Tap {
    fn send(&mut self, _: &mut Frame<'_>) {
        panic!("an uplink sends nothing to the switch");
    }

    fn send_by(&mut self, uplink: PortId, frame: &mut Frame<'_>) {
        assert_eq!(uplink, PORT);
        self.frames.push((frame.bytes().to_vec(), frame.offload));
    }

    fn drop(&mut self, ingress: Option<PortId>, reason: DropReason) {
        self.drops.push((ingress, reason));
    }
}

/// What a frame of the uplink's says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Arp {
        to: MacAddr,
        reply: bool,
        sender: IpAddr,
        target: IpAddr,
    },
    Solicit {
        to: MacAddr,
        src: IpAddr,
        target: IpAddr,
    },
    Advertise {
        to: MacAddr,
        target: IpAddr,
        flags: u8,
    },
    Routers {
        src: IpAddr,
    },
    /// Of groups: the types of the records, or of the message in version 1.
    Groups(Vec<(u8, IpAddr)>),
    Ip {
        to: MacAddr,
        dst: IpAddr,
        protocol: u8,
    },
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn v4(bytes: &[u8]) -> IpAddr {
    IpAddr::from(<[u8; 4]>::try_from(&bytes[..4]).expect("four"))
}

fn v6(bytes: &[u8]) -> IpAddr {
    IpAddr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("sixteen"))
}

/// Reads a frame; panics where it is not as the standards say.
pub(super) fn read(frame: &[u8]) -> Said {
    let to = MacAddr::first(frame).expect("a header");
    assert_eq!(frame[6..12], OURS.0, "from our address");
    if frame[12..14] == [8, 6] {
        assert_eq!(frame[14..20], [0, 1, 8, 0, 6, 4]);
        assert_eq!(frame[22..28], OURS.0);
        return Said::Arp {
            to,
            reply: frame[21] == 2,
            sender: v4(&frame[28..]),
            target: v4(&frame[38..]),
        };
    }
    let packet = Parsed::of(frame).expect("IP");
    if let (Payload::Icmp { kind, rest, body, .. }, true) = (&packet.payload, packet.src.is_ipv6())
        && (133..=137).contains(kind)
    {
        assert_eq!(packet.ttl, 255);
        let all = |b: &[u8], at: usize| b.get(at..at + 6).is_none_or(|mac| mac == OURS.0);
        return match kind {
            133 => {
                assert!(packet.dst == ip("ff02::2") && body[..2] == [1, 1] && all(body, 2));
                Said::Routers { src: packet.src }
            }
            135 => {
                let target = v6(body);
                let IpAddr::V6(addr) = target else { unreachable!() };
                let [.., a, b, c] = addr.octets();
                if to.is_group() {
                    assert_eq!(to.0, [0x33, 0x33, 0xff, a, b, c]);
                }
                assert_eq!(packet.src.is_unspecified(), body.len() == 16, "its option");
                Said::Solicit {
                    to,
                    src: packet.src,
                    target,
                }
            }
            136 => {
                assert!(body[16..18] == [2, 1] && all(body, 18));
                Said::Advertise {
                    to,
                    target: v6(body),
                    flags: rest[0],
                }
            }
            _ => panic!("a host says no {kind}"),
        };
    }
    if let (Payload::Icmp { kind, rest, body, .. }, true) = (&packet.payload, packet.src.is_ipv6())
        && matches!(kind, 131 | 132 | 143)
    {
        // RFC 3810 section 5: hop limit, source and router alert.
        assert_eq!((packet.ttl, packet.src), (1, ip(LOCAL)));
        assert_eq!(frame[14 + 6], 0, "hop-by-hop options");
        assert_eq!(frame[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
        let records: Vec<(u8, IpAddr)> = if *kind == 143 {
            assert_eq!(body.len(), 20 * usize::from(rest[3]), "its records");
            let record = |r: &[u8]| {
                assert_eq!(r[1..4], [0; 3], "no data, no sources");
                (r[0], v6(&r[4..]))
            };
            body.chunks(20).map(record).collect()
        } else {
            assert_eq!((*rest, body.len()), ([0; 4], 16));
            vec![(*kind, v6(body))]
        };
        let dst = match kind {
            143 => ip("ff02::16"),
            132 => ip("ff02::2"),
            _ => records[0].1,
        };
        assert_eq!(packet.dst, dst);
        let IpAddr::V6(dst) = dst else { unreachable!() };
        let [.., a, b, c, d] = dst.octets();
        assert_eq!(to.0, [0x33, 0x33, a, b, c, d]);
        return Said::Groups(records);
    }
    Said::Ip {
        to,
        dst: packet.dst,
        protocol: packet.protocol,
    }
}

pub(super) fn arp(from: MacAddr, to: MacAddr, operation: u8, sender: &str, target: &str) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (ip(sender), ip(target)) else {
        panic!("ARP is for IPv4")
    };
    let mut frame = [
        &to.0[..],
        &from.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation],
        &from.0,
    ]
    .concat();
    frame.extend(sender.octets());
    frame.extend(if operation == 2 { to.0 } else { [0; 6] });
    frame.extend(target.octets());
    frame
}

/// A neighbour advertisement of `target` at `from`, to `dst` at `to`.
pub(super) fn advert(from: MacAddr, to: MacAddr, target: &str, dst: &str, flags: u8) -> Vec<u8> {
    let IpAddr::V6(addr) = ip(target) else {
        panic!("IPv6")
    };
    let body = [&addr.octets()[..], &[2, 1], &from.0].concat();
    let between = Between::v6(target, dst).macs(from, to).ttl(255);
    between.icmp(136, 0, [flags, 0, 0, 0], &body)
}

/// An uplink and its surroundings.
pub(super) struct Site {
    pub(super) uplink: Uplink,
    pub(super) now: Instant,
    pub(super) tap: Tap,
}

pub(super) fn world(ipv4: Option<Addressing4>, ipv6: Option<Addressing6>) -> UplinkConfig {
    UplinkConfig {
        mac: OURS,
        mtu: 1500,
        kind: LinkKind::World {
            ipv4,
            ipv6,
            nat4: Nat::Masquerade,
            nat6: Nat::Masquerade,
            mapping: Mapping::EndpointIndependent,
        },
    }
}

/// 192.0.2.10/24 by 192.0.2.1, and 2001:db8::10/64 by the router of that number.
pub(super) fn fixed() -> UplinkConfig {
    world(
        Some(Addressing4::Static {
            address: "192.0.2.10/24".parse().expect("a net"),
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        }),
        Some(Addressing6::Static {
            address: "2001:db8::10/64".parse().expect("a net"),
            gateway: Some("2001:db8::1".parse::<Ipv6Addr>().expect("an address")),
        }),
    )
}

impl Site {
    pub(super) fn new(config: UplinkConfig) -> Self {
        let now = Instant::from_millis(5000);
        Self {
            uplink: Uplink::new(PORT, config, (1, 2), now),
            now,
            tap: Tap::default(),
        }
    }

    /// A fixed one whose announcements are over and forgotten.
    pub(super) fn settled() -> Self {
        let mut site = Self::new(fixed());
        site.run(Duration::from_secs(5));
        site.said();
        site.events();
        site
    }

    pub(super) fn hear(&mut self, frame: &[u8]) -> Received {
        self.hear_as(frame, Offload::NONE)
    }

    pub(super) fn hear_as(&mut self, frame: &[u8], offload: Offload) -> Received {
        let mut frame = frame.to_vec();
        let received = self
            .uplink
            .receive(self.now, &mut Frame::whole(&mut frame, offload), &mut self.tap);
        self.uplink.flush(self.now, &mut self.tap);
        received
    }

    /// Sends a datagram to `dst` by the uplink's own choice of a next hop.
    pub(super) fn send(&mut self, dst: &str) {
        let src = if dst.contains(':') { "fd00::5" } else { "10.0.2.5" };
        let mut frame = Between::new(ip(src), ip(dst)).udp(1000, 2000, b"hello");
        frame[..14].fill(0xee);
        let hop = self.uplink.hop(ip(dst)).expect("a way");
        let mut frame = Frame::whole(&mut frame, Offload::NONE);
        self.uplink.transmit(self.now, &mut frame, hop, &mut self.tap);
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(at) = self.uplink.deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.uplink.flush(self.now, &mut self.tap);
            steps += 1;
            assert!(steps < 100_000, "a deadline that is never met");
        }
        self.now = end;
    }

    /// What was said since the last call.
    pub(super) fn said(&mut self) -> Vec<Said> {
        self.frames().iter().map(|f| read(f)).collect()
    }

    pub(super) fn frames(&mut self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(&mut self.tap.frames);
        frames.into_iter().map(|(frame, _)| frame).collect()
    }

    pub(super) fn drops(&mut self) -> Vec<DropReason> {
        let drops = std::mem::take(&mut self.tap.drops);
        drops.into_iter().map(|(_, reason)| reason).collect()
    }

    pub(super) fn events(&mut self) -> Vec<UplinkEvent> {
        std::iter::from_fn(|| self.uplink.take_event()).collect()
    }

    /// The router of [`fixed`] answers for IPv4.
    pub(super) fn router_answers(&mut self, mac: MacAddr) {
        self.hear(&arp(mac, OURS, 2, "192.0.2.1", "192.0.2.10"));
    }
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn question(target: &str) -> Said {
    Said::Arp {
        to: MacAddr::BROADCAST,
        reply: false,
        sender: ip("192.0.2.10"),
        target: ip(target),
    }
}

pub(super) fn packet(to: MacAddr, dst: &str) -> Said {
    Said::Ip {
        to,
        dst: ip(dst),
        protocol: 17,
    }
}
