//! The gateway's own TCP host: for services that end at the gateway itself, as DNS over TCP.
//!
//! # Theory of operation
//!
//! A smoltcp interface on the IP level, with the gateway's addresses and a few sockets. Packets for a service's port are
//! handed in one by one ([`Local::receive`]); what the sockets send goes out by [`Cx::out`] at once, to the neighbour
//! that has its destination. Ethernet addresses are [`Neighbours`](crate::link::Neighbours)' business, so smoltcp asks nobody
//! and keeps no cache that could be filled from outside.
//!
//! smoltcp's poll is linear in its sockets, so they are few: containers' connections to the world are relayed elsewhere.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pontoon_switch::frame::{Checksum, HEADROOM};
use pontoon_switch::{DropReason, Frame, Instant, Offload};
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetProtocol, HardwareAddress, IpAddress, IpCidr, IpProtocol, TcpPacket};

use crate::config::Config;
use crate::cx::Cx;
use crate::packet::{ETHERNET, Packet};

/// The gateway's TCP host.
pub(crate) struct Local {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    deadline: Option<Instant>,
}

impl Local {
    /// A host with the addresses that `config` gives the gateway.
    pub(crate) fn new(config: &Config) -> Self {
        let mut wire = Wire {
            inward: None,
            outward: VecDeque::new(),
            mtu: config.mtu.into(),
        };
        let mut c = InterfaceConfig::new(HardwareAddress::Ip);
        // Initial sequence numbers come of it.
        c.random_seed = RandomState::new().hash_one(0);
        let mut interface = Interface::new(c, &mut wire, smoltcp::time::Instant::ZERO);
        // Two addresses and two routes are what smoltcp holds by default. A packet's way is the neighbour's that has its
        // destination, whatever the route.
        interface.update_ip_addrs(|addrs| {
            if let Some((s, server)) = config.subnet4.and_then(|s| Some((s, s.name_server()?))) {
                let _ = addrs.push(IpCidr::new(IpAddress::Ipv4(server), s.net.prefix_len()));
            }
            if let Some((s, server)) = config.subnet6.and_then(|s| Some((s, s.name_server()?))) {
                let _ = addrs.push(IpCidr::new(IpAddress::Ipv6(server), s.net.prefix_len()));
            }
        });
        if let Some(s) = config.subnet4 {
            let _ = interface.routes_mut().add_default_ipv4_route(s.gateway);
        }
        if let Some(s) = config.subnet6 {
            let _ = interface.routes_mut().add_default_ipv6_route(s.gateway);
        }
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            deadline: None,
        }
    }

    /// Opens a socket that takes one connection to `port`, with buffers of these bytes. A peer that is silent for
    /// `patience` though something is due from it loses its connection.
    pub(crate) fn listen(
        &mut self,
        port: u16,
        receive: usize,
        send: usize,
        patience: Duration,
    ) -> SocketHandle {
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(receive), buffer(send));
        socket.set_timeout(Some(patience.into()));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        // A new socket listens on any port but 0.
        if let Err(error) = socket.listen(port) {
            tracing::error!(port, ?error, "cannot listen");
        }
        self.sockets.add(socket)
    }

    /// The socket behind `handle`.
    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Closes the socket behind `handle` for good.
    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Takes a TCP packet for the gateway. Answers go out at once.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] or [`DropReason::BadChecksum`].
    pub(crate) fn receive<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        frame: &Frame<'_>,
    ) -> Result<(), DropReason> {
        if packet.fragment.is_some() || packet.protocol != IpProtocol::Tcp {
            return Err(DropReason::Malformed);
        }
        let segment = TcpPacket::new_checked(packet.transport(frame)).map_err(|_| DropReason::Malformed)?;
        // A partial checksum is good by definition; smoltcp is told to look at none.
        if frame.offload.checksum == Checksum::Complete
            && !segment.verify_checksum(&packet.src.into(), &packet.dst.into())
        {
            return Err(DropReason::BadChecksum);
        }
        self.wire.inward = Some(packet.quoted(frame).to_vec());
        self.poll(cx);
        Ok(())
    }

    /// Lets the sockets do what is due, and sends what they have to send.
    pub(crate) fn poll<H>(&mut self, cx: &mut Cx<'_, H>) {
        let now = cx.now.into();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        while let Some(bytes) = self.wire.outward.pop_front() {
            send(cx, &bytes);
        }
        let due = self.interface.poll_at(now, &self.sockets);
        self.deadline = due.map(|t| Instant::from_micros(u64::try_from(t.total_micros()).unwrap_or(0)));
    }

    /// When [`Local::poll`] is next due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Puts an IP packet of smoltcp's into a frame to the neighbour that has its destination.
fn send<H>(cx: &mut Cx<'_, H>, packet: &[u8]) {
    let (dst, ethertype): (IpAddr, _) = match packet.first().map(|b| b >> 4) {
        Some(4) => match packet.get(16..).and_then(|b| b.first_chunk::<4>()) {
            Some(b) => (Ipv4Addr::from(*b).into(), EthernetProtocol::Ipv4),
            None => return,
        },
        Some(6) => match packet.get(24..).and_then(|b| b.first_chunk::<16>()) {
            Some(b) => (Ipv6Addr::from(*b).into(), EthernetProtocol::Ipv6),
            None => return,
        },
        _ => return,
    };
    let Some(mac) = cx.neighbours.lookup(dst) else {
        crate::link::solicit(cx, dst);
        cx.out.drop(None, DropReason::NoNeighbour);
        return;
    };
    let end = HEADROOM + ETHERNET + packet.len();
    let frame = &mut cx.buf[HEADROOM..end];
    frame[..6].copy_from_slice(&mac.0);
    frame[6..12].copy_from_slice(&cx.config.mac.0);
    frame[12..14].copy_from_slice(&u16::from(ethertype).to_be_bytes());
    frame[ETHERNET..].copy_from_slice(packet);
    cx.out.send(&mut Frame::new(cx.buf, HEADROOM, end, Offload::NONE));
}

/// The wire between the interface and the gateway: one packet in, any number out.
struct Wire {
    inward: Option<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
    mtu: usize,
}

/// A packet received.
struct Received(Vec<u8>);

/// Room for a packet to send.
struct Room<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Room<'_>)> {
        let packet = self.inward.take()?;
        Some((Received(packet), Room(&mut self.outward)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = smoltcp::phy::Checksum::Tx;
        checksum.tcp = smoltcp::phy::Checksum::Tx;
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = self.mtu;
        c.checksum = checksum;
        c
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let r = f(&mut packet);
        self.0.push_back(packet);
        r
    }
}
