//! The decision: where a frame goes. No I/O and no clock; the same inputs give the same answer.
//!
//! ```text
//! belong   the port's VLAN mode, and the frame's tag -> its VLAN
//! admit    length, source address, the port's policy, whose address the source is
//! learn    VLAN and source address -> ingress port
//! forward  the station's address -> station      group address -> everyone else on the VLAN
//!          known address -> its port             unknown address -> every port of the VLAN that might have it
//! part     from or to an isolated port -> only what a link lets through      too much for many -> for the station at most
//! ```
//!
//! The station is on the network without tags, on a VLAN of its own choosing, or not there at all ([`StationPlace`]): then its
//! address means nothing, and frames for everybody are for the ports.
//!
//! A frame never goes back where it came from. Frames to the reserved groups 01:80:c2:00:00:0x (spanning tree, pause, LLDP)
//! go nowhere: this is a bridge, and by IEEE 802.1Q, 8.6.3, a bridge does not forward them.
//!
//! Most networks have neither VLANs nor isolated ports, and then nobody pays for them: the decision is compiled twice
//! ([`Switch::decide_in`]), and one look tells which is the right one.

use crate::fdb::{Fdb, FdbEntry, Learn};
use crate::frame::{MAX_FRAME, VlanTag};
use crate::headers::{ETHERNET_LEN, is_vlan};
use crate::isolation::{Links, Matter, Peers};
use crate::vlan::{Form, VlanId, VlanMode, is_stacked};
use crate::{DropReason, Instant, MacAddr, PortId};

pub use members::AddPortError;
use members::Member;

/// Where a frame came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ingress {
    /// A port.
    Port(PortId),
    /// The station on the switch.
    Station,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nowhere.
    Drop(DropReason),
    /// To the station.
    Station,
    /// To the station; the ports that it is for as well do not get it, which is a drop.
    StationOnly(DropReason),
    /// To one port, as it came.
    Port(PortId),
    /// To one port, in this form.
    Reshaped(PortId, Form),
    /// To several: [`Switch::flooded`] lists the ports, [`Switch::form`] says in which form.
    Flood(Flood),
}

/// A frame without a single destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flood {
    /// How far it goes.
    pub reach: Reach,
    /// The VLAN it belongs to.
    pub vlan: u16,
}

/// How far a frame without a single destination goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// To every other port of the VLAN and to the station.
    Everyone,
    /// To every other port of the VLAN.
    Ports,
    /// To every other port of the VLAN that this address might be on: not those bound to another one.
    Unknown(MacAddr),
}

/// Where on the switch the station is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StationPlace {
    /// On the network without tags.
    #[default]
    Untagged,
    /// On this VLAN, as if behind an access port.
    Vlan(VlanId),
    /// Nowhere: a network without a gateway.
    Absent,
}

/// What the switch knows: its ports, their policies, the links between them and the forwarding table.
#[derive(Debug)]
pub struct Switch {
    fdb: Fdb,
    /// The station's address while it has a place.
    station: Option<MacAddr>,
    /// The VLAN it is on; [`NOWHERE`] if it has no place.
    station_vlan: u16,
    place: StationPlace,
    /// The station's address, wherever it is.
    station_mac: Option<MacAddr>,
    members: Vec<Option<Member>>,
    /// Slots whose number is a port's that is not on the switch.
    reserved: Vec<bool>,
    /// How often each slot was used.
    generations: Vec<u32>,
    links: Links,
    /// Some port or the station is on a VLAN, or some port is isolated.
    parted: bool,
}

/// No frame is of this VLAN: its identifiers have twelve bits.
const NOWHERE: u16 = u16::MAX;

impl Default for Switch {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Switch {
    /// A switch without ports, whose station (if it has one) has the address `station`.
    pub fn new(station: Option<MacAddr>) -> Self {
        Self {
            fdb: Fdb::default(),
            station,
            station_vlan: if station.is_some() { 0 } else { NOWHERE },
            place: StationPlace::Untagged,
            station_mac: station,
            members: Vec::new(),
            reserved: Vec::new(),
            generations: Vec::new(),
            links: Links::default(),
            parted: false,
        }
    }

    /// The same with another forwarding table (other bounds).
    #[must_use]
    pub fn with_fdb(self, fdb: Fdb) -> Self {
        Self { fdb, ..self }
    }

    /// Decides where the frame `bytes` goes, and learns from it.
    pub fn decide(&mut self, now: Instant, ingress: Ingress, bytes: &[u8]) -> Decision {
        if self.parted {
            self.decide_in::<true>(now, ingress, bytes)
        } else {
            self.decide_in::<false>(now, ingress, bytes)
        }
    }

    /// The decision with VLANs and isolated ports, or where there are none.
    fn decide_in<const PARTED: bool>(&mut self, now: Instant, ingress: Ingress, bytes: &[u8]) -> Decision {
        let Some(&[a, b, c, d, e, f, g, h, i, j, k, l, t, u]) = bytes.first_chunk::<ETHERNET_LEN>() else {
            return Decision::Drop(DropReason::BadLength);
        };
        if bytes.len() > MAX_FRAME {
            return Decision::Drop(DropReason::BadLength);
        }
        let (dst, src) = (MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l]));
        let tag = if is_vlan(u16::from_be_bytes([t, u])) {
            VlanTag::of(bytes).map_or(0, VlanTag::id)
        } else {
            0
        };
        let vlan = if PARTED {
            match self.belongs(ingress, tag, bytes) {
                Ok(vlan) => vlan,
                Err(reason) => return Decision::Drop(reason),
            }
        } else {
            tag
        };
        let port = match ingress {
            Ingress::Port(id) => match self.admit::<PARTED>(now, id, vlan, src, bytes) {
                Ok(()) => Some(id),
                Err(reason) => return Decision::Drop(reason),
            },
            Ingress::Station if self.station.is_none() => return Decision::Drop(DropReason::NoPort),
            Ingress::Station => None,
        };
        if dst.is_group() {
            let reach = match (dst.0, port) {
                ([0x01, 0x80, 0xc2, 0, 0, 0..=0x0f], _) => return Decision::Drop(DropReason::Reserved),
                (_, Some(_)) if vlan == self.station_vlan => Reach::Everyone,
                (_, _) => Reach::Ports,
            };
            return self.flood::<PARTED>(now, port, dst, Flood { reach, vlan }, bytes);
        }
        if self.station == Some(dst) {
            return match port {
                Some(_) if vlan == self.station_vlan => Decision::Station,
                Some(_) => Decision::Drop(DropReason::Vlan),
                None => Decision::Drop(DropReason::SamePort),
            };
        }
        match self.fdb.lookup(now, vlan, dst) {
            Some(egress) if Some(egress) == port => Decision::Drop(DropReason::SamePort),
            Some(egress) if PARTED => self.part(port, egress, vlan, bytes),
            Some(egress) => Decision::Port(egress),
            None => {
                let reach = Reach::Unknown(dst);
                self.flood::<PARTED>(now, port, dst, Flood { reach, vlan }, bytes)
            }
        }
    }

    /// The VLAN that a frame with the outer tag `tag` belongs to.
    fn belongs(&self, ingress: Ingress, tag: u16, bytes: &[u8]) -> Result<u16, DropReason> {
        let stacked = is_stacked(bytes);
        let vlan = match ingress {
            Ingress::Port(id) => {
                let member = self.member(id).ok_or(DropReason::NoPort)?;
                member.vlan.enters(tag, stacked)
            }
            Ingress::Station => match self.place {
                StationPlace::Untagged => VlanMode::Transparent.enters(tag, stacked),
                StationPlace::Vlan(own) => VlanMode::Access(own).enters(tag, stacked),
                StationPlace::Absent => None,
            },
        };
        vlan.ok_or(DropReason::Vlan)
    }

    fn admit<const PARTED: bool>(
        &mut self,
        now: Instant,
        id: PortId,
        vlan: u16,
        src: MacAddr,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let Some(member) = self
            .members
            .get(id.slot())
            .and_then(Option::as_ref)
            .filter(|m| m.id == id)
        else {
            return Err(DropReason::NoPort);
        };
        if !src.is_unicast() {
            return Err(DropReason::BadSource);
        }
        if self.station == Some(src) {
            return Err(DropReason::Spoofed);
        }
        member.guard.admit(src, bytes)?;
        let binds = if PARTED {
            member.vlan.binds(vlan)
        } else {
            vlan == 0
        };
        if binds && member.guard.bound_mac().is_some() {
            // The address is the port's own, then, and in the table for good.
            return Ok(());
        }
        match self.fdb.learn(now, vlan, src, id) {
            // A port whose share is used up still sends: answers reach it as unknown unicast does.
            Learn::Known | Learn::New | Learn::Moved(_) | Learn::Full => Ok(()),
            Learn::Taken(_) => Err(DropReason::Spoofed),
        }
    }

    /// A frame for one port, as far as VLANs and isolation let it through.
    fn part(&self, ingress: Option<PortId>, egress: PortId, vlan: u16, bytes: &[u8]) -> Decision {
        let Some(to) = self.member(egress) else {
            return Decision::Drop(DropReason::NoPort);
        };
        let Some(form) = to.vlan.leaves(vlan) else {
            return Decision::Drop(DropReason::Vlan);
        };
        let from = ingress.and_then(|id| self.member(id));
        if !self.passes(from, to, || Matter::of(bytes), false) {
            return Decision::Drop(DropReason::Isolated);
        }
        match form {
            Form::AsItCame => Decision::Port(egress),
            Form::Tagged(_) | Form::Untagged => Decision::Reshaped(egress, form),
        }
    }

    /// A frame for several, as far as its port may send such.
    fn flood<const PARTED: bool>(
        &mut self,
        now: Instant,
        ingress: Option<PortId>,
        dst: MacAddr,
        flood: Flood,
        bytes: &[u8],
    ) -> Decision {
        let Some(id) = ingress else {
            return Decision::Flood(flood);
        };
        let Some(member) = self.members.get(id.slot()).and_then(Option::as_ref) else {
            return Decision::Drop(DropReason::NoPort);
        };
        if let Err(reason) = member.guard.admit_group(dst) {
            return Decision::Drop(reason);
        }
        if PARTED
            && member.peers == Peers::Linked
            && self.flooded(flood, Ingress::Port(id), bytes).next().is_none()
        {
            return match flood.reach {
                Reach::Everyone => Decision::Station,
                Reach::Ports | Reach::Unknown(_) => Decision::Drop(DropReason::Isolated),
            };
        }
        let member = self.members.get_mut(id.slot()).and_then(Option::as_mut);
        let Some(bucket) = member.and_then(|member| member.storm.as_mut()) else {
            return Decision::Flood(flood);
        };
        match flood.reach {
            _ if bucket.take(now) => Decision::Flood(flood),
            Reach::Everyone => Decision::StationOnly(DropReason::Storm),
            Reach::Ports | Reach::Unknown(_) => Decision::Drop(DropReason::Storm),
        }
    }

    /// Whether a frame from `from` (nobody: the station) may go to `to`.
    fn passes(
        &self,
        from: Option<&Member>,
        to: &Member,
        matter: impl FnOnce() -> Matter,
        group: bool,
    ) -> bool {
        match from {
            None => true,
            Some(from) => match (from.peers, to.peers) {
                (Peers::All, Peers::All) => true,
                (Peers::Linked, _) | (_, Peers::Linked) => self.links.allow(from.id, to.id, matter(), group),
            },
        }
    }

    /// The ports that the flooded frame `bytes` goes to.
    pub fn flooded<'s>(
        &'s self,
        flood: Flood,
        ingress: Ingress,
        bytes: &[u8],
    ) -> impl Iterator<Item = PortId> + use<'s> {
        let apart = self.parted.then(|| {
            let from = match ingress {
                Ingress::Port(id) => self.member(id),
                Ingress::Station => None,
            };
            (from, Matter::of(bytes))
        });
        let group = match flood.reach {
            Reach::Everyone | Reach::Ports => true,
            Reach::Unknown(_) => false,
        };
        let wanted = move |member: &&Member| {
            let elsewhere = ingress != Ingress::Port(member.id);
            let might_have_it = match flood.reach {
                Reach::Everyone | Reach::Ports => true,
                Reach::Unknown(dst) => member.guard.bound_mac().is_none_or(|mac| mac == dst),
            };
            let let_through = match apart {
                None => true,
                Some((from, matter)) => {
                    member.vlan.leaves(flood.vlan).is_some() && self.passes(from, member, || matter, group)
                }
            };
            elsewhere && might_have_it && let_through
        };
        self.members.iter().flatten().filter(wanted).map(|m| m.id)
    }

    /// True if frames may have to leave in another form than they came.
    pub fn reshapes(&self) -> bool {
        self.parted
    }

    /// How a frame of `vlan` is written to a port that it goes to.
    pub fn form(&self, id: PortId, vlan: u16) -> Form {
        let form = self.member(id).and_then(|member| member.vlan.leaves(vlan));
        form.filter(|_| self.parted).unwrap_or(Form::AsItCame)
    }

    fn member(&self, id: PortId) -> Option<&Member> {
        self.members
            .get(id.slot())
            .and_then(Option::as_ref)
            .filter(|m| m.id == id)
    }

    /// The forwarding table.
    pub fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    /// Binds an address to a port until one of them goes.
    pub fn set_static(&mut self, vlan: u16, mac: MacAddr, port: PortId) {
        self.fdb.set_static(vlan, mac, port);
    }

    /// The entries of the forwarding table, the station's among them.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = FdbEntry> + '_ {
        let station = self.station.map(|mac| FdbEntry {
            port: PortId::STATION,
            vlan: self.station_vlan,
            mac,
            age: std::time::Duration::ZERO,
            origin: crate::fdb::Origin::Static,
        });
        station.into_iter().chain(self.fdb.entries(now))
    }
}

mod members;
#[cfg(test)]
mod tests;
