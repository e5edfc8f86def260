//! `pontoon`: rootless container networking.
#![forbid(unsafe_code)]

mod api;

fn main() {}
