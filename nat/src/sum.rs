//! Transport checksums (RFC 1071) with their pseudo-headers.

use std::net::IpAddr;

use pontoon_switch::offload;
use smoltcp::wire::{IpAddress, IpProtocol, checksum};

/// The folded, uncomplemented sum of the pseudo-header, as it stands in a partial checksum.
pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: IpProtocol, len: usize) -> u16 {
    checksum::pseudo_header(&IpAddress::from(src), &IpAddress::from(dst), protocol, len as u32)
}

/// The checksum of the transport bytes `data`, whose own checksum field is zero.
pub(crate) fn whole(src: IpAddr, dst: IpAddr, protocol: IpProtocol, data: &[u8]) -> u16 {
    !offload::add(pseudo(src, dst, protocol, data.len()), offload::sum(data))
}

/// True if the checksum within the transport bytes `data` is right.
pub(crate) fn is_right(src: IpAddr, dst: IpAddr, protocol: IpProtocol, data: &[u8]) -> bool {
    whole(src, dst, protocol, data) == 0
}
