//! The command line: slirp4netns' options, its values and its words for what is wrong with them.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_switch::MacAddr;

use crate::sandbox::SandboxArgs;

/// The version of slirp4netns whose options, messages and answers these are.
const VERSION: &str = "1.3.2";
/// What callers look at to find out what is there: 2 and more has outbound addresses, 3 and more can do without DNS.
const CONFIG_VERSION: u32 = 4;

/// The gateway, and the host where that is allowed.
const GATEWAY: u32 = 2;
/// The name server.
const DNS: u32 = 3;
/// What DHCP gives out.
const DHCP: (u32, u32) = (15, 30);
/// The address for the container.
const RECOMMENDED: u32 = 100;

/// User-mode networking for unprivileged network namespaces.
#[derive(Debug, Parser)]
#[command(
    override_usage = "slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]",
    infer_long_args = true,
    args_override_self = true,
    disable_version_flag = true,
    after_help = "\
This is Pontoon's implementation of slirp4netns' command line. The addresses, with the default --cidr: 10.0.2.2 the \
gateway, and the host unless --disable-host-loopback is given; 10.0.2.3 the name server; 10.0.2.15 to 10.0.2.30 by DHCP; \
10.0.2.100 the container's, with --configure."
)]
struct Cli {
    /// Bring the interface up, with its MTU, its address and a default route, and the loopback
    #[arg(short, long)]
    configure: bool,

    /// End when this descriptor hangs up
    #[arg(short, long, value_name = "FD", value_parser = exit_fd, allow_negative_numbers = true)]
    exit_fd: Option<i32>,

    /// Write to this descriptor when the network is ready
    #[arg(short, long, value_name = "FD", value_parser = ready_fd, allow_negative_numbers = true)]
    ready_fd: Option<i32>,

    /// MTU of the interface, at most 65521
    #[arg(short, long, value_name = "MTU", default_value = "1500", value_parser = mtu, allow_negative_numbers = true)]
    mtu: u16,

    /// Give IPv6, too: fd00::/64 by router advertisement
    #[arg(short = '6', long)]
    enable_ipv6: bool,

    /// Where to listen for requests to publish ports
    #[arg(short, long, value_name = "PATH")]
    api_socket: Option<PathBuf>,

    /// The network, with a prefix of 1 to 25
    #[arg(long, value_name = "CIDR", default_value = "10.0.2.0/24")]
    cidr: Cidr,

    /// Do not lead connections to the gateway's address to the host's 127.0.0.1
    #[arg(long, alias = "no-host-loopback")]
    disable_host_loopback: bool,

    /// How the first argument is read
    #[arg(long, value_name = "TYPE", value_enum)]
    netns_type: Option<NetnsType>,

    /// The user namespace to enter first, with --netns-type=path
    #[arg(long, value_name = "PATH", value_parser = userns_path)]
    userns_path: Option<PathBuf>,

    /// Fail where the kernel refuses an empty root or to take the capabilities; without this it is a warning
    #[arg(long, alias = "create-sandbox")]
    enable_sandbox: bool,

    /// Fail where the kernel refuses the filter of system calls; without this it is a warning
    #[arg(long)]
    enable_seccomp: bool,

    /// Source of outgoing IPv4 connections: an address, or an interface whose address it is
    #[arg(long, value_name = "ADDR|IF")]
    outbound_addr: Option<String>,

    /// Source of outgoing IPv6 connections: an address, or an interface whose address it is
    #[arg(long, value_name = "ADDR|IF")]
    outbound_addr6: Option<String>,

    /// Answer nothing at the name server's address
    #[arg(long)]
    disable_dns: bool,

    /// MAC address of the interface, with --configure
    #[arg(long, value_name = "MAC", value_parser = crate::args::parse_mac)]
    macaddress: Option<MacAddr>,

    /// What is at the other end: an interface in a network namespace, or whoever connects to a SOCK_SEQPACKET socket
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = TargetType::Netns)]
    target_type: TargetType,

    #[command(flatten)]
    sandbox: SandboxArgs,

    /// Show the version and exit
    #[arg(short, long)]
    version: bool,

    /// PID, PATH or FD, and the name of the interface
    #[arg(value_name = "TARGET", hide = true)]
    words: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum NetnsType {
    Pid,
    Path,
    Tapfd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum TargetType {
    Netns,
    Bess,
}

/// The IPv4 network and the addresses that have a meaning in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cidr(Ipv4Net);

/// The IPv6 network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Net6;

/// What is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// The interface `tap` in a network namespace.
    Netns { netns: Netns, tap: String },
    /// A TAP that was inherited as this descriptor.
    Tap(i32),
    /// Whoever connects to a socket of this path.
    Bess(PathBuf),
}

/// Where a network namespace is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Netns {
    /// The file of the network namespace.
    pub(super) net: PathBuf,
    /// The file of the user namespace to be entered first.
    pub(super) user: Option<PathBuf>,
}

impl Target {
    /// The descriptor that it is, if it is one.
    pub(super) fn descriptor(&self) -> Option<i32> {
        match self {
            Self::Tap(number) => Some(*number),
            Self::Netns { .. } | Self::Bess(_) => None,
        }
    }
}

/// All that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    /// Whether the interface is to be configured.
    pub(super) configure: bool,
    pub(super) exit_fd: Option<i32>,
    pub(super) ready_fd: Option<i32>,
    /// Bytes.
    pub(super) mtu: u16,
    pub(super) cidr: Cidr,
    pub(super) net6: Option<Net6>,
    pub(super) api_socket: Option<PathBuf>,
    pub(super) host_loopback: bool,
    pub(super) dns: bool,
    /// An address, or an interface's name.
    pub(super) outbound4: Option<String>,
    pub(super) outbound6: Option<String>,
    pub(super) mac: Option<MacAddr>,
    pub(super) sandbox: SandboxArgs,
    /// The empty root and the lack of capabilities were asked for by name.
    pub(super) sandbox_required: bool,
    /// The filter of system calls was asked for by name.
    pub(super) seccomp_required: bool,
}

/// Understands `arguments`; `called` is what stands before them. The error is how to end, with everything said.
pub(super) fn parse(called: &OsStr, arguments: &[OsString]) -> Result<Options, ExitCode> {
    let all = std::iter::once(called.to_owned()).chain(arguments.iter().cloned());
    let cli = Cli::command()
        .try_get_matches_from(all)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Ok(cli) if cli.version => {
            super::say(version().trim_end());
            Err(ExitCode::SUCCESS)
        }
        Ok(cli) => understand(cli).map_err(|e| misused(&format!("{e:#}"))),
        Err(e) if e.use_stderr() => {
            let text = e.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            // Without the usage, which follows as a whole.
            Err(misused(text.split("\n\n").next().unwrap_or(text)))
        }
        Err(help) => {
            // Nobody to read it is no reason to fail.
            let _ = help.print();
            Err(ExitCode::SUCCESS)
        }
    }
}

/// Says what is wrong, and how it is used.
fn misused(what: &str) -> ExitCode {
    eprintln!("{what}\n\n{}", Cli::command().render_help());
    ExitCode::FAILURE
}

fn version() -> String {
    format!(
        "slirp4netns version {VERSION}\nSLIRP_CONFIG_VERSION_MAX: {CONFIG_VERSION}\nimplementation: pontoon {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn understand(cli: Cli) -> Result<Options> {
    if cli.macaddress.is_some() && !cli.configure {
        bail!("--macaddress cannot be specified when --configure or -c is not specified");
    }
    let target = match cli.target_type {
        TargetType::Netns => netns_target(&cli)?,
        TargetType::Bess => bess_target(&cli)?,
    };
    Ok(Options {
        target,
        configure: cli.configure,
        exit_fd: cli.exit_fd,
        ready_fd: cli.ready_fd,
        mtu: cli.mtu,
        cidr: cli.cidr,
        net6: cli.enable_ipv6.then_some(Net6),
        api_socket: cli.api_socket,
        host_loopback: !cli.disable_host_loopback,
        dns: !cli.disable_dns,
        outbound4: cli.outbound_addr,
        outbound6: cli.outbound_addr6,
        mac: cli.macaddress,
        sandbox: cli.sandbox,
        sandbox_required: cli.enable_sandbox,
        seccomp_required: cli.enable_seccomp,
    })
}

fn bess_target(cli: &Cli) -> Result<Target> {
    for (given, option) in [
        (cli.configure, "--configure"),
        (cli.netns_type.is_some(), "--netns-type"),
        (cli.userns_path.is_some(), "--userns-path"),
    ] {
        if given {
            bail!("{option} conflicts with --target-type=bess");
        }
    }
    match cli.words.as_slice() {
        [path] => Ok(Target::Bess(path.into())),
        [] => bail!("the path of a socket is needed"),
        [_, _, ..] => bail!("too many arguments"),
    }
}

fn netns_target(cli: &Cli) -> Result<Target> {
    let kind = cli.netns_type.unwrap_or(NetnsType::Pid);
    let Some((first, rest)) = cli.words.split_first() else {
        bail!("a PID, PATH or FD is needed");
    };
    let number = || first.to_str().and_then(|s| s.parse::<i32>().ok());
    let taken = match kind {
        NetnsType::Tapfd => 0,
        NetnsType::Pid | NetnsType::Path => 1,
    };
    if rest.len() > taken {
        eprintln!("WARNING: too many arguments");
    }
    let netns = match kind {
        NetnsType::Tapfd => {
            return match number() {
                Some(fd @ 0..) => Ok(Target::Tap(fd)),
                Some(_) | None => bail!("TAPFD must be a file descriptor"),
            };
        }
        NetnsType::Pid => {
            let Some(pid @ 1..) = number() else {
                bail!("PID must be a positive integer");
            };
            let user = cli.userns_path.clone();
            Netns {
                net: format!("/proc/{pid}/ns/net").into(),
                user: Some(user.unwrap_or_else(|| format!("/proc/{pid}/ns/user").into())),
            }
        }
        NetnsType::Path => {
            let net = PathBuf::from(first);
            if let Err(e) = net.symlink_metadata() {
                bail!(
                    "existing path expected when --netns-type=path: {}: {e}",
                    net.display()
                );
            }
            Netns {
                net,
                user: cli.userns_path.clone(),
            }
        }
    };
    let Some(tap) = rest.first().and_then(|t| t.to_str()) else {
        bail!("the name of the interface is needed");
    };
    // `IFNAMSIZ` counts the zero.
    if tap.is_empty() || tap.len() > 15 || tap.contains(['/', ' ']) {
        bail!("{tap:?} is no name of an interface: it has 1 to 15 characters");
    }
    Ok(Target::Netns {
        netns,
        tap: tap.to_owned(),
    })
}

fn descriptor(text: &str, what: &str) -> Result<i32> {
    match text.parse() {
        Ok(fd @ 0..) => Ok(fd),
        Ok(_) | Err(_) => bail!("{what} must be a non-negative integer"),
    }
}

fn exit_fd(text: &str) -> Result<i32> {
    descriptor(text, "exit-fd")
}

fn ready_fd(text: &str) -> Result<i32> {
    descriptor(text, "ready-fd")
}

fn mtu(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(mtu @ 1..=65_521) => Ok(mtu),
        Ok(_) | Err(_) => bail!("MTU must be a positive integer (< 65522)"),
    }
}

fn userns_path(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if path.symlink_metadata().is_err() {
        bail!("userns path doesn't exist: {text}");
    }
    Ok(path)
}

impl FromStr for Cidr {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?))
        });
        let Some((address, prefix)) = parts else {
            bail!("invalid CIDR: {text}");
        };
        if !(1..=25).contains(&prefix) {
            bail!("prefix length needs to be 1-25");
        }
        let net = Ipv4Net::new(address, prefix)?;
        if net.network() != address {
            bail!("CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24");
        }
        Ok(Self(net))
    }
}

impl Cidr {
    fn number(self, n: u32) -> Ipv4Addr {
        (u32::from(self.0.network()) + n).into()
    }

    pub(super) fn net(self) -> Ipv4Net {
        self.0
    }

    pub(super) fn gateway(self) -> Ipv4Addr {
        self.number(GATEWAY)
    }

    pub(super) fn dns(self) -> Ipv4Addr {
        self.number(DNS)
    }

    pub(super) fn dhcp(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.number(DHCP.0), self.number(DHCP.1))
    }

    pub(super) fn recommended(self) -> Ipv4Addr {
        self.number(RECOMMENDED)
    }
}

impl Net6 {
    const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);

    fn number(n: u32) -> Ipv6Addr {
        (u128::from(Self::PREFIX) + u128::from(n)).into()
    }

    pub(super) fn net(self) -> Ipv6Net {
        Ipv6Net::new_assert(Self::PREFIX, 64)
    }

    pub(super) fn gateway(self) -> Ipv6Addr {
        Self::number(GATEWAY)
    }

    pub(super) fn dns(self) -> Ipv6Addr {
        Self::number(DNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        let words = std::iter::once("slirp4netns").chain(line.split_whitespace());
        understand(Cli::try_parse_from(words)?)
    }

    fn refusal(line: &str) -> String {
        options(line).expect_err(line).to_string()
    }

    #[test]
    fn what_callers_say_is_understood() {
        // podman, rootless.
        let o = options(
            "--disable-host-loopback --mtu=65520 --enable-sandbox --enable-seccomp --enable-ipv6 -c -e 3 -r 4 \
             --api-socket /tmp/api --netns-type=path /proc/self/ns/net tap0",
        )
        .expect("podman");
        assert_eq!((o.exit_fd, o.ready_fd, o.mtu), (Some(3), Some(4), 65_520));
        assert!(
            !o.host_loopback && o.configure && o.net6.is_some() && o.sandbox_required && o.seccomp_required
        );
        assert_eq!(o.api_socket.as_deref(), Some("/tmp/api".as_ref()));
        let netns = Netns {
            net: "/proc/self/ns/net".into(),
            user: None,
        };
        assert_eq!(
            o.target,
            Target::Netns {
                netns,
                tap: "tap0".into()
            }
        );
        // RootlessKit.
        let o = options("--mtu 1500 -r 3 --disable-host-loopback --cidr 10.9.0.0/24 4711 tap0")
            .expect("RootlessKit");
        assert_eq!(o.cidr.gateway(), Ipv4Addr::new(10, 9, 0, 2));
        let netns = Netns {
            net: "/proc/4711/ns/net".into(),
            user: Some("/proc/4711/ns/user".into()),
        };
        assert_eq!(
            o.target,
            Target::Netns {
                netns,
                tap: "tap0".into()
            }
        );
    }

    #[test]
    fn options_may_be_short_joined_repeated_and_after_the_words() {
        let o = options("4711 tap0 -c -6 -c -r3 --mt 1400 --mtu=1300 --no-host-loopback --create-sandbox")
            .expect("parse");
        assert!(
            o.net6.is_some()
                && o.configure
                && !o.host_loopback
                && o.sandbox_required
                && o.ready_fd == Some(3)
                && o.mtu == 1300
        );
        assert!(options("4711 tap0 and more words").is_ok());
        assert_eq!(
            options("--netns-type=tapfd 5").expect("parse").target,
            Target::Tap(5)
        );
        assert_eq!(
            options("--target-type=bess /tmp/b").expect("parse").target,
            Target::Bess("/tmp/b".into())
        );
    }

    #[test]
    fn wrong_values_are_named_in_slirp4netns_words() {
        for (line, words) in [
            ("--mtu 0 1 tap0", "MTU must be a positive integer (< 65522)"),
            ("--mtu 65522 1 tap0", "MTU must be a positive integer (< 65522)"),
            ("-e x 1 tap0", "exit-fd must be a non-negative integer"),
            ("-r -1 1 tap0", "ready-fd must be a non-negative integer"),
            ("--cidr 24 1 tap0", "invalid CIDR: 24"),
            ("--cidr 10.0.2.0 1 tap0", "invalid CIDR: 10.0.2.0"),
            ("--cidr 10.0.2.100/26 1 tap0", "prefix length needs to be 1-25"),
            (
                "--cidr 10.0.2.100/24 1 tap0",
                "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24",
            ),
            ("x tap0", "PID must be a positive integer"),
            ("--netns-type=path /nowhere/at/all tap0", "existing path expected"),
            (
                "--userns-path=/nowhere/at/all 1 tap0",
                "userns path doesn't exist: /nowhere/at/all",
            ),
            (
                "--macaddress 0e:d4:18:d9:38:fb 1 tap0",
                "--macaddress cannot be specified",
            ),
            (
                "--target-type=bess -c /tmp/b",
                "--configure conflicts with --target-type=bess",
            ),
            ("--target-type=bess /tmp/b tap0", "too many arguments"),
            ("1", "the name of the interface is needed"),
            ("", "a PID, PATH or FD is needed"),
        ] {
            let said = refusal(line);
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn the_help_names_every_option_that_callers_look_for() {
        let help = Cli::command().render_help().to_string();
        for option in [
            "--configure",
            "--exit-fd",
            "--ready-fd",
            "--mtu",
            "--enable-ipv6",
            "--api-socket",
            "--cidr",
            "--disable-host-loopback",
            "--disable-dns",
            "--netns-type",
            "--userns-path",
            "--enable-sandbox",
            "--enable-seccomp",
            "--outbound-addr",
            "--outbound-addr6",
            "--macaddress",
            "--target-type",
            "--help",
            "--version",
        ] {
            assert!(help.contains(option), "{option}");
        }
        assert!(
            version().starts_with("slirp4netns version 1.")
                && version().contains("\nSLIRP_CONFIG_VERSION_MAX: 4\n")
        );
    }

    #[test]
    fn addresses_have_their_numbers() {
        let cidr: Cidr = "10.0.135.128/25".parse().expect("network");
        assert_eq!(cidr.recommended(), Ipv4Addr::new(10, 0, 135, 228));
        assert_eq!(
            (cidr.gateway(), cidr.dns()),
            (Ipv4Addr::new(10, 0, 135, 130), Ipv4Addr::new(10, 0, 135, 131))
        );
        assert_eq!(
            cidr.dhcp(),
            (Ipv4Addr::new(10, 0, 135, 143), Ipv4Addr::new(10, 0, 135, 158))
        );
        assert_eq!(
            (Net6.gateway(), Net6.dns()),
            ("fd00::2".parse().unwrap(), "fd00::3".parse().unwrap())
        );
    }
}
