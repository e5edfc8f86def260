//! A trial of what `run` does first: a child in new namespaces, its ids mapped, a TAP in its network namespace.
//!
//! The child is this program again, which reports through a pipe and ends; its namespaces and its TAP end with it.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use pontoon_switch::sys::fd::{self, OnExec};
use pontoon_switch::sys::process::{Namespaces, spawn_held};
use pontoon_switch::sys::tun::{self, TapOffload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use super::Finding;
use super::kernel::optional;
use crate::idmap;

/// How long the child may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the child saw.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Why there is no TAP, if there is none.
    pub(super) error: Option<String>,
    /// Whether it has a virtio-net header.
    pub(super) vnet_header: bool,
    /// Whether it takes TCP super-frames.
    pub(super) tso: bool,
    /// Whether it takes UDP super-frames.
    pub(super) uso: bool,
}

/// What the parent saw.
#[derive(Debug)]
pub(super) enum Outcome {
    /// No namespaces.
    Refused(io::Error),
    /// Namespaces, but no ids in them, or no answer from them.
    Failed(String),
    /// It went well as far as the child.
    Done {
        /// How many user ids the child had.
        ids: u64,
        /// The TAP, if it could be tried without loading anything.
        report: Option<Report>,
    },
}

/// Tries it; with a TAP only if `/dev/net/tun` may be opened without loading a module.
pub(super) fn findings(with_tap: bool) -> Vec<Finding> {
    let uid = rustix::process::geteuid().as_raw();
    judge(&trial(with_tap), uid, missing_tools())
}

/// Which of the tools that map subordinate ids are not in `$PATH`.
fn missing_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    !found("newuidmap") || !found("newgidmap")
}

pub(super) fn judge(outcome: &Outcome, uid: u32, no_tools: bool) -> Vec<Finding> {
    const USER: &str = "user namespaces";
    const IDS: &str = "subordinate ids";
    const TAP: &str = "tap";
    let (ids, report) = match outcome {
        Outcome::Refused(e) => {
            let remedy = match e.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                    "as root: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), \
                     kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in a container: its seccomp profile forbids it"
                }
                Some(rustix::io::Errno::NOSPC | rustix::io::Errno::USERS) => {
                    "as root: raise sysctl user.max_user_namespaces and user.max_net_namespaces; fewer nested containers"
                }
                _ => "use a kernel with user and network namespaces (CONFIG_USER_NS, CONFIG_NET_NS)",
            };
            return vec![Finding::failure(
                USER,
                format!("namespaces cannot be made: {e}"),
                remedy,
            )];
        }
        Outcome::Failed(e) => {
            let remedy = "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); \
                          in a container: give it the right to make user namespaces";
            return vec![Finding::failure(
                USER,
                format!("namespaces are made, but cannot be used: {e}"),
                remedy,
            )];
        }
        Outcome::Done { ids, report } => (*ids, report),
    };
    let mut findings = vec![Finding::ok(
        USER,
        "user, network and the other namespaces can be made",
    )];
    findings.push(if ids > 1 {
        Finding::ok(IDS, format!("{ids} user ids can be mapped"))
    } else {
        let what = "only one user id can be mapped: programs that change their user (nginx, apt) fail";
        let remedy = if no_tools {
            "as root: apt install uidmap, and see that /etc/subuid and /etc/subgid have a line for this user".to_owned()
        } else {
            format!("as root: echo {uid}:100000:65536 | tee -a /etc/subuid /etc/subgid, with a range nobody else has")
        };
        Finding::warning(IDS, what, remedy)
    });
    match report {
        // Why not is said by the check of the device.
        None => {}
        Some(Report { error: Some(e), .. }) => {
            let remedy = "see that a device policy (cgroup, seccomp, AppArmor) does not forbid TAP devices";
            findings.push(Finding::failure(TAP, format!("no TAP can be made: {e}"), remedy));
        }
        Some(Report {
            error: None,
            vnet_header,
            tso,
            uso,
        }) => {
            findings.push(Finding::ok(TAP, "a TAP can be made"));
            findings.push(optional(
                "tap offloads",
                *vnet_header && *tso,
                "virtio-net headers and TCP super-frames on TAPs",
                "Linux 2.6.27",
                "TCP is slower",
            ));
            findings.push(optional(
                "tap uso",
                *uso,
                "UDP super-frames on TAPs",
                "Linux 6.2",
                "UDP is slower",
            ));
        }
    }
    findings
}

fn trial(with_tap: bool) -> Outcome {
    let namespaces = Namespaces::USER
        .and(Namespaces::MOUNT)
        .and(Namespaces::NETWORK)
        .and(Namespaces::UTS)
        .and(Namespaces::PID)
        .and(Namespaces::IPC);
    let failed = |e: anyhow::Error| Outcome::Failed(format!("{e:#}"));
    let (read, write) = match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
        Ok(pipe) => pipe,
        Err(e) => return failed(e.into()),
    };
    if let Err(e) = fd::set_on_exec(write.as_fd(), OnExec::Keep) {
        return failed(e.into());
    }
    let word = |s: &str| CString::new(s).expect("no zero inside");
    let fd = write.as_raw_fd().to_string();
    let mut arguments = vec![word("pontoon"), word(NAME), word(&fd)];
    if with_tap {
        arguments.push(word("--tap"));
    }
    let fallback = pontoon_switch::features::VARIABLE;
    let environment: Vec<CString> = std::env::var(fallback)
        .ok()
        .and_then(|value| CString::new(format!("{fallback}={value}")).ok())
        .into_iter()
        .collect();
    let held = match spawn_held(namespaces, &word("/proc/self/exe"), &arguments, &environment) {
        Ok(held) => held,
        Err(e) => return Outcome::Refused(e),
    };
    // Ours must go, or the end of the child would not be seen.
    drop(write);
    let pid = held.pid();
    let outcome = idmap::map_from_host(pid)
        .and_then(|()| Ok((mapped(pid)?, held.release()?)))
        .and_then(|(ids, ())| Ok((ids, answer(read)?)));
    // Whatever became of it, it is not to outlive this.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
    match outcome {
        Ok((ids, report)) => Outcome::Done {
            ids,
            report: with_tap.then_some(report),
        },
        Err(e) => failed(e),
    }
}

/// How many user ids `child` has.
fn mapped(child: Pid) -> Result<u64> {
    let path = format!("/proc/{}/uid_map", child.as_raw_nonzero());
    let map = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(count(&map))
}

/// The ids in the text of a map: lines of first inside, first outside, how many.
pub(super) fn count(map: &str) -> u64 {
    map.lines()
        .filter_map(|l| l.split_ascii_whitespace().nth(2)?.parse::<u64>().ok())
        .sum()
}

fn answer(pipe: OwnedFd) -> Result<Report> {
    let mut text = String::new();
    let mut pipe = fs::File::from(pipe);
    let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE)?;
    anyhow::ensure!(
        poll(&mut ready, Some(&patience))? > 0,
        "nothing came from inside in {PATIENCE:?}"
    );
    pipe.read_to_string(&mut text)?;
    serde_json::from_str(&text).context("the program cannot be executed inside")
}

/// The hidden command that the child is.
pub(crate) const NAME: &str = "__trial";

/// The child: tries a TAP if asked to, and reports to `fd`.
pub(crate) fn main(fd: i32, tap: bool) -> Result<()> {
    let pipe = fd::adopt(fd).context("__trial is started by pontoon itself")?;
    let report = if tap { try_tap() } else { Report::default() };
    serde_json::to_writer(fs::File::from(pipe), &report)?;
    Ok(())
}

fn try_tap() -> Report {
    let tap = match tun::open_tap("trial0") {
        Ok(tap) => tap,
        Err(e) => {
            return Report {
                error: Some(e.to_string()),
                ..Report::default()
            };
        }
    };
    let offload = |o| tun::set_offload(tap.as_fd(), o).is_ok();
    let vnet_header = tun::identify(tap.as_fd()).is_ok_and(|i| i.vnet_header);
    Report {
        error: None,
        vnet_header,
        tso: vnet_header && offload(TapOffload::TSO),
        uso: vnet_header && offload(TapOffload::USO),
    }
}
