use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

#[path = "../../tests/openapi/mod.rs"]
mod description;

use description::Api;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");

#[test]
fn the_file_is_what_the_code_says() {
    let document = document();
    if std::env::var_os("PONTOON_UPDATE").is_some() {
        std::fs::write(FILE, crate::output::json(&document).unwrap()).unwrap();
    }
    let text = std::fs::read_to_string(Path::new(FILE)).unwrap_or_default();
    let written: Value = serde_json::from_str(&text).unwrap_or_default();
    let differing: Vec<String> = differences("", &written, &document);
    assert!(
        differing.is_empty(),
        "docs/openapi.json is not what the code says: look at what has changed, then write it anew by \
         `PONTOON_UPDATE=1 cargo test -p pontoon openapi`. It differs in {differing:?}"
    );
}

/// Where two values differ, as JSON pointers.
fn differences(at: &str, a: &Value, b: &Value) -> Vec<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter()
                .flat_map(|key| {
                    let (a, b) = (a.get(key), b.get(key));
                    differences(
                        &format!("{at}/{key}"),
                        a.unwrap_or(&Value::Null),
                        b.unwrap_or(&Value::Null),
                    )
                })
                .collect()
        }
        _ if a == b => vec![],
        _ => vec![at.to_owned()],
    }
}

/// Method and path of every operation, parameters as `{}`, with its id.
fn described() -> BTreeMap<(String, String), String> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().iter().map(|(method, operation)| {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                ((method.to_uppercase(), generic(path)), id)
            })
        })
        .collect()
}

/// A path with `{}` for each parameter, be it written `{name}` or `NAME`, and without its query.
fn generic(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let part = |part: &str| {
        let upper = !part.is_empty() && part.bytes().all(|c| c.is_ascii_uppercase());
        if upper || part.starts_with('{') {
            "{}".to_owned()
        } else {
            part.to_owned()
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The calls that a source file names as `METHOD /path`.
fn named(source: &str, from: &str, to: &str) -> BTreeSet<(String, String)> {
    let part = source.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    let (part, _) = part.expect("the part of the source is there");
    part.split('`')
        .filter_map(|words| words.split_once(" /"))
        .filter(|(method, _)| ["GET", "POST", "DELETE"].contains(method))
        .map(|(method, path)| (method.to_owned(), generic(&format!("/{path}"))))
        .collect()
}

#[test]
fn every_call_is_described_and_nothing_else() {
    let described: BTreeSet<(String, String)> = described().into_keys().collect();
    assert!(described.len() > 25, "{described:?}");
    let routes = named(include_str!("../routes.rs"), "enum Call {", "impl Call {");
    assert_eq!(described, routes, "routes.rs, at the variants of Call");
    let table = named(include_str!("../api.rs"), "//! | request", "use std::");
    assert_eq!(described, table, "api.rs, in the table at its head");
}

#[test]
fn every_call_is_written_as_it_is_described() {
    let ids: BTreeSet<String> = described().into_values().collect();
    let mut seen = BTreeSet::new();
    for call in calls() {
        let operation = operation(&call);
        let target = call.target();
        let path = target.split('?').next().unwrap_or_default();
        let same = |(template, part): (&str, &str)| template == part || template.starts_with('{');
        assert_eq!(
            path.split('/').count(),
            operation.path.split('/').count(),
            "{call:?}"
        );
        assert!(
            operation.path.split('/').zip(path.split('/')).all(same),
            "{call:?}"
        );
        let has_body = call.body().unwrap().is_some();
        assert_eq!(has_body, operation.body.is_some(), "{call:?}");
        seen.insert(operation.id.to_owned());
    }
    assert_eq!(seen, ids);
    assert_eq!(ids.len(), described().len(), "an id is used twice");
}

#[test]
fn samples_are_as_described() {
    let api = Api::of(document());
    for call in calls() {
        let (method, target) = (call.method(), call.target());
        if let Some(body) = call.body().unwrap() {
            api.check_request(method, &target, &body)
                .unwrap_or_else(|e| panic!("{call:?}: {e}"));
        }
        let (status, body) = match operation(&call).answer {
            Answer::Json(status, _, example) => (status, example.to_string().into_bytes()),
            Answer::Nothing => (204, Vec::new()),
            Answer::Text(_) => (200, b"up 1\n".to_vec()),
        };
        api.check_answer(method, &target, status, &body)
            .unwrap_or_else(|e| panic!("{call:?}: {e}"));
        api.check_answer(method, &target, 404, br#"{"error":"there is no such thing"}"#)
            .unwrap_or_else(|e| panic!("{call:?}: {e}"));
    }
}

#[test]
fn what_is_not_as_described_is_found() {
    let api = Api::of(document());
    let refused = |method: &str, target: &str, status: u16, body: &Value| {
        api.check_answer(method, target, status, body.to_string().as_bytes())
            .expect_err(target)
    };
    let network = serde_json::to_value(samples::network()).unwrap();
    let changed = |pointer: &str, to: Value| {
        let mut network = network.clone();
        *network.pointer_mut(pointer).expect(pointer) = to;
        network
    };
    let target = "/v1/networks/shop";
    for (pointer, to) in [
        ("/name", json!(1)),
        ("/gateway_mac", json!("02:00:00")),
        ("/subnets/0/subnet", json!("10.0.2.0")),
        ("/subnets/0/gateway", json!("10.0.2.300")),
        ("/endpoints/0/kind", json!("wire")),
        ("/endpoints/0/port", json!(-1)),
        ("/options/storm", json!(false)),
    ] {
        let e = refused("GET", target, 200, &changed(pointer, to));
        assert!(e.contains(pointer), "{pointer}: {e}");
    }
    let mut more = network.clone();
    more["colour"] = json!("red");
    assert!(refused("GET", target, 200, &more).contains("colour"));
    let mut less = network.clone();
    less.as_object_mut().unwrap().remove("since");
    assert!(refused("GET", target, 200, &less).contains("since"));
    let mut flow = json!([serde_json::to_value(samples::flow()).unwrap()]);
    flow[0]["sent"]["colour"] = json!("red");
    assert!(refused("GET", "/v1/flows?network=shop", 200, &flow).contains("colour"));
    assert!(refused("GET", target, 201, &network).contains("status 201"));
    assert!(refused("GET", target, 404, &network).contains("error"));
    assert!(refused("PUT", target, 200, &network).contains("PUT"));
    assert!(refused("GET", "/v1/colours", 200, &network).contains("/v1/colours"));
    assert!(refused("DELETE", target, 204, &network).contains("nothing"));
    let body = br#"{"name":"shop","colour":"red"}"#;
    let e = api.check_request("POST", "/v1/networks", body).unwrap_err();
    assert!(e.contains("colour"), "{e}");
}

#[test]
fn the_repositorys_file_is_read() {
    let body = serde_json::to_vec(&samples::version()).unwrap();
    Api::of_repository()
        .check_answer("GET", "/v1/version", 200, &body)
        .unwrap();
}
