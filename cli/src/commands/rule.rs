//! `pontoon rule`: which clients may use a published port.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::each;
use crate::api::{Action, RuleInfo};
use crate::args::{RuleAddArgs, RuleCommand, RuleLsArgs, RuleRmArgs};
use crate::client::{self, Front};
use crate::output::{self, Table};
use crate::routes::Call;

/// Runs `rule add`, `rule ls` or `rule rm`.
pub(crate) fn rule(command: &RuleCommand) -> Result<ExitCode> {
    match command {
        RuleCommand::Add(args) => add(args).map(|()| ExitCode::SUCCESS),
        RuleCommand::Ls(args) => ls(args).map(|()| ExitCode::SUCCESS),
        RuleCommand::Rm(args) => rm(args),
    }
}

/// Whose rules they are: each front numbers its own.
fn front(network: Option<&str>) -> Result<Front> {
    match network {
        Some(network) => Ok(client::of_network(network)?.0),
        None => client::daemon(),
    }
}

fn add(args: &RuleAddArgs) -> Result<()> {
    let rule: RuleInfo = front(args.network.as_deref())?
        .ask(&Call::AddRule(args.request()))
        .context("cannot add the rule")?;
    if args.json {
        output::print_json(&rule)
    } else {
        output::print(&format!("{}\n", rule.id))
    }
}

fn ls(args: &RuleLsArgs) -> Result<()> {
    let rules: Vec<RuleInfo> = front(args.network.as_deref())?.ask(&Call::Rules)?;
    if args.json {
        output::print_json(&rules)
    } else {
        output::print(&render(&rules))
    }
}

fn rm(args: &RuleRmArgs) -> Result<ExitCode> {
    let front = front(args.network.as_deref())?;
    Ok(each(&args.ids, |&id| {
        front
            .ask::<()>(&Call::RemoveRule { id })
            .with_context(|| format!("cannot remove rule {id}"))
    }))
}

fn render(rules: &[RuleInfo]) -> String {
    let mut table = Table::new(&[">ID", "ACTION", "PORT", "FROM"]);
    for rule in rules {
        let action = match rule.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        table.row(vec![
            rule.id.to_string(),
            action.to_owned(),
            format!("{}:{}/{}", rule.container, rule.port, rule.protocol),
            rule.from.to_string(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn the_table() {
        let deny = samples::rule();
        let allow = RuleInfo {
            id: 12,
            action: Action::Allow,
            from: "fd00::/8".parse().unwrap(),
            ..deny.clone()
        };
        assert_eq!(
            render(&[deny, allow]),
            "\
ID  ACTION  PORT        FROM
 3  deny    web:80/tcp  10.10.10.10/32
12  allow   web:80/tcp  fd00::/8
"
        );
        assert_eq!(render(&[]), "ID  ACTION  PORT  FROM\n");
    }
}
