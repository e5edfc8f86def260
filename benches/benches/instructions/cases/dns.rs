//! The name server.

use pontoon_benches::frames::{TRANSPORT, udp};
use pontoon_benches::gateway::{Rig, to};

use crate::meter::{counted, row};

/// A question for a container's name, answered from memory.
pub(crate) fn local() {
    let mut rig = Rig::default();
    // Identification, recursion desired, one question: A of "one".
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03one\0\0\x01\0\x01";
    let mut sample = udp(&to("10.0.2.2"), (40_000, 53), question.len());
    sample.bytes[TRANSPORT + 8..].copy_from_slice(question);
    row("local-name", 20, |_| {
        counted(&mut || rig.frame(&mut sample));
        assert_eq!(rig.sent(), 1);
        // The answer's header: no error, one answer.
        let header = &rig.out.last[TRANSPORT + 8..];
        assert_eq!((header[3] & 0x0f, &header[6..8]), (0, &[0, 1][..]), "an answer");
    });
}
