//! One try to make an uplink, as far as it is done without the front's lock: where the link leads to is looked for, and a helper makes
//! or opens it there. A path that hangs holds up nobody but the try, and so does a helper.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};
use ipnet::IpNet;
use pontoon_switch::MacAddr;

use super::carrier::Wire;
use super::place::Place;
use super::plan::Uplink;
use crate::args::{LinkTo, Netns};
use crate::attach::{Helper, Task};
use crate::packet::protocol::PortKind;

/// Which try it is to make an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Try {
    /// The first, for somebody who waits: an interface that is down is brought up.
    First,
    /// A later one: an interface that is down is somebody's will.
    Again,
}

/// A try to make an uplink.
#[derive(Debug)]
pub(super) struct Trial {
    /// The network whose it is to be.
    pub(super) network: String,
    /// What it is to be.
    pub(super) uplink: Uplink,
    /// The MTU of what is made for it, in bytes.
    mtu: u32,
    which: Try,
    token: Arc<()>,
}

/// Which try a network waits for, if any: one that has been given up is nobody's.
#[derive(Debug, Default)]
pub(super) struct Awaited(Weak<()>);

impl Awaited {
    /// Whether a try is on its way.
    pub(super) fn is_some(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Whether it is this one.
    pub(super) fn is(&self, trial: &Trial) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&trial.token))
    }
}

/// A descriptor for a link, and what it is.
#[derive(Debug)]
pub(super) struct End {
    pub(super) kind: PortKind,
    pub(super) fd: OwnedFd,
    pub(super) mac: MacAddr,
    pub(super) mtu: u32,
    /// The interface of the host that it is, if it is one.
    pub(super) wire: Option<Wire>,
}

/// What a helper has made.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) end: End,
    /// The namespace that the link leads into, if it leads into one.
    pub(super) place: Option<Place>,
    /// It is about to end.
    pub(super) helper: Helper,
}

impl Trial {
    /// A try for the network of that name, where new interfaces have an MTU of `mtu` bytes.
    pub(super) fn new(network: &str, uplink: Uplink, mtu: u32, which: Try) -> (Self, Awaited) {
        let token = Arc::new(());
        let awaited = Awaited(Arc::downgrade(&token));
        let trial = Self {
            network: network.to_owned(),
            uplink,
            mtu,
            which,
            token,
        };
        (trial, awaited)
    }

    /// Makes the link or opens it; nothing if it is a port of another network, which is for who has the lock. Not to be called
    /// under the lock.
    pub(super) fn make(&self) -> Result<Option<Built>> {
        let uplink = &self.uplink;
        let (kind, task, place) = match &uplink.link.to {
            LinkTo::Packet(interface) => {
                let task = Task::UplinkPacket {
                    interface: interface.clone(),
                    mac: uplink.mac,
                    ipv4: uplink.ipv4.is_some(),
                    ipv6: uplink.ipv6.is_some(),
                    addresses: uplink.fixed().iter().map(IpNet::addr).collect(),
                    raise: self.which == Try::First,
                };
                (PortKind::Packet, task, None)
            }
            LinkTo::Tap(interface) => {
                let task = Task::UplinkTap {
                    interface: interface.clone(),
                    mtu: self.mtu,
                };
                (PortKind::Tap, task, None)
            }
            LinkTo::Veth { peer, namespace } => {
                let task = Task::UplinkVeth {
                    interface: peer.clone(),
                    mtu: self.mtu,
                };
                (PortKind::Packet, task, Some(place_of(uplink, namespace)?))
            }
            LinkTo::Switch(_) => return Ok(None),
        };
        let mut helper = Helper::spawn()?;
        let door = place.as_ref().map(Place::door).transpose()?;
        helper.begin(door.as_ref().map(AsFd::as_fd), &task)?;
        let (made, fd) = helper.port()?;
        let end = End {
            kind,
            fd,
            mac: uplink.mac.unwrap_or(made.mac),
            mtu: made.mtu,
            wire: matches!(uplink.link.to, LinkTo::Packet(_)).then_some(Wire {
                index: made.index,
                carrier: made.carrier,
            }),
        };
        Ok(Some(Built { end, place, helper }))
    }
}

/// The namespace that a link leads into, if it is the user's: the one that is at its path now, or that of the same process.
pub(super) fn place_of(uplink: &Uplink, namespace: &Netns) -> Result<Place> {
    match (namespace, &uplink.process) {
        (Netns::Path(path), _) => Place::of_path(path, uplink.uid).map_err(|e| e.error),
        (Netns::Pid(pid), Some(known)) => {
            Place::find(known).with_context(|| format!("process {pid} has ended"))
        }
        (Netns::Pid(pid), None) => Place::of_process(*pid, uplink.uid).map_err(|e| e.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::plan::Tuning;

    #[test]
    fn a_network_waits_for_the_try_that_is_on_its_way() {
        let spec = serde_json::from_str(r#"{"link": "tap:t"}"#).expect("a spec");
        let uplink = Uplink::of(&spec, "shop", Tuning::default(), 0).expect("an uplink");
        let (first, awaited) = Trial::new("shop", uplink.clone(), 1500, Try::Again);
        let (second, _) = Trial::new("shop", uplink, 1500, Try::Again);
        assert!(awaited.is_some() && awaited.is(&first) && !awaited.is(&second));
        assert!(!Awaited::default().is_some() && !Awaited::default().is(&first));
        drop(first);
        assert!(!awaited.is_some() && !awaited.is(&second));
    }
}
