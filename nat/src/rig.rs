//! What a part of the gateway is lent in its unit tests: a recording door to the switch, and a simulated host.

use std::net::{Ipv4Addr, Ipv6Addr};

use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId};

use crate::config::{Config, Subnet4, Subnet6};
use crate::cx::Cx;
use crate::flow::{self, Limits};
use crate::host::sim::SimHost;
use crate::icmp::RateLimiter;
use crate::link::Neighbours;
use crate::packet::Packet;
use crate::publish::Sources;

/// The gateway's Ethernet address.
pub(crate) const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// A container's.
pub(crate) const CONTAINER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x64]);
/// The port that frames come from, unless a test says another.
pub(crate) const PORT: PortId = PortId(7);

/// What left for the switch, and what was dropped.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) drops: Vec<DropReason>,
}

impl Out for Recorder {
    fn send_by(&mut self, _uplink: PortId, frame: &mut Frame<'_>) {
        self.send(frame);
    }

    fn send(&mut self, frame: &mut Frame<'_>) {
        assert_eq!(frame.offload, Offload::NONE, "whole checksums");
        self.frames.push(frame.bytes().to_vec());
    }

    fn drop(&mut self, _: Option<PortId>, reason: DropReason) {
        self.drops.push(reason);
    }
}

/// 10.0.2.0/24 and fd00:2::/64 with the gateway at .2 and ::2, MTU 1500.
pub(crate) fn config() -> Config {
    Config {
        mac: GATEWAY,
        subnet4: Some(Subnet4::new(
            "10.0.2.0/24".parse().unwrap(),
            Ipv4Addr::new(10, 0, 2, 2),
        )),
        subnet6: Some(Subnet6::new(
            "fd00:2::/64".parse().unwrap(),
            Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2),
        )),
        mtu: 1500,
        resolvers: vec![
            "198.51.100.53:53".parse().unwrap(),
            "203.0.113.53:53".parse().unwrap(),
        ],
        search: vec!["lab.example".into(), "example.org".into()],
        hosts: vec![("printer.lab".into(), Ipv4Addr::new(10, 9, 8, 7).into())],
        egress: Default::default(),
        host_loopback: Default::default(),
        link_local: Default::default(),
        filtering: Default::default(),
        max_flows: 100,
        max_flows_per_container: 100,
    }
}

/// The surroundings.
pub(crate) struct Rig {
    /// The port that frames come from.
    pub(crate) port: PortId,
    pub(crate) now: Instant,
    pub(crate) out: Recorder,
    pub(crate) host: SimHost,
    pub(crate) config: Config,
    pub(crate) neighbours: Neighbours,
    flows: flow::Table,
    pub(crate) shares: crate::share::Shares,
    sources: Sources,
    errors: RateLimiter,
    buf: Vec<u8>,
    ident: u16,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let limits = Limits {
            total: 10,
            per_container: 10,
        };
        Self {
            port: PORT,
            now: Instant::from_millis(1000),
            out: Recorder::default(),
            host: SimHost::default(),
            config: config(),
            neighbours: Neighbours::default(),
            flows: flow::Table::new(limits, (1, 2)),
            shares: crate::share::Shares::default(),
            sources: Sources::default(),
            errors: RateLimiter::default(),
            buf: vec![0; HEADROOM + MAX_FRAME],
            ident: 0,
        }
    }

    pub(crate) fn cx(&mut self) -> Cx<'_, SimHost> {
        Cx {
            now: self.now,
            out: &mut self.out,
            host: &mut self.host,
            flows: &mut self.flows,
            config: &self.config,
            neighbours: &mut self.neighbours,
            buf: &mut self.buf,
            shares: &mut self.shares,
            sources: &self.sources,
            errors: &mut self.errors,
            ident: &mut self.ident,
        }
    }

    /// Parses `bytes` and hands packet and frame to `f`; what does not parse is counted as the gateway does.
    pub(crate) fn packet(
        &mut self,
        bytes: &mut [u8],
        f: impl FnOnce(&mut Cx<'_, SimHost>, &Packet, &mut Frame<'_>),
    ) {
        let mut frame = Frame::whole(bytes, Offload::NONE);
        match Packet::parse(self.port, &frame) {
            Ok(packet) => f(&mut self.cx(), &packet, &mut frame),
            Err(reason) => self.out.drops.push(reason),
        }
    }

    /// The frames sent since the last call.
    pub(crate) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out.frames)
    }

    /// The drops since the last call.
    pub(crate) fn dropped(&mut self) -> Vec<DropReason> {
        std::mem::take(&mut self.out.drops)
    }
}
