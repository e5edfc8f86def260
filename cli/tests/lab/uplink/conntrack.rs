//! The table of flows: what `conntrack ls` shows, as the kernel's `conntrack -L` does, and when entries end.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Place, Proc, wait_for};

use super::{Site, Way};
use crate::server_peers;

/// A connection that stays: what is said to it comes back.
fn hold<'w>(command: pontoon_fixtures::lab::Cmd<'w>, to: &str) -> Proc {
    let mut client = command.args(["socat", "-t1", "-", to]).held().spawn();
    client.say("one");
    client.wait_for("one");
    client
}

/// A server of such connections.
fn echo(place: Place<'_>, port: u16) -> Proc {
    place.socat(&format!("TCP6-LISTEN:{port},fork,reuseaddr"), "EXEC:cat")
}

/// The same in a container.
fn echo_inside(c: &Bare<'_>, port: u16) -> Proc {
    let listen = format!("TCP6-LISTEN:{port},fork,reuseaddr");
    let server = c.cmd(["socat", &listen, "EXEC:cat"]).spawn();
    wait_for("a server in a container", Duration::from_secs(5), || {
        c.run(["ss", "-ltnH"])
            .contains(&format!(":{port} "))
            .then_some(())
    });
    server
}

/// A line of `conntrack -L`, or of ours, without what changes: protocol, state if it is TCP's, and both tuples.
fn flow(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let protocol = words[0];
    let state = words.get(3).filter(|_| protocol == "tcp");
    let all = |key: &str| -> Vec<&str> { words.iter().filter_map(|w| w.strip_prefix(key)).collect() };
    let (src, dst, sport, dport, id) = (all("src="), all("dst="), all("sport="), all("dport="), all("id="));
    let end = |address: &str, port: Option<&&str>| match port.or(id.first()) {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    let tuple = |i: usize| format!("{} > {}", end(src[i], sport.get(i)), end(dst[i], dport.get(i)));
    let state = state.map(|s| format!(" {s}")).unwrap_or_default();
    format!("{protocol}{state} {} answered {}", tuple(0), tuple(1))
}

/// All flows that are about any of these ports or identifiers, in order.
fn flows(site: &Site<'_>, about: &[&str]) -> String {
    let mut all: Vec<String> = site
        .flows()
        .iter()
        .map(|l| flow(l))
        .filter(|l| about.iter().any(|a| l.contains(&format!(":{a}"))))
        .collect();
    all.sort();
    all.join("\n")
}

either_way! {
    /// Both tuples of every kind of flow, and the states of TCP from its first packet to its last.
    fn shows_both_tuples(world, way, log) {
        let site = Site::new(world, way);
        let [_tcp, _udp] = server_peers(world);
        let _echo = echo(world.server(), 9200);
        let _inside = echo_inside(&site.a, 9000);
        site.publish("a", "8080:9000");
        let out = hold(site.a.cmd([""; 0]), "TCP4:198.51.100.10:9200,sourceport=41000");
        let out6 = hold(site.b.cmd([""; 0]), "TCP6:[2001:db8:2::10]:9200,sourceport=41001");
        let _in = hold(site.near().cmd([""; 0]), "TCP4:100.64.7.77:8080,sourceport=41002");
        site.a.run(["lab-peer", "udp-from", "41003", "198.51.100.10:9000"]);
        site.b.run(["lab-peer", "udp-from", "41004", "[2001:db8:2::11]:9000"]);
        site.a.run(["ping", "-n", "-c1", "-e", "41005", "198.51.100.10"]);
        site.b.run(["ping", "-n", "-c1", "-e", "41006", "2001:db8:2::10"]);
        // To an address that says nothing.
        let silent = site.a.cmd(["timeout", "0.3", "socat", "-", "TCP4:198.18.3.1:80,sourceport=41007"]).run();
        assert!(!silent.success(), "{silent}");
        log.add("there", flows(&site, &["41000", "41001", "41002", "41003", "41004", "41005", "41006", "41007"]));
        drop((out, out6));
        let ended = wait_for("the end of a connection", Duration::from_secs(10), || {
            let all = flows(&site, &["41000", "41001"]);
            (!all.contains("ESTABLISHED")).then_some(all)
        });
        log.add("ended", ended);
        site.flush();
        log.add("flushed", flows(&site, &["4100"]));
    } says "
        there: icmp 10.44.0.2:41005 > 198.51.100.10:41005 answered 198.51.100.10:41005 > 100.64.7.77:41005
        there: icmpv6 [fd44::3]:41006 > [2001:db8:2::10]:41006 answered [2001:db8:2::10]:41006 > [2001:db8:7::77]:41006
        there: tcp ESTABLISHED 10.44.0.2:41000 > 198.51.100.10:9200 answered 198.51.100.10:9200 > 100.64.7.77:41000
        there: tcp ESTABLISHED 100.64.7.10:41002 > 100.64.7.77:8080 answered 10.44.0.2:9000 > 100.64.7.10:41002
        there: tcp ESTABLISHED [fd44::3]:41001 > [2001:db8:2::10]:9200 answered [2001:db8:2::10]:9200 > [2001:db8:7::77]:41001
        there: tcp SYN_SENT 10.44.0.2:41007 > 198.18.3.1:80 answered 198.18.3.1:80 > 100.64.7.77:41007
        there: udp 10.44.0.2:41003 > 198.51.100.10:9000 answered 198.51.100.10:9000 > 100.64.7.77:41003
        there: udp [fd44::3]:41004 > [2001:db8:2::11]:9000 answered [2001:db8:2::11]:9000 > [2001:db8:7::77]:41004
        ended: tcp TIME_WAIT 10.44.0.2:41000 > 198.51.100.10:9200 answered 198.51.100.10:9200 > 100.64.7.77:41000
        ended: tcp TIME_WAIT [fd44::3]:41001 > [2001:db8:2::10]:9200 answered [2001:db8:2::10]:9200 > [2001:db8:7::77]:41001
        flushed: nothing
    "
}

/// Entries end with the rule, the container, or by command, and what they were about with them: the kernel leaves that to
/// whoever changes its rules.
#[test]
fn entries_end_with_what_they_are_about() {
    let world = &crate::world();
    let site = Site::new(world, Way::Pontoon);
    let daemon = site.daemon().expect("Pontoon's");
    let _echo = echo(world.server(), 9200);
    let _inside = echo_inside(&site.a, 9000);
    site.publish("a", "8080:9000");
    site.publish("a", "8081:9000");
    let gone = hold(site.near().cmd([""; 0]), "TCP4:100.64.7.77:8080,sourceport=41000");
    let mut stays = hold(site.near().cmd([""; 0]), "TCP4:100.64.7.77:8081,sourceport=41001");
    let out = hold(site.b.cmd([""; 0]), "TCP4:198.51.100.10:9200,sourceport=41002");
    assert_eq!(flows(&site, &["41000", "41001", "41002"]).lines().count(), 3);
    // With the rule.
    site.unpublish("a", "8080:9000");
    let left = flows(&site, &["41000", "41001", "41002"]);
    assert!(!left.contains(":41000") && left.lines().count() == 2, "{left}");
    drop(gone);
    stays.say("two");
    stays.wait_for("two");
    // With the container.
    daemon.run(["detach", "b"]);
    let left = flows(&site, &["41001", "41002"]);
    assert!(!left.contains(":41002") && left.lines().count() == 1, "{left}");
    drop(out);
    // By a rule that denies its client.
    site.deny("a", 9000, "100.64.7.10");
    assert_eq!(flows(&site, &["41001"]), "");
    site.allow_all();
    // By command, of one container alone.
    let again = hold(site.near().cmd([""; 0]), "TCP4:100.64.7.77:8081,sourceport=41003");
    daemon.run(["conntrack", "flush", "--container", "a"]);
    assert_eq!(flows(&site, &["41003"]), "");
    drop(again);
    hold(site.near().cmd([""; 0]), "TCP4:100.64.7.77:8081,sourceport=41004");
}
