//! The little of a DNS message (RFC 1035 section 4) that forwarding needs: header and question, read and written in place.

/// Bytes of the header.
pub(super) const HEADER: usize = 12;
/// The largest query taken, in bytes: a question and its EDNS, padded as RFC 8467 has it, are far from it.
pub(super) const LARGEST_QUERY: usize = 1232;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 255;

/// Response codes (RFC 1035 section 4.1.1).
pub(super) mod rcode {
    pub(in crate::dns) const FORMAT_ERROR: u8 = 1;
    pub(in crate::dns) const SERVER_FAILURE: u8 = 2;
    pub(in crate::dns) const NOT_IMPLEMENTED: u8 = 4;
    pub(in crate::dns) const REFUSED: u8 = 5;
}

/// Bits of the third byte: response, and truncated; and of the fourth: recursion available.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;

/// The question of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Question {
    /// The name in wire form and lower case.
    name: [u8; LONGEST_NAME],
    len: usize,
    /// QTYPE.
    pub(super) kind: u16,
    /// QCLASS.
    pub(super) class: u16,
    /// Bytes of the message up to the question's end.
    pub(super) end: usize,
}

impl Question {
    /// The name in wire form and lower case, the root's empty label included.
    pub(super) fn name(&self) -> &[u8] {
        &self.name[..self.len]
    }
}

/// Why a message is not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bad {
    /// Too short, or itself a response: not answered, or two servers could talk to each other for ever.
    Silence,
    /// To be answered with this response code.
    Answer(u8),
}

/// Reads the question of a query.
pub(super) fn query(message: &[u8]) -> Result<Question, Bad> {
    if message.len() < HEADER || message[2] & QR != 0 {
        return Err(Bad::Silence);
    }
    if message[2] & OPCODE != 0 {
        return Err(Bad::Answer(rcode::NOT_IMPLEMENTED));
    }
    // More than one question has no meaning that servers agree on (RFC 9619).
    if message[4..6] != [0, 1] {
        return Err(Bad::Answer(rcode::FORMAT_ERROR));
    }
    question(message).ok_or(Bad::Answer(rcode::FORMAT_ERROR))
}

/// The first question of a message that has one. A compressed name is no question's.
fn question(message: &[u8]) -> Option<Question> {
    let mut at = HEADER;
    loop {
        let len = usize::from(*message.get(at)?);
        if len > 63 {
            return None;
        }
        at += 1 + len;
        if at - HEADER > LONGEST_NAME {
            return None;
        }
        if len == 0 {
            break;
        }
    }
    let len = at - HEADER;
    let mut name = [0; LONGEST_NAME];
    name[..len].copy_from_slice(message.get(HEADER..at)?);
    // Lengths are below 64, so below any letter.
    name.make_ascii_lowercase();
    let tail = message.get(at..at + 4)?;
    Some(Question {
        name,
        len,
        kind: u16::from_be_bytes([tail[0], tail[1]]),
        class: u16::from_be_bytes([tail[2], tail[3]]),
        end: at + 4,
    })
}

/// The identification.
pub(super) fn id(message: &[u8]) -> u16 {
    message.first_chunk::<2>().map_or(0, |b| u16::from_be_bytes(*b))
}

/// Sets the identification of a message of at least two bytes.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(b) = message.first_chunk_mut::<2>() {
        *b = id.to_be_bytes();
    }
}

/// The response code, without EDNS's upper bits.
pub(super) fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |b| b & 0x0f)
}

/// True if `message` is the response to the query with `id` and `asked`. A server that refuses may leave the question out.
pub(super) fn answers(message: &[u8], want: u16, asked: &Question) -> bool {
    if message.len() < HEADER || message[2] & QR == 0 || id(message) != want {
        return false;
    }
    match message[4..6] {
        [0, 0] => code(message) != 0,
        [0, 1] => question(message)
            .is_some_and(|q| q.name() == asked.name() && q.kind == asked.kind && q.class == asked.class),
        _ => false,
    }
}

/// The response to `query` (at least a header) that says no more than `code`.
pub(super) fn error(query: &[u8], code: u8) -> Vec<u8> {
    let end = if query[4..6] == [0, 1] {
        question(query).map(|q| q.end)
    } else {
        None
    };
    let mut m = query[..end.unwrap_or(HEADER)].to_vec();
    m[2] = QR | (query[2] & (OPCODE | RD));
    m[3] = RA | code;
    m[4..HEADER].fill(0);
    m[5] = u8::from(end.is_some());
    m
}

/// `response` without its records and marked as truncated, so that the client asks by TCP (RFC 2181 section 9).
pub(super) fn truncated(response: &[u8]) -> Vec<u8> {
    let end = if response[4..6] == [0, 1] {
        question(response).map(|q| q.end)
    } else {
        None
    };
    let mut m = response[..end.unwrap_or(HEADER)].to_vec();
    m[2] |= TC;
    m[4..HEADER].fill(0);
    m[5] = u8::from(end.is_some());
    m
}
