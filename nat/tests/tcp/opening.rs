//! Opening connections: what answers a SYN, and where one may lead.

use super::*;

#[test]
fn a_syn_is_answered_only_when_the_host_is_connected() {
    let mut w = World::plain();
    w.gateway.host_mut().tcp.servers.insert(SERVER, Outcome::Wait);
    let id = w.container.tcp_connect(SERVER);
    w.pass(10 * SECOND);
    assert_eq!(w.container.tcp_state(id), State::SynSent);
    let far = w.gateway.host_mut().tcp.far[0].clone();
    far.complete();
    w.until(2 * SECOND, "connected", |w| {
        w.container.tcp_state(id) == State::Established
    });
    close(&mut w, id, &far);
}

/// RFC 5382 REQ-1 has it that a refusal is told as such.
#[test]
fn a_refusal_is_a_reset() {
    for outcome in [Outcome::Fail(ECONNREFUSED), Outcome::Wait] {
        let mut w = World::plain();
        w.gateway.host_mut().tcp.servers.insert(SERVER, outcome);
        let id = w.container.tcp_connect(SERVER);
        w.settle();
        if let Some(far) = w.gateway.host_mut().tcp.far.first().cloned() {
            far.fail(ECONNREFUSED);
        }
        w.settle();
        assert_eq!(w.container.tcp_state(id), State::Closed);
        assert_clean(&mut w);
    }
}

#[test]
fn unreachable_is_the_icmp_error() {
    for (errno, v4, v6) in [(ENETUNREACH, (3, 0), (1, 0)), (EHOSTUNREACH, (3, 1), (1, 3))] {
        for server in [SERVER, SERVER6] {
            let mut w = World::plain();
            w.gateway
                .host_mut()
                .tcp
                .servers
                .insert(server, Outcome::Fail(errno));
            w.container.tcp_connect(server);
            w.settle();
            let errors = w.container.take_errors();
            let expected = if server.is_ipv4() { v4 } else { v6 };
            assert_eq!(errors.len(), 1, "{server}");
            assert_eq!((errors[0].kind, errors[0].code), expected, "{server}");
            assert_clean(&mut w);
        }
    }
}

#[test]
fn the_hosts_loopback_and_other_forbidden_places_are_unreachable() {
    for forbidden in [
        "10.0.2.2:80",
        "127.0.0.1:80",
        "240.0.0.1:80",
        "169.254.169.254:80",
        "[fd00:2::2]:80",
    ] {
        let mut w = World::plain();
        let forbidden: SocketAddr = forbidden.parse().unwrap();
        for loopback in ["127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "169.254.169.254:80"] {
            w.gateway
                .host_mut()
                .tcp
                .servers
                .insert(loopback.parse().unwrap(), Outcome::Accept);
        }
        w.container.tcp_connect(forbidden);
        w.pass(SECOND / 2);
        assert_eq!(w.gateway.host_mut().tcp.far.len(), 0, "{forbidden}");
        assert_eq!(w.container.take_errors().len(), 1, "{forbidden}");
        assert_eq!(w.dropped(DropReason::Forbidden), 1);
        assert_clean(&mut w);
    }
}

#[test]
fn with_host_loopback_the_gateways_address_leads_there() {
    let mut c = config();
    c.host_loopback = pontoon_nat::config::HostLoopback::ByGateway;
    let mut w = World::new(sim::Config::default(), c);
    let loopback: SocketAddr = "127.0.0.1:80".parse().unwrap();
    w.gateway.host_mut().tcp.servers.insert(loopback, Outcome::Accept);
    let (id, far) = open(&mut w, "10.0.2.2:80".parse().unwrap());
    assert_eq!(far.remote(), loopback);
    upload(&mut w, id, &far, b"hello", 10);
    close(&mut w, id, &far);
}
