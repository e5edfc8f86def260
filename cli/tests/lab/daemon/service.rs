//! What a service manager sees, and what the configuration file says.

use std::time::Duration;

use pontoon_fixtures::lab::{Daemon, wait_for};
use rustix::process::Signal;

use super::socket;

each_user! {
    /// Told when it can be asked, by a socket with a path and by an abstract one; told of the end as well.
    fn the_manager_is_told_when_it_is_ready(world, who) {
        let host = world.host();
        for (listen, name) in [("UNIX-RECV:/tmp/notify", "/tmp/notify"), ("ABSTRACT-RECV:notify-me", "@notify-me")] {
            let manager = host.cmd(["socat", "-u", listen, "-"]).who(who).spawn();
            wait_for("the manager's socket", Duration::from_secs(5), || {
                let all = host.run(["cat", "/proc/net/unix"]);
                all.contains(name).then_some(())
            });
            let state = format!("/tmp/notified-{}.json", name.len());
            let daemon = host.cmd(["pontoon", "daemon", "--state", &state]).env("NOTIFY_SOCKET", name).who(who).spawn();
            wait_for("READY=1", Duration::from_secs(5), || manager.stdout().contains("READY=1").then_some(()));
            // From then on it answers at once.
            host.cmd(["pontoon", "network", "create", "net"]).who(who).run().ok();
            daemon.signal(Signal::TERM);
            assert!(daemon.end(Duration::from_secs(5)).success());
            assert!(manager.stdout().contains("STOPPING=1"), "{}", manager.stdout());
            assert!(!world.path(&socket(who)).exists());
        }
        // A manager that is gone keeps nobody from working.
        let daemon = host.cmd(["pontoon", "daemon", "--state", "/tmp/alone.json"]).env("NOTIFY_SOCKET", "/tmp/nobody").who(who).spawn();
        wait_for("the daemon", Duration::from_secs(5), || host.cmd(["pontoon", "rule", "ls"]).who(who).run().success().then_some(()));
        // A hangup is no end, an interrupt is.
        daemon.signal(Signal::HUP);
        host.cmd(["pontoon", "rule", "ls"]).who(who).run().ok();
        daemon.signal(Signal::INT);
        let done = daemon.end(Duration::from_secs(5));
        assert!(done.success() && done.errors().contains("the service manager cannot be told"), "{done}");
        crate::lifecycle::nothing_left(world, who);
    }
}

each_user! {
    /// Its networks are made once: what was changed since stays changed, what was removed comes back.
    fn the_configuration_has_its_networks_made(world, who) {
        world.write("/tmp/pontoon.toml", "
            subnet-pools = [{ base = '10.200.0.0/16', size = 26 }]
            [[network]]
            name = 'web'
            subnets = ['172.20.0.0/16', 'fd20::/64']
            gateway = { at = ['172.20.0.9'] }
            ip_ranges = ['172.20.5.0/24']
            options = { max-flows = '500' }
            [[network]]
            name = 'back'
            internal = true
            icc = false
        ");
        let mut daemon = Daemon::start_with(world, who, &["--config", "/tmp/pontoon.toml"]);
        daemon.create("third", &[]);
        let names = |daemon: &Daemon<'_>| {
            let all = daemon.json(["network", "ls", "--json"]);
            all.as_array().expect("a list").iter().map(|n| format!("{} {}", n["name"], n["subnets"][0]["subnet"]).replace('"', "")).collect::<Vec<_>>()
        };
        let before = names(&daemon);
        assert_eq!(before, ["back 10.200.0.0/26", "third 10.200.0.64/26", "web 172.20.0.0/16"]);
        let web = daemon.json(["network", "inspect", "web", "back"]);
        assert_eq!((&web[0]["IPAM"]["Config"][0]["Gateway"], &web[0]["IPAM"]["Config"][0]["IPRange"]), (&"172.20.0.9".into(), &"172.20.5.0/24".into()), "{web}");
        assert_eq!((&web[0]["Internal"], &web[1]["Internal"]), (&false.into(), &true.into()), "{web}");
        let own = daemon.run(["run", "--network", "web", "--", "ip", "-o", "-4", "addr", "show", "dev", "eth0"]);
        assert!(own.contains("172.20.5."), "{own}");
        daemon.run(["network", "rm", "web"]);
        daemon.kill();
        daemon.again();
        assert_eq!(names(&daemon), before);
        let id = |daemon: &Daemon<'_>| daemon.json(["network", "inspect", "back"])[0]["Created"].clone();
        let created = id(&daemon);
        daemon.kill();
        daemon.again();
        assert_eq!(id(&daemon), created);
        daemon.end().ok();

        // Socket and state may be in it; the command line has the last word.
        let dir = format!("/tmp/own-{}", who.uid());
        world.host().cmd(["mkdir", "-m", "700", &dir]).who(who).run().ok();
        let listen = format!("{dir}/d.sock");
        world.write("/tmp/own.toml", format!("socket = '{listen}'\nstate = '{dir}/state.json'\n"));
        let daemon = world.host().cmd(["pontoon", "daemon", "--config", "/tmp/own.toml"]).who(who).spawn();
        let create = || world.host().cmd(["pontoon", "network", "create", "net"]).env("PONTOON_SOCKET", &listen).who(who).run();
        wait_for("its socket", Duration::from_secs(5), || create().success().then_some(()));
        assert!(world.path(&format!("{dir}/state.json")).exists());
        drop(daemon);

        for (text, says) in [
            ("colour = 1", "colour"),
            ("[[network]]\nname = 'none'", "reserved"),
            ("[[network]]\nname = 'x'\nsubnets = ['10.0.0.0/33']", "10.0.0.0/33"),
            ("[[network]]\nname = 'x'\nsubnets = ['10.0.0.0/24']\ngateway = { at = ['10.0.1.1'] }", "10.0.1.1"),
            ("subnet-pools = [{ base = '10.0.0.0/24', size = 20 }]", "/20"),
        ] {
            world.write("/tmp/bad.toml", text);
            let done = world.host().cmd(["pontoon", "daemon", "--config", "/tmp/bad.toml", "--state", "/tmp/bad.json"]).who(who).limit(10).run();
            assert!(done.fails().contains(says), "{text}: {done}");
            assert!(!world.path(&socket(who)).exists());
        }
        let done = world.host().cmd(["pontoon", "daemon", "--config", "/tmp/no-such.toml"]).who(who).limit(10).run();
        assert!(done.fails().contains("/tmp/no-such.toml"), "{done}");
    }
}
