//! What a container finds inside.

use pontoon_fixtures::lab::{Who, require};

use crate::{PLAIN, start, world};

each_user! {
    fn interfaces_files_and_names(world, who) {
        let c = start(world, who, "box", &PLAIN);
        let addresses = c.cmd(["ip", "-j", "addr"]).run().json();
        let eth0 = addresses.as_array().expect("a list").iter().find(|i| i["ifname"] == "eth0").expect("eth0").clone();
        assert_eq!((eth0["mtu"].as_u64(), eth0["operstate"].as_str().is_some()), (Some(1500), true), "{eth0}");
        for (ip, scope) in [(Some(c.ip), "inet"), (c.ip6, "inet6")] {
            let ip = ip.expect("both families").to_string();
            let found = eth0["addr_info"].as_array().expect("addresses").iter().any(|a| a["local"] == *ip && a["family"] == scope);
            assert!(found, "{ip} is not in {eth0}");
        }
        assert_eq!(c.run(["ls", "/sys/class/net"]).split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
        assert_eq!(c.run(["cat", "/sys/class/net/eth0/mtu"]).trim(), "1500");
        assert_eq!(c.run(["cat", "/sys/class/net/eth0/address"]).trim(), eth0["address"].as_str().expect("a MAC"));
        c.run(["ping", "-n", "-c1", "-W9", "127.0.0.1"]);
        c.run(["ping", "-n", "-c1", "-W9", "::1"]);
        assert_eq!(c.run(["hostname"]).trim(), "box");
        assert_eq!(c.run(["cat", "/etc/hostname"]).trim(), "box");
        let hosts = c.run(["cat", "/etc/hosts"]);
        assert!(hosts.contains(&c.ip.to_string()) && hosts.contains("box") && hosts.contains("127.0.0.1"), "{hosts}");
        let resolv = c.run(["cat", "/etc/resolv.conf"]);
        assert!(resolv.contains(&format!("nameserver {}", c.gateway())), "{resolv}");
        // The host's own files are untouched.
        assert_eq!(world.read("/etc/resolv.conf"), b"nameserver 198.51.100.10\n");
        assert_eq!(world.host().run(["hostname"]).trim(), "labhost");
    }
}

each_user! {
    /// A strict umask keeps the files of `/etc` from no user inside, as apt's or nginx's.
    fn every_user_inside_may_read_the_files_whatever_the_umask(world, who) {
        require("stat");
        let modes = "umask 077; exec pontoon run -- stat -c %a /etc/resolv.conf /etc/hosts /etc/hostname";
        let done = world.host().cmd(["sh", "-c", modes]).who(who).run();
        assert_eq!(done.ok(), "644\n644\n644\n");
    }
}

each_user! {
    fn options_shape_it(world, who) {
        let c = start(world, who, "c", &[
            "--subnet", "10.77.0.0/16", "--gateway", "10.77.0.254", "--ip", "10.77.3.4",
            "--subnet6", "fd77::/64", "--ip6", "fd77::abcd", "--mac-address", "02:00:5e:10:00:01",
            "--mtu", "9000", "--hostname", "other", "--dns-search", "lab.test", "--add-host", "db:10.1.1.1",
        ]);
        assert_eq!((c.ip.to_string(), c.ip6.map(|i| i.to_string())), ("10.77.3.4".into(), Some("fd77::abcd".into())));
        assert_eq!(c.gateway().to_string(), "10.77.0.254");
        let link = c.cmd(["ip", "-j", "link", "show", "eth0"]).run().json();
        assert_eq!((link[0]["mtu"].as_u64(), link[0]["address"].as_str()), (Some(9000), Some("02:00:5e:10:00:01")));
        assert_eq!(c.run(["hostname"]).trim(), "other");
        assert!(c.run(["cat", "/etc/hosts"]).contains("10.1.1.1"));
        c.run(["ping", "-n", "-c1", "-W9", "-s", "8900", "10.77.0.254"]);

        let four = start(world, who, "four", &["--no-ipv6"]);
        assert_eq!(four.ip6, None);
        assert!(!four.run(["ip", "-6", "route"]).contains("default"));
        let small = start(world, who, "small", &["--mtu", "576"]);
        assert_eq!(small.ip6, None);
        small.run(["ping", "-n", "-c1", "-W9", "-s", "2000", "198.51.100.10"]);
    }
}

each_user! {
    /// The same addresses for those who ask: DHCP, and router advertisements.
    fn dhcp_and_router_advertisements_answer(world, who) {
        require("udhcpc");
        require("rdisc6");
        let c = start(world, who, "c", &PLAIN);
        world.write("/tmp/lease", "#!/bin/sh\n[ \"$1\" = bound ] && env > /tmp/lease.out\nexit 0\n");
        world.host().run(["chmod", "755", "/tmp/lease"]);
        world.host().sh("touch /tmp/lease.out; chmod 666 /tmp/lease.out");
        c.cmd(["udhcpc", "-i", "eth0", "-q", "-n", "-f", "-t3", "-T2", "-s", "/tmp/lease"]).run().ok();
        let lease = String::from_utf8(world.read("/tmp/lease.out")).expect("text");
        let gateway = c.gateway();
        for line in [format!("ip={}", c.ip), format!("router={gateway}"), format!("dns={gateway}"), "mask=24".to_owned()] {
            assert!(lease.lines().any(|l| l == line), "no `{line}` in:\n{lease}");
        }
        let advert = c.run(["rdisc6", "-1", "-w", "3000", "eth0"]);
        assert!(advert.contains("Prefix") && advert.contains("Recursive DNS server"), "{advert}");
    }
}

each_user! {
    fn the_capture_is_readable(world, who) {
        require("tcpdump");
        let _nginx = world.server().nginx(80);
        let c = start(world, who, "c", &["--capture", "/tmp/c.pcapng"]);
        c.run(["curl", "-sS", "-m5", "http://198.51.100.10/"]);
        c.run(["ping", "-n", "-c1", "-W9", "2001:db8:2::10"]);
        let mut run = c.run;
        run.signal(rustix::process::Signal::TERM);
        run.wait(std::time::Duration::from_secs(5));
        let shown = world.host().run(["tcpdump", "-n", "-r", "/tmp/c.pcapng"]);
        assert!(shown.contains("198.51.100.10.80: Flags [S]"), "{shown}");
        assert!(shown.contains("ICMP6, echo reply"), "{shown}");
        let owner = world.host().run(["stat", "-c", "%u", "/tmp/c.pcapng"]);
        assert_eq!(owner.trim(), who.uid().to_string());
    }
}

each_user! {
    fn a_capture_into_a_pipe_needs_a_reader(world, who) {
        require("tcpdump");
        world.host().sh("mkfifo -m 666 /tmp/pipe");
        let run = ["pontoon", "run", "--capture", "/tmp/pipe", "--", "ping", "-n", "-c1", "-W9", "2001:db8:2::10"];
        let refused = world.host().cmd(run).who(who).limit(5).run();
        assert_eq!(refused.code(), Some(125), "{refused}");
        assert!(refused.errors().contains("cannot write the capture file /tmp/pipe"), "{refused}");
        let reader = world.host().cmd(["tcpdump", "-n", "-r", "/tmp/pipe"]).spawn();
        // Whoever reads has opened it a moment later.
        pontoon_fixtures::lab::wait_for("a reader", std::time::Duration::from_secs(5), || {
            world.host().cmd(run).who(who).run().success().then_some(())
        });
        let shown = reader.end(std::time::Duration::from_secs(5)).text();
        assert!(shown.contains("ICMP6, echo reply") || shown.contains("echo request"), "{shown}");
    }
}

/// nginx as its own root, with workers of another user, where there are ids to give.
#[test]
fn nginx_runs_inside_with_subordinate_ids() {
    let world = world();
    for (n, who) in [Who::Root, Who::Account].into_iter().enumerate() {
        let port = 8090 + n;
        let c = start(&world, who, &format!("web{n}"), &["-p", &format!("{port}:80")]);
        let dir = format!("/tmp/inside{n}");
        world.write(&format!("{dir}/www/index.html"), "from inside\n");
        world.write(
            &format!("{dir}/nginx.conf"),
            format!(
                "daemon off; user www-data; pid {dir}/pid; error_log stderr;\n\
                 events {{}} http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;\n\
                 fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
                 server {{ listen 80; root {dir}/www; }} }}\n"
            ),
        );
        world.host().run(["chown", "-R", &who.uid().to_string(), &dir]);
        let nginx = c
            .cmd([
                "nginx",
                "-p",
                &dir,
                "-c",
                &format!("{dir}/nginx.conf"),
                "-e",
                "stderr",
            ])
            .spawn();
        pontoon_fixtures::lab::wait_for("nginx inside", std::time::Duration::from_secs(5), || {
            let got = world
                .server()
                .cmd(["curl", "-sS", "-m3", &format!("http://192.0.2.1:{port}/")])
                .run();
            (got.text() == "from inside\n").then_some(())
        });
        assert!(!nginx.stderr().contains("failed"), "{}", nginx.stderr());
        let ids = c.run(["cat", "/proc/self/uid_map"]);
        let most: u64 = ids
            .split_whitespace()
            .skip(2)
            .step_by(3)
            .filter_map(|n| n.parse::<u64>().ok())
            .max()
            .unwrap_or(0);
        assert!(most > 60_000, "{ids}");
    }
}
