use proptest::prelude::*;

use super::*;

fn parse(s: &str) -> PublishSpec {
    s.parse().unwrap_or_else(|e| panic!("{s}: {e}"))
}

fn refusal(s: &str) -> String {
    s.parse::<PublishSpec>().expect_err(s).to_string()
}

#[test]
fn each_form_of_dockers_grammar() {
    let spec = |ip: Option<&str>, host, container, protocol| PublishSpec {
        host_ip: ip.map(|ip| ip.parse().unwrap()),
        host_ports: host,
        container_ports: container,
        protocol,
    };
    use Transport::{Tcp, Udp};
    for (text, expected) in [
        ("80", spec(None, None, (80, 80), Tcp)),
        (":80", spec(None, None, (80, 80), Tcp)),
        ("0:80", spec(None, None, (80, 80), Tcp)),
        ("53/udp", spec(None, None, (53, 53), Udp)),
        ("8080:80", spec(None, Some((8080, 8080)), (80, 80), Tcp)),
        ("8080:80/TCP", spec(None, Some((8080, 8080)), (80, 80), Tcp)),
        ("8080:80/udp", spec(None, Some((8080, 8080)), (80, 80), Udp)),
        (
            "127.0.0.1:8080:80",
            spec(Some("127.0.0.1"), Some((8080, 8080)), (80, 80), Tcp),
        ),
        (
            "0.0.0.0:8080:80",
            spec(Some("0.0.0.0"), Some((8080, 8080)), (80, 80), Tcp),
        ),
        ("127.0.0.1::80", spec(Some("127.0.0.1"), None, (80, 80), Tcp)),
        (
            "[::1]:8080:80/tcp",
            spec(Some("::1"), Some((8080, 8080)), (80, 80), Tcp),
        ),
        ("[::]::53/udp", spec(Some("::"), None, (53, 53), Udp)),
        ("7000-7010:80-90", spec(None, Some((7000, 7010)), (80, 90), Tcp)),
        ("8000-8010:80", spec(None, Some((8000, 8010)), (80, 80), Tcp)),
        ("80-90", spec(None, None, (80, 90), Tcp)),
        ("1-65535:1-65535", spec(None, Some((1, 65535)), (1, 65535), Tcp)),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
}

#[test]
fn errors_name_the_part() {
    for (text, part) in [
        ("", "container port is missing"),
        ("8080:", "container port is missing"),
        ("/udp", "container port is missing"),
        ("[::1]", "container port is missing"),
        ("x:80", "host port `x`"),
        ("8080:x", "container port `x`"),
        ("8080:0", "container port `0`"),
        ("8080:+80", "container port `+80`"),
        ("65536:80", "host port `65536`"),
        ("0-5:80", "host port `0`"),
        ("-5:80", "host port ``"),
        ("80/sctp", "protocol `sctp`"),
        ("80/", "protocol ``"),
        ("80/tcp/udp", "protocol `tcp/udp`"),
        ("300.0.0.1:80:80", "host address `300.0.0.1`"),
        (":8080:80", "host address ``"),
        ("localhost:8080:80", "host address `localhost`"),
        ("[127.0.0.1]:8080:80", "host address `127.0.0.1`"),
        ("::1:8080:80", "brackets"),
        ("[::1:8080:80", "brackets"),
        ("127.0.0.1:80", "127.0.0.1::80"),
        ("[::1]:80", "::1"),
        ("90-80:80", "host port range 90-80"),
        ("80:90-80", "container port range 90-80"),
        ("7000-7001:80-82", "2 ports"),
        ("7000:80-82", "1 ports"),
        ("224.0.0.1:80:80", "multicast"),
        ("255.255.255.255:80:80", "broadcast"),
        ("[::ffff:127.0.0.1]:80:80", "IPv4 address itself"),
    ] {
        let message = refusal(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn bindings_pair_the_ports() {
    let pairs = |s: &str| parse(s).bindings().collect::<Vec<_>>();
    assert_eq!(pairs("80"), [(80, 0..=0)]);
    assert_eq!(pairs("8000-8010:80"), [(80, 8000..=8010)]);
    assert_eq!(pairs("7000-7001:80-81"), [(80, 7000..=7000), (81, 7001..=7001)]);
    assert_eq!(pairs("80-81/udp"), [(80, 0..=0), (81, 0..=0)]);
    assert_eq!(pairs("1-65535:1-65535").last(), Some(&(65535, 65535..=65535)));
    assert_eq!(parse("1-65535:1-65535").sockets(), 131_070);
    assert_eq!(parse("[::1]:8080:80").sockets(), 1);
}

#[test]
fn json_is_the_text() {
    let spec = parse("127.0.0.1:8080:80/udp");
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(json, r#""127.0.0.1:8080:80/udp""#);
    assert_eq!(serde_json::from_str::<PublishSpec>(&json).unwrap(), spec);
    assert!(serde_json::from_str::<PublishSpec>(r#""2-1:80""#).is_err());
}

fn any_spec() -> impl Strategy<Value = PublishSpec> {
    let ip = proptest::option::of(any::<IpAddr>());
    let host = proptest::option::of((1..=u16::MAX, any::<u16>()));
    (ip, host, 1..=u16::MAX, 0..1000u16, any::<bool>()).prop_map(|(host_ip, host, first, more, tcp)| {
        let container = (first, first.saturating_add(more));
        let length = container.1 - container.0;
        let host_ports = host.map(|(low, span)| {
            if length == 0 {
                (low, low.saturating_add(span))
            } else {
                let low = low.min(u16::MAX - length);
                (low, low + length)
            }
        });
        let protocol = if tcp { Transport::Tcp } else { Transport::Udp };
        PublishSpec {
            host_ip,
            host_ports,
            container_ports: container,
            protocol,
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(spec in any_spec().prop_filter("valid", |s| s.validate().is_ok())) {
        prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
    }

    #[test]
    fn any_text_is_read_or_refused(s in r"[\[\]:./0-9a-ftcpud-]{0,40}") {
        if let Ok(spec) = s.parse::<PublishSpec>() {
            prop_assert!(spec.validate().is_ok());
            prop_assert_eq!(spec.to_string().parse::<PublishSpec>(), Ok(spec));
        }
    }
}
