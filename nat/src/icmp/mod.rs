//! ICMP and ICMPv6: errors told to containers, echo, and errors carried over from the host.
//!
//! # Theory of operation
//!
//! An error is one value, [`IcmpError`], whatever IP version it is told in. It arises here (a forbidden destination, a
//! hop limit used up) or on the host, whose error queue gives type, code, MTU and offender but not the packet it is about;
//! that packet's headers are then rebuilt ([`Quote`]) as the container sent them. [`send_error`] tells it, within a rate for
//! each container and within what RFC 1122 and RFC 4443 allow.
//!
//! Errors that a container sends are about what the gateway sent to it: [`from_container`] finds the flow. A host
//! socket cannot send an ICMP error on, so only TCP's relay uses them (a path's MTU).
//!
//! Echo requests go out by ping sockets ([`EchoRelay`]).

mod echo;
mod error;
mod inbound;
mod quote;

pub use echo::{EchoRelay, answer_echo};
pub use error::{IcmpError, RateLimiter, send_error};
pub use inbound::{ContainerError, from_container};
pub use quote::{Quote, quote_echo, quote_tcp, quote_udp};
