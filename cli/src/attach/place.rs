//! The network namespace that a task is done in.
//!
//! It is given by a descriptor: a pidfd means the user and network namespaces of that process; a network namespace (an open
//! `/run/netns/NAME`, `/proc/PID/ns/net`, or whatever else it is bound to) means itself, entered by way of the user
//! namespace that owns it. Without one the task is done where the helper is, in the host's.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use pontoon_switch::sys::namespace;
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

/// Enters the place that `fd` is.
pub(super) fn enter(fd: BorrowedFd<'_>) -> Result<()> {
    become_untraceable()?;
    if namespace::is_network(fd) {
        enter_namespace(fd)
    } else {
        let both = ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK;
        match move_into_thread_name_spaces(fd, both) {
            // Nobody can enter the user namespace that he is in, which is a rootful container's.
            Err(Errno::INVAL) => move_into_thread_name_spaces(fd, ThreadNameSpaceType::NETWORK),
            entered => entered,
        }
        .context("cannot enter the container's user and network namespaces")
    }
}

fn enter_namespace(network: BorrowedFd<'_>) -> Result<()> {
    // One that is owned further up is entered by the capabilities that are there, or not at all.
    if let Ok(user) = namespace::user_namespace_of(network) {
        let own = own_namespace("user")?;
        if !namespace::is_same(user.as_fd(), own.as_fd())? {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
                .context("cannot enter the user namespace that the network namespace belongs to")?;
        }
    }
    enter_network(network).context("cannot enter the network namespace")
}

/// Moves into a network namespace that the current user namespace has the capabilities for.
pub(super) fn enter_network(network: BorrowedFd<'_>) -> Result<()> {
    Ok(move_into_link_name_space(
        network,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// The namespace of `kind` (a name in `/proc/self/ns`) that this process is in.
pub(super) fn own_namespace(kind: &str) -> Result<File> {
    let path = format!("/proc/self/ns/{kind}");
    File::open(&path).with_context(|| format!("cannot open {path}"))
}

/// Sees that the host's TUN device can be opened: by us, with our own rights, before anything of the container is entered.
pub(crate) fn check_device() -> Result<()> {
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let Err(e) = rustix::fs::access("/dev/net/tun", access) else {
        return Ok(());
    };
    let hint = match e {
        rustix::io::Errno::NOENT => "load the kernel's module: modprobe tun",
        _ => "it must be readable and writable: chmod 666 /dev/net/tun",
    };
    bail!("cannot open /dev/net/tun: {e}; {hint}")
}

/// In the container's user namespace its root may trace us, who see the host's files, unless we cannot be.
pub(crate) fn become_untraceable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot keep this process from being traced by the container")
}
