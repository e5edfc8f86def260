//! TCP on the happy path: what a container sends goes from the TAP to `send`, what the host's socket has is peeked at behind
//! headers and written to the TAP as one super-frame, and leaves the socket when the container has acknowledged it.
//!
//! One thread, one buffer, edge-triggered epoll, no allocation but for a new connection. Left out: IPv6, IP options and
//! fragments; ARP (the container has a permanent neighbour entry); any check of what the container claims; refused and
//! slow connects (the thread waits); timers but one that sends everything again after 200 ms of silence; congestion and
//! zero-window probes; resets (a connection that fails is forgotten); more connections than a walk through a list allows.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use pontoon_switch::offload;
use pontoon_switch::sys::tcp;
use pontoon_switch::{Checksum, Gso, GsoKind, Offload};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::{BUDGET, BUFFER};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Where payload stands: virtio-net header, Ethernet, IPv4, TCP without options.
const PAYLOAD: usize = 10 + 14 + 20 + 20;
/// Payload of the longest IPv4 packet.
const SUPER_FRAME: usize = 65_535 - 40;
/// Our window scale.
const SCALE: u8 = 8;
/// Our first sequence number.
const ISN: u32 = 0x1000_0000;
/// Address of the gateway, and so what the container's neighbour entry has to say.
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// The TAP among what epoll reports; the others are the first numbers of connections.
const TAP: u64 = u64::MAX;

struct Conn {
    /// Addresses and ports as they stand in the container's frames, from the IPv4 source address on.
    key: [u8; 12],
    mac: [u8; 6],
    socket: TcpStream,
    mss: usize,
    scale: u8,
    /// Next number expected from the container, and the right edge of the window it was promised.
    rcv: u32,
    edge: u32,
    /// First number not acknowledged by it, next one to send, and behind the last ever sent.
    una: u32,
    nxt: u32,
    max: u32,
    window: u32,
    duplicates: u32,
    /// Duplicates tell nothing new before this number is acknowledged.
    recover: u32,
    readable: bool,
    hangup: bool,
    /// The container waits for an acknowledgement.
    ack_due: bool,
    /// Data went to the socket since the window was computed.
    sent: bool,
    /// The socket did not take all, or has little room.
    full: bool,
    fin_in: bool,
    fin_out: bool,
}

/// Serves one container.
pub(crate) fn run(tap: OwnedFd, mtu: u16) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edge = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(&poll, &tap, EventData::new_u64(TAP), edge)?;
    let mut buf = vec![0; BUFFER];
    let mut conns: Vec<Conn> = Vec::new();
    let mut events = Vec::with_capacity(64);
    let mut tap_ready = true;
    loop {
        let under_way = conns.iter().any(|c| c.una != c.nxt);
        let timeout = match (tap_ready, under_way) {
            (true, _) => Some(0),
            (false, true) => Some(200_000_000),
            (false, false) => None,
        };
        let timeout = timeout.map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), timeout.as_ref())?;
        if events.is_empty() && !tap_ready {
            conns.iter_mut().for_each(|c| c.go_back());
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == TAP {
                tap_ready = true;
            } else if let Some(c) = conns.iter_mut().find(|c| c.token() == data) {
                c.readable |= flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
                c.hangup |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
                if flags.contains(EventFlags::OUT) && c.full {
                    (c.full, c.sent) = (false, true);
                    // The last three make the container send again at once what was not taken.
                    (0..4).for_each(|_| c.emit(&tap, &mut buf, ACK, c.max, 0));
                }
            }
        }
        for _ in 0..BUDGET {
            if !tap_ready {
                break;
            }
            match rustix::io::read(&tap, &mut buf[..]) {
                Ok(n) => {
                    let f = &buf[10..n];
                    // IPv4 without options, TCP.
                    if f.len() < 54 || f[12..15] != [8, 0, 0x45] || f[23] != 6 {
                        continue;
                    }
                    match conns.iter().position(|c| f[26..38] == c.key) {
                        Some(at) if f[47] & (SYN | RST) == 0 => conns[at].input(&tap, f),
                        Some(at) => drop(conns.swap_remove(at)),
                        None if f[47] & (SYN | ACK) == SYN => {
                            if let Ok(mut c) = Conn::open(f) {
                                epoll::add(&poll, &c.socket, EventData::new_u64(c.token()), edge)?;
                                c.syn_ack(&tap, &mut buf, mtu);
                                conns.push(c);
                            }
                        }
                        None => {}
                    }
                }
                Err(_) => tap_ready = false,
            }
        }
        conns.retain_mut(|c| {
            let alive = c.pump(&tap, &mut buf);
            if c.ack_due {
                c.emit(&tap, &mut buf, ACK, c.max, 0);
            }
            if c.full {
                // Edge-triggered: asked again, as no `send` may have met a full buffer.
                let _ = epoll::modify(&poll, &c.socket, EventData::new_u64(c.token()), edge);
            }
            alive && !(c.fin_in && c.fin_out && c.una == c.max)
        });
    }
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

impl Conn {
    /// Connects to where the SYN `f` goes.
    fn open(f: &[u8]) -> Result<Self> {
        let to = Ipv4Addr::from(be32(f, 30));
        let socket = TcpStream::connect((to, be16(f, 36)))?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        tcp::set_peek_offset(socket.as_fd(), 0)?;
        let (mut mss, mut scale) = (536, 0);
        let mut options = &f[54..34 + usize::from(f[46] >> 4) * 4];
        while let [kind, rest @ ..] = options {
            match (kind, rest) {
                (0, _) => break,
                (1, _) => options = rest,
                (2, [_, a, b, ..]) => mss = usize::from(u16::from_be_bytes([*a, *b])),
                (3, [_, s, ..]) => scale = *s,
                _ => {}
            }
            if *kind > 1 {
                options = &options[usize::from(rest[0]).max(2)..];
            }
        }
        let rcv = be32(f, 38).wrapping_add(1);
        let (mut key, mut mac) = ([0; 12], [0; 6]);
        key.copy_from_slice(&f[26..38]);
        mac.copy_from_slice(&f[6..12]);
        Ok(Self {
            key,
            mac,
            socket,
            mss,
            scale,
            rcv,
            edge: rcv,
            una: ISN + 1,
            nxt: ISN + 1,
            max: ISN + 1,
            window: u32::from(be16(f, 48)),
            duplicates: 0,
            recover: ISN,
            readable: false,
            hangup: false,
            ack_due: false,
            sent: true,
            full: false,
            fin_in: false,
            fin_out: false,
        })
    }

    /// What epoll knows it by: the container's port is enough to tell a bench's few connections apart.
    fn token(&self) -> u64 {
        u64::from(be32(&self.key, 8))
    }

    /// A segment from the container.
    fn input(&mut self, tap: &OwnedFd, f: &[u8]) {
        let data = 34 + usize::from(f[46] >> 4) * 4;
        let payload = &f[data..(14 + usize::from(be16(f, 16))).min(f.len())];
        let (seq, ack, flags) = (be32(f, 38), be32(f, 42), f[47]);
        let window = u32::from(be16(f, 48)) << self.scale;
        let acked = ack.wrapping_sub(self.una);
        if acked != 0 && acked <= self.max.wrapping_sub(self.una) {
            let fin = u32::from(self.fin_out && ack == self.max);
            if acked > fin {
                let _ = tcp::discard(self.socket.as_fd(), (acked - fin) as usize);
            }
            if acked > self.nxt.wrapping_sub(self.una) {
                self.nxt = ack;
            }
            (self.una, self.duplicates) = (ack, 0);
        } else if acked == 0 && payload.is_empty() && window == self.window && self.una != self.nxt {
            self.duplicates += 1;
            if self.duplicates == 3 && self.una.wrapping_sub(self.recover).cast_signed() >= 0 {
                self.go_back();
            }
        }
        self.window = window;
        if !payload.is_empty() {
            self.ack_due = true;
            if seq == self.rcv {
                let n = rustix::io::write(&self.socket, payload).unwrap_or(0);
                self.rcv = seq.wrapping_add(n as u32);
                self.sent = true;
                self.full |= n < payload.len();
            } else if !self.full {
                self.emit(tap, &mut [0; PAYLOAD], ACK, self.max, 0);
            }
        }
        if flags & FIN != 0 && seq.wrapping_add(payload.len() as u32) == self.rcv && !self.fin_in {
            let _ = self.socket.shutdown(std::net::Shutdown::Write);
            self.rcv = self.rcv.wrapping_add(1);
            (self.fin_in, self.ack_due) = (true, true);
        }
    }

    /// Everything that is not acknowledged is to be sent again.
    fn go_back(&mut self) {
        if self.una != self.nxt {
            self.recover = self.max;
            (self.nxt, self.fin_out, self.readable) = (self.una, false, true);
            let _ = tcp::set_peek_offset(self.socket.as_fd(), 0);
        }
    }

    /// Sends what the host has, as far as the container's window goes. False if the host's side has failed.
    fn pump(&mut self, tap: &OwnedFd, buf: &mut [u8]) -> bool {
        while self.readable && !self.fin_out {
            let under_way = self.nxt.wrapping_sub(self.una);
            let mut chunk = (self.window.saturating_sub(under_way) as usize).min(SUPER_FRAME);
            if chunk > self.mss {
                chunk -= chunk % self.mss;
            } else if chunk == 0 || (chunk < self.mss && under_way > 0) {
                break;
            }
            let seq = self.nxt;
            match tcp::peek(self.socket.as_fd(), &mut buf[PAYLOAD..PAYLOAD + chunk]) {
                Ok(0) => {
                    self.fin_out = true;
                    self.advance(1);
                    self.emit(tap, buf, ACK | FIN, seq, 0);
                }
                Ok(n) => {
                    self.readable = n == chunk || self.hangup;
                    self.advance(n as u32);
                    self.emit(tap, buf, if n < chunk { ACK | PSH } else { ACK }, seq, n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => return false,
            }
        }
        true
    }

    fn advance(&mut self, by: u32) {
        self.nxt = self.nxt.wrapping_add(by);
        if self.nxt.wrapping_sub(self.max).cast_signed() > 0 {
            self.max = self.nxt;
        }
    }

    /// The window field: free space of the socket, an eighth less for the kernel's overhead, and never less than promised.
    fn window(&mut self) -> u16 {
        let promised = self.edge.wrapping_sub(self.rcv);
        let mut window = promised;
        if std::mem::take(&mut self.sent)
            && let Ok(b) = tcp::send_buffer(self.socket.as_fd())
        {
            let free = b.size.saturating_sub(b.queued);
            self.full |= free < b.size / 4;
            window = promised.max(free - free / 8);
        }
        let field = (window >> SCALE).min(0xffff);
        self.edge = self.rcv.wrapping_add(promised.max(field << SCALE));
        field as u16
    }

    /// Sends a segment with `len` bytes of data, which stand in their place in `buf`.
    fn emit(&mut self, tap: &OwnedFd, buf: &mut [u8], flags: u8, seq: u32, len: usize) {
        self.ack_due = false;
        let window = self.window();
        self.write(tap, buf, flags, seq, window, 20, len);
    }

    /// Answers the SYN, with our MSS and window scale.
    fn syn_ack(&mut self, tap: &OwnedFd, buf: &mut [u8], mtu: u16) {
        let [a, b] = (mtu - 40).to_be_bytes();
        buf[PAYLOAD..PAYLOAD + 8].copy_from_slice(&[2, 4, a, b, 1, 3, 3, SCALE]);
        let window = 0x8000;
        self.edge = self.rcv.wrapping_add(u32::from(window));
        self.write(tap, buf, SYN | ACK, ISN, window, 28, 0);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a header")]
    fn write(
        &self,
        tap: &OwnedFd,
        buf: &mut [u8],
        flags: u8,
        seq: u32,
        window: u16,
        header: usize,
        len: usize,
    ) {
        let gso = (len > self.mss).then_some(Gso {
            kind: GsoKind::Tcp4,
            size: self.mss as u16,
            header_len: 54,
            ecn: false,
        });
        let checksum = Checksum::Partial {
            start: 34,
            offset: 16,
        };
        buf[..10].copy_from_slice(&Offload { checksum, gso }.encode());
        let f = &mut buf[10..];
        let segment = (header + len) as u16;
        f[..6].copy_from_slice(&self.mac);
        f[6..12].copy_from_slice(&MAC);
        f[12..26].copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        f[16..18].copy_from_slice(&(20 + segment).to_be_bytes());
        f[26..30].copy_from_slice(&self.key[4..8]);
        f[30..34].copy_from_slice(&self.key[..4]);
        let sum = !offload::header_sum(&f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        let pseudo = offload::add(offload::sum(&f[26..34]), offload::add(6, segment));
        f[34..36].copy_from_slice(&self.key[10..]);
        f[36..38].copy_from_slice(&self.key[8..10]);
        f[38..42].copy_from_slice(&seq.to_be_bytes());
        f[42..46].copy_from_slice(&self.rcv.to_be_bytes());
        f[46..48].copy_from_slice(&[(header as u8) << 2, flags]);
        f[48..50].copy_from_slice(&window.to_be_bytes());
        f[50..54].copy_from_slice(&[(pseudo >> 8) as u8, pseudo as u8, 0, 0]);
        let _ = rustix::io::write(tap, &buf[..10 + 34 + header + len]);
    }
}
