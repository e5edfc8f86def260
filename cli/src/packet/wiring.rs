//! The packet process's commands, done on the switch and its gateway.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::Receiver;
use pontoon_nat::gateway::{Endpoint, Gateway, Published, Secrets};
use pontoon_nat::host::real::RealHost;
use pontoon_nat::publish::RuleId;
use pontoon_switch::fdb::Origin;
use pontoon_switch::port::tap;
use pontoon_switch::port::veth::VethPort;
use pontoon_switch::sys::fd::open_count;
use pontoon_switch::{
    DropCounters, Features, Handle, Instant, MacAddr, Network, Policy, Port, PortConfig, PortId, PortStatus,
    Worker, worker,
};
use rustix::process::{Resource, getrlimit};

use super::one;
use super::protocol::{Command, Counters, Event, FdbEntry, NetworkConfig, PAGE, PortKind, Reply, Rule};
use crate::api::PortStats;
use crate::capture::Recorder;

type Gw = Gateway<RealHost>;

/// Descriptors that no container gets, besides those that are open from the start: for the sockets by which name servers are
/// asked for a container, clients of an API, and ports that are passed. At most so many, of few a sixteenth, and never less
/// than the least.
const OWN_DESCRIPTORS: u64 = 320;
const LEAST_OWN_DESCRIPTORS: u64 = 32;

/// A running network, from the packet process's main thread.
pub(crate) struct Wiring {
    handle: Handle<Gw>,
    worker: Option<JoinHandle<()>>,
    captures: BTreeMap<u32, Recorder>,
    /// The containers' addresses, by port.
    addresses: BTreeMap<u32, Vec<IpAddr>>,
}

/// A network that is made but not running: no thread has been started.
pub(crate) struct Prepared {
    worker: Worker<Gw>,
    events: Receiver<worker::Event>,
}

impl Prepared {
    /// Makes the network, which pings by the sockets `raw` where it has them. Whatever takes a look at the host is done here.
    pub(crate) fn new(config: NetworkConfig, raw: Vec<OwnedFd>) -> Result<Self> {
        let builder = Worker::builder().context("cannot make the network's poll")?;
        let registrar = builder.registrar().context("cannot make the network's poll")?;
        let host = RealHost::new(registrar, Features::from_env(), config.outbound)
            .context("cannot make outgoing sockets")?;
        let secrets = Secrets::random().context("cannot get random numbers")?;
        let mut gateway = Gateway::new(config.gateway, host, secrets);
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            // Without /proc it is a guess.
            let open = open_count().unwrap_or(16) as u64;
            let kept = (limit / 16).clamp(LEAST_OWN_DESCRIPTORS, OWN_DESCRIPTORS) + open;
            gateway.limit_sockets(u32::try_from(limit.saturating_sub(kept)).unwrap_or(u32::MAX));
            gateway.limit_name_sockets(usize::try_from(limit / 16).unwrap_or(usize::MAX));
        }
        for socket in raw {
            gateway
                .set_raw_socket(socket)
                .context("cannot use a raw ICMP socket")?;
        }
        let events = builder.events();
        let worker = builder
            .start(gateway)
            .context("cannot make the network's worker")?;
        Ok(Self { worker, events })
    }

    /// Starts the worker; `report` is called, in a thread of its own, for what happens by itself.
    pub(crate) fn start(self, report: impl Fn(Event) + Send + 'static) -> Result<Wiring> {
        let Self { worker, events } = self;
        let handle = worker.handle();
        std::thread::Builder::new().name("events".into()).spawn(move || {
            for event in events {
                match event {
                    worker::Event::PortClosed { id, name: _, error } => {
                        report(Event::PortClosed {
                            port: id.0,
                            error: error.to_string(),
                        });
                    }
                }
            }
        })?;
        let thread = std::thread::Builder::new().name("worker".into()).spawn(move || {
            if let Err(e) = worker.run() {
                tracing::error!("the network's worker ended: {e}");
            }
        })?;
        Ok(Wiring {
            handle,
            worker: Some(thread),
            captures: BTreeMap::new(),
            addresses: BTreeMap::new(),
        })
    }
}

impl Wiring {
    /// Does one command.
    pub(super) fn obey(&mut self, command: Command, fds: Vec<OwnedFd>) -> Result<Reply> {
        if self.worker.as_ref().is_none_or(JoinHandle::is_finished) {
            bail!("the network's worker has ended");
        }
        match command {
            Command::Configure(_) => bail!("the network is configured already"),
            Command::AddPort {
                name,
                kind,
                mac,
                addresses,
                mtu,
                capture,
            } => {
                let mut fds = fds;
                let file = if capture { fds.pop() } else { None };
                if capture != file.is_some() {
                    bail!("no descriptor came for the capture");
                }
                let port = adopt(kind, one(fds)?, mtu)?;
                self.add_port(name, mac, addresses, port, file).map(Reply::Port)
            }
            Command::RemovePort { port } => {
                self.remove_port(port)?;
                Ok(Reply::Done)
            }
            Command::Publish { port, rules } => self.publish(port, rules, fds).map(Reply::Rules),
            Command::Unpublish { rules } => {
                self.unpublish(rules)?;
                Ok(Reply::Done)
            }
            Command::SetResolvers { resolvers } => {
                self.set_resolvers(resolvers)?;
                Ok(Reply::Done)
            }
            Command::SetHosts { hosts } => {
                self.handle
                    .call(move |network, _| network.station_mut().set_hosts(hosts))?;
                Ok(Reply::Done)
            }
            Command::Flows { port, from } => {
                let port = port.map(PortId);
                let (flows, next) = self
                    .handle
                    .call(move |network, now| network.station().flows(now, port, from, PAGE))?;
                Ok(Reply::Flows {
                    flows: flows.into_iter().map(|(port, flow)| (port.0, flow)).collect(),
                    next,
                })
            }
            Command::FlushFlows { port } => {
                let port = port.map(PortId);
                let flushed = self.handle.call(move |network, now| {
                    network.with_station(now, |gateway, out| gateway.flush_flows(now, port, out))
                })?;
                Ok(Reply::Flushed(flushed))
            }
            Command::Fdb { offset } => Ok(Reply::Fdb(self.fdb(offset)?)),
            Command::Stats { offset } => Ok(Reply::Stats(Box::new(self.stats(offset)?))),
            Command::Ping => Ok(Reply::Done),
        }
    }

    fn add_port(
        &mut self,
        name: String,
        mac: MacAddr,
        addresses: Vec<IpAddr>,
        port: Box<dyn Port>,
        capture: Option<OwnedFd>,
    ) -> Result<u32> {
        let policy = Policy::container(mac, addresses.iter().map(|&a| a.into()));
        let (id, now) = self.attach(port, name.clone(), policy, mac, addresses.clone())?;
        self.addresses.insert(id.0, addresses);
        if let Some(file) = capture {
            let started = Recorder::start(file.into(), &name, now).context("cannot write the capture file");
            let (recorder, hook) = match started {
                Ok(started) => started,
                Err(e) => {
                    self.remove_port(id.0)?;
                    return Err(e);
                }
            };
            self.handle
                .call(move |network, _| network.set_tap(id, Some(hook)))?;
            self.captures.insert(id.0, recorder);
        }
        Ok(id.0)
    }

    /// Adds `port` to the switch, and makes what is behind it known to the gateway. Without `addresses` that finds its
    /// addresses for itself, and `mac` means nothing.
    ///
    /// # Errors
    /// Those of [`Network::add_port`], and the worker's end.
    pub(crate) fn attach(
        &self,
        port: Box<dyn Port>,
        name: String,
        policy: Policy,
        mac: MacAddr,
        addresses: Vec<IpAddr>,
    ) -> Result<(PortId, Instant)> {
        let config = PortConfig {
            name: name.clone(),
            policy,
        };
        let attached = self.handle.call(move |network, now| {
            let id = network.add_port(now, port, config)?;
            network.station_mut().attach(Endpoint {
                port: id,
                names: vec![name.clone()],
                name,
                mac,
                addresses,
            });
            Ok::<_, std::io::Error>((id, now))
        })??;
        Ok(attached)
    }

    fn remove_port(&mut self, port: u32) -> Result<()> {
        let id = PortId(port);
        self.addresses.remove(&port);
        self.handle.call(move |network, now| {
            // While the port is there, so that what ends can still be told to the container.
            network.with_station(now, |gateway, out| gateway.detach(now, id, out));
            network.set_tap(id, None);
            network.remove_port(id);
        })?;
        if let Some(recorder) = self.captures.remove(&port) {
            recorder.finish();
        }
        Ok(())
    }

    fn publish(&mut self, port: u32, rules: Vec<Rule>, fds: Vec<OwnedFd>) -> Result<Vec<u32>> {
        if rules.len() != fds.len() {
            bail!(
                "{} descriptors came for {} published ports",
                fds.len(),
                rules.len()
            );
        }
        let addresses = self
            .addresses
            .get(&port)
            .with_context(|| format!("there is no port {port}"))?;
        let mut published = Vec::with_capacity(rules.len());
        for (rule, socket) in rules.into_iter().zip(fds) {
            let same_version = |a: &&IpAddr| a.is_ipv4() == rule.host.is_ipv4();
            let ip = addresses.iter().find(same_version).with_context(|| {
                format!(
                    "{} cannot be published: the container has no address of that IP version",
                    rule.host
                )
            })?;
            published.push(Published {
                port: PortId(port),
                transport: rule.protocol,
                container: SocketAddr::new(*ip, rule.container_port),
                socket,
            });
        }
        self.lead(published)
    }

    /// Leads the clients of sockets to containers, all or none; the numbers of the new rules.
    ///
    /// # Errors
    /// A socket is not of its kind, or the worker has ended.
    pub(crate) fn lead(&self, published: Vec<Published>) -> Result<Vec<u32>> {
        let ids = self.handle.call(move |network, _| {
            let gateway = network.station_mut();
            let mut ids = Vec::with_capacity(published.len());
            for p in published {
                match gateway.publish(p) {
                    Ok(id) => ids.push(id),
                    Err(e) => {
                        for id in ids {
                            gateway.unpublish(id);
                        }
                        return Err(e);
                    }
                }
            }
            Ok(ids)
        })?;
        let ids = ids.map_err(|e| anyhow!("the gateway cannot use the socket: {e}"))?;
        Ok(ids.into_iter().map(|id| id.0).collect())
    }

    /// Takes rules back, and closes their sockets.
    ///
    /// # Errors
    /// The worker has ended.
    pub(crate) fn unpublish(&self, rules: Vec<u32>) -> Result<()> {
        self.handle.call(move |network, _| {
            for rule in rules {
                network.station_mut().unpublish(RuleId(rule));
            }
        })?;
        Ok(())
    }

    /// Has the gateway ask these name servers from now on.
    ///
    /// # Errors
    /// The worker has ended.
    pub(crate) fn set_resolvers(&self, resolvers: Vec<SocketAddr>) -> Result<()> {
        self.handle
            .call(move |network, _| network.station_mut().set_resolvers(resolvers))?;
        Ok(())
    }

    fn fdb(&self, offset: usize) -> Result<Vec<FdbEntry>> {
        let rows = self.handle.call(move |network, now| {
            network
                .fdb(now)
                .skip(offset)
                .take(PAGE)
                .map(|e| (e.port, e))
                .collect::<Vec<_>>()
        })?;
        Ok(rows
            .into_iter()
            .map(|(port, e)| FdbEntry {
                port: (port != PortId::STATION).then_some(port.0),
                vlan: e.vlan,
                mac: e.mac,
                age: match e.origin {
                    Origin::Learned => Some(e.age.as_secs()),
                    Origin::Static => None,
                },
            })
            .collect())
    }

    fn stats(&self, offset: usize) -> Result<Counters> {
        let counters = self.handle.call(move |network: &mut Network<Gw>, _| Counters {
            ports: network.ports().skip(offset).take(PAGE).map(port_stats).collect(),
            gateway_drops: drops(network.station_drops()),
            flows: network.station().flow_counts(),
            flows_total: network.station().table().len() as u64,
            flows_max: network.station().table().limits().total.into(),
        })?;
        Ok(counters)
    }

    /// Ends the worker and finishes the captures.
    pub(crate) fn end(mut self) {
        let ports: Vec<u32> = self.captures.keys().copied().collect();
        for port in ports {
            // If the worker has ended, its hooks went with it.
            if self.remove_port(port).is_err()
                && let Some(recorder) = self.captures.remove(&port)
            {
                recorder.finish();
            }
        }
        self.handle.stop();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// The port for a descriptor of that kind.
fn adopt(kind: PortKind, fd: OwnedFd, mtu: u32) -> Result<Box<dyn Port>> {
    let features = Features::from_env();
    match kind {
        PortKind::Tap => tap::adopt(fd, mtu, features).context("cannot use the container's TAP"),
        PortKind::Packet => match VethPort::adopt(fd, features) {
            Ok(port) => Ok(Box::new(port)),
            Err(e) => Err(e).context("cannot use the interface's packet socket"),
        },
    }
}

fn port_stats(port: PortStatus) -> PortStats {
    PortStats {
        port: port.id.0,
        name: port.name,
        kind: port.kind.to_owned(),
        mtu: port.mtu,
        rx_frames: port.rx.frames,
        rx_bytes: port.rx.bytes,
        tx_frames: port.tx.frames,
        tx_bytes: port.tx.bytes,
        drops: drops(&port.drops),
    }
}

fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters
        .nonzero()
        .map(|(reason, n)| (reason.name().to_owned(), n))
        .collect()
}
