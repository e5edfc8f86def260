use pontoon_nat::routed::{Mapping, Nat};

use super::*;

struct Given;

impl Choice for Given {
    fn subnet4(&mut self) -> Result<IpNet> {
        Ok("10.89.0.0/24".parse()?)
    }
    fn subnet6(&mut self) -> Result<IpNet> {
        Ok("fd12:3456:789a::/64".parse()?)
    }
    fn avoid(&mut self, _: IpNet) {}
}

fn plan(json: &str) -> Result<Plan> {
    Plan::of_spec(serde_json::from_str(json)?, 0, &mut Given)
}

#[test]
fn what_is_left_out_is_chosen() {
    let plan = plan(r#"{"name": "n", "ipv6": true}"#).expect("a plan");
    let of = |i: usize| {
        (
            plan.subnets[i].net.to_string(),
            plan.subnets[i].gateway.expect("one").to_string(),
        )
    };
    assert_eq!(of(0), ("10.89.0.0/24".into(), "10.89.0.1".into()));
    assert_eq!(of(1), ("fd12:3456:789a::/64".into(), "fd12:3456:789a::1".into()));
    assert!(plan.icc && !plan.internal && plan.gateway && plan.mtu == 1500);
}

#[test]
fn docker0_as_its_daemon_is_told_of_it() {
    let plan = plan(
        r#"{"name": "docker0", "subnets": ["172.17.0.0/16"], "gateway": {"at": ["172.17.42.1"]},
            "ip_ranges": ["172.17.8.0/24"], "mtu": 9000, "reserved": ["172.17.8.9"],
            "options": {"com.docker.network.bridge.enable_icc": "false",
                        "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}}"#,
    )
    .expect("a plan");
    let subnet = &plan.subnets[0];
    assert_eq!(subnet.gateway, Some("172.17.42.1".parse().expect("address")));
    assert_eq!(
        subnet.dhcp,
        Some((
            "172.17.8.192".parse().expect("address"),
            "172.17.8.254".parse().expect("address")
        ))
    );
    let mut pool = subnet.pool().expect("a pool");
    assert_eq!(pool.take(None).expect("one").to_string(), "172.17.8.0");
    assert!(!plan.icc);
    assert_eq!(plan.publish_address, Some("127.0.0.1".parse().expect("address")));
}

#[test]
fn a_lan_has_a_router_of_its_own_or_none() {
    let plan = plan(r#"{"name": "lan", "gateway": "none", "options": {"parent": "eth1", "trunk": "10,20"}}"#)
        .expect("a plan");
    assert!(plan.subnets.is_empty() && !plan.gateway);
    assert_eq!(plan.host.trunk, [10, 20]);
}

#[test]
fn what_does_not_fit_is_refused() {
    for (json, text) in [
        (
            r#"{"name": "n", "subnets": ["10.0.0.1/24"]}"#,
            "the subnet is 10.0.0.0/24",
        ),
        (
            r#"{"name": "n", "subnets": ["10.0.0.0/24", "10.1.0.0/24"]}"#,
            "one subnet of IPv4",
        ),
        (
            r#"{"name": "n", "subnets": ["10.0.0.0/24"], "gateway": {"at": ["10.0.1.1"]}}"#,
            "--gateway 10.0.1.1",
        ),
        (
            r#"{"name": "n", "ip_ranges": ["10.0.0.0/25"]}"#,
            "give --subnet too",
        ),
        (r#"{"name": "n", "mtu": 1000, "ipv6": true}"#, "MTU"),
        (r#"{"name": "n", "mtu": 40}"#, "68 to 65520"),
        (
            r#"{"name": "n", "options": {"colour": "red"}}"#,
            "--opt colour=red",
        ),
        (r#"{"name": "n", "options": {"vlan": "4095"}}"#, "--opt vlan=4095"),
        (
            r#"{"name": "n", "options": {"router": "10.89.0.9"}}"#,
            "--gateway none",
        ),
        (
            r#"{"name": "n", "options": {"dhcp-range": "10.1.0.1-10.1.0.9"}}"#,
            "dhcp-range",
        ),
        (
            r#"{"name": "n", "internal": true, "publish_address": "127.0.0.1"}"#,
            "--publish-address",
        ),
        (
            r#"{"name": "n", "subnets": ["10.0.0.0/31"], "gateway": {"at": ["10.0.0.9"]}}"#,
            "10.0.0.9",
        ),
    ] {
        let error = format!("{:#}", plan(json).expect_err(json));
        assert!(error.contains(text), "{json}: {error}");
    }
}

#[test]
fn a_network_with_an_uplink_keeps_away_from_it() {
    let of = |json: &str| plan(json).expect(json);
    let edge = of(
        r#"{"name": "edge", "uplink": {"link": "packet:eth1", "address": "192.0.2.9/24"},
                      "options": {"uplink-nat": "route", "mapping": "connection", "uplink-mtu": "1400",
                                  "udp-filtering": "endpoint"}}"#,
    );
    let uplink = edge.uplink.expect("an uplink");
    assert_eq!(uplink.tuning.nat4, Nat::Route);
    assert_eq!(uplink.tuning.nat6, Nat::Masquerade);
    assert_eq!(uplink.tuning.mapping, Mapping::PerConnection);
    assert_eq!(uplink.tuning.mtu, Some(1400));
    for (json, text) in [
        (
            r#"{"name": "n", "subnets": ["10.0.0.0/16"], "uplink": {"link": "tap:t", "address": "10.0.5.9/24"}}"#,
            "10.0.5.0/24 and the network's own subnet 10.0.0.0/16 overlap",
        ),
        (
            r#"{"name": "n", "internal": true, "uplink": {"link": "tap:t"}}"#,
            "no way out",
        ),
        (
            r#"{"name": "n", "gateway": "none", "uplink": {"link": "tap:t"}}"#,
            "--gateway none",
        ),
        (
            r#"{"name": "n", "publish_address": "192.0.2.9", "uplink": {"link": "tap:t"}}"#,
            "--publish-address",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t"}, "options": {"host-loopback": "true"}}"#,
            "--opt host-loopback",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t"}, "options": {"outbound": "lo"}}"#,
            "--opt outbound",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "packet:eth1"}, "options": {"parent": "eth1"}}"#,
            "eth1 is the uplink",
        ),
        (
            r#"{"name": "n", "options": {"uplink-nat": "route"}}"#,
            "there is none",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t"}, "options": {"uplink-nat": "none"}}"#,
            "`masquerade` or `route`",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t"}, "options": {"mapping": "address"}}"#,
            "`endpoint` or `connection`",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t"}, "options": {"uplink-mtu": "40"}}"#,
            "68 to 65520",
        ),
        (
            r#"{"name": "n", "uplink": {"link": "tap:t", "gateways": ["192.0.2.1"]}}"#,
            "DHCP tells",
        ),
    ] {
        let error = format!("{:#}", plan(json).expect_err(json));
        assert!(error.contains(text), "{json}: {error}");
    }
}

#[test]
fn a_plan_of_an_earlier_version_has_no_uplink() {
    let mut json = serde_json::to_value(plan(r#"{"name": "n"}"#).expect("a plan")).expect("json");
    json.as_object_mut().expect("an object").remove("uplink");
    let read: Plan = serde_json::from_value(json).expect("it is read");
    assert!(read.uplink.is_none());
}
