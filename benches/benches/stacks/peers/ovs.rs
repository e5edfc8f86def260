//! Open vSwitch's userspace datapath, between two containers.
//!
//! Its bridge is of `datapath_type=netdev` and has the far ends of the containers' veth pairs as ports, on packet sockets. As
//! configured by default it can neither segment nor take over a checksum, so these offloads are off in the containers;
//! with `userspace-tso-enable` it uses `PACKET_VNET_HDR` and they stay on.

use anyhow::{Context, Result, ensure};
use pontoon_fixtures::lab::World;

use super::{Inside, Running, new};

const SETUP: &str = r#"
host=$1 tso=$2
for c in a b; do
    ip netns add $host$c
    ip link add o$c type veth peer name eth0 netns $host$c
    ip link set o$c up
    ip -n $host$c link set lo up
    ip -n $host$c link set eth0 up
    [ $tso = true ] || ip netns exec $host$c ethtool -K eth0 tx off tso off gso off >/dev/null
done
ip -n ${host}a addr add 10.87.0.1/24 dev eth0
ip -n ${host}b addr add 10.87.0.2/24 dev eth0
d=/tmp/$host; mkdir -p $d
ovsdb-tool create $d/conf.db /usr/share/openvswitch/vswitch.ovsschema
"#;

const BRIDGE: &str = r#"
host=$1
v() { ovs-vsctl --timeout=10 --db=unix:/tmp/$host/db.sock "$@"; }
v add-br br0 -- set bridge br0 datapath_type=netdev
v add-port br0 oa -- add-port br0 ob
"#;

/// Starts database and switch in a network namespace called `host`, with containers called `{host}a` and `{host}b`.
pub(super) fn start<'w>(world: &'w World, host: &'static str, tso: bool) -> Result<Running<'w>> {
    let (a, b) = if tso {
        ("ohostta", "ohosttb")
    } else {
        ("ohosta", "ohostb")
    };
    if world.host().run(["ip", "netns", "list"]).contains(host) {
        // It has died before: begin again.
        for gone in [host, a, b] {
            let _ = world.host().cmd(["ip", "netns", "del", gone]).run();
        }
        let _ = world.host().cmd(["rm", "-rf", &format!("/tmp/{host}")]).run();
    }
    world.host().run(["ip", "netns", "add", host]);
    let place = world.place(host);
    let script = |text: &str| -> Result<()> {
        let done = place
            .cmd([
                "bash",
                "-ec",
                text,
                "ovs",
                host,
                if tso { "true" } else { "false" },
            ])
            .env("OVS_RUNDIR", &format!("/tmp/{host}"))
            .run();
        ensure!(done.success(), "{}", done.errors().trim());
        Ok(())
    };
    script(SETUP).context("set up")?;
    let dir = format!("/tmp/{host}");
    let socket = format!("unix:{dir}/db.sock");
    let daemon = |argv: &[&str]| {
        place
            .cmd(argv)
            .env("OVS_RUNDIR", &dir)
            .env("OVS_LOGDIR", &dir)
            .spawn()
    };
    let db = daemon(&[
        "ovsdb-server",
        &format!("--remote=p{socket}"),
        &format!("--unixctl={dir}/ovsdb.ctl"),
        &format!("{dir}/conf.db"),
    ]);
    script("for i in $(seq 100); do [ -S /tmp/$1/db.sock ] && break; sleep 0.02; done")?;
    script(
        "ovs-vsctl --timeout=10 --db=unix:/tmp/$1/db.sock --no-wait \
         -- init -- set Open_vSwitch . other_config:userspace-tso-enable=$2",
    )
    .context("configure")?;
    let switch = daemon(&[
        "ovs-vswitchd",
        "--disable-system",
        &format!("--unixctl={dir}/switch.ctl"),
        &socket,
    ]);
    script(BRIDGE).context("make the bridge")?;
    Ok(Running {
        neighbour: Some((Inside::Namespace(b), "10.87.0.2".to_owned())),
        ..new(world, Inside::Namespace(a), 0, vec![switch, db])
    })
}
