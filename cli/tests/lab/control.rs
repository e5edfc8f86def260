//! Asking and changing what runs: the commands, their texts and their JSON.

use std::time::Duration;

use crate::{PLAIN, container_peers, server_peers, start};

each_user! {
    fn containers_and_networks_are_listed(world, who) {
        let ps = || world.host().cmd(["pontoon", "ps", "--json"]).who(who).run().json();
        assert_eq!(ps(), serde_json::json!([]));
        let a = start(world, who, "a", &["-p", "8080:80"]);
        let b = start(world, who, "b", &["--network", "a"]);
        let other = start(world, who, "other", &PLAIN);
        let all = ps();
        let names: Vec<&str> = all.as_array().expect("a list").iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names.len(), 3, "{all}");
        let text = a.pontoon(["ps"]).run().ok();
        for word in ["a", "b", "other", "8080", &a.ip.to_string()] {
            assert!(text.contains(word), "no `{word}` in:\n{text}");
        }
        let networks = a.pontoon(["network", "ls", "--json"]).run().json();
        assert_eq!(networks.as_array().map(Vec::len), Some(2), "{networks}");
        let inspected = a.pontoon(["network", "inspect", "a", "other"]).run().json();
        assert_eq!(inspected.as_array().map(Vec::len), Some(2), "{inspected}");
        assert_eq!(inspected[0]["Name"], "a");
        assert_eq!(inspected[0]["Containers"].as_object().map(|c| c.len()), Some(2), "{inspected}");
        let front = inspected[0]["FrontPid"].as_u64().expect("a pid");
        let packet = inspected[0]["PacketPid"].as_u64().expect("a pid");
        assert_ne!(front, packet, "front and packet process are separate");
        assert!(a.pontoon(["network", "ls"]).run().ok().contains("other"));
        drop((b, other));
        pontoon_fixtures::lab::wait_for("the others' end", Duration::from_secs(5), || {
            (ps().as_array().map(Vec::len) == Some(1)).then_some(())
        });
    }
}

each_user! {
    fn flows_are_listed_and_ended(world, who) {
        let [_tcp, _udp] = server_peers(world);
        let a = start(world, who, "a", &["-p", "9100:9000"]);
        let b = start(world, who, "b", &["--network", "a"]);
        let [_t, _u] = container_peers(&a);
        let mut held = a.cmd(["lab-peer", "tcp", "198.51.100.10:9000", "hold", "20000"]).spawn();
        let inbound = world.server().cmd(["lab-peer", "tcp", "192.0.2.1:9100", "hold", "20000"]).spawn();
        b.run(["lab-peer", "udp-ask", "198.51.100.10:9000"]);
        a.run(["ping", "-n", "-c1", "-W9", "198.51.100.10"]);
        let ls = |extra: &[&str]| {
            let v = a.pontoon(["conntrack", "ls", "--json"]).args(extra).run().json();
            v.as_array().expect("a list").clone()
        };
        pontoon_fixtures::lab::wait_for("four flows", Duration::from_secs(5), || (ls(&[]).len() >= 4).then_some(()));
        let flows = ls(&[]);
        let out = flows.iter().find(|f| f["protocol"] == "tcp" && f["outbound"] == true).expect("the outbound connection");
        assert_eq!((out["container"].as_str(), out["state"].as_str()), (Some("a"), Some("established")), "{out}");
        assert_eq!(out["original"][1], "198.51.100.10:9000");
        assert!(out["original"][0].as_str().is_some_and(|s| s.starts_with(&a.ip.to_string())), "{out}");
        for key in ["age", "expires"] {
            assert!(out[key].is_u64(), "{key}: {out}");
        }
        for way in ["sent", "received"] {
            assert!(out[way]["packets"].as_u64() > Some(0) && out[way]["bytes"].as_u64() > Some(0), "{way}: {out}");
        }
        let inn = flows.iter().find(|f| f["protocol"] == "tcp" && f["outbound"] == false).expect("the inbound connection");
        assert!(inn["original"][0].as_str().is_some_and(|s| s.starts_with("198.51.100.10:")), "{inn}");
        assert!(flows.iter().any(|f| f["protocol"] == "udp" && f["container"] == "b"));
        assert!(flows.iter().any(|f| f["protocol"] == "icmp"));
        assert!(ls(&["--container", "b"]).iter().all(|f| f["container"] == "b"));
        let text = a.pontoon(["conntrack", "ls"]).run().ok();
        assert!(text.contains("198.51.100.10") && text.to_lowercase().contains("established"), "{text}");

        let flushed = a.pontoon(["conntrack", "flush", "--container", "a", "--json"]).run().json();
        assert!(flushed.to_string().contains(|c: char| c.is_ascii_digit()), "{flushed}");
        assert!(held.wait(Duration::from_secs(25)).is_some_and(|s| !s.success()), "the connection was ended");
        assert!(!inbound.end(Duration::from_secs(25)).success());
        assert!(ls(&["--container", "a"]).iter().all(|f| f["state"] != "established"));
        assert!(!ls(&["--container", "b"]).is_empty(), "others' flows stay");
    }
}

each_user! {
    fn tables_and_counters_are_shown(world, who) {
        let a = start(world, who, "a", &PLAIN);
        let b = start(world, who, "b", &["--network", "a"]);
        a.run(["ping", "-n", "-c1", "-W9", &b.ip.to_string()]);
        let fdb = a.pontoon(["fdb", "show"]).run().ok();
        assert_eq!(fdb.lines().next(), Some(" port  VLAN  MAC                Age"), "{fdb}");
        let mac = a.cmd(["ip", "-j", "link", "show", "eth0"]).run().json()[0]["address"].as_str().expect("a MAC").to_owned();
        assert!(fdb.contains(&mac), "{mac} in:\n{fdb}");
        let rows = a.pontoon(["fdb", "show", "a", "--json"]).run().json();
        assert!(rows.as_array().expect("rows").iter().any(|r| r["mac"] == *mac && r["age"].is_u64() | r["age"].is_null()), "{rows}");
        let stats = a.pontoon(["stats", "--json"]).run().json();
        let ports = stats[0]["ports"].as_array().unwrap_or_else(|| panic!("{stats}"));
        let port = ports.iter().find(|p| p["name"] == "a").expect("a's port");
        assert!(port["rx_frames"].as_u64() > Some(0) && port["tx_bytes"].as_u64() > Some(0), "{port}");
        // `plain` where the kernel has no virtio-net header, or is taken to have none.
        assert!(port["kind"] == "tap" || port["kind"] == "plain", "{port}");
        assert!(!a.pontoon(["stats"]).run().ok().is_empty());
        a.pontoon(["doctor"]).run();
        let report = a.pontoon(["doctor", "--json"]).run();
        serde_json::from_slice::<serde_json::Value>(&report.stdout).unwrap_or_else(|e| panic!("{e}: {report}"));
    }
}
