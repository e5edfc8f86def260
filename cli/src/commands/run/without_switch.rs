//! `pontoon run --network none`, `host` and `container:NAME`: no front, no switch, nothing attached.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use pontoon_switch::sys::process::{Received, Signals};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Container, Foreground, further_hosts, own_files, terminal, uplink};
use crate::args::{NetworkArg, RunArgs};
use crate::init::{Identity, Stack, Terminal, ToInit};
use crate::resolv::{self, ResolvConf};
use crate::{client, control};

/// Runs the command of a container called `name`; gives the exit status.
pub(super) fn run(
    args: &RunArgs,
    join: &NetworkArg,
    name: &str,
    command: &[OsString],
    signals: &Signals,
) -> Result<u8> {
    crate::log();
    // What is to be hidden of networks that start later has to be there.
    let directory = control::create_control_dir()?;
    control::sweep(&directory);
    let terminal = terminal();
    let (stack, identity) = match join {
        NetworkArg::None => (Stack::Loopback, loopback(args, name, terminal)),
        NetworkArg::Host => host(args, terminal)?,
        NetworkArg::Container(other) => (Stack::Of(process_of(other)?), nothing_of_its_own(terminal)),
        NetworkArg::Join(_) => bail!("{join} is a network"),
    };
    let mut container = Container::start(&stack, &directory, command)?;
    container.ready()?;
    let early = match join {
        NetworkArg::Container(other) => addressed(other, signals),
        NetworkArg::None | NetworkArg::Host | NetworkArg::Join(_) => Vec::new(),
    };
    container.tell(&ToInit::Go(Box::new(identity)))?;
    let code = Foreground {
        container: &mut container,
        signals,
        early,
        terminal,
        front: None,
    }
    .wait();
    container.end();
    code
}

/// With the loopback alone: its own names, and the host's servers, which it cannot reach.
fn loopback(args: &RunArgs, name: &str, terminal: Terminal) -> Identity {
    let hostname = args.hostname.clone().unwrap_or_else(|| name.to_owned());
    let host = ResolvConf::of_host();
    let servers: Vec<IpAddr> = host.servers.iter().map(std::net::SocketAddr::ip).collect();
    let search = if args.dns_search.is_empty() {
        &host.search
    } else {
        &args.dns_search
    };
    let hosts = resolv::hosts_file(&hostname, &[], &further_hosts(args));
    Identity {
        files: own_files(&hostname, resolv::for_container(&servers, search), hosts),
        hostname: Some(hostname),
        environment: Vec::new(),
        terminal,
    }
}

/// On the host's network: the host's names, and those of `--add-host` in a copy of its hosts file.
fn host(args: &RunArgs, terminal: Terminal) -> Result<(Stack, Identity)> {
    let mut identity = nothing_of_its_own(terminal);
    identity.hostname.clone_from(&args.hostname);
    let mut own = Vec::new();
    let further = further_hosts(args);
    if !further.is_empty() {
        let mut text = std::fs::read_to_string("/etc/hosts").context("cannot read /etc/hosts")?;
        for (name, address) in further {
            text.push_str(&format!("\n{address}\t{name}"));
        }
        text.push('\n');
        own.push("hosts");
        identity.files.push(("hosts".to_owned(), text));
    }
    Ok((Stack::Host(own), identity))
}

fn nothing_of_its_own(terminal: Terminal) -> Identity {
    Identity {
        hostname: None,
        files: Vec::new(),
        environment: Vec::new(),
        terminal,
    }
}

/// Waits until the uplinks of another container's networks have their addresses, which its own command may still do; gives the
/// signals that have come meanwhile.
fn addressed(other: &str, signals: &Signals) -> Vec<Received> {
    // One that has ended since is found by what comes next.
    let Ok((front, container)) = client::container_named(other) else {
        return Vec::new();
    };
    let networks: Vec<_> = container
        .endpoints
        .iter()
        .filter_map(|endpoint| uplink::ask(&front, &endpoint.network))
        .collect();
    uplink::addressed(&networks, &front, signals)
}

/// A pidfd of process 1 of a running container.
fn process_of(name: &str) -> Result<OwnedFd> {
    let find = || {
        let (_, container) = client::container_named(name)?;
        container.pid.with_context(|| {
            format!("container {name} is known by the path of its network alone: it has no process to join")
        })
    };
    let number = find()?;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // The number is that process's only if the container is still there.
    match pidfd {
        Some(pidfd) if find()? == number => Ok(pidfd),
        Some(_) | None => bail!("container {name} has just ended"),
    }
}
