//! `pontoon completions` and `pontoon manual`: made of the definitions of the command line.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManualArgs};
use crate::output;

/// Prints the completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pontoon", &mut text);
    output::print(&String::from_utf8(text)?)
}

/// Prints the manual page of a command, or writes those of all.
pub(crate) fn manual(args: &ManualArgs) -> Result<()> {
    match &args.all {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            write_all(&built(), dir)
        }
        None => output::print(&page(&args.command)?),
    }
}

/// The definitions, with subcommands named in full, as `pontoon-network-create`.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn page(path: &[String]) -> Result<String> {
    let whole = built();
    let mut command = &whole;
    for name in path {
        match command.get_subcommands().find(|c| c.get_name() == name) {
            Some(next) => command = next,
            None => bail!(
                "`{}` has no command `{name}`: see its --help",
                command.get_bin_name().unwrap_or("pontoon")
            ),
        }
    }
    render(&Man::new(command.clone()))
}

fn write_all(command: &clap::Command, dir: &Path) -> Result<()> {
    for next in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_all(next, dir)?;
    }
    let man = Man::new(command.clone());
    let path = dir.join(man.get_filename());
    fs::write(&path, render(&man)?).with_context(|| format!("cannot write {}", path.display()))
}

/// The page as roff. Lines that the help indents are tables and examples: they are not filled.
fn render(man: &Man) -> Result<String> {
    let mut text = Vec::new();
    man.render(&mut text)?;
    let text = String::from_utf8(text)?;
    let mut page = String::new();
    let mut filled = true;
    for line in text.lines() {
        if line.starts_with("  ") == filled {
            page.push_str(if filled { ".nf\n" } else { ".fi\n" });
            filled = !filled;
        }
        page.push_str(line);
        page.push('\n');
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str) -> Vec<String> {
        path.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_command_has_a_page() {
        fn walk(command: &clap::Command, path: &[String]) {
            let text = page(path).unwrap();
            assert!(text.starts_with(".ie"), "{path:?} is roff: {text}");
            let name = std::iter::once("pontoon".to_owned())
                .chain(path.iter().cloned())
                .collect::<Vec<_>>()
                .join("\\-");
            assert!(text.contains(&name), "{path:?}: {text}");
            for next in command.get_subcommands() {
                walk(next, &[path, &[next.get_name().to_owned()]].concat());
            }
        }
        walk(&Cli::command(), &[]);
        let create = page(&words("network create")).unwrap();
        assert!(create.contains("dhcp\\-range=FIRST\\-LAST"), "{create}");
        assert!(
            create.contains(".nf\n  dhcp"),
            "tables are left as they are: {create}"
        );
        let e = page(&words("network mend")).unwrap_err().to_string();
        assert!(e.contains("`pontoon network` has no command `mend`"), "{e}");
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pontoon", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["network", "disconnect", "gw-priority", "completions"] {
                assert!(text.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
