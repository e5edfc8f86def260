//! Namespaces by descriptor: what one is, and whose (`ioctl_nsfs(2)`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::fstat;

use super::check;

/// True if `fd` is a network namespace; false if it is another one, or none.
pub fn is_network(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument, and fails for what is no namespace.
    let kind = check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) });
    kind.is_ok_and(|kind| kind == libc::CLONE_NEWNET)
}

/// The user namespace that owns namespace `fd`: whoever has capabilities in that has them over this.
///
/// # Errors
/// `EPERM` if it is neither this process's nor one beneath, `ENOTTY` if `fd` is no namespace.
pub fn user_namespace_of(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: NS_GET_USERNS takes no argument and gives a new descriptor, close-on-exec, which nobody else owns.
    unsafe {
        let user = check(libc::ioctl(fd.as_raw_fd(), libc::NS_GET_USERNS))?;
        Ok(OwnedFd::from_raw_fd(user))
    }
}

/// The user, by his id here, who made user namespace `fd`.
///
/// # Errors
/// `EINVAL` if it is a namespace of another kind, `ENOTTY` if it is none.
pub fn owner(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one `uid_t`, which lives past the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_OWNER_UID, &raw mut uid) })?;
    Ok(uid)
}

/// True if both are the same namespace.
pub fn is_same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let (a, b) = (fstat(a)?, fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn own(kind: &str) -> File {
        File::open(format!("/proc/self/ns/{kind}")).expect("open a namespace")
    }

    #[test]
    fn a_namespace_is_told_from_others_and_from_files() {
        assert!(is_network(own("net").as_fd()));
        assert!(!is_network(own("uts").as_fd()));
        assert!(!is_network(File::open("/dev/null").expect("open").as_fd()));
        assert!(is_same(own("net").as_fd(), own("net").as_fd()).expect("fstat"));
        assert!(!is_same(own("net").as_fd(), own("uts").as_fd()).expect("fstat"));
    }

    #[test]
    fn only_user_namespaces_have_an_owner() {
        let e = owner(own("net").as_fd()).expect_err("no user namespace");
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        owner(own("user").as_fd()).expect("the owner");
        let file = File::open("/dev/null").expect("open");
        let e = user_namespace_of(file.as_fd()).expect_err("a file");
        assert_eq!(e.raw_os_error(), Some(libc::ENOTTY));
    }
}
