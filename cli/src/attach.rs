//! The attach helper: a process of its own that enters a container's user and network namespaces, makes and configures
//! the interface there, passes its descriptor back and ends.
//!
//! It is told what to do over a `SOCK_SEQPACKET`: one [`Request`] with the pidfd of a process in the container; it answers
//! with one [`Answer`] and the TAP. The front forks the helper for its first container before it has threads, and lets it
//! wait; later ones are executed.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use pontoon_switch::MacAddr;
use pontoon_switch::sys::process::fork;
use pontoon_switch::sys::tun;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use crate::fdsock::FdSocket;
use crate::netlink::Netlink;

/// Name of the interface inside.
pub(crate) const INTERFACE: &str = "eth0";

/// Packets that the interface holds until they are read. A TAP does not hold its senders up: what finds the queue full is
/// lost. When thousands of connections speak at once, as after a pause of the network, all that was lost is sent again
/// at the same instant, and of each such wave little more gets through than the queue holds; with the kernel's 1000 there were
/// connections that had no answer after ten seconds. In that time the container's TCP tries six times: six times this
/// is more than the connections that the usual limit of 20,000 descriptors allows. Twice as much would only be twice the kernel
/// memory and twice the delay that a flood of datagrams can cause.
const QUEUE: u32 = 4096;

/// How long the helper may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The interface wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// MAC address.
    pub(crate) mac: MacAddr,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Addresses with their prefixes.
    pub(crate) addresses: Vec<IpNet>,
    /// Default routes.
    pub(crate) gateways: Vec<IpAddr>,
}

/// How it went: nothing, or what failed.
type Answer = Result<(), String>;

/// A helper, from our side. Dropping it waits for its end, which follows its answer or the loss of its socket.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: Option<FdSocket>,
    child: Child,
}

#[derive(Debug)]
enum Child {
    Forked(Pid),
    Executed(std::process::Child),
}

impl Helper {
    /// Makes one that waits for its request. There must be one thread only.
    pub(crate) fn fork() -> Result<Self> {
        let (ours, theirs) = Self::pair()?;
        let child = fork(&[theirs.as_fd()], || {
            match theirs
                .try_clone()
                .map_err(Into::into)
                .and_then(|fd| serve(FdSocket::new(fd)))
            {
                Ok(()) => 0,
                Err(e) => {
                    tracing::error!("the attach helper failed: {e:#}");
                    1
                }
            }
        });
        Ok(Self {
            socket: Some(ours),
            child: Child::Forked(child.context("cannot start the attach helper")?),
        })
    }

    /// Makes one where there are threads already.
    pub(crate) fn spawn() -> Result<Self> {
        let (ours, theirs) = Self::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg("__attach")
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the attach helper")?;
        Ok(Self {
            socket: Some(ours),
            child: Child::Executed(child),
        })
    }

    fn pair() -> Result<(FdSocket, OwnedFd)> {
        let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair for the attach helper")?;
        ours.set_timeout(Some(PATIENCE))?;
        Ok((ours, theirs))
    }

    /// Has it begin with the container that `pidfd` is a process of.
    pub(crate) fn begin(&self, pidfd: &OwnedFd, request: &Request) -> Result<()> {
        let socket = self.socket.as_ref().context("the attach helper is gone")?;
        socket
            .send(request, &[pidfd.as_fd()])
            .context("the attach helper takes no request")
    }

    /// Waits for what it has begun; gives the TAP.
    pub(crate) fn tap(&mut self) -> Result<OwnedFd> {
        let socket = self.socket.as_mut().context("the attach helper is gone")?;
        match socket.recv::<Answer>() {
            Ok(Some((Ok(()), mut fds))) if fds.len() == 1 => Ok(fds.remove(0)),
            Ok(Some((Ok(()), _))) => bail!("the attach helper sent no interface"),
            Ok(Some((Err(why), _))) => bail!(why),
            Ok(None) => bail!("the attach helper died"),
            Err(e) => {
                // It hangs or is dead: either way it is to be gone before we are.
                self.child.kill();
                Err(e).context("the attach helper does not answer")
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.socket = None;
        self.child.wait();
    }
}

impl Child {
    // Errors mean that it has ended.
    fn kill(&mut self) {
        match self {
            Self::Forked(pid) => drop(rustix::process::kill_process(*pid, Signal::KILL)),
            Self::Executed(child) => drop(child.kill()),
        }
    }

    fn wait(&mut self) {
        match self {
            Self::Forked(pid) => drop(rustix::io::retry_on_intr(|| {
                waitpid(Some(*pid), WaitOptions::empty())
            })),
            Self::Executed(child) => drop(child.wait()),
        }
    }
}

/// The main function of one that was executed.
pub(crate) fn main() -> Result<()> {
    serve(FdSocket::from_stdin().context("the attach helper is started by pontoon itself")?)
}

/// The helper's life.
fn serve(mut socket: FdSocket) -> Result<()> {
    let Some((request, fds)) = socket.recv::<Request>()? else {
        return Ok(());
    };
    let [pidfd] = fds.as_slice() else {
        bail!("one pidfd expected")
    };
    match make(pidfd, &request) {
        Ok(tap) => socket.send(&Answer::Ok(()), &[tap.as_fd()])?,
        Err(e) => socket.send(&Answer::Err(format!("{e:#}")), &[])?,
    }
    Ok(())
}

fn make(pidfd: &OwnedFd, request: &Request) -> Result<OwnedFd> {
    check_device()?;
    become_untraceable()?;
    move_into_thread_name_spaces(
        pidfd.as_fd(),
        ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK,
    )
    .context("cannot enter the container's user and network namespaces")?;
    let tap = open(INTERFACE)?;
    let ipv6 = if request.addresses.iter().any(|a| matches!(a, IpNet::V6(_))) {
        Ipv6::Given
    } else {
        Ipv6::Off
    };
    let mut netlink = Netlink::open().context("cannot open a netlink socket in the container")?;
    configure(
        &mut netlink,
        &Interface {
            name: INTERFACE,
            mac: Some(request.mac),
            mtu: request.mtu,
            addresses: &request.addresses,
            gateways: &request.gateways,
            ipv6,
        },
    )?;
    Ok(tap)
}

/// Sees that the host's TUN device can be opened: by us, with our own rights, before anything of the container is entered.
pub(crate) fn check_device() -> Result<()> {
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    let Err(e) = rustix::fs::access("/dev/net/tun", access) else {
        return Ok(());
    };
    let hint = match e {
        rustix::io::Errno::NOENT => "load the kernel's module: modprobe tun",
        _ => "it must be readable and writable: chmod 666 /dev/net/tun",
    };
    bail!("cannot open /dev/net/tun: {e}; {hint}")
}

/// In the container's user namespace its root may trace us, who see the host's files, unless we cannot be.
pub(crate) fn become_untraceable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot keep the attach helper from being traced")
}

/// Opens the TAP `name` of the network namespace that we are in.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    tun::open_tap(name)
        .map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => {
                anyhow::anyhow!("the container has an interface {name} already, and it is in use")
            }
            _ => e.into(),
        })
        .with_context(|| format!("cannot make the interface {name} in the container"))
}

/// How an interface is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its MAC address; the kernel's choice if none.
    pub(crate) mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub(crate) mtu: u32,
    /// Its addresses with their prefixes.
    pub(crate) addresses: &'a [IpNet],
    /// Default routes through it.
    pub(crate) gateways: &'a [IpAddr],
    /// What becomes of IPv6.
    pub(crate) ipv6: Ipv6,
}

/// How an interface comes by its IPv6 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ipv6 {
    /// There is no IPv6.
    Off,
    /// By us alone: router advertisements are not listened to.
    Given,
    /// As the container's kernel has it, which means by router advertisements unless told otherwise.
    Untouched,
}

/// Brings the loopback and an interface up, as `wanted`.
pub(crate) fn configure(netlink: &mut Netlink, wanted: &Interface<'_>) -> Result<()> {
    let name = wanted.name;
    let lo = netlink
        .link_index("lo")
        .context("the container has no loopback")?;
    netlink
        .set_up(lo)
        .context("cannot bring the container's loopback up")?;
    let index = netlink.link_index(name).context("the interface is gone")?;
    netlink
        .set_link(index, wanted.mac, Some(wanted.mtu), QUEUE)
        .with_context(|| {
            let mac = wanted.mac.map(|mac| format!("MAC address {mac}, "));
            format!(
                "cannot set {}MTU {} and the queue of {name}",
                mac.unwrap_or_default(),
                wanted.mtu
            )
        })?;
    match wanted.ipv6 {
        Ipv6::Off => {
            // Or the kernel would give it a link-local address. A kernel without IPv6 has nothing to turn off.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        }
        // Addresses and routes are ours to set; a container that wants them by router advertisement turns this on.
        // Without duplicate address detection the link-local address, too, works at once.
        Ipv6::Given => {
            for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
                sysctl(name, setting, value);
            }
        }
        Ipv6::Untouched => {}
    }
    netlink
        .set_up(index)
        .with_context(|| format!("cannot bring {name} up"))?;
    for &address in wanted.addresses {
        netlink
            .add_address(index, address)
            .with_context(|| format!("cannot give {name} the address {address}"))?;
    }
    for &gateway in wanted.gateways {
        netlink
            .add_default_route(index, gateway)
            .with_context(|| format!("cannot add the default route through {gateway}"))?;
    }
    Ok(())
}

/// Gives the interface `name`, which somebody else configures, the queue that ours have.
pub(crate) fn lengthen_queue(name: &str) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.link_index(name)?;
    Ok(netlink.set_link(index, None, None, QUEUE)?)
}

/// Sets an IPv6 setting of an interface: `/proc/sys/net` shows the network namespace of whoever looks.
fn sysctl(interface: &str, name: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/{name}");
    // Where /proc/sys is covered or read-only (inside another container) the defaults have to do.
    if let Err(e) = std::fs::write(&path, value) {
        tracing::warn!("cannot set {path} to {value}: {e}");
    }
}
