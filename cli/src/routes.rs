//! The calls of the control API: which method on which path each is, read by the front and written by the commands.

use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    AttachRequest, ConnectRequest, LinkRequest, NetworkSpec, PublishRequest, RouteRequest, RuleRequest,
    WireRequest,
};
use crate::http::{Request, Response, encode};

mod only;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use only::Only;

/// One call. [`crate::api`] says what is answered.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// `GET /v1/version`
    Version,
    /// `GET /v1/networks`
    Networks,
    /// `POST /v1/networks`
    CreateNetwork(Box<NetworkSpec>),
    /// `DELETE /v1/networks`
    Prune,
    /// `GET /v1/networks/NAME`
    Network {
        /// The network.
        network: String,
    },
    /// `DELETE /v1/networks/NAME`
    RemoveNetwork {
        /// The network.
        network: String,
    },
    /// `POST /v1/networks/NAME/endpoints`
    Connect {
        /// The network.
        network: String,
        /// Who, and how.
        request: Box<ConnectRequest>,
    },
    /// `DELETE /v1/networks/NAME/endpoints/CONTAINER`
    Disconnect {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// `GET /v1/networks/NAME/routes`
    Routes {
        /// The network.
        network: String,
    },
    /// `POST /v1/networks/NAME/routes`
    AddRoute {
        /// The network.
        network: String,
        /// The route.
        route: RouteRequest,
    },
    /// `DELETE /v1/networks/NAME/routes/CIDR`
    RemoveRoute {
        /// The network.
        network: String,
        /// The destinations of the route.
        to: IpNet,
    },
    /// `GET /v1/containers`
    Containers,
    /// `POST /v1/containers`
    Attach(Box<AttachRequest>),
    /// `GET /v1/containers/NAME`
    Container {
        /// The container.
        container: String,
    },
    /// `DELETE /v1/containers/NAME`
    Detach {
        /// The container.
        container: String,
    },
    /// `POST /v1/containers/NAME/ports`
    Publish {
        /// The container.
        container: String,
        /// What to publish.
        ports: PublishRequest,
    },
    /// `DELETE /v1/containers/NAME/ports`
    Unpublish {
        /// The container.
        container: String,
        /// What to take back.
        ports: PublishRequest,
    },
    /// `GET /v1/links`
    Links,
    /// `POST /v1/links`
    Link(LinkRequest),
    /// `DELETE /v1/links/CLIENT/SERVER`
    Unlink {
        /// The container that reaches.
        client: String,
        /// The container that is reached.
        server: String,
    },
    /// `GET /v1/rules`
    Rules,
    /// `POST /v1/rules`
    AddRule(RuleRequest),
    /// `DELETE /v1/rules/ID`
    RemoveRule {
        /// Its number.
        id: u32,
    },
    /// `GET /v1/wires`
    Wires,
    /// `POST /v1/wires`
    Wire(WireRequest),
    /// `DELETE /v1/wires/A/B`
    Unwire {
        /// One container.
        a: String,
        /// The other.
        b: String,
    },
    /// `GET /v1/flows`
    Flows(Only),
    /// `DELETE /v1/flows`
    Flush(Only),
    /// `GET /v1/fdb`
    Fdb(Only),
    /// `GET /v1/stats`
    Stats(Only),
    /// `GET /metrics`
    Metrics,
}

/// The methods that a path takes, and the call if the request's is one of them.
type Routed = (&'static str, Option<Result<Call, Response>>);

impl Call {
    /// What a request asks for, or the answer that says what is wrong with it.
    pub(crate) fn of(request: &Request) -> Result<Self, Response> {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let (methods, call) = match path.as_slice() {
            ["metrics"] => ("GET", Self::metrics(request)),
            ["v1", rest @ ..] => Self::v1(rest, request)?,
            _ => return Err(nothing_there(&path)),
        };
        let call = call.unwrap_or_else(|| Err(Response::method_not_allowed(methods)))?;
        let filtered = matches!(
            call,
            Self::Flows(_) | Self::Flush(_) | Self::Fdb(_) | Self::Stats(_)
        );
        match request.query.first() {
            Some((key, _)) if !filtered => Err(no_parameter(key)),
            Some(_) | None => Ok(call),
        }
    }

    fn metrics(request: &Request) -> Option<Result<Self, Response>> {
        (request.method == "GET").then_some(Ok(Self::Metrics))
    }

    /// The methods that the path takes, and the call if the request's is one of them.
    fn v1(path: &[&str], request: &Request) -> Result<Routed, Response> {
        let method = request.method.as_str();
        let only = || Only::read(request);
        let get = |call: Self| ("GET", (method == "GET").then_some(Ok(call)));
        Ok(match path {
            ["version"] => get(Self::Version),
            ["networks"] => (
                "GET, POST, DELETE",
                match method {
                    "GET" => Some(Ok(Self::Networks)),
                    "POST" => Some(body(request).map(|spec| Self::CreateNetwork(Box::new(spec)))),
                    "DELETE" => Some(Ok(Self::Prune)),
                    _ => None,
                },
            ),
            ["networks", network] => {
                let network = name("network", network)?;
                match method {
                    "DELETE" => ("", Some(Ok(Self::RemoveNetwork { network }))),
                    "GET" => ("", Some(Ok(Self::Network { network }))),
                    _ => ("GET, DELETE", None),
                }
            }
            ["networks", network, "endpoints"] => {
                let network = name("network", network)?;
                let connect = || {
                    body(request).map(|request| Self::Connect {
                        network,
                        request: Box::new(request),
                    })
                };
                ("POST", (method == "POST").then(connect))
            }
            ["networks", network, "endpoints", container] => {
                let call = Self::Disconnect {
                    network: name("network", network)?,
                    container: name("container", container)?,
                };
                ("DELETE", (method == "DELETE").then_some(Ok(call)))
            }
            ["networks", network, "routes"] => {
                let network = name("network", network)?;
                match method {
                    "GET" => ("", Some(Ok(Self::Routes { network }))),
                    "POST" => (
                        "",
                        Some(body(request).map(|route| Self::AddRoute { network, route })),
                    ),
                    _ => ("GET, POST", None),
                }
            }
            ["networks", network, "routes", to] => {
                let call = Self::RemoveRoute {
                    network: name("network", network)?,
                    to: crate::args::parse_destination(to)
                        .map_err(|e| Response::error(400, format!("destination `{to}`: {e}")))?,
                };
                ("DELETE", (method == "DELETE").then_some(Ok(call)))
            }
            ["containers"] => (
                "GET, POST",
                match method {
                    "GET" => Some(Ok(Self::Containers)),
                    "POST" => Some(body(request).map(|request| Self::Attach(Box::new(request)))),
                    _ => None,
                },
            ),
            ["containers", container] => {
                let container = name("container", container)?;
                match method {
                    "GET" => ("", Some(Ok(Self::Container { container }))),
                    "DELETE" => ("", Some(Ok(Self::Detach { container }))),
                    _ => ("GET, DELETE", None),
                }
            }
            ["containers", container, "ports"] => {
                let container = name("container", container)?;
                match method {
                    "POST" => (
                        "",
                        Some(body(request).map(|ports| Self::Publish { container, ports })),
                    ),
                    "DELETE" => (
                        "",
                        Some(body(request).map(|ports| Self::Unpublish { container, ports })),
                    ),
                    _ => ("POST, DELETE", None),
                }
            }
            ["links"] => (
                "GET, POST",
                match method {
                    "GET" => Some(Ok(Self::Links)),
                    "POST" => Some(body(request).map(Self::Link)),
                    _ => None,
                },
            ),
            ["links", client, server] => {
                let call = Self::Unlink {
                    client: name("container", client)?,
                    server: name("container", server)?,
                };
                ("DELETE", (method == "DELETE").then_some(Ok(call)))
            }
            ["rules"] => (
                "GET, POST",
                match method {
                    "GET" => Some(Ok(Self::Rules)),
                    "POST" => Some(body(request).map(Self::AddRule)),
                    _ => None,
                },
            ),
            ["rules", id] => {
                let id = id
                    .parse()
                    .map_err(|_| Response::error(400, format!("`{id}` is no number of a rule")))?;
                (
                    "DELETE",
                    (method == "DELETE").then_some(Ok(Self::RemoveRule { id })),
                )
            }
            ["wires"] => (
                "GET, POST",
                match method {
                    "GET" => Some(Ok(Self::Wires)),
                    "POST" => Some(body(request).map(Self::Wire)),
                    _ => None,
                },
            ),
            ["wires", a, b] => {
                let call = Self::Unwire {
                    a: name("container", a)?,
                    b: name("container", b)?,
                };
                ("DELETE", (method == "DELETE").then_some(Ok(call)))
            }
            ["flows"] => (
                "GET, DELETE",
                match method {
                    "GET" => Some(only().map(Self::Flows)),
                    "DELETE" => Some(only().map(Self::Flush)),
                    _ => None,
                },
            ),
            ["fdb"] => ("GET", (method == "GET").then(|| only().map(Self::Fdb))),
            ["stats"] => ("GET", (method == "GET").then(|| only().map(Self::Stats))),
            _ => {
                let whole: Vec<&str> = std::iter::once("v1").chain(path.iter().copied()).collect();
                return Err(nothing_there(&whole));
            }
        })
    }

    /// The method.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Version
            | Self::Networks
            | Self::Network { .. }
            | Self::Routes { .. }
            | Self::Containers
            | Self::Container { .. }
            | Self::Links
            | Self::Rules
            | Self::Wires
            | Self::Flows(_)
            | Self::Fdb(_)
            | Self::Stats(_)
            | Self::Metrics => "GET",
            Self::CreateNetwork(_)
            | Self::Connect { .. }
            | Self::AddRoute { .. }
            | Self::Attach(_)
            | Self::Publish { .. }
            | Self::Link(_)
            | Self::AddRule(_)
            | Self::Wire(_) => "POST",
            Self::Prune
            | Self::RemoveNetwork { .. }
            | Self::Disconnect { .. }
            | Self::RemoveRoute { .. }
            | Self::Detach { .. }
            | Self::Unpublish { .. }
            | Self::Unlink { .. }
            | Self::RemoveRule { .. }
            | Self::Unwire { .. }
            | Self::Flush(_) => "DELETE",
        }
    }

    /// The path with its query, encoded.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Version => "/v1/version".to_owned(),
            Self::Networks | Self::CreateNetwork(_) | Self::Prune => "/v1/networks".to_owned(),
            Self::Network { network } | Self::RemoveNetwork { network } => path(&["networks", network]),
            Self::Connect { network, .. } => path(&["networks", network, "endpoints"]),
            Self::Disconnect { network, container } => path(&["networks", network, "endpoints", container]),
            Self::Routes { network } | Self::AddRoute { network, .. } => {
                path(&["networks", network, "routes"])
            }
            Self::RemoveRoute { network, to } => path(&["networks", network, "routes", &to.to_string()]),
            Self::Containers | Self::Attach(_) => "/v1/containers".to_owned(),
            Self::Container { container } | Self::Detach { container } => path(&["containers", container]),
            Self::Publish { container, .. } | Self::Unpublish { container, .. } => {
                path(&["containers", container, "ports"])
            }
            Self::Links | Self::Link(_) => "/v1/links".to_owned(),
            Self::Unlink { client, server } => path(&["links", client, server]),
            Self::Rules | Self::AddRule(_) => "/v1/rules".to_owned(),
            Self::RemoveRule { id } => format!("/v1/rules/{id}"),
            Self::Wires | Self::Wire(_) => "/v1/wires".to_owned(),
            Self::Unwire { a, b } => path(&["wires", a, b]),
            Self::Flows(only) | Self::Flush(only) => only.write("/v1/flows"),
            Self::Fdb(only) => only.write("/v1/fdb"),
            Self::Stats(only) => only.write("/v1/stats"),
            Self::Metrics => "/metrics".to_owned(),
        }
    }

    /// The body, JSON.
    pub(crate) fn body(&self) -> serde_json::Result<Option<Vec<u8>>> {
        fn json(value: &impl Serialize) -> serde_json::Result<Option<Vec<u8>>> {
            serde_json::to_vec(value).map(Some)
        }
        match self {
            Self::CreateNetwork(spec) => json(spec),
            Self::Connect { request, .. } => json(request),
            Self::AddRoute { route, .. } => json(route),
            Self::Attach(request) => json(request),
            Self::Publish { ports, .. } | Self::Unpublish { ports, .. } => json(ports),
            Self::Link(request) => json(request),
            Self::AddRule(request) => json(request),
            Self::Wire(request) => json(request),
            Self::Version
            | Self::Networks
            | Self::Prune
            | Self::Network { .. }
            | Self::RemoveNetwork { .. }
            | Self::Disconnect { .. }
            | Self::Routes { .. }
            | Self::RemoveRoute { .. }
            | Self::Containers
            | Self::Container { .. }
            | Self::Detach { .. }
            | Self::Links
            | Self::Unlink { .. }
            | Self::Rules
            | Self::RemoveRule { .. }
            | Self::Wires
            | Self::Unwire { .. }
            | Self::Flows(_)
            | Self::Flush(_)
            | Self::Fdb(_)
            | Self::Stats(_)
            | Self::Metrics => Ok(None),
        }
    }
}

fn path(parts: &[&str]) -> String {
    parts
        .iter()
        .fold("/v1".to_owned(), |path, part| path + "/" + &encode(part))
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Response> {
    let refused = |why: String| Response::error(400, format!("the body is not what this path takes: {why}"));
    // An array would do for serde: its elements for the fields, in their order.
    if request.body.trim_ascii_start().first() == Some(&b'[') {
        return Err(refused("it is an array and not an object".to_owned()));
    }
    serde_json::from_slice(&request.body).map_err(|e| refused(e.to_string()))
}

fn name(what: &str, name: &str) -> Result<String, Response> {
    crate::args::parse_name(name).map_err(|e| Response::error(400, format!("{what} `{name}`: {e}")))
}

fn no_parameter(key: &str) -> Response {
    Response::error(400, format!("this path takes no parameter `{key}`"))
}

fn nothing_there(path: &[&str]) -> Response {
    let message = format!(
        "there is no /{}: see /v1/networks, /v1/containers, /v1/links, /v1/rules, /v1/wires, /v1/flows, /v1/fdb, \
         /v1/stats, /v1/version, /metrics",
        path.join("/")
    );
    Response::error(404, message)
}
