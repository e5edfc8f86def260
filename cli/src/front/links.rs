//! Who may talk to whom: links between containers, rules for the clients of published ports, and the names that belong to
//! one container alone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use anyhow::{Result, anyhow};
use pontoon_nat::publish::Transport;
use serde::{Deserialize, Serialize};

use super::registry::{Container, Front};
use super::{Refused, refused};
use crate::api::{Action, LinkInfo, LinkSpec, RuleInfo, RuleRequest};
use crate::args::{Exposed, parse_name};
use crate::packet::protocol::{Command, NamedAddresses, Source};

/// A link between two containers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Link {
    /// The container that reaches.
    pub(super) client: String,
    /// The container that is reached.
    pub(super) server: String,
    /// The name that the client has for it.
    pub(super) alias: String,
    /// The ports that were named; what the server offers if none.
    pub(super) ports: Vec<Exposed>,
}

impl Front {
    /// Links a container to another, which it reaches from then on.
    pub(super) fn link(&mut self, client: &str, spec: LinkSpec) -> Result<LinkInfo, Refused> {
        self.container(client)?;
        let server = spec.server.clone();
        self.add_link(client, spec)?;
        self.apply_links(client)?;
        self.refresh_names();
        self.save()?;
        self.links
            .iter()
            .find(|l| l.client == client && l.server == server)
            .map(|l| self.link_info(l))
            .ok_or_else(|| refused(409, anyhow!("{server} has ended")))
    }

    /// Writes a link down, in place of one that there is between the two.
    pub(super) fn add_link(&mut self, client: &str, spec: LinkSpec) -> Result<(), Refused> {
        let LinkSpec { server, alias, ports } = spec;
        let alias = alias.unwrap_or_else(|| server.clone());
        parse_name(&alias).map_err(|e| refused(400, anyhow!("alias `{alias}`: {e}")))?;
        if client == server {
            return Err(refused(400, anyhow!("{client} needs no link to itself")));
        }
        let (from, to) = (self.container(client)?, self.container(&server)?);
        if shared(from, to).next().is_none() {
            return Err(refused(
                409,
                anyhow!("{client} and {server} are on no network together: connect one of them"),
            ));
        }
        self.links.retain(|l| l.client != client || l.server != server);
        self.links.push(Link {
            client: client.to_owned(),
            server,
            alias,
            ports,
        });
        Ok(())
    }

    /// Takes a link away.
    pub(super) fn unlink(&mut self, client: &str, server: &str) -> Result<(), Refused> {
        let before = self.links.len();
        self.links.retain(|l| l.client != client || l.server != server);
        if self.links.len() == before {
            return Err(refused(404, anyhow!("{client} has no link to {server}")));
        }
        for (network, client, server) in self.pairs(client, server) {
            let command = Command::SetLink {
                client,
                server,
                ports: None,
            };
            self.network_mut(&network)?.call(&command, &[])?;
        }
        self.refresh_names();
        self.save()?;
        Ok(())
    }

    /// Tells the switches of a container's links, where they matter.
    pub(super) fn apply_links(&mut self, name: &str) -> Result<(), Refused> {
        let links: Vec<Link> = self
            .links
            .iter()
            .filter(|l| l.client == name || l.server == name)
            .cloned()
            .collect();
        for link in links {
            let ports = self.ports_of(&link);
            let numbers: Vec<(Transport, u16)> = ports
                .iter()
                .flat_map(|e| (e.ports.0..=e.ports.1).map(|port| (e.protocol, port)))
                .collect();
            for (network, client, server) in self.pairs(&link.client, &link.server) {
                let network = self.network_mut(&network)?;
                if network.plan.icc {
                    continue;
                }
                let command = Command::SetLink {
                    client,
                    server,
                    ports: Some(numbers.clone()),
                };
                network.call(&command, &[])?;
            }
        }
        Ok(())
    }

    /// The networks that two containers share, each with the ports of both.
    fn pairs(&self, client: &str, server: &str) -> Vec<(String, u32, u32)> {
        match (self.containers.get(client), self.containers.get(server)) {
            (Some(client), Some(server)) => shared(client, server)
                .map(|(network, client, server)| (network.to_owned(), client, server))
                .collect(),
            (Some(_), None) | (None, _) => Vec::new(),
        }
    }

    /// The ports that a link opens.
    fn ports_of(&self, link: &Link) -> Vec<Exposed> {
        match self.containers.get(&link.server) {
            Some(server) if link.ports.is_empty() => server.offered(),
            Some(_) | None => link.ports.clone(),
        }
    }

    /// All that is known of a link.
    pub(super) fn link_info(&self, link: &Link) -> LinkInfo {
        LinkInfo {
            client: link.client.clone(),
            server: link.server.clone(),
            alias: link.alias.clone(),
            ports: self.ports_of(link),
            addresses: self.addresses_for(&link.client, &link.server),
        }
    }

    /// The addresses by which one container reaches another: those on networks that both are on.
    fn addresses_for(&self, client: &str, server: &str) -> Vec<IpAddr> {
        let (Some(from), Some(to)) = (self.containers.get(client), self.containers.get(server)) else {
            return Vec::new();
        };
        to.endpoints
            .iter()
            .filter(|e| from.on(&e.info.network).is_some())
            .flat_map(|e| e.info.addresses.iter().copied())
            .collect()
    }

    /// Adds a rule for the clients of a published port, behind those there are.
    pub(super) fn add_rule(&mut self, request: RuleRequest) -> Result<RuleInfo, Refused> {
        let rule = RuleInfo {
            id: self.next_rule,
            action: request.action,
            container: request.container,
            port: request.port,
            protocol: request.protocol,
            from: request.from.trunc(),
        };
        self.next_rule += 1;
        self.rules.push(rule.clone());
        let added = self
            .apply_rules(&rule.container)
            .and_then(|()| Ok(self.save_for_good()?));
        if let Err(e) = added {
            self.rules.pop();
            // A gateway that has it already is to forget it.
            if let Err(e) = self.send_sources(&rule.container, rule.protocol, rule.port) {
                tracing::error!("a rule that could not be added may be in force: {:#}", e.error);
            }
            return Err(e);
        }
        Ok(rule)
    }

    /// Takes a rule away.
    pub(super) fn remove_rule(&mut self, id: u32) -> Result<(), Refused> {
        let Some(at) = self.rules.iter().position(|r| r.id == id) else {
            return Err(refused(
                404,
                anyhow!("there is no rule {id}: see `pontoon rule ls`"),
            ));
        };
        let rule = self.rules.remove(at);
        // Where it was the last one for its port, nobody else would tell the gateway.
        self.send_sources(&rule.container, rule.protocol, rule.port)?;
        self.save_for_good()?;
        Ok(())
    }

    /// Tells the gateways of the rules for a container's ports.
    pub(super) fn apply_rules(&mut self, name: &str) -> Result<(), Refused> {
        let mut ports: Vec<(Transport, u16)> = self
            .rules
            .iter()
            .filter(|r| r.container == name)
            .map(|r| (r.protocol, r.port))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        for (protocol, port) in ports {
            self.send_sources(name, protocol, port)?;
        }
        Ok(())
    }

    fn send_sources(&mut self, name: &str, protocol: Transport, container_port: u16) -> Result<(), Refused> {
        let Some(container) = self.containers.get(name) else {
            return Ok(());
        };
        let sources: Vec<Source> = self
            .rules
            .iter()
            .filter(|r| r.container == name && r.protocol == protocol && r.port == container_port)
            .map(|r| Source {
                allow: r.action == Action::Allow,
                net: r.from,
            })
            .collect();
        let at: Vec<(String, u32)> = container
            .endpoints
            .iter()
            .map(|e| (e.info.network.clone(), e.info.port))
            .collect();
        for (network, port) in at {
            let command = Command::SetSources {
                port,
                protocol,
                container_port,
                sources: sources.clone(),
            };
            self.network_mut(&network)?.call(&command, &[])?;
        }
        Ok(())
    }

    /// Tells the gateways which names each container has for itself: those of its other networks, which the gateway of one
    /// does not know of, and the aliases of its links.
    pub(super) fn refresh_names(&mut self) {
        let wanted: Vec<(String, usize, NamedAddresses)> = self
            .containers
            .values()
            .filter(|c| c.endpoints.len() > 1 || self.links.iter().any(|l| l.client == c.name))
            .flat_map(|c| (0..c.endpoints.len()).map(move |i| (c, i)))
            .map(|(c, i)| (c.name.clone(), i, self.view(c, i)))
            .collect();
        let mut wanted: BTreeMap<(String, usize), NamedAddresses> = wanted
            .into_iter()
            .map(|(name, i, view)| ((name, i), view))
            .collect();
        let mut changed = Vec::new();
        for container in self.containers.values_mut() {
            for (i, endpoint) in container.endpoints.iter_mut().enumerate() {
                let view = wanted.remove(&(container.name.clone(), i)).unwrap_or_default();
                if view != endpoint.view {
                    endpoint.view.clone_from(&view);
                    changed.push((endpoint.info.network.clone(), endpoint.info.port, view));
                }
            }
        }
        for (network, port, names) in changed {
            let Some(network) = self.networks.get_mut(&network) else {
                continue;
            };
            if let Err(e) = network.call(&Command::SetView { port, names }, &[]) {
                tracing::error!("cannot change names on network {}: {e:#}", network.name());
            }
        }
    }

    /// The names that a container has at the gateway of its interface number `i`, and others on that network have not.
    fn view(&self, container: &Container, i: usize) -> NamedAddresses {
        let here = &container.endpoints[i].info.network;
        // In the order of their coming: an address is called by the first name that has it, which is its container's.
        let mut names: NamedAddresses = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut position = |names: &mut NamedAddresses, name: String| {
            *known.entry(name).or_insert_with_key(|name| {
                names.push((name.clone(), Vec::new()));
                names.len() - 1
            })
        };
        for endpoint in container.endpoints.iter().filter(|e| e.info.network != *here) {
            for (member, at) in self.members(&endpoint.info.network) {
                for name in super::attach::names_of(&member.name, &at.info.aliases, &at.info.network) {
                    let position = position(&mut names, name);
                    names[position].1.extend(&at.info.addresses);
                }
            }
        }
        for link in self.links.iter().filter(|l| l.client == container.name) {
            let position = position(&mut names, link.alias.clone());
            names[position].1 = self.addresses_for(&link.client, &link.server);
        }
        names
    }

    /// Tells the gateways' DNS every container's further names.
    pub(super) fn send_hosts(&mut self) {
        let mut all: BTreeMap<String, Vec<(String, IpAddr)>> = BTreeMap::new();
        for container in self.containers.values() {
            for endpoint in &container.endpoints {
                all.entry(endpoint.info.network.clone())
                    .or_default()
                    .extend(container.hosts.iter().cloned());
            }
        }
        for (name, network) in &mut self.networks {
            let hosts = all.remove(name).unwrap_or_default();
            if let Err(e) = network.call(&Command::SetHosts { hosts }, &[]) {
                tracing::error!("cannot change the names of --add-host on network {name}: {e:#}");
            }
        }
    }
}

/// The networks that two containers share, each with the ports of both.
fn shared<'a>(client: &'a Container, server: &'a Container) -> impl Iterator<Item = (&'a str, u32, u32)> {
    client.endpoints.iter().filter_map(move |c| {
        let s = server.on(&c.info.network)?;
        Some((c.info.network.as_str(), c.info.port, s.info.port))
    })
}
