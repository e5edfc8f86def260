//! Published ports: sockets of the host that lead to a container through the gateway of the network that its default route
//! leads to.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pontoon_nat::publish::PublishSpec;
use rustix::process::{Resource, getrlimit};

use super::network::rule_ids;
use super::registry::{Front, Published};
use super::{Refused, refused};
use crate::api::PublishedPort;
use crate::bind::{self, Bound};
use crate::fdsock::MAX_FDS;
use crate::packet::protocol::{Command, Rule};

/// How long a packet process that was killed may keep its sockets.
const LINGERING: Duration = Duration::from_secs(1);

/// How long to wait before the next look at them.
const MOMENT: Duration = Duration::from_millis(5);

impl Front {
    /// Publishes ports of a container, all of `specs` or none.
    pub(super) fn publish(
        &mut self,
        name: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, Refused> {
        let container = self.container(name)?;
        let network = container.default_endpoint().map(|e| e.info.network.clone());
        let bound = self.bind_all(name, network.as_deref(), specs)?;
        let before = self.container(name)?.published.len();
        self.lead(name, bound)?;
        self.apply_links(name)?;
        self.save()?;
        let container = self.container(name)?;
        Ok(container.published[before..]
            .iter()
            .map(|p| p.port.clone())
            .collect())
    }

    /// Takes published ports back. A specification means whatever was published by it; a part of what was published by
    /// another is taken back if it names host port and container port.
    pub(super) fn unpublish(
        &mut self,
        name: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, Refused> {
        let container = self.container(name)?;
        let mut gone: Vec<Published> = Vec::new();
        for spec in specs {
            let before = gone.len();
            for rule in container.published.iter().filter(|r| r.is_of(spec)) {
                if !gone.iter().any(|g| g.id == rule.id && g.network == rule.network) {
                    gone.push(rule.clone());
                }
            }
            if gone.len() == before {
                return Err(refused(
                    404,
                    anyhow!("{name} has nothing published as {spec}: see `pontoon port {name}`"),
                ));
            }
        }
        for rule in &gone {
            let command = Command::Unpublish { rules: vec![rule.id] };
            self.network_mut(&rule.network)?.call(&command, &[])?;
        }
        if let Some(container) = self.containers.get_mut(name) {
            container
                .published
                .retain(|r| !gone.iter().any(|g| g.id == r.id && g.network == r.network));
        }
        self.save()?;
        Ok(gone.into_iter().map(|r| r.port).collect())
    }

    /// Binds every socket that `specs` name, if they fit the descriptors that are left, for a container whose default route
    /// leads to `network`.
    pub(super) fn bind_all(
        &self,
        name: &str,
        network: Option<&str>,
        specs: &[PublishSpec],
    ) -> Result<Vec<(PublishSpec, Bound)>, Refused> {
        let Some(network) = network else {
            return Err(refused(
                400,
                anyhow!(
                    "nothing of {name} can be published: it is on no network that has a gateway and a way out"
                ),
            ));
        };
        let network = self.network(network)?;
        if !network.plan.gateway {
            return Err(refused(
                400,
                anyhow!(
                    "nothing of {name} can be published: network {} has no gateway, and the container is on its LAN itself",
                    network.name()
                ),
            ));
        }
        let versions = network.versions();
        let at_home = |spec: &PublishSpec| PublishSpec {
            host_ip: spec.host_ip.or(network.plan.publish_address),
            ..spec.clone()
        };
        let wanted: usize = specs
            .iter()
            .map(|s| bind::sockets_of(&at_home(s), versions))
            .sum();
        let published: usize = self.containers.values().map(|c| c.published.len()).sum();
        let limit = getrlimit(Resource::Nofile)
            .current
            .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        // A quarter, but no more than 1024, is for connections and everything else.
        let room = (limit - (limit / 4).min(1024)).saturating_sub(published);
        if wanted > room {
            return Err(refused(
                409,
                anyhow!(
                    "{wanted} sockets would be needed for what is to be published, and the limit of open files leaves \
                     {room}: publish fewer ports, name one host address, or raise `ulimit -Hn` (now {limit})"
                ),
            ));
        }
        let mut all = Vec::with_capacity(wanted);
        for spec in specs {
            let bound = bind::bind(&at_home(spec), versions).map_err(|e| refused(409, e))?;
            all.extend(bound.into_iter().map(|b| (spec.clone(), b)));
        }
        Ok(all)
    }

    /// Leads bound sockets to a container by the gateway of its default route, all or none of them.
    pub(super) fn lead(&mut self, name: &str, bound: Vec<(PublishSpec, Bound)>) -> Result<()> {
        let endpoint = self
            .containers
            .get(name)
            .and_then(|c| c.default_endpoint())
            .with_context(|| format!("{name} has no default route"))?;
        let (network_name, port) = (endpoint.info.network.clone(), endpoint.info.port);
        let network = self
            .networks
            .get_mut(&network_name)
            .with_context(|| format!("network {network_name} is gone"))?;
        let mut done: Vec<Published> = Vec::with_capacity(bound.len());
        for batch in bound.chunks(MAX_FDS) {
            let rules: Vec<Rule> = batch
                .iter()
                .map(|(_, b)| Rule {
                    protocol: b.protocol,
                    host: b.host,
                    container_port: b.container_port,
                })
                .collect();
            let fds: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, b)| b.socket.as_fd()).collect();
            let ids = network
                .call(&Command::Publish { port, rules }, &fds)
                .and_then(|reply| rule_ids(reply, batch.len()));
            match ids {
                Ok(ids) => done.extend(ids.into_iter().zip(batch).map(|(id, (spec, b))| Published {
                    id,
                    network: network_name.clone(),
                    port: published_port(b),
                    spec: spec.clone(),
                })),
                Err(e) => {
                    let rules = done.iter().map(|r| r.id).collect();
                    let _ = network.call(&Command::Unpublish { rules }, &[]);
                    return Err(e.context("cannot publish"));
                }
            }
        }
        if let Some(container) = self.containers.get_mut(name) {
            container.published.extend(done);
        }
        Ok(())
    }

    /// What the gateway of `network` publishes of a container.
    pub(super) fn published_by(&self, name: &str, network: &str) -> Vec<Published> {
        let published = self.containers.get(name).map(|c| c.published.as_slice());
        let of_network = published
            .unwrap_or_default()
            .iter()
            .filter(|p| p.network == network);
        of_network.cloned().collect()
    }

    /// Takes back what is published of a container, and publishes it by its default route as that is now.
    pub(super) fn publish_anew(&mut self, name: &str) {
        let before = match self.containers.get_mut(name) {
            Some(container) => std::mem::take(&mut container.published),
            None => return,
        };
        for rule in &before {
            if let Some(network) = self.networks.get_mut(&rule.network) {
                let _ = network.call(&Command::Unpublish { rules: vec![rule.id] }, &[]);
            }
        }
        self.publish_again(name, before);
    }

    /// Publishes, at the same host ports, what is published no more. What somebody else has taken meanwhile is given up.
    pub(super) fn publish_again(&mut self, name: &str, lost: Vec<Published>) {
        let until = Instant::now() + LINGERING;
        for published in lost {
            let spec = published.exactly();
            let network = self
                .containers
                .get(name)
                .and_then(|c| c.default_endpoint())
                .map(|e| e.info.network.clone());
            let bound = loop {
                match self.bind_all(name, network.as_deref(), std::slice::from_ref(&spec)) {
                    // A packet process that was killed may have it for a moment still.
                    Err(e) if e.status == 409 && Instant::now() < until => std::thread::sleep(MOMENT),
                    other => break other,
                }
            };
            match bound {
                Ok(bound) => {
                    // It stays what it was published by.
                    let bound = bound
                        .into_iter()
                        .map(|(_, b)| (published.spec.clone(), b))
                        .collect();
                    if let Err(e) = self.lead(name, bound) {
                        tracing::error!("{name}: {spec} is not published for now: {e:#}");
                        // The packet process has died once more, and its successor is to have it.
                        if let Some(container) = self.containers.get_mut(name) {
                            container.published.push(published);
                        }
                    }
                }
                Err(e) => tracing::error!("{name}: {spec} is published no more: {:#}", e.error),
            }
        }
    }

    /// Publishes again what was published by the gateway of `network`, or of all, which have begun anew.
    pub(super) fn republish(&mut self, name: &str, network: Option<&str>) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let of_network = |p: &Published| network.is_none_or(|n| n == p.network);
        let (lost, kept): (Vec<Published>, Vec<Published>) = std::mem::take(&mut container.published)
            .into_iter()
            .partition(of_network);
        self.publish_again(name, lost);
        if let Some(container) = self.containers.get_mut(name) {
            container.published.splice(0..0, kept);
        }
    }
}

impl Published {
    /// True if this is what `spec` names: published by it, or host and container port within it.
    fn is_of(&self, spec: &PublishSpec) -> bool {
        let port = &self.port;
        let same_protocol = port.protocol == spec.protocol;
        let same_address = spec.host_ip.is_none_or(|ip| ip == port.host_ip);
        let of_range = |(first, last): (u16, u16), n: u16| (first..=last).contains(&n);
        let within = match spec.host_ports {
            None => of_range(spec.container_ports, port.container_port),
            Some(host) => {
                of_range(host, port.host_port) && of_range(spec.container_ports, port.container_port)
            }
        };
        self.spec == *spec || (same_protocol && same_address && within)
    }

    /// The specification of this one socket.
    fn exactly(&self) -> PublishSpec {
        PublishSpec {
            host_ip: Some(self.port.host_ip),
            host_ports: Some((self.port.host_port, self.port.host_port)),
            container_ports: (self.port.container_port, self.port.container_port),
            protocol: self.port.protocol,
        }
    }
}

fn published_port(bound: &Bound) -> PublishedPort {
    PublishedPort {
        protocol: bound.protocol,
        host_ip: bound.host.ip(),
        host_port: bound.host.port(),
        container_port: bound.container_port,
    }
}
