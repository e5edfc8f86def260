//! `pontoon ps`: the containers of all running networks.

use anyhow::Result;

use crate::api::ContainerInfo;
use crate::args::PsArgs;
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

/// Prints the containers, by network and then in the order they came.
pub(crate) fn ps(args: &PsArgs) -> Result<()> {
    let containers: Vec<ContainerInfo> = client::list_all(args.network.as_deref(), &Call::Containers)?;
    if args.json {
        output::print_json(&containers)
    } else {
        output::print(&render(&containers))
    }
}

fn render(containers: &[ContainerInfo]) -> String {
    let mut table = Table::new(&["NAME", "NETWORK", "ADDRESSES", "PORTS", "SINCE"]);
    for c in containers {
        let ports: Vec<String> = output::sorted(&c.published)
            .iter()
            .map(output::published_short)
            .collect();
        table.row(vec![
            c.name.clone(),
            c.network.clone(),
            output::addresses(&c.addresses),
            ports.join(", "),
            output::timestamp(c.since),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::port::tests::ports;

    #[test]
    fn the_table() {
        let web = ContainerInfo {
            name: "web".into(),
            network: "shop".into(),
            pid: 4711,
            port: 1,
            mac: pontoon_switch::MacAddr([2, 0, 0, 0, 0, 1]),
            addresses: vec!["10.0.2.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            published: ports(),
            since: 1_795_248_000,
        };
        let db = ContainerInfo {
            name: "database".into(),
            addresses: vec!["10.0.2.3".parse().unwrap()],
            published: vec![],
            ..web.clone()
        };
        assert_eq!(
            render(&[web, db]),
            "\
NAME      NETWORK  ADDRESSES          PORTS                                                            SINCE
web       shop     10.0.2.2, fd00::2  127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp  2026-11-21T08:00:00Z
database  shop     10.0.2.3                                                                            2026-11-21T08:00:00Z
"
        );
        assert_eq!(render(&[]), "NAME  NETWORK  ADDRESSES  PORTS  SINCE\n");
    }
}
