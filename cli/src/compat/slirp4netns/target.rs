//! The wire to whatever is at the other end.
//!
//! Namespaces are entered by a child that has this for its only job: it opens the TAP there, configures it if that is asked
//! for, passes it back and ends. This process stays in the host's namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use pontoon_switch::port::plain::PlainPort;
use pontoon_switch::port::tap;
use pontoon_switch::sys::fd::adopt;
use pontoon_switch::sys::process::fork;
use pontoon_switch::{Features, Port};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::options::{Netns, Options, Target};
use crate::attach::{self, Interface, Ipv6};
use crate::fdsock::FdSocket;
use crate::netlink::Netlink;

/// A wire on its way.
#[derive(Debug)]
pub(super) enum Wire {
    /// A child is opening it.
    Child(Child),
    /// It is there.
    Tap(OwnedFd),
    /// It comes when somebody connects.
    Bess(OwnedFd, PathBuf),
}

impl Wire {
    /// Begins to get what `options` name.
    pub(super) fn begin(options: &Options) -> Result<Self> {
        match &options.target {
            Target::Netns { netns, tap } => {
                attach::check_device()?;
                Child::start(netns, tap, options).map(Self::Child)
            }
            Target::Tap(number) => {
                let tap =
                    adopt(*number).with_context(|| format!("descriptor {number} cannot be used as a TAP"))?;
                Ok(Self::Tap(tap))
            }
            Target::Bess(path) => {
                let what = || format!("cannot listen at {}", path.display());
                bind_seqpacket(path)
                    .with_context(what)
                    .map(|s| Self::Bess(s, path.clone()))
            }
        }
    }

    /// Waits for it, and makes it a port of `mtu` bytes.
    pub(super) fn port(self, mtu: u16) -> Result<Box<dyn Port>> {
        let mtu = mtu.into();
        let tap = match self {
            Self::Child(child) => child.tap()?,
            Self::Tap(tap) => tap,
            Self::Bess(listener, path) => {
                super::say(&format!("Waiting for connection to {}", path.display()));
                let socket = rustix::io::retry_on_intr(|| accept_with(&listener, SocketFlags::CLOEXEC))
                    .with_context(|| format!("cannot accept at {}", path.display()))?;
                // There is one client: nobody shall think that there might be another.
                let _ = std::fs::remove_file(&path);
                return Ok(Box::new(PlainPort::adopt_socket(socket, mtu)?));
            }
        };
        tap::adopt(tap, mtu, Features::from_env()).context("cannot use the TAP")
    }
}

/// Listens at `path`, where a socket that nobody listens at any more may lie.
fn bind_seqpacket(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    remove_stale(path)?;
    bind(&socket, &address)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Removes the socket at `path`, and nothing but a socket.
pub(super) fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match path.symlink_metadata() {
        Ok(m) if m.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something that is no socket",
        )),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// The child in the namespaces.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    socket: FdSocket,
}

impl Child {
    fn start(netns: &Netns, tap: &str, options: &Options) -> Result<Self> {
        let (ours, theirs) = FdSocket::pair().context("cannot make a socket pair")?;
        let pid = fork(&[theirs.as_fd()], || {
            let Ok(socket) = theirs.try_clone().map(FdSocket::new) else {
                return 1;
            };
            let sent = match open(netns, tap, options) {
                Ok(tap) => socket.send(&Ok::<_, String>(()), &[tap.as_fd()]),
                Err(e) => socket.send(&Err::<(), _>(format!("{e:#}")), &[]),
            };
            u8::from(sent.is_err())
        })
        .context("cannot start a child")?;
        // So that its death is seen.
        drop(theirs);
        Ok(Self { pid, socket: ours })
    }

    fn tap(mut self) -> Result<OwnedFd> {
        let heard = self.socket.recv::<Result<(), String>>();
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
        match heard.context("the child in the namespaces cannot be understood")? {
            Some((Ok(()), mut fds)) if fds.len() == 1 => Ok(fds.remove(0)),
            Some((Ok(()), _)) => bail!("the child in the namespaces sent no interface"),
            Some((Err(why), _)) => bail!(why),
            None => bail!("the child in the namespaces died"),
        }
    }
}

/// What the child does.
fn open(netns: &Netns, name: &str, options: &Options) -> Result<OwnedFd> {
    let file = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    // Both before either is entered: the paths are ours.
    let net = file(&netns.net)?;
    let user = netns.user.as_deref().map(file).transpose()?;
    attach::become_untraceable()?;
    if let Some(user) = user {
        // It may be the one that we are in, and it may not be needed; where it was, entering the other fails.
        if let Err(e) = move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)) {
            tracing::debug!("the user namespace was not entered: {e}");
        }
    }
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {}", netns.net.display()))?;
    let tap = attach::open(name)?;
    if options.configure {
        let mut netlink = Netlink::open().context("cannot open a netlink socket in the namespace")?;
        attach::loopback_up(&mut netlink)?;
        let address = Ipv4Net::new(options.cidr.recommended(), options.cidr.net().prefix_len())?;
        attach::configure(
            &mut netlink,
            &Interface {
                name,
                mac: options.mac,
                mtu: options.mtu.into(),
                queue: Some(attach::QUEUE),
                addresses: &[IpNet::V4(address)],
                gateways: &[options.cidr.gateway().into()],
                default: true,
                source_table: None,
                routes: &[],
                ipv6: Ipv6::Untouched,
            },
        )?;
    } else if let Err(e) = attach::lengthen_queue(name) {
        tracing::debug!("the queue of {name} stays as it is: {e:#}");
    }
    Ok(tap)
}
