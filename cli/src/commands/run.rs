//! `pontoon run`: a command in a network namespace of its own, in the foreground.
//!
//! It starts the network's front, unless it joins one that is running, makes the container ([`crate::init`]), has the
//! front attach it, and then does no more than pass signals on and wait. Everything it has started is bound to its life:
//! the container by its socket, the front by the container.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use pontoon_nat::config::{Filtering, LinkLocal};
use pontoon_switch::sys::process::{Received, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::api::{AttachRequest, NetworkInfo};
use crate::args::{Join, RunArgs, UdpFiltering};
use crate::client::Endpoint;
use crate::control;
use crate::covers::OWN_FILES;
use crate::fdsock::FdSocket;
use crate::front::{self, Attached, Plan, Started};
use crate::init::{self, FORWARDED_AND_CHILD, FromInit, Identity, Stack, Terminal, ToInit};
use crate::outbound;
use crate::resolv;
use crate::routes::Call;

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
    let join = match &args.network {
        None => None,
        Some(Join::Network(network)) => Some(network),
        Some(join @ (Join::None | Join::Host | Join::Container(_))) => {
            return without_switch::run(args, join, &name, &command, &signals);
        }
    };
    let network = join.unwrap_or(&name).clone();
    // Judged before the directory is made: bad input leaves nothing behind.
    control::socket_path(&control::control_dir()?, &network)?;
    let directory = control::create_control_dir()?;
    control::sweep(&directory);
    let capture = args
        .capture
        .clone()
        .map(std::path::absolute)
        .transpose()
        .context("cannot tell where --capture is")?;
    let wanted = AttachRequest {
        pid: 0,
        name: Some(name.clone()),
        ip: args.ip.map(IpAddr::V4),
        ip6: args.ip6.map(IpAddr::V6),
        mac: args.mac_address,
        publish: args.publish_specs(),
        add_hosts: further_hosts(args),
        capture,
    };
    let (mut container, attached, front) = match join {
        Some(_) => {
            let (container, attached) = join_running(&network, &directory, &command, wanted)?;
            (container, attached, None)
        }
        None => {
            let plan = plan(args, &name, directory.clone())?;
            let (container, attached, front) = alone(plan, &directory, &command, wanted)?;
            (container, attached, Some(front))
        }
    };
    let terminal = terminal();
    let go = ToInit::Go(Box::new(identity(args, &attached, terminal)));
    if let Err(e) = container.tell(&go) {
        if let Some(front) = front {
            front.give_up();
        }
        return Err(e);
    }
    let code = Foreground {
        container: &mut container,
        signals: &signals,
        terminal,
        front,
    }
    .wait();
    container.end();
    // So that its ports and its name are free when we return. If it is gone, they are.
    let _ = Endpoint::named(&network).and_then(|endpoint| {
        endpoint.ask::<()>(&Call::Detach {
            container: attached.container.name,
        })
    });
    control::remove_log(&directory, &network);
    code
}

/// Makes a container and has it attached as `wanted` to a network that is running.
fn join_running(
    network: &str,
    directory: &Path,
    command: &[OsString],
    wanted: AttachRequest,
) -> Result<(Container, Attached)> {
    crate::log();
    let endpoint = Endpoint::named(network)?;
    // Asked before anything is made, so that a network which is not there leaves nothing behind.
    let info: Vec<NetworkInfo> = endpoint.ask(&Call::Networks)?;
    let info = info
        .into_iter()
        .next()
        .with_context(|| format!("network {network} says nothing of itself"))?;
    let mut container = Container::start(&Stack::Attached, directory, command)?;
    container.ready()?;
    let request = AttachRequest {
        pid: container.first()?,
        ..wanted
    };
    let attached = Attached {
        network: info,
        container: endpoint.ask(&Call::Attach(Box::new(request)))?,
    };
    Ok((container, attached))
}

/// Makes a network as planned and a container that is attached to it as `wanted`. They take about as long as each other,
/// so both are made at once.
fn alone(
    plan: Plan,
    directory: &Path,
    command: &[OsString],
    wanted: AttachRequest,
) -> Result<(Container, Attached, Started)> {
    // First, as its packet process takes the longest.
    let mut front = front::start(plan)?;
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
            pid: container.first()?,
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

fn plan(args: &RunArgs, name: &str, directory: PathBuf) -> Result<Plan> {
    Ok(Plan {
        name: name.to_owned(),
        directory,
        subnet4: args.subnet(),
        gateway4: Some(args.gateway()),
        subnet6: args.subnet6(),
        gateway6: args.gateway6(),
        mtu: u16::try_from(args.mtu).context("--mtu is at most 65520")?,
        dns: args.dns.clone(),
        search: args.dns_search.clone(),
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
        sandbox: args.sandbox.options(),
    })
}

fn identity(args: &RunArgs, attached: &Attached, terminal: Terminal) -> Identity {
    let Attached { network, container } = attached;
    let search = if args.dns_search.is_empty() {
        &network.search
    } else {
        &args.dns_search
    };
    let hostname = args.hostname.clone().unwrap_or_else(|| container.name.clone());
    let servers: Vec<IpAddr> = network.subnets.iter().map(|s| s.gateway).collect();
    let hosts = resolv::hosts_file(&hostname, &container.addresses, &further_hosts(args));
    Identity {
        files: own_files(&hostname, resolv::for_container(&servers, search), hosts),
        hostname: Some(hostname),
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
