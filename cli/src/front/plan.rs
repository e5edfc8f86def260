//! What a network is to be: what `run` and `network create` ask for, judged and completed.
//!
//! A plan is complete: ranges and gateways have been chosen, so that the network that is made of it anew, after a restart
//! of the daemon, is the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;
use pontoon_nat::config::{Filtering, LinkLocal, Outbound};
use serde::{Deserialize, Serialize};

use crate::api::{GatewayChoice, NetworkSpec};
use crate::args::MIN_MTU_IPV6;
use crate::ipam::Pool;
use crate::outbound;
use crate::packet::protocol::Storm;
use crate::sandbox::SandboxOptions;

mod options;
#[cfg(test)]
mod tests;
mod uplink;

use options::Options;
pub(crate) use uplink::{Tuning, Uplink};

/// What a network is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) name: String,
    /// Its ranges, IPv4 first, at most one a family.
    pub(crate) subnets: Vec<Subnet>,
    /// Whether there is a gateway of ours.
    pub(crate) gateway: bool,
    /// MTU in bytes.
    pub(crate) mtu: u16,
    /// Whether there is no way out, and nothing can be published.
    pub(crate) internal: bool,
    /// Whether containers reach each other without a link.
    pub(crate) icc: bool,
    /// Name servers to ask; the host's if there are none.
    pub(crate) dns: Vec<IpAddr>,
    /// Search list; the host's if it is empty.
    pub(crate) search: Vec<String>,
    /// Where ports are published whose specification names no address.
    pub(crate) publish_address: Option<IpAddr>,
    /// Whether the gateway leads to the host's loopback.
    pub(crate) host_loopback: bool,
    /// Whether link-local addresses can be reached.
    pub(crate) link_local: LinkLocal,
    /// Who may answer a container's UDP port.
    pub(crate) filtering: Filtering,
    /// Where outgoing sockets are bound.
    pub(crate) outbound: Outbound,
    /// Bound on flows.
    pub(crate) max_flows: u32,
    /// Bound on the flows of each container.
    pub(crate) max_flows_per_container: u32,
    /// The gateway's own link to the world, in the place of the host's sockets.
    #[serde(default)]
    pub(crate) uplink: Option<Uplink>,
    /// What of the host is on the switch.
    pub(crate) host: HostPorts,
    /// Frames to everybody that a container may send in a second.
    pub(crate) storm: Storm,
    /// The options as they were given.
    pub(crate) options: BTreeMap<String, String>,
    /// How the packet process confines itself.
    pub(crate) sandbox: SandboxOptions,
}

/// One range of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Subnet {
    /// The range.
    pub(crate) net: IpNet,
    /// The gateway's address, or that of another router that containers are told.
    pub(crate) gateway: Option<IpAddr>,
    /// Where addresses are given from, if not everywhere.
    pub(crate) range: Option<IpNet>,
    /// Addresses given to nobody who does not ask for them.
    pub(crate) reserved: Vec<IpAddr>,
    /// First and last address that DHCP gives to those who are no containers of ours.
    pub(crate) dhcp: Option<(IpAddr, IpAddr)>,
    /// Whether addresses are given as on a private network: from number 100 on.
    pub(crate) private: bool,
}

impl Subnet {
    /// The pool of its addresses.
    pub(super) fn pool(&self) -> Result<Pool, crate::ipam::Refused> {
        if self.private {
            Pool::new(self.net, self.gateway)
        } else {
            Pool::of_subnet(self.net, self.gateway, self.range, &self.reserved)
        }
    }
}

/// What of the host is on a network's switch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostPorts {
    /// An interface of the host: what is behind it is on the network.
    pub(crate) parent: Option<String>,
    /// A TAP that is there already.
    pub(crate) tap: Option<String>,
    /// A TAP to be made, by which the host itself is on the network.
    pub(crate) host_tap: Option<String>,
    /// VLANs that the first two carry; all if none.
    pub(crate) trunk: Vec<u16>,
    /// VLAN that the gateway is in; 0 for none.
    pub(crate) gateway_vlan: u16,
}

impl HostPorts {
    /// Whether others than containers of ours are on the switch, or VLANs.
    pub(super) fn is_shared(&self) -> bool {
        *self != Self::default()
    }
}

/// What a network without a `--subnet` may be given.
pub(super) trait Choice {
    /// A range of IPv4.
    fn subnet4(&mut self) -> Result<IpNet>;
    /// A range of IPv6.
    fn subnet6(&mut self) -> Result<IpNet>;
    /// What is chosen is not to be in this range.
    fn avoid(&mut self, net: IpNet);
}

impl Plan {
    /// Completes what `network create` asks for, on behalf of the user `uid`.
    ///
    /// # Errors
    /// Values that do not fit each other, and options that do not exist.
    pub(super) fn of_spec(spec: NetworkSpec, uid: u32, choice: &mut impl Choice) -> Result<Self> {
        let options = Options::of(&spec.options)?;
        let mtu = options.mtu.unwrap_or(spec.mtu);
        ensure!(
            (68..=65_520).contains(&mtu),
            "MTU {mtu} cannot be had: it is 68 to 65520 bytes"
        );
        let gateway = spec.gateway != GatewayChoice::None;
        ensure!(
            options.routers.is_empty() || !spec.internal,
            "an internal network has no router: leave --opt router out"
        );
        ensure!(
            !gateway || options.routers.is_empty(),
            "--opt router names another router than the gateway: use it with --gateway none"
        );
        ensure!(
            !(spec.internal && options.host.parent.is_some()),
            "an internal network has no way out, so no --opt parent: leave one of them out"
        );
        let uplink = Self::uplink(&spec, &options, uid)?;
        for net in uplink.iter().flat_map(Uplink::fixed_nets) {
            choice.avoid(net);
        }
        let subnets = Self::subnets(&spec, &options, mtu, choice)?;
        if let Some(uplink) = &uplink {
            uplink.check_apart(subnets.iter().map(|s| s.net))?;
        }
        ensure!(
            spec.publish_address.is_none() || gateway && !spec.internal,
            "nothing can be published on a network without a gateway or a way out: leave --publish-address out"
        );
        let icc = options.icc.unwrap_or(spec.icc);
        Ok(Self {
            name: spec.name,
            subnets,
            gateway,
            mtu,
            internal: spec.internal,
            icc,
            dns: spec.dns,
            search: spec.dns_search,
            publish_address: options.publish_address.or(spec.publish_address),
            host_loopback: options.host_loopback,
            link_local: options.link_local,
            filtering: options.filtering,
            outbound: outbound::resolve(&options.outbound)?,
            max_flows: options.max_flows,
            max_flows_per_container: options.max_flows_per_container.min(options.max_flows),
            uplink,
            host: options.host,
            storm: options.storm,
            options: spec.options,
            sandbox: SandboxOptions::default(),
        })
    }

    fn uplink(spec: &NetworkSpec, options: &Options, uid: u32) -> Result<Option<Uplink>> {
        let Some(wanted) = &spec.uplink else {
            if let Some(key) = &options.of_uplink {
                bail!(
                    "--opt {key} is about an uplink, and there is none: give --uplink too, or leave it out"
                );
            }
            return Ok(None);
        };
        ensure!(
            !spec.internal,
            "an internal network has no way out, so no --uplink: leave one of them out"
        );
        ensure!(
            spec.gateway != GatewayChoice::None,
            "--uplink is a link of the gateway's: leave --gateway none out"
        );
        ensure!(
            spec.publish_address.or(options.publish_address).is_none(),
            "with --uplink ports are published at the gateway's address there: leave --publish-address out"
        );
        ensure!(
            options.outbound.is_empty() && !options.host_loopback,
            "--opt {} is about the host's sockets, and a network with --uplink does not use them: leave one of them out",
            if options.host_loopback {
                "host-loopback"
            } else {
                "outbound"
            }
        );
        let on_switch = [&options.host.parent, &options.host.tap, &options.host.host_tap];
        if let Some(interface) = wanted.link.host_interface()
            && on_switch.iter().any(|other| other.as_deref() == Some(interface))
        {
            bail!("{interface} is the uplink, so it cannot be on the switch too: leave one of them out");
        }
        let tuning = Tuning {
            nat4: options.nat4,
            nat6: options.nat6,
            mapping: options.mapping,
            mtu: options.uplink_mtu,
        };
        Uplink::of(wanted, &spec.name, tuning, uid).map(Some)
    }

    fn subnets(
        spec: &NetworkSpec,
        options: &Options,
        mtu: u16,
        choice: &mut impl Choice,
    ) -> Result<Vec<Subnet>> {
        let mut nets = spec.subnets.clone();
        let count =
            |v4: bool, nets: &[IpNet]| nets.iter().filter(|n| matches!(n, IpNet::V4(_)) == v4).count();
        ensure!(
            count(true, &nets) <= 1 && count(false, &nets) <= 1,
            "a network has one subnet of IPv4 and one of IPv6 at most"
        );
        // Without a gateway of ours addresses are somebody else's business unless there is a subnet.
        let gateway = spec.gateway != GatewayChoice::None;
        if gateway && nets.is_empty() {
            nets.push(choice.subnet4()?);
        }
        if spec.ipv6 && count(false, &nets) == 0 {
            ensure!(
                u32::from(mtu) >= MIN_MTU_IPV6,
                "IPv6 needs an MTU of {MIN_MTU_IPV6} and more: raise --mtu {mtu} or leave --ipv6 out"
            );
            nets.push(choice.subnet6()?);
        }
        nets.sort_by_key(|n| matches!(n, IpNet::V6(_)));
        for net in &nets {
            ensure!(
                net.trunc() == *net,
                "{net} is an address in a subnet: the subnet is {}",
                net.trunc()
            );
            ensure!(
                matches!(net, IpNet::V4(_)) || u32::from(mtu) >= MIN_MTU_IPV6,
                "subnet {net} needs IPv6, which needs an MTU of {MIN_MTU_IPV6} and more"
            );
        }
        let within = |what: &str, addresses: &[IpAddr]| -> Result<()> {
            for a in addresses {
                ensure!(
                    nets.iter().any(|n| n.contains(a)),
                    "{what} {a} is in no subnet of the network"
                );
            }
            Ok(())
        };
        let routers = match &spec.gateway {
            GatewayChoice::At(addresses) => {
                within("--gateway", addresses)?;
                addresses.clone()
            }
            GatewayChoice::Auto => Vec::new(),
            GatewayChoice::None => {
                within("--opt router", &options.routers)?;
                options.routers.clone()
            }
        };
        within("--reserve", &spec.reserved)?;
        for range in &spec.ip_ranges {
            ensure!(
                nets.iter().any(|n| n.contains(range)),
                "--ip-range {range} is in no subnet of the network: {}",
                if spec.subnets.is_empty() {
                    "give --subnet too"
                } else {
                    "choose a part of the subnet"
                }
            );
        }
        let subnet = |net: IpNet| -> Result<Subnet> {
            let of_net = |a: &&IpAddr| net.contains(*a);
            let chosen = routers.iter().find(of_net).copied();
            let subnet = Subnet {
                net,
                gateway: match chosen {
                    Some(address) => Some(address),
                    None if gateway => Some(Pool::first_host(net)?),
                    None => None,
                },
                range: spec.ip_ranges.iter().find(|r| net.contains(*r)).copied(),
                reserved: spec.reserved.iter().filter(of_net).copied().collect(),
                dhcp: None,
                private: false,
            };
            // It says what is wrong with the addresses.
            subnet.pool()?;
            Ok(Subnet {
                dhcp: options
                    .dhcp
                    .filter(|(first, _)| net.contains(first))
                    .or_else(|| subnet.range.and_then(last_quarter)),
                ..subnet
            })
        };
        let subnets = nets.iter().map(|&net| subnet(net)).collect::<Result<Vec<_>>>()?;
        if let Some((first, last)) = options.dhcp {
            ensure!(
                first <= last
                    && subnets
                        .iter()
                        .any(|s| s.net.contains(&first) && s.net.contains(&last)),
                "--opt dhcp-range {first}-{last} is in no subnet of the network"
            );
        }
        Ok(subnets)
    }

    /// Whether there is IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|s| matches!(s.net, IpNet::V6(_)))
    }
}

/// The last quarter of a range of IPv4, which DHCP gives from.
fn last_quarter(range: IpNet) -> Option<(IpAddr, IpAddr)> {
    let IpNet::V4(net) = range else { return None };
    if net.prefix_len() > 29 {
        return None;
    }
    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
    let count = (last - first) / 4;
    let at = |bits: u32| IpAddr::V4(bits.into());
    Some((at(last - count), at(last - 1)))
}
