//! The container's own processes: an outer one that hides what must stay hidden, and an inner one, its process 1.
//!
//! ```text
//! pontoon run ─────── outer ───────── inner ──── the command
//!  host           user 1          user 2, mounts, network, UTS, PID, IPC
//!                 mounts 1
//! ```
//!
//! The outer process covers the control directory and the host's resolv.conf, hosts and hostname. Mounts that a mount
//! namespace inherits from one of a more privileged user namespace are locked (`mount_namespaces(7)`): root in the
//! container, being root of user namespace 2, cannot take them away. Process ids are a namespace of their own so that
//! everything inside ends with process 1.
//!
//! With the host's network there is no network namespace, and nothing of `/etc` is covered. A container that shares
//! another's network ([`shared`]) is made beneath that one, whose covers it has.
//!
//! `run` and the two share one `SOCK_SEQPACKET`: [`ToInit`] one way, [`FromInit`] the other. When `run`'s end of it closes,
//! the container ends; a parent-death signal from process to process says the same once more.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use pontoon_switch::sys::process::{self, Namespaces, fork_held};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use crate::covers::OWN_FILES;
use crate::fdsock::FdSocket;
use crate::{covers, idmap};

mod first;
mod shared;

pub(crate) use first::FORWARDED_AND_CHILD;

/// Exit status for a command that is not there, as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// Exit status for a command that cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// Exit status for a failure of ours.
pub(crate) const OURS: u8 = 125;

/// How the command stands to the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Terminal {
    /// There is none: the command is a process group of its own, and all signals come from `run`.
    None,
    /// It is shared with others, as in a pipeline: the command stays in `run`'s process group, where the terminal's keys
    /// reach it directly.
    Shared,
    /// It is handed over: the command is the terminal's foreground process group.
    Own,
}

/// What `run` tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToInit {
    /// To process 1, when the network is there.
    Go(Box<Identity>),
    /// A signal for the command, by number.
    Signal(i32),
}

/// Who the container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Host name; as it is if none.
    pub(crate) hostname: Option<String>,
    /// Texts of its own files in `/etc`, by name.
    pub(crate) files: Vec<(String, String)>,
    /// Variables of the command's environment besides those it inherits.
    pub(crate) environment: Vec<(String, String)>,
    /// How the command stands to the terminal.
    pub(crate) terminal: Terminal,
}

/// What the container's processes tell `run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FromInit {
    /// Process 1 is there, with this id outside.
    Made(i32),
    /// Its namespaces are ready for a network.
    Ready,
    /// The command was stopped by a signal.
    Stopped,
    /// The command has ended, or could not be started.
    Ended(u8),
    /// Something of ours failed.
    Failed(String),
}

/// Which network stack a container has.
#[derive(Debug)]
pub(crate) enum Stack {
    /// One of its own, which somebody else gives an interface.
    Attached,
    /// One of its own, with the loopback alone.
    Loopback,
    /// The host's; and of the host's files in `/etc` it has these of its own.
    Host(Vec<&'static str>),
    /// That of the container which this is a pidfd of.
    Of(OwnedFd),
}

impl Stack {
    /// The files in `/etc` that are the container's own.
    fn files(&self) -> &[&'static str] {
        match self {
            Self::Attached | Self::Loopback => &OWN_FILES,
            Self::Host(files) => files,
            Self::Of(_) => &[],
        }
    }
}

/// Starts the outer process of a container that will execute `command`; gives its id and our end of the socket.
pub(crate) fn start(stack: &Stack, control: &Path, command: &[OsString]) -> Result<(Pid, FdSocket)> {
    if let Stack::Of(other) = stack {
        return shared::start(stack, other, command);
    }
    let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair")?;
    let parent = rustix::process::getpid();
    let namespaces = Namespaces::USER.and(Namespaces::MOUNT);
    let started = fork_held(namespaces, &[theirs.as_fd()], || {
        stage(c"container-outer", &theirs, |socket| {
            outer(socket, &theirs, parent, stack, control, command)
        })
    });
    let held = started.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => {
                "user namespaces are forbidden here: see `pontoon doctor` (kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns)"
            }
            _ => "see `pontoon doctor` (user.max_user_namespaces)",
        };
        anyhow::anyhow!("cannot make a user namespace: {e}; {hint}")
    })?;
    let pid = held.pid();
    let started = idmap::map_from_host(pid)
        .context("cannot map ids into the container's user namespace")
        .and_then(|()| held.release().context("the container's first process died"));
    if let Err(e) = started {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(e);
    }
    Ok((pid, ours))
}

/// One of the two processes, seen as `name` by `ps -o comm`: does `work` on its own handle of the socket `theirs`; gives the
/// exit status.
fn stage(name: &CStr, theirs: &OwnedFd, work: impl FnOnce(&mut FdSocket) -> Result<u8>) -> u8 {
    // Looks that cannot be had are no reason to fail.
    let _ = process::set_title(name, "pontoon __init");
    let Ok(mut socket) = theirs.try_clone().map(FdSocket::new) else {
        return OURS;
    };
    work(&mut socket).unwrap_or_else(|e| {
        // If nobody listens any more, nobody needs to know.
        let _ = socket.send(&FromInit::Failed(format!("{e:#}")), &[]);
        OURS
    })
}

fn outer(
    socket: &mut FdSocket,
    theirs: &OwnedFd,
    parent: Pid,
    stack: &Stack,
    control: &Path,
    command: &[OsString],
) -> Result<u8> {
    if !ends_with(parent)? {
        return Ok(OURS);
    }
    let covers = covers::hide(control, stack.files())?;
    reenter_working_directory()?;
    let mut namespaces = Namespaces::USER
        .and(Namespaces::MOUNT)
        .and(Namespaces::UTS)
        .and(Namespaces::PID)
        .and(Namespaces::IPC);
    if matches!(stack, Stack::Attached | Stack::Loopback) {
        namespaces = namespaces.and(Namespaces::NETWORK);
    }
    let held = fork_held(namespaces, &[theirs.as_fd()], || {
        stage(c"container-init", theirs, |socket| {
            first::live(socket, stack, command)
        })
    })
    .context("cannot make the container's namespaces")?;
    let pid = held.pid();
    let made = idmap::map_identity(pid)
        .context("cannot map ids into the container's inner user namespace")
        .and_then(|()| Ok(socket.send(&FromInit::Made(pid.as_raw_nonzero().get()), &[])?))
        .and_then(|()| held.release().context("the container's process 1 died"));
    // Not before there is the last child of this process: a thread would not follow it there.
    covers.keep();
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    made?;
    Ok(status.map_or(OURS, |(_, s)| code(s)))
}

/// Has this process killed when `parent` ends; false if it has ended.
fn ends_with(parent: Pid) -> Result<bool> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal is sent to those whose parent dies after they asked for it.
    Ok(rustix::process::getppid() == Some(parent))
}

/// Enters the working directory again by its path: one that has been covered would lead beneath the cover, to the control
/// sockets.
fn reenter_working_directory() -> Result<()> {
    // Where it has no path, it lies under nothing that is covered.
    match std::env::current_dir() {
        Ok(path) => enter_directory(&path),
        Err(_) => Ok(()),
    }
}

/// Enters a directory by its path. Where that leads elsewhere or nowhere by now, the root will do.
fn enter_directory(path: &Path) -> Result<()> {
    std::env::set_current_dir(path)
        .or_else(|_| std::env::set_current_dir("/"))
        .context("cannot enter the working directory again")
}

/// The exit status that stands for how a process ended: 128 and the signal's number for one that was killed.
pub(crate) fn code(status: WaitStatus) -> u8 {
    let number = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(OURS),
    };
    u8::try_from(number & 0xff).unwrap_or(OURS)
}
