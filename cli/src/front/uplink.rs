//! Uplinks: a network's own link to the world, made before the network answers for the first time, made again when it is lost, gone
//! with the network.
//!
//! What a link is made of lives in the descriptor that the packet process has of it: a TAP and a veth pair that were made go with
//! it; the pair may take its time, so it is taken away by hand where somebody looks. A link to another network's switch is a patch
//! cable, whose far end is a port there: that port, and the addresses that were taken for it, are given back by hand.
//!
//! A link that is lost (its interface is gone, its namespace has ended, the other network's packet process has died) is taken off the
//! gateway, where its flows wait for it, and tried again every two seconds; so is one that is not there when a daemon starts again. One that
//! is down only is not lost. The containers stay as they are meanwhile. Each try has three steps:
//!
//! ```text
//! begin   under the lock   a try is written down (super::trial)
//! make    without it       the namespace is looked for, a helper makes the link
//! finish  under the lock   the packet process takes it, if the network still waits for this try
//! ```
//!
//! Whoever makes a network waits for the first, and the network is there when that is finished ([`super::networks`]). The others have a
//! thread of their own, and nobody who waits.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pontoon_nat::routed::UplinkConfig;
use pontoon_switch::MacAddr;

use super::network::{Network, unexpected};
use super::patches::switch_of;
use super::place::Place;
use super::plan::Uplink;
use super::registry::{Container, Front};
use super::trial::{Built, End, Trial, Try, place_of};
use crate::args::{LinkTo, Netns};
use crate::attach::{Helper, Task};
use crate::packet::protocol::{Command, Reply, UplinkSettings};

mod live;

pub(super) use live::Live;

/// How long a link that is not there is left alone before the next try.
const REST: Duration = Duration::from_secs(2);

/// The same for one that has just been lost, and where a try failed for the first time: what took it away may put it back at once,
/// and what an earlier packet process had may take a moment to go.
const MOMENT: Duration = Duration::from_millis(200);

impl Front {
    /// Makes the uplink of a network, if it is to have one, and has the packet process take it: for a front that serves nobody yet.
    ///
    /// # Errors
    /// What cannot be made. Nothing of it is left.
    pub(super) fn make_uplink(&mut self, name: &str) -> Result<()> {
        match self.begin_uplink(name, Try::First) {
            Some(trial) => {
                let made = trial.make();
                self.take_uplink(&trial, made)
            }
            None => Ok(()),
        }
    }

    /// Has the uplink of a network made, if it is to have one, and nobody wait for it.
    pub(super) fn make_uplink_soon(&mut self, name: &str) {
        if let Some(network) = self.networks.get_mut(name)
            && network.plan.uplink.is_some()
        {
            network.live.due = Some(Instant::now());
        }
    }

    /// Begins a try to make the uplink of a network, if it is to have one.
    pub(super) fn begin_uplink(&mut self, name: &str, which: Try) -> Option<Trial> {
        let network = self.networks.get_mut(name)?;
        let uplink = network.plan.uplink.clone()?;
        let mtu = uplink.tuning.mtu.unwrap_or(network.plan.mtu);
        let (trial, awaited) = Trial::new(name, uplink, mtu.into(), which);
        network.live.trying = awaited;
        // Should nobody ever finish it.
        network.live.due = Some(Instant::now() + REST);
        Some(trial)
    }

    /// Begins to try uplinks again that are not there: the tries, and when to look next.
    pub(super) fn begin_uplinks(&mut self) -> (Vec<Trial>, Option<Duration>) {
        let waits = |n: &&Network| n.packet_fd().is_some() && !n.live.trying.is_some();
        let now = Instant::now();
        let due: Vec<String> = self
            .networks
            .values()
            .filter(waits)
            .filter(|n| n.live.due.is_some_and(|at| at <= now))
            .map(|n| n.name().to_owned())
            .collect();
        let trials = due
            .iter()
            .filter_map(|name| self.begin_uplink(name, Try::Again))
            .collect();
        let next = self
            .networks
            .values()
            .filter(waits)
            .filter_map(|n| n.live.due)
            .min();
        let next = next.map(|at| at.saturating_duration_since(now).max(Duration::from_millis(10)));
        (trials, next)
    }

    /// Finishes a try that nobody waits for: what has failed is tried again.
    pub(super) fn finish_uplink(&mut self, trial: Trial, made: Result<Option<Built>>) {
        let name = trial.network.clone();
        let awaited = self.networks.get(&name).filter(|n| n.live.trying.is(&trial));
        let Some(network) = awaited else {
            // The network has gone meanwhile, and what was made goes too.
            self.spent.extend(made.ok().flatten().map(|built| built.helper));
            return;
        };
        let (error_before, uplink_before) = (network.live.error.clone(), network.plan.uplink.clone());
        let taken = self.take_uplink(&trial, made);
        drop(trial);
        let Some(network) = self.networks.get_mut(&name) else {
            return;
        };
        match taken {
            Ok(()) if error_before.is_some() => tracing::warn!("the uplink of network {name} is back"),
            Ok(()) => {}
            Err(e) => {
                // Once, and not every two seconds.
                if error_before != network.live.error {
                    tracing::error!("{e:#}; trying again");
                }
                let rest = if error_before.is_some() { REST } else { MOMENT };
                network.live.due = Some(Instant::now() + rest);
            }
        }
        // Addresses on another network's switch are to be the same for the next daemon, as is the process that the link leads to.
        if network.plan.uplink != uplink_before {
            self.save_or_log();
        }
    }

    /// Has the packet process take what a try has made.
    ///
    /// # Errors
    /// It was not made, or cannot be taken. Nothing of it is left, but for addresses on another network's switch, which stay taken.
    pub(super) fn take_uplink(&mut self, trial: &Trial, made: Result<Option<Built>>) -> Result<()> {
        let Trial {
            network: name,
            uplink,
            ..
        } = trial;
        let taken = made
            .and_then(|built| self.plug_in(name, uplink, built))
            .with_context(|| format!("cannot make the uplink {} of network {name}", uplink.link));
        let live = &mut self.networks.get_mut(name).context("the network is gone")?.live;
        match taken {
            Ok(()) => {
                live.error = None;
                live.due = None;
                Ok(())
            }
            Err(e) => {
                live.forget_port();
                live.error = Some(format!("{e:#}"));
                live.due = None;
                self.take_off_switch(name);
                Err(e)
            }
        }
    }

    fn plug_in(&mut self, name: &str, uplink: &Uplink, built: Option<Built>) -> Result<()> {
        let Some(Built { end, place, helper }) = built else {
            let other = uplink.link.switch().context("no link was made")?.to_owned();
            let end = self.patch(name, &other)?;
            return self.add_uplink(name, end);
        };
        self.spent.push(helper);
        if let (
            LinkTo::Veth {
                namespace: Netns::Pid(_),
                ..
            },
            Some(place),
        ) = (&uplink.link.to, &place)
            && let Some(uplink) = self.networks.get_mut(name).and_then(|n| n.plan.uplink.as_mut())
        {
            uplink.process = Some(place.known.clone());
        }
        self.add_uplink(name, end).inspect_err(|_| {
            if let (Some(place), LinkTo::Veth { peer, .. }) = (&place, &uplink.link.to) {
                self.remove_pair(place, peer);
            }
        })
    }

    /// Sees that no other network has a MAC address on an interface of the host that this one is to have.
    fn is_alone(&self, name: &str, mac: MacAddr) -> Result<()> {
        let link = |n: &Network| n.plan.uplink.as_ref().map(|u| u.link.to.clone());
        let ours = self.networks.get(name).and_then(link);
        if !matches!(ours, Some(LinkTo::Packet(_))) {
            return Ok(());
        }
        let there = |n: &&Network| n.name() != name && n.live.port.is_some() && link(n) == ours;
        let same = self
            .networks
            .values()
            .filter(there)
            .find(|n| n.live.mac == Some(mac));
        match same {
            Some(other) => bail!(
                "network {} has the MAC address {mac} on that interface: leave mac= out, and each has one of its own",
                other.name()
            ),
            None => Ok(()),
        }
    }

    fn add_uplink(&mut self, name: &str, end: End) -> Result<()> {
        self.is_alone(name, end.mac)?;
        let network = self.networks.get_mut(name).context("the network is gone")?;
        let uplink = network.plan.uplink.as_ref().context("it has no uplink")?;
        let mtu = match uplink.tuning.mtu {
            Some(mtu) => {
                ensure!(
                    u32::from(mtu) <= end.mtu,
                    "the link has an MTU of {}, and the uplink cannot have one of {mtu}: ask for that or less, or leave it out",
                    end.mtu
                );
                mtu
            }
            None => u16::try_from(end.mtu).unwrap_or(u16::MAX),
        };
        uplink.check_mtu(mtu.into())?;
        let settings = UplinkSettings {
            name: uplink.link.to_string(),
            kind: end.kind,
            config: UplinkConfig {
                mac: end.mac,
                mtu,
                kind: uplink.kind(),
            },
        };
        let reply = network.call(&Command::AddUplink(Box::new(settings)), &[end.fd.as_fd()])?;
        let Reply::Port(port) = reply else {
            bail!(unexpected(&reply));
        };
        network.live.port = Some(port);
        network.live.since = super::now();
        network.live.mac = Some(end.mac);
        network.live.mtu = Some(mtu);
        network.live.wire = end.wire;
        Ok(())
    }

    /// A network goes: what its uplink has of another is free again.
    pub(super) fn give_up_uplink(&mut self, name: &str) {
        self.leave_link(name);
        self.take_off_switch(name);
        self.remove_live_pair(name);
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        if let (Some(taken), Some(other)) = (network.live.taken.take(), switch_of(network))
            && let Some(there) = self.networks.get_mut(&other)
        {
            there.release(&taken.addresses, taken.mac);
        }
    }

    /// Has the gateway leave a network's uplink, which gives back what a DHCP server has lent it there. One that is to be there again with
    /// the next daemon keeps that.
    pub(super) fn leave_link(&mut self, name: &str) {
        if let Some(network) = self.networks.get_mut(name)
            && let (Some(port), Some(_)) = (network.live.port, network.packet_fd())
        {
            network.remove_port(port);
        }
    }

    /// Has the pair of a network's uplink taken away if there is one, which without that would go when the kernel comes to it.
    pub(super) fn remove_live_pair(&mut self, name: &str) {
        let Some(network) = self.networks.get(name) else {
            return;
        };
        // While it is lost, an interface of that name is somebody else's.
        let (Some(_), Some(uplink)) = (network.live.port, &network.plan.uplink) else {
            return;
        };
        let LinkTo::Veth { peer, namespace } = uplink.link.to.clone() else {
            return;
        };
        match place_of(uplink, &namespace) {
            Ok(place) => self.remove_pair(&place, &peer),
            // Its namespace is gone, and it with that.
            Err(e) => tracing::debug!("cannot take {peer} away: {e:#}"),
        }
    }

    fn remove_pair(&mut self, place: &Place, peer: &str) {
        let task = Task::Detach {
            interface: peer.to_owned(),
            source_table: None,
        };
        let begun = Helper::spawn().and_then(|helper| {
            helper.begin(Some(place.door()?.as_fd()), &task)?;
            Ok(helper)
        });
        match begun {
            Ok(helper) => self.tidying.push((place.known.clone(), helper)),
            Err(e) => tracing::debug!("cannot take {peer} away: {e:#}"),
        }
    }

    /// Takes note of a port that has closed; true if it was the network's uplink.
    pub(super) fn lost_uplink(&mut self, name: &str, port: u32, error: &str) -> bool {
        let Some(network) = self.networks.get_mut(name) else {
            return false;
        };
        if network.live.port != Some(port) {
            return false;
        }
        tracing::warn!("network {name} has lost its uplink: {error}; trying again");
        // The switch has taken the port out by itself; the gateway stands on the link until it is told.
        network.remove_port(port);
        network.live.forget_port();
        network.live.error = Some(format!("it was lost: {error}"));
        network.live.due = Some(Instant::now() + MOMENT);
        true
    }

    /// Asks the packet process of a network for its uplink as it is now.
    pub(super) fn look_at_uplink(&mut self, name: &str) {
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        let Some(port) = network.live.port else {
            return;
        };
        match network.call(&Command::Uplinks, &[]) {
            Ok(Reply::Uplinks(all)) => {
                let found = all.into_iter().find(|(p, _)| *p == port);
                network.live.status = found.map(|(_, status)| status);
            }
            Ok(other) => tracing::warn!("network {name}: {}", unexpected(&other)),
            Err(e) => tracing::warn!("network {name} does not tell of its uplink: {e:#}"),
        }
    }

    /// As [`Front::look_at_uplink`], of all networks.
    pub(super) fn look_at_uplinks(&mut self) {
        let names: Vec<String> = self.networks.keys().cloned().collect();
        for name in names {
            self.look_at_uplink(&name);
        }
    }

    /// As [`Front::look_at_uplink`], of those that a container is on.
    pub(super) fn look_at_uplinks_of(&mut self, container: &str) {
        let on = |c: &Container| c.endpoints.iter().map(|e| e.info.network.clone()).collect();
        let names: Vec<String> = self.containers.get(container).map(on).unwrap_or_default();
        for name in names {
            self.look_at_uplink(&name);
        }
    }
}
