//! A container whose TCP obeys no rule, on connections that are open: nothing panics, goes on for ever or is left.

mod support;

use std::time::Duration;

use pontoon_fixtures::packet::{Between, Tcp};
use pontoon_nat::host::sim::tcp::Far;
use pontoon_switch::{Checksum, Frame, Gso, GsoKind, Offload, Station};
use proptest::prelude::*;
use support::*;

#[derive(Clone, Debug)]
enum Step {
    /// A segment whose numbers are that far from those that would be right.
    Segment {
        seq: i32,
        ack: i32,
        flags: u8,
        window: u16,
        len: usize,
        gso: Option<u16>,
    },
    Send(usize),
    Take(usize),
    Finish,
    Reset,
    Pass(u64),
}

fn off() -> impl Strategy<Value = i32> {
    prop_oneof![
        6 => Just(0),
        3 => -3..4i32,
        2 => -70_000..70_000i32,
        1 => any::<i32>(),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    // Mostly ACK; FIN 1, SYN 2, RST 4, PSH 8, URG 32.
    prop_oneof![6 => Just(0x10u8), 2 => Just(0x11u8), 1 => Just(0x02u8), 1 => Just(0x14u8), 2 => any::<u8>()]
}

fn step() -> impl Strategy<Value = Step> {
    let window = prop_oneof![Just(0u16), Just(1), Just(0xffff), any::<u16>()];
    let len = prop_oneof![Just(0usize), Just(1), 0..1460usize, 0..65_000usize];
    let gso = proptest::option::of(any::<u16>());
    let segment =
        (off(), off(), flags(), window, len, gso).prop_map(|(seq, ack, flags, window, len, gso)| {
            Step::Segment {
                seq,
                ack,
                flags,
                window,
                len,
                gso,
            }
        });
    prop_oneof![
        12 => segment,
        3 => (1..200_000usize).prop_map(Step::Send),
        3 => (1..200_000usize).prop_map(Step::Take),
        1 => Just(Step::Finish),
        1 => Just(Step::Reset),
        3 => (0..5000u64).prop_map(Step::Pass),
    ]
}

/// The hostile container: what it knows of its connection.
struct Hostile {
    w: World,
    seq: u32,
    /// Behind the gateway's last byte.
    ack: u32,
}

impl Hostile {
    fn segment(&mut self, seq: u32, ack: u32, flags: u8, window: u16, len: usize, gso: Option<u16>) {
        let data = vec![0x55; len];
        let mut frame = Between::v4("10.0.2.100", "198.51.100.10")
            .macs(self.w.container.mac(), self.w.gateway.mac())
            .tcp(Tcp {
                src: 7000,
                dst: 80,
                seq,
                ack,
                flags,
                window,
                // MSS 28, window scale 14.
                options: if flags & 2 == 0 {
                    &[]
                } else {
                    &[2, 4, 0, 28, 1, 3, 3, 14]
                },
                data: &data,
            });
        let offload = Offload {
            checksum: Checksum::Valid,
            gso: gso.map(|size| Gso {
                kind: GsoKind::Tcp4,
                size,
                header_len: 54,
                ecn: false,
            }),
        };
        let now = self.w.now;
        self.w
            .gateway
            .frame(now, PORT, &mut Frame::whole(&mut frame, offload), &mut self.w.out);
        self.settle();
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "something goes on for ever");
            let ready = self.w.gateway.host_mut().take_ready();
            let quiet = ready.is_empty();
            for (token, ready) in ready {
                self.w
                    .gateway
                    .ready(self.w.now, token.encode(), ready, &mut self.w.out);
            }
            self.w.gateway.flush(self.w.now, &mut self.w.out);
            for (bytes, _) in std::mem::take(&mut self.w.out.frames) {
                if bytes[12..14] != [8, 0] || bytes[23] != 6 {
                    continue;
                }
                let word =
                    |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                let header = usize::from(bytes[46] >> 4) * 4;
                let len = bytes.len() - 34 - header;
                assert!(bytes.len() <= 14 + 65_535);
                let syn_fin = u32::from(bytes[47] & 1) + u32::from(bytes[47] >> 1 & 1);
                if bytes[47] & 4 == 0 {
                    self.ack = word(38).wrapping_add(len as u32 + syn_fin);
                    if bytes[47] & 0x10 != 0 {
                        self.seq = word(42);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.w.now + span;
        while let Some(due) = self.w.gateway.deadline().filter(|&d| d <= end) {
            self.w.now = due.max(self.w.now + Duration::from_micros(100));
            self.settle();
        }
        self.w.now = end;
        self.settle();
    }

    fn far(&mut self) -> Option<Far> {
        self.w.gateway.host_mut().tcp.far.last().cloned()
    }
}

/// A connection, open, to a host that takes so much and lets so much be looked at.
fn open(capacity: usize, reach: Option<u32>) -> Hostile {
    let mut h = Hostile {
        w: World::plain(),
        seq: 1000,
        ack: 0,
    };
    h.w.gateway.host_mut().tcp.send_capacity = capacity;
    h.w.gateway.host_mut().tcp.peek_reach = reach;
    h.segment(1000, 0, 2, 0xffff, 0, None);
    let (seq, ack) = (h.seq, h.ack);
    h.segment(seq, ack, 0x10, 0xffff, 0, None);
    assert_eq!(h.w.gateway.flow_counts().get("tcp/established"), Some(&1));
    h
}

/// Segments that overtake others are lost to nobody: all is acknowledged as soon as the last gap is filled, though nothing
/// was sent twice. That is so for a FIN as well.
#[test]
fn segments_that_swap_places_are_put_in_order() {
    for order in [[1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut h = open(300_000, None);
        let (seq, ack) = (h.seq, h.ack);
        for n in order {
            let flags = if n == 2 { 0x11 } else { 0x10 };
            let len = if n == 2 { 100 } else { 20_000 };
            h.segment(seq.wrapping_add(n * 20_000), ack, flags, 0xffff, len, None);
        }
        let far = h.far().expect("a connection");
        assert_eq!(far.take(usize::MAX).len(), 40_100, "{order:?}");
        h.pass(Duration::from_millis(5));
        assert_eq!(h.seq, seq.wrapping_add(40_101), "{order:?}");
    }
}

/// What does not fit the window is not kept: the window is what was promised to be taken.
#[test]
fn nothing_beyond_the_window_is_kept() {
    let mut h = open(30_000, None);
    let (seq, ack) = (h.seq, h.ack);
    h.segment(seq.wrapping_add(10_000), ack, 0x10, 0xffff, 60_000, None);
    h.segment(seq, ack, 0x10, 0xffff, 10_000, None);
    h.pass(Duration::from_millis(5));
    assert_eq!(h.seq, seq.wrapping_add(10_000));
}

fn run(steps: Vec<Step>, capacity: usize, reach: Option<u32>) {
    let mut h = open(capacity, reach);
    for step in steps {
        match step {
            Step::Segment {
                seq,
                ack,
                flags,
                window,
                len,
                gso,
            } => {
                let seq = h.seq.wrapping_add_signed(seq);
                let ack = h.ack.wrapping_add_signed(ack);
                h.segment(seq, ack, flags, window, len, gso);
            }
            Step::Send(n) => {
                if let Some(far) = h.far().filter(|f| !f.released()) {
                    far.send(&pattern(n, 1));
                }
            }
            Step::Take(n) => {
                if let Some(far) = h.far() {
                    far.take(n);
                }
            }
            Step::Finish => {
                if let Some(far) = h.far().filter(|f| !f.released()) {
                    far.finish();
                }
            }
            Step::Reset => {
                if let Some(far) = h.far().filter(|f| !f.released()) {
                    far.reset();
                }
            }
            Step::Pass(ms) => h.pass(Duration::from_millis(ms)),
        }
        h.settle();
    }
    // The container falls silent: all of it ends by itself.
    h.pass(Duration::from_secs(4 * 3600));
    assert_eq!(h.w.gateway.table().len(), 0, "{:?}", h.w.gateway.flow_counts());
    assert_eq!(h.w.gateway.host_mut().tcp.open(), 0, "sockets left open");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_out_of_all_order(
        steps in proptest::collection::vec(step(), 1..60),
        capacity in prop_oneof![Just(3_000usize), Just(300_000)],
        reach in prop_oneof![Just(None), Just(Some(70_000))],
    ) {
        run(steps, capacity, reach);
    }
}
