//! The gateway of a Pontoon network: a station on the switch that leads to the world through host sockets.
//!
//! # Theory of operation
//!
//! [`Gateway`] takes the frames that the switch addresses to it and sorts them ([`packet`]): ARP, NDP, DHCP and
//! router solicitations go to [`link`], names to [`dns`], and TCP, UDP and ICMP to their relays. Each relay ends the
//! container's protocol here and continues it on a host socket, so that neither privilege nor a change to the host is
//! needed. Every flow is one entry of one table ([`flow`]).
//!
//! All host sockets are reached through one seam ([`host`]), which has a real and a simulated side; time is an
//! argument everywhere. The whole gateway therefore runs in a test, against a virtual clock, as it runs on the wire.
#![forbid(unsafe_code)]

pub mod config;
pub mod cx;
pub mod dns;
pub mod flow;
pub mod fragment;
pub mod gateway;
pub mod host;
pub mod icmp;
pub mod link;
mod local;
pub mod packet;
pub mod publish;
#[cfg(test)]
mod rig;
pub mod routed;
pub mod share;
pub mod slab;
mod sum;
pub mod tcp;
pub mod udp;

pub use gateway::{Endpoint, Gateway, Published, Secrets};
