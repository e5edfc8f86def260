//! The front of a network: it owns the control socket, the state, the addresses and the published sockets, and never
//! parses a frame.
//!
//! `pontoon run` starts it for a private network and waits until it is ready. It lives until the network's last container
//! has ended, or, if none ever came, until whoever started it is gone. One thread watches: the listening socket, the
//! packet process, the containers' processes (a TAP keeps its namespace alive, so only a pidfd tells of the end), the
//! host's resolv.conf. Each connection has a thread of its own, of which there are at most [`MAX_CONNECTIONS`], so that a
//! client that is stuck holds up nobody; they work on the [`Network`] under one lock, which is held for no client's
//! sake.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_nat::config::{Filtering, LinkLocal, Outbound};
use pontoon_switch::sys::fd;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde::{Deserialize, Serialize};

use crate::control;
use crate::resolv::ResolvConf;
use network::Network;
use resolv_watch::ResolvWatch;

mod api;
mod network;
mod packet_link;
mod ping;
mod publish;
mod resolv_watch;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

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
}

/// What a front says to whoever started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    Ready,
    Failed(String),
}

/// A front that was started. While this lives, the front waits for its first container.
#[derive(Debug)]
pub(crate) struct Started {
    line: UnixStream,
    child: Child,
}

impl Started {
    /// Ends a front that has no container, and waits until it is gone.
    pub(crate) fn give_up(mut self) {
        // A copy in a container's process, which has not closed it yet, must not keep it open.
        let _ = self.line.shutdown(Shutdown::Both);
        let until = Instant::now() + CLOSING_TIME + CLOSING_TIME;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Why the front has ended, once it has.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        let said = BufReader::new(&self.line).read_line(&mut words);
        match (said, serde_json::from_str(&words)) {
            (Ok(_), Ok(Report::Failed(why))) => why,
            (Ok(_) | Err(_), _) => "its front was killed".to_owned(),
        }
    }
}

impl AsFd for Started {
    /// Readable once the front has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

/// Starts the front of a network and waits until it is ready.
///
/// # Errors
/// Whatever kept it from starting, in its own words.
pub(crate) fn start(plan: &Plan) -> Result<Started> {
    let what = || format!("cannot start the network {}", plan.name);
    let (mut line, theirs) = UnixStream::pair().with_context(what)?;
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
    let mut child = Command::new("/proc/self/exe")
        .arg("__front")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .with_context(what)?;
    let mut text = serde_json::to_vec(plan)?;
    text.push(b'\n');
    let mut answer = String::new();
    let talked = line.write_all(&text).and_then(|()| {
        line.set_read_timeout(Some(Duration::from_secs(20)))?;
        BufReader::new(&line).read_line(&mut answer)
    });
    match (talked, serde_json::from_str(&answer)) {
        (Ok(_), Ok(Report::Ready)) => Ok(Started { line, child }),
        (Ok(_), Ok(Report::Failed(why))) => {
            let _ = child.wait();
            if said_before == 0 && !is_running(plan) {
                let _ = std::fs::remove_file(&log_path);
            }
            Err(anyhow!(why)).with_context(what)
        }
        (talked, _) => {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read(&log_path).unwrap_or_default();
            let said = said
                .get(usize::try_from(said_before).unwrap_or(0)..)
                .unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            let _ = std::fs::remove_file(&log_path);
            let how = talked.map_or_else(|e| format!("does not answer ({e})"), |_| "died".to_owned());
            bail!(
                "cannot start the network {}: its front {how}: {}",
                plan.name,
                said.trim()
            )
        }
    }
}

fn is_running(plan: &Plan) -> bool {
    control::socket_path(&plan.directory, &plan.name).is_ok_and(|path| path.exists())
}

/// The front's main function.
pub(crate) fn main() -> Result<()> {
    // It fails for one who leads a process group, and is then run by hand.
    let _ = rustix::process::setsid();
    close_inherited();
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // The child processes are to have other standard inputs, and this one is to close when we say so.
    rustix::stdio::dup2_stdin(&std::fs::File::open("/dev/null")?)?;
    let mut text = String::new();
    BufReader::new(&line)
        .read_line(&mut text)
        .context("the front is started by pontoon itself")?;
    let plan: Plan = serde_json::from_str(&text).context("the front is started by pontoon itself")?;
    raise_open_files();
    let (directory, name) = (plan.directory.clone(), plan.name.clone());
    let (shared, listener) = match begin(plan) {
        Ok(begun) => begun,
        Err(e) => {
            say(&mut line, &Report::Failed(format!("{e:#}")));
            return Ok(());
        }
    };
    say(&mut line, &Report::Ready);
    let result = watch(&shared, &listener, &line);
    if let Err(e) = &result {
        tracing::error!("{e:#}");
        say(&mut line, &Report::Failed(format!("{e:#}")));
    }
    control::remove(&directory, &name, listener);
    *shared.closed.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    shared.closed.1.notify_all();
    let link = shared.network().close();
    drop(line);
    if let Some(link) = link {
        link.end();
    }
    result
}

/// Whoever started us may be dead already, which the watch will find.
fn say(line: &mut UnixStream, report: &Report) {
    let mut text = serde_json::to_vec(report).unwrap_or_default();
    text.push(b'\n');
    let _ = line.write_all(&text);
}

/// Closes what a caller's caller left open: a pipe that somebody waits for the end of must not live as long as we.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<i32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()))
        .collect();
    for number in numbers {
        // Refused for the standard three and for the directory that was just read.
        drop(fd::adopt(number));
    }
}

/// Raises the soft limit of open files to the hard one: published sockets pass through here.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
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

fn begin(plan: Plan) -> Result<(Arc<Shared>, UnixListener)> {
    let (listener, _) = control::listen(&plan.directory, &plan.name)?;
    let (directory, name) = (plan.directory.clone(), plan.name.clone());
    let begun = || -> Result<Arc<Shared>> {
        listener.set_nonblocking(true)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The packet process is started in there, before any thread.
        let network = Network::new(plan, &ResolvConf::of_host())?;
        Ok(Arc::new(Shared {
            network: Mutex::new(network),
            wake,
            connections: AtomicUsize::new(0),
            closed: (Mutex::new(false), Condvar::new()),
        }))
    };
    match begun() {
        Ok(shared) => Ok((shared, listener)),
        Err(e) => {
            control::remove(&directory, &name, listener);
            Err(e)
        }
    }
}

/// The front's life.
fn watch(shared: &Arc<Shared>, listener: &UnixListener, line: &UnixStream) -> Result<()> {
    let mut resolv = ResolvWatch::new();
    let mut starter = Some(line);
    loop {
        let (packet, pidfds) = {
            let mut network = shared.network();
            if network.is_over(starter.is_none()) {
                return Ok(());
            }
            (network.packet_fd()?, network.pidfds())
        };
        // Whoever comes while all connections are taken waits in the socket's queue.
        let full = shared.connections.load(Ordering::Acquire) >= MAX_CONNECTIONS;
        let mut fds = vec![
            PollFd::new(listener, if full { PollFlags::empty() } else { PollFlags::IN }),
            PollFd::new(&packet, PollFlags::IN),
            PollFd::new(&shared.wake, PollFlags::IN),
        ];
        let first_container = fds.len();
        fds.extend(pidfds.iter().map(|(_, fd)| PollFd::new(&**fd, PollFlags::IN)));
        let after_containers = fds.len();
        fds.extend(starter.iter().map(|s| PollFd::new(s, PollFlags::IN)));
        let after_starter = fds.len();
        fds.extend(resolv.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            accept(shared, listener);
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
            // Nothing is ever said on it: it has closed.
            starter = None;
        }
        if ready[after_starter..].iter().any(|&r| r) && resolv.changed() {
            shared.network().set_host_resolvers(&ResolvConf::of_host());
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    while shared.connections.load(Ordering::Acquire) < MAX_CONNECTIONS {
        let Ok((stream, _)) = listener.accept() else {
            return;
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
