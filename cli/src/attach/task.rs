//! What the helper is asked, and what it answers.

use std::net::IpAddr;

use ipnet::IpNet;
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::netlink::Carrier;

/// What a helper is to do in the network namespace that it is given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    /// Give a container an interface. Answered with its TAP, or the packet socket at its far end.
    Attach(Attach),
    /// Have the default routes of the main table lead through an interface, for each IP version that there is a gateway of;
    /// of the other version the interface has no default route any more.
    Default {
        /// The interface's name.
        interface: String,
        /// The gateways: at most one for each IP version.
        gateways: Vec<IpAddr>,
    },
    /// Take back what [`Task::Attach`] did. What is gone already is no error. A TAP that lasts, which was there before, stays.
    Detach {
        /// The interface's name.
        interface: String,
        /// The table of its replies.
        source_table: Option<u32>,
    },
    /// Open a packet socket on an interface that is there, and bring it up. Answered with the socket.
    Packet {
        /// The interface's name.
        interface: String,
    },
    /// Open a TAP that is there, and bring it up if it is not. It stays as it is otherwise. Answered with it.
    Tap {
        /// The interface's name.
        interface: String,
    },
    /// Open a packet socket on an interface that is there, for an uplink. Answered with the socket.
    UplinkPacket {
        /// The interface's name.
        interface: String,
        /// The MAC address that is used on it; its own if none. With its own, what the host would forward as well is refused.
        mac: Option<MacAddr>,
        /// Whether IPv4 is used on it.
        ipv4: bool,
        /// Whether IPv6 is.
        ipv6: bool,
        /// Addresses that are used on it: refused if the host has one of them there.
        addresses: Vec<IpAddr>,
        /// Whether the interface is brought up if it is down; refused otherwise.
        raise: bool,
    },
    /// Open a TAP that is there, or make it, up and without addresses. Answered with it.
    UplinkTap {
        /// The interface's name.
        interface: String,
        /// MTU in bytes of one that is made.
        mtu: u32,
    },
    /// Make a veth pair, one end of it here, up and without addresses. Answered with the packet socket at its far end.
    UplinkVeth {
        /// The name of the end here.
        interface: String,
        /// MTU in bytes.
        mtu: u32,
    },
    /// Make a TAP for the host itself, without any default route. Answered with it.
    HostTap {
        /// The interface's name.
        interface: String,
        /// MAC address; the kernel's choice if none.
        mac: Option<MacAddr>,
        /// MTU in bytes.
        mtu: u32,
        /// Addresses with their prefixes.
        addresses: Vec<IpNet>,
    },
}

/// The interface wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// Its name inside.
    pub(crate) interface: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// MAC address; the kernel's choice if none.
    pub(crate) mac: Option<MacAddr>,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Addresses with their prefixes.
    pub(crate) addresses: Vec<IpNet>,
    /// Routers: at most one for each IP version.
    pub(crate) gateways: Vec<IpAddr>,
    /// Whether the default routes of the main table lead through it.
    pub(crate) default: bool,
    /// The table by which replies from its addresses leave, where there may be more interfaces than this one.
    pub(crate) source_table: Option<u32>,
    /// Further routes, by a router or on the link.
    pub(crate) routes: Vec<(IpNet, Option<IpAddr>)>,
}

/// How a container's interface comes to the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A TAP, which is made.
    Tap,
    /// One end of a veth pair, which is made; the other is read by a packet socket.
    Veth,
    /// A TAP that is there already.
    ExistingTap,
}

/// The interface that was made, or was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Its name.
    pub(crate) interface: String,
    /// Its index in its namespace.
    pub(crate) index: u32,
    /// Its MAC address.
    pub(crate) mac: MacAddr,
    /// Its MTU in bytes.
    pub(crate) mtu: u32,
    /// Its carrier, before it was brought up if it was.
    pub(crate) carrier: Carrier,
}

/// How it went: the interface if there is one, or what failed.
pub(super) type Answer = Result<Option<Made>, String>;
