//! What is known of a question on its way.

use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{Instant, MacAddr, PortId};

use super::PATIENCE;
use super::pool::Place;
use super::tcp::TcpQuery;
use crate::dns::message::{self, Question};
use crate::dns::stream::ConnId;

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::dns) enum Client {
    /// By UDP.
    Udp {
        /// Its port on the switch.
        port: PortId,
        /// Its Ethernet address.
        mac: MacAddr,
        /// Its address and port.
        addr: SocketAddr,
        /// The gateway's address that it asked.
        local: IpAddr,
    },
    /// By TCP.
    Tcp {
        /// Its port on the switch.
        port: PortId,
        /// Its connection.
        conn: ConnId,
    },
}

impl Client {
    /// The port on the switch that the question came from.
    pub(in crate::dns) fn port(&self) -> PortId {
        match *self {
            Self::Udp { port, .. } | Self::Tcp { port, .. } => port,
        }
    }
}

/// An answer to be delivered, with the client's own identification.
pub(in crate::dns) type Answer = (Client, Vec<u8>);

/// Why a question was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::dns) enum Refusal {
    /// Too many are outstanding.
    Full,
    /// The container has too many outstanding.
    Share,
    /// The host has no socket left to ask by; the client has been told.
    Exhausted,
}

/// How a question is being asked.
pub(super) enum Upstream<S> {
    None,
    Udp(Place),
    Tcp(TcpQuery<S>),
}

/// A question that is outstanding.
pub(super) struct Query<S> {
    pub(super) client: Client,
    pub(super) client_id: u16,
    pub(super) question: Question,
    /// The client's message with our identification, behind its length.
    pub(super) framed: Vec<u8>,
    pub(super) upstream: Upstream<S>,
    pub(super) asked: Vec<SocketAddr>,
    pub(super) attempts: usize,
    pub(super) since: Instant,
    /// When the present attempt ends.
    pub(super) next: Instant,
}

impl<S> Query<S> {
    pub(super) fn end(&self) -> Instant {
        self.since + PATIENCE
    }

    pub(super) fn id(&self) -> u16 {
        message::id(&self.framed[2..])
    }

    /// True if `remote` has been asked.
    pub(super) fn has_asked(&self, remote: SocketAddr) -> bool {
        // IPv6 addresses come with a scope.
        let same = |a: &SocketAddr| (a.ip(), a.port()) == (remote.ip(), remote.port());
        self.asked.iter().any(same)
    }
}

/// What came of asking a resolver.
pub(super) enum Attempt {
    /// It has been asked.
    Made,
    /// None is left to be asked; the client has been told.
    GivenUp,
    /// The same, as the host has no socket left.
    Exhausted,
}
