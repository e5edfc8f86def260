//! True connections through bad networks, and guesses.

use proptest::prelude::*;

use super::*;

/// One end of a connection that sends as it should through a network that loses, repeats and reorders on both sides of the tracker.
#[derive(Debug, Default)]
struct End {
    /// Bytes sent, had in order, and the FIN counted in both.
    sent: u32,
    acked: u32,
    had: u32,
    fin: bool,
}

proptest! {
    /// No segment of two ends that keep to the protocol is refused, whatever the network does to it, unless it is of no use.
    #[test]
    fn nothing_of_a_true_connection_is_refused(
        scales in (0_u8..15, 0_u8..15),
        numbers in any::<(u32, u32)>(),
        ops in proptest::collection::vec((any::<bool>(), 0_u8..8, 1_u32..40_000, 0_usize..8), 1..300),
    ) {
        let isn = [numbers.0, numbers.1];
        let scale = [scales.0, scales.1];
        let syn = |flags, end: usize, ack| Segment {
            window: 65_535,
            window_scale: Some(scale[end]),
            ..seg(flags, isn[end], ack, 0)
        };
        let mut tracker = Tracker::open(&syn(SYN, 0, 0)).unwrap();
        let mut state = tracker
            .step(State::SynSent, SERVER, &syn(SYN_ACK, 1, isn[0].wrapping_add(1)))
            .unwrap();
        let mut ends = [End::default(), End::default()];
        let room = [65_535_u32 << scale[0], 65_535 << scale[1]];
        // On its way to the tracker: who sent it, what.
        let mut before: Vec<(usize, Segment)> = Vec::new();
        // The initiator's answer comes first; what comes before it is not of an established connection.
        let hello = seg(ACK, isn[0].wrapping_add(1), isn[1].wrapping_add(1), 0);
        state = tracker.step(state, CLIENT, &hello).unwrap();
        for (from_server, op, len, pick) in ops {
            let me = usize::from(from_server);
            let segment = |ends: &[End; 2], flags: Flags, at: u32, len: u32| Segment {
                window: 65_535,
                ..seg(
                    flags,
                    isn[me].wrapping_add(1).wrapping_add(at),
                    isn[1 - me].wrapping_add(1).wrapping_add(ends[me].had),
                    len,
                )
            };
            match op {
                // New data as far as the window goes; not behind a FIN. The first flight is bounded by the SYN's window.
                0..=2 if !ends[me].fin => {
                    let window = if ends[me].acked == 0 { 65_535 } else { room[1 - me] };
                    let len = len.min((window - (ends[me].sent - ends[me].acked)).min(40_000));
                    before.push((me, segment(&ends, ACK, ends[me].sent, len)));
                    ends[me].sent += len;
                }
                3 if len < 200 && !ends[me].fin => {
                    before.push((me, segment(&ends, FIN, ends[me].sent, 0)));
                    ends[me].sent += 1;
                    ends[me].fin = true;
                }
                // Again from what is not acknowledged, or a bare acknowledgement, or a keep-alive.
                4 if !ends[me].fin => {
                    let len = len.min(ends[me].sent - ends[me].acked);
                    before.push((me, segment(&ends, ACK, ends[me].acked, len)));
                }
                5 => before.push((me, segment(&ends, ACK, ends[me].sent.wrapping_sub(1), 0))),
                _ => before.push((me, segment(&ends, ACK, ends[me].sent, 0))),
            }
            // One of the last eight comes to the tracker; it may be lost behind it, or be lost before.
            let at = before.len() - 1 - pick.min(before.len() - 1);
            let (from, passing) = before[at];
            if op != 7 && at + 8 >= before.len() {
                let dir = if from == 0 { CLIENT } else { SERVER };
                let stepped = tracker.step(state, dir, &passing);
                // One that was overtaken may be too old for the receiver itself.
                let had = isn[from].wrapping_add(1).wrapping_add(ends[1 - from].had);
                if stepped.is_err() && at + 1 < before.len() && !after(passing.end(), had) {
                    continue;
                }
                prop_assert!(stepped.is_ok(), "{:?} {:?} by {:?}", dir, passing, tracker);
                state = stepped.unwrap();
                prop_assert!(state != State::Closed);
                if pick != 3 {
                    let to = 1 - from;
                    let start = passing.seq.wrapping_sub(isn[from]).wrapping_sub(1);
                    let end = passing.end().wrapping_sub(isn[from]).wrapping_sub(1);
                    if !after(start, ends[to].had) && after(end, ends[to].had) {
                        ends[to].had = end;
                    }
                    let acked = passing.ack.wrapping_sub(isn[to]).wrapping_sub(1);
                    if after(acked, ends[to].acked) {
                        ends[to].acked = acked;
                    }
                }
            }
        }
    }

    /// Who guesses numbers has next to no chance: a few windows among four thousand million, for both at once.
    #[test]
    fn guesses_are_refused(seq in any::<u32>(), ack in any::<u32>(), len in 0_u32..65_000) {
        let mut rig = Rig::established();
        let near = |n: u32, to: u32, by: u32| n.wrapping_sub(to.wrapping_sub(by)) < 2 * by;
        prop_assume!(!near(seq, S, 200_000) || !near(ack, C, 200_000));
        rig.refused(SERVER, seg(ACK, seq, ack, len));
        prop_assume!(!near(seq, S, 200_000));
        rig.refused(SERVER, seg(RST, seq, ack, 0));
    }
}
