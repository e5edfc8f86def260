//! `pontoon ps`: the containers of all fronts.

use std::net::IpAddr;

use anyhow::Result;

use crate::api::ContainerInfo;
use crate::args::PsArgs;
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

/// Prints the containers, those of the daemon first.
pub(crate) fn ps(args: &PsArgs) -> Result<()> {
    let network = args.network.as_deref();
    let mut containers: Vec<ContainerInfo> = client::list_all(network, &Call::Containers)?;
    containers.retain(|container| is_on(container, network));
    if args.json {
        output::print_json(&containers)
    } else {
        output::print(&render(&containers))
    }
}

fn is_on(container: &ContainerInfo, network: Option<&str>) -> bool {
    network.is_none_or(|name| container.endpoints.iter().any(|e| e.network == name))
}

fn render(containers: &[ContainerInfo]) -> String {
    let mut table = Table::new(&["NAME", "NETWORKS", "ADDRESSES", "PORTS", "SINCE"]);
    for c in containers {
        let ports: Vec<String> = output::sorted(&c.published)
            .iter()
            .map(output::published_short)
            .collect();
        let networks: Vec<&str> = c.endpoints.iter().map(|e| e.network.as_str()).collect();
        let addresses: Vec<IpAddr> = c.endpoints.iter().flat_map(|e| e.addresses.clone()).collect();
        table.row(vec![
            c.name.clone(),
            networks.join(", "),
            output::list(&addresses),
            ports.join(", "),
            output::timestamp(c.since),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn the_table() {
        let web = samples::container();
        let db = ContainerInfo {
            name: "database".into(),
            endpoints: vec![samples::endpoint("database", "back", 4, "10.30.0.7")],
            published: vec![],
            ..web.clone()
        };
        let bare = ContainerInfo {
            name: "bare".into(),
            endpoints: vec![],
            ..db.clone()
        };
        assert!(is_on(&web, None) && is_on(&web, Some("shop")) && is_on(&web, Some("back")));
        assert!(is_on(&db, Some("back")) && !is_on(&db, Some("shop")) && !is_on(&bare, Some("back")));
        assert_eq!(
            render(&[web, db, bare]),
            "\
NAME      NETWORKS    ADDRESSES                     PORTS                                                            SINCE
web       shop, back  10.0.2.2, fd00::2, 10.30.0.9  127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp  2026-11-21T08:00:01Z
database  back        10.30.0.7                                                                                      2026-11-21T08:00:01Z
bare                                                                                                                 2026-11-21T08:00:01Z
"
        );
        assert_eq!(render(&[]), "NAME  NETWORKS  ADDRESSES  PORTS  SINCE\n");
    }
}
