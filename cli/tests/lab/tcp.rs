//! TCP through the gateway: whole, in order, closed as it was closed, refused as it was refused.

use std::time::Duration;

use pontoon_fixtures::lab::wait_for;

use crate::{PLAIN, container_peers, server_at, server_peers, start};

each_user! {
    fn curl_fetches_from_nginx(world, who) {
        let nginx = world.server().nginx(80);
        let c = start(world, who, "c", &PLAIN);
        for host in ["198.51.100.10", "[2001:db8:2::10]"] {
            assert_eq!(c.run(["curl", "-sS", "-m10", &format!("http://{host}/")]), "hello from server\n");
            let sum = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
            let got = sum(c.sh(&format!("curl -sS -m20 http://{host}/big | sha256sum")));
            let want = sum(world.server().run(["sha256sum", &format!("{}/big", nginx.root)]));
            assert_eq!(got, want);
        }
        // Parallel and on one kept connection.
        c.sh("curl -sSf -m20 --parallel -o /dev/null 'http://198.51.100.10/?[1-20]' -o /dev/null http://198.51.100.10/big");
        let who_asks = c.run(["curl", "-sS", "-m10", "http://198.51.100.10/who"]);
        assert!(who_asks.starts_with("192.0.2.1 "), "the host's own address: {who_asks}");
    }
}

each_user! {
    /// Every conversation of the lab's peer, with each byte verified, over both families.
    fn conversations_keep_every_byte_and_half(world, who) {
        let [tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        for to in server_at(9000) {
            for words in [
                &["sink", "20000000"][..],
                &["source", "20000000"],
                &["source", "8000000", "1500"],
                &["slow", "8000000"],
                &["echo", "10000000"],
                &["sink", "0"],
                &["source", "1"],
                &["hold", "3000"],
            ] {
                assert_eq!(c.cmd(["lab-peer", "tcp", &to]).args(words).limit(60).run().ok(), "ok\n", "{words:?}");
            }
            assert_eq!(c.run(["lab-peer", "tcp", &to, "reset"]), "reset\n");
            c.run(["lab-peer", "tcp", &to, "abort"]);
        }
        let resets = || tcp.stdout().lines().filter(|l| *l == "reset").count();
        wait_for("the container's resets at the server", Duration::from_secs(5), || (resets() == 2).then_some(()));
        // What was sent after the server's FIN has arrived.
        wait_for("late words", Duration::from_secs(5), || {
            (tcp.stdout().matches("late but not too late").count() == 6).then_some(())
        });
    }
}

each_user! {
    /// The same the other way, through a published port.
    fn published_conversations_keep_every_byte_and_half(world, who) {
        let c = start(world, who, "c", &["-p", "9100:9000"]);
        let [tcp, _udp] = container_peers(&c);
        for to in ["192.0.2.1:9100", "[2001:db8:1::1]:9100"] {
            for words in [
                &["sink", "20000000"][..],
                &["source", "20000000"],
                &["source", "8000000", "1500"],
                &["slow", "8000000"],
                &["echo", "10000000"],
                &["hold", "3000"],
            ] {
                let done = world.server().cmd(["lab-peer", "tcp", to]).args(words).limit(60).run();
                assert_eq!(done.ok(), "ok\n", "{words:?}");
            }
            assert_eq!(world.server().run(["lab-peer", "tcp", to, "reset"]), "reset\n");
            world.server().run(["lab-peer", "tcp", to, "abort"]);
        }
        let resets = || tcp.stdout().lines().filter(|l| *l == "reset").count();
        wait_for("the clients' resets in the container", Duration::from_secs(5), || (resets() == 2).then_some(()));
    }
}

each_user! {
    /// ncat ends its half with its input; the server answers only when it has seen that.
    fn ncat_half_closes_both_ways(world, who) {
        let c = start(world, who, "c", &["-p", "9200:9200"]);
        for n in [1, 2] {
            world.write(&format!("/tmp/answer{n}"), format!("#!/bin/sh\ncat > /tmp/request{n}; sleep 1; echo answer {n}\n"));
            world.host().run(["chmod", "755", &format!("/tmp/answer{n}")]);
        }
        let _server = world.server().socat("TCP6-LISTEN:9201,fork,reuseaddr", "EXEC:/tmp/answer1");
        for to in ["198.51.100.10", "2001:db8:2::10"] {
            let answer = c.cmd(["ncat", to, "9201"]).stdin("a request").run().ok();
            assert_eq!(answer, "answer 1\n");
            assert_eq!(world.read("/tmp/request1"), b"a request");
        }
        let _inside = c.cmd(["socat", "-t10", "TCP6-LISTEN:9200,fork,reuseaddr", "EXEC:/tmp/answer2"]).spawn();
        wait_for("the server inside", Duration::from_secs(5), || c.run(["ss", "-ltnH"]).contains(":9200").then_some(()));
        for to in ["192.0.2.1", "2001:db8:1::1"] {
            let answer = world.server().cmd(["ncat", to, "9200"]).stdin("another").run().ok();
            assert_eq!(answer, "answer 2\n");
            assert_eq!(world.read("/tmp/request2"), b"another");
        }
    }
}

each_user! {
    /// Refusal is a reset, unreachable the ICMP error, both at once; silence stays silence and holds nobody up.
    fn failures_are_what_they_were(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        for to in server_at(9) {
            let done = c.cmd(["lab-peer", "tcp", &to, "who"]).run();
            assert!(done.fails().contains("refused") && done.took < Duration::from_secs(2), "{done}");
        }
        for to in ["198.18.1.1:80", "[2001:db8:f1::1]:80"] {
            let done = c.cmd(["lab-peer", "tcp", to, "who"]).run();
            let why = done.fails();
            assert!(why.contains("No route to host") || why.contains("unreachable"), "{done}");
            assert!(done.took < Duration::from_secs(3), "{done}");
        }
        let mut silent = c.cmd(["lab-peer", "tcp", "198.18.3.1:80", "who"]).spawn();
        std::thread::sleep(Duration::from_millis(300));
        assert!(c.run(["lab-peer", "tcp", "198.51.100.10:9000", "who"]).starts_with("192.0.2.1:"));
        assert_eq!(silent.poll(), None, "silence is not an error");
        let flows = c.pontoon(["conntrack", "ls", "--json"]).run().json();
        assert!(flows.to_string().contains("198.18.3.1"), "{flows}");
    }
}

each_user! {
    /// One source port to several servers, and again to the same one as soon as the server has closed.
    fn source_ports_are_used_again(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        for round in 0..3 {
            for to in ["198.51.100.10:9000", "198.51.100.11:9000", "[2001:db8:2::10]:9000"] {
                let done = c.cmd(["lab-peer", "tcp-from", "5555", to]).run();
                assert!(done.success() && done.took < Duration::from_secs(3), "round {round}: {done}");
            }
        }
    }
}

each_user! {
    /// A thousand short connections from ten threads; afterwards no flow is left but those that wait to be forgotten.
    fn many_connections_leave_no_state(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &PLAIN);
        c.cmd(["lab-peer", "tcp-load", "1000", "10", "3000", "198.51.100.10:9000", "[2001:db8:2::10]:9000"]).limit(60).run().ok();
        wait_for("no open flow", Duration::from_secs(10), || {
            let flows = c.pontoon(["conntrack", "ls", "--json"]).run().json();
            let open = flows.as_array().expect("a list").iter().filter(|f| f["state"] == "established").count();
            (open == 0).then_some(())
        });
    }
}

each_user! {
    /// The path to `far` has an MTU of 1380: TCP finds out by itself, both ways.
    fn a_small_link_on_the_way_is_found_out(world, who) {
        let _nginx = world.far().nginx(80);
        let _peer = crate::peers(world.far(), &["203.0.113.10:9000"]);
        let c = start(world, who, "c", &PLAIN);
        for host in ["203.0.113.10", "[2001:db8:3::10]"] {
            assert_eq!(c.sh(&format!("curl -sS -m20 http://{host}/big | wc -c")).trim(), "8388608");
            assert_eq!(c.run(["lab-peer", "tcp", &format!("{host}:9000"), "sink", "5000000"]), "ok\n");
        }
    }
}

each_user! {
    /// `--outbound` says which of the host's addresses the world sees, of TCP and UDP, for each family.
    fn the_source_address_can_be_chosen(world, who) {
        let [_tcp, _udp] = server_peers(world);
        world.host().sh("ip addr add 192.0.2.7/24 dev up0; ip addr add 2001:db8:1::7/64 dev up0 nodad");
        let c = start(world, who, "c", &["--outbound", "192.0.2.7", "--outbound", "2001:db8:1::7"]);
        for (to, seen) in server_at(9000).iter().zip(["192.0.2.7:", "[2001:db8:1::7]:"]) {
            for kind in [&["tcp", to, "who"][..], &["udp-ask", to]] {
                let answer = c.cmd(["lab-peer"]).args(kind).run().ok();
                assert!(answer.starts_with(seen), "{kind:?}: {answer}");
            }
        }
        let by_name = start(world, who, "d", &["--outbound", "up0"]);
        assert!(by_name.run(["lab-peer", "tcp", "198.51.100.10:9000", "who"]).starts_with("192.0.2."));
    }
}

each_user! {
    /// A container at its bound of flows gets no more, which is counted; what it has goes on.
    fn flows_of_a_container_are_bounded(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let c = start(world, who, "c", &["--max-flows-per-container", "20"]);
        let mut held = c.cmd(["sh", "-c", "sleep 4 | lab-peer tcp-hold 20 198.51.100.10:9000"]).spawn();
        held.wait_for("holding");
        let done = c.cmd(["lab-peer", "tcp", "198.51.100.10:9000", "who"]).limit(2).run();
        assert!(!done.success(), "{done}");
        let stats = c.pontoon(["stats", "--json"]).run().ok();
        assert!(stats.contains("quota-full"), "{stats}");
        assert!(held.end(Duration::from_secs(15)).ok().contains("all 20 alive"));
        wait_for("room again", Duration::from_secs(10), || {
            c.cmd(["lab-peer", "tcp", "198.51.100.10:9000", "who"]).limit(5).run().success().then_some(())
        });
    }
}

each_user! {
    /// All connections of a container speak at once while nothing is read of its interface: more than a TAP's queue holds
    /// unless it is told otherwise. Nothing is lost, so that no wave of retransmissions follows.
    fn a_burst_waits_to_be_read(world, who) {
        let mut server = world.server().cmd(["lab-load", "serve", "9000"]).spawn();
        server.wait_for("listening");
        let c = start(world, who, "c", &PLAIN);
        let network = c.pontoon(["network", "ls", "--json"]).run().json();
        let packet = network[0]["packet_pid"].as_u64().expect("a pid").to_string();
        let mut idle = c.cmd(["lab-load", "idle", "1200", "198.51.100.10:9000", "20"]).held().spawn();
        idle.wait_for("\"opened\":1200");
        world.host().run(["kill", "-STOP", &packet]);
        idle.say("check");
        // The container's TCP repeats itself after 200, 600 and 1400 ms, which would be longer than the queue in the end.
        std::thread::sleep(Duration::from_millis(100));
        world.host().run(["kill", "-CONT", &packet]);
        idle.wait_for("\"alive\":1200");
        let link = c.cmd(["ip", "-j", "-s", "link", "show", "eth0"]).run().json();
        assert_eq!(link[0]["stats64"]["tx"]["dropped"].as_u64(), Some(0), "{link}");
    }
}
