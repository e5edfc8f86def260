//! The TCP relay between a simulated container and simulated host sockets.

mod data;
mod ending;
mod limits;
mod opening;
mod published;
#[path = "../support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Tcp};
use pontoon_fixtures::sim::{self, Impairment};
use pontoon_nat::host::sim::tcp::{Closed, Far, Outcome, SimListener};
use pontoon_nat::publish::{SourceAction, SourceRule, Transport};
use pontoon_switch::{DropReason, Station};
use smoltcp::socket::tcp::State;
use support::tcp::*;
use support::*;

const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;
const EINVAL: i32 = 22;
const ECONNREFUSED: i32 = 111;
