//! `kill -9` of the daemon and of the packet process, and a link that is taken away: everything is there again.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, Proc, Wan, Who, wait_for};

use super::addresses::hold;
use super::site::{Site, Way, attach};
use super::{came, masked};

/// As whom the server sees container `a`, and who it sees itself by its published port; empty words if it is not.
fn works(site: &Site<'_>) -> Option<()> {
    let out = site
        .a
        .cmd(["timeout", "2", "lab-peer", "tcp", "198.51.100.10:9000", "who"])
        .run();
    let out6 = site
        .b
        .cmd(["timeout", "2", "lab-peer", "tcp", "[2001:db8:2::10]:9000", "who"])
        .run();
    let back = site
        .world
        .server()
        .cmd(["timeout", "2", "lab-peer", "tcp", "100.64.7.77:8080", "who"])
        .run();
    let said = [out, out6, back].map(|d| masked(&came(&d)));
    (said == ["100.64.7.77 PORT", "[2001:db8:7::77] PORT", "198.51.100.10 PORT"]).then_some(())
}

#[test]
fn everything_is_there_again() {
    let world = &crate::world();
    let [_tcp, _udp] = crate::server_peers(world);
    let mut site = Site::new(world, Way::Pontoon);
    let serve = |site: &Site<'_>| {
        let mut inside = site.a.cmd(["lab-peer", "tcp-serve", "9000"]).spawn();
        inside.wait_for("listening");
        inside
    };
    let _inside = serve(&site);
    site.publish("a", "8080:9000");
    site.publish("a", "8081:9001");
    works(&site).expect("it works at first");
    let shown = site.daemon().expect("Pontoon's").run(["port", "a"]);
    assert!(
        shown.contains("100.64.7.77:8080") && shown.contains("[2001:db8:7::77]:8080"),
        "{shown}"
    );
    let daemon = site.daemon_mut().expect("Pontoon's");
    // The daemon, and with it all.
    daemon.kill();
    daemon.again();
    wait_for("all after a restart", Duration::from_secs(15), || works(&site));
    // The packet process alone.
    let daemon = site.daemon().expect("Pontoon's");
    let info = daemon.json(["network", "inspect", "net"]);
    world
        .host()
        .run(["kill", "-9", &info[0]["PacketPid"].to_string()]);
    wait_for(
        "all after the end of the packet process",
        Duration::from_secs(15),
        || works(&site),
    );
    // The link, by its other end. Connections by it wait until it is there again.
    let _echo = world
        .server()
        .socat("TCP4-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
    let _echo_inside = site
        .a
        .cmd(["socat", "TCP6-LISTEN:9001,fork,reuseaddr", "EXEC:cat"])
        .spawn();
    wait_for("the server in a", Duration::from_secs(5), || {
        site.a.run(["ss", "-ltnH"]).contains(":9001").then_some(())
    });
    let mut out = hold(&site.a);
    let mut back = world
        .server()
        .cmd(["socat", "-t1", "-", "TCP6:[2001:db8:7::77]:8081"])
        .held()
        .spawn();
    let hear = |held: &mut Proc, word: &str| {
        held.say(word);
        held.wait_for(word);
    };
    hear(&mut back, "at first");
    world.host().run(["ip", "-n", "router", "link", "del", "wan0"]);
    wait_for("all after the end of the link", Duration::from_secs(15), || {
        works(&site)
    });
    hear(&mut out, "after all");
    hear(&mut back, "after all");
    let uplink = daemon.json(["network", "inspect", "net"])[0]["Uplink"].clone();
    assert_eq!(
        (&uplink["Up"], uplink.get("Error")),
        (&serde_json::json!(true), None),
        "{uplink}"
    );
    // And with the network it is gone for good.
    daemon.run(["detach", "a"]);
    daemon.run(["detach", "b"]);
    daemon.run(["network", "rm", "net"]);
    wait_for("the end of the link", Duration::from_secs(5), || {
        (!world.router().cmd(["ip", "link", "show", "wan0"]).run().success()).then_some(())
    });
}

/// An interface of the host that is the link is taken down and comes up again: nothing ends by that.
#[test]
fn an_interface_of_the_host_goes_down_and_up() {
    let world = &crate::world();
    let [_tcp, _udp] = crate::server_peers(world);
    let _echo = world
        .server()
        .socat("TCP4-LISTEN:9200,fork,reuseaddr", "EXEC:cat");
    let wan = Wan::new(world);
    let host = world.host();
    host.sh("ip link add p0 type veth peer name wan0 netns router; ip link set p0 up");
    wan.plugged();
    let daemon = Daemon::start(world, Who::Root);
    let options = [
        "--subnet",
        "10.44.0.0/24",
        "--subnet",
        "fd44::/64",
        "--uplink",
        "packet:p0",
        "--uplink-address",
        Wan::ADDRESS,
        "--uplink-gateway",
        Wan::GATEWAY,
    ];
    daemon.create("net", &options);
    let a = Bare::start(world, Who::Root);
    attach(&daemon, "net", "a", &a, 2);
    let ask = || {
        masked(&came(
            &a.cmd(["timeout", "2", "lab-peer", "tcp", "198.51.100.10:9000", "who"])
                .run(),
        ))
    };
    assert_eq!(ask(), "100.64.7.77 PORT");
    let mut held = hold(&a);
    for word in ["once", "twice"] {
        host.run(["ip", "link", "set", "p0", "down"]);
        held.say(word);
        let told = a.cmd(["ping", "-n", "-c1", "-W1", "198.51.100.10"]).run();
        assert!(!told.success(), "{told}");
        assert!(
            !host.run(["ip", "link", "show", "p0"]).contains(",UP"),
            "whoever took it down meant it"
        );
        host.run(["ip", "link", "set", "p0", "up"]);
        wait_for("it to be there again", Duration::from_secs(10), || {
            (ask() == "100.64.7.77 PORT").then_some(())
        });
        held.wait_for(word);
    }
}
