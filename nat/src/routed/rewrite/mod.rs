//! Rewriting packets in place: addresses, ports, checksums, hop limit.
//!
//! # Theory of operation
//!
//! A packet is known by its [`Tuple`] ([`tuple()`]); the conntrack table says by which other it goes on, and [`translate`]
//! writes that one into it. Only addresses and ports, or an ICMP query's identifier, change. IP options, extension headers and
//! the payload are carried, so a super-frame stays one: what its [`Offload`] says of lengths stays true.
//!
//! No checksum is computed anew. Each field is adjusted by the *difference* of what has changed under it (RFC 1624
//! equation 3), so that
//! - the payload need not be read;
//! - a checksum that was wrong stays wrong by as much, and the receiver sees it;
//! - there and back gives the same bytes again.
//!
//! A partial checksum is the sum of the pseudo-header alone: it is adjusted for addresses, not for ports. A partial one that
//! stands elsewhere than at the packet's own transport header (in a tunnel's inner packet, say) is none of it: the packet's
//! own is whole.
//!
//! An ICMP error has no tuple of its own but quotes a packet that has one ([`quoted`]). [`translate_error`] rewrites both.
//!
//! Every function here takes a packet that [`Packet::parse`] has found whole, and keeps what it knows true.

use std::net::SocketAddr;

use pontoon_switch::{DropReason, Frame};

use crate::flow::{Protocol, Tuple};
use crate::icmp::Role;
use crate::packet::Packet;

mod delta;
mod echo;
mod errors;
mod mss;
mod translate;

pub use crate::icmp::{Quoted, quoted};
pub use echo::turn_echo;
pub use errors::translate_error;
pub use mss::clamp_mss;
pub use translate::translate;

#[cfg(doc)]
use pontoon_switch::Offload;

/// What a packet is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A packet of the flow with this tuple, or the first of one.
    Flow(Tuple),
    /// The answer to an ICMP query, of the flow whose reversed tuple this is. It opens none.
    Answer(Tuple),
    /// An ICMP error, about the packet that it quotes: see [`quoted`].
    Error,
}

/// What the whole packet `packet` is about.
///
/// An ICMP query has its identifier as source port and 0 as destination port, its answer the other way round. Any protocol besides
/// TCP, UDP and ICMP is known by its addresses alone.
///
/// # Errors
/// [`DropReason::Malformed`] for transport headers that cannot be, [`DropReason::UnknownProtocol`] for ICMP messages that are
/// neither queries nor answers nor errors.
pub fn tuple(packet: &Packet, frame: &Frame<'_>) -> Result<Subject, DropReason> {
    let protocol = Protocol::of(packet.protocol.into(), packet.src);
    let transport = packet.transport(frame);
    let with = |sport, dport| Tuple {
        protocol,
        src: SocketAddr::new(packet.src, sport),
        dst: SocketAddr::new(packet.dst, dport),
    };
    let header = transport.first_chunk::<8>();
    let word = |at: usize| -> Result<u16, DropReason> {
        let header = header.ok_or(DropReason::Malformed)?;
        Ok(u16::from_be_bytes([header[at], header[at + 1]]))
    };
    match protocol {
        Protocol::Tcp => {
            let len = transport.get(12).map_or(0, |&b| usize::from(b >> 4) * 4);
            if len < 20 || len > transport.len() {
                return Err(DropReason::Malformed);
            }
            Ok(Subject::Flow(with(word(0)?, word(2)?)))
        }
        Protocol::Udp => {
            // RFC 768: the length counts the header.
            if !(8..=transport.len()).contains(&usize::from(word(4)?)) {
                return Err(DropReason::Malformed);
            }
            Ok(Subject::Flow(with(word(0)?, word(2)?)))
        }
        Protocol::Icmp | Protocol::Icmp6 => {
            let id = word(4)?;
            match Role::of(protocol, transport[0]) {
                Role::Query => Ok(Subject::Flow(with(id, 0))),
                Role::Answer => Ok(Subject::Answer(with(0, id))),
                Role::Error => Ok(Subject::Error),
                Role::Other => Err(DropReason::UnknownProtocol),
            }
        }
        Protocol::Other(_) => Ok(Subject::Flow(with(0, 0))),
    }
}

/// Takes one from the packet's hop limit.
///
/// # Errors
/// [`DropReason::HopLimit`], and nothing done, if none would be left.
pub fn hop(frame: &mut Frame<'_>, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.hop_limit <= 1 {
        return Err(DropReason::HopLimit);
    }
    packet.hop_limit -= 1;
    let header = &mut frame.bytes_mut()[packet.ip..packet.payload];
    if packet.src.is_ipv4() {
        // The TTL shares its word with the protocol, which stands for itself on both sides.
        let word = |ttl: u8| [ttl, header[9]];
        let change = delta::Delta::of(&word(packet.hop_limit + 1), &word(packet.hop_limit));
        change.adjust(header, 10);
        header[8] = packet.hop_limit;
    } else {
        header[7] = packet.hop_limit;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
