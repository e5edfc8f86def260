//! Uplinks that are a port of another network's switch: a patch cable, whose far end is a port there, with addresses of that network.
//!
//! The addresses stay taken while the uplink's network is there, also while neither packet process runs.

use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, ensure};
use ipnet::IpNet;
use pontoon_nat::routed::{Addressing4, Addressing6};
use pontoon_switch::port::patch;

use super::network::{Network, Taken};
use super::registry::Front;
use super::trial::End;
use crate::packet::protocol::{Behind, PortKind, PortSettings, Vlans};

impl Front {
    /// Lays a patch cable to a port of another network, whose addresses the gateway has there.
    pub(super) fn patch(&mut self, name: &str, other: &str) -> Result<End> {
        self.take_off_switch(name);
        let taken = self.reserve(name, other)?;
        let (near, far) = patch::cable().context("cannot make a patch cable")?;
        let there = self.other(other)?;
        let mtu: u32 = there.plan.mtu.into();
        let settings = PortSettings {
            name: name.to_owned(),
            kind: PortKind::Patch,
            behind: Behind::Container {
                mac: taken.mac,
                addresses: Some(taken.addresses),
            },
            mtu,
            icc: there.plan.icc,
            storm: there.plan.storm,
            vlans: if there.plan.host.is_shared() {
                Vlans::Untagged
            } else {
                Vlans::All
            },
            names: Vec::new(),
            capture: false,
        };
        let port = there.add_port(settings, &[far.as_fd()])?;
        let network = self.networks.get_mut(name).context("the network is gone")?;
        network.live.far = Some(port);
        // What is behind it may have routes there.
        self.tell_routers(other);
        Ok(End {
            kind: PortKind::Patch,
            fd: near,
            mac: taken.mac,
            mtu,
            wire: None,
        })
    }

    /// Takes addresses on another network's switch for a gateway, which keeps them.
    fn reserve(&mut self, name: &str, other: &str) -> Result<Taken> {
        let network = self.networks.get(name).context("the network is gone")?;
        if let Some(taken) = &network.live.taken {
            return Ok(taken.clone());
        }
        let mut uplink = network.plan.uplink.clone().context("it has no uplink")?;
        let subnets: Vec<IpNet> = network.plan.subnets.iter().map(|s| s.net).collect();
        let wanted = uplink.fixed();
        let of = |v4: bool| wanted.iter().map(IpNet::addr).find(|a| a.is_ipv4() == v4);
        let there = self.other(other)?;
        ensure!(
            there.leads_out(),
            "network {other} has no gateway that leads out: name another network"
        );
        let taken = there.take(of(true), of(false), uplink.mac).map_err(|e| e.error)?;
        let fits = wanted.iter().all(|w| taken.prefixes.contains(w));
        let routers = there.routers();
        for &address in &taken.prefixes {
            match address {
                IpNet::V4(address) => {
                    uplink.ipv4 = Some(Addressing4::Static {
                        address,
                        gateway: routers.iter().find_map(|r| match r {
                            IpAddr::V4(r) => Some(*r),
                            IpAddr::V6(_) => None,
                        }),
                    });
                }
                IpNet::V6(address) => {
                    uplink.ipv6 = Some(Addressing6::Static {
                        address,
                        gateway: routers.iter().find_map(|r| match r {
                            IpAddr::V6(r) => Some(*r),
                            IpAddr::V4(_) => None,
                        }),
                    });
                }
            }
        }
        let apart = uplink.check_apart(subnets.into_iter()).and_then(|()| {
            ensure!(
                fits,
                "the subnet of network {other} has another prefix length than --uplink-address: write {}",
                taken
                    .prefixes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" and ")
            );
            Ok(())
        });
        if let Err(e) = apart {
            there.release(&taken.addresses, taken.mac);
            return Err(e);
        }
        let network = self.networks.get_mut(name).context("the network is gone")?;
        network.plan.uplink = Some(uplink);
        network.live.taken = Some(taken.clone());
        Ok(taken)
    }

    /// Takes the addresses of all uplinks on other networks' switches, of an earlier daemon's.
    pub(super) fn reserve_all(&mut self) {
        let switched: Vec<(String, String)> = self
            .networks
            .values()
            .filter_map(|n| Some((n.name().to_owned(), switch_of(n)?)))
            .collect();
        for (name, other) in switched {
            if let Err(e) = self.reserve(&name, &other) {
                tracing::error!("network {name} cannot have its addresses on network {other} again: {e:#}");
            }
        }
    }

    /// Sees that a network whose uplink is to be a port of `other` does not lead to itself.
    ///
    /// # Errors
    /// It does, and how.
    pub(super) fn leads_on(&self, name: &str, other: &str) -> Result<()> {
        let mut way = vec![name.to_owned()];
        let mut next = Some(other.to_owned());
        while let Some(at) = next {
            ensure!(
                at != name,
                "the uplink leads back to the network itself ({} -> {name}): name another network",
                way.join(" -> ")
            );
            next = self.networks.get(&at).and_then(switch_of);
            way.push(at);
        }
        Ok(())
    }

    fn other(&mut self, other: &str) -> Result<&mut Network> {
        self.networks
            .get_mut(other)
            .ok_or_else(|| anyhow!("there is no network {other}: `pontoon network ls` lists those there are"))
    }

    /// Takes the far end of a network's uplink off the switch that it is on.
    pub(super) fn take_off_switch(&mut self, name: &str) {
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        let port = network.live.far.take();
        if let (Some(port), Some(other)) = (port, switch_of(network))
            && let Some(there) = self.networks.get_mut(&other)
        {
            there.remove_port(port);
        }
    }

    /// The networks whose uplink is a port of this one.
    pub(super) fn patched_to(&self, other: &str) -> Vec<&str> {
        let all = self.networks.values();
        all.filter(|n| switch_of(n).as_deref() == Some(other))
            .map(Network::name)
            .collect()
    }

    /// The ports of a network's switch that are uplinks of others, each with its addresses.
    pub(super) fn patched_ports(&self, other: &str) -> Vec<(u32, Vec<IpAddr>)> {
        let all = self
            .networks
            .values()
            .filter(|n| switch_of(n).as_deref() == Some(other));
        all.filter_map(|n| Some((n.live.far?, n.live.taken.as_ref()?.addresses.clone())))
            .collect()
    }

    /// The packet process of a network has begun anew: the ports that other networks' uplinks had there are gone. That the near
    /// ends are of no use is found by those networks' own packet processes.
    pub(super) fn forget_patches(&mut self, other: &str) {
        for network in self.networks.values_mut() {
            if switch_of(network).as_deref() == Some(other) {
                network.live.far = None;
            }
        }
    }
}

/// The network that the uplink is a port of.
pub(super) fn switch_of(network: &Network) -> Option<String> {
    network.plan.uplink.as_ref()?.link.switch().map(ToOwned::to_owned)
}
