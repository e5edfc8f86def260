//! Frames, made by the fixtures' packet builder, as a TAP brings them: with a checksum that is left to others.

use pontoon_fixtures::packet::{Between, ETHERNET, Tcp, flags, fold, sum_of};
use pontoon_switch::{Checksum, Gso, GsoKind, MacAddr, Offload};

/// Where the transport header of these frames begins: they are IPv4 without options.
pub const TRANSPORT: usize = ETHERNET + 20;

/// The MSS at MTU 1500.
pub const MSS: u16 = 1460;

/// The most TCP payload of an IPv4 super-frame, in whole segments of [`MSS`].
pub const SUPER_PAYLOAD: usize = 65_495 / MSS as usize * MSS as usize;

/// The payload of each datagram in a UDP super-frame, as QUIC sends them.
pub const UDP_SIZE: u16 = 1400;

/// The most UDP payload of a super-frame, in whole datagrams of [`UDP_SIZE`].
pub const UDP_SUPER_PAYLOAD: usize = 65_507 / UDP_SIZE as usize * UDP_SIZE as usize;

/// A frame and what it claims of itself.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The claims.
    pub offload: Offload,
}

/// The `n`th address.
pub fn mac(n: u16) -> MacAddr {
    let [a, b] = n.to_be_bytes();
    MacAddr([2, 0, 0, 1, a, b])
}

/// Two hosts of one network, by their Ethernet addresses.
pub fn neighbours(dst: MacAddr, src: MacAddr) -> Between {
    Between::v4("10.0.2.5", "10.0.2.6").macs(src, dst)
}

/// A TCP segment with a partial checksum: a super-frame if `payload` is more than one [`MSS`].
pub fn tcp(between: &Between, ports: (u16, u16), payload: usize) -> Sample {
    let data = vec![0x5a; payload];
    let bytes = between.tcp(Tcp {
        src: ports.0,
        dst: ports.1,
        flags: flags::ACK,
        window: 0xffff,
        data: &data,
        ..Tcp::default()
    });
    partial(bytes, 16, GsoKind::Tcp4, MSS, 20)
}

/// A UDP datagram with a partial checksum: a super-frame if `payload` is more than one of [`UDP_SIZE`].
pub fn udp(between: &Between, ports: (u16, u16), payload: usize) -> Sample {
    let bytes = between.udp(ports.0, ports.1, &vec![0x5a; payload]);
    partial(bytes, 6, GsoKind::UdpL4, UDP_SIZE, 8)
}

/// Puts the pseudo-header's sum where the transport checksum of `bytes` stands.
fn partial(mut bytes: Vec<u8>, offset: u16, kind: GsoKind, size: u16, header: usize) -> Sample {
    let len = u32::try_from(bytes.len() - TRANSPORT).expect("a frame");
    let addresses = sum_of(&bytes[ETHERNET + 12..TRANSPORT]);
    let pseudo = !fold(addresses + u32::from(bytes[ETHERNET + 9]) + len);
    let at = TRANSPORT + usize::from(offset);
    bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    let payload = bytes.len() - TRANSPORT - header;
    let gso = (payload > usize::from(size)).then_some(Gso {
        kind,
        size,
        header_len: (TRANSPORT + header) as u16,
        ecn: false,
    });
    Sample {
        bytes,
        offload: Offload {
            checksum: Checksum::Partial {
                start: TRANSPORT as u16,
                offset,
            },
            gso,
        },
    }
}
