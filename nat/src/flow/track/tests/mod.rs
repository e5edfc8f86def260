mod properties;

use pontoon_switch::DropReason;

use super::*;

const CLIENT: Direction = Direction::Original;
const SERVER: Direction = Direction::Reply;
/// First sequence numbers, near the wrap-around.
const C: u32 = u32::MAX - 500;
const S: u32 = 0x7fff_ff00;

/// A connection between two ends, and what the tracker says to it.
struct Rig {
    tracker: Tracker,
    state: State,
}

fn seg(flags: Flags, seq: u32, ack: u32, len: u32) -> Segment {
    Segment {
        seq,
        ack,
        window: 1000,
        flags,
        len,
        window_scale: flags.has(Flags::SYN).then_some(4),
    }
}

const SYN: Flags = Flags::SYN;
const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);
const ACK: Flags = Flags::ACK;
const FIN: Flags = Flags::FIN.with(Flags::ACK);
const RST: Flags = Flags::RST;
const RST_ACK: Flags = Flags::RST.with(Flags::ACK);
/// What either end offers when scaled.
const WINDOW: u32 = 1000 << 4;

impl Rig {
    fn opening() -> Self {
        Self {
            tracker: Tracker::open(&seg(SYN, C, 0, 0)).unwrap(),
            state: State::SynSent,
        }
    }

    fn established() -> Self {
        let mut rig = Self::opening();
        rig.goes(SERVER, seg(SYN_ACK, S, C.wrapping_add(1), 0), State::SynReceived);
        rig.goes(CLIENT, rig.c(ACK, 0, 0, 0), State::Established);
        // Both ends have told their scaled window.
        rig.goes(SERVER, rig.s(ACK, 0, 0, 0), State::Established);
        rig
    }

    /// The client's segment: bytes behind its SYN, bytes of the server's that it acknowledges.
    fn c(&self, flags: Flags, seq: u32, ack: u32, len: u32) -> Segment {
        seg(
            flags,
            C.wrapping_add(1).wrapping_add(seq),
            S.wrapping_add(1).wrapping_add(ack),
            len,
        )
    }

    /// The server's, likewise.
    fn s(&self, flags: Flags, seq: u32, ack: u32, len: u32) -> Segment {
        seg(
            flags,
            S.wrapping_add(1).wrapping_add(seq),
            C.wrapping_add(1).wrapping_add(ack),
            len,
        )
    }

    #[track_caller]
    fn goes(&mut self, dir: Direction, seg: Segment, state: State) {
        self.state = self
            .tracker
            .step(self.state, dir, &seg)
            .unwrap_or_else(|_| panic!("{dir:?} {seg:?} was refused"));
        assert_eq!(self.state, state, "after {dir:?} {seg:?}");
    }

    /// The segment is refused, and nothing has changed by it.
    #[track_caller]
    fn refused(&mut self, dir: Direction, seg: Segment) {
        let before = format!("{:?}", self.tracker);
        assert_eq!(
            self.tracker.step(self.state, dir, &seg),
            Err(DropReason::OutOfWindow),
            "{dir:?} {seg:?}"
        );
        assert_eq!(
            format!("{:?}", self.tracker),
            before,
            "changed by {dir:?} {seg:?}"
        );
    }
}

#[test]
fn a_tracker_is_small() {
    assert!(size_of::<Tracker>() <= 32, "{}", size_of::<Tracker>());
}

#[test]
fn a_connection_opens_and_closes() {
    let mut rig = Rig::established();
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 100), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 100, 3000), State::Established);
    rig.goes(CLIENT, rig.c(FIN, 100, 3000, 0), State::HalfClosed);
    rig.goes(SERVER, rig.s(ACK, 3000, 101, 0), State::HalfClosed);
    rig.goes(SERVER, rig.s(FIN, 3000, 101, 0), State::Closing);
    rig.goes(CLIENT, rig.c(ACK, 101, 3001, 0), State::TimeWait);
    rig.goes(SERVER, rig.s(FIN, 3000, 101, 0), State::TimeWait);
    rig.goes(CLIENT, rig.c(ACK, 101, 3001, 0), State::TimeWait);
}

#[test]
fn a_connection_begins_with_a_syn_only() {
    for flags in [
        ACK,
        SYN_ACK,
        FIN,
        RST,
        RST_ACK,
        Flags::SYN.with(Flags::FIN),
        Flags::default(),
    ] {
        assert!(Tracker::open(&seg(flags, C, 0, 0)).is_none(), "{flags:?}");
    }
}

#[test]
fn control_bits_that_no_tcp_sends_are_refused_in_every_state() {
    for state in [State::SynSent, State::Established, State::TimeWait, State::Closed] {
        let mut rig = Rig::established();
        rig.state = state;
        for flags in [
            Flags::default(),
            Flags::FIN,
            SYN.with(FIN),
            SYN.with(RST),
            RST.with(FIN),
        ] {
            rig.refused(CLIENT, rig.c(flags, 0, 0, 0));
            rig.refused(SERVER, rig.s(flags, 0, 0, 0));
        }
    }
}

/// RFC 5961 section 3: a reset outside of the window is dropped; one inside that is not exact is the receiver's to challenge.
#[test]
fn a_blind_reset_does_not_close() {
    let mut rig = Rig::established();
    rig.goes(SERVER, rig.s(ACK, 0, 0, 500), State::Established);
    rig.goes(CLIENT, rig.c(ACK, 0, 500, 0), State::Established);
    for seq in [499, 500 + WINDOW + 1, 1 << 30, 1 << 31, 3 << 30] {
        rig.refused(SERVER, rig.s(RST, seq, 0, 0));
        rig.refused(SERVER, rig.s(RST_ACK, seq, 0, 0));
    }
    for seq in [501, 500 + WINDOW] {
        rig.goes(SERVER, rig.s(RST, seq, 0, 0), State::Established);
    }
    // The challenge, and the exact reset of a true sender.
    rig.goes(CLIENT, rig.c(ACK, 0, 500, 0), State::Established);
    rig.goes(SERVER, rig.s(RST, 500, 0, 0), State::Closed);
}

/// What was sent last may be lost, or not acknowledged yet, when the reset comes behind it.
#[test]
fn a_reset_behind_data_that_is_not_acknowledged_closes() {
    let mut rig = Rig::established();
    rig.goes(SERVER, rig.s(ACK, 0, 0, 700), State::Established);
    rig.goes(SERVER, rig.s(RST_ACK, 700, 0, 0), State::Closed);
    // What was on its way still passes.
    rig.goes(CLIENT, rig.c(ACK, 0, 700, 10), State::Closed);
    rig.refused(CLIENT, rig.c(ACK, 0, 700 + (1 << 20), 10));
}

/// RFC 9293 section 3.10.7.3: in answer to a SYN only a reset that acknowledges it counts.
#[test]
fn a_blind_reset_does_not_refuse_a_connection() {
    let mut rig = Rig::opening();
    rig.refused(SERVER, seg(RST, 0, 0, 0));
    rig.refused(SERVER, seg(RST, 0, C.wrapping_add(1), 0));
    for ack in [C, C.wrapping_add(2), 0] {
        rig.refused(SERVER, seg(RST_ACK, 0, ack, 0));
    }
    rig.goes(SERVER, seg(RST_ACK, 0, C.wrapping_add(1), 0), State::Closed);
    // The client tries again.
    rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynSent);
    rig.goes(SERVER, seg(RST_ACK, 0, C.wrapping_add(1), 0), State::Closed);
}

#[test]
fn blind_data_is_refused() {
    let mut rig = Rig::established();
    rig.goes(SERVER, rig.s(ACK, 0, 0, 500), State::Established);
    rig.goes(CLIENT, rig.c(ACK, 0, 500, 100), State::Established);
    for (seq, ack) in [
        // Beyond the window, long before it, and at the other side of the numbers.
        (501 + WINDOW, 100),
        (400_u32.wrapping_sub(WINDOW), 100),
        (1 << 31, 100),
        // Right in sequence, but acknowledging what was not sent, or what was long ago.
        (500, 101),
        (500, u32::MAX - LATE_ACK),
        (500, 1 << 31),
    ] {
        rig.refused(SERVER, rig.s(ACK, seq, ack, 10));
        rig.refused(SERVER, rig.s(FIN, seq, ack, 10));
    }
}

#[test]
fn a_blind_syn_changes_nothing() {
    let mut rig = Rig::established();
    for seq in [0, C, S, 1 << 30] {
        rig.refused(SERVER, seg(SYN, seq, 0, 0));
        rig.refused(SERVER, seg(SYN_ACK, seq.wrapping_sub(1 << 29), 7, 0));
        // The initiator's passes, for it may have forgotten the connection; what counts is the answer.
        rig.goes(CLIENT, seg(SYN, seq, 0, 0), State::Established);
        rig.goes(SERVER, rig.s(ACK, 0, 0, 0), State::Established);
    }
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 100), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 100, 100), State::Established);
}

#[test]
fn a_stale_syn_is_answered_by_a_challenge_upon_which_the_initiator_resets() {
    let mut rig = Rig::established();
    let fresh = C.wrapping_add(1 << 30);
    rig.goes(CLIENT, seg(SYN, fresh, 0, 0), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 0, 0), State::Established);
    rig.goes(CLIENT, rig.c(RST, 0, 0, 0), State::Closed);
    rig.goes(CLIENT, seg(SYN, fresh, 0, 0), State::SynSent);
    rig.goes(
        SERVER,
        seg(SYN_ACK, S ^ 1, fresh.wrapping_add(1), 0),
        State::SynReceived,
    );
}

/// The flow had ended here while the server still has the connection.
#[test]
fn a_challenge_to_a_first_syn_passes() {
    let mut rig = Rig::opening();
    let old = seg(ACK, S, C.wrapping_sub(70_000), 0);
    rig.goes(SERVER, old, State::SynSent);
    rig.refused(SERVER, Segment { len: 10, ..old });
    rig.refused(SERVER, Segment { flags: FIN, ..old });
    rig.goes(CLIENT, seg(RST, old.ack, 0, 0), State::SynSent);
    rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynSent);
    rig.goes(SERVER, seg(SYN_ACK, S, C.wrapping_add(1), 0), State::SynReceived);
}

#[test]
fn both_ends_that_have_forgotten_the_connection_begin_anew() {
    let mut rig = Rig::established();
    let (c, s) = (C.wrapping_add(1 << 30), S.wrapping_add(1 << 30));
    let unscaled = Segment {
        window_scale: None,
        ..seg(SYN, c, 0, 0)
    };
    rig.goes(CLIENT, unscaled, State::Established);
    rig.refused(SERVER, seg(SYN_ACK, s, c, 0));
    rig.goes(SERVER, seg(SYN_ACK, s, c.wrapping_add(1), 0), State::SynReceived);
    rig.goes(
        CLIENT,
        seg(ACK, c.wrapping_add(1), s.wrapping_add(1), 0),
        State::Established,
    );
    // The window is that of the new connection.
    let data = |seq: u32| seg(ACK, s.wrapping_add(1 + seq), c.wrapping_add(1), 10);
    rig.goes(SERVER, data(1000), State::Established);
    rig.refused(SERVER, data(1020));
}

#[test]
fn a_late_answer_to_a_syn_that_was_sent_again_does_not_begin_anew() {
    let mut rig = Rig::opening();
    rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynSent);
    let syn_ack = seg(SYN_ACK, S, C.wrapping_add(1), 0);
    rig.goes(SERVER, syn_ack, State::SynReceived);
    rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynReceived);
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 0), State::Established);
    rig.goes(SERVER, syn_ack, State::Established);
    for n in 0..100 {
        rig.goes(SERVER, rig.s(ACK, n * 1000, 0, 1000), State::Established);
        rig.goes(CLIENT, rig.c(ACK, 0, (n + 1) * 1000, 0), State::Established);
    }
    rig.refused(SERVER, syn_ack);
    rig.goes(SERVER, rig.s(ACK, 100_000, 0, 1000), State::Established);
}

#[test]
fn a_syn_is_sent_again_and_answered_again() {
    let mut rig = Rig::opening();
    let syn_ack = seg(SYN_ACK, S, C.wrapping_add(1), 0);
    for _ in 0..3 {
        rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynSent);
    }
    for _ in 0..3 {
        rig.goes(SERVER, syn_ack, State::SynReceived);
        rig.goes(CLIENT, seg(SYN, C, 0, 0), State::SynReceived);
    }
    // A server with SYN cookies has another number each time.
    let cookie = seg(SYN_ACK, S.wrapping_sub(1 << 30), C.wrapping_add(1), 0);
    rig.goes(SERVER, cookie, State::SynReceived);
    let ack = seg(ACK, C.wrapping_add(1), cookie.seq.wrapping_add(1), 0);
    rig.goes(CLIENT, ack, State::Established);
    rig.refused(
        SERVER,
        seg(SYN_ACK, S.wrapping_add(1 << 29), C.wrapping_add(1), 0),
    );
}

#[test]
fn an_answer_that_does_not_acknowledge_the_syn_is_refused() {
    let mut rig = Rig::opening();
    for ack in [C, C.wrapping_add(2), 0] {
        rig.refused(SERVER, seg(SYN_ACK, S, ack, 0));
    }
    rig.refused(CLIENT, rig.c(ACK, 0, 0, 0));
    // A client that begins again with another number is answered to that.
    rig.goes(CLIENT, seg(SYN, C ^ 0xf000_0000, 0, 0), State::SynSent);
    rig.goes(
        SERVER,
        seg(SYN_ACK, S, (C ^ 0xf000_0000).wrapping_add(1), 0),
        State::SynReceived,
    );
}

#[test]
fn a_syn_may_carry_data_that_is_acknowledged_or_not() {
    for acknowledged in [1, 101] {
        let mut rig = Rig::opening();
        rig.tracker = Tracker::open(&seg(SYN, C, 0, 100)).unwrap();
        rig.refused(SERVER, seg(SYN_ACK, S, C.wrapping_add(102), 0));
        rig.goes(
            SERVER,
            seg(SYN_ACK, S, C.wrapping_add(acknowledged), 0),
            State::SynReceived,
        );
        rig.goes(CLIENT, rig.c(ACK, acknowledged - 1, 0, 100), State::Established);
    }
}

/// RFC 5382 REQ-2 a.
#[test]
fn a_simultaneous_open_is_established() {
    let mut rig = Rig::opening();
    rig.goes(SERVER, seg(SYN, S, 0, 0), State::SynReceived);
    rig.goes(SERVER, seg(SYN, S, 0, 0), State::SynReceived);
    rig.goes(CLIENT, seg(SYN_ACK, C, S.wrapping_add(1), 0), State::SynReceived);
    rig.goes(SERVER, seg(SYN_ACK, S, C.wrapping_add(1), 0), State::Established);
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 10), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 10, 10), State::Established);
}

/// A SYN that somebody else threw in does not keep the true answer out.
#[test]
fn a_blind_syn_does_not_spoil_the_opening() {
    let mut rig = Rig::opening();
    rig.goes(SERVER, seg(SYN, S ^ 0xf000_0000, 0, 0), State::SynReceived);
    rig.goes(SERVER, seg(SYN_ACK, S, C.wrapping_add(1), 0), State::SynReceived);
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 10), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 10, 10), State::Established);
}

#[test]
fn a_simultaneous_close_waits() {
    let mut rig = Rig::established();
    rig.goes(CLIENT, rig.c(FIN, 0, 0, 0), State::HalfClosed);
    rig.goes(SERVER, rig.s(FIN, 0, 0, 0), State::Closing);
    rig.goes(CLIENT, rig.c(ACK, 1, 1, 0), State::Closing);
    rig.goes(SERVER, rig.s(ACK, 1, 1, 0), State::TimeWait);
}

/// Data behind a half-close goes on as long as it likes, over the wrap-around of the numbers, too.
#[test]
fn a_half_close_lasts() {
    let mut rig = Rig::established();
    rig.goes(CLIENT, rig.c(FIN, 0, 0, 0), State::HalfClosed);
    let step = 10_000;
    for n in 0..500_000_u32 {
        let at = n.wrapping_mul(step);
        rig.goes(SERVER, rig.s(ACK, at, 1, step), State::HalfClosed);
        rig.goes(CLIENT, rig.c(ACK, 1, at.wrapping_add(step), 0), State::HalfClosed);
    }
    let end = 500_000_u32.wrapping_mul(step);
    rig.goes(SERVER, rig.s(FIN, end, 1, 0), State::Closing);
    rig.goes(CLIENT, rig.c(ACK, 1, end.wrapping_add(1), 0), State::TimeWait);
}

#[test]
fn windows_are_scaled_if_both_offer_it() {
    for (client, server, scaled) in [
        (Some(7), Some(14), true),
        (Some(7), None, false),
        (None, Some(7), false),
        (Some(0), Some(0), false),
    ] {
        let with = |seg: Segment, window_scale| Segment { window_scale, ..seg };
        let mut rig = Rig::opening();
        rig.tracker = Tracker::open(&with(seg(SYN, C, 0, 0), client)).unwrap();
        rig.goes(
            SERVER,
            with(seg(SYN_ACK, S, C.wrapping_add(1), 0), server),
            State::SynReceived,
        );
        // The windows of the SYNs themselves are not scaled.
        let mut early = rig.c(ACK, 0, 0, 0);
        early.window = 10;
        rig.goes(CLIENT, early, State::Established);
        rig.refused(SERVER, rig.s(ACK, 1008 + 10 * 128 + 16, 0, 10));
        rig.goes(CLIENT, rig.c(ACK, 0, 0, 0), State::Established);
        let beyond = rig.s(ACK, 1100, 0, 10);
        if scaled {
            rig.goes(SERVER, beyond, State::Established);
            rig.goes(SERVER, rig.s(ACK, 1000 << 7, 0, 10), State::Established);
            rig.refused(SERVER, rig.s(ACK, (1000 << 7) + 20, 0, 10));
        } else {
            rig.refused(SERVER, beyond);
        }
    }
}

#[test]
fn the_widest_window_is_not_rounded_down() {
    let mut side = Side::opened(&Segment {
        window_scale: Some(14),
        ..seg(SYN, 0, 0, 0)
    });
    for window in [1, 15, 16, 17, 65_535, 65_535 << 14] {
        side.widen(window);
        assert!(side.window() >= window && side.window() < window.max(1000) + 16);
    }
    assert_eq!(
        (side.scale(), side.has(Side::FIN), side.has(Side::ACKED)),
        (14, false, false)
    );
}

#[test]
fn what_was_lost_is_sent_again_and_what_was_overtaken_comes_late() {
    let mut rig = Rig::established();
    // The first of a whole window is lost before it comes here, the rest comes in any order.
    for seq in [1000, 3000, 2000, WINDOW - 1000, 9000] {
        rig.goes(SERVER, rig.s(ACK, seq, 0, 1000), State::Established);
        rig.goes(CLIENT, rig.c(ACK, 0, 0, 0), State::Established);
    }
    for _ in 0..3 {
        rig.goes(SERVER, rig.s(ACK, 0, 0, 1000), State::Established);
    }
    // All of it was acknowledged, and the acknowledgement was lost behind us.
    rig.goes(CLIENT, rig.c(ACK, 0, WINDOW, 0), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 0, 1000), State::Established);
    // An acknowledgement that was overtaken.
    rig.goes(CLIENT, rig.c(ACK, 0, 1000, 0), State::Established);
    // A FIN that overtakes data.
    rig.goes(SERVER, rig.s(FIN, WINDOW + 1000, 0, 0), State::HalfClosed);
    rig.goes(SERVER, rig.s(ACK, WINDOW, 0, 1000), State::HalfClosed);
}

/// RFC 9293 section 3.8.4: one number before the next, with or without a byte of garbage.
#[test]
fn a_keep_alive_passes() {
    let mut rig = Rig::established();
    rig.goes(CLIENT, rig.c(ACK, 0, 0, 5000), State::Established);
    rig.goes(SERVER, rig.s(ACK, 0, 5000, 0), State::Established);
    for len in [0, 1] {
        rig.goes(CLIENT, rig.c(ACK, 4999, 0, len), State::Established);
        rig.goes(SERVER, rig.s(ACK, 0, 5000, 0), State::Established);
        rig.goes(SERVER, rig.s(ACK, u32::MAX, 5000, len), State::Established);
    }
    // The peer has gone: it resets with the number that was acknowledged.
    rig.goes(CLIENT, rig.c(RST, 5000, 0, 0), State::Closed);
}

#[test]
fn a_probe_of_a_closed_window_passes() {
    let mut rig = Rig::established();
    rig.goes(SERVER, rig.s(ACK, 0, 0, WINDOW), State::Established);
    let closed = |rig: &Rig, ack| Segment {
        window: 0,
        ..rig.c(ACK, 0, ack, 0)
    };
    // As Linux probes: behind what is acknowledged, while a whole window is not.
    rig.goes(SERVER, rig.s(ACK, u32::MAX, 0, 0), State::Established);
    rig.goes(CLIENT, closed(&rig, WINDOW), State::Established);
    rig.goes(SERVER, rig.s(ACK, WINDOW - 1, 0, 0), State::Established);
    // As others do: with the next byte.
    rig.goes(SERVER, rig.s(ACK, WINDOW, 0, 1), State::Established);
    rig.goes(CLIENT, closed(&rig, WINDOW), State::Established);
    rig.goes(CLIENT, rig.c(ACK, 0, WINDOW + 1, 0), State::Established);
}

/// RFC 9293 section 3.6.1, RFC 6191: the initiator uses its port again before the wait is over.
#[test]
fn a_tuple_in_time_wait_is_used_again() {
    for state in [State::TimeWait, State::Closed] {
        let mut rig = Rig::established();
        rig.state = state;
        rig.refused(SERVER, seg(SYN, S.wrapping_add(1 << 20), 0, 0));
        rig.goes(SERVER, rig.s(ACK, 0, 0, 0), state);
        let fresh = C.wrapping_add(1 << 20);
        rig.goes(CLIENT, seg(SYN, fresh, 0, 0), State::SynSent);
        rig.refused(SERVER, seg(SYN_ACK, S, C.wrapping_add(1), 0));
        rig.goes(
            SERVER,
            seg(SYN_ACK, S, fresh.wrapping_add(1), 0),
            State::SynReceived,
        );
    }
}

/// RFC 1337.
#[test]
fn a_reset_does_not_cut_time_wait_short() {
    let mut rig = Rig::established();
    rig.state = State::TimeWait;
    rig.goes(SERVER, rig.s(RST, 0, 0, 0), State::TimeWait);
    rig.refused(SERVER, rig.s(RST, u32::MAX, 0, 0));
}

/// Closing without all acknowledged is no end: a SYN waits for its answer.
#[test]
fn a_syn_while_closing_is_answered_first() {
    let mut rig = Rig::established();
    rig.goes(CLIENT, rig.c(FIN, 0, 0, 0), State::HalfClosed);
    rig.goes(SERVER, rig.s(FIN, 0, 0, 0), State::Closing);
    let fresh = C.wrapping_add(1 << 20);
    rig.goes(CLIENT, seg(SYN, fresh, 0, 0), State::Closing);
    rig.goes(SERVER, rig.s(ACK, 1, 0, 0), State::Closing);
    rig.goes(
        SERVER,
        seg(SYN_ACK, S ^ 0xf000_0000, fresh.wrapping_add(1), 0),
        State::SynReceived,
    );
}
