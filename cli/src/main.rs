//! `pontoon`: rootless container networking.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser as _;

mod api;
mod args;
mod client;
mod control;
mod http;
mod peer;
mod routes;

fn main() -> Result<()> {
    match args::Cli::parse().command {
        args::Command::Run(run) => run.check(),
        other => anyhow::bail!("{other:?} cannot be done yet"),
    }
}
