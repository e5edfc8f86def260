//! What of the host itself is on a network: an interface of its LAN, a TAP that is there, one that is made for it.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::registry::Front;
use crate::attach::{Helper, Task};
use crate::packet::protocol::{Behind, PortKind, PortSettings, Storm, Vlans};

impl Front {
    /// Puts what of the host belongs to a network on its switch.
    pub(super) fn add_host_ports(&mut self, name: &str) -> Result<()> {
        let Some(network) = self.networks.get(name) else {
            return Ok(());
        };
        let host = network.plan.host.clone();
        let mtu: u32 = network.plan.mtu.into();
        let vlans = if host.trunk.is_empty() {
            Vlans::All
        } else {
            Vlans::Trunk(host.trunk.clone())
        };
        let mut tasks = Vec::new();
        if let Some(interface) = &host.parent {
            let task = Task::Packet {
                interface: interface.clone(),
            };
            tasks.push((interface.clone(), task, PortKind::Packet, vlans.clone()));
        }
        if let Some(interface) = &host.tap {
            let task = Task::Tap {
                interface: interface.clone(),
            };
            tasks.push((interface.clone(), task, PortKind::Tap, vlans));
        }
        if let Some(interface) = &host.host_tap {
            // The host is on the network as a container is, but for the default route.
            let network = self.networks.get_mut(name).context("the network is gone")?;
            let taken = match network.of_host.clone() {
                Some(taken) => taken,
                None => network.take(None, None, None).map_err(|e| e.error)?,
            };
            network.of_host = Some(taken.clone());
            let task = Task::HostTap {
                interface: interface.clone(),
                mac: Some(taken.mac),
                mtu,
                addresses: taken.prefixes,
            };
            tasks.push((interface.clone(), task, PortKind::Tap, Vlans::All));
        }
        for (interface, task, kind, vlans) in tasks {
            let what = || format!("cannot put the host's interface {interface} on network {name}");
            let mut helper = Helper::spawn()?;
            helper.begin(None, &task)?;
            let (_, fd) = helper.port().with_context(what)?;
            self.spent.push(helper);
            let network = self.networks.get_mut(name).context("the network is gone")?;
            let settings = PortSettings {
                name: interface.clone(),
                kind,
                behind: Behind::Anyone,
                mtu,
                icc: true,
                storm: Storm::Off,
                vlans,
                names: Vec::new(),
                capture: false,
            };
            let port = network.add_port(settings, &[fd.as_fd()]).with_context(what)?;
            network.host_ports.push((port, interface));
        }
        Ok(())
    }
}
