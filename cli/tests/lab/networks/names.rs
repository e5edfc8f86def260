//! Names of containers at the gateways of the networks that the asker is on.

use std::time::Duration;

use pontoon_fixtures::lab::{Bare, Daemon, wait_for};

use super::{address, addresses, dig, gateways, knows, knows_not, name_server};
use crate::start;

each_user! {
    fn names_aliases_and_the_way_back(world, who) {
        let _dns = name_server(world);
        let daemon = Daemon::start(world, who);
        daemon.create("front", &["--ipv6"]);
        let web = start(world, who, "web", &["--network", "front:alias=www,alias=shop.example.org"]);
        let db = start(world, who, "db", &["--network", "front", "--network-alias", "www", "--network-alias", "data"]);
        let (web4, web6) = (web.ip.to_string(), web.ip6.expect("IPv6").to_string());
        let (db4, db6) = (db.ip.to_string(), db.ip6.expect("IPv6").to_string());
        for gateway in gateways(&daemon, "front") {
            for name in ["web", "WEB", "web.front", "shop.example.org"] {
                knows(&db, &gateway, &[name, "A"], &[&web4]);
                knows(&db, &gateway, &[name, "AAAA"], &[&web6]);
            }
            // Two have the alias: both are named, also to each other.
            for c in [&web, &db] {
                knows(c, &gateway, &["www", "A"], &[&web4, &db4]);
                knows(c, &gateway, &["www", "AAAA"], &[&web6, &db6]);
            }
            knows(&db, &gateway, &["data", "A"], &[&db4]);
            for address in [&web4, &web6] {
                knows(&db, &gateway, &["-x", address], &["web"]);
            }
            // There is the name, and nothing of that kind.
            knows(&db, &gateway, &["web", "MX"], &[]);
            knows(&db, &gateway, &["example.test", "A"], &["192.0.2.10"]);
            knows_not(&db, &gateway, &["nobody", "A"]);
        }
        // By the C library, as programs ask.
        assert!(db.run(["getent", "ahostsv4", "web"]).contains(&web4));
        assert!(db.run(["getent", "ahostsv6", "www"]).contains(&web6));
        db.run(["ping", "-n", "-c1", "-W9", "web.front"]);
    }
}

each_user! {
    /// A network without IPv6 says that a name has no such address, and not that there is no such name.
    fn a_name_without_such_an_address_is_no_unknown_name(world, who) {
        let _dns = name_server(world);
        let daemon = Daemon::start(world, who);
        daemon.create("back", &[]);
        let c = start(world, who, "web", &["--network", "back"]);
        let gateway = c.gateway().to_string();
        knows(&c, &gateway, &["web", "AAAA"], &[]);
        knows(&c, &gateway, &["web.back", "TXT"], &[]);
        knows_not(&c, &gateway, &["nobody", "AAAA"]);
    }
}

each_user! {
    /// Whom one is on no network with has no name; on several networks each gateway knows the names of all.
    fn names_are_of_the_networks_that_one_is_on(world, who) {
        let _dns = name_server(world);
        let daemon = Daemon::start(world, who);
        daemon.create("left", &[]);
        daemon.create("right", &[]);
        let hub = start(world, who, "hub", &["--network", "left", "--network", "right:alias=middle"]);
        let x = start(world, who, "x", &["--network", "left"]);
        let y = start(world, who, "y", &["--network", "right:alias=why"]);
        let (of_left, of_right) = (address(&daemon, "hub", "left"), address(&daemon, "hub", "right"));
        let (x4, y4) = (x.ip.to_string(), y.ip.to_string());
        let [left, right] = ["left", "right"].map(|n| gateways(&daemon, n)[0].clone());
        for gateway in [&left, &right] {
            knows(&hub, gateway, &["x", "A"], &[&x4]);
            knows(&hub, gateway, &["y", "A"], &[&y4]);
            knows(&hub, gateway, &["why", "A"], &[&y4]);
            knows(&hub, gateway, &["x.left", "A"], &[&x4]);
            knows(&hub, gateway, &["y.right", "A"], &[&y4]);
            knows(&hub, gateway, &["-x", &x4], &["x"]);
            knows(&hub, gateway, &["-x", &y4], &["y"]);
            knows_not(&hub, gateway, &["x.right", "A"]);
        }
        // Each sees of the one in the middle what is on its own network.
        knows(&x, &left, &["hub", "A"], &[&of_left]);
        knows(&y, &right, &["hub", "A"], &[&of_right]);
        knows(&y, &right, &["middle", "A"], &[&of_right]);
        knows_not(&x, &left, &["middle", "A"]);
        knows_not(&x, &left, &["hub.right", "A"]);
        knows_not(&x, &left, &["y", "A"]);
        knows_not(&x, &left, &["y.right", "A"]);
        knows_not(&x, &left, &["-x", &y4]);
        knows_not(&y, &right, &["x", "A"]);
        for name in ["x", "y", "why", "x.left"] {
            hub.run(["ping", "-n", "-c1", "-W9", name]);
        }
    }
}

each_user! {
    /// The first question after a change gets the new answer.
    fn changes_are_seen_at_once(world, who) {
        let _dns = name_server(world);
        let daemon = Daemon::start(world, who);
        daemon.create("left", &[]);
        daemon.create("right", &[]);
        let a = start(world, who, "a", &["--network", "left"]);
        let b = start(world, who, "b", &["--network", "left"]);
        let [left, right] = ["left", "right"].map(|n| gateways(&daemon, n)[0].clone());
        knows_not(&a, &left, &["late", "A"]);
        let bare = Bare::start(world, who);
        let pid = bare.pid.to_string();
        daemon.run(["attach", &pid, "--name", "late", "--network", "left:alias=new"]);
        let late4 = address(&daemon, "late", "left");
        knows(&a, &left, &["late", "A"], &[&late4]);
        knows(&a, &left, &["new", "A"], &[&late4]);
        // On one more network of the asker, with an alias of there.
        daemon.run(["network", "connect", "right", "late", "--alias", "other"]);
        knows_not(&a, &left, &["other", "A"]);
        daemon.run(["network", "connect", "right", "a"]);
        let of_right = address(&daemon, "late", "right");
        for gateway in [&left, &right] {
            knows(&a, gateway, &["other", "A"], &[&of_right]);
        }
        // Of one that is on both with the asker, each gateway says where it is on its own network.
        knows(&a, &left, &["late", "A"], &[&late4]);
        knows(&a, &right, &["late", "A"], &[&of_right]);
        knows(&b, &left, &["late", "A"], &[&late4]);
        daemon.run(["network", "disconnect", "left", "late"]);
        for gateway in [&left, &right] {
            knows(&a, gateway, &["late", "A"], &[&of_right]);
            knows_not(&a, gateway, &["new", "A"]);
        }
        knows_not(&b, &left, &["late", "A"]);
        daemon.run(["network", "disconnect", "right", "a"]);
        knows_not(&a, &left, &["late", "A"]);
        daemon.run(["detach", "late"]);
        // Back with the same name, and this time it ends.
        daemon.run(["attach", &pid, "--name", "late", "--network", "left:ip=10.89.0.200"]);
        knows(&a, &left, &["late", "A"], &["10.89.0.200"]);
        drop(bare);
        wait_for("a name to go with its process", Duration::from_secs(2), || {
            let answer = dig(|argv| a.cmd(argv).run(), &left, &["late", "A"]);
            (answer.status == "NXDOMAIN").then_some(())
        });
        assert_eq!(addresses(&daemon, "a", "left").len(), 1);
    }
}
