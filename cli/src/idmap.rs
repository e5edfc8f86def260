//! Which user and group ids a container has (`user_namespaces(7)`).
//!
//! Root keeps every id, each mapped to itself. An ordinary user becomes root inside; where `/etc/subuid` and
//! `/etc/subgid` give him subordinate ids, and `newuidmap` is there to map them, they follow from 1 on, so that programs
//! which change their user (nginx, apt) run. Otherwise there is that one id only.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

/// A run of ids: first inside, first outside, how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

/// Users or groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    User,
    Group,
}

impl Kind {
    /// The file of a process that its map is written to.
    const fn map(self) -> &'static str {
        match self {
            Self::User => "uid_map",
            Self::Group => "gid_map",
        }
    }

    const fn tool(self) -> &'static str {
        match self {
            Self::User => "newuidmap",
            Self::Group => "newgidmap",
        }
    }

    const fn subordinates(self) -> &'static str {
        match self {
            Self::User => "/etc/subuid",
            Self::Group => "/etc/subgid",
        }
    }
}

/// Maps ids for `child`, which waits in a new user namespace under this process's.
///
/// # Errors
/// If the kernel refuses even the plainest map.
pub(crate) fn map_from_host(child: Pid) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() && map_identity(child).is_ok() {
        return Ok(());
    }
    let user = user_name(uid.as_raw());
    for (kind, own) in [(Kind::User, uid.as_raw()), (Kind::Group, gid.as_raw())] {
        let text = fs::read_to_string(kind.subordinates()).unwrap_or_default();
        let extents = with_subordinates(own, &subordinates(&text, uid.as_raw(), user.as_deref()));
        if extents.len() > 1 {
            match by_tool(child, kind, &extents) {
                Ok(()) => continue,
                Err(e) => tracing::info!("mapping one id only: {e:#}"),
            }
        }
        if kind == Kind::Group {
            // Without privilege the kernel wants `setgroups` given up first, or a group that denies would be left.
            write_map(child, "setgroups", "deny")?;
        }
        write_map(
            child,
            kind.map(),
            &lines(&[Extent {
                inside: 0,
                outside: own,
                count: 1,
            }]),
        )?;
    }
    Ok(())
}

/// Maps every id of this process's user namespace to itself for `child`, which waits in a new one under it.
pub(crate) fn map_identity(child: Pid) -> Result<()> {
    for kind in [Kind::User, Kind::Group] {
        let path = format!("/proc/self/{}", kind.map());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let identity: Vec<Extent> = parse_map(&text)
            .into_iter()
            .map(|e| Extent {
                outside: e.inside,
                ..e
            })
            .collect();
        write_map(child, kind.map(), &lines(&identity))?;
    }
    Ok(())
}

fn write_map(child: Pid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{}/{file}", child.as_raw_nonzero());
    fs::write(&path, text)
        .with_context(|| format!("cannot write `{}` to {path}", text.trim_end().replace('\n', ", ")))
}

fn lines(extents: &[Extent]) -> String {
    extents
        .iter()
        .map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count))
        .collect()
}

fn parse_map(text: &str) -> Vec<Extent> {
    text.lines()
        .filter_map(|line| {
            let mut n = line.split_ascii_whitespace().map(|w| w.parse().ok());
            Some(Extent {
                inside: n.next()??,
                outside: n.next()??,
                count: n.next()??,
            })
        })
        .collect()
}

/// The ranges that `text` (`subuid(5)`: `USER:FIRST:COUNT`) gives to the user.
fn subordinates(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(':');
            let owner = parts.next()?;
            let mine = owner == uid || Some(owner) == name;
            let range = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            (mine && range.1 > 0).then_some(range)
        })
        .collect()
}

/// Own id as 0, and the subordinate ones from 1 on.
fn with_subordinates(own: u32, ranges: &[(u32, u32)]) -> Vec<Extent> {
    let mut extents = vec![Extent {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next = 1u32;
    for &(outside, count) in ranges {
        let Some(after) = next.checked_add(count) else {
            break;
        };
        extents.push(Extent {
            inside: next,
            outside,
            count,
        });
        next = after;
    }
    extents
}

fn by_tool(child: Pid, kind: Kind, extents: &[Extent]) -> Result<()> {
    let mut command = Command::new(kind.tool());
    command.arg(child.as_raw_nonzero().to_string());
    for e in extents {
        command.args([e.inside, e.outside, e.count].map(|n| n.to_string()));
    }
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!(
                "{} is not installed (package uidmap), so the subordinate ids are not used",
                kind.tool()
            )
        }
        Err(e) => return Err(e).with_context(|| format!("cannot run {}", kind.tool())),
    };
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            kind.tool(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// The account's name, by which `subuid(5)` usually lists it. An account of a directory service is not in the file:
/// there the environment has it, and `newuidmap` checks it anyway.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut parts = line.split(':');
            let name = parts.next()?;
            (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .or_else(|| std::env::var("USER").ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_follow_the_own_id() {
        let text = "# none\nbob:100000:65536\n1000:400000:10\nalice:1:1\nbob:bad:1\nbob:5:0\n";
        let ranges = subordinates(text, 1000, Some("bob"));
        assert_eq!(ranges, [(100_000, 65_536), (400_000, 10)]);
        assert_eq!(
            lines(&with_subordinates(1000, &ranges)),
            "0 1000 1\n1 100000 65536\n65537 400000 10\n"
        );
        assert_eq!(lines(&with_subordinates(7, &[])), "0 7 1\n");
    }

    #[test]
    fn identity_keeps_what_is_mapped() {
        let map = parse_map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map.len(), 2);
        assert_eq!(
            map[1],
            Extent {
                inside: 1,
                outside: 100_000,
                count: 65_536
            }
        );
    }
}
