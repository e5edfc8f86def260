//! A network's uplink as it is, and what is said of it.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use pontoon_nat::routed::{Addressing4, Addressing6, UplinkStatus};
use pontoon_switch::MacAddr;

use crate::api::{AddressSource, UplinkInfo};
use crate::front::carrier::Wire;
use crate::front::judge::overlaps;
use crate::front::network::{Network, Taken};
use crate::front::plan::Uplink;
use crate::front::trial::Awaited;

/// A network's uplink as it is.
#[derive(Debug, Default)]
pub(in crate::front) struct Live {
    /// Its number at the packet process; none while it is not there.
    pub(super) port: Option<u32>,
    /// The gateway's MAC address and MTU on it, once known.
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u16>,
    /// Since when it is there, or has had a carrier again, in seconds since 1970.
    pub(in crate::front) since: u64,
    /// The interface of the host that it is, while it is there and is one.
    pub(in crate::front) wire: Option<Wire>,
    /// What the packet process last said of it.
    pub(super) status: Option<UplinkStatus>,
    /// Why it is not there.
    pub(super) error: Option<String>,
    /// When to try again.
    pub(super) due: Option<Instant>,
    /// The try that is on its way.
    pub(super) trying: Awaited,
    /// The port on another network's switch.
    pub(in crate::front) far: Option<u32>,
    /// The addresses there.
    pub(in crate::front) taken: Option<Taken>,
}

impl Live {
    /// The packet process has begun anew, without it.
    pub(in crate::front) fn forget_port(&mut self) {
        self.port = None;
        self.wire = None;
        self.status = None;
    }

    /// Its number at the packet process, while it is there.
    pub(in crate::front) fn port(&self) -> Option<u32> {
        self.port
    }

    /// All that is known of it.
    pub(in crate::front) fn info(&self, plan: &Uplink) -> UplinkInfo {
        let status = self.status.clone().filter(|_| self.port.is_some());
        let addresses = match &status {
            Some(status) => status.addresses.clone(),
            None => plan.fixed(),
        };
        UplinkInfo {
            link: plan.link.clone(),
            mac: plan.mac.or(self.mac),
            up: self.port.is_some(),
            error: self.error.clone(),
            carrier: self.wire.map(|wire| wire.carrier.there),
            since: self.port.map(|_| self.since),
            mtu: self.mtu.filter(|_| self.port.is_some()),
            awaits: awaited(plan, &addresses),
            addresses,
            gateways: match &status {
                Some(status) => status.gateways.clone(),
                None => plan.fixed_gateways(),
            },
            resolvers: status.map_or_else(Vec::new, |s| s.resolvers),
        }
    }

    /// The gateway's addresses on it with their prefixes, as far as they are known.
    pub(in crate::front) fn addresses(&self, plan: &Uplink) -> Vec<IpNet> {
        self.info(plan).addresses
    }
}

impl Network {
    /// The gateway's addresses on its uplink with their prefixes, as far as they are known.
    pub(in crate::front) fn uplink_addresses(&self) -> Vec<IpNet> {
        let uplink = self.plan.uplink.as_ref();
        uplink.map_or_else(Vec::new, |uplink| self.live.addresses(uplink))
    }

    /// As [`Network::uplink_addresses`], those that ports can be published at: link-local ones of IPv6 are the routers' business.
    pub(in crate::front) fn published_at(&self) -> Vec<IpAddr> {
        let link_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        let all = self.uplink_addresses().into_iter().map(|net| net.addr());
        all.filter(|a| !link_local(a)).collect()
    }

    /// All that is known of its uplink, which is to be as `uplink` has it.
    pub(in crate::front) fn uplink_info(&self, uplink: &Uplink) -> UplinkInfo {
        let mut info = self.live.info(uplink);
        if self.packet_fd().is_none() {
            // It will be there again with the network's packet process.
            info.up = false;
            info.carrier = None;
            info.since = None;
            info.error = None;
        } else if info.up
            && let Some((given, own)) = clash(&info.addresses, self.plan.subnets.iter().map(|s| s.net))
        {
            info.error = Some(format!(
                "it was given {given}, whose network overlaps the network's own subnet {own}, so nobody can say where an address \
                 is: make the network with another --subnet"
            ));
        }
        info
    }
}

/// By what an uplink that has these `addresses` is to be given more.
fn awaited(plan: &Uplink, addresses: &[IpNet]) -> Vec<AddressSource> {
    let four = match plan.ipv4 {
        Some(Addressing4::Dhcp) => Some(AddressSource::Dhcp),
        Some(Addressing4::Static { .. }) | None => None,
    };
    let six = match plan.ipv6 {
        Some(Addressing6::Slaac) => Some(AddressSource::Slaac),
        Some(Addressing6::Static { .. }) | None => None,
    };
    let is_given = |net: &IpNet, source: AddressSource| match net {
        IpNet::V4(_) => source == AddressSource::Dhcp,
        // One that is of the link alone leads nowhere.
        IpNet::V6(net) => source == AddressSource::Slaac && !net.addr().is_unicast_link_local(),
    };
    let all = four.into_iter().chain(six);
    all.filter(|&source| !addresses.iter().any(|net| is_given(net, source)))
        .collect()
}

/// An address that a link has given and a subnet of the network's own which overlap, if any do.
fn clash(given: &[IpNet], own: impl Iterator<Item = IpNet> + Clone) -> Option<(IpNet, IpNet)> {
    given.iter().find_map(|&address| {
        let subnet = own.clone().find(|subnet| overlaps(subnet, &address.trunc()))?;
        Some((address, subnet))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::plan::Tuning;

    #[test]
    fn what_a_link_gives_is_held_against_the_networks_own_subnets() {
        let nets = |all: &[&str]| -> Vec<IpNet> { all.iter().map(|n| n.parse().expect(n)).collect() };
        let own = nets(&["10.30.0.0/24", "fd30::/64"]);
        let clash = |given: &[&str]| clash(&nets(given), own.iter().copied());
        assert_eq!(clash(&["192.0.2.9/24", "fe80::9/64", "2001:db8::9/64"]), None);
        for (given, own) in [
            ("10.30.0.9/28", "10.30.0.0/24"),
            ("10.99.0.9/8", "10.30.0.0/24"),
            ("fd30::9/64", "fd30::/64"),
        ] {
            let wanted = nets(&[given, own]);
            assert_eq!(clash(&["192.0.2.9/24", given]), Some((wanted[0], wanted[1])));
        }
    }

    #[test]
    fn each_ip_version_that_is_wanted_is_awaited() {
        let awaited = |spec: &str, addresses: &[&str]| {
            let spec = serde_json::from_str(spec).expect(spec);
            let plan = Uplink::of(&spec, "shop", Tuning::default(), 0).expect("an uplink");
            let nets: Vec<IpNet> = addresses.iter().map(|n| n.parse().expect(n)).collect();
            awaited(&plan, &nets)
        };
        let (four, six) = ("192.0.2.9/24", "2001:db8::9/64");
        let plain = r#"{"link": "tap:t"}"#;
        assert_eq!(awaited(plain, &[]), [AddressSource::Dhcp]);
        assert_eq!(awaited(plain, &[six]), [AddressSource::Dhcp]);
        assert_eq!(awaited(plain, &[four]), []);
        let slaac = r#"{"link": "tap:t", "address6": "slaac"}"#;
        assert_eq!(awaited(slaac, &[]), [AddressSource::Slaac]);
        assert_eq!(awaited(slaac, &["fe80::9/64"]), [AddressSource::Slaac]);
        assert_eq!(awaited(slaac, &["fe80::9/64", six]), []);
        let both = r#"{"link": "tap:t", "address": "dhcp", "address6": "slaac"}"#;
        assert_eq!(awaited(both, &[]), [AddressSource::Dhcp, AddressSource::Slaac]);
        assert_eq!(awaited(both, &[four]), [AddressSource::Slaac]);
        assert_eq!(
            awaited(r#"{"link": "tap:t", "address": "192.0.2.9/24"}"#, &[]),
            []
        );
        assert_eq!(awaited(r#"{"link": "switch:outer"}"#, &[]), []);
    }
}
