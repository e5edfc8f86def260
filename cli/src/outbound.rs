//! Where outgoing sockets are bound: `--outbound`, held against what the host has.

use std::io;
use std::net::{IpAddr, UdpSocket};

use anyhow::{Result, bail};
use pontoon_nat::config::Outbound;

use crate::args;

/// Puts the options together.
///
/// # Errors
/// An address or an interface that the host does not have.
pub(crate) fn resolve(wanted: &[args::Outbound]) -> Result<Outbound> {
    let mut outbound = Outbound::default();
    for one in wanted {
        match one {
            args::Outbound::Address(ip) => {
                check_address(*ip)?;
                match ip {
                    IpAddr::V4(ip) => outbound.address4 = Some(*ip),
                    IpAddr::V6(ip) => outbound.address6 = Some(*ip),
                }
            }
            args::Outbound::Interface(name) => {
                check_interface(name)?;
                outbound.interface = Some(name.clone());
            }
        }
    }
    Ok(outbound)
}

/// An address that a socket can be bound to is the host's own.
pub(crate) fn check_address(ip: IpAddr) -> Result<()> {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {
            bail!("--outbound {ip} is not an address of this host: `ip address` lists those that are")
        }
        Err(e) => bail!("--outbound {ip} cannot be sent from: {e}"),
    }
}

fn check_interface(name: &str) -> Result<()> {
    let mut interfaces: Vec<String> = pnet::datalink::interfaces().into_iter().map(|i| i.name).collect();
    if interfaces.iter().any(|i| i == name) {
        return Ok(());
    }
    interfaces.sort();
    bail!(
        "--outbound {name} is not an interface of this host, which has {}",
        interfaces.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_has_is_taken_and_the_rest_is_named() {
        let wanted = |list: &[&str]| resolve(&list.iter().map(|o| o.parse().unwrap()).collect::<Vec<_>>());
        let outbound = wanted(&["127.0.0.1", "lo"]).unwrap();
        assert_eq!(outbound.address4, Some(std::net::Ipv4Addr::LOCALHOST));
        assert_eq!(outbound.interface.as_deref(), Some("lo"));
        assert_eq!(wanted(&[]).unwrap(), Outbound::default());
        // For documentation (RFC 5737), so nobody's.
        let e = wanted(&["203.0.113.99"]).unwrap_err().to_string();
        assert!(e.contains("203.0.113.99 is not an address of this host"), "{e}");
        let e = wanted(&["nodev0"]).unwrap_err().to_string();
        assert!(
            e.contains("nodev0 is not an interface") && e.contains("lo"),
            "{e}"
        );
    }
}
