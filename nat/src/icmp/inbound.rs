//! ICMP errors that containers send, about packets that the gateway sent to them.

use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{DropReason, Frame, offload};
use smoltcp::wire::IpProtocol;

use super::IcmpError;
use super::error::skip_extensions;
use crate::cx::Cx;
use crate::flow::{FlowId, Protocol, Tuple};
use crate::packet::Packet;
use crate::sum;

/// What a container says of a packet that it got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContainerError {
    /// The flow that the packet belonged to.
    pub flow: FlowId,
    /// The packet's tuple as the container would send it: the container is the source.
    pub tuple: Tuple,
    /// The error.
    pub error: IcmpError,
}

/// Reads the ICMP error in `packet` and finds the flow it is about. A container can only speak of its own flows.
///
/// The caller counts the packet's end: nothing can be sent on by a host socket, but TCP's relay minds a path's MTU.
///
/// # Errors
/// [`DropReason::UnknownProtocol`] if it is no error, [`DropReason::Malformed`] and [`DropReason::BadChecksum`] for what is none
/// well made, [`DropReason::NoFlow`] if there is no such flow (RFC 5508 REQ-4, REQ-5: silently).
pub fn from_container<H>(
    cx: &Cx<'_, H>,
    packet: &Packet,
    frame: &Frame<'_>,
) -> Result<ContainerError, DropReason> {
    let message = packet.transport(frame);
    let (Some(&[kind, code, _, _, a, b, c, d]), Some(inner)) = (message.first_chunk::<8>(), message.get(8..))
    else {
        return Err(DropReason::Malformed);
    };
    let rest = u32::from_be_bytes([a, b, c, d]);
    let (error, right) = match packet.protocol {
        IpProtocol::Icmp => (
            IcmpError::from_v4(kind, code, rest & 0xffff),
            offload::checksum(message) == 0,
        ),
        IpProtocol::Icmpv6 => (
            IcmpError::from_v6(kind, code, rest),
            sum::is_right(packet.src, packet.dst, IpProtocol::Icmpv6, message),
        ),
        _ => (None, true),
    };
    let error = error.ok_or(DropReason::UnknownProtocol)?;
    // RFC 5508 REQ-3: an error with a wrong checksum is dropped.
    if !right {
        return Err(DropReason::BadChecksum);
    }
    // REQ-3 a: so is one whose embedded IP header has a wrong checksum.
    if inner.first().is_some_and(|b| b >> 4 == 4) {
        let header = inner
            .get(..usize::from(inner[0] & 15) * 4)
            .ok_or(DropReason::Malformed)?;
        if offload::checksum(header) != 0 {
            return Err(DropReason::BadChecksum);
        }
    }
    let tuple = inner_tuple(inner).ok_or(DropReason::Malformed)?.reversed();
    let (flow, _) = cx.flows.lookup(&tuple).ok_or(DropReason::NoFlow)?;
    let entry = cx.flows.get(flow).ok_or(DropReason::NoFlow)?;
    if entry.container() != packet.ingress {
        return Err(DropReason::NoFlow);
    }
    Ok(ContainerError { flow, tuple, error })
}

/// The tuple of the packet that an error quotes.
fn inner_tuple(inner: &[u8]) -> Option<Tuple> {
    let (protocol, src, dst, at) = match inner.first()? >> 4 {
        4 => {
            let h = inner.first_chunk::<20>()?;
            (
                h[9],
                IpAddr::from([h[12], h[13], h[14], h[15]]),
                IpAddr::from([h[16], h[17], h[18], h[19]]),
                usize::from(h[0] & 15) * 4,
            )
        }
        6 => {
            let h = inner.first_chunk::<40>()?;
            let (protocol, at, later) = skip_extensions(inner, h[6]);
            if later {
                return None;
            }
            (
                protocol,
                IpAddr::from(<[u8; 16]>::try_from(&h[8..24]).ok()?),
                IpAddr::from(<[u8; 16]>::try_from(&h[24..40]).ok()?),
                at,
            )
        }
        _ => return None,
    };
    let ports = inner.get(at..)?.first_chunk::<8>()?;
    let word = |i: usize| u16::from_be_bytes([ports[i], ports[i + 1]]);
    let (protocol, sport, dport) = match protocol {
        6 => (Protocol::Tcp, word(0), word(2)),
        17 => (Protocol::Udp, word(0), word(2)),
        // Echo replies are what a container gets: the identifier is the port of its side.
        1 => (Protocol::Icmp, 0, word(4)),
        58 => (Protocol::Icmp6, 0, word(4)),
        _ => return None,
    };
    Some(Tuple {
        protocol,
        src: SocketAddr::new(src, sport),
        dst: SocketAddr::new(dst, dport),
    })
}
