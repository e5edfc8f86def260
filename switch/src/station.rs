//! Stations: what lives on the switch itself and is not a wire.

use crate::{DropReason, Frame, Instant, MacAddr, PortId};

/// What a station's descriptor reported (edge-triggered).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// Reading may make progress.
    pub readable: bool,
    /// Writing may make progress.
    pub writable: bool,
    /// An error is waiting, or something stands in the error queue (`EPOLLERR`).
    pub error: bool,
    /// The peer has closed its side, or both are closed (`EPOLLRDHUP`, `EPOLLHUP`).
    pub hangup: bool,
}

/// The door by which a station's frames enter the switch.
pub trait Out {
    /// Switches `frame` by its destination address, as if it had come from the station's own wire. A frame that
    /// cannot be delivered is counted where it was dropped.
    fn send(&mut self, frame: &mut Frame<'_>);

    /// Sends `frame` by one of the station's own uplinks, as it is; it is counted there if it cannot be sent.
    fn send_by(&mut self, uplink: PortId, frame: &mut Frame<'_>);

    /// Counts a frame that came from `ingress`, a port or an uplink, and goes no further; `None` for one that the station itself gave up.
    fn drop(&mut self, ingress: Option<PortId>, reason: DropReason);
}

/// What a port's turn is worth of [`Station::costly`].
pub const TURN: u64 = 8;

/// Something that lives on the switch: it has an address and no wire there. A gateway is one.
///
/// It may stand on other links as well: *uplinks*, which are ports of its own that the switch knows nothing of
/// ([`crate::Network::add_uplink`]).
pub trait Station {
    /// Its Ethernet address.
    fn mac(&self) -> MacAddr;

    /// Takes a frame that came from `ingress` for this station, or for a group. It may be rewritten in place and sent on.
    fn frame(&mut self, now: Instant, ingress: PortId, frame: &mut Frame<'_>, out: &mut dyn Out);

    /// Takes a frame that came by one of its own uplinks, whoever it is addressed to. It may be rewritten in place and sent on.
    /// A station that has none does not need this.
    fn uplink_frame(&mut self, now: Instant, uplink: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let _ = (now, frame);
        out.drop(Some(uplink), DropReason::NoEgress);
    }

    /// One of its own uplinks has been down and carries frames again.
    fn uplink_up(&mut self, now: Instant, uplink: PortId) {
        let _ = (now, uplink);
    }

    /// A descriptor that the station registered under `token` has something to say.
    fn ready(&mut self, now: Instant, token: usize, ready: Ready, out: &mut dyn Out);

    /// Ends a batch of frames and events, or follows a deadline: acknowledgements, batched sends, timers that are due.
    fn flush(&mut self, now: Instant, out: &mut dyn Out);

    /// What it has done so far that costs much more than a frame does, in parts of [`TURN`]. A port whose frames made it do so
    /// much has had its turn: one that has the host open a socket costs as much as a hundred others, and a flood of those would
    /// hold up every other port.
    fn costly(&self) -> u64 {
        0
    }

    /// When it next wants `flush` called, if nothing else happens. A moment in the past means at once.
    fn deadline(&self) -> Option<Instant>;
}
