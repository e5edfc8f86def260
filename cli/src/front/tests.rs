//! The front without packet processes: what it refuses, and what it takes back. The program that it starts for them is this test
//! itself, which ends at once, so every network here is one that cannot start.

use std::path::Path;

use super::network::Network;
use super::plan::{Choice, Plan};
use super::registry::{Front, Life};
use super::state::StateFile;
use crate::api::{Action, RouteInfo, RouteRequest, RuleRequest};
use crate::resolv::ResolvConf;

struct Given;

impl Choice for Given {
    fn subnet4(&mut self) -> anyhow::Result<ipnet::IpNet> {
        Ok("10.89.0.0/24".parse()?)
    }
    fn subnet6(&mut self) -> anyhow::Result<ipnet::IpNet> {
        Ok("fd12:3456:789a::/64".parse()?)
    }
    fn avoid(&mut self, _: ipnet::IpNet) {}
}

/// The plan that a specification comes to.
pub(super) fn plan(json: &str) -> Plan {
    Plan::of_spec(serde_json::from_str(json).expect(json), 0, &mut Given).expect(json)
}

/// A daemon's front whose state is at `path`.
fn front(path: &Path) -> Front {
    let (file, restored) = StateFile::open(path.to_owned()).expect("a state file");
    let mut front = Front::new(Life::Daemon(file), ResolvConf::of_host());
    restored.into_front(&mut front).expect("a front");
    front
}

fn with(front: &mut Front, networks: &[&str]) {
    for json in networks {
        let network = Network::without_process(plan(json), &ResolvConf::of_host(), None).expect(json);
        front.networks.insert(network.name().to_owned(), network);
    }
}

#[test]
fn a_network_that_cannot_start_is_not_made_but_one_that_there_was_is_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let mut first = front(&path);
    let error = first
        .begin_create(plan(r#"{"name": "shop"}"#))
        .expect_err("it cannot start");
    assert_eq!(error.status, 500);
    assert!(first.networks.is_empty() && first.broken.is_empty() && first.making.is_empty());
    // As a configuration has it.
    first.keep(plan(r#"{"name": "shop"}"#)).expect("it is kept");
    first.save().expect("saved");
    // As a daemon finds it that starts again.
    let second = front(&path);
    assert!(second.networks.contains_key("shop") && second.broken.contains_key("shop"));
    assert!(second.networks["shop"].packet_fd().is_none());
}

#[test]
fn what_cannot_be_written_down_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("gone");
    let mut front = front(&place.join("state.json"));
    std::fs::remove_dir_all(&place).expect("removed");
    let rule = RuleRequest {
        action: Action::Deny,
        container: "web".into(),
        port: 80,
        protocol: pontoon_nat::publish::Transport::Tcp,
        from: "10.0.0.0/8".parse().expect("a range"),
    };
    let error = format!(
        "{:#}",
        front.add_rule(rule).expect_err("it cannot be written").error
    );
    assert!(error.contains("cannot write"), "{error}");
    assert!(front.rules.is_empty());
}

fn route(front: &mut Front, network: &str, to: &str, via: &str) -> Result<RouteInfo, super::Refused> {
    let request = RouteRequest {
        to: to.parse().expect(to),
        via: via.parse().expect(via),
    };
    front.add_route(network, request)
}

#[test]
fn routes_that_cannot_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    with(
        &mut front,
        &[
            r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#,
            r#"{"name": "back", "subnets": ["10.31.0.0/24", "fd31::/64"]}"#,
            r#"{"name": "same", "subnets": ["10.30.0.0/25"]}"#,
            r#"{"name": "quiet", "subnets": ["10.32.0.0/24"], "internal": true}"#,
            r#"{"name": "lan", "subnets": ["10.33.0.0/24"], "gateway": "none"}"#,
            r#"{"name": "edge", "subnets": ["10.34.0.0/24"],
                "uplink": {"link": "tap:t", "address": "192.0.2.9/24", "gateways": ["192.0.2.1"]}}"#,
        ],
    );
    front.routes.push(RouteInfo {
        network: "shop".into(),
        to: "10.40.0.0/24".parse().expect("a range"),
        via: "10.30.0.9".parse().expect("an address"),
    });
    for (network, to, via, status, text) in [
        (
            "none-such",
            "10.31.0.0/24",
            "back",
            404,
            "no network named none-such",
        ),
        (
            "shop",
            "10.31.0.0/24",
            "none-such",
            404,
            "no network named none-such",
        ),
        ("shop", "10.40.0.0/24", "10.30.0.8", 409, "already"),
        (
            "shop",
            "10.30.0.128/25",
            "10.30.0.8",
            400,
            "the network's own subnet",
        ),
        (
            "shop",
            "10.41.0.0/24",
            "10.41.0.1",
            400,
            "neither on network shop",
        ),
        (
            "shop",
            "10.41.0.0/24",
            "10.30.0.1",
            400,
            "the gateway of network shop itself",
        ),
        (
            "edge",
            "10.41.0.0/24",
            "192.0.2.9",
            400,
            "the gateway of network edge itself",
        ),
        ("shop", "fd40::/64", "10.30.0.8", 400, "different IP versions"),
        ("shop", "224.0.0.0/4", "10.30.0.8", 400, "not a range that routes"),
        // As any container.
        ("shop", "0.0.0.0/0", "10.30.0.8", 400, "own subnet 10.30.0.0/24"),
        ("shop", "10.0.0.0/8", "10.30.0.8", 400, "own subnet 10.30.0.0/24"),
        ("edge", "10.0.0.0/8", "10.34.0.8", 400, "own subnet 10.34.0.0/24"),
        ("shop", "10.31.0.0/24", "shop", 400, "another network"),
        (
            "shop",
            "10.35.0.0/24",
            "back",
            400,
            "neither in a subnet of network back",
        ),
        ("shop", "10.31.0.7/24", "back", 400, "the range is 10.31.0.0/24"),
        ("shop", "fd31::/64", "back", 400, "no addresses of the IP version"),
        ("shop", "10.30.0.0/24", "same", 400, "own subnet"),
        ("back", "10.30.0.0/25", "same", 500, "connect the gateways"),
        ("same", "10.40.0.0/24", "shop", 400, "overlap"),
        ("shop", "10.32.0.0/24", "quiet", 400, "is internal"),
        ("quiet", "10.31.0.0/24", "back", 400, "is internal"),
        ("shop", "10.33.0.0/24", "lan", 400, "has no gateway"),
        ("lan", "10.31.0.0/24", "back", 400, "has no gateway"),
        // What could be, but there is nobody to do it.
        ("shop", "10.31.0.0/24", "back", 500, "connect the gateways"),
        ("back", "10.40.0.0/24", "shop", 500, "connect the gateways"),
        ("edge", "10.41.0.0/24", "192.0.2.7", 500, "cannot add the route"),
        ("edge", "0.0.0.0/0", "192.0.2.7", 500, "cannot add the route"),
    ] {
        let refused = route(&mut front, network, to, via).expect_err(to);
        let error = format!("{:#}", refused.error);
        assert_eq!(refused.status, status, "{network} {to} via {via}: {error}");
        assert!(error.contains(text), "{network} {to} via {via}: {error}");
        assert_eq!(front.routes.len(), 1, "{network} {to} via {via} is taken back");
        assert!(front.cables.is_empty(), "{network} {to} via {via} is taken back");
    }
    let missing = front.remove_route("shop", "10.99.0.0/24".parse().expect("a range"));
    assert_eq!(missing.expect_err("it is not there").status, 404);
}

#[test]
fn answers_come_back_by_one_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    with(
        &mut front,
        &[
            r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#,
            r#"{"name": "same", "subnets": ["10.30.0.0/25"]}"#,
            r#"{"name": "back", "subnets": ["10.31.0.0/24"]}"#,
            r#"{"name": "near", "subnets": ["192.0.2.0/25"]}"#,
            r#"{"name": "edge", "subnets": ["10.34.0.0/24"],
                "uplink": {"link": "tap:t", "address": "192.0.2.9/24", "gateways": ["192.0.2.1"]}}"#,
        ],
    );
    let known = |network: &str, to: &str, via: &str| RouteInfo {
        network: network.into(),
        to: to.parse().expect(to),
        via: via.parse().expect(via),
    };
    front.routes = vec![
        known("shop", "10.31.0.0/24", "back"),
        known("edge", "10.30.0.64/26", "10.34.0.9"),
    ];
    for (network, to, via, text) in [
        (
            "same",
            "10.31.0.0/24",
            "back",
            "network shop has routes to back too",
        ),
        ("back", "10.30.0.0/28", "10.31.0.9", "subnet of network shop"),
        (
            "shop",
            "10.34.0.0/24",
            "edge",
            "a route to 10.30.0.64/26 via 10.34.0.9",
        ),
        (
            "near",
            "10.34.0.0/24",
            "edge",
            "the uplink of network edge is on 192.0.2.0/24",
        ),
    ] {
        let refused = route(&mut front, network, to, via).expect_err(to);
        let error = format!("{:#}", refused.error);
        assert_eq!(refused.status, 409, "{network} {to} via {via}: {error}");
        assert!(error.contains(text), "{network} {to} via {via}: {error}");
        assert_eq!(front.routes.len(), 2);
    }
}

#[test]
fn a_route_that_others_stand_on_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    with(
        &mut front,
        &[
            r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#,
            r#"{"name": "back", "subnets": ["10.31.0.0/24"]}"#,
        ],
    );
    for (network, to, via) in [
        ("back", "10.40.0.0/16", "10.31.0.9"),
        ("shop", "10.40.7.0/24", "back"),
        ("shop", "10.31.0.0/24", "back"),
    ] {
        front.routes.push(RouteInfo {
            network: network.into(),
            to: to.parse().expect(to),
            via: via.parse().expect(via),
        });
    }
    let wide = "10.40.0.0/16".parse().expect("a range");
    let refused = front.remove_route("back", wide).expect_err("one stands on it");
    let error = format!("{:#}", refused.error);
    assert_eq!(refused.status, 409, "{error}");
    assert!(
        error.contains("that of shop to 10.40.7.0/24") && !error.contains("10.31.0.0/24"),
        "{error}"
    );
    let narrow = "10.40.7.0/24".parse().expect("a range");
    front.remove_route("shop", narrow).expect("nothing stands on it");
    front
        .remove_route("back", wide)
        .expect("nothing stands on it any more");
}

#[test]
fn a_router_is_nobody_by_chance() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let mut first = front(&path);
    first
        .keep(plan(r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#))
        .expect("it is kept");
    first.routes.push(RouteInfo {
        network: "shop".into(),
        to: "10.40.0.0/16".parse().expect("a range"),
        via: "10.30.0.2".parse().expect("an address"),
    });
    first.save().expect("saved");
    let mut second = front(&path);
    let shop = second.networks.get_mut("shop").expect("it is there");
    let taken = shop.take(None, None, None).expect("an address");
    assert_eq!(
        taken.addresses,
        ["10.30.0.3".parse::<std::net::IpAddr>().expect("an address")]
    );
    let wanted = Some("10.30.0.2".parse().expect("an address"));
    shop.take(wanted, None, None).expect("who asks for it has it");
}

#[test]
fn uplinks_lead_on_and_never_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    for (name, other) in [("a", "b"), ("b", "c")] {
        let json = format!(r#"{{"name": "{name}", "uplink": {{"link": "switch:{other}"}}}}"#);
        front.keep(plan(&json)).expect("the other may come later");
    }
    for other in ["a", "c"] {
        let json = format!(r#"{{"name": "c", "uplink": {{"link": "switch:{other}"}}}}"#);
        let refused = front.keep(plan(&json)).expect_err("it leads back");
        assert_eq!(refused.status, 400);
        let error = format!("{:#}", refused.error);
        assert!(
            error.contains("leads back to the network itself (c -> "),
            "{error}"
        );
    }
    assert!(!front.networks.contains_key("c"));
}

#[test]
fn addresses_on_a_switch_are_taken_before_anybody_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let mut first = front(&path);
    first
        .keep(plan(r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#))
        .expect("it is kept");
    first
        .keep(plan(
            r#"{"name": "inner", "subnets": ["10.32.0.0/24"],
                "uplink": {"link": "switch:shop", "address": "10.30.0.2/24"}}"#,
        ))
        .expect("it is kept");
    first.save().expect("saved");
    let mut second = front(&path);
    let shop = second.networks.get_mut("shop").expect("it is there");
    let taken = shop.take(None, None, None).expect("an address");
    assert_eq!(
        taken.addresses,
        ["10.30.0.3".parse::<std::net::IpAddr>().expect("an address")]
    );
}

#[test]
fn ports_of_an_uplink_whose_address_is_not_known_yet() {
    use super::publish::Binding;
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    with(
        &mut front,
        &[
            r#"{"name": "lease", "uplink": {"link": "tap:t"}}"#,
            r#"{"name": "fixed", "uplink": {"link": "tap:t", "address": "192.0.2.9/24"}}"#,
        ],
    );
    let claim = |network: &str, spec: &str, binding| {
        let specs = [spec.parse().expect(spec)];
        front
            .bind_all("web", Some(network), &specs, binding)
            .map(|all| all.len())
    };
    let other = "192.0.2.8:8080:80";
    assert_eq!(
        claim("lease", other, Binding::New).expect("it may become true"),
        1
    );
    assert_eq!(
        claim("fixed", "192.0.2.9:8080:80", Binding::New).expect("it is true"),
        1
    );
    let refused = claim("fixed", other, Binding::New).expect_err("it never is");
    assert!(format!("{:#}", refused.error).contains("(192.0.2.9)"));
    assert_eq!(claim("fixed", other, Binding::Again).expect("it was once"), 1);
    let refused = claim("lease", "[2001:db8::9]:8080:80", Binding::Again).expect_err("no IPv6");
    assert_eq!(refused.status, 400);
}

#[test]
fn a_network_that_others_need_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut front = front(&directory.path().join("state.json"));
    with(
        &mut front,
        &[
            r#"{"name": "shop", "subnets": ["10.30.0.0/24"]}"#,
            r#"{"name": "back", "subnets": ["10.31.0.0/24"]}"#,
            r#"{"name": "inner", "subnets": ["10.32.0.0/24"], "uplink": {"link": "switch:shop"}}"#,
        ],
    );
    front.routes.push(RouteInfo {
        network: "shop".into(),
        to: "10.31.0.0/24".parse().expect("a range"),
        via: "back".parse().expect("a name"),
    });
    let error = |front: &mut Front, name: &str| format!("{:#}", front.remove(name).expect_err(name).error);
    assert!(error(&mut front, "shop").contains("remove inner first"));
    assert!(error(&mut front, "back").contains("routes lead to network back: remove those of shop"));
    assert_eq!(
        front.prune().expect("all go, in their order"),
        ["back", "inner", "shop"]
    );
    assert!(front.networks.is_empty() && front.routes.is_empty());
}

#[test]
fn a_network_that_is_being_made_is_nobodys() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state.json");
    let mut first = front(&path);
    with(&mut first, &[r#"{"name": "shop"}"#, r#"{"name": "edge"}"#]);
    first.making.insert("edge".into());
    let listed =
        |front: &Front| -> Vec<String> { front.network_infos().into_iter().map(|n| n.name).collect() };
    assert_eq!(listed(&first), ["shop"]);
    let on_it = r#"{"name": "inner", "uplink": {"link": "switch:edge"}}"#;
    let refusals = [
        first.network_info("edge").map(drop),
        first.keep(plan(r#"{"name": "edge"}"#)),
        first.keep(plan(on_it)),
        first.remove("edge"),
    ];
    for refused in refusals {
        let refused = refused.expect_err("it is not there yet");
        let error = format!("{:#}", refused.error);
        assert!(
            refused.status == 409 && error.contains("network edge is being made"),
            "{error}"
        );
    }
    assert_eq!(first.prune().expect("pruned"), ["shop"]);
    // A daemon that ends meanwhile has not made it.
    first.save().expect("saved");
    assert!(front(&path).networks.is_empty());
    first.making.clear();
    assert_eq!(listed(&first), ["edge"]);
    first.save().expect("saved");
    assert!(front(&path).networks.contains_key("edge"));
}
