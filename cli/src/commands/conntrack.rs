//! `pontoon conntrack`: the flows of running networks, in the layout of conntrack-tools' `conntrack -L`.
//!
//! A line is: protocol, its number, seconds until it ends, state, the initiator's tuple with what it has sent, the
//! tuple of the replies with what was received, the mark. Ours adds the age, the network, the container and who opened it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use pontoon_nat::flow::{Counters, FlowView, Protocol};
use serde::de::DeserializeOwned;

use crate::api::{FlowInfo, Flushed};
use crate::args::{ConntrackCommand, FlowArgs};
use crate::client::{self, Front};
use crate::output;
use crate::routes::{Call, Only};

/// Runs `conntrack ls` or `conntrack flush`.
pub(crate) fn conntrack(command: &ConntrackCommand) -> Result<()> {
    match command {
        ConntrackCommand::Ls(args) => ls(args),
        ConntrackCommand::Flush(args) => flush(args),
    }
}

fn ls(args: &FlowArgs) -> Result<()> {
    let flows: Vec<FlowInfo> = ask::<Vec<FlowInfo>>(args, &Call::Flows(only(args)))?
        .into_iter()
        .flat_map(|(_, flows)| flows)
        .collect();
    if args.json {
        return output::print_json(&flows);
    }
    output::print(&render(&flows))?;
    eprintln!("pontoon: {} flow entries have been shown.", flows.len());
    Ok(())
}

fn flush(args: &FlowArgs) -> Result<()> {
    let answers = ask::<Flushed>(args, &Call::Flush(only(args))).context("cannot end flows")?;
    let flushed = Flushed {
        flows: answers.iter().map(|(_, f)| f.flows).sum(),
    };
    if args.json {
        return output::print_json(&flushed);
    }
    eprintln!("pontoon: {} flow entries have been deleted.", flushed.flows);
    Ok(())
}

fn only(args: &FlowArgs) -> Only {
    Only {
        network: args.network.clone(),
        container: args.container.clone(),
    }
}

/// Asks the fronts in question, of which a container that is named narrows the choice: a mistyped name is an error,
/// not an empty list, and a front without that container is not asked about it.
fn ask<T: DeserializeOwned>(args: &FlowArgs, call: &Call) -> Result<Vec<(Front, T)>> {
    let fronts = client::holding(args.container.as_deref(), args.network.as_deref())?;
    client::merge(fronts, args.network.is_some(), call)
}

fn render(flows: &[FlowInfo]) -> String {
    let mut text = String::new();
    for FlowInfo {
        network,
        container,
        flow,
    } in flows
    {
        let FlowView {
            protocol,
            number,
            state,
            outbound,
            original,
            reply,
            age,
            expires,
            sent,
            received,
            mark,
        } = flow;
        let state = state.to_uppercase().replace('-', "_");
        let direction = if *outbound { "out" } else { "in" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{protocol:<8} {number} {expires} {state} {} {} mark={mark} age={age} network={network} container={container} \
             dir={direction}",
            tuple(*number, original, sent),
            tuple(*number, reply, received),
        );
    }
    text
}

fn tuple(number: u8, (from, to): &(SocketAddr, SocketAddr), counters: &Counters) -> String {
    let ports = match Protocol::of(number, from.ip()) {
        Protocol::Tcp | Protocol::Udp => format!(" sport={} dport={}", from.port(), to.port()),
        Protocol::Icmp | Protocol::Icmp6 => format!(" id={}", from.port()),
        Protocol::Other(_) => String::new(),
    };
    format!(
        "src={} dst={}{ports} packets={} bytes={}",
        from.ip(),
        to.ip(),
        counters.packets,
        counters.bytes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(protocol: Protocol, state: &str, tuples: [&str; 4]) -> FlowInfo {
        let [a, b, c, d] = tuples.map(|t| t.parse().unwrap());
        FlowInfo {
            network: "shop".into(),
            container: "web".into(),
            flow: FlowView {
                protocol: protocol.name().into(),
                number: protocol.number(),
                state: state.into(),
                outbound: true,
                original: (a, b),
                reply: (c, d),
                age: 12,
                expires: 431_999,
                sent: Counters {
                    packets: 4,
                    bytes: 300,
                },
                received: Counters {
                    packets: 5,
                    bytes: 4000,
                },
                mark: 7,
            },
        }
    }

    #[test]
    fn the_layout_of_conntrack_tools() {
        let tcp = [
            "10.0.2.2:40000",
            "192.0.2.9:80",
            "192.0.2.9:80",
            "198.51.100.7:51000",
        ];
        let icmp = [
            "[fd00::2]:77",
            "[2001:db8::9]:77",
            "[2001:db8::9]:78",
            "[2001:db8::1]:78",
        ];
        let gre = ["10.0.2.2:0", "192.0.2.9:0", "192.0.2.9:0", "198.51.100.7:0"];
        assert_eq!(
            render(&[
                flow(Protocol::Tcp, "syn-sent", tcp),
                flow(Protocol::Icmp6, "unreplied", icmp),
                flow(Protocol::Other(47), "generic", gre),
            ]),
            "\
tcp      6 431999 SYN_SENT src=10.0.2.2 dst=192.0.2.9 sport=40000 dport=80 packets=4 bytes=300 src=192.0.2.9 \
dst=198.51.100.7 sport=80 dport=51000 packets=5 bytes=4000 mark=7 age=12 network=shop container=web dir=out
icmpv6   58 431999 UNREPLIED src=fd00::2 dst=2001:db8::9 id=77 packets=4 bytes=300 src=2001:db8::9 \
dst=2001:db8::1 id=78 packets=5 bytes=4000 mark=7 age=12 network=shop container=web dir=out
gre      47 431999 GENERIC src=10.0.2.2 dst=192.0.2.9 packets=4 bytes=300 src=192.0.2.9 dst=198.51.100.7 packets=5 \
bytes=4000 mark=7 age=12 network=shop container=web dir=out
"
        );
    }
}
