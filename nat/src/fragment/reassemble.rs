//! Putting fragments together.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{Checksum, Frame, Instant, Offload, PortId};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::FRAGMENT_HEADER;
use crate::packet::{ETHERNET, Fragment, Packet};

/// Bytes held in all.
const TOTAL_BYTES: usize = 4 << 20;
/// Datagrams held of one source, if that is a container.
const PER_CONTAINER: usize = 64;
/// Datagrams held of one source in the world, which may be a translator that stands for many: half of all, so that others have room
/// whatever one sends. A quota for each source and destination would be none, as there is one destination: the gateway.
const PER_PEER: usize = TOTAL / 2;
/// Datagrams held in all.
const TOTAL: usize = 1024;
/// Pieces of one datagram: 64 KiB over an MTU of 68 are more than 1300.
const PIECES: usize = 2048;
/// Bytes of a first piece's data at most that an error could quote.
const QUOTED: usize = 1232;
/// What a piece is taken to cost beyond its bytes.
const OVERHEAD: usize = 64;

/// Which datagram a fragment is of (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    id: u32,
}

#[derive(Debug)]
struct Pending {
    /// Number of this datagram, which tells its place in the queue from that of a later one with the same key.
    serial: u64,
    /// Where its first piece to arrive came from: what is lost of it is counted there.
    ingress: PortId,
    /// Offset in bytes and data, sorted, without overlaps.
    pieces: Vec<(u32, Box<[u8]>)>,
    /// Length of the whole, once the last piece is there.
    total: Option<u32>,
    /// Bytes there.
    have: u32,
    /// Headers of the first piece: of the whole packet, from the Ethernet header to the transport header.
    first: Option<(Packet, Box<[u8]>)>,
    /// DF was set on a piece, as path-MTU discovery over fragments does.
    dont_fragment: bool,
    /// Bytes of the largest piece, from its IP header on.
    largest: u16,
    cost: usize,
}

/// A datagram put together.
#[derive(Debug)]
pub struct Whole {
    /// The packet; offsets are those of `frame`.
    pub packet: Packet,
    /// The frame's buffer, with [`HEADROOM`] in front.
    buf: Vec<u8>,
}

impl Whole {
    /// The frame.
    pub fn frame(&mut self) -> Frame<'_> {
        let end = self.buf.len();
        Frame::new(
            &mut self.buf,
            HEADROOM,
            end,
            Offload {
                checksum: Checksum::Complete,
                gso: None,
            },
        )
    }
}

/// A datagram that is given up, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'p> {
    /// Where the first piece to arrive of it came from.
    pub ingress: PortId,
    /// Set if its time was up and the piece that begins it is there: its bytes from the IP header on. Its sender is to be told
    /// (RFC 792, RFC 4443 section 3.3).
    pub exceeded: Option<&'p [u8]>,
}

impl Lost<'_> {
    fn from(ingress: PortId) -> Self {
        Self {
            ingress,
            exceeded: None,
        }
    }
}

/// Datagrams that are not whole yet.
#[derive(Debug)]
pub struct Reassembler {
    per_source: usize,
    pending: HashMap<Key, Pending>,
    /// By age; entries of datagrams that are gone are skipped.
    queue_v4: VecDeque<(Instant, Key, u64)>,
    queue_v6: VecDeque<(Instant, Key, u64)>,
    by_source: HashMap<IpAddr, usize>,
    bytes: usize,
    serial: u64,
}

/// What a new piece did to its datagram.
enum Added {
    More,
    Complete,
    Refused,
}

impl Reassembler {
    /// For what containers send.
    pub fn of_containers() -> Self {
        Self::with_quota(PER_CONTAINER)
    }

    /// For what comes by a link to the world.
    pub fn of_world() -> Self {
        Self::with_quota(PER_PEER)
    }

    fn with_quota(per_source: usize) -> Self {
        Self {
            per_source,
            pending: HashMap::new(),
            queue_v4: VecDeque::new(),
            queue_v6: VecDeque::new(),
            by_source: HashMap::new(),
            bytes: 0,
            serial: 0,
        }
    }

    /// Takes the fragment in `packet`; the whole datagram, if it was the last that was missing. What is refused, and what has
    /// to go for it, is told to `lost`.
    pub fn packet(
        &mut self,
        now: Instant,
        packet: &Packet,
        frame: &Frame<'_>,
        lost: &mut dyn FnMut(Lost<'_>),
    ) -> Option<Whole> {
        let fragment = packet.fragment?;
        let data = packet.transport(frame);
        let end = fragment.offset as usize + data.len();
        // RFC 8200 section 4.5: pieces but the last are multiples of eight, and the whole is a packet.
        if data.is_empty() || (fragment.more && !data.len().is_multiple_of(8)) || end > longest(packet) {
            lost(Lost::from(packet.ingress));
            return None;
        }
        let key = Key {
            src: packet.src,
            dst: packet.dst,
            // IPv6's next header is in each piece, but only the first one's counts.
            protocol: match packet.src {
                IpAddr::V4(_) => packet.protocol,
                IpAddr::V6(_) => IpProtocol::Ipv6Frag,
            },
            id: fragment.id,
        };
        if !self.pending.contains_key(&key) {
            self.make_room(packet.src, lost);
            self.begin(now, key, packet.ingress);
        }
        match self.add(key, packet, fragment, frame) {
            Added::More => {
                while self.bytes > TOTAL_BYTES
                    && let Some(evicted) = self.evict_oldest(None)
                {
                    lost(Lost::from(evicted.ingress));
                }
                None
            }
            Added::Complete => {
                let whole = self.remove(&key).and_then(|p| finish(p, packet));
                if whole.is_none() {
                    lost(Lost::from(packet.ingress));
                }
                whole
            }
            Added::Refused => {
                self.remove(&key);
                lost(Lost::from(packet.ingress));
                None
            }
        }
    }

    /// Ends datagrams whose time is up.
    pub fn expire(&mut self, now: Instant, lost: &mut dyn FnMut(Lost<'_>)) {
        while let Some(key) = self.pop_expired(now) {
            let Some(pending) = self.remove(&key) else {
                continue;
            };
            let first = match (&pending.first, pending.pieces.first()) {
                (Some((_, headers)), Some((0, data))) => {
                    let mut bytes = headers[ETHERNET..].to_vec();
                    bytes.extend_from_slice(&data[..data.len().min(QUOTED)]);
                    Some(bytes)
                }
                _ => None,
            };
            lost(Lost {
                ingress: pending.ingress,
                exceeded: first.as_deref(),
            });
        }
    }

    /// When [`Reassembler::expire`] is next due.
    pub fn deadline(&self) -> Option<Instant> {
        [self.queue_v4.front(), self.queue_v6.front()]
            .into_iter()
            .flatten()
            .map(|&(at, key, _)| at + timeout(key))
            .min()
    }

    /// Forgets what came from `source`, whose container is gone.
    pub fn forget(&mut self, source: IpAddr) {
        let gone: Vec<Key> = self.pending.keys().filter(|k| k.src == source).copied().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.bytes
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn begin(&mut self, now: Instant, key: Key, ingress: PortId) {
        self.serial += 1;
        let queue = if key.src.is_ipv4() {
            &mut self.queue_v4
        } else {
            &mut self.queue_v6
        };
        queue.push_back((now, key, self.serial));
        *self.by_source.entry(key.src).or_insert(0) += 1;
        self.bytes += OVERHEAD;
        let pending = Pending {
            serial: self.serial,
            ingress,
            pieces: Vec::new(),
            total: None,
            have: 0,
            first: None,
            dont_fragment: false,
            largest: 0,
            cost: OVERHEAD,
        };
        self.pending.insert(key, pending);
    }

    fn add(&mut self, key: Key, packet: &Packet, fragment: Fragment, frame: &Frame<'_>) -> Added {
        let Some(pending) = self.pending.get_mut(&key) else {
            return Added::Refused;
        };
        let before = pending.cost;
        let added = pending.add(packet, fragment, frame);
        self.bytes += pending.cost - before;
        added
    }

    fn make_room(&mut self, source: IpAddr, lost: &mut dyn FnMut(Lost<'_>)) {
        if self.by_source.get(&source).is_some_and(|&n| n >= self.per_source)
            && let Some(evicted) = self.evict_oldest(Some(source))
        {
            lost(Lost::from(evicted.ingress));
        }
        if self.pending.len() >= TOTAL
            && let Some(evicted) = self.evict_oldest(None)
        {
            lost(Lost::from(evicted.ingress));
        }
    }

    /// Ends the oldest datagram of `source`, of the source that has most if `None`, and returns it.
    fn evict_oldest(&mut self, source: Option<IpAddr>) -> Option<Pending> {
        let greediest = || {
            self.by_source
                .iter()
                .max_by_key(|&(_, &n)| n)
                .map(|(&source, _)| source)
        };
        let source = source.or_else(greediest)?;
        let oldest = self
            .pending
            .iter()
            .filter(|(k, _)| k.src == source)
            .min_by_key(|(_, p)| p.serial);
        let key = oldest.map(|(&k, _)| k)?;
        self.remove(&key)
    }

    fn remove(&mut self, key: &Key) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.bytes -= pending.cost;
        if let Some(n) = self.by_source.get_mut(&key.src) {
            *n -= 1;
            if *n == 0 {
                self.by_source.remove(&key.src);
            }
        }
        self.trim();
        Some(pending)
    }

    /// Lets go of the queues' entries for datagrams that are gone.
    fn trim(&mut self) {
        let pending = &self.pending;
        let gone = |key: &Key, serial: u64| pending.get(key).is_none_or(|p| p.serial != serial);
        for queue in [&mut self.queue_v4, &mut self.queue_v6] {
            while queue.front().is_some_and(|(_, key, serial)| gone(key, *serial)) {
                queue.pop_front();
            }
            if queue.len() > 2 * TOTAL {
                queue.retain(|(_, key, serial)| !gone(key, *serial));
            }
        }
    }

    fn pop_expired(&mut self, now: Instant) -> Option<Key> {
        [&self.queue_v4, &self.queue_v6]
            .into_iter()
            .filter_map(VecDeque::front)
            .find(|&&(at, key, _)| at + timeout(key) <= now)
            .map(|&(_, key, _)| key)
    }
}

impl Pending {
    fn add(&mut self, packet: &Packet, fragment: Fragment, frame: &Frame<'_>) -> Added {
        let data = packet.transport(frame);
        let (start, end) = (fragment.offset, fragment.offset + data.len() as u32);
        let at = self.pieces.partition_point(|(offset, _)| *offset < start);
        if let Some((offset, known)) = self.pieces.get(at)
            && *offset == start
            && known.len() == data.len()
        {
            // A piece that came twice is no overlap if it is the same.
            return if **known == *data {
                Added::More
            } else {
                Added::Refused
            };
        }
        let overlaps_previous = at
            .checked_sub(1)
            .and_then(|i| self.pieces.get(i))
            .is_some_and(|(offset, known)| offset + known.len() as u32 > start);
        let overlaps_next = self.pieces.get(at).is_some_and(|(offset, _)| *offset < end);
        let beyond = self
            .total
            .is_some_and(|total| end > total || (!fragment.more && end != total));
        let last_is_short = !fragment.more && self.pieces.last().is_some_and(|(offset, _)| *offset >= end);
        if overlaps_previous || overlaps_next || beyond || last_is_short || self.pieces.len() == PIECES {
            return Added::Refused;
        }
        if !fragment.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.first = Some((*packet, frame.bytes()[..packet.payload].into()));
            self.cost += packet.payload;
        }
        self.dont_fragment |= packet.src.is_ipv4() && packet.dont_fragment;
        // The length field of either version, and IPv6's 40 bytes besides it.
        let len = u16::try_from(packet.end - packet.ip).unwrap_or(u16::MAX);
        self.largest = self.largest.max(len);
        self.have += data.len() as u32;
        self.cost += data.len() + OVERHEAD;
        self.pieces.insert(at, (start, data.into()));
        if self.total == Some(self.have) && self.first.is_some() {
            Added::Complete
        } else {
            Added::More
        }
    }
}

/// Bytes of the fragmentable part at most, so that the whole packet's length fits its field.
fn longest(packet: &Packet) -> usize {
    match packet.src {
        IpAddr::V4(_) => 65_535 - (packet.payload - packet.ip),
        IpAddr::V6(_) => 65_535,
    }
}

fn timeout(key: Key) -> Duration {
    match key.src {
        IpAddr::V4(_) => Duration::from_secs(30),
        IpAddr::V6(_) => Duration::from_secs(60),
    }
}

/// The whole of what `pending` has, as a frame with one IP header; `last` is the fragment that made it whole.
fn finish(pending: Pending, last: &Packet) -> Option<Whole> {
    let (first, headers) = pending.first?;
    // What stood before the fragment header was in every piece and is the whole's.
    let header_end = match first.src {
        IpAddr::V4(_) => first.payload,
        IpAddr::V6(_) => first.payload - FRAGMENT_HEADER,
    };
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(&headers[..header_end]);
    for (_, data) in &pending.pieces {
        buf.extend_from_slice(data);
    }
    let ip = HEADROOM + first.ip;
    let packet_len = buf.len() - ip;
    match first.src {
        IpAddr::V4(_) => {
            let mut header = Ipv4Packet::new_unchecked(&mut buf[ip..]);
            header.set_total_len(u16::try_from(packet_len).ok()?);
            header.set_more_frags(false);
            header.set_frag_offset(0);
            header.set_dont_frag(pending.dont_fragment);
            header.fill_checksum();
        }
        IpAddr::V6(_) => {
            let payload_len = u16::try_from(packet_len - 40).ok()?;
            Ipv6Packet::new_unchecked(&mut buf[ip..]).set_payload_len(payload_len);
            let names = naming(&buf[ip..], header_end - first.ip);
            buf[ip + names] = headers[header_end];
        }
    }
    let end = buf.len();
    let frame = Frame::new(&mut buf, HEADROOM, end, Offload::NONE);
    // Further IPv6 extension headers may stand in what was fragmented: the whole is read anew.
    let whole = Packet::parse(last.ingress, &frame)
        .ok()
        .filter(|p| p.fragment.is_none())?;
    // What came in fragments may leave in fragments, IPv6 too.
    let packet = Packet {
        dont_fragment: pending.dont_fragment,
        largest_fragment: Some(pending.largest),
        ..whole
    };
    Some(Whole { packet, buf })
}

/// Which byte of the IPv6 packet `bytes` names the header at `at`, an extension header or what follows the last.
fn naming(bytes: &[u8], at: usize) -> usize {
    let (mut names, mut next) = (6, 40);
    while next < at {
        let len = match IpProtocol::from(bytes[names]) {
            IpProtocol::Ipv6Frag => FRAGMENT_HEADER,
            _ => 8 + usize::from(bytes[next + 1]) * 8,
        };
        names = next;
        next += len;
    }
    names
}
