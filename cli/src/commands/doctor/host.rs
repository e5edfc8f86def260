//! How this host is set up.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::Finding;
use crate::control;

const TUN: &str = "/dev/net/tun";
/// Major and minor number of the TUN device: `Documentation/networking/tuntap.rst`.
const TUN_NUMBER: (u32, u32) = (10, 200);
const PING_RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";
const PORT_START: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// Fewer descriptors than this are fewer flows than a busy container has.
const ENOUGH_FILES: u64 = 65_536;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What `/dev/net/tun` is.
pub(super) struct Tun {
    /// Whether there is a character device of the right number; an error if it cannot be looked at.
    pub(super) device: io::Result<bool>,
    /// Whether we may read and write it.
    pub(super) accessible: bool,
    /// Whether the module is there already: opening the device would load it.
    pub(super) loaded: bool,
}

/// The TUN device, and whether it may be opened without changing anything.
pub(super) fn tun() -> (Finding, bool) {
    let device = fs::metadata(TUN).map(|m| {
        let number = (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()));
        m.file_type().is_char_device() && number == TUN_NUMBER
    });
    let accessible = access(TUN, Access::READ_OK | Access::WRITE_OK).is_ok();
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let loaded = misc
        .lines()
        .any(|l| l.split_ascii_whitespace().nth(1) == Some("tun"));
    judge_tun(&Tun {
        device,
        accessible,
        loaded,
    })
}

pub(super) fn judge_tun(tun: &Tun) -> (Finding, bool) {
    const CHECK: &str = "tun device";
    let load = "as root: modprobe tun; in a container: start it with --device /dev/net/tun";
    let finding = match &tun.device {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Finding::failure(CHECK, format!("there is no {TUN}"), load)
        }
        Err(e) => Finding::failure(CHECK, format!("{TUN} cannot be looked at: {e}"), load),
        Ok(false) => {
            let make = format!("as root: rm {TUN} && mknod -m 666 {TUN} c 10 200");
            Finding::failure(CHECK, format!("{TUN} is not the TUN device"), make)
        }
        Ok(true) if !tun.accessible => Finding::failure(
            CHECK,
            format!("{TUN} may not be opened by this user"),
            format!(
                "as root: chmod 666 {TUN}; to last: echo 'KERNEL==\"tun\", MODE=\"0666\"' \
                 >/etc/udev/rules.d/60-tun.rules"
            ),
        ),
        Ok(true) if !tun.loaded => {
            let what = format!(
                "{TUN} is there, but the module is not loaded yet; it was not opened, as that loads it"
            );
            Finding::warning(
                CHECK,
                what,
                "as root: modprobe tun; the first `pontoon run` may load it by itself",
            )
        }
        Ok(true) => {
            return (
                Finding::ok(CHECK, format!("{TUN} is there and may be opened")),
                true,
            );
        }
    };
    (finding, false)
}

/// Where control sockets go.
pub(super) fn control_directory() -> Finding {
    const CHECK: &str = "control sockets";
    let remedy = "set XDG_RUNTIME_DIR to a directory that is yours alone";
    let dir = match control::control_dir().and_then(|dir| control::existing_control_dir().map(|_| dir)) {
        Ok(dir) => dir,
        Err(e) => return Finding::failure(CHECK, e.to_string(), remedy),
    };
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let there = dir.exists();
    let writable = |dir: &Path| access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    if !writable(if there { &dir } else { parent }) {
        return Finding::failure(
            CHECK,
            format!("{} cannot be made or written to", dir.display()),
            remedy,
        );
    }
    if dir.starts_with("/tmp") && std::env::var_os("PONTOON_RUNTIME_DIR").is_none() {
        let what = format!(
            "neither XDG_RUNTIME_DIR nor /run/user has a directory of yours: {} is used",
            dir.display()
        );
        return Finding::warning(
            CHECK,
            what,
            "log in by a session, or as root: loginctl enable-linger USER",
        );
    }
    Finding::ok(CHECK, format!("they go to {}", dir.display()))
}

/// Echo to the outside.
pub(super) fn ping() -> Finding {
    let opens = |domain, kind, protocol| Socket::new(domain, kind, Some(protocol)).is_ok();
    let sockets = [(Domain::IPV4, Protocol::ICMPV4), (Domain::IPV6, Protocol::ICMPV6)];
    let ping = sockets.map(|(domain, protocol)| opens(domain, Type::DGRAM, protocol));
    let raw = opens(Domain::IPV4, Type::RAW, Protocol::ICMPV4);
    judge_ping(
        ping[0],
        raw,
        fs::read_to_string(PING_RANGE).unwrap_or_default().trim(),
    )
}

pub(super) fn judge_ping(ping: bool, raw: bool, range: &str) -> Finding {
    const CHECK: &str = "ping";
    let range = range.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if ping {
        Finding::ok(
            CHECK,
            format!("ping sockets open: net.ipv4.ping_group_range is {range}"),
        )
    } else if raw {
        let what = format!(
            "ping sockets do not open (net.ipv4.ping_group_range is {range}), but root's raw sockets do"
        );
        Finding::ok(CHECK, what)
    } else {
        Finding::warning(
            CHECK,
            format!(
                "echo to the outside is refused: net.ipv4.ping_group_range is {range}, without a group of yours"
            ),
            "as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        )
    }
}

/// Publishing on ports below 1024.
pub(super) fn low_ports() -> Finding {
    let start = fs::read_to_string(PORT_START)
        .ok()
        .and_then(|t| t.trim().parse().ok());
    judge_low_ports(start.unwrap_or(1024), is_root())
}

pub(super) fn judge_low_ports(start: u16, root: bool) -> Finding {
    const CHECK: &str = "low ports";
    if root || start <= 1 {
        Finding::ok(CHECK, "every host port may be published")
    } else if start <= 80 {
        Finding::ok(CHECK, format!("host ports from {start} on may be published"))
    } else {
        Finding::warning(
            CHECK,
            format!("only host ports from {start} on may be published by this user"),
            "publish a higher one, or as root: sysctl -w net.ipv4.ip_unprivileged_port_start=80",
        )
    }
}

/// Descriptors: a flow through a host socket takes one.
pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    judge_open_files(limit.current, limit.maximum)
}

pub(super) fn judge_open_files(soft: Option<u64>, hard: Option<u64>) -> Finding {
    const CHECK: &str = "open files";
    let shown = |n: Option<u64>| n.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    match hard {
        Some(n) if n < ENOUGH_FILES => Finding::warning(
            CHECK,
            format!("the hard limit is {n}: a network has fewer connections than that at once"),
            "raise it: LimitNOFILE= of a systemd service, or nofile in /etc/security/limits.conf",
        ),
        Some(_) | None => {
            let what = format!(
                "the limit is {}, and is raised to {} for the gateway",
                shown(soft),
                shown(hard)
            );
            Finding::ok(CHECK, what)
        }
    }
}

/// True if there is a route to `ip`. Connecting a UDP socket sends nothing.
fn routed(from: IpAddr, to: IpAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((from, 0))?;
    Ok(socket.connect((to, 9)).is_ok())
}

/// IPv4 on the host.
pub(super) fn ipv4() -> Finding {
    // RFC 5737: an address for documentation, which only a default route leads to.
    let out = routed(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    judge_family("ipv4", "IPv4", out, None)
}

/// IPv6 on the host.
pub(super) fn ipv6() -> Finding {
    // RFC 3849: for documentation, likewise.
    let to: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    judge_family(
        "ipv6",
        "IPv6",
        routed(Ipv6Addr::UNSPECIFIED.into(), to.into()),
        Some("--no-ipv6"),
    )
}

pub(super) fn judge_family(
    check: &'static str,
    family: &str,
    out: io::Result<bool>,
    without: Option<&str>,
) -> Finding {
    let (what, mut remedy) = match out {
        Ok(true) => return Finding::ok(check, format!("the host has an {family} default route")),
        Ok(false) => (
            format!(
                "the host has no {family} default route: containers reach each other and the host's networks only"
            ),
            format!("give the host an {family} route"),
        ),
        Err(e) => (
            format!("the host has no {family}: {e}"),
            format!("enable {family} on the host"),
        ),
    };
    if let Some(option) = without {
        remedy = format!("none is needed; `pontoon run {option}` keeps programs from trying, or {remedy}");
    }
    Finding::warning(check, what, remedy)
}

/// Who resolves the host's names.
pub(super) fn resolvers() -> Finding {
    judge_resolvers(fs::read_to_string("/etc/resolv.conf").map_err(|e| e.to_string()))
}

pub(super) fn judge_resolvers(text: Result<String, String>) -> Finding {
    const CHECK: &str = "resolvers";
    let remedy = "name a server in /etc/resolv.conf, or run with --dns ADDR";
    let text = match text {
        Ok(text) => text,
        Err(e) => {
            let what = format!("/etc/resolv.conf cannot be read ({e}): the server at 127.0.0.1 is asked");
            return Finding::warning(CHECK, what, remedy);
        }
    };
    let servers: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(['#', ';']).next()?.split_ascii_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        .filter(|s| s.split('%').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok()))
        .collect();
    if servers.is_empty() {
        let what = "/etc/resolv.conf names no server: the one at 127.0.0.1 is asked";
        return Finding::warning(CHECK, what, remedy);
    }
    Finding::ok(
        CHECK,
        format!("the gateway asks the host's: {}", servers.join(", ")),
    )
}
