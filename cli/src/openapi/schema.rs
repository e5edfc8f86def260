//! Schemas of what other crates write as text, and of what they write at all.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::args::Exposed;

/// A type that is text of a certain form.
macro_rules! text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// [`pontoon_switch::MacAddr`].
pub(crate) struct Mac;
text!(Mac, "MacAddress", {
    "description": "A MAC address: six hexadecimal bytes.",
    "type": "string",
    "pattern": "^[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2}){5}$",
    "examples": ["02:00:5e:10:00:01"]
});

/// [`ipnet::IpNet`].
pub(crate) struct Net;
text!(Net, "Range", {
    "description": "A range of IPv4 or IPv6 addresses: an address and the length of its prefix.",
    "type": "string",
    "pattern": "^([0-9]{1,3}(\\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*/[0-9]{1,3})$",
    "examples": ["10.0.2.0/24", "fd00::/64"]
});

/// [`crate::args::UplinkLink`].
pub(crate) struct UplinkLink;
text!(UplinkLink, "UplinkLink", {
    "description": "packet:IFACE, tap:NAME, veth:PEER@NETNS or switch:NETWORK, with the gateway's MAC address after it if wanted.",
    "type": "string",
    "pattern": "^(packet|tap|veth|switch):.+$",
    "examples": ["packet:eth1", "packet:eth1,mac=host", "veth:wan0@router", "switch:shop"]
});

/// [`crate::args::RouteVia`].
pub(crate) struct RouteVia;
text!(RouteVia, "RouteVia", {
    "description": "A router's address, or the name of another network.",
    "type": "string",
    "pattern": "^[0-9A-Za-z:][0-9A-Za-z:_.-]*$",
    "examples": ["10.30.0.9", "back"]
});

/// [`pontoon_nat::publish::PublishSpec`].
pub(crate) struct Publish;
text!(Publish, "PublishSpec", {
    "description": "Ports to publish, in Docker's grammar: [host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp].",
    "type": "string",
    "pattern": "^((\\[[0-9A-Fa-f:.]+\\]|[0-9]+(\\.[0-9]+){3}):)?(([0-9]+(-[0-9]+)?)?:)?[0-9]+(-[0-9]+)?(/[A-Za-z]{3})?$",
    "examples": ["8080:80", "127.0.0.1:8080:80/tcp", "[::1]::53/udp", "7000-7010:80-90"]
});

/// [`pontoon_nat::publish::Transport`].
pub(crate) struct Transport;
text!(Transport, "Transport", {
    "description": "A protocol with ports.",
    "type": "string",
    "enum": ["tcp", "udp"]
});

text!(Exposed, "ContainerPorts", {
    "description": "Ports of a container: PORT[-PORT][/tcp|/udp], TCP unless said otherwise.",
    "type": "string",
    "pattern": "^[0-9]+(-[0-9]+)?(/[A-Za-z]{3})?$",
    "examples": ["80/tcp", "5000-5010/udp"]
});

/// [`SocketAddr`] as text.
pub(crate) struct Socket;
text!(Socket, "SocketAddress", {
    "description": "An address and a port; an IPv6 address is in brackets.",
    "type": "string",
    "pattern": "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):[0-9]{1,5}$",
    "examples": ["10.0.2.2:40000", "[fd00::2]:40000"]
});

/// [`pontoon_nat::flow::FlowView`], field by field.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is wanted")]
pub(crate) struct Flow {
    /// The protocol's name, as `tcp`, `udp`, `icmp`, `icmpv6` or `gre`; its number if it has none that is well known.
    protocol: String,
    /// The protocol's number in the IP header.
    number: u8,
    /// State, as `established`.
    state: String,
    /// True if the container opened it, false if it came through a published port.
    outbound: bool,
    /// The initiator's first tuple: source, then destination. Ports of ICMP are its identifier, those of
    /// protocols without ports 0.
    #[schemars(with = "(Socket, Socket)")]
    original: (SocketAddr, SocketAddr),
    /// The translated tuple as the other side sees its replies: source, then destination.
    #[schemars(with = "(Socket, Socket)")]
    reply: (SocketAddr, SocketAddr),
    /// Seconds since it was made.
    age: u64,
    /// Seconds until it ends if nothing more is seen.
    expires: u64,
    /// From the initiator.
    sent: Counters,
    /// To the initiator.
    received: Counters,
    /// The mark of the rule that it came by; 0 if there is none.
    mark: u32,
}

/// Packets and bytes one way. Bytes are those of IP packets.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is wanted")]
struct Counters {
    /// Packets; a super-frame counts as the segments it stands for.
    packets: u64,
    /// Bytes.
    bytes: u64,
}
