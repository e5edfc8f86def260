//! The command line.
//!
//! Whatever can be judged without looking at the host is judged here: single values by their parsers, values against
//! each other by [`RunArgs::check`], so that bad input leaves nothing behind because nothing has begun.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_nat::publish::{PublishSpec, Transport};
use pontoon_switch::MacAddr;

use crate::ipam;
use crate::sandbox::SandboxArgs;

mod join;
#[cfg(test)]
mod tests;

pub(crate) use join::Join;

/// The IPv4 range of a private network unless another is asked for.
pub(crate) const DEFAULT_SUBNET: &str = "10.0.2.0/24";
/// The IPv6 range of a private network unless another is asked for.
pub(crate) const DEFAULT_SUBNET6: &str = "fd00::/64";
/// Below this MTU there is no IPv6 (RFC 8200, section 5).
pub(crate) const MIN_MTU_IPV6: u32 = 1280;
/// Most flows at once of a network, unless told otherwise.
pub(crate) const DEFAULT_MAX_FLOWS: u32 = 262_144;
/// Most flows at once of a container, unless told otherwise.
pub(crate) const DEFAULT_PER_CONTAINER: u32 = 65_536;
/// Longest name of a container or a network: one DNS label (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 63;

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
  pontoon doctor            what this host lacks, and how to mend it

The control socket of each network is in $XDG_RUNTIME_DIR/pontoon (root: /run/pontoon), or in $PONTOON_RUNTIME_DIR \
if that is set. It speaks HTTP and JSON: curl --unix-socket $XDG_RUNTIME_DIR/pontoon/NAME.sock \
http://pontoon/v1/networks"
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
    /// List containers: name, network, addresses, published ports, since when
    Ps(PsArgs),
    /// List and inspect running networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Publish ports of a running container
    Publish(PublishArgs),
    /// Take published ports of a running container back
    Unpublish(PublishArgs),
    /// List the published ports of a container, or where one of them leads from
    Port(PortArgs),
    /// List or end flows: the entries of the connection tracking table
    #[command(subcommand)]
    Conntrack(ConntrackCommand),
    /// The switch's forwarding table: which MAC address is behind which port
    #[command(subcommand)]
    Fdb(FdbCommand),
    /// Counters of ports, drops by reason, flows by state
    Stats(StatsArgs),
    /// Say what this host lacks and how to mend it; changes nothing
    Doctor(JsonArgs),
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

/// Who may answer a container's UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum UdpFiltering {
    /// Any port of an address that the container has sent to
    Address,
    /// Anyone who knows the port
    Endpoint,
}

/// `pontoon run`.
///
/// The command's exit status is ours, and signals are passed on to it. What it does to files it does to yours: only
/// the network is its own.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "pontoon run [OPTIONS] [--] [CMD [ARG...]]",
    after_help = "\
Without --network the container gets a private network named after it, which lives until its last container ends. \
`--network NAME` joins one that is running; with `none`, `host` and `container:NAME` the container is on no switch, and `pontoon ps` does \
not list it. The options under \"Network\" describe that network and cannot be given for one that is already running.

The exit status is the command's, or 128 and the number of the signal that killed it; 126 and 127 for a command that cannot \
be executed or is not there, 125 if `run` itself fails.

What `run` does not isolate: files. The command sees the host's files, with the rights of the user who started it; \
only /etc/resolv.conf, /etc/hosts, /etc/hostname and the directory of the control sockets are covered.

Examples:
  pontoon run -p 8080:80 -- python3 -m http.server 80
  pontoon run -p 127.0.0.1:5353:53/udp -p '[::1]::53/tcp' -- dnsmasq -d
  pontoon run -P --expose 80 --expose 443 -- nginx -g 'daemon off;'"
)]
pub(crate) struct RunArgs {
    /// The container's name [default: made up]
    #[arg(long, value_parser = parse_name)]
    pub(crate) name: Option<String>,

    /// Join the switch of a network that is already running, instead of a private one; or none, host, container:NAME
    ///
    /// `none` is a network of its own with the loopback only; `host` is the host's network; `container:NAME` is that of
    /// another container, with its host name and its /etc/hosts and /etc/resolv.conf.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<Join>,

    /// Publish ports: [host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]; repeatable
    ///
    /// IPv6 host addresses are written in brackets. Without a host address the port is published on all, of both
    /// families; without a host port the system chooses one. Ranges must be equally long, or a range of host ports
    /// for one container port, which takes the first that is free.
    #[arg(short, long, value_name = "SPEC", help_heading = "Published ports")]
    pub(crate) publish: Vec<PublishSpec>,

    /// Publish each port named by --expose on a random host port
    #[arg(short = 'P', long, help_heading = "Published ports", requires = "expose")]
    pub(crate) publish_all: bool,

    /// A port that the container offers, for --publish-all; repeatable
    #[arg(long, value_name = "PORT[/PROTO]", help_heading = "Published ports")]
    pub(crate) expose: Vec<Exposed>,

    /// IPv4 range of the network [default: 10.0.2.0/24]
    #[arg(long, value_name = "CIDR", value_parser = parse_subnet, help_heading = "Network", conflicts_with = "network")]
    pub(crate) subnet: Option<Ipv4Net>,

    /// The gateway's IPv4 address [default: number 2 of the range]
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) gateway: Option<Ipv4Addr>,

    /// IPv6 range of the network [default: fd00::/64]
    #[arg(long, value_name = "CIDR", value_parser = parse_subnet6, help_heading = "Network",
          conflicts_with_all = ["network", "no_ipv6"])]
    pub(crate) subnet6: Option<Ipv6Net>,

    /// No IPv6
    #[arg(long, help_heading = "Network", conflicts_with_all = ["network", "ip6"])]
    pub(crate) no_ipv6: bool,

    /// MTU of the network in bytes, 68 to 65520; below 1280 there is no IPv6
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65520),
          help_heading = "Network", conflicts_with = "network")]
    pub(crate) mtu: u32,

    /// Most flows at once on the network
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_FLOWS, help_heading = "Network", conflicts_with = "network",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) max_flows: u32,

    /// Most flows at once of one container
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PER_CONTAINER, help_heading = "Network", conflicts_with = "network",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) max_flows_per_container: u32,

    /// A DNS server the gateway asks, instead of the host's; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) dns: Vec<IpAddr>,

    /// Let the gateway's address lead to the host's 127.0.0.1
    #[arg(long, help_heading = "Network", conflicts_with = "network")]
    pub(crate) host_loopback: bool,

    /// Let containers reach link-local addresses, cloud metadata at 169.254.169.254 among them
    #[arg(long, help_heading = "Network", conflicts_with = "network")]
    pub(crate) link_local: bool,

    /// Who may answer a container's UDP port (RFC 4787, section 5)
    #[arg(
        long,
        value_name = "WHO",
        value_enum,
        default_value_t = UdpFiltering::Address,
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) udp_filtering: UdpFiltering,

    /// Source of outgoing connections: an address (one for each family) or an interface of the host; repeatable
    #[arg(
        long,
        value_name = "ADDR|IFACE",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) outbound: Vec<Outbound>,

    /// The container's IPv4 address [default: the next free one]
    #[arg(long, value_name = "ADDR", help_heading = "Container")]
    pub(crate) ip: Option<Ipv4Addr>,

    /// The container's IPv6 address [default: the next free one]
    #[arg(long, value_name = "ADDR", help_heading = "Container")]
    pub(crate) ip6: Option<Ipv6Addr>,

    /// The container's MAC address [default: made up]
    #[arg(long, value_name = "MAC", value_parser = parse_mac, help_heading = "Container")]
    pub(crate) mac_address: Option<MacAddr>,

    /// The container's host name [default: its name]
    #[arg(long, value_name = "NAME", value_parser = parse_hostname, help_heading = "Container")]
    pub(crate) hostname: Option<String>,

    /// A domain to search for names without a dot; repeatable
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain, help_heading = "Container")]
    pub(crate) dns_search: Vec<String>,

    /// A further name for /etc/hosts and the gateway's DNS; repeatable
    #[arg(long, value_name = "NAME:IP", help_heading = "Container")]
    pub(crate) add_host: Vec<AddHost>,

    /// Write the frames of the container's port to this file, as pcapng
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub(crate) capture: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,

    /// The command and its arguments [default: $SHELL]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

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
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon network`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List running networks
    Ls(JsonArgs),
    /// Print all that is known of networks: an array of JSON objects
    Inspect(InspectArgs),
}

/// `pontoon network inspect`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// The networks
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    pub(crate) names: Vec<String>,
    /// Print JSON, which it does anyway
    #[arg(long, hide = true)]
    pub(crate) json: bool,
}

/// Which container.
#[derive(Debug, Clone, Args)]
pub(crate) struct ContainerArgs {
    /// The container
    #[arg(value_parser = parse_name)]
    pub(crate) container: String,
    /// Its network, where containers of several networks have the same name
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
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
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
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
    #[arg(value_parser = parse_name)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `pontoon stats`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatsArgs {
    /// The network [default: all]
    #[arg(value_parser = parse_name)]
    pub(crate) network: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `PORT[/PROTO]`: a container's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exposed {
    /// First and last port.
    pub(crate) ports: (u16, u16),
    /// TCP unless said otherwise.
    pub(crate) protocol: Transport,
}

impl FromStr for Exposed {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s.contains(':') {
            return Err("expected PORT[/tcp|/udp], a port of the container, without a host port".to_owned());
        }
        let spec: PublishSpec = s
            .parse()
            .map_err(|e: pontoon_nat::publish::BadSpec| e.to_string())?;
        Ok(Self {
            ports: spec.container_ports,
            protocol: spec.protocol,
        })
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.ports;
        if first == last {
            write!(f, "{first}/{}", self.protocol)
        } else {
            write!(f, "{first}-{last}/{}", self.protocol)
        }
    }
}

/// `NAME:IP`: a line of `/etc/hosts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddHost {
    /// The name.
    pub(crate) name: String,
    /// What it resolves to.
    pub(crate) ip: IpAddr,
}

impl FromStr for AddHost {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (name, ip) = s
            .split_once(':')
            .ok_or("expected NAME:IP, as db:10.0.2.9 or db:fd00::9")?;
        let ip = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        Ok(Self {
            name: parse_domain(name)?,
            ip: ip.parse().map_err(|_| format!("`{ip}` is not an IP address"))?,
        })
    }
}

/// Where outgoing sockets are bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outbound {
    /// To an address of the host, for its family.
    Address(IpAddr),
    /// To an interface of the host.
    Interface(String),
}

impl FromStr for Outbound {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(ip) = s.parse::<IpAddr>() {
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(format!("{ip} is not an address to send from"));
            }
            return Ok(Self::Address(ip));
        }
        // IFNAMSIZ is 16 with the ending zero; see dev_valid_name in the kernel's net/core/dev.c.
        let valid = !s.is_empty()
            && s.len() < 16
            && !matches!(s, "." | "..")
            && !s
                .bytes()
                .any(|c| c == b'/' || c == b':' || c.is_ascii_whitespace());
        if valid {
            Ok(Self::Interface(s.to_owned()))
        } else {
            Err("expected an IP address or the name of an interface".to_owned())
        }
    }
}

/// A container's or a network's name: it is part of a socket's file name and a DNS label.
pub(crate) fn parse_name(s: &str) -> Result<String, String> {
    join::check_reserved(s)?;
    if s.is_empty() || s.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} characters"));
    }
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if !s.as_bytes()[0].is_ascii_alphanumeric() || !s.bytes().all(inner) {
        return Err(
            "a name begins with a letter or digit and goes on with letters, digits, `_`, `.` or `-`"
                .to_owned(),
        );
    }
    Ok(s.to_owned())
}

fn parse_hostname(s: &str) -> Result<String, String> {
    // The kernel's bound: __NEW_UTS_LEN in linux/utsname.h.
    if s.len() > 64 {
        return Err("a host name has at most 64 characters".to_owned());
    }
    parse_domain(s)
}

fn parse_domain(s: &str) -> Result<String, String> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && l.bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    if s.len() <= 253 && s.strip_suffix('.').unwrap_or(s).split('.').all(label) {
        Ok(s.to_owned())
    } else {
        Err(format!(
            "`{s}` is not a domain name: labels of letters, digits and `-`, with dots between"
        ))
    }
}

pub(crate) fn parse_mac(s: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = s
        .parse()
        .map_err(|e: pontoon_switch::mac::BadMac| e.to_string())?;
    if mac.is_unicast() {
        Ok(mac)
    } else {
        Err(format!(
            "{mac} is no address for one interface: use a unicast one such as 02:00:5e:10:00:01"
        ))
    }
}

fn parse_subnet(s: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = s
        .parse()
        .map_err(|_| "expected an IPv4 range such as 10.0.2.0/24".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "{s} is an address in a range: the range is {}",
            net.trunc()
        ));
    }
    if net.prefix_len() > 30 {
        return Err(format!(
            "{net} has no room for a gateway and a container: use /30 or wider"
        ));
    }
    if net.prefix_len() < 8 {
        return Err(format!("{net} is too wide: use /8 or narrower"));
    }
    let ip = net.network();
    if ip.octets()[0] == 0 || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] >= 224 {
        return Err(format!(
            "{net} is not a range for hosts: use a private one such as 10.0.2.0/24"
        ));
    }
    Ok(net)
}

fn parse_subnet6(s: &str) -> Result<Ipv6Net, String> {
    let net: Ipv6Net = s
        .parse()
        .map_err(|_| "expected an IPv6 range such as fd00::/64".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "{s} is an address in a range: the range is {}",
            net.trunc()
        ));
    }
    if net.prefix_len() > 126 {
        return Err(format!(
            "{net} has no room for a gateway and a container: use /126 or wider, best /64"
        ));
    }
    if net.prefix_len() < 16 {
        return Err(format!("{net} is too wide: use /16 or narrower, best /64"));
    }
    let ip = net.network();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() {
        return Err(format!(
            "{net} is not a range for hosts: use a unique local one such as fd00::/64"
        ));
    }
    Ok(net)
}

impl RunArgs {
    /// Judges the values against each other. Call it before anything is made.
    ///
    /// A container that joins a network is not checked against that network's ranges here: its front does that.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_without_switch()?;
        ensure!(
            self.network.is_none() || !self.sandbox.is_given(),
            "--network joins a network whose packet process is confined already: the switches of the sandbox go where it \
             is started"
        );
        ensure!(
            self.max_flows_per_container <= self.max_flows || self.is_default_per_container(),
            "--max-flows-per-container {} is more than --max-flows {}: a container cannot have more flows than its \
             network",
            self.max_flows_per_container,
            self.max_flows
        );
        for (family, is_family) in [
            ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            ("IPv6", IpAddr::is_ipv6),
        ] {
            let of_family = |o: &&Outbound| matches!(o, Outbound::Address(ip) if is_family(ip));
            ensure!(
                self.outbound.iter().filter(of_family).count() <= 1,
                "--outbound names two {family} addresses: give one for each family"
            );
        }
        ensure!(
            self.outbound
                .iter()
                .filter(|o| matches!(o, Outbound::Interface(_)))
                .count()
                <= 1,
            "--outbound names two interfaces: give one"
        );
        for ip in &self.dns {
            ensure!(
                !ip.is_unspecified() && !ip.is_multicast(),
                "--dns {ip} is not the address of a server"
            );
        }
        self.check_published()?;
        if self.network.is_none() {
            self.check_addresses()
        } else {
            Ok(())
        }
    }

    /// Refuses what makes no sense for a container that is on no switch.
    fn check_without_switch(&self) -> Result<()> {
        let join = match &self.network {
            Some(join @ (Join::None | Join::Host | Join::Container(_))) => join,
            Some(Join::Network(_)) | None => return Ok(()),
        };
        let of_switches = [
            ("--publish", !self.publish.is_empty()),
            ("--publish-all", self.publish_all),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--capture", self.capture.is_some()),
            ("the switches of the sandbox", self.sandbox.is_given()),
        ];
        for (option, given) in of_switches {
            ensure!(
                !given,
                "with --network {join} there is no switch that the container is on: leave out {option}"
            );
        }
        let (whose, hostname, hosts) = match join {
            Join::Container(_) => (
                "the other container's",
                self.hostname.is_some(),
                !self.add_host.is_empty(),
            ),
            Join::Host => ("the host's", false, false),
            Join::None | Join::Network(_) => return Ok(()),
        };
        for (option, what, given) in [
            ("--hostname", "host name", hostname),
            ("--add-host", "/etc/hosts", hosts),
            ("--dns-search", "/etc/resolv.conf", !self.dns_search.is_empty()),
        ] {
            ensure!(
                !given,
                "with --network {join} the container's {what} is {whose}: leave out {option}"
            );
        }
        Ok(())
    }

    fn is_default_per_container(&self) -> bool {
        self.max_flows_per_container == DEFAULT_PER_CONTAINER
    }

    /// Most flows of one container; a lower bound for the network lowers the default.
    pub(crate) fn flows_per_container(&self) -> u32 {
        self.max_flows_per_container.min(self.max_flows)
    }

    fn check_published(&self) -> Result<()> {
        let specs = self.publish_specs();
        for (i, a) in specs.iter().enumerate() {
            for b in &specs[i + 1..] {
                let (Some(x), Some(y)) = (a.host_ports, b.host_ports) else {
                    continue;
                };
                let same_place = match (a.host_ip, b.host_ip) {
                    (Some(a), Some(b)) => a == b,
                    (None, Some(_)) | (Some(_), None) | (None, None) => true,
                };
                // A range for one container port takes whichever is free, so only single ports surely clash.
                let fixed = |s: &PublishSpec, r: (u16, u16)| r.0 == r.1 || s.len() > 1;
                if a.protocol == b.protocol
                    && same_place
                    && fixed(a, x)
                    && fixed(b, y)
                    && x.0 <= y.1
                    && y.0 <= x.1
                {
                    bail!("-p {a} and -p {b} take the same host port: change one of them");
                }
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<()> {
        let subnet = self.subnet();
        if let Some(gateway) = self.gateway {
            check_host("--gateway", gateway, subnet)?;
        }
        if let Some(ip) = self.ip {
            check_host("--ip", ip, subnet)?;
            ensure!(
                ip != self.gateway(),
                "--ip {ip} is the gateway's address: choose another, or another --gateway"
            );
        }
        match self.subnet6() {
            Some(subnet6) => {
                if let Some(ip6) = self.ip6 {
                    ensure!(
                        subnet6.contains(&ip6),
                        "--ip6 {ip6} is not in {subnet6}: choose an address in it, or another --subnet6"
                    );
                    ensure!(
                        ip6 != subnet6.network(),
                        "--ip6 {ip6} is the routers' anycast address: choose another"
                    );
                    ensure!(
                        Some(ip6) != self.gateway6(),
                        "--ip6 {ip6} is the gateway's address: choose another"
                    );
                }
            }
            None => {
                let asked = self
                    .ip6
                    .map(|_| "--ip6")
                    .or(self.subnet6.map(|_| "--subnet6"))
                    .filter(|_| !self.no_ipv6);
                if let Some(option) = asked {
                    bail!(
                        "{option} needs IPv6, which needs an MTU of {MIN_MTU_IPV6} and more: raise --mtu {} or leave \
                         {option} out",
                        self.mtu
                    );
                }
            }
        }
        Ok(())
    }

    /// IPv4 range of the private network.
    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.subnet
            .unwrap_or_else(|| DEFAULT_SUBNET.parse().expect("a constant"))
    }

    /// The private network's IPv4 gateway.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
            .unwrap_or_else(|| match ipam::default_gateway(self.subnet().into()) {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => unreachable!("the subnet is of IPv4"),
            })
    }

    /// IPv6 range of the private network, `None` without IPv6.
    pub(crate) fn subnet6(&self) -> Option<Ipv6Net> {
        (!self.no_ipv6 && self.mtu >= MIN_MTU_IPV6).then(|| {
            self.subnet6
                .unwrap_or_else(|| DEFAULT_SUBNET6.parse().expect("a constant"))
        })
    }

    /// The private network's IPv6 gateway; `None` without IPv6.
    pub(crate) fn gateway6(&self) -> Option<Ipv6Addr> {
        self.subnet6().map(|net| match ipam::default_gateway(net.into()) {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => unreachable!("the subnet is of IPv6"),
        })
    }

    /// What to publish: `-p`, and with `-P` the exposed ports that `-p` does not name already.
    pub(crate) fn publish_specs(&self) -> Vec<PublishSpec> {
        let mut specs = self.publish.clone();
        if self.publish_all {
            for exposed in &self.expose {
                for port in exposed.ports.0..=exposed.ports.1 {
                    let named = |s: &PublishSpec| {
                        s.protocol == exposed.protocol
                            && (s.container_ports.0..=s.container_ports.1).contains(&port)
                    };
                    if !specs.iter().any(named) {
                        specs.push(PublishSpec::random(port, exposed.protocol));
                    }
                }
            }
        }
        specs
    }
}

fn check_host(option: &str, ip: Ipv4Addr, subnet: Ipv4Net) -> Result<()> {
    ensure!(
        subnet.contains(&ip),
        "{option} {ip} is not in {subnet}: choose an address in it, or another --subnet"
    );
    ensure!(
        ip != subnet.network() && ip != subnet.broadcast(),
        "{option} {ip} is the first or the last address of {subnet}, which no host may have: choose another"
    );
    Ok(())
}
