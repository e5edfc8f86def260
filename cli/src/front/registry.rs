//! What a front has: networks, containers with their interfaces on them, links, rules and wires.
//!
//! One lock is over all of it. Nothing here waits for a client. Packet processes are waited for: they answer between two batches of
//! frames, and one that does not is ended. Helpers are waited for, for as long as they may take, only where a network is made with what
//! of the host is on it, where a default route moves, and where interfaces are made again after a packet process has died; containers
//! that come ([`super::attach`]) and uplinks ([`super::trial`]) are waited for without the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use pontoon_nat::publish::PublishSpec;

use super::cables::Cable;
use super::claims::Claim;
use super::daemon::{self, SubnetPool};
use super::links::Link;
use super::network::Network;
use super::place::{Known, Place};
use super::state::StateFile;
use super::wires::Wire;
use super::{Refused, refused};
use crate::api::{ContainerInfo, EndpointInfo, NetworkInfo, PublishedPort, RouteInfo, RuleInfo};
use crate::args::Exposed;
use crate::attach::Helper;
use crate::packet::protocol::NamedAddresses;
use crate::resolv::ResolvConf;
use crate::sandbox::SandboxOptions;

/// How long the end of a helper that has answered may be off.
const NEAR: Duration = Duration::from_millis(20);

/// Whose front it is, and so how long it lives.
#[derive(Debug)]
pub(super) enum Life {
    /// A private network's: until its last container has ended.
    Private {
        /// Whether there ever was one.
        used: bool,
        /// Whether it is ending.
        over: bool,
    },
    /// The daemon: until it is told to end.
    Daemon(StateFile),
}

/// The state of a front.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) life: Life,
    pub(super) networks: BTreeMap<String, Network>,
    /// Names of networks that are being made.
    pub(super) making: BTreeSet<String>,
    pub(super) containers: BTreeMap<String, Container>,
    /// Names of containers that are being attached.
    pub(super) coming: BTreeSet<String>,
    pub(super) links: Vec<Link>,
    pub(super) rules: Vec<RuleInfo>,
    pub(super) next_rule: u32,
    pub(super) wires: Vec<Wire>,
    /// Routes of all networks, in the order in which they were added.
    pub(super) routes: Vec<RouteInfo>,
    /// Cables between networks that have routes to each other.
    pub(super) cables: Vec<Cable>,
    /// The attach helper of the first container, waiting for it.
    pub(super) helper: Option<Helper>,
    /// Helpers that have answered, or need not, and are about to end.
    pub(super) spent: Vec<Helper>,
    /// Helpers that take something away which is nobody's any more, and the namespaces that they do it in.
    pub(super) tidying: Vec<(Known, Helper)>,
    /// The host's resolv.conf.
    pub(super) host: ResolvConf,
    /// How packet processes confine themselves.
    pub(super) sandbox: SandboxOptions,
    /// Where networks without a subnet get theirs from.
    pub(super) subnet_pools: Vec<SubnetPool>,
    /// Networks without a packet process, and when to try again.
    pub(super) broken: BTreeMap<String, Instant>,
    /// When each network's packet process was last started anew.
    pub(super) restarted: BTreeMap<String, Instant>,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) published: Vec<Published>,
    pub(super) exposed: Vec<Exposed>,
    pub(super) hosts: Vec<(String, IpAddr)>,
    pub(super) since: u64,
}

/// A container's interface on a network.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) info: EndpointInfo,
    /// Its addresses with their prefixes.
    pub(super) prefixes: Vec<IpNet>,
    /// The routing table for what is sent from its addresses, if there is one.
    pub(super) source_table: Option<u32>,
    /// What the gateway's DNS was told to have for this container alone.
    pub(super) view: NamedAddresses,
}

/// A rule of a packet process and what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) id: u32,
    /// The network whose gateway has it.
    pub(super) network: String,
    pub(super) port: PublishedPort,
    pub(super) spec: PublishSpec,
    /// What keeps it, where no socket does.
    pub(super) claim: Option<Arc<Claim>>,
}

impl Container {
    /// The interface that the default route leads to.
    pub(super) fn default_endpoint(&self) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.info.default_route)
    }

    /// The interface on a network.
    pub(super) fn on(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.info.network == network)
    }

    /// What it offers to those it is linked to: exposed and published ports.
    pub(super) fn offered(&self) -> Vec<Exposed> {
        let published = self.published.iter().map(|p| Exposed {
            ports: (p.port.container_port, p.port.container_port),
            protocol: p.port.protocol,
        });
        let mut all: Vec<Exposed> = self.exposed.iter().copied().chain(published).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Front {
    /// A front without networks.
    pub(super) fn new(life: Life, host: ResolvConf) -> Self {
        Self {
            life,
            networks: BTreeMap::new(),
            making: BTreeSet::new(),
            containers: BTreeMap::new(),
            coming: BTreeSet::new(),
            links: Vec::new(),
            rules: Vec::new(),
            next_rule: 1,
            wires: Vec::new(),
            routes: Vec::new(),
            cables: Vec::new(),
            helper: None,
            spent: Vec::new(),
            tidying: Vec::new(),
            host,
            sandbox: SandboxOptions::default(),
            subnet_pools: daemon::default_pools(),
            broken: BTreeMap::new(),
            restarted: BTreeMap::new(),
        }
    }

    /// Whether it is the daemon.
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self.life, Life::Daemon(_))
    }

    /// True if there is nothing left to live for, and from then on nothing is attached; `alone` says that whoever started
    /// the network is gone.
    pub(super) fn is_over(&mut self, alone: bool) -> bool {
        let empty = self.containers.is_empty() && self.coming.is_empty();
        match &mut self.life {
            Life::Private { used, over } => {
                *over |= empty && (*used || alone);
                *over
            }
            Life::Daemon(_) => false,
        }
    }

    /// A network by its name.
    pub(super) fn network(&self, name: &str) -> Result<&Network, Refused> {
        self.is_made(name)?;
        self.networks.get(name).ok_or_else(|| no_network(name))
    }

    /// A network by its name, to do something with it.
    pub(super) fn network_mut(&mut self, name: &str) -> Result<&mut Network, Refused> {
        self.is_made(name)?;
        self.networks.get_mut(name).ok_or_else(|| no_network(name))
    }

    /// Sees that no network of that name is being made, which is not to be used before it is whole.
    pub(super) fn is_made(&self, name: &str) -> Result<(), Refused> {
        if self.making.contains(name) {
            return Err(refused(
                409,
                anyhow!("network {name} is being made: try again once that is done"),
            ));
        }
        Ok(())
    }

    /// A container by its name.
    pub(super) fn container(&self, name: &str) -> Result<&Container, Refused> {
        self.containers.get(name).ok_or_else(|| no_container(name))
    }

    /// The containers on a network, each with its interface there.
    pub(super) fn members<'a>(
        &'a self,
        network: &'a str,
    ) -> impl Iterator<Item = (&'a Container, &'a Endpoint)> {
        self.containers
            .values()
            .filter_map(move |c| c.on(network).map(|e| (c, e)))
    }

    /// All that is known of a network.
    pub(super) fn network_info(&self, name: &str) -> Result<NetworkInfo, Refused> {
        let endpoints = self.members(name).map(|(_, e)| e.info.clone()).collect();
        Ok(self.network(name)?.info(self.is_daemon(), endpoints))
    }

    /// All networks that are made, by name.
    pub(super) fn network_infos(&self) -> Vec<NetworkInfo> {
        self.networks
            .keys()
            .filter_map(|name| self.network_info(name).ok())
            .collect()
    }

    /// All that is known of a container.
    pub(super) fn container_info(&self, container: &Container) -> ContainerInfo {
        ContainerInfo {
            name: container.name.clone(),
            pid: container.place.pid(),
            namespace: container.place.path().map(ToOwned::to_owned),
            endpoints: container.endpoints.iter().map(|e| e.info.clone()).collect(),
            published: container.published.iter().map(|p| self.shown(p)).collect(),
            exposed: container.exposed.clone(),
            links: self
                .links
                .iter()
                .filter(|l| l.client == container.name)
                .map(|l| self.link_info(l))
                .collect(),
            since: container.since,
        }
    }

    /// All containers, by name.
    pub(super) fn container_infos(&self) -> Vec<ContainerInfo> {
        self.containers.values().map(|c| self.container_info(c)).collect()
    }

    /// Names of a network's ports.
    pub(super) fn port_names(&self, network: &str) -> BTreeMap<u32, String> {
        let of_host = self.networks.get(network).map(|n| n.host_ports.clone());
        self.members(network)
            .map(|(c, e)| (e.info.port, c.name.clone()))
            .chain(of_host.into_iter().flatten())
            .collect()
    }

    /// The containers' first processes: each readable when it has ended.
    pub(super) fn pidfds(&self) -> Vec<(String, Arc<OwnedFd>)> {
        self.containers
            .values()
            .filter_map(|c| Some((c.name.clone(), Arc::clone(c.place.pidfd()?))))
            .collect()
    }

    /// The paths of the containers that are known by one.
    pub(super) fn paths(&self) -> Vec<std::path::PathBuf> {
        self.containers
            .values()
            .filter_map(|c| c.place.path().map(ToOwned::to_owned))
            .collect()
    }

    /// Something to poll for events of each packet process, by the network's name.
    pub(super) fn packet_fds(&self) -> Vec<(String, Arc<OwnedFd>)> {
        let all = self.networks.iter();
        let wires = self.wires.iter().map(|w| (&w.network.plan.name, &w.network));
        all.chain(wires)
            .filter_map(|(name, n)| Some((name.clone(), n.packet_fd()?)))
            .collect()
    }

    /// Detaches containers whose process has ended or whose path leads to them no more.
    pub(super) fn sweep(&mut self) {
        let gone: Vec<String> = self
            .containers
            .values()
            .filter(|c| !c.place.is_there())
            .map(|c| c.name.clone())
            .collect();
        for name in gone {
            self.detach(&name);
        }
    }

    /// The host's resolv.conf is another now.
    pub(super) fn set_host_resolvers(&mut self, host: ResolvConf) {
        for network in self.networks.values_mut() {
            network.set_host_resolvers(&host);
        }
        self.host = host;
    }

    /// Lets go of helpers that have ended; when to look again, if there are others.
    pub(super) fn tidy(&mut self) -> Option<Duration> {
        self.spent.retain_mut(|helper| !helper.has_ended());
        self.tidying.retain_mut(|(_, helper)| !helper.has_ended());
        (!self.spent.is_empty() || !self.tidying.is_empty()).then_some(NEAR)
    }

    /// The helpers that still take something away in a namespace, for whoever is to wait for them.
    pub(super) fn tidying_at(&mut self, place: &Known) -> Vec<Helper> {
        let (there, elsewhere) = std::mem::take(&mut self.tidying)
            .into_iter()
            .partition(|(at, _)| at.is_same_namespace(place));
        self.tidying = elsewhere;
        let there: Vec<(Known, Helper)> = there;
        there.into_iter().map(|(_, helper)| helper).collect()
    }

    /// Has what others see of the uplinks taken away, and of those that are gone for good what was lent there given back; waits for
    /// that. The front is to end.
    pub(super) fn part_from_links(&mut self) {
        let names: Vec<String> = self.networks.keys().cloned().collect();
        for name in &names {
            if matches!(self.life, Life::Private { .. }) {
                self.leave_link(name);
            }
            self.remove_live_pair(name);
            if let Some(network) = self.networks.get_mut(name) {
                network.live.forget_port();
            }
        }
        // Waited for: nobody else is left to.
        self.tidying.clear();
    }

    /// Ends every packet process; the front is of no use after that.
    pub(super) fn end(&mut self) {
        self.part_from_links();
        let wires = self.wires.iter_mut().map(|w| &mut w.network);
        let links: Vec<_> = self
            .networks
            .values_mut()
            .chain(wires)
            .filter_map(Network::close)
            .collect();
        for link in links {
            link.end();
        }
    }

    /// Writes the state down, if it is to outlive this process.
    pub(super) fn save(&self) -> Result<()> {
        self.write(false)
    }

    /// As [`Front::save`], for what is to be there after a reboot as well.
    pub(super) fn save_for_good(&self) -> Result<()> {
        self.write(true)
    }

    fn write(&self, for_good: bool) -> Result<()> {
        match &self.life {
            Life::Private { .. } => Ok(()),
            Life::Daemon(file) => file.write(self, for_good).context("cannot write the state down"),
        }
    }

    /// As [`Front::save`], where nobody is there to be told that it failed.
    pub(super) fn save_or_log(&self) {
        if let Err(e) = self.save() {
            tracing::error!("{e:#}");
        }
    }
}

fn no_network(name: &str) -> Refused {
    refused(
        404,
        anyhow!("no network named {name}: `pontoon network ls` lists those there are"),
    )
}

/// There is no container of that name.
pub(super) fn no_container(name: &str) -> Refused {
    refused(
        404,
        anyhow!("no container named {name}: `pontoon ps` lists those there are"),
    )
}
