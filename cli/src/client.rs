//! What the commands know of running fronts: each is asked at its control socket, the answers are put together.
//!
//! There is the daemon, if it runs, and a front for each private network. Names of networks are looked for with the daemon
//! first. Fronts that do not answer are named on standard error, and are an error if no other answers.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::api::{ApiError, ContainerInfo, NetworkInfo};
use crate::args::ContainerArgs;
use crate::control::{self, existing_control_dir, socket_path, sockets};
use crate::http::{Client, ClientError};
use crate::routes::Call;

#[cfg(test)]
mod tests;

/// How long a front may take to end once it no longer answers.
const ENDING: Duration = Duration::from_secs(2);

/// Whose front it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    /// The daemon, which has any number of networks.
    Daemon,
    /// The private network of this name.
    Private(String),
}

/// A front that has a control socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Front {
    /// Whose it is.
    pub(crate) whose: Whose,
    path: PathBuf,
}

/// A front that was asked.
enum Asked<T> {
    Answer(T),
    /// What was asked about is not there (404), in its words.
    Missing(anyhow::Error),
    /// Nobody listens: it ended, or was killed and left its socket behind.
    Gone,
}

impl Front {
    /// Asks for something that is answered with JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        match self.try_ask(call)? {
            Asked::Answer(answer) => Ok(answer),
            Asked::Missing(why) => Err(why),
            Asked::Gone => Err(self.not_running()),
        }
    }

    /// As [`Front::ask`]; none if what is asked about is not there, or the front has ended.
    pub(crate) fn ask_if_there<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>> {
        Ok(match self.try_ask(call)? {
            Asked::Answer(answer) => Some(answer),
            Asked::Missing(_) | Asked::Gone => None,
        })
    }

    /// Asks for something that is answered with text.
    pub(crate) fn ask_text(&self, call: &Call) -> Result<String> {
        match self.exchange(call)? {
            Some((status, body)) if (200..300).contains(&status) => {
                Ok(String::from_utf8_lossy(&body).into_owned())
            }
            Some((status, body)) => Err(self.refusal(status, &body)),
            None => Err(self.not_running()),
        }
    }

    fn try_ask<T: DeserializeOwned>(&self, call: &Call) -> Result<Asked<T>> {
        let Some((status, body)) = self.exchange(call)? else {
            return Ok(Asked::Gone);
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
                .with_context(|| format!("{self} gave an answer that is not understood"));
        }
        let why = self.refusal(status, &body);
        if status == 404 {
            return Ok(Asked::Missing(why));
        }
        Err(why)
    }

    fn refusal(&self, status: u16, body: &[u8]) -> anyhow::Error {
        match serde_json::from_slice::<ApiError>(body) {
            Ok(ApiError { error }) => anyhow!("{error}"),
            Err(_) => anyhow!("{self} answered with status {status}"),
        }
    }

    /// Status and body of the answer; none if nobody listens.
    fn exchange(&self, call: &Call) -> Result<Option<(u16, Vec<u8>)>> {
        let context = || format!("{self}, socket {}", self.path.display());
        let body = call.body()?;
        let deadline = Instant::now() + ENDING;
        loop {
            let connected = Client::connect(&self.path);
            if let Err(ClientError::Connect(e)) = &connected
                && matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                )
            {
                // One that was left behind is removed; where there is none, there may be no directory either.
                if e.kind() == io::ErrorKind::ConnectionRefused
                    && let Some(dir) = self.path.parent()
                {
                    control::remove_if_stale(dir, &self.path)?;
                }
                return Ok(None);
            }
            match connected.and_then(|c| c.call(call.method(), &call.target(), body.as_deref())) {
                // A front that ends closes connections that it has not served. Its socket follows at once; if it does
                // not, only a question that changes nothing may be asked again.
                Err(ClientError::Closed) if call.method() == "GET" && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other.map(Some).with_context(context),
            }
        }
    }

    fn not_running(&self) -> anyhow::Error {
        match &self.whose {
            Whose::Daemon => no_daemon(&self.path),
            Whose::Private(network) => not_running(network),
        }
    }
}

impl std::fmt::Display for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.whose {
            Whose::Daemon => f.write_str("the daemon"),
            Whose::Private(network) => write!(f, "network {network}"),
        }
    }
}

fn no_daemon(path: &Path) -> anyhow::Error {
    anyhow!(
        "no daemon listens on {}: start it with `pontoon daemon`, or name its socket by PONTOON_SOCKET",
        path.display()
    )
}

fn not_running(network: &str) -> anyhow::Error {
    anyhow!("no network named {network} is running: `pontoon network ls` lists those that are")
}

/// The daemon, running or not.
pub(crate) fn daemon() -> Result<Front> {
    Ok(Front {
        whose: Whose::Daemon,
        path: control::daemon_socket()?,
    })
}

/// The front of the private network of that name, running or not.
pub(crate) fn private(network: &str) -> Result<Front> {
    let Some(dir) = existing_control_dir()? else {
        return Err(not_running(network));
    };
    Ok(Front {
        whose: Whose::Private(network.to_owned()),
        path: socket_path(&dir, network)?,
    })
}

/// Every front that has a socket: the daemon first, then private networks' by name.
pub(crate) fn fronts() -> Result<Vec<Front>> {
    let mut all = Vec::new();
    let daemon = daemon()?;
    if daemon.path.exists() {
        all.push(daemon);
    }
    if let Some(dir) = existing_control_dir()? {
        all.extend(sockets(&dir)?.into_iter().map(|(network, path)| Front {
            whose: Whose::Private(network),
            path,
        }));
    }
    Ok(all)
}

/// The front that has the network `name`, and the network: the daemon's, if it has one of that name.
pub(crate) fn of_network(name: &str) -> Result<(Front, NetworkInfo)> {
    let call = Call::Network {
        network: name.to_owned(),
    };
    let daemon = daemon()?;
    if daemon.path.exists()
        && let Asked::Answer(network) = daemon.try_ask(&call)?
    {
        return Ok((daemon, network));
    }
    let private = private(name)?;
    match private.try_ask(&call)? {
        Asked::Answer(network) => Ok((private, network)),
        Asked::Missing(_) | Asked::Gone => Err(not_running(name)),
    }
}

/// Whether the daemon runs and has a network of that name.
pub(crate) fn daemon_has(network: &str) -> Result<bool> {
    let daemon = daemon()?;
    if !daemon.path.exists() {
        return Ok(false);
    }
    let call = Call::Network {
        network: network.to_owned(),
    };
    Ok(matches!(daemon.try_ask::<NetworkInfo>(&call)?, Asked::Answer(_)))
}

/// Asks every running front, or the one that has the network that is named. One that ended meanwhile is left out; one that
/// does not answer is named on standard error, and is an error if no other answers.
pub(crate) fn ask_all<T: DeserializeOwned>(only: Option<&str>, call: &Call) -> Result<Vec<(Front, T)>> {
    match only {
        Some(network) => merge(vec![of_network(network)?.0], true, call),
        None => merge(fronts()?, false, call),
    }
}

/// Asks these fronts; one that ended meanwhile is an error if it `must_run`.
pub(crate) fn merge<T: DeserializeOwned>(
    fronts: Vec<Front>,
    must_run: bool,
    call: &Call,
) -> Result<Vec<(Front, T)>> {
    let mut answers = Vec::new();
    let mut failed = Vec::new();
    for front in fronts {
        match front.try_ask(call) {
            Ok(Asked::Answer(answer)) => answers.push((front, answer)),
            Ok(Asked::Gone) if must_run => return Err(front.not_running()),
            Ok(Asked::Gone) => {}
            Ok(Asked::Missing(e)) | Err(e) => failed.push(e),
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

/// The fronts to ask about `container`: those that have one of that name; all if none is named.
pub(crate) fn holding(container: Option<&str>, only: Option<&str>) -> Result<Vec<Front>> {
    let Some(name) = container else {
        return match only {
            Some(network) => Ok(vec![of_network(network)?.0]),
            None => fronts(),
        };
    };
    let answers = ask_all::<Vec<ContainerInfo>>(only, &Call::Containers)?;
    holders(name, only, answers)
}

fn on(container: &ContainerInfo, network: Option<&str>) -> bool {
    network.is_none_or(|n| container.endpoints.iter().any(|e| e.network == n))
}

fn holders(
    name: &str,
    network: Option<&str>,
    answers: Vec<(Front, Vec<ContainerInfo>)>,
) -> Result<Vec<Front>> {
    let has = |list: &[ContainerInfo]| list.iter().any(|c| c.name == name && on(c, network));
    let found: Vec<Front> = answers
        .into_iter()
        .filter(|(_, list)| has(list))
        .map(|(front, _)| front)
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
pub(crate) fn container(args: &ContainerArgs) -> Result<(Front, ContainerInfo)> {
    let network = args.network.as_deref();
    let answers = ask_all::<Vec<ContainerInfo>>(network, &Call::Containers)?;
    pick(&args.container, network, answers)
}

/// Finds a container by its name, wherever it is.
pub(crate) fn container_named(name: &str) -> Result<(Front, ContainerInfo)> {
    pick(name, None, ask_all(None, &Call::Containers)?)
}

fn pick(
    name: &str,
    network: Option<&str>,
    answers: Vec<(Front, Vec<ContainerInfo>)>,
) -> Result<(Front, ContainerInfo)> {
    let mut found: Vec<(Front, ContainerInfo)> = answers
        .into_iter()
        .flat_map(|(front, list)| list.into_iter().map(move |c| (front.clone(), c)))
        .filter(|(_, c)| c.name == name && on(c, network))
        .collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(no_container(name)),
        _ => {
            let networks: Vec<&str> = found
                .iter()
                .filter_map(|(_, c)| c.endpoints.first().map(|e| e.network.as_str()))
                .collect();
            bail!(
                "containers named {name} run on the networks {}: choose one with --network",
                networks.join(", ")
            )
        }
    }
}
