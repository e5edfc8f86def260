//! The command line.
//!
//! Whatever can be judged without looking at the host is judged here: single values by their parsers ([`values`],
//! [`network_arg`]), values against each other by [`RunArgs::check`] and [`CreateArgs::spec`], so that bad input leaves
//! nothing behind because nothing has begun. Help, completions and the manual page are made of the same definitions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::sandbox::SandboxArgs;

mod attach;
mod network;
mod network_arg;
mod route;
mod run;
mod show;
mod uplink;
mod values;

#[cfg(test)]
mod tests;

pub(crate) use attach::{
    AttachArgs, LinkArgs, PairArgs, RuleAddArgs, RuleCommand, RuleLsArgs, RuleRmArgs, WireArgs,
};
pub(crate) use network::{ConnectArgs, CreateArgs, DisconnectArgs, InspectArgs, NamesArgs, NetworkCommand};
pub(crate) use network_arg::NetworkArg;
pub(crate) use route::{
    RouteAddArgs, RouteArgs, RouteCommand, RouteDelArgs, RouteVia, check_destination, parse_destination,
};
pub(crate) use run::{DEFAULT_MAX_FLOWS, DEFAULT_PER_CONTAINER, MIN_MTU_IPV6, RunArgs, UdpFiltering};
#[cfg(test)]
pub(crate) use run::{DEFAULT_SUBNET, DEFAULT_SUBNET6};
pub(crate) use show::{
    ConntrackCommand, ContainerArgs, FdbCommand, FlowArgs, JsonArgs, MetricsArgs, PortArgs, PsArgs,
    PublishArgs, StatsArgs,
};
pub(crate) use uplink::{
    LinkMac, LinkTo, Netns, PortMapping, UplinkAddress4, UplinkAddress6, UplinkLink, UplinkNat,
};
pub(crate) use values::{Exposed, Outbound, Target, parse_mac, parse_name, parse_network};

/// Rootless container networking: a user-mode Ethernet switch with a NAT gateway.
///
/// A command runs in a network namespace of its own, attached to a switch that lives in a process of yours; a gateway
/// on the switch reaches the world through ordinary sockets. Nothing of the host changes, and no privilege is needed.
#[derive(Debug, Parser)]
#[command(
    name = "pontoon",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  pontoon run -p 8080:80 -- python3 -m http.server 80
                            then, on the host: curl http://127.0.0.1:8080/
  pontoon run --name db -- redis-server
  pontoon run --network db -- redis-cli -h db
                            two containers on one switch, which know each other's names
  pontoon daemon &
  pontoon network create shop
  pontoon run --network shop --name web -- nginx -g 'daemon off;'
                            a network that is there whether or not a container is on it
  pontoon doctor            what this host lacks, and how to mend it

The control sockets are in $XDG_RUNTIME_DIR/pontoon (root: /run/pontoon), or in $PONTOON_RUNTIME_DIR if that is set: \
daemon.sock is the daemon's, unless $PONTOON_SOCKET names another, and NAME.sock a private network's. They speak HTTP and \
JSON: curl --unix-socket $XDG_RUNTIME_DIR/pontoon/daemon.sock http://pontoon/v1/networks"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a network namespace of its own, attached to a switch
    Run(Box<RunArgs>),
    /// Attach any network namespace, of whatever runtime, to networks
    ///
    /// Whatever made the namespace, it becomes a container here: with addresses, a name, published ports. It must be the
    /// caller's own. It is detached by `pontoon detach`, or when it is gone.
    Attach(Box<AttachArgs>),
    /// Detach a container from all its networks
    Detach(ContainerArgs),
    /// List containers: name, networks, addresses, published ports, since when
    Ps(PsArgs),
    /// Make, list, inspect and remove networks; connect containers to them
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Publish ports of a running container
    Publish(PublishArgs),
    /// Take published ports of a running container back
    Unpublish(PublishArgs),
    /// List the published ports of a container, or where one of them leads from
    Port(PortArgs),
    /// Say which clients may use a published port
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Let one container reach ports of another, by name
    ///
    /// Where containers do not reach each other (network create --icc=false), a link is what lets one reach ports of
    /// another. The first knows the second by its name, and by the alias.
    Link(LinkArgs),
    /// Take a link back
    Unlink(PairArgs),
    /// List links
    Links(JsonArgs),
    /// Lay a wire between two containers: an interface in each, and nothing between
    ///
    /// Each end has an address and a route to the other's; there is neither a switch nor a gateway.
    Wire(WireArgs),
    /// Take a wire away
    Unwire(PairArgs),
    /// List wires
    Wires(JsonArgs),
    /// Routes of a network: to networks behind a router, and to other networks of the daemon
    Route(RouteArgs),
    /// List or end flows: the entries of the connection tracking table
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// The switch's forwarding table: which MAC address is behind which port
    #[command(subcommand)]
    Fdb(FdbCommand),
    /// Counters of ports, drops by reason, flows by state
    Stats(StatsArgs),
    /// The same counters in Prometheus' text format
    Metrics(MetricsArgs),
    /// Keep networks, in the foreground
    ///
    /// The daemon has the networks of its user, each in a process of its own, and answers at its control socket. It tells
    /// systemd when it is ready, and what it knows survives it in one file.
    Daemon(DaemonArgs),
    /// Say what this host lacks and how to mend it; changes nothing
    Doctor(JsonArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, for man(1)
    Manual(ManualArgs),
    /// slirp4netns' command line, for container engines: see `pontoon slirp4netns --help`
    #[command(name = crate::compat::slirp4netns::NAME, disable_help_flag = true)]
    Slirp4netns {
        /// slirp4netns' options and target
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
        arguments: Vec<OsString>,
    },
    /// What `doctor` starts in namespaces of its own
    #[command(name = crate::commands::doctor::trial::NAME, hide = true)]
    Trial {
        /// Where to report.
        fd: i32,
        /// Try a TAP.
        #[arg(long)]
        tap: bool,
    },
    /// What `doctor` starts to be confined
    #[command(name = crate::sandbox::trial::NAME, hide = true)]
    SandboxTrial(crate::sandbox::trial::TrialArgs),
}

/// `pontoon daemon`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DaemonArgs {
    /// Networks and rules that there are to be, whatever the state says
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen [default: $PONTOON_SOCKET, or daemon.sock in the directory of the control sockets]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The file in which networks, addresses and rules are kept
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

/// `pontoon completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pontoon completions bash >~/.local/share/bash-completion/completions/pontoon
  pontoon completions zsh >~/.zfunc/_pontoon
  pontoon completions fish >~/.config/fish/completions/pontoon.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// `pontoon manual`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pontoon manual run | man -l -
  pontoon manual network create | man -l -
  pontoon manual --all ~/.local/share/man/man1")]
pub(crate) struct ManualArgs {
    /// The command whose page it is [default: that of pontoon itself]
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub(crate) all: Option<PathBuf>,
}
