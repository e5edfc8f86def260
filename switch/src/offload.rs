//! Checksums and segmentation in software, for ports whose device lacks them.
//!
//! A super-frame is cut as the kernel's `tcp_gso_segment` and `udp4_gso`/`udp6_gso` do: headers copied before each piece
//! of payload, lengths, identification, sequence numbers and flags set for it. The transport checksum is seeded from the
//! pseudo-header's sum that stands in the super-frame's checksum field, with the length exchanged, so that nothing need
//! be known of the addresses (a routing header changes which one counts).
//!
//! Segments are built in a buffer that the caller owns: nothing is allocated.

use crate::frame::{Checksum, Frame, Gso, GsoKind, HEADROOM, Offload};
use crate::headers::{self, Network};

/// The ones' complement sum of `bytes` as big-endian 16-bit words, folded to 16 bits, not inverted. RFC 1071.
pub fn sum(bytes: &[u8]) -> u16 {
    // Words are added as they lie in memory and the total is swapped once: the sum does not mind (RFC 1071, 2(B)).
    let mut total: u64 = 0;
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        // Eight 32-bit words into 64 bits: no carry is lost in any frame's length.
        let mut part: u64 = 0;
        for word in block.chunks_exact(4) {
            part += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        total += part;
    }
    let mut pairs = blocks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

/// As [`sum`], for an IPv4 header: one without options, as nearly all are, has a length that the compiler knows.
pub fn header_sum(header: &[u8]) -> u16 {
    let Ok(header) = <&[u8; 20]>::try_from(header) else {
        return sum(header);
    };
    let (words, _) = header.as_chunks::<4>();
    let word = |word: &[u8; 4]| u64::from(u32::from_ne_bytes(*word));
    u16::from_be(fold(words.iter().map(word).sum()))
}

/// The Internet checksum of `bytes`: the inverted sum.
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// `a` + `b` in ones' complement.
pub const fn add(a: u16, b: u16) -> u16 {
    let (n, carry) = a.overflowing_add(b);
    n + carry as u16
}

fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Fills in a partial checksum, which the frame then claims no more. Any other frame stays as it is.
///
/// A partial checksum outside the frame is left alone: [`Offload::decode`] lets none in.
pub fn complete(frame: &mut Frame<'_>) {
    let Checksum::Partial { start, offset } = frame.offload.checksum else {
        return;
    };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let bytes = frame.bytes_mut();
    if start + offset + 2 <= bytes.len() {
        // Zero means `none` in UDP, and in every other protocol both zeroes are the same.
        let value = match checksum(&bytes[start..]) {
            0 => 0xffff,
            value => value,
        };
        bytes[start + offset..start + offset + 2].copy_from_slice(&value.to_be_bytes());
    }
    frame.offload.checksum = Checksum::Complete;
}

/// Whether segments get their checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    /// Whole checksums.
    Filled,
    /// Partial ones, for a device that fills them in.
    Left,
}

/// Cuts the super-frame `frame` into segments, each built in `scratch` (as large as a frame with its headroom) and
/// given to `each`, in order, until that fails. A frame that is no super-frame is given to nobody: `Ok`.
pub fn segment<E>(
    frame: &Frame<'_>,
    sums: Sums,
    scratch: &mut [u8],
    mut each: impl FnMut(&mut Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(cut) = Cut::of(frame) else { return Ok(()) };
    let (head, payload) = frame.bytes().split_at(cut.header_len);
    let pieces = payload.chunks(cut.size);
    let last = pieces.len() - 1;
    for (index, piece) in pieces.enumerate() {
        let end = HEADROOM + cut.header_len + piece.len();
        scratch[HEADROOM..HEADROOM + cut.header_len].copy_from_slice(head);
        scratch[HEADROOM + cut.header_len..end].copy_from_slice(piece);
        let offload = Offload {
            checksum: frame.offload.checksum,
            gso: None,
        };
        let mut segment = Frame::new(scratch, HEADROOM, end, offload);
        cut.rewrite(segment.bytes_mut(), index, index == last);
        match sums {
            Sums::Filled => complete(&mut segment),
            Sums::Left => {}
        }
        each(&mut segment)?;
    }
    Ok(())
}

/// Bytes of the largest IP packet that `frame` becomes on the wire: of a super-frame, its largest segment.
pub fn packet_len(frame: &Frame<'_>) -> usize {
    let tags = if frame.vlan().is_some() { 4 } else { 0 };
    let bytes = match frame.offload.gso {
        Some(gso) => frame
            .len()
            .min(usize::from(gso.header_len) + usize::from(gso.size)),
        None => frame.len(),
    };
    bytes.saturating_sub(headers::ETHERNET_LEN + tags)
}

/// How a super-frame is cut.
struct Cut {
    kind: GsoKind,
    network: Network,
    transport: usize,
    header_len: usize,
    size: usize,
    /// Pseudo-header sum with the length taken out.
    seed: u16,
}

impl Cut {
    fn of(frame: &Frame<'_>) -> Option<Self> {
        let Gso {
            kind,
            size,
            header_len,
            ecn: _,
        } = frame.offload.gso?;
        let bytes = frame.bytes();
        let found = headers::locate(bytes)?;
        let (header_len, transport) = (usize::from(header_len), found.transport);
        let field = transport + checksum_offset(kind);
        if size == 0 || header_len >= bytes.len() || field + 2 > header_len {
            return None;
        }
        let whole = u16::try_from(bytes.len() - transport).unwrap_or(u16::MAX);
        let seed = add(headers::be16(bytes, field)?, !whole);
        Some(Self {
            kind,
            network: found.network,
            transport,
            header_len,
            size: usize::from(size),
            seed,
        })
    }

    /// Makes the copied headers before a piece of payload those of segment `index`.
    fn rewrite(&self, bytes: &mut [u8], index: usize, last: bool) {
        let put =
            |bytes: &mut [u8], at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        // Segments are no larger than the super-frame, which fits 16 bits.
        let len = |from: usize, to: usize| u16::try_from(to - from).unwrap_or(u16::MAX);
        let end = bytes.len();
        match self.network {
            Network::V4 { at } => {
                put(bytes, at + 2, len(at, end));
                let id = u16::from_be_bytes([bytes[at + 4], bytes[at + 5]]);
                put(bytes, at + 4, id.wrapping_add(index as u16));
                put(bytes, at + 10, 0);
                let sum = header_sum(&bytes[at..at + usize::from(bytes[at] & 0x0f) * 4]);
                put(bytes, at + 10, !sum);
            }
            Network::V6 { at } => put(bytes, at + 4, len(at + 40, end)),
        }
        let t = self.transport;
        match self.kind {
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                let first = u32::from_be_bytes([bytes[t + 4], bytes[t + 5], bytes[t + 6], bytes[t + 7]]);
                let sequence = first.wrapping_add((index * self.size) as u32);
                bytes[t + 4..t + 8].copy_from_slice(&sequence.to_be_bytes());
                // FIN and PSH end a stretch of data; CWR answers one mark only (RFC 3168, 6.1.2).
                if !last {
                    bytes[t + 13] &= !0x09;
                }
                if index > 0 {
                    bytes[t + 13] &= !0x80;
                }
            }
            GsoKind::UdpL4 => put(bytes, t + 4, len(t, end)),
        }
        put(bytes, t + checksum_offset(self.kind), add(self.seed, len(t, end)));
    }
}

const fn checksum_offset(kind: GsoKind) -> usize {
    match kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => 16,
        GsoKind::UdpL4 => 6,
    }
}

#[cfg(test)]
pub(crate) mod tests;
