//! The front's side of the packet process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::fdsock::FdSocket;
use crate::packet::protocol::{Command, Event, Message, Reply};

/// How long an answer may take. The worker answers between two batches of frames.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running packet process.
#[derive(Debug)]
pub(super) struct PacketLink {
    socket: FdSocket,
    /// Another handle of the same, to be polled: made once, as there may be no descriptor for it later.
    watched: Arc<OwnedFd>,
    child: Child,
    events: Vec<Event>,
}

impl PacketLink {
    /// Starts one.
    pub(super) fn start() -> Result<Self> {
        let (socket, theirs) =
            FdSocket::pair().context("cannot make a socket pair for the packet process")?;
        socket.set_timeout(Some(PATIENCE))?;
        let child = Program::new("/proc/self/exe")
            .arg("__packet")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the packet process")?;
        Ok(Self {
            watched: Arc::new(socket.as_fd().try_clone_to_owned()?),
            socket,
            child,
            events: Vec::new(),
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A handle of the socket, to be polled.
    pub(super) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.watched)
    }

    /// Sends a command and gives its answer.
    ///
    /// # Errors
    /// What the packet process says failed, or that it is dead or stuck.
    pub(super) fn call(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        self.send(command, fds)?;
        self.answer()
    }

    /// Sends a command, whose [`PacketLink::answer`] is to be taken before the next.
    pub(super) fn send(&mut self, command: &Command, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.socket
            .send(command, fds)
            .context("the packet process takes no commands")
    }

    /// Waits for the answer to the command that was sent.
    ///
    /// # Errors
    /// As [`PacketLink::call`].
    pub(super) fn answer(&mut self) -> Result<Reply> {
        loop {
            match self
                .socket
                .recv::<Message>()
                .context("the packet process does not answer")?
            {
                Some((Message::Reply(Reply::Failed(why)), _)) => bail!(why),
                Some((Message::Reply(reply), _)) => return Ok(reply),
                Some((Message::Event(event), _)) => self.events.push(event),
                None => bail!("the packet process died: {}", self.last_words()),
            }
        }
    }

    /// Events that have come; an error once it is dead.
    pub(super) fn events(&mut self) -> Result<Vec<Event>> {
        loop {
            match self.socket.try_recv::<Message>() {
                Ok(Some((Message::Event(event), _))) => self.events.push(event),
                // An answer that came after we had given up waiting for it.
                Ok(Some((Message::Reply(_), _))) => {}
                Ok(None) => bail!("the packet process died: {}", self.last_words()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(std::mem::take(&mut self.events));
                }
                Err(e) => return Err(e).context("the packet process cannot be understood"),
            }
        }
    }

    fn last_words(&mut self) -> String {
        match self.child.wait() {
            Ok(status) if status.signal() == Some(Signal::SYS.as_raw()) => {
                "it was killed by its seccomp filter (SIGSYS): please report this; PONTOON_SECCOMP=trap in the environment \
                 has the log say which system call it was, and --no-seccomp runs without the filter"
                    .to_owned()
            }
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        }
    }

    /// Ends it: it goes when its socket closes, or is killed when it does not.
    pub(super) fn end(self) {
        let Self {
            socket, mut child, ..
        } = self;
        let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        drop(socket);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        tracing::warn!("the packet process does not end: killing it");
        let _ = child.kill();
        let _ = child.wait();
    }
}
