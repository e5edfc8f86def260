//! The gateway that the simulated tests have in common.

use std::net::{Ipv4Addr, Ipv6Addr};

use pontoon_nat::config::{Config, Egress, Filtering, HostLoopback, LinkLocal, Subnet4, Subnet6};
use pontoon_switch::MacAddr;

/// Its Ethernet address.
pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// The gateway's configuration in simulated tests: that of the simulated container's defaults.
pub(crate) fn config() -> Config {
    Config {
        mac: GATEWAY,
        subnet4: Some(Subnet4::new(
            "10.0.2.0/24".parse().unwrap(),
            Ipv4Addr::new(10, 0, 2, 2),
        )),
        subnet6: Some(Subnet6::new(
            "fd00:2::/64".parse().unwrap(),
            Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2),
        )),
        mtu: 1500,
        resolvers: Vec::new(),
        search: Vec::new(),
        hosts: Vec::new(),
        egress: Egress::Host,
        host_loopback: HostLoopback::Unreachable,
        link_local: LinkLocal::Refused,
        filtering: Filtering::AddressDependent,
        max_flows: 1000,
        max_flows_per_container: 500,
    }
}
