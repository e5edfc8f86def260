//! Captures of one port as pcapng (draft-ietf-opsawg-pcapng).
//!
//! The worker copies each frame into a bounded channel and goes on; a thread writes the file. When the disk cannot keep
//! up, frames are left out of the capture, never out of the network, and counted: the count stands in an interface
//! statistics block at the end. Super-frames are recorded as they crossed, so packets of up to 64 KiB are in the file, and
//! checksums that were still to be filled in are shown wrong by tools that verify them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use pontoon_switch::calls::Call;
use pontoon_switch::frame::MAX_FRAME;
use pontoon_switch::{Capture, Direction, Frame, Instant};

/// Frames that may wait to be written; at their largest, 64 KiB, they are 16 MiB.
const WAITING: usize = 256;
/// How long a frame may stay in memory while nothing else comes.
const FLUSH: Duration = Duration::from_millis(200);

/// The system calls of a capture into a file that somebody else has opened.
pub(crate) const CALLS: &[Call] = &[
    Call::any(libc::SYS_write, "the file is written"),
    Call::any(libc::SYS_close, "and closed"),
];

/// The writing side: hand [`Recorder::hook`] to the port, and [`Recorder::finish`] when it is gone.
pub(crate) struct Recorder {
    thread: JoinHandle<io::Result<()>>,
}

struct Record {
    micros: u64,
    direction: Direction,
    bytes: Vec<u8>,
}

/// What the port calls.
struct Hook {
    sender: Sender<Record>,
    missed: Arc<AtomicU64>,
    /// Unix time of the worker clock's origin, in microseconds.
    origin: u64,
}

impl Recorder {
    /// Begins a capture of the port `name` into `file`; `now` is the worker's clock. Gives the hook for the port, whose end
    /// is the capture's.
    pub(crate) fn start(file: File, name: &str, now: Instant) -> io::Result<(Self, Box<dyn Capture>)> {
        let (sender, receiver) = bounded(WAITING);
        let missed = Arc::new(AtomicU64::new(0));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let origin = u64::try_from(unix.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_sub(now.micros());
        let mut writer = Writer {
            out: BufWriter::with_capacity(256 << 10, file),
        };
        writer.begin(name)?;
        let counted = Arc::clone(&missed);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || record(&receiver, &mut writer, &counted, origin))?;
        Ok((
            Self { thread },
            Box::new(Hook {
                sender,
                missed,
                origin,
            }),
        ))
    }

    /// Waits until the file is written, after the hook has been dropped.
    pub(crate) fn finish(self) {
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("the capture is not complete: {e}"),
            Err(_) => tracing::error!("the capture is not complete: its thread panicked"),
        }
    }
}

impl Capture for Hook {
    fn frame(&mut self, now: Instant, direction: Direction, frame: &Frame<'_>) {
        if self.sender.is_full() {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let record = Record {
            micros: self.origin + now.micros(),
            direction,
            bytes: frame.bytes().to_vec(),
        };
        match self.sender.try_send(record) {
            Ok(()) => {}
            // Disconnected: the disk is full, say, and the log has it.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn record(
    receiver: &Receiver<Record>,
    writer: &mut Writer<impl Write>,
    missed: &AtomicU64,
    origin: u64,
) -> io::Result<()> {
    let mut count = 0;
    let mut last = origin;
    let mut flushed = true;
    loop {
        match receiver.recv_timeout(if flushed { Duration::MAX } else { FLUSH }) {
            Ok(record) => {
                writer.packet(&record)?;
                count += 1;
                last = record.micros;
                flushed = false;
            }
            Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                writer.out.flush()?;
                flushed = true;
            }
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
        }
    }
    writer.statistics(last, count, missed.load(Ordering::Relaxed))?;
    writer.out.flush()
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Writes blocks, in this machine's byte order, which the section header tells.
struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    fn begin(&mut self, name: &str) -> io::Result<()> {
        let mut section = Block::default();
        section.u32(0x1a2b_3c4d).u16(1).u16(0);
        // The section's length is not known.
        section.bytes(&u64::MAX.to_ne_bytes());
        section.option(4, b"pontoon").end_of_options();
        self.block(SECTION_HEADER, &section)?;
        let mut interface = Block::default();
        // LINKTYPE_ETHERNET; times are microseconds unless an option says otherwise.
        interface.u16(1).u16(0).u32(u32::try_from(MAX_FRAME).unwrap_or(0));
        interface.option(2, name.as_bytes()).end_of_options();
        self.block(INTERFACE_DESCRIPTION, &interface)
    }

    fn packet(&mut self, record: &Record) -> io::Result<()> {
        let len = u32::try_from(record.bytes.len()).unwrap_or(u32::MAX);
        // `epb_flags`: inbound is what the container sends, as if it had been captured on the switch's side.
        let direction: u32 = match record.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        let mut block = Block::default();
        block
            .u32(0)
            .time(record.micros)
            .u32(len)
            .u32(len)
            .bytes(&record.bytes);
        block.option(2, &direction.to_ne_bytes()).end_of_options();
        self.block(ENHANCED_PACKET, &block)
    }

    fn statistics(&mut self, micros: u64, received: u64, missed: u64) -> io::Result<()> {
        let mut block = Block::default();
        block.u32(0).time(micros);
        block
            .option(4, &(received + missed).to_ne_bytes())
            .option(5, &missed.to_ne_bytes())
            .end_of_options();
        self.block(INTERFACE_STATISTICS, &block)
    }

    /// A block: type, length, body, length.
    fn block(&mut self, kind: u32, body: &Block) -> io::Result<()> {
        let len =
            u32::try_from(body.0.len() + 12).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.out.write_all(&kind.to_ne_bytes())?;
        self.out.write_all(&len.to_ne_bytes())?;
        self.out.write_all(&body.0)?;
        self.out.write_all(&len.to_ne_bytes())
    }
}

/// The body of a block in the making; everything is padded to 32 bits.
#[derive(Default)]
struct Block(Vec<u8>);

impl Block {
    fn u16(&mut self, n: u16) -> &mut Self {
        self.0.extend_from_slice(&n.to_ne_bytes());
        self
    }

    fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend_from_slice(&n.to_ne_bytes());
        self
    }

    /// Microseconds of Unix time, the higher half first.
    fn time(&mut self, micros: u64) -> &mut Self {
        self.u32((micros >> 32) as u32).u32(micros as u32)
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        self.u16(code)
            .u16(u16::try_from(value.len()).unwrap_or(u16::MAX))
            .bytes(value)
    }

    fn end_of_options(&mut self) {
        self.u16(0).u16(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon_switch::Offload;
    use std::io::{Read, Seek};

    /// Types and bodies of the blocks in `file`, whose lengths are checked.
    fn blocks(mut file: File) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        file.rewind().expect("seek");
        file.read_to_end(&mut all).expect("read");
        let word = |at: usize| u32::from_ne_bytes(all[at..at + 4].try_into().expect("four bytes"));
        let mut found = Vec::new();
        let mut at = 0;
        while at < all.len() {
            let len = word(at + 4) as usize;
            assert!(
                len.is_multiple_of(4) && word(at + len - 4) as usize == len,
                "block at {at}"
            );
            found.push((word(at), all[at + 8..at + len - 4].to_vec()));
            at += len;
        }
        found
    }

    #[test]
    fn what_crossed_is_in_the_file_with_time_and_direction() {
        let file = tempfile::tempfile().expect("file");
        let now = Instant::from_micros(500);
        let (recorder, mut hook) =
            Recorder::start(file.try_clone().expect("dup"), "web", now).expect("start");
        for (direction, len) in [(Direction::In, 60), (Direction::Out, 65_549)] {
            let mut bytes = vec![0xab; len];
            hook.frame(
                now + Duration::from_secs(1),
                direction,
                &Frame::whole(&mut bytes, Offload::NONE),
            );
        }
        drop(hook);
        recorder.finish();
        let blocks = blocks(file);
        let kinds: Vec<u32> = blocks.iter().map(|b| b.0).collect();
        let expected = [
            SECTION_HEADER,
            INTERFACE_DESCRIPTION,
            ENHANCED_PACKET,
            ENHANCED_PACKET,
            INTERFACE_STATISTICS,
        ];
        assert_eq!(kinds, expected);
        for (block, (flags, len)) in blocks[2..4].iter().zip([(1u32, 60usize), (2, 65_549)]) {
            let word = |at: usize| u32::from_ne_bytes(block.1[at..at + 4].try_into().expect("four bytes"));
            assert_eq!((word(12) as usize, word(16) as usize), (len, len));
            assert!(block.1[20..20 + len].iter().all(|&b| b == 0xab));
            let options = 20 + len.next_multiple_of(4);
            assert_eq!(word(options + 4), flags);
            let micros = u64::from(word(4)) << 32 | u64::from(word(8));
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_micros(micros));
            assert!(age.map_or(true, |a| a < Duration::from_secs(60)), "{micros}");
        }
    }

    #[test]
    fn a_writer_that_is_stuck_costs_frames_of_the_capture_and_no_time() {
        let (sender, receiver) = bounded(2);
        let missed = Arc::new(AtomicU64::new(0));
        let mut hook = Hook {
            sender,
            missed: Arc::clone(&missed),
            origin: 0,
        };
        for _ in 0..10 {
            hook.frame(
                Instant::ZERO,
                Direction::In,
                &Frame::whole(&mut [0; 60], Offload::NONE),
            );
        }
        assert_eq!((receiver.len(), missed.load(Ordering::Relaxed)), (2, 8));
    }
}
