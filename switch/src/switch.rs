//! The decision: where a frame goes. No I/O and no clock; the same inputs give the same answer.
//!
//! ```text
//! admit    length, source address, the port's policy, whose address the source is
//! learn    source address -> ingress port
//! forward  the station's address -> station      group address -> everyone else
//!          known address -> its port             unknown address -> every port that might have it
//! ```
//!
//! Every port carries every VLAN, with the tag as it came; addresses are learned for each VLAN on its own. The station is
//! on the untagged network only (a tag with identifier 0 is a priority, not a VLAN).
//!
//! A frame never goes back where it came from. Frames to the reserved groups 01:80:c2:00:00:0x (spanning tree, pause, LLDP)
//! go nowhere: this is a bridge, and by IEEE 802.1Q, 8.6.3, a bridge does not forward them.

use crate::fdb::{Fdb, FdbEntry, Learn};
use crate::frame::{MAX_FRAME, VlanTag};
use crate::headers::{ETHERNET_LEN, is_vlan};
use crate::policy::{Guard, Policy};
use crate::{DropReason, Instant, MacAddr, PortId};

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
    /// To one port.
    Port(PortId),
    /// To several: [`Switch::flooded`] lists the ports.
    Flood(Flood),
}

/// How far a frame without a single destination goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flood {
    /// To every other port and to the station.
    Everyone,
    /// To every other port.
    Ports,
    /// To every other port that this address might be on: not those bound to another one.
    Unknown(MacAddr),
}

/// What the switch knows: its ports, their policies and the forwarding table.
#[derive(Debug, Default)]
pub struct Switch {
    fdb: Fdb,
    station: Option<MacAddr>,
    members: Vec<Option<Member>>,
    /// How often each slot was used.
    generations: Vec<u32>,
}

#[derive(Debug)]
struct Member {
    id: PortId,
    guard: Guard,
}

/// Why a port was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddPortError {
    /// The switch has no free number.
    #[error("the switch has {} ports already", PortId::MAX_PORTS)]
    Full,
    /// The policy binds an address that another port or the station has.
    #[error("{0} is another port's address already")]
    AddressTaken(MacAddr),
}

impl Switch {
    /// A switch without ports, whose station (if it has one) has the address `station`.
    pub fn new(station: Option<MacAddr>) -> Self {
        Self {
            station,
            ..Self::default()
        }
    }

    /// The same with another forwarding table (other bounds).
    #[must_use]
    pub fn with_fdb(self, fdb: Fdb) -> Self {
        Self { fdb, ..self }
    }

    /// Adds a port.
    pub fn add_port(&mut self, policy: &Policy) -> Result<PortId, AddPortError> {
        let guard = Guard::new(policy);
        if let Some(mac) = guard.bound_mac() {
            self.check_free(mac, None)?;
        }
        // Slot 0 is the station's. The last generation of a slot retires it, so that no number comes twice.
        let last = u32::MAX >> PortId::MAX_PORTS.count_ones();
        let free =
            (1..self.members.len()).find(|&s| self.members[s].is_none() && self.generations[s] <= last);
        let slot = match free {
            Some(slot) => slot,
            None => {
                let slot = self.members.len().max(1);
                if slot > PortId::MAX_PORTS {
                    return Err(AddPortError::Full);
                }
                self.members.resize_with(slot + 1, || None);
                self.generations.resize(slot + 1, 0);
                slot
            }
        };
        let id = PortId::of_slot(slot, self.generations[slot]);
        self.generations[slot] += 1;
        if let Some(mac) = guard.bound_mac() {
            self.fdb.set_static(0, mac, id);
        }
        self.members[slot] = Some(Member { id, guard });
        Ok(id)
    }

    /// Exchanges the policy of a port; false if there is no such port.
    pub fn set_policy(&mut self, id: PortId, policy: &Policy) -> Result<bool, AddPortError> {
        let guard = Guard::new(policy);
        if let Some(mac) = guard.bound_mac() {
            self.check_free(mac, Some(id))?;
        }
        let Some(member) = self
            .members
            .get_mut(id.slot())
            .and_then(Option::as_mut)
            .filter(|m| m.id == id)
        else {
            return Ok(false);
        };
        if let Some(before) = member.guard.bound_mac() {
            self.fdb.remove_static(0, before);
        }
        if let Some(mac) = guard.bound_mac() {
            self.fdb.set_static(0, mac, id);
        }
        member.guard = guard;
        Ok(true)
    }

    fn check_free(&self, mac: MacAddr, but: Option<PortId>) -> Result<(), AddPortError> {
        let bound = |m: &Member| m.guard.bound_mac() == Some(mac) && Some(m.id) != but;
        if self.station == Some(mac) || self.members.iter().flatten().any(bound) {
            return Err(AddPortError::AddressTaken(mac));
        }
        Ok(())
    }

    /// Takes a port and all that was learned on it away; false if there is no such port.
    pub fn remove_port(&mut self, id: PortId) -> bool {
        if !self.has_port(id) {
            return false;
        }
        self.members[id.slot()] = None;
        self.fdb.remove_port(id);
        true
    }

    /// True if `id` is a port of this switch.
    pub fn has_port(&self, id: PortId) -> bool {
        self.members
            .get(id.slot())
            .and_then(Option::as_ref)
            .is_some_and(|m| m.id == id)
    }

    /// Decides where the frame `bytes` goes, and learns from it.
    pub fn decide(&mut self, now: Instant, ingress: Ingress, bytes: &[u8]) -> Decision {
        let Some(&[a, b, c, d, e, f, g, h, i, j, k, l, t, u]) = bytes.first_chunk::<ETHERNET_LEN>() else {
            return Decision::Drop(DropReason::BadLength);
        };
        if bytes.len() > MAX_FRAME {
            return Decision::Drop(DropReason::BadLength);
        }
        let (dst, src) = (MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l]));
        let vlan = if is_vlan(u16::from_be_bytes([t, u])) {
            VlanTag::of(bytes).map_or(0, VlanTag::id)
        } else {
            0
        };
        let port = match ingress {
            Ingress::Port(id) => match self.admit(now, id, vlan, src, bytes) {
                Ok(()) => Some(id),
                Err(reason) => return Decision::Drop(reason),
            },
            Ingress::Station => None,
        };
        if dst.is_group() {
            return match (dst.0, port) {
                ([0x01, 0x80, 0xc2, 0, 0, 0..=0x0f], _) => Decision::Drop(DropReason::Reserved),
                (_, Some(_)) if vlan == 0 => Decision::Flood(Flood::Everyone),
                (_, _) => Decision::Flood(Flood::Ports),
            };
        }
        if self.station == Some(dst) {
            return match port {
                Some(_) if vlan == 0 => Decision::Station,
                Some(_) => Decision::Drop(DropReason::UnknownProtocol),
                None => Decision::Drop(DropReason::SamePort),
            };
        }
        match self.fdb.lookup(now, vlan, dst) {
            Some(egress) if Some(egress) == port => Decision::Drop(DropReason::SamePort),
            Some(egress) => Decision::Port(egress),
            None => Decision::Flood(Flood::Unknown(dst)),
        }
    }

    fn admit(
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
        if vlan == 0 && member.guard.bound_mac().is_some() {
            // The address is the port's own, then, and in the table for good.
            return Ok(());
        }
        match self.fdb.learn(now, vlan, src, id) {
            // A port whose share is used up still sends: answers reach it as unknown unicast does.
            Learn::Known | Learn::New | Learn::Moved(_) | Learn::Full => Ok(()),
            Learn::Taken(_) => Err(DropReason::Spoofed),
        }
    }

    /// The ports that a flooded frame goes to.
    pub fn flooded(&self, flood: Flood, ingress: Ingress) -> impl Iterator<Item = PortId> + '_ {
        let wanted = move |member: &&Member| {
            let elsewhere = ingress != Ingress::Port(member.id);
            let might_have_it = match flood {
                Flood::Everyone | Flood::Ports => true,
                Flood::Unknown(dst) => member.guard.bound_mac().is_none_or(|mac| mac == dst),
            };
            elsewhere && might_have_it
        };
        self.members.iter().flatten().filter(wanted).map(|m| m.id)
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
            vlan: 0,
            mac,
            age: std::time::Duration::ZERO,
            origin: crate::fdb::Origin::Static,
        });
        station.into_iter().chain(self.fdb.entries(now))
    }
}

#[cfg(test)]
mod tests;
