//! The switches of the sandbox, the same for every front end that has one.

use clap::Args;

use super::{Part, SandboxOptions};

/// Which parts of the sandbox are turned off, or required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct SandboxArgs {
    /// Do not confine the process that touches packets at all
    #[arg(long, help_heading = "Sandbox")]
    pub(crate) no_sandbox: bool,

    /// Leave it the host's file system instead of an empty root directory
    #[arg(long, help_heading = "Sandbox")]
    pub(crate) no_empty_root: bool,

    /// Do not filter its system calls
    #[arg(long, help_heading = "Sandbox")]
    pub(crate) no_seccomp: bool,

    /// Do not restrict it by Landlock
    #[arg(long, help_heading = "Sandbox")]
    pub(crate) no_landlock: bool,

    /// Leave it the capabilities of whoever started it
    #[arg(long, help_heading = "Sandbox")]
    pub(crate) keep_capabilities: bool,

    /// Refuse to run where the kernel cannot give a part that is not turned off; otherwise the log says so
    #[arg(long, help_heading = "Sandbox", conflicts_with = "no_sandbox")]
    pub(crate) require_sandbox: bool,
}

impl SandboxArgs {
    /// What they ask for.
    pub(crate) fn options(&self) -> SandboxOptions {
        let part = |off: bool| {
            if off || self.no_sandbox {
                Part::Off
            } else if self.require_sandbox {
                Part::Required
            } else {
                Part::BestEffort
            }
        };
        SandboxOptions {
            capabilities: part(self.keep_capabilities),
            root: part(self.no_empty_root),
            landlock: part(self.no_landlock),
            seccomp: part(self.no_seccomp),
        }
    }

    /// True if any of them is given.
    pub(crate) fn is_given(&self) -> bool {
        *self != Self::default()
    }
}
