//! `pontoon wire`, `pontoon unwire` and `pontoon wires`: containers point to point.

use anyhow::{Context as _, Result, ensure};

use crate::api::{WireEnd, WireInfo};
use crate::args::{JsonArgs, PairArgs, WireArgs};
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

/// Lays a wire between two containers and prints its ends.
pub(crate) fn wire(args: &WireArgs) -> Result<()> {
    let request = args.request();
    let (a, b) = (request.a.clone(), request.b.clone());
    ensure!(a != b, "a wire is between two containers: name two");
    let (front, _) = client::container_named(&a)?;
    let wire: WireInfo = front
        .ask(&Call::Wire(request))
        .with_context(|| format!("cannot lay a wire between {a} and {b}"))?;
    if args.json {
        output::print_json(&wire)
    } else {
        output::print(&format!("{} -- {}\n", end(&wire.a), end(&wire.b)))
    }
}

/// Takes a wire away.
pub(crate) fn unwire(args: &PairArgs) -> Result<()> {
    let (front, _) = client::container_named(&args.a)?;
    front
        .ask(&Call::Unwire {
            a: args.a.clone(),
            b: args.b.clone(),
        })
        .with_context(|| format!("cannot take the wire between {} and {} away", args.a, args.b))
}

/// Prints the wires of all fronts.
pub(crate) fn wires(args: &JsonArgs) -> Result<()> {
    let wires: Vec<WireInfo> = client::list_all(None, &Call::Wires)?;
    if args.json {
        output::print_json(&wires)
    } else {
        output::print(&render(&wires))
    }
}

/// `web eth1 10.1.1.1`.
fn end(end: &WireEnd) -> String {
    format!("{} {} {}", end.container, end.interface, end.address)
}

fn render(wires: &[WireInfo]) -> String {
    let mut table = Table::new(&["A", "INTERFACE", "ADDRESS", "B", "INTERFACE", "ADDRESS", "SINCE"]);
    for WireInfo { a, b, since } in wires {
        let mut cells = Vec::new();
        for end in [a, b] {
            cells.extend([
                end.container.clone(),
                end.interface.clone(),
                end.address.to_string(),
            ]);
        }
        cells.push(output::timestamp(*since));
        table.row(cells);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn the_table() {
        let wire = samples::wire();
        assert_eq!(end(&wire.a), "web eth2 10.1.1.1");
        assert_eq!(
            render(&[wire]),
            "\
A    INTERFACE  ADDRESS   B   INTERFACE  ADDRESS   SINCE
web  eth2       10.1.1.1  db  eth1       10.1.1.2  2026-11-21T08:00:00Z
"
        );
        assert_eq!(
            render(&[]),
            "A  INTERFACE  ADDRESS  B  INTERFACE  ADDRESS  SINCE\n"
        );
    }
}
