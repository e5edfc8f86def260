//! The name server at the gateway's address.
//!
//! # Theory of operation
//!
//! A question comes by UDP ([`Dns::query_udp`]) or TCP ([`Dns::segment`]). Names of this network are answered from memory,
//! as the container that asks may know them ([`names`]). Everything else is sent on to the host's resolvers as the client
//! wrote it, but for the identification, and the answer comes back as the resolver wrote it: nothing is cached, and EDNS
//! and DNSSEC pass untouched. What comes by TCP goes on by TCP. A resolver that is silent or refuses is followed by the next;
//! when time is up the client is told SERVFAIL. Outstanding questions are bounded, in all and for each container; beyond
//! that SERVFAIL comes at once, and is counted ([`forward`]).
//!
//! On a network without a way out nobody is asked: what is not ours to answer is REFUSED, so that a container that is on
//! another network as well asks the name server of that one.

mod forward;
mod message;
mod names;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, PortId, Ready};
use smoltcp::wire::{IpProtocol, UdpPacket};

pub use forward::ForwardStats;
use forward::{Answer, Client, Forwarder, Refusal};
use message::{Bad, rcode};
use names::Names;
use stream::{Asked, Streams};

use crate::config::{Config, Egress};
use crate::cx::Cx;
use crate::host::{TcpHost, Token, UdpHost};
use crate::packet::{IpRepr, Packet, header_len};

/// The port of DNS, UDP and TCP.
pub const PORT: u16 = 53;

/// What the name server did, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DnsStats {
    /// Questions, by UDP and TCP.
    pub questions: u64,
    /// Answered from memory.
    pub local: u64,
    /// Refused for the bound on outstanding questions.
    pub full: u64,
    /// Refused for the container's share of it.
    pub share: u64,
    /// Refused as there is no way out.
    pub refused: u64,
    /// Not a question, or one that no server understands.
    pub bad: u64,
    /// What became of those sent on.
    pub forward: ForwardStats,
}

/// The name server.
pub struct Dns<H: UdpHost + TcpHost> {
    names: Names,
    forwarder: Forwarder<H>,
    streams: Streams,
    done: Vec<Answer>,
    asked: Vec<Asked>,
    stats: DnsStats,
}

impl<H: UdpHost + TcpHost> fmt::Debug for Dns<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl<H: UdpHost + TcpHost> Dns<H> {
    /// A name server for the names and resolvers in `config`.
    pub fn new(config: &Config) -> Self {
        Self {
            names: Names::new(config),
            forwarder: Forwarder::new(config.resolvers.clone()),
            streams: Streams::new(config),
            done: Vec::new(),
            asked: Vec::new(),
            stats: DnsStats::default(),
        }
    }

    /// The container at `port` has these names and addresses from now on; without an address nothing of it is answered. Gives
    /// the names back that are none of DNS (a label is empty or longer than 63 bytes).
    pub fn set_endpoint(&mut self, port: PortId, names: &[String], addrs: &[IpAddr]) -> Vec<String> {
        self.names.set(port, names, addrs)
    }

    /// The container at `port`, and no other, is answered these names besides the network's. Gives back as
    /// [`Dns::set_endpoint`] does.
    pub fn set_view(&mut self, port: PortId, names: &[(String, Vec<IpAddr>)]) -> Vec<String> {
        self.names.set_view(port, names)
    }

    /// The container at `port` is gone: its names are answered no more, nor what it alone was answered.
    pub fn detach(&mut self, port: PortId) {
        self.names.remove(port);
        self.streams.detach(port);
    }

    /// Answers for these names, and for the gateway's own, in place of those of the configuration.
    pub fn set_hosts(&mut self, config: &Config, hosts: &[(String, IpAddr)]) {
        self.names.set_hosts(config, hosts);
    }

    /// Resolvers are asked by at most so many sockets from now on, within what is bearable at all.
    pub fn limit(&mut self, sockets: usize) {
        self.forwarder.limit(sockets);
    }

    /// Asks these resolvers from now on, in order.
    pub fn set_resolvers(&mut self, resolvers: Vec<SocketAddr>) {
        self.forwarder.set_resolvers(resolvers);
    }

    /// What was done so far.
    pub fn stats(&self) -> DnsStats {
        DnsStats {
            forward: self.forwarder.stats,
            ..self.stats
        }
    }

    /// Messages sent to resolvers so far.
    pub fn sent(&self) -> u64 {
        self.forwarder.stats.sent
    }

    /// Sockets opened for them so far.
    pub fn opened(&self) -> u64 {
        self.forwarder.stats.opened
    }

    /// Questions that wait for a resolver.
    pub fn outstanding(&self) -> usize {
        self.forwarder.outstanding()
    }

    /// Connections of clients.
    pub fn connections(&self) -> usize {
        self.streams.connected()
    }

    /// Takes a question by UDP: the payload of `packet`, from the client's `port`. The datagram's checksum has been seen to.
    pub fn query_udp(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, port: u16, payload: &[u8]) {
        let client = Client::Udp {
            port: packet.ingress,
            mac: packet.src_mac,
            addr: SocketAddr::new(packet.src, port),
            local: packet.dst,
        };
        // Port 0 cannot be answered, and the answer to a server's port would be a question to it.
        if port == 0 || port == PORT && packet.src == packet.dst {
            cx.drop(packet.ingress, DropReason::Malformed);
            return;
        }
        match self.question(cx, client, payload) {
            Ok(()) => {}
            Err(reason) => cx.drop(packet.ingress, reason),
        }
        self.deliver(cx);
    }

    /// Takes a segment to port 53 of the gateway. What is wrong with it is counted here.
    pub fn segment(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
        if let Err(reason) = self.streams.receive(cx, packet, frame, &mut self.asked) {
            cx.drop(packet.ingress, reason);
        }
        self.questions(cx);
    }

    /// A socket of [`Kind::Dns`](crate::host::Kind::Dns) has something to say.
    pub fn ready(&mut self, cx: &mut Cx<'_, H>, token: Token, ready: Ready) {
        self.forwarder
            .ready(cx.host, cx.now, token, ready, &mut self.done);
        self.deliver(cx);
        self.questions(cx);
    }

    /// Does what is due: the next resolver, the end of patience, retransmissions to clients by TCP.
    pub fn flush(&mut self, cx: &mut Cx<'_, H>) {
        self.forwarder.flush(cx.host, cx.now, &mut self.done);
        self.streams.flush(cx, &mut self.asked);
        self.deliver(cx);
        self.questions(cx);
    }

    /// When [`Dns::flush`] is next due.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.forwarder.deadline(), self.streams.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes the questions that came by TCP, until none is left: an answer makes room for the next.
    fn questions(&mut self, cx: &mut Cx<'_, H>) {
        while !self.asked.is_empty() {
            for Asked { conn, port, query } in std::mem::take(&mut self.asked) {
                let client = Client::Tcp { port, conn };
                if self
                    .question(cx, client, &query)
                    .is_err_and(|r| r == DropReason::Malformed)
                {
                    // Without an answer the question would count as outstanding for ever.
                    self.done
                        .push((client, message::error(&query, rcode::FORMAT_ERROR)));
                }
            }
            self.deliver(cx);
        }
    }

    /// Answers a question, or sends it on. The error is for the counters; but for [`DropReason::Malformed`], the client is
    /// answered all the same.
    fn question(&mut self, cx: &mut Cx<'_, H>, client: Client, query: &[u8]) -> Result<(), DropReason> {
        self.stats.questions += 1;
        let question = match message::query(query) {
            // What waits for a resolver is held in memory.
            Ok(_) if query.len() > message::LARGEST_QUERY => {
                self.stats.bad += 1;
                self.done
                    .push((client, message::error(query, rcode::FORMAT_ERROR)));
                return Ok(());
            }
            Ok(q) => q,
            Err(Bad::Silence) => {
                self.stats.bad += 1;
                return Err(DropReason::Malformed);
            }
            Err(Bad::Answer(code)) => {
                self.stats.bad += 1;
                self.done.push((client, message::error(query, code)));
                return Ok(());
            }
        };
        let udp = matches!(client, Client::Udp { .. });
        let local = self.names.answer(cx.config, client.port(), query, &question, udp);
        if let Some(response) = local {
            self.stats.local += 1;
            self.done.push((client, response));
            return Ok(());
        }
        if cx.config.egress == Egress::None {
            self.stats.refused += 1;
            self.done.push((client, message::error(query, rcode::REFUSED)));
            return Ok(());
        }
        let (count, reason) =
            match self
                .forwarder
                .ask(cx.host, cx.now, client, query, question, &mut self.done)
            {
                Ok(()) => return Ok(()),
                // It has been answered.
                Err(Refusal::Exhausted) => return Err(DropReason::HostExhausted),
                Err(Refusal::Full) => (&mut self.stats.full, DropReason::TableFull),
                Err(Refusal::Share) => (&mut self.stats.share, DropReason::QuotaFull),
            };
        *count += 1;
        self.done
            .push((client, message::error(query, rcode::SERVER_FAILURE)));
        Err(reason)
    }

    /// Sends the answers that are there.
    fn deliver(&mut self, cx: &mut Cx<'_, H>) {
        let mut streams = false;
        for (client, response) in self.done.drain(..) {
            match client {
                Client::Udp { mac, addr, local, .. } => send(cx, mac, addr, local, &response),
                Client::Tcp { conn, .. } => {
                    streams = true;
                    self.streams.answer(conn, &response);
                }
            }
        }
        if streams {
            self.streams.service(cx, &mut self.asked);
        }
    }
}

/// Sends `response` in one datagram; one that the link does not take whole is truncated, so that the client asks by TCP.
fn send<H>(cx: &mut Cx<'_, H>, mac: MacAddr, to: SocketAddr, from: IpAddr, response: &[u8]) {
    let room = usize::from(cx.config.mtu).saturating_sub(header_len(from) + 8);
    let truncated;
    let response = if response.len() > room {
        truncated = message::truncated(response);
        &truncated
    } else {
        response
    };
    let len = 8 + response.len();
    let buf = &mut cx.payload(from)[..len];
    let mut udp = UdpPacket::new_unchecked(buf);
    udp.set_src_port(PORT);
    udp.set_dst_port(to.port());
    udp.set_len(len as u16);
    udp.payload_mut().copy_from_slice(response);
    udp.fill_checksum(&from.into(), &to.ip().into());
    cx.transmit_to(
        mac,
        &IpRepr::new(from, to.ip(), IpProtocol::Udp),
        len,
        Offload::NONE,
    );
}
