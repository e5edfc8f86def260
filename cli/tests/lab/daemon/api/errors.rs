//! What cannot be granted is refused with its status and a reason, and changes nothing.

use pontoon_fixtures::lab::Who;
use serde_json::{Value, json};

use super::{Asker, operations};

/// What cannot be granted, and why. There are the networks shop, plain and none-of-it; web is on the first two, db on the first.
pub(super) fn ask(a: &Asker<'_>, pid: u32) {
    let before = (
        a.get("/v1/containers"),
        a.get("/v1/networks"),
        a.get("/v1/rules"),
        a.get("/v1/links"),
    );
    for target in [
        "/v1/networks",
        "/v1/networks/shop/endpoints",
        "/v1/containers",
        "/v1/containers/web/ports",
        "/v1/links",
        "/v1/rules",
        "/v1/wires",
    ] {
        for body in ["", "{", "[]", "null", "7", "\"x\"", "{\"colour\": 1}"] {
            a.refused("POST", target, body, 400, "the body is not what this path takes");
        }
    }
    for (target, unknown) in [
        ("/v1/networks", json!({"name": "x", "colour": 1})),
        ("/v1/containers", json!({"pid": pid, "colour": 1})),
        (
            "/v1/containers",
            json!({"pid": pid, "endpoints": [{"network": "shop", "colour": 1}]}),
        ),
        (
            "/v1/networks/shop/endpoints",
            json!({"container": "web", "endpoint": {"network": "shop"}, "colour": 1}),
        ),
        ("/v1/containers/web/ports", json!({"specs": [], "colour": 1})),
        ("/v1/links", json!({"client": "web", "server": "db", "colour": 1})),
        (
            "/v1/rules",
            json!({"action": "deny", "container": "web", "port": 1, "protocol": "tcp", "from": "::/0", "colour": 1}),
        ),
        ("/v1/wires", json!({"a": "web", "b": "db", "colour": 1})),
    ] {
        a.refused("POST", target, &unknown.to_string(), 400, "colour");
    }
    let post = |target: &str, body: Value, status: u16, says: &str| {
        a.refused("POST", target, &body.to_string(), status, says)
    };
    for (spec, says) in [
        (json!({"name": "none"}), "reserved"),
        (json!({"name": "a/b"}), "a/b"),
        (
            json!({"name": "x", "subnets": ["10.0.0.0/24", "10.1.0.0/24"]}),
            "",
        ),
        (
            json!({"name": "x", "subnets": ["10.0.0.0/24"], "gateway": {"at": ["10.1.0.1"]}}),
            "10.1.0.1",
        ),
        (
            json!({"name": "x", "subnets": ["10.0.0.0/24"], "ip_ranges": ["10.1.0.0/24"]}),
            "10.1.0.0/24",
        ),
        (json!({"name": "x", "subnets": ["10.0.0.0/32"]}), "10.0.0.0/32"),
        (json!({"name": "x", "mtu": 10}), "10"),
        (json!({"name": "x", "options": {"colour": "red"}}), "colour"),
        (
            json!({"name": "x", "options": {"max-flows": "many"}}),
            "max-flows",
        ),
    ] {
        post("/v1/networks", spec, 400, says);
    }
    post("/v1/networks", json!({"name": "shop"}), 409, "exists already");
    let one = |more: Value| {
        let mut request = json!({"pid": pid, "name": "new", "endpoints": [{"network": "plain"}]});
        request
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        request
    };
    for (request, status, says) in [
        (one(json!({"pid": null})), 400, "`pid` or by `namespace`"),
        (
            one(json!({"namespace": "/run/netns/x"})),
            400,
            "`pid` or by `namespace`",
        ),
        (
            one(json!({"pid": null, "namespace": "relative"})),
            400,
            "absolute",
        ),
        (
            one(json!({"pid": null, "namespace": "/run/netns/none-such"})),
            404,
            "none-such",
        ),
        (one(json!({"pid": 4_000_000_000u32})), 404, "no process"),
        (
            one(json!({"pid": 1})),
            if a.who == Who::Root { 400 } else { 403 },
            "process 1",
        ),
        (one(json!({"name": "a b"})), 400, "a name begins with"),
        (one(json!({"name": "web"})), 409, "named web is there already"),
        (one(json!({"endpoints": []})), 400, "name a network"),
        (
            one(json!({"endpoints": [{"network": "nowhere"}]})),
            404,
            "no network named nowhere",
        ),
        (
            one(json!({"endpoints": [{"network": "shop"}, {"network": "shop"}]})),
            400,
            "named twice",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "ip": "10.30.0.77"}]})),
            409,
            "10.30.0.77",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "ip": "10.30.0.9"}]})),
            409,
            "10.30.0.9",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "ip": "10.31.0.9"}]})),
            409,
            "10.31.0.9",
        ),
        (
            one(json!({"endpoints": [{"network": "plain", "ip6": "fd00::9"}]})),
            400,
            "IPv6",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "mac": "02:00:00:00:00:77"}]})),
            409,
            "02:00:00:00:00:77",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "aliases": ["a b"]}]})),
            400,
            "a b",
        ),
        (
            one(json!({"endpoints": [{"network": "shop", "vlan": 4095}]})),
            400,
            "4095",
        ),
        (
            one(json!({"endpoints": [{"network": "none-of-it"}], "publish": ["80"]})),
            400,
            "published",
        ),
        (one(json!({"publish": ["192.0.2.1:8080:80"]})), 409, "8080"),
        (one(json!({"publish": ["x"]})), 400, "the body is not"),
        (one(json!({"links": [{"server": "nobody"}]})), 404, "nobody"),
        (one(json!({"capture": "relative.pcapng"})), 400, "absolute"),
        // It has one there already, and eth0.
        (one(json!({})), 500, "eth0"),
    ] {
        post("/v1/containers", request, status, says);
    }
    let join = |container: &str| json!({"container": container, "endpoint": {"network": "plain"}});
    post(
        "/v1/networks/plain/endpoints",
        join("web"),
        409,
        "is on network plain already",
    );
    post("/v1/networks/plain/endpoints", join("nobody"), 404, "nobody");
    post("/v1/networks/nowhere/endpoints", join("web"), 404, "nowhere");
    a.refused(
        "DELETE",
        "/v1/networks/plain/endpoints/db",
        "",
        404,
        "is not on network plain",
    );
    a.refused("DELETE", "/v1/networks/plain/endpoints/nobody", "", 404, "nobody");
    a.refused("DELETE", "/v1/networks/shop", "", 409, "db, web");
    post(
        "/v1/containers/web/ports",
        json!({"specs": ["192.0.2.1:8080:81"]}),
        409,
        "8080",
    );
    post(
        "/v1/containers/web/ports",
        json!({"specs": ["9001:90", "192.0.2.1:8080:81"]}),
        409,
        "8080",
    );
    post(
        "/v1/containers/nobody/ports",
        json!({"specs": ["80"]}),
        404,
        "nobody",
    );
    a.refused(
        "DELETE",
        "/v1/containers/web/ports",
        "{\"specs\": [\"7777:77\"]}",
        404,
        "7777",
    );
    post(
        "/v1/links",
        json!({"client": "web", "server": "web"}),
        400,
        "itself",
    );
    post(
        "/v1/links",
        json!({"client": "web", "server": "nobody"}),
        404,
        "nobody",
    );
    a.refused("DELETE", "/v1/links/web/nobody", "", 404, "no link");
    post(
        "/v1/rules",
        json!({"action": "hide", "container": "web", "port": 80, "protocol": "tcp", "from": "::/0"}),
        400,
        "hide",
    );
    a.refused("DELETE", "/v1/rules/first", "", 400, "first");
    a.refused("DELETE", "/v1/rules/99", "", 404, "99");
    post("/v1/wires", json!({"a": "web", "b": "web"}), 400, "two ends");
    post("/v1/wires", json!({"a": "db", "b": "web"}), 409, "wired already");
    post("/v1/wires", json!({"a": "web", "b": "nobody"}), 404, "nobody");
    a.refused("DELETE", "/v1/wires/web/nobody", "", 404, "no wire");
    for target in ["/v1/networks/nowhere", "/v1/containers/nobody"] {
        for method in ["GET", "DELETE"] {
            a.refused(
                method,
                target,
                "",
                404,
                target.rsplit('/').next().expect("a name"),
            );
        }
    }
    for target in [
        "/v1/flows?network=nowhere",
        "/v1/fdb?network=nowhere",
        "/v1/stats?network=nowhere",
        "/v1/flows?container=nobody",
    ] {
        a.refused("GET", target, "", 404, "no");
    }
    for target in [
        "/v1/flows?colour=red",
        "/v1/networks?network=shop",
        "/v1/flows?network=shop&network=plain",
        "/metrics?x=1",
    ] {
        a.refused("GET", target, "", 400, "");
    }
    // Methods that a path does not take, and paths that there are not.
    for (_, template) in operations() {
        let target = template
            .replace("{network}", "shop")
            .replace("{id}", "1")
            .replace("{cidr}", "10.99.0.0%2F24")
            .replace(['{', '}'], "");
        for method in ["PUT", "PATCH", "OPTIONS"] {
            let (status, answer) = a.raw(method, &target, None);
            assert_eq!(status, 405, "{method} {target}: {answer}");
            assert!(answer.contains("answers to"), "{answer}");
        }
    }
    for target in [
        "/",
        "/v1",
        "/v2/networks",
        "/v1/networks/shop/colour",
        "/v1/networks/shop/endpoints/web/x",
        "/metrics/x",
    ] {
        let (status, answer) = a.raw("GET", target, None);
        assert_eq!(status, 404, "{target}: {answer}");
        assert!(answer.contains("\"error\""), "{answer}");
    }
    let after = (
        a.get("/v1/containers"),
        a.get("/v1/networks"),
        a.get("/v1/rules"),
        a.get("/v1/links"),
    );
    assert_eq!(after, before, "what was refused changed nothing");
}
