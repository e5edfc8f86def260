//! `pontoon`: rootless container networking.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::Command;

mod api;
mod args;
mod attach;
mod bind;
mod capture;
mod client;
mod commands;
mod compat;
mod control;
mod covers;
mod fdsock;
mod front;
mod http;
mod idmap;
mod init;
mod ipam;
mod limits;
mod metrics;
mod netlink;
mod notify;
#[cfg(test)]
mod openapi;
mod outbound;
mod output;
mod packet;
mod peer;
mod ping_sockets;
mod resolv;
mod resolv_watch;
mod routes;
mod sandbox;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = compat::run(&arguments) {
        return code;
    }
    let first = arguments.get(1);
    // The program's own processes are not in the command line that people read.
    let result = match first.and_then(|a| a.to_str()) {
        Some("__packet") => helper(packet::main),
        Some("__attach") => helper(attach::main),
        Some(_) | None => {
            return match args::Cli::try_parse() {
                Ok(cli) => dispatch(&cli.command),
                Err(e) => misused(&e),
            };
        }
    };
    match result {
        Ok(code) => code.into(),
        Err(e) => {
            eprintln!("pontoon: {e:#}");
            ExitCode::from(init::OURS)
        }
    }
}

/// Says what is wrong with the arguments, or gives the help that they ask for. `run` keeps the low statuses for its command.
fn misused(error: &clap::Error) -> ExitCode {
    // Nobody to read it is no reason to fail otherwise.
    let _ = error.print();
    if !error.use_stderr() {
        ExitCode::SUCCESS
    } else if std::env::args_os().nth(1).is_some_and(|first| first == "run") {
        ExitCode::from(init::OURS)
    } else {
        ExitCode::from(2)
    }
}

fn dispatch(command: &Command) -> ExitCode {
    if let Command::Slirp4netns { arguments } = command {
        return compat::subcommand(arguments);
    }
    // `run` first forks a process with another standard error.
    if !matches!(command, Command::Run(_)) {
        log();
    }
    let (result, failure) = match command {
        Command::Run(args) => (
            commands::run::run(args).map(ExitCode::from),
            ExitCode::from(init::OURS),
        ),
        other => (ask(other), ExitCode::FAILURE),
    };
    result.unwrap_or_else(|e| {
        eprintln!("pontoon: {e:#}");
        failure
    })
}

/// The commands that ask running networks, and the few that stand alone.
fn ask(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run(_) | Command::Slirp4netns { .. } => unreachable!("they are not asked"),
        Command::Attach(args) => commands::attach::attach(args),
        Command::Detach(args) => commands::attach::detach(args),
        Command::Ps(args) => commands::ps::ps(args),
        Command::Network(command) => return commands::network::network(command),
        Command::Publish(args) => commands::publish::publish(args),
        Command::Unpublish(args) => commands::publish::unpublish(args),
        Command::Port(args) => commands::port::port(args),
        Command::Rule(command) => return commands::rule::rule(command),
        Command::Link(args) => commands::link::link(args),
        Command::Unlink(args) => commands::link::unlink(args),
        Command::Links(args) => commands::link::links(args),
        Command::Wire(args) => commands::wire::wire(args),
        Command::Unwire(args) => commands::wire::unwire(args),
        Command::Wires(args) => commands::wire::wires(args),
        Command::Route(args) => commands::route::route(args),
        Command::Conntrack(command) => commands::conntrack::conntrack(command),
        Command::Fdb(command) => commands::fdb::fdb(command),
        Command::Stats(args) => commands::stats::stats(args),
        Command::Metrics(args) => commands::metrics::metrics(args),
        Command::Daemon(args) => return front::daemon::main(args),
        Command::Completions(args) => commands::manual::completions(args),
        Command::Manual(args) => commands::manual::manual(args),
        Command::Doctor(args) => return commands::doctor::doctor(args),
        Command::Trial { fd, tap } => commands::doctor::trial::main(*fd, *tap),
        Command::SandboxTrial(args) => sandbox::trial::main(args),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// A process of ours in the background. Whoever started it may have blocked signals, as `run` does.
fn helper(main: fn() -> Result<()>) -> Result<u8> {
    log();
    pontoon_switch::sys::process::unblock_signals()?;
    main().map(|()| 0)
}

/// Warnings on standard error, or what `PONTOON_LOG` asks for (`debug`, `pontoon_nat=trace`, …).
fn log() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var("PONTOON_LOG")
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .without_time()
        .init();
}
