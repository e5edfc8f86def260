//! An empty root directory in a mount namespace of its own (`pivot_root(2)`).
//!
//! What is left is a file system in memory with two empty directories, `etc` and `run`, which no room is left in to write
//! to and which is read-only. The host's mounts are taken out of the namespace; a descriptor of a directory would lead back
//! out by `..`, so there is none any more.
//!
//! Mounting takes `CAP_SYS_ADMIN`. Who has it makes a mount namespace and no more: root in a user namespace of its own could
//! bind no low ports on the host. Who has it not, an ordinary user, makes a user namespace around it, in which he has his own
//! id and the capabilities over these mounts, until the next part takes them.

use std::fs;

use anyhow::{Context, Result, bail};
use pontoon_switch::sys::fd::blind_directories;
use pontoon_switch::sys::process::{Namespaces, unshare};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, mount_remount,
    move_mount, unmount,
};
use rustix::process::{chdir, fchdir, getegid, geteuid, pivot_root};
use rustix::thread::{CapabilitySet, capabilities};

use super::Keep;

/// What is in it: callers look for these.
const DIRECTORIES: [&str; 2] = ["etc", "run"];

/// Exchanges the root. A process that has made a user namespace for it has all capabilities in there afterwards.
pub(super) fn exchange(keep: Keep) -> Result<()> {
    let had = capabilities(None)
        .context("cannot read the capabilities")?
        .effective;
    if had.contains(CapabilitySet::SYS_ADMIN) {
        unshare(Namespaces::MOUNT).context("cannot make a mount namespace")?;
        return pivot();
    }
    if had.intersects(keep.set()) {
        bail!("mounting takes CAP_SYS_ADMIN, and a user namespace would cost the low ports");
    }
    // Asked before they are those of nobody.
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(Namespaces::USER.and(Namespaces::MOUNT))
        .context("user namespaces are forbidden here, and mounting takes CAP_SYS_ADMIN")?;
    map(uid, gid)?;
    pivot()
}

/// Gives this process its own ids in its new user namespace, and no others.
fn map(uid: u32, gid: u32) -> Result<()> {
    for (file, text) in [
        // Without privilege the kernel wants this given up before groups are mapped.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{uid} {uid} 1")),
        ("gid_map", format!("{gid} {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, &text).with_context(|| format!("cannot write `{text}` to {path}"))?;
    }
    Ok(())
}

fn pivot() -> Result<()> {
    for number in blind_directories().context("cannot look for descriptors of directories")? {
        tracing::info!("descriptor {number} was of a directory: it leads nowhere any more");
    }
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", propagation).context("cannot make the mounts private")?;
    let root = empty().context("cannot make an empty file system")?;
    // On top of the old root, so that no directory of it is needed.
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .context("cannot mount the empty file system")?;
    fchdir(&root).context("cannot enter the empty root")?;
    drop(root);
    // The old root ends up on top of the new one, from where it is taken away.
    pivot_root(".", ".").context("cannot exchange the root")?;
    unmount(".", UnmountFlags::DETACH).context("cannot take the old root away")?;
    chdir("/").context("cannot enter the empty root")?;
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount("/", flags, c"").context("cannot make the empty root read-only")
}

/// A file system that is mounted nowhere yet.
fn empty() -> rustix::io::Result<rustix::fd::OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "pontoon")?;
    fsconfig_set_string(&context, "size", "4k")?;
    // The root itself counts.
    fsconfig_set_string(&context, "nr_inodes", "3")?;
    fsconfig_set_string(&context, "mode", "0755")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for name in DIRECTORIES {
        mkdirat(&root, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(root)
}
