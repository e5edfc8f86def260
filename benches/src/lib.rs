//! What the benches share: frames, a switch's surroundings and a gateway's, each costing next to nothing of its own. The
//! benches themselves are in `benches/`.
#![forbid(unsafe_code)]

pub mod fabric;
pub mod frames;
pub mod gateway;
pub mod host;
pub mod table;
