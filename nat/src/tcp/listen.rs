//! Published TCP ports: clients of the host are led to a container.

use std::time::Duration;

use super::*;
use crate::flow::{NewFlow, Protocol, State, Tuple};
use crate::host::Accepted;
use crate::publish::Transport;

/// Clients taken from one listener before everything else has its turn.
const BATCH: usize = 64;
/// After how long a listener that failed for want of a descriptor is tried again: no edge tells when one is free.
const RETRY: Duration = Duration::from_millis(100);
/// Ports tried for a client whose tuple is taken.
const PORT_TRIES: u16 = 64;

/// How a client's socket comes to report under its connection's token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Watch {
    /// It is not watched yet.
    Begin,
    /// It reports under another token.
    Rename,
}

#[derive(Debug)]
pub(super) struct Listener<L> {
    pub(super) socket: L,
    pub(super) port: PortId,
    pub(super) container: SocketAddr,
    /// The container's address of the other IP version, for a server that listens on that only.
    pub(super) alternate: Option<IpAddr>,
    /// More clients may be waiting; they are asked for then.
    pub(super) retry: Option<Instant>,
}

impl<H: TcpHost> Relay<H> {
    /// The token for a listener's socket that is about to be published.
    pub fn next_listener_token(&self) -> Token {
        let key = self.listeners.next_key();
        Token {
            kind: Kind::TcpListener,
            index: key.index,
            generation: key.generation,
        }
    }

    /// The tokens under which the listeners report.
    pub fn listener_tokens(&self) -> Vec<Token> {
        let token = |key: Key| Token {
            kind: Kind::TcpListener,
            index: key.index,
            generation: key.generation,
        };
        self.listeners.iter().map(|(key, _)| token(key)).collect()
    }

    /// Leads clients of `socket`, which reports under [`Relay::next_listener_token`], to `container` at `port`; one that
    /// is refused there to the same port of `alternate`, the container's address of the other IP version.
    pub fn publish(
        &mut self,
        port: PortId,
        container: SocketAddr,
        alternate: Option<IpAddr>,
        socket: H::Listener,
    ) -> Key {
        let key = self.listeners.insert(Listener {
            socket,
            port,
            container,
            alternate,
            retry: None,
        });
        // Clients who came before the socket was watched make no edge.
        self.retry(key, Instant::ZERO);
        key
    }

    /// Closes a published port; connections that came by it live on. False if there is none.
    pub fn unpublish(&mut self, key: Key) -> bool {
        self.listeners.remove(key).is_some()
    }

    /// Clients are waiting at a listener.
    pub fn listener_ready(&mut self, cx: &mut Cx<'_, H>, token: Token) {
        let key = self
            .listeners
            .key_at(token.index)
            .filter(|k| token.is_of(k.generation));
        if let Some(key) = key {
            self.accept(cx, key);
        }
    }

    /// Resets the connections of clients that may not use the container's `port` (any more), on both sides.
    pub fn end_denied(&mut self, cx: &mut Cx<'_, H>, container: PortId, port: u16) {
        let target = (container, Transport::Tcp, port);
        let denied = |conn: &Conn<H::Tcp>| {
            conn.container.port() == port
                && cx
                    .flows
                    .get(conn.flow)
                    .is_some_and(|e| !e.outbound() && e.container() == container)
                // The flow has the address that the container sees. A socket that has lost its client ends by itself.
                && conn
                    .socket
                    .as_ref()
                    .and_then(|s| s.peer_addr().ok())
                    .is_some_and(|client| cx.sources.denies(target, client.ip()))
        };
        let doomed: Vec<Key> = self
            .conns
            .iter()
            .filter(|(_, c)| denied(c))
            .map(|(k, _)| k)
            .collect();
        for key in doomed {
            cx.drop(container, DropReason::Denied);
            self.abort(cx, key);
        }
    }

    pub(super) fn retry_listeners(&mut self, cx: &mut Cx<'_, H>) {
        if self.retry_at.is_none_or(|at| at > cx.now) {
            return;
        }
        let now = cx.now;
        let again: Vec<Key> = self
            .listeners
            .iter()
            .filter(|(_, l)| l.retry.is_some_and(|at| at <= now))
            .map(|(k, _)| k)
            .collect();
        for key in again {
            self.accept(cx, key);
        }
        self.retry_at = self.listeners.iter().filter_map(|(_, l)| l.retry).min();
    }

    fn retry(&mut self, key: Key, at: Instant) {
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.retry = Some(at);
            self.retry_at = Some(self.retry_at.map_or(at, |earliest| earliest.min(at)));
        }
    }

    fn accept(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let mut failures = 0;
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(key) else {
                return;
            };
            listener.retry = None;
            match cx.host.tcp_accept(&mut listener.socket) {
                Ok(accepted) => {
                    let (port, container, alternate) =
                        (listener.port, listener.container, listener.alternate);
                    let Accepted {
                        mut socket,
                        peer,
                        local,
                    } = accepted;
                    if cx
                        .sources
                        .denies((port, Transport::Tcp, container.port()), peer.ip())
                    {
                        cx.drop(port, DropReason::Denied);
                        socket.reset_on_drop();
                        continue;
                    }
                    let client = visible_client(cx, peer, local, container);
                    self.ask_container(cx, port, container, alternate, client, (socket, Watch::Begin));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.raw_os_error().is_some_and(is_exhaustion) => {
                    cx.out.drop(Some(listener.port), DropReason::HostExhausted);
                    // A client that waits in vain is worse off than one that is refused.
                    if !cx.host.tcp_refuse(&mut listener.socket) {
                        return self.retry(key, cx.now + RETRY);
                    }
                }
                // The client has gone again: the next one.
                Err(_) => failures += 1,
            }
        }
        // Nothing but failures is no matter of clients: it is not asked again at once, over and over.
        let pause = if failures == BATCH { RETRY } else { Duration::ZERO };
        self.retry(key, cx.now + pause);
    }

    /// A client is connected, whom the container shall see as `client`: asks the container.
    fn ask_container(
        &mut self,
        cx: &mut Cx<'_, H>,
        port: PortId,
        container: SocketAddr,
        alternate: Option<IpAddr>,
        client: Option<SocketAddr>,
        (mut socket, watch): (H::Tcp, Watch),
    ) {
        let key = self.conns.next_key();
        let opened = client.ok_or(DropReason::NoFlow).and_then(|client| {
            let flow = NewFlow {
                tuple: Tuple {
                    protocol: Protocol::Tcp,
                    src: client,
                    dst: container,
                },
                reply: None,
                container: port,
                outbound: false,
                state: State::SynReceived,
                data: key.index,
                shares_socket: false,
                mark: 0,
                track: None,
            };
            let ticket = cx.ticket(port)?;
            Ok((cx.flows.insert(cx.now, flow)?, client, ticket))
        });
        let (flow, client, ticket) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                cx.out.drop(Some(port), reason);
                return socket.reset_on_drop();
            }
        };
        // Now, not when the container has answered: what the client has said by then is known then.
        let watched = match watch {
            Watch::Begin => cx.host.tcp_register(&socket, token(key)),
            Watch::Rename => cx.host.tcp_rearm(&socket, token(key)),
        };
        if watched.is_err() {
            cx.flows.remove(flow);
            cx.out.drop(Some(port), DropReason::HostExhausted);
            return socket.reset_on_drop();
        }
        let iss = self.initial_seq(cx.now, container, client);
        let mut conn = Conn::new(
            cx.now,
            flow,
            (socket, Some(ticket)),
            container,
            client,
            Phase::SynSent,
            iss,
        );
        conn.alternate = alternate;
        // Inherited from the listener.
        conn.watched = true;
        conn.timing = Some((iss.plus(1), cx.now));
        conn.mss = link_mss(cx.config.mtu, container);
        let key = self.conns.insert(conn);
        self.send_syn(cx, key);
        self.schedule(cx.now, key);
    }

    /// The container has refused a client: its address of the other version is asked, if it has one, else the client is
    /// reset. Many servers listen on IPv4 only, and `localhost` is `::1` to many clients, who would not try again after
    /// they had been connected.
    pub(super) fn refused_by_container(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.take(key) else {
            return;
        };
        let port = cx.flows.remove(conn.flow).map(|e| e.container());
        let Some(mut socket) = conn.socket else { return };
        let (Some(port), Some(alternate)) = (port, conn.alternate) else {
            return socket.reset_on_drop();
        };
        let container = SocketAddr::new(alternate, conn.container.port());
        let client = cx.config.gateway_like(alternate);
        let client = client.and_then(|ip| free_port(cx, ip, conn.remote.port(), container));
        self.ask_container(cx, port, container, None, client, (socket, Watch::Rename));
    }
}

/// The address under which the container sees a client: its own, except where an answer would not come back here (an
/// address of the container's link or of the other IP version) or would name the container's own loopback (a client on
/// the host itself); then it is the gateway's. `None` if no free port is left for it.
fn visible_client<H>(
    cx: &Cx<'_, H>,
    peer: SocketAddr,
    local: SocketAddr,
    container: SocketAddr,
) -> Option<SocketAddr> {
    // Where the network lacks the container's IP version, the gateway is silent in it.
    let gateway = cx.config.gateway_like(container.ip())?;
    let ip = peer.ip().to_canonical();
    let link_local = match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    let as_gateway = ip.is_loopback()
        || ip == local.ip().to_canonical()
        || link_local
        || cx.config.on_link(ip)
        || ip.is_ipv4() != container.is_ipv4();
    let ip = if as_gateway { gateway } else { ip };
    free_port(cx, ip, peer.port(), container)
}

/// `ip` with a port whose tuple towards `container` is free: the one wanted, if possible. Two clients seen as the gateway may
/// have the same.
fn free_port<H>(cx: &Cx<'_, H>, ip: IpAddr, wanted: u16, container: SocketAddr) -> Option<SocketAddr> {
    let free = |&client: &SocketAddr| {
        let tuple = Tuple {
            protocol: Protocol::Tcp,
            src: client,
            dst: container,
        };
        client.port() != 0 && cx.flows.lookup(&tuple).is_none()
    };
    (0..PORT_TRIES)
        .map(|n| SocketAddr::new(ip, wanted.wrapping_add(n.wrapping_mul(977))))
        .find(free)
}
