//! ICMP errors that containers send, about packets that the gateway sent to them.

use pontoon_switch::{DropReason, Frame};

use super::{IcmpError, Quoted, quoted};
use crate::cx::Cx;
use crate::flow::{FlowId, Tuple};
use crate::packet::Packet;

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
    let Quoted { error, tuple, .. } = quoted(packet, frame)?;
    let tuple = tuple.reversed();
    let (flow, _) = cx.flows.lookup(&tuple).ok_or(DropReason::NoFlow)?;
    let entry = cx.flows.get(flow).ok_or(DropReason::NoFlow)?;
    if entry.container() != packet.ingress {
        return Err(DropReason::NoFlow);
    }
    Ok(ContainerError { flow, tuple, error })
}
