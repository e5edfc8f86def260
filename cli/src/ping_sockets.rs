//! The raw sockets by which a gateway pings where the host shuts ping sockets out.
//!
//! `net.ipv4.ping_group_range` says which groups may open ping sockets; its default in the kernel is nobody, root included.
//! Root may open a raw socket instead, and does so here, because the packet process has no capabilities. For an ordinary
//! user echo to the outside is then refused, which `pontoon doctor` explains.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use pontoon_nat::config::Outbound;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A raw socket for each IP version whose ping sockets cannot be had, as far as the caller may have one.
pub(crate) fn raw_sockets(outbound: &Outbound) -> Vec<OwnedFd> {
    let v4 = outbound.address4.map(IpAddr::V4);
    let v6 = outbound.address6.map(IpAddr::V6);
    [
        (Domain::IPV4, Protocol::ICMPV4, v4),
        (Domain::IPV6, Protocol::ICMPV6, v6),
    ]
    .into_iter()
    .filter(|&(domain, protocol, _)| Socket::new(domain, Type::DGRAM, Some(protocol)).is_err())
    .filter_map(|(domain, protocol, source)| {
        let socket = Socket::new(domain, Type::RAW, Some(protocol)).ok()?;
        if let Some(interface) = &outbound.interface {
            socket.bind_device(Some(interface.as_bytes())).ok()?;
        }
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0))).ok()?;
        }
        Some(socket.into())
    })
    .collect()
}
