use std::collections::BTreeSet;

use clap::Parser;
use pontoon_switch::calls::{Answer, Call};

use super::*;
use crate::packet;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    sandbox: SandboxArgs,
}

fn options(words: &[&str]) -> SandboxOptions {
    let words = ["x"].iter().chain(words);
    Line::try_parse_from(words).expect("switches").sandbox.options()
}

#[test]
fn each_switch_turns_its_own_part_off() {
    let all = SandboxOptions::default();
    assert_eq!(options(&[]), all);
    let off = Part::Off;
    assert_eq!(
        options(&["--keep-capabilities"]),
        SandboxOptions {
            capabilities: off,
            ..all
        }
    );
    assert_eq!(options(&["--no-empty-root"]), SandboxOptions { root: off, ..all });
    assert_eq!(
        options(&["--no-landlock"]),
        SandboxOptions { landlock: off, ..all }
    );
    assert_eq!(options(&["--no-seccomp"]), SandboxOptions { seccomp: off, ..all });
    let none = SandboxOptions {
        capabilities: off,
        root: off,
        landlock: off,
        seccomp: off,
    };
    assert_eq!(options(&["--no-sandbox"]), none);
    assert_eq!(options(&["--no-sandbox", "--no-seccomp"]), none);
    let required = options(&["--require-sandbox", "--no-landlock"]);
    assert_eq!((required.root, required.landlock), (Part::Required, off));
    assert!(Line::try_parse_from(["x", "--require-sandbox", "--no-sandbox"]).is_err());
}

#[test]
fn what_cannot_be_had_is_an_error_only_where_it_is_required() {
    let fails = || -> Result<()> { anyhow::bail!("forbidden") };
    assert_eq!(outcome("x", Part::Off, fails).expect("off"), Outcome::Off);
    assert_eq!(
        outcome("x", Part::BestEffort, fails).expect("best effort"),
        Outcome::Missing("forbidden".into())
    );
    let e = outcome("x", Part::Required, fails).expect_err("required");
    assert!(
        format!("{e:#}").contains("cannot have x, which is required: forbidden"),
        "{e:#}"
    );
    assert_eq!(
        outcome("x", Part::Required, || Ok(())).expect("fine"),
        Outcome::Holds
    );
}

/// Tests run in threads of their own: what would hold for this one only is refused.
#[test]
fn a_process_with_threads_is_not_confined() {
    let sandbox = Sandbox::from_options(&SandboxOptions::default());
    let e = sandbox.enter(&packet::ROLE).expect_err("there are threads");
    assert!(e.to_string().contains("threads"), "{e:#}");
    let off = options(&["--no-sandbox"]);
    let entered = Sandbox::from_options(&off)
        .enter(&packet::ROLE)
        .expect("nothing to do");
    assert_eq!(entered.seccomp, Outcome::Off);
}

fn all_calls() -> impl Iterator<Item = &'static Call> {
    packet::CALLS.iter().copied().chain(runtime::lists()).flatten()
}

#[test]
fn each_call_has_a_reason_and_the_dangerous_are_not_among_them() {
    assert!(all_calls().all(|c| !c.why.is_empty()));
    let allowed: BTreeSet<_> = all_calls()
        .filter(|c| c.answer == Answer::Allowed)
        .map(|c| c.number)
        .collect();
    for (name, number) in [
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("openat", libc::SYS_openat),
        ("openat2", libc::SYS_openat2),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("kill", libc::SYS_kill),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("mount", libc::SYS_mount),
        ("bpf", libc::SYS_bpf),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("socketpair", libc::SYS_socketpair),
        ("memfd_create", libc::SYS_memfd_create),
    ] {
        assert!(!allowed.contains(&number), "{name}");
    }
}

/// The kernel asks a filter once and for all only about calls that are allowed with any arguments.
#[test]
fn calls_on_the_way_of_a_frame_are_not_looked_into() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("write", libc::SYS_write),
        ("writev", libc::SYS_writev),
        ("recvfrom", libc::SYS_recvfrom),
        ("sendto", libc::SYS_sendto),
        ("recvmsg", libc::SYS_recvmsg),
        ("sendmsg", libc::SYS_sendmsg),
        ("recvmmsg", libc::SYS_recvmmsg),
        ("getsockopt", libc::SYS_getsockopt),
        ("epoll_ctl", libc::SYS_epoll_ctl),
        ("epoll_pwait", libc::SYS_epoll_pwait),
        ("sched_yield", libc::SYS_sched_yield),
        ("clock_gettime", libc::SYS_clock_gettime),
    ] {
        let open = |c: &Call| c.number == number && c.rules.is_empty() && c.answer == Answer::Allowed;
        assert!(all_calls().any(open), "{name}");
    }
}

#[test]
fn the_lists_make_a_filter_for_both_kinds_of_role() {
    for (keep, inspection) in [
        (Keep::Nothing, Inspection::Root),
        (Keep::LowPorts, Inspection::Owner),
    ] {
        let role = Role {
            keep,
            inspection,
            calls: packet::CALLS,
        };
        seccomp::Filter::compile(&role).expect("a filter");
    }
}
