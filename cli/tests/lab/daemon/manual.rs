//! `pontoon completions` and `pontoon manual`, as shells and roff understand them.

use pontoon_fixtures::lab::require;

#[test]
fn a_shell_completes_with_it() {
    let world = crate::world();
    let host = world.host();
    host.sh("pontoon completions bash >/tmp/completions");
    let complete = |line: &str| {
        let script = format!(
            "source /tmp/completions; COMP_WORDS=({line} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _pontoon pontoon '' \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        host.cmd(["bash", "-c", &script]).run().ok()
    };
    let commands = complete("pontoon");
    for command in [
        "run",
        "attach",
        "detach",
        "network",
        "link",
        "unlink",
        "rule",
        "wire",
        "unwire",
        "daemon",
        "metrics",
        "completions",
    ] {
        assert!(commands.lines().any(|l| l == command), "{command}: {commands}");
    }
    let of_network = complete("pontoon network");
    for command in ["create", "ls", "inspect", "rm", "prune", "connect", "disconnect"] {
        assert!(
            of_network.lines().any(|l| l == command),
            "{command}: {of_network}"
        );
    }
    let options = complete("pontoon network create");
    for option in ["--subnet", "--icc", "--internal", "--publish-address"] {
        assert!(options.lines().any(|l| l == option), "{option}: {options}");
    }
    for (shell, begins) in [("zsh", "#compdef pontoon"), ("fish", "# Print")] {
        let text = host.run(["pontoon", "completions", shell]);
        assert!(
            text.starts_with(begins) && text.contains("gw-priority"),
            "{shell}: {text}"
        );
    }
    assert!(
        host.cmd(["pontoon", "completions", "tcsh"])
            .run()
            .fails()
            .contains("tcsh")
    );
}

#[test]
fn roff_makes_pages_of_it() {
    require("groff");
    let world = crate::world();
    let host = world.host();
    let rendered = |page: &str| {
        let script = format!(
            "pontoon manual {page} | groff -man -Tutf8 -ww 2>/tmp/warnings | sed 's/\\x1b\\[[0-9;]*m//g; s/.\\x08//g'"
        );
        let text = host.sh(&script);
        assert_eq!(
            String::from_utf8_lossy(&world.read("/tmp/warnings")),
            "",
            "{page}"
        );
        text
    };
    let all = rendered("");
    assert!(
        all.contains("NAME") && all.contains("SYNOPSIS") && all.contains("network"),
        "{all}"
    );
    let create = rendered("network create");
    assert!(
        create.contains("--subnet") && create.contains("dhcp-range=FIRST-LAST"),
        "{create}"
    );
    host.run(["pontoon", "manual", "--all", "/tmp/man"]);
    let pages = host.run(["ls", "/tmp/man"]);
    for page in [
        "pontoon.1",
        "pontoon-run.1",
        "pontoon-network-create.1",
        "pontoon-rule-add.1",
    ] {
        assert!(pages.lines().any(|l| l == page), "{page}: {pages}");
    }
    assert!(
        host.cmd(["pontoon", "manual", "mend"])
            .run()
            .fails()
            .contains("no command `mend`")
    );
}
