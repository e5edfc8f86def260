//! What a container must not reach.

use pontoon_fixtures::lab::{Container, World};

use crate::{PLAIN, start};

/// Something on the host's loopback only, and something on all its addresses.
fn servers(world: &World) -> [pontoon_fixtures::lab::Proc; 3] {
    let host = world.host();
    [
        host.socat(
            "TCP4-LISTEN:7000,bind=127.0.0.1,fork,reuseaddr",
            "EXEC:'echo host loopback'",
        ),
        host.socat(
            "TCP6-LISTEN:7001,bind=[::1],fork,reuseaddr",
            "EXEC:'echo host loopback six'",
        ),
        host.socat("TCP6-LISTEN:7002,fork,reuseaddr", "EXEC:'echo host wildcard'"),
    ]
}

fn ask(c: &Container<'_>, to: &str) -> String {
    let done = c
        .cmd(["socat", "-t3", "-T5", "-", &format!("{to},connect-timeout=3")])
        .limit(10)
        .run();
    done.text() + &done.errors()
}

each_user! {
    fn the_hosts_loopback_is_out_of_reach(world, who) {
        let _servers = servers(world);
        let c = start(world, who, "c", &PLAIN);
        let (gw, gw6) = (c.gateway(), c.gateway6());
        let everything = |c: &Container<'_>| {
            for to in [
                format!("TCP4:{gw}:7000"),
                format!("TCP6:[{gw6}]:7001"),
                format!("TCP4:{gw}:7002"),
                "TCP4:127.0.0.1:7000".to_owned(),
                "TCP4:127.8.9.10:7002".to_owned(),
                "TCP4:0.0.0.0:7000".to_owned(),
                "TCP6:[::]:7001".to_owned(),
                "TCP6:[::1]:7001".to_owned(),
                "TCP6:[::ffff:127.0.0.1]:7000".to_owned(),
                "TCP6:[::127.0.0.1]:7000".to_owned(),
                "TCP6:[64:ff9b::127.0.0.1]:7000".to_owned(),
            ] {
                let said = ask(c, &to);
                assert!(!said.contains("host"), "{to}: {said}");
            }
        };
        everything(&c);
        // With such packets really sent out of eth0.
        c.sh(&format!(
            "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1 || true
             ip link set lo down
             ip route add 127.0.0.0/8 via {gw} dev eth0 src {ip} || true
             ip -6 route add ::/128 via {gw6} dev eth0 || true
             ip -6 route add ::1/128 via {gw6} dev eth0 || true
             ip -6 route add ::ffff:0:0/96 via {gw6} dev eth0 || true",
            ip = c.ip
        ));
        everything(&c);
        // What the host offers on its own addresses is documented as reachable.
        assert!(ask(&c, "TCP4:192.0.2.1:7002").contains("host wildcard"));
    }
}

each_user! {
    fn the_hosts_loopback_can_be_opened(world, who) {
        let _servers = servers(world);
        let c = start(world, who, "c", &["--host-loopback"]);
        assert!(ask(&c, &format!("TCP4:{}:7000", c.gateway())).contains("host loopback"));
        assert!(ask(&c, &format!("TCP6:[{}]:7001", c.gateway6())).contains("host loopback six"));
        assert!(!ask(&c, "TCP4:127.0.0.1:7000").contains("host"), "only by the gateway's address");
    }
}

each_user! {
    fn instance_metadata_is_refused(world, who) {
        world.server().run(["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"]);
        world.router().run(["ip", "route", "add", "169.254.169.254/32", "via", "198.51.100.10"]);
        world.host().run(["ip", "route", "add", "169.254.169.254/32", "via", "192.0.2.254"]);
        let _nginx = world.server().nginx(80);
        let url = "http://169.254.169.254/";
        assert_eq!(world.host().run(["curl", "-sS", "-m5", url]), "hello from server\n");
        let c = start(world, who, "c", &PLAIN);
        assert_eq!(c.run(["curl", "-sS", "-m5", "http://198.51.100.10/"]), "hello from server\n");
        let done = c.cmd(["curl", "-sS", "-m4", url]).run();
        assert!(!done.success() && done.text().is_empty(), "{done}");
        let stats = c.pontoon(["stats", "--json"]).run().ok();
        assert!(stats.contains("forbidden"), "{stats}");
        let told = start(world, who, "told", &["--link-local"]);
        assert_eq!(told.run(["curl", "-sS", "-m5", url]), "hello from server\n");
    }
}

each_user! {
    /// The control sockets: not by path, however the container's root turns, and not by network.
    fn the_control_socket_is_out_of_reach(world, who) {
        let c = start(world, who, "c", &["-p", "9100:9000"]);
        let dir = who.runtime_dir();
        let sockets = world.host().sh(&format!("find {dir} -type s"));
        let socket = sockets.lines().next().unwrap_or_else(|| panic!("no control socket under {dir}")).to_owned();
        let mode = world.host().run(["stat", "-c", "%a %u", dir]);
        assert_eq!(mode.trim(), format!("700 {}", who.uid()));
        let ask = ["curl", "-sS", "-m5", "--unix-socket", &socket, "http://pontoon/v1/containers"];
        let listed = world.host().cmd(ask).who(who).run().json();
        assert_eq!(listed[0]["name"], "c");

        for attempt in [
            format!("test ! -e {socket}"),
            format!("! umount {dir} 2>/dev/null || test ! -e {socket}"),
            format!("! umount -l {dir} 2>/dev/null || test ! -e {socket}"),
            format!("! mount --move {dir} /mnt 2>/dev/null || test ! -e {socket}"),
            "! pontoon publish c 9300:9000 2>/dev/null".to_owned(),
            "! find / -xdev -type s -path '*pontoon*' 2>/dev/null | grep .".to_owned(),
            // By way of a process outside that the container can see.
            format!("! curl -sS -m3 --unix-socket /proc/1/root{socket} http://pontoon/v1/containers 2>/dev/null"),
            format!("! unshare -Urm sh -c 'umount -l {dir}; test -e {socket}' 2>/dev/null"),
        ] {
            let done = c.cmd(["bash", "-c", &attempt]).run();
            assert!(done.success(), "{attempt}: {done}");
        }
        // A working directory that was about to be covered.
        let cwd = format!("cd {dir} && pontoon run --name w -- sh -c 'ls -A . /proc/1/cwd/ && echo in $(pwd)'");
        let seen = world.host().cmd(["sh", "-c", &cwd]).who(who).run().ok();
        assert_eq!(seen, format!(".:\n\n/proc/1/cwd/:\nin {dir}\n"));
        // Nobody else of the host either.
        let other = if who == pontoon_fixtures::lab::Who::User { pontoon_fixtures::lab::Who::Account } else { pontoon_fixtures::lab::Who::User };
        assert!(!world.host().cmd(ask).who(other).run().success());
        // Nothing listens on the network but what was published.
        let listening = world.host().run(["ss", "-ltnupH"]);
        let strange: Vec<&str> =
            listening.lines().filter(|l| l.contains("pontoon") && !l.contains(":9100 ") && l.contains("LISTEN")).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

each_user! {
    /// A container cannot speak for its neighbour or for the gateway.
    fn spoofed_addresses_stop_at_the_port(world, who) {
        let a = start(world, who, "a", &PLAIN);
        let b = start(world, who, "b", &["--network", "a"]);
        b.run(["ping", "-n", "-c1", "-W9", &a.ip.to_string()]);
        b.sh(&format!("ip addr add {}/32 dev eth0", a.ip));
        let done = b.cmd(["ping", "-n", "-c2", "-i0.2", "-W1", "-I", &a.ip.to_string(), "198.51.100.10"]).run();
        assert!(!done.success(), "{done}");
        let stats = b.pontoon(["stats", "--json"]).run().ok();
        assert!(stats.contains("spoofed") || stats.contains("bad-source-address"), "{stats}");
        // Its own still works.
        b.sh(&format!("ip addr del {}/32 dev eth0", a.ip));
        b.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
    }
}
