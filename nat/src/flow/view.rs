//! Flows as they are shown to people and programs.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Packets and bytes one way. Bytes are those of IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets; a super-frame counts as the segments it stands for.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A flow as it is shown: both tuples, state, age, counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// The protocol's name, as `tcp`, `udp`, `icmp`, `icmpv6` or `gre`; its number if it has none that is well known.
    pub protocol: String,
    /// The protocol's number in the IP header.
    pub number: u8,
    /// State, as `established`.
    pub state: String,
    /// True if the container opened it, false if it came through a published port.
    pub outbound: bool,
    /// The initiator's first tuple: source, then destination. Ports of ICMP are its identifier, those of
    /// protocols without ports 0.
    pub original: (SocketAddr, SocketAddr),
    /// The translated tuple as the other side sees its replies: source, then destination.
    pub reply: (SocketAddr, SocketAddr),
    /// Seconds since it was made.
    pub age: u64,
    /// Seconds until it ends if nothing more is seen.
    pub expires: u64,
    /// From the initiator.
    pub sent: Counters,
    /// To the initiator.
    pub received: Counters,
    /// The mark of the rule that it came by; 0 if there is none.
    pub mark: u32,
}
