//! The filter of system calls (`seccomp(2)`), put together from the lists of the rooms in a process.
//!
//! A call that is in no list kills the process. Those of the lists that are [absent](Answer::Absent) are a filter of their
//! own, as one filter of the library has one answer for what it lists; of two answers the kernel takes the stricter.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use pontoon_switch::calls::{Answer, Arg, Call};
use pontoon_switch::sys::trap::name_forbidden_calls;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::{Role, runtime};

/// The environment variable that has a forbidden call named: its value is `trap`.
pub(crate) const VARIABLE: &str = "PONTOON_SECCOMP";

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs, ready to be installed.
pub(super) struct Filter {
    /// In the order in which they are installed.
    programs: Vec<BpfProgram>,
    trap: bool,
}

impl Filter {
    /// Puts the lists together.
    pub(super) fn compile(role: &Role) -> Result<Self> {
        let trap = std::env::var_os(VARIABLE).is_some_and(|value| value == "trap");
        let forbidden = if trap {
            SeccompAction::Trap
        } else {
            SeccompAction::KillProcess
        };
        let lists = || role.calls.iter().copied().chain(runtime::lists()).flatten();
        let absent = rules(lists().filter(|call| call.answer == Answer::Absent))?;
        let nosys = rustix::io::Errno::NOSYS.raw_os_error().cast_unsigned();
        let mut programs = Vec::new();
        if !absent.is_empty() {
            programs.push(program(
                absent,
                SeccompAction::Allow,
                SeccompAction::Errno(nosys),
            )?);
        }
        programs.push(program(rules(lists())?, forbidden, SeccompAction::Allow)?);
        Ok(Self { programs, trap })
    }

    /// Puts them into force in this thread and those it starts.
    pub(super) fn install(self) -> Result<()> {
        if self.trap {
            name_forbidden_calls().context("cannot handle SIGSYS")?;
        }
        for program in &self.programs {
            apply_filter(program).context("the kernel refuses the filter")?;
        }
        Ok(())
    }
}

fn program(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, listed, architecture)?.try_into()?)
}

/// The rules for `calls`. Where several speak of the same number, each allows what it allows.
fn rules<'a>(calls: impl Iterator<Item = &'a Call>) -> Result<Rules> {
    // A call without rules has any arguments.
    let mut merged: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for call in calls {
        let into = merged.entry(call.number).or_insert_with(|| Some(Vec::new()));
        if call.rules.is_empty() {
            *into = None;
        }
        if let Some(into) = into {
            for rule in call.rules {
                ensure!(!rule.is_empty(), "a rule for `{}` says nothing", call.why);
                let conditions = rule.iter().map(condition).collect::<Result<_, _>>()?;
                let rule = SeccompRule::new(conditions)?;
                if !into.contains(&rule) {
                    into.push(rule);
                }
            }
        }
    }
    Ok(merged
        .into_iter()
        .map(|(number, rules)| (number, rules.unwrap_or_default()))
        .collect())
}

fn condition(arg: &Arg) -> Result<SeccompCondition, seccompiler::BackendError> {
    let compare = if arg.mask == u32::MAX {
        SeccompCmpOp::Eq
    } else {
        SeccompCmpOp::MaskedEq(arg.mask.into())
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, compare, arg.value.into())
}
