//! Connections of clients by published ports.

use super::*;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), 51_000);
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8080);

/// A world that publishes the container's port 80.
fn publish(w: &mut World) -> SimListener {
    let listener = SimListener::default();
    w.gateway
        .publish_tcp(PORT, "10.0.2.100:80".parse().unwrap(), listener.clone());
    listener
}

/// A client connects; its far end.
fn client(w: &mut World, listener: &SimListener, peer: SocketAddr, local: SocketAddr) -> Far {
    let far = listener.connect(w.gateway.host_mut(), peer, local);
    let token = w.gateway.listener_tokens()[0];
    let ready = pontoon_switch::Ready {
        readable: true,
        ..Default::default()
    };
    w.gateway.ready(w.now, token.encode(), ready, &mut w.out);
    far
}

#[test]
fn the_container_sees_the_real_client() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    let server = w.container.tcp_listen(80);
    let far = client(&mut w, &listener, CLIENT, HOST);
    w.until(5 * SECOND, "connected", |w| {
        w.container.tcp_state(server) == State::Established
    });
    assert_eq!(w.container.tcp_remote(server), Some(CLIENT));
    download(&mut w, server, &far, &pattern(100_000, 1), 100_000);
    upload(&mut w, server, &far, &pattern(100_000, 2), 100_000);
    close(&mut w, server, &far);
}

#[test]
fn a_client_on_the_host_or_with_a_container_address_appears_as_the_gateway() {
    for (peer, local) in [
        ("127.0.0.1:51000", "127.0.0.1:8080"),
        ("192.0.2.1:51000", "192.0.2.1:8080"),
        ("10.0.2.100:51000", "192.0.2.1:8080"),
        ("10.0.2.77:51000", "192.0.2.1:8080"),
        ("[::1]:51000", "[::1]:8080"),
        ("[2001:db8::9]:51000", "[2001:db8::1]:8080"),
    ] {
        let mut w = World::plain();
        let listener = publish(&mut w);
        let server = w.container.tcp_listen(80);
        let far = client(&mut w, &listener, peer.parse().unwrap(), local.parse().unwrap());
        w.until(5 * SECOND, "connected", |w| {
            w.container.tcp_state(server) == State::Established
        });
        assert_eq!(
            w.container.tcp_remote(server),
            Some("10.0.2.2:51000".parse().unwrap()),
            "{peer}"
        );
        download(&mut w, server, &far, b"hello", 10);
        close(&mut w, server, &far);
    }
}

#[test]
fn clients_seen_as_the_gateway_may_share_a_port() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    let servers = [w.container.tcp_listen(80), w.container.tcp_listen(80)];
    let local = "127.0.0.1:8080".parse().unwrap();
    let a = client(&mut w, &listener, "127.0.0.1:51000".parse().unwrap(), local);
    let b = client(&mut w, &listener, "127.0.0.2:51000".parse().unwrap(), local);
    w.pass(SECOND);
    assert!(
        servers
            .iter()
            .all(|&s| w.container.tcp_state(s) == State::Established)
    );
    assert_ne!(
        w.container.tcp_remote(servers[0]),
        w.container.tcp_remote(servers[1])
    );
    assert!(a.closed() == Closed::Open && b.closed() == Closed::Open);
}

/// As `curl http://localhost:8080/` against a server that listens on IPv4 only.
#[test]
fn a_client_refused_by_one_ip_version_is_led_to_the_other() {
    let mut w = World::plain();
    let listener = SimListener::default();
    let container = "[fd00:2::100]:80".parse().unwrap();
    w.gateway.publish_tcp(PORT, container, listener.clone());
    let server = w.container.tcp_listen(80);
    w.container.tcp(server).abort();
    let only_v4 = (smoltcp::wire::IpAddress::v4(10, 0, 2, 100), 80);
    w.container.tcp(server).listen(only_v4).unwrap();
    let local = "[::1]:8080".parse().unwrap();
    let far = client(&mut w, &listener, "[::1]:51000".parse().unwrap(), local);
    w.until(5 * SECOND, "connected", |w| {
        w.container.tcp_state(server) == State::Established
    });
    assert_eq!(
        w.container.tcp_remote(server),
        Some("10.0.2.2:51000".parse().unwrap())
    );
    download(&mut w, server, &far, b"hello", 10);
    close(&mut w, server, &far);
}

#[test]
fn a_client_refused_by_both_ip_versions_gets_a_reset() {
    let mut w = World::plain();
    let listener = SimListener::default();
    w.gateway
        .publish_tcp(PORT, "[fd00:2::100]:80".parse().unwrap(), listener.clone());
    let local = "[::1]:8080".parse().unwrap();
    let far = client(&mut w, &listener, "[::1]:51000".parse().unwrap(), local);
    w.pass(5 * SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
}

#[test]
fn a_container_that_refuses_gives_the_client_a_reset() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    let far = client(&mut w, &listener, CLIENT, HOST);
    // smoltcp has to ask for the gateway's Ethernet address first, and lets its first reset go meanwhile.
    w.pass(3 * SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
}

#[test]
fn a_container_that_is_silent_gives_the_client_a_reset() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    let dead = Impairment {
        loss: 1000,
        ..Impairment::NONE
    };
    w.container.impair(dead, dead);
    let far = client(&mut w, &listener, CLIENT, HOST);
    w.pass(30 * SECOND);
    assert_eq!(far.closed(), Closed::Open);
    w.pass(60 * SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
}

#[test]
fn data_of_a_client_that_came_with_its_syn_are_not_lost() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    let server = w.container.tcp_listen(80);
    let far = client(&mut w, &listener, CLIENT, HOST);
    far.send(b"early");
    far.finish();
    w.pass(SECOND);
    assert_eq!(w.container.tcp_recv(server, 100), b"early");
    assert_eq!(w.container.tcp_state(server), State::CloseWait);
}

#[test]
fn a_listener_that_only_fails_does_not_keep_the_worker_busy() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    w.settle();
    listener.fail(EINVAL);
    client(&mut w, &listener, CLIENT, HOST);
    w.settle();
    assert!(w.gateway.deadline() >= Some(w.now + SECOND / 100));
}

fn deny(w: &mut World, net: &str) {
    let rule = SourceRule {
        action: SourceAction::Deny,
        net: net.parse().unwrap(),
    };
    assert!(w.gateway.set_sources(PORT, Transport::Tcp, 80, vec![rule]));
}

#[test]
fn a_denied_client_is_reset_and_the_container_hears_nothing() {
    let mut w = World::plain();
    deny(&mut w, "203.0.113.0/24");
    let listener = publish(&mut w);
    let server = w.container.tcp_listen(80);
    let far = client(&mut w, &listener, CLIENT, HOST);
    w.received = Some(Vec::new());
    w.pass(SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_eq!(w.dropped(DropReason::Denied), 1);
    assert_eq!(w.container.tcp_state(server), State::Listen);
    let segments = |frames: Vec<Vec<u8>>| {
        frames
            .iter()
            .filter(|f| f[12..14] == [8, 0] && f[23] == 6)
            .count()
    };
    assert_eq!(w.received.take().map(segments), Some(0));
    // As an IPv4-mapped address it is the same one; another may come.
    let mapped = "[::ffff:203.0.113.5]:51000".parse().unwrap();
    let far = client(&mut w, &listener, mapped, HOST);
    w.settle();
    assert_eq!(far.closed(), Closed::Reset);
    client(&mut w, &listener, "198.51.100.9:51000".parse().unwrap(), HOST);
    w.until(5 * SECOND, "connected", |w| {
        w.container.tcp_state(server) == State::Established
    });
}

/// As a rule in iptables' DOCKER-USER does. The one on the host itself is known by its own address, though the
/// container sees the gateway's.
#[test]
fn a_new_rule_resets_the_connections_of_those_it_denies_on_both_sides() {
    for (peer, local, net) in [
        (CLIENT, HOST, "203.0.113.5/32"),
        (
            "127.0.0.1:51000".parse().unwrap(),
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.0/8",
        ),
    ] {
        let mut w = World::plain();
        let listener = publish(&mut w);
        let servers = [w.container.tcp_listen(80), w.container.tcp_listen(80)];
        let far = client(&mut w, &listener, peer, local);
        let other = client(&mut w, &listener, "198.51.100.9:51000".parse().unwrap(), HOST);
        let (mine, out) = open(&mut w, SERVER);
        w.until(5 * SECOND, "connected", |w| {
            servers
                .iter()
                .all(|&s| w.container.tcp_state(s) == State::Established)
        });
        deny(&mut w, net);
        w.settle();
        assert_eq!(far.closed(), Closed::Reset, "{peer}");
        assert_eq!(other.closed(), Closed::Open);
        assert_eq!(w.dropped(DropReason::Denied), 1);
        let established = |w: &mut World, s| w.container.tcp_state(s) == State::Established;
        let left: Vec<bool> = servers.iter().map(|&s| established(&mut w, s)).collect();
        assert_eq!(left.iter().filter(|&&l| l).count(), 1, "{left:?}");
        assert!(established(&mut w, mine));
        assert_eq!(out.closed(), Closed::Open, "its own connections are no clients");
    }
}

#[test]
fn a_host_out_of_descriptors_refuses_the_client() {
    let mut w = World::plain();
    let listener = publish(&mut w);
    w.gateway.host_mut().tcp.descriptors = Some(0);
    let far = client(&mut w, &listener, CLIENT, HOST);
    w.settle();
    assert_eq!(far.closed(), Closed::Reset);
    assert_eq!(w.dropped(DropReason::HostExhausted), 1);
}
