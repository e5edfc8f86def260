//! Children in namespaces of their own, and signals read as data.

use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

use super::check;

/// A set of kinds of namespaces (`CLONE_NEW*`, `namespaces(7)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    /// No new ones.
    pub const NONE: Self = Self(0);
    /// User and group ids, and the capabilities over what is made together with them.
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// Interfaces, addresses, routes and sockets.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// Process ids: the child is number 1, and all in it die with it.
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A child that waits in its new namespaces before it executes anything, so that ids can be mapped for it first.
#[derive(Debug)]
#[must_use = "dropping it ends the child"]
pub struct Held {
    pid: Pid,
    go: OwnedFd,
}

impl Held {
    /// Its process id here.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it execute its program.
    ///
    /// # Errors
    /// `EPIPE` if it has died.
    pub fn release(self) -> io::Result<()> {
        rustix::io::write(&self.go, &[1])?;
        Ok(())
    }
}

/// Makes a child in new namespaces, which executes `program` with `arguments` (the first is its name) and `environment`
/// (`NAME=value`) once it is released; dropped before, it exits. Descriptors, signal mask and process group are
/// inherited. It is the caller's to wait for.
///
/// # Errors
/// Those of `clone(2)`: `ENOSPC` or `EUSERS` at the limits of `user.max_*_namespaces`, `EPERM` where user namespaces
/// are forbidden. A program that cannot be executed shows as exit status 127.
pub fn spawn_held(
    namespaces: Namespaces,
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
) -> io::Result<Held> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    let flags = libc::c_long::from(namespaces.0 | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of the memory and this thread only. It calls
    // nothing but close, read, execve and _exit, all async-signal-safe, on data prepared before.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        let mut byte = 0u8;
        // SAFETY: the child's own copies of both pipe ends, a one-byte buffer that lives past the call, and two
        // null-terminated arrays of null-terminated strings; on failure nothing of the copied process runs on.
        unsafe {
            libc::close(go.as_raw_fd());
            if libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1) == 1 {
                libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            libc::_exit(127)
        }
    }
    forked(pid).map(|pid| Held { pid, go })
}

/// Makes a child in new namespaces that goes on in this program: once it is released it calls `child` and ends with the
/// status that gives; dropped before, it ends with 127. Signal mask and process group are inherited, and so is all memory,
/// as a copy. Of the descriptors it has those that an executed program would have, and `keep`: to `child` no other may
/// matter. It is the caller's to wait for.
///
/// # Errors
/// Those of `clone(2)` as for [`spawn_held`], and `EBUSY` if this process has more than one thread: what another one was
/// about to do would stay half done in the child.
pub fn fork_held(
    namespaces: Namespaces,
    keep: &[BorrowedFd<'_>],
    child: impl FnOnce() -> u8,
) -> io::Result<Held> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let all: Vec<BorrowedFd<'_>> = keep.iter().copied().chain([wait.as_fd()]).collect();
    let pid = fork_in(namespaces.0, &all, Others::AsExec, || {
        // `go` is closed by now, or the end of the parent would never be seen.
        match rustix::io::read(&wait, &mut [0u8]) {
            Ok(1) => {
                // SAFETY: nothing uses it after this: its owner is in a frame that this process never returns to.
                unsafe { libc::close(wait.as_raw_fd()) };
                child()
            }
            Ok(_) | Err(_) => 127,
        }
    })?;
    Ok(Held { pid, go })
}

/// Makes a child that goes on in this program: it calls `child` and ends with the status that gives. Of the descriptors it
/// has the standard three and `keep`. All else is as for [`fork_held`].
pub fn fork(keep: &[BorrowedFd<'_>], child: impl FnOnce() -> u8) -> io::Result<Pid> {
    fork_in(0, keep, Others::Close, child)
}

/// What becomes of descriptors that are not to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Others {
    /// What an exec would do.
    AsExec,
    /// All are closed but the standard three.
    Close,
}

/// Has this process seen as `name` by `ps -o comm` (15 bytes) and, as far as the room for its arguments goes, as `title` by
/// `ps -o args` and `pkill -f`. For a fork, which would be taken for what it was forked of.
///
/// # Errors
/// Where the process's own memory cannot be reached by `/proc`.
pub fn set_title(name: &std::ffi::CStr, title: &str) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    rustix::thread::set_name(name)?;
    // `proc_pid_stat(5)`: the second field ends with the last bracket; arg_start and arg_end are the 48th and 49th.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut places = fields.split_ascii_whitespace().skip(45).map(str::parse::<u64>);
    let (Some(Ok(start)), Some(Ok(end))) = (places.next(), places.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut text = title.as_bytes().to_vec();
    text.resize(usize::try_from(end.saturating_sub(start)).unwrap_or(0), 0);
    if let Some(last) = text.last_mut() {
        // Anything else there tells the kernel to read on in the environment.
        *last = 0;
    }
    // The arguments as the kernel put them on the stack: nothing refers to them but what reads them as zero-ended text.
    std::fs::File::options()
        .write(true)
        .open("/proc/self/mem")?
        .write_all_at(&text, start)
}

/// Puts this process, the only thread of which is this one, into new namespaces. (Into a new PID namespace only its children
/// go.)
///
/// # Errors
/// `EBUSY` if it has more threads than one; `EPERM` without the capability, or where user namespaces are forbidden;
/// `ENOSPC` or `EUSERS` at the limits of `user.max_*_namespaces`.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: it takes a number. Of the memory and the descriptors, none of which namespaces are about, nothing changes.
    check(unsafe { libc::unshare(namespaces.0) })?;
    Ok(())
}

/// True if this process has one thread.
///
/// # Errors
/// Where `/proc` cannot be read, and the kernel does not answer either.
pub fn is_single_threaded() -> io::Result<bool> {
    match rustix::fs::stat("/proc/self/task") {
        // A directory for each thread, and the two that every directory has.
        Ok(tasks) => Ok(tasks.st_nlink == 3),
        // That `/proc` is of a PID namespace which this process is not in. Its one thread is apart from others already.
        Err(rustix::io::Errno::NOENT) => {
            // SAFETY: it takes a number, and does nothing but fail where there are more threads.
            match check(unsafe { libc::unshare(libc::CLONE_THREAD) }) {
                Ok(_) => Ok(true),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e.into()),
    }
}

fn fork_in(
    namespaces: libc::c_int,
    keep: &[BorrowedFd<'_>],
    others: Others,
    child: impl FnOnce() -> u8,
) -> io::Result<Pid> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    let pid = if namespaces == 0 {
        // SAFETY: the child has a copy of the memory and this thread, the only one (just checked), so that no lock is held
        // and nothing half done in it.
        unsafe { libc::fork() }.into()
    } else {
        // SAFETY: as above: without CLONE_VM this is a fork, which the C library has none of with namespaces. Its thread
        // id is another than the C library has stored; of what is done with that id, only locks that know their owner
        // would mind, and none lives through the fork.
        unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }
    };
    if pid == 0 {
        // A panic must not run on into the copy of what the parent was doing.
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            match close_others(keep, others) {
                Ok(()) => child(),
                Err(_) => 127,
            }
        }));
        // SAFETY: it takes a number and does not return: what the parent's frames own here is never touched again.
        unsafe { libc::_exit(code.unwrap_or(101).into()) }
    }
    forked(pid)
}

/// The child's id, from what `clone` gave its parent.
fn forked(pid: libc::c_long) -> io::Result<Pid> {
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Closes the descriptors that are not in `keep`.
fn close_others(keep: &[BorrowedFd<'_>], others: Others) -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|n| n.parse::<i32>().ok()));
    }
    for number in numbers {
        // SAFETY: F_GETFD takes no pointer, and fails for the directory just read, which is closed again.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        let closes = match others {
            Others::AsExec => flags >= 0 && flags & libc::FD_CLOEXEC != 0,
            Others::Close => flags >= 0 && number > 2,
        };
        if closes && keep.iter().all(|k| k.as_raw_fd() != number) {
            // SAFETY: the numbers are this process's own copies; that nothing in it uses those that are not in `keep`
            // is what the caller of the fork says.
            unsafe { libc::close(number) };
        }
    }
    Ok(())
}

/// Lets every signal through to `command`'s program. A blocked one would stay blocked there, and few programs look.
pub fn unblock_signals_in(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure calls sigemptyset and pthread_sigmask, which are async-signal-safe, on a
    // set of its own.
    unsafe { command.pre_exec(unblock_signals) }
}

/// Lets every signal through to this thread.
pub fn unblock_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, which lives past both calls; the old mask is not asked for.
    let error = unsafe {
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut())
    };
    if error == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(error))
    }
}

/// A signal as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// True if the kernel made it (the terminal's keys, its hanging up, a child's end), false if a process sent it.
    pub by_kernel: bool,
}

/// Signals that are blocked and read from a descriptor instead (`signalfd(2)`).
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks the signals of these numbers in this thread, and in whatever it starts that does not unblock them.
    /// Call it before there are other threads.
    ///
    /// # Errors
    /// `EINVAL` for a number that is none.
    pub fn take(numbers: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given; sigaddset and the calls after read the initialised set,
        // which lives past them; the old mask is not asked for.
        unsafe {
            check(libc::sigemptyset(set.as_mut_ptr()))?;
            for &n in numbers {
                check(libc::sigaddset(set.as_mut_ptr(), n))?;
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = check(libc::signalfd(
                -1,
                set.as_ptr(),
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            ))?;
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
            })
        }
    }

    /// The next signal that has arrived, if any.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, one whole structure or nothing.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if n < 0 {
            let e = io::Error::last_os_error();
            return if e.kind() == io::ErrorKind::WouldBlock {
                Ok(None)
            } else {
                Err(e)
            };
        }
        if n as usize != size {
            return Ok(None);
        }
        // SAFETY: the whole structure was just written, and it is plain integers.
        let info = unsafe { info.assume_init() };
        // `SI_USER` is 0, what processes send otherwise is negative, what the kernel makes is positive (`sigaction(2)`).
        Ok(Some(Received {
            number: info.ssi_signo.cast_signed(),
            by_kernel: info.ssi_code > 0,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};

    fn c(s: &str) -> CString {
        CString::new(s).expect("no zero inside")
    }

    #[test]
    fn a_held_child_executes_when_released_and_exits_when_dropped() {
        let script = |text: &str| [c("sh"), c("-c"), c(text)];
        let child =
            spawn_held(Namespaces::USER, &c("/bin/sh"), &script("exit $N"), &[c("N=7")]).expect("clone");
        let pid = child.pid();
        let early = waitpid(Some(pid), WaitOptions::NOHANG).expect("wait");
        assert!(early.is_none(), "it ran before it was released");
        child.release().expect("alive");
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())
            .expect("wait")
            .expect("ended");
        assert_eq!(status.exit_status(), Some(7));

        let child = spawn_held(Namespaces::USER, &c("/bin/sh"), &script("exit 0"), &[]).expect("clone");
        let pid = child.pid();
        drop(child);
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())
            .expect("wait")
            .expect("ended");
        assert_eq!(status.exit_status(), Some(127));
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // Tests run in threads of their own.
        let e = fork(&[], || 0).expect_err("there are threads");
        assert_eq!(e.raw_os_error(), Some(libc::EBUSY));
        let e = unshare(Namespaces::MOUNT).expect_err("there are threads");
        assert_eq!(e.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_blocked_signal_is_blocked_no_more_in_a_command() {
        let _signals = Signals::take(&[libc::SIGUSR1]).expect("signalfd");
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "kill -USR1 $$; exit 3"]);
        assert_eq!(
            shell.status().expect("sh").code(),
            Some(3),
            "the mask was not inherited"
        );
        let status = unblock_signals_in(&mut shell).status().expect("sh");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGUSR1)
        );
    }

    #[test]
    fn signals_are_read_with_their_origin() {
        let signals = Signals::take(&[libc::SIGUSR2]).expect("signalfd");
        assert_eq!(signals.next().expect("read"), None);
        let me = i64::from(rustix::thread::gettid().as_raw_nonzero().get());
        let group = i64::from(rustix::process::getpid().as_raw_nonzero().get());
        // SAFETY: `tgkill` takes three numbers; the signal is blocked in this thread, which alone it is for.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, group, me, libc::SIGUSR2) };
        assert_eq!(sent, 0);
        assert_eq!(
            signals.next().expect("read"),
            Some(Received {
                number: libc::SIGUSR2,
                by_kernel: false
            })
        );
    }
}
