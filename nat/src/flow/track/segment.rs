//! What the tracker reads of a TCP segment.

/// TCP's control bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);

    /// True if one of `flags` is set.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// These and those.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// What a segment is to the tracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Syn,
    SynAck,
    /// Data, FIN or nothing, with an acknowledgement.
    Ack,
    Rst,
}

/// A TCP segment, or a super-frame of them, without what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window as it stands in the header.
    pub window: u16,
    /// Control bits.
    pub flags: Flags,
    /// Payload in bytes.
    pub len: u32,
    /// Window scale option, at most 14; read of a SYN only.
    pub window_scale: Option<u8>,
}

impl Segment {
    /// Reads a segment from its header to its last byte; nothing if the header is cut off or impossible.
    pub fn parse(tcp: &[u8]) -> Option<Self> {
        let header = tcp.first_chunk::<20>()?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = tcp.get(20..header_len)?;
        let flags = Flags(header[13]);
        Some(Self {
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            flags,
            len: (tcp.len() - header_len) as u32,
            window_scale: flags.has(Flags::SYN).then(|| window_scale(options)).flatten(),
        })
    }

    /// Sequence number behind its last byte, of which SYN and FIN count as one each (RFC 9293 section 3.4).
    pub fn end(&self) -> u32 {
        let controls = u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN));
        self.seq.wrapping_add(self.len).wrapping_add(controls)
    }

    /// What it is; nothing if no TCP sends such control bits.
    pub(super) fn kind(&self) -> Option<Kind> {
        let has = |flag| self.flags.has(flag);
        match (has(Flags::SYN), has(Flags::RST), has(Flags::FIN), has(Flags::ACK)) {
            (true, false, false, false) => Some(Kind::Syn),
            (true, false, false, true) => Some(Kind::SynAck),
            (false, true, false, _) => Some(Kind::Rst),
            (false, false, _, true) => Some(Kind::Ack),
            (true, true, ..) | (true, _, true, _) | (_, true, true, _) | (false, false, _, false) => None,
        }
    }
}

/// The window scale among a SYN's options (RFC 7323 section 2.3: more than 14 counts as 14).
fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        match options {
            [] | [0, ..] | [_] => return None,
            [1, rest @ ..] => options = rest,
            [3, 3, shift, ..] => return Some((*shift).min(14)),
            [_, len, ..] => options = options.get(usize::from(*len).max(2)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, options: &[u8], payload: usize) -> Vec<u8> {
        let mut tcp = vec![
            0x9c, 0x40, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0, flags, 0x12, 0x34, 0, 0, 0, 0,
        ];
        tcp[12] = (((20 + options.len()) / 4) << 4) as u8;
        tcp.extend_from_slice(options);
        tcp.resize(tcp.len() + payload, 0xaa);
        tcp
    }

    #[test]
    fn a_header_is_read() {
        // MSS 1460, SACK permitted, NOP, window scale 7 as Linux sends them, with a NOP to fill.
        let options = [2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1];
        let syn = Segment::parse(&header(0x02, &options, 0)).unwrap();
        assert_eq!((syn.seq, syn.ack, syn.window), (256, 512, 0x1234));
        assert_eq!((syn.len, syn.window_scale, syn.end()), (0, Some(7), 257));
        let data = Segment::parse(&header(0x19, &options, 60_000)).unwrap();
        assert_eq!(
            (data.len, data.window_scale, data.end()),
            (60_000, None, 256 + 60_001)
        );
    }

    #[test]
    fn options_that_lie_are_passed_over() {
        for (options, scale) in [
            (&[3, 3, 200, 0][..], Some(14)),
            (&[3, 2, 7, 0], None),
            (&[2, 0, 3, 3, 7, 0, 0, 0], Some(7)),
            (&[2, 255, 3, 3, 7, 0, 0, 0], None),
            (&[0, 3, 3, 7], None),
            (&[1, 1, 3, 3], None),
            (&[1, 1, 1, 3], None),
        ] {
            let syn = Segment::parse(&header(0x02, options, 0)).unwrap();
            assert_eq!(syn.window_scale, scale, "{options:?}");
        }
    }

    #[test]
    fn a_header_that_is_cut_off_or_impossible_is_none() {
        let whole = header(0x02, &[1; 12], 0);
        for len in 0..whole.len() {
            assert_eq!(Segment::parse(&whole[..len]), None, "{len}");
        }
        let mut short = whole.clone();
        short[12] = 0x40;
        assert_eq!(Segment::parse(&short), None);
    }

    #[test]
    fn control_bits_that_no_tcp_sends_are_told() {
        let ours = |bits: u8| (0..4).fold(0, |sum, n| sum | (bits >> n & 1) << [0, 1, 2, 4][n]);
        let kinds: Vec<u8> = (0..16)
            .map(ours)
            .filter(|&flags| Segment::parse(&header(flags, &[], 0)).unwrap().kind().is_some())
            .collect();
        // SYN, RST; and with ACK: none, FIN, SYN, RST.
        assert_eq!(kinds, [0x02, 0x04, 0x10, 0x11, 0x12, 0x14]);
    }
}
