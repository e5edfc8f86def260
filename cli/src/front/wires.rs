//! Wires: two containers, one interface in each, and nothing between: no gateway, no addresses but the two, nobody else.
//!
//! A kernel's veth pair across two containers would need rights over both their user namespaces in one process, which an
//! ordinary user cannot have. So a wire is a switch of two ports in a packet process of its own, which passes every frame
//! whole from one to the other.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use pontoon_nat::config::{Filtering, LinkLocal, Outbound};

use super::network::Network;
use super::place::Place;
use super::plan::{HostPorts, Plan};
use super::registry::Front;
use super::{Refused, now, refused};
use crate::api::{WireEnd, WireInfo, WireRequest};
use crate::args::{DEFAULT_MAX_FLOWS, DEFAULT_PER_CONTAINER};
use crate::attach::{Attach, Helper, Kind, Task};
use crate::ipam::mac_for;
use crate::packet::protocol::{Behind, PortKind, PortSettings, Storm, Vlans};
use crate::sandbox::SandboxOptions;

/// The MTU of a wire, in bytes: as much as a TAP takes, since nothing behind it takes less.
const MTU: u16 = 65_520;

/// A wire.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) info: WireInfo,
    pub(super) network: Network,
}

/// A wire on its way.
#[derive(Debug)]
pub(super) struct Wiring {
    ends: [(WireEnd, Place); 2],
    helpers: Vec<Helper>,
    made: Vec<OwnedFd>,
}

impl Wiring {
    /// Waits until both ends are made. Not to be called under the lock.
    pub(super) fn made(&mut self) -> Result<(), Refused> {
        for (helper, (end, _)) in self.helpers.iter_mut().zip(&self.ends) {
            let (_, fd) = helper
                .port()
                .with_context(|| format!("cannot wire {}", end.container))?;
            self.made.push(fd);
        }
        Ok(())
    }
}

impl Front {
    /// Begins to wire two containers.
    pub(super) fn begin_wire(&mut self, request: &WireRequest) -> Result<Wiring, Refused> {
        let WireRequest { a, b, addresses } = request;
        if a == b {
            return Err(refused(
                400,
                anyhow!("a wire has two ends: name another container than {a}"),
            ));
        }
        let (a, b) = (self.container(a)?, self.container(b)?);
        if self.wire_between(&a.name, &b.name).is_some() {
            return Err(refused(
                409,
                anyhow!("{} and {} are wired already", a.name, b.name),
            ));
        }
        let (first, second) = match *addresses {
            Some((first, second)) => {
                if first.is_ipv4() != second.is_ipv4() || first == second {
                    return Err(refused(
                        400,
                        anyhow!("{first} and {second} are not two addresses of one IP version"),
                    ));
                }
                (first, second)
            }
            None => self.free_pair()?,
        };
        let end = |name: &str, address| WireEnd {
            container: name.to_owned(),
            interface: self.free_interface(name),
            address,
        };
        let ends = [
            (end(&a.name, first), a.place.clone()),
            (end(&b.name, second), b.place.clone()),
        ];
        let mut helpers = Vec::new();
        for (i, (end, place)) in ends.iter().enumerate() {
            let task = task(end, ends[1 - i].0.address);
            let helper = Helper::spawn()?;
            helper.begin(Some(place.door()?.as_fd()), &task)?;
            helpers.push(helper);
        }
        Ok(Wiring {
            ends,
            helpers,
            made: Vec::new(),
        })
    }

    /// Joins the ends.
    pub(super) fn finish_wire(&mut self, wiring: Wiring) -> Result<WireInfo, Refused> {
        let Wiring { ends, helpers, made } = wiring;
        self.spent.extend(helpers);
        let [(a, _), (b, _)] = ends;
        for end in [&a, &b] {
            self.container(&end.container)?;
        }
        let info = WireInfo { a, b, since: now() };
        let wire = self.join(info, &made)?;
        let info = wire.info.clone();
        self.wires.push(wire);
        self.save()?;
        Ok(info)
    }

    fn join(&self, info: WireInfo, made: &[OwnedFd]) -> Result<Wire> {
        // No network of anybody's can be called so.
        let name = format!("wire {} {}", info.a.container, info.b.container);
        let mut network = Network::begin(plan(name), &self.host, None)?;
        network.configured()?;
        for (fd, end) in made.iter().zip([&info.a, &info.b]) {
            let settings = PortSettings {
                name: end.container.clone(),
                kind: PortKind::Tap,
                behind: Behind::Anyone,
                mtu: MTU.into(),
                icc: true,
                storm: Storm::Off,
                vlans: Vlans::All,
                names: Vec::new(),
                capture: false,
            };
            if let Err(e) = network.add_port(settings, &[fd.as_fd()]) {
                if let Some(link) = network.close() {
                    link.end();
                }
                return Err(e.context("cannot make the wire"));
            }
        }
        Ok(Wire { info, network })
    }

    /// Takes the wire between two containers away.
    pub(super) fn unwire(&mut self, a: &str, b: &str) -> Result<(), Refused> {
        let at = self
            .wire_between(a, b)
            .ok_or_else(|| refused(404, anyhow!("there is no wire between {a} and {b}")))?;
        let mut wire = self.wires.remove(at);
        if let Some(link) = wire.network.close() {
            link.end();
        }
        self.save()?;
        Ok(())
    }

    /// All wires.
    pub(super) fn wire_infos(&self) -> Vec<WireInfo> {
        self.wires.iter().map(|w| w.info.clone()).collect()
    }

    fn wire_between(&self, a: &str, b: &str) -> Option<usize> {
        self.wires.iter().position(|w| {
            let (x, y) = (w.info.a.container.as_str(), w.info.b.container.as_str());
            (x, y) == (a, b) || (x, y) == (b, a)
        })
    }

    /// The wires of a container go with it.
    pub(super) fn drop_wires(&mut self, container: &str) {
        let (gone, kept): (Vec<Wire>, Vec<Wire>) = std::mem::take(&mut self.wires)
            .into_iter()
            .partition(|w| w.info.a.container == container || w.info.b.container == container);
        self.wires = kept;
        for mut wire in gone {
            if let Some(link) = wire.network.close() {
                link.end();
            }
        }
    }

    /// What a wire's packet process has said: an end that is gone, or its own death, of which it is made anew.
    pub(super) fn wire_events(&mut self, name: &str) -> Result<()> {
        let Some(at) = self.wires.iter().position(|w| w.network.name() == name) else {
            return Ok(());
        };
        if let Err(e) = self.wires[at].network.events() {
            tracing::error!("wire {name}: {e:#}");
            let mut wire = self.wires.remove(at);
            if let Some(link) = wire.network.close() {
                link.end();
            }
            self.rewire(wire.info);
        }
        Ok(())
    }

    /// Makes a wire again that was there before.
    pub(super) fn rewire(&mut self, info: WireInfo) {
        let again = (|| {
            let mut made = Vec::new();
            for (end, other) in [(&info.a, &info.b), (&info.b, &info.a)] {
                let place = &self
                    .containers
                    .get(&end.container)
                    .context("a container is gone")?
                    .place;
                let mut helper = Helper::spawn()?;
                helper.begin(Some(place.door()?.as_fd()), &task(end, other.address))?;
                let (_, fd) = helper.port()?;
                made.push(fd);
            }
            self.join(info.clone(), &made)
        })();
        match again {
            Ok(wire) => self.wires.push(wire),
            Err(e) => tracing::error!(
                "the wire between {} and {} is gone: {e:#}",
                info.a.container,
                info.b.container
            ),
        }
    }

    /// A name for one more wire's interface in a container.
    fn free_interface(&self, container: &str) -> String {
        let used = |name: &str| {
            self.wires.iter().any(|w| {
                [&w.info.a, &w.info.b]
                    .iter()
                    .any(|e| e.container == container && e.interface == name)
            })
        };
        (0u32..)
            .map(|n| format!("wire{n}"))
            .find(|name| !used(name))
            .unwrap_or_default()
    }

    /// Two addresses that no other wire has, of 10.255.0.0/16.
    fn free_pair(&self) -> Result<(IpAddr, IpAddr), Refused> {
        let used = |address: IpAddr| {
            self.wires
                .iter()
                .any(|w| w.info.a.address == address || w.info.b.address == address)
        };
        (0..=255u8)
            .flat_map(|c| (0..127u8).map(move |d| (c, 2 * d + 1)))
            .map(|(c, d)| (IpAddr::from([10, 255, c, d]), IpAddr::from([10, 255, c, d + 1])))
            .find(|&(a, b)| !used(a) && !used(b))
            .ok_or_else(|| refused(409, anyhow!("no addresses are left for wires: name two")))
    }
}

fn task(end: &WireEnd, other: IpAddr) -> Task {
    Task::Attach(Attach {
        interface: end.interface.clone(),
        kind: Kind::Tap,
        // The same when it is made again: the other end's kernel knows it.
        mac: Some(mac_for(end.address)),
        mtu: MTU.into(),
        addresses: vec![IpNet::from(end.address)],
        gateways: Vec::new(),
        default: false,
        source_table: None,
        routes: vec![(IpNet::from(other), None)],
    })
}

fn plan(name: String) -> Plan {
    Plan {
        name,
        subnets: Vec::new(),
        gateway: false,
        mtu: MTU,
        internal: true,
        icc: true,
        dns: Vec::new(),
        search: Vec::new(),
        publish_address: None,
        host_loopback: false,
        link_local: LinkLocal::Refused,
        filtering: Filtering::AddressDependent,
        outbound: Outbound::default(),
        max_flows: DEFAULT_MAX_FLOWS,
        max_flows_per_container: DEFAULT_PER_CONTAINER,
        uplink: None,
        host: HostPorts::default(),
        storm: Storm::Off,
        options: std::collections::BTreeMap::new(),
        sandbox: SandboxOptions::default(),
    }
}
