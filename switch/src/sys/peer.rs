//! Who is at the other end of a connected Unix socket (`unix(7)`).

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// The process that connected, or that called `listen`, as it was then; numbers are those of our own namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerCredentials {
    /// Its process; 0 if it is outside our PID namespace.
    pub pid: u32,
    /// Its effective user; the overflow user if ours is a user namespace without it.
    pub uid: u32,
    /// Its effective group, likewise.
    pub gid: u32,
}

/// `SO_PEERCRED`.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let ucred: libc::ucred = get(socket.as_fd(), libc::SO_PEERCRED)?;
    Ok(PeerCredentials {
        pid: u32::try_from(ucred.pid).unwrap_or(0),
        uid: ucred.uid,
        gid: ucred.gid,
    })
}

/// `SO_PEERPIDFD`: a descriptor of the very process that [`peer_credentials`] names, so that its number cannot have
/// been given to another since. `None` where the kernel lacks it (before Linux 6.5); an error if the process is gone.
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match get::<libc::c_int>(socket.as_fd(), libc::SO_PEERPIDFD) {
        // SAFETY: the kernel has just opened this descriptor for us and nobody else knows it.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A plain value that the kernel may fill with any bytes.
trait Plain: Copy {}
impl Plain for libc::ucred {}
impl Plain for libc::c_int {}

fn get<T: Plain>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to `len` writable bytes, and the kernel writes no more than that.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &mut len,
        )
    })?;
    // SAFETY: all bytes are set, to zero or by the kernel, and any bytes make a `Plain`.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn we_are_our_own_peer() {
        let (a, _b) = UnixStream::pair().unwrap();
        let peer = peer_credentials(&a).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
    }

    #[test]
    fn a_pidfd_is_that_of_the_peer_or_absent() {
        let (a, _b) = UnixStream::pair().unwrap();
        if let Some(fd) = peer_pidfd(&a).unwrap() {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
            let pid = info.lines().find_map(|l| l.strip_prefix("Pid:")).unwrap().trim();
            assert_eq!(pid, std::process::id().to_string());
        }
    }

    #[test]
    fn other_sockets_have_no_peer() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(peer_credentials(&socket).unwrap().pid, 0);
        assert!(peer_pidfd(&socket).is_err());
    }
}
