//! What a hostile container must not reach: the host's loopback, however it is written, its link-local neighbours, and the
//! sockets by which its network is told what to do.

use std::net::IpAddr;

use pontoon_fixtures::lab::{Proc, Who, World};

use crate::site::{Site, Way};

/// Where listeners of the host note whoever comes.
const TOUCHED: &str = "/tmp/touched";
/// The port that they listen at, TCP and UDP.
const PORT: u16 = 7000;

/// Listeners on the host's loopback only, of both families and protocols; an address of link-local metadata on the host
/// itself, where there is a listener, too.
fn listeners(world: &World) -> Vec<Proc> {
    let host = world.host();
    host.run(["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"]);
    let note = format!("SYSTEM:echo $SOCAT_SOCKADDR >> {TOUCHED}");
    [
        format!("TCP4-LISTEN:{PORT},bind=127.0.0.1,fork,reuseaddr"),
        format!("TCP6-LISTEN:{PORT},bind=[::1],fork,reuseaddr"),
        format!("UDP4-RECVFROM:{PORT},bind=127.0.0.1,fork"),
        format!("UDP6-RECVFROM:{PORT},bind=[::1],fork"),
        format!("TCP4-LISTEN:{PORT},bind=169.254.169.254,fork,reuseaddr"),
        format!("UDP4-RECVFROM:{PORT},bind=169.254.169.254,fork"),
    ]
    .iter()
    .map(|listen| host.socat(listen, &note))
    .collect()
}

fn touched(world: &World) -> String {
    world.host().sh(&format!("cat {TOUCHED} 2>/dev/null || true"))
}

/// Every way of writing an address of the host's that it keeps to itself.
fn forbidden(site: &Site<'_>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = site
        .gateway()
        .iter()
        .map(|a| a.parse().expect("an address"))
        .collect();
    for text in [
        "127.0.0.1",
        "127.8.9.10",
        "127.255.255.254",
        "0.0.0.0",
        "0.0.0.1",
        "169.254.169.254",
        "169.254.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:0:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::127.0.0.1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::1",
        "fec0::1",
    ] {
        all.push(text.parse().expect("an address"));
    }
    all
}

/// Sends packets for all that out of the container's interface, which a container's own kernel would keep to itself.
fn lead_out(site: &Site<'_>) {
    let (interface, [gw, gw6]) = (site.interface(), site.gateway());
    // The first address that either gives out.
    let own = "10.0.2.100";
    site.inside([
        "bash",
        "-c",
        &format!(
            "sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.{interface}.route_localnet=1
             ip link set lo down
             for net in 127.0.0.0/8 0.0.0.0/8 169.254.0.0/16; do ip route replace $net via {gw} dev {interface} src {own} onlink; done
             for net in ::/96 ::1/128 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32 fec0::/16; do
                 ip -6 route replace $net via {gw6} dev {interface} onlink
             done; true"
        ),
    ])
    .run()
    .ok();
}

fn try_all(site: &Site<'_>) {
    for ip in forbidden(site) {
        let to = match ip {
            IpAddr::V4(a) => format!("4:{a}:{PORT}"),
            IpAddr::V6(a) => format!("6:[{a}]:{PORT}"),
        };
        for kind in ["TCP", "UDP"] {
            let done = site
                .inside(["socat", "-t0.1", "-T1", "-", &format!("{kind}{to}")])
                .stdin("touched")
                .limit(3)
                .run();
            assert!(done.text().is_empty(), "{kind}{to}: {done}");
        }
    }
    // As frames, which no kernel of the container's has a say in.
    site.attack(&["corpus"]).run().ok();
    assert_eq!(touched(site.world), "", "somebody came");
}

fn loopback(world: &World, who: Who, way: Way) {
    let _listeners = listeners(world);
    let options: &[&str] = match way {
        Way::Run => &[],
        // Without it the gateway's address leads there, as slirp4netns has it.
        Way::Slirp => &["--disable-host-loopback"],
    };
    let mut site = Site::start(world, who, way, options, None);
    try_all(&site);
    lead_out(&site);
    try_all(&site);
    // The listeners would have told.
    let local = world
        .host()
        .run(["socat", "-t1", "-", &format!("TCP4:127.0.0.1:{PORT}")]);
    assert_eq!((local.as_str(), touched(world).trim()), ("", "127.0.0.1"));
    site.assert_lives();
}

each_user! {
    fn the_hosts_loopback_from_run(world, who) {
        loopback(world, who, Way::Run);
    }
}

each_user! {
    fn the_hosts_loopback_from_slirp4netns(world, who) {
        loopback(world, who, Way::Slirp);
    }
}

each_user! {
    /// By its path, by the processes that can be seen, and by every abstract name that there might be.
    fn the_control_socket(world, who) {
        let mut site = Site::start(world, who, Way::Run, &[], None);
        let socket = site.socket();
        assert!(site.host(["test", "-S", &socket]).run().success(), "there is no {socket}");
        let ask = |to: &str| format!("curl -sS -m3 {to} http://pontoon/v1/containers");
        for attempt in [
            ask(&format!("--unix-socket {socket}")),
            ask(&format!("--unix-socket /proc/1/root{socket}")),
            ask(&format!("--unix-socket /proc/self/root/../..{socket}")),
            ask(&format!("--abstract-unix-socket {socket}")),
            ask("--abstract-unix-socket pontoon"),
            format!("umount -l $(dirname {socket}); {}", ask(&format!("--unix-socket {socket}"))),
            format!("unshare -Urm sh -c 'umount -l $(dirname {socket}); {}'", ask(&format!("--unix-socket {socket}"))),
            format!("for p in /proc/[0-9]*; do {} && exit 0; done; exit 1", ask(&format!("--unix-socket $p/root{socket}"))),
            "pontoon ps".to_owned(),
            "grep -q pontoon /proc/net/unix".to_owned(),
            each_socket("curl -sS -m3 --unix-socket $s http://pontoon/v1/containers; curl -sS -m3 --abstract-unix-socket $s http://pontoon/v1/containers"),
        ] {
            let done = site.inside(["bash", "-c", &format!("({attempt}) 2>/dev/null")]).run();
            assert!(!done.text().contains("hostile"), "{attempt}: {done}");
            assert!(attempt.contains("ps") || !done.success(), "{attempt}: {done}");
        }
        site.assert_lives();
    }
}

/// A command for each Unix socket, `$s`, that can be seen: in the file system, in the root of each process, and by its
/// abstract name. It fails.
fn each_socket(command: &str) -> String {
    format!(
        r"for s in $(find /run /tmp /var /dev /proc/[0-9]*/root/run /proc/[0-9]*/root/tmp -type s) \
         $(awk '$8 ~ /^@/ {{print substr($8, 2)}} $8 ~ /^[/]/ {{print $8}}' /proc/net/unix); do {command}; done; exit 1"
    )
}

/// Runs a line of shell in a container as engines make them: in a root of its own, in which is what programs need and nothing of
/// the host's `/run` and `/tmp`. It sees the host's processes, as with `--pid=host`.
fn in_a_root_of_its_own(site: &Site<'_>, script: &str) -> pontoon_fixtures::lab::Done {
    let enter = r#"set -e
        new=$(mktemp -d); mount -t tmpfs none $new; cd $new
        mkdir -p usr etc proc dev run/bin tmp old
        for d in usr etc proc dev run/bin; do mount --rbind /$d $d; done
        cp -P /bin /sbin /lib* .
        pivot_root . old; cd /; umount -l /old; rmdir /old
        test ! -e /run/user; exec bash -c "($0) 2>/dev/null""#;
    // A working directory that is not the root would stay what it is, and be a way back.
    let unshare = r#"cd /; exec unshare -Urmuipf bash -c "$0" "$1""#;
    site.inside(["bash", "-c", unshare, enter, script])
        .limit(60)
        .run()
}

each_user! {
    /// The API lies where the engine has it put: a container that has a root of its own, as an engine gives it, does not find
    /// it, neither by its path, nor through another process, nor as an abstract name, nor among what it sees.
    fn the_api_of_slirp4netns(world, who) {
        let mut site = Site::start(world, who, Way::Slirp, &[], None);
        let socket = site.socket();
        let ask = |to: &str| format!(r#"echo '{{"execute":"list_hostfwd"}}' | socat -t1 -T1 - {to}"#);
        let by_path = ask(&format!("UNIX-CONNECT:{socket}"));
        let among_all = each_socket(&format!("{}; {}", ask("UNIX-CONNECT:$s"), ask("ABSTRACT-CONNECT:$s")));
        // It answers who may ask, by the same commands; as it does a container that shares the owner's files and user, which is
        // the engine's to prevent.
        assert!(site.host(["bash", "-c", &by_path]).run().text().contains("entries"), "the API is silent");
        for attempt in [&by_path, &among_all] {
            let shared = site.inside(["bash", "-c", &format!("({attempt}) 2>/dev/null")]).limit(60).run();
            assert!(shared.text().contains("entries"), "{attempt} finds nothing: {shared}");
        }
        let alive = in_a_root_of_its_own(&site, "echo alive; ls -A /proc/self/root/tmp");
        assert_eq!(alive.ok(), "alive\n");
        for attempt in [
            by_path.clone(),
            ask(&format!("ABSTRACT-CONNECT:{socket}")),
            ask("ABSTRACT-CONNECT:slirp4netns"),
            format!("for p in /proc/[0-9]*; do {} && exit 0; done; exit 1", ask(&format!("UNIX-CONNECT:$p/root{socket}"))),
            format!("for p in /proc/[0-9]*; do {} && exit 0; done; exit 1", ask(&format!("UNIX-CONNECT:$p/cwd/..{socket}"))),
            format!("mkdir -p /old; mount --rbind /proc/{}/root /old; {}", site.packet, ask(&format!("UNIX-CONNECT:/old{socket}"))),
            format!("echo {{}} | nsenter -t {} -m socat -t1 -T1 - UNIX-CONNECT:{socket}", site.packet),
            format!("echo {{}} | nsenter -t {} -m socat -t1 -T1 - UNIX-CONNECT:{socket}", site.pid),
            "cat /proc/net/unix | grep -q slirp".to_owned(),
            among_all,
        ] {
            let done = in_a_root_of_its_own(&site, &attempt);
            assert!(!done.success() && !done.text().contains("entries"), "{attempt}: {done}");
        }
        // Somebody else than the owner does not get in, even where the path is shared.
        let stranger = ["setpriv", "--reuid=34567", "--regid=34567", "--clear-groups", "bash", "-c", &by_path];
        let refused = world.host().cmd(stranger).run();
        assert!(!refused.success() && refused.errors().contains("Permission denied"), "{refused}");
        site.assert_lives();
    }
}
