//! The commands that need no running network, as a user calls them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `pontoon` with a directory of control sockets of its own.
fn pontoon(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(arguments)
        .env("PONTOON_RUNTIME_DIR", dir.join("control"))
        .env_remove("PONTOON_FALLBACK")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn lists_are_empty_where_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["ps"][..], "NAME  NETWORKS  ADDRESSES  PORTS  SINCE\n"),
        (&["ps", "--json"], "[]\n"),
        (
            &["network", "ls"],
            "NAME  SUBNETS  MTU  EGRESS  CONTAINERS  OPTIONS  SINCE\n",
        ),
        (&["network", "ls", "--json"], "[]\n"),
        (&["links"], "CLIENT  SERVER  ALIAS  PORTS  ADDRESSES\n"),
        (&["links", "--json"], "[]\n"),
        (
            &["wires"],
            "A  INTERFACE  ADDRESS  B  INTERFACE  ADDRESS  SINCE\n",
        ),
        (&["wires", "--json"], "[]\n"),
        (&["conntrack", "ls"], ""),
        (&["conntrack", "ls", "--json"], "[]\n"),
        (&["fdb", "show"], ""),
        (&["fdb", "show", "--json"], "[]\n"),
        (&["stats"], ""),
        (&["stats", "--json"], "[]\n"),
    ] {
        let output = pontoon(dir.path(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stdout), expected, "{arguments:?}");
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "asking makes no directory"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (
            &["port", "web"][..],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["publish", "web", "8080:80"],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["unpublish", "web", "8080:80"],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["ps", "--network", "shop"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["network", "connect", "shop", "web"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["network", "disconnect", "shop", "web"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["attach", "1", "--name", "web", "--network", "shop"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["detach", "web"],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["link", "web", "db"],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["unwire", "web", "db"],
            "pontoon: no container named web is running: `pontoon ps` lists those that are\n",
        ),
        (
            &["fdb", "show", "shop"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["stats", "shop"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["network", "inspect", "shop"],
            "pontoon: no network named shop is running: `pontoon network ls` lists those that are\n",
        ),
        (
            &["conntrack", "flush", "--container", "web"],
            "pontoon: cannot end flows: no container named web is running: `pontoon ps` lists those that are\n",
        ),
    ] {
        let output = pontoon(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stderr), expected, "{arguments:?}");
    }
}

/// What the commands say that only the daemon can do, where there is none.
#[test]
fn a_daemon_that_does_not_run_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["network", "create", "shop"][..],
        &["network", "prune"],
        &["rule", "add", "deny", "web:80", "--from", "10.0.0.0/8"],
        &["rule", "ls"],
        &["rule", "rm", "1"],
        &["metrics"],
    ] {
        let output = pontoon(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let stderr = text(&output.stderr);
        let socket = dir.path().join("control/daemon.sock");
        assert!(
            stderr.contains(&format!("no daemon listens on {}", socket.display())),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.contains("`pontoon daemon`"), "{arguments:?}: {stderr}");
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "asking makes no directory"
    );
}

#[test]
fn of_several_names_each_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["rm", "inspect"] {
        let output = pontoon(dir.path(), &["network", command, "shop", "back"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let stderr = text(&output.stderr);
        for name in ["shop", "back"] {
            assert!(
                stderr.contains(&format!("no network named {name} is running")),
                "{stderr}"
            );
        }
    }
}

#[test]
fn manual_pages_and_completions_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let output = pontoon(dir.path(), &["manual", "--all", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for page in ["pontoon.1", "pontoon-run.1", "pontoon-network-create.1"] {
        let page = fs::read_to_string(pages.join(page)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let output = pontoon(dir.path(), &["manual", "network", "create"]);
    let page = fs::read(pages.join("pontoon-network-create.1")).unwrap();
    assert_eq!(text(&output.stdout), text(&page));
    let output = pontoon(dir.path(), &["completions", "bash"]);
    let script = dir.path().join("completions");
    fs::write(&script, &output.stdout).unwrap();
    // The function that bash calls, on a word that has begun.
    let ask = "source \"$1\"; COMP_WORDS=(pontoon network di); COMP_CWORD=2; _pontoon pontoon di network; \
               echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", ask, "bash"])
        .arg(&script)
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "disconnect\n", "{output:?}");
}

#[test]
fn misuse_of_run_has_a_status_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, status) in [
        (&["run", "--bogus"][..], 125),
        (&["run", "--mtu", "67", "--", "true"], 125),
        (&["run", "--network", "nosuch", "--", "true"], 125),
        (&["ps", "--bogus"], 2),
        (&["bogus"], 2),
        (&["run", "--help"], 0),
        (&["--version"], 0),
    ] {
        let output = pontoon(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr.is_empty(), status == 0, "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(100));
    let output = pontoon(&deep, &["run", "--", "true"]);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("longer than"), "{output:?}");
    fs::create_dir(&deep).unwrap();
    pontoon(&deep, &["run", "--", "true"]);
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    use std::os::unix::fs::DirBuilderExt;
    let dir = tempfile::tempdir().unwrap();
    fs::DirBuilder::new()
        .mode(0o755)
        .create(dir.path().join("control"))
        .unwrap();
    let output = pontoon(dir.path(), &["ps"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("mode 755") && stderr.contains("chmod 700"),
        "{stderr}"
    );
}

/// What of the host a careless doctor would change.
fn host() -> BTreeSet<String> {
    let mut state = BTreeSet::new();
    for file in [
        "/proc/modules",
        "/proc/self/mounts",
        "/proc/net/route",
        "/proc/net/ipv6_route",
    ] {
        // The third and fourth columns of a module and the counts of a route change by themselves.
        let of_line = |l: &str| l.split_ascii_whitespace().next().unwrap_or_default().to_owned();
        let lines = fs::read_to_string(file).unwrap_or_default();
        state.extend(lines.lines().map(|l| format!("{file} {}", of_line(l))));
    }
    for dir in ["/sys/class/net", "/run/netns", "/run/pontoon"] {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            state.insert(entry.unwrap().path().display().to_string());
        }
    }
    for sysctl in ["ping_group_range", "ip_unprivileged_port_start", "ip_forward"] {
        let path = format!("/proc/sys/net/ipv4/{sysctl}");
        state.insert(format!(
            "{path} {}",
            fs::read_to_string(&path).unwrap_or_default()
        ));
    }
    state
}

#[test]
fn the_doctor_finds_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = host();
    let output = pontoon(dir.path(), &["doctor", "--json"]);
    let after = host();
    // Other tests may come and go with interfaces of their own; what the doctor tries is called trial0.
    assert!(!after.iter().any(|line| line.contains("trial0")), "{after:?}");
    let fixed = |state: &BTreeSet<String>| {
        state
            .iter()
            .filter(|l| l.contains("modules") || l.contains("/proc/sys"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(fixed(&before), fixed(&after));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "the doctor makes no directory"
    );
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let level = |f: &serde_json::Value| f["level"].as_str().unwrap().to_owned();
    for check in [
        "kernel",
        "tun device",
        "user namespaces",
        "control sockets",
        "ping",
        "low ports",
        "open files",
    ] {
        assert!(
            findings.iter().any(|f| f["check"] == check),
            "{check} is missing: {findings:?}"
        );
    }
    for f in &findings {
        assert!(["ok", "warning", "failure"].contains(&level(f).as_str()), "{f}");
        assert_eq!(f["remedy"].is_null(), level(f) == "ok", "{f}");
    }
    let works = findings.iter().all(|f| level(f) != "failure");
    assert_eq!(
        output.status.code(),
        Some(if works { 0 } else { 1 }),
        "{findings:?}"
    );
    let shown = text(&pontoon(dir.path(), &["doctor"]).stdout);
    assert_eq!(shown.contains("`pontoon run` works here"), works, "{shown}");
}

/// Each row of the table names a test of the lab that is there.
#[test]
fn the_tests_of_the_parity_table_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("../docs/docker-parity.md")).unwrap();
    let rows = table
        .lines()
        .filter(|l| l.starts_with("| ") && !l.starts_with("| Docker |"));
    let mut tests = BTreeSet::new();
    for row in rows {
        let cell = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let named: Vec<&str> = cell.split('`').filter(|part| part.contains("::")).collect();
        assert!(!named.is_empty(), "no test shows: {row}");
        tests.extend(named);
    }
    assert!(tests.len() > 30, "{tests:?}");
    for test in tests {
        let (module, function) = test.rsplit_once("::").unwrap();
        let file = root
            .join("tests/lab")
            .join(module.replace("::", "/"))
            .with_extension("rs");
        let source = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{test}: {}: {e}", file.display()));
        assert!(
            source.contains(&format!("fn {function}(")),
            "{} has no test {function}",
            file.display()
        );
    }
}
