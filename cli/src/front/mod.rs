//! The front: it owns the control socket, the state, the addresses and the published sockets, and never parses a frame.
//!
//! There are two kinds, which differ in how long they live and in nothing else. [`private`] is forked by `pontoon run` for a
//! network of its own and lives until that network's last container has ended. [`daemon`] is `pontoon daemon`: it has any
//! number of networks, keeps its state in a file, and starts packet processes that die anew.
//!
//! | room | is |
//! |---|---|
//! | [`registry`] | what there is: networks, containers and their interfaces |
//! | [`plan`], [`network`], [`packet_link`] | what a network is to be; the network; its packet process |
//! | [`networks`], [`revive`] | networks are made and removed; packet processes that died are started anew |
//! | [`uplink`], [`trial`], [`patches`] | a network's own link to the world; one try to make it; one that is a port of another network |
//! | [`carrier`] | whether an uplink that is an interface of the host has a carrier |
//! | [`routes`], [`judge`], [`cables`] | routes, which of them can be, and the cables between networks that they need |
//! | [`place`], [`attach`] | where a container is; how it comes, joins, leaves and goes |
//! | [`host_ports`] | what of the host is on a network |
//! | [`publish`], [`published`], [`claims`] | published ports; what they are called; those of uplinks, which no socket keeps |
//! | [`links`], [`wires`] | links, rules and names; wires |
//! | [`state`] | what outlives the daemon |
//! | [`serve`], [`api`] | the loop that watches everything; the calls of the control socket |

use std::time::{SystemTime, UNIX_EPOCH};

mod api;
mod attach;
mod cables;
mod capture_file;
mod carrier;
mod claims;
pub(crate) mod daemon;
mod host_ports;
mod judge;
mod links;
mod network;
mod networks;
mod packet_link;
mod patches;
mod place;
pub(crate) mod plan;
pub(crate) mod private;
mod publish;
mod published;
mod registry;
mod revive;
mod routes;
mod serve;
mod state;
#[cfg(test)]
mod tests;
mod trial;
mod uplink;
mod wires;

pub(crate) use plan::Plan;
pub(crate) use private::{Attached, Started, start};

/// A request that cannot be granted: an HTTP status and the reason.
#[derive(Debug)]
struct Refused {
    status: u16,
    error: anyhow::Error,
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self { status: 500, error }
    }
}

fn refused(status: u16, error: impl Into<anyhow::Error>) -> Refused {
    Refused {
        status,
        error: error.into(),
    }
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
