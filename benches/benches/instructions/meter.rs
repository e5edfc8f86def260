//! The measured side: what a case marks for callgrind.

use std::hint::black_box;

/// How callgrind knows [`counted`].
pub(crate) const COUNTED: &str = "instructions::meter::counted";
/// How callgrind knows [`written`].
pub(crate) const WRITTEN: &str = "instructions::meter::written";

/// Rounds before the count begins, in which tables grow and libraries are bound.
const WARM: u32 = 3;

/// Does `op`, whose instructions count. Everything else is free.
#[inline(never)]
pub(crate) fn counted(op: &mut dyn FnMut()) {
    op();
    // Not a tail call: the end of this function is the end of the count.
    black_box(0u8);
}

/// Has callgrind write its counters out and begin anew.
#[inline(never)]
fn written() {
    black_box(0u8);
}

/// One row: `rounds` rounds of `body`, which is given the number of the round and marks by [`counted`], as often as it
/// likes, what is measured of it.
pub(crate) fn row(name: &str, rounds: u32, mut body: impl FnMut(u32)) {
    for n in 0..WARM {
        body(n);
    }
    written();
    for n in 0..rounds {
        body(WARM + n);
    }
    written();
    println!("{name} {rounds}");
}
