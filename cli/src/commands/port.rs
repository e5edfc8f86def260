//! `pontoon port`: where the ports of a container are published, as `docker port` prints it.

use anyhow::{Result, bail, ensure};

use crate::api::PublishedPort;
use crate::args::{Exposed, PortArgs};
use crate::client;
use crate::output;

/// Prints the published ports of a container, or the host's side of one.
pub(crate) fn port(args: &PortArgs) -> Result<()> {
    if let Some(asked) = args.port {
        ensure!(
            asked.ports.0 == asked.ports.1,
            "`{asked}` is a range: name one port, or none for all"
        );
    }
    let (_, container) = client::container(&args.container)?;
    let ports = select(&container.name, &container.published, args.port)?;
    if args.json {
        output::print_json(&ports)
    } else {
        output::print(&render(&ports, args.port.is_some()))
    }
}

fn select(name: &str, published: &[PublishedPort], asked: Option<Exposed>) -> Result<Vec<PublishedPort>> {
    let mut ports = output::sorted(published);
    if let Some(asked) = asked {
        ports.retain(|p| p.container_port == asked.ports.0 && p.protocol == asked.protocol);
        if ports.is_empty() {
            bail!("no public port '{asked}' published for {name}");
        }
    }
    Ok(ports)
}

/// One port a line; only the host's side if the container's was asked for.
pub(super) fn render(ports: &[PublishedPort], host_side_only: bool) -> String {
    let line = if host_side_only {
        output::host_side
    } else {
        output::published
    };
    ports.iter().map(|p| line(p) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples::ports;

    #[test]
    fn as_docker_prints_it() {
        let all = select("web", &ports(), None).unwrap();
        assert_eq!(
            render(&all, false),
            "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
        );
        let one = select("web", &ports(), Some("80".parse().unwrap())).unwrap();
        assert_eq!(render(&one, true), "0.0.0.0:8080\n[::]:8080\n");
        let e = select("web", &ports(), Some("80/udp".parse().unwrap())).unwrap_err();
        assert_eq!(e.to_string(), "no public port '80/udp' published for web");
        assert_eq!(render(&select("web", &[], None).unwrap(), false), "");
    }
}
