//! How connections end, and how long they last.

use super::*;

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
