//! What outlives the daemon: networks, leases, links, rules and wires, in one file.
//!
//! The file is written whole beside itself and renamed, so that whoever reads it sees one state or the next. It is synced
//! before that only where networks or rules change: leases and all that hangs on live containers mean nothing after a reboot.
//!
//! After a restart a container is found again by the namespace's device and inode and its process's start time. One that is
//! gone has gone with all its own; one that is there gets the same interfaces with the same addresses, which are new to its
//! kernel, so that connections are lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv6Net};
use pontoon_nat::publish::PublishSpec;
use serde::{Deserialize, Serialize};

use super::links::Link;
use super::network::Network;
use super::place::{Known, Place};
use super::plan::Plan;
use super::registry::{Container, Endpoint, Front, Published};
use crate::api::{EndpointInfo, PublishedPort, RouteInfo, RuleInfo, WireInfo};
use crate::args::Exposed;

/// The form of the file.
const VERSION: u32 = 1;

/// Where the state is.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// The daemon's own prefix of IPv6 for networks that have none (RFC 4193).
    pub(super) ula: Ipv6Net,
}

/// All that is written.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    ula: Ipv6Net,
    networks: Vec<SavedNetwork>,
    containers: Vec<SavedContainer>,
    links: Vec<Link>,
    rules: Vec<RuleInfo>,
    next_rule: u32,
    wires: Vec<WireInfo>,
    #[serde(default)]
    routes: Vec<RouteInfo>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedNetwork {
    plan: Plan,
    since: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedContainer {
    name: String,
    place: Known,
    endpoints: Vec<SavedEndpoint>,
    published: Vec<SavedPort>,
    exposed: Vec<Exposed>,
    hosts: Vec<(String, IpAddr)>,
    since: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEndpoint {
    info: EndpointInfo,
    prefixes: Vec<IpNet>,
    source_table: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPort {
    network: String,
    port: PublishedPort,
    spec: PublishSpec,
}

/// Where the state is unless somebody says otherwise: root's in `/var/lib/pontoon`, a user's in `$XDG_STATE_HOME/pontoon`,
/// or `~/.local/state/pontoon`, or, for one without a home, beside the control socket.
pub(super) fn default_path(control: &Path) -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let root = rustix::process::geteuid().is_root() && rustix::process::getuid().is_root();
    let in_home = || {
        let home = set("HOME").filter(|h| h.is_absolute() && is_ours(h))?;
        Some(home.join(".local/state"))
    };
    let directory = match set("XDG_STATE_HOME").filter(|d| d.is_absolute()) {
        Some(state) => state.join("pontoon"),
        None if root && is_ours(Path::new("/var/lib")) => PathBuf::from("/var/lib/pontoon"),
        None => in_home().map_or_else(|| control.to_owned(), |state| state.join("pontoon")),
    };
    directory.join("state.json")
}

fn is_ours(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(directory).is_ok_and(|m| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw())
}

impl StateFile {
    /// Reads the state at `path`, and gives what was in it to `front`, whose life it is to be part of.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Restored)> {
        let what = || format!("cannot use the state file {}", path.display());
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .with_context(what)?;
        }
        let state = match fs::read(&path) {
            Ok(text) => {
                let state: State = serde_json::from_slice(&text)
                    .context("it is not what a daemon wrote: mend it, or move it away to begin anew")
                    .with_context(what)?;
                if state.version != VERSION {
                    bail!(
                        "{}: it has version {}, and this program knows version {VERSION}: use the program that wrote it",
                        what(),
                        state.version
                    );
                }
                Some(state)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(what),
        };
        let ula = match &state {
            Some(state) => state.ula,
            None => random_ula()?,
        };
        Ok((Self { path, ula }, Restored(state)))
    }

    /// Writes the state of `front` down; if `for_good`, so that it is there as well should the machine go down now.
    pub(super) fn write(&self, front: &Front, for_good: bool) -> Result<()> {
        let state = State {
            version: VERSION,
            ula: self.ula,
            networks: front
                .networks
                .values()
                .filter(|n| front.is_made(n.name()).is_ok())
                .map(|n| SavedNetwork {
                    plan: n.plan.clone(),
                    since: n.since(),
                })
                .collect(),
            containers: front.containers.values().map(save).collect(),
            links: front.links.clone(),
            rules: front.rules.clone(),
            next_rule: front.next_rule,
            wires: front.wire_infos(),
            routes: front.routes.clone(),
        };
        let text = serde_json::to_vec_pretty(&state)?;
        let beside = self.path.with_extension("json.new");
        let what = || format!("cannot write {}", self.path.display());
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .with_context(what)?;
        file.write_all(&text).with_context(what)?;
        if for_good {
            // Before it takes the other's place, or a machine that goes down might be left with neither.
            file.sync_all().with_context(what)?;
        }
        fs::rename(&beside, &self.path).with_context(what)?;
        if for_good {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            if let Err(e) = File::open(directory).and_then(|d| d.sync_all()) {
                let path = self.path.display();
                tracing::warn!("what {path} has now may be lost if the machine goes down: {e}");
            }
        }
        Ok(())
    }
}

/// A random prefix of 48 bits (RFC 4193, section 3.2.2).
fn random_ula() -> Result<Ipv6Net> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes[1..6], rustix::rand::GetRandomFlags::empty())
        .context("cannot get random numbers")?;
    bytes[0] = 0xfd;
    Ok(Ipv6Net::new(bytes.into(), 48)?)
}

fn save(container: &Container) -> SavedContainer {
    SavedContainer {
        name: container.name.clone(),
        place: container.place.known.clone(),
        endpoints: container
            .endpoints
            .iter()
            .map(|e| SavedEndpoint {
                info: e.info.clone(),
                prefixes: e.prefixes.clone(),
                source_table: e.source_table,
            })
            .collect(),
        published: container
            .published
            .iter()
            .map(|p| SavedPort {
                network: p.network.clone(),
                port: p.port.clone(),
                spec: p.spec.clone(),
            })
            .collect(),
        exposed: container.exposed.clone(),
        hosts: container.hosts.clone(),
        since: container.since,
    }
}

/// What an earlier daemon wrote down.
#[derive(Debug)]
pub(super) struct Restored(Option<State>);

impl Restored {
    /// Makes its networks again, and puts the containers that are there still on them. A network that cannot start keeps nobody
    /// else from it, and is tried again.
    ///
    /// # Errors
    /// A network that no daemon can have made.
    pub(super) fn into_front(self, front: &mut Front) -> Result<()> {
        let Some(state) = self.0 else { return Ok(()) };
        front.routes = state.routes;
        front.rules = state.rules;
        front.next_rule = state.next_rule;
        let mut begun: Vec<(String, Result<()>)> = Vec::new();
        // All at once: each packet process takes a few milliseconds to start.
        for SavedNetwork { mut plan, since } in state.networks {
            plan.sandbox = front.sandbox;
            let name = plan.name.clone();
            let mut network = Network::without_process(plan, &front.host, Some(since))
                .with_context(|| format!("network {name} cannot be"))?;
            begun.push((name.clone(), network.begin_again(&front.host)));
            front.networks.insert(name.clone(), network);
            front.keep_routers(&name);
        }
        for container in state.containers {
            front.restore(container);
        }
        // Nobody who has no address yet is to get one of theirs, and an uplink none of a container's.
        front.reserve_all();
        for (name, started) in &mut begun {
            if let (Ok(()), Some(network)) = (&started, front.networks.get_mut(name)) {
                *started = network.configured();
            }
        }
        for (name, started) in begun {
            front.start_or_later(&name, Some(started));
        }
        front.links = state.links;
        let alive = |name: &str| front.containers.contains_key(name);
        front.links = std::mem::take(&mut front.links)
            .into_iter()
            .filter(|l| alive(&l.client) && alive(&l.server))
            .collect();
        front.reattach(None);
        front.lay_all();
        for wire in state.wires {
            if front.containers.contains_key(&wire.a.container)
                && front.containers.contains_key(&wire.b.container)
            {
                front.rewire(wire);
            }
        }
        front.save_or_log();
        Ok(())
    }
}

impl Front {
    /// Takes a container that an earlier daemon had, if it is there still and its addresses can be had.
    fn restore(&mut self, saved: SavedContainer) {
        let name = saved.name;
        let Some(place) = Place::find(&saved.place) else {
            tracing::info!("{name} has ended meanwhile");
            return;
        };
        let mut endpoints = Vec::new();
        for endpoint in saved.endpoints {
            let info = endpoint.info;
            let Some(network) = self.networks.get_mut(&info.network) else {
                continue;
            };
            let of = |v4: bool| info.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
            match network.take(of(true), of(false), Some(info.mac)) {
                Ok(taken) => endpoints.push(Endpoint {
                    prefixes: taken.prefixes,
                    source_table: endpoint.source_table,
                    view: Vec::new(),
                    info,
                }),
                Err(e) => tracing::error!("{name} cannot have its addresses again: {:#}", e.error),
            }
        }
        if endpoints.is_empty() {
            tracing::error!("{name} is on no network any more");
            return;
        }
        let published = saved
            .published
            .into_iter()
            .map(|p| Published {
                id: 0,
                network: p.network,
                port: p.port,
                spec: p.spec,
                claim: None,
            })
            .collect();
        let container = Container {
            name: name.clone(),
            place,
            endpoints,
            published,
            exposed: saved.exposed,
            hosts: saved.hosts,
            since: saved.since,
        };
        self.containers.insert(name, container);
    }
}
