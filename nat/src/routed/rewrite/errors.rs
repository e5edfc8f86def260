//! ICMP errors in transit.

use std::net::IpAddr;

use pontoon_switch::{Checksum, Frame, offload};
use smoltcp::wire::IpProtocol;

use super::delta::Delta;
use super::translate::{has_pseudo_header, put_addresses, put_ends, put_whole};
use crate::flow::Tuple;
use crate::icmp::Quoted;
use crate::packet::Packet;
use crate::sum;

/// Where the checksum stands in an ICMP header.
const CHECKSUM: usize = 2;

/// Makes an error one from `src` to `dst` about a packet with the tuple `inner`. All are of the IP version of the error, and `inner` is
/// of the protocol of what is quoted.
///
/// In the packet that is quoted, addresses, ports or identifier change and its checksums with them, as far as they are there
/// (RFC 5508 REQ-4, REQ-5). The error itself, what it says of an MTU, and extensions behind what is quoted (RFC 4884) stay.
pub fn translate_error(
    frame: &mut Frame<'_>,
    packet: &mut Packet,
    quoted: &Quoted,
    src: IpAddr,
    dst: IpAddr,
    inner: &Tuple,
) {
    let bytes = frame.bytes_mut();
    put_addresses(&mut bytes[packet.ip..packet.payload], src, dst);
    let (header, transport) = bytes[quoted.ip..quoted.end].split_at_mut(quoted.transport - quoted.ip);
    // One with segments left that is of the flow to the last of them went to the next.
    let inner_dst = if quoted.last == Some(inner.dst.ip()) {
        quoted.tuple.dst.ip()
    } else {
        inner.dst.ip()
    };
    let addresses = put_addresses(header, inner.src.ip(), inner_dst);
    let ends = put_ends(transport, inner);
    let pseudo = if has_pseudo_header(inner.protocol) {
        addresses
    } else {
        Delta::NONE
    };
    put_whole(transport, inner.protocol, pseudo.and(ends));
    // A wrong one has been refused and errors are short: summed anew, which serves a partial one too.
    let message = &mut bytes[packet.payload..packet.end];
    message[CHECKSUM..CHECKSUM + 2].fill(0);
    let checksum = match packet.protocol {
        IpProtocol::Icmp => offload::checksum(message),
        protocol => sum::whole(src, dst, protocol, message),
    };
    message[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    frame.offload.checksum = Checksum::Complete;
    (packet.src, packet.dst) = (src, dst);
}
