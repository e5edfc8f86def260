//! Packet processes that have died are replaced, and what was on their switches is put there again.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::registry::Front;
use crate::packet::protocol::Event;

/// How long a network whose packet process died at once is left alone before the next try.
const REST: Duration = Duration::from_secs(1);

impl Front {
    /// A network has no packet process: it is to be given one in a while.
    pub(super) fn try_later(&mut self, name: &str) {
        self.broken.insert(name.to_owned(), Instant::now() + REST);
    }

    /// Takes what the packet process of `network` has said by itself. A private network does not outlive it; one of the
    /// daemon's gets another.
    ///
    /// # Errors
    /// It is dead, and with it the front.
    pub(super) fn packet_events(&mut self, network: &str) -> Result<()> {
        let events = match self.networks.get_mut(network) {
            Some(network) => network.events(),
            None => return self.wire_events(network),
        };
        match events {
            Ok(events) => {
                for event in events {
                    self.packet_event(network, event);
                }
                Ok(())
            }
            Err(e) if self.is_daemon() => {
                tracing::error!("network {network}: {e:#}");
                self.revive(network);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Takes what packet processes have said while something else was asked of them.
    ///
    /// # Errors
    /// As [`Front::packet_events`].
    pub(super) fn overheard(&mut self) -> Result<()> {
        let wires = self.wires.iter().map(|w| &w.network);
        let heard: Vec<String> = self
            .networks
            .values()
            .chain(wires)
            .filter(|n| n.has_heard())
            .map(|n| n.name().to_owned())
            .collect();
        for name in heard {
            self.packet_events(&name)?;
        }
        Ok(())
    }

    fn packet_event(&mut self, network: &str, event: Event) {
        let Event::PortClosed { port, error } = event;
        if self.lost_uplink(network, port, &error) || self.lost_cable(network, port) {
            return;
        }
        tracing::info!("port {port} of network {network} closed: {error}");
        let owner = self
            .members(network)
            .find(|(_, e)| e.info.port == port)
            .map(|(c, _)| c.name.clone());
        match owner {
            Some(name) => self.lost(&name, network),
            None => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.host_ports.retain(|(p, _)| *p != port);
                }
            }
        }
    }

    /// Puts a new packet process in the place of a network's dead one, and its containers' interfaces on its switch.
    fn revive(&mut self, name: &str) {
        let now = Instant::now();
        if self.restarted.get(name).is_some_and(|&at| now < at + REST) {
            if let Some(network) = self.networks.get_mut(name) {
                network.live.forget_port();
                if let Some(link) = network.close() {
                    link.end();
                }
            }
            self.try_later(name);
            return;
        }
        self.restarted.insert(name.to_owned(), now);
        let host = self.host.clone();
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        let again = network.restart(&host).and_then(|()| {
            self.forget_patches(name);
            self.add_host_ports(name)?;
            self.make_uplink_soon(name);
            self.reattach(Some(name));
            self.route_again(name);
            Ok(())
        });
        match again {
            Ok(()) => {
                self.broken.remove(name);
                tracing::warn!("network {name} has another packet process; its connections are lost");
            }
            Err(e) => {
                tracing::error!("cannot start network {name} again: {e:#}");
                self.try_later(name);
            }
        }
    }

    /// Tries networks again that have no packet process; when to try next.
    pub(super) fn mend(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let due: Vec<String> = self
            .broken
            .iter()
            .filter(|&(_, &at)| at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.broken.remove(&name);
            self.restarted.remove(&name);
            self.revive(&name);
        }
        let next = self.broken.values().min()?;
        Some(next.saturating_duration_since(now).max(Duration::from_millis(10)))
    }
}
