//! The system calls that code makes once its process is confined, said beside the code that makes them.
//!
//! A process that parses what strangers send is to be left no more of the kernel than it needs. What that is, only the code
//! knows: so each room that runs in such a process has a `CALLS`, a list of [`Call`]s with a reason each, and whoever starts
//! the process puts the lists of its rooms together into a filter (`seccomp(2)`). A call that is in no list kills the
//! process: whoever adds one adds it to the list.
//!
//! Calls on the way of a frame are allowed as they are ([`Call::any`]): the kernel remembers for those that the filter
//! always says yes and does not ask it again (Linux 5.11). Rarer ones are allowed with certain arguments only
//! ([`Call::only`]). Arguments are compared as the 32 bits that the kernel itself looks at; what a pointer leads to cannot
//! be seen by a filter.

use std::ffi::c_long;

/// A system call that is made, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number (`libc::SYS_*`).
    pub number: c_long,
    /// What becomes of it.
    pub answer: Answer,
    /// With which arguments: one of these rules must hold, if there are any.
    pub rules: &'static [&'static [Arg]],
    /// What it is for.
    pub why: &'static str,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is made.
    Allowed,
    /// It fails as if the kernel did not have it (`ENOSYS`).
    Absent,
}

impl Call {
    /// A call with any arguments.
    pub const fn any(number: c_long, why: &'static str) -> Self {
        Self::only(number, &[], why)
    }

    /// A call with arguments for which all parts of one of `rules` hold.
    pub const fn only(number: c_long, rules: &'static [&'static [Arg]], why: &'static str) -> Self {
        Self {
            number,
            answer: Answer::Allowed,
            rules,
            why,
        }
    }

    /// A call that libraries try and can do without: it fails, and does not kill.
    pub const fn absent(number: c_long, rules: &'static [&'static [Arg]], why: &'static str) -> Self {
        Self {
            number,
            answer: Answer::Absent,
            rules,
            why,
        }
    }
}

/// What one argument of a call must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arg {
    /// Which, from 0.
    pub index: u8,
    /// The bits that are looked at.
    pub mask: u32,
    /// What they must be.
    pub value: Value,
}

/// What an argument is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// This number.
    Number(u32),
    /// The number of the process that is confined.
    OwnProcess,
}

impl Arg {
    /// Argument `index` is `value`.
    pub const fn is(index: u8, value: u32) -> Self {
        Self::masked(index, u32::MAX, value)
    }

    /// None of `bits` is set in argument `index`.
    pub const fn lacks(index: u8, bits: u32) -> Self {
        Self::masked(index, bits, 0)
    }

    /// The bits `mask` of argument `index` are `value`.
    pub const fn masked(index: u8, mask: u32, value: u32) -> Self {
        Self {
            index,
            mask,
            value: Value::Number(value),
        }
    }

    /// Argument `index` names the process itself.
    pub const fn own_process(index: u8) -> Self {
        Self {
            index,
            mask: u32::MAX,
            value: Value::OwnProcess,
        }
    }
}
