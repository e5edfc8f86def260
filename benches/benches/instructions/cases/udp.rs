//! The UDP relay, between a container's datagrams and a host socket that takes and gives at once.

use pontoon_benches::frames::{TRANSPORT, UDP_SIZE, UDP_SUPER_PAYLOAD, udp};
use pontoon_benches::gateway::{Rig, SOURCE, to_server};
use pontoon_benches::host::SERVER;

use crate::meter::{counted, row};

const ROUNDS: u32 = 50;

/// Payload of a short datagram.
const SHORT: usize = 64;

/// Datagrams of a flow from the container, each with the end of its batch.
pub(crate) fn out() {
    let mut rig = Rig::default();
    for (name, payload) in [("64-bytes", SHORT), ("uso", UDP_SUPER_PAYLOAD)] {
        let mut sample = udp(&to_server(), (SOURCE, SERVER.port()), payload);
        row(name, ROUNDS, |_| {
            counted(&mut || {
                rig.frame(&mut sample);
                rig.flush();
            });
            assert_eq!(rig.wire.taken.take(), payload);
        });
    }
    let mut sample = udp(&to_server(), (SOURCE, SERVER.port()), SHORT);
    row("64-bytes-32-in-a-batch", ROUNDS, |_| {
        counted(&mut || {
            (0..32).for_each(|_| rig.frame(&mut sample));
            rig.flush();
        });
        assert_eq!(rig.wire.taken.take(), 32 * SHORT);
    });
    row("new-flow", ROUNDS, |n| {
        let mut sample = udp(&to_server(), (SOURCE, 5000 + n as u16), SHORT);
        counted(&mut || {
            rig.frame(&mut sample);
            rig.flush();
        });
        assert_eq!(rig.wire.taken.take(), SHORT);
    });
    assert_eq!(rig.sent(), 0);
}

/// Datagrams of a flow from the host: one alone and what ends the reading, one more of a run, and a run joined by the
/// kernel.
pub(crate) fn into() {
    let mut rig = Rig::default();
    rig.frame(&mut udp(&to_server(), (SOURCE, SERVER.port()), SHORT));
    rig.flush();
    rig.out.bytes = 0;
    let mut receive = |name, count: usize, len: usize, segment: Option<u16>| {
        row(name, ROUNDS, |_| {
            rig.wire.datagrams.set(count);
            rig.wire.datagram_len.set(len);
            rig.wire.segment.set(segment);
            counted(&mut || rig.ready());
            rig.flush();
            // What waits is joined, so there are fewer frames than datagrams, but all of their bytes.
            let frames = rig.sent();
            assert!((1..=count as u64).contains(&frames), "{frames} of {count}");
            let headers = frames * (TRANSPORT as u64 + 8);
            assert_eq!(std::mem::take(&mut rig.out.bytes), headers + (count * len) as u64);
        });
    };
    receive("64-bytes", 1, SHORT, None);
    receive("64-bytes-32-waiting", 32, SHORT, None);
    receive("uso", 1, UDP_SUPER_PAYLOAD, Some(UDP_SIZE));
}
