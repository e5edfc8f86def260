//! Published ports: clients of the host's sockets, led to containers.

use std::io;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{DropReason, PortId};

use super::inbound::Way;
use super::outbound::published_token;
use super::{Client, Published, Relay};
use crate::cx::Cx;
use crate::flow::{Direction, FlowId, NewFlow, Protocol, State, Table, Tuple};
use crate::host::{Kind, Token, UdpHost, UdpRecv};
use crate::publish::Transport;
use crate::slab::Key;

/// Ports that clients get which appear as the gateway (RFC 6335: dynamic ports).
const FIRST_PORT: u16 = 49_152;

impl<H: UdpHost> Relay<H> {
    /// The token that the socket of the next [`Relay::publish`] has to be registered under.
    pub fn next_published_token(&self) -> Token {
        published_token(self.published.next_key())
    }

    /// Leads what comes to `socket` to `container`, which is at `port` of the switch.
    ///
    /// # Errors
    /// The poll refuses the socket.
    pub fn publish(
        &mut self,
        host: &mut H,
        port: PortId,
        container: SocketAddr,
        mut socket: H::Udp,
    ) -> io::Result<Key> {
        host.udp_register(&mut socket, self.next_published_token())?;
        Ok(self.published.insert(Published {
            socket,
            container,
            port,
        }))
    }

    /// Takes a published port back; its flows end with it. False if there is no such port.
    pub fn unpublish(&mut self, table: &mut Table, key: Key) -> bool {
        if self.published.remove(key).is_none() {
            return false;
        }
        let flows: Vec<FlowId> = self
            .clients
            .iter()
            .filter(|(_, c)| c.published == key)
            .map(|(_, c)| c.flow)
            .collect();
        for id in flows {
            if let Some(entry) = table.remove(id) {
                self.ended(id, &entry);
            }
        }
        true
    }

    /// The container's port on the switch if `client` may not send to the published socket under `token`.
    pub(super) fn denied(&self, cx: &Cx<'_, H>, token: Token, client: IpAddr) -> Option<PortId> {
        let published = match token.kind {
            Kind::UdpPublished => self.published.get(self.published.key_at(token.index)?)?,
            Kind::UdpMapping | Kind::Tcp | Kind::TcpListener | Kind::Ping | Kind::Dns => return None,
        };
        cx.sources
            .denies(published.target(), client)
            .then_some(published.port)
    }

    /// Ends the flows of clients that may not use the container's `port` (any more).
    pub fn end_denied(&mut self, cx: &mut Cx<'_, H>, container: PortId, port: u16) {
        let target = (container, Transport::Udp, port);
        let denied = |client: &Client| {
            let published = self.published.get(client.published);
            published.is_some_and(|p| p.target() == target) && cx.sources.denies(target, client.remote.ip())
        };
        let doomed: Vec<FlowId> = self
            .clients
            .iter()
            .filter(|(_, c)| denied(c))
            .map(|(_, c)| c.flow)
            .collect();
        for id in doomed {
            cx.drop(container, DropReason::Denied);
            if let Some(entry) = cx.flows.remove(id) {
                self.ended(id, &entry);
            }
        }
    }

    /// The flow of a datagram that a client sent to a published port.
    pub(super) fn client(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        received: &UdpRecv,
    ) -> Result<Way, DropReason> {
        let container = self.published.get(key).ok_or(DropReason::NoFlow)?.container;
        let known = self.by_client.get(&(key, received.remote)).copied();
        if let Some(client) = known.and_then(|k| self.clients.get_mut(k)) {
            client.local = received.local;
            let flow = client.flow;
            if let Some(entry) = cx.flows.get(flow) {
                let shown = entry.tuple().src;
                return Ok(Way {
                    flow,
                    direction: Direction::Original,
                    shown,
                    container,
                });
            }
        }
        self.new_client(cx, key, received, container)
    }

    fn new_client(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        received: &UdpRecv,
        container: SocketAddr,
    ) -> Result<Way, DropReason> {
        let port = self.published.get(key).ok_or(DropReason::NoFlow)?.port;
        if received.remote.port() == 0 {
            return Err(DropReason::Malformed);
        }
        // A client whose flow is out of the table, but of which the relay has not been told yet.
        if let Some(stale) = self.by_client.remove(&(key, received.remote)) {
            self.clients.remove(stale);
        }
        let shown = shown(cx, received, container)?;
        let slot = self.clients.next_key();
        let tuple = Tuple {
            protocol: Protocol::Udp,
            src: shown,
            dst: container,
        };
        let flow = cx.flows.insert(
            cx.now,
            NewFlow {
                tuple,
                reply: None,
                container: port,
                outbound: false,
                state: State::UdpNew,
                data: slot.index,
                shares_socket: true,
                mark: 0,
                track: None,
            },
        )?;
        let client = Client {
            published: key,
            remote: received.remote,
            local: received.local,
            flow,
        };
        let inserted = self.clients.insert(client);
        debug_assert_eq!(inserted, slot);
        self.by_client.insert((key, received.remote), slot);
        Ok(Way {
            flow,
            direction: Direction::Original,
            shown,
            container,
        })
    }
}

/// The source that `container` sees of a new client.
fn shown<H>(cx: &Cx<'_, H>, received: &UdpRecv, container: SocketAddr) -> Result<SocketAddr, DropReason> {
    let remote = received.remote;
    // Where the network lacks the container's IP version, the gateway is silent in it.
    let gateway = cx
        .config
        .gateway_like(container.ip())
        .ok_or(DropReason::NoNeighbour)?;
    let free = |src: SocketAddr| {
        src != container
            && cx
                .flows
                .lookup(&Tuple {
                    protocol: Protocol::Udp,
                    src,
                    dst: container,
                })
                .is_none()
    };
    // The container could not answer these: an address that is the host's own, or on its link.
    let hidden = remote.ip().is_loopback()
        || received.local == Some(remote.ip())
        || remote.is_ipv4() != container.is_ipv4()
        || cx.config.on_link(remote.ip())
        || cx.config.is_gateway(remote.ip())
        || is_link_local(remote.ip());
    let plain = SocketAddr::new(remote.ip(), remote.port());
    if !hidden && free(plain) {
        return Ok(plain);
    }
    // The client's own port if it can be had; services of the gateway have the low ones.
    let start = remote.port().max(FIRST_PORT);
    (start..=u16::MAX)
        .chain(FIRST_PORT..start)
        .map(|port| SocketAddr::new(gateway, port))
        .find(|&candidate| free(candidate))
        .ok_or(DropReason::TableFull)
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
