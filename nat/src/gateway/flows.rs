//! Flows as a whole: shown, counted, ended.

use std::collections::BTreeMap;

use pontoon_switch::{Instant, Out, PortId};

use super::Gateway;
use crate::flow::{self, FlowView, Protocol};
use crate::host::Host;

impl<H: Host> Gateway<H> {
    /// Up to `limit` flows from slot `from` of the table on, of `container` if given, and the slot to go on from.
    pub fn flows(
        &self,
        now: Instant,
        container: Option<PortId>,
        from: u32,
        limit: usize,
    ) -> (Vec<(PortId, FlowView)>, Option<u32>) {
        let mut flows = Vec::new();
        for (id, entry) in self.shared.flows.iter_from(from) {
            if container.is_some_and(|c| c != entry.container()) {
                continue;
            }
            if flows.len() == limit {
                return (flows, Some(id.index));
            }
            let reply = match entry.protocol() {
                _ if entry.is_forwarded() => None,
                Protocol::Tcp => self.tcp.reply_tuple(entry),
                Protocol::Udp => self.udp.reply_tuple(entry),
                Protocol::Icmp | Protocol::Icmp6 => self.echo.reply_tuple(entry),
                Protocol::Other(_) => None,
            };
            flows.extend(
                self.shared
                    .flows
                    .view(now, id, reply)
                    .map(|v| (entry.container(), v)),
            );
        }
        (flows, None)
    }

    /// Ends every flow, or those of `container`; how many there were.
    pub fn flush_flows(&mut self, now: Instant, container: Option<PortId>, out: &mut dyn Out) -> u64 {
        let doomed: Vec<flow::FlowId> = self
            .shared
            .flows
            .iter_from(0)
            .filter(|(_, e)| container.is_none_or(|c| c == e.container()))
            .map(|(id, _)| id)
            .collect();
        for &id in &doomed {
            if let Some(entry) = self.shared.flows.remove(id) {
                self.end(now, id, &entry, out);
            }
        }
        doomed.len() as u64
    }

    /// Flows by protocol and state, as `tcp/established`.
    pub fn flow_counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (state, n) in self.shared.flows.by_state() {
            *counts
                .entry(format!("{}/{}", state.protocol(), state.name()))
                .or_default() += u64::from(n);
        }
        counts
    }

    /// A flow is out of the table: its relay lets go of what it holds for it.
    pub(super) fn end(&mut self, now: Instant, id: flow::FlowId, entry: &flow::Ended, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        match entry.protocol() {
            _ if entry.is_forwarded() => self.router.ended(entry),
            Protocol::Tcp => self.tcp.ended(&mut cx, id, entry),
            Protocol::Udp => self.udp.ended(id, entry),
            Protocol::Icmp | Protocol::Icmp6 => self.echo.ended(entry),
            Protocol::Other(_) => {}
        }
    }
}
