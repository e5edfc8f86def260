//! The Ethernet switch of Pontoon: layer 2 only.
//!
//! # The way of a frame
//!
//! A [`Port`] reads one frame with its virtio-net header into the worker's buffer ([`Frame`]: bytes and [`Offload`]).
//! The [`Switch`] decides, without I/O, where it goes. The frame is written to each egress port as it came; only a port
//! that lacks an offload gets it segmented and summed in software. A frame for a [`Station`]'s MAC address is handed to
//! that station, which answers through [`Out`], the same door by which any other frame enters the switch.
//!
//! One worker (one thread, one `mio` loop) owns one network whole, so nothing on this way is locked, shared or
//! allocated.
//!
//! # The parts
//!
//! | module | is |
//! |---|---|
//! | [`frame`], [`headers`], [`offload`] | a frame in a borrowed buffer, what its virtio-net header claims, and doing in software what a device cannot |
//! | [`switch`], [`fdb`], [`policy`] | the decision: admit, learn, forward; a pure function of what it was told |
//! | [`vlan`], [`isolation`], [`storm`] | parts of a policy and of the decision: tags, who may talk to whom, how much may go to many |
//! | [`port`] | the wires: [`port::tap`], [`port::plain`], [`port::veth`], and [`port::pair`] in memory |
//! | [`station`] | what lives on the switch and has no wire |
//! | [`network`] | switch, ports and station put together; needs no poll, so that tests drive it by hand |
//! | [`worker`] | the thread and the poll that drive a network, and the handle by which others reach it |
//! | [`drops`], [`features`], [`time`], [`mac`] | reasons and counters, optional kernel features, time as an argument, addresses |
//! | [`calls`] | which system calls a room makes, for the filter of a process that runs it |
//! | [`sys`] | the one room for `unsafe` |
//!
//! Frames, headers and addresses come from attackers. What a frame claims is held against its bytes once, where it
//! enters ([`Offload::decode`]); whom it claims to be from is held against its port's [`Policy`].
//!
//! This crate touches the file descriptors of its ports and nothing else: no namespaces, no configuration files. (The
//! openers in [`sys`] work in whatever namespace their caller is in.)

#![deny(unsafe_code)]

pub mod calls;
pub mod drops;
pub mod fdb;
pub mod features;
pub mod frame;
pub mod headers;
pub mod isolation;
pub mod mac;
pub mod network;
pub mod offload;
pub mod policy;
pub mod port;
pub mod station;
pub mod storm;
pub mod switch;
#[allow(unsafe_code)]
pub mod sys;
pub mod time;
pub mod vlan;
pub mod worker;

pub use drops::{DropCounters, DropReason};
pub use fdb::FdbEntry;
pub use features::{Feature, Features};
pub use frame::{Checksum, Frame, Gso, GsoKind, Offload, VlanTag};
pub use isolation::{Peers, Service, Transport};
pub use mac::MacAddr;
pub use network::{Capture, Direction, Network, PortConfig, PortStatus, Traffic};
pub use policy::{AddressPolicy, MacPolicy, Permission, Policy};
pub use port::{Port, PortId};
pub use station::{Out, Ready, Station};
pub use storm::StormLimit;
pub use switch::{Decision, Flood, Ingress, Reach, StationPlace, Switch};
pub use time::{Clock, Instant};
pub use vlan::{VlanId, VlanMode, VlanSet};
pub use worker::{Builder, Event, Handle, Interest, Registrar, Stopped, Worker};
