//! The packet process: the one that touches packets, and nothing else.
//!
//! It is started by the front with one `SOCK_SEQPACKET` as its standard input and opens nothing itself but outgoing
//! sockets. Its main thread obeys [`protocol::Command`]s, one after the other; a second thread is the network's worker; a
//! third passes the worker's events on. It ends when the socket does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pontoon_switch::sys::process::Signals;
use rustix::process::Signal;

use crate::fdsock::FdSocket;
use crate::limits::raise_open_files;
use protocol::{Command, Event, Message, Reply};
use wiring::Wiring;

pub(crate) mod protocol;
pub(crate) mod wiring;

/// The process's main function.
pub(crate) fn main() -> Result<()> {
    // It fails for one who leads a process group, and is then run by hand.
    let _ = rustix::process::setsid();
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    let mut socket = FdSocket::from_stdin().context("the packet process is started by pontoon itself")?;
    rustix::stdio::dup2_stdin(&std::fs::File::open("/dev/null")?)?;
    raise_open_files();
    // A capture that meets a limit of file sizes is to fail with an error, not to end the network.
    Signals::take(&[Signal::XFSZ.as_raw()]).context("cannot block signals")?;
    let Some((Command::Configure(config), raw)) = socket.recv::<Command>()? else {
        bail!("the first command is to configure");
    };
    let events = Arc::new(socket.try_clone()?);
    let made = Wiring::new(*config, raw, move |event| report(&events, event)).and_then(|wiring| {
        // Whatever needed a capability has been opened.
        drop_capabilities()?;
        Ok(wiring)
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

/// Gives up every capability for good.
fn drop_capabilities() -> Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // Older than any kernel this runs on, but not there in every sandbox.
    let _ = clear_ambient_capability_set();
    set_capabilities(None, none).context("cannot give up capabilities")
}

/// The one descriptor that a command needs.
fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(fd), None) => Ok(fd),
        (Some(_), Some(_)) | (None, _) => bail!("one descriptor expected"),
    }
}
