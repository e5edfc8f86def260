//! The real host: system calls on non-blocking sockets, watched by the worker's poll.

mod calls;
mod ping;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use pontoon_switch::worker::Registrar;
use pontoon_switch::{Feature, Features};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use calls::CALLS;
pub use ping::RealPing;
pub use tcp::{RealListener, RealTcp};
pub use udp::RealUdp;

use crate::config::{LoopbackSource, Outbound};

/// The sockets of the machine this runs on.
#[derive(Debug)]
pub struct RealHost {
    registrar: Registrar,
    features: Features,
    outbound: Outbound,
    peek_offset: PeekOffset,
    /// The ports that the kernel gives out by itself.
    ephemeral: (u16, u16),
    /// A descriptor kept so that a client can be refused when there is no other.
    reserve: Option<OwnedFd>,
}

/// For which IP versions TCP sockets have `SO_PEEK_OFF`.
#[derive(Clone, Copy, Debug)]
struct PeekOffset {
    v4: bool,
    v6: bool,
}

impl RealHost {
    /// The host as seen through `registrar`'s worker. Optional kernel features are probed here, once, within what
    /// `features` allows.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(registrar: Registrar, features: Features, outbound: Outbound) -> io::Result<Self> {
        let allowed = features.allows(Feature::PeekOff);
        let peek_offset = PeekOffset {
            v4: allowed && tcp::has_peek_offset(Domain::IPV4),
            v6: allowed && tcp::has_peek_offset(Domain::IPV6),
        };
        tracing::debug!(?peek_offset, "TCP sockets");
        Ok(Self {
            registrar,
            features,
            outbound,
            peek_offset,
            ephemeral: udp::ephemeral_ports(),
            reserve: Some(spare_descriptor()?),
        })
    }

    /// A socket as all outgoing ones are: non-blocking, closed on exec, bound as the configuration says.
    fn outgoing(&self, remote: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let domain = match remote {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        };
        let socket = Socket::new_raw(domain, kind.nonblocking().cloexec(), Some(protocol))?;
        if let Some(interface) = &self.outbound.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let source: Option<IpAddr> = match remote {
            IpAddr::V4(_) => self.outbound.address4.map(IpAddr::V4),
            IpAddr::V6(_) => self.outbound.address6.map(IpAddr::V6),
        };
        let bound = !remote.is_loopback() || self.outbound.loopback == LoopbackSource::AsOthers;
        if let Some(source) = source.filter(|_| bound) {
            if kind == Type::STREAM {
                tcp::leave_port_to_connect(&socket);
            }
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        Ok(socket)
    }
}

/// A descriptor of nothing in particular, which takes no file to make: an empty root has none.
fn spare_descriptor() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}
