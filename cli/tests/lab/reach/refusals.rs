//! Networks that cannot be, and what is said of them: nothing of them is left.

use pontoon_fixtures::lab::{Daemon, Who};
use serde_json::json;

use crate::start;

/// What `network create` says with these options, besides the name `bad`; no network is there afterwards.
fn refused(d: &Daemon<'_>, options: &[&str]) -> String {
    let done = d.pontoon(["network", "create"]).args(options).args(["bad"]).run();
    let said = done.fails();
    let inspected = d.pontoon(["network", "inspect", "bad"]).run();
    assert!(!inspected.success(), "{options:?} has left a network");
    said
}

each_user! {
    fn bad_options_are_named(world, who) {
        let d = Daemon::start(world, who);
        for (options, text) in [
            (&["--opt", "colour=red"][..], "colour=red"),
            (&["--opt", "storm=often"], "storm=often"),
            (&["--opt", "storm=-1"], "storm=-1"),
            (&["--opt", "trunk=0"], "1 to 4094"),
            (&["--opt", "trunk=10,4095", "--opt", "parent=up0", "--gateway", "none"], "1 to 4094"),
            (&["--opt", "vlan=4095"], "1 to 4094"),
            (&["--opt", "parent=no/such"], "parent=no/such"),
            (&["--opt", "host-tap=far-too-long-for-one"], "host-tap=far-too-long-for-one"),
            (&["--opt", "router=10.0.0.1"], "--gateway none"),
            (&["--gateway", "none", "--subnet", "10.0.0.0/24", "--opt", "router=10.0.1.1"], "10.0.1.1"),
            (&["--internal", "--opt", "parent=up0"], "internal"),
            (&["--opt", "nothing"], "nothing"),
        ] {
            let said = refused(&d, options);
            assert!(said.contains(text), "{options:?}: {said}");
        }
        assert_eq!(d.json(["network", "ls", "--json"]), json!([]));
    }
}

each_user! {
    fn endpoints_that_cannot_be_are_named(world, who) {
        let d = Daemon::start(world, who);
        d.create("net", &["--subnet", "10.81.0.0/24"]);
        d.create("alone", &["--gateway", "none"]);
        let _c = start(world, who, "c", &["--network", "net:ip=10.81.0.9"]);
        for (options, text) in [
            (&["--network", "net:vlan=4095"][..], "1 to 4094"),
            (&["--network", "net:ip=10.81.0.9"], "10.81.0.9"),
            (&["--network", "net:ip=10.82.0.9"], "10.82.0.9"),
            (&["--network", "net:ip6=fd00::9"], "IPv6"),
            (&["--network", "alone:ip=10.81.0.9"], "10.81.0.9"),
            (&["--network", "alone", "-p", "8080:80"], "published"),
            (&["--network", "nosuch"], "nosuch"),
        ] {
            let done = d.pontoon(["run"]).args(options).args(["--", "true"]).run();
            assert!(done.fails().contains(text), "{options:?}: {done}");
        }
        let all = d.json(["ps", "--json"]);
        assert_eq!(all.as_array().map(Vec::len), Some(1), "nothing half done: {all}");
    }
}

each_user! {
    /// An interface that is not there, or is in somebody's way.
    fn interfaces_of_the_host_must_be_there_or_not(world, who) {
        let d = Daemon::start(world, who);
        let said = refused(&d, &["--gateway", "none", "--opt", "parent=nosuch0"]);
        assert!(said.contains("nosuch0") && said.contains("no interface"), "{said}");
        let said = refused(&d, &["--opt", "tap=nosuch0"]);
        assert!(said.contains("nosuch0"), "{said}");
        // A device of another kind is no TAP, and one that is there cannot be made.
        let said = refused(&d, &["--opt", "tap=up0"]);
        assert!(said.contains("up0"), "{said}");
        let said = refused(&d, &["--opt", "host-tap=up0"]);
        assert!(said.contains("up0"), "{said}");
        assert!(world.host().run(["ip", "addr", "show", "up0"]).contains("192.0.2.1/24"), "it is as it was");
    }
}

/// What only root may have: the error says so.
#[test]
fn the_hosts_interfaces_are_roots() {
    let world = &crate::world();
    let d = Daemon::start(world, Who::User);
    world
        .host()
        .run(["ip", "tuntap", "add", "roots0", "mode", "tap", "user", "0"]);
    for options in [
        &["--gateway", "none", "--opt", "parent=up0"][..],
        &["--opt", "host-tap=mine0"],
        &["--opt", "tap=roots0"],
    ] {
        let said = refused(&d, options);
        assert!(said.contains("only root can"), "{options:?}: {said}");
    }
    assert!(!world.host().cmd(["ip", "link", "show", "mine0"]).run().success());
}
