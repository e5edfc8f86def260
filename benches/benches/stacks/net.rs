//! The networks that the rows run in, beside those that a world has.
//!
//! ```text
//! host  198.19.0.1 … .8  ─lk0── ls0─ server  198.19.0.10 … .29      the user-mode stacks run in `host`
//! khost 198.19.1.1 … .8  ─lk0── ls1─ server  198.19.1.10 … .29      the kernel's path: bridge, masquerade, DNAT
//!   └ br0 10.88.0.1/24 ── k1 10.88.0.2, k2 10.88.0.3                MTU 1500
//!   └ br1 10.89.0.1/24 ── k3 10.89.0.2                              MTU 65520
//! (no host) 198.19.2.1 ── ls2─ server  198.19.2.10 … .29            Pontoon's routed egress: its link is a veth that it makes itself
//!   └ 10.90.0.0/24 ── rc1, rc3                                      MTU 1500, 65520
//! ohost, ohostt: Open vSwitch's userspace datapath, each with two containers: see `peers::ovs`
//! ```
//!
//! Host and server are joined directly, by one veth pair of MTU 1500: what a router costs is no stack's matter. The kernel's path
//! has a host of its own, so that its connection tracking does not burden the sockets of the others. Several addresses at
//! each end keep source ports from running out.

use anyhow::Result;
use pontoon_fixtures::lab::World;

/// Limits that a busy host raises, wherever clients are. Ports that will be published stay free.
pub(crate) const LIMITS: &str = "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' \
    net.ipv4.ip_local_reserved_ports=5201,9000,9001,10000-11999 net.ipv4.tcp_max_tw_buckets=1000000";

/// Ports that the kernel publishes: load and bulk data.
pub(crate) const KERNEL_LOAD: u16 = 11_000;
/// See [`KERNEL_LOAD`].
pub(crate) const KERNEL_BULK: u16 = 10_000;

const HOST: &str = r#"
ip link add lk0 type veth peer name ls0 netns server
for i in $(seq 1 8); do ip addr add 198.19.0.$i/24 dev lk0; done
ip link set lk0 up
"#;

const SERVER: &str = r#"
for n in 0 1; do
    if ip link show ls$n >/dev/null 2>&1; then
        for i in $(seq 10 29); do ip addr add 198.19.$n.$i/24 dev ls$n; done
        ip link set ls$n up
    fi
done
"#;

const KHOST: &str = r#"
ip link add lk0 type veth peer name ls1 netns server
for i in $(seq 1 8); do ip addr add 198.19.1.$i/24 dev lk0; done
ip link set lk0 up
ip link set lo up
ip link add br0 type bridge; ip addr add 10.88.0.1/24 dev br0; ip link set br0 up
ip link add br1 mtu 65520 type bridge; ip addr add 10.89.0.1/24 dev br1; ip link set br1 up
for k in "k1 br0 10.88.0.2 10.88.0.1 1500" "k2 br0 10.88.0.3 10.88.0.1 1500" "k3 br1 10.89.0.2 10.89.0.1 65520"; do
    set -- $k
    ip netns add $1
    ip link add v$1 mtu $5 type veth peer name eth0 netns $1
    ip link set v$1 mtu $5 master $2 up
    ip -n $1 link set lo up
    ip -n $1 link set eth0 mtu $5 up
    ip -n $1 addr add $3/24 dev eth0
    ip -n $1 route add default via $4
done
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<'NFT'
table ip lab {
    chain pre { type nat hook prerouting priority dstnat;
        iifname lk0 tcp dport 11000 dnat to 10.88.0.2:9000
        iifname lk0 tcp dport 10000 dnat to 10.88.0.2:5201
    }
    chain post { type nat hook postrouting priority srcnat;
        oifname lk0 masquerade
    }
}
NFT
# Entries of closed connections shall not fill the table, which a quiet host's would not either.
sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=3 net.netfilter.nf_conntrack_tcp_timeout_close=1 || :
"#;

/// Builds them. Without nft, or with a kernel that lacks its modules, `kernel` has no network and says so.
pub(crate) fn build(world: &World, with_kernel: bool) -> Result<(), String> {
    let host = world.host();
    host.sh(HOST);
    host.sh(LIMITS);
    let kernel = if with_kernel {
        host.run(["ip", "netns", "add", "khost"]);
        let khost = world.place("khost");
        let done = khost.cmd(["bash", "-ec", KHOST]).run();
        if done.success() {
            for place in ["khost", "k1", "k2", "k3"] {
                world.place(place).sh(LIMITS);
            }
            Ok(())
        } else {
            Err(format!(
                "the kernel's path cannot be built: {}",
                done.errors().trim()
            ))
        }
    } else {
        Ok(())
    };
    world.server().sh(SERVER);
    world.server().sh(LIMITS);
    kernel
}

/// The same limits in a container, which an ordinary user may not raise there.
pub(crate) fn raise_limits(world: &World, pid: u32) -> Result<()> {
    let done = world
        .host()
        .cmd(["nsenter", "-t", &pid.to_string(), "-n", "sh", "-c", LIMITS])
        .run();
    anyhow::ensure!(done.success(), "raise a container's limits: {done}");
    Ok(())
}
