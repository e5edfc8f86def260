//! Networks are made and removed.
//!
//! One that somebody waits for is made in three steps, as a container is attached ([`super::attach`]):
//!
//! ```text
//! begin   under the lock   its name and ranges are taken, its packet process starts, what of the host is on it is put there
//! made    without it       a helper makes its uplink ([`super::trial`])
//! finish  under the lock   the packet process takes the uplink, the network is written down
//! ```
//!
//! In between it is *being made*: it has its name and its ranges, and is nobody's yet. It is in no list, whoever names it is told, and
//! a daemon that ends leaves nothing of it. What fails in whatever step is taken back whole.

use anyhow::{Context, Result, anyhow};

use super::network::Network;
use super::plan::Plan;
use super::registry::Front;
use super::trial::{Built, Trial, Try};
use super::{Refused, refused};
use crate::api::NetworkInfo;

/// A network on its way.
#[derive(Debug)]
pub(super) struct Creating {
    name: String,
    /// Its uplink, if it is to have one.
    uplink: Option<Trial>,
    made: Option<Result<Option<Built>>>,
}

impl Creating {
    /// Waits until its uplink is made, or cannot be. Not to be called under the lock.
    pub(super) fn make(&mut self) {
        self.made = self.uplink.as_ref().map(Trial::make);
    }
}

impl Front {
    /// Begins to make a network, which is there whole or not at all once that is finished.
    pub(super) fn begin_create(&mut self, plan: Plan) -> Result<Creating, Refused> {
        let name = plan.name.clone();
        self.begin_network(plan)?;
        self.making.insert(name.clone());
        match self.start_network(&name) {
            Ok(()) => Ok(Creating {
                uplink: self.begin_uplink(&name, Try::First),
                made: None,
                name,
            }),
            Err(e) => {
                self.close(&name);
                Err(e)
            }
        }
    }

    /// Finishes what [`Front::begin_create`] has begun.
    pub(super) fn finish_create(&mut self, creating: Creating) -> Result<NetworkInfo, Refused> {
        let Creating { name, uplink, made } = creating;
        let taken = match (&uplink, made) {
            (Some(trial), Some(made)) => self.take_uplink(trial, made).map_err(|e| refused(400, e)),
            (Some(_) | None, _) => Ok(()),
        };
        // It is to be in what is written down.
        self.making.remove(&name);
        match taken.and_then(|()| Ok(self.save_for_good()?)) {
            Ok(()) => self.network_info(&name),
            Err(e) => {
                self.close(&name);
                Err(e)
            }
        }
    }

    /// Makes a network that is to be there, whether or not all that it needs is there already: what is not, is tried again.
    ///
    /// # Errors
    /// There can be no such network.
    pub(super) fn keep(&mut self, plan: Plan) -> Result<(), Refused> {
        let name = plan.name.clone();
        self.begin_network(plan)?;
        self.start_or_later(&name, None);
        Ok(())
    }

    /// Writes a network down that has no packet process yet.
    fn begin_network(&mut self, mut plan: Plan) -> Result<(), Refused> {
        if !self.is_daemon() {
            return Err(refused(
                400,
                anyhow!(
                    "a private network's front makes no further networks: start `pontoon daemon` and ask that"
                ),
            ));
        }
        self.is_made(&plan.name)?;
        if self.networks.contains_key(&plan.name) {
            return Err(refused(
                409,
                anyhow!(
                    "a network named {} exists already: choose another name",
                    plan.name
                ),
            ));
        }
        if let Some(other) = plan.uplink.as_ref().and_then(|u| u.link.switch()) {
            self.is_made(other)?;
            self.leads_on(&plan.name, other).map_err(|e| refused(400, e))?;
        }
        plan.sandbox = self.sandbox;
        let network = Network::without_process(plan, &self.host, None)?;
        self.networks.insert(network.name().to_owned(), network);
        Ok(())
    }

    /// Starts a network's packet process, and puts what of the host belongs to it on it.
    fn start_network(&mut self, name: &str) -> Result<(), Refused> {
        let host = self.host.clone();
        let network = self.networks.get_mut(name).context("the network is gone")?;
        network.restart(&host)?;
        self.add_host_ports(name).map_err(|e| refused(400, e))
    }

    /// As [`Front::start_network`], and has the uplink made, where nobody waits for either. `begun` is how its packet process began, if it has.
    pub(super) fn start_or_later(&mut self, name: &str, begun: Option<Result<()>>) {
        let host = self.host.clone();
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        let started = begun.unwrap_or_else(|| network.restart(&host));
        if let Err(e) = started.with_context(|| format!("cannot start network {name}")) {
            tracing::error!("{e:#}; trying again");
            self.try_later(name);
            return;
        }
        if let Err(e) = self.add_host_ports(name) {
            tracing::error!("{e:#}");
        }
        self.make_uplink_soon(name);
    }

    /// Removes a network that has no containers, and that no other leads to.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Refused> {
        self.network(name)?;
        if !self.is_daemon() {
            return Err(refused(
                400,
                anyhow!("{name} is a private network: it goes with its last container"),
            ));
        }
        let members: Vec<&str> = self.members(name).map(|(c, _)| c.name.as_str()).collect();
        if !members.is_empty() {
            return Err(refused(
                409,
                anyhow!(
                    "network {name} has containers: detach or disconnect {} first",
                    members.join(", ")
                ),
            ));
        }
        let patched = self.patched_to(name);
        if !patched.is_empty() {
            return Err(refused(
                409,
                anyhow!(
                    "network {name} is the uplink of others: remove {} first",
                    patched.join(", ")
                ),
            ));
        }
        let routed = self.routed_to(name);
        if !routed.is_empty() {
            return Err(refused(
                409,
                anyhow!(
                    "routes lead to network {name}: remove those of {} first (`pontoon route {} ls`)",
                    routed.join(", "),
                    routed[0]
                ),
            ));
        }
        self.close(name);
        self.save_for_good()?;
        Ok(())
    }

    /// Ends a network and its packet process.
    fn close(&mut self, name: &str) {
        self.making.remove(name);
        self.broken.remove(name);
        self.restarted.remove(name);
        self.give_up_routes(name);
        self.give_up_uplink(name);
        if let Some(mut network) = self.networks.remove(name)
            && let Some(link) = network.close()
        {
            link.end();
        }
    }

    /// Removes every network that has no containers and that no other needs; their names.
    pub(super) fn prune(&mut self) -> Result<Vec<String>, Refused> {
        let mut removed = Vec::new();
        // One may have been needed by others that go.
        loop {
            let unused: Vec<String> = self
                .networks
                .keys()
                .filter(|n| self.is_unused(n))
                .cloned()
                .collect();
            if unused.is_empty() {
                removed.sort();
                return Ok(removed);
            }
            for name in unused {
                self.remove(&name)?;
                removed.push(name);
            }
        }
    }

    fn is_unused(&self, name: &str) -> bool {
        !self.making.contains(name)
            && self.members(name).next().is_none()
            && self.patched_to(name).is_empty()
            && self.routed_to(name).is_empty()
    }
}
