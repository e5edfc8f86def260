//! The switch and its ports: all of a network but the station.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;

use super::{Capture, Direction, PORT_TOKEN, PortConfig, PortStatus, Traffic};
use crate::drops::{DropCounters, DropReason, RefusalLog};
use crate::frame::{Frame, HEADROOM, MAX_FRAME, VLAN_LEN};
use crate::policy::Policy;
use crate::port::{Port, PortId};
use crate::station::Out;
use crate::switch::{AddPortError, Decision, Flood, Ingress, Reach, Switch};
use crate::time::Instant;
use crate::vlan::Form;

/// The switch and its ports.
pub(super) struct Fabric {
    pub(super) switch: Switch,
    /// By the port's slot.
    pub(super) slots: Vec<Option<Slot>>,
    /// Frames of the station that went nowhere.
    pub(super) station_drops: DropCounters,
    pub(super) registry: Option<mio::Registry>,
    /// Bytes that went to or came from the station since the worker last asked.
    pub(super) relayed: u64,
    /// Some uplink has come up again.
    pub(super) uplink_up: bool,
    /// Where a frame of the station that has no headroom gets some. Made when first needed.
    spare: Vec<u8>,
}

/// A port, and what has been counted of it.
pub(super) struct Slot {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    pub(super) port: Box<dyn Port>,
    /// The port is the station's own, and not on the switch.
    pub(super) uplink: bool,
    /// The device said that it is down, and has not been seen up since.
    down: bool,
    /// It has come up again, which the station has not been told yet.
    came_up: bool,
    pub(super) capture: Option<Box<dyn Capture>>,
    pub(super) rx: Traffic,
    tx: Traffic,
    pub(super) drops: DropCounters,
    refusals: RefusalLog,
}

/// Whether a frame is for the station as well, or only.
pub(super) enum ForStation {
    Yes,
    No,
}

impl Fabric {
    pub(super) fn new(switch: Switch) -> Self {
        Self {
            switch,
            slots: Vec::new(),
            station_drops: DropCounters::default(),
            registry: None,
            relayed: 0,
            uplink_up: false,
            spare: Vec::new(),
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    pub(super) fn slot_mut(&mut self, id: PortId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot())
            .and_then(Option::as_mut)
            .filter(|slot| slot.id == id)
    }

    /// The uplinks that have come up again since the last call.
    #[cold]
    pub(super) fn take_up(&mut self) -> impl Iterator<Item = PortId> + '_ {
        self.uplink_up = false;
        let slots = self.slots.iter_mut().flatten();
        slots.filter_map(|slot| std::mem::take(&mut slot.came_up).then_some(slot.id))
    }

    pub(super) fn add(&mut self, port: Box<dyn Port>, config: PortConfig) -> io::Result<PortId> {
        let id = self.switch.add_port(&config.policy).map_err(into_io)?;
        self.enter(id, port, config, false)
    }

    /// Adds a port of the station's own, which has a number like others and is not on the switch.
    pub(super) fn add_uplink(&mut self, port: Box<dyn Port>, name: String) -> io::Result<PortId> {
        let id = self.switch.reserve_port().map_err(into_io)?;
        let policy = Policy::default();
        self.enter(id, port, PortConfig { name, policy }, true)
    }

    fn enter(
        &mut self,
        id: PortId,
        port: Box<dyn Port>,
        config: PortConfig,
        uplink: bool,
    ) -> io::Result<PortId> {
        if let (Some(registry), Some(fd)) = (&self.registry, port.fd()) {
            let token = mio::Token(PORT_TOKEN | id.0 as usize);
            if let Err(e) = registry.register(&mut SourceFd(&fd.as_raw_fd()), token, mio::Interest::READABLE)
            {
                self.switch.remove_port(id);
                return Err(e);
            }
        }
        if self.slots.len() <= id.slot() {
            self.slots.resize_with(id.slot() + 1, || None);
        }
        self.slots[id.slot()] = Some(Slot {
            id,
            config,
            port,
            uplink,
            down: false,
            came_up: false,
            capture: None,
            rx: Traffic::default(),
            tx: Traffic::default(),
            drops: DropCounters::default(),
            refusals: RefusalLog::default(),
        });
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: PortId) -> Option<Slot> {
        self.slot_mut(id)?;
        let slot = self.slots[id.slot()].take()?;
        self.switch.remove_port(id);
        if let (Some(registry), Some(fd)) = (&self.registry, slot.port.fd()) {
            // A copy of the descriptor elsewhere would keep the registration alive; failing here means it is gone.
            let _ = registry.deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
        Some(slot)
    }

    /// Sends a frame to the ports it is for, and says whether it is for the station as well.
    pub(super) fn forward(&mut self, now: Instant, ingress: Ingress, frame: &mut Frame<'_>) -> ForStation {
        let decision = self.switch.decide(now, ingress, frame.bytes());
        if ingress == Ingress::Station || decision == Decision::Station {
            self.relayed += frame.len() as u64;
        }
        match decision {
            Decision::Drop(reason) => {
                self.count_drop(now, from(ingress), reason);
                ForStation::No
            }
            Decision::Station => ForStation::Yes,
            Decision::StationOnly(reason) => {
                self.count_drop(now, from(ingress), reason);
                ForStation::Yes
            }
            Decision::Port(id) => {
                match self.slot_mut(id) {
                    Some(slot) => slot.send(now, frame),
                    None => self.station_drops.count(DropReason::NoPort),
                }
                ForStation::No
            }
            Decision::Reshaped(id, form) => {
                match self.slot_mut(id) {
                    Some(slot) => slot.send_as(now, form, frame),
                    None => self.station_drops.count(DropReason::NoPort),
                }
                ForStation::No
            }
            Decision::Flood(flood) => {
                self.flood(now, ingress, flood, frame);
                match flood.reach {
                    Reach::Everyone => ForStation::Yes,
                    Reach::Ports | Reach::Unknown(_) => ForStation::No,
                }
            }
        }
    }

    fn flood(&mut self, now: Instant, ingress: Ingress, flood: Flood, frame: &mut Frame<'_>) {
        let Self { switch, slots, .. } = self;
        if !switch.reshapes() {
            for id in switch.flooded(flood, ingress, frame.bytes()) {
                if let Some(slot) = slots.get_mut(id.slot()).and_then(Option::as_mut) {
                    slot.send(now, frame);
                }
            }
            return;
        }
        // There are two forms of a frame at most, and one buffer: first to all that get it with a tag, then to the others, the
        // station last, which gets none.
        for tagged in [true, false] {
            for id in switch.flooded(flood, ingress, frame.bytes()) {
                let form = switch.form(id, flood.vlan);
                if matches!(form, Form::Tagged(_)) == tagged
                    && let Some(slot) = slots.get_mut(id.slot()).and_then(Option::as_mut)
                {
                    slot.send_as(now, form, frame);
                }
            }
        }
    }

    pub(super) fn count_drop(&mut self, now: Instant, ingress: Option<PortId>, reason: DropReason) {
        match ingress.and_then(|id| self.slot_mut(id)) {
            Some(slot) => {
                slot.drops.count(reason);
                if let Some(refusals) = slot.refusals.dropped(now, reason) {
                    let (port, reason) = (&slot.config.name, reason.name());
                    tracing::warn!(port, reason, refusals, "new flows are refused");
                }
            }
            None => self.station_drops.count(reason),
        }
    }
}

fn from(ingress: Ingress) -> Option<PortId> {
    match ingress {
        Ingress::Port(id) => Some(id),
        Ingress::Station => None,
    }
}

impl Slot {
    fn send(&mut self, now: Instant, frame: &mut Frame<'_>) {
        if let Some(capture) = &mut self.capture {
            capture.frame(now, Direction::Out, frame);
        }
        match self.port.send(frame) {
            Ok(()) => self.tx.count(frame.len()),
            Err(reason) => self.drops.count(reason),
        }
    }

    /// Sends a frame by an uplink. True if that was down, and is not any more.
    fn send_up(&mut self, now: Instant, frame: &mut Frame<'_>) -> bool {
        let refused = self.drops.get(DropReason::NoPort);
        self.send(now, frame);
        if self.drops.get(DropReason::NoPort) == refused {
            return self.up();
        }
        self.down = true;
        false
    }

    /// A frame has crossed an uplink. True if that was down.
    pub(super) fn up(&mut self) -> bool {
        let was_down = std::mem::take(&mut self.down);
        self.came_up |= was_down;
        was_down
    }

    /// Reading the port failed.
    pub(super) fn failed(&mut self) {
        self.down = self.uplink;
    }

    fn send_as(&mut self, now: Instant, form: Form, frame: &mut Frame<'_>) {
        match form.apply(frame) {
            Ok(()) => self.send(now, frame),
            Err(reason) => self.drops.count(reason),
        }
    }

    pub(super) fn status(&self) -> PortStatus {
        PortStatus {
            id: self.id,
            name: self.config.name.clone(),
            kind: self.port.kind(),
            mtu: self.port.mtu(),
            capabilities: self.port.capabilities(),
            rx: self.rx,
            tx: self.tx,
            drops: self.drops.clone(),
        }
    }
}

/// The station's way into the switch.
pub(super) struct Door<'f> {
    pub(super) fabric: &'f mut Fabric,
    pub(super) now: Instant,
}

impl Door<'_> {
    fn forward(&mut self, frame: &mut Frame<'_>) {
        match self.fabric.forward(self.now, Ingress::Station, frame) {
            // The switch never sends the station's frames back to it.
            ForStation::Yes | ForStation::No => {}
        }
    }

    /// As `forward`, for a frame that may get a tag and has no room for one.
    #[cold]
    fn forward_copy(&mut self, frame: &Frame<'_>) {
        let mut spare = std::mem::take(&mut self.fabric.spare);
        spare.resize(HEADROOM + MAX_FRAME, 0);
        let end = HEADROOM + frame.len();
        match spare.get_mut(HEADROOM..end) {
            Some(room) => {
                room.copy_from_slice(frame.bytes());
                self.forward(&mut Frame::new(&mut spare, HEADROOM, end, frame.offload));
            }
            None => self.drop(None, DropReason::BadLength),
        }
        self.fabric.spare = spare;
    }
}

impl Out for Door<'_> {
    fn send_by(&mut self, uplink: PortId, frame: &mut Frame<'_>) {
        let now = self.now;
        self.fabric.relayed += frame.len() as u64;
        match self.fabric.slot_mut(uplink).filter(|slot| slot.uplink) {
            Some(slot) => {
                let up = slot.send_up(now, frame);
                self.fabric.uplink_up |= up;
            }
            None => self.fabric.station_drops.count(DropReason::NoPort),
        }
    }

    fn send(&mut self, frame: &mut Frame<'_>) {
        if self.fabric.switch.reshapes() && frame.headroom() < VLAN_LEN {
            self.forward_copy(frame);
        } else {
            self.forward(frame);
        }
    }

    fn drop(&mut self, ingress: Option<PortId>, reason: DropReason) {
        self.fabric.count_drop(self.now, ingress, reason);
    }
}

pub(super) fn into_io(error: AddPortError) -> io::Error {
    let kind = match error {
        AddPortError::Full => io::ErrorKind::QuotaExceeded,
        AddPortError::AddressTaken(_) => io::ErrorKind::AlreadyExists,
    };
    io::Error::new(kind, error)
}
