//! `pontoon fdb show`: forwarding tables as `ovs-appctl fdb/show` of Open vSwitch prints them.

use std::fmt::Write as _;

use anyhow::Result;

use crate::api::FdbRow;
use crate::args::FdbCommand;
use crate::client;
use crate::output;
use crate::routes::{Call, Only};

/// Runs `fdb show`.
pub(crate) fn fdb(command: &FdbCommand) -> Result<()> {
    let FdbCommand::Show(args) = command;
    let network = args.network.as_deref();
    let rows: Vec<FdbRow> = client::list_all(network, &Call::Fdb(Only::of_network(network)))?;
    if args.json {
        output::print_json(&rows)
    } else {
        output::print(&render(&rows))
    }
}

/// Each network's table; with its name above where there are several. The rows of a network stand together.
fn render(rows: &[FdbRow]) -> String {
    let tables: Vec<&[FdbRow]> = rows.chunk_by(|a, b| a.network == b.network).collect();
    let mut text = String::new();
    for table in &tables {
        // Writing to a string cannot fail.
        if tables.len() > 1 {
            let _ = writeln!(text, "{}:", table[0].network);
        }
        text.push_str(" port  VLAN  MAC                Age\n");
        for row in *table {
            // The bridge's own port is Open vSwitch's LOCAL.
            let port = row.port.map_or_else(|| "LOCAL".to_owned(), |p| p.to_string());
            let age = row
                .age
                .map_or_else(|| "static".to_owned(), |age| format!("{age:>3}"));
            let _ = writeln!(text, "{port:>5}  {:>4}  {}  {age}", row.vlan, row.mac);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(network: &str) -> Vec<FdbRow> {
        let row = |port, vlan, last, age| FdbRow {
            network: network.to_owned(),
            port,
            port_name: "web".into(),
            vlan,
            mac: pontoon_switch::MacAddr([2, 0, 0, 0, 0, last]),
            age,
        };
        vec![
            row(None, 0, 1, None),
            row(Some(1), 0, 2, Some(7)),
            row(Some(12), 100, 3, Some(299)),
        ]
    }

    #[test]
    fn as_open_vswitch_prints_it() {
        let table = "\
\x20port  VLAN  MAC                Age
LOCAL     0  02:00:00:00:00:01  static
    1     0  02:00:00:00:00:02    7
   12   100  02:00:00:00:00:03  299
";
        assert_eq!(render(&rows("shop")), table);
        assert_eq!(
            render(&[rows("shop"), rows("lab")].concat()),
            format!("shop:\n{table}lab:\n{table}")
        );
        assert_eq!(render(&[]), "");
    }
}
