//! The control API: calls to the front's state, and to the packet processes for what only those know.

use std::os::unix::net::UnixStream;
use std::sync::MutexGuard;

use anyhow::anyhow;

use super::attach::Attaching;
use super::daemon::Chooser;
use super::network::unexpected;
use super::plan::Plan;
use super::registry::Front;
use super::serve::Shared;
use super::{Refused, refused};
use crate::api::{ContainerInfo, FdbRow, FlowInfo, Flushed, NetworkSpec, Stats, Version};
use crate::http::{Response, refuse, serve};
use crate::metrics;
use crate::packet::protocol::{Command, PAGE, Reply};
use crate::peer;
use crate::routes::{Call, Only};

/// Serves one connection, if its peer may speak here.
pub(super) fn connection(shared: &Shared, stream: &UnixStream) {
    let peer = match peer::check(stream) {
        Ok(peer) => peer,
        Err(e) => {
            tracing::warn!("a connection to the control socket was refused: {e}");
            // Whether it still listens is its affair.
            let _ = refuse(stream, &e.to_string());
            return;
        }
    };
    let served = serve(stream, |request| match Call::of(&request) {
        Ok(call) => answer(shared, peer.uid, call)
            .unwrap_or_else(|Refused { status, error }| Response::error(status, format!("{error:#}"))),
        Err(response) => response,
    });
    if let Err(e) = served {
        tracing::debug!("a connection to the control socket failed: {e}");
    }
}

fn answer(shared: &Shared, uid: u32, call: Call) -> Result<Response, Refused> {
    match call {
        Call::Version => Ok(Response::json(&version(shared))),
        Call::Networks => Ok(Response::json(&looked_at(shared).network_infos())),
        Call::CreateNetwork(spec) => create(shared, uid, *spec),
        Call::Prune => {
            let removed = shared.front().prune()?;
            shared.wait_for_helpers();
            shared.wake();
            Ok(Response::json(&removed))
        }
        Call::Network { network } => {
            let mut front = shared.front();
            front.look_at_uplink(&network);
            Ok(Response::json(&front.network_info(&network)?))
        }
        Call::RemoveNetwork { network } => {
            shared.front().remove(&network)?;
            shared.wait_for_helpers();
            shared.wake();
            Ok(Response::empty())
        }
        Call::Connect { network, request } => {
            let begun = shared.front().begin_connect(&network, *request)?;
            let info = attached(shared, begun, |front, attaching| front.finish_connect(attaching))?;
            Ok(Response::with_status(201, &info))
        }
        Call::Disconnect { network, container } => {
            shared.front().disconnect(&network, &container)?;
            shared.wait_for_helpers();
            shared.wait_if_over();
            shared.wake();
            Ok(Response::empty())
        }
        Call::Routes { network } => Ok(Response::json(&shared.front().routes_of(&network)?)),
        Call::AddRoute { network, route } => {
            let route = shared.front().add_route(&network, route)?;
            shared.wake();
            Ok(Response::with_status(201, &route))
        }
        Call::RemoveRoute { network, to } => {
            shared.front().remove_route(&network, to)?;
            Ok(Response::empty())
        }
        Call::Containers => Ok(Response::json(&looked_at(shared).container_infos())),
        Call::Attach(request) => {
            let begun = shared.front().begin_attach(uid, *request)?;
            let info = attached(shared, begun, |front, attaching| front.finish_attach(attaching))?;
            Ok(Response::with_status(201, &info))
        }
        Call::Container { container } => {
            let mut front = shared.front();
            front.look_at_uplinks_of(&container);
            let container = front.container(&container)?;
            Ok(Response::json(&front.container_info(container)))
        }
        Call::Detach { container } => {
            shared.front().detach_named(&container)?;
            shared.wait_for_helpers();
            shared.wait_if_over();
            shared.wake();
            Ok(Response::empty())
        }
        Call::Publish { container, ports } => Ok(Response::with_status(
            201,
            &shared.front().publish(&container, &ports.specs)?,
        )),
        Call::Unpublish { container, ports } => Ok(Response::json(
            &shared.front().unpublish(&container, &ports.specs)?,
        )),
        Call::Links => {
            let front = shared.front();
            let links: Vec<_> = front.links.iter().map(|l| front.link_info(l)).collect();
            Ok(Response::json(&links))
        }
        Call::Link(request) => {
            let client = request.client.clone();
            let link = shared.front().link(&client, request.spec())?;
            Ok(Response::with_status(201, &link))
        }
        Call::Unlink { client, server } => {
            shared.front().unlink(&client, &server)?;
            Ok(Response::empty())
        }
        Call::Rules => Ok(Response::json(&shared.front().rules)),
        Call::AddRule(request) => Ok(Response::with_status(201, &shared.front().add_rule(request)?)),
        Call::RemoveRule { id } => {
            shared.front().remove_rule(id)?;
            Ok(Response::empty())
        }
        Call::Wires => Ok(Response::json(&shared.front().wire_infos())),
        Call::Wire(request) => {
            let mut wiring = shared.front().begin_wire(&request)?;
            wiring.made()?;
            let info = shared.front().finish_wire(wiring)?;
            shared.wake();
            Ok(Response::with_status(201, &info))
        }
        Call::Unwire { a, b } => {
            shared.front().unwire(&a, &b)?;
            shared.wake();
            Ok(Response::empty())
        }
        Call::Flows(only) => flows(shared, &only),
        Call::Flush(only) => flush(shared, &only),
        Call::Fdb(only) => fdb(shared, &only),
        Call::Stats(only) => Ok(Response::json(&stats(shared, &only)?)),
        Call::Metrics => {
            let stats = stats(shared, &Only::default())?;
            let front = shared.front();
            let text = metrics::render(
                &version_of(&front),
                &front.network_infos(),
                &front.container_infos(),
                &stats,
            );
            Ok(Response::text(metrics::CONTENT_TYPE, text))
        }
    }
}

fn version(shared: &Shared) -> Version {
    version_of(&shared.front())
}

fn version_of(front: &Front) -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        daemon: front.is_daemon(),
    }
}

/// The front, which knows what uplinks are like now.
fn looked_at(shared: &Shared) -> MutexGuard<'_, Front> {
    let mut front = shared.front();
    front.look_at_uplinks();
    front
}

fn create(shared: &Shared, uid: u32, spec: NetworkSpec) -> Result<Response, Refused> {
    let mut front = shared.front();
    crate::args::parse_network(&spec.name)
        .map_err(|e| refused(400, anyhow!("network `{}`: {e}", spec.name)))?;
    if front.is_daemon() && Chooser::is_private(&spec.name) {
        return Err(refused(
            409,
            anyhow!(
                "a private network named {} is running: choose another name",
                spec.name
            ),
        ));
    }
    let plan = Plan::of_spec(spec, uid, &mut Chooser::new(&front)).map_err(|e| refused(400, e))?;
    let mut creating = front.begin_create(plan)?;
    drop(front);
    creating.make();
    let info = shared.front().finish_create(creating);
    shared.wake();
    Ok(Response::with_status(201, &info?))
}

/// Waits for the interfaces of a container without the lock, and finishes with it.
fn attached(
    shared: &Shared,
    mut begun: Attaching,
    finish: impl FnOnce(&mut Front, Attaching) -> Result<ContainerInfo, Refused>,
) -> Result<ContainerInfo, Refused> {
    let made = begun.made();
    let mut front = shared.front();
    let info = match made {
        Ok(()) => finish(&mut front, begun),
        Err(e) => {
            front.abandon(begun);
            Err(e)
        }
    };
    drop(front);
    shared.wake();
    info
}

/// The networks that are meant, each with the switch port of the container that is meant, if one is.
fn meant(shared: &Shared, only: &Only) -> Result<Vec<(String, Option<u32>)>, Refused> {
    let front = shared.front();
    if let Some(network) = &only.network {
        front.network(network)?;
    }
    let of_network = |network: &str| only.network.as_deref().is_none_or(|n| n == network);
    match &only.container {
        Some(container) => Ok(front
            .container(container)?
            .endpoints
            .iter()
            .filter(|e| of_network(&e.info.network))
            .map(|e| (e.info.network.clone(), Some(e.info.port)))
            .collect()),
        None => Ok(front
            .networks
            .keys()
            .filter(|n| of_network(n) && front.is_made(n).is_ok())
            .map(|n| (n.clone(), None))
            .collect()),
    }
}

/// The lock is taken for each page anew: a long list holds up nobody.
fn flows(shared: &Shared, only: &Only) -> Result<Response, Refused> {
    let mut all: Vec<FlowInfo> = Vec::new();
    for (name, port) in meant(shared, only)? {
        let mut from = Some(0);
        while let Some(at) = from {
            let mut front = shared.front();
            // One that was removed meanwhile has no flows.
            let Ok(network) = front.network_mut(&name) else {
                break;
            };
            let (flows, next) = match network.call(&Command::Flows { port, from: at }, &[])? {
                Reply::Flows { flows, next } => (flows, next),
                other => return Err(unexpected(&other).into()),
            };
            let names = front.port_names(&name);
            drop(front);
            all.extend(flows.into_iter().map(|(port, flow)| FlowInfo {
                network: name.clone(),
                container: names.get(&port).cloned().unwrap_or_default(),
                flow,
            }));
            from = next;
        }
    }
    Ok(Response::json(&all))
}

fn flush(shared: &Shared, only: &Only) -> Result<Response, Refused> {
    let mut flows = 0;
    for (name, port) in meant(shared, only)? {
        match shared
            .front()
            .network_mut(&name)?
            .call(&Command::FlushFlows { port }, &[])?
        {
            Reply::Flushed(n) => flows += n,
            other => return Err(unexpected(&other).into()),
        }
    }
    Ok(Response::json(&Flushed { flows }))
}

fn fdb(shared: &Shared, only: &Only) -> Result<Response, Refused> {
    let mut all: Vec<FdbRow> = Vec::new();
    for (name, only_port) in meant(shared, only)? {
        let mut offset = 0;
        loop {
            let mut front = shared.front();
            let Ok(network) = front.network_mut(&name) else {
                break;
            };
            let page = match network.call(&Command::Fdb { offset }, &[])? {
                Reply::Fdb(page) => page,
                other => return Err(unexpected(&other).into()),
            };
            let names = front.port_names(&name);
            drop(front);
            let full = page.len() >= PAGE;
            offset += page.len();
            let wanted = page
                .into_iter()
                .filter(|row| only_port.is_none() || row.port == only_port);
            all.extend(wanted.map(|row| FdbRow {
                network: name.clone(),
                port: row.port,
                port_name: match row.port {
                    Some(port) => names.get(&port).cloned().unwrap_or_default(),
                    None => "gateway".to_owned(),
                },
                vlan: row.vlan,
                mac: row.mac,
                age: row.age,
            }));
            if !full {
                break;
            }
        }
    }
    Ok(Response::json(&all))
}

fn stats(shared: &Shared, only: &Only) -> Result<Vec<Stats>, Refused> {
    let mut all = Vec::new();
    for (name, only_port) in meant(shared, only)? {
        let mut ports = Vec::new();
        let mut offset = 0;
        loop {
            let mut front = shared.front();
            let Ok(network) = front.network_mut(&name) else {
                break;
            };
            let page = match network.call(&Command::Stats { offset }, &[])? {
                Reply::Stats(page) => *page,
                other => return Err(unexpected(&other).into()),
            };
            drop(front);
            let full = page.ports.len() >= PAGE;
            offset += page.ports.len();
            ports.extend(
                page.ports
                    .into_iter()
                    .filter(|p| only_port.is_none_or(|o| o == p.port)),
            );
            if !full {
                all.push(Stats {
                    network: name.clone(),
                    ports: std::mem::take(&mut ports),
                    gateway_drops: page.gateway_drops,
                    flows: page.flows,
                    flows_total: page.flows_total,
                    flows_max: page.flows_max,
                });
                break;
            }
        }
    }
    Ok(all)
}
