//! States of flows and how long each may be silent.
//!
//! ```text
//! TCP    SynSent ─ host connected ─► SynReceived ─ container's ACK ─► Established ─ one FIN ─► HalfClosed
//!        (inbound flows begin at SynReceived)                                                    │ the other FIN
//!        Closed ◄─ RST from either side, in any state               TimeWait ◄─ last ACK ─ Closing
//! UDP    UdpNew (UdpTransaction towards a well-known port) ─ answer ─► UdpReplied
//! ICMP   Echo
//! others Other
//! ```
//!
//! Of a connection that is ended here and continued on a host socket these are the states of its relay; of one that is forwarded
//! they are those that its segments show ([`super::track`]).

use std::time::Duration;

/// The state of a flow, which is also its timeout class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// TCP: the container's SYN is here, the host's connect is on its way.
    SynSent,
    /// TCP: the gateway's SYN or SYN-ACK is out, the container's answer is awaited.
    SynReceived,
    /// TCP: open both ways.
    Established,
    /// TCP: one side has sent its FIN, the other may go on.
    HalfClosed,
    /// TCP: both FINs are sent, one is not acknowledged.
    Closing,
    /// TCP, forwarded: closed in order; stays for what is still on its way.
    TimeWait,
    /// TCP, relayed: closed in order; stays to acknowledge a retransmitted FIN.
    RelayTimeWait,
    /// TCP: reset.
    Closed,
    /// UDP: nothing has come back, and the destination port is well known (DNS, NTP).
    UdpTransaction,
    /// UDP: nothing has come back.
    UdpNew,
    /// UDP: both sides have sent.
    UdpReplied,
    /// ICMP echo.
    Echo,
    /// Any other protocol.
    Other,
}

impl State {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::HalfClosed,
        Self::Closing,
        Self::TimeWait,
        Self::RelayTimeWait,
        Self::Closed,
        Self::UdpTransaction,
        Self::UdpNew,
        Self::UdpReplied,
        Self::Echo,
        Self::Other,
    ];

    /// Which states are evicted when a bound is met, the first first. An established flow never is.
    pub const EVICTION_ORDER: &'static [Self] = &[
        Self::Closed,
        Self::RelayTimeWait,
        Self::TimeWait,
        Self::Closing,
        Self::SynSent,
        Self::SynReceived,
        Self::Echo,
        Self::UdpTransaction,
        Self::UdpNew,
        Self::Other,
    ];

    /// How long a flow in this state may be silent.
    pub const fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            // nf_conntrack_tcp_timeout_syn_sent is 120 s; the host's own connect gives up after about 127 s (RFC 5382
            // REQ-5 asks 4 minutes for the transitory states together).
            Self::SynSent => 240,
            Self::SynReceived => 240,
            // nf_conntrack_tcp_timeout_established; RFC 5382 REQ-5: at least 2 hours and 4 minutes.
            Self::Established => 432_000,
            // A half-closed connection lasts as long as its open half: relayed half-closes are not transitory.
            Self::HalfClosed => 432_000,
            // RFC 5382 REQ-5: transitory states at least 4 minutes.
            Self::Closing => 240,
            // nf_conntrack_tcp_timeout_time_wait.
            Self::TimeWait => 120,
            // The gateway's own TIME-WAIT towards the container: a lost last ACK is asked for again within a second.
            Self::RelayTimeWait => 10,
            // nf_conntrack_tcp_timeout_close.
            Self::Closed => 10,
            // RFC 4787 REQ-5 a: well-known ports may be shorter than two minutes; nf_conntrack_udp_timeout.
            Self::UdpTransaction => 30,
            // RFC 4787 REQ-5: at least two minutes.
            Self::UdpNew => 120,
            // RFC 4787 REQ-5 c: five minutes recommended.
            Self::UdpReplied => 300,
            // RFC 5508 REQ-1 a: at least 60 seconds.
            Self::Echo => 60,
            // nf_conntrack_generic_timeout.
            Self::Other => 600,
        })
    }

    /// The protocol that it is a state of: `tcp`, `udp`, `icmp` (of either version) or `other`.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::SynSent
            | Self::SynReceived
            | Self::Established
            | Self::HalfClosed
            | Self::Closing
            | Self::TimeWait
            | Self::RelayTimeWait
            | Self::Closed => "tcp",
            Self::UdpTransaction | Self::UdpNew | Self::UdpReplied => "udp",
            Self::Echo => "icmp",
            Self::Other => "other",
        }
    }

    /// Its name, as listed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
            Self::TimeWait | Self::RelayTimeWait => "time-wait",
            Self::Closed => "closed",
            Self::UdpTransaction => "transaction",
            Self::UdpNew => "new",
            Self::UdpReplied => "replied",
            Self::Echo => "echo",
            Self::Other => "generic",
        }
    }
}
