//! `pontoon route`: where a network's gateway sends what is not on the network itself.

use anyhow::{Context as _, Result};

use crate::api::RouteInfo;
use crate::args::{JsonArgs, RouteAddArgs, RouteArgs, RouteCommand, RouteDelArgs};
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

/// Runs `route NETWORK add`, `ls` or `del`.
pub(crate) fn route(args: &RouteArgs) -> Result<()> {
    let network = args.network.as_str();
    match &args.command {
        RouteCommand::Add(args) => add(network, args),
        RouteCommand::Ls(args) => ls(network, args),
        RouteCommand::Del(args) => del(network, args),
    }
}

fn add(network: &str, args: &RouteAddArgs) -> Result<()> {
    let (front, _) = client::of_network(network)?;
    let call = Call::AddRoute {
        network: network.to_owned(),
        route: args.request(),
    };
    let route: RouteInfo = front
        .ask(&call)
        .with_context(|| format!("cannot add a route to network {network}"))?;
    if args.json {
        output::print_json(&route)
    } else {
        Ok(())
    }
}

fn ls(network: &str, args: &JsonArgs) -> Result<()> {
    let (front, _) = client::of_network(network)?;
    let routes: Vec<RouteInfo> = front.ask(&Call::Routes {
        network: network.to_owned(),
    })?;
    if args.json {
        output::print_json(&routes)
    } else {
        output::print(&render(&routes))
    }
}

fn del(network: &str, args: &RouteDelArgs) -> Result<()> {
    let (front, _) = client::of_network(network)?;
    front
        .ask(&Call::RemoveRoute {
            network: network.to_owned(),
            to: args.to,
        })
        .with_context(|| format!("cannot remove the route of network {network}"))
}

fn render(routes: &[RouteInfo]) -> String {
    let mut table = Table::new(&["DESTINATION", "VIA"]);
    for route in routes {
        table.row(vec![route.to.to_string(), route.via.to_string()]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn the_table() {
        let router = RouteInfo {
            to: "fd40::/64".parse().unwrap(),
            via: "fd30::9".parse().unwrap(),
            ..samples::route()
        };
        assert_eq!(
            render(&[samples::route(), router]),
            "\
DESTINATION   VIA
10.31.0.0/24  back
fd40::/64     fd30::9
"
        );
        assert_eq!(render(&[]), "DESTINATION  VIA\n");
    }
}
