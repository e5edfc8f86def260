//! `pontoon stats`: counters of ports, drops by reason, flows by state.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use crate::api::Stats;
use crate::args::StatsArgs;
use crate::client;
use crate::output::{self, Table};
use crate::routes::{Call, Only};

/// Prints the counters of all networks, or of one.
pub(crate) fn stats(args: &StatsArgs) -> Result<()> {
    let network = args.network.as_deref();
    let stats: Vec<Stats> = client::list_all(network, &Call::Stats(Only::of_network(network)))?;
    if args.json {
        output::print_json(&stats)
    } else {
        output::print(&render(&stats))
    }
}

/// Received means from the container, sent means to it.
fn render(networks: &[Stats]) -> String {
    let mut text = String::new();
    for (i, stats) in networks.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "network {}, {} of {} flows",
            stats.network, stats.flows_total, stats.flows_max
        );
        let mut ports = Table::new(&[
            ">PORT",
            "NAME",
            "KIND",
            ">MTU",
            ">RX FRAMES",
            ">RX BYTES",
            ">TX FRAMES",
            ">TX BYTES",
            ">DROPS",
        ]);
        let mut drops = Table::new(&["DROPPED AT", "REASON", ">FRAMES"]);
        for p in &stats.ports {
            ports.row(vec![
                p.port.to_string(),
                p.name.clone(),
                p.kind.clone(),
                p.mtu.to_string(),
                p.rx_frames.to_string(),
                p.rx_bytes.to_string(),
                p.tx_frames.to_string(),
                p.tx_bytes.to_string(),
                p.drops.values().sum::<u64>().to_string(),
            ]);
            add(&mut drops, &format!("port {} {}", p.port, p.name), &p.drops);
        }
        add(&mut drops, "gateway", &stats.gateway_drops);
        let mut flows = Table::new(&["FLOWS", ">COUNT"]);
        for (state, count) in &stats.flows {
            flows.row(vec![state.clone(), count.to_string()]);
        }
        for table in [ports, drops, flows] {
            if !table.is_empty() {
                text.push('\n');
                text.push_str(&table.render());
            }
        }
    }
    text
}

fn add(table: &mut Table, place: &str, drops: &BTreeMap<String, u64>) {
    for (reason, count) in drops.iter().filter(|(_, n)| **n > 0) {
        table.row(vec![place.to_owned(), reason.clone(), count.to_string()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PortStats;

    #[test]
    fn the_tables() {
        let map = |pairs: &[(&str, u64)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let stats = Stats {
            network: "shop".into(),
            ports: vec![PortStats {
                port: 1,
                name: "web".into(),
                kind: "tap".into(),
                mtu: 1500,
                rx_frames: 10,
                rx_bytes: 1000,
                tx_frames: 20,
                tx_bytes: 123_456,
                drops: map(&[("spoofed", 2), ("too-big", 1)]),
            }],
            gateway_drops: map(&[("no-flow", 5), ("filtered", 0)]),
            flows: map(&[("tcp/established", 3), ("udp/assured", 1)]),
            flows_total: 4,
            flows_max: 262_144,
        };
        let quiet = Stats {
            network: "quiet".into(),
            ports: vec![],
            gateway_drops: map(&[]),
            flows: map(&[]),
            flows_total: 0,
            flows_max: 10,
        };
        assert_eq!(
            render(&[stats, quiet]),
            "\
network shop, 4 of 262144 flows

PORT  NAME  KIND   MTU  RX FRAMES  RX BYTES  TX FRAMES  TX BYTES  DROPS
   1  web   tap   1500         10      1000         20    123456      3

DROPPED AT  REASON   FRAMES
port 1 web  spoofed       2
port 1 web  too-big       1
gateway     no-flow       5

FLOWS            COUNT
tcp/established      3
udp/assured          1

network quiet, 0 of 10 flows
"
        );
        assert_eq!(render(&[]), "");
    }
}
