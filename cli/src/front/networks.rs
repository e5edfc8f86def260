//! Networks are made and removed.

use anyhow::{Context, Result, anyhow};

use super::network::Network;
use super::plan::Plan;
use super::registry::Front;
use super::{Refused, refused};
use crate::api::NetworkInfo;

impl Front {
    /// Makes a network, whole or not at all.
    pub(super) fn create(&mut self, plan: Plan) -> Result<NetworkInfo, Refused> {
        let name = plan.name.clone();
        self.begin_network(plan)?;
        let made = self.start_network(&name).and_then(|()| Ok(self.save_for_good()?));
        match made {
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
        self.network_mut(name)?.restart(&host)?;
        self.add_host_ports(name)
            .and_then(|()| self.make_uplink(name))
            .map_err(|e| refused(400, e))
    }

    /// As [`Front::start_network`], where nobody waits for it. `begun` is how its packet process began, if it has.
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
        self.members(name).next().is_none()
            && self.patched_to(name).is_empty()
            && self.routed_to(name).is_empty()
    }
}
