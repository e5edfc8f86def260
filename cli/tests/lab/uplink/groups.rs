//! A link whose switch follows MLD, which is the kernel's bridge: a group's frames go to who says that he listens, and to nobody
//! else. Neighbour discovery asks at groups.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use pontoon_fixtures::lab::{Daemon, Place, Wan, Who, require, wait_for};

use super::kinds::on_the_link;
use super::pinged;

/// The group of 2001:db8:7::77.
const GROUP: &str = "ff02::1:ff00:77";
/// How long the switch remembers who listens. It asks every second.
const MEMORY: Duration = Duration::from_secs(4);

/// True if the switch knows that somebody at the gateway's end of the link listens to `group`.
fn knows(router: Place<'_>, group: &str) -> bool {
    let all = router.run(["bridge", "mdb", "show", "dev", "w7"]);
    let mut lines = all.lines();
    lines.any(|l| l.contains(&format!(" port wan0 grp {group} ")))
}

#[test]
fn behind_a_switch_that_follows_mld_neighbours_find_us() {
    require("bridge");
    require("tcpdump");
    let world = &crate::world();
    let _wan = on_the_link(world);
    let (router, near) = (world.router(), world.place("near"));
    // Nobody asks yet: what it learns it is told of their own accord. Times are in hundredths of a second; those of the
    // questions have to be there before there is somebody who asks.
    router.sh(
        "ip link set w7 type bridge mcast_querier 0 mcast_query_interval 100 mcast_startup_query_interval 50 \
         mcast_query_response_interval 50 mcast_membership_interval 400
         ip link set w7 type bridge mcast_snooping 1",
    );
    // What the gateway hears.
    let mut ear = router
        .cmd([
            "tcpdump", "-n", "-l", "-i", "wan0", "icmp6", "and", "ip6[40]", "==", "135",
        ])
        .spawn();
    ear.wait_for("listening on");
    let daemon = Daemon::start(world, Who::Root);
    let options = [
        "--subnet",
        "fd44::/64",
        "--uplink",
        "packet:p0",
        "--uplink-address6",
        Wan::ADDRESS6,
    ];
    daemon.create("net", &options);
    let uplink = daemon.json(["network", "inspect", "net"])[0]["Uplink"].clone();
    let mac = uplink["MacAddress"].as_str().expect("an address");
    let [.., a, b, c] = *mac.split(':').collect::<Vec<_>>() else {
        panic!("{mac}")
    };
    let local: Ipv6Addr = format!("ff02::1:ff{a}:{b}{c}").parse().expect("a group");
    for group in [GROUP, &local.to_string()] {
        wait_for(&format!("{group} at the switch"), Duration::from_secs(5), || {
            knows(router, group).then_some(())
        });
    }

    // It asks, in both versions, and forgets who does not answer.
    for version in ["2", "1"] {
        router.sh(&format!(
            "ip link set w7 type bridge mcast_querier 1 mcast_mld_version {version}"
        ));
        let start = Instant::now();
        while start.elapsed() < MEMORY * 2 {
            assert!(
                knows(router, GROUP),
                "version {version}, after {:?}",
                start.elapsed()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        near.run(["ip", "-6", "neigh", "flush", "all"]);
        let ping = |to: &str| pinged(&near.cmd(["ping", "-n", "-c2", "-i0.2", "-W4", to]).run());
        assert_eq!(ping("2001:db8:7::77"), "2 received", "version {version}");
        // Which it is for the group: a question to another does not come to the gateway.
        assert!(ping("2001:db8:7::99").ends_with("0 received"), "nobody's");
        let heard = ear.stdout();
        assert!(heard.contains("> ff02::1:ff00:77: "), "{heard}");
        assert!(!heard.contains("> ff02::1:ff00:99: "), "{heard}");
    }
}
