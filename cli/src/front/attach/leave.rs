//! Containers leave networks, and go.

use std::os::fd::AsFd;

use anyhow::anyhow;

use crate::attach::{Helper, Task};
use crate::front::place::Place;
use crate::front::registry::{Container, Endpoint, Front};
use crate::front::{Refused, refused};

impl Front {
    /// Takes a container off a network.
    pub(in crate::front) fn disconnect(&mut self, network: &str, name: &str) -> Result<(), Refused> {
        self.network(network)?;
        let container = self.container(name)?;
        if container.on(network).is_none() {
            return Err(refused(
                404,
                anyhow!("container {name} is not on network {network}"),
            ));
        }
        if container.endpoints.len() == 1 {
            self.detach(name);
            self.save()?;
            return Ok(());
        }
        self.leave(name, network)?;
        self.save()?;
        Ok(())
    }

    /// Takes a container of several networks off one of them; what was published there is published by the gateway that the
    /// default route leads to then, if there is one.
    pub(super) fn leave(&mut self, name: &str, network: &str) -> Result<(), Refused> {
        let published = self.published_by(name, network);
        self.take_away(name, network);
        self.move_default(name)?;
        let leads_out = self.container(name)?.default_endpoint().is_some();
        if leads_out && !published.is_empty() {
            self.publish_again(name, published);
        }
        Ok(())
    }

    /// Detaches a container: its ports, flows, published sockets, addresses and name are free again.
    pub(in crate::front) fn detach(&mut self, name: &str) {
        let Some(container) = self.containers.remove(name) else {
            return;
        };
        tracing::info!("{name} detached");
        for endpoint in &container.endpoints {
            self.take_off(endpoint);
            self.tidy_up(&container, endpoint);
        }
        self.drop_wires(name);
        self.links.retain(|l| l.client != name && l.server != name);
        self.refresh_names();
        if !container.hosts.is_empty() {
            self.send_hosts();
        }
        self.save_or_log();
    }

    /// As [`Front::detach`], for one who asks by name.
    pub(in crate::front) fn detach_named(&mut self, name: &str) -> Result<(), Refused> {
        self.container(name)?;
        self.detach(name);
        Ok(())
    }

    /// A container's interface on a network is gone, or is to go.
    pub(in crate::front) fn lost(&mut self, name: &str, network: &str) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        if container.endpoints.len() <= 1 {
            return self.detach(name);
        }
        if let Err(e) = self.leave(name, network) {
            tracing::error!("{name} has lost its interface on {network}: {:#}", e.error);
        }
    }

    pub(super) fn take_away(&mut self, name: &str, network: &str) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let Some(at) = container.endpoints.iter().position(|e| e.info.network == network) else {
            return;
        };
        let endpoint = container.endpoints.remove(at);
        container.published.retain(|p| p.network != network);
        let place = container.place.clone();
        self.take_off(&endpoint);
        self.tidy_interface(&place, &endpoint);
        self.refresh_names();
        self.save_or_log();
    }

    /// Takes an interface off its switch, and gives its addresses back.
    pub(super) fn take_off(&mut self, endpoint: &Endpoint) {
        if let Some(network) = self.networks.get_mut(&endpoint.info.network) {
            network.remove_port(endpoint.info.port);
            network.release(&endpoint.info.addresses, endpoint.info.mac);
        }
    }

    pub(super) fn tidy_up(&mut self, container: &Container, endpoint: &Endpoint) {
        if container.place.is_there() {
            self.tidy_interface(&container.place, endpoint);
        }
    }

    /// Has what is left of an interface in a container that lives on taken away. Under the lock nobody
    /// waits for it.
    pub(super) fn tidy_interface(&mut self, place: &Place, endpoint: &Endpoint) {
        let task = Task::Detach {
            interface: endpoint.info.interface.clone(),
            source_table: endpoint.source_table,
        };
        let begun = Helper::spawn().and_then(|helper| {
            helper.begin(Some(place.door()?.as_fd()), &task)?;
            Ok(helper)
        });
        match begun {
            Ok(helper) => self.tidying.push((place.known.clone(), helper)),
            Err(e) => tracing::debug!("cannot tidy {}: {e:#}", endpoint.info.interface),
        }
    }
}
