//! Commands that attach any namespace, and those that say who may talk to whom.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use pontoon_nat::publish::PublishSpec;

use super::values::{
    AddHost, Ends, Exposed, PortOf, Target, parse_container, parse_name, parse_network, parse_range,
};
use crate::api::{
    Action, AttachRequest, EndpointKind, EndpointSpec, LinkRequest, LinkSpec, RuleRequest, WireRequest,
};

/// `pontoon attach`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pontoon attach 4711 --name web --network shop -p 8080:80
  pontoon attach /run/netns/red --name red --network shop:ip=10.30.0.7,alias=www --network back --veth
  pontoon attach $(podman inspect -f '{{.State.Pid}}' db) --name db --network shop")]
pub(crate) struct AttachArgs {
    /// A process in the namespace, or the namespace's path
    #[arg(value_name = "PID|NETNS-PATH")]
    pub(crate) target: Target,

    /// The container's name
    #[arg(long, value_parser = parse_container)]
    pub(crate) name: String,

    /// A network to be on, and how: ip=, ip6=, mac=, alias=, gw-priority=, vlan= with commas between; repeatable
    #[arg(
        long,
        visible_alias = "net",
        value_name = "NETWORK[:KEY=VALUE,..]",
        required = true
    )]
    pub(crate) network: Vec<EndpointSpec>,

    /// Have veth pairs for interfaces instead of TAPs
    #[arg(long)]
    pub(crate) veth: bool,

    /// Publish ports: [host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]; repeatable
    #[arg(short, long, value_name = "SPEC")]
    pub(crate) publish: Vec<PublishSpec>,

    /// A port that the container offers to those it is linked to; repeatable
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub(crate) expose: Vec<Exposed>,

    /// Link it to another container, as its client; repeatable
    #[arg(long, value_name = "NAME[:ALIAS]")]
    pub(crate) link: Vec<LinkSpec>,

    /// A further name that the gateway's DNS answers for it; repeatable
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<AddHost>,

    /// Print the container as JSON instead of its name
    #[arg(long)]
    pub(crate) json: bool,
}

impl AttachArgs {
    /// What the front is asked for; a path must have been made absolute.
    pub(crate) fn request(&self) -> AttachRequest {
        let (pid, namespace) = match &self.target {
            Target::Pid(pid) => (Some(*pid), None),
            Target::Path(path) => (None, Some(path.clone())),
        };
        let endpoints = self.network.iter().cloned().map(|mut endpoint| {
            if self.veth {
                endpoint.kind = EndpointKind::Veth;
            }
            endpoint
        });
        AttachRequest {
            pid,
            namespace,
            name: Some(self.name.clone()),
            endpoints: endpoints.collect(),
            publish: self.publish.clone(),
            expose: self.expose.clone(),
            links: self.link.clone(),
            add_hosts: self.add_host.iter().map(|h| (h.name.clone(), h.ip)).collect(),
            capture: None,
        }
    }
}

/// `pontoon link`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pontoon link web db:database --port 5432
  pontoon link web db                the ports that db exposes")]
pub(crate) struct LinkArgs {
    /// The container that reaches
    #[arg(value_name = "A", value_parser = parse_name)]
    pub(crate) client: String,
    /// The container that is reached, and a name that the first has for it
    #[arg(value_name = "B[:ALIAS]")]
    pub(crate) server: LinkSpec,
    /// A port that is reached [default: those that B exposes]; repeatable
    #[arg(long, value_name = "PORT[/PROTO]")]
    pub(crate) port: Vec<Exposed>,
    /// Print the link as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl LinkArgs {
    /// What the front is asked for.
    pub(crate) fn request(&self) -> LinkRequest {
        LinkRequest {
            client: self.client.clone(),
            server: self.server.server.clone(),
            alias: self.server.alias.clone(),
            ports: self.port.clone(),
        }
    }
}

/// Two containers.
#[derive(Debug, Clone, Args)]
pub(crate) struct PairArgs {
    /// One container; of a link, the one that reaches
    #[arg(value_name = "A", value_parser = parse_name)]
    pub(crate) a: String,
    /// The other
    #[arg(value_name = "B", value_parser = parse_name)]
    pub(crate) b: String,
}

/// `pontoon rule`.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Rules apply in the order they were added: the first that fits a client decides, and whom none fits is allowed. They last, \
whatever becomes of the container.

Examples:
  pontoon rule add deny web:80 --from 10.10.10.10
  pontoon rule add allow web:443 --from 192.0.2.0/24
  pontoon rule add deny web:443 --from 0.0.0.0/0
  pontoon rule rm 1")]
pub(crate) enum RuleCommand {
    /// Allow or deny clients of a published port, from now on
    Add(RuleAddArgs),
    /// List rules in the order they apply
    Ls(RuleLsArgs),
    /// Remove rules
    Rm(RuleRmArgs),
}

/// `pontoon rule add`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RuleAddArgs {
    /// What becomes of the clients
    #[arg(value_name = "allow|deny")]
    pub(crate) action: Action,
    /// The container's port, TCP unless said otherwise
    #[arg(value_name = "CONTAINER:PORT[/PROTO]")]
    pub(crate) port: PortOf,
    /// Which clients: a range, or one address
    #[arg(long, value_name = "CIDR", value_parser = parse_range)]
    pub(crate) from: IpNet,
    /// Tell the front of this private network [default: the daemon]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print the rule as JSON instead of its number
    #[arg(long)]
    pub(crate) json: bool,
}

impl RuleAddArgs {
    /// What the front is asked for.
    pub(crate) fn request(&self) -> RuleRequest {
        RuleRequest {
            action: self.action,
            container: self.port.container.clone(),
            port: self.port.port,
            protocol: self.port.protocol,
            from: self.from,
        }
    }
}

/// `pontoon rule ls`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RuleLsArgs {
    /// Ask the front of this private network [default: the daemon]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon rule rm`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RuleRmArgs {
    /// The rules, by their numbers
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<u32>,
    /// Tell the front of this private network [default: the daemon]
    #[arg(long, value_name = "NAME", value_parser = parse_network)]
    pub(crate) network: Option<String>,
}

/// `pontoon wire`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  pontoon wire a b --addresses 10.1.1.1,10.1.1.2")]
pub(crate) struct WireArgs {
    #[command(flatten)]
    pub(crate) pair: PairArgs,
    /// The first container's address on the wire and the second's [default: of our choice]
    #[arg(long, value_name = "A1,B1")]
    pub(crate) addresses: Option<Ends>,
    /// Print the wire as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl WireArgs {
    /// What the front is asked for.
    pub(crate) fn request(&self) -> WireRequest {
        WireRequest {
            a: self.pair.a.clone(),
            b: self.pair.b.clone(),
            addresses: self.addresses.map(|Ends(a, b)| (a, b)),
        }
    }
}

impl clap::ValueEnum for Action {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Allow, Self::Deny]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }))
    }
}
