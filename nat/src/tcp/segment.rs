//! Segments: what is read of one, and how one is written.

use std::net::SocketAddr;

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{Checksum, DropReason, Frame, Gso, GsoKind, Offload};
use smoltcp::wire::{IpAddress, IpProtocol, TcpOption, TcpPacket};

use super::seq::Seq;
use crate::cx::Cx;
use crate::packet::{ETHERNET, IpRepr, Packet, header_len};

/// Bytes of a TCP header without options.
pub(super) const HEADER: usize = 20;

/// The flags that mean something here. URG is ordinary data; ECN is not negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Flags {
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) psh: bool,
}

impl Flags {
    pub(super) const ACK: Self = Self {
        syn: false,
        ack: true,
        fin: false,
        rst: false,
        psh: false,
    };
    pub(super) const SYN: Self = Self {
        syn: true,
        ack: false,
        ..Self::ACK
    };
    pub(super) const SYN_ACK: Self = Self {
        syn: true,
        ..Self::ACK
    };
    pub(super) const RST: Self = Self {
        ack: false,
        rst: true,
        ..Self::ACK
    };
    pub(super) const RST_ACK: Self = Self {
        rst: true,
        ..Self::ACK
    };

    fn byte(self) -> u8 {
        u8::from(self.fin)
            | u8::from(self.syn) << 1
            | u8::from(self.rst) << 2
            | u8::from(self.psh) << 3
            | u8::from(self.ack) << 4
    }
}

/// A received segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) flags: Flags,
    /// As it stands in the header, unscaled.
    pub(super) window: u16,
    /// Start of the data, in bytes from the frame's first.
    pub(super) data: usize,
    /// Bytes of data.
    pub(super) len: usize,
    /// MSS option of a SYN.
    pub(super) mss: Option<u16>,
    /// Window scale option of a SYN, at most 14 (RFC 7323 section 2.3).
    pub(super) scale: Option<u8>,
}

impl Segment {
    pub(super) fn parse(packet: &Packet, frame: &Frame<'_>) -> Result<Self, DropReason> {
        let bytes = packet.transport(frame);
        let tcp = TcpPacket::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        if usize::from(tcp.header_len()) < HEADER || tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return Err(DropReason::Malformed);
        }
        match frame.offload.checksum {
            // Both come from the kernel next door: nothing has been on a wire.
            Checksum::Partial { .. } | Checksum::Valid => {}
            Checksum::Complete => {
                if !tcp.verify_checksum(&IpAddress::from(packet.src), &IpAddress::from(packet.dst)) {
                    return Err(DropReason::BadChecksum);
                }
            }
        }
        let flags = Flags {
            syn: tcp.syn(),
            ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            psh: tcp.psh(),
        };
        if flags.syn && (flags.fin || flags.rst) {
            return Err(DropReason::Malformed);
        }
        let header = usize::from(tcp.header_len());
        let mut segment = Self {
            src_port: tcp.src_port(),
            dst_port: tcp.dst_port(),
            seq: Seq(tcp.seq_number().0 as u32),
            ack: Seq(tcp.ack_number().0 as u32),
            flags,
            window: tcp.window_len(),
            data: packet.payload + header,
            len: bytes.len() - header,
            mss: None,
            scale: None,
        };
        if flags.syn {
            segment.read_options(tcp.options());
        }
        Ok(segment)
    }

    fn read_options(&mut self, mut options: &[u8]) {
        while let Ok((rest, option)) = TcpOption::parse(options) {
            match option {
                TcpOption::EndOfList => return,
                TcpOption::MaxSegmentSize(mss) => self.mss = Some(mss),
                TcpOption::WindowScale(scale) => self.scale = Some(scale.min(14)),
                TcpOption::NoOperation
                | TcpOption::SackPermitted
                | TcpOption::SackRange(_)
                | TcpOption::TimeStamp { .. }
                | TcpOption::Unknown { .. } => {}
            }
            options = rest;
        }
    }

    /// Sequence space it takes: data, SYN and FIN.
    pub(super) fn sequence_len(&self) -> u32 {
        self.len as u32 + u32::from(self.flags.syn) + u32::from(self.flags.fin)
    }
}

/// A segment to be written. Its data stands already where [`data_slot`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Draft {
    /// The side the container talks to.
    pub(super) src: SocketAddr,
    /// The container.
    pub(super) dst: SocketAddr,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) flags: Flags,
    /// As it stands in the header, unscaled.
    pub(super) window: u16,
    /// Bytes of data.
    pub(super) len: usize,
    /// Bytes of data in each segment on the wire.
    pub(super) mss: u16,
    /// Options of a SYN: our MSS, and our window scale if it is negotiated.
    pub(super) options: Option<(u16, Option<u8>)>,
}

/// Where the data of a segment without options to `dst` stands in the build buffer.
pub(super) fn data_slot(dst: SocketAddr) -> usize {
    HEADROOM + ETHERNET + header_len(dst.ip()) + HEADER
}

impl Draft {
    /// A segment without data or window: a reset.
    pub(super) fn reset(src: SocketAddr, dst: SocketAddr, seq: Seq, ack: Option<Seq>) -> Self {
        Self {
            src,
            dst,
            seq,
            ack: ack.unwrap_or_default(),
            flags: if ack.is_some() { Flags::RST_ACK } else { Flags::RST },
            window: 0,
            len: 0,
            mss: super::MSS_MIN,
            options: None,
        }
    }

    /// Writes the headers in front of the data and sends the segment. The checksum is left to whoever needs it whole.
    pub(super) fn send<H>(&self, cx: &mut Cx<'_, H>) -> Result<(), DropReason> {
        let ip_len = header_len(self.dst.ip());
        let options_len = match self.options {
            None => 0,
            Some((_, None)) => 4,
            Some((_, Some(_))) => 8,
        };
        let transport_len = HEADER + options_len + self.len;
        let b = cx.payload(self.dst.ip());
        b[..2].copy_from_slice(&self.src.port().to_be_bytes());
        b[2..4].copy_from_slice(&self.dst.port().to_be_bytes());
        b[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        b[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        b[12] = (((HEADER + options_len) / 4) as u8) << 4;
        b[13] = self.flags.byte();
        b[14..16].copy_from_slice(&self.window.to_be_bytes());
        b[16..18].copy_from_slice(&pseudo_header_sum(self.src, self.dst, transport_len).to_be_bytes());
        b[18..20].copy_from_slice(&[0, 0]);
        if let Some((mss, scale)) = self.options {
            let [hi, lo] = mss.to_be_bytes();
            b[20..24].copy_from_slice(&[2, 4, hi, lo]);
            if let Some(scale) = scale {
                b[24..28].copy_from_slice(&[1, 3, 3, scale]);
            }
        }
        let start = ETHERNET + ip_len;
        let offload = Offload {
            checksum: Checksum::Partial {
                start: start as u16,
                offset: 16,
            },
            gso: (self.len > usize::from(self.mss)).then_some(Gso {
                kind: if self.dst.is_ipv4() {
                    GsoKind::Tcp4
                } else {
                    GsoKind::Tcp6
                },
                size: self.mss,
                header_len: (start + HEADER + options_len) as u16,
                ecn: false,
            }),
        };
        let ip = IpRepr {
            dont_fragment: true,
            ..IpRepr::new(self.src.ip(), self.dst.ip(), IpProtocol::Tcp)
        };
        cx.transmit(&ip, transport_len, offload)
    }
}

/// The folded, uncomplemented sum of the pseudo-header, as it stands in a partial checksum (RFC 9293 section 3.1).
fn pseudo_header_sum(src: SocketAddr, dst: SocketAddr, transport_len: usize) -> u16 {
    let mut sum = transport_len as u64 + 6;
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks_exact(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
    };
    match (src, dst) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            add(&s.ip().octets());
            add(&d.ip().octets());
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            add(&s.ip().octets());
            add(&d.ip().octets());
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {}
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
