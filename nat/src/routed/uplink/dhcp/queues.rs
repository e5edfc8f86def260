//! The wire of the DHCP client's interface: two queues in memory.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};

use crate::packet::ETHERNET;

/// The interface's wire.
#[derive(Debug)]
pub(super) struct Queues {
    /// Frames for the interface.
    pub(super) inward: VecDeque<Vec<u8>>,
    /// Frames of the interface.
    pub(super) outward: Vec<Vec<u8>>,
    mtu: u16,
}

impl Queues {
    /// Empty ones, for an IP MTU of `mtu` bytes.
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            inward: VecDeque::new(),
            outward: Vec::new(),
            mtu,
        }
    }
}

/// A frame for the interface.
pub(super) struct Incoming(Vec<u8>);

/// Room for a frame of the interface.
pub(super) struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.inward.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outward)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + usize::from(self.mtu);
        // What comes has been verified, or is a partial checksum from a host on this machine.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let r = f(&mut frame);
        self.0.push(frame);
        r
    }
}
