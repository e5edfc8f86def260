//! What is on the switch: ports and their policies, links, the station. Everything here is configuration; nothing is asked for
//! a frame.

use super::{NOWHERE, StationPlace, Switch};
use crate::fdb::Fdb;
use crate::isolation::{Peers, Service};
use crate::policy::{Guard, Policy};
use crate::storm::Bucket;
use crate::vlan::VlanMode;
use crate::{MacAddr, PortId};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: PortId,
    pub(super) guard: Guard,
    pub(super) vlan: VlanMode,
    pub(super) peers: Peers,
    pub(super) storm: Option<Bucket>,
}

impl Member {
    fn new(id: PortId, policy: &Policy) -> Self {
        Self {
            id,
            guard: Guard::new(policy),
            vlan: policy.vlan.clone(),
            peers: policy.peers,
            storm: policy.storm.map(Bucket::new),
        }
    }

    fn is_parted(&self) -> bool {
        self.vlan != VlanMode::Transparent || self.peers != Peers::All
    }
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
    /// Puts the station elsewhere.
    ///
    /// # Errors
    /// [`AddPortError::AddressTaken`] if it was absent and a port has been bound to its address.
    pub fn place_station(&mut self, place: StationPlace) -> Result<(), AddPortError> {
        let (vlan, mac) = match place {
            StationPlace::Untagged => (0, self.station_mac),
            StationPlace::Vlan(id) => (id.get(), self.station_mac),
            StationPlace::Absent => (NOWHERE, None),
        };
        if let Some(mac) = mac.filter(|_| self.station.is_none()) {
            self.check_free(mac, None)?;
        }
        self.place = place;
        self.station = mac;
        self.station_vlan = if mac.is_some() { vlan } else { NOWHERE };
        self.note_parted();
        Ok(())
    }

    /// Adds a port.
    pub fn add_port(&mut self, policy: &Policy) -> Result<PortId, AddPortError> {
        if let Some(mac) = policy.bound_mac() {
            self.check_free(mac, None)?;
        }
        let id = self.reserve_port()?;
        let member = Member::new(id, policy);
        bind(&mut self.fdb, &member);
        self.parted |= member.is_parted();
        self.reserved[id.slot()] = false;
        self.members[id.slot()] = Some(member);
        Ok(id)
    }

    /// A number for a port that is not on the switch, until [`Switch::remove_port`].
    pub fn reserve_port(&mut self) -> Result<PortId, AddPortError> {
        // Slot 0 is the station's. The last generation of a slot retires it, so that no number comes twice.
        let last = u32::MAX >> PortId::MAX_PORTS.count_ones();
        let unused =
            |&s: &usize| self.members[s].is_none() && !self.reserved[s] && self.generations[s] <= last;
        let slot = match (1..self.members.len()).find(unused) {
            Some(slot) => slot,
            None => {
                let slot = self.members.len().max(1);
                if slot > PortId::MAX_PORTS {
                    return Err(AddPortError::Full);
                }
                self.members.resize_with(slot + 1, || None);
                self.reserved.resize(slot + 1, false);
                self.generations.resize(slot + 1, 0);
                slot
            }
        };
        let id = PortId::of_slot(slot, self.generations[slot]);
        self.generations[slot] += 1;
        self.reserved[slot] = true;
        Ok(id)
    }

    /// Exchanges the policy of a port; false if there is no such port. What was learned on it is forgotten if its VLANs change.
    pub fn set_policy(&mut self, id: PortId, policy: &Policy) -> Result<bool, AddPortError> {
        if let Some(mac) = policy.bound_mac() {
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
        unbind(&mut self.fdb, member);
        let before = std::mem::replace(member, Member::new(id, policy));
        bind(&mut self.fdb, member);
        if before.vlan != member.vlan {
            self.fdb.forget_learned(id);
        }
        // No new second's worth for a policy that says the same of it.
        if before.storm.map(|b| b.limit()) == policy.storm {
            member.storm = before.storm;
        }
        self.note_parted();
        Ok(true)
    }

    /// Lets `client` use `services` of `server` where one of them is isolated ([`Peers::Linked`]), in the place of those of an
    /// earlier link. The link goes with either port. False if one of them is not there, or both are the same.
    pub fn set_link(&mut self, client: PortId, server: PortId, services: &[Service]) -> bool {
        let can = client != server && self.has_port(client) && self.has_port(server);
        if can {
            self.links.set(client, server, services);
        }
        can
    }

    /// Takes a link back; false if there was none.
    pub fn remove_link(&mut self, client: PortId, server: PortId) -> bool {
        self.links.remove(client, server)
    }

    /// Client, server and services of each link.
    pub fn links(&self) -> impl Iterator<Item = (PortId, PortId, &[Service])> {
        self.links.iter()
    }

    fn note_parted(&mut self) {
        self.parted = matches!(self.place, StationPlace::Vlan(_))
            || self.members.iter().flatten().any(Member::is_parted);
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
            return self.reserved.get_mut(id.slot()).is_some_and(std::mem::take);
        }
        self.members[id.slot()] = None;
        self.fdb.remove_port(id);
        self.links.remove_port(id);
        self.note_parted();
        true
    }

    /// True if `id` is a port of this switch.
    pub fn has_port(&self, id: PortId) -> bool {
        self.member(id).is_some()
    }
}

/// Puts the address that a port is bound to into the table, in the port's VLANs.
fn bind(fdb: &mut Fdb, member: &Member) {
    if let Some(mac) = member.guard.bound_mac() {
        member
            .vlan
            .bound()
            .each(|vlan| fdb.set_static(vlan, mac, member.id));
    }
}

/// Takes it out again.
fn unbind(fdb: &mut Fdb, member: &Member) {
    if let Some(mac) = member.guard.bound_mac() {
        member.vlan.bound().each(|vlan| {
            fdb.remove_static(vlan, mac);
        });
    }
}
