//! Descriptors given by number: on a command line, in the environment, or inherited.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fd::BorrowedFd;
use rustix::io::FdFlags;

use super::check;

/// Takes over descriptor `number`, which must be open, and marks it close-on-exec.
///
/// The caller says by this that the number was handed to the process for this purpose. What nobody else may do from
/// then on is close it, so each number can be taken once only, and 0, 1 and 2 never.
///
/// # Errors
/// `EBADF` if the number is not open, is one of the standard three, or was taken before.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: std::sync::Mutex<Vec<RawFd>> = std::sync::Mutex::new(Vec::new());
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    if number <= 2 {
        return Err(bad());
    }
    // SAFETY: F_GETFD takes no pointer and fails with EBADF for a number that is not open.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(bad());
    }
    taken.push(number);
    // SAFETY: the number is open (just checked), and by the list above this is the only time it is turned into an
    // owner; that no other part of the program owns it is what the caller says by naming an inherited descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Lets `fd` survive the next `exec` (`on_exec` = [`OnExec::Keep`]), or not.
pub fn set_on_exec(fd: BorrowedFd<'_>, on_exec: OnExec) -> io::Result<()> {
    let flags = match on_exec {
        OnExec::Keep => FdFlags::empty(),
        OnExec::Close => FdFlags::CLOEXEC,
    };
    Ok(rustix::io::fcntl_setfd(fd, flags)?)
}

/// What becomes of a descriptor when another program is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExec {
    /// It stays open, under the same number.
    Keep,
    /// It is closed.
    Close,
}

/// Makes reads and writes on `fd`'s open file give `EAGAIN` rather than wait.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Closes every descriptor above 2 but those of `keep`. By this the caller says that the process has only begun: that nothing
/// in it owns a descriptor yet.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn close_inherited(keep: &[RawFd]) -> io::Result<()> {
    for number in open_numbers()? {
        if number > 2 && !keep.contains(&number) {
            // SAFETY: it takes a number; that nobody owns it is what the caller says. That of the directory just read is
            // closed already, which fails.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// How many descriptors this process has open.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn open_count() -> io::Result<usize> {
    // Without the one by which it is found out.
    Ok(open_numbers()?.len().saturating_sub(1))
}

/// The numbers of this process's descriptors, and of one that is closed again.
fn open_numbers() -> io::Result<Vec<RawFd>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|n| n.parse::<RawFd>().ok()));
    }
    Ok(open)
}

/// Makes every descriptor of a directory one of `/dev/null`, of which no way leads anywhere; gives their numbers. What owns
/// such a descriptor goes on owning an open one.
///
/// # Errors
/// Where `/proc` cannot be read or `/dev/null` not be opened.
pub fn blind_directories() -> io::Result<Vec<RawFd>> {
    use rustix::fs::{FileType, Mode, OFlags};
    let mut open = open_numbers()?;
    let is_directory = |&number: &RawFd| {
        // SAFETY: only for the call, which fails for a number that is not open, as that of the directory just read.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
    };
    open.retain(is_directory);
    if !open.is_empty() {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for &number in &open {
            // SAFETY: it takes numbers. The one replaced stays open, so that its owner closes nothing else by it; no code
            // relies on what a descriptor of a directory leads to for its memory.
            check(unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) })?;
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn adopts_an_open_number_once() {
        let (end, _other) = rustix::pipe::pipe().expect("pipe");
        // A number nobody else in this process will be handed meanwhile.
        let high = rustix::io::fcntl_dupfd_cloexec(&end, 900)
            .expect("dup")
            .into_raw_fd();
        let fd = adopt(high).expect("open");
        assert!(
            rustix::io::fcntl_getfd(&fd)
                .expect("getfd")
                .contains(FdFlags::CLOEXEC)
        );
        assert_eq!(adopt(high).expect_err("twice").raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn refuses_the_closed_and_the_standard() {
        for n in [-1, 0, 1, 2, 987] {
            assert_eq!(
                adopt(n).expect_err("not ours").raw_os_error(),
                Some(libc::EBADF),
                "{n}"
            );
        }
    }
}
