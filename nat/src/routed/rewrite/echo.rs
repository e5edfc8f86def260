//! An echo request, turned into its answer.

use pontoon_switch::Frame;
use smoltcp::wire::IpProtocol;

use super::delta::Delta;
use crate::packet::Packet;

/// Hop limit of what the gateway sends of itself.
const HOP_LIMIT: u8 = 64;

/// Where the checksum stands in an ICMP header.
const CHECKSUM: usize = 2;

/// Turns the echo request `packet` into the answer of whom it is for (RFC 792, RFC 4443 section 4.2). Data and options stay; a
/// checksum that was wrong stays wrong, so that the asker sees it.
pub fn turn_echo(frame: &mut Frame<'_>, packet: &mut Packet) {
    let bytes = &mut frame.bytes_mut()[..packet.end];
    let (header, message) = bytes[packet.ip..].split_at_mut(packet.payload - packet.ip);
    let reply = match packet.protocol {
        IpProtocol::Icmpv6 => 129,
        _ => 0,
    };
    // Type and code are one word of the sum.
    let change = Delta::of(&[message[0], message[1]], &[reply, message[1]]);
    message[0] = reply;
    change.adjust(message, CHECKSUM);
    // Addresses that change places change no sum.
    let (first, len) = if packet.src.is_ipv4() { (12, 4) } else { (8, 16) };
    let (src, dst) = header[first..first + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
    std::mem::swap(&mut packet.src, &mut packet.dst);
    let limit_at = if packet.src.is_ipv4() { 8 } else { 7 };
    if packet.src.is_ipv4() {
        let change = Delta::of(&[header[8], header[9]], &[HOP_LIMIT, header[9]]);
        change.adjust(header, 10);
    }
    header[limit_at] = HOP_LIMIT;
    packet.hop_limit = HOP_LIMIT;
}
