//! Fragments: what comes in pieces is put together, what the gateway sends is cut to the link's MTU.
//!
//! # Theory of operation
//!
//! [`Reassembler`] keeps the pieces of datagrams that are not whole yet, by source, destination, protocol and
//! identification. Everything is bounded: datagrams in all and of each source, bytes in all, time (RFC 791: 30 s
//! here; RFC 8200 section 4.5: 60 s). Pieces may come in any order and more than once; pieces that overlap without being the
//! same end their datagram (RFC 5722, here for IPv4 too), which otherwise would be whatever two readers make of it. Where
//! a bound is met the oldest datagram of the greediest goes. What is lost is told to the caller ([`Lost`]), who counts it, and tells its
//! sender if its time was up. Each link has a reassembler of its own, so that pieces that came by one never complete what came by
//! another.
//!
//! A whole packet knows the size of its largest piece ([`crate::packet::Packet::largest_fragment`]) and whether one had DF set: where
//! it is cut again, it is not cut larger than it came.
//!
//! [`transmit`] is the other way: a transport packet in [`Cx::buf`] is sent as it is if it fits, with its checksum left
//! partial, and otherwise in fragments, each header written over the end of the piece before, which is gone already.

mod emit;
mod reassemble;

pub use emit::transmit;
pub use reassemble::{Lost, Reassembler, Whole};

/// Bytes of an IPv6 fragment header (RFC 8200 section 4.5).
pub(crate) const FRAGMENT_HEADER: usize = 8;

#[cfg(doc)]
use crate::cx::Cx;
