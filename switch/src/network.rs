//! A network: a switch, its ports and its station, and the way of a frame between them.
//!
//! Works with or without a poll: the [`crate::worker`] drives it by the readiness of descriptors, a test by calling
//! [`Network::poll_port`]. Either way nothing is allocated for a frame, and time is an argument.
//!
//! The station answers through [`Out`] while it holds the frame it answers: its own frames are switched at once, out of
//! its own buffers. So the network is two halves that can be borrowed apart: the station, and the fabric of
//! everything else.

use std::io;

use crate::drops::{DropCounters, DropReason};
use crate::fdb::{FdbCounters, FdbEntry};
use crate::frame::{Frame, HEADROOM, MAX_FRAME};
use crate::isolation::Service;
use crate::policy::Policy;
use crate::port::{Capabilities, Port, PortId, Received};
use crate::station::{Out, Ready, Station, TURN};
use crate::switch::{Ingress, StationPlace, Switch};
use crate::time::Instant;
use crate::vlan::Form;

use fabric::{Door, Fabric, ForStation, Slot, into_io};

/// Bytes that one port may bring in before the others have their turn.
const BYTE_BUDGET: usize = 1 << 20;

/// Failed reads in a row after which a port waits for its next readiness.
const READ_ERRORS: u32 = 16;

/// What a port is called, what it may send and whom it may reach.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortConfig {
    /// For people: the container's name.
    pub name: String,
    /// What it may send, and whom it may reach.
    pub policy: Policy,
}

/// Frames and bytes that went one way through a port. A super-frame is one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes, with their Ethernet headers.
    pub bytes: u64,
}

impl Traffic {
    fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

/// A port as it is now.
#[derive(Clone, Debug)]
pub struct PortStatus {
    /// Its number.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// Its kind: `tap`, `veth`, …
    pub kind: &'static str,
    /// Its MTU, in bytes of an IP packet.
    pub mtu: u32,
    /// What its device takes as it is.
    pub capabilities: Capabilities,
    /// From the port into the switch.
    pub rx: Traffic,
    /// From the switch out of the port.
    pub tx: Traffic,
    /// Frames from it that were dropped, and frames for it that it did not take.
    pub drops: DropCounters,
}

/// The way of a frame through a port, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the port into the switch.
    In,
    /// From the switch out of the port.
    Out,
}

/// Sees every frame of a port, as it is read and as it is about to be written.
pub trait Capture: Send {
    /// Takes note of a frame. Must not block: the packet path waits for it.
    fn frame(&mut self, now: Instant, direction: Direction, frame: &Frame<'_>);
}

/// A port that ended by itself.
#[derive(Debug)]
pub struct ClosedPort {
    /// Its number.
    pub id: PortId,
    /// What it was.
    pub config: PortConfig,
    /// What reading it said.
    pub error: io::Error,
}

/// A switch, its ports and its station.
pub struct Network<S> {
    station: S,
    fabric: Fabric,
    /// Every frame is read into this.
    buf: Box<[u8]>,
    closed: Vec<ClosedPort>,
}

impl<S> std::fmt::Debug for Network<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("ports", &self.fabric.slots().count())
            .finish_non_exhaustive()
    }
}

impl<S: Station> Network<S> {
    /// A network with `station` on its switch and no ports.
    pub fn new(station: S) -> Self {
        let fabric = Fabric::new(Switch::new(Some(station.mac())));
        Self {
            station,
            fabric,
            buf: vec![0; HEADROOM + MAX_FRAME + READ_SLACK].into_boxed_slice(),
            closed: Vec::new(),
        }
    }

    /// Ports added from now on are watched by `registry`, with tokens made of [`PORT_TOKEN`] and their number.
    pub(crate) fn watch(&mut self, registry: mio::Registry) {
        self.fabric.registry = Some(registry);
    }

    /// The station.
    pub fn station(&self) -> &S {
        &self.station
    }

    /// The station, to be changed. It cannot send here: see [`Network::with_station`].
    pub fn station_mut(&mut self) -> &mut S {
        &mut self.station
    }

    /// Works on the station with the door by which its frames enter the switch.
    pub fn with_station<R>(&mut self, now: Instant, f: impl FnOnce(&mut S, &mut dyn Out) -> R) -> R {
        f(
            &mut self.station,
            &mut Door {
                fabric: &mut self.fabric,
                now,
            },
        )
    }

    /// Puts the station on another VLAN, or takes it off the switch: then it is given no frame, sends none, and its address
    /// attracts nothing. (It is still asked for its deadline, and flushed.)
    ///
    /// # Errors
    /// `AlreadyExists` if it was absent and a port has been bound to its address.
    pub fn place_station(&mut self, place: StationPlace) -> io::Result<()> {
        self.fabric.switch.place_station(place).map_err(into_io)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// `AlreadyExists` if the policy binds an address that is another's, `QuotaExceeded` if there are too many ports, and
    /// whatever the poll says of the descriptor.
    pub fn add_port(&mut self, _now: Instant, port: Box<dyn Port>, config: PortConfig) -> io::Result<PortId> {
        self.fabric.add(port, config)
    }

    /// Gives the station a port of its own: what comes by it goes to the station ([`Station::uplink_frame`]) and what the station
    /// sends by it ([`Out::send_by`]) leaves by it, both past the switch. It is read, counted, captured and removed as others are.
    ///
    /// # Errors
    /// `QuotaExceeded` if there are too many ports, and whatever the poll says of the descriptor.
    pub fn add_uplink(&mut self, port: Box<dyn Port>, name: String) -> io::Result<PortId> {
        self.fabric.add_uplink(port, name)
    }

    /// Takes a port or an uplink away. It is closed when it is dropped, which is better done elsewhere: the kernel takes its time to remove
    /// an interface, some 30 ms for a TAP.
    pub fn remove_port(&mut self, id: PortId) -> Option<(PortConfig, Box<dyn Port>)> {
        self.fabric.remove(id).map(|slot| (slot.config, slot.port))
    }

    /// What a port may send, and whom it may reach.
    pub fn policy(&self, id: PortId) -> Option<&Policy> {
        let slot = self.fabric.slots().find(|slot| slot.id == id)?;
        Some(&slot.config.policy)
    }

    /// Exchanges what a port may send and whom it may reach; false if there is no such port.
    ///
    /// # Errors
    /// `AlreadyExists` if the policy binds an address that is another's.
    pub fn set_policy(&mut self, id: PortId, policy: Policy) -> io::Result<bool> {
        let found = self.fabric.switch.set_policy(id, &policy).map_err(into_io)?;
        if let Some(slot) = self.fabric.slot_mut(id) {
            slot.config.policy = policy;
        }
        Ok(found)
    }

    /// Lets `client` use `services` of `server` where one of them is isolated, in the place of those of an earlier link: see
    /// [`Switch::set_link`]. False if one of them is not there, or both are the same.
    pub fn set_link(&mut self, client: PortId, server: PortId, services: &[Service]) -> bool {
        self.fabric.switch.set_link(client, server, services)
    }

    /// Takes a link back; false if there was none.
    pub fn remove_link(&mut self, client: PortId, server: PortId) -> bool {
        self.fabric.switch.remove_link(client, server)
    }

    /// Client, server and services of each link.
    pub fn links(&self) -> impl Iterator<Item = (PortId, PortId, &[Service])> {
        self.fabric.switch.links()
    }

    /// The ports, in the order of their slots.
    pub fn ports(&self) -> impl Iterator<Item = PortStatus> + '_ {
        self.fabric.slots().map(Slot::status)
    }

    /// One port.
    pub fn port(&self, id: PortId) -> Option<PortStatus> {
        self.fabric.slots().find(|slot| slot.id == id).map(Slot::status)
    }

    /// The forwarding table; the station is [`PortId::STATION`].
    pub fn fdb(&self, now: Instant) -> impl Iterator<Item = FdbEntry> + '_ {
        self.fabric.switch.entries(now)
    }

    /// What the forwarding table has seen so far.
    pub fn fdb_counters(&self) -> FdbCounters {
        self.fabric.switch.fdb().counters()
    }

    /// The station's frames that went nowhere, and what it gave up itself.
    pub fn station_drops(&self) -> &DropCounters {
        &self.fabric.station_drops
    }

    /// Shows every frame of `port` to `capture` from now on, or to nobody. False if there is no such port.
    pub fn set_tap(&mut self, port: PortId, capture: Option<Box<dyn Capture>>) -> bool {
        let slot = self.fabric.slot_mut(port);
        let found = slot.is_some();
        if let Some(slot) = slot {
            slot.capture = capture;
        }
        found
    }

    /// Takes up to `budget` frames (and a bounded number of bytes) from a port and sends them on their way, fewer where
    /// they are costly ([`Station::costly`]) and there are other ports. True if there may be more.
    ///
    /// A port whose device is gone is removed and found in [`Network::take_closed`].
    pub fn poll_port(&mut self, now: Instant, id: PortId, budget: usize) -> bool {
        let mut bytes = 0;
        let mut errors = 0;
        // Nobody is held up by the only port there is.
        let alone = self.fabric.slots().nth(1).is_none();
        let costly = if alone {
            u64::MAX
        } else {
            self.station.costly() + TURN
        };
        for _ in 0..budget {
            let Some(slot) = self.fabric.slot_mut(id) else {
                return false;
            };
            match slot.port.recv(&mut self.buf) {
                Received::Frame(mut frame) => {
                    bytes += frame.len();
                    slot.rx.count(frame.len());
                    if let Some(capture) = &mut slot.capture {
                        capture.frame(now, Direction::In, &frame);
                    }
                    if slot.uplink {
                        let up = slot.up();
                        self.fabric.uplink_up |= up;
                        self.fabric.relayed += frame.len() as u64;
                        let mut door = Door {
                            fabric: &mut self.fabric,
                            now,
                        };
                        self.station.uplink_frame(now, id, &mut frame, &mut door);
                        if self.station.costly() >= costly {
                            return true;
                        }
                    } else if let ForStation::Yes = self.fabric.forward(now, Ingress::Port(id), &mut frame) {
                        let mut door = Door {
                            fabric: &mut self.fabric,
                            now,
                        };
                        // What is left of a tag here is a priority or the station's own VLAN; it has no use for either.
                        match Form::Untagged.apply(&mut frame) {
                            Ok(()) => self.station.frame(now, id, &mut frame, &mut door),
                            Err(reason) => door.drop(Some(id), reason),
                        }
                        if self.station.costly() >= costly {
                            return true;
                        }
                    }
                    errors = 0;
                }
                Received::Dropped(reason) => {
                    slot.drops.count(reason);
                    if reason == DropReason::ReadError {
                        slot.failed();
                    }
                    errors += u32::from(reason == DropReason::ReadError);
                    if errors == READ_ERRORS {
                        return false;
                    }
                }
                Received::Empty => return false,
                Received::Closed(error) => {
                    if let Some(slot) = self.fabric.remove(id) {
                        self.closed.push(ClosedPort {
                            id,
                            config: slot.config,
                            error,
                        });
                    }
                    return false;
                }
            }
            if bytes >= BYTE_BUDGET {
                return true;
            }
        }
        true
    }

    /// Takes every frame that waits at any port, over and over until none is left, then lets the station end the batch:
    /// what a simulated test calls between two steps of its clock.
    pub fn poll_all(&mut self, now: Instant) {
        loop {
            let before: u64 = self.fabric.slots().map(|slot| slot.rx.frames).sum();
            for index in 0..self.fabric.slots.len() {
                let Some(id) = self.fabric.slots[index].as_ref().map(|slot| slot.id) else {
                    continue;
                };
                while self.poll_port(now, id, 64) {}
            }
            self.flush(now);
            if self.fabric.slots().map(|slot| slot.rx.frames).sum::<u64>() == before {
                return;
            }
        }
    }

    /// The ports that ended by themselves since the last call.
    pub fn take_closed(&mut self) -> Vec<ClosedPort> {
        std::mem::take(&mut self.closed)
    }

    /// Lets the station end a batch, or do what is due.
    pub fn flush(&mut self, now: Instant) {
        if self.fabric.uplink_up {
            for uplink in self.fabric.take_up() {
                self.station.uplink_up(now, uplink);
            }
        }
        self.station.flush(
            now,
            &mut Door {
                fabric: &mut self.fabric,
                now,
            },
        );
    }

    /// Tells the station that its descriptor under `token` has something to say.
    pub fn ready(&mut self, now: Instant, token: usize, ready: Ready) {
        self.station.ready(
            now,
            token,
            ready,
            &mut Door {
                fabric: &mut self.fabric,
                now,
            },
        );
    }

    /// When the station next wants [`Network::flush`] called.
    pub fn deadline(&self) -> Option<Instant> {
        self.station.deadline()
    }

    /// Bytes that went to or came from the station since the last call.
    pub(crate) fn take_relayed(&mut self) -> u64 {
        std::mem::take(&mut self.fabric.relayed)
    }

    pub(crate) fn port_ids(&self) -> impl Iterator<Item = PortId> + '_ {
        self.fabric.slots().map(|slot| slot.id)
    }
}

/// A read may bring this many bytes more than the largest frame, so that one too large is seen to be so.
const READ_SLACK: usize = 64;

/// Set in the tokens of ports; the station's are without.
pub(crate) const PORT_TOKEN: usize = 1 << (usize::BITS - 1);

mod fabric;
#[cfg(test)]
mod tests;
