//! The TCP relay between a simulated container and simulated host sockets.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pontoon_fixtures::packet::{Between, Tcp};
use pontoon_fixtures::sim::{self, Impairment};
use pontoon_nat::host::sim::tcp::{Closed, Far, Outcome, SimListener};
use pontoon_nat::publish::{SourceAction, SourceRule, Transport};
use pontoon_switch::{DropReason, Station};
use smoltcp::socket::tcp::State;
use support::tcp::*;
use support::*;

const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;
const EINVAL: i32 = 22;
const ECONNREFUSED: i32 = 111;

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
fn bytes_arrive_exactly_in_both_directions_at_every_size_of_segment() {
    for server in [SERVER, SERVER6] {
        for (mtu, tso) in [(1500, false), (1500, true), (65_520, false), (1280, true)] {
            let mut c = config();
            c.mtu = mtu;
            let container = sim::Config {
                mtu: usize::from(mtu),
                tso,
                ..sim::Config::default()
            };
            let mut w = World::new(container, c);
            let (id, far) = open(&mut w, server);
            upload(&mut w, id, &far, &pattern(1 << 20, 1), 100_000);
            download(&mut w, id, &far, &pattern(1 << 20, 2), 100_000);
            close(&mut w, id, &far);
        }
    }
}

/// One frame carries more than a segment, and never more than a frame may.
/// RFC 791: every link carries 68 bytes. A segment then has 28 bytes of data.
#[test]
fn bytes_arrive_on_the_narrowest_link() {
    for tso in [false, true] {
        let mut c = config();
        c.mtu = 68;
        c.subnet6 = None;
        let container = sim::Config {
            mtu: 68,
            tso,
            ..sim::Config::default()
        };
        let mut w = World::new(container, c);
        let (id, far) = open(&mut w, SERVER);
        upload(&mut w, id, &far, &pattern(50_000, 1), 10_000);
        download(&mut w, id, &far, &pattern(50_000, 2), 10_000);
        close(&mut w, id, &far);
    }
}

#[test]
fn data_to_the_container_go_in_super_frames() {
    let mut w = World::new(
        sim::Config {
            tcp_buffer: 1 << 20,
            ..sim::Config::default()
        },
        config(),
    );
    let (id, far) = open(&mut w, SERVER);
    download(&mut w, id, &far, &pattern(4 << 20, 3), 1 << 20);
    assert!(w.largest > 60_000 && w.largest <= 65_549, "{}", w.largest);
    // Once for the SYN-ACK, once for the first segment, not for each.
    assert!(far.space_asked() <= 3, "{}", far.space_asked());
    close(&mut w, id, &far);
}

#[test]
fn a_window_beyond_64_kib_is_used_both_ways() {
    let mut w = World::new(
        sim::Config {
            tcp_buffer: 1 << 20,
            ..sim::Config::default()
        },
        config(),
    );
    w.gateway.host_mut().tcp.send_capacity = 1 << 20;
    let (id, far) = open(&mut w, SERVER);
    far.send(&pattern(500_000, 1));
    w.pass(SECOND);
    assert_eq!(
        w.container.tcp(id).recv_queue(),
        500_000,
        "all of it without the container reading"
    );
    w.container.tcp_send(id, &pattern(500_000, 2));
    w.pass(SECOND);
    assert_eq!(far.take(usize::MAX).len(), 500_000);
    w.container.tcp_recv(id, usize::MAX);
    close(&mut w, id, &far);
}

/// A host that has all its data and its end in the socket at once makes no further edge.
#[test]
fn a_window_beyond_the_reach_of_a_peek_is_used_up_to_there() {
    let mut w = World::new(
        sim::Config {
            tcp_buffer: 1 << 20,
            ..sim::Config::default()
        },
        config(),
    );
    w.gateway.host_mut().tcp.peek_reach = Some(100_000);
    let (id, far) = open(&mut w, SERVER);
    let data = pattern(900_000, 4);
    far.send(&data);
    far.finish();
    w.pass(SECOND);
    assert!(w.container.tcp_recv(id, usize::MAX) == data);
    assert!(w.container.tcp_ended(id));
}

#[test]
fn the_mss_is_that_of_the_link_and_of_the_container() {
    let mut c = config();
    c.mtu = 1400;
    let mut w = World::new(
        sim::Config {
            mtu: 1400,
            ..sim::Config::default()
        },
        c,
    );
    let (id, far) = open(&mut w, SERVER);
    let before = w.container.received_frames();
    far.send(&pattern(1360 * 10, 1));
    w.pass(SECOND);
    let segments = w.container.received_frames() - before;
    assert!(
        (10..=12).contains(&segments),
        "{segments} segments for ten times the MSS"
    );
    w.container.tcp_recv(id, usize::MAX);
    close(&mut w, id, &far);
}

#[test]
fn a_container_that_does_not_read_closes_the_window_and_reopens_it() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    let data = pattern(300_000, 5);
    far.send(&data);
    w.pass(120 * SECOND);
    let read = w.container.tcp(id).recv_queue();
    assert!(read <= 65_536 && far.unconsumed() >= 300_000 - 65_536);
    // Probes grow rare, and do not end.
    for _ in 0..10 {
        let before = w.container.received_frames();
        w.pass(600 * SECOND);
        let probes = w.container.received_frames() - before;
        assert!((1..=20).contains(&probes), "{probes} probes in ten minutes");
    }
    let mut got = Vec::new();
    w.until(300 * SECOND, "the rest", |w| {
        got.extend(w.container.tcp_recv(id, 10_000));
        got.len() >= data.len()
    });
    assert!(got == data);
    close(&mut w, id, &far);
}

#[test]
fn a_host_that_does_not_read_closes_the_window_and_reopens_it() {
    for capacity in [3_000, 16_000, 100_000] {
        let mut w = World::plain();
        w.gateway.host_mut().tcp.send_capacity = capacity;
        let (id, far) = open(&mut w, SERVER);
        let data = pattern(300_000, 6);
        let mut sent = 0;
        for _ in 0..20 {
            sent += w.container.tcp_send(id, &data[sent..]);
            w.pass(3 * SECOND);
        }
        let mut got = Vec::new();
        w.until(600 * SECOND, "the rest", |w| {
            sent += w.container.tcp_send(id, &data[sent..]);
            got.extend(far.take(2_000));
            got.len() >= data.len()
        });
        assert!(got == data);
        close(&mut w, id, &far);
    }
}

/// What the socket did not take is asked for again at once, not after the container's timer.
#[test]
fn back_pressure_costs_no_retransmission_timeout() {
    let mut w = World::plain();
    w.gateway.host_mut().tcp.send_capacity = 40_000;
    let (id, far) = open(&mut w, SERVER);
    let start = w.now;
    upload(&mut w, id, &far, &pattern(2 << 20, 7), 8_000);
    // 262 rounds of 8,000 bytes; `until` lets at most 50 ms pass between two.
    let took = w.now.since(start);
    assert!(took < 60 * SECOND, "{took:?}");
    close(&mut w, id, &far);
}

/// Small pieces cost up to twice their length in the kernel's memory: what a container is promised counts that, as what is
/// not taken costs it a loss.
#[test]
fn what_is_promised_for_small_segments_is_taken() {
    for capacity in [40_000, 87_040, 400_000] {
        let mut w = World::plain();
        w.gateway.host_mut().tcp.send_capacity = capacity;
        w.gateway.host_mut().tcp.piece_overhead = Some(1280);
        let (id, far) = open(&mut w, SERVER);
        let start = w.now;
        upload(&mut w, id, &far, &pattern(2 << 20, 7), 8_000);
        let took = w.now.since(start);
        assert!(took < 60 * SECOND, "{capacity}: {took:?}");
        // Only where its last piece before the edge of the window is a small one, which a kernel would not send.
        assert!(far.short_sends() < 20, "{capacity}: {}", far.short_sends());
        close(&mut w, id, &far);
    }
}

/// RFC 9293 section 3.8.6.2.1: a container that is offered neither a segment nor half of the largest window so far waits for
/// its timer. While the host's socket takes data, it is offered one of the two.
#[test]
fn a_window_is_always_one_that_the_container_would_use() {
    for (mtu, capacity) in [
        (65_520, 69_120),
        (65_520, 30_000),
        (65_520, 400_000),
        (1500, 69_120),
    ] {
        let mut c = config();
        c.mtu = mtu;
        let container = sim::Config {
            mtu: usize::from(mtu),
            tso: true,
            ..sim::Config::default()
        };
        let mut w = World::new(container, c);
        w.gateway.host_mut().tcp.send_capacity = capacity;
        w.gateway.host_mut().tcp.piece_overhead = Some(1280);
        let (id, far) = open(&mut w, SERVER);
        w.received = Some(Vec::new());
        let data = pattern(1 << 20, 7);
        let (mut sent, mut got, mut most) = (0, Vec::new(), 0);
        w.until(600 * SECOND, "upload", |w| {
            let mut window = None;
            for frame in w.received.as_mut().expect("noted").drain(..) {
                if frame[12..14] != [8, 0] {
                    continue;
                }
                let tcp = 14 + 20;
                let field = u16::from_be_bytes([frame[tcp + 14], frame[tcp + 15]]);
                window = Some(u32::from(field) << 7);
                most = most.max(u32::from(field) << 7);
            }
            // The last of them is what stands.
            if let Some(window) = window.filter(|_| far.has_room()) {
                let useful = (most / 2).min(u32::from(mtu) - 40);
                assert!(
                    window >= useful,
                    "{mtu} {capacity}: {window} of {most} at {}",
                    got.len()
                );
            }
            sent += w.container.tcp_send(id, &data[sent..]);
            got.extend(far.take(3_000));
            got.len() >= data.len()
        });
        assert!(got == data);
        w.received = None;
        close(&mut w, id, &far);
    }
}

#[test]
fn losses_on_the_tap_lose_nothing() {
    for seed in 1..=6 {
        for tso in [false, true] {
            let wire = Impairment::lossy(40);
            let c = sim::Config {
                seed,
                tso,
                inward: wire,
                outward: wire,
                ..sim::Config::default()
            };
            let mut w = World::new(c, config());
            let (id, far) = open(&mut w, SERVER);
            upload(&mut w, id, &far, &pattern(200_000, 8), 50_000);
            download(&mut w, id, &far, &pattern(200_000, 9), 50_000);
            close(&mut w, id, &far);
        }
    }
}

/// RFC 5382 REQ-5: a half-closed connection goes on, here for a day.
#[test]
fn half_close_by_the_container_lasts() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.container.tcp_close(id);
    w.until(SECOND, "FIN passed on", |_| far.closed() == Closed::Fin);
    for n in 0..4 {
        w.pass(6 * 3600 * SECOND);
        assert_eq!(w.container.tcp_state(id), State::FinWait2);
        download(&mut w, id, &far, &pattern(10_000, n), 10_000);
    }
    far.finish();
    w.until(SECOND, "released", |_| far.released());
    assert_clean(&mut w);
}

/// RFC 5382 REQ-5, the other way.
#[test]
fn half_close_by_the_host_lasts() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    far.finish();
    w.until(SECOND, "FIN passed on", |w| {
        w.container.tcp_state(id) == State::CloseWait
    });
    for n in 0..4 {
        w.pass(6 * 3600 * SECOND);
        upload(&mut w, id, &far, &pattern(10_000, n), 10_000);
    }
    w.container.tcp_close(id);
    w.until(SECOND, "FIN passed on", |_| far.closed() == Closed::Fin);
    assert_clean(&mut w);
}

#[test]
fn data_before_the_end_of_the_stream_arrive_before_it() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    far.send(&pattern(150_000, 1));
    far.finish();
    let mut got = Vec::new();
    w.until(10 * SECOND, "data and end", |w| {
        got.extend(w.container.tcp_recv(id, 10_000));
        w.container.tcp_ended(id)
    });
    assert!(got == pattern(150_000, 1));
    w.container.tcp_close(id);
    assert_clean(&mut w);
}

#[test]
fn a_reset_by_the_container_resets_the_host() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.container.tcp_abort(id);
    w.settle();
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
}

#[test]
fn a_reset_by_the_host_resets_the_container() {
    for data in [0, 10_000] {
        let mut w = World::plain();
        let (id, far) = open(&mut w, SERVER);
        far.send(&pattern(data, 1));
        far.reset();
        w.settle();
        assert_eq!(w.container.tcp_state(id), State::Closed);
        assert_eq!(
            w.container.tcp_recv(id, usize::MAX).len(),
            data,
            "what came before the reset"
        );
        assert_clean(&mut w);
    }
}

/// RFC 5382 REQ-10; RFC 1191: one that tells of a narrower link is heeded.
#[test]
fn an_icmp_error_of_the_container_ends_no_connection() {
    let mut w = World::plain();
    let id = w.container.tcp_connect_from(5000, SERVER);
    w.until(5 * SECOND, "connected", |w| {
        w.container.tcp_state(id) == State::Established
    });
    let far = w.gateway.host_mut().tcp.far[0].clone();
    let sent = Between::v4("198.51.100.10", "10.0.2.100").tcp(Tcp {
        src: 80,
        dst: 5000,
        ..Tcp::default()
    });
    for (kind, code, rest) in [
        (3, 1, [0; 4]),
        (3, 3, [0; 4]),
        (11, 0, [0; 4]),
        (3, 4, [0, 0, 3, 0xe8]),
    ] {
        let error = w.container.to(SERVER.ip()).icmp(kind, code, rest, &sent[14..]);
        w.container.inject(error);
        w.settle();
    }
    let before = w.container.received_frames();
    download(&mut w, id, &far, &pattern(9_600, 1), 10_000);
    let segments = w.container.received_frames() - before;
    assert!(
        segments >= 10,
        "{segments} segments of 960 bytes at a path's MTU of 1000"
    );
    close(&mut w, id, &far);
}

#[test]
fn a_simultaneous_close_leaves_nothing() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.container.tcp_close(id);
    far.finish();
    w.until(SECOND, "closed", |_| {
        far.closed() == Closed::Fin && far.released()
    });
    assert_clean(&mut w);
}

#[test]
fn a_port_is_used_again_at_once() {
    let mut w = World::plain();
    for round in 0..5 {
        let id = w.container.tcp_connect_from(5000, SERVER);
        w.until(5 * SECOND, "connected", |w| {
            w.container.tcp_state(id) == State::Established
        });
        let far = w.gateway.host_mut().tcp.far.last().unwrap().clone();
        upload(&mut w, id, &far, &pattern(1000, round), 1000);
        far.finish();
        w.until(SECOND, "end", |w| w.container.tcp_state(id) == State::CloseWait);
        w.container.tcp_close(id);
        w.until(SECOND, "closed", |w| w.container.tcp_state(id) == State::Closed);
        w.container.tcp_forget(id);
    }
    assert_eq!(w.gateway.host_mut().tcp.far.len(), 5);
    assert_clean(&mut w);
}

#[test]
fn an_idle_connection_lives_as_long_as_its_container_answers() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.pass(5 * 24 * 3600 * SECOND);
    w.pass(5 * 24 * 3600 * SECOND);
    upload(&mut w, id, &far, b"still here", 100);
    close(&mut w, id, &far);
}

/// Each frame to the container costs as much as a system call and its TCP: what can be carried by another is not sent alone.
#[test]
fn request_answer_and_end_are_one_frame_each() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.settle();
    let before = w.frames;
    assert_eq!(w.container.tcp_send(id, b"request"), 7);
    w.settle();
    assert_eq!(far.take(100), b"request");
    assert_eq!(w.frames, before, "the acknowledgement waits");
    far.send(b"answer");
    w.settle();
    assert_eq!(w.container.tcp_recv(id, 100), b"answer");
    assert_eq!(w.frames, before + 1);
    w.container.tcp_close(id);
    w.settle();
    assert_eq!(far.closed(), Closed::Fin);
    far.finish();
    w.settle();
    assert_eq!(w.frames, before + 2);
    assert!(far.released());
    assert_clean(&mut w);
}

/// RFC 9293 section 3.8.6.3.
#[test]
fn an_acknowledgement_waits_no_longer_than_a_moment() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.settle();
    let before = w.frames;
    w.container.tcp_send(id, b"a statement");
    w.pass(Duration::from_millis(2));
    assert_eq!(w.frames, before + 1);
    w.container.tcp_send(id, &[0; 4000]);
    w.settle();
    assert_eq!(w.frames, before + 2, "two segments are acknowledged at once");
    far.take(5000);
    w.container.tcp_close(id);
    w.pass(Duration::from_millis(2));
    assert_eq!(w.frames, before + 3);
    far.finish();
    assert_clean(&mut w);
}

#[test]
fn a_far_side_that_vanished_is_noticed_by_the_hosts_kernel() {
    let mut w = World::plain();
    let (id, far) = open(&mut w, SERVER);
    w.pass(30 * SECOND);
    assert!(!far.kept_alive(), "short connections are spared the calls");
    upload(&mut w, id, &far, b"request", 100);
    w.pass(100 * SECOND);
    assert!(far.kept_alive());
    close(&mut w, id, &far);
}

#[test]
fn a_container_that_vanished_is_noticed() {
    let mut w = World::plain();
    let (_, far) = open(&mut w, SERVER);
    let dead = Impairment {
        loss: 1000,
        ..Impairment::NONE
    };
    w.container.impair(dead, dead);
    w.pass(2 * 3600 * SECOND);
    assert_eq!(far.closed(), Closed::Open);
    w.pass(3600 * SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
}

#[test]
fn a_container_that_vanished_amid_data_is_noticed() {
    let mut w = World::plain();
    let (_, far) = open(&mut w, SERVER);
    let dead = Impairment {
        loss: 1000,
        ..Impairment::NONE
    };
    w.container.impair(dead, dead);
    far.send(b"into the void");
    // RFC 9293 section 3.8.3: not before 100 seconds.
    w.pass(100 * SECOND);
    assert_eq!(far.closed(), Closed::Open);
    w.pass(1500 * SECOND);
    assert_eq!(far.closed(), Closed::Reset);
    assert_clean(&mut w);
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

#[test]
fn a_container_out_of_its_share_is_refused_and_others_go_on() {
    let mut c = config();
    c.max_flows_per_container = 3;
    let mut w = World::new(sim::Config::default(), c);
    let open_ones: Vec<_> = (0..3).map(|_| open(&mut w, SERVER)).collect();
    w.container.tcp_connect(SERVER);
    w.pass(SECOND / 2);
    assert_eq!(w.dropped(DropReason::QuotaFull), 1);
    assert_eq!(w.container.take_errors().len(), 1);
    for (id, far) in &open_ones {
        upload(&mut w, *id, far, b"alive", 10);
    }
}

#[test]
fn closed_connections_give_their_share_of_sockets_back() {
    let mut w = World::plain();
    w.gateway.limit_sockets(1);
    for n in 1..6 {
        let (id, far) = open(&mut w, SERVER);
        let refused = w.container.tcp_connect(SERVER);
        w.pass(SECOND / 2);
        assert_eq!(w.dropped(DropReason::QuotaFull), n);
        assert_eq!(w.container.take_errors().len(), 1);
        // It would ask again, and get in.
        w.container.tcp_abort(refused);
        upload(&mut w, id, &far, b"alive", 10);
        close(&mut w, id, &far);
    }
}

#[test]
fn a_host_out_of_descriptors_refuses_and_goes_on() {
    let mut w = World::plain();
    w.gateway.host_mut().tcp.descriptors = Some(2);
    let (a, far_a) = open(&mut w, SERVER);
    let (_, _) = open(&mut w, SERVER);
    w.container.tcp_connect(SERVER);
    w.pass(SECOND / 2);
    assert_eq!(w.dropped(DropReason::HostExhausted), 1);
    assert_eq!(w.container.take_errors().len(), 1);
    upload(&mut w, a, &far_a, b"alive", 10);
}

mod published {
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
}
