//! A container in the network of another.
//!
//! ```text
//! pontoon run ─────── outer ──────────────────────── inner ──── the command
//!  host           the other's user, network, UTS     PID, IPC of its own, mounts copied from the other's
//! ```
//!
//! Whoever started the other container owns its namespaces and may enter them. User, network and UTS namespace (ids, stack and
//! host name) are one for both. Of its mounts the inner process makes a copy beneath the same user namespace: what is locked in
//! the other is locked in the copy, so that the control directory stays covered; and the three files of `/etc` are the
//! other's own. Process ids and IPC are apart, so that either may end first. What is left of a network whose container has
//! ended is the loopback.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use pontoon_switch::sys::process::{Namespaces, fork_held, unshare};
use rustix::process::{DumpableBehavior, Pid, WaitOptions};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::{FromInit, OURS, Stack, code, ends_with, enter_directory, first, stage};
use crate::attach::become_untraceable;
use crate::fdsock::FdSocket;

/// Starts the outer process of a container that will execute `command` in the network of that which `other` is a pidfd of;
/// gives its id and our end of the socket.
pub(super) fn start(stack: &Stack, other: &OwnedFd, command: &[OsString]) -> Result<(Pid, FdSocket)> {
    let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair")?;
    let parent = rustix::process::getpid();
    let held = fork_held(Namespaces::NONE, &[theirs.as_fd(), other.as_fd()], || {
        stage(c"container-outer", &theirs, |socket| {
            outer(socket, &theirs, parent, stack, other, command)
        })
    })
    .context("cannot start the container's first process")?;
    let pid = held.pid();
    if let Err(e) = held.release() {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(e).context("the container's first process died");
    }
    Ok((pid, ours))
}

fn outer(
    socket: &mut FdSocket,
    theirs: &OwnedFd,
    parent: Pid,
    stack: &Stack,
    other: &OwnedFd,
    command: &[OsString],
) -> Result<u8> {
    let directory = std::env::current_dir().ok();
    // It still has the host's mounts, and root of the namespace that it enters could look at them by its `/proc/PID/root`.
    become_untraceable()?;
    move_into_thread_name_spaces(
        other.as_fd(),
        ThreadNameSpaceType::USER
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
    )
    .context(
        "cannot enter the other container's namespaces, which has ended or was not made by `pontoon run`",
    )?;
    // Not before: entering a user namespace may take that wish back.
    if !ends_with(parent)? {
        return Ok(OURS);
    }
    let held = fork_held(
        Namespaces::PID.and(Namespaces::IPC),
        &[theirs.as_fd(), other.as_fd()],
        || {
            stage(c"container-init", theirs, |socket| {
                copy_mounts(other, directory.as_deref())?;
                first::live(socket, stack, command)
            })
        },
    )
    .context("cannot make the container's namespaces")?;
    let pid = held.pid();
    let made = socket
        .send(&FromInit::Made(pid.as_raw_nonzero().get()), &[])
        .context("nobody waits for the container")
        .and_then(|()| held.release().context("the container's process 1 died"));
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    made?;
    Ok(status.map_or(OURS, |(_, s)| code(s)))
}

/// Moves into a copy of the other container's mounts, in which `directory` is the working directory again.
fn copy_mounts(other: &OwnedFd, directory: Option<&Path>) -> Result<()> {
    move_into_thread_name_spaces(other.as_fd(), ThreadNameSpaceType::MOUNT)
        .context("cannot enter the other container's mount namespace")?;
    unshare(Namespaces::MOUNT).context("cannot copy the other container's mounts")?;
    // It has nothing any more that the container may not see.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    match directory {
        Some(directory) => enter_directory(directory),
        None => Ok(()),
    }
}
