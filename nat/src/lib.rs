//! The gateway of a Pontoon network: a station on the switch that leads to the world through host sockets.
#![forbid(unsafe_code)]

pub mod flow;
pub mod publish;
