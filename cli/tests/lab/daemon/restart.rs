//! The daemon ends, by a signal or by `kill -9`, and begins anew: everything that lives is there again within a second.

use std::time::{Duration, Instant};

use pontoon_fixtures::lab::{Bare, Container, Daemon, Place, Who, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use super::{address, get, get_soon, web_server};
use crate::start;

/// The longest that a machine with other work may take; by itself it is well under a second.
const SOON: Duration = Duration::from_secs(3);

/// Starts the daemon anew; how long it was until the page was there.
fn until_served(daemon: &mut Daemon<'_>, place: Place<'_>, url: &str, page: &str) -> Duration {
    let begun = Instant::now();
    daemon.again();
    while get(place, url).text() != page {
        assert!(begun.elapsed() < SOON, "{url} is not there again after {SOON:?}");
    }
    begun.elapsed()
}

/// All that is to be the same after a restart: switch ports have new numbers.
fn lasting(daemon: &Daemon<'_>) -> Value {
    let mut containers = daemon.json(["ps", "--json"]);
    for container in containers.as_array_mut().expect("a list") {
        for endpoint in container["endpoints"].as_array_mut().expect("endpoints") {
            let port = endpoint.as_object_mut().and_then(|e| e.remove("port"));
            assert!(port.is_some_and(|p| p.as_u64() > Some(0)), "{endpoint}");
        }
    }
    let mut networks = daemon.json(["network", "ls", "--json"]);
    for network in networks.as_array_mut().expect("a list") {
        let network = network.as_object_mut().expect("a network");
        for key in ["front_pid", "packet_pid", "endpoints"] {
            network.remove(key).expect(key);
        }
    }
    let of = |what: &[&str]| daemon.json(what);
    serde_json::json!({
        "containers": containers,
        "networks": networks,
        "links": of(&["links", "--json"]),
        "rules": of(&["rule", "ls", "--json"]),
        "wires": of(&["wires", "--json"]),
    })
}

/// Interfaces, addresses, routes and rules, as the container's kernel has them.
fn interfaces(c: &Container<'_>) -> String {
    c.sh(
        "for i in $(ls /sys/class/net); do echo $i $(cat /sys/class/net/$i/address /sys/class/net/$i/mtu) \
         $(ip -o addr show dev $i scope global | awk '{print $4}'); done
         ip route show table all type unicast | grep -v '^fe80' | sort; ip rule | sort",
    )
}

/// What a name means to a container: its addresses, one a line.
fn dig(c: &Container<'_>, name: &str, kind: &str) -> String {
    c.run(["dig", "+short", "+tries=2", "+time=2", name, kind])
        .trim()
        .to_owned()
}

/// Names, aliases, links, rules, wires and isolation, from inside the containers.
fn everything_works(world: &World, daemon: &Daemon<'_>, web: &Container<'_>, db: &Container<'_>) {
    let [web_info, db_info] = [&web.name, &db.name].map(|n| daemon.container(n));
    let (web_front, db_front) = (address(&web_info, "shop"), address(&db_info, "shop"));
    for (c, name, kind, wanted) in [
        (web, "db", "A", db_front.clone()),
        (web, "database", "A", db_front.clone()),
        (db, "www", "A", web_front.clone()),
        (db, "web.shop", "A", web_front.clone()),
        (
            db,
            "web",
            "AAAA",
            super::endpoint(&web_info, "shop")["addresses"][1]
                .as_str()
                .expect("IPv6")
                .to_owned(),
        ),
        (web, "store", "A", address(&db_info, "guarded")),
    ] {
        let answer = dig(c, name, kind);
        assert!(
            answer.lines().any(|a| a == wanted),
            "{name} {kind}: {answer}, not {wanted}"
        );
    }
    let ptr = web.run(["dig", "+short", "-x", &db_front]);
    assert!(ptr.starts_with("db."), "{ptr}");
    // On the network; by a link where containers do not reach each other, and there by the linked port alone.
    db.run(["curl", "-sS", "-m3", &format!("http://{web_front}/")]);
    let guarded = address(&db_info, "guarded");
    web.run(["curl", "-sS", "-m3", &format!("http://{guarded}/")]);
    let back = db
        .cmd([
            "curl",
            "-sS",
            "-m1",
            &format!("http://{}/", address(&web_info, "guarded")),
        ])
        .run();
    assert!(!back.success(), "{back}");
    assert!(!web.cmd(["ping", "-n", "-c1", "-W1", &guarded]).run().success());
    // The wire.
    web.run(["ping", "-n", "-c1", "-W9", "10.77.0.2"]);
    // Published, but for one client.
    let ask = |from: &str| {
        let url = "http://192.0.2.1:8080/";
        world
            .server()
            .cmd(["curl", "-sS", "-m2", "--interface", from, url])
            .run()
    };
    assert_eq!(ask("198.51.100.10").ok(), "hello from web\n");
    assert!(!ask("198.51.100.11").success(), "a rule denies it");
    // And the way out.
    web.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
}

/// All kinds of things, once for each way of ending.
fn restarts(world: &World, who: Who) {
    let mut daemon = Daemon::start(world, who);
    daemon.create("shop", &["--subnet", "10.30.0.0/24", "--ipv6"]);
    daemon.create("guarded", &["--internal", "--icc=false"]);
    daemon.create("empty", &["-o", "max-flows=1000"]);
    let web_on = [
        "--network",
        "shop:alias=www",
        "--network",
        "guarded",
        "-p",
        "8080:80",
        "-p",
        "80/udp",
    ];
    let web = start(world, who, "web", &web_on);
    let db_on = ["--network", "shop:alias=database,ip=10.30.0.77", "--expose", "80"];
    let db = start(world, who, "db", &db_on);
    daemon.run([
        "network",
        "connect",
        "--veth",
        "--mac",
        "02:00:00:00:00:07",
        "guarded",
        "db",
    ]);
    daemon.run(["link", "web", "db:store"]);
    daemon.run(["rule", "add", "deny", "web:80", "--from", "198.51.100.11"]);
    daemon.run(["wire", "web", "db", "--addresses", "10.77.0.1,10.77.0.2"]);
    let bare = Bare::start(world, who);
    daemon.run([
        "attach",
        &bare.pid.to_string(),
        "--name",
        "bare",
        "--network",
        "shop",
        "--veth",
    ]);
    let _servers = [web_server(&web), web_server(&db)];
    everything_works(world, &daemon, &web, &db);
    let before = (lasting(&daemon), interfaces(&web), interfaces(&db));

    for signal in [Signal::KILL, Signal::TERM] {
        let gone = start(world, who, "gone", &["--network", "shop", "-p", "8099:80"]);
        let was_at = gone.ip;
        daemon.proc.signal(signal);
        assert!(daemon.proc.wait(Duration::from_secs(5)).is_some(), "{signal:?}");
        // Packet processes end with it, and interfaces and sockets with them.
        wait_for("the packet processes' end", Duration::from_secs(5), || {
            let packets = world
                .processes()
                .iter()
                .any(|(_, args)| args.contains("__packet"));
            (!packets).then_some(())
        });
        assert_eq!(world.host().run(["ss", "-ltnuH"]), "");
        let Container { run: mut gone, .. } = gone;
        gone.signal(Signal::KILL);
        gone.wait(Duration::from_secs(5));

        let took = until_served(
            &mut daemon,
            world.server(),
            "http://192.0.2.1:8080/",
            "hello from web\n",
        );
        println!(
            "{who:?}, {signal:?}: served again {} ms after its start",
            took.as_millis()
        );
        everything_works(world, &daemon, &web, &db);
        let after = (lasting(&daemon), interfaces(&web), interfaces(&db));
        assert_eq!(after, before);
        bare.run(["ping", "-n", "-c1", "-W9", "10.30.0.1"]);
        // Who ended meanwhile is gone, and its address free; those of others are not.
        assert!(daemon.container("gone").is_null());
        let ip = |ip: &str| ["--network".to_owned(), format!("shop:ip={ip}")];
        let again = Container::start(
            world,
            who,
            "gone",
            ip(&was_at.to_string()).iter().map(String::as_str),
        );
        assert_eq!(again.ip, was_at);
        let taken = daemon
            .pontoon(["run", "--network", "shop:ip=10.30.0.77", "--", "true"])
            .run();
        assert!(taken.fails().contains("10.30.0.77"), "{taken}");
        drop(again);
        wait_for("its end", Duration::from_secs(5), || {
            daemon.container("gone").is_null().then_some(())
        });
    }
    // Right after kill -9, with its packet processes about to end still.
    daemon.kill();
    let took = until_served(
        &mut daemon,
        world.server(),
        "http://192.0.2.1:8080/",
        "hello from web\n",
    );
    println!(
        "{who:?}, at once: served again {} ms after its start",
        took.as_millis()
    );
    everything_works(world, &daemon, &web, &db);
    assert_eq!((lasting(&daemon), interfaces(&web), interfaces(&db)), before);
    let said = daemon.end();
    assert!(said.success() && !said.errors().contains("ERROR"), "{said}");
}

each_user! {
    fn what_lives_is_there_again(world, who) {
        restarts(world, who);
    }
}

/// Namespaces that are named by a path are found by it again, if it leads to the same one still.
#[test]
fn namespaces_by_path_are_there_again() {
    let world = crate::world();
    let host = world.host();
    let mut daemon = Daemon::start(&world, Who::Root);
    daemon.create("net", &["--subnet", "10.30.0.0/24"]);
    for (name, veth) in [
        ("red", &[][..]),
        ("blue", &["--veth"]),
        ("other", &[]),
        ("short", &[]),
    ] {
        host.run(["ip", "netns", "add", name]);
        let path = format!("/run/netns/{name}");
        let args = ["attach", &path, "--name", name, "--network", "net"];
        daemon.pontoon(args).args(veth).run().ok();
    }
    let pings = |from: &'static str, name: &str| {
        let to = address(&daemon_container(&world, name), "net");
        world.place(from).cmd(["ping", "-n", "-c1", "-W9", &to]).run()
    };
    pings("red", "blue").ok();
    let kept = ["red", "blue"].map(|n| daemon.container(n));
    daemon.kill();
    host.run(["ip", "netns", "del", "short"]);
    // Another namespace of the same name is another container, whoever that is.
    host.sh("ip netns del other; ip netns add other");
    daemon.again();
    for before in kept {
        let after = daemon.container(before["name"].as_str().expect("a name"));
        assert_eq!(after["endpoints"][0]["mac"], before["endpoints"][0]["mac"]);
        assert_eq!(
            after["endpoints"][0]["addresses"],
            before["endpoints"][0]["addresses"]
        );
        assert_eq!(after["namespace"], before["namespace"]);
    }
    assert!(daemon.container("short").is_null() && daemon.container("other").is_null());
    pings("red", "blue").ok();
    pings("blue", "red").ok();
    let interfaces = world.place("other").run(["ip", "-o", "link"]);
    assert!(!interfaces.contains("eth0"), "{interfaces}");
    // They are watched as before.
    host.run(["ip", "netns", "del", "red"]);
    wait_for("the end of red", Duration::from_secs(5), || {
        daemon.container("red").is_null().then_some(())
    });
}

fn daemon_container(world: &World, name: &str) -> Value {
    let all = world.host().cmd(["pontoon", "ps", "--json"]).run().json();
    let found = all
        .as_array()
        .and_then(|all| all.iter().find(|c| c["name"] == name));
    found.cloned().unwrap_or_else(|| panic!("no {name}: {all}"))
}

each_user! {
    /// A port that somebody took meanwhile is said to be lost, and everything else is there.
    fn a_port_that_was_taken_meanwhile_is_given_up(world, who) {
        let mut daemon = Daemon::start(world, who);
        daemon.create("net", &[]);
        let web = start(world, who, "web", &["--network", "net", "-p", "8080:80", "-p", "8081:80"]);
        let _server = web_server(&web);
        daemon.kill();
        let thief = world.host().nginx(8080);
        daemon.again();
        get_soon(world.server(), "http://192.0.2.1:8081/", "hello from web\n");
        let ports = daemon.container("web")["published"].clone();
        assert!(!ports.to_string().contains("8080") && ports.to_string().contains("8081"), "{ports}");
        assert!(daemon.proc.stderr().contains("8080"), "{}", daemon.proc.stderr());
        drop(thief);
    }
}
