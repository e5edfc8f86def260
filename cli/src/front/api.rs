//! The control API: calls to the network's state, and to the packet process for what only that knows.

use std::os::unix::net::UnixStream;

use anyhow::Result;

use super::Shared;
use super::network::{Refused, unexpected};
use crate::api::{FdbRow, FlowInfo, Flushed, Stats};
use crate::http::{Response, refuse, serve};
use crate::packet::protocol::{Command, PAGE, Reply};
use crate::peer;
use crate::routes::Call;

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
        Call::Networks => Ok(Response::json(&[shared.network().info()])),
        Call::Containers => Ok(Response::json(&shared.network().container_infos())),
        Call::Attach(request) => {
            let info = shared.network().attach(uid, *request)?;
            shared.wake();
            Ok(Response::with_status(201, &info))
        }
        Call::Detach { container } => {
            shared.network().detach_named(&container)?;
            shared.wait_if_over();
            shared.wake();
            Ok(Response::empty())
        }
        Call::Publish { container, ports } => Ok(Response::with_status(
            201,
            &shared.network().publish(&container, &ports.specs)?,
        )),
        Call::Unpublish { container, ports } => Ok(Response::json(
            &shared.network().unpublish(&container, &ports.specs)?,
        )),
        Call::Flows { container } => flows(shared, container.as_deref()),
        Call::Flush { container } => {
            let mut network = shared.network();
            let port = container.map(|c| network.port_of(&c)).transpose()?;
            match network.call(&Command::FlushFlows { port }, &[])? {
                Reply::Flushed(flows) => Ok(Response::json(&Flushed { flows })),
                other => Err(unexpected(&other).into()),
            }
        }
        Call::Fdb => fdb(shared),
        Call::Stats => stats(shared),
    }
}

/// The lock is taken for each page anew: a long list holds up nobody.
fn flows(shared: &Shared, container: Option<&str>) -> Result<Response, Refused> {
    let port = container.map(|c| shared.network().port_of(c)).transpose()?;
    let mut all: Vec<FlowInfo> = Vec::new();
    let mut from = 0;
    loop {
        let mut network = shared.network();
        let (flows, next) = match network.call(&Command::Flows { port, from }, &[])? {
            Reply::Flows { flows, next } => (flows, next),
            other => return Err(unexpected(&other).into()),
        };
        let names = network.port_names();
        drop(network);
        all.extend(flows.into_iter().map(|(port, flow)| FlowInfo {
            container: names.get(&port).cloned().unwrap_or_default(),
            flow,
        }));
        match next {
            Some(next) => from = next,
            None => return Ok(Response::json(&all)),
        }
    }
}

fn fdb(shared: &Shared) -> Result<Response, Refused> {
    let mut all: Vec<FdbRow> = Vec::new();
    let mut offset = 0;
    loop {
        let mut network = shared.network();
        let page = match network.call(&Command::Fdb { offset }, &[])? {
            Reply::Fdb(page) => page,
            other => return Err(unexpected(&other).into()),
        };
        let (names, name) = (network.port_names(), network.name().to_owned());
        drop(network);
        let full = page.len() >= PAGE;
        offset += page.len();
        all.extend(page.into_iter().map(|row| FdbRow {
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
            return Ok(Response::json(&all));
        }
    }
}

fn stats(shared: &Shared) -> Result<Response, Refused> {
    let mut ports = Vec::new();
    loop {
        let mut network = shared.network();
        let page = match network.call(&Command::Stats { offset: ports.len() }, &[])? {
            Reply::Stats(page) => *page,
            other => return Err(unexpected(&other).into()),
        };
        let network = network.name().to_owned();
        let full = page.ports.len() >= PAGE;
        ports.extend(page.ports);
        if !full {
            return Ok(Response::json(&Stats {
                network,
                ports,
                gateway_drops: page.gateway_drops,
                flows: page.flows,
                flows_total: page.flows_total,
                flows_max: page.flows_max,
            }));
        }
    }
}
