//! Containers as they come, change and go.

use std::net::IpAddr;

use pontoon_switch::{Instant, Out, PortId};

use super::{Endpoint, Gateway};
use crate::host::Host;
use crate::publish::{SourceRule, Transport};

impl<H: Host> Gateway<H> {
    /// Takes note of a container: its addresses are pinned to its MAC, DHCP gives it its own address.
    pub fn attach(&mut self, endpoint: Endpoint) {
        for &address in &endpoint.addresses {
            self.shared.neighbours.pin(address, endpoint.mac);
            if let IpAddr::V4(v4) = address {
                self.link.assign(endpoint.mac, v4);
            }
        }
        let refused = self
            .dns
            .set_endpoint(endpoint.port, &endpoint.names, &endpoint.addresses);
        warn_of(&refused);
        self.shared.shares.attach(endpoint.port);
        self.router.attach(endpoint.port, &endpoint.addresses);
        self.endpoints.insert(endpoint.port, endpoint);
    }

    /// Answers for the container at `port` under these names from now on, in place of those before. A name that DNS cannot
    /// have (a label is empty or longer than 63 bytes) is left out, with a line in the log. False if there is no container at
    /// `port`.
    pub fn set_endpoint_names(&mut self, port: PortId, names: Vec<String>) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(&port) else {
            return false;
        };
        endpoint.names = names;
        let refused = self.dns.set_endpoint(port, &endpoint.names, &endpoint.addresses);
        warn_of(&refused);
        true
    }

    /// Names that the container at `port` alone is answered from now on, besides the network's, which win where both have
    /// one: those of its other networks. Who asks is known by the port that the question comes from, whatever that claims.
    /// An address is called by the first name that has it. False if there is no container at `port`.
    pub fn set_view(&mut self, port: PortId, names: Vec<(String, Vec<IpAddr>)>) -> bool {
        if !self.endpoints.contains_key(&port) {
            return false;
        }
        let refused = self.dns.set_view(port, &names);
        warn_of(&refused);
        true
    }

    /// Rules on the clients of `container_port` of the container at `port`, in place of those before, whether anything leads
    /// there yet or not. The first that a client's address falls under decides; one under none may come. Flows of clients
    /// that may come no more end at once. The rules go with the container. False if there is none at `port`.
    pub fn set_sources(
        &mut self,
        port: PortId,
        transport: Transport,
        container_port: u16,
        rules: Vec<SourceRule>,
    ) -> bool {
        if !self.endpoints.contains_key(&port) {
            return false;
        }
        let target = (port, transport, container_port);
        self.shared.sources.set(target, rules);
        self.resourced.insert(target);
        true
    }

    /// Forgets the container at `port`: its flows end, what is published of it closes.
    pub fn detach(&mut self, now: Instant, port: PortId, out: &mut dyn Out) {
        self.rules.retain(|_, r| r.port != port);
        self.shared.shares.detach(port);
        self.shared.shares.keep(self.sockets_of_rules());
        self.shared.sources.forget(port);
        self.dns.detach(port);
        let mut cx = self.shared.cx(now, out);
        self.tcp.detach(&mut cx, port);
        self.udp.detach(&mut cx, port);
        self.echo.detach(&mut cx, port);
        self.router.detach(cx.flows, port);
        if let Some(endpoint) = self.endpoints.remove(&port) {
            for address in endpoint.addresses {
                self.fragments.forget(address);
                self.shared.neighbours.unpin(address);
            }
            self.link.unassign(endpoint.mac);
        }
    }
}

/// Says in the log which names cannot be answered for.
fn warn_of(refused: &[String]) {
    if !refused.is_empty() {
        tracing::warn!(names = ?refused, "no names of DNS: they are not answered for");
    }
}
