//! The configuration of an interface: addresses, routes, and the way of replies.
//!
//! # Several interfaces
//!
//! Of several networks one has the default routes of the main table. What comes in by another must be answered by that other,
//! whose switch lets only its own address pass: each interface has a table of its own, with its subnets and its gateway, and a
//! rule for each of its addresses has what is sent *from* it look there first. So a reply leaves as the request came, also
//! when subnets overlap, or when the client has an address of another network. What has no source address yet, a
//! connection about to be made, finds its route in the main table, which has every subnet that there is an interface to; it gets that
//! interface's address as its source. A table without a gateway, as that of an internal network, says nothing about the rest
//! of the world, so that the main table does.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv6Net};
use pontoon_switch::MacAddr;

use crate::netlink::{Entry, Link, MAIN, Netlink, Route};

/// Packets that the interface holds until they are read. A TAP does not hold its senders up: what finds the queue full is
/// lost. When thousands of connections speak at once, as after a pause of the network, all that was lost is sent again
/// at the same instant, and of each such wave little more gets through than the queue holds; with the kernel's 1000 there were
/// connections that had no answer after ten seconds. In that time the container's TCP tries six times: six times this
/// is more than the connections that the usual limit of 20,000 descriptors allows. Twice as much would only be twice the kernel
/// memory and twice the delay that a flood of datagrams can cause.
pub(crate) const QUEUE: u32 = 4096;

/// How an interface is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its MAC address; as it is if none.
    pub(crate) mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub(crate) mtu: u32,
    /// The length of its queue, in packets; as it is if none.
    pub(crate) queue: Option<u32>,
    /// Its addresses with their prefixes.
    pub(crate) addresses: &'a [IpNet],
    /// Routers that it leads to, at most one for each IP version.
    pub(crate) gateways: &'a [IpAddr],
    /// Whether the main table's default routes lead to them.
    pub(crate) default: bool,
    /// The table for replies.
    pub(crate) source_table: Option<u32>,
    /// Further routes, by a router or on the link.
    pub(crate) routes: &'a [(IpNet, Option<IpAddr>)],
    /// What becomes of IPv6.
    pub(crate) ipv6: Ipv6,
}

/// How an interface comes by its IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ipv6 {
    /// There is no IPv6.
    Off,
    /// By us alone: router advertisements are not listened to.
    Given,
    /// As the container's kernel has it, which means by router advertisements unless told otherwise.
    Untouched,
}

impl Ipv6 {
    /// What goes with `addresses`.
    pub(super) fn with(addresses: &[IpNet]) -> Self {
        if addresses.iter().any(|a| matches!(a, IpNet::V6(_))) {
            Self::Given
        } else {
            Self::Off
        }
    }
}

/// Brings the loopback up.
pub(crate) fn loopback_up(netlink: &mut Netlink) -> Result<()> {
    let lo = netlink.link("lo").context("the container has no loopback")?;
    netlink
        .set_up(lo.index)
        .context("cannot bring the container's loopback up")
}

/// Brings an interface up, as `wanted`. When it fails, of its addresses, routes and rules none is left.
pub(crate) fn configure(netlink: &mut Netlink, wanted: &Interface<'_>) -> Result<Link> {
    let name = wanted.name;
    let link = netlink.link(name).context("the interface is gone")?;
    let index = link.index;
    netlink
        .set_link(index, wanted.mac, Some(wanted.mtu), wanted.queue)
        .with_context(|| {
            let mac = wanted.mac.map(|mac| format!("MAC address {mac}, "));
            format!(
                "cannot set {}MTU {} and the queue of {name}",
                mac.unwrap_or_default(),
                wanted.mtu
            )
        })?;
    match wanted.ipv6 {
        Ipv6::Off => disable_ipv6(name),
        // Addresses and routes are ours to set; a container that wants them by router advertisement turns this on.
        // Without duplicate address detection the link-local address, too, works at once.
        Ipv6::Given => {
            for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
                sysctl("ipv6", name, setting, value);
            }
        }
        Ipv6::Untouched => {}
    }
    netlink
        .set_up(index)
        .with_context(|| format!("cannot bring {name} up"))?;
    if let Some(table) = wanted.source_table {
        // Loose: a client may well have an address that the main table would answer by another interface.
        sysctl("ipv4", name, "rp_filter", "2");
        netlink
            .remove_rules(table)
            .with_context(|| format!("cannot clear the rules of table {table}"))?;
    }
    add_all(netlink, &entries(index, wanted), name)?;
    Ok(Link {
        mac: wanted.mac.unwrap_or(link.mac),
        mtu: wanted.mtu,
        up: true,
        ..link
    })
}

/// Adds all, or none.
fn add_all(netlink: &mut Netlink, entries: &[Entry], name: &str) -> Result<()> {
    for (n, entry) in entries.iter().enumerate() {
        if let Err(e) = netlink.add(entry) {
            for done in entries[..n].iter().rev() {
                // With what is left nothing can be done.
                let _ = netlink.remove(done);
            }
            return Err(e).with_context(|| refusal(entry, name));
        }
    }
    Ok(())
}

fn refusal(entry: &Entry, name: &str) -> String {
    match entry {
        Entry::Address { net, .. } => format!("cannot give {name} the address {net}"),
        Entry::Route(Route { to, via, .. }) => match via {
            Some(via) if to.prefix_len() == 0 => format!("cannot add the default route through {via}"),
            Some(via) => format!("cannot add the route to {to} through {via}"),
            None => format!("cannot add the route to {to} on {name}"),
        },
        Entry::Rule { from, table } => {
            format!("cannot have what comes from {from} look into routing table {table}")
        }
    }
}

/// All that an interface is given, in the order in which the kernel takes it. The main table's default routes are last: they
/// take the place of others, which could not be put back.
fn entries(index: u32, wanted: &Interface<'_>) -> Vec<Entry> {
    let route = |to, via, table| {
        Entry::Route(Route {
            to,
            via,
            index,
            table,
        })
    };
    let mut all: Vec<Entry> = Vec::new();
    all.extend(wanted.addresses.iter().map(|&net| Entry::Address { index, net }));
    all.extend(wanted.routes.iter().map(|&(to, via)| route(to, via, MAIN)));
    if let Some(table) = wanted.source_table {
        let subnets = wanted.addresses.iter().map(IpNet::trunc);
        let wide = subnets.filter(|net| net.prefix_len() < net.max_prefix_len());
        all.extend(wide.map(|net| route(net, None, table)));
        if wanted.addresses.iter().any(|a| matches!(a, IpNet::V6(_))) {
            // Or the gateway would be asked for neighbours on the link.
            let link_local = Ipv6Net::new_assert("fe80::".parse().expect("a constant"), 64);
            all.push(route(link_local.into(), None, table));
        }
        all.extend(wanted.routes.iter().map(|&(to, via)| route(to, via, table)));
        all.extend(defaults(wanted.gateways, index, table));
        all.extend(wanted.addresses.iter().map(|a| Entry::Rule {
            from: a.addr(),
            table,
        }));
    }
    if wanted.default {
        all.extend(defaults(wanted.gateways, index, MAIN));
    }
    all
}

fn defaults(gateways: &[IpAddr], index: u32, table: u32) -> impl Iterator<Item = Entry> {
    gateways
        .iter()
        .map(move |&gateway| Entry::Route(Route::default_by(gateway, index, table)))
}

/// Has the main table's default routes lead through the interface `name`, or no longer.
pub(super) fn set_default(netlink: &mut Netlink, name: &str, gateways: &[IpAddr]) -> Result<Link> {
    let link = netlink
        .link(name)
        .with_context(|| format!("there is no interface {name}"))?;
    for ipv4 in [true, false] {
        match gateways.iter().find(|g| g.is_ipv4() == ipv4) {
            Some(&gateway) => {
                let entry = Entry::Route(Route::default_by(gateway, link.index, MAIN));
                netlink.add(&entry).with_context(|| refusal(&entry, name))?;
            }
            None => {
                let any = Entry::Route(Route {
                    to: crate::netlink::everywhere(ipv4),
                    via: None,
                    index: link.index,
                    table: MAIN,
                });
                netlink
                    .remove(&any)
                    .with_context(|| format!("cannot remove the default route on {name}"))?;
            }
        }
    }
    Ok(link)
}

/// Gives the interface `name`, which somebody else configures, the queue that ours have.
pub(crate) fn lengthen_queue(name: &str) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.link(name)?.index;
    Ok(netlink.set_link(index, None, None, Some(QUEUE))?)
}

/// Keeps the kernel from giving an interface a link-local address, and from asking for routers.
pub(super) fn disable_ipv6(name: &str) {
    // A kernel without IPv6 has nothing to turn off.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
}

/// Sets a setting of an interface: `/proc/sys/net` shows the network namespace of whoever looks.
fn sysctl(family: &str, interface: &str, name: &str, value: &str) {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{name}");
    // Where /proc/sys is covered or read-only (inside another container) the defaults have to do.
    if let Err(e) = std::fs::write(&path, value) {
        tracing::warn!("cannot set {path} to {value}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().expect("a network")
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().expect("an address")
    }

    /// As `ip route` and `ip rule` would say it.
    fn said(entry: &Entry) -> String {
        match entry {
            Entry::Address { net, .. } => format!("addr {net}"),
            Entry::Rule { from, table } => format!("from {from} lookup {table}"),
            Entry::Route(Route { to, via, table, .. }) => {
                let via = via.map(|v| format!(" via {v}")).unwrap_or_default();
                format!("{to}{via} table {table}")
            }
        }
    }

    fn all(wanted: &Interface<'_>) -> Vec<String> {
        entries(7, wanted).iter().map(said).collect()
    }

    const PLAIN: Interface<'static> = Interface {
        name: "eth1",
        mac: None,
        mtu: 1500,
        queue: None,
        addresses: &[],
        gateways: &[],
        default: false,
        source_table: None,
        routes: &[],
        ipv6: Ipv6::Given,
    };

    #[test]
    fn an_only_interface_has_the_default_routes() {
        let (addresses, gateways) = (
            [net("10.0.2.3/24"), net("fd00::3/64")],
            [ip("10.0.2.2"), ip("fd00::2")],
        );
        let wanted = Interface {
            addresses: &addresses,
            gateways: &gateways,
            default: true,
            ..PLAIN
        };
        assert_eq!(
            all(&wanted),
            [
                "addr 10.0.2.3/24",
                "addr fd00::3/64",
                "0.0.0.0/0 via 10.0.2.2 table 254",
                "::/0 via fd00::2 table 254",
            ]
        );
    }

    #[test]
    fn one_of_several_answers_by_its_own_table() {
        let (addresses, gateways) = (
            [net("10.1.0.3/16"), net("fd01::3/64")],
            [ip("10.1.0.1"), ip("fd01::1")],
        );
        let wanted = Interface {
            addresses: &addresses,
            gateways: &gateways,
            source_table: Some(1001),
            ..PLAIN
        };
        assert_eq!(
            all(&wanted),
            [
                "addr 10.1.0.3/16",
                "addr fd01::3/64",
                "10.1.0.0/16 table 1001",
                "fd01::/64 table 1001",
                "fe80::/64 table 1001",
                "0.0.0.0/0 via 10.1.0.1 table 1001",
                "::/0 via fd01::1 table 1001",
                "from 10.1.0.3 lookup 1001",
                "from fd01::3 lookup 1001",
            ]
        );
    }

    #[test]
    fn a_wire_leads_to_its_peer_alone() {
        let (addresses, routes) = ([net("10.5.0.1/32")], [(net("10.5.0.2/32"), None)]);
        let wanted = Interface {
            addresses: &addresses,
            routes: &routes,
            source_table: Some(1002),
            ..PLAIN
        };
        assert_eq!(
            all(&wanted),
            [
                "addr 10.5.0.1/32",
                "10.5.0.2/32 table 254",
                "10.5.0.2/32 table 1002",
                "from 10.5.0.1 lookup 1002",
            ]
        );
    }
}
