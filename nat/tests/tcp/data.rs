//! Data both ways: sizes, windows, losses, and how many frames they cost.

use super::*;

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
