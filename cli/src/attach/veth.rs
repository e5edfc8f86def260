//! A veth pair: one end for the container, the other for a packet socket.
//!
//! ```text
//!  container's namespace          port namespace, nameless
//!  eth0 ───────────────────────── port ── packet socket ──► the packet process
//! ```
//!
//! The far end lives in a network namespace that the helper makes for it, beneath the container's user namespace, so that
//! no privilege over the host is needed and the host gains no interface. Nothing is in it, and nothing holds it but
//! the packet socket: when that closes, the kernel takes the namespace down and the pair with it; when the container's end
//! goes, the socket says so (`ENETDOWN`). The far end is mute: no IPv6, no ARP and no address, so that nothing but what the
//! switch sends comes out of it.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use pontoon_switch::MacAddr;
use pontoon_switch::sys::packet::open_packet;
use pontoon_switch::sys::process::{Namespaces, unshare};
use rustix::io::Errno;

use super::interface::disable_ipv6;
use super::place::{enter_network, own_namespace};
use crate::netlink::{Netlink, Pair};

/// The far end's name, in a namespace of its own.
const FAR: &str = "port";

/// Makes a pair whose one end, `name`, is in the current network namespace, which is `netlink`'s; gives the packet socket of
/// the other, which is up.
pub(super) fn make(netlink: &mut Netlink, name: &str, mac: Option<MacAddr>, mtu: u32) -> Result<OwnedFd> {
    let here = own_namespace("net")?;
    unshare(Namespaces::NETWORK).context("cannot make a network namespace for the interface's far end")?;
    let made = make_from_far(netlink, name, mac, mtu);
    enter_network(here.as_fd()).context("cannot go back into the container's network namespace")?;
    made
}

fn make_from_far(netlink: &mut Netlink, name: &str, mac: Option<MacAddr>, mtu: u32) -> Result<OwnedFd> {
    let there = own_namespace("net")?;
    netlink
        .make_veth(&Pair {
            name,
            mac,
            far: FAR,
            far_namespace: there.as_fd(),
            mtu,
        })
        .map_err(|e| match Errno::from_io_error(&e) {
            Some(Errno::EXIST) => super::taken(name),
            Some(Errno::OPNOTSUPP) => {
                anyhow::anyhow!("the kernel has no veth pairs: modprobe veth, or use a TAP")
            }
            Some(_) | None => e.into(),
        })
        .with_context(|| format!("cannot make the interface {name} in the container"))?;
    open_far().inspect_err(|_| {
        // With the namespace, which nobody holds any more, it would go as well, but later.
        if let Ok(link) = netlink.link(name) {
            let _ = netlink.delete_link(link.index);
        }
    })
}

/// Brings the far end up and opens it, before the container's end comes up: so no frame is lost.
fn open_far() -> Result<OwnedFd> {
    let mut netlink = Netlink::open().context("cannot open a netlink socket at the far end")?;
    let far = netlink.link(FAR).context("the far end is gone")?;
    disable_ipv6(FAR);
    netlink
        .set_up_mute(far.index)
        .context("cannot bring the far end up")?;
    open_packet(far.index).context("cannot open a packet socket on the far end")
}
