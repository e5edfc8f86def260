//! A trial of the sandbox: a child of this program confines itself as the packet process does, says how that went, and then
//! does something that is forbidden.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Entered, Sandbox, SandboxArgs};
use crate::packet;

/// The hidden command that the child is.
pub(crate) const NAME: &str = "__sandbox";

/// The child's arguments.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrialArgs {
    /// What to try when confined.
    #[arg(value_enum)]
    pub(crate) attempt: Attempt,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// Something to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Attempt {
    /// Nothing.
    Nothing,
    /// A thread, which is allowed.
    Thread,
    /// A panic, which is to leave its message.
    Panic,
    /// Reading a file: it fails.
    ReadFile,
    /// Making a file.
    MakeFile,
    /// A Unix socket.
    UnixSocket,
    /// A Unix socket without a path, which this process has made before it was confined.
    AbstractSocket,
    /// A packet of any kind on the wire.
    RawSocket,
    /// Another program.
    Execute,
    /// A signal to another process.
    Signal,
    /// A device's control that no room uses.
    Control,
}

/// Tries whether a confined child is killed for a forbidden system call: how its confinement went, and how it ended.
///
/// # Errors
/// The child cannot be started, or says nothing.
pub(crate) fn run() -> Result<(Entered, ExitStatus)> {
    let output = Command::new("/proc/self/exe")
        .args([NAME, "unix-socket"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .context("cannot start a child")?;
    let entered = serde_json::from_slice(&output.stdout).context("the child says nothing of itself")?;
    Ok((entered, output.status))
}

/// True if it was killed by its filter.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SYS.as_raw())
}

/// The child: confines itself, says how that went, and makes the attempt, whose failure it reports.
pub(crate) fn main(args: &TrialArgs) -> Result<()> {
    // A process of the same user, to be reached or not.
    let other = match args.attempt {
        Attempt::Signal => Some(
            Command::new("sleep")
                .arg("1")
                .spawn()
                .context("cannot start sleep")?,
        ),
        _ => None,
    };
    let name = format!("pontoon-trial-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    let entered = Sandbox::from_options(&args.sandbox.options()).enter(&packet::ROLE)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&entered)?)?;
    out.flush()?;
    match args.attempt {
        Attempt::Nothing => {}
        Attempt::Thread => {
            let thread = std::thread::Builder::new().spawn(|| vec![1u8; 1 << 20].len())?;
            anyhow::ensure!(thread.join().is_ok(), "the thread panicked");
        }
        Attempt::Panic => panic!("as was asked for"),
        Attempt::ReadFile => drop(std::fs::File::open("/etc/passwd")?),
        Attempt::MakeFile => drop(std::fs::File::create("/run/made")?),
        Attempt::UnixSocket => drop(UnixDatagram::unbound()?),
        Attempt::AbstractSocket => drop(UnixStream::connect_addr(&address)?),
        Attempt::RawSocket => drop(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?),
        Attempt::Execute => drop(Command::new("/bin/true").status()?),
        Attempt::Signal => {
            let pid = other.as_ref().map(Pid::from_child);
            rustix::process::kill_process(pid.context("there is no other process")?, Signal::CONT)?;
        }
        Attempt::Control => drop(rustix::termios::tcgetwinsize(std::io::stdin())?),
    }
    Ok(())
}
