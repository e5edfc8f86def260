//! With 200 open files: what is refused, how, and that all else goes on.

use std::time::Duration;

use pontoon_fixtures::lab::{Proc, Who, wait_for};
use serde_json::{Value, json};

use crate::site::{Site, Way};

/// Open files of each of Pontoon's processes.
const FILES: u32 = 200;
/// Sockets that the container opens, or tries to.
const WANTED: &str = "400";
const TCP: &str = "198.51.100.10:9000";
const UDP: &str = "198.51.100.10:9001";

/// What stays for the whole test: servers in the world, and the container's own behind its published port.
struct Servers(#[allow(dead_code, reason = "they run until it is dropped")] Vec<Proc>);

impl Servers {
    fn start(site: &Site<'_>) -> Self {
        let server = site.world.server();
        let all = vec![
            server.cmd(["lab-load", "serve", "9000"]).spawn(),
            server.cmd(["lab-peer", "udp-serve", UDP]).spawn(),
            server.dnsmasq(&[
                "--listen-address=198.51.100.10",
                "--address=/example.test/192.0.2.10",
            ]),
            site.inside(["socat", "TCP-LISTEN:7,fork,reuseaddr", "EXEC:'echo inside'"])
                .spawn(),
        ];
        server.wait_tcp(9000);
        server.wait_udp(9001);
        Self(all)
    }
}

/// A client of the published port, from outside: what it got, and how long it took.
fn client(site: &Site<'_>) -> (String, Duration) {
    let to = "TCP4:192.0.2.1:7007,connect-timeout=3";
    let done = site.world.server().cmd(["socat", "-T8", "-", to]).run();
    (done.text(), done.took)
}

/// The status of an answer to a question, by UDP and by TCP; none if there is no answer within five seconds.
fn answers(site: &Site<'_>) -> Vec<String> {
    let server = format!("@{}", site.name_servers()[0]);
    ["+notcp", "+tcp"]
        .into_iter()
        .map(|how| {
            let dig = site
                .inside(["dig", how, "+time=5", "+tries=1", &server, "example.test"])
                .run()
                .text();
            let status = dig.split("status: ").nth(1).and_then(|s| s.split(',').next());
            status
                .unwrap_or_else(|| panic!("no answer {how}: {dig}"))
                .to_owned()
        })
        .collect()
}

/// The front's, or the API's, own socket answers at once.
fn assert_answers(site: &Site<'_>) {
    let done = match site.way {
        Way::Run => site.host(["pontoon", "stats", "--json"]).run(),
        Way::Slirp => site
            .host([
                "socat",
                "-t3",
                "-T3",
                "-",
                &format!("UNIX-CONNECT:{}", site.socket()),
            ])
            .stdin(r#"{"execute":"list_hostfwd"}"#)
            .run(),
    };
    assert!(
        done.ok().len() > 2 && done.took < Duration::from_secs(2),
        "{done}"
    );
}

/// Publishes the container's port 7, where that was not done at the start.
fn publish(site: &Site<'_>) {
    if site.way == Way::Slirp {
        let request = json!({"execute": "add_hostfwd", "arguments": {
            "proto": "tcp", "host_addr": "0.0.0.0", "host_port": 7007, "guest_addr": "10.0.2.100", "guest_port": 7
        }});
        let to = format!("UNIX-CONNECT:{}", site.socket());
        let said = site
            .host(["socat", "-t3", "-T3", "-", &to])
            .stdin(request.to_string())
            .run()
            .json();
        assert!(said["return"]["id"].is_number(), "{said}");
    }
}

fn first_line(proc: &Proc) -> Value {
    let text = wait_for("the sockets", Duration::from_secs(30), || {
        let text = proc.stdout();
        text.lines().next().map(str::to_owned)
    });
    serde_json::from_str(&text).expect("JSON")
}

fn run_out(world: &pontoon_fixtures::lab::World, who: Who, way: Way) {
    let options: &[&str] = match way {
        Way::Run => &["-p", "7007:7"],
        Way::Slirp => &[],
    };
    let mut site = Site::start(world, who, way, options, Some(FILES));
    let _servers = Servers::start(&site);
    publish(&site);
    wait_for("the published port", Duration::from_secs(5), || {
        (client(&site).0 == "inside\n").then_some(())
    });
    assert_eq!(answers(&site), ["NOERROR", "NOERROR"]);

    for (kind, to) in [("tcp", TCP), ("udp", UDP)] {
        let holder = site
            .inside(["lab-hostile", "sockets", kind, to, WANTED, "8"])
            .spawn();
        let held = first_line(&holder);
        println!("{way:?} {who:?} {kind}: {held}");
        let open = held["open"].as_u64().expect("a number");
        assert!((100..u64::from(FILES)).contains(&open), "{held}");
        // RFC 5508 REQ-8: code 13, which Linux shows as this, and at once.
        assert_eq!(held["errors"], json!({"EHOSTUNREACH": 400 - open}), "{held}");
        assert!(held["slowest_error_ms"].as_u64() < Some(1000), "{held}");
        // A client of the published port is refused at once, and names are still found: some descriptors are nobody's.
        let (text, took) = client(&site);
        assert!(
            text.is_empty() && took < Duration::from_secs(2),
            "{text} after {took:?}"
        );
        assert_eq!(answers(&site), ["NOERROR", "NOERROR"]);
        assert_answers(&site);
        assert_eq!(site.refusals().len(), 1, "{:?}", site.refusals());
        if way == Way::Run {
            assert!(site.drops()["quota-full"] >= 400 - open, "{:?}", site.drops());
            // Another container of the network finds some.
            let victim = site.victim.as_ref().expect("a victim");
            victim.run(["lab-load", "tcp-rr", TCP, "0.2"]);
        }
        let done = holder.end(Duration::from_secs(30)).ok();
        let last: Value = serde_json::from_str(done.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["alive"], last["opened"], "{last}");
        // What was answered by UDP is kept for five minutes (RFC 4787 REQ-5), unless somebody ends it.
        if kind == "tcp" {
            wait_for("room", Duration::from_secs(10), || {
                (client(&site).0 == "inside\n").then_some(())
            });
            let again = site
                .inside(["lab-hostile", "sockets", kind, to, "20", "0"])
                .run()
                .ok();
            assert!(again.contains(r#""open":20"#), "{again}");
        }
    }
    if way == Way::Run {
        site.host(["pontoon", "conntrack", "flush"]).run().ok();
        let again = site
            .inside(["lab-hostile", "sockets", "udp", UDP, "20", "0"])
            .run()
            .ok();
        assert!(again.contains(r#""open":20"#), "{again}");
    }
    site.assert_lives();
}

each_user! {
    fn of_run_are_used_up(world, who) {
        run_out(world, who, Way::Run);
    }
}

each_user! {
    fn of_slirp4netns_are_used_up(world, who) {
        run_out(world, who, Way::Slirp);
    }
}
