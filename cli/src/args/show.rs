//! Commands that ask what is running, and `publish`.

use clap::{Args, Subcommand};
use pontoon_nat::publish::PublishSpec;

use super::values::{Exposed, parse_name, parse_network};

/// Nothing but `--json`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon ps`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PsArgs {
    /// Only the containers of this network
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which container.
#[derive(Debug, Clone, Args)]
pub(crate) struct ContainerArgs {
    /// The container
    #[arg(value_parser = parse_name)]
    pub(crate) container: String,
    /// Its network, where containers of several networks have the same name
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
}

/// `pontoon publish` and `pontoon unpublish`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
    /// The ports: [host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]
    #[arg(value_name = "SPEC", required = true)]
    pub(crate) specs: Vec<PublishSpec>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon port`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PortArgs {
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
    /// Only where this container port leads from; tcp unless said otherwise
    #[arg(value_name = "PORT[/PROTO]")]
    pub(crate) port: Option<Exposed>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon conntrack`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConntrackCommand {
    /// List flows: protocol, state, both tuples, age, packets and bytes each way
    ///
    /// A line has the layout of conntrack-tools: protocol, its number, seconds until it ends, state, the tuple of whoever opened it
    /// with what came by it, that of the answers, and the mark: the number of the publishing rule that it came by, 0 if it came by
    /// none. Then its age in seconds, network, container, and whether it was opened from inside (out) or outside (in).
    Ls(FlowArgs),
    /// End flows: their connections are reset, their mappings forgotten
    Flush(FlowArgs),
}

/// Which flows.
#[derive(Debug, Clone, Args)]
pub(crate) struct FlowArgs {
    /// Only those of this container
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) container: Option<String>,
    /// Only those of this network
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon fdb`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum FdbCommand {
    /// Print the forwarding table of a network, or of all
    Show(OneNetworkArgs),
}

/// `pontoon fdb show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct OneNetworkArgs {
    /// The network [default: all]
    #[arg(value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon stats`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatsArgs {
    /// The network [default: all]
    #[arg(value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon metrics`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MetricsArgs {
    /// Ask the front of this network [default: the daemon, of all its networks]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
}
