//! The sockets by which resolvers are asked over UDP.
//!
//! While there are few questions each has a socket of its own, on a port of the host's random choice, which closes with
//! it. Only when there are as many sockets as there may be do questions share them, each on one drawn at random: then it
//! is the port of one in so many, and the identification, which on one socket no two questions have, that is to be guessed.
//! A socket takes some hundred questions, or those of some seconds, so that its port is worth nothing to whoever finds it
//! out: it takes no more then, and closes with the last that it has. What is asked again moves to another, so that names
//! whose servers are silent do not keep it open; there is room for as many that wait for their end as there are in use.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pontoon_switch::Instant;

use crate::dns::message;
use crate::host::{IpVersion, Kind, Token, UdpHost, UdpSend, UdpSocket};
use crate::slab::{Key, Slab};

/// Questions that a socket takes, and for how long it takes them.
const TAKES: u32 = 256;
const TAKES_FOR: Duration = Duration::from_secs(10);

/// Random numbers that nobody outside foresees.
#[derive(Debug, Default)]
pub(super) struct Draw {
    key: RandomState,
    drawn: u64,
}

impl Draw {
    pub(super) fn next(&mut self) -> u64 {
        self.drawn += 1;
        self.key.hash_one(self.drawn)
    }
}

/// Where a question is asked from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    socket: Key,
    pub(super) version: IpVersion,
    /// The question's identification.
    pub(super) id: u16,
    /// A socket was opened for it.
    pub(super) opened: bool,
}

#[derive(Debug)]
struct Shared<S> {
    socket: S,
    version: IpVersion,
    /// The questions, by their identifications.
    asking: HashMap<u16, Key>,
    taken: u32,
    opened: Instant,
}

impl<S> Shared<S> {
    fn takes(&self, now: Instant) -> bool {
        self.taken < TAKES && now.since(self.opened) < TAKES_FOR
    }
}

/// The sockets.
#[derive(Debug)]
pub(super) struct Pool<S> {
    sockets: Slab<Shared<S>>,
    /// Of each IP version at most that take questions; and as many that take none any more.
    most: usize,
}

impl<S: UdpSocket> Pool<S> {
    /// No sockets yet, and at most so many of each IP version in use.
    pub(super) fn new(most: usize) -> Self {
        Self {
            sockets: Slab::default(),
            most,
        }
    }

    /// At most so many of each IP version from now on.
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Finds a place for `question`: on a new socket if there may be one more, else on one of those that there are.
    ///
    /// # Errors
    /// The host gives no socket, and there is none.
    pub(super) fn place<H: UdpHost<Udp = S>>(
        &mut self,
        host: &mut H,
        now: Instant,
        version: IpVersion,
        question: Key,
        draw: &mut Draw,
    ) -> io::Result<Place> {
        let of_version = || self.sockets.iter().filter(|(_, s)| s.version == version);
        let in_use = of_version().filter(|(_, s)| s.takes(now)).count();
        let opened = if in_use < self.most && of_version().count() < 2 * self.most {
            self.open(host, now, version).map(Some)
        } else {
            Ok(None)
        };
        let (key, opened) = match opened {
            Ok(Some(key)) => (key, true),
            Ok(None) => (self.any(now, version, draw).ok_or(io::ErrorKind::Other)?, false),
            // Better with others than not at all.
            Err(e) => (self.any(now, version, draw).ok_or(e)?, false),
        };
        let shared = self.sockets.get_mut(key).ok_or(io::ErrorKind::NotFound)?;
        shared.taken += 1;
        let mut id = draw.next() as u16;
        // There are far fewer questions than identifications.
        while shared.asking.contains_key(&id) {
            id = draw.next() as u16;
        }
        shared.asking.insert(id, question);
        Ok(Place {
            socket: key,
            version,
            id,
            opened,
        })
    }

    fn open<H: UdpHost<Udp = S>>(
        &mut self,
        host: &mut H,
        now: Instant,
        version: IpVersion,
    ) -> io::Result<Key> {
        let next = self.sockets.next_key();
        let token = Token {
            kind: Kind::Dns,
            index: next.index,
            generation: next.generation,
        };
        let socket = host.udp_open(token, version, None)?;
        Ok(self.sockets.insert(Shared {
            socket,
            version,
            asking: HashMap::new(),
            taken: 0,
            opened: now,
        }))
    }

    /// One of the sockets of `version`, at random: of those that take questions, if there is one.
    fn any(&self, now: Instant, version: IpVersion, draw: &mut Draw) -> Option<Key> {
        let of_version = || self.sockets.iter().filter(|(_, s)| s.version == version);
        let pick = |n: usize, draw: &mut Draw| (draw.next() % n as u64) as usize;
        match of_version().filter(|(_, s)| s.takes(now)).count() {
            0 => match of_version().count() {
                0 => None,
                n => of_version().nth(pick(n, draw)),
            },
            n => of_version().filter(|(_, s)| s.takes(now)).nth(pick(n, draw)),
        }
        .map(|(key, _)| key)
    }

    /// True if a question may be asked again from `place`.
    pub(super) fn holds(&self, place: Place, now: Instant) -> bool {
        self.sockets.get(place.socket).is_some_and(|s| s.takes(now))
    }

    /// A question needs its place no more. A socket without questions closes.
    pub(super) fn release(&mut self, place: Place) {
        if let Some(shared) = self.sockets.get_mut(place.socket) {
            shared.asking.remove(&place.id);
            if shared.asking.is_empty() {
                self.sockets.remove(place.socket);
            }
        }
    }

    /// Sends `message` to `resolver`.
    pub(super) fn send(&mut self, place: Place, resolver: SocketAddr, message: &[u8]) -> io::Result<()> {
        let shared = self
            .sockets
            .get_mut(place.socket)
            .ok_or(io::ErrorKind::NotFound)?;
        shared.socket.send(&UdpSend::to(resolver), message)
    }

    fn at(&mut self, token: Token) -> Option<&mut Shared<S>> {
        let key = self.sockets.key_at(token.index)?;
        self.sockets.get_mut(key).filter(|_| token.is_of(key.generation))
    }

    /// The next message that has come to the socket under `token`: from whom, how long, and the question with its
    /// identification.
    pub(super) fn recv(&mut self, token: Token, buf: &mut [u8]) -> Option<(SocketAddr, usize, Option<Key>)> {
        let shared = self.at(token)?;
        loop {
            match shared.socket.recv(buf) {
                Ok(got) => {
                    let len = got.len.min(buf.len());
                    let asker = shared.asking.get(&message::id(&buf[..len])).copied();
                    return Some((got.remote, len, asker));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// The next error about a message of the socket under `token`: where that was going, and the question that it is about
    /// if that is known, else all.
    pub(super) fn recv_error(&mut self, token: Token, buf: &mut [u8]) -> Option<(SocketAddr, Vec<Key>)> {
        let shared = self.at(token)?;
        let error = shared.socket.recv_error(buf).ok()??;
        let askers = match error.len.min(buf.len()) {
            0 | 1 => shared.asking.values().copied().collect(),
            len => {
                let asker = shared.asking.get(&message::id(&buf[..len]));
                asker.into_iter().copied().collect()
            }
        };
        Some((error.remote, askers))
    }
}
