//! The first packet of a flow that comes by a link of the gateway's own.

use pontoon_switch::{DropReason, Frame};

use super::{Opening, Verdict, denied, is_opening, may_be_client, nat_of, nobody_there, opens};
use crate::cx::Cx;
use crate::flow::{Protocol, Tuple};
use crate::icmp::IcmpError;
use crate::packet::Packet;
use crate::routed::config::{LinkKind, Nat};
use crate::routed::forward::{Refusal, Seen};
use crate::routed::routes::Way;
use crate::routed::{Router, rules};

impl Router {
    /// A packet from beyond the links.
    pub(super) fn inward<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        at: usize,
        packet: &Packet,
        frame: &Frame<'_>,
        seen: &Seen,
    ) -> Result<Verdict, Refusal> {
        match self.links[at].config().kind {
            LinkKind::Peer { ours_open, .. } => self.peer_opens(cx, seen, !ours_open),
            LinkKind::World { .. } if self.links[at].owns(packet.dst) => {
                self.world_opens(cx, at, packet, frame, seen)
            }
            LinkKind::World { .. } => self.routed_opens(cx, at, seen),
        }
    }

    /// From another network's gateway: its containers may open flows to ours if that was allowed.
    fn peer_opens<H>(&self, cx: &Cx<'_, H>, seen: &Seen, theirs_open: bool) -> Result<Verdict, Refusal> {
        let Tuple { protocol, src, dst } = seen.tuple;
        // Whoever is there has an address that leads to a peer. (Of two networks that each have a route to the other, the way back may
        // be by the other cable.)
        if !matches!(self.routes.way(cx.config, src.ip()), Way::Peer(_)) || self.is_own(cx.config, src.ip()) {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        if cx.config.is_gateway(dst.ip()) && seen.is_ping && theirs_open {
            return Ok(Verdict::Echo);
        }
        let ours =
            matches!(self.routes.way(cx.config, dst.ip()), Way::Lan(_)) && !cx.config.is_gateway(dst.ip());
        if !theirs_open || !ours {
            return Err(Refusal::told(DropReason::Forbidden, IcmpError::Prohibited));
        }
        opens(seen)?;
        let container = self.owner(cx, dst.ip());
        if let Some(transport) = rules::transport(protocol)
            && cx.sources.denies((container, transport, dst.port()), src.ip())
        {
            return Err(denied(protocol));
        }
        Ok(Verdict::Open(Opening {
            container,
            outbound: false,
            dst,
            masquerade: None,
            mark: 0,
            by_mapping: false,
        }))
    }

    /// From the world to the gateway's address there.
    fn world_opens<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        at: usize,
        packet: &Packet,
        frame: &Frame<'_>,
        seen: &Seen,
    ) -> Result<Verdict, Refusal> {
        let Tuple { protocol, src, dst } = seen.tuple;
        if self.is_own(cx.config, src.ip()) || !may_be_client(src.ip()) {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        // RFC 4787 REQ-7: a peer with an address of the containers' own subnet appears as the gateway.
        let masquerade = if cx.config.on_link(src.ip()) {
            cx.config.gateway_like(src.ip())
        } else {
            None
        };
        if let Some(rule) = self.rule_for(cx, seen)? {
            return Ok(Verdict::Open(Opening {
                container: rule.port,
                outbound: false,
                dst: rule.container,
                masquerade,
                mark: rule.id.0,
                by_mapping: self.stands_for(protocol, dst, rule.container),
            }));
        }
        match self.mapped(protocol, dst, src) {
            Some(inbound) if inbound.allowed && opens(seen).is_ok() => {
                return Ok(Verdict::Open(Opening {
                    container: inbound.container,
                    outbound: false,
                    dst: inbound.internal,
                    masquerade,
                    mark: 0,
                    by_mapping: true,
                }));
            }
            // What a container's own port does not expect is not heard of.
            Some(_) if protocol != Protocol::Tcp => return Err(Refusal::silent(DropReason::Filtered)),
            Some(_) | None => {}
        }
        if seen.is_ping {
            return Ok(Verdict::Echo);
        }
        if let Some(segment) = seen.segment
            && is_opening(&segment)
        {
            let port = self.links[at].port();
            return if self
                .unsolicited
                .hold(cx.now, port, seen.tuple, packet.quoted(frame))
            {
                cx.drop(packet.ingress, DropReason::NoFlow);
                Ok(Verdict::Kept)
            } else {
                // A scan: whoever opens the same connection from within is not among those that are held.
                Err(nobody_there(protocol))
            };
        }
        Err(nobody_there(protocol))
    }

    /// From the world to an address beyond the gateway: where containers' addresses are plainly routed, their published ports
    /// can be reached, and echo.
    fn routed_opens<H>(&self, cx: &Cx<'_, H>, at: usize, seen: &Seen) -> Result<Verdict, Refusal> {
        let Tuple { protocol, src, dst } = seen.tuple;
        let ours = matches!(self.routes.way(cx.config, dst.ip()), Way::Lan(_));
        if nat_of(&self.links[at].config().kind, dst.ip()) == Nat::Masquerade || !ours {
            // Somebody takes the gateway for a router that it is not.
            return Err(Refusal::silent(DropReason::Forbidden));
        }
        if cx.config.on_link(src.ip()) || self.is_own(cx.config, src.ip()) || !may_be_client(src.ip()) {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        if cx.config.is_gateway(dst.ip()) {
            return if seen.is_ping {
                Ok(Verdict::Echo)
            } else {
                Err(nobody_there(protocol))
            };
        }
        let container = self.owner(cx, dst.ip());
        let rule = rules::transport(protocol).and_then(|transport| {
            let rule = self.rules.leading_to(transport, dst)?;
            Some((transport, rule))
        });
        if let Some((transport, _)) = rule
            && cx.sources.denies((container, transport, dst.port()), src.ip())
        {
            return Err(denied(protocol));
        }
        let allowed = rule.is_some() || seen.is_ping;
        if !allowed {
            return Err(Refusal::told(DropReason::Filtered, IcmpError::Prohibited));
        }
        opens(seen)?;
        Ok(Verdict::Open(Opening {
            container,
            outbound: false,
            dst,
            masquerade: None,
            mark: rule.map_or(0, |(_, id)| id.0),
            by_mapping: false,
        }))
    }
}
