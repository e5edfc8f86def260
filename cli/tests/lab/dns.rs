//! The gateway's DNS: names of the network, names added, everything else from the host's resolvers.

use std::time::Duration;

use pontoon_fixtures::lab::{World, wait_for};

use crate::{PLAIN, start};

/// A dnsmasq of the topology at 198.51.100.`n`, which says `example.test` is 192.0.2.`n`.
fn dnsmasq(world: &World, n: u8) -> pontoon_fixtures::lab::Proc {
    let long: String = (0..20)
        .map(|i| format!("--txt-record=big.test,{i:0>200}|"))
        .collect();
    let mut options = vec![
        format!("--listen-address=198.51.100.{n}"),
        format!("--address=/example.test/192.0.2.{n}"),
        format!("--address=/example.test/2001:db8::{n}"),
        "--txt-record=small.test,some text".to_owned(),
    ];
    options.extend(long.split_terminator('|').map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    world.server().dnsmasq(&options)
}

each_user! {
    fn names_are_answered_over_udp_and_tcp(world, who) {
        let _dns = dnsmasq(world, 10);
        let _nginx = world.server().nginx(80);
        world.server().run(["ip", "addr", "add", "192.0.2.10/32", "dev", "lo"]);
        let c = start(world, who, "web", &["--add-host", "db:10.9.8.7", "--add-host", "db6:fd77::7"]);
        let gateway = c.gateway().to_string();
        let gateway6 = c.gateway6().to_string();
        for server in [format!("@{gateway}"), format!("@{gateway6}")] {
            for tcp in ["+notcp", "+tcp"] {
                let dig = |name: &str, kind: &str| c.run(["dig", "+short", "+time=3", tcp, &server, name, kind]);
                assert_eq!(dig("example.test", "A"), "192.0.2.10\n");
                assert_eq!(dig("example.test", "AAAA"), "2001:db8::10\n");
                assert_eq!(dig("small.test", "TXT"), "\"some text\"\n");
                assert_eq!(dig("db", "A"), "10.9.8.7\n");
                assert_eq!(dig("db6", "AAAA"), "fd77::7\n");
                assert_eq!(dig("web", "A").trim(), c.ip.to_string());
                assert_eq!(dig("web", "AAAA").trim(), c.ip6.expect("IPv6").to_string());
                assert_eq!(dig("big.test", "TXT").lines().count(), 20, "a long answer comes whole");
            }
        }
        let done = c.cmd(["dig", "+time=3", "nowhere.invalid"]).run();
        assert!(done.text().contains("NXDOMAIN") || done.text().contains("REFUSED"), "{done}");
        // By the C library, from /etc/resolv.conf.
        assert!(c.run(["getent", "hosts", "example.test"]).contains("2001:db8::10"));
        assert!(c.run(["getent", "ahostsv4", "db"]).contains("10.9.8.7"));
    }
}

each_user! {
    fn resolv_conf_is_followed_and_its_death_is_servfail(world, who) {
        let ten = dnsmasq(world, 10);
        let eleven = dnsmasq(world, 11);
        let c = start(world, who, "c", &PLAIN);
        let ask = || c.cmd(["dig", "+short", "+time=5", "+tries=1", "example.test", "A"]).run().text();
        assert_eq!(ask(), "192.0.2.10\n");
        // In place, as an editor does, and by renaming, as resolvers' managers do.
        world.write("/etc/resolv.conf", "nameserver 198.51.100.11\n");
        wait_for("the new resolver", Duration::from_secs(8), || (ask() == "192.0.2.11\n").then_some(()));
        world.host().sh("echo 'nameserver 198.51.100.10' > /etc/r; mv /etc/r /etc/resolv.conf");
        wait_for("the old resolver", Duration::from_secs(8), || (ask() == "192.0.2.10\n").then_some(()));
        // One dead resolver among two is no failure.
        world.host().sh("printf 'nameserver 198.51.100.12\\nnameserver 198.51.100.11\\n' > /etc/r; mv /etc/r /etc/resolv.conf");
        wait_for("the second of two resolvers", Duration::from_secs(12), || (ask() == "192.0.2.11\n").then_some(()));
        // The container's own file stands, whatever became of the host's that it covers.
        let own = format!("nameserver {}", c.gateway());
        wait_for("the container's own resolv.conf", Duration::from_secs(2), || {
            c.run(["cat", "/etc/resolv.conf"]).contains(&own).then_some(())
        });
        drop(ten);
        drop(eleven);
        let done = c.cmd(["dig", "+time=15", "+tries=1", "other.test"]).limit(20).run();
        assert!(done.text().contains("SERVFAIL"), "{done}");
    }
}

each_user! {
    /// A resolver on the host's loopback, as systemd-resolved's, and one given by `--dns`.
    fn resolvers_of_the_hosts_loopback_work(world, who) {
        let host = world.host();
        let _stub = host.dnsmasq(&["--listen-address=127.0.0.1", "--address=/example.test/192.0.2.53"]);
        let _dns = dnsmasq(world, 10);
        world.write("/etc/resolv.conf", "nameserver 127.0.0.1\nsearch sub.test\n");
        let c = start(world, who, "c", &PLAIN);
        assert_eq!(c.run(["dig", "+short", "example.test"]), "192.0.2.53\n");
        let d = start(world, who, "d", &["--dns", "198.51.100.10", "--dns-search", "test"]);
        assert_eq!(d.run(["dig", "+short", "example.test"]), "192.0.2.10\n");
        assert!(d.run(["cat", "/etc/resolv.conf"]).contains("search test"));
        assert!(d.run(["getent", "hosts", "example"]).contains("2001:db8::10"));
    }
}

/// What dnsperf in `c` says of five thousand questions a second for a second: how many it sent, and how many got no answer.
/// Of those a busy machine may lose some that no name server has seen, so it is tried a few times.
fn dnsperf(c: &pontoon_fixtures::lab::Container<'_>, names: &str) -> (u64, u64) {
    let number = |report: &str, of: &str| -> u64 {
        let line = report.lines().find(|l| l.trim_start().starts_with(of));
        let count = line.and_then(|l| l.split_whitespace().nth(2)?.parse().ok());
        count.unwrap_or_else(|| panic!("no `{of}` in {report}"))
    };
    let mut seen = (0, 0);
    for _ in 0..5 {
        let script = format!(
            "f=$(mktemp); printf '{names}' > $f; dnsperf -d $f -s {} -Q 5000 -q 4000 -l 1 -t 3",
            c.gateway()
        );
        let report = c.run(["sh", "-c", &script]);
        assert!(report.contains("NOERROR"), "{report}");
        seen = (number(&report, "Queries sent"), number(&report, "Queries lost"));
        if seen.1 == 0 && seen.0 > 4000 {
            break;
        }
    }
    seen
}

each_user! {
    fn thousands_of_questions_a_second_lose_none_while_a_server_is_silent(world, who) {
        pontoon_fixtures::lab::require("dnsperf");
        let _dns = world.server().dnsmasq(&[
            "--listen-address=198.51.100.10",
            "--address=/quick.test/192.0.2.10",
            "--server=/silent.test/198.51.100.99",
            "--dns-forward-max=10000",
        ]);
        let c = start(world, who, "c", &PLAIN);
        // It reads its file again and again, which a pipe does not let it.
        let silent = format!(
            "f=$(mktemp); echo a.silent.test A > $f; dnsperf -d $f -s {} -Q 100 -l 8 -t 1",
            c.gateway()
        );
        let _silent = c.cmd(["sh", "-c", &silent]).spawn();
        for names in ["c A\\nc AAAA\\n", "a.quick.test A\\nb.quick.test A\\n"] {
            let (sent, lost) = dnsperf(&c, names);
            assert!(sent > 4000 && lost == 0, "{names}: {lost} of {sent} lost");
        }
    }
}
