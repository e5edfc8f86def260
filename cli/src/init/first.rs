//! A container's process 1: it makes its namespaces' last parts, executes the command, passes signals on, and reaps.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use pontoon_switch::sys::process::{Signals, unblock_signals_in};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::{FromInit, Identity, NOT_EXECUTABLE, NOT_FOUND, OURS, Stack, Terminal, ToInit, code};
use crate::attach::loopback_up;
use crate::covers::UNWRITTEN;
use crate::fdsock::FdSocket;
use crate::netlink::Netlink;

/// Its life; gives the exit status.
pub(super) fn live(socket: &mut FdSocket, stack: &Stack, command: &[OsString]) -> Result<u8> {
    // Should the parent be dead already, `run` is too or knows it, and its end of the socket closes.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let signals = Signals::take(&FORWARDED_AND_CHILD)?;
    let fresh = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(e) = rustix::mount::mount("proc", "/proc", "proc", fresh, None) {
        tracing::info!("/proc stays the host's: {e}");
    }
    match stack {
        Stack::Attached | Stack::Loopback => {
            if let Err(e) = show_own_interfaces() {
                tracing::info!("/sys/class/net stays the host's: {e}");
            }
        }
        // It is the host's, or shows the other container's already.
        Stack::Host(_) | Stack::Of(_) => {}
    }
    if matches!(stack, Stack::Loopback) {
        loopback_up(&mut Netlink::open().context("cannot open a netlink socket")?)?;
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
    let child = match unblock_signals_in(
        Command::new(program)
            .args(arguments)
            .envs(identity.environment.iter().cloned()),
    )
    .spawn()
    {
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
    if let Some(name) = &identity.hostname {
        rustix::system::sethostname(name.as_bytes())
            .with_context(|| format!("cannot set the host name {name}"))?;
    }
    for (file, text) in &identity.files {
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
const FORWARDED: [i32; 11] = [
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
