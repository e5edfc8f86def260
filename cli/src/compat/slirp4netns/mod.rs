//! slirp4netns' command line, as podman, RootlessKit and others call it.
//!
//! # Theory of operation
//!
//! ```text
//!  caller ── slirp4netns ──── the packet process: API, published sockets, worker, sandbox
//!                  ├── a child, which enters the namespaces, opens the TAP and ends
//!                  └── keeper, which stays outside of the sandbox and watches resolv.conf
//! ```
//!
//! The process that the caller starts, and whose id it knows, is the packet process itself ([`crate::packet`] is one of a
//! front's). It gathers what it takes of the host: the wire ([`target`]), the API's socket, raw sockets for echo. Then it closes
//! the sandbox, starts the network's worker, which moves the packets, and says that it is ready. What is left for its first
//! thread is the API ([`api`], [`forwards`]) and waiting for the end: the exit descriptor hangs up, or a signal, which has
//! its usual effect. The [`keeper`] sees the end, however it comes, and removes the API's socket.
//!
//! The network has one port, and what is behind it chooses its addresses for itself, so nothing is pinned to it: the gateway
//! asks for its neighbours. Everything else is as on any network, so that a published port shows its clients' addresses.

mod api;
mod forwards;
mod keeper;
mod options;
mod target;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use pontoon_nat::config::{
    Config, Egress, Filtering, HostLoopback, LinkLocal, LoopbackSource, NameServer, Outbound, Subnet4,
    Subnet6,
};
use pontoon_nat::gateway::Published;
use pontoon_nat::publish::Transport;
use pontoon_switch::calls::Call;
use pontoon_switch::sys::fd::{adopt, close_inherited};
use pontoon_switch::{Policy, PortId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::args::{DEFAULT_MAX_FLOWS, DEFAULT_PER_CONTAINER};
use crate::fdsock::FdSocket;
use crate::ipam::mac_for;
use crate::limits::raise_open_files;
use crate::packet::protocol::NetworkConfig;
use crate::packet::wiring::{Prepared, Wiring};
use crate::ping_sockets::raw_sockets;
use crate::resolv::ResolvConf;
use crate::sandbox::{Inspection, Keep, Part, Role, Sandbox, SandboxOptions};
use api::Server;
use forwards::{Forwards, Publisher};
use keeper::{Resolvers, SocketFile};
use options::Options;
use target::Wire;

/// What the program is called by.
pub(crate) const NAME: &str = "slirp4netns";

/// The least MTU that a gateway has (RFC 791).
const LEAST_MTU: u16 = 68;

/// What the process is left with. Callers look for the capability, and at the root.
const ROLE: Role = Role {
    keep: Keep::LowPorts,
    inspection: Inspection::Owner,
    calls: &[
        pontoon_switch::worker::CALLS,
        pontoon_switch::port::CALLS,
        pontoon_nat::host::real::CALLS,
        crate::fdsock::CALLS,
        crate::bind::CALLS,
        api::CALLS,
        CALLS,
    ],
};

/// The system calls of the end.
const CALLS: &[Call] = &[
    Call::any(libc::SYS_read, "what the worker's thread says"),
    Call::any(libc::SYS_write, "what it says"),
];

/// Does what `slirp4netns` does with `arguments`; `called` is what stands before them.
pub(super) fn main(called: &OsStr, arguments: &[OsString]) -> ExitCode {
    let options = match options::parse(called, arguments) {
        Ok(options) => options,
        Err(code) => return code,
    };
    crate::log();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("slirp4netns: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the network and stays until it is over.
fn run(options: &Options) -> Result<()> {
    let given = [options.exit_fd, options.ready_fd, options.target.descriptor()];
    // Whatever else a caller has left open leads out of the sandbox.
    close_inherited(&given.into_iter().flatten().collect::<Vec<_>>())
        .context("cannot close what was inherited")?;
    // Before their numbers can be those of others.
    let exit = options.exit_fd.map(exit_descriptor);
    let ready = options.ready_fd.map(inherited).transpose();
    let ready = ready.context("the ready descriptor cannot be used")?;
    raise_open_files();
    let outbound = outbound(options)?;
    // First, as it takes the longest.
    let wire = Wire::begin(options)?;
    let server = options.api_socket.as_deref().map(Server::listen).transpose()?;
    let file = options.api_socket.as_deref().map(SocketFile::of).transpose()?;
    let asked = if options.dns {
        Resolvers::Told
    } else {
        Resolvers::Unused
    };
    let keeper = keeper::start(asked, file.as_ref())?;
    let raw = raw_sockets(&outbound);
    let prepared = Prepared::new(
        NetworkConfig {
            name: NAME.to_owned(),
            gateway: gateway(options),
            outbound,
            gateway_vlan: 0,
            sandbox: sandbox(options),
        },
        raw,
    )?;
    let port = wire.port(options.mtu)?;
    // Closed when the worker's events end, and written to when the wire is gone.
    let (ended, events) = pipe_with(PipeFlags::CLOEXEC)?;
    announce(options);

    let _ = Sandbox::from_options(&sandbox(options)).enter(&ROLE)?;
    let wiring = prepared.start(move |_| {
        // The reader is this process.
        let _ = rustix::io::write(&events, &[0]);
    })?;
    let (port, _) = wiring
        .attach(port, NAME.to_owned(), Policy::default(), None)
        .context("cannot use the wire")?;
    if let Some(ready) = ready {
        // If nobody waits for it any more, that is their affair.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&ready, b"1"));
    }
    Foreground {
        wiring,
        port,
        server,
        forwards: Forwards::new(options.cidr.recommended()),
        keeper: Some(keeper),
        exit,
        ended,
    }
    .stay()
}

/// The inherited descriptor `number`, which may be one of the standard three.
fn inherited(number: i32) -> Result<OwnedFd> {
    let standard = match number {
        0 => Some(std::io::stdin().as_fd().try_clone_to_owned()),
        1 => Some(std::io::stdout().as_fd().try_clone_to_owned()),
        2 => Some(std::io::stderr().as_fd().try_clone_to_owned()),
        _ => None,
    };
    standard
        .unwrap_or_else(|| adopt(number))
        .with_context(|| format!("descriptor {number}"))
}

/// The descriptor whose hang-up is the end. One that is not open has hung up.
fn exit_descriptor(number: i32) -> Exit {
    inherited(number).map_or(Exit::Now, Exit::When)
}

/// When it is over.
#[derive(Debug)]
enum Exit {
    /// When this hangs up.
    When(OwnedFd),
    /// At once.
    Now,
}

/// Where outgoing sockets are bound: at an address of the host's, for loopback as well.
fn outbound(options: &Options) -> Result<Outbound> {
    let address4 = options.outbound4.as_deref().map(|text| {
        let is = |ip: &IpAddr| ip.is_ipv4();
        match address_of(text, is) {
            Some(IpAddr::V4(a)) => Ok(a),
            Some(IpAddr::V6(_)) | None => {
                bail!("outbound-addr has to be valid ipv4 address or interface name: {text}")
            }
        }
    });
    let address6 = options.outbound6.as_deref().map(|text| {
        let is = |ip: &IpAddr| ip.is_ipv6();
        match address_of(text, is) {
            Some(IpAddr::V6(a)) => Ok(a),
            Some(IpAddr::V4(_)) | None => {
                bail!("outbound-addr6 has to be valid ipv6 address or interface name: {text}")
            }
        }
    });
    let outbound = Outbound {
        address4: address4.transpose()?,
        address6: address6.transpose()?,
        interface: None,
        loopback: LoopbackSource::AsOthers,
    };
    let all = [
        outbound.address4.map(IpAddr::V4),
        outbound.address6.map(IpAddr::V6),
    ];
    for ip in all.into_iter().flatten() {
        crate::outbound::check_address(ip)?;
    }
    Ok(outbound)
}

/// The address that `text` is, or the first one of that kind of the interface that it names; a link-local one is of no use
/// beyond its link.
fn address_of(text: &str, is: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip).filter(&is);
    }
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    pnet::datalink::interfaces()
        .into_iter()
        .find(|i| i.name == text)?
        .ips
        .into_iter()
        .map(|net| net.ip())
        .find(|ip| is(ip) && !link_local(ip))
}

fn gateway(options: &Options) -> Config {
    let cidr = options.cidr;
    let mut subnet4 = Subnet4::new(cidr.net(), cidr.gateway());
    subnet4.dhcp = Some(cidr.dhcp());
    subnet4.dns = name_server(options, cidr.dns());
    let subnet6 = options.net6.map(|net6| {
        let mut subnet6 = Subnet6::new(net6.net(), net6.gateway());
        subnet6.dns = name_server(options, net6.dns());
        subnet6
    });
    Config {
        mac: mac_for(cidr.gateway().into()),
        subnet4: Some(subnet4),
        subnet6,
        mtu: options.mtu.max(LEAST_MTU),
        resolvers: ResolvConf::of_host().servers,
        search: Vec::new(),
        hosts: Vec::new(),
        egress: Egress::Host,
        host_loopback: if options.host_loopback {
            HostLoopback::ByGateway
        } else {
            HostLoopback::Unreachable
        },
        link_local: LinkLocal::Refused,
        filtering: Filtering::AddressDependent,
        max_flows: DEFAULT_MAX_FLOWS,
        max_flows_per_container: DEFAULT_PER_CONTAINER,
    }
}

fn name_server<A>(options: &Options, at: A) -> NameServer<A> {
    if options.dns {
        NameServer::At(at)
    } else {
        NameServer::Silent(at)
    }
}

/// The parts that were asked for by slirp4netns' names have to be there.
fn sandbox(options: &Options) -> SandboxOptions {
    let wanted = options.sandbox.options();
    let require = |part: Part, by_name: bool| match part {
        Part::BestEffort if by_name => Part::Required,
        Part::BestEffort | Part::Required | Part::Off => part,
    };
    SandboxOptions {
        capabilities: require(wanted.capabilities, options.sandbox_required),
        root: require(wanted.root, options.sandbox_required),
        landlock: wanted.landlock,
        seccomp: require(wanted.seccomp, options.seccomp_required),
    }
}

/// Says what the network is, where whoever looks into a caller's log looks for it.
fn announce(options: &Options) {
    let cidr = options.cidr;
    let (first, last) = cidr.dhcp();
    say(&format!(
        "* MTU:             {}\n* Network:         {}\n* Netmask:         {}\n* Gateway:         {}\n\
         * DNS:             {}\n* DHCP begin:      {first}\n* DHCP end:        {last}\n* Recommended IP:  {}",
        options.mtu,
        cidr.net().network(),
        cidr.net().netmask(),
        cidr.gateway(),
        cidr.dns(),
        cidr.recommended(),
    ));
    if let Some(path) = &options.api_socket {
        say(&format!("* API Socket:      {}", path.display()));
    }
    if options.host_loopback {
        say(&format!(
            "WARNING: 127.0.0.1:* on the host is accessible as {} (set --disable-host-loopback to prohibit connecting to \
             127.0.0.1:*)",
            cidr.gateway()
        ));
    }
}

/// Writes a line to standard output. Nobody to read it is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What the first thread has, once packets move.
struct Foreground {
    wiring: Wiring,
    port: PortId,
    server: Option<Server>,
    forwards: Forwards,
    /// Until it has died.
    keeper: Option<FdSocket>,
    exit: Option<Exit>,
    ended: OwnedFd,
}

/// What has happened.
#[derive(Debug, Default)]
struct Happened {
    over: bool,
    ended: bool,
    resolvers: bool,
}

impl Foreground {
    /// Serves the API until it is over.
    fn stay(mut self) -> Result<()> {
        let result = loop {
            let happened = match self.wait() {
                Ok(happened) => happened,
                Err(e) => break Err(e),
            };
            if happened.over {
                break Ok(());
            }
            if happened.ended {
                break self.last_words();
            }
            if happened.resolvers {
                self.resolvers();
            }
            if let Some(server) = &mut self.server {
                let mut publisher = ToPort {
                    wiring: &self.wiring,
                    port: self.port,
                };
                let forwards = &mut self.forwards;
                server.serve(Instant::now(), |request| forwards.answer(request, &mut publisher));
            }
        };
        self.wiring.end();
        result
    }

    fn wait(&self) -> Result<Happened> {
        let exit = match &self.exit {
            Some(Exit::Now) => {
                return Ok(Happened {
                    over: true,
                    ..Happened::default()
                });
            }
            Some(Exit::When(fd)) => Some(fd.as_fd()),
            None => None,
        };
        let keeper = self.keeper.as_ref().map(AsFd::as_fd);
        let mut what: Vec<(BorrowedFd<'_>, PollFlags)> = vec![(self.ended.as_fd(), PollFlags::IN)];
        what.extend(exit.map(|fd| (fd, PollFlags::empty())));
        what.extend(keeper.map(|fd| (fd, PollFlags::IN)));
        what.extend(self.server.iter().flat_map(Server::interests));
        let mut fds: Vec<PollFd<'_>> = what
            .into_iter()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
            .collect();
        let deadline = self.server.as_ref().and_then(Server::deadline);
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for events"),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |there: bool| there && ready.next().unwrap_or(false);
        Ok(Happened {
            ended: next(true),
            over: next(exit.is_some()),
            resolvers: next(keeper.is_some()),
        })
    }

    /// Why packets move no more.
    fn last_words(&self) -> Result<()> {
        match rustix::io::read(&self.ended, &mut [0; 1]) {
            // The wire is gone: whoever was at the other end has closed it, or its device was removed.
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => bail!("the network's worker has ended"),
        }
    }

    /// Takes what the keeper says.
    fn resolvers(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        match keeper.try_recv::<Vec<SocketAddr>>() {
            Ok(Some((servers, _))) => {
                tracing::info!("name servers are now {servers:?}");
                if let Err(e) = self.wiring.set_resolvers(servers) {
                    tracing::error!("cannot change the name servers: {e:#}");
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => {
                tracing::warn!("changes of resolv.conf will not be seen any more: who watched it has ended");
                self.keeper = None;
            }
        }
    }
}

/// Publishes for whatever is behind the one port.
struct ToPort<'a> {
    wiring: &'a Wiring,
    port: PortId,
}

impl Publisher for ToPort<'_> {
    fn publish(&mut self, transport: Transport, socket: OwnedFd, guest: SocketAddr) -> Result<u32> {
        let published = Published {
            port: self.port,
            transport,
            container: guest,
            socket,
        };
        let rules = self.wiring.lead(vec![published])?;
        rules.first().copied().context("no rule was made")
    }

    fn unpublish(&mut self, rule: u32) -> Result<()> {
        self.wiring.unpublish(vec![rule])
    }
}
