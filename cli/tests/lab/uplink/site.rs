//! The two routers, with the same containers behind them and the same world before them.

use std::net::IpAddr;

use pontoon_fixtures::lab::{Bare, Daemon, KernelNat, Place, Published, Wan, Who, World};

/// Who routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The kernel.
    Kernel,
    /// Pontoon.
    Pontoon,
}

/// Two containers behind a router, `a` at 10.44.0.2 and fd44::2, `b` at 10.44.0.3 and fd44::3.
pub(super) struct Site<'w> {
    pub(super) world: &'w World,
    pub(super) a: Bare<'w>,
    pub(super) b: Bare<'w>,
    router: Router<'w>,
    _wan: Wan<'w>,
}

enum Router<'w> {
    Kernel(KernelNat<'w>),
    Pontoon(Daemon<'w>),
}

/// The router's addresses outside.
pub(super) const OUTSIDE: &str = "100.64.7.77";
pub(super) const OUTSIDE6: &str = "2001:db8:7::77";

impl<'w> Site<'w> {
    /// The usual one: an MTU of 1500 bytes inside, everything else as it is by default.
    pub(super) fn new(world: &'w World, way: Way) -> Self {
        Self::with(world, way, 1500, &[])
    }

    /// One with another MTU inside, and options of `network create` for Pontoon's.
    pub(super) fn with(world: &'w World, way: Way, mtu: u32, options: &[&str]) -> Self {
        let wan = Wan::new(world);
        let (a, b) = (Bare::start(world, Who::Root), Bare::start(world, Who::Root));
        let router = match way {
            Way::Kernel => {
                let nat = KernelNat::new(&wan, mtu);
                nat.attach(&a, 2);
                nat.attach(&b, 3);
                Router::Kernel(nat)
            }
            Way::Pontoon => {
                let daemon = Daemon::start(world, Who::Root);
                create(&daemon, "net", mtu, options);
                wan.plugged();
                attach(&daemon, "net", "a", &a, 2);
                attach(&daemon, "net", "b", &b, 3);
                Router::Pontoon(daemon)
            }
        };
        Self {
            world,
            a,
            b,
            _wan: wan,
            router,
        }
    }

    /// The neighbour outside.
    pub(super) fn near(&self) -> Place<'w> {
        self.world.place("near")
    }

    /// The daemon, where Pontoon routes.
    pub(super) fn daemon(&self) -> Option<&Daemon<'w>> {
        match &self.router {
            Router::Kernel(_) => None,
            Router::Pontoon(daemon) => Some(daemon),
        }
    }

    /// The same, to end it and start it again.
    pub(super) fn daemon_mut(&mut self) -> Option<&mut Daemon<'w>> {
        match &mut self.router {
            Router::Kernel(_) => None,
            Router::Pontoon(daemon) => Some(daemon),
        }
    }

    /// Publishes a port of a container, in Docker's grammar.
    pub(super) fn publish(&self, container: &str, what: &str) {
        match &self.router {
            Router::Kernel(nat) => nat.publish(published(container, what)),
            Router::Pontoon(daemon) => drop(daemon.run(["publish", container, what])),
        }
    }

    /// Takes it back.
    pub(super) fn unpublish(&self, container: &str, what: &str) {
        match &self.router {
            Router::Kernel(nat) => nat.unpublish(&published(container, what)),
            Router::Pontoon(daemon) => drop(daemon.run(["unpublish", container, what])),
        }
    }

    /// Denies clients with an address of `from` a TCP port of a container.
    pub(super) fn deny(&self, container: &str, port: u16, from: &str) {
        match &self.router {
            Router::Kernel(nat) => {
                let n = number(container);
                nat.deny(if from.contains(':') {
                    format!("ip6 saddr {from} ip6 daddr fd44::{n} tcp dport {port}")
                } else {
                    format!("ip saddr {from} ip daddr 10.44.0.{n} tcp dport {port}")
                });
            }
            Router::Pontoon(daemon) => {
                drop(daemon.run([
                    "rule",
                    "add",
                    "deny",
                    &format!("{container}:{port}"),
                    "--from",
                    from,
                ]));
            }
        }
    }

    /// All flows, as `conntrack -L` and `pontoon conntrack ls` show them.
    pub(super) fn flows(&self) -> Vec<String> {
        match &self.router {
            Router::Kernel(nat) => nat.flows(),
            Router::Pontoon(daemon) => {
                let all = daemon.run(["conntrack", "ls", "--network", "net"]);
                all.lines().map(str::to_owned).collect()
            }
        }
    }

    /// Forgets all flows.
    pub(super) fn flush(&self) {
        match &self.router {
            Router::Kernel(nat) => nat.flush(),
            Router::Pontoon(daemon) => drop(daemon.run(["conntrack", "flush", "--network", "net"])),
        }
    }

    /// Takes all such rules back.
    pub(super) fn allow_all(&self) {
        match &self.router {
            Router::Kernel(nat) => nat.allow_all(),
            Router::Pontoon(daemon) => {
                let all = daemon.json(["rule", "ls", "--json"]);
                for rule in all.as_array().expect("rules") {
                    daemon.run(["rule", "rm", &rule["id"].to_string()]);
                }
            }
        }
    }
}

/// A network of the daemon's with the usual addresses and a link to the world by a veth pair.
pub(super) fn create(daemon: &Daemon<'_>, name: &str, mtu: u32, options: &[&str]) {
    let mtu = mtu.to_string();
    let mut all = vec!["--subnet", "10.44.0.0/24", "--subnet", "fd44::/64", "--mtu", &mtu];
    all.extend(["--uplink", "veth:wan0@router", "--opt", "uplink-mtu=1500"]);
    all.extend(Wan::ADDRESSED);
    all.extend(options);
    daemon.create(name, &all);
}

/// Puts a namespace on a network, at the address 10.44.0.`number` and its like of IPv6.
pub(super) fn attach(daemon: &Daemon<'_>, network: &str, name: &str, bare: &Bare<'_>, number: u8) {
    let endpoint = format!("{network}:ip=10.44.0.{number},ip6=fd44::{number}");
    let pid = bare.pid.to_string();
    // One of each kind of interface.
    let veth = (number % 2 == 1).then_some("--veth");
    daemon
        .pontoon(["attach", &pid, "--name", name, "--network", &endpoint])
        .args(veth)
        .run()
        .ok();
}

fn number(container: &str) -> u8 {
    match container {
        "a" => 2,
        "b" => 3,
        _ => panic!("no container {container}"),
    }
}

/// `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTOCOL]` as the kernel's router takes it.
fn published(container: &str, what: &str) -> Published {
    let (what, protocol) = what.split_once('/').unwrap_or((what, "tcp"));
    let (what, inside) = what.rsplit_once(':').expect("a port inside");
    let (at, outside) = match what.rsplit_once(':') {
        Some((at, outside)) => (Some(at.trim_matches(['[', ']'])), outside),
        None => (None, what),
    };
    let range = |s: &str| -> (u16, u16) {
        let (first, last) = s.split_once('-').unwrap_or((s, s));
        (first.parse().expect("a port"), last.parse().expect("a port"))
    };
    let ((first, last), (inside, _)) = (range(outside), range(inside));
    Published {
        at: at.map(|a| a.parse::<IpAddr>().expect("an address")),
        protocol: protocol.to_owned(),
        outside: first,
        inside,
        count: last - first + 1,
        container: number(container),
    }
}
