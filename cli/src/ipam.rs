//! Addresses of one network: which are free, and which a container gets.
//!
//! A private network's subnets are by default 10.0.2.0/24 and fd00::/64, the gateway is number 2 of each, and containers
//! get the next free number from 100 (64 hexadecimal) on, wrapping round below it. In a subnet that has no such numbers
//! the gateway is the first host address and containers the next ones. On a network of the daemon it is so in every
//! subnet, as with Docker, and addresses may be given from a part of the subnet only.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use pontoon_switch::MacAddr;

/// Number of the gateway in its subnet.
const GATEWAY: u128 = 2;
/// Number of the first container in its subnet.
const FIRST: u128 = 100;

/// Why an address or a subnet cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// Not enough room for a gateway and a container.
    #[error("subnet {0} has no room for a gateway and a container")]
    TooSmall(IpNet),
    /// The subnet cannot hold containers.
    #[error("subnet {0} cannot be used: {1}")]
    Unusable(IpNet, &'static str),
    /// Outside of the subnet.
    #[error("address {0} is not in the network's subnet {1}")]
    Outside(IpAddr, IpNet),
    /// A range outside of its subnet.
    #[error("range {0} is not inside the subnet {1}")]
    RangeOutside(IpNet, IpNet),
    /// The subnet's own or broadcast address.
    #[error("address {0} is no host address of {1}")]
    NoHost(IpAddr, IpNet),
    /// The gateway's.
    #[error("address {0} is the gateway's")]
    Gateway(IpAddr),
    /// Somebody else's.
    #[error("address {0} is in use on this network")]
    Taken(IpAddr),
    /// None left.
    #[error(
        "no address is left in {0}: detach a container, or make a network with a larger --subnet or --ip-range"
    )]
    Full(IpNet),
}

/// The addresses of one subnet.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    net: IpNet,
    gateway: Option<IpAddr>,
    used: BTreeSet<u128>,
    /// Where addresses are given from, if not everywhere.
    part: Option<IpNet>,
    /// Numbers that are only given to who asks for them.
    reserved: BTreeSet<u128>,
    /// More of these: addresses that routes lead to.
    routers: BTreeSet<u128>,
    /// First and last number of more of these.
    kept: Option<(u128, u128)>,
    next: u128,
}

impl Pool {
    /// The pool of a private network's `net` with the gateway's address, chosen if it is not given.
    pub(crate) fn new(net: IpNet, gateway: Option<IpAddr>) -> Result<Self, Refused> {
        let mut pool = Self::bare(net)?;
        let (first, last) = pool.range();
        pool.set_gateway(gateway.unwrap_or_else(|| pool.default_gateway()))?;
        pool.next = if last > FIRST { FIRST } else { first };
        Ok(pool)
    }

    /// The pool of `net` where `gateway`, if there is one, is a router's address, and addresses are given from `part`.
    pub(crate) fn of_subnet(
        net: IpNet,
        gateway: Option<IpAddr>,
        part: Option<IpNet>,
        reserved: &[IpAddr],
    ) -> Result<Self, Refused> {
        let mut pool = Self::bare(net)?;
        if let Some(gateway) = gateway {
            pool.set_gateway(gateway)?;
        }
        if let Some(part) = part {
            let part = part.trunc();
            if !pool.net.contains(&part) {
                return Err(Refused::RangeOutside(part, pool.net));
            }
            pool.part = Some(part);
        }
        for &address in reserved.iter().filter(|a| pool.net.contains(*a)) {
            let number = pool.number_of_host(address)?;
            pool.reserved.insert(number);
        }
        pool.next = pool.given().0;
        Ok(pool)
    }

    /// The gateway that a network of the daemon has in `net` unless another is asked for.
    pub(crate) fn first_host(net: IpNet) -> Result<IpAddr, Refused> {
        let pool = Self::bare(net)?;
        Ok(pool.address(pool.range().0))
    }

    fn bare(net: IpNet) -> Result<Self, Refused> {
        let net = net.trunc();
        if net.addr().is_loopback() || net.addr().is_multicast() || net.addr().is_unspecified() {
            return Err(Refused::Unusable(net, "it is not a range of unicast addresses"));
        }
        let pool = Self {
            net,
            gateway: None,
            used: BTreeSet::new(),
            part: None,
            reserved: BTreeSet::new(),
            routers: BTreeSet::new(),
            kept: None,
            next: 0,
        };
        let (first, last) = pool.range();
        if last < first || last - first < 1 {
            return Err(Refused::TooSmall(net));
        }
        Ok(pool)
    }

    fn set_gateway(&mut self, gateway: IpAddr) -> Result<(), Refused> {
        self.number_of_host(gateway)?;
        self.gateway = Some(gateway);
        Ok(())
    }

    fn default_gateway(&self) -> IpAddr {
        let (first, last) = self.range();
        self.address(if last > GATEWAY { GATEWAY } else { first })
    }

    /// The subnet.
    pub(crate) fn net(&self) -> IpNet {
        self.net
    }

    /// The address of the gateway, or of another router.
    pub(crate) fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }

    /// Where addresses are given from, if not everywhere.
    pub(crate) fn part(&self) -> Option<IpNet> {
        self.part
    }

    /// Gives the addresses from `first` to `last` from now on only to who asks for them: DHCP has them for others.
    pub(crate) fn keep(&mut self, first: IpAddr, last: IpAddr) {
        if self.net.contains(&first) && self.net.contains(&last) && first <= last {
            self.kept = Some((self.number(first), self.number(last)));
        }
    }

    /// Gives those of `addresses` that are in the subnet from now on only to who asks for them, in the place of those of the call
    /// before: routes lead to them, and who has one may send from what is behind it.
    pub(crate) fn keep_routers(&mut self, addresses: &[IpAddr]) {
        let own = addresses.iter().filter(|a| self.net.contains(*a));
        self.routers = own.map(|&a| self.number(a)).collect();
    }

    /// Takes the address `wanted`, or the next free one.
    pub(crate) fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr, Refused> {
        if let Some(address) = wanted {
            let n = self.number_of_host(address)?;
            if Some(address) == self.gateway {
                return Err(Refused::Gateway(address));
            }
            return if self.used.insert(n) {
                Ok(address)
            } else {
                Err(Refused::Taken(address))
            };
        }
        let (first, last) = self.given();
        let kept = |n: u128| self.kept.is_some_and(|(first, last)| (first..=last).contains(&n));
        // As many tries as there can be numbers that are taken, kept or reserved, the gateway's, and one.
        let kept_count = self.kept.map_or(0, |(first, last)| last - first + 1);
        let single = self.used.len() + self.reserved.len() + self.routers.len();
        let tries = single as u128 + kept_count + 2;
        let mut n = self.next.clamp(first, last);
        for _ in 0..tries.min((last - first).saturating_add(1)) {
            let address = self.address(n);
            let after = if n >= last { first } else { n + 1 };
            let for_askers = kept(n) || self.reserved.contains(&n) || self.routers.contains(&n);
            let free = Some(address) != self.gateway && !for_askers;
            if free && self.used.insert(n) {
                self.next = after;
                return Ok(address);
            }
            n = after;
        }
        Err(Refused::Full(self.part.unwrap_or(self.net)))
    }

    /// Gives `address` back. It is handed out again only after the others, so that what peers remember of it fades.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if self.net.contains(&address) {
            self.used.remove(&self.number(address));
        }
    }

    /// `address` with the subnet's prefix length.
    pub(crate) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.net.prefix_len()).unwrap_or(self.net)
    }

    /// First and last number that a host may have.
    fn range(&self) -> (u128, u128) {
        let host_bits = u32::from(self.net.max_prefix_len() - self.net.prefix_len());
        let all = if host_bits >= 128 {
            u128::MAX
        } else {
            (1 << host_bits) - 1
        };
        match self.net {
            // RFC 3021: a /31 has two hosts and no broadcast address.
            IpNet::V4(n) if n.prefix_len() >= 31 => (0, all),
            IpNet::V4(_) => (1, all.saturating_sub(1)),
            // Number 0 is the subnet-router anycast address (RFC 4291, 2.6.1).
            IpNet::V6(n) if n.prefix_len() >= 127 => (0, all),
            IpNet::V6(_) => (1, all),
        }
    }

    /// First and last number that are given to who asks for none.
    fn given(&self) -> (u128, u128) {
        let (first, last) = self.range();
        let Some(part) = self.part else {
            return (first, last);
        };
        let start = self.number(part.addr());
        let bits = u32::from(part.max_prefix_len() - part.prefix_len());
        let size = 1u128.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
        (start.max(first), start.saturating_add(size).min(last))
    }

    fn number(&self, address: IpAddr) -> u128 {
        bits(address) - bits(self.net.addr())
    }

    fn number_of_host(&self, address: IpAddr) -> Result<u128, Refused> {
        if !self.net.contains(&address) {
            return Err(Refused::Outside(address, self.net));
        }
        let n = self.number(address);
        let (first, last) = self.range();
        if (first..=last).contains(&n) {
            Ok(n)
        } else {
            Err(Refused::NoHost(address, self.net))
        }
    }

    fn address(&self, n: u128) -> IpAddr {
        let bits = bits(self.net.addr()) + n;
        match self.net {
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
            IpNet::V6(_) => Ipv6Addr::from(bits).into(),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

/// The gateway's address in `net` unless another is asked for.
pub(crate) fn default_gateway(net: IpNet) -> IpAddr {
    Pool::bare(net).map_or(net.addr(), |pool| pool.default_gateway())
}

/// A locally administered MAC address that says which address it belongs to.
pub(crate) fn mac_for(address: IpAddr) -> MacAddr {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let o = v6.octets();
            [o[12], o[13], o[14], o[15]]
        }
    };
    MacAddr::local([0x02, 0x50, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str) -> Pool {
        Pool::new(net.parse().expect("net"), None).expect("usable")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn defaults_are_those_in_the_documents() {
        use crate::args::{DEFAULT_SUBNET, DEFAULT_SUBNET6};
        let (mut four, mut six) = (pool(DEFAULT_SUBNET), pool(DEFAULT_SUBNET6));
        assert_eq!(
            (four.gateway(), six.gateway()),
            (Some(ip("10.0.2.2")), Some(ip("fd00::2")))
        );
        assert_eq!(
            (four.take(None), six.take(None)),
            (Ok(ip("10.0.2.100")), Ok(ip("fd00::64")))
        );
        assert_eq!(four.take(None), Ok(ip("10.0.2.101")));
    }

    #[test]
    fn every_host_address_is_handed_out_once_and_no_other() {
        for (net, hosts) in [
            ("192.0.2.0/24", 253),
            ("192.0.2.8/29", 5),
            ("192.0.2.4/30", 1),
            ("192.0.2.4/31", 1),
        ] {
            let mut pool = pool(net);
            let mut seen = BTreeSet::new();
            while let Ok(address) = pool.take(None) {
                assert!(
                    seen.insert(address) && Some(address) != pool.gateway() && pool.net().contains(&address),
                    "{net}"
                );
            }
            assert_eq!(seen.len(), hosts, "{net}");
            assert_eq!(pool.take(None), Err(Refused::Full(pool.net())));
            let one = *seen.first().expect("some");
            pool.release(one);
            assert_eq!(pool.take(None), Ok(one), "{net}");
        }
    }

    #[test]
    fn what_is_kept_is_given_to_who_asks() {
        let mut pool = pool("192.0.2.8/29");
        pool.keep(ip("192.0.2.12"), ip("192.0.2.14"));
        let free: Vec<_> = std::iter::from_fn(|| pool.take(None).ok()).collect();
        assert_eq!(free, [ip("192.0.2.9"), ip("192.0.2.11")]);
        assert_eq!(pool.take(Some(ip("192.0.2.13"))), Ok(ip("192.0.2.13")));
    }

    #[test]
    fn what_a_route_leads_to_is_given_to_who_asks() {
        let mut pool = pool("192.0.2.8/29");
        pool.keep_routers(&[ip("192.0.2.9"), ip("192.0.2.12"), ip("10.0.0.1"), ip("fd00::9")]);
        let free: Vec<_> = std::iter::from_fn(|| pool.take(None).ok()).collect();
        assert_eq!(free, ["192.0.2.11", "192.0.2.13", "192.0.2.14"].map(ip));
        assert_eq!(pool.take(Some(ip("192.0.2.12"))), Ok(ip("192.0.2.12")));
        pool.keep_routers(&[]);
        assert_eq!(pool.take(None), Ok(ip("192.0.2.9")));
    }

    #[test]
    fn an_address_given_back_is_not_the_next_one() {
        let mut pool = pool("10.0.2.0/24");
        let first = pool.take(None).expect("free");
        pool.release(first);
        assert_ne!(pool.take(None), Ok(first));
    }

    #[test]
    fn wanted_addresses_are_checked() {
        let mut pool = pool("10.0.2.0/24");
        assert_eq!(pool.take(Some(ip("10.0.2.7"))), Ok(ip("10.0.2.7")));
        assert_eq!(
            pool.take(Some(ip("10.0.2.7"))),
            Err(Refused::Taken(ip("10.0.2.7")))
        );
        assert_eq!(
            pool.take(Some(ip("10.0.2.2"))),
            Err(Refused::Gateway(ip("10.0.2.2")))
        );
        assert!(matches!(
            pool.take(Some(ip("10.0.2.255"))),
            Err(Refused::NoHost(..))
        ));
        assert!(matches!(
            pool.take(Some(ip("10.0.3.1"))),
            Err(Refused::Outside(..))
        ));
        assert!(matches!(
            pool.take(Some(ip("fd00::1"))),
            Err(Refused::Outside(..))
        ));
    }

    #[test]
    fn a_part_of_the_subnet_is_given_from_and_what_is_reserved_is_not() {
        let net: IpNet = "172.18.0.0/16".parse().expect("net");
        let gateway = Pool::first_host(net).expect("room");
        assert_eq!(gateway, ip("172.18.0.1"));
        let part = "172.18.5.0/29".parse().expect("net");
        let reserved = [ip("172.18.5.2"), ip("172.18.200.1")];
        let mut pool = Pool::of_subnet(net, Some(gateway), Some(part), &reserved).expect("usable");
        let given: Vec<_> = std::iter::from_fn(|| pool.take(None).ok()).collect();
        let expected: Vec<_> = [0, 1, 3, 4, 5, 6, 7]
            .map(|n| ip(&format!("172.18.5.{n}")))
            .to_vec();
        assert_eq!(given, expected);
        assert_eq!(pool.take(None), Err(Refused::Full(part)));
        assert_eq!(pool.take(Some(ip("172.18.5.2"))), Ok(ip("172.18.5.2")));
        assert_eq!(pool.take(Some(ip("172.18.0.9"))), Ok(ip("172.18.0.9")));
        let outside = "172.19.0.0/24".parse().expect("net");
        assert!(matches!(
            Pool::of_subnet(net, None, Some(outside), &[]),
            Err(Refused::RangeOutside(..))
        ));
        let mut lan = Pool::of_subnet("192.0.2.0/30".parse().expect("net"), None, None, &[]).expect("usable");
        assert_eq!(lan.take(None), Ok(ip("192.0.2.1")));
    }

    #[test]
    fn subnets_are_checked() {
        let new = |net: &str, gateway: Option<&str>| Pool::new(net.parse().expect("net"), gateway.map(ip));
        assert!(matches!(new("10.0.0.1/32", None), Err(Refused::TooSmall(_))));
        assert!(matches!(new("127.0.0.0/8", None), Err(Refused::Unusable(..))));
        assert!(matches!(
            new("10.0.0.0/24", Some("10.0.1.1")),
            Err(Refused::Outside(..))
        ));
        assert!(matches!(
            new("10.0.0.0/24", Some("10.0.0.0")),
            Err(Refused::NoHost(..))
        ));
        assert_eq!(
            new("10.0.0.77/24", Some("10.0.0.1")).expect("usable").gateway(),
            Some(ip("10.0.0.1"))
        );
        assert!(new("::/0", None).is_err());
    }

    #[test]
    fn sixteen_bits_of_hosts_and_more_do_not_overflow() {
        for net in ["10.0.0.0/8", "2001:db8::/32", "fd00::/8"] {
            assert!(pool(net).take(None).is_ok(), "{net}");
        }
    }
}
