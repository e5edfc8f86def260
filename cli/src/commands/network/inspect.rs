//! `pontoon network inspect`.
//!
//! It prints what `docker network inspect` prints, so that what reads the one reads the other: an array of objects with the
//! network's name, its id, the ranges it gives addresses from, and its containers; then what only we have. An id is made of
//! what makes the object unique, so it is the same for as long as the object lives: a network of the daemon and its
//! containers keep theirs when the daemon begins anew.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::each;
use crate::api::{AddressSource, EndpointInfo, NetworkInfo, SubnetInfo, UplinkInfo};
use crate::args::InspectArgs;
use crate::client;
use crate::output;

/// Prints those that are found; a name that is not is an error beside them, as Docker has it.
pub(super) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let mut found = Vec::new();
    let code = each(&args.names, |name| {
        let (_, network) = client::of_network(name)?;
        found.push(Inspected::of(&network));
        Ok(())
    });
    output::print_json(&found)?;
    Ok(code)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    name: String,
    pub(super) id: String,
    created: String,
    scope: &'static str,
    driver: &'static str,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    internal: bool,
    attachable: bool,
    ingress: bool,
    pub(super) containers: BTreeMap<String, Member>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    #[serde(rename = "DNS")]
    dns: Vec<IpAddr>,
    #[serde(rename = "DNSSearch")]
    dns_search: Vec<String>,
    gateway_mac_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<InspectedUplink>,
    private: bool,
    front_pid: u32,
    packet_pid: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedUplink {
    link: String,
    up: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_address: Option<String>,
    #[serde(rename = "MTU", skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    awaits: Vec<AddressSource>,
    gateways: Vec<IpAddr>,
    resolvers: Vec<IpAddr>,
}

impl InspectedUplink {
    fn of(uplink: &UplinkInfo) -> Self {
        let UplinkInfo {
            link,
            mac,
            up,
            error,
            carrier,
            since: _,
            mtu,
            addresses,
            awaits,
            gateways,
            resolvers,
        } = uplink;
        Self {
            link: link.to_string(),
            up: *up,
            error: error.clone(),
            carrier: *carrier,
            mac_address: mac.map(|mac| mac.to_string()),
            mtu: *mtu,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            awaits: awaits.clone(),
            gateways: gateways.clone(),
            resolvers: resolvers.clone(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ipam {
    driver: &'static str,
    options: BTreeMap<String, String>,
    config: Vec<IpamConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "Option::is_none")]
    ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary_addresses: BTreeMap<String, IpAddr>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Member {
    name: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
    aliases: Vec<String>,
    interface: String,
    port: u32,
    vlan: u16,
}

impl Inspected {
    pub(super) fn of(network: &NetworkInfo) -> Self {
        let NetworkInfo {
            name,
            subnets,
            gateway_mac,
            mtu,
            internal,
            icc,
            dns,
            search,
            publish_address,
            // It is what the uplink, or Internal and the gateway say.
            egress: _,
            uplink,
            options,
            persistent,
            since,
            front_pid,
            packet_pid,
            endpoints,
        } = network;
        // Another private network of that name may begin in the same second.
        let front = (!persistent).then_some(front_pid);
        let id = self::id(&("network", name, since, front));
        let member = |e: &EndpointInfo| {
            let member = Member {
                name: e.container.clone(),
                endpoint_id: self::id(&("endpoint", &id, &e.container, e.mac)),
                mac_address: e.mac.to_string(),
                ipv4_address: with_prefix(subnets, &e.addresses, IpAddr::is_ipv4),
                ipv6_address: with_prefix(subnets, &e.addresses, IpAddr::is_ipv6),
                aliases: e.aliases.clone(),
                interface: e.interface.clone(),
                port: e.port,
                vlan: e.vlan,
            };
            (self::id(&("container", front, &e.container)), member)
        };
        let mut all_options = BTreeMap::from([
            ("com.docker.network.bridge.enable_icc".to_owned(), icc.to_string()),
            ("com.docker.network.driver.mtu".to_owned(), mtu.to_string()),
        ]);
        if let Some(address) = publish_address {
            let key = "com.docker.network.bridge.host_binding_ipv4";
            all_options.insert(key.to_owned(), address.to_string());
        }
        all_options.extend(options.iter().map(|(k, v)| (k.clone(), v.clone())));
        Self {
            name: name.clone(),
            created: output::timestamp(*since),
            scope: "local",
            driver: "pontoon",
            enable_ipv6: subnets.iter().any(|s| s.subnet.addr().is_ipv6()),
            ipam: Ipam {
                driver: "default",
                options: BTreeMap::new(),
                config: subnets.iter().map(config).collect(),
            },
            internal: *internal,
            attachable: true,
            ingress: false,
            containers: endpoints.iter().map(member).collect(),
            id,
            options: all_options,
            labels: BTreeMap::new(),
            dns: dns.clone(),
            dns_search: search.clone(),
            gateway_mac_address: gateway_mac.map(|mac| mac.to_string()).unwrap_or_default(),
            uplink: uplink.as_ref().map(InspectedUplink::of),
            private: !persistent,
            front_pid: *front_pid,
            packet_pid: *packet_pid,
        }
    }
}

fn config(subnet: &SubnetInfo) -> IpamConfig {
    // Docker has them named.
    let named = (1..).zip(&subnet.reserved);
    IpamConfig {
        auxiliary_addresses: named.map(|(i, ip)| (format!("reserved{i}"), *ip)).collect(),
        subnet: subnet.subnet.to_string(),
        ip_range: subnet.range.map(|range| range.to_string()),
        gateway: subnet.gateway.map(|gateway| gateway.to_string()),
    }
}

/// The first address of the family with its subnet's prefix length, as `10.0.2.2/24`; empty if there is none.
fn with_prefix(subnets: &[SubnetInfo], addresses: &[IpAddr], family: fn(&IpAddr) -> bool) -> String {
    let Some(ip) = addresses.iter().find(|ip| family(ip)) else {
        return String::new();
    };
    match subnets.iter().find(|s| s.subnet.contains(ip)) {
        Some(s) => format!("{ip}/{}", s.subnet.prefix_len()),
        None => ip.to_string(),
    }
}

/// 64 hexadecimal digits that stand for `what`. Not secret, and nothing depends on two never being the same.
fn id(what: &impl Hash) -> String {
    (0..4u8)
        .map(|i| {
            let mut hasher = DefaultHasher::new();
            (i, what).hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        })
        .collect()
}
