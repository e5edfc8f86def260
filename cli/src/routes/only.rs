//! Which part of a list is meant: the query of the calls that list.

use super::{name, no_parameter};
use crate::http::{Request, Response, encode};

/// Which part of a list is meant: all of it unless said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Only {
    /// Only this network's.
    pub(crate) network: Option<String>,
    /// Only this container's.
    pub(crate) container: Option<String>,
}

impl Only {
    /// What belongs to one network, or to any.
    pub(crate) fn of_network(network: Option<&str>) -> Self {
        Self {
            network: network.map(str::to_owned),
            container: None,
        }
    }
}

impl Only {
    /// What a request asks for.
    pub(super) fn read(request: &Request) -> Result<Self, Response> {
        let mut only = Self::default();
        for (key, value) in &request.query {
            let (place, what) = match key.as_str() {
                "network" => (&mut only.network, "network"),
                "container" => (&mut only.container, "container"),
                other => return Err(no_parameter(other)),
            };
            if place.replace(name(what, value)?).is_some() {
                return Err(Response::error(400, format!("name one {what}")));
            }
        }
        Ok(only)
    }

    /// The path with its query, encoded.
    pub(super) fn write(&self, path: &str) -> String {
        let pairs = [("network", &self.network), ("container", &self.container)];
        let mut target = path.to_owned();
        for (key, value) in pairs {
            if let Some(value) = value {
                let mark = if target.contains('?') { '&' } else { '?' };
                target.push_str(&format!("{mark}{key}={}", encode(value)));
            }
        }
        target
    }
}
