//! SYNs from outside that nobody has asked for.
//!
//! Both ends of a connection may open it at once, each behind a NAT of its own. The SYN that arrives first must not be refused,
//! or the connection of the other end is reset before its own SYN has made a way in (RFC 5382 REQ-4): the sender is told that
//! the port is unreachable after six seconds, unless a container's SYN to it leaves meanwhile. What waits is bounded; beyond that it is
//! not answered.

use std::collections::VecDeque;
use std::time::Duration;

use pontoon_switch::{Instant, PortId};

use crate::flow::Tuple;

/// RFC 5382 REQ-4.
const SILENCE: Duration = Duration::from_secs(6);
/// SYNs that wait.
const HELD: usize = 256;
/// Bytes of each that are quoted.
const QUOTED: usize = 128;

#[derive(Debug)]
struct Held {
    due: Instant,
    link: PortId,
    tuple: Tuple,
    packet: Box<[u8]>,
}

/// The SYNs that wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unsolicited(VecDeque<Held>);

impl Unsolicited {
    /// Holds the SYN `packet` (from its IP header on), which came by `link`. False if there is no room.
    pub(super) fn hold(&mut self, now: Instant, link: PortId, tuple: Tuple, packet: &[u8]) -> bool {
        if self.0.iter().any(|h| h.tuple == tuple) {
            // It was sent again.
            return true;
        }
        let room = self.0.len() < HELD;
        if room {
            self.0.push_back(Held {
                due: now + SILENCE,
                link,
                tuple,
                packet: packet[..packet.len().min(QUOTED)].into(),
            });
        }
        room
    }

    /// A container opens the connection of which `tuple` is the other end's SYN.
    pub(super) fn answered(&mut self, tuple: &Tuple) {
        if !self.0.is_empty() {
            self.0.retain(|h| h.tuple != *tuple);
        }
    }

    /// The next whose sender is to be told: the link it came by, and its beginning.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(PortId, Box<[u8]>)> {
        self.0.front().filter(|h| h.due <= now)?;
        self.0.pop_front().map(|h| (h.link, h.packet))
    }

    /// When the next is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|h| h.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;

    fn tuple(port: u16) -> Tuple {
        Tuple {
            protocol: Protocol::Tcp,
            src: ([198, 51, 100, 1], port).into(),
            dst: ([192, 0, 2, 1], 80).into(),
        }
    }

    #[test]
    fn a_syn_is_told_after_six_seconds_unless_it_is_answered() {
        let mut u = Unsolicited::default();
        let now = Instant::ZERO;
        assert!(u.hold(now, PortId(1), tuple(1), &[0x45; 200]));
        assert!(u.hold(now, PortId(1), tuple(1), &[0x45; 200]));
        assert!(u.hold(now, PortId(1), tuple(2), &[0x45; 40]));
        u.answered(&tuple(2));
        assert!(u.pop_due(now + Duration::from_millis(5999)).is_none());
        assert_eq!(u.deadline(), Some(now + SILENCE));
        let (link, packet) = u.pop_due(now + SILENCE).unwrap();
        assert_eq!((link, packet.len()), (PortId(1), QUOTED));
        assert!(u.pop_due(now + SILENCE).is_none() && u.deadline().is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut u = Unsolicited::default();
        let held = (0..1000)
            .filter(|&n| u.hold(Instant::ZERO, PortId(1), tuple(n), &[0x45; 40]))
            .count();
        assert_eq!(held, HELD);
    }
}
