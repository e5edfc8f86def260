//! Packets that wait until their neighbour's Ethernet address is known (RFC 4861 section 7.2.2, RFC 1122 section 2.3.2.2).
//!
//! An attached container is known from the start. One that finds its addresses for itself is asked for when something
//! comes for it, and what came must not be lost for that: a TCP client would wait a second, a datagram would be gone. What
//! waits is bounded, for all and for each address, in number and in bytes, and for a short time: an address that nobody
//! has holds nothing up. What has waited in vain is given back, so that its sender can be told.

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
/// How long a packet waits: three questions (RFC 4861 section 10, `MAX_UNICAST_SOLICIT` times `RETRANS_TIMER`).
const PATIENCE: Duration = Duration::from_secs(3);

/// A frame that waits, with room for what goes before it.
#[derive(Debug)]
pub(crate) struct Kept {
    dst: IpAddr,
    since: Instant,
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

/// The packets that wait, in the order of their coming.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Kept>,
    bytes: usize,
}

impl Waiting {
    /// Keeps `frame`, an Ethernet frame whose destination is to be filled in, for `dst`. False if there is no room.
    pub(super) fn keep(&mut self, now: Instant, dst: IpAddr, frame: &[u8], offload: Offload) -> bool {
        let same = self.packets.iter().filter(|p| p.dst == dst).count();
        if self.packets.len() >= ALL || same >= EACH || self.bytes + frame.len() > BYTES {
            return false;
        }
        let mut buf = vec![0; HEADROOM + frame.len()].into_boxed_slice();
        buf[HEADROOM..].copy_from_slice(frame);
        self.bytes += frame.len();
        self.packets.push_back(Kept {
            dst,
            since: now,
            buf,
            offload,
        });
        true
    }

    /// Hands everything that waits for `dst` to `send`, addressed to `mac`.
    pub(super) fn release(&mut self, dst: IpAddr, mac: MacAddr, mut send: impl FnMut(&mut Frame<'_>)) {
        if self.packets.is_empty() {
            return;
        }
        let (ready, rest) = std::mem::take(&mut self.packets)
            .into_iter()
            .partition(|p| p.dst == dst);
        self.packets = rest;
        let ready: VecDeque<Kept> = ready;
        for mut packet in ready {
            self.bytes -= packet.len();
            let mut frame = packet.frame();
            frame.bytes_mut()[..mac.0.len()].copy_from_slice(&mac.0);
            send(&mut frame);
        }
    }

    /// Gives back one that has waited in vain.
    pub(super) fn give_up(&mut self, now: Instant) -> Option<Kept> {
        let packet = self.packets.pop_front_if(|p| now.since(p.since) >= PATIENCE)?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Packets that wait, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }

    /// When [`Waiting::give_up`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.packets.front().map(|p| p.since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 2, last])
    }

    #[test]
    fn what_waits_goes_in_order_to_whom_it_is_for() {
        let mut waiting = Waiting::default();
        for i in 0..4u8 {
            assert!(waiting.keep(Instant::ZERO, ip(i % 2), &[i; 60], Offload::NONE));
        }
        let mut sent = Vec::new();
        waiting.release(ip(1), MAC, |frame| sent.push(frame.bytes().to_vec()));
        assert_eq!(sent.iter().map(|f| f[20]).collect::<Vec<_>>(), [1, 3]);
        assert!(sent.iter().all(|f| f[..6] == MAC.0));
        waiting.release(ip(1), MAC, |_| panic!("sent twice"));
        assert_eq!((waiting.packets.len(), waiting.bytes), (2, 120));
    }

    #[test]
    fn nothing_waits_beyond_its_bounds() {
        let mut waiting = Waiting::default();
        let kept = (0..20).filter(|_| waiting.keep(Instant::ZERO, ip(1), &[0; 60], Offload::NONE));
        assert_eq!(kept.count(), EACH);
        let kept = (2..250).filter(|&i| waiting.keep(Instant::ZERO, ip(i), &[0; 60], Offload::NONE));
        assert_eq!(kept.count(), ALL - EACH);
        let later = Instant::ZERO + PATIENCE;
        assert_eq!(waiting.deadline(), Some(later));
        assert!(waiting.give_up(Instant::ZERO).is_none());
        let vain = std::iter::from_fn(|| waiting.give_up(later)).count();
        assert_eq!((vain, waiting.bytes), (ALL, 0));
        let kept = (0..20).filter(|&i| waiting.keep(later, ip(i), &[0; 60_000], Offload::NONE));
        assert_eq!(kept.count(), BYTES / 60_000);
    }
}
