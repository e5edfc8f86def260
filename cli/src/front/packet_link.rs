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
        let sent = self.socket.send(command, fds);
        if let Err(e) = &sent
            && e.kind() == io::ErrorKind::WouldBlock
        {
            self.give_up();
        }
        sent.context("the packet process takes no commands")
    }

    /// Waits for the answer to the command that was sent. A packet process that gives none is ended: nobody is to wait for it a
    /// second time, nor to take the answer that it might give later for that to another command.
    ///
    /// # Errors
    /// As [`PacketLink::call`].
    pub(super) fn answer(&mut self) -> Result<Reply> {
        loop {
            match self.socket.recv::<Message>() {
                Ok(Some((Message::Reply(Reply::Failed(why)), _))) => bail!(why),
                Ok(Some((Message::Reply(reply), _))) => return Ok(reply),
                Ok(Some((Message::Event(event), _))) => self.events.push(event),
                Ok(None) => bail!("the packet process died: {}", self.last_words()),
                Err(e) => {
                    self.give_up();
                    return Err(e).context("the packet process does not answer, and was ended");
                }
            }
        }
    }

    /// Ends one that is stuck, which even a stopped process is by this. What waits for its socket finds it closed.
    fn give_up(&mut self) {
        tracing::error!("the packet process {} does not answer: ending it", self.pid());
        let _ = self.child.kill();
    }

    /// Events that have come; an error once it is dead.
    pub(super) fn events(&mut self) -> Result<Vec<Event>> {
        loop {
            match self.socket.try_recv::<Message>() {
                Ok(Some((Message::Event(event), _))) => self.events.push(event),
                // An answer that came just before the process was ended for having none.
                Ok(Some((Message::Reply(_), _))) => {}
                Ok(None) => bail!("the packet process died: {}", self.last_words()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(std::mem::take(&mut self.events));
                }
                Err(e) => return Err(e).context("the packet process cannot be understood"),
            }
        }
    }

    /// Whether something was heard while an answer was waited for. Its socket is not readable for that any more.
    pub(super) fn has_heard(&self) -> bool {
        !self.events.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_stuck_is_waited_for_once() {
        let (socket, theirs) = FdSocket::pair().expect("a pair");
        socket
            .set_timeout(Some(Duration::from_millis(50)))
            .expect("a time");
        let child = Program::new("sleep")
            .arg("60")
            .stdin(theirs)
            .spawn()
            .expect("sleep");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
        let mut link = PacketLink {
            watched: Arc::new(socket.as_fd().try_clone_to_owned().expect("a handle")),
            socket,
            child,
            events: Vec::new(),
        };
        let error = format!(
            "{:#}",
            link.call(&Command::Ping, &[]).expect_err("it does not answer")
        );
        assert!(error.contains("does not answer"), "{error}");
        // Its socket closes with it, which is how everybody hears of it.
        let error = format!("{:#}", link.call(&Command::Ping, &[]).expect_err("it is dead"));
        assert!(!error.contains("does not answer"), "{error}");
        let deadline = Instant::now() + Duration::from_secs(5);
        while link.events().is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(format!("{:#}", link.events().expect_err("it is dead")).contains("SIGKILL"));
    }
}
