//! Who may speak on the control socket: judged before a byte of it is read.
//!
//! The directory of the sockets is its owner's alone, but a container of the same owner shares the host's files, and its
//! processes appear with the owner's user id: its root is the owner, seen from outside. What tells them apart is their
//! user namespace. So a peer must be our own user, or root, *and* in our own user namespace, which means the one that
//! the front was started in: nothing that leaves it can come back.
//!
//! A process whose namespace cannot be read is refused. That is what becomes of root when the front is an ordinary
//! user's: it may use `setpriv` or `su` to be that user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use pontoon_switch::sys::peer::{PeerCredentials, peer_credentials, peer_pidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Why a peer is turned away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The kernel does not say who it is.
    #[error("the peer's credentials cannot be read: {0}")]
    Credentials(io::Error),
    /// Another user.
    #[error("user {uid} (process {pid}) is neither this network's owner, user {owner}, nor root")]
    User {
        /// The peer's user.
        uid: u32,
        /// The peer's process.
        pid: u32,
        /// Our user.
        owner: u32,
    },
    /// Not visible from our PID namespace, so that its user namespace cannot be known.
    #[error("the peer is outside this PID namespace")]
    Elsewhere,
    /// It ended, so that its number may be another's by now.
    #[error("process {0} has ended")]
    Gone(u32),
    /// Its user namespace cannot be read.
    #[error("the user namespace of process {pid} cannot be read: {error}")]
    Unreadable {
        /// The peer's process.
        pid: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// Another user namespace: a container's.
    #[error("process {0} is in another user namespace than this network's front")]
    Namespace(u32),
}

/// Judges the peer of a connected Unix socket; gives its credentials if it may go on.
pub(crate) fn check(socket: impl AsFd) -> Result<PeerCredentials, Refusal> {
    let socket = socket.as_fd();
    let peer = peer_credentials(socket).map_err(Refusal::Credentials)?;
    let owner = rustix::process::geteuid().as_raw();
    let PeerCredentials { pid, uid, .. } = peer;
    if uid != owner && uid != 0 {
        return Err(Refusal::User { uid, pid, owner });
    }
    if pid == 0 {
        return Err(Refusal::Elsewhere);
    }
    let process = peer_pidfd(socket).map_err(|error| match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Refusal::Unreadable { pid, error },
        Some(_) | None => Refusal::Gone(pid),
    })?;
    let theirs = user_namespace(&pid.to_string()).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Refusal::Gone(pid)
        } else {
            Refusal::Unreadable { pid, error }
        }
    })?;
    // What was read under the number is the peer's only if the peer still had it then.
    if process.as_ref().is_some_and(has_ended) {
        return Err(Refusal::Gone(pid));
    }
    let ours = user_namespace("self").map_err(|error| Refusal::Unreadable {
        pid: std::process::id(),
        error,
    })?;
    if theirs == ours {
        Ok(peer)
    } else {
        Err(Refusal::Namespace(pid))
    }
}

/// Device and inode of a process's user namespace.
fn user_namespace(pid: &str) -> io::Result<(u64, u64)> {
    let namespace = fs::metadata(format!("/proc/{pid}/ns/user"))?;
    Ok((namespace.dev(), namespace.ino()))
}

/// A pidfd is readable once its process has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    // An error says nothing about the process; the safe answer is that it is gone.
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Starts `command`, which is to connect to the socket given as `{}`, and gives the connection.
    fn connected(command: &[&str]) -> (UnixStream, Child, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .args(["curl", "--silent", "--max-time", "20", "--unix-socket"])
            .arg(&path)
            .arg("http://pontoon/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("this test needs {}: {e}", command[0]));
        listener.set_nonblocking(true).unwrap();
        for _ in 0..1000 {
            match listener.accept() {
                Ok((stream, _)) => return (stream, child, dir),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
            if let Some(status) = child.try_wait().unwrap() {
                let stderr = io::read_to_string(child.stderr.take().unwrap()).unwrap();
                panic!("{command:?} curl ended before it connected: {status}, {stderr}");
            }
        }
        panic!("{command:?} curl did not connect");
    }

    fn verdict(command: &[&str]) -> Result<PeerCredentials, Refusal> {
        let (stream, mut child, _dir) = connected(command);
        let verdict = check(&stream);
        drop(stream);
        child.wait().unwrap();
        verdict
    }

    #[test]
    fn our_own_process_may_speak() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(check(&ours).unwrap().pid, std::process::id());
        verdict(&["env"]).unwrap();
    }

    #[test]
    fn another_user_namespace_may_not() {
        // As a container's root: the owner's user id, in a namespace of its own.
        for command in [
            &["unshare", "--user"][..],
            &["unshare", "--user", "--map-root-user"],
        ] {
            let refusal = verdict(command).unwrap_err();
            assert!(matches!(refusal, Refusal::Namespace(_)), "{command:?}: {refusal}");
        }
    }

    #[test]
    fn a_process_that_has_ended_may_not() {
        let (stream, mut child, _dir) = connected(&["env"]);
        child.kill().unwrap();
        child.wait().unwrap();
        let refusal = check(&stream).unwrap_err();
        assert!(matches!(refusal, Refusal::Gone(_)), "{refusal}");
    }

    #[test]
    fn an_ended_process_is_seen_by_its_pidfd() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert!(!has_ended(&pidfd));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd));
    }
}
