//! `pontoon`: rootless container networking.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::Command;

mod api;
mod args;
mod client;
mod commands;
mod control;
mod http;
mod idmap;
mod output;
mod peer;
mod routes;

fn main() -> ExitCode {
    match dispatch(&args::Cli::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("pontoon: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run(run) => run.check(),
        Command::Ps(args) => commands::ps::ps(args),
        Command::Network(command) => return commands::network::network(command),
        Command::Publish(args) => commands::publish::publish(args),
        Command::Unpublish(args) => commands::publish::unpublish(args),
        Command::Port(args) => commands::port::port(args),
        Command::Conntrack(command) => commands::conntrack::conntrack(command),
        Command::Fdb(command) => commands::fdb::fdb(command),
        Command::Stats(args) => commands::stats::stats(args),
        Command::Doctor(args) => return commands::doctor::doctor(args),
        Command::Trial { fd, tap } => commands::doctor::trial::main(*fd, *tap),
    }
    .map(|()| ExitCode::SUCCESS)
}
