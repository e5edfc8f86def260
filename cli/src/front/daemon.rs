//! `pontoon daemon`: the front of user-defined networks.
//!
//! It runs in the foreground, says `READY=1` to a service manager that wants to hear it (`sd_notify(3)`), and ends on
//! SIGTERM or SIGINT. Its networks and whatever hangs on them come back when it starts again; see [`super::state`]. A
//! second daemon on the same socket is refused.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pontoon_switch::sys::process::Signals;
use rustix::process::Signal;
use serde::Deserialize;

use super::plan::{Choice, Plan};
use super::registry::{Front, Life};
use super::serve::{self, Also, Shared};
use super::state::{self, StateFile};
use crate::api::NetworkSpec;
use crate::args::DaemonArgs;
use crate::control;
use crate::limits::raise_open_files;
use crate::notify;
use crate::resolv::ResolvConf;

/// Where networks without a subnet get theirs from, unless the configuration says otherwise.
const POOL: &str = "10.89.0.0/16";
/// Prefix length of what they get.
const POOL_SIZE: u8 = 24;

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Config {
    /// The control socket.
    socket: Option<PathBuf>,
    /// The state file.
    state: Option<PathBuf>,
    /// Ranges that networks without a subnet get theirs from.
    subnet_pools: Vec<SubnetPool>,
    /// Networks that there are to be.
    network: Vec<NetworkSpec>,
}

/// A range that subnets are cut from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SubnetPool {
    /// The range.
    base: Ipv4Net,
    /// Prefix length of the subnets.
    size: u8,
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot use the configuration file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(what)?;
        let config: Self = toml::from_str(&text)
            .map_err(|e| anyhow!("{e}"))
            .with_context(what)?;
        for pool in &config.subnet_pools {
            ensure!(
                pool.size >= pool.base.prefix_len() && pool.size <= 30,
                "{}: subnets of /{} cannot be cut from {}",
                what(),
                pool.size,
                pool.base
            );
        }
        Ok(config)
    }
}

/// The daemon's main function.
///
/// # Errors
/// Whatever kept it from starting, or from going on.
pub(crate) fn main(args: &DaemonArgs) -> Result<ExitCode> {
    let ending = [Signal::TERM.as_raw(), Signal::INT.as_raw(), Signal::HUP.as_raw()];
    let signals = Signals::take(&ending).context("cannot take over signals")?;
    raise_open_files();
    // It executes nothing but this program, which gains nothing by it.
    rustix::thread::set_no_new_privs(true)?;
    let config = args
        .config
        .as_deref()
        .map(Config::read)
        .transpose()?
        .unwrap_or_default();
    let socket = match args.socket.clone().or(config.socket) {
        Some(path) => std::path::absolute(path)?,
        None => {
            // The directory is made where it is the usual one only.
            let path = control::daemon_socket()?;
            if path.parent() == Some(&control::control_dir()?) {
                control::create_control_dir()?;
            }
            path
        }
    };
    let directory = socket.parent().unwrap_or(Path::new("/")).to_owned();
    control::sweep(&directory);
    // First, as it says whether there is a daemon already. Whoever comes meanwhile waits.
    let listener = control::listen_daemon(&socket)?;
    let ended = serve_networks(
        args,
        config.state,
        config.network,
        config.subnet_pools,
        &directory,
        &signals,
        &listener,
    );
    control::remove_daemon(&socket, listener);
    ended.map(|()| ExitCode::SUCCESS)
}

fn serve_networks(
    args: &DaemonArgs,
    state: Option<PathBuf>,
    networks: Vec<NetworkSpec>,
    pools: Vec<SubnetPool>,
    directory: &Path,
    signals: &Signals,
    listener: &std::os::unix::net::UnixListener,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let path = args
        .state
        .clone()
        .or(state)
        .unwrap_or_else(|| state::default_path(directory));
    let (file, restored) = StateFile::open(std::path::absolute(path)?)?;
    let mut front = Front::new(Life::Daemon(file), ResolvConf::of_host());
    front.sandbox = args.sandbox.options();
    if !pools.is_empty() {
        front.subnet_pools = pools;
    }
    let begun = restored
        .into_front(&mut front)
        .and_then(|()| create_configured(&mut front, networks));
    if let Err(e) = begun {
        front.end();
        return Err(e);
    }
    let shared = Shared::new(front)?;
    // A service manager that has gone away since is no reason to end.
    if let Err(e) = notify::tell(notify::READY) {
        tracing::warn!("the service manager cannot be told that the daemon is ready: {e}");
    }
    let mut also = Ending { signals };
    let result = serve::watch(&shared, listener, &mut also);
    let _ = notify::tell(notify::STOPPING);
    shared.closed();
    shared.front().end();
    result
}

/// Makes those of the configuration's networks that there are not yet.
fn create_configured(front: &mut Front, networks: Vec<NetworkSpec>) -> Result<()> {
    for spec in networks {
        let name = spec.name.clone();
        crate::args::parse_network(&name).map_err(|e| anyhow!("network `{name}`: {e}"))?;
        if front.networks.contains_key(&name) {
            continue;
        }
        ensure!(
            !Chooser::is_private(&name),
            "the configuration's network {name} has the name of a private network that is running: choose another"
        );
        let own = rustix::process::geteuid().as_raw();
        let plan = Plan::of_spec(spec, own, &mut Chooser::new(front));
        plan.and_then(|plan| front.keep(plan).map_err(|e| e.error))
            .with_context(|| format!("cannot make the configuration's network {name}"))?;
        front.save_or_log();
    }
    Ok(())
}

/// The signals that end the daemon.
struct Ending<'a> {
    signals: &'a Signals,
}

impl Also for Ending<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signals.as_fd())
    }

    fn ready(&mut self, _: &Shared) -> Result<bool> {
        let mut end = false;
        while let Some(signal) = self.signals.next()? {
            // A hangup is for daemons that read their configuration again, which this one does not.
            end |= signal.number != Signal::HUP.as_raw();
        }
        Ok(!end)
    }

    fn is_alone(&self) -> bool {
        false
    }
}

/// The pools that there are unless the configuration names others.
pub(super) fn default_pools() -> Vec<SubnetPool> {
    let base = POOL.parse().ok();
    base.map(|base| SubnetPool {
        base,
        size: POOL_SIZE,
    })
    .into_iter()
    .collect()
}

/// Chooses ranges that no other network has, and that no address of the host is in.
pub(super) struct Chooser {
    pools: Vec<SubnetPool>,
    ula: Option<Ipv6Net>,
    taken: Vec<IpNet>,
}

impl Chooser {
    /// One that knows the networks of `front`.
    pub(super) fn new(front: &Front) -> Self {
        let subnets = front.networks.values().flat_map(|n| &n.plan.subnets);
        Self {
            pools: front.subnet_pools.clone(),
            ula: match &front.life {
                Life::Private { .. } => None,
                Life::Daemon(file) => Some(file.ula),
            },
            taken: subnets.map(|s| s.net).collect(),
        }
    }

    /// Whether a private network of that name is running.
    pub(super) fn is_private(name: &str) -> bool {
        control::existing_control_dir()
            .ok()
            .flatten()
            .is_some_and(|directory| control::is_running(&directory, name))
    }
}

impl Choice for Chooser {
    fn avoid(&mut self, net: IpNet) {
        self.taken.push(net);
    }

    fn subnet4(&mut self) -> Result<IpNet> {
        let of_host: Vec<IpAddr> = pnet::datalink::interfaces()
            .into_iter()
            .flat_map(|i| i.ips)
            .map(|ip| ip.ip())
            .collect();
        for pool in &self.pools {
            for subnet in pool.base.subnets(pool.size).into_iter().flatten() {
                let subnet = IpNet::V4(subnet);
                let overlaps = |other: &IpNet| other.contains(&subnet) || subnet.contains(other);
                if !self.taken.iter().any(overlaps) && !of_host.iter().any(|ip| subnet.contains(ip)) {
                    self.taken.push(subnet);
                    return Ok(subnet);
                }
            }
        }
        bail!(
            "no subnet is left to choose: give --subnet, remove a network, or name subnet-pools in the configuration"
        )
    }

    fn subnet6(&mut self) -> Result<IpNet> {
        let Some(ula) = self.ula else {
            bail!("give --subnet with a range of IPv6");
        };
        let prefix = ula.network().to_bits();
        (0..=u16::MAX)
            .map(|n| Ipv6Addr::from(prefix | u128::from(n) << 64))
            .filter_map(|address| Ipv6Net::new(address, 64).ok())
            .map(IpNet::V6)
            .find(|net| !self.taken.iter().any(|t| t.contains(net) || net.contains(t)))
            .context("no subnet of IPv6 is left to choose: give --subnet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_that_are_chosen_are_nobody_elses() {
        let mut chooser = Chooser {
            pools: vec![SubnetPool {
                base: "198.18.0.0/22".parse().expect("a range"),
                size: 24,
            }],
            ula: Some("fd11:2233:4455::/48".parse().expect("a range")),
            taken: vec![
                "198.18.0.128/25".parse().expect("a range"),
                "fd11:2233:4455::/64".parse().expect("a range"),
            ],
        };
        let chosen: Vec<String> = std::iter::from_fn(|| chooser.subnet4().ok())
            .map(|n| n.to_string())
            .collect();
        assert_eq!(chosen, ["198.18.1.0/24", "198.18.2.0/24", "198.18.3.0/24"]);
        assert!(
            chooser
                .subnet4()
                .expect_err("none")
                .to_string()
                .contains("--subnet")
        );
        assert_eq!(
            chooser.subnet6().expect("one").to_string(),
            "fd11:2233:4455:1::/64"
        );
    }

    #[test]
    fn the_configuration_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("daemon.toml");
        std::fs::write(
            &file,
            "subnet-pools = [{ base = \"10.200.0.0/16\", size = 26 }]\n\n\
             [[network]]\nname = \"web\"\nsubnets = [\"172.20.0.0/16\"]\nicc = false\noptions = { storm = \"off\" }\n",
        )
        .expect("written");
        let config = Config::read(&file).expect("a configuration");
        assert_eq!(config.network[0].name, "web");
        assert!(!config.network[0].icc);
        assert_eq!(config.subnet_pools[0].size, 26);
        for (text, says) in [
            ("colour = 1\n", "colour"),
            ("subnet-pools = [{ base = \"10.0.0.0/24\", size = 20 }]\n", "/20"),
        ] {
            std::fs::write(&file, text).expect("written");
            let error = format!("{:#}", Config::read(&file).expect_err(text));
            assert!(error.contains(says) && error.contains("daemon.toml"), "{error}");
        }
    }
}
