//! `pontoon network ls` and `pontoon network inspect`.
//!
//! `inspect` prints what `docker network inspect` prints, so that what reads the one reads the other: an array of objects
//! with the network's name, its id, the ranges it gives addresses from, and its containers. An id is made of what makes
//! the object unique (its name, when it began and its process), so it is the same for as long as the object lives.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::api::{ContainerInfo, NetworkInfo};
use crate::args::{InspectArgs, JsonArgs, NetworkCommand};
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

#[cfg(test)]
mod tests;

/// Runs `network ls` or `network inspect`.
pub(crate) fn network(command: &NetworkCommand) -> Result<ExitCode> {
    match command {
        NetworkCommand::Ls(args) => ls(args).map(|()| ExitCode::SUCCESS),
        NetworkCommand::Inspect(args) => inspect(args),
    }
}

fn ls(args: &JsonArgs) -> Result<()> {
    let networks: Vec<NetworkInfo> = client::list_all(None, &Call::Networks)?;
    if args.json {
        output::print_json(&networks)
    } else {
        output::print(&render(&networks))
    }
}

fn render(networks: &[NetworkInfo]) -> String {
    let mut table = Table::new(&["NAME", "SUBNETS", ">MTU", ">CONTAINERS", "SINCE"]);
    for n in networks {
        let subnets: Vec<String> = n.subnets.iter().map(|s| s.subnet.to_string()).collect();
        table.row(vec![
            n.name.clone(),
            subnets.join(", "),
            n.mtu.to_string(),
            n.containers.len().to_string(),
            output::timestamp(n.since),
        ]);
    }
    table.render()
}

/// Prints those that are found; a name that is not is an error after them, as Docker does it.
fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let mut found = Vec::new();
    let mut failed = false;
    for name in &args.names {
        match client::list_all::<NetworkInfo>(Some(name), &Call::Networks) {
            Ok(networks) => found.extend(networks.iter().map(Inspected::of)),
            Err(e) => {
                eprintln!("pontoon: {e:#}");
                failed = true;
            }
        }
    }
    output::print_json(&found)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    id: String,
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
    containers: BTreeMap<String, Member>,
    options: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
    gateway_mac_address: String,
    front_pid: u32,
    packet_pid: u32,
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
    gateway: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
}

impl Inspected {
    fn of(network: &NetworkInfo) -> Self {
        let NetworkInfo {
            name,
            subnets,
            gateway_mac,
            mtu,
            search: _,
            since,
            front_pid,
            packet_pid,
            containers,
        } = network;
        let member = |c: &ContainerInfo| {
            let id = id(&("container", &c.name, c.since, c.pid));
            let member = Member {
                name: c.name.clone(),
                endpoint_id: self::id(&("endpoint", name, front_pid, c.port, c.mac)),
                mac_address: c.mac.to_string(),
                ipv4_address: with_prefix(network, &c.addresses, IpAddr::is_ipv4),
                ipv6_address: with_prefix(network, &c.addresses, IpAddr::is_ipv6),
            };
            (id, member)
        };
        Self {
            name: name.clone(),
            id: id(&("network", name, since, front_pid)),
            created: output::timestamp(*since),
            scope: "local",
            driver: "pontoon",
            enable_ipv6: subnets.iter().any(|s| s.gateway.is_ipv6()),
            ipam: Ipam {
                driver: "default",
                options: BTreeMap::new(),
                config: subnets
                    .iter()
                    .map(|s| IpamConfig {
                        subnet: s.subnet.to_string(),
                        gateway: s.gateway.to_string(),
                    })
                    .collect(),
            },
            internal: false,
            attachable: true,
            ingress: false,
            containers: containers.iter().map(member).collect(),
            options: BTreeMap::from([("com.docker.network.driver.mtu", mtu.to_string())]),
            labels: BTreeMap::new(),
            gateway_mac_address: gateway_mac.to_string(),
            front_pid: *front_pid,
            packet_pid: *packet_pid,
        }
    }
}

/// The first address of the family with its network's prefix length, as `10.0.2.2/24`; empty if there is none.
fn with_prefix(network: &NetworkInfo, addresses: &[IpAddr], family: fn(&IpAddr) -> bool) -> String {
    let Some(ip) = addresses.iter().find(|ip| family(ip)) else {
        return String::new();
    };
    match network.subnets.iter().find(|s| s.subnet.contains(ip)) {
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
