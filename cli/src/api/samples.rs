//! One value of each type, with everything in it, for the tests of whoever prints or describes them.

use pontoon_nat::flow::{Counters, FlowView};

use super::*;

/// 2026-11-21T08:00:00Z.
const SINCE: u64 = 1_795_248_000;

fn map<V: Clone>(pairs: &[(&str, V)]) -> BTreeMap<String, V> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

pub(crate) fn version() -> Version {
    Version {
        version: "0.1.0".into(),
        pid: 4711,
        daemon: true,
    }
}

/// Port 80 on all addresses and 53 on one.
pub(crate) fn ports() -> Vec<PublishedPort> {
    let port = |protocol, ip: &str, host_port, container_port| PublishedPort {
        protocol,
        host_ip: ip.parse().unwrap(),
        host_port,
        container_port,
    };
    vec![
        port(Transport::Tcp, "::", 8080, 80),
        port(Transport::Tcp, "0.0.0.0", 8080, 80),
        port(Transport::Udp, "127.0.0.1", 5353, 53),
    ]
}

pub(crate) fn endpoint(container: &str, network: &str, port: u8, address: &str) -> EndpointInfo {
    EndpointInfo {
        container: container.into(),
        network: network.into(),
        interface: "eth0".into(),
        kind: EndpointKind::Tap,
        port: port.into(),
        mac: MacAddr([2, 0, 0, 0, 0, port]),
        addresses: vec![address.parse().unwrap()],
        aliases: vec![],
        gw_priority: 0,
        default_route: true,
        vlan: 0,
    }
}

/// The endpoint of [`container`] on [`network`].
fn on_shop() -> EndpointInfo {
    let mut endpoint = endpoint("web", "shop", 2, "10.0.2.2");
    endpoint.addresses.push("fd00::2".parse().unwrap());
    endpoint.aliases = vec!["www".into()];
    endpoint
}

/// `web`, on the networks `shop` and `back`.
pub(crate) fn container() -> ContainerInfo {
    ContainerInfo {
        name: "web".into(),
        pid: Some(4713),
        namespace: None,
        endpoints: vec![
            on_shop(),
            EndpointInfo {
                interface: "eth1".into(),
                kind: EndpointKind::Veth,
                gw_priority: -1,
                default_route: false,
                vlan: 100,
                ..endpoint("web", "back", 3, "10.30.0.9")
            },
        ],
        published: ports(),
        exposed: parsed(&["80", "7-9/udp"]),
        links: vec![link()],
        since: SINCE + 1,
    }
}

/// `shop`, with `web` on it.
pub(crate) fn network() -> NetworkInfo {
    let subnet = |subnet: &str, gateway: &str, range: Option<&str>| SubnetInfo {
        subnet: subnet.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        range: range.map(|r| r.parse().unwrap()),
        reserved: range.map_or_else(Vec::new, |_| parsed(&["10.0.2.130", "10.0.2.131"])),
    };
    NetworkInfo {
        name: "shop".into(),
        subnets: vec![
            subnet("10.0.2.0/24", "10.0.2.1", Some("10.0.2.128/25")),
            subnet("fd00::/64", "fd00::1", None),
        ],
        gateway_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        internal: false,
        icc: true,
        dns: parsed(&["192.0.2.53"]),
        search: vec!["example.org".into()],
        publish_address: Some("127.0.0.1".parse().unwrap()),
        egress: EgressKind::Uplink,
        uplink: Some(uplink()),
        options: map(&[("storm", "off".to_owned())]),
        persistent: true,
        since: SINCE,
        front_pid: 4711,
        packet_pid: 4712,
        endpoints: vec![on_shop()],
    }
}

/// A switch and nothing else.
pub(crate) fn bare_network() -> NetworkInfo {
    NetworkInfo {
        name: "bare".into(),
        subnets: vec![SubnetInfo {
            subnet: "192.0.2.0/24".parse().unwrap(),
            gateway: None,
            range: None,
            reserved: vec![],
        }],
        gateway_mac: None,
        internal: true,
        icc: false,
        dns: vec![],
        search: vec![],
        publish_address: None,
        egress: EgressKind::None,
        uplink: None,
        options: BTreeMap::new(),
        persistent: false,
        endpoints: vec![],
        ..network()
    }
}

pub(crate) fn link() -> LinkInfo {
    LinkInfo {
        client: "web".into(),
        server: "db".into(),
        alias: "store".into(),
        ports: parsed(&["5432", "7-9/udp"]),
        addresses: parsed(&["10.30.0.7", "fd30::7"]),
    }
}

pub(crate) fn rule() -> RuleInfo {
    RuleInfo {
        id: 3,
        action: Action::Deny,
        container: "web".into(),
        port: 80,
        protocol: Transport::Tcp,
        from: "10.10.10.10/32".parse().unwrap(),
    }
}

pub(crate) fn wire() -> WireInfo {
    let end = |container: &str, interface: &str, address: &str| WireEnd {
        container: container.into(),
        interface: interface.into(),
        address: address.parse().unwrap(),
    };
    WireInfo {
        a: end("web", "eth2", "10.1.1.1"),
        b: end("db", "eth1", "10.1.1.2"),
        since: SINCE,
    }
}

pub(crate) fn flow() -> FlowInfo {
    let counters = |packets, bytes| Counters { packets, bytes };
    let tuple = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap());
    FlowInfo {
        network: "shop".into(),
        container: "web".into(),
        flow: FlowView {
            protocol: "tcp".into(),
            number: 6,
            state: "established".into(),
            outbound: true,
            original: tuple("[fd00::2]:40000", "[2001:db8::9]:80"),
            reply: tuple("[2001:db8::9]:80", "[2001:db8::1]:51000"),
            age: 12,
            expires: 431_999,
            sent: counters(4, 300),
            received: counters(5, 4000),
            mark: 0,
        },
    }
}

pub(crate) fn fdb() -> Vec<FdbRow> {
    let row = |port, name: &str, age| FdbRow {
        network: "shop".into(),
        port,
        port_name: name.into(),
        vlan: 0,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        age,
    };
    vec![row(None, "gateway", None), row(Some(2), "web", Some(7))]
}

pub(crate) fn stats() -> Stats {
    Stats {
        network: "shop".into(),
        ports: vec![PortStats {
            port: 2,
            name: "web".into(),
            kind: "tap".into(),
            mtu: 1500,
            rx_frames: 10,
            rx_bytes: 1000,
            tx_frames: 20,
            tx_bytes: 123_456,
            drops: map(&[("spoofed", 2), ("too-big", 1)]),
        }],
        gateway_drops: map(&[("no-flow", 5), ("filtered", 0)]),
        flows: map(&[("tcp/established", 3), ("udp/assured", 1)]),
        flows_total: 4,
        flows_max: 262_144,
    }
}

pub(crate) fn network_spec() -> NetworkSpec {
    NetworkSpec {
        name: "shop".into(),
        subnets: parsed(&["10.0.2.0/24", "fd00::/64"]),
        gateway: GatewayChoice::At(parsed(&["10.0.2.1"])),
        ip_ranges: parsed(&["10.0.2.128/25"]),
        reserved: parsed(&["10.0.2.130"]),
        ipv6: true,
        mtu: 9000,
        internal: false,
        icc: false,
        dns: parsed(&["192.0.2.53"]),
        dns_search: vec!["example.org".into()],
        publish_address: Some("127.0.0.1".parse().unwrap()),
        uplink: Some(uplink_spec()),
        options: map(&[("storm", "off".to_owned())]),
    }
}

pub(crate) fn uplink_spec() -> UplinkSpec {
    UplinkSpec {
        link: "packet:eth1,mac=host".parse().unwrap(),
        address: Some("203.0.113.9/24".parse().unwrap()),
        address6: Some("slaac".parse().unwrap()),
        gateways: parsed(&["203.0.113.1"]),
    }
}

pub(crate) fn uplink() -> UplinkInfo {
    UplinkInfo {
        link: "packet:eth1".parse().unwrap(),
        mac: Some(MacAddr([6, 0x50, 0, 0, 0, 1])),
        up: true,
        error: None,
        carrier: Some(true),
        since: Some(SINCE),
        mtu: Some(1500),
        addresses: parsed(&["203.0.113.9/24", "2001:db8::9/64"]),
        awaits: Vec::new(),
        gateways: parsed(&["203.0.113.1", "fe80::1"]),
        resolvers: parsed(&["203.0.113.53"]),
    }
}

pub(crate) fn route() -> RouteInfo {
    RouteInfo {
        network: "shop".into(),
        to: "10.31.0.0/24".parse().unwrap(),
        via: "back".parse().unwrap(),
    }
}

pub(crate) fn route_request() -> RouteRequest {
    RouteRequest {
        to: "10.31.0.0/24".parse().unwrap(),
        via: "10.0.2.9".parse().unwrap(),
    }
}

pub(crate) fn endpoint_spec() -> EndpointSpec {
    EndpointSpec {
        network: "shop".into(),
        ip: Some("10.0.2.7".parse().unwrap()),
        ip6: Some("fd00::7".parse().unwrap()),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 7])),
        aliases: vec!["www".into()],
        gw_priority: -1,
        kind: EndpointKind::Veth,
        vlan: Some(100),
    }
}

pub(crate) fn link_spec() -> LinkSpec {
    LinkSpec {
        server: "db".into(),
        alias: Some("store".into()),
        ports: parsed(&["5432"]),
    }
}

pub(crate) fn publish_request() -> PublishRequest {
    PublishRequest {
        specs: parsed(&["127.0.0.1:8080:80", "[::1]::53/udp"]),
    }
}

pub(crate) fn attach_request() -> AttachRequest {
    AttachRequest {
        pid: None,
        namespace: Some("/run/netns/red".into()),
        name: Some("web".into()),
        endpoints: vec![endpoint_spec()],
        publish: publish_request().specs,
        expose: parsed(&["80", "7-9/udp"]),
        links: vec![link_spec()],
        add_hosts: vec![("db".into(), "10.0.2.9".parse().unwrap())],
        capture: Some("/tmp/web.pcapng".into()),
    }
}

pub(crate) fn connect_request() -> ConnectRequest {
    ConnectRequest {
        container: "web".into(),
        endpoint: endpoint_spec(),
    }
}

pub(crate) fn link_request() -> LinkRequest {
    let LinkSpec { server, alias, ports } = link_spec();
    LinkRequest {
        client: "web".into(),
        server,
        alias,
        ports,
    }
}

pub(crate) fn rule_request() -> RuleRequest {
    RuleRequest {
        action: Action::Deny,
        container: "web".into(),
        port: 80,
        protocol: Transport::Tcp,
        from: "10.10.10.10/32".parse().unwrap(),
    }
}

pub(crate) fn wire_request() -> WireRequest {
    WireRequest {
        a: "web".into(),
        b: "db".into(),
        addresses: Some(("10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap())),
    }
}
