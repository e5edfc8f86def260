//! The ends of uplinks: what a network's gateway reaches the world by.
//!
//! Each is made or found in the network namespace that the helper is in, and goes with its descriptor: a pair and a TAP that
//! were made are taken away by the kernel, what was there before stays.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use pontoon_switch::MacAddr;

use super::{QUEUE, bring_up, has_frames, listen, open, tap, veth};
use crate::netlink::{Link, Netlink};

/// What an interface of the host is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted<'a> {
    /// The MAC address that is used on it; its own if none.
    pub(super) mac: Option<MacAddr>,
    /// IPv4 is used on it.
    pub(super) ipv4: bool,
    /// IPv6 is.
    pub(super) ipv6: bool,
    /// Addresses that are used on it.
    pub(super) addresses: &'a [IpAddr],
    /// An interface that is down is brought up.
    pub(super) raise: bool,
}

/// Opens a packet socket on an interface of the host.
///
/// # Errors
/// The host forwards, or the interface is part of another, and its MAC address is to be used: each packet of ours would be taken by the
/// host or by that as well, and answered for. The host has an address there that is to be used. The interface is down and is not to be
/// brought up.
pub(super) fn packet(netlink: &mut Netlink, name: &str, wanted: Wanted<'_>) -> Result<(Link, OwnedFd)> {
    let link = netlink
        .link(name)
        .with_context(|| format!("there is no interface {name}"))?;
    has_frames(&link, name)?;
    if wanted.mac.is_none_or(|mac| mac == link.mac) {
        ensure!(
            !link.enslaved,
            "mac=host is refused where the interface is part of a bridge, a bond or a VRF, as {name} is: leave mac=host out, and \
             the uplink has a MAC address of its own"
        );
        does_not_forward(Path::new("/proc/sys/net"), name, wanted)?;
    }
    let interfaces = pnet::datalink::interfaces();
    let of_host = interfaces.iter().filter(|i| i.name == name).flat_map(|i| &i.ips);
    if let Some(taken) = of_host
        .map(|net| net.ip())
        .find(|ip| wanted.addresses.contains(ip))
    {
        bail!("the host has {taken} on {name} itself: give the uplink another address of that network");
    }
    ensure!(link.up || wanted.raise, "the interface {name} is down");
    bring_up(netlink, &link, name)?;
    let fd = listen(&link, name)?;
    Ok((link, fd))
}

/// Sees that the host does not forward what comes by the interface, as `settings` has it (`/proc/sys/net`).
fn does_not_forward(settings: &Path, name: &str, wanted: Wanted<'_>) -> Result<()> {
    let used = |family: &str| {
        if family == "ipv4" {
            wanted.ipv4
        } else {
            wanted.ipv6
        }
    };
    let says = [
        ("ipv4", "all", "forwarding"),
        ("ipv4", name, "forwarding"),
        ("ipv6", "all", "forwarding"),
        ("ipv6", name, "forwarding"),
        // Linux 6.17 and later: forwarding by this interface, whatever holds for all.
        ("ipv6", name, "force_forwarding"),
    ];
    for (family, interface, what) in says.into_iter().filter(|(family, ..)| used(family)) {
        let path = settings.join(family).join("conf").join(interface).join(what);
        // A kernel without that family forwards nothing of it.
        let set = std::fs::read_to_string(&path).unwrap_or_default();
        if !matches!(set.trim(), "" | "0") {
            bail!(
                "mac=host is refused where the host forwards (net.{family}.conf.{interface}.{what} is on): it would forward what \
                 comes for the network as well; leave mac=host out, and the uplink has a MAC address of its own"
            );
        }
    }
    Ok(())
}

/// Opens the TAP of the host of that name, or makes it: up, without addresses.
pub(super) fn host_tap(netlink: &mut Netlink, name: &str, mtu: u32) -> Result<(Link, OwnedFd)> {
    if netlink.link(name).is_ok() {
        return tap(netlink, name);
    }
    let fd = open(name)?;
    let link = netlink.link(name).context("the TAP is gone")?;
    netlink
        .set_link(link.index, None, Some(mtu), Some(QUEUE))
        .with_context(|| format!("cannot set MTU {mtu} and the queue of {name}"))?;
    netlink
        .set_up(link.index)
        .with_context(|| format!("cannot bring {name} up"))?;
    Ok((Link { mtu, ..link }, fd))
}

/// Makes a veth pair whose end `name` is in the current network namespace, up and without addresses.
pub(super) fn pair(netlink: &mut Netlink, name: &str, mtu: u32) -> Result<(Link, OwnedFd)> {
    let fd = veth::make(netlink, name, None, mtu)?;
    let up = netlink.link(name).and_then(|link| {
        netlink.set_up(link.index)?;
        Ok(link)
    });
    match up {
        Ok(link) => Ok((link, fd)),
        Err(e) => {
            // With its namespace it would go as well, but later.
            if let Ok(link) = netlink.link(name) {
                let _ = netlink.delete_link(link.index);
            }
            Err(e).with_context(|| format!("cannot bring {name} up"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_forward_is_seen_where_it_matters() {
        let directory = tempfile::tempdir().expect("a directory");
        let wanted = |ipv4, ipv6| Wanted {
            mac: None,
            ipv4,
            ipv6,
            addresses: &[],
            raise: false,
        };
        let judge = |wanted| does_not_forward(directory.path(), "eth1", wanted);
        judge(wanted(true, true)).expect("no such settings");
        for (family, interface, what) in [
            ("ipv4", "all", "forwarding"),
            ("ipv4", "eth1", "forwarding"),
            ("ipv6", "all", "forwarding"),
            ("ipv6", "eth1", "forwarding"),
            ("ipv6", "eth1", "force_forwarding"),
        ] {
            let place = directory.path().join(family).join("conf").join(interface);
            std::fs::create_dir_all(&place).expect("made");
            let set = |value: &str| std::fs::write(place.join(what), value).expect("written");
            set("1\n");
            let error = judge(wanted(true, true)).expect_err(what).to_string();
            let named = format!("net.{family}.conf.{interface}.{what}");
            assert!(error.contains(&named), "{error}");
            judge(wanted(family == "ipv6", family == "ipv4")).expect("the other family is used");
            set("0\n");
            judge(wanted(true, true)).expect("it is off");
        }
    }
}
