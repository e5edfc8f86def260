//! Binding the host's side of published ports, so that a taken port is known at once and a low port works where the user
//! may have it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Result, anyhow, bail};
use pontoon_nat::publish::{PublishSpec, Transport};
use pontoon_switch::calls::{Arg, Call};
use socket2::{Domain, Protocol, Socket, Type};

/// The system calls of [`one`].
pub(crate) const CALLS: &[Call] = &[
    Call::only(
        libc::SYS_socket,
        &[
            &[
                Arg::is(0, libc::AF_INET as u32),
                Arg::masked(1, 0xf, libc::SOCK_STREAM as u32),
                Arg::is(2, libc::IPPROTO_TCP as u32),
            ],
            &[
                Arg::is(0, libc::AF_INET as u32),
                Arg::masked(1, 0xf, libc::SOCK_DGRAM as u32),
                Arg::is(2, libc::IPPROTO_UDP as u32),
            ],
        ],
        "the host's side of a published port",
    ),
    Call::only(
        libc::SYS_setsockopt,
        &[&[
            Arg::is(1, libc::SOL_SOCKET as u32),
            Arg::is(2, libc::SO_REUSEADDR as u32),
        ]],
        "old connections do not keep the port",
    ),
    Call::any(libc::SYS_bind, "the port"),
    Call::any(libc::SYS_listen, "clients"),
    Call::any(libc::SYS_getsockname, "the port that it really is"),
];

/// Connections that may wait to be accepted; the system's own limit (`net.core.somaxconn`) counts as well.
const BACKLOG: i32 = 4096;
/// Tries for a random port that is free for both families.
const TRIES: usize = 64;

/// One bound socket.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) protocol: Transport,
    /// Where it is bound, with the port it really has.
    pub(crate) host: SocketAddr,
    pub(crate) container_port: u16,
    pub(crate) socket: OwnedFd,
}

/// The IP versions of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Versions {
    /// IPv4 only.
    V4,
    /// Both.
    Both,
}

/// Sockets that `spec` takes, at most.
pub(crate) fn sockets_of(spec: &PublishSpec, versions: Versions) -> usize {
    let (first, last) = spec.container_ports;
    (usize::from(last) - usize::from(first) + 1) * addresses(spec, versions).len()
}

fn addresses(spec: &PublishSpec, versions: Versions) -> Vec<IpAddr> {
    match (spec.host_ip, versions) {
        (Some(ip), _) => vec![ip],
        (None, Versions::V4) => vec![Ipv4Addr::UNSPECIFIED.into()],
        (None, Versions::Both) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Binds all that `spec` names, or nothing.
pub(crate) fn bind(spec: &PublishSpec, versions: Versions) -> Result<Vec<Bound>> {
    let ips = addresses(spec, versions);
    if versions == Versions::V4
        && let Some(IpAddr::V6(ip)) = spec.host_ip
    {
        bail!("{ip} cannot be published: the network has no IPv6");
    }
    let (first, last) = spec.container_ports;
    let mut all = Vec::new();
    match spec.host_ports {
        None => {
            for container_port in first..=last {
                all.extend(bind_random(spec.protocol, &ips, container_port)?);
            }
        }
        Some((low, high)) if first == last && low != high => {
            all.extend(bind_first_free(spec.protocol, &ips, low, high, first)?);
        }
        Some((low, high)) => {
            for (host_port, container_port) in (low..=high).zip(first..=last) {
                all.extend(
                    bind_port(spec.protocol, &ips, host_port, container_port)
                        .map_err(|(at, e)| explain(spec.protocol, at, &e))?,
                );
            }
        }
    }
    Ok(all)
}

/// Binds one socket.
pub(crate) fn one(protocol: Transport, at: SocketAddr) -> Result<OwnedFd> {
    match bind_one(protocol, at) {
        Ok((socket, _)) => Ok(socket),
        Err(e) => Err(explain(protocol, at, &e)),
    }
}

type Failed = (SocketAddr, io::Error);

fn bind_random(protocol: Transport, ips: &[IpAddr], container_port: u16) -> Result<Vec<Bound>> {
    let mut last = None;
    for _ in 0..TRIES {
        match bind_port(protocol, ips, 0, container_port) {
            Ok(bound) => return Ok(bound),
            // The port that the first family got is taken in the other.
            Err((at, e)) if e.kind() == io::ErrorKind::AddrInUse => last = Some((at, e)),
            Err((at, e)) => return Err(explain(protocol, at, &e)),
        }
    }
    match last {
        Some((at, e)) => Err(explain(protocol, at, &e)),
        None => bail!("no host port is free"),
    }
}

fn bind_first_free(
    protocol: Transport,
    ips: &[IpAddr],
    low: u16,
    high: u16,
    container_port: u16,
) -> Result<Vec<Bound>> {
    for port in low..=high {
        match bind_port(protocol, ips, port, container_port) {
            Ok(bound) => return Ok(bound),
            Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err((at, e)) => return Err(explain(protocol, at, &e)),
        }
    }
    bail!(
        "no {protocol} port of {low}-{high} is free on the host: name another range of host ports, or none for any"
    )
}

/// One port of every address in `ips`; port 0 means any, the same for all.
fn bind_port(
    protocol: Transport,
    ips: &[IpAddr],
    port: u16,
    container_port: u16,
) -> Result<Vec<Bound>, Failed> {
    let mut bound: Vec<Bound> = Vec::with_capacity(ips.len());
    for &ip in ips {
        let port = bound.first().map_or(port, |b| b.host.port());
        let at = SocketAddr::new(ip, port);
        match bind_one(protocol, at) {
            Ok((socket, host)) => bound.push(Bound {
                protocol,
                host,
                container_port,
                socket,
            }),
            // `All addresses` on a host without IPv6 means those of IPv4.
            Err(e) if !bound.is_empty() && is_family_missing(&e) => {}
            Err(e) => return Err((at, e)),
        }
    }
    Ok(bound)
}

fn is_family_missing(e: &io::Error) -> bool {
    let code = e.raw_os_error();
    [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL]
        .iter()
        .any(|n| code == Some(n.raw_os_error()))
}

fn bind_one(protocol: Transport, at: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let (kind, number) = match protocol {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(
        Domain::for_address(at),
        kind.nonblocking().cloexec(),
        Some(number),
    )?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol == Transport::Tcp {
        // Old connections that linger in TIME_WAIT do not keep a port taken. For UDP it would let two bind one port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if protocol == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    let host = socket.local_addr()?.as_socket().unwrap_or(at);
    Ok((socket.into(), host))
}

/// The error of a bind, in Docker's words as far as they go, and what to do.
fn explain(protocol: Transport, at: SocketAddr, e: &io::Error) -> anyhow::Error {
    let port = at.port();
    match e.kind() {
        io::ErrorKind::AddrInUse => {
            let letter = match protocol {
                Transport::Tcp => 't',
                Transport::Udp => 'u',
            };
            anyhow!(
                "Bind for {at} failed: port is already allocated; choose another host port, or see who has it: \
                 ss -{letter}lnp 'sport = :{port}'"
            )
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "Bind for {at} failed: permission denied; ports below net.ipv4.ip_unprivileged_port_start (1024 unless it was changed) \
                 are not for ordinary users: choose a higher host port, or have the administrator lower that"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("Bind for {at} failed: {} is not an address of this host", at.ip())
        }
        _ if e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            anyhow!(
                "Bind for {at} failed: the limit of open files is reached; publish fewer ports or raise `ulimit -n`"
            )
        }
        _ => anyhow!("Bind for {at} failed: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PublishSpec {
        text.parse().expect("spec")
    }

    #[test]
    fn a_random_port_is_the_same_in_both_families() {
        for text in ["80", "53/udp"] {
            let bound = bind(&spec(text), Versions::Both).expect("free port");
            assert!(
                bound
                    .iter()
                    .all(|b| b.host.port() == bound[0].host.port() && b.host.port() != 0)
            );
            assert!(bound.len() <= sockets_of(&spec(text), Versions::Both));
        }
    }

    #[test]
    fn a_taken_port_is_refused_for_either_protocol_and_the_range_with_it() {
        for protocol in ["tcp", "udp"] {
            let taken = bind(&spec(&format!("127.0.0.1::80/{protocol}")), Versions::Both).expect("free port");
            let port = taken[0].host.port();
            let e = bind(&spec(&format!("127.0.0.1:{port}:80/{protocol}")), Versions::Both)
                .expect_err("taken")
                .to_string();
            assert!(
                e.starts_with(&format!(
                    "Bind for 127.0.0.1:{port} failed: port is already allocated"
                )),
                "{e}"
            );
            let below = port - 1;
            assert!(
                bind(
                    &spec(&format!("127.0.0.1:{below}-{port}:80-81/{protocol}")),
                    Versions::Both
                )
                .is_err()
            );
        }
    }

    #[test]
    fn the_first_free_of_a_range_is_taken() {
        let taken = bind(&spec("127.0.0.1::80"), Versions::Both).expect("free port");
        let port = taken[0].host.port();
        let (low, high) = if port < 65_000 {
            (port, port + 5)
        } else {
            (port - 5, port)
        };
        let bound = bind(&spec(&format!("127.0.0.1:{low}-{high}:80")), Versions::Both).expect("one is free");
        assert_eq!(bound.len(), 1);
        assert!((low..=high).contains(&bound[0].host.port()) && bound[0].host.port() != port);
    }

    #[test]
    fn an_address_of_somebody_else_is_named() {
        let e = bind(&spec("192.0.2.1:8080:80"), Versions::Both)
            .expect_err("not ours")
            .to_string();
        assert!(e.contains("192.0.2.1 is not an address of this host"), "{e}");
    }
}
