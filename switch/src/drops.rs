//! Why a frame was dropped: one value and one counter for each reason, never only a log line.

use std::time::Duration;

use crate::Instant;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame went no further.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason's name in statistics, e.g. `no-port`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header, or longer than a frame may be.
    BadLength = "bad-length",
    /// The source address is a group address or zero.
    BadSource = "bad-source",
    /// The virtio-net header contradicts the frame.
    BadOffload = "bad-offload",
    /// The destination was learned on the port the frame came from.
    SamePort = "same-port",
    /// Addressed to a group that is for bridges: a reserved link-local one (802.1D: 01:80:c2:00:00:0x), or that of another
    /// bridge protocol from a port that may not speak them.
    Reserved = "reserved",
    /// Of a VLAN that the port, or the station, is not on; or with a tag behind one that would have to go.
    Vlan = "vlan",
    /// For a port that only linked ones may send to, or from such a port, and no link lets it through.
    Isolated = "isolated",
    /// For many ports, from one that has sent as many of those as it may.
    Storm = "storm",
    /// The source address is another port's, or the station's.
    Spoofed = "spoofed",
    /// A DHCP server's message from a port that may not serve DHCP.
    RogueDhcp = "rogue-dhcp",
    /// A router advertisement or redirect from a port that may not be a router.
    RogueRouter = "rogue-router",
    /// The egress port is gone or down.
    NoPort = "no-port",
    /// The egress device's queue was full.
    QueueFull = "queue-full",
    /// The egress device refused the frame (its header or its size).
    Refused = "refused",
    /// Larger than the egress port's MTU and not a super-frame.
    TooBig = "too-big",
    /// Reading the port failed.
    ReadError = "read-error",
    /// Malformed beyond the Ethernet header: lengths or versions that cannot be.
    Malformed = "malformed",
    /// An ethertype or IP protocol that the gateway does not speak.
    UnknownProtocol = "unknown-protocol",
    /// A header or transport checksum was wrong.
    BadChecksum = "bad-checksum",
    /// A source address that is not the container's to use.
    BadSourceAddress = "bad-source-address",
    /// A destination that nothing may reach: loopback, link-local, metadata, multicast beyond the link.
    Forbidden = "forbidden",
    /// A destination beyond a network that has no way out.
    NoEgress = "no-egress",
    /// Hop limit used up at the gateway.
    HopLimit = "hop-limit",
    /// No neighbour is known for the destination.
    NoNeighbour = "no-neighbour",
    /// A reply or an error for a flow that is not there.
    NoFlow = "no-flow",
    /// A TCP segment that cannot be one of its connection: outside of the windows, or of another state.
    OutOfWindow = "out-of-window",
    /// No port of the gateway's is left to stand for a container's.
    PortsExhausted = "ports-exhausted",
    /// The table of flows is full.
    TableFull = "table-full",
    /// The container's share of the table of flows is used up.
    QuotaFull = "quota-full",
    /// No file descriptor, port or memory left on the host.
    HostExhausted = "host-exhausted",
    /// The host's socket refused the datagram or connection.
    HostError = "host-error",
    /// The host offers no way to send this (a ping socket, say).
    HostUnsupported = "host-unsupported",
    /// The host's socket buffer was full.
    HostFull = "host-full",
    /// Inbound from a peer the container has not sent to.
    Filtered = "filtered",
    /// A client of a published port whose address a rule denies.
    Denied = "denied",
    /// Fragments that never completed, overlapped, or exceeded their bounds.
    Reassembly = "reassembly",
    /// A rate limit on answers and errors.
    RateLimited = "rate-limited",
}

impl DropReason {
    /// Those of frames that were right and that a bound or want of the host's turned away: worth a line in the log.
    pub const REFUSALS: [Self; 4] = [
        Self::TableFull,
        Self::QuotaFull,
        Self::PortsExhausted,
        Self::HostExhausted,
    ];
}

/// Says when a refusal is to be logged: for each reason the first at once, then one line a minute with how many there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct RefusalLog([Line; DropReason::REFUSALS.len()]);

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    last: Option<Instant>,
    since: u64,
}

impl RefusalLog {
    /// Time between two lines.
    const INTERVAL: Duration = Duration::from_secs(60);

    /// One more frame was dropped for `reason`. How many there have been for it since the last line, if now is the time for
    /// one; nothing if it is no refusal.
    pub fn dropped(&mut self, now: Instant, reason: DropReason) -> Option<u64> {
        let at = DropReason::REFUSALS.iter().position(|&r| r == reason)?;
        let line = &mut self.0[at];
        line.since += 1;
        if line.last.is_some_and(|last| now.since(last) < Self::INTERVAL) {
            return None;
        }
        line.last = Some(now);
        Some(std::mem::take(&mut line.since))
    }
}

/// A counter for each reason.
#[derive(Clone, Debug)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

/// As a map from the names of the reasons that have occurred to their counts.
impl serde::Serialize for DropCounters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.nonzero().map(|(reason, n)| (reason.name(), n)))
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one more drop for `reason`.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Drops so far for `reason`.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Drops so far for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that have occurred, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|&r| (r, self.get(r)))
            .filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_a_line_a_minute_for_each_reason() {
        let mut log = RefusalLog::default();
        let mut lines = |reason, begins: u64| -> Vec<u64> {
            (begins..begins + 150_000)
                .filter_map(|ms| log.dropped(Instant::from_millis(ms), reason))
                .collect()
        };
        assert_eq!(lines(DropReason::QuotaFull, 0), [1, 60_000, 60_000]);
        assert_eq!(lines(DropReason::HostExhausted, 1000), [1, 60_000, 60_000]);
        assert!(lines(DropReason::Malformed, 0).is_empty());
    }
}
