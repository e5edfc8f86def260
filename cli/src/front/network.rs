//! One network: its plan, its addresses and its packet process.
//!
//! Whose the addresses and ports are is the business of [`super::registry`]. A packet process that dies can be replaced
//! ([`Network::restart`]); what was on its switch is gone then, and is put there again by whoever knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use pontoon_nat::config::{Config, Egress, HostLoopback, Subnet4, Subnet6};
use pontoon_nat::routed::Route;
use pontoon_switch::MacAddr;

use super::claims::Claims;
use super::packet_link::PacketLink;
use super::plan::Plan;
use super::uplink::Live;
use super::{Refused, now, refused};
use crate::api::{EgressKind, EndpointInfo, NetworkInfo, SubnetInfo};
use crate::bind::Versions;
use crate::ipam::{Pool, mac_for};
use crate::packet::protocol::{Command, Event, NetworkConfig, PortSettings, Reply};
use crate::resolv::{DNS, ResolvConf};

/// A running network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) plan: Plan,
    gateway_mac: MacAddr,
    pools: Vec<Pool>,
    macs: BTreeSet<MacAddr>,
    /// The search list in force: the plan's, or the host's as it was.
    search: Vec<String>,
    since: u64,
    link: Option<PacketLink>,
    packet_pid: u32,
    /// What of the host is on the switch: ports by their names.
    pub(super) host_ports: Vec<(u32, String)>,
    /// What the host itself has of the network.
    pub(super) of_host: Option<Taken>,
    /// The gateway's own link to the world.
    pub(super) live: Live,
    /// Ports published at its address.
    pub(super) claims: Claims,
    /// The routes that the gateway knows.
    pub(super) told_routes: Vec<Route>,
    /// What is behind ports, as far as the switch knows.
    pub(super) told_behind: BTreeMap<u32, Vec<IpNet>>,
}

/// Addresses and a MAC address that were taken for an interface.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// The addresses, IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// The same with their prefixes.
    pub(super) prefixes: Vec<IpNet>,
    /// The MAC address.
    pub(super) mac: MacAddr,
}

impl Network {
    /// Begins to make the network of `plan`: starts its packet process, and has it configure itself. `host` is the host's
    /// resolv.conf.
    pub(super) fn begin(plan: Plan, host: &ResolvConf, since: Option<u64>) -> Result<Self> {
        let mut network = Self::without_process(plan, host, since)?;
        network.start(network.config(host))?;
        Ok(network)
    }

    /// The network of `plan` with nobody who does its work: [`Network::restart`] starts its packet process.
    pub(super) fn without_process(mut plan: Plan, host: &ResolvConf, since: Option<u64>) -> Result<Self> {
        if !Path::new("/proc/net/if_inet6").exists() {
            plan.subnets.retain(|s| matches!(s.net, IpNet::V4(_)));
        }
        let mut pools = plan
            .subnets
            .iter()
            .map(super::plan::Subnet::pool)
            .collect::<Result<Vec<_>, _>>()?;
        let search = if plan.search.is_empty() {
            host.search.clone()
        } else {
            plan.search.clone()
        };
        let gateway_mac = match pools.first().and_then(Pool::gateway) {
            Some(gateway) => mac_for(gateway),
            None => MacAddr::local([0x02, 0x50, 0, 0, 0, 1]),
        };
        let config = gateway_config(&plan, gateway_mac, &search, host);
        if let Some((first, last)) = pontoon_nat::link::Link::new(&config).dhcp_range()
            && let Some(pool) = pools.first_mut()
        {
            pool.keep(first.into(), last.into());
        }
        Ok(Self {
            plan,
            gateway_mac,
            pools,
            macs: BTreeSet::new(),
            search,
            since: since.unwrap_or_else(now),
            link: None,
            packet_pid: 0,
            host_ports: Vec::new(),
            of_host: None,
            live: Live::default(),
            claims: Claims::default(),
            told_routes: Vec::new(),
            told_behind: BTreeMap::new(),
        })
    }

    fn config(&self, host: &ResolvConf) -> Config {
        gateway_config(&self.plan, self.gateway_mac, &self.search, host)
    }

    /// Starts the packet process and has it configure itself, which is to be waited for.
    fn start(&mut self, gateway: Config) -> Result<()> {
        let mut link = PacketLink::start()?;
        self.packet_pid = link.pid();
        let config = NetworkConfig {
            name: self.plan.name.clone(),
            gateway,
            outbound: self.plan.outbound.clone(),
            gateway_vlan: self.plan.host.gateway_vlan,
            sandbox: self.plan.sandbox,
        };
        let raw = crate::ping_sockets::raw_sockets(&self.plan.outbound);
        let raw: Vec<_> = raw.iter().map(AsFd::as_fd).collect();
        match link.send(&Command::Configure(Box::new(config)), &raw) {
            Ok(()) => {
                self.link = Some(link);
                Ok(())
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

    /// Puts a new packet process in the place of one that is dead, or of none. Its switch has no ports.
    pub(super) fn restart(&mut self, host: &ResolvConf) -> Result<()> {
        self.begin_again(host)?;
        self.configured()
    }

    /// Begins what [`Network::restart`] does, which is to be waited for with [`Network::configured`].
    pub(super) fn begin_again(&mut self, host: &ResolvConf) -> Result<()> {
        if let Some(link) = self.link.take() {
            link.end();
        }
        self.host_ports.clear();
        self.live.forget_port();
        self.told_routes.clear();
        self.told_behind.clear();
        self.start(self.config(host))
    }

    /// The network's name.
    pub(super) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Whether a container can have its default route here.
    pub(super) fn leads_out(&self) -> bool {
        !self.plan.internal && self.pools.iter().any(|p| p.gateway().is_some())
    }

    /// The routers that a container is told.
    pub(super) fn routers(&self) -> Vec<IpAddr> {
        if self.plan.internal {
            return Vec::new();
        }
        self.pools.iter().filter_map(Pool::gateway).collect()
    }

    /// Something to poll for events of the packet process, if there is one.
    pub(super) fn packet_fd(&self) -> Option<Arc<OwnedFd>> {
        self.link.as_ref().map(PacketLink::fd)
    }

    /// Takes the packet process's link away; the network is of no use after that.
    pub(super) fn close(&mut self) -> Option<PacketLink> {
        self.link.take()
    }

    /// Sends a command to the packet process.
    pub(super) fn call(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.link
            .as_mut()
            .with_context(|| format!("network {} is ending", self.plan.name))?
            .call(command, fds)
    }

    /// What the packet process has said by itself.
    ///
    /// # Errors
    /// It is dead.
    pub(super) fn events(&mut self) -> Result<Vec<Event>> {
        match &mut self.link {
            Some(link) => link.events(),
            None => Ok(Vec::new()),
        }
    }

    /// Whether the packet process has said something by itself that [`Network::events`] is to take, and of which its socket tells
    /// nothing any more.
    pub(super) fn has_heard(&self) -> bool {
        self.link.as_ref().is_some_and(PacketLink::has_heard)
    }

    /// Makes a descriptor a port of the switch; its number.
    pub(super) fn add_port(&mut self, settings: PortSettings, fds: &[BorrowedFd<'_>]) -> Result<u32> {
        match self.call(&Command::AddPort(Box::new(settings)), fds)? {
            Reply::Port(port) => Ok(port),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a port away with its flows and rules, or an uplink, whose flows wait for the next one.
    pub(super) fn remove_port(&mut self, port: u32) {
        self.told_behind.remove(&port);
        if let Err(e) = self.call(&Command::RemovePort { port }, &[]) {
            tracing::warn!("cannot remove port {port} of network {}: {e:#}", self.plan.name);
        }
    }

    /// The host's resolv.conf is another now.
    pub(super) fn set_host_resolvers(&mut self, host: &ResolvConf) {
        if self.plan.dns.is_empty() && self.plan.gateway {
            let resolvers = resolvers(&self.plan, host);
            tracing::info!("name servers of {} are now {resolvers:?}", self.plan.name);
            if let Err(e) = self.call(&Command::SetResolvers { resolvers }, &[]) {
                tracing::error!("cannot change the name servers: {e:#}");
            }
        }
    }

    /// Takes addresses and a MAC address: those that are wanted, or free ones.
    pub(super) fn take(
        &mut self,
        ip: Option<IpAddr>,
        ip6: Option<IpAddr>,
        mac: Option<MacAddr>,
    ) -> Result<Taken, Refused> {
        let name = &self.plan.name;
        for (wanted, v4, family, option) in [(ip, true, "IPv4", "ip"), (ip6, false, "IPv6", "ip6")] {
            if let Some(wanted) = wanted
                && !self.pools.iter().any(|p| matches!(p.net(), IpNet::V4(_)) == v4)
            {
                return Err(refused(
                    400,
                    anyhow!(
                        "network {name} has no {family} addresses to give, so not {wanted}: leave {option} out"
                    ),
                ));
            }
        }
        let mut taken = Taken {
            addresses: Vec::new(),
            prefixes: Vec::new(),
            mac: MacAddr([0; 6]),
        };
        for pool in &mut self.pools {
            let wanted = match pool.net() {
                IpNet::V4(_) => ip,
                IpNet::V6(_) => ip6,
            };
            match pool.take(wanted) {
                Ok(address) => {
                    taken.addresses.push(address);
                    taken.prefixes.push(pool.with_prefix(address));
                }
                Err(e) => {
                    self.give_back(&taken.addresses);
                    return Err(refused(
                        409,
                        anyhow::Error::from(e).context(format!("network {}", self.plan.name)),
                    ));
                }
            }
        }
        taken.mac = mac.unwrap_or_else(|| self.free_mac(&taken.addresses));
        if taken.mac == self.gateway_mac || !self.macs.insert(taken.mac) {
            self.give_back(&taken.addresses);
            return Err(refused(
                409,
                anyhow!(
                    "MAC address {} is in use on network {}",
                    taken.mac,
                    self.plan.name
                ),
            ));
        }
        Ok(taken)
    }

    /// The addresses of routers, which are given to nobody who does not ask for them.
    pub(super) fn keep_routers(&mut self, addresses: &[IpAddr]) {
        for pool in &mut self.pools {
            pool.keep_routers(addresses);
        }
    }

    /// What was taken is free again.
    pub(super) fn release(&mut self, addresses: &[IpAddr], mac: MacAddr) {
        self.give_back(addresses);
        self.macs.remove(&mac);
    }

    fn give_back(&mut self, addresses: &[IpAddr]) {
        for &address in addresses {
            for pool in &mut self.pools {
                pool.release(address);
            }
        }
    }

    /// A MAC address made of the container's first address, which is its own on this network; a random one where it has
    /// none.
    fn free_mac(&self, addresses: &[IpAddr]) -> MacAddr {
        let mut mac = match addresses.first() {
            Some(&address) => mac_for(address),
            None => random_mac(),
        };
        // Somebody may have been given that one by --mac-address.
        while self.macs.contains(&mac) || mac == self.gateway_mac {
            mac.0[1] = mac.0[1].wrapping_add(1);
        }
        mac
    }

    /// IP versions that can be published.
    pub(super) fn versions(&self) -> Versions {
        if self.plan.has_ipv6() {
            Versions::Both
        } else {
            Versions::V4
        }
    }

    /// All that is known of the network, with its `endpoints`.
    pub(super) fn info(&self, persistent: bool, endpoints: Vec<EndpointInfo>) -> NetworkInfo {
        let plan = &self.plan;
        NetworkInfo {
            name: plan.name.clone(),
            subnets: self
                .pools
                .iter()
                .map(|pool| SubnetInfo {
                    subnet: pool.net(),
                    gateway: pool.gateway(),
                    range: pool.part(),
                    reserved: plan
                        .subnets
                        .iter()
                        .find(|subnet| subnet.net == pool.net())
                        .map_or_else(Vec::new, |subnet| subnet.reserved.clone()),
                })
                .collect(),
            gateway_mac: plan.gateway.then_some(self.gateway_mac),
            mtu: plan.mtu.into(),
            internal: plan.internal,
            icc: plan.icc,
            dns: plan.dns.clone(),
            search: self.search.clone(),
            publish_address: plan.publish_address,
            egress: match (plan.gateway && !plan.internal, &plan.uplink) {
                (true, Some(_)) => EgressKind::Uplink,
                (true, None) => EgressKind::Host,
                (false, _) => EgressKind::None,
            },
            uplink: plan.uplink.as_ref().map(|uplink| self.uplink_info(uplink)),
            options: plan.options.clone(),
            persistent,
            since: self.since,
            front_pid: std::process::id(),
            packet_pid: self.packet_pid,
            endpoints,
        }
    }

    /// When it was made, in Unix seconds.
    pub(super) fn since(&self) -> u64 {
        self.since
    }
}

fn gateway_config(plan: &Plan, mac: MacAddr, search: &[String], host: &ResolvConf) -> Config {
    let (mut subnet4, mut subnet6) = (None, None);
    for subnet in plan.subnets.iter().filter(|_| plan.gateway) {
        match (subnet.net, subnet.gateway) {
            (IpNet::V4(net), Some(IpAddr::V4(gateway))) => {
                let mut own = Subnet4::new(net, gateway);
                if let Some((IpAddr::V4(first), IpAddr::V4(last))) = subnet.dhcp {
                    own.dhcp = Some((first, last));
                }
                subnet4 = Some(own);
            }
            (IpNet::V6(net), Some(IpAddr::V6(gateway))) => subnet6 = Some(Subnet6::new(net, gateway)),
            (IpNet::V4(_) | IpNet::V6(_), _) => {}
        }
    }
    Config {
        mac,
        subnet4,
        subnet6,
        mtu: plan.mtu,
        resolvers: resolvers(plan, host),
        search: search.to_vec(),
        hosts: Vec::new(),
        host_loopback: if plan.host_loopback {
            HostLoopback::ByGateway
        } else {
            HostLoopback::Unreachable
        },
        link_local: plan.link_local,
        egress: match (plan.internal, &plan.uplink) {
            (true, _) => Egress::None,
            (false, Some(_)) => Egress::Uplink,
            (false, None) => Egress::Host,
        },
        filtering: plan.filtering,
        max_flows: plan.max_flows,
        max_flows_per_container: plan.max_flows_per_container,
    }
}

fn resolvers(plan: &Plan, host: &ResolvConf) -> Vec<SocketAddr> {
    if plan.dns.is_empty() {
        host.servers.clone()
    } else {
        plan.dns.iter().map(|&ip| (ip, DNS).into()).collect()
    }
}

fn random_mac() -> MacAddr {
    let mut bytes = [0u8; 4];
    // It needs to differ, not to be secret; clashes are looked for.
    if rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        bytes = now().to_be_bytes()[4..].try_into().unwrap_or([0, 0, 0, 2]);
    }
    let [a, b, c, d] = bytes;
    MacAddr::local([0x02, 0x50, a, b, c, d])
}

/// The packet process answers something else than was asked: it is another version, which cannot be.
pub(super) fn unexpected(reply: &Reply) -> anyhow::Error {
    anyhow!("the packet process gave an unexpected answer: {reply:?}")
}

/// The numbers of rules, where they are the answer.
pub(super) fn rule_ids(reply: Reply, wanted: usize) -> Result<Vec<u32>> {
    match reply {
        Reply::Rules(ids) if ids.len() == wanted => Ok(ids),
        other => bail!(unexpected(&other)),
    }
}
