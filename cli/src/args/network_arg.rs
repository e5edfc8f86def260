//! `NETWORK[:KEY=VALUE,…]`: an interface on a network, as `--network` takes it.
//!
//! | key | means |
//! |---|---|
//! | `ip`, `ip6`, `mac` | the address wanted |
//! | `alias` | a further name on this network; repeatable |
//! | `gw-priority` | the higher, the sooner the default route leads here |
//! | `vlan` | the VLAN that the interface is in |
//!
//! Names have no colon, so the first one ends the name, whatever the addresses after it have. For `run`, three words in the
//! place of a name say what the container has instead of interfaces of its own.

use std::fmt::Display;
use std::str::FromStr;

use super::values::{parse_container, parse_domain, parse_host4, parse_host6, parse_mac, parse_network};
use crate::api::EndpointSpec;

/// What `--network` of `run` may say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NetworkArg {
    /// `none`: loopback only.
    None,
    /// `host`: the host's own stack.
    Host,
    /// `container:NAME`: the network namespace of a container that runs already.
    Container(String),
    /// An interface on a network.
    Join(EndpointSpec),
}

impl FromStr for NetworkArg {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            Some(("container", name)) => parse_container(name).map(Self::Container),
            Some((mode @ ("none" | "host"), _)) => Err(format!("`{mode}` takes nothing after it")),
            None if s == "none" => Ok(Self::None),
            None if s == "host" => Ok(Self::Host),
            None if s == "container" => Err("write container:NAME, with the name of a container".to_owned()),
            Some(_) | None => s.parse().map(Self::Join),
        }
    }
}

impl Display for NetworkArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Join(endpoint) => f.write_str(&endpoint.network),
        }
    }
}

impl FromStr for EndpointSpec {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (network, settings) = match s.split_once(':') {
            Some((network, settings)) => (network, Some(settings)),
            None => (s, None),
        };
        let mut endpoint = Self {
            network: parse_network(network)?,
            ..Self::default()
        };
        let mut priority = None;
        for setting in settings.into_iter().flat_map(|s| s.split(',')) {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| format!("`{setting}` is not KEY=VALUE, as ip=10.0.2.7"))?;
            match key {
                "ip" => once(key, &mut endpoint.ip, parse_host4(value)?.into())?,
                "ip6" => once(key, &mut endpoint.ip6, parse_host6(value)?.into())?,
                "mac" => once(key, &mut endpoint.mac, parse_mac(value)?)?,
                "alias" => endpoint.aliases.push(parse_domain(value)?),
                "gw-priority" => once(key, &mut priority, parse_priority(value)?)?,
                "vlan" => once(key, &mut endpoint.vlan, parse_vlan(value)?)?,
                _ => {
                    return Err(format!(
                        "`{key}` is none of ip, ip6, mac, alias, gw-priority and vlan"
                    ));
                }
            }
        }
        endpoint.gw_priority = priority.unwrap_or_default();
        Ok(endpoint)
    }
}

fn once<T>(key: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    if place.replace(value).is_some() {
        Err(format!("`{key}` is given twice"))
    } else {
        Ok(())
    }
}

fn parse_priority(s: &str) -> Result<i32, String> {
    s.parse().map_err(|_| {
        format!(
            "`{s}` is no priority: give a number from {} to {}",
            i32::MIN,
            i32::MAX
        )
    })
}

/// A VLAN's number (IEEE 802.1Q reserves 0 and 4095).
pub(super) fn parse_vlan(s: &str) -> Result<u16, String> {
    match s.parse() {
        Ok(vlan @ 1..=4094) => Ok(vlan),
        Ok(_) | Err(_) => Err(format!("`{s}` is no VLAN: give a number from 1 to 4094")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(s: &str) -> EndpointSpec {
        s.parse().unwrap_or_else(|e| panic!("{s}: {e}"))
    }

    #[test]
    fn a_name_alone() {
        let expected = EndpointSpec {
            network: "shop".into(),
            ..EndpointSpec::default()
        };
        assert_eq!(endpoint("shop"), expected);
        assert_eq!("shop".parse(), Ok(NetworkArg::Join(expected)));
    }

    #[test]
    fn keys_come_in_any_order() {
        let expected = EndpointSpec {
            network: "shop".into(),
            ip: Some("10.0.3.7".parse().unwrap()),
            ip6: Some("fd00:1::7".parse().unwrap()),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            aliases: vec!["db".into(), "db.example.org".into()],
            gw_priority: -5,
            kind: crate::api::EndpointKind::Tap,
            vlan: Some(100),
        };
        for text in [
            "shop:ip=10.0.3.7,ip6=fd00:1::7,mac=02:00:00:00:00:07,alias=db,alias=db.example.org,gw-priority=-5,vlan=100",
            "shop:vlan=100,alias=db,gw-priority=-5,ip6=fd00:1::7,mac=02:00:00:00:00:07,ip=10.0.3.7,alias=db.example.org",
        ] {
            assert_eq!(endpoint(text), expected, "{text}");
        }
    }

    #[test]
    fn words_with_a_meaning() {
        assert_eq!("none".parse(), Ok(NetworkArg::None));
        assert_eq!("host".parse(), Ok(NetworkArg::Host));
        assert_eq!(
            "container:web".parse(),
            Ok(NetworkArg::Container("web".to_owned()))
        );
        for word in ["none", "host", "container:web", "shop"] {
            assert_eq!(word.parse::<NetworkArg>().unwrap().to_string(), word);
        }
    }

    #[test]
    fn refusals_name_the_part() {
        for (text, expected) in [
            ("", "1 to 63"),
            ("a b", "begins with a letter"),
            ("daemon", "`daemon` is reserved"),
            ("shop:", "`` is not KEY=VALUE"),
            ("shop:ip", "`ip` is not KEY=VALUE"),
            ("shop:ip=", "`` is not an IP address"),
            ("shop:ip=fd00::7", "belongs to ip6"),
            ("shop:ip6=10.0.3.7", "belongs to ip"),
            ("shop:ip=0.0.0.0", "not an address that a container can have"),
            ("shop:ip=10.0.3.7,ip=10.0.3.8", "`ip` is given twice"),
            ("shop:gw-priority=0,gw-priority=0", "`gw-priority` is given twice"),
            ("shop:vlan=1,vlan=1", "`vlan` is given twice"),
            ("shop:mac=01:00:00:00:00:01", "unicast"),
            (
                "shop:mac=02:00:00:00:00:01,mac=02:00:00:00:00:01",
                "`mac` is given twice",
            ),
            ("shop:alias=a..b", "not a domain name"),
            ("shop:gw-priority=high", "`high` is no priority"),
            ("shop:vlan=0", "`0` is no VLAN"),
            ("shop:vlan=4095", "`4095` is no VLAN"),
            ("shop:colour=red", "`colour` is none of ip, ip6, mac"),
            ("shop:ip=10.0.3.7,", "`` is not KEY=VALUE"),
            ("none:ip=10.0.3.7", "`none` takes nothing after it"),
            ("host:", "`host` takes nothing after it"),
            ("container", "write container:NAME"),
            ("container:", "1 to 63"),
            ("container:a/b", "begins with a letter"),
            ("container:none", "`none` is reserved"),
            ("Container:x", "`x` is not KEY=VALUE"),
        ] {
            let e = text.parse::<NetworkArg>().expect_err(text);
            assert!(e.contains(expected), "{text}: {e}");
        }
        // Where an interface is meant, the words are no names.
        for text in ["none", "host", "container:web", "daemon"] {
            let e = text.parse::<EndpointSpec>().expect_err(text);
            assert!(e.contains("is reserved"), "{text}: {e}");
        }
    }
}
