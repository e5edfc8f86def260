//! What processes cost, from `/proc`: see proc(5).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The stack's own processes, by their numbers outside the world.
pub(crate) type Pids = BTreeSet<u32>;

/// Device and inode of a program.
pub(crate) type Program = (u64, u64);

/// The program at `path`, if it is there.
pub(crate) fn program(path: &Path) -> Option<Program> {
    fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// All processes that run one of `programs` in the PID namespace that process `init` is the first of.
pub(crate) fn running(programs: &[Program], init: u32) -> Pids {
    let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let world = space(init);
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid: &u32| {
            program(Path::new(&format!("/proc/{pid}/exe"))).is_some_and(|p| programs.contains(&p))
        })
        .filter(|&pid| space(pid) == world)
        .collect()
}

/// Ticks a second in `/proc` (`include/asm-generic/param.h`); no architecture that is in use has another.
const USER_HZ: f64 = 100.0;

/// CPU seconds, user's and kernel's, that they have used.
pub(crate) fn cpu_seconds(pids: &Pids) -> f64 {
    let ticks: u64 = pids
        .iter()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in brackets, may hold anything. After it: state is field 3, utime 14, stime 15.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .sum();
    ticks as f64 / USER_HZ
}

/// Memory, descriptors and wake-ups of processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holdings {
    /// Bytes resident in the largest of them.
    pub(crate) largest: u64,
    /// Bytes of all, where a page that several share counts in parts.
    pub(crate) proportional: u64,
    /// Open descriptors of all.
    pub(crate) descriptors: u64,
    /// Times that a thread of theirs has been switched away from, whether it waited or not.
    pub(crate) switches: u64,
}

/// What they hold now.
pub(crate) fn holdings(pids: &Pids) -> Holdings {
    let mut all = Holdings::default();
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        all.largest = all.largest.max(field(&rollup, "Rss:") * 1024);
        all.proportional += field(&rollup, "Pss:") * 1024;
        all.descriptors += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count() as u64);
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            all.switches +=
                field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
        }
    }
    all
}

/// The number in the line that begins with `name`.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|l| l.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
