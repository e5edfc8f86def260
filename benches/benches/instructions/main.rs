//! What the paths of a frame cost in instructions, so that a regression shows on a busy machine as on a quiet one.
//!
//! ```text
//! cargo bench -p pontoon-benches --bench instructions                   counts, held against benches/instructions.json
//! cargo bench -p pontoon-benches --bench instructions -- --only tcp     only cases with `tcp` in their name
//! cargo bench -p pontoon-benches --bench instructions -- --only udp-in/uso   only that row
//! cargo bench -p pontoon-benches --bench instructions -- --json         JSON instead of the table
//! cargo bench -p pontoon-benches --bench instructions -- --bless        writes the counts down as the ones to hold to
//! ```
//!
//! # Theory of operation
//!
//! This program starts itself again, once for each case, under `valgrind --tool=callgrind`, which runs it on a
//! simulated processor and counts. Only what happens within [`meter::counted`] counts (`--toggle-collect`), so preparing a frame is
//! free; after each row the counters are written out and start from zero (`--dump-after`). Nothing in a case depends on
//! the clock. What is left to chance is where random hash keys put an address in a table, which is far below the tolerance.
//!
//! Counts depend on the compiler, so its version stands beside them; under another one differences are shown and
//! are no failure. System calls are not in the counts, only what leads to them: hosts and wires are those of
//! `pontoon_benches`, which answer at once.
//!
//! iai-callgrind and its successor gungraun do the same job, with a program beside the library that has to be installed in
//! the same version (`cargo install`) wherever the tests run, and C headers of valgrind's to build against. What is
//! needed of them is this file and `meter`, so a package of the distribution is all that the bench needs.
#![forbid(unsafe_code)]

mod callgrind;
mod cases;
mod meter;
mod record;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use record::{Compiler, Record, Verdict};

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut only, mut json, mut bless) = (None, false, false);
    while let Some(arg) = args.next() {
        match (arg.as_str(), &mut only) {
            ("--run", _) => {
                let name = args.next().unwrap_or_default();
                let Some(case) = cases::ALL.iter().find(|c| c.name == name) else {
                    bail!("no case is called `{name}`");
                };
                (case.run)();
                return Ok(ExitCode::SUCCESS);
            }
            ("--only", only @ None) => *only = Some(args.next().unwrap_or_default()),
            ("--json", _) => json = true,
            ("--bless", _) => bless = true,
            _ => bail!("unknown argument `{arg}`: there are --only NAME, --json, --bless"),
        }
    }
    let only = only.unwrap_or_default();
    let wanted = only.split('/').next().unwrap_or_default();
    let cases: Vec<_> = cases::ALL.iter().filter(|c| c.name.contains(wanted)).collect();
    if cases.is_empty() {
        let names: Vec<_> = cases::ALL.iter().map(|c| c.name).collect();
        bail!(
            "no case has `{wanted}` in its name: there are {}",
            names.join(", ")
        );
    }
    let before = Record::load()?;
    ensure!(
        bless || !before.is_empty(),
        "benches/instructions.json is not there: {}",
        record::BLESS
    );
    let mut counts: BTreeMap<String, u64> = callgrind::run(&cases)?;
    counts.retain(|row, _| row.contains(&only));
    ensure!(!counts.is_empty(), "no row is called `{only}`");
    let compiler = Compiler::of_this_build()?;

    if bless {
        let after = before.with(compiler, counts, only.is_empty())?;
        print!("{}", before.difference(&after));
        after.save()?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = Verdict::new(&before, &compiler, counts, only.is_empty());
    if json {
        println!("{}", serde_json::to_string_pretty(&verdict.json())?);
    } else {
        print!("{}", verdict.table());
    }
    eprint!("{}", verdict.says());
    Ok(if verdict.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
