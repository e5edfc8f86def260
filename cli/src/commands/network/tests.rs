use super::inspect::Inspected;
use super::*;
use crate::api::samples;

#[test]
fn the_table() {
    assert_eq!(
        render(&[samples::network(), samples::bare_network()]),
        "\
NAME  SUBNETS                  MTU  EGRESS       CONTAINERS  OPTIONS                                     SINCE
shop  10.0.2.0/24, fd00::/64  1500  packet:eth1           1                                              2026-11-21T08:00:00Z
bare  192.0.2.0/24            1500  none                  0  private, internal, icc=false, gateway=none  2026-11-21T08:00:00Z
"
    );
    assert_eq!(
        render(&[]),
        "NAME  SUBNETS  MTU  EGRESS  CONTAINERS  OPTIONS  SINCE\n"
    );
}

#[test]
fn an_uplink_that_carries_nothing_is_marked() {
    let mut network = samples::network();
    let mut shown = |up, carrier| {
        let uplink = network.uplink.as_mut().unwrap();
        (uplink.up, uplink.carrier) = (up, carrier);
        egress(&network)
    };
    assert_eq!(shown(true, Some(true)), "packet:eth1");
    assert_eq!(shown(true, None), "packet:eth1");
    assert_eq!(shown(true, Some(false)), "packet:eth1 (no carrier)");
    assert_eq!(shown(false, None), "packet:eth1 (down)");
}

#[test]
fn inspection_is_dockers() {
    let inspected = Inspected::of(&samples::network());
    let (container, member) = inspected.containers.first_key_value().unwrap();
    let text = output::json(&[&inspected]).unwrap();
    let expected = format!(
        r#"[
  {{
    "Name": "shop",
    "Id": "{}",
    "Created": "2026-11-21T08:00:00Z",
    "Scope": "local",
    "Driver": "pontoon",
    "EnableIPv6": true,
    "IPAM": {{
      "Driver": "default",
      "Options": {{}},
      "Config": [
        {{
          "Subnet": "10.0.2.0/24",
          "IPRange": "10.0.2.128/25",
          "Gateway": "10.0.2.1",
          "AuxiliaryAddresses": {{
            "reserved1": "10.0.2.130",
            "reserved2": "10.0.2.131"
          }}
        }},
        {{
          "Subnet": "fd00::/64",
          "Gateway": "fd00::1"
        }}
      ]
    }},
    "Internal": false,
    "Attachable": true,
    "Ingress": false,
    "Containers": {{
      "{container}": {{
        "Name": "web",
        "EndpointID": "{}",
        "MacAddress": "02:00:00:00:00:02",
        "IPv4Address": "10.0.2.2/24",
        "IPv6Address": "fd00::2/64",
        "Aliases": [
          "www"
        ],
        "Interface": "eth0",
        "Port": 2,
        "Vlan": 0
      }}
    }},
    "Options": {{
      "com.docker.network.bridge.enable_icc": "true",
      "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
      "com.docker.network.driver.mtu": "1500",
      "storm": "off"
    }},
    "Labels": {{}},
    "DNS": [
      "192.0.2.53"
    ],
    "DNSSearch": [
      "example.org"
    ],
    "GatewayMacAddress": "02:00:00:00:00:01",
    "Uplink": {{
      "Link": "packet:eth1",
      "Up": true,
      "Carrier": true,
      "MacAddress": "06:50:00:00:00:01",
      "MTU": 1500,
      "Addresses": [
        "203.0.113.9/24",
        "2001:db8::9/64"
      ],
      "Gateways": [
        "203.0.113.1",
        "fe80::1"
      ],
      "Resolvers": [
        "203.0.113.53"
      ]
    }},
    "Private": false,
    "FrontPid": 4711,
    "PacketPid": 4712
  }}
]
"#,
        inspected.id, member.endpoint_id
    );
    assert_eq!(text, expected);
}

#[test]
fn what_is_not_there_is_not_printed() {
    let json = serde_json::to_value(Inspected::of(&samples::bare_network())).unwrap();
    assert_eq!(
        json["IPAM"]["Config"],
        serde_json::json!([{ "Subnet": "192.0.2.0/24" }])
    );
    assert_eq!(json["GatewayMacAddress"], "");
    assert_eq!(json["EnableIPv6"], false);
    assert_eq!(
        json["Options"],
        serde_json::json!({
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.driver.mtu": "1500",
        })
    );
}

#[test]
fn ids_last_as_long_as_what_they_name() {
    let id = |n: &NetworkInfo| Inspected::of(n).id;
    let (now, mut later) = (samples::network(), samples::network());
    assert_eq!(id(&now).len(), 64);
    later.endpoints.clear();
    // The daemon has begun anew.
    later.front_pid += 1;
    assert_eq!(id(&now), id(&later));
    later.since += 1;
    assert_ne!(id(&now), id(&later));
    let (now, mut later) = (samples::bare_network(), samples::bare_network());
    assert_eq!(id(&now), id(&later));
    later.front_pid += 1;
    assert_ne!(id(&now), id(&later), "another private network of the same second");
}
