//! The private network's uplink: what it is to be, and the wait for the addresses that others give it.
//!
//! A lease takes a moment longer than everything else. A command that began before would be told that the world is unreachable, and
//! many try once only.

use std::time::{Duration, Instant};

use anyhow::Result;
use ipnet::IpNet;
use pontoon_switch::sys::process::{Received, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::api::{NetworkInfo, UplinkInfo, UplinkSpec};
use crate::args::RunArgs;
use crate::client::Front;
use crate::front::Attached;
use crate::front::plan::{Tuning, Uplink};
use crate::routes::Call;

/// How long the command waits for an address. A server that is there answers within two seconds; one that has missed the first question
/// is asked again after five.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// What it is to be, if there is to be one.
pub(super) fn plan(args: &RunArgs, name: &str) -> Result<Option<Uplink>> {
    let Some(spec) = args.uplink.spec()? else {
        return Ok(None);
    };
    let tuning = Tuning {
        nat4: args.uplink_nat.unwrap_or_default().into(),
        nat6: args.uplink_nat6.unwrap_or_default().into(),
        mapping: args.mapping.unwrap_or_default().into(),
        mtu: args.uplink_mtu,
    };
    let uid = rustix::process::geteuid().as_raw();
    Uplink::of(&spec, name, tuning, uid).map(Some)
}

/// Waits until it has an address of each IP version that it is to have, and says what is amiss if it has not in time: the command is
/// run all the same, as the address may yet come. Gives the signals that have come meanwhile; the first ends the wait, as does a
/// network that has ended, which is found out later.
pub(super) fn addressed(
    args: &RunArgs,
    attached: &Attached,
    front: &Front,
    signals: &Signals,
) -> Vec<Received> {
    let (Ok(Some(spec)), [network]) = (args.uplink.spec(), attached.networks.as_slice()) else {
        return Vec::new();
    };
    let end = Instant::now() + PATIENCE;
    let mut now = network.uplink.clone();
    loop {
        let missing = missing(&spec, now.as_ref());
        let error = now.as_ref().and_then(|uplink| uplink.error.as_ref());
        if let Some(error) = error {
            eprintln!("pontoon: the uplink {} does not work: {error}", spec.link);
        }
        if error.is_some() || missing.is_empty() {
            return Vec::new();
        }
        if Instant::now() > end {
            eprintln!(
                "pontoon: the uplink {} has been given no address by {} for {} s: the command begins without; see to the server on \
                 that link, or give an address by --uplink-address",
                spec.link,
                missing.join(" nor by "),
                PATIENCE.as_secs()
            );
            return Vec::new();
        }
        // Whatever fails here is found by what comes next.
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&LOOK)));
        let mut early = Vec::new();
        while let Ok(Some(signal)) = signals.next() {
            // That of a child that has ended is no news: it is asked for anyway.
            if signal.number != Signal::CHILD.as_raw() {
                early.push(signal);
            }
        }
        if !early.is_empty() {
            return early;
        }
        let call = Call::Network {
            network: network.name.clone(),
        };
        now = match front.ask::<NetworkInfo>(&call) {
            Ok(network) => network.uplink,
            Err(_) => return Vec::new(),
        };
    }
}

/// By what it is to have addresses that it does not have.
fn missing(spec: &UplinkSpec, now: Option<&UplinkInfo>) -> Vec<&'static str> {
    // One that is of the link alone leads nowhere.
    let counts = |net: &IpNet, v4: bool| match net {
        IpNet::V4(_) => v4,
        IpNet::V6(net) => !v4 && !net.addr().is_unicast_link_local(),
    };
    let has = |v4: bool| now.is_some_and(|uplink| uplink.addresses.iter().any(|net| counts(net, v4)));
    let four = spec.address.is_some() || spec.address6.is_none();
    let mut missing = Vec::new();
    if four && !has(true) {
        missing.push("DHCP");
    }
    if spec.address6.is_some() && !has(false) {
        missing.push("router advertisements");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ip_version_that_is_wanted_is_waited_for() {
        let uplink = |addresses: &[&str]| UplinkInfo {
            link: "tap:t".parse().expect("a link"),
            mac: None,
            up: true,
            error: None,
            mtu: None,
            addresses: addresses.iter().map(|a| a.parse().expect("a net")).collect(),
            gateways: Vec::new(),
            resolvers: Vec::new(),
        };
        let spec = |json: &str| -> UplinkSpec { serde_json::from_str(json).expect(json) };
        let (four, six) = ("192.0.2.9/24", "2001:db8::9/64");
        let plain = spec(r#"{"link": "tap:t"}"#);
        assert_eq!(missing(&plain, None), ["DHCP"]);
        assert_eq!(missing(&plain, Some(&uplink(&[six]))), ["DHCP"]);
        assert!(missing(&plain, Some(&uplink(&[four]))).is_empty());
        let slaac = spec(r#"{"link": "tap:t", "address6": "slaac"}"#);
        assert_eq!(missing(&slaac, Some(&uplink(&[]))), ["router advertisements"]);
        assert_eq!(
            missing(&slaac, Some(&uplink(&["fe80::9/64"]))),
            ["router advertisements"]
        );
        assert!(missing(&slaac, Some(&uplink(&[six]))).is_empty());
        let both = spec(r#"{"link": "tap:t", "address": "dhcp", "address6": "slaac"}"#);
        assert_eq!(
            missing(&both, Some(&uplink(&[]))),
            ["DHCP", "router advertisements"]
        );
        assert_eq!(missing(&both, Some(&uplink(&[four]))), ["router advertisements"]);
    }
}
