//! Published ports: sockets of the host that lead to a container through the gateway of the network that its default route
//! leads to; or, where that has an uplink, ports of its address there, which no socket keeps ([`super::claims`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use pontoon_nat::publish::{PublishSpec, Transport};
use rustix::process::{Resource, getrlimit};

use super::claims::Claim;
use super::network::{Network, rule_ids};
use super::registry::{Front, Published};
use super::{Refused, refused};
use crate::api::PublishedPort;
use crate::bind;
use crate::fdsock::MAX_FDS;
use crate::packet::protocol::{Command, Rule};

/// How long a packet process that was killed may keep its sockets.
const LINGERING: Duration = Duration::from_secs(1);

/// How long to wait before the next look at them.
const MOMENT: Duration = Duration::from_millis(5);

/// A port that is taken, and is to lead to a container.
#[derive(Debug)]
pub(super) struct Kept {
    protocol: Transport,
    /// Where clients come to, with the port that it really is.
    host: SocketAddr,
    container_port: u16,
    hold: Hold,
}

/// Whether a port is published for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binding {
    /// It is, and where it cannot be reached is an error.
    New,
    /// It was published there before: an uplink that has no address for now, or another, may have that one again.
    Again,
}

/// What keeps a port from others.
#[derive(Debug)]
enum Hold {
    /// A socket of the host.
    Socket(OwnedFd),
    /// A claim at an uplink.
    Claim(Claim),
}

impl Front {
    /// Publishes ports of a container, all of `specs` or none.
    pub(super) fn publish(
        &mut self,
        name: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, Refused> {
        self.look_at_uplinks_of(name);
        let container = self.container(name)?;
        let network = container.default_endpoint().map(|e| e.info.network.clone());
        let bound = self.bind_all(name, network.as_deref(), specs, Binding::New)?;
        let before = self.container(name)?.published.len();
        self.lead(name, bound)?;
        self.apply_links(name)?;
        self.save()?;
        let container = self.container(name)?;
        Ok(container.published[before..]
            .iter()
            .map(|p| self.shown(p))
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
            for rule in container
                .published
                .iter()
                .filter(|r| r.is_of(spec, &self.shown(r)))
            {
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
        Ok(gone.iter().map(|r| self.shown(r)).collect())
    }

    /// A published port as people see it: one of an uplink has the address there, as far as it is known.
    pub(super) fn shown(&self, published: &Published) -> PublishedPort {
        let port = published.port.clone();
        if published.claim.is_none() || !port.host_ip.is_unspecified() {
            return port;
        }
        let network = self.networks.get(&published.network);
        let addresses = network.map_or_else(Vec::new, Network::published_at);
        let known = addresses
            .into_iter()
            .find(|a| a.is_ipv4() == port.host_ip.is_ipv4());
        PublishedPort {
            host_ip: known.unwrap_or(port.host_ip),
            ..port
        }
    }

    /// Takes every port that `specs` name for a container whose default route leads to `network`: binds sockets, if they fit the
    /// descriptors that are left, or claims ports of the uplink.
    pub(super) fn bind_all(
        &self,
        name: &str,
        network: Option<&str>,
        specs: &[PublishSpec],
        binding: Binding,
    ) -> Result<Vec<(PublishSpec, Kept)>, Refused> {
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
        if network.plan.uplink.is_some() {
            return claim_all(network, specs, binding);
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
            all.extend(bound.into_iter().map(|b| {
                let kept = Kept {
                    protocol: b.protocol,
                    host: b.host,
                    container_port: b.container_port,
                    hold: Hold::Socket(b.socket),
                };
                (spec.clone(), kept)
            }));
        }
        Ok(all)
    }

    /// Leads what was taken to a container by the gateway of its default route, all or none of it.
    pub(super) fn lead(&mut self, name: &str, kept: Vec<(PublishSpec, Kept)>) -> Result<()> {
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
        let mut done: Vec<Published> = Vec::with_capacity(kept.len());
        let mut kept = kept.into_iter();
        loop {
            let batch: Vec<(PublishSpec, Kept)> = kept.by_ref().take(MAX_FDS).collect();
            if batch.is_empty() {
                break;
            }
            match lead_batch(network, port, &batch) {
                Ok(ids) => {
                    let published = |(id, (spec, kept)): (u32, (PublishSpec, Kept))| Published {
                        id,
                        network: network_name.clone(),
                        port: PublishedPort {
                            protocol: kept.protocol,
                            host_ip: kept.host.ip(),
                            host_port: kept.host.port(),
                            container_port: kept.container_port,
                        },
                        spec,
                        claim: match kept.hold {
                            Hold::Claim(claim) => Some(Arc::new(claim)),
                            // The packet process has it now.
                            Hold::Socket(_) => None,
                        },
                    };
                    done.extend(ids.into_iter().zip(batch).map(published));
                }
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
        for mut published in lost {
            // It is to be taken anew.
            published.claim = None;
            let network = self
                .containers
                .get(name)
                .and_then(|c| c.default_endpoint())
                .and_then(|e| self.networks.get(&e.info.network));
            let spec = match network {
                Some(network) => published.exactly_at(&network.plan),
                None => Some(published.exactly()),
            };
            let Some(spec) = spec else {
                tracing::info!("{name}: {} is not published there", published.exactly());
                continue;
            };
            let network_name = network.map(|n| n.name().to_owned());
            let binding = if network_name.as_ref() == Some(&published.network) {
                Binding::Again
            } else {
                Binding::New
            };
            // Claims are given up at once, and nobody is to be waited for.
            let sockets = network.is_some_and(|n| n.plan.uplink.is_none());
            let bound = loop {
                match self.bind_all(
                    name,
                    network_name.as_deref(),
                    std::slice::from_ref(&spec),
                    binding,
                ) {
                    // A packet process that was killed may have it for a moment still.
                    Err(e) if e.status == 409 && sockets && Instant::now() < until => {
                        std::thread::sleep(MOMENT);
                    }
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

/// Has a gateway lead some ports to a container; the numbers of the rules.
fn lead_batch(network: &mut Network, port: u32, batch: &[(PublishSpec, Kept)]) -> Result<Vec<u32>> {
    let rules: Vec<Rule> = batch
        .iter()
        .map(|(_, k)| Rule {
            protocol: k.protocol,
            host: k.host,
            container_port: k.container_port,
        })
        .collect();
    let fds: Vec<BorrowedFd<'_>> = batch
        .iter()
        .filter_map(|(_, k)| match &k.hold {
            Hold::Socket(socket) => Some(socket.as_fd()),
            Hold::Claim(_) => None,
        })
        .collect();
    let command = if network.plan.uplink.is_some() {
        Command::PublishRouted { port, rules }
    } else {
        Command::Publish { port, rules }
    };
    network
        .call(&command, &fds)
        .and_then(|reply| rule_ids(reply, batch.len()))
}

/// Claims every port that `specs` name at the uplink of a network.
fn claim_all(
    network: &Network,
    specs: &[PublishSpec],
    binding: Binding,
) -> Result<Vec<(PublishSpec, Kept)>, Refused> {
    let mut all = Vec::new();
    for spec in specs {
        let ips = uplink_ips(network, spec.host_ip, binding).map_err(|e| refused(400, e))?;
        let claimed = network.claims.claim(spec, &ips).map_err(|e| refused(409, e))?;
        all.extend(claimed.into_iter().map(|c| {
            let kept = Kept {
                protocol: spec.protocol,
                host: c.host,
                container_port: c.container_port,
                hold: Hold::Claim(c.claim),
            };
            (spec.clone(), kept)
        }));
    }
    Ok(all)
}

/// Where on its uplink a network publishes what names the address `wanted`, or none: unspecified is whatever the address is.
///
/// # Errors
/// The address that is wanted for the first time is another than the link has. While the link has none, nobody can tell.
fn uplink_ips(network: &Network, wanted: Option<IpAddr>, binding: Binding) -> Result<Vec<IpAddr>> {
    let uplink = network.plan.uplink.as_ref().context("there is no uplink")?;
    let has = |v4: bool| {
        let containers = network.plan.subnets.iter().any(|s| s.net.addr().is_ipv4() == v4);
        containers
            && if v4 {
                uplink.ipv4.is_some()
            } else {
                uplink.ipv6.is_some()
            }
    };
    let ips: Vec<IpAddr> = match wanted {
        Some(ip) if !ip.is_unspecified() => {
            let known = network.published_at();
            let same_version = known.iter().any(|a| a.is_ipv4() == ip.is_ipv4());
            if binding == Binding::New && same_version && !known.contains(&ip) {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                bail!(
                    "Bind for {ip} failed: ports of network {} are published at the address of its uplink ({}): name that, or none",
                    network.name(),
                    known.join(", ")
                );
            }
            vec![ip]
        }
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let ips: Vec<IpAddr> = ips.into_iter().filter(|ip| has(ip.is_ipv4())).collect();
    if ips.is_empty() {
        bail!(
            "nothing can be published: the uplink of network {} and its containers have no IP version in common that is asked for",
            network.name()
        );
    }
    Ok(ips)
}
