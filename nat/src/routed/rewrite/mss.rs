//! The largest segment that a SYN asks for.

use pontoon_switch::{Checksum, Frame};
use smoltcp::wire::IpProtocol;

use super::delta::Delta;
use crate::packet::Packet;

const CHECKSUM: usize = 16;
const SYN: u8 = 2;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// Lowers the MSS option (RFC 9293 section 3.7.1) of a SYN to `max` bytes of TCP payload, and adjusts the checksum. A lower one, a
/// SYN without one and any other packet stay as they are.
pub fn clamp_mss(frame: &mut Frame<'_>, packet: &Packet, max: u16) {
    if packet.protocol != IpProtocol::Tcp {
        return;
    }
    let partial = matches!(frame.offload.checksum,
        Checksum::Partial { start, offset } if (usize::from(start), usize::from(offset)) == (packet.payload, CHECKSUM));
    let transport = &mut frame.bytes_mut()[packet.payload..packet.end];
    if transport.len() < 20 || transport[13] & SYN == 0 {
        return;
    }
    let len = usize::from(transport[12] >> 4) * 4;
    let Some(header) = transport.get_mut(..len) else {
        return;
    };
    let mut at = 20;
    while let Some(&[kind, option_len]) = header.get(at..at + 2) {
        if kind == END {
            return;
        }
        if kind == NOTHING {
            at += 1;
            continue;
        }
        let option_len = usize::from(option_len);
        if option_len < 2 || at + option_len > header.len() {
            return;
        }
        if kind == MSS && option_len == MSS_LEN {
            let told = [header[at + 2], header[at + 3]];
            let new = u16::from_be_bytes(told).min(max).to_be_bytes();
            header[at + 2..at + 4].copy_from_slice(&new);
            let change = Delta::of(&told, &new);
            // Nothing forbids an option at an odd place.
            let change = if at % 2 == 0 { change } else { change.swapped() };
            if !partial {
                change.adjust(header, CHECKSUM);
            }
        }
        at += option_len;
    }
}
