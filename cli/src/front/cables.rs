//! Cables between the gateways of networks that have routes to each other.
//!
//! A cable is there while there are routes that need it ([`super::routes`]). When one of the two packet processes dies, both ends are
//! taken out and it is laid anew by the successor; what fails is tried again every two seconds.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pontoon_nat::routed::{LinkKind, UplinkConfig};
use pontoon_switch::MacAddr;
use pontoon_switch::port::patch;

use super::network::unexpected;
use super::registry::Front;
use crate::args::RouteVia;
use crate::packet::protocol::{Command, PortKind, Reply, UplinkSettings};

/// How long a cable that cannot be laid is left alone before the next try.
const REST: Duration = Duration::from_secs(2);

/// The gateways' addresses on a cable: nobody else is on it.
const MACS: [MacAddr; 2] = [
    MacAddr::local([0x06, 0x51, 0, 0, 0, 1]),
    MacAddr::local([0x06, 0x51, 0, 0, 0, 2]),
];

/// A cable between two gateways.
#[derive(Debug)]
pub(super) struct Cable {
    /// The network whose containers open flows.
    pub(super) from: String,
    /// The network that they are opened to.
    pub(super) to: String,
    /// The numbers of its ends at the two packet processes, while it is laid.
    ends: Option<[u32; 2]>,
    /// When to try again to lay it.
    due: Option<Instant>,
}

impl Cable {
    /// One that is not laid yet.
    pub(super) fn between(from: &str, to: &str) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            ends: None,
            due: None,
        }
    }

    pub(super) fn touches(&self, network: &str) -> bool {
        self.from == network || self.to == network
    }

    pub(super) fn is_between(&self, from: &str, to: &str) -> bool {
        self.from == from && self.to == to
    }

    /// The network at its other end, seen from `network`.
    pub(super) fn beyond(&self, network: &str) -> &str {
        if self.from == network {
            &self.to
        } else {
            &self.from
        }
    }

    /// The number of its end at a network.
    pub(super) fn end_at(&self, network: &str) -> Option<u32> {
        let [from, to] = self.ends?;
        match network {
            n if n == self.from => Some(from),
            n if n == self.to => Some(to),
            _ => None,
        }
    }
}

impl Front {
    /// Lays a cable anew, in the place of what is left of it.
    pub(super) fn lay(&mut self, at: usize) -> Result<()> {
        self.pull(at);
        let (from, to) = (self.cables[at].from.clone(), self.cables[at].to.clone());
        let laid = self
            .lay_between(&from, &to)
            .with_context(|| format!("cannot connect the gateways of the networks {from} and {to}"));
        let cable = &mut self.cables[at];
        match laid {
            Ok(ends) => {
                cable.ends = Some(ends);
                cable.due = None;
                Ok(())
            }
            Err(e) => {
                cable.due = Some(Instant::now() + REST);
                Err(e)
            }
        }
    }

    fn lay_between(&mut self, from: &str, to: &str) -> Result<[u32; 2]> {
        let (near, far) = patch::cable().context("cannot make a patch cable")?;
        let mtu = [from, to]
            .iter()
            .filter_map(|name| self.networks.get(*name))
            .map(|n| n.plan.mtu)
            .min()
            .context("the networks are gone")?;
        let settings = |name: &str, ours: usize, ours_open: bool| UplinkSettings {
            name: format!("network:{name}"),
            kind: PortKind::Patch,
            config: UplinkConfig {
                mac: MACS[ours],
                mtu,
                kind: LinkKind::Peer {
                    mac: MACS[1 - ours],
                    ours_open,
                },
            },
        };
        let first = self.plug(from, settings(to, 0, true), &near)?;
        match self.plug(to, settings(from, 1, false), &far) {
            Ok(second) => Ok([first, second]),
            Err(e) => {
                if let Some(network) = self.networks.get_mut(from) {
                    network.remove_port(first);
                }
                Err(e)
            }
        }
    }

    fn plug(&mut self, name: &str, settings: UplinkSettings, end: &impl AsFd) -> Result<u32> {
        let network = self.networks.get_mut(name).context("the network is gone")?;
        match network.call(&Command::AddUplink(Box::new(settings)), &[end.as_fd()])? {
            Reply::Port(port) => Ok(port),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes both ends of a cable out.
    pub(super) fn pull(&mut self, at: usize) {
        let cable = &mut self.cables[at];
        let Some(ends) = cable.ends.take() else { return };
        let names = [cable.from.clone(), cable.to.clone()];
        for (name, port) in names.iter().zip(ends) {
            if let Some(network) = self.networks.get_mut(name) {
                network.remove_port(port);
            }
        }
    }

    /// Lays the cables of all routes, of an earlier daemon's, and tells the gateways of them.
    pub(super) fn lay_all(&mut self) {
        for route in self.routes.clone() {
            if let RouteVia::Network(other) = &route.via
                && !self.cables.iter().any(|c| c.is_between(&route.network, other))
            {
                self.cables.push(Cable::between(&route.network, other));
            }
        }
        for at in 0..self.cables.len() {
            self.lay_or_later(at);
        }
        let names: Vec<String> = self.networks.keys().cloned().collect();
        for name in names {
            self.send_routes_or_log(&name);
            self.tell_routers(&name);
        }
    }

    fn lay_or_later(&mut self, at: usize) {
        if let Err(e) = self.lay(at) {
            tracing::warn!("{e:#}; trying again");
        }
    }

    /// The packet process of `network` has begun anew: its cables are laid again, and it is told its routes.
    pub(super) fn route_again(&mut self, network: &str) {
        let touching: Vec<usize> = (0..self.cables.len())
            .filter(|&at| self.cables[at].touches(network))
            .collect();
        let mut told = vec![network.to_owned()];
        for at in touching {
            let cable = &mut self.cables[at];
            // Its number there is somebody else's by now.
            let other = cable.beyond(network).to_owned();
            let port = cable.end_at(&other);
            cable.ends = None;
            if let (Some(port), Some(there)) = (port, self.networks.get_mut(&other)) {
                there.remove_port(port);
            }
            self.lay_or_later(at);
            told.push(other);
        }
        for name in told {
            self.send_routes_or_log(&name);
        }
        self.tell_routers(network);
    }

    /// Takes note of a port that has closed; true if it was a cable's end.
    pub(super) fn lost_cable(&mut self, network: &str, port: u32) -> bool {
        let Some(at) = self.cables.iter().position(|c| c.end_at(network) == Some(port)) else {
            return false;
        };
        let cable = &mut self.cables[at];
        let other = cable.beyond(network).to_owned();
        let left = cable.end_at(&other);
        cable.ends = None;
        // The packet process at the other end is dead, most likely, and its successor is about to lay it anew.
        cable.due = Some(Instant::now() + REST);
        // The switch has taken this end out by itself; the gateway stands on it until it is told.
        if let Some(here) = self.networks.get_mut(network) {
            here.remove_port(port);
        }
        if let (Some(left), Some(there)) = (left, self.networks.get_mut(&other))
            && there.packet_fd().is_some()
        {
            there.remove_port(left);
        }
        true
    }

    /// Tries cables again that are not laid; when to try next.
    pub(super) fn mend_cables(&mut self) -> Option<Duration> {
        let now = Instant::now();
        for at in 0..self.cables.len() {
            let cable = &self.cables[at];
            if cable.ends.is_none() && cable.due.is_some_and(|due| due <= now) {
                let names = [cable.from.clone(), cable.to.clone()];
                if self.lay(at).is_ok() {
                    for name in names {
                        self.send_routes_or_log(&name);
                    }
                }
            }
        }
        let next = self
            .cables
            .iter()
            .filter(|c| c.ends.is_none())
            .filter_map(|c| c.due)
            .min()?;
        Some(
            next.saturating_duration_since(Instant::now())
                .max(Duration::from_millis(10)),
        )
    }
}
