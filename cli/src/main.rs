//! `pontoon`: rootless container networking.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser as _;

mod api;
mod args;
mod http;

fn main() -> Result<()> {
    match args::Cli::parse().command {
        args::Command::Run(run) => run.check(),
        other => anyhow::bail!("{other:?} cannot be done yet"),
    }
}
