//! Where a container is: a network namespace, named by a process in it or by its path.
//!
//! A TAP or a packet socket keeps its namespace alive after the container's last process and last name are gone, and so
//! would a descriptor of the namespace. So none is held while a container lives: a process is watched by its pidfd, a path
//! by its directory, and what they lead to is known by device and inode, a process by the time of its start as well.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use pontoon_switch::sys::namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::{Refused, refused};

/// A container's network namespace, while somebody besides us has it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What it is known by.
    pub(super) known: Known,
    /// The process's pidfd, readable when that has ended.
    pidfd: Option<Arc<OwnedFd>>,
}

/// What a namespace is known by, also by a front that comes later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Known {
    /// A process in it, or its path.
    pub(super) by: By,
    /// Device and inode of the namespace.
    id: (u64, u64),
    /// The user whose it is.
    uid: u32,
}

impl Known {
    /// Whether both are one namespace, by whatever it is known.
    pub(super) fn is_same_namespace(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// A process in a namespace, or the namespace's path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// A process.
    Process {
        /// Its id.
        pid: u32,
        /// When it started, in clock ticks since the boot (`proc(5)`, field 22 of `stat`).
        started: u64,
    },
    /// A path: a bind mount of the namespace, as `ip netns` makes them.
    Path(PathBuf),
}

/// What the attach helper is passed to enter the namespace by.
#[derive(Debug)]
pub(super) enum Door {
    /// A process's pidfd.
    Process(Arc<OwnedFd>),
    /// The namespace itself. Not to be held.
    Namespace(OwnedFd),
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Process(fd) => fd.as_fd(),
            Self::Namespace(fd) => fd.as_fd(),
        }
    }
}

impl Place {
    /// The namespace of process `pid`, if that is the user's and in a network namespace of its own.
    pub(super) fn of_process(pid: u32, uid: u32) -> Result<Self, Refused> {
        let gone = || refused(404, anyhow!("there is no process {pid}"));
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
        let owner = std::fs::metadata(format!("/proc/{pid}"))
            .map_err(|_| gone())?
            .uid();
        if owner != uid && uid != 0 {
            return Err(refused(
                403,
                anyhow!("process {pid} belongs to user {owner}, not to user {uid} who asks"),
            ));
        }
        let id = namespace_of(Path::new(&format!("/proc/{pid}/ns/net"))).map_err(|e| {
            refused(
                403,
                anyhow!("the network namespace of process {pid} cannot be looked at: {e}"),
            )
        })?;
        if id == own_namespace()? {
            return Err(refused(
                400,
                anyhow!("process {pid} is in the host's network namespace: start it in one of its own"),
            ));
        }
        let started = start_time(pid).map_err(|_| gone())?;
        // What was read under the number is that process's only if it has not ended meanwhile.
        if has_ended(&pidfd) {
            return Err(gone());
        }
        Ok(Self {
            known: Known {
                by: By::Process { pid, started },
                id,
                uid,
            },
            pidfd: Some(Arc::new(pidfd)),
        })
    }

    /// The namespace at `path`, if that is the user's.
    pub(super) fn of_path(path: &Path, uid: u32) -> Result<Self, Refused> {
        if let Some(pid) = pid_of(path) {
            return Self::of_process(pid, uid);
        }
        let shown = path.display();
        if !path.is_absolute() {
            return Err(refused(400, anyhow!("{shown}: an absolute path is needed")));
        }
        let status = match std::fs::metadata(path) {
            // Opening a pipe waits for its other end, and a device may do anything.
            Ok(found) if !found.is_file() => {
                return Err(refused(400, anyhow!("{shown} is not a network namespace")));
            }
            Ok(_) => 400,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 404,
            Err(_) => 403,
        };
        let file =
            open(path).map_err(|e| refused(status, anyhow!("cannot open the namespace {shown}: {e}")))?;
        if !namespace::is_network(file.as_fd()) {
            return Err(refused(400, anyhow!("{shown} is not a network namespace")));
        }
        let owner = namespace::user_namespace_of(file.as_fd())
            .and_then(|user| namespace::owner(user.as_fd()))
            .map_err(|e| refused(403, anyhow!("the namespace {shown} is out of reach: {e}")))?;
        if owner != uid && uid != 0 {
            return Err(refused(
                403,
                anyhow!("the namespace {shown} belongs to user {owner}, not to user {uid} who asks"),
            ));
        }
        let id = namespace_of(path).map_err(|e| refused(403, anyhow!("{shown} cannot be looked at: {e}")))?;
        if id == own_namespace()? {
            return Err(refused(400, anyhow!("{shown} is the host's network namespace")));
        }
        Ok(Self {
            known: Known {
                by: By::Path(path.to_owned()),
                id,
                uid,
            },
            pidfd: None,
        })
    }

    /// The place that an earlier front knew, if it is still that one.
    pub(super) fn find(known: &Known) -> Option<Self> {
        let found = match &known.by {
            By::Process { pid, .. } => Self::of_process(*pid, known.uid),
            By::Path(path) => Self::of_path(path, known.uid),
        };
        found.ok().filter(|place| place.known == *known)
    }

    /// Something to poll that is readable once the process has ended; none for a path.
    pub(super) fn pidfd(&self) -> Option<&Arc<OwnedFd>> {
        self.pidfd.as_ref()
    }

    /// Whether it is still there: a process that has not ended, or a path that still leads to it.
    pub(super) fn is_there(&self) -> bool {
        match (&self.known.by, &self.pidfd) {
            (_, Some(pidfd)) => !has_ended(pidfd),
            (By::Path(path), None) => namespace_of(path).is_ok_and(|id| id == self.known.id),
            (By::Process { .. }, None) => false,
        }
    }

    /// What the helper is to enter it by.
    pub(super) fn door(&self) -> anyhow::Result<Door> {
        match (&self.pidfd, &self.known.by) {
            (Some(pidfd), _) => Ok(Door::Process(Arc::clone(pidfd))),
            (None, By::Path(path)) => {
                let file =
                    open(path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
                Ok(Door::Namespace(file.into()))
            }
            (None, By::Process { pid, .. }) => Err(anyhow!("process {pid} has ended")),
        }
    }

    /// The process, if it is known by one.
    pub(super) fn pid(&self) -> Option<u32> {
        match self.known.by {
            By::Process { pid, .. } => Some(pid),
            By::Path(_) => None,
        }
    }

    /// The path, if it is known by one.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.known.by {
            By::Process { .. } => None,
            By::Path(path) => Some(path),
        }
    }
}

/// The process that `/proc/PID/ns/net` means, which is watched as a process: there are no events for that file.
fn pid_of(path: &Path) -> Option<u32> {
    path.to_str()?
        .strip_prefix("/proc/")?
        .strip_suffix("/ns/net")?
        .parse()
        .ok()
}

/// Opens what is said to be a namespace, without waiting for whatever it may be in truth.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

/// Device and inode of the namespace that `path` leads to.
fn namespace_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|m| (m.dev(), m.ino()))
}

fn own_namespace() -> Result<(u64, u64), Refused> {
    let own = namespace_of(Path::new("/proc/self/ns/net"))
        .context("cannot look at the host's network namespace")?;
    Ok(own)
}

/// When a process started, in clock ticks since the boot.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; field 3 follows it.
    let after_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    after_name
        .split_ascii_whitespace()
        .nth(22 - 3)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// A pidfd is readable once its process has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    // An error says nothing about the process; the safe answer is that it is gone.
    poll(&mut fds, Some(&at_once)).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_until_it_ends() {
        let mut child = std::process::Command::new("unshare")
            .args(["--user", "--net", "sh", "-c", "echo; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("this test needs unshare: apt-get install util-linux");
        // Its namespaces are its own once it speaks.
        let mut stdout = child.stdout.take().expect("piped");
        io::Read::read_exact(&mut stdout, &mut [0]).expect("a line");
        let uid = rustix::process::geteuid().as_raw();
        let place = Place::of_process(child.id(), uid).expect("a place");
        let known: Known =
            serde_json::from_slice(&serde_json::to_vec(&place.known).expect("json")).expect("known");
        assert!(place.is_there() && Place::find(&known).is_some());
        let by_path = format!("/proc/{}/ns/net", child.id());
        assert_eq!(
            Place::of_path(Path::new(&by_path), uid).expect("a place").known,
            known
        );
        if uid != 0 {
            assert_eq!(Place::of_process(1, uid).expect_err("not ours").status, 403);
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!place.is_there() && Place::find(&known).is_none());
    }

    #[test]
    fn the_hosts_own_namespace_and_other_files_are_refused() {
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(
            Place::of_process(std::process::id(), uid)
                .expect_err("ours")
                .status,
            400
        );
        assert_eq!(
            Place::of_path(Path::new("/etc/passwd"), uid)
                .expect_err("a file")
                .status,
            400
        );
        assert_eq!(
            Place::of_path(Path::new("/run/netns/none-such"), uid)
                .expect_err("none")
                .status,
            404
        );
        assert_eq!(
            Place::of_path(Path::new("netns"), uid)
                .expect_err("relative")
                .status,
            400
        );
    }
}
