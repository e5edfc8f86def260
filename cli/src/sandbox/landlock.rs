//! Landlock (`landlock(7)`): no access to files by path, no way to abstract Unix sockets and processes outside.
//!
//! What the process has open goes on working. The kernel gives what its version has (files since 5.13, scopes since 6.12);
//! the rest is left out without a word, and only no Landlock at all is a part that is missing.

use ::landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus, Scope};
use anyhow::{Context, Result, bail};

/// The newest interface that was looked at: what later ones add is not asked for unseen.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and those it starts.
pub(super) fn restrict() -> Result<()> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.restrict_self())
        .context("the kernel refuses the rules")?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => bail!("this kernel is without it or has it turned off"),
    }
}
