//! Figures of a run, by row and peer.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value as Json, json};

use crate::rows;

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// In the row's unit.
    pub(crate) value: f64,
    /// CPU time of the stack's own processes, in the row's unit for it.
    pub(crate) cpu: Option<f64>,
    /// Whatever else belongs to the row.
    pub(crate) extra: BTreeMap<String, f64>,
    /// What a figure cannot say.
    pub(crate) note: Option<String>,
}

impl Outcome {
    pub(crate) fn new(value: f64) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, name: &str, value: f64) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }
}

/// Which figure of an [`Outcome`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Metric {
    Value,
    Cpu,
    Extra(&'static str),
}

impl Outcome {
    fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Value => Some(self.value),
            Metric::Cpu => self.cpu,
            Metric::Extra(name) => self.extra.get(name).copied(),
        }
    }
}

/// All measurements of one peer in one row.
#[derive(Default, Debug)]
pub(crate) struct Cell {
    pub(crate) rounds: Vec<Outcome>,
    /// Why others have no figure.
    pub(crate) failed: Vec<String>,
}

/// All measurements.
#[derive(Default, Debug)]
pub(crate) struct Results {
    cells: BTreeMap<(String, String), Cell>,
}

impl Results {
    pub(crate) fn add(&mut self, row: &str, peer: &str, outcome: Result<Outcome, String>) {
        let cell = self.cells.entry((row.to_owned(), peer.to_owned())).or_default();
        match outcome {
            Ok(outcome) => cell.rounds.push(outcome),
            Err(why) => cell.failed.push(why),
        }
    }

    pub(crate) fn cell(&self, row: &str, peer: &str) -> Option<&Cell> {
        self.cells.get(&(row.to_owned(), peer.to_owned()))
    }

    pub(crate) fn has_row(&self, row: &str) -> bool {
        self.cells.keys().any(|(r, _)| r == row)
    }

    pub(crate) fn has_peer(&self, peer: &str) -> bool {
        self.cells.keys().any(|(_, p)| p == peer)
    }

    fn sorted(&self, row: &str, peer: &str, metric: Metric) -> Vec<f64> {
        let mut all: Vec<f64> = self
            .cell(row, peer)
            .into_iter()
            .flat_map(|c| &c.rounds)
            .filter_map(|o| o.get(metric))
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    pub(crate) fn median(&self, row: &str, peer: &str, metric: Metric) -> Option<f64> {
        let all = self.sorted(row, peer, metric);
        let mid = all.len() / 2;
        match all.len() {
            0 => None,
            n if n % 2 == 1 => Some(all[mid]),
            _ => Some((all[mid - 1] + all[mid]) / 2.0),
        }
    }

    /// Least and greatest.
    pub(crate) fn spread(&self, row: &str, peer: &str, metric: Metric) -> Option<(f64, f64)> {
        let all = self.sorted(row, peer, metric);
        Some((*all.first()?, *all.last()?))
    }

    /// Rows by peers, with every round.
    pub(crate) fn json(&self) -> Json {
        let mut all = Map::new();
        for row in rows::ROWS.iter().filter(|r| self.has_row(r.name)) {
            let peers: Map<String, Json> = self
                .cells
                .iter()
                .filter(|((r, _), _)| r == row.name)
                .map(|((_, peer), cell)| {
                    let rounds: Vec<Json> = cell
                        .rounds
                        .iter()
                        .map(|o| json!({ "value": o.value, "cpu": o.cpu, "extra": o.extra, "note": o.note }))
                        .collect();
                    let cell = json!({
                        "median": self.median(row.name, peer, Metric::Value),
                        "cpu": self.median(row.name, peer, Metric::Cpu),
                        "rounds": rounds, "failed": cell.failed,
                    });
                    (peer.clone(), cell)
                })
                .collect();
            all.insert(
                row.name.to_owned(),
                json!({ "title": row.title, "unit": row.unit, "cpu_unit": row.cpu_unit(), "peers": peers }),
            );
        }
        Json::Object(all)
    }

    /// Adds what an earlier run wrote with `--json`; how that was measured.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<String> {
        let what = || format!("{} is not what --json writes", path.display());
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let all: Json = serde_json::from_str(&text).with_context(what)?;
        for (row, of_row) in all["rows"].as_object().with_context(what)? {
            for (peer, cell) in of_row["peers"].as_object().with_context(what)? {
                for why in cell["failed"].as_array().into_iter().flatten() {
                    self.add(row, peer, Err(why.as_str().unwrap_or_default().to_owned()));
                }
                for o in cell["rounds"].as_array().into_iter().flatten() {
                    let extra = o["extra"].as_object().into_iter().flatten();
                    let outcome = Outcome {
                        value: o["value"].as_f64().with_context(what)?,
                        cpu: o["cpu"].as_f64(),
                        extra: extra
                            .filter_map(|(k, v)| Some((k.clone(), v.as_f64()?)))
                            .collect(),
                        note: o["note"].as_str().map(str::to_owned),
                    };
                    self.add(row, peer, Ok(outcome));
                }
            }
        }
        Ok(all["how"].as_str().unwrap_or_default().to_owned())
    }
}
