//! Packets of every kind, and where they may go.

use std::net::SocketAddr;

use super::*;

/// An option of IPv4 or TCP without meaning.
pub(super) const NOP: u8 = 1;

/// A packet and what its frame claims.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
}

/// How a sample's transport checksum stands.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sum {
    Right,
    Wrong(u16),
    None,
    Partial,
}

/// From a container to the world.
pub(super) fn between(v6: bool) -> Between {
    if v6 {
        Between::v6("fd00:2::64", "2001:db8::10")
    } else {
        Between::v4("10.0.2.100", "198.51.100.10")
    }
}

/// The other way.
pub(super) fn back(v6: bool) -> Between {
    if v6 {
        Between::v6("2001:db8::10", "fd00:2::64")
    } else {
        Between::v4("198.51.100.10", "10.0.2.100")
    }
}

/// Any packet: every protocol, with IP options or extension headers, and any checksum.
pub(super) fn sample() -> impl Strategy<Value = Sample> {
    prop_oneof![3 => whole_sample(), 1 => partial_sample()]
}

/// Any whose checksum is not partial.
pub(super) fn whole_sample() -> impl Strategy<Value = Sample> {
    let sum = prop_oneof![
        2 => Just(Sum::Right),
        2 => (1u16..0xffff).prop_map(Sum::Wrong),
        1 => Just(Sum::None),
    ];
    samples(0..10, sum)
}

/// Any whose checksum is partial: TCP and UDP.
pub(super) fn partial_sample() -> impl Strategy<Value = Sample> {
    samples(0..4, Just(Sum::Partial))
}

fn samples(kinds: std::ops::Range<usize>, sum: impl Strategy<Value = Sum>) -> impl Strategy<Value = Sample> {
    (
        any::<bool>(),
        kinds,
        any::<(u16, u16)>(),
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(prop_oneof![Just(0u8), Just(60), Just(44)], 0..3),
        0usize..=10,
        sum,
    )
        .prop_map(|(v6, kind, ports, data, extensions, options, sum)| {
            build(v6, kind, ports, &data, &extensions, options, sum)
        })
}

fn build(
    v6: bool,
    kind: usize,
    (sport, dport): (u16, u16),
    data: &[u8],
    extensions: &[u8],
    options: usize,
    sum: Sum,
) -> Sample {
    let between = between(v6);
    let [a, b] = sport.to_be_bytes();
    let mut bytes = match kind {
        0 | 1 => between.tcp(Tcp {
            src: sport,
            dst: dport,
            seq: 5,
            flags: flags::ACK,
            data,
            ..Tcp::default()
        }),
        2 | 3 => between.udp(sport, dport, data),
        4 => between.echo(sport, dport, data),
        5 => between.icmp(if v6 { 129 } else { 0 }, 0, [a, b, 0, 1], data),
        6 => other(between, 136, data),
        7 => other(between, 33, data),
        8 => between.ip(132, data),
        _ => between.ip(47, data),
    };
    let at = ETHERNET + if v6 { 40 } else { 20 };
    let protocol = bytes[ETHERNET + if v6 { 6 } else { 9 }];
    let field = checksum_field(protocol);
    assert!(field.is_none() || wrong_by(&bytes) == 0, "samples begin right");
    let offload = match (sum, field) {
        (Sum::Partial, Some(field)) if protocol != 1 => make_partial(&mut bytes, at, field),
        (Sum::Wrong(by), Some(field)) => {
            let old = u16::from_be_bytes([bytes[at + field], bytes[at + field + 1]]);
            // Neither zero, of which either may stand for the other.
            let wrong = match old.wrapping_add(by) {
                0 | 0xffff => 0x1234,
                wrong => wrong,
            };
            bytes[at + field..at + field + 2].copy_from_slice(&wrong.to_be_bytes());
            Offload::NONE
        }
        (Sum::None, Some(field)) if protocol == 17 => {
            bytes[at + field..at + field + 2].fill(0);
            Offload::NONE
        }
        (Sum::Right | Sum::None | Sum::Partial | Sum::Wrong(_), _) => Offload::NONE,
    };
    let extra = if v6 {
        extend(&mut bytes, extensions)
    } else {
        put_options(&mut bytes, options)
    };
    Sample {
        bytes,
        offload: moved(offload, extra),
    }
}

/// A packet of a protocol whose checksum stands where UDP's does.
fn other(between: Between, protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut transport = vec![1, 2, 3, 4, 5, 6, 0, 0];
    transport.extend(data);
    let mut bytes = between.ip(protocol, &transport);
    let (src, dst, protocol, transport) = seen(&bytes);
    let sum = match residue(src, dst, protocol, &transport) {
        0 => 0xffff,
        sum => sum,
    };
    let at = bytes.len() - transport.len();
    bytes[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Puts the sum of the pseudo-header where the checksum stands, for a device to fill in.
pub(super) fn make_partial(bytes: &mut [u8], at: usize, field: usize) -> Offload {
    let (src, dst, protocol, transport) = seen(bytes);
    // All zeroes: what is left is the pseudo-header.
    let sum = !residue(src, dst, protocol, &vec![0; transport.len()]);
    bytes[at + field..at + field + 2].copy_from_slice(&sum.to_be_bytes());
    let checksum = Checksum::Partial {
        start: u16::try_from(at).expect("short"),
        offset: u16::try_from(field).expect("short"),
    };
    Offload { checksum, gso: None }
}

fn moved(offload: Offload, by: usize) -> Offload {
    match offload.checksum {
        Checksum::Partial { start, offset } => Offload {
            checksum: Checksum::Partial {
                start: start + u16::try_from(by).expect("short"),
                offset,
            },
            ..offload
        },
        Checksum::Complete | Checksum::Valid => offload,
    }
}

/// Puts `words` words of options behind an IPv4 header; their bytes.
pub(super) fn put_options(bytes: &mut Vec<u8>, words: usize) -> usize {
    let len = words * 4;
    let header = ETHERNET + 20;
    bytes.splice(header..header, std::iter::repeat_n(NOP, len));
    bytes[ETHERNET] = 0x45 + u8::try_from(words).expect("ten words");
    let total = u16::try_from(bytes.len() - ETHERNET).expect("a packet");
    bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
    set_header_checksum(bytes, 20 + len);
    len
}

pub(super) fn set_header_checksum(bytes: &mut [u8], len: usize) {
    if len < 20 || ETHERNET + len > bytes.len() {
        return;
    }
    bytes[ETHERNET + 10..ETHERNET + 12].fill(0);
    let sum = packet::fold(packet::sum_of(&bytes[ETHERNET..ETHERNET + len]));
    bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts extension headers behind an IPv6 header, a hop-by-hop one in the first place only; their bytes.
fn extend(bytes: &mut Vec<u8>, kinds: &[u8]) -> usize {
    let at = ETHERNET + 40;
    let mut names = ETHERNET + 6;
    let mut len = 0;
    let kinds = kinds.iter().enumerate();
    for (_, &kind) in kinds.filter(|&(i, &kind)| kind != 0 || i == 0) {
        let next = bytes[names];
        bytes[names] = kind;
        // An atomic fragment (RFC 6946), or options that are padding.
        let header = if kind == 44 {
            [next, 0, 0, 0, 1, 2, 3, 4]
        } else {
            [next, 0, 1, 4, 0, 0, 0, 0]
        };
        bytes.splice(at + len..at + len, header);
        names = at + len;
        len += 8;
    }
    let payload = u16::try_from(bytes.len() - at).expect("a packet");
    bytes[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&payload.to_be_bytes());
    len
}

pub(super) fn checksum_field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 | 33 | 136 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

pub(super) fn sums(protocol: u8) -> bool {
    checksum_field(protocol).is_some()
}

/// True for UDP without a checksum.
pub(super) fn has_none(bytes: &[u8]) -> bool {
    let (_, _, protocol, transport) = seen(bytes);
    protocol == 17 && transport[6..8] == [0, 0]
}

/// `bytes` with zeroes for addresses, ports, identifier and checksums.
pub(super) fn without_what_changes(bytes: &[u8]) -> Vec<u8> {
    let (src, _, protocol, transport) = seen(bytes);
    let mut bytes = bytes.to_vec();
    let at = bytes.len() - transport.len();
    if src.is_ipv4() {
        bytes[ETHERNET + 10..ETHERNET + 20].fill(0);
    } else {
        bytes[ETHERNET + 8..ETHERNET + 40].fill(0);
    }
    if let Some(field) = checksum_field(protocol) {
        bytes[at + field..at + field + 2].fill(0);
    }
    match protocol {
        6 | 17 => bytes[at..at + 4].fill(0),
        1 | 58 => bytes[at + 4..at + 6].fill(0),
        _ => {}
    }
    bytes
}

/// Where a packet is to go.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    v4: ([u8; 4], [u8; 4]),
    v6: ([u8; 16], [u8; 16]),
    ports: (u16, u16),
}

pub(super) fn ends() -> impl Strategy<Value = Ends> {
    (
        any::<([u8; 4], [u8; 4])>(),
        any::<([u8; 16], [u8; 16])>(),
        any::<(u16, u16)>(),
    )
        .prop_map(|(v4, v6, ports)| Ends { v4, v6, ports })
}

impl Ends {
    /// The tuple of `from`'s kind that is here.
    pub(super) fn tuple(&self, bytes: &[u8], from: Tuple) -> Tuple {
        let v6 = bytes[12..14] == packet::IPV6.to_be_bytes();
        let (src, dst): (IpAddr, IpAddr) = if v6 {
            (self.v6.0.into(), self.v6.1.into())
        } else {
            (self.v4.0.into(), self.v4.1.into())
        };
        let (sport, dport) = match from.protocol {
            Protocol::Tcp | Protocol::Udp => self.ports,
            // The identifier is wherever it was; where it is 0 that is not to be seen.
            Protocol::Icmp | Protocol::Icmp6 if is_answer(bytes, from) => (0, self.ports.1),
            Protocol::Icmp | Protocol::Icmp6 => (self.ports.0, 0),
            Protocol::Other(_) => (0, 0),
        };
        Tuple {
            protocol: from.protocol,
            src: SocketAddr::new(src, sport),
            dst: SocketAddr::new(dst, dport),
        }
    }
}

fn is_answer(bytes: &[u8], from: Tuple) -> bool {
    let (_, _, _, transport) = seen(bytes);
    Role::of(from.protocol, transport[0]) == Role::Answer
}

/// A super-frame with segments of 1000 bytes.
pub(super) fn super_frame(v6: bool, udp: bool, data: &[u8]) -> (Vec<u8>, Offload) {
    let between = between(v6);
    let (mut bytes, header, field) = if udp {
        (between.udp(1000, 2000, data), 8, 6)
    } else {
        (
            between.tcp(Tcp {
                src: 1000,
                dst: 2000,
                flags: flags::ACK,
                data,
                ..Tcp::default()
            }),
            20,
            16,
        )
    };
    let at = bytes.len() - data.len() - header;
    let partial = make_partial(&mut bytes, at, field);
    let kind = match (udp, v6) {
        (true, _) => GsoKind::UdpL4,
        (false, false) => GsoKind::Tcp4,
        (false, true) => GsoKind::Tcp6,
    };
    let header_len = u16::try_from(at + header).expect("short");
    let gso = Some(Gso {
        kind,
        size: 1000,
        header_len,
        ecn: false,
    });
    (bytes, Offload { gso, ..partial })
}
