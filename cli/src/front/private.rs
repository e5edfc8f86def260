//! The front of a private network, which `pontoon run` forks and waits for.
//!
//! It lives until the network's last container has ended, or, if none ever came, until whoever started it is gone. `run`
//! asks for its container by the line between them, which may be done before the network is there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use pontoon_switch::sys::process::{fork, set_title, unblock_signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::Refused;
use super::attach::Attaching;
use super::network::Network;
use super::plan::Plan;
use super::registry::{Front, Life};
use super::serve::{self, Also, CLOSING_TIME, Shared};
use crate::api::{AttachRequest, ContainerInfo, NetworkInfo};
use crate::attach::Helper;
use crate::control;
use crate::limits::raise_open_files;
use crate::resolv::ResolvConf;

/// How long a front that was started may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// A container as it was attached, and the networks that it is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// The networks, as its interfaces.
    pub(crate) networks: Vec<NetworkInfo>,
    /// The container.
    pub(crate) container: ContainerInfo,
}

/// A front that was started. While this lives, the front waits for its first container.
#[derive(Debug)]
pub(crate) struct Started {
    line: BufReader<UnixStream>,
    child: Pid,
    directory: PathBuf,
    name: String,
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
        let what = format!("cannot start the network {}", self.name);
        let heard = self.hear();
        let log_path = control::log_path(&self.directory, &self.name);
        match heard {
            Ok(Some(Report::Ready)) => Ok(()),
            Ok(Some(Report::Failed(why) | Report::Refused(why))) => {
                self.wait();
                if self.said_before == 0 && !is_running(&self.directory, &self.name) {
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
            Ok(Some(Report::Ready) | None) => bail!("the front of network {} died", self.name),
            Err(e) => Err(e).with_context(|| format!("the front of network {} does not answer", self.name)),
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
pub(crate) fn start(plan: Plan, directory: &Path) -> Result<Started> {
    let what = || format!("cannot start the network {}", plan.name);
    let (line, theirs) = UnixStream::pair().with_context(what)?;
    let log_path = control::log_path(directory, &plan.name);
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
        let forked = become_front(&log).and_then(|()| main(theirs.try_clone()?, plan.clone(), directory));
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
        directory: directory.to_owned(),
        name: plan.name,
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

fn is_running(directory: &Path, name: &str) -> bool {
    control::socket_path(directory, name).is_ok_and(|path| path.exists())
}

/// The front's main function.
fn main(line: OwnedFd, plan: Plan, directory: &Path) -> Result<()> {
    let mut line = BufReader::new(UnixStream::from(line));
    raise_open_files();
    let name = plan.name.clone();
    let (shared, listener, first) = match begin(plan, directory, &mut line) {
        Ok(begun) => begun,
        Err(e) => {
            say(&line, &Report::Failed(format!("{e:#}")));
            return Ok(());
        }
    };
    say(&line, &Report::Ready);
    if let Some(first) = first {
        say(&line, &first.map_or_else(refusal, |first| finish(&shared, first)));
    }
    let mut starter = Starter { line, alone: false };
    let result = serve::watch(&shared, &listener, &mut starter);
    let line = starter.line;
    if let Err(e) = &result {
        tracing::error!("{e:#}");
        say(&line, &Report::Failed(format!("{e:#}")));
    }
    // Before `run` hears that all is over, which may be followed by another with the same link.
    shared.front().part_from_links();
    control::remove(directory, &name, listener);
    shared.closed();
    // Said at once, and to be heard although a copy stays open until we end.
    let _ = line.get_ref().shutdown(Shutdown::Both);
    shared.front().end();
    result
}

/// Whoever started us may be dead already, which the watch will find.
fn say(line: &BufReader<UnixStream>, report: &Report) {
    let text = line_of(report).unwrap_or_default();
    let _ = line.get_ref().write_all(&text);
}

/// Finishes the attachment of a container that was begun, and says how it went.
fn finish(shared: &Shared, mut attaching: Attaching) -> Report {
    let made = attaching.made();
    let mut front = shared.front();
    let attached = match made {
        Ok(()) => front.finish_attach(attaching),
        Err(e) => {
            front.abandon(attaching);
            Err(e)
        }
    };
    match attached {
        Ok(container) => Report::Attached(Box::new(Attached {
            networks: front.network_infos(),
            container,
        })),
        Err(e) => refusal(e),
    }
}

fn refusal(refused: Refused) -> Report {
    Report::Refused(format!("{:#}", refused.error))
}

/// The next request of whoever started us; none once they are gone, or make no sense.
fn next_request(line: &mut BufReader<UnixStream>) -> Option<AttachRequest> {
    let mut text = String::new();
    line.read_line(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// What the network's beginning gives: the first container may be on its way already.
type Begun = (Arc<Shared>, UnixListener, Option<Result<Attaching, Refused>>);

fn begin(plan: Plan, directory: &Path, line: &mut BufReader<UnixStream>) -> Result<Begun> {
    let name = plan.name.clone();
    let (listener, _) = control::listen(directory, &name)?;
    let begun = || -> Result<_> {
        listener.set_nonblocking(true)?;
        let host = ResolvConf::of_host();
        let life = Life::Private {
            used: false,
            over: false,
        };
        let mut front = Front::new(life, host);
        // The packet process is started in there, before any thread, and takes the longest; then the first helper.
        let network = Network::begin(plan, &front.host, None)?;
        front.networks.insert(name.clone(), network);
        front.helper = Some(Helper::fork()?);
        // While it starts, the container can have its interface made.
        let first = request_meanwhile(line, front.network(&name).map_err(|e| e.error)?)?
            .map(|request| front.begin_attach(own_uid(), request));
        front.network_mut(&name).map_err(|e| e.error)?.configured()?;
        front.make_uplink(&name)?;
        let shared = Shared::new(front)?;
        Ok((shared, first))
    };
    match begun() {
        Ok((shared, first)) => Ok((shared, listener, first)),
        Err(e) => {
            control::remove(directory, &name, listener);
            Err(e)
        }
    }
}

/// A request that comes before the packet process has anything to say.
fn request_meanwhile(line: &mut BufReader<UnixStream>, network: &Network) -> Result<Option<AttachRequest>> {
    if line.buffer().is_empty() {
        let packet = network.packet_fd().context("the network is closed")?;
        let mut fds = [
            PollFd::new(&*packet, PollFlags::IN),
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

/// Whoever started the front: while they have no container, they hold it.
struct Starter {
    line: BufReader<UnixStream>,
    alone: bool,
}

impl Also for Starter {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.alone).then(|| self.line.get_ref().as_fd())
    }

    fn ready(&mut self, shared: &Shared) -> Result<bool> {
        match next_request(&mut self.line) {
            Some(request) => {
                let begun = shared.front().begin_attach(own_uid(), request);
                say(
                    &self.line,
                    &begun.map_or_else(refusal, |first| finish(shared, first)),
                );
            }
            None => self.alone = true,
        }
        Ok(true)
    }

    fn is_alone(&self) -> bool {
        self.alone
    }
}
