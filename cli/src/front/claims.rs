//! Published ports of a network with an uplink: no socket of the host keeps them, so a book is kept of which are taken.
//!
//! A port is taken while its [`Claim`] lives, as it would be while a socket is open: whatever becomes of a container, or of an
//! attachment on its way, the port is free when nobody has the claim any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow, bail};
use pontoon_nat::publish::{PublishSpec, Transport};

/// Where ports are chosen from that nobody has named: those that Linux chooses from for its own sockets.
const CHOSEN: RangeInclusive<u16> = 32_768..=60_999;

/// What is taken: an uplink has one address of each IP version.
type Key = (Transport, bool, u16);

/// The ports of one network's uplink that are published.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Mutex<BTreeSet<Key>>>);

/// A port that is taken while this lives.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    key: Key,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.with(|taken| taken.remove(&self.key));
    }
}

/// One port that was claimed.
#[derive(Debug)]
pub(super) struct Claimed {
    /// Where clients come to.
    pub(super) host: SocketAddr,
    /// The container's port.
    pub(super) container_port: u16,
    /// Keeps it.
    pub(super) claim: Claim,
}

impl Claims {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeSet<Key>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Claims all that `spec` names at the addresses `ips`, at most one of each IP version, or nothing.
    ///
    /// # Errors
    /// What is taken already, in the words of a socket that cannot be bound.
    pub(super) fn claim(&self, spec: &PublishSpec, ips: &[IpAddr]) -> Result<Vec<Claimed>> {
        let protocol = spec.protocol;
        let (first, last) = spec.container_ports;
        let mut all = Vec::new();
        match spec.host_ports {
            None => {
                for container_port in first..=last {
                    let port = self.free(protocol, ips)?;
                    all.extend(self.one(protocol, ips, port, container_port)?);
                }
            }
            Some((low, high)) if first == last && low != high => {
                let free = (low..=high).find_map(|port| self.one(protocol, ips, port, first).ok());
                let Some(claimed) = free else {
                    bail!(
                        "no {protocol} port of {low}-{high} is free on the uplink: name another range of host ports, or none \
                         for any"
                    );
                };
                all.extend(claimed);
            }
            Some((low, high)) => {
                for (host_port, container_port) in (low..=high).zip(first..=last) {
                    all.extend(self.one(protocol, ips, host_port, container_port)?);
                }
            }
        }
        Ok(all)
    }

    /// A port that is free for every address, beginning anywhere.
    fn free(&self, protocol: Transport, ips: &[IpAddr]) -> Result<u16> {
        let count = CHOSEN.end() - CHOSEN.start() + 1;
        let start = random(count);
        self.with(|taken| {
            (0..count)
                .map(|i| CHOSEN.start() + (start + i) % count)
                .find(|&port| {
                    ips.iter()
                        .all(|ip| !taken.contains(&(protocol, ip.is_ipv4(), port)))
                })
        })
        .ok_or_else(|| anyhow!("no {protocol} port is free on the uplink: unpublish some"))
    }

    fn one(
        &self,
        protocol: Transport,
        ips: &[IpAddr],
        port: u16,
        container_port: u16,
    ) -> Result<Vec<Claimed>> {
        let mut claimed = Vec::with_capacity(ips.len());
        for &ip in ips {
            let key = (protocol, ip.is_ipv4(), port);
            let host = SocketAddr::new(ip, port);
            if !self.with(|taken| taken.insert(key)) {
                bail!(
                    "Bind for {host} failed: port is already allocated; choose another host port, or see who has it: pontoon ps"
                );
            }
            claimed.push(Claimed {
                host,
                container_port,
                claim: Claim {
                    claims: self.clone(),
                    key,
                },
            });
        }
        Ok(claimed)
    }
}

/// A number below `count`. That it differs from time to time is all that matters.
fn random(count: u16) -> u16 {
    let mut bytes = [0u8; 2];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) => u16::from_ne_bytes(bytes) % count,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(claims: &Claims, spec: &str) -> Result<Vec<Claimed>> {
        let any: [IpAddr; 2] = [[0, 0, 0, 0].into(), std::net::Ipv6Addr::UNSPECIFIED.into()];
        claims.claim(&spec.parse().expect(spec), &any)
    }

    fn hosts(claimed: &[Claimed]) -> Vec<String> {
        claimed
            .iter()
            .map(|c| format!("{}>{}", c.host, c.container_port))
            .collect()
    }

    #[test]
    fn a_port_is_taken_while_its_claim_lives() {
        let claims = Claims::default();
        let held = ports(&claims, "8080:80").expect("free");
        assert_eq!(hosts(&held), ["0.0.0.0:8080>80", "[::]:8080>80"]);
        let error = ports(&claims, "8079-8080:80-81").expect_err("taken").to_string();
        assert!(
            error.starts_with("Bind for 0.0.0.0:8080 failed: port is already allocated"),
            "{error}"
        );
        ports(&claims, "8079:80").expect("what the refused range had is free again");
        ports(&claims, "8080:80/udp").expect("another protocol is another port");
        drop(held);
        ports(&claims, "8080:80").expect("free again");
    }

    #[test]
    fn an_address_of_one_version_leaves_the_other_alone() {
        let claims = Claims::default();
        let of = |ip: &str| {
            claims.claim(
                &"8080:80".parse().expect("a spec"),
                &[ip.parse().expect("an address")],
            )
        };
        let four = of("192.0.2.9").expect("free");
        let six = of("::").expect("free");
        of("0.0.0.0").expect_err("there is one address of that version");
        drop((four, six));
    }

    #[test]
    fn ports_are_chosen_where_nobody_is() {
        let claims = Claims::default();
        let all: Vec<Vec<Claimed>> = (0..100).map(|_| ports(&claims, "80-82").expect("free")).collect();
        let chosen: BTreeSet<u16> = all.iter().flatten().map(|c| c.host.port()).collect();
        assert_eq!(chosen.len(), 300);
        assert!(chosen.iter().all(|port| CHOSEN.contains(port)));
        assert!(
            all.iter().all(|c| c[0].host.port() == c[1].host.port()),
            "the same in both versions"
        );
        let low = ports(&claims, "9000-9001:80").expect("free");
        let high = ports(&claims, "9000-9001:80").expect("free");
        assert_eq!((low[0].host.port(), high[0].host.port()), (9000, 9001));
        ports(&claims, "9000-9001:80").expect_err("both are taken");
    }
}
