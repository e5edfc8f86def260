//! The front of a network: it owns the control socket, the state, the addresses and the published sockets, and never
//! parses a frame.
//!
//! `pontoon run` forks it for a private network and waits until it is ready. It lives until the network's last container
//! has ended, or, if none ever came, until whoever started it is gone. One thread watches: the listening socket, the
//! packet process, the containers' processes (a TAP keeps its namespace alive, so only a pidfd tells of the end), the
//! host's resolv.conf. Each connection has a thread of its own, of which there are at most [`MAX_CONNECTIONS`], so that a
//! client that is stuck holds up nobody; they work on the [`Network`] under one lock, which is held for no client's
//! sake.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_nat::config::{Filtering, LinkLocal, Outbound};
use pontoon_switch::sys::process::{fork, set_title, unblock_signals};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use crate::api::{AttachRequest, ContainerInfo, NetworkInfo};
use crate::control;
use crate::limits::{Blocking, Door, Exhausted, raise_open_files};
use crate::resolv::ResolvConf;
use crate::resolv_watch::ResolvWatch;
use crate::sandbox::SandboxOptions;
use network::{Attaching, Network, Refused};

mod api;
mod network;
mod packet_link;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

/// How long a front that was started may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client waits for the control socket to go.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// What a network is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Its name.
    pub(crate) name: String,
    /// The control directory.
    pub(crate) directory: PathBuf,
    /// IPv4 range.
    pub(crate) subnet4: Ipv4Net,
    /// The gateway's IPv4 address, if it is given.
    pub(crate) gateway4: Option<Ipv4Addr>,
    /// IPv6 range, if there is IPv6.
    pub(crate) subnet6: Option<Ipv6Net>,
    /// The gateway's IPv6 address, if it is given.
    pub(crate) gateway6: Option<Ipv6Addr>,
    /// MTU in bytes.
    pub(crate) mtu: u16,
    /// Name servers to ask; the host's if there are none.
    pub(crate) dns: Vec<IpAddr>,
    /// Search list; the host's if it is empty.
    pub(crate) search: Vec<String>,
    /// Whether the gateway leads to the host's loopback.
    pub(crate) host_loopback: bool,
    /// Whether link-local addresses can be reached.
    pub(crate) link_local: LinkLocal,
    /// Who may answer a container's UDP port.
    pub(crate) filtering: Filtering,
    /// Where outgoing sockets are bound.
    pub(crate) outbound: Outbound,
    /// Bound on flows.
    pub(crate) max_flows: u32,
    /// Bound on the flows of each container.
    pub(crate) max_flows_per_container: u32,
    /// How the packet process confines itself.
    pub(crate) sandbox: SandboxOptions,
}

/// What a front says to whoever started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    /// The network is there.
    Ready,
    /// So is the container that was asked for.
    Attached(Box<Attached>),
    /// The network is there, the container is not attached.
    Refused(String),
    /// There is no network, or none any more.
    Failed(String),
}

/// The first container as it was attached, and the network that it is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// The network.
    pub(crate) network: NetworkInfo,
    /// The container.
    pub(crate) container: ContainerInfo,
}

/// A front that was started. While this lives, the front waits for its first container.
#[derive(Debug)]
pub(crate) struct Started {
    line: BufReader<UnixStream>,
    child: Pid,
    plan: Plan,
    /// How long its log was before.
    said_before: u64,
}

impl Started {
    fn line(&self) -> &UnixStream {
        self.line.get_ref()
    }

    /// Asks for the first container to be attached, which may be done before the network is there.
    pub(crate) fn ask(&mut self, request: &AttachRequest) -> Result<()> {
        let text = line_of(request)?;
        // A front that has failed says so itself.
        let _ = self.line().write_all(&text);
        Ok(())
    }

    /// Waits until the network is there.
    ///
    /// # Errors
    /// Whatever kept it from starting, in its own words.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let what = format!("cannot start the network {}", self.plan.name);
        let heard = self.hear();
        let log_path = control::log_path(&self.plan.directory, &self.plan.name);
        match heard {
            Ok(Some(Report::Ready)) => Ok(()),
            Ok(Some(Report::Failed(why) | Report::Refused(why))) => {
                self.wait();
                if self.said_before == 0 && !is_running(&self.plan) {
                    let _ = std::fs::remove_file(&log_path);
                }
                Err(anyhow!(why)).context(what)
            }
            Ok(Some(Report::Attached(_)) | None) | Err(_) => {
                let how = heard.map_or_else(|e| format!("does not answer ({e})"), |_| "died".to_owned());
                let _ = rustix::process::kill_process(self.child, Signal::KILL);
                self.wait();
                let said = std::fs::read(&log_path).unwrap_or_default();
                let said = said
                    .get(usize::try_from(self.said_before).unwrap_or(0)..)
                    .unwrap_or_default();
                let said = String::from_utf8_lossy(said);
                let _ = std::fs::remove_file(&log_path);
                bail!("{what}: its front {how}: {}", said.trim())
            }
        }
    }

    /// Waits until the container that was asked for is attached.
    pub(crate) fn attached(&mut self) -> Result<Attached> {
        match self.hear() {
            Ok(Some(Report::Attached(attached))) => Ok(*attached),
            Ok(Some(Report::Refused(why) | Report::Failed(why))) => bail!(why),
            Ok(Some(Report::Ready) | None) => bail!("the front of network {} died", self.plan.name),
            Err(e) => {
                Err(e).with_context(|| format!("the front of network {} does not answer", self.plan.name))
            }
        }
    }

    /// The next report; none once the front has ended.
    fn hear(&mut self) -> io::Result<Option<Report>> {
        let mut text = String::new();
        if self.line.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        Ok(serde_json::from_str(&text).map(Some)?)
    }

    /// Ends a front that has no container, and waits until it is gone.
    pub(crate) fn give_up(self) {
        // A copy in a container's process, which has not closed it yet, must not keep it open.
        let _ = self.line().shutdown(Shutdown::Both);
        let until = Instant::now() + CLOSING_TIME + CLOSING_TIME;
        // An error means that it was reaped.
        while matches!(waitpid(Some(self.child), WaitOptions::NOHANG), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, which is certain.
    fn wait(&self) {
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.child), WaitOptions::empty()));
    }

    /// Why the front has ended, once it has.
    pub(crate) fn last_words(&mut self) -> String {
        match self.hear() {
            Ok(Some(Report::Failed(why))) => why,
            Ok(_) | Err(_) => "its front was killed".to_owned(),
        }
    }
}

impl AsFd for Started {
    /// Readable once the front has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line().as_fd()
    }
}

/// A value as a line of text.
fn line_of(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Starts the front of a network. It is to be [`Started::ready`] before it is used.
pub(crate) fn start(plan: Plan) -> Result<Started> {
    let what = || format!("cannot start the network {}", plan.name);
    let (line, theirs) = UnixStream::pair().with_context(what)?;
    let log_path = control::log_path(&plan.directory, &plan.name);
    let log = {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?
    };
    let said_before = log.metadata().map_or(0, |m| m.len());
    line.set_read_timeout(Some(PATIENCE))?;
    line.set_write_timeout(Some(PATIENCE))?;
    let theirs = OwnedFd::from(theirs);
    let child = fork(&[theirs.as_fd(), log.as_fd()], || {
        let forked = become_front(&log).and_then(|()| main(theirs.try_clone()?, plan.clone()));
        match forked {
            Ok(()) => 0,
            Err(e) => {
                eprintln!("pontoon: {e:#}");
                crate::init::OURS
            }
        }
    })
    .with_context(what)?;
    Ok(Started {
        line: BufReader::new(line),
        child,
        plan,
        said_before,
    })
}

/// Leaves behind what a fork of `run` has of it: session, working directory, standard files, signal mask and looks.
fn become_front(log: &File) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(log)?;
    crate::log();
    rustix::process::setsid()?;
    std::env::set_current_dir("/")?;
    unblock_signals()?;
    // It executes nothing but this program, which gains nothing by it; `run`, which maps ids by set-user-id programs, cannot
    // say the same.
    rustix::thread::set_no_new_privs(true)?;
    if let Err(e) = set_title(c"network-front", "pontoon __front") {
        tracing::info!("the front goes by the name of what it was forked of: {e}");
    }
    Ok(())
}

fn is_running(plan: &Plan) -> bool {
    control::socket_path(&plan.directory, &plan.name).is_ok_and(|path| path.exists())
}

/// The front's main function.
fn main(line: OwnedFd, plan: Plan) -> Result<()> {
    let mut line = BufReader::new(UnixStream::from(line));
    raise_open_files();
    let (directory, name) = (plan.directory.clone(), plan.name.clone());
    let (shared, listener, first) = match begin(plan, &mut line) {
        Ok(begun) => begun,
        Err(e) => {
            say(&line, &Report::Failed(format!("{e:#}")));
            return Ok(());
        }
    };
    say(&line, &Report::Ready);
    if let Some(first) = first {
        let mut network = shared.network();
        let attached = first.and_then(|first| network.finish_attach(first));
        say(&line, &report(&network, attached));
    }
    let result = watch(&shared, &listener, &mut line);
    if let Err(e) = &result {
        tracing::error!("{e:#}");
        say(&line, &Report::Failed(format!("{e:#}")));
    }
    control::remove(&directory, &name, listener);
    *shared.closed.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    shared.closed.1.notify_all();
    let link = shared.network().close();
    // Said at once, and to be heard although a copy stays open until we end.
    let _ = line.get_ref().shutdown(Shutdown::Both);
    if let Some(link) = link {
        link.end();
    }
    result
}

/// Whoever started us may be dead already, which the watch will find.
fn say(line: &BufReader<UnixStream>, report: &Report) {
    let text = line_of(report).unwrap_or_default();
    let _ = line.get_ref().write_all(&text);
}

/// How the attachment of the first container went.
fn report(network: &Network, attached: Result<ContainerInfo, Refused>) -> Report {
    match attached {
        Ok(container) => Report::Attached(Box::new(Attached {
            network: network.info(),
            container,
        })),
        Err(Refused { error, .. }) => Report::Refused(format!("{error:#}")),
    }
}

/// The next request of whoever started us; none once they are gone, or make no sense.
fn next_request(line: &mut BufReader<UnixStream>) -> Option<AttachRequest> {
    let mut text = String::new();
    line.read_line(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// What the threads share.
struct Shared {
    network: Mutex<Network>,
    /// Wakes the watch: written to whenever the set of things to watch may have changed.
    wake: OwnedFd,
    connections: AtomicUsize,
    /// Whether the control socket is gone.
    closed: (Mutex<bool>, Condvar),
}

impl Shared {
    /// The network. A thread that panicked left it usable: every change is made at its end.
    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, for a while, until the control socket is gone if this was the last container: whoever asked for its end may
    /// take the name again at once.
    fn wait_if_over(&self) {
        if self.network().is_over(false) {
            self.wake();
            let closed = self.closed.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(
                self.closed
                    .1
                    .wait_timeout_while(closed, CLOSING_TIME, |closed| !*closed),
            );
        }
    }

    fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// What the network's beginning gives: the first container may be on its way already.
type Begun = (Arc<Shared>, UnixListener, Option<Result<Attaching, Refused>>);

fn begin(plan: Plan, line: &mut BufReader<UnixStream>) -> Result<Begun> {
    let (listener, _) = control::listen(&plan.directory, &plan.name)?;
    let (directory, name) = (plan.directory.clone(), plan.name.clone());
    let begun = || -> Result<_> {
        listener.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The packet process is started in there, before any thread.
        let mut network = Network::new(plan, &ResolvConf::of_host())?;
        // While it starts, the container can have its interface made.
        let first =
            request_meanwhile(line, &network)?.map(|request| network.begin_attach(own_uid(), request));
        network.configured()?;
        let shared = Arc::new(Shared {
            network: Mutex::new(network),
            wake,
            connections: AtomicUsize::new(0),
            closed: (Mutex::new(false), Condvar::new()),
        });
        Ok((shared, first))
    };
    match begun() {
        Ok((shared, first)) => Ok((shared, listener, first)),
        Err(e) => {
            control::remove(&directory, &name, listener);
            Err(e)
        }
    }
}

/// A request that comes before the packet process has anything to say.
fn request_meanwhile(line: &mut BufReader<UnixStream>, network: &Network) -> Result<Option<AttachRequest>> {
    if line.buffer().is_empty() {
        let packet = network.packet_fd()?;
        let mut fds = [
            PollFd::new(&packet, PollFlags::IN),
            PollFd::new(line.get_ref(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("cannot wait for events")?;
        if !fds[0].revents().is_empty() {
            return Ok(None);
        }
    }
    Ok(next_request(line))
}

/// The user that our first container is attached for.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The front's life.
fn watch(shared: &Arc<Shared>, listener: &UnixListener, line: &mut BufReader<UnixStream>) -> Result<()> {
    let mut resolv = ResolvWatch::new();
    let mut door = Door::default();
    let mut alone = false;
    // Once, as there may be no descriptor for another later.
    let packet = shared.network().packet_fd()?;
    loop {
        let pidfds = {
            let mut network = shared.network();
            network.tidy();
            if network.is_over(alone) {
                return Ok(());
            }
            network.pidfds()
        };
        // Whoever comes while all connections are taken, or descriptors have run out, waits in the socket's queue.
        let now = Instant::now();
        door.prepare(now);
        let full = shared.connections.load(Ordering::Acquire) >= MAX_CONNECTIONS || !door.is_open();
        let left = door.deadline().map(|at| at.saturating_duration_since(now));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![
            PollFd::new(listener, if full { PollFlags::empty() } else { PollFlags::IN }),
            PollFd::new(&packet, PollFlags::IN),
            PollFd::new(&shared.wake, PollFlags::IN),
        ];
        let first_container = fds.len();
        fds.extend(pidfds.iter().map(|(_, fd)| PollFd::new(&**fd, PollFlags::IN)));
        let after_containers = fds.len();
        if !alone {
            fds.push(PollFd::new(line.get_ref(), PollFlags::IN));
        }
        let after_starter = fds.len();
        fds.extend(resolv.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            accept(shared, listener, &mut door);
        }
        if ready[1] {
            shared.network().packet_events()?;
        }
        if ready[2] {
            let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        }
        for (i, (name, fd)) in pidfds.iter().enumerate() {
            if ready[first_container + i] {
                shared.network().ended(name, fd);
            }
        }
        if ready[after_containers..after_starter].iter().any(|&r| r) {
            match next_request(line) {
                Some(request) => {
                    let mut network = shared.network();
                    let attached = network.attach(own_uid(), request);
                    say(line, &report(&network, attached));
                }
                None => alone = true,
            }
        }
        if ready[after_starter..].iter().any(|&r| r) && resolv.changed() {
            shared.network().set_host_resolvers(&ResolvConf::of_host());
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener, door: &mut Door) {
    while shared.connections.load(Ordering::Acquire) < MAX_CONNECTIONS {
        let stream = match door.accept(listener, Blocking::Yes) {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(Exhausted) => return door.shut(Instant::now()),
        };
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let for_thread = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name("connection".into())
            .stack_size(512 << 10)
            .spawn(move || {
                api::connection(&for_thread, &stream);
                let _ = stream.shutdown(Shutdown::Both);
                for_thread.connections.fetch_sub(1, Ordering::AcqRel);
                for_thread.wake();
            });
        if let Err(e) = spawned {
            shared.connections.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!("a connection to the control socket was refused: {e}");
        }
    }
}
