//! Rules for the clients of published ports: by source, in order, from the moment they are there.

use std::time::Duration;

use pontoon_fixtures::lab::{Container, Daemon, Proc, Who, World, wait_for};
use serde_json::json;

use crate::{container_peers, start};

/// Two addresses of each family that clients have.
const TEN: &str = "198.51.100.10";
const ELEVEN: &str = "198.51.100.11";
const SIX_TEN: &str = "2001:db8:2::10";
const SIX_ELEVEN: &str = "2001:db8:2::11";

/// A published port of a container with the lab's peer behind it.
fn published<'w>(world: &'w World, who: Who, name: &str) -> (Container<'w>, [Proc; 2]) {
    let c = start(
        world,
        who,
        name,
        &["--network", "net", "-p", "9100:9000", "-p", "9100:9000/udp"],
    );
    let peers = container_peers(&c);
    (c, peers)
}

fn network(d: &Daemon<'_>) {
    d.create("net", &["--subnet", "10.80.0.0/24", "--subnet", "fd80::/64"]);
}

/// The published port as clients of one family name it.
fn to(from: &str, kind: &str) -> String {
    if from.contains(':') {
        format!("{kind}6:[2001:db8:1::1]:9100,bind=[{from}]")
    } else {
        format!("{kind}4:192.0.2.1:9100,bind={from}")
    }
}

/// Whether a TCP client with this address is served.
fn tcp(world: &World, from: &str) -> bool {
    let to = format!("{},connect-timeout=2", to(from, "TCP"));
    let ask = world.server().cmd(["socat", "-t2", "-T3", "-", &to]);
    ask.stdin("who\n").run().text().contains(&from[..from.len() - 1])
}

/// Whether a UDP client with this address is answered.
fn udp(world: &World, from: &str) -> bool {
    let ask = world.server().cmd(["socat", "-t1", "-T1", "-", &to(from, "UDP")]);
    ask.stdin("who").run().text().contains(&from[..from.len() - 1])
}

each_user! {
    fn the_first_rule_that_fits_decides(world, who) {
        let d = Daemon::start(world, who);
        network(&d);
        let (_web, _peers) = published(world, who, "web");
        let all = |expected: [bool; 4]| {
            let seen = [TEN, ELEVEN, SIX_TEN, SIX_ELEVEN].map(|from| tcp(world, from));
            assert_eq!(seen, expected);
        };
        all([true; 4]);
        let first = d.run(["rule", "add", "deny", "web:9000", "--from", TEN]);
        all([false, true, true, true]);
        assert!(udp(world, TEN), "the rule is TCP's");
        d.run(["rule", "add", "deny", "web:9000", "--from", "2001:db8:2::10/128"]);
        all([false, true, false, true]);
        // Behind it, nothing changes; in place of it, it does.
        d.run(["rule", "add", "allow", "web:9000", "--from", "198.51.100.0/24"]);
        all([false, true, false, true]);
        d.run(["rule", "rm", first.trim()]);
        all([true, true, false, true]);
        d.run(["rule", "add", "deny", "web:9000", "--from", "0.0.0.0/0"]);
        all([true, true, false, true]);
        d.run(["rule", "add", "deny", "web:9000", "--from", "::/0"]);
        all([true, true, false, false]);
        let local = world.host().cmd(["lab-peer", "tcp", "127.0.0.1:9100", "who"]).run();
        assert!(!local.success(), "the host's own clients are clients: {local}");

        let rules = d.json(["rule", "ls", "--json"]);
        let shown: Vec<String> = rules
            .as_array()
            .expect("rules")
            .iter()
            .map(|r| format!("{} {}", r["action"].as_str().expect("a word"), r["from"].as_str().expect("a range")))
            .collect();
        assert_eq!(shown, ["deny 2001:db8:2::10/128", "allow 198.51.100.0/24", "deny 0.0.0.0/0", "deny ::/0"]);
        assert!(d.run(["stats", "net", "--json"]).contains(r#""denied""#), "each is counted");
        let ids: Vec<String> = rules.as_array().expect("rules").iter().map(|r| r["id"].to_string()).collect();
        d.pontoon(["rule", "rm"]).args(&ids).run().ok();
        all([true; 4]);
        assert_eq!(d.json(["rule", "ls", "--json"]), json!([]));
        let done = d.pontoon(["rule", "rm", &ids[0]]).run();
        assert!(done.fails().contains("no rule"), "{done}");
    }
}

each_user! {
    fn datagrams_have_rules_of_their_own(world, who) {
        let d = Daemon::start(world, who);
        network(&d);
        let (_web, _peers) = published(world, who, "web");
        assert!([TEN, ELEVEN, SIX_TEN, SIX_ELEVEN].iter().all(|from| udp(world, from)));
        for from in [TEN, SIX_ELEVEN] {
            d.run(["rule", "add", "deny", "web:9000/udp", "--from", from]);
        }
        assert_eq!([TEN, ELEVEN, SIX_TEN, SIX_ELEVEN].map(|from| udp(world, from)), [false, true, true, false]);
        assert!(tcp(world, TEN), "the rules are UDP's");
    }
}

/// A client with this address that stays connected: what is said to it comes back.
fn stays(world: &World, from: &str) -> Proc {
    let mut client = world
        .server()
        .cmd([
            "socat",
            "-d",
            "-t1",
            "-",
            &to(from, "TCP").replace("9100", "9200"),
        ])
        .held()
        .spawn();
    client.say("one");
    client.wait_for("one");
    client
}

each_user! {
    /// A new rule ends the connections of those whom it denies, and of nobody else.
    fn a_rule_ends_what_it_denies(world, who) {
        let d = Daemon::start(world, who);
        network(&d);
        let c = start(world, who, "web", &["--network", "net", "-p", "9200:9200"]);
        let _server = c.cmd(["socat", "TCP6-LISTEN:9200,fork,reuseaddr", "EXEC:cat"]).spawn();
        wait_for("the server", Duration::from_secs(5), || c.run(["ss", "-ltnH"]).contains(":9200").then_some(()));
        for (denied, allowed) in [(TEN, ELEVEN), (SIX_TEN, SIX_ELEVEN)] {
            let gone = stays(world, denied);
            let mut left = stays(world, allowed);
            d.run(["rule", "add", "deny", "web:9200", "--from", denied]);
            let done = gone.end(Duration::from_secs(5));
            assert!(done.errors().contains("reset by peer"), "{done}");
            left.say("two");
            left.wait_for("two");
        }
    }
}

each_user! {
    /// Rules are for a name: before there is such a container, and when there is another.
    fn rules_outlive_containers(world, who) {
        let d = Daemon::start(world, who);
        network(&d);
        d.run(["rule", "add", "deny", "web:9000", "--from", TEN]);
        for _ in 0..2 {
            let (web, peers) = published(world, who, "web");
            assert!(!tcp(world, TEN) && tcp(world, ELEVEN));
            drop((web, peers));
            wait_for("its end", Duration::from_secs(5), || d.container("web").is_null().then_some(()));
        }
        let (_other, _peers) = published(world, who, "other");
        assert!(tcp(world, TEN), "another name has other rules");
        assert_eq!(d.json(["rule", "ls", "--json"]).as_array().map(Vec::len), Some(1));
    }
}
