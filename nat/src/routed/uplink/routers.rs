//! Which neighbour a packet goes to next (RFC 4861 section 5.2, RFC 1122 section 3.3.1).
//!
//! Among the default routers the first that answers is taken: one that is known to be there before one of whom nothing is
//! known, and one that does not answer last of all. Those that do not answer are asked again every few seconds
//! ([`super::neighbours`]), so that the first takes its place again.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::Uplink;
use super::slaac::Discovery;
use crate::routed::config::LinkKind;

impl Uplink {
    /// The neighbour that a packet to `dst` goes to: `dst` itself if it is on the link, else a router of that version. None if
    /// there is no way, or if nobody may be sent to there: our own addresses, groups, broadcast.
    pub fn hop(&self, dst: IpAddr) -> Option<IpAddr> {
        match self.config.kind {
            LinkKind::Peer { .. } => return Some(dst),
            LinkKind::World { .. } => {}
        }
        if self.owns(dst) || !self.is_host(dst) {
            return None;
        }
        // Without an address of ours no IPv4 router would hear us; IPv6's know the link-local one.
        if dst.is_ipv4() && self.address(dst).is_none() {
            return None;
        }
        if self.on_link(dst) {
            return Some(dst);
        }
        if let Some(router) = self.leased_route(dst) {
            return Some(router);
        }
        let fit = self.routers().filter(|r| r.is_ipv4() == dst.is_ipv4());
        fit.min_by_key(|&router| Reverse(self.neighbours.rank(router)))
    }

    /// All routers, best first: those of the configuration, of the lease, of advertisements.
    pub(super) fn routers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let leased = self.lease().map_or(&[][..], |lease| &lease.routers);
        let leased = leased.iter().map(|&router| IpAddr::V4(router));
        let advertised = self.discovery.iter().flat_map(Discovery::routers);
        self.gateways.iter().copied().chain(leased).chain(advertised)
    }

    fn on_link(&self, dst: IpAddr) -> bool {
        let advertised = match dst {
            IpAddr::V4(_) => false,
            IpAddr::V6(dst) => {
                let discovery = self.discovery.as_ref();
                dst.is_unicast_link_local() || discovery.is_some_and(|d| d.on_link(dst))
            }
        };
        advertised || self.addresses.on_link(dst)
    }

    /// The router of the lease's routes to networks: that of the longest prefix.
    fn leased_route(&self, dst: IpAddr) -> Option<IpAddr> {
        let IpAddr::V4(dst) = dst else {
            return None;
        };
        let routes = self.lease()?.routes.iter();
        let fit = routes.filter(|(net, _)| net.contains(&dst));
        let &(_, router) = fit.max_by_key(|(net, _)| net.prefix_len())?;
        // Without a router the network is on the link (RFC 3442).
        Some(router.unwrap_or(dst).into())
    }

    /// True unless `addr` is of a group, of all, or of nobody.
    pub(super) fn is_host(&self, addr: IpAddr) -> bool {
        let broadcast = match addr {
            IpAddr::V4(addr) => addr.is_broadcast() || self.addresses.is_broadcast(addr),
            IpAddr::V6(_) => false,
        };
        !broadcast && !addr.is_multicast() && !addr.is_unspecified() && !addr.is_loopback()
    }
}
