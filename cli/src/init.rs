//! The container's own processes: an outer one that hides what must stay hidden, and an inner one, its process 1.
//!
//! ```text
//! pontoon run ─────── outer ───────── inner ──── the command
//!  host           user 1          user 2, mounts, network, UTS, PID, IPC
//!                 mounts 1
//! ```
//!
//! The outer process covers the control directory and the host's resolv.conf, hosts and hostname. Mounts that a mount
//! namespace inherits from one of a more privileged user namespace are locked (`mount_namespaces(7)`): root in the
//! container, being root of user namespace 2, cannot take them away. Process ids are a namespace of their own so that
//! everything inside ends with process 1.
//!
//! `run` and the two share one `SOCK_SEQPACKET`: [`ToInit`] one way, [`FromInit`] the other. When `run`'s end of it closes,
//! the container ends; a parent-death signal from process to process says the same once more.

use std::ffi::{CStr, OsString};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use pontoon_switch::sys::process::{self, Namespaces, Signals, fork_held};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use crate::covers::{OWN_FILES, UNWRITTEN};
use crate::fdsock::FdSocket;
use crate::{covers, idmap, resolv};

/// Exit status for a command that is not there, as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// Exit status for a command that cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// Exit status for a failure of ours.
pub(crate) const OURS: u8 = 125;

/// How the command stands to the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Terminal {
    /// There is none: the command is a process group of its own, and all signals come from `run`.
    None,
    /// It is shared with others, as in a pipeline: the command stays in `run`'s process group, where the terminal's keys
    /// reach it directly.
    Shared,
    /// It is handed over: the command is the terminal's foreground process group.
    Own,
}

/// What `run` tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToInit {
    /// To process 1, when the network is there.
    Go(Box<Identity>),
    /// A signal for the command, by number.
    Signal(i32),
}

/// Who the container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Host name.
    pub(crate) hostname: String,
    /// Own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Name servers.
    pub(crate) servers: Vec<IpAddr>,
    /// Search list.
    pub(crate) search: Vec<String>,
    /// Further lines of the hosts file.
    pub(crate) hosts: Vec<(String, IpAddr)>,
    /// How the command stands to the terminal.
    pub(crate) terminal: Terminal,
}

/// What the container's processes tell `run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FromInit {
    /// Process 1 is there, with this id outside.
    Made(i32),
    /// Its namespaces are ready for a network.
    Ready,
    /// The command was stopped by a signal.
    Stopped,
    /// The command has ended, or could not be started.
    Ended(u8),
    /// Something of ours failed.
    Failed(String),
}

/// Starts the outer process of a container that will execute `command`; gives its id and our end of the socket.
pub(crate) fn start(control: PathBuf, command: &[OsString]) -> Result<(Pid, FdSocket)> {
    let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair")?;
    let parent = rustix::process::getpid();
    let namespaces = Namespaces::USER.and(Namespaces::MOUNT);
    let started = fork_held(namespaces, &[theirs.as_fd()], || {
        stage(c"container-outer", &theirs, |socket| {
            outer(socket, &theirs, parent, &control, command)
        })
    });
    let held = started.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => {
                "user namespaces are forbidden here: see `pontoon doctor` (kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns)"
            }
            _ => "see `pontoon doctor` (user.max_user_namespaces)",
        };
        anyhow::anyhow!("cannot make a user namespace: {e}; {hint}")
    })?;
    let pid = held.pid();
    let started = idmap::map_from_host(pid)
        .context("cannot map ids into the container's user namespace")
        .and_then(|()| held.release().context("the container's first process died"));
    if let Err(e) = started {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(e);
    }
    Ok((pid, ours))
}

/// One of the two processes, seen as `name` by `ps -o comm`: does `work` on its own handle of the socket `theirs`; gives the
/// exit status.
fn stage(name: &CStr, theirs: &OwnedFd, work: impl FnOnce(&mut FdSocket) -> Result<u8>) -> u8 {
    // Looks that cannot be had are no reason to fail.
    let _ = process::set_title(name, "pontoon __init");
    let Ok(mut socket) = theirs.try_clone().map(FdSocket::new) else {
        return OURS;
    };
    work(&mut socket).unwrap_or_else(|e| {
        // If nobody listens any more, nobody needs to know.
        let _ = socket.send(&FromInit::Failed(format!("{e:#}")), &[]);
        OURS
    })
}

fn outer(
    socket: &mut FdSocket,
    theirs: &OwnedFd,
    parent: Pid,
    control: &Path,
    command: &[OsString],
) -> Result<u8> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal is sent to those whose parent dies after they asked for it.
    if rustix::process::getppid() != Some(parent) {
        return Ok(OURS);
    }
    let covers = covers::hide(control)?;
    reenter_working_directory()?;
    let namespaces = Namespaces::USER
        .and(Namespaces::MOUNT)
        .and(Namespaces::NETWORK)
        .and(Namespaces::UTS)
        .and(Namespaces::PID)
        .and(Namespaces::IPC);
    let held = fork_held(namespaces, &[theirs.as_fd()], || {
        stage(c"container-init", theirs, |socket| inner(socket, command))
    })
    .context("cannot make the container's namespaces")?;
    let pid = held.pid();
    let made = idmap::map_identity(pid)
        .context("cannot map ids into the container's inner user namespace")
        .and_then(|()| Ok(socket.send(&FromInit::Made(pid.as_raw_nonzero().get()), &[])?))
        .and_then(|()| held.release().context("the container's process 1 died"));
    // Not before there is the last child of this process: a thread would not follow it there.
    covers.keep();
    let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
    made?;
    Ok(status.map_or(OURS, |(_, s)| code(s)))
}

/// Enters the working directory again by its path: one that has been covered would lead beneath the cover, to the control
/// sockets.
fn reenter_working_directory() -> Result<()> {
    // Where it has no path, it lies under nothing that is covered. Where the path leads elsewhere or nowhere by now, the
    // root will do.
    if let Ok(path) = std::env::current_dir() {
        std::env::set_current_dir(path)
            .or_else(|_| std::env::set_current_dir("/"))
            .context("cannot enter the working directory again")?;
    }
    Ok(())
}

/// The exit status that stands for how a process ended: 128 and the signal's number for one that was killed.
pub(crate) fn code(status: WaitStatus) -> u8 {
    let number = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(OURS),
    };
    u8::try_from(number & 0xff).unwrap_or(OURS)
}

fn inner(socket: &mut FdSocket, command: &[OsString]) -> Result<u8> {
    // Should the parent be dead already, `run` is too or knows it, and its end of the socket closes.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let signals = Signals::take(&FORWARDED_AND_CHILD)?;
    let fresh = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(e) = rustix::mount::mount("proc", "/proc", "proc", fresh, None) {
        tracing::info!("/proc stays the host's: {e}");
    }
    if let Err(e) = show_own_interfaces() {
        tracing::info!("/sys/class/net stays the host's: {e}");
    }
    socket.send(&FromInit::Ready, &[])?;
    let Some((ToInit::Go(identity), _)) = socket.recv()? else {
        return Ok(OURS);
    };
    write_files(&identity)?;
    if identity.terminal != Terminal::Shared {
        rustix::process::setpgid(None, None).context("cannot make a process group")?;
    }
    if identity.terminal == Terminal::Own {
        // SIGTTOU is blocked here, so a background group may do this.
        let _ = rustix::termios::tcsetpgrp(io::stdin(), rustix::process::getpid());
    }
    let (program, arguments) = command.split_first().context("no command")?;
    let child = match process::unblock_signals_in(Command::new(program).args(arguments)).spawn() {
        Ok(child) => child,
        Err(e) => {
            let code = if e.kind() == io::ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_EXECUTABLE
            };
            let what = if code == NOT_FOUND {
                "not found".to_owned()
            } else {
                e.to_string()
            };
            eprintln!("pontoon: {}: {what}", program.to_string_lossy());
            socket.send(&FromInit::Ended(code), &[])?;
            return Ok(code);
        }
    };
    let child = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    reap(socket, &signals, child, identity.terminal)
}

/// Lets `/sys/class/net` show this network namespace. A sysfs shows the interfaces of the namespace it was made in; a fresh
/// one in the place of `/sys` would lack what is mounted beneath, as the control groups are, so only the two directories of
/// interfaces are taken from one.
fn show_own_interfaces() -> rustix::io::Result<()> {
    use rustix::fs::CWD;
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount};
    const DIRECTORIES: [&str; 2] = ["/sys/class/net", "/sys/devices/virtual/net"];
    let fresh = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sysfs", "/sys", "sysfs", fresh, None)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let trees = DIRECTORIES.map(|d| open_tree(CWD, d, flags).map(|tree| (d, tree)));
    unmount("/sys", UnmountFlags::DETACH)?;
    for tree in trees {
        let (directory, tree) = tree?;
        move_mount(tree, "", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(())
}

fn write_files(identity: &Identity) -> Result<()> {
    let name = identity.hostname.as_str();
    rustix::system::sethostname(name.as_bytes())
        .with_context(|| format!("cannot set the host name {name}"))?;
    let resolv = resolv::for_container(&identity.servers, &identity.search);
    let hosts = resolv::hosts_file(name, &identity.addresses, &identity.hosts);
    for (file, text) in OWN_FILES.into_iter().zip([resolv, hosts, format!("{name}\n")]) {
        let path = Path::new("/etc").join(file);
        // What could not be covered is the host's, and for an ordinary user not to be written; root must not try.
        if is_own(&path) {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// True if `path` is a file of ours.
fn is_own(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|text| text == UNWRITTEN)
}

/// Signals passed on to the command.
pub(crate) const FORWARDED: [i32; 11] = [
    Signal::HUP.as_raw(),
    Signal::INT.as_raw(),
    Signal::QUIT.as_raw(),
    Signal::TERM.as_raw(),
    Signal::USR1.as_raw(),
    Signal::USR2.as_raw(),
    Signal::WINCH.as_raw(),
    Signal::ALARM.as_raw(),
    Signal::CONT.as_raw(),
    Signal::TSTP.as_raw(),
    Signal::TTOU.as_raw(),
];

/// The same, and the end of a child.
pub(crate) const FORWARDED_AND_CHILD: [i32; 12] = {
    let mut all = [Signal::CHILD.as_raw(); 12];
    let mut i = 0;
    while i < FORWARDED.len() {
        all[i] = FORWARDED[i];
        i += 1;
    }
    all
};

/// Process 1's life: passes signals on, reaps whatever ends, and ends with the command.
fn reap(socket: &mut FdSocket, signals: &Signals, child: Pid, terminal: Terminal) -> Result<u8> {
    loop {
        let mut fds = [
            PollFd::new(socket, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let told = !fds[0].revents().is_empty();
        while let Some(signal) = signals.next()? {
            // What the kernel sends, it has sent to the command as well, which is in the same process group.
            if !signal.by_kernel && signal.number != Signal::CHILD.as_raw() {
                pass_on(child, signal.number);
            }
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)
        {
            if pid != child {
                continue;
            }
            if status.stopped() {
                if terminal == Terminal::Own {
                    socket.send(&FromInit::Stopped, &[])?;
                }
                continue;
            }
            let code = code(status);
            let _ = socket.send(&FromInit::Ended(code), &[]);
            return Ok(code);
        }
        if told {
            match socket.try_recv::<ToInit>() {
                Ok(Some((ToInit::Signal(number), _))) => pass_on(child, number),
                Ok(Some((ToInit::Go(_), _))) => {}
                // `run` is dead. Everything here dies with this process.
                Ok(None) => return Ok(OURS),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn pass_on(child: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // It may have ended this moment.
        let _ = rustix::process::kill_process(child, signal);
    }
}
