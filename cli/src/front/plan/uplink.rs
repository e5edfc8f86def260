//! A network's uplink as it is to be: complete, so that the one which is made of it anew is the same.

use std::io::Read;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use pontoon_nat::routed::{Addressing4, Addressing6, LinkKind, Mapping, Nat};
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::api::UplinkSpec;
use crate::args::{LinkMac, LinkTo, MIN_MTU_IPV6, UplinkAddress4, UplinkAddress6, UplinkLink};
use crate::front::place::Known;

/// What an uplink is to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Uplink {
    /// What it is made of.
    pub(crate) link: UplinkLink,
    /// The gateway's MAC address on it; the interface's if none.
    pub(crate) mac: Option<MacAddr>,
    /// The IPv4 address. On a switch none until the network there has given one.
    pub(crate) ipv4: Option<Addressing4>,
    /// The IPv6 address, likewise.
    pub(crate) ipv6: Option<Addressing6>,
    /// What is done to packets, and how large they are.
    pub(crate) tuning: Tuning,
    /// The user whose a namespace must be that the link leads into.
    pub(crate) uid: u32,
    /// The process whose namespace it is, so that it is known again.
    pub(in crate::front) process: Option<Known>,
}

/// What is rarely wanted otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tuning {
    /// What is done with IPv4 addresses.
    pub(crate) nat4: Nat,
    /// What is done with IPv6 addresses.
    pub(crate) nat6: Nat,
    /// How ports are mapped.
    pub(crate) mapping: Mapping,
    /// MTU in bytes; the link's if none.
    pub(crate) mtu: Option<u16>,
}

impl Uplink {
    /// The uplink of the network `name` that the user `uid` asks for.
    ///
    /// # Errors
    /// Values that do not fit each other.
    pub(crate) fn of(spec: &UplinkSpec, name: &str, tuning: Tuning, uid: u32) -> Result<Self> {
        spec.check()?;
        let gateway = |v4: bool| spec.gateways.iter().copied().find(|g| g.is_ipv4() == v4);
        let on_switch = matches!(spec.link.to, LinkTo::Switch(_));
        let ipv4 = match spec.address {
            Some(UplinkAddress4::Dhcp) => Some(Addressing4::Dhcp),
            Some(UplinkAddress4::Fixed(address)) => Some(Addressing4::Static {
                address,
                gateway: match gateway(true) {
                    Some(IpAddr::V4(gateway)) => Some(gateway),
                    Some(IpAddr::V6(_)) | None => None,
                },
            }),
            None if spec.address6.is_none() && !on_switch => Some(Addressing4::Dhcp),
            None => None,
        };
        let ipv6 = spec.address6.map(|address| match address {
            UplinkAddress6::Slaac => Addressing6::Slaac,
            UplinkAddress6::Fixed(address) => Addressing6::Static {
                address,
                gateway: match gateway(false) {
                    Some(IpAddr::V6(gateway)) => Some(gateway),
                    Some(IpAddr::V4(_)) | None => None,
                },
            },
        });
        let uplink = Self {
            link: spec.link.clone(),
            mac: match spec.link.mac {
                LinkMac::Own => Some(own_mac(name, uid)),
                LinkMac::Host => None,
                LinkMac::Fixed(mac) => Some(mac),
            },
            ipv4,
            ipv6,
            tuning,
            uid,
            process: None,
        };
        if let Some(mtu) = tuning.mtu {
            uplink.check_mtu(mtu.into())?;
        }
        Ok(uplink)
    }

    /// Whether the MTU of the link does for what is to go by it.
    pub(in crate::front) fn check_mtu(&self, mtu: u32) -> Result<()> {
        ensure!(
            self.ipv6.is_none() || mtu >= MIN_MTU_IPV6,
            "IPv6 on the uplink needs an MTU of {MIN_MTU_IPV6} and more, and it has {mtu}: leave --uplink-address6 out, or \
             raise it"
        );
        Ok(())
    }

    /// The networks of its fixed addresses.
    pub(in crate::front) fn fixed_nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.fixed().into_iter().map(|net| net.trunc())
    }

    /// Its fixed addresses with their prefixes.
    pub(in crate::front) fn fixed(&self) -> Vec<IpNet> {
        let four = match self.ipv4 {
            Some(Addressing4::Static { address, .. }) => Some(IpNet::V4(address)),
            Some(Addressing4::Dhcp) | None => None,
        };
        let six = match self.ipv6 {
            Some(Addressing6::Static { address, .. }) => Some(IpNet::V6(address)),
            Some(Addressing6::Slaac) | None => None,
        };
        four.into_iter().chain(six).collect()
    }

    /// The routers that go with them.
    pub(in crate::front) fn fixed_gateways(&self) -> Vec<IpAddr> {
        let four = match self.ipv4 {
            Some(Addressing4::Static { gateway, .. }) => gateway.map(IpAddr::V4),
            Some(Addressing4::Dhcp) | None => None,
        };
        let six = match self.ipv6 {
            Some(Addressing6::Static { gateway, .. }) => gateway.map(IpAddr::V6),
            Some(Addressing6::Slaac) | None => None,
        };
        four.into_iter().chain(six).collect()
    }

    /// Sees that the link's own networks, as far as they are known, are none of the network's `subnets`.
    ///
    /// # Errors
    /// Some overlap: then nobody could say on which side an address is.
    pub(crate) fn check_apart(&self, subnets: impl Iterator<Item = IpNet> + Clone) -> Result<()> {
        for net in self.fixed_nets() {
            for subnet in subnets.clone() {
                ensure!(
                    !net.contains(&subnet) && !subnet.contains(&net),
                    "the uplink's network {net} and the network's own subnet {subnet} overlap, so nobody could say where an \
                     address is: choose another --subnet"
                );
            }
        }
        Ok(())
    }

    /// What the packet process is told.
    pub(in crate::front) fn kind(&self) -> LinkKind {
        LinkKind::World {
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            nat4: self.tuning.nat4,
            nat6: self.tuning.nat6,
            mapping: self.tuning.mapping,
        }
    }
}

/// A locally administered address that is the same for a network of that name of that user on this machine, so that a DHCP
/// server knows it again, and another on other machines of the same link.
fn own_mac(name: &str, uid: u32) -> MacAddr {
    let mut machine = String::new();
    // Without it, names alone have to tell networks apart: mac= is there for who has the same twice.
    if let Ok(mut file) = std::fs::File::open("/etc/machine-id") {
        let _ = file.read_to_string(&mut machine);
    }
    let [a, b, c, d] = hash(&[machine.trim(), &uid.to_string(), name]).to_be_bytes();
    MacAddr::local([0x06, 0x50, a, b, c, d])
}

/// FNV-1a of 32 bits: it must stay the same, and nothing depends on its being hard to guess.
fn hash(parts: &[&str]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> UplinkSpec {
        serde_json::from_str(json).expect(json)
    }

    fn of(json: &str) -> Uplink {
        Uplink::of(&spec(json), "shop", Tuning::default(), 0).expect(json)
    }

    #[test]
    fn without_addresses_there_is_dhcp_but_on_a_switch() {
        let plain = of(r#"{"link": "packet:eth1"}"#);
        assert_eq!((plain.ipv4, plain.ipv6), (Some(Addressing4::Dhcp), None));
        let six = of(r#"{"link": "tap:wan0", "address6": "slaac"}"#);
        assert_eq!((six.ipv4, six.ipv6), (None, Some(Addressing6::Slaac)));
        let switch = of(r#"{"link": "switch:outer"}"#);
        assert_eq!((switch.ipv4, switch.ipv6), (None, None));
        let fixed = of(
            r#"{"link": "veth:wan0@router", "address": "192.0.2.9/24", "address6": "2001:db8::9/64",
                "gateways": ["fe80::1", "192.0.2.1"]}"#,
        );
        assert_eq!(
            fixed.ipv4,
            Some(Addressing4::Static {
                address: "192.0.2.9/24".parse().expect("a net"),
                gateway: Some("192.0.2.1".parse().expect("an address")),
            })
        );
        assert_eq!(
            fixed.ipv6,
            Some(Addressing6::Static {
                address: "2001:db8::9/64".parse().expect("a net"),
                gateway: Some("fe80::1".parse().expect("an address")),
            })
        );
    }

    #[test]
    fn the_mac_address_is_its_own_and_stays() {
        let mac = |name: &str, uid| own_mac(name, uid);
        assert_eq!(mac("shop", 0), mac("shop", 0));
        assert!(mac("shop", 0) != mac("shop", 1000) && mac("shop", 0) != mac("back", 0));
        assert_eq!(mac("shop", 0).0[0], 0x06, "locally administered, one host's");
        assert_eq!(hash(&["a"]), 0x2b24_d044);
        assert_eq!(of(r#"{"link": "packet:eth1,mac=host"}"#).mac, None);
        assert_eq!(
            of(r#"{"link": "tap:wan0,mac=02:00:00:00:00:07"}"#).mac,
            Some(MacAddr([2, 0, 0, 0, 0, 7]))
        );
    }

    #[test]
    fn networks_that_overlap_are_refused() {
        let fixed = of(r#"{"link": "packet:eth1", "address": "10.0.2.9/28"}"#);
        let nets = |net: &str| vec![net.parse::<IpNet>().expect("a net")];
        let error = fixed
            .check_apart(nets("10.0.2.0/24").into_iter())
            .expect_err("they overlap")
            .to_string();
        assert!(
            error.contains("10.0.2.0/28") && error.contains("--subnet"),
            "{error}"
        );
        fixed.check_apart(nets("10.0.3.0/24").into_iter()).expect("apart");
    }

    #[test]
    fn ipv6_needs_its_mtu() {
        let tuning = Tuning {
            mtu: Some(1279),
            ..Tuning::default()
        };
        let error = Uplink::of(
            &spec(r#"{"link": "packet:eth1", "address6": "slaac"}"#),
            "shop",
            tuning,
            0,
        )
        .expect_err("too small");
        assert!(error.to_string().contains("1280"), "{error}");
        Uplink::of(&spec(r#"{"link": "packet:eth1"}"#), "shop", tuning, 0).expect("IPv4 takes less");
    }
}
