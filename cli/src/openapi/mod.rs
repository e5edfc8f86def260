//! The description of the control API, `docs/openapi.json`: made of the types of [`crate::api`] and of the table of calls
//! below, so that it says what the code does. It is a document of the repository and no part of the program.
//!
//! `PONTOON_UPDATE=1 cargo test -p pontoon openapi` writes the file anew; without that the tests compare it.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::api::{self, samples};
use crate::routes::Call;
use crate::routes::tests::calls;

pub(crate) mod schema;
mod tests;

/// Makes the schema of one type.
type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What is answered.
enum Answer {
    /// JSON of a type, as in the example.
    Json(u16, Describe, Value),
    /// 204.
    Nothing,
    /// Text of a media type.
    Text(&'static str),
}

/// One call as it is described.
struct Operation {
    /// Its path, parameters in braces.
    path: &'static str,
    /// The `operationId`.
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<Describe>,
    answer: Answer,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn value<T: JsonSchema + serde::Serialize>(status: u16, example: T) -> Answer {
    let example = serde_json::to_value(example).expect("a sample is JSON");
    Answer::Json(status, schema_of::<T>, example)
}

/// The table of calls.
fn operation(call: &Call) -> Operation {
    let (path, id, tag, summary, answer) = match call {
        Call::Version => (
            "/v1/version",
            "version",
            "observation",
            "Who answers",
            value(200, samples::version()),
        ),
        Call::Networks => (
            "/v1/networks",
            "listNetworks",
            "networks",
            "All networks",
            value(200, vec![samples::network(), samples::bare_network()]),
        ),
        Call::CreateNetwork(_) => (
            "/v1/networks",
            "createNetwork",
            "networks",
            "Make a network; the daemon only",
            value(201, samples::network()),
        ),
        Call::Prune => (
            "/v1/networks",
            "pruneNetworks",
            "networks",
            "Remove all networks that have no containers, and say which those were; the daemon only",
            value(200, vec!["shop".to_owned()]),
        ),
        Call::Network { .. } => (
            "/v1/networks/{network}",
            "inspectNetwork",
            "networks",
            "One network",
            value(200, samples::network()),
        ),
        Call::RemoveNetwork { .. } => (
            "/v1/networks/{network}",
            "removeNetwork",
            "networks",
            "Remove a network that has no containers; the daemon only",
            Answer::Nothing,
        ),
        Call::Connect { .. } => (
            "/v1/networks/{network}/endpoints",
            "connect",
            "networks",
            "Give a container an interface on one more network",
            value(201, samples::container()),
        ),
        Call::Disconnect { .. } => (
            "/v1/networks/{network}/endpoints/{container}",
            "disconnect",
            "networks",
            "Take a container's interface on a network away",
            Answer::Nothing,
        ),
        Call::Routes { .. } => (
            "/v1/networks/{network}/routes",
            "listRoutes",
            "routes",
            "The routes of a network",
            value(200, vec![samples::route()]),
        ),
        Call::AddRoute { .. } => (
            "/v1/networks/{network}/routes",
            "addRoute",
            "routes",
            "Add a route by a router, or to another network of the daemon",
            value(201, samples::route()),
        ),
        Call::RemoveRoute { .. } => (
            "/v1/networks/{network}/routes/{cidr}",
            "removeRoute",
            "routes",
            "Remove a route; the slash of its destinations is written %2F",
            Answer::Nothing,
        ),
        Call::Containers => (
            "/v1/containers",
            "listContainers",
            "containers",
            "All containers",
            value(200, vec![samples::container()]),
        ),
        Call::Attach(_) => (
            "/v1/containers",
            "attach",
            "containers",
            "Attach a network namespace to networks, all or none",
            value(201, samples::container()),
        ),
        Call::Container { .. } => (
            "/v1/containers/{container}",
            "inspectContainer",
            "containers",
            "One container",
            value(200, samples::container()),
        ),
        Call::Detach { .. } => (
            "/v1/containers/{container}",
            "detach",
            "containers",
            "Detach a container from all its networks",
            Answer::Nothing,
        ),
        Call::Publish { .. } => (
            "/v1/containers/{container}/ports",
            "publish",
            "containers",
            "Publish ports of a container, all or none",
            value(201, samples::ports()),
        ),
        Call::Unpublish { .. } => (
            "/v1/containers/{container}/ports",
            "unpublish",
            "containers",
            "Take published ports back, and say which those were",
            value(200, samples::ports()),
        ),
        Call::Links => (
            "/v1/links",
            "listLinks",
            "links",
            "All links",
            value(200, vec![samples::link()]),
        ),
        Call::Link(_) => (
            "/v1/links",
            "link",
            "links",
            "Let one container reach ports of another",
            value(201, samples::link()),
        ),
        Call::Unlink { .. } => (
            "/v1/links/{client}/{server}",
            "unlink",
            "links",
            "Take a link back",
            Answer::Nothing,
        ),
        Call::Rules => (
            "/v1/rules",
            "listRules",
            "rules",
            "All rules, in the order they apply",
            value(200, vec![samples::rule()]),
        ),
        Call::AddRule(_) => (
            "/v1/rules",
            "addRule",
            "rules",
            "Allow or deny clients of a published port, after the rules there are",
            value(201, samples::rule()),
        ),
        Call::RemoveRule { .. } => (
            "/v1/rules/{id}",
            "removeRule",
            "rules",
            "Remove a rule",
            Answer::Nothing,
        ),
        Call::Wires => (
            "/v1/wires",
            "listWires",
            "wires",
            "All wires",
            value(200, vec![samples::wire()]),
        ),
        Call::Wire(_) => (
            "/v1/wires",
            "wire",
            "wires",
            "Lay a wire between two containers",
            value(201, samples::wire()),
        ),
        Call::Unwire { .. } => (
            "/v1/wires/{a}/{b}",
            "unwire",
            "wires",
            "Take a wire away",
            Answer::Nothing,
        ),
        Call::Flows(_) => (
            "/v1/flows",
            "listFlows",
            "observation",
            "Flows: the entries of the connection tracking table",
            value(200, vec![samples::flow()]),
        ),
        Call::Flush(_) => (
            "/v1/flows",
            "endFlows",
            "observation",
            "End flows: connections are reset, mappings forgotten",
            value(200, api::Flushed { flows: 3 }),
        ),
        Call::Fdb(_) => (
            "/v1/fdb",
            "forwardingTable",
            "observation",
            "The switches' forwarding tables",
            value(200, samples::fdb()),
        ),
        Call::Stats(_) => (
            "/v1/stats",
            "counters",
            "observation",
            "Counters of ports, drops by reason, flows by state",
            value(200, vec![samples::stats()]),
        ),
        Call::Metrics => (
            "/metrics",
            "metrics",
            "observation",
            "The same counters in Prometheus' text format",
            Answer::Text(crate::metrics::CONTENT_TYPE),
        ),
    };
    Operation {
        path,
        id,
        tag,
        summary,
        query: query(call),
        body: body(call),
        answer,
    }
}

/// What a call is asked with beside its path.
fn body(call: &Call) -> Option<Describe> {
    match call {
        Call::CreateNetwork(_) => Some(schema_of::<api::NetworkSpec>),
        Call::Connect { .. } => Some(schema_of::<api::ConnectRequest>),
        Call::AddRoute { .. } => Some(schema_of::<api::RouteRequest>),
        Call::Attach(_) => Some(schema_of::<api::AttachRequest>),
        Call::Publish { .. } | Call::Unpublish { .. } => Some(schema_of::<api::PublishRequest>),
        Call::Link(_) => Some(schema_of::<api::LinkRequest>),
        Call::AddRule(_) => Some(schema_of::<api::RuleRequest>),
        Call::Wire(_) => Some(schema_of::<api::WireRequest>),
        // That there is no other with a body is what the tests find.
        _ => None,
    }
}

fn query(call: &Call) -> &'static [&'static str] {
    match call {
        Call::Flows(_) | Call::Flush(_) => &["network", "container"],
        Call::Fdb(_) | Call::Stats(_) => &["network"],
        _ => &[],
    }
}

/// The whole description.
fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .with_transform(RecursiveTransform(addresses));
    let mut asked = settings.clone().for_deserialize().into_generator();
    let mut answered = settings.for_serialize().into_generator();
    let error = answered.subschema_for::<api::ApiError>();
    let mut paths = Map::new();
    for call in calls() {
        let operation = operation(&call);
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[call.method().to_lowercase()] = describe(&operation, &mut asked, &mut answered);
    }
    let mut schemas = answered.take_definitions(true);
    for (name, schema) in asked.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(
            other.is_none_or(|other| other == schema),
            "{name} is asked with and answered differently"
        );
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Pontoon's control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Spoken over Unix sockets: the daemon's, and those of the fronts of private networks. \
                See control-socket.md for where they are and who may speak. Times are Unix seconds, ages seconds.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://pontoon", "description": "Any host name will do: curl --unix-socket PATH" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Error": {
                    "description": "What failed, on what, and what to do. 400 for a request that is malformed or asks for \
                        what cannot be, 403 for a peer that may not speak, 404 for what is not there, 405, 408, 409 for \
                        what is taken or in use, 413, 417, 431, 500, 501, 503, 505",
                    "content": { "application/json": { "schema": error } },
                },
            },
        },
    })
}

fn describe(operation: &Operation, asked: &mut SchemaGenerator, answered: &mut SchemaGenerator) -> Value {
    let (status, answer) = match &operation.answer {
        Answer::Json(status, schema, _) => (
            *status,
            json!({
                "description": if *status == 201 { "Done" } else { "So it is" },
                "content": { "application/json": { "schema": schema(answered) } },
            }),
        ),
        Answer::Nothing => (204, json!({ "description": "Done" })),
        Answer::Text(kind) => (
            200,
            json!({
                "description": "So it is",
                "content": { *kind: { "schema": { "type": "string" } } },
            }),
        ),
    };
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            status.to_string(): answer,
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema(asked) } },
        });
    }
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$" });
    let in_path = operation.path.split('/').filter_map(|part| {
        let parameter = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = match parameter {
            "id" => json!({ "type": "integer", "minimum": 0 }),
            "cidr" => json!({ "type": "string" }),
            _ => name.clone(),
        };
        Some(json!({ "name": parameter, "in": "path", "required": true, "schema": schema }))
    });
    let in_query = operation.query.iter().map(|parameter| {
        json!({
            "name": parameter,
            "in": "query",
            "required": false,
            "description": format!("Only what belongs to this {parameter}"),
            "schema": name,
        })
    });
    in_path.chain(in_query).collect()
}

/// The generator's name for addresses of either family is its own: says it in the words of JSON Schema.
fn addresses(schema: &mut Schema) {
    if schema.get("format").is_some_and(|format| format == "ip") {
        schema.remove("format");
        schema.insert(
            "anyOf".to_owned(),
            json!([{ "format": "ipv4" }, { "format": "ipv6" }]),
        );
    }
}
