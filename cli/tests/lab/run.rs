//! The main job: a command in a network of its own, reachable and reaching; and several on one switch.

use std::time::Duration;

use pontoon_fixtures::lab::{require, wait_for};

use crate::{PLAIN, iperf3, start};

each_user! {
    /// The README's first command.
    fn the_readme_command_serves_a_page(world, who) {
        require("python3");
        let host = world.host();
        world.write("/tmp/page/index.html", "a page from the container\n");
        let mut run = host
            .cmd(["sh", "-c", "cd /tmp/page && exec pontoon run -p 8080:80 -- python3 -m http.server 80"])
            .who(who)
            .spawn();
        // That server listens on IPv4 only; a client of `localhost` over IPv6 is led there all the same.
        for url in ["http://127.0.0.1:8080/", "http://[::1]:8080/", "http://192.0.2.1:8080/"] {
            wait_for(url, Duration::from_secs(15), || {
                if let Some(status) = run.poll() {
                    panic!("ended with {status}:\n{}{}", run.stdout(), run.stderr());
                }
                let got = host.cmd(["curl", "-sS", "-m5", url]).run();
                (got.text() == "a page from the container\n").then_some(())
            });
        }
        let outside = world.server().run(["curl", "-sS", "-m5", "http://192.0.2.1:8080/"]);
        assert_eq!(outside, "a page from the container\n");
    }
}

each_user! {
    /// Three containers on one switch talk to each other, by address and by name.
    fn containers_on_one_network_reach_each_other(world, who) {
        let a = start(world, who, "alpha", &PLAIN);
        let b = start(world, who, "beta", &["--network", "alpha"]);
        let c = start(world, who, "gamma", &["--network", "alpha"]);
        assert!(a.ip != b.ip && b.ip != c.ip && a.ip != c.ip);
        for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
            from.run(["ping", "-n", "-c2", "-i0.2", "-W9", &to.ip.to_string()]);
            from.run(["ping", "-n", "-c2", "-i0.2", "-W9", &to.ip6.expect("IPv6").to_string()]);
            assert_eq!(from.run(["dig", "+short", &to.name]).trim(), to.ip.to_string());
        }
        let seen = b.run(["ping", "-c1", "-W9", "gamma"]);
        assert!(seen.contains(&c.ip6.expect("IPv6").to_string()), "{seen}");
        // The first container ends; the network lives on for the others.
        let mut first = a.run;
        first.signal(rustix::process::Signal::TERM);
        assert!(first.wait(Duration::from_secs(5)).is_some(), "the first run returns when its command does");
        c.run(["ping", "-n", "-c2", "-i0.2", "-W9", &b.ip.to_string()]);
    }
}

each_user! {
    /// iperf3 between two containers, both directions, at the usual MTU and at the largest.
    fn containers_exchange_bulk_data_at_any_mtu(world, who) {
        for (n, mtu) in ["1500", "65520"].into_iter().enumerate() {
            let (a, b) = (format!("a{n}"), format!("b{n}"));
            let a = start(world, who, &a, &["--mtu", mtu]);
            let b = start(world, who, &b, &["--network", &a.name]);
            let link = b.cmd(["ip", "-j", "link", "show", "eth0"]).run().json();
            assert_eq!(link[0]["mtu"].as_u64(), mtu.parse().ok(), "{link}");
            let _server = a.cmd(["iperf3", "-s"]).spawn();
            let to = a.ip.to_string();
            let to6 = a.ip6.expect("IPv6").to_string();
            wait_for("iperf3", Duration::from_secs(5), || a.run(["ss", "-ltnH"]).contains(":5201").then_some(()));
            for extra in [&["-c", &to][..], &["-c", &to, "-R"], &["-c", &to6], &["-c", &to6, "-R"]] {
                let bits = iperf3(&b, extra);
                assert!(bits > 1e8, "{extra:?} at MTU {mtu}: {bits} bit/s");
            }
            let udp = b.cmd(["iperf3", "-t1", "-J", "-u", "-b", "20M", "-c", &to]).run().json();
            let lost = udp["end"]["sum"]["lost_percent"].as_f64();
            assert!(lost.is_some_and(|l| l < 5.0), "UDP at MTU {mtu}: {lost:?} % lost");
        }
    }
}

each_user! {
    /// iperf3 through the gateway.
    fn bulk_data_goes_through_the_gateway(world, who) {
        let _server = world.server().iperf3(5201);
        let c = start(world, who, "c", &PLAIN);
        for extra in [
            &["-c", "198.51.100.10"][..],
            &["-c", "198.51.100.10", "-R"],
            &["-c", "2001:db8:2::10"],
            &["-c", "2001:db8:2::10", "-R"],
            &["-c", "198.51.100.10", "-P4"],
        ] {
            // Other tests run side by side: a second in which this one got no processor is tried again.
            let measured: Vec<f64> = (0..3).map(|_| iperf3(&c, extra)).take_while(|&bits| bits <= 1e8).collect();
            assert!(measured.len() < 3, "{extra:?}: {measured:?} bit/s");
        }
    }
}
