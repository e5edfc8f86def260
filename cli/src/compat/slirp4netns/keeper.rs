//! The child that stays outside of the sandbox, for what takes the host's files: it tells of changes of resolv.conf, and
//! removes the API's socket when the packet process has ended, in whatever way.
//!
//! It hears nothing from the packet process but its end.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pontoon_switch::sys::process::{fork, set_title};
use rustix::event::{PollFd, PollFlags, poll};

use crate::fdsock::FdSocket;
use crate::resolv::ResolvConf;
use crate::resolv_watch::ResolvWatch;
use crate::sandbox::{Inspection, Keep, Part, Role, Sandbox, SandboxOptions};

/// Whether the host's resolv.conf means anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resolvers {
    /// Changes are told.
    Told,
    /// Nobody asks.
    Unused,
}

/// It has files to look at, and no need for privilege.
const ROLE: Role = Role {
    keep: Keep::Nothing,
    inspection: Inspection::Root,
    calls: &[],
};

/// A socket's file, as it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// The file at `path`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let meta = path.symlink_metadata()?;
        Ok(Self {
            inode: (meta.dev(), meta.ino()),
            path,
        })
    }

    /// Removes it, unless another has taken its place.
    fn remove(&self) {
        if Self::of(&self.path).is_ok_and(|now| now == *self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Starts the keeper; gives the line on which it sends the name servers whenever they have changed. There must be one
/// thread only.
pub(super) fn start(resolvers: Resolvers, api: Option<&SocketFile>) -> Result<FdSocket> {
    let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair")?;
    fork(&[theirs.as_fd()], || {
        // Looks that cannot be had are no reason to fail.
        let _ = set_title(c"keeper", "pontoon __keeper");
        let Ok(line) = theirs.try_clone().map(FdSocket::new) else {
            return 1;
        };
        let kept = keep(&line, resolvers);
        if let Some(api) = api {
            api.remove();
        }
        u8::from(kept.is_err())
    })
    .context("cannot start a child")?;
    Ok(ours)
}

/// Watches until the line closes.
fn keep(line: &FdSocket, resolvers: Resolvers) -> Result<()> {
    rustix::process::setsid().ok();
    // The host's files are there for everybody to read, and the socket's file is our own.
    let _ = Sandbox::from_options(&SandboxOptions {
        capabilities: Part::BestEffort,
        root: Part::Off,
        landlock: Part::Off,
        seccomp: Part::Off,
    })
    .enter(&ROLE)?;
    std::env::set_current_dir("/")?;
    let mut watch = match resolvers {
        Resolvers::Told => Some(ResolvWatch::new()),
        Resolvers::Unused => None,
    };
    loop {
        let mut fds = vec![PollFd::new(line, PollFlags::IN)];
        fds.extend(
            watch
                .as_ref()
                .and_then(ResolvWatch::fd)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            return Ok(());
        }
        if let Some(watch) = &mut watch
            && watch.changed()
        {
            let servers: Vec<SocketAddr> = ResolvConf::of_host().servers;
            line.send(&servers, &[])?;
        }
    }
}
