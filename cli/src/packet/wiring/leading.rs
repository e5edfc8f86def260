//! Published ports, and links of the gateway's own.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use pontoon_nat::gateway::Published;
use pontoon_nat::publish::RuleId;
use pontoon_nat::routed::RoutedRule;
use pontoon_switch::{AddressPolicy, Policy, PortId, Station};

use super::Wiring;
use super::convert::adopt;
use crate::packet::protocol::{Rule, UplinkSettings};

impl Wiring {
    pub(super) fn publish(&mut self, port: u32, rules: Vec<Rule>, fds: Vec<OwnedFd>) -> Result<Vec<u32>> {
        if rules.len() != fds.len() {
            bail!(
                "{} descriptors came for {} published ports",
                fds.len(),
                rules.len()
            );
        }
        let mut published = Vec::with_capacity(rules.len());
        for (rule, socket) in rules.into_iter().zip(fds) {
            let ip = self.address_like(port, rule.host)?;
            published.push(Published {
                port: PortId(port),
                transport: rule.protocol,
                container: SocketAddr::new(ip, rule.container_port),
                socket,
            });
        }
        self.lead(published)
    }

    pub(super) fn publish_routed(&self, port: u32, rules: Vec<Rule>) -> Result<Vec<u32>> {
        let wanted = rules
            .into_iter()
            .map(|rule| {
                Ok(RoutedRule {
                    port: PortId(port),
                    transport: rule.protocol,
                    host: rule.host,
                    container: SocketAddr::new(self.address_like(port, rule.host)?, rule.container_port),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let ids = self.handle.call(move |network, _| {
            let gateway = network.station_mut();
            let mut ids = Vec::with_capacity(wanted.len());
            for rule in wanted {
                match gateway.publish_routed(rule) {
                    Some(id) => ids.push(id),
                    None => {
                        gateway.unpublish(&ids);
                        return Err(rule);
                    }
                }
            }
            Ok(ids)
        })?;
        let ids = ids.map_err(|rule| anyhow!("port {} is published already", rule.host))?;
        Ok(ids.into_iter().map(|id| id.0).collect())
    }

    pub(super) fn add_uplink(&self, settings: UplinkSettings, fd: OwnedFd) -> Result<u32> {
        let UplinkSettings { name, kind, config } = settings;
        let port = adopt(kind, fd, config.mtu.into())?;
        let id = self.handle.call(move |network, now| {
            let id = network.add_uplink(port, name)?;
            network.station_mut().add_uplink(now, id, config);
            Ok::<_, std::io::Error>(id)
        })??;
        Ok(id.0)
    }

    /// Tells the gateway that its link of that number carries frames again. One that has gone is nothing to it.
    pub(super) fn uplink_up(&self, port: u32) -> Result<()> {
        self.handle
            .call(move |network, now| network.station_mut().uplink_up(now, PortId(port)))?;
        Ok(())
    }

    /// Lets the container at `port` send from addresses in `nets` beside its own. One whose addresses are its own business may
    /// anyway.
    pub(super) fn set_behind(&self, port: u32, nets: &[IpNet]) -> Result<()> {
        let own = self
            .addresses
            .get(&port)
            .with_context(|| format!("there is no port {port}"))?;
        let allowed: Vec<IpNet> = own
            .iter()
            .map(|&a| a.into())
            .chain(nets.iter().copied())
            .collect();
        self.handle.call(move |network, _| {
            let id = PortId(port);
            let Some(policy) = network.policy(id).cloned() else {
                return Ok(false);
            };
            let addresses = match policy.addresses {
                AddressPolicy::Only(_) => AddressPolicy::Only(allowed),
                AddressPolicy::Any => AddressPolicy::Any,
            };
            network.set_policy(id, Policy { addresses, ..policy })
        })??;
        Ok(())
    }

    /// The address of the container at `port` that is of the IP version of `host`.
    fn address_like(&self, port: u32, host: SocketAddr) -> Result<IpAddr> {
        let addresses = self
            .addresses
            .get(&port)
            .with_context(|| format!("there is no port {port}"))?;
        let same_version = |a: &&IpAddr| a.is_ipv4() == host.is_ipv4();
        addresses.iter().find(same_version).copied().with_context(|| {
            format!("{host} cannot be published: the container has no address of that IP version")
        })
    }

    /// Leads the clients of sockets to containers, all or none; the numbers of the new rules.
    ///
    /// # Errors
    /// A socket is not of its kind, or the worker has ended.
    pub(crate) fn lead(&self, published: Vec<Published>) -> Result<Vec<u32>> {
        let ids = self.handle.call(move |network, _| {
            let gateway = network.station_mut();
            let mut ids = Vec::with_capacity(published.len());
            for p in published {
                match gateway.publish(p) {
                    Ok(id) => ids.push(id),
                    Err(e) => {
                        gateway.unpublish(&ids);
                        return Err(e);
                    }
                }
            }
            Ok(ids)
        })?;
        let ids = ids.map_err(|e| anyhow!("the gateway cannot use the socket: {e}"))?;
        Ok(ids.into_iter().map(|id| id.0).collect())
    }

    /// Takes rules back, and closes their sockets.
    ///
    /// # Errors
    /// The worker has ended.
    pub(crate) fn unpublish(&self, rules: Vec<u32>) -> Result<()> {
        self.handle.call(move |network, _| {
            let rules: Vec<RuleId> = rules.into_iter().map(RuleId).collect();
            network.station_mut().unpublish(&rules);
        })?;
        Ok(())
    }
}
