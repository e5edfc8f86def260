//! The carrier of uplinks that are interfaces of the host: a cable that is pulled, and put back or elsewhere.
//!
//! An interface that is taken down tells its packet socket, whose port tells the gateway when it is up again. Of a carrier that goes and
//! comes the packet socket hears nothing: frames are lost, and then they are not. What is on the other end may be another link, on which
//! the lease is not good and the neighbours are others. So the front listens for changes of interfaces in the host's network namespace,
//! looks at those that are uplinks, and tells the packet process when a carrier is back ([`Command::UplinkUp`]).
//!
//! ```text
//! a change, or a lost message ─► ring ─► each uplink's carrier is asked for ─┬─ gone ─► shown, nothing else: it may be back at once
//! an uplink is new ───────────────────►                                      └─ came ─► UplinkUp ─► lease, neighbours, announcement
//! ```
//!
//! What has changed is not taken from the messages, which may be lost, but from the kernel's count of how often the carrier came: one that
//! went and came between two looks is seen as well. The interface's first look is the helper's, before its packet socket is there, so
//! that nothing is missed in between; that the gateway is told once too often costs a question to the DHCP server.
//!
//! Only interfaces of the host have cables that others pull. A pair's other end is in a namespace of somebody's, who takes it down and up
//! unseen; so do those who have a TAP.

use std::collections::BTreeSet;

use super::registry::Front;
use crate::netlink::{Bell, Carrier, Netlink};
use crate::packet::protocol::Command;

/// The interface of the host that an uplink is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    /// Its index in the host's network namespace.
    pub(super) index: u32,
    /// Its carrier when it was looked at last.
    pub(super) carrier: Carrier,
}

/// Networks, each with the index of the interface that is its uplink.
pub(super) type Wired = BTreeSet<(String, u32)>;

/// The watch on them.
#[derive(Default)]
pub(super) struct CarrierWatch {
    /// What it listens with, and asks with.
    ears: Option<(Bell, Netlink)>,
    wired: Wired,
}

impl CarrierWatch {
    /// Watches these from now on. True if some were not watched before, and so something may have gone unseen.
    pub(super) fn watch(&mut self, wired: Wired) -> bool {
        let deaf = self.ears.is_none() && !wired.is_empty();
        if wired == self.wired && !deaf {
            return false;
        }
        if wired.is_empty() {
            self.ears = None;
        } else if deaf {
            match Bell::new().and_then(|bell| Ok((bell, Netlink::open()?))) {
                Ok(ears) => self.ears = Some(ears),
                // Once, and it is tried again with whatever happens next.
                Err(e) if wired != self.wired => {
                    tracing::warn!("carriers that go and come may go unseen for a while: {e}");
                }
                Err(_) => {}
            }
        }
        let new = !wired.is_subset(&self.wired) || (deaf && self.ears.is_some());
        self.wired = wired;
        new
    }

    /// What to poll, if there is anything.
    pub(super) fn bell(&self) -> Option<&Bell> {
        self.ears.as_ref().map(|(bell, _)| bell)
    }

    /// Takes what has been heard, and looks at all that is watched: their carriers, by the index. Not to be called under the lock, as the
    /// kernel may be busy with its interfaces; whoever calls waits as long as it is.
    pub(super) fn look(&mut self) -> Vec<(u32, Carrier)> {
        let Some((bell, netlink)) = &mut self.ears else {
            return Vec::new();
        };
        bell.hush();
        let indices: BTreeSet<u32> = self.wired.iter().map(|(_, index)| *index).collect();
        let seen = |index| match netlink.carrier(index) {
            Ok(carrier) => Some((index, carrier)),
            // It is gone, which its packet socket tells.
            Err(e) => {
                tracing::debug!("interface {index} cannot be looked at: {e}");
                None
            }
        };
        indices.into_iter().filter_map(seen).collect()
    }
}

impl Front {
    /// The networks whose uplinks are interfaces of the host.
    pub(super) fn wired(&self) -> Wired {
        self.networks
            .iter()
            .filter_map(|(name, network)| Some((name.clone(), network.live.wire?.index)))
            .collect()
    }

    /// Takes note of what the carriers of interfaces are like now.
    pub(super) fn carriers(&mut self, seen: &[(u32, Carrier)]) {
        for (name, network) in &mut self.networks {
            let port = network.live.port();
            let (Some(wire), Some(port)) = (&mut network.live.wire, port) else {
                continue;
            };
            let Some(&(_, now)) = seen.iter().find(|(index, _)| *index == wire.index) else {
                continue;
            };
            let before = std::mem::replace(&mut wire.carrier, now);
            if before.there && !now.there {
                tracing::warn!("the uplink of network {name} has no carrier");
            }
            if now.is_back_since(before) {
                tracing::warn!("the uplink of network {name} has got a carrier");
                network.live.since = super::now();
                if let Err(e) = network.call(&Command::UplinkUp { port }, &[]) {
                    tracing::error!("network {name} cannot be told that its uplink has a carrier: {e:#}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_looked_at() {
        let mut watch = CarrierWatch::default();
        let wired =
            |all: &[(&str, u32)]| -> Wired { all.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect() };
        assert!(!watch.watch(wired(&[])) && watch.bell().is_none() && watch.look().is_empty());
        assert!(watch.watch(wired(&[("edge", 1)])));
        assert!(watch.bell().is_some());
        assert!(!watch.watch(wired(&[("edge", 1)])));
        assert!(
            watch.watch(wired(&[("edge", 1), ("other", 1)])),
            "another network on the same interface"
        );
        let indices: Vec<u32> = watch.look().into_iter().map(|(index, _)| index).collect();
        assert_eq!(indices, [1], "the loopback");
        assert!(!watch.watch(wired(&[("other", 1)])));
        assert!(!watch.watch(wired(&[])) && watch.bell().is_none());
    }
}
