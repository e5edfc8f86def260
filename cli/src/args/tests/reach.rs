//! `attach`, links, rules and wires.

use super::*;
use crate::api::{Action, EndpointKind};

#[test]
fn the_whole_of_attach() {
    let words = [
        "attach",
        "/run/netns/red",
        "--name",
        "red",
        "--network",
        "shop:ip=10.30.0.7,alias=www",
        "--network",
        "back",
        "--veth",
        "-p",
        "8080:80",
        "--expose",
        "80",
        "--link",
        "db:store",
        "--add-host",
        "x:10.0.0.1",
    ];
    let Ok(Command::Attach(args)) = parse(&words).map(|cli| cli.command) else {
        panic!("{words:?}");
    };
    let request = args.request();
    assert_eq!(request.pid, None);
    assert_eq!(request.namespace, Some("/run/netns/red".into()));
    assert_eq!(request.name.as_deref(), Some("red"));
    assert_eq!(request.endpoints.len(), 2);
    assert!(request.endpoints.iter().all(|e| e.kind == EndpointKind::Veth));
    assert_eq!(request.endpoints[0].aliases, ["www"]);
    assert_eq!(request.publish, ["8080:80".parse().unwrap()]);
    assert_eq!(request.expose, ["80".parse().unwrap()]);
    assert_eq!(request.links, ["db:store".parse().unwrap()]);
    assert_eq!(request.add_hosts, [("x".to_owned(), "10.0.0.1".parse().unwrap())]);
    let Ok(Command::Attach(args)) =
        parse(&["attach", "4711", "--name", "a", "--network", "n"]).map(|cli| cli.command)
    else {
        panic!("a process is taken");
    };
    assert_eq!((args.request().pid, args.request().namespace), (Some(4711), None));
}

#[test]
fn links_rules_and_wires() {
    let Ok(Command::Link(link)) =
        parse(&["link", "web", "db:store", "--port", "5432", "--port", "7-9/udp"]).map(|cli| cli.command)
    else {
        panic!("a link is taken");
    };
    let request = link.request();
    assert_eq!((request.client.as_str(), request.server.as_str()), ("web", "db"));
    assert_eq!(request.alias.as_deref(), Some("store"));
    assert_eq!(
        request.ports,
        ["5432".parse().unwrap(), "7-9/udp".parse().unwrap()]
    );
    let Ok(Command::Rule(RuleCommand::Add(rule))) =
        parse(&["rule", "add", "deny", "web:53/udp", "--from", "10.10.10.10"]).map(|cli| cli.command)
    else {
        panic!("a rule is taken");
    };
    let request = rule.request();
    assert_eq!(
        (request.action, request.container.as_str(), request.port),
        (Action::Deny, "web", 53)
    );
    assert_eq!(request.protocol.to_string(), "udp");
    assert_eq!(request.from.to_string(), "10.10.10.10/32");
    let Ok(Command::Wire(wire)) =
        parse(&["wire", "a", "b", "--addresses", "fd01::1,fd01::2"]).map(|cli| cli.command)
    else {
        panic!("a wire is taken");
    };
    let request = wire.request();
    assert_eq!((request.a.as_str(), request.b.as_str()), ("a", "b"));
    assert_eq!(
        request.addresses,
        Some(("fd01::1".parse().unwrap(), "fd01::2".parse().unwrap()))
    );
    for words in [
        &["unlink", "a", "b"][..],
        &["unwire", "a", "b"],
        &["links"],
        &["wires"],
        &["rule", "rm", "1", "2", "--network", "n"],
        &["rule", "ls"],
        &["detach", "a", "--network", "n"],
        &["metrics", "--network", "n"],
        &["daemon", "--config", "c", "--socket", "s", "--state", "t"],
        &["completions", "bash"],
        &["manual", "network", "create"],
        &["manual", "--all", "dir"],
        &["manual"],
    ] {
        parse(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }
}

#[test]
fn refusals() {
    for (words, expected) in [
        (&["attach", "1", "--name", "a"][..], "--network"),
        (&["attach", "1", "--network", "a"], "--name"),
        (
            &["attach", "0", "--name", "a", "--network", "n"],
            "neither a process id",
        ),
        (
            &["attach", "red", "--name", "a", "--network", "n"],
            "/run/netns/NAME",
        ),
        (
            &["attach", "1", "--name", "a", "--network", "none"],
            "is reserved",
        ),
        (&["link", "a"], "<B[:ALIAS]>"),
        (&["link", "a", "b:"], "1 to 63"),
        (&["link", "a", "b", "--port", "80:80"], "without a host port"),
        (
            &["rule", "add", "drop", "a:80", "--from", "10.0.0.0/8"],
            "[possible values: allow, deny]",
        ),
        (
            &["rule", "add", "deny", "a", "--from", "10.0.0.0/8"],
            "expected CONTAINER:PORT",
        ),
        (
            &["rule", "add", "deny", "a:80-81", "--from", "10.0.0.0/8"],
            "a rule is for one port",
        ),
        (
            &["rule", "add", "deny", "a:80", "--from", "10.0.0.1/8"],
            "the range is 10.0.0.0/8",
        ),
        (&["rule", "add", "deny", "a:80"], "--from"),
        (&["rule", "rm", "first"], "invalid digit"),
        (&["wire", "a", "b", "--addresses", "10.0.0.1"], "two addresses"),
        (
            &["wire", "a", "b", "--addresses", "10.0.0.1,10.0.0.1"],
            "both ends would have",
        ),
        (
            &["wire", "a", "b", "--addresses", "10.0.0.1,fd00::1"],
            "different families",
        ),
        (
            &["wire", "a", "b", "--addresses", "127.0.0.1,10.0.0.1"],
            "not an address that a container",
        ),
        (&["completions", "tcsh"], "possible values"),
        (&["manual", "run", "--all", "dir"], "cannot be used with"),
    ] {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}
