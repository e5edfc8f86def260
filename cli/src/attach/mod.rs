//! The attach helper: a process of its own that enters a container's network namespace, makes and configures an interface
//! there, passes its descriptor back and ends.
//!
//! # Theory of operation
//!
//! It is told what to do over a `SOCK_SEQPACKET`: one [`Task`] with the [`place`] to do it in; it answers with one [`Made`]
//! and a descriptor, if the task makes one. It does one task and ends, as there is no way back out of a user namespace. The
//! front forks the helper for its first container before it has threads, and lets it wait; later ones are executed.
//!
//! A task is done whole or not at all: an interface that it made is gone again when a later step fails, and so are addresses,
//! routes and rules.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pontoon_switch::sys::packet::open_packet;
use pontoon_switch::sys::process::fork;
use pontoon_switch::sys::tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};

use crate::fdsock::FdSocket;
use crate::netlink::{Link, LinkKind, Netlink};

pub(crate) use interface::{Interface, Ipv6, QUEUE, configure, lengthen_queue, loopback_up};
pub(crate) use place::{become_untraceable, check_device};
pub(crate) use task::{Attach, Kind, Made, Task};

mod interface;
mod place;
mod task;
mod uplink;
mod veth;

use task::Answer;

/// How long the helper may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A helper, from our side. Dropping it waits for its end, which follows its answer or the loss of its socket; one that does
/// not end is killed.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: Option<FdSocket>,
    child: Child,
    begun: Instant,
}

#[derive(Debug)]
enum Child {
    Forked(Pid),
    Executed(std::process::Child),
}

impl Helper {
    /// Makes one that waits for its request. There must be one thread only.
    pub(crate) fn fork() -> Result<Self> {
        let (ours, theirs) = Self::pair()?;
        let child = fork(&[theirs.as_fd()], || {
            match theirs
                .try_clone()
                .map_err(Into::into)
                .and_then(|fd| serve(FdSocket::new(fd)))
            {
                Ok(()) => 0,
                Err(e) => {
                    tracing::error!("the attach helper failed: {e:#}");
                    1
                }
            }
        });
        Ok(Self {
            socket: Some(ours),
            child: Child::Forked(child.context("cannot start the attach helper")?),
            begun: Instant::now(),
        })
    }

    /// Makes one where there are threads already.
    pub(crate) fn spawn() -> Result<Self> {
        let (ours, theirs) = Self::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("__attach")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the attach helper")?;
        Ok(Self {
            socket: Some(ours),
            child: Child::Executed(child),
            begun: Instant::now(),
        })
    }

    fn pair() -> Result<(FdSocket, OwnedFd)> {
        let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair for the attach helper")?;
        ours.set_timeout(Some(PATIENCE))?;
        Ok((ours, theirs))
    }

    /// Has it begin with a task, in the [`place`] that a descriptor is: a process's pidfd, or a network namespace; where it is
    /// itself if there is none.
    pub(crate) fn begin(&self, place: Option<BorrowedFd<'_>>, task: &Task) -> Result<()> {
        let socket = self.socket.as_ref().context("the attach helper is gone")?;
        socket
            .send(task, place.as_slice())
            .context("the attach helper takes no task")
    }

    /// Waits for what it has begun; gives the interface, and its descriptor, of tasks that have such.
    pub(crate) fn finish(&mut self) -> Result<(Option<Made>, Option<OwnedFd>)> {
        let socket = self.socket.as_mut().context("the attach helper is gone")?;
        match socket.recv::<Answer>() {
            Ok(Some((Ok(made), fds))) => Ok((made, fds.into_iter().next())),
            Ok(Some((Err(why), _))) => bail!(why),
            Ok(None) => bail!("the attach helper died"),
            Err(e) => {
                // It hangs or is dead: either way it is to be gone before we are.
                self.child.kill();
                Err(e).context("the attach helper does not answer")
            }
        }
    }

    /// As [`Helper::finish`], for a task that gives both.
    pub(crate) fn port(&mut self) -> Result<(Made, OwnedFd)> {
        match self.finish()? {
            (Some(made), Some(fd)) => Ok((made, fd)),
            (Some(_) | None, _) => bail!("the attach helper sent no interface"),
        }
    }
}

impl Helper {
    /// Whether one that need not answer any more has ended. What takes longer than it may is killed.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.socket = None;
        if self.child.has_ended() {
            return true;
        }
        if self.begun.elapsed() > PATIENCE {
            self.child.kill();
        }
        false
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.socket = None;
        if !self.child.ends_within(PATIENCE) {
            self.child.kill();
        }
        self.child.wait();
    }
}

impl Child {
    // Errors mean that it has ended.
    fn kill(&mut self) {
        match self {
            Self::Forked(pid) => drop(rustix::process::kill_process(*pid, Signal::KILL)),
            Self::Executed(child) => drop(child.kill()),
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let pid = match self {
            Self::Forked(pid) => Some(*pid),
            Self::Executed(child) => Pid::from_raw(child.id().cast_signed()),
        };
        // What cannot be watched is waited for.
        let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return true;
        };
        let patience = Timespec::try_from(patience).ok();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, patience.as_ref())).is_ok_and(|ready| ready > 0)
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Self::Forked(pid) => !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)),
            Self::Executed(child) => !matches!(child.try_wait(), Ok(None)),
        }
    }

    fn wait(&mut self) {
        match self {
            Self::Forked(pid) => drop(rustix::io::retry_on_intr(|| {
                waitpid(Some(*pid), WaitOptions::empty())
            })),
            Self::Executed(child) => drop(child.wait()),
        }
    }
}

/// The main function of one that was executed.
pub(crate) fn main() -> Result<()> {
    serve(FdSocket::from_stdin().context("the attach helper is started by pontoon itself")?)
}

/// The helper's life.
fn serve(mut socket: FdSocket) -> Result<()> {
    let Some((task, fds)) = socket.recv::<Task>()? else {
        return Ok(());
    };
    match perform(&task, fds.first().map(AsFd::as_fd)) {
        Ok((made, fd)) => {
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
            socket.send(&Answer::Ok(made), &fds)?;
        }
        Err(e) => socket.send(&Answer::Err(format!("{e:#}")), &[])?,
    }
    Ok(())
}

/// Does a task in its place.
fn perform(task: &Task, place: Option<BorrowedFd<'_>>) -> Result<(Option<Made>, Option<OwnedFd>)> {
    let opens_tap = match task {
        Task::Attach(attach) => matches!(attach.kind, Kind::Tap | Kind::ExistingTap),
        Task::HostTap { .. } | Task::Tap { .. } | Task::UplinkTap { .. } => true,
        Task::Default { .. }
        | Task::Detach { .. }
        | Task::Packet { .. }
        | Task::UplinkPacket { .. }
        | Task::UplinkVeth { .. } => false,
    };
    if opens_tap {
        check_device()?;
    }
    if let Some(place) = place {
        place::enter(place)?;
    }
    let mut netlink = Netlink::open().context("cannot open a netlink socket in the container")?;
    match task {
        Task::Attach(wanted) => {
            loopback_up(&mut netlink)?;
            let (link, fd) = attach(&mut netlink, wanted)?;
            Ok((Some(made(&wanted.interface, &link)), Some(fd)))
        }
        Task::HostTap {
            interface,
            mac,
            mtu,
            addresses,
        } => {
            let wanted = Attach {
                interface: interface.clone(),
                kind: Kind::Tap,
                mac: *mac,
                mtu: *mtu,
                addresses: addresses.clone(),
                gateways: Vec::new(),
                default: false,
                source_table: None,
                routes: Vec::new(),
            };
            if netlink.link(interface).is_ok() {
                bail!("the host has an interface {interface} already");
            }
            let (link, fd) = attach(&mut netlink, &wanted).map_err(of_host)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::Packet { interface } => {
            let (link, fd) = packet(&mut netlink, interface).map_err(of_host)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::Tap { interface } => {
            let (link, fd) = tap(&mut netlink, interface).map_err(of_host)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::UplinkPacket {
            interface,
            mac,
            ipv4,
            ipv6,
            addresses,
            raise,
        } => {
            let wanted = uplink::Wanted {
                mac: *mac,
                ipv4: *ipv4,
                ipv6: *ipv6,
                addresses,
                raise: *raise,
            };
            let (link, fd) = uplink::packet(&mut netlink, interface, wanted).map_err(of_host)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::UplinkTap { interface, mtu } => {
            let (link, fd) = uplink::host_tap(&mut netlink, interface, *mtu).map_err(of_host)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::UplinkVeth { interface, mtu } => {
            let (link, fd) = uplink::pair(&mut netlink, interface, *mtu)?;
            Ok((Some(made(interface, &link)), Some(fd)))
        }
        Task::Default { interface, gateways } => {
            let link = interface::set_default(&mut netlink, interface, gateways)?;
            Ok((Some(made(interface, &link)), None))
        }
        Task::Detach {
            interface,
            source_table,
        } => {
            detach(&mut netlink, interface, *source_table)?;
            Ok((None, None))
        }
    }
}

fn made(name: &str, link: &Link) -> Made {
    Made {
        interface: name.to_owned(),
        index: link.index,
        mac: link.mac,
        mtu: link.mtu,
        carrier: link.carrier,
    }
}

/// Makes an interface as `wanted`, or takes it, and configures it.
fn attach(netlink: &mut Netlink, wanted: &Attach) -> Result<(Link, OwnedFd)> {
    let name = &wanted.interface;
    // A pair has its own order of things, and nothing that waits in a queue.
    let (fd, queue) = match wanted.kind {
        Kind::Tap => {
            if netlink.link(name).is_ok() {
                return Err(taken(name));
            }
            (open(name)?, Some(QUEUE))
        }
        Kind::ExistingTap => {
            netlink
                .link(name)
                .with_context(|| format!("the container has no TAP {name}"))?;
            (busy(tun::borrow_tap(name), name)?, Some(QUEUE))
        }
        Kind::Veth => (veth::make(netlink, name, wanted.mac, wanted.mtu)?, None),
    };
    let configured = configure(
        netlink,
        &Interface {
            name,
            mac: wanted.mac,
            mtu: wanted.mtu,
            queue,
            addresses: &wanted.addresses,
            gateways: &wanted.gateways,
            default: wanted.default,
            source_table: wanted.source_table,
            routes: &wanted.routes,
            ipv6: match wanted.kind {
                // Somebody has made it as it is.
                Kind::ExistingTap if wanted.addresses.is_empty() => Ipv6::Untouched,
                Kind::Tap | Kind::Veth | Kind::ExistingTap => Ipv6::with(&wanted.addresses),
            },
        },
    );
    match configured {
        Ok(link) => Ok((link, fd)),
        Err(e) => {
            // A TAP goes with its descriptor, a pair with its namespace, but later.
            if wanted.kind == Kind::Veth
                && let Ok(link) = netlink.link(name)
            {
                let _ = netlink.delete_link(link.index);
            }
            Err(e)
        }
    }
}

/// Takes an interface of ours away, and the way of its replies.
fn detach(netlink: &mut Netlink, name: &str, source_table: Option<u32>) -> Result<()> {
    if let Some(table) = source_table {
        netlink
            .remove_rules(table)
            .with_context(|| format!("cannot clear the rules of table {table}"))?;
    }
    match netlink.link(name) {
        Ok(link) if matches!(link.kind, LinkKind::Tun | LinkKind::Veth) => {
            match netlink.delete_link(link.index) {
                Ok(()) => Ok(()),
                // It went with its descriptor meanwhile.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NODEV) => Ok(()),
                Err(e) => Err(e).with_context(|| format!("cannot remove the interface {name}")),
            }
        }
        Ok(_) => Ok(()),
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NODEV) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("cannot look at the interface {name}")),
    }
}

/// Says of what only root may do on the host that this is why it fails.
fn of_host(e: anyhow::Error) -> anyhow::Error {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
    };
    if e.chain().any(refused) {
        e.context("only root can do that to the host's interfaces")
    } else {
        e
    }
}

/// Opens a TAP of the host that is there. Whoever it was made for need not be root, and so can change nothing about it.
fn tap(netlink: &mut Netlink, name: &str) -> Result<(Link, OwnedFd)> {
    let link = netlink
        .link(name)
        .with_context(|| format!("there is no interface {name}"))?;
    let fd = tun::borrow_tap(name).map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::BUSY) => anyhow::anyhow!("the TAP {name} is in use"),
        Some(Errno::INVAL) => anyhow::anyhow!("the interface {name} is no TAP that can be used"),
        Some(_) | None => anyhow::Error::from(e).context(format!(
            "the TAP {name} is not this user's (ip tuntap add … user)"
        )),
    })?;
    bring_up(netlink, &link, name)?;
    Ok((link, fd))
}

/// Brings an interface up that may be up already.
fn bring_up(netlink: &mut Netlink, link: &Link, name: &str) -> Result<()> {
    if link.up {
        return Ok(());
    }
    netlink
        .set_up(link.index)
        .with_context(|| format!("cannot bring {name} up"))
}

/// Sees that a switch can use an interface.
fn has_frames(link: &Link, name: &str) -> Result<()> {
    ensure!(
        link.ethernet,
        "{name} is no Ethernet interface: packets go by it without the frames that a switch has to do with"
    );
    Ok(())
}

/// Opens a packet socket on an interface that is up.
fn listen(link: &Link, name: &str) -> Result<OwnedFd> {
    open_packet(link.index).with_context(|| format!("cannot open a packet socket on the interface {name}"))
}

/// Opens a packet socket on an interface that is there.
fn packet(netlink: &mut Netlink, name: &str) -> Result<(Link, OwnedFd)> {
    let link = netlink
        .link(name)
        .with_context(|| format!("there is no interface {name}"))?;
    has_frames(&link, name)?;
    bring_up(netlink, &link, name)?;
    let fd = listen(&link, name)?;
    Ok((link, fd))
}

/// Opens the TAP `name` of the network namespace that we are in.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    busy(tun::open_tap(name), name).with_context(|| format!("cannot make the interface {name}"))
}

/// Says of a TAP that is in use what that means.
fn busy(opened: std::io::Result<OwnedFd>, name: &str) -> Result<OwnedFd> {
    opened.map_err(|e| match Errno::from_io_error(&e) {
        Some(Errno::BUSY) => {
            anyhow::anyhow!("the container has an interface {name} already, and it is in use")
        }
        Some(Errno::INVAL) => {
            anyhow::anyhow!(
                "the container's interface {name} is no TAP that can be used, or its name is none"
            )
        }
        Some(_) | None => e.into(),
    })
}

/// What is said of a name that is in use.
fn taken(name: &str) -> anyhow::Error {
    anyhow::anyhow!("the container has an interface {name} already")
}
