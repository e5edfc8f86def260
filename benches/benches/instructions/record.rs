//! The counts that are held to, and how new ones compare.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

/// The command that writes counts down.
pub(crate) const BLESS: &str = "cargo bench -p pontoon-benches --bench instructions -- --bless";

/// How much more is a failure, in per cent; a row of a handful of instructions may have one more.
const TOLERANCE: u64 = 5;

/// What counts depend on besides the source: the compiler, the machine it compiles for, and which instructions the C
/// library finds to copy with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Compiler(String);

impl Compiler {
    /// The compiler that cargo uses, here.
    pub(crate) fn of_this_build() -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let out = Command::new(rustc).arg("-vV").output().context("ask rustc -vV")?;
        let text = String::from_utf8_lossy(&out.stdout);
        let host = text.lines().find_map(|l| l.strip_prefix("host: "));
        match (text.lines().next(), host) {
            (Some(version), Some(host)) => Ok(Self(format!("{version}, {host}{}", wide()))),
            _ => anyhow::bail!("rustc -vV says {text:?}"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn wide() -> &'static str {
    if std::is_x86_feature_detected!("avx2") {
        " with AVX2"
    } else {
        ""
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide() -> &'static str {
    ""
}

/// Counts and what they were made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    compiler: Compiler,
    counts: BTreeMap<String, u64>,
}

impl Record {
    /// What is written down; nothing if there is no file yet.
    pub(crate) fn load() -> Result<Self> {
        let text = match std::fs::read_to_string(FILE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.context(FILE)?,
        };
        let value: Value = serde_json::from_str(&text).context(FILE)?;
        let compiler = value["compiler"].as_str().context("no compiler").context(FILE)?;
        let counts = value["instructions"]
            .as_object()
            .context("no counts")
            .context(FILE)?
            .iter()
            .map(|(row, n)| Ok((row.clone(), n.as_u64().with_context(|| format!("{FILE}: {row}"))?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            compiler: Compiler(compiler.to_owned()),
            counts,
        })
    }

    /// Writes it down.
    pub(crate) fn save(&self) -> Result<()> {
        let value = json!({ "compiler": self.compiler.0, "instructions": self.counts });
        let text = serde_json::to_string_pretty(&value)?;
        std::fs::write(FILE, text + "\n").context(FILE)
    }

    /// True if nothing was ever written down.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// This with new counts, in place of all that there were (`whole`) or beside them.
    ///
    /// # Errors
    /// The others were made with another compiler.
    pub(crate) fn with(
        &self,
        compiler: Compiler,
        counts: BTreeMap<String, u64>,
        whole: bool,
    ) -> Result<Self> {
        ensure!(
            whole || self.is_empty() || self.compiler == compiler,
            "the other counts are of {}, this build is of {}: bless all, without --only",
            self.compiler.0,
            compiler.0
        );
        let mut all = if whole {
            BTreeMap::new()
        } else {
            self.counts.clone()
        };
        all.extend(counts);
        Ok(Self {
            compiler,
            counts: all,
        })
    }

    /// What `after` changes, for people.
    pub(crate) fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        if self.compiler != after.compiler && !self.is_empty() {
            let _ = writeln!(text, "- {}\n+ {}", self.compiler.0, after.compiler.0);
        }
        let mut rows: Vec<&String> = self.counts.keys().chain(after.counts.keys()).collect();
        rows.sort();
        rows.dedup();
        let mut same = 0;
        for row in rows {
            let (old, new) = (self.counts.get(row), after.counts.get(row));
            if old == new {
                same += 1;
            } else {
                let _ = writeln!(text, "{}", line(row, old.copied(), new.copied()));
            }
        }
        let _ = writeln!(
            text,
            "{same} rows as before; written to benches/instructions.json"
        );
        text
    }
}

fn line(row: &str, old: Option<u64>, new: Option<u64>) -> String {
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let change = match (old, new) {
        (Some(old), Some(new)) if old != new => {
            format!("{:+.1} %", (new as f64 / old as f64 - 1.0) * 100.0)
        }
        (Some(_) | None, _) => String::new(),
    };
    format!("{row:<34} {:>10} {:>10} {change:>10}", number(old), number(new))
        .trim_end()
        .to_owned()
}

/// New counts beside those that are held to.
#[derive(Debug)]
pub(crate) struct Verdict {
    counts: BTreeMap<String, u64>,
    before: Record,
    compiler: Compiler,
    /// Too many, or never written down, or written down and gone.
    wrong: Vec<String>,
    /// So few that they should be written down.
    better: usize,
}

impl Verdict {
    /// Holds `counts` against `before`; all that was written down is to be there if they are `whole`.
    pub(crate) fn new(
        before: &Record,
        compiler: &Compiler,
        counts: BTreeMap<String, u64>,
        whole: bool,
    ) -> Self {
        let mut wrong = Vec::new();
        let mut better = 0;
        for (row, &new) in &counts {
            match before.counts.get(row) {
                None => wrong.push(format!("{row} has no count to be held to")),
                Some(&old) if new > old + 1 + old * TOLERANCE / 100 => {
                    wrong.push(format!("{row} costs {new} instructions, {old} before"));
                }
                Some(&old) if new + 1 + old * TOLERANCE / 100 < old => better += 1,
                Some(_) => {}
            }
        }
        for row in before.counts.keys() {
            if whole && !counts.contains_key(row) {
                wrong.push(format!("{row} has a count and is measured no more"));
            }
        }
        Self {
            counts,
            before: before.clone(),
            compiler: compiler.clone(),
            wrong,
            better,
        }
    }

    fn comparable(&self) -> bool {
        self.compiler == self.before.compiler
    }

    /// True if nothing costs more than it did, or that cannot be said.
    pub(crate) fn good(&self) -> bool {
        self.wrong.is_empty() || !self.comparable()
    }

    /// All rows, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<34} {:>10} {:>10}\n",
            "instructions for each operation", "before", "now"
        );
        for (row, &new) in &self.counts {
            let old = self.before.counts.get(row).copied();
            text += &line(row, old, Some(new));
            text.push('\n');
        }
        text
    }

    /// All rows, for programs.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .counts
            .iter()
            .map(|(row, new)| json!({ "name": row, "instructions": new, "before": self.before.counts.get(row) }))
            .collect();
        json!({
            "compiler": self.compiler.0,
            "compiler_before": self.before.compiler.0,
            "rows": rows,
            "wrong": self.wrong,
        })
    }

    /// What is to be said of them.
    pub(crate) fn says(&self) -> String {
        let mut text = String::new();
        for wrong in &self.wrong {
            let _ = writeln!(text, "{wrong}");
        }
        if !self.wrong.is_empty() && !self.comparable() {
            let _ = writeln!(
                text,
                "Not a failure: the counts are of {}, this build is of {}.",
                self.before.compiler.0, self.compiler.0
            );
        } else if !self.wrong.is_empty() {
            let _ = writeln!(
                text,
                "More than {TOLERANCE} % above is a regression. If it is meant: {BLESS}"
            );
        }
        if self.better > 0 {
            let _ = writeln!(
                text,
                "{} rows cost more than {TOLERANCE} % less than before. To hold to that: {BLESS}",
                self.better
            );
        }
        text
    }
}
