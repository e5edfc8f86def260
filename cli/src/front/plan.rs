//! What a network is to be: what `run` and `network create` ask for, judged and completed.
//!
//! A plan is complete: ranges and gateways have been chosen, so that the network that is made of it anew, after a restart
//! of the daemon, is the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;
use pontoon_nat::config::{Filtering, LinkLocal, Outbound};
use serde::{Deserialize, Serialize};

use crate::api::{GatewayChoice, NetworkSpec};
use crate::args::{self, DEFAULT_MAX_FLOWS, DEFAULT_PER_CONTAINER, MIN_MTU_IPV6};
use crate::ipam::Pool;
use crate::outbound;
use crate::packet::protocol::Storm;
use crate::sandbox::SandboxOptions;

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
}

impl Plan {
    /// Completes what `network create` asks for.
    ///
    /// # Errors
    /// Values that do not fit each other, and options that do not exist.
    pub(super) fn of_spec(spec: NetworkSpec, choice: &mut impl Choice) -> Result<Self> {
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
        let subnets = Self::subnets(&spec, &options, mtu, choice)?;
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
            host: options.host,
            storm: options.storm,
            options: spec.options,
            sandbox: SandboxOptions::default(),
        })
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

/// The options, read.
#[derive(Debug)]
struct Options {
    host: HostPorts,
    routers: Vec<IpAddr>,
    storm: Storm,
    host_loopback: bool,
    link_local: LinkLocal,
    filtering: Filtering,
    outbound: Vec<args::Outbound>,
    max_flows: u32,
    max_flows_per_container: u32,
    dhcp: Option<(IpAddr, IpAddr)>,
    icc: Option<bool>,
    publish_address: Option<IpAddr>,
    mtu: Option<u16>,
}

impl Options {
    fn of(given: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self {
            host: HostPorts::default(),
            routers: Vec::new(),
            storm: Storm::Default,
            host_loopback: false,
            link_local: LinkLocal::Refused,
            filtering: Filtering::AddressDependent,
            outbound: Vec::new(),
            max_flows: DEFAULT_MAX_FLOWS,
            max_flows_per_container: DEFAULT_PER_CONTAINER,
            dhcp: None,
            icc: None,
            publish_address: None,
            mtu: None,
        };
        for (key, value) in given {
            options
                .set(key, value)
                .with_context(|| format!("--opt {key}={value}"))?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "parent" => self.host.parent = Some(interface(value)?),
            "tap" => self.host.tap = Some(interface(value)?),
            "host-tap" => self.host.host_tap = Some(interface(value)?),
            "trunk" => self.host.trunk = value.split(',').map(vlan).collect::<Result<_>>()?,
            "vlan" => self.host.gateway_vlan = vlan(value)?,
            "router" => self.routers = list(value, "an address")?,
            "storm" => {
                self.storm = match value {
                    "off" => Storm::Off,
                    _ => Storm::Frames(number(value)?),
                }
            }
            "host-loopback" => self.host_loopback = switch(value)?,
            "link-local" => {
                self.link_local = if switch(value)? {
                    LinkLocal::Allowed
                } else {
                    LinkLocal::Refused
                }
            }
            "udp-filtering" => {
                self.filtering = match value {
                    "address" => Filtering::AddressDependent,
                    "endpoint" => Filtering::EndpointIndependent,
                    _ => bail!("it is `address` or `endpoint`"),
                }
            }
            "outbound" => {
                self.outbound = value
                    .split(',')
                    .map(|v| v.parse().map_err(|e: String| anyhow!(e)))
                    .collect::<Result<_>>()?;
            }
            "max-flows" => self.max_flows = number(value)?,
            "max-flows-per-container" => self.max_flows_per_container = number(value)?,
            "dhcp-range" => {
                let (first, last) = value
                    .split_once('-')
                    .context("expected FIRST-LAST, two addresses")?;
                self.dhcp = Some((address(first)?, address(last)?));
            }
            "com.docker.network.bridge.enable_icc" => self.icc = Some(switch(value)?),
            "com.docker.network.bridge.host_binding_ipv4" => self.publish_address = Some(address(value)?),
            "com.docker.network.driver.mtu" => self.mtu = Some(value.parse().context("expected bytes")?),
            _ => bail!("there is no such option: `pontoon network create --help` lists those there are"),
        }
        Ok(())
    }
}

fn list<T: std::str::FromStr>(value: &str, what: &str) -> Result<Vec<T>> {
    value
        .split(',')
        .map(|v| v.parse().map_err(|_| anyhow!("`{v}` is not {what}")))
        .collect()
}

fn address(value: &str) -> Result<IpAddr> {
    value.parse().map_err(|_| anyhow!("`{value}` is not an address"))
}

fn number(value: &str) -> Result<u32> {
    match value.parse() {
        Ok(n) if n > 0 => Ok(n),
        Ok(_) | Err(_) => bail!("`{value}` is not a number above 0"),
    }
}

fn vlan(value: &str) -> Result<u16> {
    match value.parse() {
        // 802.1Q keeps 0 and 4095 for itself.
        Ok(id @ 1..=4094) => Ok(id),
        Ok(_) | Err(_) => bail!("`{value}` is not a VLAN from 1 to 4094"),
    }
}

fn switch(value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => bail!("it is `true` or `false`"),
    }
}

fn interface(value: &str) -> Result<String> {
    match value.parse() {
        Ok(args::Outbound::Interface(name)) => Ok(name),
        Ok(args::Outbound::Address(_)) | Err(_) => bail!("`{value}` is not the name of an interface"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given;

    impl Choice for Given {
        fn subnet4(&mut self) -> Result<IpNet> {
            Ok("10.89.0.0/24".parse()?)
        }
        fn subnet6(&mut self) -> Result<IpNet> {
            Ok("fd12:3456:789a::/64".parse()?)
        }
    }

    fn plan(json: &str) -> Result<Plan> {
        Plan::of_spec(serde_json::from_str(json)?, &mut Given)
    }

    #[test]
    fn what_is_left_out_is_chosen() {
        let plan = plan(r#"{"name": "n", "ipv6": true}"#).expect("a plan");
        let of = |i: usize| {
            (
                plan.subnets[i].net.to_string(),
                plan.subnets[i].gateway.expect("one").to_string(),
            )
        };
        assert_eq!(of(0), ("10.89.0.0/24".into(), "10.89.0.1".into()));
        assert_eq!(of(1), ("fd12:3456:789a::/64".into(), "fd12:3456:789a::1".into()));
        assert!(plan.icc && !plan.internal && plan.gateway && plan.mtu == 1500);
    }

    #[test]
    fn docker0_as_its_daemon_is_told_of_it() {
        let plan = plan(
            r#"{"name": "docker0", "subnets": ["172.17.0.0/16"], "gateway": {"at": ["172.17.42.1"]},
                "ip_ranges": ["172.17.8.0/24"], "mtu": 9000, "reserved": ["172.17.8.9"],
                "options": {"com.docker.network.bridge.enable_icc": "false",
                            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}}"#,
        )
        .expect("a plan");
        let subnet = &plan.subnets[0];
        assert_eq!(subnet.gateway, Some("172.17.42.1".parse().expect("address")));
        assert_eq!(
            subnet.dhcp,
            Some((
                "172.17.8.192".parse().expect("address"),
                "172.17.8.254".parse().expect("address")
            ))
        );
        let mut pool = subnet.pool().expect("a pool");
        assert_eq!(pool.take(None).expect("one").to_string(), "172.17.8.0");
        assert!(!plan.icc);
        assert_eq!(plan.publish_address, Some("127.0.0.1".parse().expect("address")));
    }

    #[test]
    fn a_lan_has_a_router_of_its_own_or_none() {
        let plan =
            plan(r#"{"name": "lan", "gateway": "none", "options": {"parent": "eth1", "trunk": "10,20"}}"#)
                .expect("a plan");
        assert!(plan.subnets.is_empty() && !plan.gateway);
        assert_eq!(plan.host.trunk, [10, 20]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (json, text) in [
            (
                r#"{"name": "n", "subnets": ["10.0.0.1/24"]}"#,
                "the subnet is 10.0.0.0/24",
            ),
            (
                r#"{"name": "n", "subnets": ["10.0.0.0/24", "10.1.0.0/24"]}"#,
                "one subnet of IPv4",
            ),
            (
                r#"{"name": "n", "subnets": ["10.0.0.0/24"], "gateway": {"at": ["10.0.1.1"]}}"#,
                "--gateway 10.0.1.1",
            ),
            (
                r#"{"name": "n", "ip_ranges": ["10.0.0.0/25"]}"#,
                "give --subnet too",
            ),
            (r#"{"name": "n", "mtu": 1000, "ipv6": true}"#, "MTU"),
            (r#"{"name": "n", "mtu": 40}"#, "68 to 65520"),
            (
                r#"{"name": "n", "options": {"colour": "red"}}"#,
                "--opt colour=red",
            ),
            (r#"{"name": "n", "options": {"vlan": "4095"}}"#, "--opt vlan=4095"),
            (
                r#"{"name": "n", "options": {"router": "10.89.0.9"}}"#,
                "--gateway none",
            ),
            (
                r#"{"name": "n", "options": {"dhcp-range": "10.1.0.1-10.1.0.9"}}"#,
                "dhcp-range",
            ),
            (
                r#"{"name": "n", "internal": true, "publish_address": "127.0.0.1"}"#,
                "--publish-address",
            ),
            (
                r#"{"name": "n", "subnets": ["10.0.0.0/31"], "gateway": {"at": ["10.0.0.9"]}}"#,
                "10.0.0.9",
            ),
        ] {
            let error = format!("{:#}", plan(json).expect_err(json));
            assert!(error.contains(text), "{json}: {error}");
        }
    }
}
