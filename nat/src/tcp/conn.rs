//! One relayed connection: its states and counters. What happens in them is in `input`, `output` and `timer`.
//!
//! ```text
//!  outbound: SYN ─► Connecting ─ host connected ─► SynAckSent ─ ACK ─► Open
//!  inbound:  accepted ─► SynSent ─ SYN-ACK ─► Open
//!
//!  Open is two halves that end separately:
//!    from the container   Recv::Open ─ FIN, all data taken; shutdown(SHUT_WR) on the host ─► Recv::Shut
//!    to the container     Send::Open ─ host's end of stream, FIN sent ─► Send::FinSent ─ ACK ─► Send::FinAcked
//!  Both ended: gone at once if the container's FIN was first (it does the waiting), else TimeWait.
//!  A reset from either side, in any state, resets the other and the connection is gone.
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pontoon_switch::Instant;

use super::seq::Seq;
use crate::flow::{Direction, FlowId, State};
use crate::share::Ticket;

/// Retransmission time-out before anything is measured (RFC 6298 section 2.1), in microseconds.
const RTO_INITIAL: u32 = 1_000_000;
/// Least retransmission time-out: the container is on this machine. In microseconds.
const RTO_MIN: u32 = 200_000;
/// Greatest retransmission time-out, in microseconds.
const RTO_MAX: u32 = 60_000_000;
/// A window that no loss has narrowed.
const UNBOUNDED: u32 = 1 << 30;

/// How far the connection is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The container's SYN is here, the host's connect is on its way; the container has heard nothing.
    Connecting,
    /// The host is connected, our SYN-ACK is out.
    SynAckSent,
    /// A client of a published port is here, our SYN is out.
    SynSent,
    /// Open; see [`Recv`] and [`Send`].
    Open,
    /// Over, and the host's socket closed; a FIN that comes again is acknowledged again.
    TimeWait,
}

/// The half from the container to the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recv {
    /// More may come.
    Open,
    /// The container's FIN has come and was passed on.
    Shut,
}

/// The half from the host to the container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Send {
    /// More may come.
    Open,
    /// The host's stream has ended and our FIN is out.
    FinSent,
    /// The container has acknowledged it.
    FinAcked,
}

/// Whether an acknowledgement is owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AckDue {
    /// None.
    No,
    /// At the end of the batch; the connection is on the relay's list.
    Now,
    /// Then at the latest; the connection is in the relay's queue.
    By(Instant),
}

#[derive(Debug)]
pub(super) struct Conn<S> {
    pub(super) flow: FlowId,
    /// None only in TimeWait.
    pub(super) socket: Option<S>,
    /// For the socket, and as long.
    pub(super) ticket: Option<Ticket>,
    pub(super) container: SocketAddr,
    /// Whom the container talks to, as it sees it.
    pub(super) remote: SocketAddr,
    /// In SynSent: the container's address of the other IP version, asked if this one refuses.
    pub(super) alternate: Option<IpAddr>,
    pub(super) phase: Phase,
    pub(super) recv: Recv,
    pub(super) send: Send,

    /// Next sequence number expected of the container.
    pub(super) rcv_nxt: Seq,
    /// What was last acknowledged to it.
    pub(super) rcv_acked: Seq,
    /// Right edge of the window advertised to it.
    pub(super) rcv_edge: Seq,
    /// The largest window ever advertised to it, in bytes.
    pub(super) rcv_most: u32,
    /// Bytes of data in its last frame that held a whole segment or more.
    pub(super) piece: u16,
    /// Our window scale.
    pub(super) rcv_scale: u8,

    /// First sequence number not acknowledged; in Open, that of the first byte in the host's socket.
    pub(super) snd_una: Seq,
    /// Next to be sent; behind `snd_max` while something is sent again.
    pub(super) snd_nxt: Seq,
    /// Behind everything ever sent.
    pub(super) snd_max: Seq,
    /// Number of our FIN, unless [`Send::Open`].
    pub(super) fin_seq: Seq,
    /// The container's window in bytes.
    pub(super) snd_wnd: u32,
    pub(super) snd_scale: u8,
    /// Bytes of data in a segment to the container.
    pub(super) mss: u16,

    /// Congestion window in bytes: unbounded until a loss shows that the device's queue is not.
    pub(super) cwnd: u32,
    pub(super) ssthresh: u32,
    pub(super) duplicate_acks: u8,
    /// In fast recovery until this is acknowledged (RFC 6582).
    pub(super) recover: Option<Seq>,
    /// Smoothed round-trip time, its variation and the time-out that follows from them, in microseconds.
    srtt: Option<u32>,
    rttvar: u32,
    rto: u32,
    /// Retransmissions or probes without an answer.
    pub(super) tries: u8,
    /// A segment being timed: acknowledged by this number, sent then.
    pub(super) timing: Option<(Seq, Instant)>,

    /// The host's socket may have data behind what was peeked at.
    pub(super) readable: bool,
    /// The host's stream has ended or failed, so reading goes on until it says so.
    pub(super) hangup: bool,
    /// The host's socket has reported an error: its end of stream is a reset.
    pub(super) failed: bool,
    /// Our FIN went out before the container's came in.
    pub(super) closed_first: bool,
    /// Whether an acknowledgement is owed.
    pub(super) ack_due: AckDue,
    /// The window was advertised as (nearly) closed: tell when it reopens.
    pub(super) window_closed: bool,
    /// The host's socket had plenty of room when the window was last found out, and was sent nothing since.
    pub(super) roomy: bool,
    /// The host's socket did not take all that it was offered; the container must send the rest again.
    pub(super) short: bool,
    /// The host's kernel asks a silent far side whether it is there.
    pub(super) watched: bool,

    /// When the timer of this state runs out.
    pub(super) timer: Option<Instant>,
    /// The time under which the connection is in the relay's timer queue.
    pub(super) queued: Option<Instant>,
    /// When the container was last heard.
    pub(super) heard: Instant,
}

impl<S> Conn<S> {
    pub(super) fn new(
        now: Instant,
        flow: FlowId,
        (socket, ticket): (S, Option<Ticket>),
        container: SocketAddr,
        remote: SocketAddr,
        phase: Phase,
        iss: Seq,
    ) -> Self {
        Self {
            flow,
            socket: Some(socket),
            ticket,
            container,
            remote,
            alternate: None,
            phase,
            recv: Recv::Open,
            send: Send::Open,
            rcv_nxt: Seq(0),
            rcv_acked: Seq(0),
            rcv_edge: Seq(0),
            rcv_most: 0,
            piece: 0,
            rcv_scale: 0,
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            fin_seq: iss,
            snd_wnd: 0,
            snd_scale: 0,
            mss: 536,
            cwnd: UNBOUNDED,
            ssthresh: UNBOUNDED,
            duplicate_acks: 0,
            recover: None,
            srtt: None,
            rttvar: 0,
            rto: RTO_INITIAL,
            tries: 0,
            timing: None,
            readable: false,
            hangup: false,
            failed: false,
            closed_first: false,
            ack_due: AckDue::No,
            window_closed: false,
            roomy: false,
            short: false,
            watched: false,
            timer: None,
            queued: None,
            heard: now,
        }
    }

    /// Bytes sent and not acknowledged, as far as they are to be sent (again).
    pub(super) fn in_flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// True if something was sent that is not acknowledged.
    pub(super) fn outstanding(&self) -> bool {
        self.snd_una != self.snd_max
    }

    /// The number of a segment without data: behind everything ever sent, as far as the container's window allows. An
    /// earlier one, while something is sent again, might be one that the container has had, so that it would pass over what
    /// the segment acknowledges.
    pub(super) fn bare_seq(&self) -> Seq {
        let edge = self.snd_una.plus(self.snd_wnd);
        if self.snd_max.after(edge) {
            edge
        } else {
            self.snd_max
        }
    }

    /// True if there is, or may be, something to send or to send again.
    pub(super) fn has_more(&self) -> bool {
        self.send != Send::FinAcked && (self.readable || self.snd_nxt != self.snd_max)
    }

    /// The direction of the container's packets in the flow: the initiator's, if it opened it.
    pub(super) fn direction(outbound: bool) -> Direction {
        if outbound {
            Direction::Original
        } else {
            Direction::Reply
        }
    }

    /// The state of the flow in the conntrack table.
    pub(super) fn state(&self) -> State {
        match (self.phase, self.recv, self.send) {
            (Phase::Connecting, _, _) => State::SynSent,
            (Phase::SynAckSent | Phase::SynSent, _, _) => State::SynReceived,
            (Phase::TimeWait, _, _) => State::RelayTimeWait,
            (Phase::Open, Recv::Open, Send::Open) => State::Established,
            (Phase::Open, Recv::Shut, Send::Open) => State::HalfClosed,
            (Phase::Open, Recv::Open, Send::FinSent | Send::FinAcked) => State::HalfClosed,
            (Phase::Open, Recv::Shut, Send::FinSent | Send::FinAcked) => State::Closing,
        }
    }

    /// The present retransmission time-out, backed off by the tries so far.
    pub(super) fn rto(&self) -> Duration {
        let rto = self.rto.saturating_mul(1 << self.tries.min(8)).min(RTO_MAX);
        Duration::from_micros(rto.into())
    }

    /// Takes a round-trip time into the estimate (RFC 6298 section 2).
    pub(super) fn measured(&mut self, rtt: Duration) {
        let rtt = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).min(RTO_MAX);
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((srtt * 7 + rtt) / 8);
            }
        }
        self.rto = (self.srtt.unwrap_or(rtt) + self.rttvar * 4).clamp(RTO_MIN, RTO_MAX);
    }

    /// A loss: half of what is under way is what the path holds (RFC 5681 section 3.1).
    pub(super) fn narrow(&mut self) {
        let flight = self.snd_max.since(self.snd_una);
        self.ssthresh = (flight / 2).max(2 * u32::from(self.mss));
        self.timing = None;
    }

    /// `acked` bytes have arrived: the window grows, by slow start below the threshold, else by a segment a round.
    pub(super) fn widen(&mut self, acked: u32) {
        let mss = u32::from(self.mss);
        let by = if self.cwnd < self.ssthresh {
            acked
        } else {
            (u64::from(mss) * u64::from(acked) / u64::from(self.cwnd.max(1))) as u32
        };
        self.cwnd = (self.cwnd + by.max(1)).min(UNBOUNDED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Entry;
    use crate::host::real::RealTcp;

    /// An idle connection costs one descriptor and at most this much of our memory: its state here, its conntrack
    /// entry and that entry's share of the index, and one record in the timer queue.
    #[test]
    fn a_connection_fits_in_512_bytes() {
        let index = 2 * (size_of::<u32>() + 1);
        let timer = size_of::<(Instant, u32, u32)>();
        let all = size_of::<Conn<RealTcp>>() + size_of::<Entry>() + index + timer;
        assert!(all <= 512, "{all} bytes");
    }

    #[test]
    fn the_retransmission_timeout_follows_rfc_6298() {
        let at = std::net::SocketAddr::from(([10, 0, 2, 100], 1));
        let flow = FlowId {
            index: 0,
            generation: 0,
        };
        let mut c = Conn::new(Instant::ZERO, flow, ((), None), at, at, Phase::Open, Seq(0));
        assert_eq!(c.rto(), Duration::from_secs(1), "section 2.1");
        c.measured(Duration::from_millis(100));
        assert_eq!(c.rto(), Duration::from_millis(300), "section 2.2: R + 4 R/2");
        for _ in 0..100 {
            c.measured(Duration::from_micros(50));
        }
        assert_eq!(c.rto(), Duration::from_millis(200));
        c.tries = 3;
        assert_eq!(c.rto(), Duration::from_millis(1600), "section 5.5");
        c.tries = u8::MAX;
        assert!(c.rto() <= Duration::from_secs(60));
    }

    #[test]
    fn a_segment_without_data_is_never_one_that_the_container_has_had() {
        let at = std::net::SocketAddr::from(([10, 0, 2, 100], 1));
        let flow = FlowId {
            index: 0,
            generation: 0,
        };
        let mut c = Conn::new(
            Instant::ZERO,
            flow,
            ((), None),
            at,
            at,
            Phase::Open,
            Seq(u32::MAX - 9),
        );
        // All of 100 bytes was sent, and begins to be sent again.
        c.snd_max = c.snd_una.plus(100);
        c.snd_wnd = 1000;
        assert_eq!(c.bare_seq(), Seq(90));
        c.snd_wnd = 50;
        assert_eq!(c.bare_seq(), Seq(40), "within a window that was taken back");
        c.snd_wnd = 0;
        assert_eq!(c.bare_seq(), c.snd_una);
    }

    #[test]
    fn states_as_conntrack_shows_them() {
        let at = std::net::SocketAddr::from(([10, 0, 2, 100], 1));
        let flow = FlowId {
            index: 0,
            generation: 0,
        };
        let mut table = String::new();
        for phase in [
            Phase::Connecting,
            Phase::SynAckSent,
            Phase::SynSent,
            Phase::Open,
            Phase::TimeWait,
        ] {
            for recv in [Recv::Open, Recv::Shut] {
                for send in [Send::Open, Send::FinSent, Send::FinAcked] {
                    let mut c = Conn::new(Instant::ZERO, flow, ((), None), at, at, phase, Seq(0));
                    (c.recv, c.send) = (recv, send);
                    if phase == Phase::Open {
                        table += &format!("{recv:?} {send:?}: {}\n", c.state().name());
                    } else if (recv, send) == (Recv::Open, Send::Open) {
                        table += &format!("{phase:?}: {}\n", c.state().name());
                    }
                }
            }
        }
        assert_eq!(
            table,
            "Connecting: syn-sent\nSynAckSent: syn-received\nSynSent: syn-received\n\
             Open Open: established\nOpen FinSent: half-closed\nOpen FinAcked: half-closed\n\
             Shut Open: half-closed\nShut FinSent: closing\nShut FinAcked: closing\nTimeWait: time-wait\n"
        );
    }
}
