use super::*;
use crate::api::SubnetInfo;

fn shop() -> NetworkInfo {
    let subnet = |subnet: &str, gateway: &str| SubnetInfo {
        subnet: subnet.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    NetworkInfo {
        name: "shop".into(),
        subnets: vec![subnet("10.0.2.0/24", "10.0.2.1"), subnet("fd00::/64", "fd00::1")],
        gateway_mac: pontoon_switch::MacAddr([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        search: Vec::new(),
        since: 1_795_248_000,
        front_pid: 4711,
        packet_pid: 4712,
        containers: vec![ContainerInfo {
            name: "web".into(),
            network: "shop".into(),
            pid: 4713,
            port: 1,
            mac: pontoon_switch::MacAddr([2, 0, 0, 0, 0, 2]),
            addresses: vec!["10.0.2.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            published: vec![],
            since: 1_795_248_001,
        }],
    }
}

#[test]
fn the_table() {
    assert_eq!(
        render(&[shop()]),
        "NAME  SUBNETS                  MTU  CONTAINERS  SINCE\n\
         shop  10.0.2.0/24, fd00::/64  1500           1  2026-11-21T08:00:00Z\n"
    );
}

#[test]
fn inspection_is_dockers() {
    let inspected = Inspected::of(&shop());
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
          "Gateway": "10.0.2.1"
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
        "IPv6Address": "fd00::2/64"
      }}
    }},
    "Options": {{
      "com.docker.network.driver.mtu": "1500"
    }},
    "Labels": {{}},
    "GatewayMacAddress": "02:00:00:00:00:01",
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
fn ids_last_as_long_as_what_they_name() {
    let id = |n: &NetworkInfo| Inspected::of(n).id;
    let (now, mut later) = (shop(), shop());
    assert_eq!(id(&now).len(), 64);
    later.containers.clear();
    assert_eq!(id(&now), id(&later));
    later.since += 1;
    assert_ne!(id(&now), id(&later));
}
