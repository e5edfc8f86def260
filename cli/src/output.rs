//! How the commands print: tables for people, JSON for programs.

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::api::PublishedPort;

/// Writes to standard output. A reader that has gone, such as `head`, is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Writes `value` as indented JSON to standard output.
pub(crate) fn print_json(value: &(impl Serialize + ?Sized)) -> Result<()> {
    print(&json(value)?)
}

/// `value` as indented JSON with a newline at its end.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// Columns with a heading each, as wide as their widest cell.
pub(crate) struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; a column whose heading begins with `>` is aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let row = headings
            .iter()
            .map(|h| h.trim_start_matches('>').to_owned())
            .collect();
        Self {
            right,
            rows: vec![row],
        }
    }

    /// Adds a row, which has a cell for each heading.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.right.len());
        self.rows.push(cells);
    }

    /// True if there is nothing below the headings.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as text, without spaces at the ends of lines.
    pub(crate) fn render(&self) -> String {
        let width = |i: usize| self.rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                if i > 0 {
                    line.push_str("  ");
                }
                let width = widths[i];
                line.push_str(&if self.right[i] {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Unix seconds in UTC, as `2026-11-21T08:00:00Z`.
pub(crate) fn timestamp(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970 to a date of the Gregorian calendar, with years that begin in March, so that the leap day is the
    // last of its year: 719,468 days lie between 0000-03-01 and 1970-01-01, and an era is 400 years of 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `80/tcp -> 0.0.0.0:8080`: a published port as `docker port` prints it.
pub(crate) fn published(port: &PublishedPort) -> String {
    format!("{}/{} -> {}", port.container_port, port.protocol, host_side(port))
}

/// `0.0.0.0:8080->80/tcp`: a published port as `docker ps` prints it.
pub(crate) fn published_short(port: &PublishedPort) -> String {
    format!("{}->{}/{}", host_side(port), port.container_port, port.protocol)
}

/// `0.0.0.0:8080` or `[::]:8080`.
pub(crate) fn host_side(port: &PublishedPort) -> String {
    SocketAddr::new(port.host_ip, port.host_port).to_string()
}

/// In the order of listing: by container port, then protocol, then host address, IPv4 first.
pub(crate) fn sorted(ports: &[PublishedPort]) -> Vec<PublishedPort> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|p| (p.container_port, p.protocol, p.host_ip, p.host_port));
    ports
}

/// Addresses, ports or whatever with commas between.
pub(crate) fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_248_000, "2026-11-21T08:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), expected);
        }
    }

    #[test]
    fn tables_align_their_columns() {
        let mut table = Table::new(&["NAME", ">COUNT", "WHAT"]);
        assert!(table.is_empty());
        table.row(vec!["a".into(), "1".into(), "first".into()]);
        table.row(vec!["longer".into(), "1000000".into(), String::new()]);
        assert!(!table.is_empty());
        assert_eq!(
            table.render(),
            "NAME      COUNT  WHAT\n\
             a             1  first\n\
             longer  1000000\n"
        );
    }
}
