//! The limit of open files: each flow, each published port and each name that is asked for takes a descriptor, and so does each
//! client of a control socket. A [`Door`] is what such a socket's clients come in by, also when there is no descriptor left.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long a listener is left alone that has clients whom no descriptor is left for. Nothing tells when there is one.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between two lines of the log about it.
const INTERVAL: Duration = Duration::from_secs(60);

/// Raises the soft limit of open files to the hard one.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

/// Takes clients in. When descriptors run out, the one that it keeps in reserve still lets one client in: what takes no further
/// descriptor is answered, and anything else is told why not. For the others the listener, which stays readable as long
/// as they wait, is not to be looked at for a while, or whoever looks would do nothing else.
#[derive(Debug, Default)]
pub(crate) struct Door {
    reserve: Option<OwnedFd>,
    shut_until: Option<Instant>,
    said: Option<Instant>,
}

/// Whether calls on a client's stream wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocking {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// No descriptor is left for a client who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no descriptor is left")]
pub(crate) struct Exhausted;

impl Door {
    /// Whether the listener is to be looked at.
    pub(crate) fn is_open(&self) -> bool {
        self.shut_until.is_none()
    }

    /// When it opens again, if it is shut.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.shut_until
    }

    /// To be called before clients are taken in: opens it if it is time, and keeps a descriptor in reserve if there is one to be
    /// had.
    pub(crate) fn prepare(&mut self, now: Instant) {
        self.shut_until = self.shut_until.filter(|&until| now < until);
        if self.reserve.is_none() {
            self.reserve = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
    }

    /// Shuts it for a while.
    pub(crate) fn shut(&mut self, now: Instant) {
        self.shut_until = Some(now + PAUSE);
        if self.said.is_none_or(|at| now.duration_since(at) >= INTERVAL) {
            self.said = Some(now);
            tracing::warn!("no descriptor is left for clients of the control socket: they wait");
        }
    }

    /// The next client of `listener`, which does not block, if one waits.
    ///
    /// # Errors
    /// No descriptor is left, nor in reserve.
    pub(crate) fn accept(
        &mut self,
        listener: &UnixListener,
        blocking: Blocking,
    ) -> Result<Option<UnixStream>, Exhausted> {
        let flags = match blocking {
            Blocking::Yes => SocketFlags::CLOEXEC,
            Blocking::No => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        };
        let client = self.accept_by(|| accept_with(listener, flags), || has_client(listener))?;
        Ok(client.map(UnixStream::from))
    }

    fn accept_by(
        &mut self,
        mut accept: impl FnMut() -> Result<OwnedFd, Errno>,
        has_client: impl Fn() -> bool,
    ) -> Result<Option<OwnedFd>, Exhausted> {
        loop {
            match accept() {
                Ok(client) => return Ok(Some(client)),
                // The client has gone again: the next one.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // The kernel says so before it looks whether there is a client.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) if has_client() => {
                    self.reserve.take().ok_or(Exhausted)?;
                }
                Err(_) => return Ok(None),
            }
        }
    }
}

/// Whether a client of `listener` waits.
fn has_client(listener: &UnixListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// What becomes of it when a listener answers this, one after another, and then with a client.
    fn ask(door: &mut Door, answers: &[Errno]) -> Result<Option<OwnedFd>, Exhausted> {
        let mut answers: VecDeque<Errno> = answers.iter().copied().collect();
        let accept = || match answers.pop_front() {
            Some(e) => Err(e),
            None => eventfd(0, EventfdFlags::CLOEXEC),
        };
        door.accept_by(accept, || true)
    }

    #[test]
    fn one_client_more_comes_in_by_the_reserve_and_then_none() {
        let mut door = Door::default();
        let now = Instant::now();
        door.prepare(now);
        for answers in [&[][..], &[Errno::INTR, Errno::CONNABORTED], &[Errno::MFILE]] {
            assert!(matches!(ask(&mut door, answers), Ok(Some(_))), "{answers:?}");
        }
        assert!(matches!(ask(&mut door, &[Errno::MFILE]), Err(Exhausted)));
        door.prepare(now);
        assert!(matches!(ask(&mut door, &[Errno::NFILE; 2]), Err(Exhausted)));
        assert!(matches!(ask(&mut door, &[Errno::AGAIN]), Ok(None)));
    }

    /// Nobody is turned away for a client who is not there.
    #[test]
    fn without_a_client_nothing_is_wanting() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("listen");
        let mut door = Door::default();
        let ask = |door: &mut Door| door.accept_by(|| Err(Errno::MFILE), || has_client(&listener));
        assert!(matches!(ask(&mut door), Ok(None)));
        let _client = UnixStream::connect(&path).expect("connect");
        assert!(matches!(ask(&mut door), Err(Exhausted)));
        assert!(matches!(door.accept(&listener, Blocking::No), Ok(Some(_))));
    }

    #[test]
    fn shut_it_opens_by_itself() {
        let mut door = Door::default();
        let now = Instant::now();
        assert!(door.is_open() && door.deadline().is_none());
        door.shut(now);
        door.prepare(now + PAUSE / 2);
        assert!(!door.is_open());
        assert_eq!(door.deadline(), Some(now + PAUSE));
        door.prepare(now + PAUSE);
        assert!(door.is_open() && door.deadline().is_none());
    }
}
