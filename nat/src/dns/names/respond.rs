//! Answers, written.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record};

use super::kind;
use crate::dns::message::{self, HEADER, Question};

/// Seconds for which a local answer may be kept: containers come and go. One that says that something is not there has
/// no SOA record, so it is not kept at all (RFC 2308 section 5).
const TTL: u32 = 5;
/// UDP payload that is offered by EDNS and fits any path (RFC 9715).
const EDNS_PAYLOAD: u16 = 1232;
/// UDP payload for clients without EDNS (RFC 1035 section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

/// What is known of a name.
pub(super) enum Found<'a> {
    Addresses(Vec<IpAddr>),
    Name(&'a str),
    Nothing,
}

/// Writes the response; `None` if `query` does not parse as a whole.
pub(super) fn respond(query: &[u8], q: &Question, found: &Found<'_>, udp: bool) -> Option<Vec<u8>> {
    debug_assert!(query.len() >= HEADER);
    let request = Message::from_vec(query).ok()?;
    let asked = request.queries.first()?.clone();
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = true;
    let name = asked.name().clone();
    response.add_query(asked);
    match found {
        Found::Addresses(addrs) => {
            for addr in addrs {
                let data = match addr {
                    IpAddr::V4(a) if q.kind == kind::A || q.kind == kind::ANY => RData::A(A(*a)),
                    IpAddr::V6(a) if q.kind == kind::AAAA || q.kind == kind::ANY => RData::AAAA(AAAA(*a)),
                    // NODATA (RFC 2308 section 2.2): the name is there, but not of this type.
                    IpAddr::V4(_) | IpAddr::V6(_) => continue,
                };
                response.add_answer(Record::from_rdata(name.clone(), TTL, data));
            }
        }
        Found::Name(text) => {
            if q.kind == kind::PTR || q.kind == kind::ANY {
                let mut target = Name::from_ascii(text).ok()?;
                target.set_fqdn(true);
                response.add_answer(Record::from_rdata(name, TTL, RData::PTR(PTR(target))));
            }
        }
        Found::Nothing => response.metadata.response_code = ResponseCode::NXDomain,
    }
    let mut limit = PLAIN_PAYLOAD;
    if let Some(edns) = &request.edns {
        limit = edns.max_payload().max(PLAIN_PAYLOAD);
        let mut ours = Edns::new();
        ours.set_max_payload(EDNS_PAYLOAD);
        response.set_edns(ours);
    }
    let bytes = response.to_vec().ok()?;
    if udp && bytes.len() > usize::from(limit) {
        Some(message::truncated(&bytes))
    } else {
        Some(bytes)
    }
}
