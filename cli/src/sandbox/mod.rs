//! The sandbox of a process that touches packets: after it, what a hostile frame makes the process do reaches nothing but
//! the network.
//!
//! # Theory of operation
//!
//! A process is confined once, by [`Sandbox::enter`], when it holds all that it needs of the host (files, namespaces,
//! capabilities, descriptors) and before it has read the first frame. It has four parts, each of which stands by itself
//! and can be turned off by itself ([`SandboxArgs`]):
//!
//! | part | file | holds |
//! |---|---|---|
//! | capabilities | [`capabilities`] | none but what the [`Role`] keeps, and no way to gain any (`no_new_privs`, bounding set, securebits); no core files |
//! | root | [`root`] | an empty, read-only root directory in a mount namespace of its own; no descriptor of a directory |
//! | Landlock | [`landlock`] | no access to files; no abstract Unix sockets and no signals beyond the process |
//! | seccomp | [`seccomp`] | no system calls but those that the code in the process is known to make |
//!
//! They overlap on purpose. The root hides the host's files and the Unix sockets that lie among them, but abstract ones
//! belong to the network namespace: Landlock's scope and seccomp keep from those.
//!
//! **One thread.** `enter` refuses where a second thread runs, rather than confine all of them: a user namespace can only be
//! made by a process of one thread, and capabilities, Landlock's domain and a filter are each thread's own, which threads
//! started later inherit. Seccomp could reach the others (`TSYNC`), capabilities could not. So: gather, enter, then start
//! threads. Signal handlers, descriptors and memory stay as they are.
//!
//! **In this order**: directories' descriptors are blinded and the root is exchanged, as that needs `/proc`, mounts and
//! capabilities; capabilities go; then Landlock, which forbids mounts; then seccomp, which forbids all of these.
//!
//! **Best effort.** What the kernel refuses is left out, with one warning in the log that names what is missing, while the
//! other parts hold; `pontoon doctor` tries the same ([`trial`]). With [`Part::Required`] it is an error.
//!
//! # For who uses it
//!
//! ```text
//! let prepared = Wiring::prepare(…)?;                       // whatever opens something of the host
//! Sandbox::from_options(&options).enter(&packet::ROLE)?;    // still one thread
//! prepared.start(…)?;                                       // threads
//! ```
//!
//! A [`Role`] says what is particular about a process: the capability that stays, who may look into it by `/proc`, and the
//! system calls of its rooms ([`pontoon_switch::calls`]); those of the language's runtime ([`runtime`]) come by themselves.
//! A call that none of the lists has kills the process with SIGSYS; with `PONTOON_SECCOMP=trap` in the environment, the
//! process says its number on standard error before it dies.

use anyhow::{Context, Result, ensure};
use pontoon_switch::calls::Call;
use pontoon_switch::sys::process::is_single_threaded;
use serde::{Deserialize, Serialize};

pub(crate) use args::SandboxArgs;

mod args;
mod capabilities;
mod landlock;
mod root;
mod runtime;
mod seccomp;
#[cfg(test)]
mod tests;
pub(crate) mod trial;

/// What is to become of one part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// It is there as far as the kernel allows.
    #[default]
    BestEffort,
    /// It is there, or nothing runs.
    Required,
    /// It is turned off.
    Off,
}

/// Which parts there are to be. The default is all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SandboxOptions {
    /// Capabilities, `no_new_privs` and core files.
    pub(crate) capabilities: Part,
    /// The empty root directory.
    pub(crate) root: Part,
    /// Landlock.
    pub(crate) landlock: Part,
    /// The filter of system calls.
    pub(crate) seccomp: Part,
}

/// The capability that a process keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// None.
    Nothing,
    /// `CAP_NET_BIND_SERVICE`: as far as the process has had it, it goes on binding low ports of the host.
    ///
    /// An ordinary user has it over the namespace made for the empty root only, where it is good for nothing but to be seen.
    LowPorts,
}

/// Who may look into the process by `/proc/PID` (`root`, `fd`, `maps`, …) and by debuggers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inspection {
    /// Only root of the host: the process is not dumpable (`PR_SET_DUMPABLE`).
    Root,
    /// Other processes of its user as well, for callers that look at `/proc/PID/root`.
    Owner,
}

/// What is particular about a process that is confined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    /// The capability that stays.
    pub(crate) keep: Keep,
    /// Who may look into it.
    pub(crate) inspection: Inspection,
    /// The system calls of its rooms.
    pub(crate) calls: &'static [&'static [Call]],
}

/// How it went with one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It holds.
    Holds,
    /// It was turned off.
    Off,
    /// It does not hold, for this reason.
    Missing(String),
}

/// How it went with each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entered {
    /// Capabilities, `no_new_privs` and core files.
    pub(crate) capabilities: Outcome,
    /// The empty root directory.
    pub(crate) root: Outcome,
    /// Landlock.
    pub(crate) landlock: Outcome,
    /// The filter of system calls.
    pub(crate) seccomp: Outcome,
}

/// A sandbox that has not closed yet.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is confined until it is entered"]
pub(crate) struct Sandbox {
    options: SandboxOptions,
}

impl Sandbox {
    /// One of these parts.
    pub(crate) fn from_options(options: &SandboxOptions) -> Self {
        Self { options: *options }
    }

    /// Confines this process, which has one thread, for good.
    ///
    /// # Errors
    /// A part that is [required](Part::Required) and cannot be had; a second thread.
    pub(crate) fn enter(self, role: &Role) -> Result<Entered> {
        let entered = self.close(role)?;
        let parts = [
            ("an empty root", &entered.root),
            ("no capabilities", &entered.capabilities),
            ("Landlock", &entered.landlock),
            ("seccomp", &entered.seccomp),
        ];
        let missing: Vec<String> = parts
            .into_iter()
            .filter_map(|(name, outcome)| match outcome {
                Outcome::Holds | Outcome::Off => None,
                Outcome::Missing(why) => Some(format!("{name} ({why})")),
            })
            .collect();
        if !missing.is_empty() {
            tracing::warn!(
                "the sandbox is without {}: see `pontoon doctor`",
                missing.join(", ")
            );
        }
        Ok(entered)
    }

    fn close(self, role: &Role) -> Result<Entered> {
        let SandboxOptions {
            capabilities,
            root,
            landlock,
            seccomp,
        } = self.options;
        if [capabilities, root, landlock, seccomp]
            .iter()
            .all(|&p| p == Part::Off)
        {
            let off = || Outcome::Off;
            return Ok(Entered {
                capabilities: off(),
                root: off(),
                landlock: off(),
                seccomp: off(),
            });
        }
        ensure!(
            is_single_threaded().context("cannot count the threads")?,
            "the sandbox cannot close: there are threads already"
        );
        let had = capabilities::permitted()?;
        let root = outcome("an empty root", root, || root::exchange(role.keep))?;
        if capabilities == Part::Off {
            capabilities::gain_nothing(had)?;
        }
        let capabilities = outcome("no capabilities", capabilities, || {
            capabilities::give_up(role.keep, role.inspection)
        })?;
        let landlock = outcome("Landlock", landlock, landlock::restrict)?;
        let seccomp = outcome("seccomp", seccomp, || seccomp::filter(role))?;
        Ok(Entered {
            capabilities,
            root,
            landlock,
            seccomp,
        })
    }
}

/// Has one part done by `enter`, as it is asked for.
fn outcome(name: &str, part: Part, enter: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    if part == Part::Off {
        return Ok(Outcome::Off);
    }
    match enter() {
        Ok(()) => Ok(Outcome::Holds),
        Err(e) if part == Part::Required => {
            Err(e.context(format!("the sandbox cannot have {name}, which is required")))
        }
        Err(e) => Ok(Outcome::Missing(format!("{e:#}"))),
    }
}
