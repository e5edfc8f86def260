//! Published TCP ports: clients of the host are led to a container.

use std::time::Duration;

use super::*;
use crate::flow::{NewFlow, Protocol, State, Tuple};

/// Clients taken from one listener before everything else has its turn.
const BATCH: usize = 64;
/// After how long a listener that failed for want of a descriptor is tried again: no edge tells when one is free.
const RETRY: Duration = Duration::from_millis(100);
/// Ports tried for a client whose tuple is taken.
const PORT_TRIES: u16 = 64;

#[derive(Debug)]
pub(super) struct Listener<L> {
    pub(super) socket: L,
    pub(super) port: PortId,
    pub(super) container: SocketAddr,
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

    /// Leads clients of `socket`, which reports under [`Relay::next_listener_token`], to `container` at `port`.
    pub fn publish(&mut self, port: PortId, container: SocketAddr, socket: H::Listener) -> Key {
        self.listeners.insert(Listener {
            socket,
            port,
            container,
            retry: Some(Instant::ZERO),
        })
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

    pub(super) fn listener_deadline(&self) -> Option<Instant> {
        self.listeners.iter().filter_map(|(_, l)| l.retry).min()
    }

    pub(super) fn retry_listeners(&mut self, cx: &mut Cx<'_, H>) {
        if self.listener_deadline().is_none_or(|at| at > cx.now) {
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
    }

    fn accept(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get_mut(key) else {
                return;
            };
            listener.retry = None;
            match cx.host.tcp_accept(&mut listener.socket) {
                Ok(accepted) => {
                    let (port, container) = (listener.port, listener.container);
                    self.connect_container(cx, port, container, accepted);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.raw_os_error().is_some_and(is_exhaustion) => {
                    cx.out.drop(Some(listener.port), DropReason::HostExhausted);
                    // A client that waits in vain is worse off than one that is refused.
                    if !cx.host.tcp_refuse(&mut listener.socket) {
                        listener.retry = Some(cx.now + RETRY);
                        return;
                    }
                }
                // The client has gone again: the next one.
                Err(_) => {}
            }
        }
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.retry = Some(cx.now);
        }
    }

    /// A client is connected: asks the container.
    fn connect_container(
        &mut self,
        cx: &mut Cx<'_, H>,
        port: PortId,
        container: SocketAddr,
        accepted: crate::host::Accepted<H::Tcp>,
    ) {
        let crate::host::Accepted {
            mut socket,
            peer,
            local,
        } = accepted;
        let key = self.conns.next_key();
        let opened = match visible_client(cx, peer, local, container) {
            None => Err(DropReason::NoFlow),
            Some(client) => cx
                .flows
                .insert(
                    cx.now,
                    NewFlow {
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
                    },
                )
                .map(|flow| (flow, client)),
        };
        let (flow, client) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                cx.out.drop(Some(port), reason);
                return socket.reset_on_drop();
            }
        };
        let iss = self.initial_seq(cx.now, container, client);
        let mut conn = Conn::new(cx.now, flow, socket, container, client, Phase::SynSent, iss);
        conn.timing = Some((iss.plus(1), cx.now));
        conn.mss = link_mss(cx.config.mtu, container);
        let key = self.conns.insert(conn);
        self.send_syn(cx, key);
        self.schedule(cx.now, key);
    }
}

/// The address under which the container sees a client: its own, except where an answer would not come back here (an
/// address of the container's link or of the other IP version) or would name the container's own loopback (a client on
/// the host itself); then it is the gateway's. `None` if no free port is left for it.
pub(crate) fn visible_client<H>(
    cx: &Cx<'_, H>,
    peer: SocketAddr,
    local: SocketAddr,
    container: SocketAddr,
) -> Option<SocketAddr> {
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
    let ip = if as_gateway {
        cx.config.gateway_like(container.ip())?
    } else {
        ip
    };
    let free = |port: u16| {
        let tuple = Tuple {
            protocol: Protocol::Tcp,
            src: SocketAddr::new(ip, port),
            dst: container,
        };
        cx.flows.lookup(&tuple).is_none()
    };
    // The client's own port where it is free; two clients seen as the gateway may have the same.
    (0..PORT_TRIES)
        .map(|n| peer.port().wrapping_add(n.wrapping_mul(977)))
        .find(|&port| port != 0 && free(port))
        .map(|port| SocketAddr::new(ip, port))
}
