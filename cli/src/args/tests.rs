use std::net::Ipv4Addr;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::values::AddHost;
use super::*;

mod networks;
mod reach;
mod uplink;

fn run(words: &[&str]) -> RunArgs {
    match parse(words).map(|cli| cli.command) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["pontoon"].iter().chain(words))
}

fn refusal(words: &[&str]) -> String {
    match parse(words) {
        Err(e) => e.to_string(),
        Ok(Cli {
            command: Command::Run(run),
        }) => run.check().expect_err("should be refused").to_string(),
        Ok(Cli {
            command: Command::Network(NetworkCommand::Create(create)),
        }) => create.spec().expect_err("should be refused").to_string(),
        Ok(other) => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn everything_after_the_command_is_the_commands() {
    let args = run(&[
        "run",
        "-p",
        "8080:80",
        "--",
        "python3",
        "-m",
        "http.server",
        "-p",
        "80",
        "--name",
    ]);
    assert_eq!(
        args.command,
        ["python3", "-m", "http.server", "-p", "80", "--name"]
    );
    assert_eq!(args.publish, ["8080:80".parse().unwrap()]);
    let args = run(&["run", "sh", "-c", "true", "--", "--mtu"]);
    assert_eq!(args.command, ["sh", "-c", "true", "--", "--mtu"]);
    assert!(run(&["run"]).command.is_empty());
    assert_eq!(
        parse(&["run", "--bogus", "sh"]).unwrap_err().kind(),
        ErrorKind::UnknownArgument
    );
}

#[test]
fn the_whole_of_run() {
    let args = run(&[
        "run",
        "--name",
        "a",
        "-p",
        "80",
        "-p",
        "[::1]:53:53/udp",
        "-P",
        "--expose",
        "81",
        "--expose",
        "53/udp",
        "--subnet",
        "10.9.0.0/16",
        "--ip",
        "10.9.0.7",
        "--gateway",
        "10.9.0.254",
        "--subnet6",
        "fd01::/64",
        "--ip6",
        "fd01::7",
        "--mac-address",
        "02:00:00:00:00:01",
        "--mtu",
        "65520",
        "--max-flows",
        "10",
        "--max-flows-per-container",
        "5",
        "--dns",
        "1.1.1.1",
        "--dns",
        "::1",
        "--dns-search",
        "example.org",
        "--hostname",
        "web.example.org",
        "--add-host",
        "db:10.9.0.9",
        "--add-host",
        "db6:[fd01::9]",
        "--host-loopback",
        "--outbound",
        "eth0",
        "--outbound",
        "192.0.2.1",
        "--outbound",
        "2001:db8::1",
        "--capture",
        "/tmp/x.pcapng",
        "sh",
    ]);
    args.check().unwrap();
    let published: Vec<String> = args.publish_specs().iter().map(ToString::to_string).collect();
    assert_eq!(published, ["80/tcp", "[::1]:53:53/udp", "81/tcp"]);
    assert_eq!(args.gateway(), Ipv4Addr::new(10, 9, 0, 254));
    assert_eq!(args.gateway6(), Some("fd01::2".parse().unwrap()));
    assert_eq!(
        args.add_host[1],
        AddHost {
            name: "db6".into(),
            ip: "fd01::9".parse().unwrap()
        }
    );
    assert_eq!(args.outbound[0], Outbound::Interface("eth0".into()));
    assert_eq!(
        args.outbound[1],
        Outbound::Address(Ipv4Addr::new(192, 0, 2, 1).into())
    );
}

#[test]
fn defaults() {
    let args = run(&["run"]);
    args.check().unwrap();
    assert_eq!(
        (args.mtu, args.max_flows, args.max_flows_per_container),
        (1500, 262_144, 65_536)
    );
    assert_eq!(args.subnet().to_string(), DEFAULT_SUBNET);
    assert_eq!(args.gateway().to_string(), "10.0.2.2");
    assert_eq!(args.gateway6().unwrap().to_string(), "fd00::2");
    // A lower bound for all lowers the bound for each.
    let args = run(&["run", "--max-flows", "100"]);
    args.check().unwrap();
    assert_eq!(args.flows_per_container(), 100);
    assert!(run(&["run", "--mtu", "1279"]).subnet6().is_none());
    assert!(run(&["run", "--mtu", "1280"]).subnet6().is_some());
    assert!(run(&["run", "--no-ipv6"]).subnet6().is_none());
}

#[test]
fn refusals_say_what_on_what_and_what_to_do() {
    for (words, expected) in [
        (&["run", "--mtu", "67"][..], "67 is not in 68..=65520"),
        (&["run", "--mtu", "65521"], "65521 is not in 68..=65520"),
        (&["run", "--max-flows", "0"], "0 is not in 1.."),
        (
            &["run", "--max-flows", "10", "--max-flows-per-container", "11"],
            "more than --max-flows 10",
        ),
        (&["run", "--subnet", "10.0.2.5/24"], "the range is 10.0.2.0/24"),
        (&["run", "--subnet", "10.0.2.0/31"], "no room"),
        (&["run", "--subnet", "10.0.0.0/7"], "too wide"),
        (&["run", "--subnet", "127.0.0.0/8"], "not a range for hosts"),
        (&["run", "--subnet", "169.254.0.0/16"], "not a range for hosts"),
        (&["run", "--subnet", "224.0.0.0/24"], "not a range for hosts"),
        (&["run", "--subnet", "fd00::/64"], "expected an IPv4 range"),
        (&["run", "--subnet6", "fe80::/64"], "not a range for hosts"),
        (&["run", "--subnet6", "fd00::/127"], "no room"),
        (&["run", "--subnet6", "fd00::1/64"], "the range is fd00::/64"),
        (&["run", "--ip", "10.0.3.7"], "not in 10.0.2.0/24"),
        (&["run", "--ip", "10.0.2.255"], "the first or the last"),
        (&["run", "--ip", "10.0.2.2"], "the gateway's"),
        (&["run", "--gateway", "10.0.3.1"], "not in 10.0.2.0/24"),
        (&["run", "--ip6", "fd01::7"], "not in fd00::/64"),
        (&["run", "--ip6", "fd00::2"], "the gateway's"),
        (&["run", "--ip6", "fd00::"], "anycast"),
        (&["run", "--ip6", "fd00::7", "--mtu", "1000"], "raise --mtu 1000"),
        (&["run", "--ip6", "fd00::7", "--no-ipv6"], "cannot be used with"),
        (
            &["run", "--subnet6", "fd00::/64", "--no-ipv6"],
            "cannot be used with",
        ),
        (&["run", "--mac-address", "01:00:00:00:00:01"], "unicast"),
        (&["run", "--mac-address", "nonsense"], "six hexadecimal bytes"),
        (&["run", "--name", "../x"], "begins with a letter or digit"),
        (&["run", "--name", ""], "1 to 63"),
        (&["run", "--hostname", "a b"], "not a domain name"),
        (&["run", "--dns", "0.0.0.0"], "not the address of a server"),
        (&["run", "--dns", "dns.example.org"], "invalid IP address"),
        (&["run", "--dns-search", "a..b"], "not a domain name"),
        (&["run", "--add-host", "db"], "expected NAME:IP"),
        (&["run", "--add-host", "db:x"], "`x` is not an IP address"),
        (&["run", "--outbound", "a/b"], "the name of an interface"),
        (
            &["run", "--outbound", "192.0.2.1", "--outbound", "192.0.2.2"],
            "two IPv4 addresses",
        ),
        (
            &["run", "-p", "8080:80", "-p", "127.0.0.1:8080:81"],
            "same host port",
        ),
        (&["run", "-p", "8080:x"], "container port `x`"),
        (&["run", "-P"], "--expose"),
        (&["run", "--expose", "8080:80"], "without a host port"),
        (
            &["run", "--network", "n", "--subnet", "10.0.2.0/24"],
            "cannot be used with",
        ),
        (&["run", "--network", "n", "--mtu", "1500"], "cannot be used with"),
    ] {
        let message = refusal(words);
        assert!(message.contains(expected), "{words:?}: {message}");
    }
}

#[test]
fn ports_that_do_not_clash() {
    for words in [
        &["run", "-p", "8080:80", "-p", "8080:80/udp"][..],
        &["run", "-p", "127.0.0.1:8080:80", "-p", "[::1]:8080:80"],
        &["run", "-p", "80", "-p", "81"],
        &["run", "-p", "8000-8010:80", "-p", "8000-8010:81"],
    ] {
        run(words).check().unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }
}

#[test]
fn joining_leaves_the_ranges_to_the_networks_front() {
    run(&["run", "--network", "n", "--ip", "172.20.0.9"])
        .check()
        .unwrap();
}

#[test]
fn lists_take_json() {
    for words in [
        &["ps", "--json"][..],
        &["network", "ls", "--json"],
        &["network", "inspect", "a", "b", "--json"],
        &["network", "prune", "--json"],
        &["network", "create", "a", "--json"],
        &["network", "connect", "a", "c", "--json"],
        &["attach", "1", "--name", "c", "--network", "a", "--json"],
        &["link", "a", "b", "--json"],
        &["links", "--json"],
        &["rule", "add", "deny", "c:80", "--from", "10.0.0.0/8", "--json"],
        &["rule", "ls", "--json"],
        &["wire", "a", "b", "--json"],
        &["wires", "--json"],
        &["publish", "c", "80", "81/udp", "--json"],
        &["unpublish", "c", "8080:80"],
        &["port", "c", "80/udp", "--json"],
        &["conntrack", "ls", "--container", "c", "--json"],
        &["conntrack", "flush", "--container", "c"],
        &["fdb", "show", "n", "--json"],
        &["stats", "--json"],
        &["doctor", "--json"],
    ] {
        parse(words).unwrap_or_else(|e| panic!("{words:?}: {e}"));
    }
}
