//! The front's loop, and the threads of its connections.
//!
//! One thread watches: the listening socket, the packet processes, the containers' processes (a TAP keeps its namespace
//! alive, so only a pidfd tells of the end), the directories of the namespaces that are named by a path, the carriers of the host's
//! interfaces that are uplinks, and the host's resolv.conf. Each connection has a thread of its own, of which there are at most
//! [`MAX_CONNECTIONS`], so that a client that is stuck holds up nobody; they work on the [`Front`] under one lock, which is held for no
//! client's sake. So has each try to make an uplink again.

use std::collections::BTreeSet;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::api;
use super::carrier::CarrierWatch;
use super::registry::Front;
use super::trial::Trial;
use crate::limits::{Blocking, Door, Exhausted};
use crate::resolv::ResolvConf;
use crate::resolv_watch::ResolvWatch;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

/// How long a client waits for the control socket to go.
pub(super) const CLOSING_TIME: Duration = Duration::from_secs(2);

/// What the threads share.
pub(super) struct Shared {
    front: Mutex<Front>,
    /// Wakes the watch: written to whenever the set of things to watch may have changed.
    wake: OwnedFd,
    connections: AtomicUsize,
    /// Whether the control socket is gone.
    closed: (Mutex<bool>, Condvar),
}

impl Shared {
    /// What the threads of `front` share.
    pub(super) fn new(front: Front) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            front: Mutex::new(front),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            connections: AtomicUsize::new(0),
            closed: (Mutex::new(false), Condvar::new()),
        }))
    }

    /// The front. A thread that panicked left it usable: every change is made at its end.
    pub(super) fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, for a while, until the control socket is gone if this was the last container: whoever asked for its end may
    /// take the name again at once.
    pub(super) fn wait_if_over(&self) {
        if self.front().is_over(false) {
            self.wake();
            let closed = self.closed.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(
                self.closed
                    .1
                    .wait_timeout_while(closed, CLOSING_TIME, |closed| !*closed),
            );
        }
    }

    /// Waits, without the lock, for helpers that take away what is left in containers: whoever had something detached may
    /// attach it again at once.
    pub(super) fn wait_for_helpers(&self) {
        let mut front = self.front();
        let (spent, tidying) = (
            std::mem::take(&mut front.spent),
            std::mem::take(&mut front.tidying),
        );
        drop(front);
        drop((spent, tidying));
    }

    /// Has the watch look at everything anew.
    pub(super) fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The control socket is gone.
    pub(super) fn closed(&self) {
        *self.closed.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.closed.1.notify_all();
    }
}

/// Something else that a front watches.
pub(super) trait Also {
    /// What to poll, if there is anything.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Does what is to be done once that is readable. False if the front is to end.
    ///
    /// # Errors
    /// The front cannot go on.
    fn ready(&mut self, shared: &Shared) -> Result<bool>;

    /// Whether whoever the front was started for is gone.
    fn is_alone(&self) -> bool;
}

/// The front's life.
pub(super) fn watch(shared: &Arc<Shared>, listener: &UnixListener, also: &mut impl Also) -> Result<()> {
    let mut resolv = ResolvWatch::new();
    let mut paths = PathWatch::new();
    let mut carriers = CarrierWatch::default();
    let mut door = Door::default();
    loop {
        let (packets, pidfds, trials, mend, tidy, unseen) = {
            let mut front = shared.front();
            front.overheard()?;
            let tidy = front.tidy();
            if front.is_over(also.is_alone()) {
                return Ok(());
            }
            if paths.watch(front.paths()) {
                front.sweep();
            }
            let mend = [front.mend(), front.mend_cables()];
            let (trials, next) = front.begin_uplinks();
            let mend = mend.into_iter().chain([next]).flatten().min();
            let unseen = carriers.watch(front.wired());
            (front.packet_fds(), front.pidfds(), trials, mend, tidy, unseen)
        };
        if unseen {
            let seen = carriers.look();
            shared.front().carriers(&seen);
        }
        for trial in trials {
            try_uplink(shared, trial);
        }
        // Whoever comes while all connections are taken, or descriptors have run out, waits in the socket's queue.
        let now = Instant::now();
        door.prepare(now);
        let full = shared.connections.load(Ordering::Acquire) >= MAX_CONNECTIONS || !door.is_open();
        let shut = door.deadline().map(|at| at.saturating_duration_since(now));
        let other = also.fd();
        let mut fds = vec![
            PollFd::new(listener, if full { PollFlags::empty() } else { PollFlags::IN }),
            PollFd::new(&shared.wake, PollFlags::IN),
        ];
        let first_packet = fds.len();
        fds.extend(packets.iter().map(|(_, fd)| PollFd::new(&**fd, PollFlags::IN)));
        let first_container = fds.len();
        fds.extend(pidfds.iter().map(|(_, fd)| PollFd::new(&**fd, PollFlags::IN)));
        let after_containers = fds.len();
        fds.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let after_other = fds.len();
        fds.extend(resolv.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let after_resolv = fds.len();
        fds.extend(paths.inotify.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let after_paths = fds.len();
        fds.extend(carriers.bell().map(|bell| PollFd::new(bell, PollFlags::IN)));
        let timeout = [mend, shut, tidy].into_iter().flatten().min();
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for events"),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            accept(shared, listener, &mut door);
        }
        if ready[1] {
            let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
        }
        for (i, (network, _)) in packets.iter().enumerate() {
            if ready[first_packet + i] {
                shared.front().packet_events(network)?;
            }
        }
        if ready[first_container..after_containers].iter().any(|&r| r) {
            shared.front().sweep();
        }
        if ready[after_containers..after_other].iter().any(|&r| r) && !also.ready(shared)? {
            return Ok(());
        }
        if ready[after_other..after_resolv].iter().any(|&r| r) && resolv.changed() {
            shared.front().set_host_resolvers(ResolvConf::of_host());
        }
        if ready[after_resolv..after_paths].iter().any(|&r| r) {
            paths.changed();
            shared.front().sweep();
        }
        if ready[after_paths..].iter().any(|&r| r) {
            let seen = carriers.look();
            shared.front().carriers(&seen);
        }
    }
}

/// Takes those who have come.
fn accept(shared: &Arc<Shared>, listener: &UnixListener, door: &mut Door) {
    while shared.connections.load(Ordering::Acquire) < MAX_CONNECTIONS {
        let stream = match door.accept(listener, Blocking::Yes) {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(Exhausted) => return door.shut(Instant::now()),
        };
        shared.connections.fetch_add(1, Ordering::AcqRel);
        let for_thread = Arc::clone(shared);
        let spawned = std::thread::Builder::new()
            .name("connection".into())
            .stack_size(512 << 10)
            .spawn(move || {
                api::connection(&for_thread, &stream);
                let _ = stream.shutdown(Shutdown::Both);
                for_thread.connections.fetch_sub(1, Ordering::AcqRel);
                for_thread.wake();
            });
        if let Err(e) = spawned {
            shared.connections.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!("a connection to the control socket was refused: {e}");
        }
    }
}

/// Has an uplink made in a thread of its own: what the link leads into may hang.
fn try_uplink(shared: &Arc<Shared>, trial: Trial) {
    let for_thread = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name("uplink".into())
        .stack_size(512 << 10)
        .spawn(move || {
            let made = trial.make();
            for_thread.front().finish_uplink(trial, made);
            for_thread.wake();
        });
    if let Err(e) = spawned {
        tracing::warn!("an uplink cannot be made for now: {e}");
    }
}

/// A watch on the directories of namespaces that are named by a path: such a name is a mount on a file, and ends with it.
struct PathWatch {
    inotify: Option<OwnedFd>,
    watched: BTreeSet<PathBuf>,
}

impl PathWatch {
    fn new() -> Self {
        Self {
            inotify: None,
            watched: BTreeSet::new(),
        }
    }

    /// Watches the directories of `paths`. True if that was not done before, and so something may have gone unseen.
    fn watch(&mut self, paths: Vec<PathBuf>) -> bool {
        let directories: BTreeSet<PathBuf> = paths
            .iter()
            .filter_map(|p| p.parent())
            .map(Path::to_owned)
            .collect();
        if directories == self.watched {
            return false;
        }
        // A new one forgets those that are not needed any more.
        self.inotify = None;
        if !directories.is_empty() {
            match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
                Ok(fd) => {
                    for directory in &directories {
                        let flags = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF;
                        if let Err(e) = inotify::add_watch(&fd, directory, flags) {
                            tracing::warn!(
                                "the end of namespaces in {} may go unseen: {e}",
                                directory.display()
                            );
                        }
                    }
                    self.inotify = Some(fd);
                }
                Err(e) => tracing::warn!("the end of namespaces named by their path may go unseen: {e}"),
            }
        }
        self.watched = directories;
        true
    }

    /// Takes what has happened: what it was is looked at anyway.
    fn changed(&self) {
        let mut buf = [0; 4096];
        while let Some(fd) = &self.inotify
            && rustix::io::read(fd, &mut buf).is_ok_and(|n| n > 0)
        {}
    }
}
