//! The calls of the control API: which method on which path each is, read by the front and written by the commands.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{AttachRequest, PublishRequest};
use crate::http::{Request, Response, encode};

/// One call. [`crate::api`] says what is answered.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// `GET /v1/networks`
    Networks,
    /// `GET /v1/containers`
    Containers,
    /// `POST /v1/containers`
    Attach(Box<AttachRequest>),
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
    /// `GET /v1/flows`
    Flows {
        /// Only this container's.
        container: Option<String>,
    },
    /// `DELETE /v1/flows`
    Flush {
        /// Only this container's.
        container: Option<String>,
    },
    /// `GET /v1/fdb`
    Fdb,
    /// `GET /v1/stats`
    Stats,
}

impl Call {
    /// What a request asks for, or the answer that says what is wrong with it.
    pub(crate) fn of(request: &Request) -> Result<Self, Response> {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let method = request.method.as_str();
        let call = match (path.as_slice(), method) {
            (["v1", "networks"], "GET") => Self::Networks,
            (["v1", "containers"], "GET") => Self::Containers,
            (["v1", "containers"], "POST") => Self::Attach(Box::new(body(request)?)),
            (["v1", "containers", name], "DELETE") => Self::Detach {
                container: container(name)?,
            },
            (["v1", "containers", name, "ports"], "POST") => Self::Publish {
                container: container(name)?,
                ports: body(request)?,
            },
            (["v1", "containers", name, "ports"], "DELETE") => Self::Unpublish {
                container: container(name)?,
                ports: body(request)?,
            },
            (["v1", "flows"], "GET") => {
                return Ok(Self::Flows {
                    container: only_container(request)?,
                });
            }
            (["v1", "flows"], "DELETE") => {
                return Ok(Self::Flush {
                    container: only_container(request)?,
                });
            }
            (["v1", "fdb"], "GET") => Self::Fdb,
            (["v1", "stats"], "GET") => Self::Stats,
            (["v1", "networks" | "fdb" | "stats"], _) => return Err(Response::method_not_allowed("GET")),
            (["v1", "containers"], _) => return Err(Response::method_not_allowed("GET, POST")),
            (["v1", "containers", _], _) => return Err(Response::method_not_allowed("DELETE")),
            (["v1", "containers", _, "ports"], _) => {
                return Err(Response::method_not_allowed("POST, DELETE"));
            }
            (["v1", "flows"], _) => return Err(Response::method_not_allowed("GET, DELETE")),
            _ => {
                let message = format!(
                    "there is no /{}: see /v1/networks, /v1/containers, /v1/flows, /v1/fdb, /v1/stats",
                    path.join("/")
                );
                return Err(Response::error(404, message));
            }
        };
        match request.query.first() {
            Some((key, _)) => Err(Response::error(
                400,
                format!("this path takes no parameter `{key}`"),
            )),
            None => Ok(call),
        }
    }

    /// The method.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Networks | Self::Containers | Self::Flows { .. } | Self::Fdb | Self::Stats => "GET",
            Self::Attach(_) | Self::Publish { .. } => "POST",
            Self::Detach { .. } | Self::Unpublish { .. } | Self::Flush { .. } => "DELETE",
        }
    }

    /// The path with its query, encoded.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Networks => "/v1/networks".to_owned(),
            Self::Containers | Self::Attach(_) => "/v1/containers".to_owned(),
            Self::Detach { container } => format!("/v1/containers/{}", encode(container)),
            Self::Publish { container, .. } | Self::Unpublish { container, .. } => {
                format!("/v1/containers/{}/ports", encode(container))
            }
            Self::Flows { container } | Self::Flush { container } => match container {
                Some(container) => format!("/v1/flows?container={}", encode(container)),
                None => "/v1/flows".to_owned(),
            },
            Self::Fdb => "/v1/fdb".to_owned(),
            Self::Stats => "/v1/stats".to_owned(),
        }
    }

    /// The body, JSON.
    pub(crate) fn body(&self) -> serde_json::Result<Option<Vec<u8>>> {
        fn json(value: &impl Serialize) -> serde_json::Result<Option<Vec<u8>>> {
            serde_json::to_vec(value).map(Some)
        }
        match self {
            Self::Attach(request) => json(request),
            Self::Publish { ports, .. } | Self::Unpublish { ports, .. } => json(ports),
            Self::Networks
            | Self::Containers
            | Self::Detach { .. }
            | Self::Flows { .. }
            | Self::Flush { .. }
            | Self::Fdb
            | Self::Stats => Ok(None),
        }
    }
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Response> {
    serde_json::from_slice(&request.body)
        .map_err(|e| Response::error(400, format!("the body is not what this path takes: {e}")))
}

fn container(name: &str) -> Result<String, Response> {
    crate::args::parse_name(name).map_err(|e| Response::error(400, format!("container `{name}`: {e}")))
}

fn only_container(request: &Request) -> Result<Option<String>, Response> {
    let mut found = None;
    for (key, value) in &request.query {
        if key != "container" {
            return Err(Response::error(
                400,
                format!("this path takes no parameter `{key}`"),
            ));
        }
        if found.replace(container(value)?).is_some() {
            return Err(Response::error(400, "name one container"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, body: Option<Vec<u8>>) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |q: &str| q.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Request {
            method: method.to_owned(),
            path: path.split('/').skip(1).map(str::to_owned).collect(),
            query: query.split('&').filter_map(pair).collect(),
            body: body.unwrap_or_default(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let ports = || PublishRequest {
            specs: vec!["8080:80".parse().unwrap()],
        };
        let container = || "web".to_owned();
        let attach = AttachRequest {
            pid: 1,
            name: Some("web".into()),
            ip: None,
            ip6: None,
            mac: Some(pontoon_switch::MacAddr([2, 0, 0, 0, 0, 1])),
            publish: ports().specs,
            add_hosts: vec![("db".into(), "10.0.2.9".parse().unwrap())],
            capture: None,
        };
        for call in [
            Call::Networks,
            Call::Containers,
            Call::Attach(Box::new(attach)),
            Call::Detach {
                container: container(),
            },
            Call::Publish {
                container: container(),
                ports: ports(),
            },
            Call::Unpublish {
                container: container(),
                ports: ports(),
            },
            Call::Flows { container: None },
            Call::Flows {
                container: Some(container()),
            },
            Call::Flush { container: None },
            Call::Flush {
                container: Some(container()),
            },
            Call::Fdb,
            Call::Stats,
        ] {
            let read = Call::of(&request(call.method(), &call.target(), call.body().unwrap()));
            assert_eq!(format!("{:?}", read.unwrap()), format!("{call:?}"));
        }
    }

    #[test]
    fn wrong_calls_are_answered_by_what_is_wrong() {
        let json = |s: &str| Some(s.as_bytes().to_vec());
        for (method, target, body, status, text) in [
            ("GET", "/", None, 404, "there is no /"),
            ("GET", "/v2/networks", None, 404, "there is no /v2/networks"),
            ("GET", "/v1/containers/web/flows", None, 404, "there is no"),
            ("PUT", "/v1/networks", None, 405, "GET only"),
            ("GET", "/v1/containers/web", None, 405, "DELETE only"),
            ("GET", "/v1/containers/web/ports", None, 405, "POST, DELETE only"),
            ("POST", "/v1/flows", None, 405, "GET, DELETE only"),
            ("POST", "/v1/containers", None, 400, "not what this path takes"),
            ("POST", "/v1/containers", json("{\"pid\":-1}"), 400, "-1"),
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
            ("GET", "/v1/flows?continer=web", None, 400, "`continer`"),
            ("GET", "/v1/flows?container=a&container=b", None, 400, "name one"),
            ("GET", "/v1/stats?x=1", None, 400, "`x`"),
        ] {
            let response = Call::of(&request(method, target, body)).expect_err(target);
            let error = String::from_utf8(response.body).unwrap();
            assert_eq!(response.status, status, "{method} {target}: {error}");
            assert!(error.contains(text), "{method} {target}: {error}");
        }
    }
}
