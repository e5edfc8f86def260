//! Which parts of the sandbox this kernel gives. `run` works without any of them, but less guarded.

use std::process::ExitStatus;

use super::Finding;
use crate::sandbox::{Entered, Outcome, trial};

/// Tries all parts in a child.
pub(super) fn findings() -> Vec<Finding> {
    match trial::run() {
        Ok((entered, status)) => judge(&entered, status),
        Err(e) => vec![Finding::warning(
            "sandbox",
            format!("it cannot be tried: {e:#}"),
            "see that /proc is mounted and this program may be executed",
        )],
    }
}

pub(super) fn judge(entered: &Entered, status: ExitStatus) -> Vec<Finding> {
    let seccomp = match &entered.seccomp {
        Outcome::Holds if !trial::was_killed(status) => Outcome::Missing(format!(
            "a forbidden system call was not answered by death, but: {status}"
        )),
        outcome => outcome.clone(),
    };
    [
        part(
            "sandbox: root",
            &entered.root,
            "the packet process sees an empty root directory",
            "allow unprivileged user namespaces (see above), or run as root",
        ),
        part(
            "sandbox: capabilities",
            &entered.capabilities,
            "the packet process has no capabilities and gets none",
            "see that no seccomp profile of an outer container forbids prctl and capset",
        ),
        part(
            "sandbox: landlock",
            &entered.landlock,
            "the packet process is restricted by Landlock",
            "use Linux 5.13 or later with `landlock` among the lsm= of its command line",
        ),
        part(
            "sandbox: seccomp",
            &seccomp,
            "a system call that the packet process has no use for kills it",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    ]
    .into_iter()
    .collect()
}

fn part(check: &'static str, outcome: &Outcome, what: &str, remedy: &str) -> Finding {
    match outcome {
        Outcome::Holds => Finding::ok(check, what),
        Outcome::Off => Finding::warning(check, "it is turned off", "leave it on"),
        Outcome::Missing(why) => Finding::warning(check, format!("it cannot be had here: {why}"), remedy),
    }
}
