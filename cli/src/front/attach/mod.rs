//! Containers come, join further networks, leave them, and go.
//!
//! ```text
//! begin   under the lock   names, addresses and host ports are taken; a helper for each interface begins
//! made    without it       the helpers make the interfaces in the container and pass their descriptors
//! finish  under the lock   the descriptors become ports of the switches, what is published is led there
//! ```
//!
//! A container that hangs holds up whoever attaches it and nobody else. An attachment that fails in whatever step is taken
//! back whole: the interfaces go with their descriptors.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use pontoon_nat::publish::PublishSpec;

use super::capture_file::CaptureFile;
use super::network::Taken;
use super::place::Place;
use super::publish::{Binding, Kept};
use super::registry::{Container, Endpoint, Front, Life};
use super::{Refused, now, refused};
use crate::api::{AttachRequest, ContainerInfo, EndpointInfo, EndpointKind, EndpointSpec, LinkSpec};
use crate::args::{Exposed, parse_name};
use crate::attach::{Attach, Helper, Kind, Task};
use crate::packet::protocol::{Behind, PortKind, PortSettings, Vlans};

mod again;
mod join;
mod leave;

/// First of the routing tables for what is sent from the addresses of one interface.
const FIRST_TABLE: u32 = 1000;

/// Most interfaces of a container.
const MAX_ENDPOINTS: usize = 64;

/// A container, or one more interface of one, on its way.
#[derive(Debug)]
pub(super) struct Attaching {
    name: String,
    place: Place,
    jobs: Vec<Job>,
    bound: Vec<(PublishSpec, Kept)>,
    capture: Option<CaptureFile>,
    hosts: Vec<(String, IpAddr)>,
    exposed: Vec<Exposed>,
    links: Vec<LinkSpec>,
    /// Helpers that still take something away in the same namespace.
    before: Vec<Helper>,
    /// The network that a container joins which is there already.
    joined: Option<String>,
}

/// One interface on its way.
#[derive(Debug)]
struct Job {
    spec: EndpointSpec,
    interface: String,
    taken: Taken,
    default: bool,
    source_table: Option<u32>,
    task: Option<Task>,
    helper: Option<Helper>,
    made: Option<OwnedFd>,
}

impl Attaching {
    /// A container of which nothing is on its way yet, or one that is to be on the network `joined` as well.
    fn new(name: String, place: Place, joined: Option<String>) -> Self {
        Self {
            name,
            place,
            jobs: Vec::new(),
            bound: Vec::new(),
            capture: None,
            hosts: Vec::new(),
            exposed: Vec::new(),
            links: Vec::new(),
            before: Vec::new(),
            joined,
        }
    }

    /// Has a helper begin for each interface; `first` is one that waits already.
    fn begin(&mut self, mut first: Option<Helper>) -> Result<()> {
        for job in &mut self.jobs {
            let helper = match first.take() {
                Some(helper) => helper,
                None => Helper::spawn()?,
            };
            let task = job.task.take().context("nothing is to be done")?;
            helper
                .begin(Some(self.place.door()?.as_fd()), &task)
                .with_context(|| format!("cannot attach {}", self.name))?;
            job.helper = Some(helper);
        }
        Ok(())
    }

    /// Waits until the interfaces are made. Not to be called under the lock.
    pub(super) fn made(&mut self) -> Result<(), Refused> {
        if !self.before.is_empty() {
            self.before.clear();
            self.begin(None)?;
        }
        let name = &self.name;
        for job in &mut self.jobs {
            let Some(mut helper) = job.helper.take() else {
                continue;
            };
            let (_, fd) = helper
                .port()
                .with_context(|| format!("cannot attach {name} to {}", job.spec.network))?;
            job.made = Some(fd);
        }
        Ok(())
    }
}

impl Front {
    /// Begins to attach a container for the user `uid`.
    pub(super) fn begin_attach(&mut self, uid: u32, request: AttachRequest) -> Result<Attaching, Refused> {
        if self.is_over(false) {
            return Err(refused(
                503,
                anyhow!("the network is ending: its last container has"),
            ));
        }
        let place = match (request.pid, &request.namespace) {
            (Some(pid), None) => Place::of_process(pid, uid)?,
            (None, Some(path)) => Place::of_path(path, uid)?,
            (Some(_), Some(_)) | (None, None) => {
                return Err(refused(
                    400,
                    anyhow!("name the container by `pid` or by `namespace`"),
                ));
            }
        };
        let name = match (&request.name, place.pid()) {
            (Some(name), _) => name.clone(),
            (None, Some(pid)) => format!("c{pid}"),
            (None, None) => {
                return Err(refused(
                    400,
                    anyhow!("a container that is named by its path needs a `name`"),
                ));
            }
        };
        parse_name(&name).map_err(|e| refused(400, anyhow!(e)))?;
        if self.containers.contains_key(&name) || self.coming.contains(&name) {
            return Err(refused(
                409,
                anyhow!("a container named {name} is there already: choose another --name"),
            ));
        }
        let mut specs = request.endpoints.clone();
        if specs.is_empty()
            && let [only] = &self.networks.keys().collect::<Vec<_>>()[..]
        {
            specs.push(EndpointSpec {
                network: (*only).clone(),
                ..EndpointSpec::default()
            });
        }
        if specs.is_empty() {
            return Err(refused(400, anyhow!("name a network to attach {name} to")));
        }
        for (i, spec) in specs.iter().enumerate() {
            self.network(&spec.network)?;
            if specs[..i].iter().any(|s| s.network == spec.network) {
                return Err(refused(400, anyhow!("network {} is named twice", spec.network)));
            }
        }
        for link in &request.links {
            self.container(&link.server)?;
        }
        let mut attaching = Attaching {
            hosts: request.add_hosts.clone(),
            exposed: request.expose.clone(),
            links: request.links.clone(),
            ..Attaching::new(name.clone(), place, None)
        };
        match self.begin(&mut attaching, specs, &request) {
            Ok(()) => {
                self.coming.insert(name);
                Ok(attaching)
            }
            Err(e) => {
                self.abandon(attaching);
                Err(e)
            }
        }
    }

    /// Takes what is to be taken, and has the helpers begin.
    fn begin(
        &mut self,
        attaching: &mut Attaching,
        specs: Vec<EndpointSpec>,
        request: &AttachRequest,
    ) -> Result<(), Refused> {
        let default = self.default_of(specs.iter().map(|s| (s.network.as_str(), s.gw_priority)));
        if !request.publish.is_empty() {
            let network = default.map(|i| specs[i].network.as_str());
            if let Some(network) = network {
                self.look_at_uplink(network);
            }
            attaching.bound = self.bind_all(&attaching.name, network, &request.publish, Binding::New)?;
        }
        attaching.capture = request
            .capture
            .as_deref()
            .map(CaptureFile::create)
            .transpose()
            .map_err(|e| refused(400, e))?;
        for (i, spec) in specs.into_iter().enumerate() {
            let job = self.take(spec, i, default == Some(i))?;
            attaching.jobs.push(job);
        }
        // Last, as they change the container.
        self.begin_helpers(attaching)
    }

    /// Has the helpers begin; not before what is being taken away in the same namespace is gone, for which whoever waits for
    /// them waits first.
    fn begin_helpers(&mut self, attaching: &mut Attaching) -> Result<(), Refused> {
        for job in &mut attaching.jobs {
            job.task = Some(self.task(job)?);
        }
        attaching.before = self.tidying_at(&attaching.place.known);
        if attaching.before.is_empty() {
            attaching.begin(self.helper.take())?;
        }
        Ok(())
    }

    /// Takes addresses for the interface number `index` of a container.
    fn take(&mut self, spec: EndpointSpec, index: usize, default: bool) -> Result<Job, Refused> {
        for alias in &spec.aliases {
            parse_name(alias).map_err(|e| refused(400, anyhow!("alias `{alias}`: {e}")))?;
        }
        let daemon = self.is_daemon();
        let network = self.network_mut(&spec.network)?;
        if let Some(vlan) = spec.vlan
            && !(1..=4094).contains(&vlan)
        {
            return Err(refused(
                400,
                anyhow!("VLAN {vlan} cannot be had: it is 1 to 4094"),
            ));
        }
        let taken = network.take(spec.ip, spec.ip6, spec.mac)?;
        let numbered = u32::try_from(index).unwrap_or_default();
        Ok(Job {
            interface: format!("eth{index}"),
            taken,
            default,
            // A private network's container has one interface, whose rules its main table has.
            source_table: (daemon && network.leads_out()).then_some(FIRST_TABLE + numbered),
            spec,
            task: None,
            helper: None,
            made: None,
        })
    }

    /// What the helper is to do for an interface.
    fn task(&self, job: &Job) -> Result<Task> {
        let network = self
            .networks
            .get(&job.spec.network)
            .with_context(|| format!("network {} is gone", job.spec.network))?;
        Ok(Task::Attach(Attach {
            interface: job.interface.clone(),
            kind: match job.spec.kind {
                EndpointKind::Tap => Kind::Tap,
                EndpointKind::Veth => Kind::Veth,
            },
            mac: Some(job.taken.mac),
            mtu: network.plan.mtu.into(),
            addresses: job.taken.prefixes.clone(),
            gateways: network.routers(),
            default: job.default,
            source_table: job.source_table,
            routes: Vec::new(),
        }))
    }

    /// Which of several interfaces the default route leads to: the first of those with the highest priority whose network
    /// has a way out.
    fn default_of<'a>(&self, endpoints: impl Iterator<Item = (&'a str, i32)>) -> Option<usize> {
        let leads_out = |name: &str| {
            self.networks
                .get(name)
                .is_some_and(super::network::Network::leads_out)
        };
        endpoints
            .enumerate()
            .filter(|(_, (network, _))| leads_out(network))
            // Of equals the last wins, so they are counted from behind.
            .max_by_key(|&(i, (_, priority))| (priority, std::cmp::Reverse(i)))
            .map(|(i, _)| i)
    }

    /// Makes the interfaces ports of their switches, and the container one of ours.
    pub(super) fn finish_attach(&mut self, mut attaching: Attaching) -> Result<ContainerInfo, Refused> {
        let name = attaching.name.clone();
        if attaching.joined.is_some() && !self.containers.contains_key(&name) {
            self.abandon(attaching);
            return Err(refused(409, anyhow!("container {name} has ended")));
        }
        let mut endpoints = Vec::new();
        let done = self.finish(&mut attaching, &mut endpoints);
        self.coming.remove(&name);
        if let Err(e) = done {
            for endpoint in &endpoints {
                self.take_off(endpoint);
            }
            self.abandon(attaching);
            return Err(e);
        }
        if let Some(capture) = attaching.capture.take() {
            capture.keep();
        }
        tracing::info!(
            "{name} attached to {:?}",
            endpoints.iter().map(|e| &e.info.network).collect::<Vec<_>>()
        );
        match self.containers.get_mut(&name) {
            Some(container) => container.endpoints.extend(endpoints),
            None => {
                let container = Container {
                    name: name.clone(),
                    place: attaching.place,
                    endpoints,
                    published: Vec::new(),
                    exposed: attaching.exposed,
                    hosts: attaching.hosts,
                    since: now(),
                };
                self.containers.insert(name.clone(), container);
            }
        }
        if let Life::Private { used, .. } = &mut self.life {
            *used = true;
        }
        let joined = attaching.joined;
        if let Err(e) = self.settle(&name, attaching.bound, attaching.links) {
            match joined {
                Some(network) => self.lost(&name, &network),
                None => self.detach(&name),
            }
            return Err(e);
        }
        // It may have ended while it was attached, before anybody watched it.
        let container = self.container(&name)?;
        Ok(self.container_info(container))
    }

    fn finish(&mut self, attaching: &mut Attaching, endpoints: &mut Vec<Endpoint>) -> Result<(), Refused> {
        for job in &mut attaching.jobs {
            let fd = job
                .made
                .take()
                .with_context(|| format!("{} has no interface {}", attaching.name, job.interface))?;
            // The first port is the one that is captured.
            let capture = attaching.capture.as_ref().filter(|_| endpoints.is_empty());
            let mut fds = vec![fd.as_fd()];
            fds.extend(capture.map(|c| c.file.as_fd()));
            let network = self.network_mut(&job.spec.network)?;
            let names = names_of(&attaching.name, &job.spec.aliases, &job.spec.network);
            let settings = PortSettings {
                name: attaching.name.clone(),
                kind: port_kind(job.spec.kind),
                behind: Behind::Container {
                    mac: job.taken.mac,
                    // Without addresses of ours the container has what its LAN gives it.
                    addresses: (!job.taken.addresses.is_empty()).then(|| job.taken.addresses.clone()),
                },
                mtu: network.plan.mtu.into(),
                icc: network.plan.icc,
                storm: network.plan.storm,
                vlans: match job.spec.vlan {
                    Some(vlan) => Vlans::Access(vlan),
                    // What else is on the switch may carry VLANs that are none of the container's business.
                    None if network.plan.host.is_shared() => Vlans::Untagged,
                    None => Vlans::All,
                },
                names,
                capture: capture.is_some(),
            };
            let port = network.add_port(settings, &fds)?;
            endpoints.push(Endpoint {
                info: EndpointInfo {
                    container: attaching.name.clone(),
                    network: job.spec.network.clone(),
                    interface: job.interface.clone(),
                    kind: job.spec.kind,
                    port,
                    mac: job.taken.mac,
                    addresses: job.taken.addresses.clone(),
                    aliases: job.spec.aliases.clone(),
                    gw_priority: job.spec.gw_priority,
                    default_route: job.default,
                    vlan: job.spec.vlan.unwrap_or(0),
                },
                prefixes: job.taken.prefixes.clone(),
                source_table: job.source_table,
                view: Vec::new(),
            });
        }
        // What is a port's belongs to its endpoint from now on, and is not given back twice.
        attaching.jobs.clear();
        Ok(())
    }

    /// Gives a container whose ports are there what belongs to it: published ports, links, rules, names.
    fn settle(
        &mut self,
        name: &str,
        bound: Vec<(PublishSpec, Kept)>,
        links: Vec<LinkSpec>,
    ) -> Result<(), Refused> {
        let joined: Vec<String> = self
            .container(name)?
            .endpoints
            .iter()
            .map(|e| e.info.network.clone())
            .collect();
        for network in joined {
            self.tell_routers(&network);
        }
        self.apply_rules(name)?;
        if !bound.is_empty() {
            self.lead(name, bound)?;
        }
        for link in links {
            self.add_link(name, link)?;
        }
        self.apply_links(name)?;
        self.refresh_names();
        if self.containers.get(name).is_some_and(|c| !c.hosts.is_empty()) {
            self.send_hosts();
        }
        self.save()?;
        Ok(())
    }

    /// Gives back what was taken for an attachment that has failed.
    pub(super) fn abandon(&mut self, attaching: Attaching) {
        if attaching.joined.is_none() {
            self.coming.remove(&attaching.name);
        }
        for job in attaching.jobs {
            if let Some(network) = self.networks.get_mut(&job.spec.network) {
                network.release(&job.taken.addresses, job.taken.mac);
            }
            // One that still works ends once its descriptor has nobody to go to.
            self.spent.extend(job.helper);
        }
    }
}

fn port_kind(kind: EndpointKind) -> PortKind {
    match kind {
        EndpointKind::Tap => PortKind::Tap,
        EndpointKind::Veth => PortKind::Packet,
    }
}

/// What the gateway's DNS calls a container on a network: its name, its aliases, and its name with the network's.
pub(super) fn names_of(container: &str, aliases: &[String], network: &str) -> Vec<String> {
    let qualified = format!("{container}.{network}");
    let mut names = vec![container.to_owned()];
    names.extend(aliases.iter().filter(|a| *a != container).cloned());
    names.push(qualified);
    names
}
