//! What is said in the protocol, as the switch and the gateway have it, and the other way round.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use pontoon_nat::publish::{SourceAction, SourceRule, Transport};
use pontoon_switch::isolation;
use pontoon_switch::port::patch::PatchPort;
use pontoon_switch::port::tap;
use pontoon_switch::port::veth::VethPort;
use pontoon_switch::{
    DropCounters, Features, Peers, Policy, Port, PortStatus, Service, StormLimit, VlanId, VlanMode, VlanSet,
};

use crate::api::PortStats;
use crate::packet::protocol::{Behind, PortKind, PortSettings, Source, Storm, Vlans};

/// What a port may send, and whom it may reach.
pub(super) fn policy(settings: &PortSettings) -> Policy {
    let open = Policy::default();
    let policy = match &settings.behind {
        Behind::Container { mac, addresses } => {
            let given = addresses.iter().flatten();
            let own = Policy::container(*mac, given.map(|&a| a.into()));
            Policy {
                addresses: match addresses {
                    Some(_) => own.addresses,
                    None => open.addresses,
                },
                ..own
            }
        }
        Behind::Anyone => open,
    };
    Policy {
        peers: if settings.icc { Peers::All } else { Peers::Linked },
        storm: match settings.storm {
            Storm::Default => policy.storm,
            Storm::Off => None,
            Storm::Frames(n) => Some(StormLimit::per_second(n)),
        },
        vlan: match &settings.vlans {
            Vlans::All => VlanMode::Transparent,
            Vlans::Untagged => VlanMode::Untagged,
            Vlans::Access(id) => VlanId::new(*id).map_or(VlanMode::Transparent, VlanMode::Access),
            Vlans::Trunk(ids) => {
                let mut allowed = VlanSet::default();
                for id in ids.iter().copied().filter_map(VlanId::new) {
                    allowed.insert(id);
                }
                VlanMode::Trunk {
                    native: None,
                    allowed,
                }
            }
        },
        ..policy
    }
}

pub(super) fn service((protocol, port): (Transport, u16)) -> Service {
    Service {
        transport: match protocol {
            Transport::Tcp => isolation::Transport::Tcp,
            Transport::Udp => isolation::Transport::Udp,
        },
        port,
    }
}

pub(super) fn source_rule(source: Source) -> SourceRule {
    SourceRule {
        action: if source.allow {
            SourceAction::Allow
        } else {
            SourceAction::Deny
        },
        net: source.net,
    }
}

/// The port for a descriptor of that kind.
pub(super) fn adopt(kind: PortKind, fd: OwnedFd, mtu: u32) -> Result<Box<dyn Port>> {
    let features = Features::from_env();
    match kind {
        PortKind::Tap => tap::adopt(fd, mtu, features).context("cannot use the container's TAP"),
        PortKind::Packet => match VethPort::adopt(fd, features) {
            Ok(port) => Ok(Box::new(port)),
            Err(e) => Err(e).context("cannot use the interface's packet socket"),
        },
        PortKind::Patch => match PatchPort::adopt(fd, mtu) {
            Ok(port) => Ok(Box::new(port)),
            Err(e) => Err(e).context("cannot use the end of a patch cable"),
        },
    }
}

pub(super) fn port_stats(port: PortStatus) -> PortStats {
    PortStats {
        port: port.id.0,
        name: port.name,
        kind: port.kind.to_owned(),
        mtu: port.mtu,
        rx_frames: port.rx.frames,
        rx_bytes: port.rx.bytes,
        tx_frames: port.tx.frames,
        tx_bytes: port.tx.bytes,
        drops: drops(&port.drops),
    }
}

pub(super) fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters
        .nonzero()
        .map(|(reason, n)| (reason.name().to_owned(), n))
        .collect()
}
