//! The packet process's commands, done on the switch and its gateway.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use crossbeam_channel::Receiver;
use pontoon_nat::gateway::{Endpoint, Gateway, Secrets};
use pontoon_nat::host::real::RealHost;
use pontoon_nat::publish::Transport;
use pontoon_switch::fdb::Origin;
use pontoon_switch::sys::fd::open_count;
use pontoon_switch::{
    Features, Handle, Instant, MacAddr, Network, Policy, Port, PortConfig, PortId, StationPlace, VlanId,
    Worker, worker,
};
use rustix::process::{Resource, getrlimit};

use super::one;
use super::protocol::{Behind, Command, Counters, Event, FdbEntry, NetworkConfig, PAGE, PortSettings, Reply};
use crate::capture::Recorder;

mod convert;
mod leading;

use convert::{adopt, drops, policy, port_stats, service, source_rule};

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

/// Who is behind a port, as the gateway is told.
pub(crate) struct Named {
    /// Its names, its own first.
    pub(crate) names: Vec<String>,
    /// Its MAC address.
    pub(crate) mac: MacAddr,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A network that is made but not running: no thread has been started.
pub(crate) struct Prepared {
    worker: Worker<Gw>,
    events: Receiver<worker::Event>,
    /// Where on the switch the gateway is to be.
    place: StationPlace,
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
        let place = match VlanId::new(config.gateway_vlan) {
            Some(id) => StationPlace::Vlan(id),
            None if gateway.config().has_subnet() => StationPlace::Untagged,
            None => StationPlace::Absent,
        };
        let events = builder.events();
        let worker = builder
            .start(gateway)
            .context("cannot make the network's worker")?;
        Ok(Self {
            worker,
            events,
            place,
        })
    }

    /// Starts the worker; `report` is called, in a thread of its own, for what happens by itself.
    pub(crate) fn start(self, report: impl Fn(Event) + Send + 'static) -> Result<Wiring> {
        let Self {
            worker,
            events,
            place,
        } = self;
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
        handle.call(move |network, _| network.place_station(place))??;
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
            Command::AddPort(settings) => {
                let mut fds = fds;
                let file = if settings.capture { fds.pop() } else { None };
                if settings.capture != file.is_some() {
                    bail!("no descriptor came for the capture");
                }
                let port = adopt(settings.kind, one(fds)?, settings.mtu)?;
                self.add_port(*settings, port, file).map(Reply::Port)
            }
            Command::SetLink {
                client,
                server,
                ports,
            } => {
                self.set_link(PortId(client), PortId(server), ports)?;
                Ok(Reply::Done)
            }
            Command::SetNames { port, names } => {
                self.handle
                    .call(move |network, _| network.station_mut().set_endpoint_names(PortId(port), names))?;
                Ok(Reply::Done)
            }
            Command::SetView { port, names } => {
                self.handle
                    .call(move |network, _| network.station_mut().set_view(PortId(port), names))?;
                Ok(Reply::Done)
            }
            Command::SetSources {
                port,
                protocol,
                container_port,
                sources,
            } => {
                let rules = sources.into_iter().map(source_rule).collect();
                self.handle.call(move |network, _| {
                    network
                        .station_mut()
                        .set_sources(PortId(port), protocol, container_port, rules)
                })?;
                Ok(Reply::Done)
            }
            Command::RemovePort { port } => {
                self.remove_port(port)?;
                Ok(Reply::Done)
            }
            Command::Publish { port, rules } => self.publish(port, rules, fds).map(Reply::Rules),
            Command::PublishRouted { port, rules } => self.publish_routed(port, rules).map(Reply::Rules),
            Command::AddUplink(settings) => self.add_uplink(*settings, one(fds)?).map(Reply::Port),
            Command::UplinkUp { port } => {
                self.uplink_up(port)?;
                Ok(Reply::Done)
            }
            Command::SetRoutes { routes } => {
                self.handle.call(move |network, now| {
                    network.with_station(now, |gateway, out| gateway.set_routes(now, routes, out));
                })?;
                Ok(Reply::Done)
            }
            Command::Uplinks => {
                let uplinks = self.handle.call(|network, _| network.station().uplinks())?;
                let numbered = uplinks.into_iter().map(|(port, status)| (port.0, status));
                Ok(Reply::Uplinks(numbered.collect()))
            }
            Command::SetBehind { port, nets } => {
                self.set_behind(port, &nets)?;
                Ok(Reply::Done)
            }
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
        settings: PortSettings,
        port: Box<dyn Port>,
        capture: Option<OwnedFd>,
    ) -> Result<u32> {
        let policy = policy(&settings);
        let (mac, addresses) = match settings.behind {
            Behind::Container { mac, addresses } => (Some(mac), addresses.unwrap_or_default()),
            Behind::Anyone => (None, Vec::new()),
        };
        let name = settings.name;
        let endpoint = mac.map(|mac| Named {
            names: settings.names,
            mac,
            addresses: addresses.clone(),
        });
        let (id, now) = self.attach(port, name.clone(), policy, endpoint)?;
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

    fn set_link(&self, client: PortId, server: PortId, ports: Option<Vec<(Transport, u16)>>) -> Result<()> {
        let services = ports.map(|ports| ports.into_iter().map(service).collect::<Vec<_>>());
        self.handle.call(move |network, _| match services {
            Some(services) => network.set_link(client, server, &services),
            None => network.remove_link(client, server),
        })?;
        Ok(())
    }

    /// Adds `port` to the switch, and makes what is behind it known to the gateway; nobody in particular if there is no
    /// `endpoint`. One without addresses finds them for itself, and its MAC address means nothing.
    ///
    /// # Errors
    /// Those of [`Network::add_port`], and the worker's end.
    pub(crate) fn attach(
        &self,
        port: Box<dyn Port>,
        name: String,
        policy: Policy,
        endpoint: Option<Named>,
    ) -> Result<(PortId, Instant)> {
        let config = PortConfig {
            name: name.clone(),
            policy,
        };
        let attached = self.handle.call(move |network, now| {
            let id = network.add_port(now, port, config)?;
            let Named {
                names,
                mac,
                addresses,
            } = endpoint.unwrap_or(Named {
                names: vec![name.clone()],
                mac: MacAddr([0; 6]),
                addresses: Vec::new(),
            });
            network.station_mut().attach(Endpoint {
                port: id,
                name,
                names,
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
        // Closed in this thread, so that nobody's frames wait for it.
        let _port = self.handle.call(move |network, now| {
            // While the port is there, so that what ends can still be told to the container.
            network.with_station(now, |gateway, out| {
                gateway.detach(now, id, out);
                gateway.remove_uplink(id, out);
            });
            network.set_tap(id, None);
            network.remove_port(id)
        })?;
        if let Some(recorder) = self.captures.remove(&port) {
            recorder.finish();
        }
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
