//! What a published port is called: by which specifications it is meant, and by which it is published again.

use std::net::{Ipv4Addr, Ipv6Addr};

use pontoon_nat::publish::PublishSpec;

use super::plan::Plan;
use super::registry::Published;
use crate::api::PublishedPort;

impl Published {
    /// True if this, which people see as `shown`, is what `spec` names: published by it, or host and container port within it.
    pub(super) fn is_of(&self, spec: &PublishSpec, shown: &PublishedPort) -> bool {
        let port = &self.port;
        let same_protocol = port.protocol == spec.protocol;
        let same_address = spec
            .host_ip
            .is_none_or(|ip| ip == port.host_ip || ip == shown.host_ip);
        let of_range = |(first, last): (u16, u16), n: u16| (first..=last).contains(&n);
        let within = match spec.host_ports {
            None => of_range(spec.container_ports, port.container_port),
            Some(host) => {
                of_range(host, port.host_port) && of_range(spec.container_ports, port.container_port)
            }
        };
        self.spec == *spec || (same_protocol && same_address && within)
    }

    /// The specification of this one socket at the network of `plan`, which need not be the one that it was published by. What
    /// names no host address is published where that network has it; nothing if that has no address of the same IP version.
    pub(super) fn exactly_at(&self, plan: &Plan) -> Option<PublishSpec> {
        let exactly = self.exactly();
        if self.network == plan.name || self.spec.host_ip.is_some() {
            return Some(exactly);
        }
        let v4 = self.port.host_ip.is_ipv4();
        let host_ip = match plan.publish_address {
            Some(address) if address.is_ipv4() == v4 => address,
            Some(_) => return None,
            None if v4 => Ipv4Addr::UNSPECIFIED.into(),
            None => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(PublishSpec {
            host_ip: Some(host_ip),
            ..exactly
        })
    }

    /// The specification of this one socket.
    pub(super) fn exactly(&self) -> PublishSpec {
        PublishSpec {
            host_ip: Some(self.port.host_ip),
            host_ports: Some((self.port.host_port, self.port.host_port)),
            container_ports: (self.port.container_port, self.port.container_port),
            protocol: self.port.protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::tests::plan;

    /// What is published of `spec` on network `a`, at `host`.
    fn published(spec: &str, host: &str) -> Published {
        let spec: PublishSpec = spec.parse().expect(spec);
        let host: std::net::SocketAddr = host.parse().expect(host);
        Published {
            id: 1,
            network: "a".into(),
            port: PublishedPort {
                protocol: spec.protocol,
                host_ip: host.ip(),
                host_port: host.port(),
                container_port: spec.container_ports.0,
            },
            spec,
            claim: None,
        }
    }

    #[test]
    fn what_names_no_address_has_that_of_the_network_it_comes_to() {
        let here = plan(r#"{"name": "a"}"#);
        let open = plan(r#"{"name": "b"}"#);
        let shut = plan(r#"{"name": "c", "publish_address": "127.0.0.1"}"#);
        for (spec, host, plan, wanted) in [
            ("8080:80", "0.0.0.0:8080", &here, Some("0.0.0.0:8080:80")),
            ("8080:80", "0.0.0.0:8080", &shut, Some("127.0.0.1:8080:80")),
            ("8080:80", "[::]:8080", &shut, None),
            ("8080:80", "127.0.0.1:8080", &open, Some("0.0.0.0:8080:80")),
            ("8080:80", "[::]:8080", &open, Some("[::]:8080:80")),
            ("80", "127.0.0.1:40000", &open, Some("0.0.0.0:40000:80")),
            (
                "192.0.2.9:8080:80",
                "192.0.2.9:8080",
                &shut,
                Some("192.0.2.9:8080:80"),
            ),
        ] {
            let wanted: Option<PublishSpec> = wanted.map(|w| w.parse().expect(w));
            assert_eq!(
                published(spec, host).exactly_at(plan),
                wanted,
                "{spec} at {host} on {}",
                plan.name
            );
        }
    }
}
