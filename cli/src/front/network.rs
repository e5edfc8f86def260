//! The state of one network and what is done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use pontoon_nat::config::{Config, Egress, HostLoopback, Subnet4, Subnet6};
use pontoon_nat::publish::{PublishSpec, Transport};
use pontoon_switch::MacAddr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};

use super::Plan;
use super::packet_link::PacketLink;
use crate::api::{AttachRequest, ContainerInfo, NetworkInfo, PublishedPort, SubnetInfo};
use crate::args::{MIN_MTU_IPV6, parse_name};
use crate::attach::{self, Attach, Helper, Task};
use crate::bind::{self, Bound, Versions};
use crate::fdsock::MAX_FDS;
use crate::ipam::{Pool, mac_for};
use crate::packet::protocol::{Command, Event, NetworkConfig, PortKind, Reply, Rule};
use crate::resolv::ResolvConf;

/// A running network.
#[derive(Debug)]
pub(super) struct Network {
    plan: Plan,
    gateway_mac: MacAddr,
    pool4: Pool,
    pool6: Option<Pool>,
    containers: BTreeMap<String, Container>,
    /// Whether there ever was one.
    used: bool,
    /// Whether it is ending.
    over: bool,
    since: u64,
    link: Option<PacketLink>,
    packet_pid: u32,
    /// The attach helper of the first container, waiting for it.
    helper: Option<Helper>,
    /// Helpers that have answered and are about to end.
    spent: Vec<Helper>,
}

/// A container on its way: what has been taken for it, while its helper is at work.
#[derive(Debug)]
pub(super) struct Attaching {
    name: String,
    pid: u32,
    pidfd: OwnedFd,
    mac: MacAddr,
    addresses: Vec<IpAddr>,
    bound: Vec<(PublishSpec, Bound)>,
    capture: Option<CaptureFile>,
    hosts: Vec<(String, IpAddr)>,
    helper: Helper,
}

#[derive(Debug)]
struct Container {
    info: ContainerInfo,
    pidfd: Arc<OwnedFd>,
    rules: Vec<Published>,
    hosts: Vec<(String, IpAddr)>,
}

/// A rule of the packet process and what it stands for.
#[derive(Clone, Debug)]
struct Published {
    id: u32,
    port: PublishedPort,
    spec: PublishSpec,
}

/// A request that cannot be granted: an HTTP status and the reason.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) error: anyhow::Error,
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self { status: 500, error }
    }
}

fn refused(status: u16, error: impl Into<anyhow::Error>) -> Refused {
    Refused {
        status,
        error: error.into(),
    }
}

impl Network {
    /// Begins to make the network of `plan`: starts its packet process, and has it configure itself. `host` is the host's
    /// resolv.conf. There must be one thread only.
    pub(super) fn new(mut plan: Plan, host: &ResolvConf) -> Result<Self> {
        let pool4 = Pool::new(plan.subnet4.into(), plan.gateway4.map(IpAddr::V4))?;
        let with_ipv6 = u32::from(plan.mtu) >= MIN_MTU_IPV6 && Path::new("/proc/net/if_inet6").exists();
        let pool6 = match plan.subnet6.filter(|_| with_ipv6) {
            Some(net) => Some(Pool::new(net.into(), plan.gateway6.map(IpAddr::V6))?),
            None => None,
        };
        if plan.search.is_empty() {
            plan.search.clone_from(&host.search);
        }
        let gateway_mac = mac_for(pool4.gateway());
        // After the packet process, which takes longer to start.
        let mut link = PacketLink::start()?;
        let helper = Helper::fork()?;
        let packet_pid = link.pid();
        let mut network = Self {
            plan,
            gateway_mac,
            pool4,
            pool6,
            containers: BTreeMap::new(),
            used: false,
            over: false,
            since: now(),
            link: None,
            packet_pid,
            helper: Some(helper),
            spent: Vec::new(),
        };
        let config = NetworkConfig {
            name: network.plan.name.clone(),
            gateway: network.gateway_config(host),
            outbound: network.plan.outbound.clone(),
            sandbox: network.plan.sandbox,
        };
        let raw = crate::ping_sockets::raw_sockets(&network.plan.outbound);
        let raw: Vec<_> = raw.iter().map(AsFd::as_fd).collect();
        if let Some((first, last)) = pontoon_nat::link::Link::new(&config.gateway).dhcp_range() {
            network.pool4.keep(first.into(), last.into());
        }
        match link.send(&Command::Configure(Box::new(config)), &raw) {
            Ok(()) => {
                network.link = Some(link);
                Ok(network)
            }
            Err(e) => {
                link.end();
                Err(e.context("the packet process cannot make the network"))
            }
        }
    }

    /// Waits until the packet process has configured itself. It takes no other command before.
    pub(super) fn configured(&mut self) -> Result<()> {
        let link = self.link.as_mut().context("the network is closed")?;
        match link.answer() {
            Ok(_) => Ok(()),
            Err(e) => {
                if let Some(link) = self.link.take() {
                    link.end();
                }
                Err(e.context("the packet process cannot make the network"))
            }
        }
    }

    fn gateway_config(&self, host: &ResolvConf) -> Config {
        let subnet4 = match (self.pool4.net(), self.pool4.gateway()) {
            (IpNet::V4(net), IpAddr::V4(gateway)) => Some(Subnet4::new(net, gateway)),
            (IpNet::V4(_) | IpNet::V6(_), _) => None,
        };
        let subnet6 = self
            .pool6
            .as_ref()
            .and_then(|pool| match (pool.net(), pool.gateway()) {
                (IpNet::V6(net), IpAddr::V6(gateway)) => Some(Subnet6::new(net, gateway)),
                (IpNet::V4(_) | IpNet::V6(_), _) => None,
            });
        Config {
            mac: self.gateway_mac,
            subnet4,
            subnet6,
            mtu: self.plan.mtu,
            resolvers: self.resolvers(host),
            search: self.plan.search.clone(),
            hosts: Vec::new(),
            egress: Egress::Host,
            host_loopback: if self.plan.host_loopback {
                HostLoopback::ByGateway
            } else {
                HostLoopback::Unreachable
            },
            link_local: self.plan.link_local,
            filtering: self.plan.filtering,
            max_flows: self.plan.max_flows,
            max_flows_per_container: self.plan.max_flows_per_container,
        }
    }

    fn resolvers(&self, host: &ResolvConf) -> Vec<std::net::SocketAddr> {
        if self.plan.dns.is_empty() {
            host.servers.clone()
        } else {
            self.plan
                .dns
                .iter()
                .map(|&ip| (ip, crate::resolv::DNS).into())
                .collect()
        }
    }

    /// True if there is nothing left to live for, and from then on nothing is attached; `alone` says that whoever started
    /// the network is gone.
    pub(super) fn is_over(&mut self, alone: bool) -> bool {
        self.over |= self.containers.is_empty() && (self.used || alone);
        self.over
    }

    /// Something to poll for events of the packet process.
    pub(super) fn packet_fd(&self) -> Result<OwnedFd> {
        let link = self.link.as_ref().context("the network is closed")?;
        link.fd().context("cannot watch the packet process")
    }

    /// The containers' first processes: each readable when it has ended.
    pub(super) fn pidfds(&self) -> Vec<(String, Arc<OwnedFd>)> {
        self.containers
            .iter()
            .map(|(name, c)| (name.clone(), Arc::clone(&c.pidfd)))
            .collect()
    }

    /// Ends the packet process's link; the network is of no use after that.
    pub(super) fn close(&mut self) -> Option<PacketLink> {
        self.link.take()
    }

    /// Sends a command to the packet process.
    pub(super) fn call(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.link
            .as_mut()
            .context("the network is ending")?
            .call(command, fds)
    }

    /// Takes what the packet process has said by itself.
    ///
    /// # Errors
    /// It is dead, and with it the network.
    pub(super) fn packet_events(&mut self) -> Result<()> {
        let Some(link) = self.link.as_mut() else {
            return Ok(());
        };
        for event in link.events()? {
            match event {
                Event::PortClosed { port, error } => {
                    tracing::info!("port {port} closed: {error}");
                    let gone = self
                        .containers
                        .iter()
                        .find(|(_, c)| c.info.port == port)
                        .map(|(name, _)| name.clone());
                    if let Some(name) = gone {
                        self.forget(&name);
                    }
                }
            }
        }
        Ok(())
    }

    /// The process behind `pidfd` has ended: detaches the container if it is still that one.
    pub(super) fn ended(&mut self, name: &str, pidfd: &Arc<OwnedFd>) {
        if self
            .containers
            .get(name)
            .is_some_and(|c| Arc::ptr_eq(&c.pidfd, pidfd))
        {
            self.detach(name);
        }
    }

    /// The host's resolv.conf is another now.
    pub(super) fn set_host_resolvers(&mut self, host: &ResolvConf) {
        if self.plan.dns.is_empty() {
            let resolvers = self.resolvers(host);
            tracing::info!("name servers are now {resolvers:?}");
            if let Err(e) = self.call(&Command::SetResolvers { resolvers }, &[]) {
                tracing::error!("cannot change the name servers: {e:#}");
            }
        }
    }

    /// All that is known of the network.
    pub(super) fn info(&self) -> NetworkInfo {
        let subnets = [Some(&self.pool4), self.pool6.as_ref()];
        NetworkInfo {
            name: self.plan.name.clone(),
            subnets: subnets
                .into_iter()
                .flatten()
                .map(|pool| SubnetInfo {
                    subnet: pool.net(),
                    gateway: pool.gateway(),
                })
                .collect(),
            gateway_mac: self.gateway_mac,
            mtu: self.plan.mtu.into(),
            search: self.plan.search.clone(),
            since: self.since,
            front_pid: std::process::id(),
            packet_pid: self.packet_pid,
            containers: self.container_infos(),
        }
    }

    /// The network's name.
    pub(super) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its containers, by name.
    pub(super) fn container_infos(&self) -> Vec<ContainerInfo> {
        self.containers.values().map(|c| c.info.clone()).collect()
    }

    /// The switch port of a container.
    pub(super) fn port_of(&self, container: &str) -> Result<u32, Refused> {
        Ok(self.container(container)?.info.port)
    }

    /// Names of the switch's ports.
    pub(super) fn port_names(&self) -> BTreeMap<u32, String> {
        self.containers
            .values()
            .map(|c| (c.info.port, c.info.name.clone()))
            .collect()
    }

    fn container(&self, name: &str) -> Result<&Container, Refused> {
        self.containers.get(name).ok_or_else(|| {
            refused(
                404,
                anyhow!("no container named {name} on network {}", self.plan.name),
            )
        })
    }

    /// Attaches a container for the user `uid`, whole or not at all.
    pub(super) fn attach(&mut self, uid: u32, request: AttachRequest) -> Result<ContainerInfo, Refused> {
        let attaching = self.begin_attach(uid, request)?;
        self.finish_attach(attaching)
    }

    /// Does what can be done without the packet process, and has the helper make the interface.
    pub(super) fn begin_attach(&mut self, uid: u32, request: AttachRequest) -> Result<Attaching, Refused> {
        if self.over {
            return Err(refused(
                503,
                anyhow!("network {} is ending: its last container has", self.plan.name),
            ));
        }
        let pidfd = process(request.pid, uid)?;
        let name = request
            .name
            .clone()
            .unwrap_or_else(|| format!("c{}", request.pid));
        parse_name(&name).map_err(|e| refused(400, anyhow!(e)))?;
        if self.containers.contains_key(&name) {
            let e = anyhow!(
                "a container named {name} is on network {} already: choose another --name",
                self.plan.name
            );
            return Err(refused(409, e));
        }
        let mut addresses = Vec::new();
        self.begin_attach_with(name, pidfd, request, &mut addresses)
            .inspect_err(|_| self.give_back(&addresses))
    }

    fn begin_attach_with(
        &mut self,
        name: String,
        pidfd: OwnedFd,
        request: AttachRequest,
        addresses: &mut Vec<IpAddr>,
    ) -> Result<Attaching, Refused> {
        let taken = |e| refused(409, anyhow::Error::from(e));
        let mut prefixes = Vec::new();
        let mut gateways = Vec::new();
        if self.pool6.is_none() && request.ip6.is_some() {
            return Err(refused(
                400,
                anyhow!("network {} has no IPv6, so no address for --ip6", self.plan.name),
            ));
        }
        for (pool, wanted) in [
            (Some(&mut self.pool4), request.ip),
            (self.pool6.as_mut(), request.ip6),
        ] {
            let Some(pool) = pool else { continue };
            let address = pool.take(wanted).map_err(taken)?;
            addresses.push(address);
            prefixes.push(pool.with_prefix(address));
            gateways.push(pool.gateway());
        }
        let mac = match request.mac {
            Some(mac) => mac,
            None => self.free_mac(addresses),
        };
        if mac == self.gateway_mac || self.containers.values().any(|c| c.info.mac == mac) {
            return Err(refused(
                409,
                anyhow!("MAC address {mac} is in use on network {}", self.plan.name),
            ));
        }
        let bound = self.bind_all(&request.publish)?;
        let capture = request
            .capture
            .as_deref()
            .map(CaptureFile::create)
            .transpose()
            .map_err(|e| refused(400, e))?;
        let wanted = Task::Attach(Attach {
            interface: attach::INTERFACE.to_owned(),
            kind: attach::Kind::Tap,
            mac: Some(mac),
            mtu: self.plan.mtu.into(),
            addresses: prefixes,
            gateways,
            default: true,
            source_table: None,
            routes: Vec::new(),
        });
        let helper = match self.helper.take() {
            Some(helper) => Ok(helper),
            None => Helper::spawn(),
        };
        let helper = helper
            .and_then(|helper| helper.begin(Some(pidfd.as_fd()), &wanted).map(|()| helper))
            .with_context(|| format!("cannot attach {name}"))?;
        Ok(Attaching {
            name,
            pid: request.pid,
            pidfd,
            mac,
            addresses: addresses.clone(),
            bound,
            capture,
            hosts: request.add_hosts,
            helper,
        })
    }

    /// Waits for the helper, and makes the interface a port of the switch.
    pub(super) fn finish_attach(&mut self, attaching: Attaching) -> Result<ContainerInfo, Refused> {
        let addresses = attaching.addresses.clone();
        match self.finish_attach_with(attaching) {
            Ok(container) => {
                let info = container.info.clone();
                tracing::info!("{} attached as port {} with {addresses:?}", info.name, info.port);
                let with_hosts = !container.hosts.is_empty();
                self.containers.insert(info.name.clone(), container);
                self.used = true;
                if with_hosts {
                    self.send_hosts();
                }
                Ok(info)
            }
            Err(e) => {
                self.give_back(&addresses);
                Err(e)
            }
        }
    }

    fn finish_attach_with(&mut self, attaching: Attaching) -> Result<Container, Refused> {
        let Attaching {
            name,
            pid,
            pidfd,
            mac,
            addresses,
            bound,
            capture,
            hosts,
            mut helper,
        } = attaching;
        let (_, tap) = helper.port().with_context(|| format!("cannot attach {name}"))?;
        self.spent.push(helper);
        let mut fds = vec![tap.as_fd()];
        fds.extend(capture.as_ref().map(|c| c.file.as_fd()));
        let command = Command::AddPort {
            name: name.clone(),
            kind: PortKind::Tap,
            mac,
            addresses: addresses.clone(),
            mtu: self.plan.mtu.into(),
            capture: capture.is_some(),
        };
        let port = match self.call(&command, &fds)? {
            Reply::Port(port) => port,
            other => return Err(unexpected(&other).into()),
        };
        let rules = match self.send_rules(port, bound) {
            Ok(rules) => rules,
            Err(e) => {
                let _ = self.call(&Command::RemovePort { port }, &[]);
                return Err(e.into());
            }
        };
        if let Some(capture) = capture {
            capture.keep();
        }
        Ok(Container {
            info: ContainerInfo {
                name,
                network: self.plan.name.clone(),
                pid,
                port,
                mac,
                addresses,
                published: rules.iter().map(|r| r.port.clone()).collect(),
                since: now(),
            },
            pidfd: Arc::new(pidfd),
            rules,
            hosts,
        })
    }

    /// Waits for the end of helpers that have answered, which is near.
    pub(super) fn tidy(&mut self) {
        self.spent.clear();
    }

    /// A MAC address made of the container's first address, which is its own on this network.
    fn free_mac(&self, addresses: &[IpAddr]) -> MacAddr {
        let used: BTreeSet<MacAddr> = self
            .containers
            .values()
            .map(|c| c.info.mac)
            .chain([self.gateway_mac])
            .collect();
        let mut mac = addresses.first().map_or(MacAddr::local([0; 6]), |&a| mac_for(a));
        // Somebody may have been given that one by --mac-address.
        while used.contains(&mac) {
            mac.0[1] = mac.0[1].wrapping_add(1);
        }
        mac
    }

    /// Detaches a container: its port, flows, published sockets, addresses and name are free again.
    pub(super) fn detach(&mut self, name: &str) {
        if let Some(container) = self.containers.get(name) {
            let port = container.info.port;
            if let Err(e) = self.call(&Command::RemovePort { port }, &[]) {
                tracing::warn!("cannot remove port {port} of {name}: {e:#}");
            }
            self.forget(name);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(container) = self.containers.remove(name) {
            tracing::info!("{name} detached");
            self.give_back(&container.info.addresses);
            if !container.hosts.is_empty() {
                self.send_hosts();
            }
        }
    }

    /// As [`Network::detach`], for one who asks by name.
    pub(super) fn detach_named(&mut self, name: &str) -> Result<(), Refused> {
        self.container(name)?;
        self.detach(name);
        Ok(())
    }

    fn give_back(&mut self, addresses: &[IpAddr]) {
        for &address in addresses {
            self.pool4.release(address);
            if let Some(pool) = &mut self.pool6 {
                pool.release(address);
            }
        }
    }

    /// Tells the gateway's DNS every container's further names.
    fn send_hosts(&mut self) {
        let hosts: Vec<_> = self.containers.values().flat_map(|c| c.hosts.clone()).collect();
        if let Err(e) = self.call(&Command::SetHosts { hosts }, &[]) {
            tracing::error!("cannot change the names of --add-host: {e:#}");
        }
    }

    /// Publishes ports of a container, all of `specs` or none.
    pub(super) fn publish(
        &mut self,
        name: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, Refused> {
        let port = self.port_of(name)?;
        let bound = self.bind_all(specs)?;
        let rules = self.send_rules(port, bound)?;
        let ports = rules.iter().map(|r| r.port.clone()).collect();
        if let Some(container) = self.containers.get_mut(name) {
            container.rules.extend(rules);
            container.show_rules();
        }
        Ok(ports)
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
            let matching: Vec<_> = container
                .rules
                .iter()
                .filter(|r| r.is_of(spec))
                .cloned()
                .collect();
            for rule in matching {
                if !gone.iter().any(|g| g.id == rule.id) {
                    gone.push(rule);
                }
            }
            if gone.len() == before {
                return Err(refused(
                    404,
                    anyhow!("{name} has nothing published as {spec}: see `pontoon port {name}`"),
                ));
            }
        }
        let rules: Vec<u32> = gone.iter().map(|r| r.id).collect();
        self.call(&Command::Unpublish { rules: rules.clone() }, &[])?;
        if let Some(container) = self.containers.get_mut(name) {
            container.rules.retain(|r| !rules.contains(&r.id));
            container.show_rules();
        }
        Ok(gone.into_iter().map(|r| r.port).collect())
    }

    /// Binds every socket that `specs` name, if they fit the descriptors that are left.
    fn bind_all(&self, specs: &[PublishSpec]) -> Result<Vec<(PublishSpec, Bound)>, Refused> {
        let versions = if self.pool6.is_some() {
            Versions::Both
        } else {
            Versions::V4
        };
        let wanted: usize = specs.iter().map(|s| bind::sockets_of(s, versions)).sum();
        let published: usize = self.containers.values().map(|c| c.rules.len()).sum();
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
            let bound = bind::bind(spec, versions).map_err(|e| refused(409, e))?;
            all.extend(bound.into_iter().map(|b| (spec.clone(), b)));
        }
        Ok(all)
    }

    /// Hands bound sockets to the packet process, all or none of them.
    fn send_rules(&mut self, port: u32, bound: Vec<(PublishSpec, Bound)>) -> Result<Vec<Published>> {
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
            let ids = match self.call(&Command::Publish { port, rules }, &fds) {
                Ok(Reply::Rules(ids)) if ids.len() == batch.len() => Ok(ids),
                Ok(other) => Err(unexpected(&other)),
                Err(e) => Err(e),
            };
            match ids {
                Ok(ids) => done.extend(ids.into_iter().zip(batch).map(|(id, (spec, b))| Published {
                    id,
                    port: published_port(b),
                    spec: spec.clone(),
                })),
                Err(e) => {
                    let rules = done.iter().map(|r| r.id).collect();
                    let _ = self.call(&Command::Unpublish { rules }, &[]);
                    return Err(e.context("cannot publish"));
                }
            }
        }
        Ok(done)
    }
}

impl Container {
    fn show_rules(&mut self) {
        self.info.published = self.rules.iter().map(|r| r.port.clone()).collect();
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
}

fn published_port(bound: &Bound) -> PublishedPort {
    let protocol: Transport = bound.protocol;
    PublishedPort {
        protocol,
        host_ip: bound.host.ip(),
        host_port: bound.host.port(),
        container_port: bound.container_port,
    }
}

/// The packet process answers something else than was asked: it is another version, which cannot be.
pub(super) fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the packet process gave an unexpected answer: {reply:?}")
}

/// A pidfd of the process `pid`, if it is the user's and in a network namespace of its own.
fn process(pid: u32, uid: u32) -> Result<OwnedFd, Refused> {
    let gone = || refused(404, anyhow!("there is no process {pid}"));
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
    let owner = std::fs::metadata(format!("/proc/{pid}"))
        .map_err(|_| gone())?
        .uid();
    if owner != uid {
        return Err(refused(
            403,
            anyhow!("process {pid} belongs to user {owner}, not to user {uid} who asks"),
        ));
    }
    let namespace = |who: &str| std::fs::metadata(format!("/proc/{who}/ns/net")).map(|m| (m.dev(), m.ino()));
    let theirs = namespace(&pid.to_string()).map_err(|e| {
        refused(
            403,
            anyhow!("the network namespace of process {pid} cannot be looked at: {e}"),
        )
    })?;
    let ours = namespace("self").context("cannot look at the host's network namespace")?;
    if theirs == ours {
        return Err(refused(
            400,
            anyhow!("process {pid} is in the host's network namespace: start it in one of its own"),
        ));
    }
    // What was read under the number is that process's only if it has not ended meanwhile.
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    ) {
        Ok(0) => Ok(pidfd),
        Ok(_) | Err(_) => Err(gone()),
    }
}

/// A capture file that is removed again, if it was not there before, unless it is kept.
#[derive(Debug)]
struct CaptureFile {
    file: File,
    new: Option<PathBuf>,
}

impl CaptureFile {
    fn create(path: &Path) -> Result<Self> {
        let what = || format!("cannot write the capture file {}", path.display());
        if !path.is_absolute() {
            bail!("{}: an absolute path is needed", what());
        }
        let mut options = File::options();
        options.write(true).mode(0o600);
        match options.create_new(true).open(path) {
            Ok(file) => Ok(Self {
                file,
                new: Some(path.to_owned()),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // A pipe that nobody reads would hold everybody up: it is refused at once. One that is read is written to
                // as a file is.
                let file = options
                    .create_new(false)
                    .truncate(true)
                    .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                    .open(path)
                    .with_context(what)?;
                let flags = rustix::fs::fcntl_getfl(&file).with_context(what)?;
                rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK).with_context(what)?;
                Ok(Self { file, new: None })
            }
            Err(e) => Err(e).with_context(what),
        }
    }

    fn keep(mut self) {
        self.new = None;
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        if let Some(path) = &self.new {
            // It is empty; that is all that is wrong if it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
