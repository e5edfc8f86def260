//! `pontoon metrics`: what `GET /metrics` of a front answers, for whoever cannot read a Unix socket.

use anyhow::Result;

use crate::args::MetricsArgs;
use crate::client;
use crate::output;
use crate::routes::Call;

/// Prints the daemon's counters, or those of the front that has a network.
pub(crate) fn metrics(args: &MetricsArgs) -> Result<()> {
    let front = match &args.network {
        Some(network) => client::of_network(network)?.0,
        None => client::daemon()?,
    };
    output::print(&front.ask_text(&Call::Metrics)?)
}
