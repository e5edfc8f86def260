use super::*;
use crate::api::samples;

fn request(method: &str, target: &str, body: Option<Vec<u8>>) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |q: &str| q.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Request {
        method: method.to_owned(),
        // As the server decodes it, of what is encoded here.
        path: path
            .split('/')
            .skip(1)
            .map(|segment| segment.replace("%2F", "/").replace("%3A", ":"))
            .collect(),
        query: query.split('&').filter_map(pair).collect(),
        body: body.unwrap_or_default(),
    }
}

fn only(network: Option<&str>, container: Option<&str>) -> Only {
    Only {
        network: network.map(str::to_owned),
        container: container.map(str::to_owned),
    }
}

/// Each call at least once, with everything in it.
pub(crate) fn calls() -> Vec<Call> {
    let network = || "shop".to_owned();
    let container = || "web".to_owned();
    let other = || "db".to_owned();
    let mut calls = vec![
        Call::Version,
        Call::Networks,
        Call::CreateNetwork(Box::new(samples::network_spec())),
        Call::Prune,
        Call::Network { network: network() },
        Call::RemoveNetwork { network: network() },
        Call::Connect {
            network: network(),
            request: Box::new(samples::connect_request()),
        },
        Call::Disconnect {
            network: network(),
            container: container(),
        },
        Call::Routes { network: network() },
        Call::AddRoute {
            network: network(),
            route: samples::route_request(),
        },
        Call::RemoveRoute {
            network: network(),
            to: "10.31.0.0/24".parse().unwrap(),
        },
        Call::RemoveRoute {
            network: network(),
            to: "fd31::/64".parse().unwrap(),
        },
        Call::Containers,
        Call::Attach(Box::new(samples::attach_request())),
        Call::Container {
            container: container(),
        },
        Call::Detach {
            container: container(),
        },
        Call::Publish {
            container: container(),
            ports: samples::publish_request(),
        },
        Call::Unpublish {
            container: container(),
            ports: samples::publish_request(),
        },
        Call::Links,
        Call::Link(samples::link_request()),
        Call::Unlink {
            client: container(),
            server: other(),
        },
        Call::Rules,
        Call::AddRule(samples::rule_request()),
        Call::RemoveRule { id: 7 },
        Call::Wires,
        Call::Wire(samples::wire_request()),
        Call::Unwire {
            a: container(),
            b: other(),
        },
        Call::Metrics,
    ];
    for only in [
        only(None, None),
        only(Some("shop"), None),
        only(None, Some("web")),
        only(Some("shop"), Some("web")),
    ] {
        calls.extend([
            Call::Flows(only.clone()),
            Call::Flush(only.clone()),
            Call::Fdb(only.clone()),
            Call::Stats(only),
        ]);
    }
    calls
}

#[test]
fn what_is_written_is_read_back() {
    for call in calls() {
        let read = Call::of(&request(call.method(), &call.target(), call.body().unwrap()));
        assert_eq!(format!("{:?}", read.unwrap()), format!("{call:?}"));
    }
}

#[test]
fn what_is_left_out_is_as_the_commands_have_it() {
    let read = |target: &str, body: &str| {
        Call::of(&request("POST", target, Some(body.as_bytes().to_vec()))).unwrap_or_else(|r| panic!("{r:?}"))
    };
    let Call::CreateNetwork(spec) = read("/v1/networks", r#"{"name":"shop"}"#) else {
        panic!("not read as what it is");
    };
    assert_eq!(
        (spec.mtu, spec.icc, spec.internal, spec.ipv6),
        (1500, true, false, false)
    );
    assert_eq!(spec.gateway, crate::api::GatewayChoice::Auto);
    assert!(spec.subnets.is_empty() && spec.options.is_empty());
    let Call::Link(link) = read("/v1/links", r#"{"client":"web","server":"db"}"#) else {
        panic!("not read as what it is");
    };
    assert_eq!((link.alias, link.ports), (None, vec![]));
    let Call::Attach(attach) = read("/v1/containers", r#"{"pid":1}"#) else {
        panic!("not read as what it is");
    };
    assert_eq!((attach.pid, attach.name), (Some(1), None));
}

#[test]
fn wrong_calls_are_answered_by_what_is_wrong() {
    let json = |s: &str| Some(s.as_bytes().to_vec());
    for (method, target, body, status, text) in [
        ("GET", "/", None, 404, "there is no /"),
        ("GET", "/v2/networks", None, 404, "there is no /v2/networks"),
        ("GET", "/v1/containers/web/flows", None, 404, "there is no"),
        ("GET", "/v1/networks/shop/containers", None, 404, "there is no"),
        ("PUT", "/v1/networks", None, 405, "GET, POST, DELETE only"),
        ("POST", "/v1/networks/shop", None, 405, "GET, DELETE only"),
        ("GET", "/v1/networks/shop/endpoints", None, 405, "POST only"),
        ("GET", "/v1/networks/shop/endpoints/web", None, 405, "DELETE only"),
        ("PUT", "/v1/networks/shop/routes", None, 405, "GET, POST only"),
        (
            "GET",
            "/v1/networks/shop/routes/back",
            None,
            400,
            "expected a range",
        ),
        ("PUT", "/v1/containers", None, 405, "GET, POST only"),
        ("POST", "/v1/containers/web", None, 405, "GET, DELETE only"),
        ("GET", "/v1/containers/web/ports", None, 405, "POST, DELETE only"),
        ("DELETE", "/v1/links", None, 405, "GET, POST only"),
        ("GET", "/v1/links/web/db", None, 405, "DELETE only"),
        ("GET", "/v1/rules/1", None, 405, "DELETE only"),
        ("GET", "/v1/wires/web/db", None, 405, "DELETE only"),
        ("POST", "/v1/flows", None, 405, "GET, DELETE only"),
        ("POST", "/v1/version", None, 405, "GET only"),
        ("POST", "/metrics", None, 405, "GET only"),
        ("POST", "/v1/containers", None, 400, "not what this path takes"),
        ("POST", "/v1/containers", json("{\"pid\":-1}"), 400, "-1"),
        ("POST", "/v1/networks", json("{}"), 400, "name"),
        (
            "POST",
            "/v1/networks",
            json("{\"name\":\"a\",\"colour\":1}"),
            400,
            "colour",
        ),
        (
            "POST",
            "/v1/networks",
            json("{\"name\":\"a\",\"subnets\":[\"x\"]}"),
            400,
            "IP",
        ),
        ("POST", "/v1/rules", json("{\"action\":\"drop\"}"), 400, "`drop`"),
        (
            "POST",
            "/v1/containers/web/ports",
            json("{\"specs\":[\"80:x\"]}"),
            400,
            "container port `x`",
        ),
        (
            "DELETE",
            "/v1/containers/..",
            None,
            400,
            "begins with a letter or digit",
        ),
        ("DELETE", "/v1/rules/first", None, 400, "`first` is no number"),
        ("DELETE", "/v1/links/web/a%20b", None, 400, "container `a%20b`"),
        ("GET", "/v1/flows?continer=web", None, 400, "`continer`"),
        ("GET", "/v1/flows?container=a&container=b", None, 400, "name one"),
        ("GET", "/v1/networks?network=shop", None, 400, "`network`"),
        ("GET", "/metrics?network=shop", None, 400, "`network`"),
        ("GET", "/v1/stats?x=1", None, 400, "`x`"),
    ] {
        let response = Call::of(&request(method, target, body)).expect_err(target);
        let error = String::from_utf8(response.body).unwrap();
        assert_eq!(response.status, status, "{method} {target}: {error}");
        assert!(error.contains(text), "{method} {target}: {error}");
    }
}
