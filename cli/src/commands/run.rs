//! `pontoon run`: a command in a network namespace of its own, in the foreground.
//!
//! It starts the network's front, unless it joins one that is running, makes the container ([`crate::init`]), has the
//! front attach it, and then does no more than pass signals on and wait. Everything it has started is bound to its life:
//! the container by its socket, the front by the container.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use pontoon_nat::config::{Filtering, LinkLocal};
use pontoon_switch::sys::process::{Received, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::api::{AttachRequest, EndpointSpec, NetworkInfo};
use crate::args::{NetworkArg, RunArgs, UdpFiltering};
use crate::client::{self, Front};
use crate::control;
use crate::covers::OWN_FILES;
use crate::fdsock::FdSocket;
use crate::front::plan::{HostPorts, Subnet};
use crate::front::{self, Attached, Plan, Started};
use crate::init::{self, FORWARDED_AND_CHILD, FromInit, Identity, Stack, Terminal, ToInit};
use crate::outbound;
use crate::packet::protocol::Storm;
use crate::resolv::{self, ResolvConf};
use crate::routes::Call;

mod links;
mod uplink;
mod without_switch;

/// Runs the command; gives the exit status.
///
/// # Errors
/// Whatever kept it from being run. What was made until then is gone again.
pub(crate) fn run(args: &RunArgs) -> Result<u8> {
    args.check()?;
    let command = command(args)?;
    let signals = Signals::take(&FORWARDED_AND_CHILD).context("cannot take over signals")?;
    let name = args.name.clone().unwrap_or_else(made_up_name);
    if let [mode @ (NetworkArg::None | NetworkArg::Host | NetworkArg::Container(_))] = args.network.as_slice()
    {
        return without_switch::run(args, mode, &name, &command, &signals);
    }
    // Judged before the directory is made: bad input leaves nothing behind.
    control::socket_path(&control::control_dir()?, &name)?;
    let directory = control::create_control_dir()?;
    control::sweep(&directory);
    let capture = args
        .capture
        .clone()
        .map(std::path::absolute)
        .transpose()
        .context("cannot tell where --capture is")?;
    let wanted = AttachRequest {
        pid: None,
        namespace: None,
        name: Some(name.clone()),
        endpoints: args.endpoints(&name),
        publish: args.publish_specs(),
        expose: args.expose.clone(),
        links: args.link.clone(),
        add_hosts: further_hosts(args),
        capture,
    };
    let (mut container, attached, front, started) = if args.network.is_empty() {
        let plan = plan(args, &name)?;
        let (container, attached, started) = alone(plan, &directory, &command, wanted)?;
        (container, attached, client::private(&name)?, Some(started))
    } else {
        let (container, attached, front) = join_running(&directory, &command, wanted)?;
        (container, attached, front, None)
    };
    // What the command sends at once is to have a way.
    let early = uplink::addressed(&attached.networks, &front, &signals);
    let terminal = terminal();
    let go = ToInit::Go(Box::new(identity(args, &attached, terminal)));
    if let Err(e) = container.tell(&go) {
        if let Some(started) = started {
            started.give_up();
        }
        return Err(e);
    }
    let code = Foreground {
        container: &mut container,
        signals: &signals,
        early,
        terminal,
        front: started,
    }
    .wait();
    container.end();
    // So that its ports and its name are free when we return. If it is gone, they are.
    let _ = front.ask::<()>(&Call::Detach {
        container: attached.container.name,
    });
    control::remove_log(&directory, &name);
    code
}

/// Makes a container and has it attached as `wanted` to networks that are running.
fn join_running(
    directory: &Path,
    command: &[OsString],
    wanted: AttachRequest,
) -> Result<(Container, Attached, Front)> {
    crate::log();
    // Asked before anything is made, so that a network which is not there leaves nothing behind.
    let (front, networks) = networks(&wanted.endpoints)?;
    let mut container = Container::start(&Stack::Attached, directory, command)?;
    container.ready()?;
    let request = AttachRequest {
        pid: Some(container.first()?),
        ..wanted
    };
    let attached = Attached {
        networks,
        container: front.ask(&Call::Attach(Box::new(request)))?,
    };
    Ok((container, attached, front))
}

/// The networks of `endpoints`, and the front that has them all.
fn networks(endpoints: &[EndpointSpec]) -> Result<(Front, Vec<NetworkInfo>)> {
    let mut found: Vec<(Front, NetworkInfo)> = Vec::new();
    for endpoint in endpoints {
        found.push(client::of_network(&endpoint.network)?);
    }
    let (front, first) = found.first().cloned().context("no network is named")?;
    if let Some((other, network)) = found.iter().find(|(f, _)| *f != front) {
        bail!(
            "a container cannot be on {} of {front} and on {} of {other}: a private network has its containers to itself",
            first.name,
            network.name
        );
    }
    Ok((front, found.into_iter().map(|(_, network)| network).collect()))
}

/// Makes a network as planned and a container that is attached to it as `wanted`. They take about as long as each other,
/// so both are made at once.
fn alone(
    plan: Plan,
    directory: &Path,
    command: &[OsString],
    wanted: AttachRequest,
) -> Result<(Container, Attached, Started)> {
    if client::daemon_has(&plan.name)? {
        bail!(
            "a network named {0} is the daemon's: join it with --network {0}, or choose another --name",
            plan.name
        );
    }
    // First, as its packet process takes the longest.
    let mut front = front::start(plan, directory)?;
    crate::log();
    let mut container = match Container::start(&Stack::Attached, directory, command) {
        Ok(container) => container,
        Err(e) => {
            front.give_up();
            return Err(e);
        }
    };
    let together = || {
        container.made()?;
        let request = AttachRequest {
            pid: Some(container.first()?),
            ..wanted
        };
        front.ask(&request)?;
        front.ready()?;
        let attached = front.attached()?;
        container.ready()?;
        Ok(attached)
    };
    match together() {
        Ok(attached) => Ok((container, attached, front)),
        Err(e) => {
            drop(container);
            front.give_up();
            Err(e)
        }
    }
}

fn command(args: &RunArgs) -> Result<Vec<OsString>> {
    if !args.command.is_empty() {
        return Ok(args.command.clone());
    }
    match std::env::var_os("SHELL") {
        Some(shell) if !shell.is_empty() => Ok(vec![shell]),
        Some(_) | None => bail!("no command is given and $SHELL is not set: name the command to run"),
    }
}

/// Eight hexadecimal digits after a word that says whose it is.
fn made_up_name() -> String {
    let mut bytes = [0u8; 4];
    // Names need to differ, not to be secret: the process id does where there is no randomness.
    if rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        bytes = std::process::id().to_be_bytes();
    }
    format!("box-{:08x}", u32::from_be_bytes(bytes))
}

fn plan(args: &RunArgs, name: &str) -> Result<Plan> {
    let subnet = |net: ipnet::IpNet, gateway: IpAddr| Subnet {
        net,
        gateway: Some(gateway),
        range: None,
        reserved: Vec::new(),
        dhcp: None,
        private: true,
    };
    let uplink = uplink::plan(args, name)?;
    let six = args.subnet6().zip(args.gateway6());
    let four = subnet(args.subnet().into(), args.gateway().into());
    let six = six.map(|(net, gateway)| subnet(net.into(), gateway.into()));
    let subnets: Vec<Subnet> = std::iter::once(four).chain(six).collect();
    if let Some(uplink) = &uplink {
        uplink.check_apart(subnets.iter().map(|s| s.net))?;
    }
    Ok(Plan {
        name: name.to_owned(),
        subnets,
        gateway: true,
        mtu: u16::try_from(args.mtu).context("--mtu is at most 65520")?,
        internal: false,
        icc: true,
        dns: args.dns.clone(),
        search: args.dns_search.clone(),
        publish_address: None,
        host_loopback: args.host_loopback,
        link_local: if args.link_local {
            LinkLocal::Allowed
        } else {
            LinkLocal::Refused
        },
        filtering: match args.udp_filtering {
            UdpFiltering::Address => Filtering::AddressDependent,
            UdpFiltering::Endpoint => Filtering::EndpointIndependent,
        },
        outbound: outbound::resolve(&args.outbound)?,
        max_flows: args.max_flows,
        max_flows_per_container: args.flows_per_container(),
        uplink,
        host: HostPorts::default(),
        storm: Storm::Default,
        options: std::collections::BTreeMap::new(),
        sandbox: args.sandbox.options(),
    })
}

fn identity(args: &RunArgs, attached: &Attached, terminal: Terminal) -> Identity {
    let Attached { networks, container } = attached;
    // The network of the default route first: its name server knows the names of all and leads out.
    let mut ordered: Vec<&NetworkInfo> = networks.iter().collect();
    let leads_out = |network: &&NetworkInfo| {
        container
            .endpoints
            .iter()
            .any(|e| e.default_route && e.network == network.name)
    };
    ordered.sort_by_key(|n| !leads_out(n));
    let gateways = ordered.iter().filter(|n| n.gateway_mac.is_some());
    let mut servers: Vec<IpAddr> = gateways
        .flat_map(|n| n.subnets.iter().filter_map(|s| s.gateway))
        .collect();
    let mut search = if args.dns_search.is_empty() {
        ordered.iter().flat_map(|n| n.search.iter().cloned()).collect()
    } else {
        args.dns_search.clone()
    };
    let mut seen = std::collections::BTreeSet::new();
    search.retain(|domain: &String| seen.insert(domain.clone()));
    if servers.is_empty() {
        // On somebody else's network the name servers are somebody else's: those that were given, or the host's.
        servers = ordered.iter().flat_map(|n| n.dns.iter().copied()).collect();
        if servers.is_empty() {
            servers = ResolvConf::of_host()
                .servers
                .iter()
                .map(std::net::SocketAddr::ip)
                .collect();
        }
    }
    let hostname = args.hostname.clone().unwrap_or_else(|| container.name.clone());
    let addresses: Vec<IpAddr> = container
        .endpoints
        .iter()
        .flat_map(|e| e.addresses.iter().copied())
        .collect();
    let mut further = further_hosts(args);
    further.extend(links::hosts(container));
    let hosts = resolv::hosts_file(&hostname, &addresses, &further);
    Identity {
        files: own_files(&hostname, resolv::for_container(&servers, &search), hosts),
        hostname: Some(hostname),
        environment: links::environment(container),
        terminal,
    }
}

/// Names of `--add-host`.
fn further_hosts(args: &RunArgs) -> Vec<(String, IpAddr)> {
    args.add_host.iter().map(|h| (h.name.clone(), h.ip)).collect()
}

/// The texts of the container's own files.
fn own_files(hostname: &str, resolv: String, hosts: String) -> Vec<(String, String)> {
    let names = OWN_FILES.into_iter().map(str::to_owned);
    names.zip([resolv, hosts, format!("{hostname}\n")]).collect()
}

/// How we stand to the terminal, and so the command.
fn terminal() -> Terminal {
    if std::fs::File::open("/dev/tty").is_err() {
        return Terminal::None;
    }
    let all_terminals = io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
    if all_terminals && in_foreground() {
        Terminal::Own
    } else {
        Terminal::Shared
    }
}

fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// The container's processes. Dropping it ends them.
struct Container {
    outer: Pid,
    socket: Option<FdSocket>,
    first: Option<Pid>,
    ready: bool,
    reaped: Option<u8>,
}

impl Container {
    /// Begins to make one.
    fn start(stack: &Stack, control: &Path, command: &[OsString]) -> Result<Self> {
        let (outer, socket) = init::start(stack, control, command)?;
        Ok(Self {
            outer,
            socket: Some(socket),
            first: None,
            ready: false,
            reaped: None,
        })
    }

    /// Waits until its namespaces are there, so that it can be given a network.
    fn made(&mut self) -> Result<()> {
        while self.first.is_none() {
            self.progress()?;
        }
        Ok(())
    }

    /// Waits until it can take its command.
    fn ready(&mut self) -> Result<()> {
        while !self.ready {
            self.progress()?;
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<()> {
        match self.hear()? {
            Some(FromInit::Made(pid)) => self.first = Pid::from_raw(pid),
            Some(FromInit::Ready) => self.ready = true,
            Some(FromInit::Failed(why)) => bail!("cannot make the container: {why}"),
            Some(FromInit::Stopped | FromInit::Ended(_)) | None => {
                bail!("cannot make the container: its first process ended")
            }
        }
        Ok(())
    }

    /// The container's process 1, by its id here.
    fn first(&self) -> Result<u32> {
        let pid = self.first.context("the container has no process")?;
        Ok(pid.as_raw_nonzero().get().cast_unsigned())
    }

    fn socket(&mut self) -> Result<&mut FdSocket> {
        self.socket.as_mut().context("the container has ended")
    }

    fn hear(&mut self) -> Result<Option<FromInit>> {
        let heard = self
            .socket()?
            .recv()
            .context("cannot hear the container's first process")?;
        Ok(heard.map(|(message, _)| message))
    }

    fn tell(&mut self, message: &ToInit) -> Result<()> {
        self.socket()?
            .send(message, &[])
            .context("the container's first process died")
    }

    /// Reaps whatever has ended; the exit status of the container once it has.
    fn reap(&mut self) -> Option<u8> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.outer {
                self.reaped = Some(init::code(status));
            }
        }
        self.reaped
    }

    /// Ends the container if it has not, and waits until its last process is gone.
    fn end(&mut self) {
        self.socket = None;
        if self.reaped.is_none()
            && let Ok(Some((_, status))) = rustix::process::waitpid(Some(self.outer), WaitOptions::empty())
        {
            self.reaped = Some(init::code(status));
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.end();
    }
}

/// The waiting.
struct Foreground<'a> {
    container: &'a mut Container,
    signals: &'a Signals,
    /// Those that came before it had begun.
    early: Vec<Received>,
    terminal: Terminal,
    front: Option<Started>,
}

impl Foreground<'_> {
    fn wait(mut self) -> Result<u8> {
        let code = self.watch();
        if self.terminal == Terminal::Own {
            // The command, or a shell's last job, had the terminal; the signal for touching it from the background is
            // blocked.
            let _ = rustix::termios::tcsetpgrp(io::stdin(), rustix::process::getpgrp());
        }
        code
    }

    fn watch(&mut self) -> Result<u8> {
        let mut ended = None;
        let mut line: Option<OwnedFd> = match &self.front {
            Some(front) => Some(front.as_fd().try_clone_to_owned()?),
            None => None,
        };
        for signal in std::mem::take(&mut self.early) {
            self.signal(signal);
        }
        let mut listening = true;
        loop {
            if let Some(status) = self.container.reap() {
                return Ok(ended.unwrap_or(status));
            }
            let socket = self.container.socket()?.as_fd().try_clone_to_owned()?;
            let mut fds = vec![
                PollFd::new(self.signals, PollFlags::IN),
                // Asked for nothing, a closed socket would be reported all the same: so it is not asked at all.
                if listening {
                    PollFd::new(&socket, PollFlags::IN)
                } else {
                    PollFd::new(self.signals, PollFlags::IN)
                },
            ];
            fds.extend(line.iter().map(|l| PollFd::new(l, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot wait for the container"),
            }
            let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
            drop(fds);
            while let Some(signal) = self.signals.next()? {
                self.signal(signal);
            }
            if listening && ready[1] {
                match self.container.hear() {
                    Ok(Some(FromInit::Ended(code))) => ended = Some(code),
                    Ok(Some(FromInit::Stopped)) => stop_ourselves(),
                    Ok(Some(FromInit::Failed(why))) => return Err(anyhow!(why)),
                    Ok(Some(FromInit::Made(_) | FromInit::Ready)) => {}
                    // Its end follows.
                    Ok(None) | Err(_) => listening = false,
                }
            }
            if ready.get(2) == Some(&true) {
                // The front has closed its side before the container ended: it is dead.
                if ended.is_none()
                    && self.container.reap().is_none()
                    && let Some(front) = &mut self.front
                {
                    eprintln!(
                        "pontoon: the container has no network any more: {}",
                        front.last_words()
                    );
                }
                line = None;
            }
        }
    }

    fn signal(&mut self, signal: Received) {
        let number = signal.number;
        if number == Signal::CHILD.as_raw() {
            return;
        }
        if number == Signal::CONT.as_raw() {
            return self.resume();
        }
        let from_terminal = signal.by_kernel;
        if from_terminal && self.terminal == Terminal::Shared {
            // It has reached the command as well. Being stopped is ours to do: the signal is blocked.
            if number == Signal::TSTP.as_raw() {
                stop_ourselves();
            }
            return;
        }
        // If it has ended, there is nobody to tell.
        let _ = self.container.tell(&ToInit::Signal(number));
    }

    /// A shell has continued us: the command goes on too, in the foreground if that is where we are.
    fn resume(&self) {
        let Some(first) = self.container.first else { return };
        match self.terminal {
            Terminal::Own => {
                if in_foreground() {
                    let _ = rustix::termios::tcsetpgrp(io::stdin(), first);
                }
                let _ = rustix::process::kill_process_group(first, Signal::CONT);
            }
            // The shell continues the whole process group.
            Terminal::Shared => {}
            Terminal::None => {
                let _ = rustix::process::kill_process_group(first, Signal::CONT);
            }
        }
    }
}

/// Stops this process, as a shell expects of a job that was stopped. SIGSTOP cannot be blocked.
fn stop_ourselves() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
}
