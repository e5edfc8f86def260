//! Packets that wait until their neighbour's Ethernet address is known (RFC 4861 section 7.2.2, RFC 1122 section 2.3.2.2).
//!
//! An attached container is known from the start. One that finds its addresses for itself is asked for when something
//! comes for it, and what came must not be lost for that: a TCP client would wait a second, a datagram would be gone. While
//! something waits for an address, that is asked for three times, a second apart, for a question may be lost as any frame;
//! a second after the last one what has waited is given back, so that its senders can be told. The next packet begins anew.
//!
//! What waits is bounded, for all and for each address, in number and in bytes: an address that nobody has holds nothing up.
//! Where there is no room, the oldest packet for the same address gives way: it is the one that its sender has soonest given
//! up, so it is counted and nobody is told. A packet to an address for which nothing waits that could give way does not wait.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{Frame, Instant, MacAddr, Offload};

/// Packets at most, in all.
const ALL: usize = 64;
/// Packets at most for one address.
const EACH: usize = 8;
/// Bytes at most, in all.
const BYTES: usize = 256 << 10;
/// Questions for an address (RFC 4861 section 10, `MAX_MULTICAST_SOLICIT`), the first of which is not asked here.
const QUESTIONS: u8 = 3;
/// Time between two of them and after the last (`RETRANS_TIMER`).
const RETRY: Duration = Duration::from_secs(1);

/// A frame that waits, with room for what goes before it.
#[derive(Debug)]
pub(crate) struct Kept {
    dst: IpAddr,
    /// [`HEADROOM`], an Ethernet header without its destination, the packet.
    buf: Box<[u8]>,
    offload: Offload,
}

impl Kept {
    /// The frame, without its destination.
    pub(crate) fn frame(&mut self) -> Frame<'_> {
        let end = self.buf.len();
        Frame::new(&mut self.buf, HEADROOM, end, self.offload)
    }

    /// Bytes of the frame.
    fn len(&self) -> usize {
        self.buf.len() - HEADROOM
    }
}

/// What is to be done for those that wait.
#[derive(Debug)]
pub(crate) enum Due {
    /// To ask who has this address once more.
    Ask(IpAddr),
    /// To give up these packets: nobody has answered.
    GiveUp(Vec<Kept>),
}

/// An address that packets wait for.
#[derive(Clone, Copy, Debug)]
struct Asking {
    addr: IpAddr,
    /// Questions so far.
    asked: u8,
    /// When there is one more, or an end.
    next: Instant,
}

/// The packets that wait, in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Kept>,
    bytes: usize,
    /// One for each address that packets wait for, the soonest first: all are asked for at the same pace.
    asking: VecDeque<Asking>,
}

impl Waiting {
    /// Keeps `frame`, an Ethernet frame whose destination is to be filled in, for `dst`, which is being asked for the first time
    /// unless something waits for it already. How many older packets gave way to it; none if there is no room.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        dst: IpAddr,
        frame: &[u8],
        offload: Offload,
    ) -> Option<usize> {
        let others = self.packets.iter().filter(|p| p.dst != dst);
        let (others, bytes) = others.fold((0, 0), |(n, bytes), p| (n + 1, bytes + p.len()));
        if others >= ALL || bytes + frame.len() > BYTES {
            return None;
        }
        let mut gone = 0;
        while self.packets.len() - others >= EACH
            || self.packets.len() >= ALL
            || self.bytes + frame.len() > BYTES
        {
            let oldest = self.packets.iter().position(|p| p.dst == dst)?;
            self.bytes -= self.packets.remove(oldest)?.len();
            gone += 1;
        }
        let mut buf = vec![0; HEADROOM + frame.len()].into_boxed_slice();
        buf[HEADROOM..].copy_from_slice(frame);
        self.bytes += frame.len();
        self.packets.push_back(Kept { dst, buf, offload });
        if !self.asking.iter().any(|a| a.addr == dst) {
            self.asking.push_back(Asking {
                addr: dst,
                asked: 1,
                next: now + RETRY,
            });
        }
        Some(gone)
    }

    /// Hands everything that waits for `dst` to `send`, addressed to `mac`.
    pub(super) fn release(&mut self, dst: IpAddr, mac: MacAddr, mut send: impl FnMut(&mut Frame<'_>)) {
        if self.packets.is_empty() {
            return;
        }
        self.asking.retain(|a| a.addr != dst);
        for mut packet in self.take(dst) {
            let mut frame = packet.frame();
            frame.bytes_mut()[..mac.0.len()].copy_from_slice(&mac.0);
            send(&mut frame);
        }
    }

    /// The next thing that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let Asking { addr, asked, .. } = self.asking.pop_front_if(|a| a.next <= now)?;
        if asked >= QUESTIONS {
            return Some(Due::GiveUp(self.take(addr)));
        }
        self.asking.push_back(Asking {
            addr,
            asked: asked + 1,
            next: now + RETRY,
        });
        Some(Due::Ask(addr))
    }

    /// Packets that wait, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }

    /// When [`Waiting::due`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asking.front().map(|a| a.next)
    }

    /// Takes out what waits for `dst`, in the order of its coming.
    fn take(&mut self, dst: IpAddr) -> Vec<Kept> {
        let (taken, rest) = std::mem::take(&mut self.packets)
            .into_iter()
            .partition(|p| p.dst == dst);
        self.packets = rest;
        let taken: Vec<Kept> = taken.into_iter().collect();
        self.bytes -= taken.iter().map(Kept::len).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, last])
    }

    fn keep(waiting: &mut Waiting, dst: u8, mark: u8, len: usize) -> Option<usize> {
        waiting.keep(Instant::ZERO, ip(dst), &vec![mark; len], Offload::NONE)
    }

    /// The marks of what is sent when `dst` is found.
    fn released(waiting: &mut Waiting, dst: u8) -> Vec<u8> {
        let mut marks = Vec::new();
        waiting.release(ip(dst), MAC, |frame| {
            assert_eq!(frame.bytes()[..6], MAC.0);
            marks.push(frame.bytes()[20]);
        });
        marks
    }

    #[test]
    fn what_waits_goes_in_order_to_whom_it_is_for() {
        let mut waiting = Waiting::default();
        for i in 0..4 {
            assert_eq!(keep(&mut waiting, i % 2, i, 60), Some(0));
        }
        assert_eq!(released(&mut waiting, 1), [1, 3]);
        assert!(released(&mut waiting, 1).is_empty());
        assert_eq!(waiting.held(), (2, 120));
        assert_eq!(waiting.asking.len(), 1);
    }

    #[test]
    fn the_oldest_of_an_address_gives_way_and_nobody_elses_does() {
        let mut waiting = Waiting::default();
        keep(&mut waiting, 2, 99, 60);
        let gone: usize = (0..20).filter_map(|i| keep(&mut waiting, 1, i, 60)).sum();
        assert_eq!(gone, 20 - EACH);
        assert_eq!(waiting.held().0, EACH + 1);
        // Where all is full, those that have nothing to give do not wait.
        let kept = (3..250).filter_map(|i| keep(&mut waiting, i, i, 60));
        assert_eq!(kept.sum::<usize>(), 0);
        assert_eq!(waiting.held().0, ALL);
        assert_eq!(keep(&mut waiting, 250, 0, 60), None);
        assert_eq!(keep(&mut waiting, 3, 77, 60), Some(1));
        assert_eq!(released(&mut waiting, 3), [77]);
        assert_eq!(released(&mut waiting, 1), (12..20).collect::<Vec<u8>>());
        assert_eq!(released(&mut waiting, 2), [99]);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut waiting = Waiting::default();
        let kept = (0..20).filter(|&i| keep(&mut waiting, i, i, 60_000).is_some());
        assert_eq!(kept.count(), BYTES / 60_000);
        assert_eq!(keep(&mut waiting, 0, 50, 60_000), Some(1));
        assert_eq!(keep(&mut waiting, 0, 51, 90_000), None, "there is no such room");
        assert_eq!(released(&mut waiting, 0), [50], "for which nothing had to go");
        assert_eq!(keep(&mut waiting, 0, 0, BYTES + 1), None);
    }

    #[test]
    fn an_address_is_asked_for_thrice_and_then_given_up() {
        let mut waiting = Waiting::default();
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let keep = |waiting: &mut Waiting, ms, dst| {
            waiting
                .keep(at(ms), ip(dst), &[7; 60], Offload::NONE)
                .expect("room");
        };
        keep(&mut waiting, 0, 1);
        keep(&mut waiting, 300, 2);
        // What comes later waits no longer.
        keep(&mut waiting, 2900, 1);
        let mut log = Vec::new();
        for ms in (0..10_000).step_by(100) {
            while let Some(due) = waiting.due(at(ms)) {
                log.push(match due {
                    Due::Ask(addr) => format!("{ms} {addr}"),
                    Due::GiveUp(packets) => format!("{ms} {} gone", packets.len()),
                });
            }
            assert!(waiting.deadline().is_none_or(|next| next > at(ms)));
        }
        let expected = [
            "1000 10.0.2.1",
            "1300 10.0.2.2",
            "2000 10.0.2.1",
            "2300 10.0.2.2",
            "3000 2 gone",
            "3300 1 gone",
        ];
        assert_eq!(log, expected);
        assert_eq!((waiting.held(), waiting.deadline()), ((0, 0), None));
        // One that is found is asked for no more.
        keep(&mut waiting, 20_000, 1);
        assert_eq!(released(&mut waiting, 1), [7]);
        assert_eq!(waiting.deadline(), None);
    }
}
