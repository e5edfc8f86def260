//! What an uplink has to tell the router.

use std::collections::VecDeque;
use std::net::IpAddr;

use pontoon_switch::Offload;

/// Something that happened on an uplink and concerns what is beyond it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UplinkEvent {
    /// The gateway no longer has this address: what was translated to it has no way back.
    AddressLost(IpAddr),
    /// The gateway has this address now.
    AddressGained(IpAddr),
    /// Packets whose next hop does not answer, as they were given to [`super::Uplink::transmit`] (their Ethernet addresses
    /// aside). They are counted already; their senders want to hear of it.
    Unreachable(Vec<(Box<[u8]>, Offload)>),
}

/// Frames kept for [`UplinkEvent::Unreachable`] at most, and their bytes. Those beyond are counted and nobody is told: errors
/// are limited in rate anyway.
const FRAMES: usize = 64;
const BYTES: usize = 256 << 10;

/// Events that wait to be taken. An address lost and gained again, or the other way round, before anybody looked is no event:
/// so there are never more than addresses.
#[derive(Debug, Default)]
pub(super) struct Events {
    addresses: VecDeque<UplinkEvent>,
    unreachable: Vec<(Box<[u8]>, Offload)>,
    bytes: usize,
}

impl Events {
    pub(super) fn gained(&mut self, addr: IpAddr) {
        self.add(UplinkEvent::AddressGained(addr), &UplinkEvent::AddressLost(addr));
    }

    pub(super) fn lost(&mut self, addr: IpAddr) {
        self.add(UplinkEvent::AddressLost(addr), &UplinkEvent::AddressGained(addr));
    }

    pub(super) fn unreachable(&mut self, frame: &[u8], offload: Offload) {
        if self.unreachable.len() < FRAMES && self.bytes + frame.len() <= BYTES {
            self.bytes += frame.len();
            self.unreachable.push((frame.into(), offload));
        }
    }

    /// The next one: changes of addresses come first.
    pub(super) fn take(&mut self) -> Option<UplinkEvent> {
        if let Some(event) = self.addresses.pop_front() {
            return Some(event);
        }
        if self.unreachable.is_empty() {
            return None;
        }
        self.bytes = 0;
        Some(UplinkEvent::Unreachable(std::mem::take(&mut self.unreachable)))
    }

    fn add(&mut self, event: UplinkEvent, opposite: &UplinkEvent) {
        match self.addresses.iter().position(|e| e == opposite) {
            Some(at) => {
                self.addresses.remove(at);
            }
            None => self.addresses.push_back(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_before_anybody_looked_never_went() {
        let (a, b) = (IpAddr::V4(1.into()), IpAddr::V4(2.into()));
        let mut events = Events::default();
        events.lost(a);
        events.gained(b);
        events.gained(a);
        assert_eq!(events.take(), Some(UplinkEvent::AddressGained(b)));
        assert_eq!(events.take(), None);
        for _ in 0..1000 {
            events.unreachable(&[0; 60_000], Offload::NONE);
        }
        let Some(UplinkEvent::Unreachable(frames)) = events.take() else {
            panic!("frames");
        };
        assert_eq!(frames.len(), BYTES / 60_000);
        events.unreachable(&[0; 60], Offload::NONE);
        assert!(events.take().is_some() && events.take().is_none());
    }
}
