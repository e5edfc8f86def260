//! What this kernel has. Each optional feature has a fall-back, so that none is a failure.

use std::os::fd::AsFd;

use pontoon_switch::features::{self, Feature, Features};
use pontoon_switch::sys::{tcp, udp};
use socket2::{Domain, Protocol, Socket, Type};

use super::Finding;

/// The oldest kernel that has what has no fall-back: `close_range`, pidfds for `setns` and time-outs on them.
const OLDEST: (u32, u32) = (5, 10);

/// The kernel's version.
pub(super) fn version() -> Finding {
    judge_version(&rustix::system::uname().release().to_string_lossy())
}

pub(super) fn judge_version(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let found = (
        numbers.next().and_then(Result::ok),
        numbers.next().and_then(Result::ok),
    );
    match found {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            let what = format!(
                "Linux {release} is older than {}.{}, the oldest that was thought of",
                OLDEST.0, OLDEST.1
            );
            Finding::warning(CHECK, what, "update the kernel")
        }
        _ => Finding::ok(CHECK, format!("Linux {release}")),
    }
}

/// Optional features of sockets.
pub(super) fn sockets() -> Vec<Finding> {
    let with = |domain, kind, protocol, has: &dyn Fn(&Socket) -> bool| {
        Socket::new(domain, kind, Some(protocol)).is_ok_and(|socket| has(&socket))
    };
    let tcp = |domain, has: &dyn Fn(&Socket) -> bool| with(domain, Type::STREAM, Protocol::TCP, has);
    let peek: &dyn Fn(&Socket) -> bool = &|s| tcp::set_peek_offset(s.as_fd(), 0).is_ok();
    let gso = with(Domain::IPV4, Type::DGRAM, Protocol::UDP, &|s| {
        udp::has_gso(s.as_fd())
    });
    let gro = with(Domain::IPV4, Type::DGRAM, Protocol::UDP, &|s| {
        udp::set_gro(s.as_fd()).is_ok()
    });
    let memory = tcp(Domain::IPV4, &|s| tcp::send_buffer(s.as_fd()).is_ok());
    let late = tcp(Domain::IPV4, &|s| {
        tcp::set_bind_address_no_port(s.as_fd()).is_ok()
    });
    vec![
        optional(
            "tcp peek, ipv4",
            tcp(Domain::IPV4, peek),
            "SO_PEEK_OFF on TCP",
            "Linux 6.9",
            "receiving is slower",
        ),
        // A host without IPv6 opens no such socket; the check for IPv6 says so.
        optional(
            "tcp peek, ipv6",
            tcp(Domain::IPV6, peek),
            "SO_PEEK_OFF on TCP over IPv6",
            "Linux 6.11",
            "receiving is slower",
        ),
        optional(
            "tcp memory",
            memory,
            "SO_MEMINFO",
            "Linux 4.12",
            "windows are guessed",
        ),
        optional(
            "udp batches",
            gso && gro,
            "UDP_SEGMENT and UDP_GRO",
            "Linux 5.0",
            "UDP is slower",
        ),
        optional(
            "late ports",
            late,
            "IP_BIND_ADDRESS_NO_PORT",
            "Linux 4.2",
            "--outbound has fewer ports",
        ),
    ]
}

/// A feature with a fall-back.
pub(super) fn optional(check: &'static str, has: bool, feature: &str, since: &str, without: &str) -> Finding {
    if has {
        Finding::ok(check, format!("the kernel has {feature}"))
    } else {
        Finding::warning(
            check,
            format!("the kernel lacks {feature}: {without}"),
            format!("none is needed; {since} and newer have it"),
        )
    }
}

/// Whether fall-backs are forced; nothing if not.
pub(super) fn fallbacks() -> Option<Finding> {
    let value = std::env::var(features::VARIABLE).unwrap_or_default();
    judge_fallbacks(&value)
}

pub(super) fn judge_fallbacks(value: &str) -> Option<Finding> {
    const CHECK: &str = "fall-backs";
    if value.is_empty() {
        return None;
    }
    let unset = format!("unset {}", features::VARIABLE);
    Some(match value.parse::<Features>() {
        Ok(allowed) => {
            let forced: Vec<&str> = Feature::ALL
                .into_iter()
                .filter(|f| !allowed.allows(*f))
                .map(Feature::name)
                .collect();
            let what = format!(
                "{} forces the fall-backs for {}",
                features::VARIABLE,
                forced.join(", ")
            );
            Finding::warning(CHECK, what, unset)
        }
        Err(e) => Finding::warning(CHECK, format!("every fall-back is forced: {e}"), unset),
    })
}
