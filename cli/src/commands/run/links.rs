//! What `--link` tells a container of another: names for its hosts file, and Docker's variables.
//!
//! For a link to `db` with the alias `sql`, whose exposed port is 5432/tcp:
//!
//! | variable | value |
//! |---|---|
//! | `SQL_NAME` | `/web/sql` |
//! | `SQL_PORT` | `tcp://10.89.0.2:5432`, the lowest port |
//! | `SQL_PORT_5432_TCP` | `tcp://10.89.0.2:5432` |
//! | `SQL_PORT_5432_TCP_ADDR`, `_PORT`, `_PROTO` | `10.89.0.2`, `5432`, `tcp` |

use std::net::IpAddr;

use pontoon_nat::publish::Transport;

use crate::api::{ContainerInfo, LinkInfo};

/// Names that the links give, with their addresses.
pub(super) fn hosts(container: &ContainerInfo) -> Vec<(String, IpAddr)> {
    let mut hosts = Vec::new();
    for link in &container.links {
        for &address in &link.addresses {
            hosts.push((link.alias.clone(), address));
            if link.server != link.alias {
                hosts.push((link.server.clone(), address));
            }
        }
    }
    hosts
}

/// The variables that the links give.
pub(super) fn environment(container: &ContainerInfo) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for link in &container.links {
        variables(&container.name, link, &mut all);
    }
    all
}

fn variables(client: &str, link: &LinkInfo, all: &mut Vec<(String, String)>) {
    let alias = link.alias.to_uppercase().replace(['-', '.'], "_");
    all.push((format!("{alias}_NAME"), format!("/{client}/{}", link.alias)));
    let four = link.addresses.iter().find(|a| a.is_ipv4());
    let Some(&address) = four.or(link.addresses.first()) else {
        return;
    };
    let host = match address {
        IpAddr::V4(a) => a.to_string(),
        IpAddr::V6(a) => format!("[{a}]"),
    };
    let mut ports: Vec<(u16, Transport)> = link
        .ports
        .iter()
        .flat_map(|e| (e.ports.0..=e.ports.1).map(|port| (port, e.protocol)))
        .collect();
    ports.sort_unstable();
    let url = |(port, protocol): (u16, Transport)| format!("{protocol}://{host}:{port}");
    if let Some(&lowest) = ports.first() {
        all.push((format!("{alias}_PORT"), url(lowest)));
    }
    for (port, protocol) in ports {
        let name = format!("{alias}_PORT_{port}_{}", protocol.to_string().to_uppercase());
        all.push((name.clone(), url((port, protocol))));
        all.push((format!("{name}_ADDR"), address.to_string()));
        all.push((format!("{name}_PORT"), port.to_string()));
        all.push((format!("{name}_PROTO"), protocol.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_dockers() {
        let container = ContainerInfo {
            name: "web".into(),
            pid: Some(1),
            namespace: None,
            endpoints: Vec::new(),
            published: Vec::new(),
            exposed: Vec::new(),
            links: vec![LinkInfo {
                client: "web".into(),
                server: "db".into(),
                alias: "my-sql".into(),
                ports: vec!["5432".parse().expect("a port"), "53/udp".parse().expect("a port")],
                addresses: vec![
                    "172.17.0.5".parse().expect("an address"),
                    "fd00::5".parse().expect("an address"),
                ],
            }],
            since: 0,
        };
        let text: Vec<String> = environment(&container)
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            text,
            [
                "MY_SQL_NAME=/web/my-sql",
                "MY_SQL_PORT=udp://172.17.0.5:53",
                "MY_SQL_PORT_53_UDP=udp://172.17.0.5:53",
                "MY_SQL_PORT_53_UDP_ADDR=172.17.0.5",
                "MY_SQL_PORT_53_UDP_PORT=53",
                "MY_SQL_PORT_53_UDP_PROTO=udp",
                "MY_SQL_PORT_5432_TCP=tcp://172.17.0.5:5432",
                "MY_SQL_PORT_5432_TCP_ADDR=172.17.0.5",
                "MY_SQL_PORT_5432_TCP_PORT=5432",
                "MY_SQL_PORT_5432_TCP_PROTO=tcp",
            ]
        );
        assert_eq!(hosts(&container).len(), 4);
    }
}
