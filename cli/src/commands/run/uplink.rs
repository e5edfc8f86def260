//! The private network's uplink as it is to be, and the wait for the addresses that others give to an uplink.
//!
//! A lease takes a moment longer than everything else. A command that began before would be told that the world is unreachable, and
//! many try once only. So whatever network a container is on, its command begins once the network's uplink has an address of each
//! IP version that it is to have; one that is a port of another network's switch, once that network's uplink has. An uplink that
//! had its addresses when the network was asked for costs nothing.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use pontoon_switch::sys::process::{Received, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::api::{NetworkInfo, UplinkInfo};
use crate::args::RunArgs;
use crate::client::Front;
use crate::front::plan::{Tuning, Uplink};
use crate::routes::Call;

/// How long the command waits for addresses. A server that is there answers within two seconds; one that has missed the first question
/// is asked again after five.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often they are looked for.
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

/// Waits until the uplinks of these networks of `front` have the addresses that they are to be given, and says what is amiss with
/// those that have not in time, or do not work: the command is run all the same, as that may yet change. Gives the signals that have
/// come meanwhile; the first ends the wait. A network that has ended is not waited for, and is found out later.
pub(super) fn addressed(networks: &[NetworkInfo], front: &Front, signals: &Signals) -> Vec<Received> {
    let end = Instant::now() + PATIENCE;
    let mut awaited = with_outer(networks, front);
    loop {
        let over = Instant::now() > end;
        awaited.retain(|network| is_awaited(network, over));
        if awaited.is_empty() {
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
        awaited = awaited.into_iter().filter_map(|n| now(front, n)).collect();
    }
}

/// These networks, and those that their uplinks are ports of, as far as they lead.
fn with_outer(networks: &[NetworkInfo], front: &Front) -> Vec<NetworkInfo> {
    let mut all = networks.to_vec();
    let mut at = 0;
    while let Some(network) = all.get(at) {
        at += 1;
        let outer = network.uplink.as_ref().and_then(|uplink| uplink.link.switch());
        if let Some(outer) = outer
            && !all.iter().any(|n| n.name == outer)
            && let Some(outer) = ask(front, outer)
        {
            all.push(outer);
        }
    }
    all
}

/// A network of that name, unless it has ended or cannot be asked.
pub(super) fn ask(front: &Front, network: &str) -> Option<NetworkInfo> {
    let network = network.to_owned();
    front.ask(&Call::Network { network }).ok()
}

/// A network as it is now, unless it has ended; as it was, if the front does not say.
fn now(front: &Front, before: NetworkInfo) -> Option<NetworkInfo> {
    let network = before.name.clone();
    front
        .ask_if_there(&Call::Network { network })
        .unwrap_or(Some(before))
}

/// Whether a network's uplink is to be waited for. Of one that does not work it is said why, and of one that has been waited for in vain,
/// now that the wait is `over` or since long ago.
fn is_awaited(network: &NetworkInfo, over: bool) -> bool {
    let (Some(uplink), name) = (&network.uplink, &network.name) else {
        return false;
    };
    if let Some(error) = &uplink.error {
        eprintln!(
            "pontoon: the uplink {} of network {name} does not work: {error}",
            uplink.link
        );
        return false;
    }
    if uplink.up && uplink.awaits.is_empty() {
        return false;
    }
    let over = over || uplink.since.is_some_and(is_long_ago);
    if over {
        eprintln!("pontoon: {}", given_up(name, uplink));
    }
    !over
}

/// Whether more than [`PATIENCE`] has gone by since then, a second of 1970's count: who joins later than that does not wait again.
fn is_long_ago(since: u64) -> bool {
    // It may have been at that second's end.
    let since = Duration::from_secs(since.saturating_add(1));
    let since = SystemTime::UNIX_EPOCH.checked_add(since);
    since.is_some_and(|at| at.elapsed().is_ok_and(|gone| gone > PATIENCE))
}

/// What is said of an uplink that has been waited for in vain.
fn given_up(network: &str, uplink: &UplinkInfo) -> String {
    let sources: Vec<String> = uplink.awaits.iter().map(ToString::to_string).collect();
    let lacks = if uplink.up {
        format!("has been given no address by {}", sources.join(" nor by "))
    } else {
        "has not been made".to_owned()
    };
    let see_to = match uplink.carrier {
        Some(false) => "; it has no carrier: see to the cable and what is on its other end",
        Some(true) | None if uplink.up => {
            "; see to the server or the router on that link, or make the network with a fixed address (--uplink-address, --uplink-address6)"
        }
        Some(true) | None => "",
    };
    format!(
        "the uplink {} of network {network} {lacks} within {} s: the command begins without{see_to}",
        uplink.link,
        PATIENCE.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AddressSource, samples};

    #[test]
    fn an_uplink_is_awaited_while_it_works_and_lacks_an_address() {
        let mut network = samples::network();
        let is_awaited = |network: &NetworkInfo| is_awaited(network, false);
        network.uplink.as_mut().expect("an uplink").since = Some(u64::from(u32::MAX));
        assert!(!is_awaited(&network), "it has all");
        let uplink = |network: &mut NetworkInfo, awaits: &[AddressSource], error: Option<&str>| {
            let uplink = network.uplink.as_mut().expect("an uplink");
            uplink.awaits = awaits.to_vec();
            uplink.error = error.map(ToOwned::to_owned);
        };
        uplink(&mut network, &[AddressSource::Slaac], None);
        assert!(is_awaited(&network));
        network.uplink.as_mut().expect("an uplink").since = Some(1);
        assert!(!is_awaited(&network), "others have waited in vain");
        uplink(&mut network, &[], None);
        let made = network.uplink.as_mut().expect("an uplink");
        (made.up, made.since) = (false, None);
        assert!(is_awaited(&network), "it is being made");
        uplink(&mut network, &[AddressSource::Slaac], Some("it was lost"));
        assert!(!is_awaited(&network), "it does not work");
        network.uplink = None;
        assert!(!is_awaited(&network), "there is none");
    }

    #[test]
    fn what_was_waited_for_in_vain_is_named() {
        let mut uplink = samples::uplink();
        uplink.awaits = vec![AddressSource::Dhcp, AddressSource::Slaac];
        let said = given_up("edge", &uplink);
        for words in [
            "packet:eth1 of network edge",
            "by DHCP nor by router advertisements",
            "10 s",
        ] {
            assert!(said.contains(words), "{said}");
        }
        assert!(said.contains("--uplink-address"), "{said}");
        uplink.carrier = Some(false);
        let said = given_up("edge", &uplink);
        assert!(
            said.contains("has no carrier") && !said.contains("--uplink-address"),
            "{said}"
        );
    }
}
