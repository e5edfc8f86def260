//! Datagrams of containers that wait for the end of their batch of frames.
//!
//! # Theory of operation
//!
//! A container that sends many datagrams brings them as many frames, which the worker reads in batches. What one flow
//! sends within a batch goes to the host's socket by one call, if it is of one length (the last may be shorter) and goes
//! the same way: the kernel then takes one packet through its stack and cuts it at the end (`UDP_SEGMENT`). Such
//! datagrams are a *run*. Their bytes stand one after another in the order in which they came, whichever flow they are
//! of; a run is a chain of pieces of that. A run's datagrams leave in order, and so do the runs.
//!
//! Nothing waits for more to come: the batch ends when the ports have been read.

use std::io::IoSlice;
use std::net::SocketAddr;

use pontoon_switch::PortId;

use crate::flow::{Direction, FlowId};
use crate::host::{MAX_RUN, Token, UdpSend};

/// Bytes that wait at most: a batch of 64 full frames of the usual MTU.
const ROOM: usize = 64 * LONGEST;

/// Bytes of the longest datagram that waits: what a frame of the usual MTU carries. A longer one would be fragmented on
/// its way, or costs more to copy than it saves.
pub(super) const LONGEST: usize = 1472;

/// Runs that wait at most.
const RUNS: usize = 64;

const NONE: u32 = u32::MAX;

/// Datagrams of one flow that go by one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// What each of them is, but for its data.
    pub(super) parcel: Parcel,
    /// Payload bytes of each but the last.
    pub(super) size: usize,
    /// How many.
    pub(super) count: usize,
    /// Payload bytes of all.
    pub(super) len: usize,
    /// Whether one more may come.
    open: bool,
    first: u32,
    last: u32,
}

/// Some whole datagrams of a run, one after another.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u32,
    len: u32,
    next: u32,
}

/// The datagrams that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    runs: Vec<Run>,
}

/// A datagram to be put into the outbox, without its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parcel {
    /// The socket.
    pub(super) token: Token,
    /// How it goes, without the segment size.
    pub(super) how: UdpSend,
    /// Whose it is.
    pub(super) flow: FlowId,
    /// Which way it goes in it.
    pub(super) direction: Direction,
    /// The port it came from.
    pub(super) ingress: PortId,
    /// The container's address and port.
    pub(super) src: SocketAddr,
    /// Where it goes, as the container sees it.
    pub(super) dst: SocketAddr,
    /// Bytes of its headers, from the IP header on.
    pub(super) header: usize,
}

impl Outbox {
    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// True if a datagram of `flow` waits.
    pub(super) fn holds(&self, flow: FlowId) -> bool {
        self.runs.iter().any(|r| r.parcel.flow == flow)
    }

    /// True if one more datagram of any kind finds room.
    pub(super) fn has_room(&self) -> bool {
        self.runs.len() < RUNS && self.bytes.len() + LONGEST <= ROOM
    }

    /// Puts a datagram in, of 1 to [`LONGEST`] bytes; there is [room](Self::has_room).
    pub(super) fn push(&mut self, parcel: &Parcel, data: &[u8]) {
        debug_assert!(self.has_room() && (1..=LONGEST).contains(&data.len()));
        // Made when first needed.
        self.bytes.reserve(ROOM - self.bytes.len());
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(data);
        // Only the newest run of a flow can be gone on with: what was sent later must not overtake.
        let newest = self.runs.iter_mut().rev().find(|r| r.parcel.flow == parcel.flow);
        if let Some(run) = newest.filter(|r| r.takes(parcel, data.len())) {
            run.count += 1;
            run.len += data.len();
            run.open = data.len() == run.size;
            let last = run.last as usize;
            if self.pieces[last].at + self.pieces[last].len == at {
                self.pieces[last].len += data.len() as u32;
                return;
            }
            run.last = self.pieces.len() as u32;
            self.pieces[last].next = run.last;
        } else {
            let piece = self.pieces.len() as u32;
            self.runs.push(Run {
                parcel: *parcel,
                size: data.len(),
                count: 1,
                len: data.len(),
                open: true,
                first: piece,
                last: piece,
            });
        }
        self.pieces.push(Piece {
            at,
            len: data.len() as u32,
            next: NONE,
        });
    }

    /// The runs, oldest first.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The bytes of `run`, in pieces of whole datagrams; how many pieces.
    pub(super) fn parts<'s>(&'s self, run: &Run, parts: &mut [IoSlice<'s>; MAX_RUN]) -> usize {
        let mut n = 0;
        let mut index = run.first;
        while let Some(piece) = self.pieces.get(index as usize) {
            let at = piece.at as usize;
            parts[n] = IoSlice::new(&self.bytes[at..at + piece.len as usize]);
            n += 1;
            index = piece.next;
        }
        n
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
        self.runs.clear();
    }
}

impl Run {
    fn takes(&self, parcel: &Parcel, len: usize) -> bool {
        self.open
            && self.count < MAX_RUN
            && len <= self.size
            && self.parcel.header == parcel.header
            && self.parcel.token == parcel.token
            && self.parcel.how == parcel.how
            // Of one IP packet: MAX_RUN of LONGEST are more than 65,535 bytes.
            && self.len + len <= LONGEST_RUN
    }
}

/// Payload bytes that one call takes, of either IP version.
const LONGEST_RUN: usize = 65_507;
