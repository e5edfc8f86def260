//! The text is read back by a parser of the format that knows nothing of what wrote it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::api::samples;

/// What the text says: the type of each metric, and the value of each series.
#[derive(Default, Debug)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    /// Reads the text, or says which line is wrong.
    fn read(text: &str) -> Result<Self, String> {
        let mut scrape = Self::default();
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        for line in text.lines() {
            let wrong = |why: &str| Err(format!("{why}: {line}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap_or_default();
                if !helped.insert(name.to_owned()) {
                    return wrong("helped twice");
                }
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or("no type")?;
                if name != current || !["counter", "gauge"].contains(&kind) {
                    return wrong("type of something else");
                }
                if scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return wrong("typed twice");
                }
            } else {
                let (name, labels, value) = sample(line)?;
                if name != current || !scrape.kinds.contains_key(&name) {
                    return wrong("sample of something else");
                }
                if scrape.kinds[&name] == "counter" && !name.ends_with("_total") {
                    return wrong("a counter without _total");
                }
                if scrape.series.insert((name, labels), value).is_some() {
                    return wrong("series given twice");
                }
            }
        }
        Ok(scrape)
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == ':') {
        word.push(c);
    }
    word
}

/// A name, its labels and the value.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let wrong = |why: &str| format!("{why}: {line}");
    let mut chars = line.chars().peekable();
    let name = word(&mut chars);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong("no name"));
    }
    let mut labels = BTreeMap::new();
    if chars.next_if_eq(&'{').is_some() {
        loop {
            let label = word(&mut chars);
            if label.is_empty() || chars.next() != Some('=') || chars.next() != Some('"') {
                return Err(wrong("no label"));
            }
            let mut value = String::new();
            loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => value.push(match chars.next() {
                        Some('n') => '\n',
                        Some(c @ ('\\' | '"')) => c,
                        _ => return Err(wrong("bad escape")),
                    }),
                    Some(c) => value.push(c),
                    None => return Err(wrong("label without an end")),
                }
            }
            if labels.insert(label, value).is_some() {
                return Err(wrong("label given twice"));
            }
            match chars.next() {
                Some(',') => {}
                Some('}') => break,
                _ => return Err(wrong("labels without an end")),
            }
        }
    }
    if chars.next() != Some(' ') {
        return Err(wrong("no value"));
    }
    let value = chars
        .collect::<String>()
        .parse()
        .map_err(|_| wrong("no number"))?;
    Ok((name, labels, value))
}

fn scrape() -> Scrape {
    let text = render(
        &samples::version(),
        &[samples::network(), samples::bare_network()],
        &[samples::container()],
        &[samples::stats()],
    );
    Scrape::read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

#[test]
fn everything_is_there_with_its_labels() {
    let scrape = scrape();
    let port = [
        ("network", "shop"),
        ("container", "web"),
        ("port", "2"),
        ("kind", "tap"),
    ];
    let dropped: Vec<(&str, &str)> = [&port[..], &[("reason", "spoofed")]].concat();
    let shop = [("network", "shop")];
    for (name, labels, expected) in [
        ("pontoon_build_info", &[("version", "0.1.0")][..], 1.0),
        ("pontoon_containers", &[], 1.0),
        ("pontoon_container_published_ports", &[("container", "web")], 3.0),
        (
            "pontoon_container_attached_timestamp_seconds",
            &[("container", "web")],
            1_795_248_001.0,
        ),
        (
            "pontoon_network_info",
            &[
                ("network", "bare"),
                ("internal", "true"),
                ("icc", "false"),
                ("persistent", "false"),
                ("gateway_mac", ""),
            ],
            1.0,
        ),
        ("pontoon_network_containers", &shop, 1.0),
        ("pontoon_network_containers", &[("network", "bare")], 0.0),
        ("pontoon_network_mtu_bytes", &shop, 1500.0),
        (
            "pontoon_network_created_timestamp_seconds",
            &shop,
            1_795_248_000.0,
        ),
        ("pontoon_network_packet_process_id", &shop, 4712.0),
        ("pontoon_port_receive_frames_total", &port, 10.0),
        ("pontoon_port_receive_bytes_total", &port, 1000.0),
        ("pontoon_port_transmit_frames_total", &port, 20.0),
        ("pontoon_port_transmit_bytes_total", &port, 123_456.0),
        ("pontoon_port_dropped_frames_total", &dropped, 2.0),
        (
            "pontoon_gateway_dropped_frames_total",
            &[("network", "shop"), ("reason", "filtered")],
            0.0,
        ),
        (
            "pontoon_flows",
            &[("network", "shop"), ("protocol", "tcp"), ("state", "established")],
            3.0,
        ),
        ("pontoon_flows_max", &shop, 262_144.0),
    ] {
        assert_eq!(scrape.value(name, labels), Some(expected), "{name} {labels:?}");
    }
    assert_eq!(scrape.kinds["pontoon_port_receive_bytes_total"], "counter");
    assert_eq!(scrape.kinds["pontoon_flows"], "gauge");
}

#[test]
fn a_front_without_anything_is_a_good_text() {
    let scrape = Scrape::read(&render(&samples::version(), &[], &[], &[])).unwrap();
    assert_eq!(scrape.value("pontoon_containers", &[]), Some(0.0));
    assert_eq!(scrape.series.len(), 2);
    assert!(scrape.kinds.len() > 10, "{:?}", scrape.kinds);
}

#[test]
fn labels_are_escaped() {
    let mut stats = samples::stats();
    let name = "a\"b\\c\nd{e=\"f\"} 1";
    stats.ports[0].name = name.to_owned();
    let text = render(&samples::version(), &[], &[], &[stats]);
    let scrape = Scrape::read(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let port = [
        ("network", "shop"),
        ("container", name),
        ("port", "2"),
        ("kind", "tap"),
    ];
    assert_eq!(
        scrape.value("pontoon_port_receive_frames_total", &port),
        Some(10.0)
    );
}

#[test]
fn the_parser_finds_faults() {
    let good = "# HELP a_total h\n# TYPE a_total counter\na_total{x=\"1\"} 2\n";
    assert_eq!(
        Scrape::read(good).unwrap().value("a_total", &[("x", "1")]),
        Some(2.0)
    );
    for (from, to) in [
        (" 2\n", " 2"),
        ("2\n", "two\n"),
        ("a_total counter", "b_total counter"),
        ("a_total{", "b_total{"),
        ("\"1\"", "\"1"),
        ("\"1\"", "\"\\1\""),
        ("x=\"1\"", "x=\"1\",x=\"1\""),
        ("counter", "histogram"),
        ("a_total", "a"),
        ("# TYPE a_total counter\n", ""),
        ("a_total{x=\"1\"} 2\n", "a_total{x=\"1\"} 2\na_total{x=\"1\"} 3\n"),
    ] {
        let bad = good.replace(from, to);
        assert!(Scrape::read(&bad).is_err(), "{bad}");
    }
}
