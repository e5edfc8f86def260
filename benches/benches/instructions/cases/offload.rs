//! Checksums, segmentation, and reading the headers of a packet.

use std::hint::black_box;

use pontoon_benches::frames::{MSS, SUPER_PAYLOAD, Sample, UDP_SIZE, UDP_SUPER_PAYLOAD, tcp, udp};
use pontoon_benches::gateway::{PORT, to_server};
use pontoon_fixtures::packet::Between;
use pontoon_nat::packet::Packet;
use pontoon_switch::Frame;
use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::offload::{self, Sums};

use crate::meter::{counted, row};

pub(crate) fn checksum() {
    for (name, len) in [("20", 20), ("1500", 1500), ("64k", 65_535)] {
        let bytes = vec![0x5a; len];
        row(name, 20, |_| {
            counted(&mut || {
                black_box(offload::sum(black_box(&bytes)));
            });
        });
    }
}

pub(crate) fn segmentation() {
    let between = to_server();
    let tso = tcp(&between, (40_000, 80), SUPER_PAYLOAD);
    let uso = udp(&between, (40_000, 80), UDP_SUPER_PAYLOAD);
    let (tcp_cuts, udp_cuts) = (
        SUPER_PAYLOAD / usize::from(MSS),
        UDP_SUPER_PAYLOAD / usize::from(UDP_SIZE),
    );
    cut("tso", &tso, Sums::Filled, tcp_cuts);
    cut("tso-without-sums", &tso, Sums::Left, tcp_cuts);
    cut("uso", &uso, Sums::Filled, udp_cuts);
    cut("uso-without-sums", &uso, Sums::Left, udp_cuts);
    row("sum-of-one-frame", 20, |_| {
        let mut sample = tcp(&between, (40_000, 80), usize::from(MSS));
        let mut frame = Frame::whole(&mut sample.bytes, sample.offload);
        counted(&mut || offload::complete(black_box(&mut frame)));
    });
}

fn cut(name: &str, sample: &Sample, sums: Sums, expected: usize) {
    let mut scratch = vec![0; HEADROOM + MAX_FRAME];
    let mut sample = sample.clone();
    row(name, 5, |_| {
        let frame = Frame::whole(&mut sample.bytes, sample.offload);
        let mut segments = 0;
        counted(&mut || {
            let cut = offload::segment::<()>(&frame, sums, &mut scratch, |segment| {
                black_box(segment.bytes());
                segments += 1;
                Ok(())
            });
            black_box(cut).expect("nobody fails");
        });
        assert_eq!(segments, expected);
    });
}

pub(crate) fn parse() {
    let v6 = Between::v6("fd00:2::64", "2001:db8::10");
    let frames = [
        ("ipv4", tcp(&to_server(), (40_000, 80), 64).bytes),
        ("ipv6", v6.udp(40_000, 80, &[0; 64])),
    ];
    for (name, mut bytes) in frames {
        let frame = Frame::whole(&mut bytes, pontoon_switch::Offload::NONE);
        row(name, 20, |_| {
            let mut packet = None;
            counted(&mut || packet = Some(Packet::parse(PORT, black_box(&frame))));
            assert!(matches!(packet, Some(Ok(_))));
        });
    }
}
