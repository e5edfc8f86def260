//! Running cases under callgrind and reading what it counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::cases::Case;
use crate::meter::{COUNTED, WRITTEN};

/// Instructions of each operation, by `case/row`, rounded. As many cases run at a time as there are processors. What
/// callgrind has written of a row is left in `target/tmp/instructions/CASE.ROW.out`, for `callgrind_annotate`.
pub(crate) fn run(cases: &[&Case]) -> Result<BTreeMap<String, u64>> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Ok(BTreeMap::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let counts = one(case.name, &dir).with_context(|| format!("case `{}`", case.name));
            let mut found = found.lock().expect("no worker panics");
            match (&mut *found, counts) {
                (Ok(all), Ok(counts)) => all.extend(counts),
                (Ok(_), Err(e)) => *found = Err(e),
                (Err(_), _) => {}
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers.min(cases.len()) {
            scope.spawn(work);
        }
    });
    found.into_inner().expect("no worker panics")
}

fn one(case: &str, dir: &Path) -> Result<Vec<(String, u64)>> {
    let file = dir.join(format!("{case}.out"));
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "-q", "--compress-strings=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={WRITTEN}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe().context("find this program")?)
        .args(["--run", case])
        .env_remove("PONTOON_FALLBACK")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start valgrind: apt-get install -y --no-install-recommends valgrind")?;
    ensure!(out.status.success(), "it ended with {}", out.status);
    let printed = String::from_utf8_lossy(&out.stdout);
    let rows = printed.lines().enumerate();
    let counts = rows
        .map(|(i, line)| {
            let (row, rounds) = line.rsplit_once(' ').context("a row")?;
            let rounds: u64 = rounds.parse().context("a row's rounds")?;
            // Callgrind numbers its parts from 1: one for the rounds before the count, one for the row.
            let part = |n: usize| dir.join(format!("{case}.out.{}", i * 2 + n));
            let text = std::fs::read_to_string(part(2)).with_context(|| {
                format!("`{row}`: callgrind has written nothing; does it know `{WRITTEN}` by another name?")
            })?;
            let sum: u64 = text
                .lines()
                .find_map(|l| l.strip_prefix("summary: "))
                .and_then(|n| n.trim().parse().ok())
                .context("no sum in what callgrind has written")?;
            ensure!(
                sum > 0,
                "`{row}`: nothing was counted; does callgrind know `{COUNTED}` by another name?"
            );
            std::fs::remove_file(part(1)).context("remove the first part")?;
            std::fs::rename(part(2), dir.join(format!("{case}.{row}.out"))).context("name a row's part")?;
            Ok((format!("{case}/{row}"), (sum + rounds / 2) / rounds))
        })
        .collect();
    // The rest of the run, in which nothing is counted.
    let _ = std::fs::remove_file(file);
    counts
}
