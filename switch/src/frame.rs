//! A frame and what it claims of itself.
//!
//! A frame travels with the meaning of its virtio-net header ([`Offload`]; `struct virtio_net_hdr`,
//! `include/uapi/linux/virtio_net.h`): a checksum still to be filled in, and the segment size of a super-frame of up to
//! 64 KiB. Both come from the sender, so from an attacker: the codec holds them against the bytes before
//! anything is done with them.

use crate::MacAddr;
use crate::headers::{self, Headers, Network};

/// The largest frame handled: a 64 KiB IP packet with its Ethernet header and a VLAN tag, rounded up.
pub const MAX_FRAME: usize = 65_600;

/// Spare bytes kept before a received frame, so that a tag or an outer header is pushed without moving the payload.
pub const HEADROOM: usize = 64;

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// Nothing is claimed: the checksum in the bytes is whole and is verified by whoever cares.
    #[default]
    Complete,
    /// Verified by the sender's side already (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Valid,
    /// Still to be filled in: the ones' complement sum from `start` to the end belongs at `start + offset`, where the
    /// pseudo-header's sum now stands (`VIRTIO_NET_HDR_F_NEEDS_CSUM`). Both in bytes; `start` from the frame's first.
    Partial {
        /// First byte summed.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
}

/// The kind of a super-frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GsoKind {
    /// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
    Tcp4,
    /// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
    Tcp6,
    /// UDP over IPv4 or IPv6, each segment a datagram of its own (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    UdpL4,
}

/// A super-frame: many segments' payload under one set of headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// What the segments are.
    pub kind: GsoKind,
    /// Transport payload bytes of each segment but the last.
    pub size: u16,
    /// Bytes of headers before the payload, from the frame's first byte.
    pub header_len: u16,
    /// TCP with CWR set on the first segment (`VIRTIO_NET_HDR_GSO_ECN`).
    pub ecn: bool,
}

/// What the virtio-net header of a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// The segmentation, if this is a super-frame.
    pub gso: Option<Gso>,
}

impl Offload {
    /// A plain frame with a whole checksum.
    pub const NONE: Self = Self {
        checksum: Checksum::Complete,
        gso: None,
    };
}

/// One Ethernet frame in a borrowed buffer, with room before and perhaps behind it.
#[derive(Debug)]
pub struct Frame<'b> {
    /// What the frame claims of its checksum and segmentation.
    pub offload: Offload,
    buf: &'b mut [u8],
    start: usize,
    end: usize,
}

impl<'b> Frame<'b> {
    /// The frame in `buf[start..end]`. Panics if that is no range of `buf`.
    pub fn new(buf: &'b mut [u8], start: usize, end: usize, offload: Offload) -> Self {
        assert!(
            start <= end && end <= buf.len(),
            "frame {start}..{end} outside its buffer of {}",
            buf.len()
        );
        Self {
            offload,
            buf,
            start,
            end,
        }
    }

    /// The frame that fills `bytes`.
    pub fn whole(bytes: &'b mut [u8], offload: Offload) -> Self {
        let end = bytes.len();
        Self::new(bytes, 0, end, offload)
    }

    /// The bytes, from the destination address on.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// The bytes, to be rewritten in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// Bytes in the frame.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The destination address; all zeroes if the frame is too short to have one.
    pub fn dst(&self) -> MacAddr {
        MacAddr::first(self.bytes()).unwrap_or_default()
    }

    /// The source address; all zeroes if the frame is too short to have one.
    pub fn src(&self) -> MacAddr {
        self.bytes().get(6..).and_then(MacAddr::first).unwrap_or_default()
    }

    /// The ethertype behind the addresses and any tags, or zero if the frame ends before it.
    pub fn ethertype(&self) -> u16 {
        headers::ethernet(self.bytes()).map_or(0, |e| e.ethertype)
    }

    /// The outer VLAN tag, if there is one.
    pub fn vlan(&self) -> Option<VlanTag> {
        VlanTag::of(self.bytes())
    }

    /// Cuts off what is behind the first `len` bytes; nothing if there are no more.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Bytes before the frame that [`Frame::push_vlan`] may use.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Puts `tag` behind the addresses, using four bytes of headroom. False, and nothing done, if there are none or the
    /// frame has no addresses.
    #[must_use]
    pub fn push_vlan(&mut self, tag: VlanTag) -> bool {
        if self.start < VLAN_LEN || self.len() < 12 {
            return false;
        }
        let start = self.start - VLAN_LEN;
        self.buf.copy_within(self.start..self.start + 12, start);
        self.buf[start + 12..start + 14].copy_from_slice(&tag.tpid.to_be_bytes());
        self.buf[start + 14..start + 16].copy_from_slice(&tag.tci.to_be_bytes());
        self.start = start;
        self.offload.shift(VLAN_LEN as i32);
        true
    }

    /// Takes the outer VLAN tag away, if there is one.
    pub fn pop_vlan(&mut self) -> Option<VlanTag> {
        let tag = self.vlan()?;
        self.buf
            .copy_within(self.start..self.start + 12, self.start + VLAN_LEN);
        self.start += VLAN_LEN;
        self.offload.shift(-(VLAN_LEN as i32));
        Some(tag)
    }
}

/// Bytes of a VLAN tag.
pub(crate) const VLAN_LEN: usize = 4;

/// A VLAN tag (IEEE 802.1Q).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTag {
    /// The protocol identifier: 0x8100, or 0x88a8 for a provider's tag.
    pub tpid: u16,
    /// Priority (3 bits), drop eligibility (1 bit) and VLAN identifier (12 bits).
    pub tci: u16,
}

impl VlanTag {
    /// The outer tag of the frame `bytes`, if it has one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let b = bytes.get(12..16)?;
        let tpid = u16::from_be_bytes([b[0], b[1]]);
        headers::is_vlan(tpid).then(|| Self {
            tpid,
            tci: u16::from_be_bytes([b[2], b[3]]),
        })
    }

    /// The VLAN identifier; 0 means that the tag carries a priority only.
    pub const fn id(self) -> u16 {
        self.tci & 0x0fff
    }
}

impl Offload {
    /// Moves what is counted from the frame's first byte by `by` bytes.
    fn shift(&mut self, by: i32) {
        let moved = |n: u16| u16::try_from(i32::from(n) + by).unwrap_or(0);
        if let Checksum::Partial { start, .. } = &mut self.checksum {
            *start = moved(*start);
        }
        if let Some(gso) = &mut self.gso {
            gso.header_len = moved(gso.header_len);
        }
    }
}

// `struct virtio_net_hdr`, ten bytes in the byte order of the machine (the `legacy` order of TAPs and packet sockets):
// flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16.
const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Bytes of the virtio-net header.
pub const VNET_HEADER: usize = 10;

/// A virtio-net header that contradicts its frame, or asks for what is not spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the virtio-net header contradicts the frame")]
pub struct BadHeader;

/// Where the payload of the packet in `bytes` begins at the earliest: behind an IP header without options or extensions.
#[inline]
fn first_of_payload(bytes: &[u8]) -> Option<usize> {
    const IPV4: [u8; 2] = headers::IPV4.to_be_bytes();
    const TYPE_AT: usize = headers::ETHERNET_LEN - 2;
    // Nearly always.
    if bytes.get(TYPE_AT..headers::ETHERNET_LEN) == Some(IPV4.as_slice()) {
        return Some(headers::ETHERNET_LEN + 20);
    }
    let ethernet = headers::ethernet(bytes)?;
    let header = if ethernet.ethertype == headers::IPV6 {
        40
    } else {
        20
    };
    Some(ethernet.payload + header)
}

impl Offload {
    /// Reads a virtio-net header and holds it against the frame `bytes`.
    ///
    /// A partial checksum must lie inside the frame, and behind its IP header: where software fills it in, that is after the
    /// header was held against the port's policy. A super-frame must have one, at the place where its own headers
    /// put it, be of the protocols it says, and have payload. Its header length is taken from the bytes: the header's
    /// `hdr_len` is a hint only (the kernel writes the length of its linear part there).
    pub fn decode(header: &[u8; VNET_HEADER], bytes: &[u8]) -> Result<Self, BadHeader> {
        if header[0] & (F_NEEDS_CSUM | F_DATA_VALID) == 0 && header[1] == GSO_NONE {
            return Ok(Self::NONE);
        }
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let checksum = if header[0] & F_NEEDS_CSUM != 0 {
            let (start, offset) = (field(6), field(8));
            let end = usize::from(start) + usize::from(offset) + 2;
            if usize::from(start) < first_of_payload(bytes).ok_or(BadHeader)? || end > bytes.len() {
                return Err(BadHeader);
            }
            Checksum::Partial { start, offset }
        } else if header[0] & F_DATA_VALID != 0 {
            Checksum::Valid
        } else {
            Checksum::Complete
        };
        let kind = match header[1] & !GSO_ECN {
            GSO_NONE => return Ok(Self { checksum, gso: None }),
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 => GsoKind::UdpL4,
            // The long gone GSO_UDP (fragments) among them.
            _ => return Err(BadHeader),
        };
        let gso = Gso {
            kind,
            size: field(4),
            header_len: 0,
            ecn: header[1] & GSO_ECN != 0,
        };
        let mut offload = Self {
            checksum,
            gso: Some(gso),
        };
        let header_len = offload.gso_header_len(bytes).ok_or(BadHeader)?;
        if gso.size == 0 || usize::from(header_len) >= bytes.len() {
            return Err(BadHeader);
        }
        offload.gso = Some(Gso { header_len, ..gso });
        Ok(offload)
    }

    /// The length of the headers of a super-frame, if its bytes are what it says.
    fn gso_header_len(&self, bytes: &[u8]) -> Option<u16> {
        let gso = self.gso?;
        let Headers {
            network,
            transport,
            protocol,
            fragment,
            ..
        } = headers::locate(bytes)?;
        let right = match gso.kind {
            GsoKind::Tcp4 => matches!(network, Network::V4 { .. }) && protocol == headers::TCP,
            GsoKind::Tcp6 => matches!(network, Network::V6 { .. }) && protocol == headers::TCP,
            GsoKind::UdpL4 => protocol == headers::UDP,
        };
        let (len, offset) = match gso.kind {
            GsoKind::Tcp4 | GsoKind::Tcp6 => (usize::from(*bytes.get(transport + 12)? >> 4) * 4, 16),
            GsoKind::UdpL4 => (8, 6),
        };
        let placed = self.checksum
            == Checksum::Partial {
                start: u16::try_from(transport).ok()?,
                offset,
            };
        let whole = fragment == headers::Fragment::Whole;
        (right && placed && whole && len >= 8 && (len >= 20 || gso.kind == GsoKind::UdpL4))
            .then(|| u16::try_from(transport + len).ok())?
    }

    /// The virtio-net header that says this.
    pub fn encode(&self) -> [u8; VNET_HEADER] {
        let mut header = [0; VNET_HEADER];
        match self.checksum {
            Checksum::Complete => {}
            Checksum::Valid => header[0] = F_DATA_VALID,
            Checksum::Partial { start, offset } => {
                header[0] = F_NEEDS_CSUM;
                header[6..8].copy_from_slice(&start.to_ne_bytes());
                header[8..10].copy_from_slice(&offset.to_ne_bytes());
            }
        }
        if let Some(gso) = self.gso {
            header[1] = match gso.kind {
                GsoKind::Tcp4 => GSO_TCPV4,
                GsoKind::Tcp6 => GSO_TCPV6,
                GsoKind::UdpL4 => GSO_UDP_L4,
            } | if gso.ecn { GSO_ECN } else { 0 };
            header[2..4].copy_from_slice(&gso.header_len.to_ne_bytes());
            header[4..6].copy_from_slice(&gso.size.to_ne_bytes());
        }
        header
    }
}

#[cfg(test)]
mod tests;
