//! The filter of system calls (`seccomp(2)`), put together from the lists of the rooms in a process.
//!
//! A call that is in no list kills the process. The library makes the conditions on arguments into a program, but one with
//! one answer for all that it lists, and one that compares with one call after the other. The kernel goes through that once
//! for each call it has when the filter is installed, which is seen in the time of a start, and later at each call whose
//! arguments count. So the calls are cut into leaves, each a program of the library's, and a tree over their numbers leads to
//! them. A leaf looks at the architecture first, so that the numbers are those of the lists.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use pontoon_switch::calls::{Answer, Arg, Call, Value};
use pontoon_switch::sys::trap::name_forbidden_calls;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, sock_filter,
};

use super::{Role, runtime};

/// The environment variable that has a forbidden call named: its value is `trap`.
pub(crate) const VARIABLE: &str = "PONTOON_SECCOMP";

/// Calls in one leaf at most.
const LEAF: usize = 4;

/// What the lists say of one call: the answer, and the rules of which one must hold, or none for any arguments.
type Merged = BTreeMap<i64, (Answer, Vec<SeccompRule>)>;

/// The program, ready to be installed.
pub(super) struct Filter {
    program: BpfProgram,
    trap: bool,
}

/// A program for calls from a number on.
struct Leaf {
    first: u32,
    program: BpfProgram,
}

/// Filters the calls of this thread and those it starts.
pub(super) fn filter(role: &Role) -> Result<()> {
    Filter::compile(role)
        .context("the lists of system calls make no filter")?
        .install()
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
        let calls = merge(role.calls.iter().copied().chain(runtime::lists()).flatten())?;
        // The number of the call, which is at the beginning of what a filter is given.
        let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        tree(&leaves(calls, &forbidden)?, &mut program)?;
        Ok(Self { program, trap })
    }

    /// Puts it into force in this thread and those it starts.
    pub(super) fn install(self) -> Result<()> {
        if self.trap {
            name_forbidden_calls().context("cannot handle SIGSYS")?;
        }
        apply_filter(&self.program).context("the kernel refuses the filter")
    }
}

/// Leads to the leaf for the number that has been loaded.
fn tree(leaves: &[Leaf], program: &mut BpfProgram) -> Result<()> {
    let (left, right) = leaves.split_at(leaves.len() / 2);
    match (left, right) {
        (_, []) => {}
        ([], [leaf, ..]) => program.extend_from_slice(&leaf.program),
        ([..], [middle, ..]) => {
            // Conditional jumps do not reach far: not smaller, over the left half.
            program.push(instruction(
                libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
                middle.first,
                1,
            ));
            let jump = program.len();
            program.push(instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0));
            tree(left, program)?;
            program[jump].k = u32::try_from(program.len() - jump - 1)?;
            tree(right, program)?;
        }
    }
    Ok(())
}

/// An instruction that, if it is a condition that does not hold, passes over the next `otherwise`.
fn instruction(code: u32, k: u32, otherwise: u8) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: otherwise,
        k,
    }
}

/// Cuts the calls, in the order of their numbers, into programs of the same answer.
fn leaves(calls: Merged, forbidden: &SeccompAction) -> Result<Vec<Leaf>> {
    let absent = SeccompAction::Errno(rustix::io::Errno::NOSYS.raw_os_error().cast_unsigned());
    let architecture: seccompiler::TargetArch = std::env::consts::ARCH.try_into()?;
    let calls: Vec<_> = calls.into_iter().collect();
    let runs = calls.chunk_by(|(_, (a, _)), (_, (b, _))| a == b);
    runs.flat_map(|run| run.chunks(LEAF))
        .map(|calls| {
            let (first, (answer, _)) = &calls[0];
            let answer = match answer {
                Answer::Allowed => SeccompAction::Allow,
                Answer::Absent => absent.clone(),
            };
            let rules = calls.iter().map(|(number, (_, rules))| (*number, rules.clone()));
            let filter = SeccompFilter::new(rules.collect(), forbidden.clone(), answer, architecture)?;
            Ok(Leaf {
                first: u32::try_from(*first)?,
                program: filter.try_into()?,
            })
        })
        .collect()
}

/// What `calls` say, by number. Where several speak of the same, each allows what it allows.
fn merge<'a>(calls: impl Iterator<Item = &'a Call>) -> Result<Merged> {
    let mut merged: BTreeMap<i64, (Answer, Option<Vec<SeccompRule>>)> = BTreeMap::new();
    for call in calls {
        let (answer, rules) = merged
            .entry(call.number)
            .or_insert_with(|| (call.answer, Some(Vec::new())));
        ensure!(
            *answer == call.answer,
            "number {} is listed both as made and as absent",
            call.number
        );
        if call.rules.is_empty() {
            // Any arguments, whatever others say.
            *rules = None;
        }
        if let Some(rules) = rules {
            for rule in call.rules {
                let conditions = rule.iter().map(condition).collect::<Result<_, _>>()?;
                let rule = SeccompRule::new(conditions)?;
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    Ok(merged
        .into_iter()
        .map(|(number, (answer, rules))| (number, (answer, rules.unwrap_or_default())))
        .collect())
}

fn condition(arg: &Arg) -> Result<SeccompCondition, seccompiler::BackendError> {
    let compare = if arg.mask == u32::MAX {
        SeccompCmpOp::Eq
    } else {
        SeccompCmpOp::MaskedEq(arg.mask.into())
    };
    let value = match arg.value {
        Value::Number(value) => value,
        Value::OwnProcess => std::process::id(),
    };
    SeccompCondition::new(arg.index, SeccompCmpArgLen::Dword, compare, value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYS_A: i64 = 5;
    const ANY: &str = "any";

    /// What `program` says to a call of this machine: the kernel's interpreter of filters, as far as it is used.
    fn answer(program: &BpfProgram, number: u32, args: [u32; 6]) -> u32 {
        let (mut at, mut a) = (0usize, 0u32);
        let architecture = match std::env::consts::ARCH {
            "x86_64" => 0xc000_003e,
            "aarch64" => 0xc000_00b7,
            other => panic!("{other} is not known here"),
        };
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let code = u32::from(code);
            at += 1;
            let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match code {
                0x20 => {
                    a = match k {
                        0 => number,
                        4 => architecture,
                        16..=56 if k.is_multiple_of(8) => args[(k as usize - 16) / 8],
                        _ => panic!("load of {k}"),
                    }
                }
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => jump(a == k),
                0x35 => jump(a >= k),
                0x25 => jump(a > k),
                0x06 => return k,
                _ => panic!("code {code:#x}"),
            }
        }
    }

    fn filter(list: &'static [Call]) -> BpfProgram {
        let calls = merge(list.iter()).expect("a list");
        let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        let leaves = leaves(calls, &SeccompAction::KillProcess).expect("leaves");
        tree(&leaves, &mut program).expect("a tree");
        program
    }

    #[test]
    fn every_listed_call_gets_its_answer_and_every_other_kills() {
        const LIST: &[Call] = &[
            Call::any(3, ANY),
            Call::only(
                SYS_A,
                &[&[Arg::is(0, 7), Arg::masked(1, 0xf, 2)], &[Arg::lacks(2, 4)]],
                ANY,
            ),
            Call::only(SYS_A, &[&[Arg::is(5, 1)]], ANY),
            Call::absent(6, &[], ANY),
            Call::absent(7, &[&[Arg::is(1, 1)]], ANY),
            Call::any(8, ANY),
            Call::only(9, &[&[Arg::own_process(0)]], ANY),
            Call::any(10, ANY),
            Call::any(11, ANY),
            Call::any(12, ANY),
            Call::any(13, ANY),
            Call::only(14, &[&[Arg::is(0, 1)]], ANY),
            Call::any(14, ANY),
            Call::any(400, ANY),
        ];
        let program = filter(LIST);
        let (allow, kill, absent) = (0x7fff_0000, 0x8000_0000, 0x0005_0000 | 38);
        let none = [0, 0, 4, 0, 0, 0];
        for number in (0..1000).chain([1 << 30, u32::MAX]) {
            let expected = match number {
                3 | 8 | 10..=14 | 400 => allow,
                6 => absent,
                _ => kill,
            };
            assert_eq!(answer(&program, number, none), expected, "{number}");
        }
        for (args, expected) in [
            ([7, 0x12, 4, 0, 0, 0], allow),
            ([7, 0x13, 4, 0, 0, 0], kill),
            ([8, 0x12, 4, 0, 0, 0], kill),
            ([0, 0, 3, 0, 0, 0], allow),
            ([0, 0, 4, 0, 0, 1], allow),
        ] {
            assert_eq!(answer(&program, 5, args), expected, "{args:?}");
        }
        for (pid, expected) in [(std::process::id(), allow), (std::process::id() + 1, kill)] {
            assert_eq!(answer(&program, 9, [pid, 0, 0, 0, 0, 0]), expected);
        }
        assert_eq!(answer(&program, 7, [0, 1, 0, 0, 0, 0]), absent);
        assert_eq!(answer(&program, 7, [0, 2, 0, 0, 0, 0]), kill);
    }

    #[test]
    fn contradictions_and_rules_that_say_nothing_are_refused() {
        assert!(merge([Call::any(1, ANY), Call::absent(1, &[], ANY)].iter()).is_err());
        assert!(merge([Call::only(1, &[&[]], ANY)].iter()).is_err());
    }
}
