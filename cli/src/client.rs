//! What the commands know of running networks: each is asked at its control socket, the answers are put together.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::api::{ApiError, ContainerInfo};
use crate::args::ContainerArgs;
use crate::control::{self, existing_control_dir, socket_path, sockets};
use crate::http::{Client, ClientError};
use crate::routes::Call;

#[cfg(test)]
mod tests;

/// How long a network may take to end once it no longer answers.
const ENDING: Duration = Duration::from_secs(2);

/// A network that has a control socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// The network's name.
    pub(crate) network: String,
    path: PathBuf,
}

/// A network that was asked.
enum Asked<T> {
    Answer(T),
    /// Nobody listens: it ended, or was killed and left its socket behind.
    Gone,
}

impl Endpoint {
    /// The network of that name, running or not.
    pub(crate) fn named(network: &str) -> Result<Self> {
        let Some(dir) = existing_control_dir()? else {
            return Err(not_running(network));
        };
        Ok(Self {
            network: network.to_owned(),
            path: socket_path(&dir, network)?,
        })
    }

    /// Asks for something that is answered with JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        match self.try_ask(call)? {
            Asked::Answer(answer) => Ok(answer),
            Asked::Gone => Err(not_running(&self.network)),
        }
    }

    fn try_ask<T: DeserializeOwned>(&self, call: &Call) -> Result<Asked<T>> {
        let context = || format!("network {}, socket {}", self.network, self.path.display());
        let body = call.body()?;
        let deadline = Instant::now() + ENDING;
        let (status, body) = loop {
            let connected = Client::connect(&self.path);
            if let Err(ClientError::Connect(e)) = &connected
                && matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                )
            {
                if let Some(dir) = self.path.parent() {
                    control::remove_if_stale(dir, &self.path)?;
                }
                return Ok(Asked::Gone);
            }
            match connected.and_then(|c| c.call(call.method(), &call.target(), body.as_deref())) {
                // A front that ends closes connections that it has not served. Its socket follows at once; if it does
                // not, only a question that changes nothing may be asked again.
                Err(ClientError::Closed) if call.method() == "GET" && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => break other.with_context(context)?,
            }
        };
        if (200..300).contains(&status) {
            // A call that is answered with nothing gives `()`, which JSON writes so.
            let json = if body.is_empty() {
                b"null".as_slice()
            } else {
                &body
            };
            return serde_json::from_slice(json)
                .map(Asked::Answer)
                .with_context(|| format!("network {} gave an answer that is not understood", self.network));
        }
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(ApiError { error }) => bail!("{error}"),
            Err(_) => bail!("network {} answered with status {status}", self.network),
        }
    }
}

fn not_running(network: &str) -> anyhow::Error {
    anyhow!("no network named {network} is running: `pontoon network ls` lists those that are")
}

/// Every network with a socket, sorted by name; or the one that is named.
pub(crate) fn endpoints(only: Option<&str>) -> Result<Vec<Endpoint>> {
    if let Some(network) = only {
        return Ok(vec![Endpoint::named(network)?]);
    }
    let Some(dir) = existing_control_dir()? else {
        return Ok(Vec::new());
    };
    Ok(sockets(&dir)?
        .into_iter()
        .map(|(network, path)| Endpoint { network, path })
        .collect())
}

/// Asks every running network, or the one that is named. One that ended meanwhile is left out; one that does not answer
/// is named on standard error, and is an error if no other answers.
pub(crate) fn ask_all<T: DeserializeOwned>(only: Option<&str>, call: &Call) -> Result<Vec<(Endpoint, T)>> {
    merge(endpoints(only)?, only.is_some(), call)
}

/// Asks these networks; one that ended meanwhile is an error if it `must_run`.
pub(crate) fn merge<T: DeserializeOwned>(
    endpoints: Vec<Endpoint>,
    must_run: bool,
    call: &Call,
) -> Result<Vec<(Endpoint, T)>> {
    let mut answers = Vec::new();
    let mut failed = Vec::new();
    for endpoint in endpoints {
        match endpoint.try_ask(call) {
            Ok(Asked::Answer(answer)) => answers.push((endpoint, answer)),
            Ok(Asked::Gone) if must_run => return Err(not_running(&endpoint.network)),
            Ok(Asked::Gone) => {}
            Err(e) => failed.push(e),
        }
    }
    if answers.is_empty()
        && let Some(e) = failed.pop()
    {
        return Err(e);
    }
    for e in failed {
        eprintln!("pontoon: {e:#}");
    }
    Ok(answers)
}

/// Like [`ask_all`] for calls that are answered with a list: one list of all.
pub(crate) fn list_all<T: DeserializeOwned>(only: Option<&str>, call: &Call) -> Result<Vec<T>> {
    Ok(ask_all::<Vec<T>>(only, call)?
        .into_iter()
        .flat_map(|(_, list)| list)
        .collect())
}

/// The networks to ask about `container`: those that have one of that name; all if none is named.
pub(crate) fn holding(container: Option<&str>, only: Option<&str>) -> Result<Vec<Endpoint>> {
    let Some(name) = container else {
        return endpoints(only);
    };
    let answers = ask_all::<Vec<ContainerInfo>>(only, &Call::Containers)?;
    holders(name, answers)
}

fn holders(name: &str, answers: Vec<(Endpoint, Vec<ContainerInfo>)>) -> Result<Vec<Endpoint>> {
    let has = |list: &[ContainerInfo]| list.iter().any(|c| c.name == name);
    let found: Vec<Endpoint> = answers
        .into_iter()
        .filter(|(_, list)| has(list))
        .map(|(endpoint, _)| endpoint)
        .collect();
    if found.is_empty() {
        return Err(no_container(name));
    }
    Ok(found)
}

fn no_container(name: &str) -> anyhow::Error {
    anyhow!("no container named {name} is running: `pontoon ps` lists those that are")
}

/// Finds a container by its name on all networks, or on the one that is named.
pub(crate) fn container(args: &ContainerArgs) -> Result<(Endpoint, ContainerInfo)> {
    let answers = ask_all::<Vec<ContainerInfo>>(args.network.as_deref(), &Call::Containers)?;
    pick(&args.container, answers)
}

fn pick(name: &str, answers: Vec<(Endpoint, Vec<ContainerInfo>)>) -> Result<(Endpoint, ContainerInfo)> {
    let mut found: Vec<(Endpoint, ContainerInfo)> = answers
        .into_iter()
        .flat_map(|(endpoint, list)| list.into_iter().map(move |c| (endpoint.clone(), c)))
        .filter(|(_, c)| c.name == name)
        .collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(no_container(name)),
        _ => {
            let networks: Vec<&str> = found.iter().map(|(e, _)| e.network.as_str()).collect();
            bail!(
                "containers named {name} run on the networks {}: choose one with --network",
                networks.join(", ")
            )
        }
    }
}
