//! What a DHCP server lends, as its acknowledgement says (RFC 2132, RFC 3442).

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use pontoon_switch::{Instant, MacAddr};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

/// Routers, routes and name servers of a lease at most.
const ROUTERS: usize = 4;
const ROUTES: usize = 16;
const RESOLVERS: usize = 8;
/// A lease's length in seconds if the server tells none (smoltcp's assumption).
const DEFAULT_LEASE: u32 = 120;
/// The least MTU that IPv4 hosts accept (RFC 791 section 3.1).
pub(super) const MIN_MTU: u16 = 576;

/// What a server lent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Lease {
    pub(in super::super) address: Ipv4Net,
    /// Default routers, the server's favourite first.
    pub(in super::super) routers: Vec<Ipv4Addr>,
    /// Routes to networks; those without a router are on the link.
    pub(in super::super) routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    pub(in super::super) resolvers: Vec<Ipv4Addr>,
    pub(in super::super) mtu: Option<u16>,
    pub(super) server: Ipv4Addr,
    pub(super) expires: Instant,
}

/// What a server answers to a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// DHCPACK.
    Granted(Lease),
    /// DHCPNAK.
    Refused,
}

/// The answer that `message` is to `transaction` of `mac`'s, if it is one.
pub(super) fn answer(now: Instant, mac: MacAddr, transaction: u32, message: &[u8]) -> Option<Answer> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let repr = DhcpRepr::parse(&packet).ok()?;
    if repr.transaction_id != transaction || repr.client_hardware_address != mac.into() {
        return None;
    }
    match repr.message_type {
        DhcpMessageType::Ack => Lease::granted(now, &packet, &repr).map(Answer::Granted),
        DhcpMessageType::Nak => repr.server_identifier.map(|_| Answer::Refused),
        _ => None,
    }
}

impl Lease {
    /// The lease that an acknowledgement grants; none if it lacks what smoltcp's socket insists on.
    fn granted(now: Instant, packet: &DhcpPacket<&[u8]>, repr: &DhcpRepr<'_>) -> Option<Self> {
        let mask = repr.subnet_mask?;
        let prefix = ipnet::ipv4_mask_to_prefix(mask).ok()?;
        let mut lease = Self {
            address: Ipv4Net::new(repr.your_ip, prefix).ok()?,
            routers: Vec::new(),
            routes: Vec::new(),
            resolvers: Vec::new(),
            mtu: None,
            server: repr.server_identifier?,
            expires: now + Duration::from_secs(repr.lease_duration.unwrap_or(DEFAULT_LEASE).into()),
        };
        let mut classless = None;
        for option in packet.options() {
            match option.kind {
                3 => lease.routers = addresses(option.data, ROUTERS),
                6 => lease.resolvers = addresses(option.data, RESOLVERS),
                26 => {
                    let mtu = option.data.first_chunk::<2>().map(|m| u16::from_be_bytes(*m));
                    lease.mtu = mtu.filter(|&mtu| mtu >= MIN_MTU);
                }
                121 => classless = Some(routes(option.data)),
                _ => {}
            }
        }
        if let Some(routes) = classless {
            // RFC 3442: where there are such routes the router option is not looked at.
            let default = |net: &Ipv4Net| net.prefix_len() == 0;
            let defaults = routes.iter().filter(|(net, _)| default(net));
            lease.routers = defaults.filter_map(|&(_, router)| router).collect();
            lease.routes = routes.into_iter().filter(|(net, _)| !default(net)).collect();
        }
        Some(lease)
    }
}

/// True if two leases are the same but for their end.
pub(super) fn same(a: Option<&Lease>, b: Option<&Lease>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => {
            let expires = a.expires;
            *a == Lease { expires, ..b.clone() }
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The first addresses of a list, those that a host may have.
fn addresses(data: &[u8], most: usize) -> Vec<Ipv4Addr> {
    let all = data.chunks_exact(4).filter_map(|a| a.first_chunk::<4>());
    let all = all.map(|a| Ipv4Addr::from(*a));
    all.filter(|a| is_host(*a)).take(most).collect()
}

fn is_host(addr: Ipv4Addr) -> bool {
    !addr.is_unspecified() && !addr.is_multicast() && !addr.is_broadcast() && !addr.is_loopback()
}

/// The routes of RFC 3442: for each the prefix length, as many octets of the destination as that needs, and the router.
fn routes(mut data: &[u8]) -> Vec<(Ipv4Net, Option<Ipv4Addr>)> {
    let mut routes = Vec::new();
    while let Some((&len, rest)) = data.split_first()
        && routes.len() < ROUTES
    {
        let octets = usize::from(len).div_ceil(8);
        let Some((significant, rest)) = rest.split_at_checked(octets.min(4)) else {
            break;
        };
        let Some((router, rest)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let mut net = [0; 4];
        net[..significant.len()].copy_from_slice(significant);
        let Ok(net) = Ipv4Net::new(net.into(), len) else {
            break;
        };
        let router = Ipv4Addr::from(*router);
        routes.push((net.trunc(), is_host(router).then_some(router)));
        data = rest;
    }
    routes
}
