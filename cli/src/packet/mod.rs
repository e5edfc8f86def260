//! The packet process: the one that touches packets, and nothing else.
//!
//! It is started by the front with one `SOCK_SEQPACKET` as its standard input and opens nothing itself but outgoing
//! sockets. Once it has been configured it confines itself ([`crate::sandbox`]), before it starts a thread and before it
//! has any port to read a frame from. Its main thread obeys [`protocol::Command`]s, one after the other; a second thread is the network's worker; a
//! third passes the worker's events on. It ends when the socket does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pontoon_switch::calls::Call;
use pontoon_switch::sys::process::Signals;
use rustix::process::Signal;

use crate::fdsock::FdSocket;
use crate::limits::raise_open_files;
use crate::sandbox::{Inspection, Keep, Role, Sandbox};
use protocol::{Command, Event, Message, Reply};
use wiring::{Prepared, Wiring};

pub(crate) mod protocol;
pub(crate) mod wiring;

/// What the process is left with: no capability, and the system calls of its rooms.
pub(crate) const ROLE: Role = Role {
    keep: Keep::Nothing,
    inspection: Inspection::Root,
    calls: CALLS,
};

/// The system calls of whatever works in this process.
pub(crate) const CALLS: &[&[Call]] = &[
    pontoon_switch::worker::CALLS,
    pontoon_switch::port::CALLS,
    pontoon_nat::host::real::CALLS,
    crate::fdsock::CALLS,
    crate::capture::CALLS,
];

/// The process's main function.
pub(crate) fn main() -> Result<()> {
    // It fails for one who leads a process group, and is then run by hand.
    let _ = rustix::process::setsid();
    let mut socket = FdSocket::from_stdin().context("the packet process is started by pontoon itself")?;
    rustix::stdio::dup2_stdin(&std::fs::File::open("/dev/null")?)?;
    raise_open_files();
    // A capture that meets a limit of file sizes is to fail with an error, not to end the network.
    Signals::take(&[Signal::XFSZ.as_raw()]).context("cannot block signals")?;
    let Some((Command::Configure(config), raw)) = socket.recv::<Command>()? else {
        bail!("the first command is to configure");
    };
    let events = Arc::new(socket.try_clone()?);
    let sandbox = Sandbox::from_options(&config.sandbox);
    let made = Prepared::new(*config, raw).and_then(|prepared| {
        // Whatever is the host's has been opened, and there is one thread yet.
        sandbox.enter(&ROLE)?;
        prepared.start(move |event| report(&events, event))
    });
    let mut wiring = match made {
        Ok(wiring) => {
            socket.send(&Message::Reply(Reply::Done), &[])?;
            wiring
        }
        Err(e) => {
            socket.send(&Message::Reply(Reply::Failed(format!("{e:#}"))), &[])?;
            return Ok(());
        }
    };
    let result = obey(&mut socket, &mut wiring);
    wiring.end();
    result
}

fn obey(socket: &mut FdSocket, wiring: &mut Wiring) -> Result<()> {
    loop {
        let reply = match socket.recv::<Command>() {
            Ok(Some((command, fds))) => wiring
                .obey(command, fds)
                .unwrap_or_else(|e| Reply::Failed(format!("{e:#}"))),
            Ok(None) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Reply::Failed(e.to_string()),
            Err(e) => return Err(e).context("cannot read commands"),
        };
        match socket.send(&Message::Reply(reply), &[]) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                let reply = Reply::Failed("the answer does not fit a message".to_owned());
                socket
                    .send(&Message::Reply(reply), &[])
                    .context("cannot answer")?;
            }
            Err(e) => return Err(e).context("cannot answer"),
        }
    }
}

fn report(socket: &FdSocket, event: Event) {
    if let Err(e) = socket.send(&Message::Event(event), &[]) {
        tracing::warn!("cannot report an event: {e}");
    }
}

/// The one descriptor that a command needs.
fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(fd), None) => Ok(fd),
        (Some(_), Some(_)) | (None, _) => bail!("one descriptor expected"),
    }
}
