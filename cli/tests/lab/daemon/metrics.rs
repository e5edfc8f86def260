//! `GET /metrics` and `pontoon metrics`: Prometheus' text format, and figures that are true.

use std::collections::BTreeMap;

use pontoon_fixtures::lab::Daemon;

use super::{packet_pid, socket, web_server};
use crate::start;

/// Samples by their names with their labels.
type Samples = BTreeMap<String, f64>;

/// Reads the format as its description has it: each metric with one `HELP` and one `TYPE` before its samples, which stand
/// together; no sample twice.
fn parse(text: &str) -> Samples {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = "";
    let mut current = "";
    let mut samples = Samples::new();
    assert!(text.ends_with('\n'), "the last line ends");
    for line in text.lines() {
        let metric = |s: &str| {
            !s.is_empty()
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        };
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(metric(name) && !help.is_empty(), "{line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert_eq!(name, helped, "{line}");
            assert!(types.insert(name, kind).is_none(), "{name} comes twice");
            current = name;
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
                None => (series, ""),
            };
            assert_eq!(name, current, "{line} stands apart from its type");
            assert!(name.starts_with("pontoon_") && metric(name), "{line}");
            for label in labels.split("\",").filter(|l| !l.is_empty()) {
                let (key, value) = label.split_once("=\"").expect("a label");
                assert!(
                    metric(key) && !value.trim_end_matches('"').contains('"'),
                    "{line}"
                );
            }
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(
                samples.insert(series.to_owned(), value).is_none(),
                "{line} comes twice"
            );
        }
    }
    samples
}

/// The sum of the samples of a metric that have all these labels.
fn sum(samples: &Samples, name: &str, labels: &[&str]) -> f64 {
    samples
        .iter()
        .filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|l| series.contains(l))
        })
        .map(|(_, value)| value)
        .sum()
}

each_user! {
    fn they_tell_what_has_happened(world, who) {
        let daemon = Daemon::start(world, who);
        daemon.create("shop", &["--subnet", "10.30.0.0/24"]);
        daemon.create("back", &["--internal", "--icc=false"]);
        let now = || parse(&daemon.run(["metrics"]));
        let empty = now();
        assert_eq!(sum(&empty, "pontoon_containers", &[]), 0.0);
        assert_eq!(sum(&empty, "pontoon_network_info", &["network=\"back\"", "internal=\"true\"", "icc=\"false\""]), 1.0);
        let web = start(world, who, "web", &["--network", "shop", "-p", "8080:80", "-p", "8081:80"]);
        let _db = start(world, who, "db", &["--network", "shop", "--network", "back"]);
        let _server = web_server(&web);
        let before = now();
        assert_eq!(sum(&before, "pontoon_containers", &[]), 2.0);
        assert_eq!(sum(&before, "pontoon_network_containers", &["network=\"shop\""]), 2.0);
        assert_eq!(sum(&before, "pontoon_network_containers", &["network=\"back\""]), 1.0);
        // Both addresses of a port, where the network has both versions, or one.
        assert!([2.0, 4.0].contains(&sum(&before, "pontoon_container_published_ports", &["container=\"web\""])));
        assert_eq!(sum(&before, "pontoon_network_mtu_bytes", &["network=\"shop\""]), 1500.0);
        assert_eq!(sum(&before, "pontoon_network_packet_process_id", &["network=\"shop\""]), packet_pid(&daemon, "shop") as f64);

        web.run(["ping", "-n", "-c10", "-i0.01", "-s1000", "-W9", "198.51.100.10"]);
        world.server().run(["curl", "-sS", "-m3", "http://192.0.2.1:8080/"]);
        // An address that is not its own goes nowhere.
        web.sh("ip addr add 10.99.0.5/32 dev lo; ping -n -c7 -i0.01 -W1 -I 10.99.0.5 10.30.0.1 && exit 1; true");
        let after = now();
        let of_web = ["network=\"shop\"", "container=\"web\""];
        let grown = |name: &str| sum(&after, name, &of_web) - sum(&before, name, &of_web);
        assert!(grown("pontoon_port_receive_frames_total") >= 10.0);
        assert!(grown("pontoon_port_transmit_frames_total") >= 10.0);
        for bytes in ["pontoon_port_receive_bytes_total", "pontoon_port_transmit_bytes_total"] {
            assert!((10_000.0..40_000.0).contains(&grown(bytes)), "{bytes}: {}", grown(bytes));
        }
        assert!(grown("pontoon_port_dropped_frames_total") >= 7.0, "spoofed frames are counted");
        assert!(sum(&after, "pontoon_flows", &["network=\"shop\"", "protocol=\"icmp\""]) >= 1.0);
        assert!(sum(&after, "pontoon_flows_max", &["network=\"back\""]) > 0.0);
        for (series, value) in &before {
            if series.contains("_total") {
                assert!(after[series] >= *value, "{series} shrank");
            }
        }
        // It is the same by the socket, with its media type.
        let answer = world.host().cmd(["curl", "-sS", "-i", "--unix-socket", &socket(who), "http://pontoon/metrics"]).who(who).run().ok();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert_eq!(parse(body).keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    }
}
