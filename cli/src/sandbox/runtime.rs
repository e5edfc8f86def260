//! The system calls that no room makes by name: the language's runtime and the C library beneath it.
//!
//! Written for glibc 2.31 and later on x86-64 and AArch64. What other C libraries do otherwise is noted where it is known.

use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS,
    CLONE_PTRACE, CLONE_THREAD, CLONE_VFORK, O_ACCMODE, O_CREAT, O_RDONLY, PROT_EXEC,
};
use pontoon_switch::calls::{Arg, Call};

/// All of them.
pub(super) fn lists() -> impl Iterator<Item = &'static [Call]> {
    [MEMORY, THREADS, TIME, OUTPUT, ENDING, ASKED, LEGACY].into_iter()
}

/// `prctl(2)`: the name of a piece of memory, with which newer C libraries mark what they map.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// What a thread is not to be started with: anything but a thread.
const NO_THREAD: u32 = (CLONE_NEWCGROUP
    | CLONE_NEWIPC
    | CLONE_NEWNET
    | CLONE_NEWNS
    | CLONE_NEWPID
    | CLONE_NEWUSER
    | CLONE_NEWUTS
    | CLONE_PTRACE
    | CLONE_VFORK) as u32;

/// Memory is never to hold code.
const NO_CODE: &[&[Arg]] = &[&[Arg::lacks(2, PROT_EXEC as u32)]];

/// The allocator.
const MEMORY: &[Call] = &[
    Call::any(libc::SYS_brk, "the heap grows"),
    Call::only(libc::SYS_mmap, NO_CODE, "large pieces, arenas and stacks"),
    Call::only(
        libc::SYS_mprotect,
        NO_CODE,
        "arenas grow; the guard page beneath a stack",
    ),
    Call::any(libc::SYS_mremap, "large pieces grow"),
    Call::any(libc::SYS_munmap, "they are given back"),
    Call::any(
        libc::SYS_madvise,
        "the stack of a thread that has ended is given back",
    ),
];

/// Threads: captures begin and end while the network runs.
const THREADS: &[Call] = &[
    Call::only(
        libc::SYS_clone,
        &[&[Arg::masked(
            0,
            CLONE_THREAD as u32 | NO_THREAD,
            CLONE_THREAD as u32,
        )]],
        "a thread begins, and nothing that is no thread",
    ),
    Call::absent(
        libc::SYS_clone3,
        &[],
        "its flags lie behind a pointer: told that it is not there, the C library uses clone",
    ),
    Call::any(libc::SYS_set_robust_list, "a thread begins"),
    Call::any(libc::SYS_rseq, "a thread begins"),
    Call::any(
        libc::SYS_rt_sigprocmask,
        "a thread begins or ends; the process aborts",
    ),
    Call::any(
        libc::SYS_sigaltstack,
        "a thread begins or ends: where its overflow is handled",
    ),
    Call::any(
        libc::SYS_sched_getaffinity,
        "where the stack of a new thread is; how many arenas there may be",
    ),
    Call::only(
        libc::SYS_prctl,
        &[&[Arg::is(0, libc::PR_SET_NAME as u32)], &[Arg::is(0, PR_SET_VMA)]],
        "the name of a thread, or of memory",
    ),
    Call::any(libc::SYS_futex, "locks, channels, and waiting for a thread's end"),
    Call::any(libc::SYS_sched_yield, "channels, before they wait"),
    Call::any(libc::SYS_exit, "a thread ends"),
    Call::any(libc::SYS_gettid, "locks that know their owner"),
    Call::any(libc::SYS_getpid, "the process aborts"),
];

/// Clocks and random numbers.
const TIME: &[Call] = &[
    Call::any(
        libc::SYS_clock_gettime,
        "where the clock cannot be read without a call",
    ),
    Call::any(libc::SYS_gettimeofday, "likewise"),
    Call::any(libc::SYS_clock_nanosleep, "a bounded wait"),
    Call::any(libc::SYS_nanosleep, "likewise, by older C libraries"),
    Call::any(
        libc::SYS_getrandom,
        "the keys of hash tables, and the gateway's secrets",
    ),
];

/// The log, a panic's message, descriptors.
const OUTPUT: &[Call] = &[
    Call::any(libc::SYS_write, "standard error"),
    Call::any(libc::SYS_writev, "standard error"),
    Call::any(libc::SYS_close, "every descriptor ends by it"),
    Call::only(
        libc::SYS_fcntl,
        &[&[Arg::is(1, libc::F_GETFD as u32)]],
        "builds with checks look first whether it is open",
    ),
];

/// The end, in order or not.
const ENDING: &[Call] = &[
    Call::any(libc::SYS_exit_group, "the process ends"),
    Call::any(
        libc::SYS_rt_sigaction,
        "abort puts SIGABRT back, and a stack overflow SIGSEGV",
    ),
    Call::any(libc::SYS_rt_sigreturn, "a handler returns"),
    Call::only(
        libc::SYS_tgkill,
        &[&[Arg::own_process(0)]],
        "abort: SIGABRT to its own thread",
    ),
    Call::any(
        libc::SYS_restart_syscall,
        "a wait goes on after the process was stopped and continued",
    ),
];

/// What the C library and the runtime ask for in odd moments and can do without: how memory is overcommitted, when an arena of
/// a thread shrinks; the number of processors, when there are many arenas; the program's own symbols for a backtrace.
const ASKED: &[Call] = &[
    Call::absent(
        libc::SYS_openat,
        &[&[Arg::masked(2, (O_ACCMODE | O_CREAT) as u32, O_RDONLY as u32)]],
        "a file is looked for, never written",
    ),
    Call::absent(
        libc::SYS_readlinkat,
        &[],
        "where the program lies, for a backtrace",
    ),
    Call::absent(libc::SYS_getcwd, &[], "which paths a backtrace shortens"),
    Call::absent(libc::SYS_statx, &[], "a file is looked at, for a backtrace"),
];

/// The same by calls that newer machines do not have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[Call] = &[
    Call::absent(
        libc::SYS_open,
        &[&[Arg::masked(1, (O_ACCMODE | O_CREAT) as u32, O_RDONLY as u32)]],
        "as openat",
    ),
    Call::absent(libc::SYS_readlink, &[], "as readlinkat"),
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Call] = &[];
