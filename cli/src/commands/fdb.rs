//! `pontoon fdb show`: forwarding tables as `ovs-appctl fdb/show` of Open vSwitch prints them.

use std::fmt::Write as _;

use anyhow::Result;

use crate::api::FdbRow;
use crate::args::FdbCommand;
use crate::client;
use crate::output;
use crate::routes::Call;

/// Runs `fdb show`.
pub(crate) fn fdb(command: &FdbCommand) -> Result<()> {
    let FdbCommand::Show(args) = command;
    let answers = client::ask_all::<Vec<FdbRow>>(args.network.as_deref(), &Call::Fdb)?;
    let tables: Vec<(String, Vec<FdbRow>)> = answers.into_iter().map(|(e, rows)| (e.network, rows)).collect();
    if args.json {
        return output::print_json(&tables.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>());
    }
    output::print(&render(&tables))
}

/// Each network's table; with its name above where there are several.
fn render(tables: &[(String, Vec<FdbRow>)]) -> String {
    let mut text = String::new();
    for (network, rows) in tables {
        if tables.len() > 1 {
            let _ = writeln!(text, "{network}:");
        }
        text.push_str(" port  VLAN  MAC                Age\n");
        for row in rows {
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

    fn rows() -> Vec<FdbRow> {
        let row = |port, vlan, last, age| FdbRow {
            network: "shop".into(),
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
        assert_eq!(render(&[("shop".into(), rows())]), table);
        assert_eq!(
            render(&[("shop".into(), rows()), ("lab".into(), vec![])]),
            format!("shop:\n{table}lab:\n port  VLAN  MAC                Age\n")
        );
        assert_eq!(render(&[]), "");
    }
}
