//! A hostile container, in either of the two ways in which there can be one.

use std::collections::BTreeMap;
use std::time::Duration;

use pontoon_fixtures::lab::{Cmd, Container, Proc, Who, World, wait_for};

/// The container's interface on a network of `pontoon slirp4netns`, and where that listens.
const TAP: &str = "tap0";
const API: &str = "/tmp/slirp.sock";

/// The server in the world that containers may reach, as `lab-hostile` takes it.
const SERVER: &str = "02:00:00:00:00:01,198.51.100.10,2001:db8:2::10";

/// How a hostile container comes to its network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// By `pontoon run`, with another container on the same network.
    Run,
    /// By `pontoon slirp4netns`, alone.
    Slirp,
}

/// A hostile container that runs.
pub(crate) struct Site<'w> {
    pub(crate) world: &'w World,
    pub(crate) who: Who,
    pub(crate) way: Way,
    /// Its first process.
    pub(crate) pid: u32,
    /// The packet process of its network.
    pub(crate) packet: u64,
    /// On the same network.
    pub(crate) victim: Option<Container<'w>>,
    gateway: [String; 2],
    name_servers: [String; 2],
    hostile: Option<Container<'w>>,
    slirp: Option<Proc>,
    _keeper: Option<Proc>,
}

impl<'w> Site<'w> {
    /// Starts one, with further `options` for the command and at most `files` open files for its processes.
    pub(crate) fn start(world: &'w World, who: Who, way: Way, options: &[&str], files: Option<u32>) -> Self {
        let limit = files.map(|n| format!("--nofile={n}:{n}"));
        match way {
            Way::Run => Self::run(world, who, options, limit.as_deref()),
            Way::Slirp => Self::slirp(world, who, options, limit.as_deref()),
        }
    }

    fn run(world: &'w World, who: Who, options: &[&str], limit: Option<&str>) -> Self {
        let hostile = Container::start_within(world, who, "hostile", options, limit);
        let victim = Container::start(world, who, "victim", ["--network", "hostile"]);
        let networks = hostile.pontoon(["network", "ls", "--json"]).run().json();
        let gateway = [hostile.gateway().to_string(), hostile.gateway6().to_string()];
        Self {
            world,
            who,
            way: Way::Run,
            pid: hostile.pid,
            packet: networks[0]["packet_pid"].as_u64().expect("a pid"),
            name_servers: gateway.clone(),
            gateway,
            victim: Some(victim),
            hostile: Some(hostile),
            slirp: None,
            _keeper: None,
        }
    }

    fn slirp(world: &'w World, who: Who, options: &[&str], limit: Option<&str>) -> Self {
        let host = world.host();
        let mut keeper = host
            .cmd(["unshare", "-Urnmu", "sh", "-c", "echo pid $$; exec sleep 100000"])
            .who(who)
            .spawn();
        keeper.wait_for("pid");
        let pid: u32 = keeper
            .stdout()
            .trim()
            .trim_start_matches("pid ")
            .parse()
            .expect("a pid");
        let prefix: Vec<&str> = limit.map_or(vec![], |l| vec!["prlimit", l]);
        let mut slirp = host
            .cmd(prefix)
            .args([
                "pontoon",
                "slirp4netns",
                "-c",
                "--enable-ipv6",
                "--mtu=1500",
                "--api-socket",
                API,
            ])
            .args(options)
            .args([&pid.to_string(), TAP])
            .who(who)
            .spawn();
        let up = format!("{pid}");
        wait_for("the container's addresses", Duration::from_secs(5), || {
            assert_eq!(slirp.poll(), None, "{}", slirp.stderr());
            let shown = host
                .cmd(["ip", "addr", "show", TAP])
                .who(who)
                .inside(pid)
                .run()
                .text();
            (shown.contains("10.0.2.100") && shown.contains("inet6 fd00:")).then_some(())
        });
        let packet = wait_for("the packet process", Duration::from_secs(5), || {
            let all = world.processes();
            let ours = all
                .iter()
                .find(|(_, line)| line.starts_with("pontoon slirp4netns") && line.contains(&up));
            ours.map(|(pid, _)| u64::from(*pid))
        });
        Self {
            world,
            who,
            way: Way::Slirp,
            pid,
            packet,
            victim: None,
            gateway: ["10.0.2.2".to_owned(), "fd00::2".to_owned()],
            name_servers: ["10.0.2.3".to_owned(), "fd00::3".to_owned()],
            hostile: None,
            slirp: Some(slirp),
            _keeper: Some(keeper),
        }
    }

    /// A command in the container.
    pub(crate) fn inside<S: AsRef<str>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd<'w> {
        self.world.host().cmd(argv).who(self.who).inside(self.pid)
    }

    /// A command on the host, as the container's owner.
    pub(crate) fn host<S: AsRef<str>>(&self, argv: impl IntoIterator<Item = S>) -> Cmd<'w> {
        self.world.host().cmd(argv).who(self.who)
    }

    pub(crate) fn interface(&self) -> &'static str {
        match self.way {
            Way::Run => "eth0",
            Way::Slirp => TAP,
        }
    }

    /// The gateway's addresses, IPv4 and IPv6.
    pub(crate) fn gateway(&self) -> [&str; 2] {
        self.gateway.each_ref().map(String::as_str)
    }

    /// Where the container asks for names, by IPv4 and IPv6.
    pub(crate) fn name_servers(&self) -> [&str; 2] {
        self.name_servers.each_ref().map(String::as_str)
    }

    /// The path of the socket by which the network is told what to do.
    pub(crate) fn socket(&self) -> String {
        match self.way {
            Way::Run => format!("{}/hostile.sock", self.who.runtime_dir()),
            Way::Slirp => API.to_owned(),
        }
    }

    /// `lab-hostile` on the container's interface.
    pub(crate) fn attack(&self, what: &[&str]) -> Cmd<'w> {
        let interface = self.interface();
        let own = party(&self.inside(["ip", "-j", "addr", "show", interface]).run().json());
        // The gateway's address is known by its answers.
        self.inside(["ping", "-n", "-c1", "-W9", &self.gateway[0]])
            .run()
            .ok();
        let heard = self
            .inside(["ip", "-j", "neigh", "show", &self.gateway[0]])
            .run()
            .json();
        let mac = heard[0]["lladdr"].as_str().expect("the gateway's address");
        let gateway = format!("{mac},{},{}", self.gateway[0], self.gateway[1]);
        let names = format!("{mac},{},{}", self.name_servers[0], self.name_servers[1]);
        let victim = match &self.victim {
            Some(v) => party(&v.cmd(["ip", "-j", "addr", "show", "eth0"]).run().json()),
            None => "02:00:00:00:00:77,10.0.2.77,fd00::77".to_owned(),
        };
        self.inside([
            "lab-hostile",
            "on",
            interface,
            &own,
            &gateway,
            &names,
            &victim,
            SERVER,
        ])
        .args(what)
        .limit(120)
    }

    /// The reasons for which frames of the container were dropped, and how many; the gateway's own among them.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let stats = self.host(["pontoon", "stats", "--json"]).run().json();
        let ports = stats[0]["ports"].as_array().expect("ports");
        let port = ports
            .iter()
            .find(|p| p["name"] == "hostile")
            .expect("the container's port");
        let mut all = BTreeMap::new();
        for map in [&port["drops"], &stats[0]["gateway_drops"]] {
            for (reason, n) in map.as_object().expect("drops") {
                *all.entry(reason.clone()).or_default() += n.as_u64().expect("a number");
            }
        }
        all
    }

    /// The lines of the network's log that say that flows are refused.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let log = match &self.slirp {
            Some(slirp) => slirp.stderr(),
            None => self
                .host(["cat", &format!("{}/hostile.log", self.who.runtime_dir())])
                .run()
                .ok(),
        };
        let lines = log.lines().filter(|l| l.contains("new flows are refused"));
        lines.map(str::to_owned).collect()
    }

    /// KiB of memory that the packet process has for itself.
    pub(crate) fn memory(&self) -> u64 {
        let text = self
            .world
            .host()
            .run(["cat", &format!("/proc/{}/smaps_rollup", self.packet)]);
        let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).expect("Pss");
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .expect("a number")
    }

    /// Wants the packet process to be the one that it was.
    pub(crate) fn assert_lives(&mut self) {
        match (&mut self.slirp, &self.hostile) {
            (Some(slirp), _) => assert_eq!(slirp.poll(), None, "{}", slirp.stderr()),
            (None, Some(hostile)) => {
                let networks = hostile.pontoon(["network", "ls", "--json"]).run().json();
                assert_eq!(
                    networks[0]["packet_pid"].as_u64(),
                    Some(self.packet),
                    "{networks}"
                );
            }
            (None, None) => unreachable!("neither way"),
        }
    }
}

/// Who has the one interface in what `ip -j addr` says: `MAC,IPv4,IPv6`.
fn party(shown: &serde_json::Value) -> String {
    let link = &shown[0];
    let address = |family: &str| {
        let all = link["addr_info"].as_array().expect("addresses");
        let of = |a: &&serde_json::Value| a["family"] == family && a["scope"] == "global";
        let found = all.iter().find(of).and_then(|a| a["local"].as_str());
        found
            .unwrap_or_else(|| panic!("no {family} address: {shown}"))
            .to_owned()
    };
    let mac = link["address"].as_str().expect("an Ethernet address");
    format!("{mac},{},{}", address("inet"), address("inet6"))
}
