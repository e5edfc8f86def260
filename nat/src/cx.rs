//! What the gateway lends its parts while they handle one frame, event or timer.

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, Out, PortId};
use smoltcp::wire::EthernetProtocol;
use std::net::IpAddr;

use crate::config::Config;
use crate::flow;
use crate::icmp::RateLimiter;
use crate::link::{Heard, Neighbours};
use crate::packet::{ETHERNET, IpRepr};
use crate::publish::Sources;
use crate::share::{Shares, Ticket};

/// The surroundings of one call: time, the way out, the host, and what all parts share.
pub struct Cx<'a, H> {
    /// The present moment.
    pub now: Instant,
    /// The door to the switch.
    pub out: &'a mut dyn Out,
    /// The host's sockets.
    pub host: &'a mut H,
    /// The conntrack table.
    pub flows: &'a mut flow::Table,
    /// The gateway's configuration.
    pub config: &'a Config,
    /// Ethernet addresses of the containers.
    pub neighbours: &'a mut Neighbours,
    /// Buffer for frames of the gateway's making: [`HEADROOM`] + [`pontoon_switch::frame::MAX_FRAME`] bytes.
    pub buf: &'a mut [u8],
    /// How many host sockets each container may hold.
    pub shares: &'a mut Shares,
    /// Which clients may use published ports.
    pub sources: &'a Sources,
    /// How many ICMP errors each container may be told.
    pub errors: &'a mut RateLimiter,
    /// The next IPv4 identification.
    pub ident: &'a mut u16,
}

impl<H> Cx<'_, H> {
    /// The same with another buffer for frames, with the packet's data in it already.
    pub fn with_buf<'b>(&'b mut self, buf: &'b mut [u8]) -> Cx<'b, H> {
        Cx {
            now: self.now,
            out: self.out,
            host: self.host,
            flows: self.flows,
            config: self.config,
            neighbours: self.neighbours,
            buf,
            shares: self.shares,
            sources: self.sources,
            errors: self.errors,
            ident: self.ident,
        }
    }

    /// Where the transport header stands in [`Cx::buf`] for a packet to `dst`: data can be put there before
    /// [`Cx::transmit`] writes the headers in front of it.
    pub fn payload_offset(dst: IpAddr) -> usize {
        HEADROOM + ETHERNET + crate::packet::header_len(dst)
    }

    /// The bytes from the transport header on, for a packet to `dst`.
    pub fn payload(&mut self, dst: IpAddr) -> &mut [u8] {
        &mut self.buf[Self::payload_offset(dst)..]
    }

    /// Notes that the neighbour `mac` was heard to have `addr`, and sends it what has waited for that.
    pub fn learn(&mut self, addr: IpAddr, mac: MacAddr) -> Heard {
        let heard = self.neighbours.learn(self.config, self.now, addr, mac);
        if heard == Heard::Accepted {
            let out = &mut *self.out;
            self.neighbours.send_waiting(addr, |frame| out.send(frame));
        }
        heard
    }

    /// Sends the `len` transport bytes that stand at [`Cx::payload`] to the neighbour that has `ip.dst`. An offset in
    /// `offload` counts from the frame's first byte. If nobody is known to have that address, it is asked for, and the
    /// packet waits for the answer.
    ///
    /// # Errors
    /// [`DropReason::NoNeighbour`], already counted, if too much waits for others already.
    pub fn transmit(&mut self, ip: &IpRepr, len: usize, offload: Offload) -> Result<(), DropReason> {
        let known = self.neighbours.lookup(ip.dst);
        let at = Self::payload_offset(ip.dst);
        let start = self.put_ip(ip, at, len);
        if let Some(mac) = known {
            self.send_packet(mac, ip.dst, start, at + len, offload);
            return Ok(());
        }
        self.put_ethernet(MacAddr::default(), ip.dst, start);
        let frame = &self.buf[start - ETHERNET..at + len];
        let kept = self.neighbours.keep(self.now, ip.dst, frame, offload);
        crate::link::solicit(self, ip.dst);
        for _ in 0..kept.unwrap_or(1) {
            self.out.drop(None, DropReason::NoNeighbour);
        }
        kept.map(|_| ()).ok_or(DropReason::NoNeighbour)
    }

    /// Sends the `len` transport bytes that stand at [`Cx::payload`] to `mac`.
    pub fn transmit_to(&mut self, mac: MacAddr, ip: &IpRepr, len: usize, offload: Offload) {
        self.transmit_at(mac, ip, Self::payload_offset(ip.dst), len, offload);
    }

    /// Sends the `len` transport bytes that stand in [`Cx::buf`] from `at` on, at least as far in as [`Cx::payload`], to
    /// `mac`; the headers are written in front of them.
    pub fn transmit_at(&mut self, mac: MacAddr, ip: &IpRepr, at: usize, len: usize, offload: Offload) {
        let start = self.put_ip(ip, at, len);
        self.send_packet(mac, ip.dst, start, at + len, offload);
    }

    /// Writes the IP header of the `len` transport bytes at `at`; where it begins.
    fn put_ip(&mut self, ip: &IpRepr, at: usize, len: usize) -> usize {
        *self.ident = self.ident.wrapping_add(1);
        let start = at - ip.header_len();
        ip.emit(&mut self.buf[start..at + len], len, *self.ident);
        start
    }

    /// Puts an Ethernet header before the IP packet that stands at `start..end` of [`Cx::buf`], and sends it.
    pub fn send_packet(&mut self, mac: MacAddr, dst: IpAddr, start: usize, end: usize, offload: Offload) {
        self.put_ethernet(mac, dst, start);
        self.out
            .send(&mut Frame::new(self.buf, start - ETHERNET, end, offload));
    }

    /// Writes the Ethernet header, to `mac`, of the IP packet to `dst` that begins at `start`.
    fn put_ethernet(&mut self, mac: MacAddr, dst: IpAddr, start: usize) {
        let ethertype = match dst {
            IpAddr::V4(_) => EthernetProtocol::Ipv4,
            IpAddr::V6(_) => EthernetProtocol::Ipv6,
        };
        let frame = start - ETHERNET;
        let header = &mut self.buf[frame..start];
        header[..6].copy_from_slice(&mac.0);
        header[6..12].copy_from_slice(&self.config.mac.0);
        header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
    }

    /// The right to one more host socket for the container at `port`.
    ///
    /// # Errors
    /// [`DropReason::QuotaFull`] if its share is used up; a flow of its own that never saw an answer, or is closing, then
    /// ends, so that there is room for the next to ask.
    pub fn ticket(&mut self, port: PortId) -> Result<Ticket, DropReason> {
        self.shares.ticket(port).ok_or_else(|| {
            self.flows.make_room(port);
            DropReason::QuotaFull
        })
    }

    /// Counts a frame from `ingress` that goes no further.
    pub fn drop(&mut self, ingress: PortId, reason: DropReason) {
        self.out.drop(Some(ingress), reason);
    }
}
