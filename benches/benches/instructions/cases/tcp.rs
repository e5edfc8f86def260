//! The TCP relay, between a container's segments and a host socket that takes and gives at once.

use pontoon_benches::frames::{MSS, SUPER_PAYLOAD, Sample, TRANSPORT};
use pontoon_benches::gateway::{FIRST_SEQ, Rig, number, segment, syn, to_server};
use pontoon_benches::host::SERVER;
use pontoon_fixtures::packet::{Tcp, flags};
use pontoon_switch::Offload;

use crate::meter::{counted, row};

/// Payload of a segment with time stamps at MTU 1500.
const PAYLOAD: usize = 1448;

const ROUNDS: u32 = 50;

/// In-order segments from the container, and the acknowledgement at the end of a batch.
pub(crate) fn out() {
    let mut rig = Rig::default();
    let ack = rig.connect();
    let mut seq = FIRST_SEQ;
    for (name, payload) in [("1448", PAYLOAD), ("64k", SUPER_PAYLOAD)] {
        let mut sample = segment(payload);
        row(name, ROUNDS, |_| {
            number(&mut sample.bytes, seq, ack, flags::ACK);
            seq = seq.wrapping_add(payload as u32);
            counted(&mut || rig.frame(&mut sample));
            rig.flush();
            assert_eq!(rig.wire.taken.take(), payload);
        });
    }
    // From a device without checksum offload.
    row("1448-summed", ROUNDS, |_| {
        let data = [0x5a; PAYLOAD];
        let bytes = to_server().tcp(Tcp {
            src: pontoon_benches::gateway::SOURCE,
            dst: SERVER.port(),
            seq,
            ack,
            flags: flags::ACK,
            window: 0xffff,
            data: &data,
            ..Tcp::default()
        });
        let mut sample = Sample {
            bytes,
            offload: Offload::NONE,
        };
        seq = seq.wrapping_add(PAYLOAD as u32);
        counted(&mut || rig.frame(&mut sample));
        rig.flush();
        assert_eq!(rig.wire.taken.take(), PAYLOAD);
    });
    // More than two segments, which are acknowledged in their batch.
    let mut sample = segment(SUPER_PAYLOAD);
    rig.sent();
    row("flush-with-ack", ROUNDS, |_| {
        number(&mut sample.bytes, seq, ack, flags::ACK);
        seq = seq.wrapping_add(SUPER_PAYLOAD as u32);
        rig.frame(&mut sample);
        counted(&mut || rig.flush());
        assert_eq!(rig.sent(), 1);
    });
    row("flush-idle", ROUNDS, |_| {
        counted(&mut || rig.flush());
        assert_eq!(rig.sent(), 0);
    });
}

/// A super-frame's worth from the host, and the container's acknowledgement of it.
pub(crate) fn into() {
    let mut rig = Rig::default();
    let mut ack = rig.connect();
    rig.sent();
    let mut answer = segment(0);
    let chunk = SUPER_PAYLOAD;
    // A window of one chunk, scaled by the 7 of the SYN.
    let window = (chunk as u16).div_ceil(128).to_be_bytes();
    answer.bytes[TRANSPORT + 14..TRANSPORT + 16].copy_from_slice(&window);
    let step = |rig: &mut Rig, ack: &mut u32, sample: &mut Sample| {
        *ack = ack.wrapping_add(chunk as u32);
        assert_eq!(rig.next_expected(chunk as u32), *ack);
        number(&mut sample.bytes, FIRST_SEQ, *ack, flags::ACK);
    };
    row("64k", ROUNDS, |_| {
        rig.wire.arriving.set(chunk);
        counted(&mut || rig.ready());
        assert_eq!(rig.sent(), 1);
        step(&mut rig, &mut ack, &mut answer);
        rig.frame(&mut answer);
        rig.flush();
        assert_eq!(rig.wire.arriving.get(), 0);
    });
    row("64k-acknowledged", ROUNDS, |_| {
        rig.wire.arriving.set(chunk);
        rig.ready();
        step(&mut rig, &mut ack, &mut answer);
        counted(&mut || rig.frame(&mut answer));
        rig.flush();
        assert_eq!(rig.wire.arriving.get(), 0);
    });
    // As a download goes: each acknowledgement makes room for the next chunk.
    rig.wire.arriving.set(chunk);
    rig.ready();
    rig.sent();
    row("64k-clocked", ROUNDS, |_| {
        rig.wire.arriving.set(chunk * 2);
        step(&mut rig, &mut ack, &mut answer);
        counted(&mut || rig.frame(&mut answer));
        rig.flush();
        assert_eq!(rig.sent(), 1);
    });
}

/// SYN, request, response, the host's end, the container's end: a connection from nothing to nothing.
pub(crate) fn connection() {
    const REQUEST: u32 = 100;
    const RESPONSE: u32 = 1000;
    let mut rig = Rig::default();
    let (mut open, mut bare, mut request) = (syn(), segment(0), segment(REQUEST as usize));
    let ours = FIRST_SEQ;
    let whole = |rig: &mut Rig| {
        rig.frame(&mut open);
        let mut ack = rig.next_expected(0);
        number(&mut bare.bytes, ours, ack, flags::ACK);
        rig.frame(&mut bare);
        number(&mut request.bytes, ours, ack, flags::ACK | flags::PSH);
        rig.frame(&mut request);
        rig.flush();
        rig.wire.arriving.set(RESPONSE as usize);
        rig.ready();
        ack = ack.wrapping_add(RESPONSE);
        number(&mut bare.bytes, ours + REQUEST, ack, flags::ACK);
        rig.frame(&mut bare);
        rig.wire.ended.set(true);
        rig.ready();
        ack = ack.wrapping_add(1);
        number(&mut bare.bytes, ours + REQUEST, ack, flags::ACK | flags::FIN);
        rig.frame(&mut bare);
        rig.flush();
    };
    let mut whole = whole;
    row("whole", ROUNDS, |_| {
        rig.wire.ended.set(false);
        counted(&mut || whole(&mut rig));
        // SYN-ACK, response with the acknowledgement of the request, FIN, acknowledgement of the FIN.
        assert_eq!(rig.sent(), 4);
        assert_eq!(rig.out.last[TRANSPORT + 13] & flags::RST, 0);
        // The gateway's FIN was first, so it waits: the next connection of the container's takes its place.
        assert!(rig.gateway.table().len() <= 1);
        assert_eq!(rig.wire.taken.take(), REQUEST as usize);
    });
    assert!(RESPONSE < u32::from(MSS));
}
