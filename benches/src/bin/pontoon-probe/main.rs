//! A measuring device, not a network: the least that any user-mode switch or relay on TAPs has to do, to tell what the system
//! calls allow on the machine at hand.
//!
//! ```text
//! pontoon-probe forward NETNS IFACE NETNS IFACE     frames from one TAP to the other and back
//! pontoon-probe relay NETNS IFACE MTU               one container's TCP, ended here
//! ```
//!
//! It makes the TAPs in network namespaces named as `ip netns` does, says `up`, and works until it is killed. The bench
//! `stacks` starts it as its column `probe`; nobody else should. What is left out:
//!
//! - of a switch: all. No frame is looked at, let alone held against what its sender may do; nothing is learnt or counted.
//! - of a relay: see [`relay`].
#![forbid(unsafe_code)]

mod relay;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use pontoon_switch::sys::tun::{self, TapOffload};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A frame of 64 KB with the headers before it, rounded up.
pub(crate) const BUFFER: usize = 10 + pontoon_switch::frame::MAX_FRAME;

/// Frames taken from one TAP before something else has its turn.
pub(crate) const BUDGET: usize = 64;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args {
        ["forward", a, tap_a, b, tap_b] => {
            let taps = [open(a, tap_a)?, open(b, tap_b)?];
            println!("up");
            forward(&taps)
        }
        ["relay", ns, tap, mtu] => {
            let tap = open(ns, tap)?;
            println!("up");
            relay::run(tap, mtu.parse().context("MTU")?)
        }
        _ => bail!("usage: pontoon-probe forward NETNS IFACE NETNS IFACE | relay NETNS IFACE MTU"),
    }
}

/// Makes a TAP in a named network namespace.
fn open(namespace: &str, name: &str) -> Result<OwnedFd> {
    let enter = |path: &str| -> Result<()> {
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {path}"))
    };
    let home = File::open("/proc/thread-self/ns/net")?;
    enter(&format!("/run/netns/{namespace}"))?;
    let tap = tun::open_vnet_tap(name).context("make a TAP")?;
    tun::set_offload(tap.as_fd(), TapOffload::TSO)?;
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(tap)
}

/// Copies frames with their virtio-net headers as they come. What the other TAP does not take is lost.
fn forward(taps: &[OwnedFd; 2]) -> Result<()> {
    let mut buf = vec![0; BUFFER];
    let mut fds = taps.each_ref().map(|t| PollFd::new(t, PollFlags::IN));
    loop {
        poll(&mut fds, None)?;
        for from in 0..2 {
            if fds[from].revents().is_empty() {
                continue;
            }
            for _ in 0..BUDGET {
                let Ok(n) = rustix::io::read(&taps[from], &mut buf[..]) else {
                    break;
                };
                let _ = rustix::io::write(&taps[1 - from], &buf[..n]);
            }
        }
    }
}
