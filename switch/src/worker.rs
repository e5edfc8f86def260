//! The loop that drives a network: one thread, one poll, everything owned.
//!
//! # Theory of operation
//!
//! Descriptors are watched edge-triggered, so a port that reported is on the ready list until it has been read empty.
//! Each round lets every ready port bring in a bounded number of frames, in turn, so that a busy container does not
//! starve the others, and fewer where they have the station open sockets, each of which costs as much as a hundred frames;
//! then the station ends the batch. While anything is on the list, the poll does not wait.
//!
//! Other threads reach the network by [`Handle::call`]: a closure goes over a channel, a waker ends the poll, the closure
//! runs between two rounds with the network to itself. No lock is taken on the way of a frame.
//!
//! Waking a sleeping thread costs more than most rounds do. So when sleeps have been short, the worker looks for a few
//! microseconds whether there is more to do before it sleeps again ([`Patience`]); an idle network sleeps at once. Behind bulk
//! data it gives its core away a few times first ([`TURNS`]): whoever makes or takes the data is likely to be waiting for one, and
//! has made more by the time that the worker has the core again, without having to wake it.
//!
//! Tokens: the station has the lower half of the numbers, ports the upper.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::unix::SourceFd;
use mio::{Events, Poll, Token, Waker};

pub use mio::Interest;

use crate::calls;
use crate::network::{Network, PORT_TOKEN};
use crate::port::PortId;
use crate::station::{Ready, Station};
use crate::time::{Clock, Instant};

/// Frames that one port may bring in before the others have their turn.
const FRAME_BUDGET: usize = 64;

/// Readiness reports taken from the kernel at a time.
const EVENTS: usize = 512;

/// Bytes that the station may have dealt with in a round that is followed by a look. Behind bulk data a look makes the next
/// rounds shorter, with fewer frames to share an acknowledgement, and keeps a core from those who make and take the data.
/// Frames from port to port have nothing to share, and gain.
const LIGHT: u64 = 4 << 10;

/// How often the worker lets others have its core, and looks, before it sleeps behind bulk data. Where nobody waits for the
/// core each costs about a microsecond; more of them gained nothing more.
const TURNS: usize = 3;

/// How long the worker looks for events before it sleeps: about what a sleep and a wake-up cost.
const LOOK: Duration = Duration::from_micros(30);

/// The system calls of a running worker.
pub const CALLS: &[calls::Call] = &[
    calls::Call::any(EPOLL_WAIT, "the poll waits"),
    calls::Call::any(libc::SYS_epoll_pwait, "likewise, by other C libraries"),
    calls::Call::any(libc::SYS_epoll_ctl, "a port or a socket is watched, or no more"),
    calls::Call::any(libc::SYS_read, "the waker is read"),
    calls::Call::any(libc::SYS_write, "the waker is written"),
    calls::Call::any(libc::SYS_sched_yield, "between two looks"),
];

#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: std::ffi::c_long = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: std::ffi::c_long = libc::SYS_epoll_pwait;

const WAKER: Token = Token(usize::MAX);

/// Something that the network did by itself.
#[derive(Debug)]
pub enum Event {
    /// A port's device is gone; the port has been removed.
    PortClosed {
        /// Its number.
        id: PortId,
        /// Its name.
        name: String,
        /// What reading it said.
        error: io::Error,
    },
}

/// The worker has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the network's worker has stopped")]
pub struct Stopped;

/// Watches a station's descriptors in its worker's poll.
///
/// Tokens are the station's own to choose, below `1 << (usize::BITS - 1)`.
#[derive(Debug)]
pub struct Registrar(mio::Registry);

impl Registrar {
    /// Has `fd`'s readiness reported to [`Station::ready`] with `token`, once for each change (edge-triggered).
    ///
    /// # Errors
    /// `AlreadyExists` if it is watched already; `InvalidInput` for a token out of the station's range.
    pub fn register(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.0
            .register(&mut SourceFd(&fd.as_raw_fd()), station_token(token)?, interest)
    }

    /// Changes token or interest of a watched `fd`, and has its present readiness reported again.
    pub fn reregister(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.0
            .reregister(&mut SourceFd(&fd.as_raw_fd()), station_token(token)?, interest)
    }

    /// Stops watching `fd`. Reports that were already under way may still come.
    pub fn deregister(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Another of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

fn station_token(token: usize) -> io::Result<Token> {
    if token & PORT_TOKEN != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(Token(token))
}

/// A worker in the making: the poll is there, the station not yet.
#[derive(Debug)]
pub struct Builder {
    poll: Poll,
    events: (Sender<Event>, Receiver<Event>),
    clock: Clock,
}

impl Builder {
    /// The station's access to the poll.
    pub fn registrar(&self) -> io::Result<Registrar> {
        self.poll.registry().try_clone().map(Registrar)
    }

    /// Where the worker reports what happens by itself.
    pub fn events(&self) -> Receiver<Event> {
        self.events.1.clone()
    }

    /// The worker's clock, for a station that needs the time when it is made.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The worker of a network with `station` on its switch. It does nothing until it is [run](Worker::run).
    pub fn start<S: Station>(self, station: S) -> io::Result<Worker<S>> {
        let mut network = Network::new(station);
        network.watch(self.poll.registry().try_clone()?);
        let waker = Arc::new(Waker::new(self.poll.registry(), WAKER)?);
        let (commands, inbox) = unbounded();
        Ok(Worker {
            network,
            poll: self.poll,
            clock: self.clock,
            inbox,
            handle: Handle { commands, waker },
            events: self.events.0,
            ready: ReadyList::default(),
            patience: Patience::default(),
        })
    }
}

type Call<S> = Box<dyn FnOnce(&mut Network<S>, Instant) + Send>;

enum Command<S> {
    Call(Call<S>),
    Stop,
}

/// One network and the loop that drives it.
pub struct Worker<S> {
    network: Network<S>,
    poll: Poll,
    clock: Clock,
    inbox: Receiver<Command<S>>,
    handle: Handle<S>,
    events: Sender<Event>,
    ready: ReadyList,
    patience: Patience,
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Worker<()> {
    /// Begins a worker.
    pub fn builder() -> io::Result<Builder> {
        Ok(Builder {
            poll: Poll::new()?,
            events: unbounded(),
            clock: Clock::start(),
        })
    }
}

impl<S: Station> Worker<S> {
    /// How other threads reach the network.
    pub fn handle(&self) -> Handle<S> {
        self.handle.clone()
    }

    /// The network, before the worker runs.
    pub fn network_mut(&mut self) -> &mut Network<S> {
        &mut self.network
    }

    /// Drives the network until [`Handle::stop`].
    ///
    /// # Errors
    /// Only if the poll itself fails, which it does not while its descriptor is open.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        // Ports that were added before the first round.
        self.collect_new_ports();
        loop {
            self.wait(&mut events)?;
            let now = self.clock.now();
            let mut woken = false;
            for event in &events {
                match event.token() {
                    WAKER => woken = true,
                    Token(port) if port & PORT_TOKEN != 0 => {
                        self.ready.add(PortId((port & !PORT_TOKEN) as u32));
                    }
                    Token(token) => {
                        let ready = Ready {
                            readable: event.is_readable(),
                            writable: event.is_writable(),
                            error: event.is_error(),
                            hangup: event.is_read_closed() || event.is_write_closed(),
                        };
                        self.network.ready(now, token, ready);
                    }
                }
            }
            for _ in 0..self.ready.len() {
                let Some(id) = self.ready.take() else { break };
                if self.network.poll_port(now, id, FRAME_BUDGET) {
                    self.ready.add(id);
                }
            }
            if woken && !self.obey() {
                return Ok(());
            }
            self.network.flush(now);
            self.report_closed();
        }
    }

    /// Waits for something to do, or for the station's deadline.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let light = self.network.take_relayed() <= LIGHT;
        if !self.ready.is_empty() {
            return self.poll(events, Some(Duration::ZERO));
        }
        if !light {
            for _ in 0..TURNS {
                std::thread::yield_now();
                self.poll(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
            }
        }
        let mut now = self.clock.now();
        let until = self.network.deadline();
        if light && self.patience.looks() {
            let start = now;
            loop {
                self.poll(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    self.patience.rewarded();
                    return Ok(());
                }
                now = self.clock.now();
                if until.is_some_and(|until| until <= now) {
                    return Ok(());
                }
                if now.since(start) >= LOOK {
                    break;
                }
                // Whoever is to make the event may be waiting for this very core.
                std::thread::yield_now();
            }
            self.patience.disappointed();
        }
        self.poll(events, until.map(|until| until.since(now)))?;
        self.patience.slept(self.clock.now().since(now));
        Ok(())
    }

    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// Does what other threads ask. False if that is to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Call(call) => call(&mut self.network, self.clock.now()),
                Command::Stop => return false,
            }
        }
        self.collect_new_ports();
        true
    }

    /// Edge-triggered readiness of a new port was perhaps there before it was watched: look once.
    fn collect_new_ports(&mut self) {
        for id in self.network.port_ids() {
            self.ready.add(id);
        }
    }

    fn report_closed(&mut self) {
        for closed in self.network.take_closed() {
            tracing::info!(port = %closed.id, name = closed.config.name, error = %closed.error, "port closed");
            // Nobody needs to listen.
            let _ = self.events.send(Event::PortClosed {
                id: closed.id,
                name: closed.config.name,
                error: closed.error,
            });
        }
    }
}

/// Whether to look for a while before sleeping: after a sleep so short that looking would have met its end, and from then on
/// as long as it does.
#[derive(Debug, Default)]
struct Patience {
    /// Looks that may still bring nothing before it is given up.
    left: u8,
}

impl Patience {
    const FULL: u8 = 3;

    fn looks(&self) -> bool {
        self.left > 0
    }

    fn rewarded(&mut self) {
        self.left = Self::FULL;
    }

    fn disappointed(&mut self) {
        self.left -= 1;
    }

    fn slept(&mut self, time: Duration) {
        if time < LOOK && self.left == 0 {
            self.left = Self::FULL;
        }
    }
}

/// The ports that have something to read, each once, in turn.
#[derive(Debug, Default)]
struct ReadyList {
    queue: VecDeque<PortId>,
    /// Whether a slot's port is in the queue. A number of a past generation costs one empty visit at worst.
    listed: Vec<Option<PortId>>,
}

impl ReadyList {
    fn add(&mut self, id: PortId) {
        if self.listed.len() <= id.slot() {
            self.listed.resize(id.slot() + 1, None);
        }
        if self.listed[id.slot()] != Some(id) {
            self.listed[id.slot()] = Some(id);
            self.queue.push_back(id);
        }
    }

    fn take(&mut self) -> Option<PortId> {
        let id = self.queue.pop_front()?;
        if self.listed[id.slot()] == Some(id) {
            self.listed[id.slot()] = None;
        }
        Some(id)
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// How other threads reach a network.
pub struct Handle<S> {
    commands: Sender<Command<S>>,
    waker: Arc<Waker>,
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

impl<S> std::fmt::Debug for Handle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl<S> Handle<S> {
    /// Has `f` run in the worker, between two rounds, and waits for what it gives. Not to be called in the worker's own
    /// thread, which would wait for itself.
    ///
    /// # Errors
    /// [`Stopped`] if the worker has ended, or does before it comes to it.
    pub fn call<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Network<S>, Instant) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, answer) = bounded(1);
        let call: Call<S> = Box::new(move |network, now| {
            // A caller that no longer waits is no error.
            let _ = reply.send(f(network, now));
        });
        self.commands.send(Command::Call(call)).map_err(|_| Stopped)?;
        self.waker.wake().map_err(|_| Stopped)?;
        answer.recv().map_err(|_| Stopped)
    }

    /// Ends the worker, after the calls that came before.
    pub fn stop(&self) {
        // One that has ended already needs no telling.
        if self.commands.send(Command::Stop).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
