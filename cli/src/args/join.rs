//! `--network` of `run`: a network's name, or what takes the place of one.

use std::fmt;
use std::str::FromStr;

use super::parse_name;

/// What begins the name of a container whose network is shared.
const CONTAINER: &str = "container:";

/// Names that mean something else where a network's is expected.
const RESERVED: [&str; 2] = ["none", "host"];

/// Where a container's network comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Join {
    /// Nowhere: it has the loopback only.
    None,
    /// It is the host's.
    Host,
    /// It is that of the container of this name.
    Container(String),
    /// It is a switch that is running.
    Network(String),
}

impl FromStr for Join {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match (s, s.strip_prefix(CONTAINER)) {
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => parse_name(name).map(Self::Container),
            (_, None) => parse_name(s).map(Self::Network),
        }
    }
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "{CONTAINER}{name}"),
            Self::Network(name) => f.write_str(name),
        }
    }
}

/// Refuses a name that `--network` would take for something else.
pub(super) fn check_reserved(name: &str) -> Result<(), String> {
    if RESERVED.contains(&name) || name.starts_with(CONTAINER) {
        return Err(format!(
            "`{name}` is reserved: `--network none`, `host` and `container:NAME` do not mean a network of that name"
        ));
    }
    Ok(())
}
