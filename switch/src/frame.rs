//! A frame and what it claims of itself.
//!
//! A frame travels with the meaning of its virtio-net header ([`Offload`]; `struct virtio_net_hdr`,
//! `include/uapi/linux/virtio_net.h`): a checksum still to be filled in, and the segment size of a super-frame of up to
//! 64 KiB. Both come from the sender, so from an attacker: the codec holds them against the bytes before
//! anything is done with them.

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
}
