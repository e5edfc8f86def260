//! What stands around a switch: a station that says nothing, and wires whose own work is next to nothing.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pontoon_switch::frame::{HEADROOM, VNET_HEADER};
use pontoon_switch::port::{Capabilities, Received};
use pontoon_switch::{
    DropReason, Frame, Instant, MacAddr, Offload, Out, Port, PortId, Ready, Station, Switch,
};

use crate::frames::{Sample, mac, neighbours, tcp};

/// A station without a word.
#[derive(Debug)]
pub struct Mute;

impl Station for Mute {
    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 0xfe])
    }
    fn frame(&mut self, _: Instant, _: PortId, _: &mut Frame<'_>, _: &mut dyn Out) {}
    fn ready(&mut self, _: Instant, _: usize, _: Ready, _: &mut dyn Out) {}
    fn flush(&mut self, _: Instant, _: &mut dyn Out) {}
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// Has `switch` learn the addresses 1 to `addresses` at `port`, and returns a short frame from address 0 to each.
pub fn populate(switch: &mut Switch, port: PortId, addresses: u16) -> Vec<Vec<u8>> {
    use pontoon_switch::Ingress;
    for n in 1..=addresses {
        let hello = tcp(&neighbours(MacAddr::BROADCAST, mac(n)), (5000, 80), 100);
        switch.decide(Instant::ZERO, Ingress::Port(port), &hello.bytes);
    }
    (1..=addresses)
        .map(|n| tcp(&neighbours(mac(n), mac(0)), (5000, 80), 100).bytes)
        .collect()
}

/// Bytes of a frame that are put into the buffer anew for each read; what is behind them is what the buffer holds.
const FRESH: usize = 64;

/// A wire that brings the same frame as often as it is told to, and takes every frame. The kernel's copying is not
/// part of it: that is what a bench of this program's own instructions has to leave out.
#[derive(Debug)]
pub struct Still {
    sample: Sample,
    header: [u8; VNET_HEADER],
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicU64,
    taken: AtomicU64,
}

/// The far end of a [`Still`] wire.
#[derive(Clone, Debug)]
pub struct Far(Arc<State>);

impl Still {
    /// A wire that brings `sample`, and its far end.
    pub fn new(sample: Sample) -> (Self, Far) {
        let state = Arc::new(State::default());
        let header = sample.offload.encode();
        let far = Far(state.clone());
        (
            Self {
                sample,
                header,
                state,
            },
            far,
        )
    }
}

impl Far {
    /// Sends the frame `n` times more.
    pub fn send(&self, n: u64) {
        self.0.waiting.fetch_add(n, Ordering::Relaxed);
    }

    /// Bytes that came.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl Port for Still {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn recv<'b>(&mut self, buf: &'b mut [u8]) -> Received<'b> {
        let waiting = self.state.waiting.load(Ordering::Relaxed);
        if waiting == 0 {
            return Received::Empty;
        }
        self.state.waiting.store(waiting - 1, Ordering::Relaxed);
        let bytes = &self.sample.bytes;
        let fresh = bytes.len().min(FRESH);
        buf[HEADROOM..HEADROOM + fresh].copy_from_slice(&bytes[..fresh]);
        let end = HEADROOM + bytes.len();
        match Offload::decode(&self.header, &buf[HEADROOM..end]) {
            Ok(offload) => Received::Frame(Frame::new(buf, HEADROOM, end, offload)),
            Err(_) => Received::Dropped(DropReason::BadOffload),
        }
    }

    fn send(&mut self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let taken = self.state.taken.load(Ordering::Relaxed);
        self.state
            .taken
            .store(taken + frame.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn mtu(&self) -> u32 {
        1500
    }

    fn kind(&self) -> &'static str {
        "still"
    }
}
