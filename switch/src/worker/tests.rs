use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::frame::Frame;
use crate::network::PortConfig;
use crate::port::pair::{Wire, pair};
use crate::{DropReason, MacAddr, Out};

/// Watches one socket, and flushes at a deadline.
struct Watcher {
    socket: UnixStream,
    reports: Sender<(usize, Ready)>,
    due: Option<Instant>,
    flushed: Sender<Instant>,
}

impl Station for Watcher {
    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 1])
    }
    fn frame(&mut self, _: Instant, ingress: PortId, _: &mut Frame<'_>, out: &mut dyn Out) {
        out.drop(Some(ingress), DropReason::UnknownProtocol);
    }
    fn ready(&mut self, _: Instant, token: usize, ready: Ready, _: &mut dyn Out) {
        self.reports.send((token, ready)).expect("the test listens");
    }
    fn flush(&mut self, now: Instant, _: &mut dyn Out) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.flushed.send(now).expect("the test listens");
        }
    }
    fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[test]
fn events_calls_and_deadlines_reach_the_station() {
    let builder = Worker::builder().expect("poll");
    let registrar = builder.registrar().expect("clone");
    let (mut far, socket) = UnixStream::pair().expect("sockets");
    socket.set_nonblocking(true).expect("socket");
    registrar
        .register(socket.as_fd(), 42, Interest::READABLE)
        .expect("watch");
    let refused = registrar
        .register(far.as_fd(), PORT_TOKEN, Interest::READABLE)
        .expect_err("out of range");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    let (reports, heard) = unbounded();
    let (flushed, flushes) = unbounded();
    let worker = builder
        .start(Watcher {
            socket,
            reports,
            due: None,
            flushed,
        })
        .expect("worker");
    let handle = worker.handle();
    let thread = std::thread::spawn(move || worker.run());

    far.write_all(b"x").expect("write");
    let patience = Duration::from_secs(5);
    let (token, ready) = heard.recv_timeout(patience).expect("a report");
    assert!(token == 42 && ready.readable && !ready.hangup);

    let due = handle
        .call(|network, now| {
            let due = now + Duration::from_millis(30);
            network.station_mut().due = Some(due);
            due
        })
        .expect("lives");
    assert!(flushes.recv_timeout(patience).expect("a flush") >= due);

    drop(far);
    let (token, ready) = heard.recv_timeout(patience).expect("a report");
    assert!(token == 42 && ready.hangup);
    // The descriptor is the station's to give back.
    let left = handle
        .call(|network, _| network.station().socket.take_error().is_ok())
        .expect("lives");
    assert!(left);

    handle.stop();
    thread.join().expect("no panic").expect("no error");
    assert_eq!(handle.call(|_, _| ()), Err(Stopped));
    handle.stop();
}

#[test]
fn a_port_in_memory_is_drained_when_it_is_added() {
    let (reports, _heard) = unbounded();
    let (flushed, _flushes) = unbounded();
    let (socket, _far) = UnixStream::pair().expect("sockets");
    let worker = Worker::builder()
        .and_then(|b| {
            b.start(Watcher {
                socket,
                reports,
                due: None,
                flushed,
            })
        })
        .expect("worker");
    let handle = worker.handle();
    let thread = std::thread::spawn(move || worker.run());
    let (port, end) = pair(Wire::default());
    for _ in 0..300 {
        assert!(end.push_bytes(&[2; 60]));
    }
    let id = handle
        .call(|n, now| n.add_port(now, Box::new(port), PortConfig::default()))
        .expect("lives");
    let id = id.expect("added");
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while end.waiting() == 0 && std::time::Instant::now() < until {
        let frames = handle
            .call(move |n, _| n.port(id).map(|p| p.rx.frames))
            .expect("lives");
        if frames == Some(300) {
            break;
        }
    }
    let frames = handle
        .call(move |n, _| n.port(id).map(|p| p.rx.frames))
        .expect("lives");
    assert_eq!(frames, Some(300), "all of them, over several rounds");
    handle.stop();
    thread.join().expect("no panic").expect("no error");
}

#[test]
fn the_ready_list_has_each_port_once() {
    let mut list = ReadyList::default();
    for id in [1, 2, 1, 3, 2] {
        list.add(PortId(id));
    }
    assert_eq!(list.len(), 3);
    assert_eq!([list.take(), list.take()], [Some(PortId(1)), Some(PortId(2))]);
    list.add(PortId(1));
    assert_eq!(
        [list.take(), list.take(), list.take()],
        [Some(PortId(3)), Some(PortId(1)), None]
    );
    assert!(list.is_empty());
}

#[test]
fn the_worker_looks_as_long_as_it_pays() {
    let mut patience = Patience::default();
    assert!(!patience.looks(), "an idle network sleeps at once");
    patience.slept(LOOK * 10);
    assert!(!patience.looks(), "a long sleep would have made it look in vain");
    patience.slept(LOOK / 2);
    for _ in 1..Patience::FULL {
        assert!(patience.looks());
        patience.disappointed();
        patience.slept(LOOK * 10);
    }
    patience.rewarded();
    for _ in 0..Patience::FULL {
        assert!(patience.looks(), "a reward makes up for all that was in vain");
        patience.disappointed();
    }
    assert!(!patience.looks());
}
