//! The options by their names, `-o KEY=VALUE`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use pontoon_nat::config::{Filtering, LinkLocal};
use pontoon_nat::routed::{Mapping, Nat};

use super::HostPorts;
use crate::args::{self, DEFAULT_MAX_FLOWS, DEFAULT_PER_CONTAINER, PortMapping, UplinkNat};
use crate::packet::protocol::Storm;

/// The options, read.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) host: HostPorts,
    pub(super) routers: Vec<IpAddr>,
    pub(super) storm: Storm,
    pub(super) host_loopback: bool,
    pub(super) link_local: LinkLocal,
    pub(super) filtering: Filtering,
    pub(super) outbound: Vec<args::Outbound>,
    pub(super) max_flows: u32,
    pub(super) max_flows_per_container: u32,
    pub(super) dhcp: Option<(IpAddr, IpAddr)>,
    pub(super) icc: Option<bool>,
    pub(super) publish_address: Option<IpAddr>,
    pub(super) mtu: Option<u16>,
    /// Whether an option was given that means something with an uplink alone.
    pub(super) of_uplink: Option<String>,
    pub(super) nat4: Nat,
    pub(super) nat6: Nat,
    pub(super) mapping: Mapping,
    pub(super) uplink_mtu: Option<u16>,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// Options that do not exist, and values that cannot be.
    pub(super) fn of(given: &BTreeMap<String, String>) -> Result<Self> {
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
            of_uplink: None,
            nat4: Nat::Masquerade,
            nat6: Nat::Masquerade,
            mapping: Mapping::EndpointIndependent,
            uplink_mtu: None,
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
            "uplink-nat" | "uplink-nat6" | "mapping" | "uplink-mtu" => {
                self.of_uplink = Some(key.to_owned());
                self.set_uplink(key, value)?;
            }
            "com.docker.network.bridge.enable_icc" => self.icc = Some(switch(value)?),
            "com.docker.network.bridge.host_binding_ipv4" => self.publish_address = Some(address(value)?),
            "com.docker.network.driver.mtu" => self.mtu = Some(value.parse().context("expected bytes")?),
            _ => bail!("there is no such option: `pontoon network create --help` lists those there are"),
        }
        Ok(())
    }

    fn set_uplink(&mut self, key: &str, value: &str) -> Result<()> {
        let chosen = |what: &str| anyhow!("it is {what}");
        match key {
            "uplink-nat" | "uplink-nat6" => {
                let nat = UplinkNat::from_str(value, false).map_err(|_| chosen("`masquerade` or `route`"))?;
                match key {
                    "uplink-nat" => self.nat4 = nat.into(),
                    _ => self.nat6 = nat.into(),
                }
            }
            "mapping" => {
                self.mapping = PortMapping::from_str(value, false)
                    .map_err(|_| chosen("`endpoint` or `connection`"))?
                    .into();
            }
            _ => {
                let mtu: u16 = value.parse().context("expected bytes")?;
                ensure!((68..=65_520).contains(&mtu), "it is 68 to 65520 bytes");
                self.uplink_mtu = Some(mtu);
            }
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
