//! ICMP and ICMPv6: errors told to containers, echo, and errors carried over from the host.
//!
//! # Theory of operation
//!
//! An error is one value, [`IcmpError`], whatever IP version it is told in. It arises here (a forbidden destination, a
//! hop limit used up) or on the host, whose error queue gives type, code, MTU and offender but not the packet it is about;
//! that packet's headers are then rebuilt ([`Quote`]) as the container sent them. [`Telling`] is one that RFC 1122 and RFC 4443
//! allow to be told, and writes it for any link; [`send_error`] sends it by the switch, within a rate for each container.
//!
//! Errors that a container sends are about what the gateway sent to it: [`from_container`] finds the flow. A host
//! socket cannot send an ICMP error on, so only TCP's relay uses them (a path's MTU).
//!
//! What an error quotes is read in one place, [`quoted`], for relays and for routed egress alike.
//!
//! Echo requests go out by ping sockets ([`EchoRelay`]).

mod echo;
mod error;
mod inbound;
mod message;
mod quote;
mod quoted;
mod rate;
mod telling;

pub use echo::{EchoRelay, answer_echo};
pub use error::{IcmpError, send_error};
pub use inbound::{ContainerError, from_container};
pub use message::Role;
pub use quote::{Quote, quote_echo, quote_tcp, quote_udp};
pub use quoted::{Quoted, quoted};
pub use rate::RateLimiter;
pub use telling::Telling;
