//! What of `run` can be judged before anything is made: its values against each other.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail, ensure};
use ipnet::Ipv4Net;
use pontoon_nat::publish::PublishSpec;

use super::{DEFAULT_PER_CONTAINER, MIN_MTU_IPV6, RunArgs};
use crate::api::EndpointSpec;
use crate::args::network_arg::NetworkArg;
use crate::args::uplink::LinkTo;
use crate::args::values::Outbound;

impl RunArgs {
    /// Judges the values against each other. Call it before anything is made.
    ///
    /// A container that joins a network is not checked against that network's ranges here: its front does that.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_networks()?;
        ensure!(
            self.network.is_empty() || !self.sandbox.is_given(),
            "--network joins a network whose packet process is confined already: the switches of the sandbox go where it \
             is started"
        );
        ensure!(
            self.max_flows_per_container <= self.max_flows || self.is_default_per_container(),
            "--max-flows-per-container {} is more than --max-flows {}: a container cannot have more flows than its \
             network",
            self.max_flows_per_container,
            self.max_flows
        );
        for (family, is_family) in [
            ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            ("IPv6", IpAddr::is_ipv6),
        ] {
            let of_family = |o: &&Outbound| matches!(o, Outbound::Address(ip) if is_family(ip));
            ensure!(
                self.outbound.iter().filter(of_family).count() <= 1,
                "--outbound names two {family} addresses: give one for each family"
            );
        }
        ensure!(
            self.outbound
                .iter()
                .filter(|o| matches!(o, Outbound::Interface(_)))
                .count()
                <= 1,
            "--outbound names two interfaces: give one"
        );
        for ip in &self.dns {
            ensure!(
                !ip.is_unspecified() && !ip.is_multicast(),
                "--dns {ip} is not the address of a server"
            );
        }
        self.check_published()?;
        self.check_uplink()?;
        if self.network.is_empty() {
            self.check_addresses()
        } else {
            Ok(())
        }
    }

    fn check_uplink(&self) -> Result<()> {
        let Some(uplink) = self.uplink.spec()? else {
            return Ok(());
        };
        ensure!(
            self.network.is_empty(),
            "--uplink is a private network's, and --network joins another: leave one of them out"
        );
        if let LinkTo::Switch(network) = &uplink.link.to {
            bail!(
                "--uplink switch:{network} is for networks of the daemon: make one by `pontoon network create --uplink \
                 switch:{network}`, and join it"
            );
        }
        for (option, given) in [
            ("--outbound", !self.outbound.is_empty()),
            ("--host-loopback", self.host_loopback),
        ] {
            ensure!(
                !given,
                "{option} is about the host's sockets, and a network with --uplink does not use them: leave one of them out"
            );
        }
        Ok(())
    }

    fn is_default_per_container(&self) -> bool {
        self.max_flows_per_container == DEFAULT_PER_CONTAINER
    }

    fn check_networks(&self) -> Result<()> {
        let mode = self
            .network
            .iter()
            .find(|network| !matches!(network, NetworkArg::Join(_)));
        if let Some(mode) = mode {
            ensure!(
                self.network.len() == 1,
                "--network {mode} stands alone: leave it or the other networks out"
            );
            return self.check_without_switch(mode);
        }
        let joined: Vec<&EndpointSpec> = self.joined().collect();
        for (i, endpoint) in joined.iter().enumerate() {
            ensure!(
                joined[..i].iter().all(|other| other.network != endpoint.network),
                "--network {} is given twice: a container has one interface on a network",
                endpoint.network
            );
        }
        for (option, key, value) in [
            ("--ip", "ip", self.ip.map(|ip| ip.to_string())),
            ("--ip6", "ip6", self.ip6.map(|ip| ip.to_string())),
            (
                "--mac-address",
                "mac",
                self.mac_address.map(|mac| mac.to_string()),
            ),
            ("--network-alias", "alias", self.network_alias.first().cloned()),
        ] {
            let Some(value) = value else { continue };
            ensure!(
                joined.len() <= 1,
                "{option} {value} does not say on which of the networks: write --network N:{key}={value} with the \
                 network N it is meant for"
            );
        }
        if let [one] = joined.as_slice() {
            for (option, key, twice) in [
                ("--ip", "ip", self.ip.is_some() && one.ip.is_some()),
                ("--ip6", "ip6", self.ip6.is_some() && one.ip6.is_some()),
                (
                    "--mac-address",
                    "mac",
                    self.mac_address.is_some() && one.mac.is_some(),
                ),
            ] {
                ensure!(
                    !twice,
                    "{option} and --network {}:{key}= say the same thing: give one of them",
                    one.network
                );
            }
        }
        Ok(())
    }

    /// Refuses what makes no sense for a container that is on no switch.
    fn check_without_switch(&self, mode: &NetworkArg) -> Result<()> {
        for (option, given) in [
            ("--publish", !self.publish.is_empty()),
            ("--publish-all", self.publish_all),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--network-alias", !self.network_alias.is_empty()),
            ("--veth", self.veth),
            ("--uplink", self.uplink.uplink.is_some()),
            ("--link", !self.link.is_empty()),
            ("--capture", self.capture.is_some()),
            ("the switches of the sandbox", self.sandbox.is_given()),
        ] {
            ensure!(
                !given,
                "with --network {mode} there is no switch that the container is on: leave out {option}"
            );
        }
        let (whose, shares_files) = match mode {
            NetworkArg::Container(_) => ("the other container's", true),
            NetworkArg::Host => ("the host's", false),
            NetworkArg::None | NetworkArg::Join(_) => return Ok(()),
        };
        for (option, what, given) in [
            ("--hostname", "host name", shares_files && self.hostname.is_some()),
            (
                "--add-host",
                "/etc/hosts",
                shares_files && !self.add_host.is_empty(),
            ),
            ("--dns-search", "/etc/resolv.conf", !self.dns_search.is_empty()),
        ] {
            ensure!(
                !given,
                "with --network {mode} the container's {what} is {whose}: leave out {option}"
            );
        }
        Ok(())
    }

    fn check_published(&self) -> Result<()> {
        let specs = self.publish_specs();
        for (i, a) in specs.iter().enumerate() {
            for b in &specs[i + 1..] {
                let (Some(x), Some(y)) = (a.host_ports, b.host_ports) else {
                    continue;
                };
                let same_place = match (a.host_ip, b.host_ip) {
                    (Some(a), Some(b)) => a == b,
                    (None, Some(_)) | (Some(_), None) | (None, None) => true,
                };
                // A range for one container port takes whichever is free, so only single ports surely clash.
                let fixed = |s: &PublishSpec, r: (u16, u16)| r.0 == r.1 || s.len() > 1;
                if a.protocol == b.protocol
                    && same_place
                    && fixed(a, x)
                    && fixed(b, y)
                    && x.0 <= y.1
                    && y.0 <= x.1
                {
                    bail!("-p {a} and -p {b} take the same host port: change one of them");
                }
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<()> {
        let subnet = self.subnet();
        if let Some(gateway) = self.gateway {
            check_host("--gateway", gateway, subnet)?;
        }
        if let Some(ip) = self.ip {
            check_host("--ip", ip, subnet)?;
            ensure!(
                ip != self.gateway(),
                "--ip {ip} is the gateway's address: choose another, or another --gateway"
            );
        }
        match self.subnet6() {
            Some(subnet6) => {
                if let Some(ip6) = self.ip6 {
                    ensure!(
                        subnet6.contains(&ip6),
                        "--ip6 {ip6} is not in {subnet6}: choose an address in it, or another --subnet6"
                    );
                    ensure!(
                        ip6 != subnet6.network(),
                        "--ip6 {ip6} is the routers' anycast address: choose another"
                    );
                    ensure!(
                        Some(ip6) != self.gateway6(),
                        "--ip6 {ip6} is the gateway's address: choose another"
                    );
                }
            }
            None => {
                let asked = self
                    .ip6
                    .map(|_| "--ip6")
                    .or(self.subnet6.map(|_| "--subnet6"))
                    .filter(|_| !self.no_ipv6);
                if let Some(option) = asked {
                    bail!(
                        "{option} needs IPv6, which needs an MTU of {MIN_MTU_IPV6} and more: raise --mtu {} or leave \
                         {option} out",
                        self.mtu
                    );
                }
            }
        }
        Ok(())
    }
}

fn check_host(option: &str, ip: Ipv4Addr, subnet: Ipv4Net) -> Result<()> {
    ensure!(
        subnet.contains(&ip),
        "{option} {ip} is not in {subnet}: choose an address in it, or another --subnet"
    );
    ensure!(
        ip != subnet.network() && ip != subnet.broadcast(),
        "{option} {ip} is the first or the last address of {subnet}, which no host may have: choose another"
    );
    Ok(())
}
