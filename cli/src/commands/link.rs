//! `pontoon link`, `pontoon unlink` and `pontoon links`: who reaches whom where containers do not reach each other.

use anyhow::{Context as _, Result, ensure};

use crate::api::LinkInfo;
use crate::args::{JsonArgs, LinkArgs, PairArgs};
use crate::client;
use crate::output::{self, Table};
use crate::routes::Call;

/// Links a container to another.
pub(crate) fn link(args: &LinkArgs) -> Result<()> {
    let request = args.request();
    let (client, server) = (request.client.clone(), request.server.clone());
    ensure!(client != server, "a container needs no link to itself: name two");
    let (front, _) = client::container_named(&client)?;
    let link: LinkInfo = front
        .ask(&Call::Link(request))
        .with_context(|| format!("cannot link {client} to {server}"))?;
    if args.json {
        output::print_json(&link)
    } else {
        Ok(())
    }
}

/// Takes a link back.
pub(crate) fn unlink(args: &PairArgs) -> Result<()> {
    let (front, _) = client::container_named(&args.a)?;
    front
        .ask(&Call::Unlink {
            client: args.a.clone(),
            server: args.b.clone(),
        })
        .with_context(|| format!("cannot unlink {} from {}", args.a, args.b))
}

/// Prints the links of all fronts.
pub(crate) fn links(args: &JsonArgs) -> Result<()> {
    let links: Vec<LinkInfo> = client::list_all(None, &Call::Links)?;
    if args.json {
        output::print_json(&links)
    } else {
        output::print(&render(&links))
    }
}

fn render(links: &[LinkInfo]) -> String {
    let mut table = Table::new(&["CLIENT", "SERVER", "ALIAS", "PORTS", "ADDRESSES"]);
    for link in links {
        table.row(vec![
            link.client.clone(),
            link.server.clone(),
            link.alias.clone(),
            output::list(&link.ports),
            output::list(&link.addresses),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn the_table() {
        assert_eq!(
            render(&[samples::link()]),
            "\
CLIENT  SERVER  ALIAS  PORTS              ADDRESSES
web     db      store  5432/tcp, 7-9/udp  10.30.0.7, fd30::7
"
        );
        assert_eq!(render(&[]), "CLIENT  SERVER  ALIAS  PORTS  ADDRESSES\n");
    }
}
