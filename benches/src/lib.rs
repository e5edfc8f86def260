//! Benches of Pontoon. Nothing is in the library itself: see `benches/`.
#![forbid(unsafe_code)]
