//! IPv6 packets with segments left in a routing header, on their way between nodes that heed it (RFC 8200 section 4.4).
//!
//! A router passes them on as any others, by the destination that they name now. The gateway itself heeds no routing header: one
//! for an address of its own is dropped, and so is a deprecated one (RFC 5095) wherever it goes. Only the source is ever
//! translated: a destination that would be is the gateway's own.
//!
//! Answers come from the last of the segments, and so a container's packet belongs to the flow to that one, if the header's type
//! is known; what must not be reached directly is not reached in that way either. From beyond the links everything is
//! judged by the destination alone: who filters must not let the packet say by another address who it is for.

use std::net::IpAddr;

use pontoon_switch::{DropReason, Frame};

use super::forward::Refusal;
use super::open::refused_as;
use super::rewrite::Subject;
use super::routes::Way;
use super::{Router, Side};
use crate::cx::Cx;
use crate::flow::Tuple;
use crate::icmp::{IcmpError, Quoted};
use crate::packet::Packet;

impl Router {
    /// What a packet with segments left is about, if it may pass.
    pub(super) fn with_segments<H>(
        &self,
        cx: &Cx<'_, H>,
        from: Side,
        packet: &Packet,
        frame: &Frame<'_>,
        subject: Subject,
    ) -> Result<Subject, Refusal> {
        let to_the_last = |tuple: &Tuple| match from {
            Side::Lan => to_the_last(tuple, packet, frame),
            Side::Link(_) => None,
        };
        let last = match &subject {
            Subject::Flow(tuple) | Subject::Answer(tuple) => to_the_last(tuple),
            // Those that report on such packets need no segments of their own.
            Subject::Error => return Err(Refusal::silent(DropReason::UnknownProtocol)),
        };
        let Some(last) = last else { return Ok(subject) };
        let forbidden = Refusal::told(DropReason::Forbidden, IcmpError::Prohibited);
        let dst = last.dst.ip();
        if dst.is_multicast() || self.is_own(cx.config, dst) {
            return Err(forbidden);
        }
        // By one link to both: the flow's packets have one source there.
        let exit = self.exit(cx, packet.dst)?;
        if exit.side != self.exit(cx, dst)?.side {
            return Err(forbidden);
        }
        if matches!(self.routes.way(cx.config, packet.dst), Way::World(_)) {
            cx.config.destination(packet.dst).map_err(refused_as)?;
        }
        Ok(match subject {
            Subject::Flow(_) => Subject::Flow(last),
            Subject::Answer(_) => Subject::Answer(last),
            Subject::Error => Subject::Error,
        })
    }
}

/// The tuple of a packet with segments left that is known by `tuple`, as one to the last of them.
pub(super) fn to_the_last(tuple: &Tuple, packet: &Packet, frame: &Frame<'_>) -> Option<Tuple> {
    packet.source_route?;
    let mut last = *tuple;
    last.dst.set_ip(packet.last_destination(frame)?);
    Some(last)
}

/// Where `packet`, which a flow leads to `dst`, goes next.
pub(super) fn next(packet: &Packet, dst: IpAddr) -> IpAddr {
    match packet.source_route {
        Some(_) => packet.dst,
        None => dst,
    }
}

/// The tuple of the packet that an error from `from` quotes, as its flow is known by: what a container has sent belongs to the flow to
/// the last segment.
pub(super) fn about(from: Side, quoted: &Quoted) -> Tuple {
    let mut tuple = quoted.tuple;
    if let (Side::Link(_), Some(last)) = (from, quoted.last) {
        tuple.dst.set_ip(last);
    }
    tuple
}
