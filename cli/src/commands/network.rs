//! `pontoon network`: networks of the daemon and private ones.
//!
//! Networks are made by the daemon alone; everything else is asked of whoever has the network of that name.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::each;
use crate::api::{ContainerInfo, EgressKind, NetworkInfo};
use crate::args::{ConnectArgs, CreateArgs, DisconnectArgs, JsonArgs, NamesArgs, NetworkCommand};
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

mod inspect;
#[cfg(test)]
mod tests;

/// Runs one of the commands of `network`.
pub(crate) fn network(command: &NetworkCommand) -> Result<ExitCode> {
    match command {
        NetworkCommand::Create(args) => create(args),
        NetworkCommand::Ls(args) => ls(args),
        NetworkCommand::Inspect(args) => return inspect::inspect(args),
        NetworkCommand::Rm(args) => return rm(args),
        NetworkCommand::Prune(args) => prune(args),
        NetworkCommand::Connect(args) => connect(args),
        NetworkCommand::Disconnect(args) => disconnect(args),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> Result<()> {
    let spec = args.spec()?;
    let network: NetworkInfo = client::daemon()?
        .ask(&Call::CreateNetwork(Box::new(spec)))
        .with_context(|| format!("cannot make network {}", args.name))?;
    if args.json {
        output::print_json(&network)
    } else {
        output::print(&format!("{}\n", network.name))
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
    let mut table = Table::new(&[
        "NAME",
        "SUBNETS",
        ">MTU",
        "EGRESS",
        ">CONTAINERS",
        "OPTIONS",
        "SINCE",
    ]);
    for n in networks {
        let subnets: Vec<String> = n.subnets.iter().map(|s| s.subnet.to_string()).collect();
        table.row(vec![
            n.name.clone(),
            output::list(&subnets),
            n.mtu.to_string(),
            egress(n),
            n.endpoints.len().to_string(),
            output::list(&unusual(n)),
            output::timestamp(n.since),
        ]);
    }
    table.render()
}

/// By what packets leave a network.
fn egress(network: &NetworkInfo) -> String {
    match (&network.uplink, network.egress) {
        (Some(uplink), _) if uplink.carrier == Some(false) => format!("{} (no carrier)", uplink.link),
        (Some(uplink), _) if uplink.up => uplink.link.to_string(),
        (Some(uplink), _) => format!("{} (down)", uplink.link),
        (None, EgressKind::Host) => "host".to_owned(),
        (None, EgressKind::Uplink | EgressKind::None) => "none".to_owned(),
    }
}

/// What of a network is not as it is by default.
fn unusual(network: &NetworkInfo) -> Vec<&'static str> {
    [
        (!network.persistent, "private"),
        (network.internal, "internal"),
        (!network.icc, "icc=false"),
        (network.gateway_mac.is_none(), "gateway=none"),
    ]
    .into_iter()
    .filter_map(|(is_so, word)| is_so.then_some(word))
    .collect()
}

/// Removes each that can be, and prints its name.
fn rm(args: &NamesArgs) -> Result<ExitCode> {
    Ok(each(&args.names, |name| {
        let (front, _) = client::of_network(name)?;
        let network = name.clone();
        front
            .ask::<()>(&Call::RemoveNetwork { network })
            .with_context(|| format!("cannot remove network {name}"))?;
        output::print(&format!("{name}\n"))
    }))
}

fn prune(args: &JsonArgs) -> Result<()> {
    let gone: Vec<String> = client::daemon()?
        .ask(&Call::Prune)
        .context("cannot remove networks without containers")?;
    if args.json {
        output::print_json(&gone)
    } else {
        output::print(&gone.iter().map(|name| format!("{name}\n")).collect::<String>())
    }
}

fn connect(args: &ConnectArgs) -> Result<()> {
    let (front, _) = client::of_network(&args.network)?;
    let call = Call::Connect {
        network: args.network.clone(),
        request: Box::new(args.request()),
    };
    let container: ContainerInfo = front
        .ask(&call)
        .with_context(|| format!("cannot connect {} to network {}", args.container, args.network))?;
    if args.json {
        output::print_json(&container)
    } else {
        Ok(())
    }
}

fn disconnect(args: &DisconnectArgs) -> Result<()> {
    let (front, _) = client::of_network(&args.network)?;
    front
        .ask(&Call::Disconnect {
            network: args.network.clone(),
            container: args.container.clone(),
        })
        .with_context(|| {
            format!(
                "cannot disconnect {} from network {}",
                args.container, args.network
            )
        })
}
