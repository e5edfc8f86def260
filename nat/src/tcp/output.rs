//! Segments to the container.

use super::*;

/// Data bytes in one super-frame at most: what an IPv4 packet can hold with room for headers.
const SUPER_FRAME: u32 = 65_535 - 20 - 20;
/// The same behind an IPv6 header, whose payload length does not count the header itself.
const SUPER_FRAME_V6: u32 = 65_535 - 20;
/// Segments in a super-frame at most, so that a tiny MSS does not make one frame into thousands.
const SUPER_FRAME_SEGMENTS: u32 = 128;
/// Super-frames sent to one container before the other connections have their turn.
const BURST: usize = 64;

impl<H: TcpHost> Relay<H> {
    /// The host is connected: answers the container's SYN.
    pub(super) fn answer_syn(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.phase = Phase::SynAckSent;
        conn.timing = Some((conn.snd_una.plus(1), cx.now));
        self.note_state(cx, key);
        self.send_syn(cx, key);
        self.schedule(cx.now, key);
    }

    /// Sends our SYN or SYN-ACK, for the first time or again.
    pub(super) fn send_syn(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let mtu = cx.config.mtu;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let answer = conn.phase == Phase::SynAckSent;
        // Offered in a SYN; in a SYN-ACK only if the container offered it.
        let scale = (!answer || conn.rcv_scale > 0).then_some(WINDOW_SCALE);
        let piece = usize::from(conn.mss);
        let space = conn.socket.as_ref().map_or(0, |s| s.send_space(piece).free);
        let window = space.min(0xffff) as u16;
        conn.rcv_most = u32::from(window);
        if answer {
            conn.rcv_edge = conn.rcv_nxt.plus(u32::from(window));
            conn.rcv_acked = conn.rcv_nxt;
        }
        conn.snd_nxt = conn.snd_una.plus(1);
        conn.snd_max = conn.snd_nxt;
        let draft = Draft {
            src: conn.remote,
            dst: conn.container,
            seq: conn.snd_una,
            ack: if answer { conn.rcv_nxt } else { Seq(0) },
            flags: if answer { Flags::SYN_ACK } else { Flags::SYN },
            window,
            len: 0,
            mss: conn.mss,
            options: Some((link_mss(mtu, conn.container), scale)),
        };
        self.emit(cx, key, &draft);
    }

    /// Acknowledges at once what has been taken, with the window there is now.
    pub(super) fn acknowledge(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let (seq, len) = (conn.bare_seq(), 0);
        self.send_segment(cx, key, seq, len, Flags::ACK);
    }

    /// Sends what the host has for the container, as far as the windows go.
    pub(super) fn pump(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        for _ in 0..BURST {
            if !self.pump_one(cx, key) {
                return;
            }
        }
        // The rest follows as acknowledgements come, of which each super-frame sent will cause one.
    }

    /// Sends one super-frame or the FIN. False if nothing more can be sent now.
    fn pump_one(&mut self, cx: &mut Cx<'_, H>, key: Key) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if conn.phase != Phase::Open || !conn.has_more() {
            return false;
        }
        if conn.send == Send::FinSent && conn.snd_nxt == conn.fin_seq {
            self.send_fin(cx, key);
            return false;
        }
        let mss = u32::from(conn.mss);
        let in_flight = conn.in_flight();
        let reach = conn.socket.as_ref().map_or(0, TcpSocket::peek_reach);
        let space = conn.snd_wnd.min(conn.cwnd).min(reach).saturating_sub(in_flight);
        // Silly windows (RFC 9293 section 3.8.6.2.1): less than a segment is sent only if nothing is under way.
        if space == 0 || (space < mss && in_flight > 0) {
            self.schedule(cx.now, key);
            return false;
        }
        let limit = if conn.container.is_ipv4() {
            SUPER_FRAME
        } else {
            SUPER_FRAME_V6
        };
        let mut chunk = space.min(limit).min(mss * SUPER_FRAME_SEGMENTS);
        // What is sent again ends where the FIN stands.
        if conn.send == Send::FinSent {
            chunk = chunk.min(conn.fin_seq.since(conn.snd_nxt));
        }
        if chunk > mss {
            chunk -= chunk % mss;
        }
        let slot = segment::data_slot(conn.container);
        let Some(socket) = conn.socket.as_mut() else {
            return false;
        };
        match socket.peek(in_flight as usize, &mut cx.buf[slot..slot + chunk as usize]) {
            Ok(0) => {
                self.host_finished(cx, key);
                false
            }
            Ok(n) => {
                let seq = conn.snd_nxt;
                let n32 = n as u32;
                conn.snd_nxt = seq.plus(n32);
                let fresh = conn.snd_nxt.after(conn.snd_max);
                if fresh {
                    conn.snd_max = conn.snd_nxt;
                    if conn.timing.is_none() {
                        conn.timing = Some((conn.snd_nxt, cx.now));
                    }
                }
                // Less than asked for is all there was: a new arrival makes a new edge. The end of the stream does not
                // if it came with the data, so a hang-up is read through to it.
                let drained = n32 < chunk && !conn.hangup && conn.send == Send::Open;
                if drained {
                    conn.readable = false;
                }
                let flags = Flags {
                    psh: n32 < chunk || n32 == space,
                    ..Flags::ACK
                };
                self.send_segment(cx, key, seq, n, flags);
                self.schedule(cx.now, key);
                !drained
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                conn.readable = false;
                // Something to send again that is not in the socket cannot be: it was peeked at before.
                conn.snd_nxt = conn.snd_max;
                self.schedule(cx.now, key);
                false
            }
            Err(_) => {
                self.abort(cx, key);
                false
            }
        }
    }

    /// The host's stream has ended: by a FIN, which is passed on, or by an error, which is a reset.
    fn host_finished(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.failed {
            return self.abort(cx, key);
        }
        conn.readable = false;
        if conn.send == Send::Open {
            conn.send = Send::FinSent;
            conn.closed_first = conn.recv == conn::Recv::Open;
            conn.fin_seq = conn.snd_nxt;
            self.note_state(cx, key);
            self.send_fin(cx, key);
        }
    }

    fn send_fin(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let seq = conn.fin_seq;
        conn.snd_nxt = seq.plus(1);
        conn.snd_max = conn.snd_nxt;
        self.send_segment(
            cx,
            key,
            seq,
            0,
            Flags {
                fin: true,
                ..Flags::ACK
            },
        );
        self.schedule(cx.now, key);
    }

    /// Sends again the first segment that is not acknowledged.
    pub(super) fn resend_first(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.timing = None;
        let seq = conn.snd_una;
        if conn.send == Send::FinSent && seq == conn.fin_seq {
            return self.send_segment(
                cx,
                key,
                seq,
                0,
                Flags {
                    fin: true,
                    ..Flags::ACK
                },
            );
        }
        let sent = conn.snd_max.since(seq) - u32::from(conn.send == Send::FinSent);
        let chunk = sent.min(u32::from(conn.mss)) as usize;
        let slot = segment::data_slot(conn.container);
        let Some(socket) = conn.socket.as_mut() else {
            return;
        };
        if let Ok(n @ 1..) = socket.peek(0, &mut cx.buf[slot..slot + chunk]) {
            self.send_segment(cx, key, seq, n, Flags::ACK);
        }
    }

    /// Asks the container for its window, or whether it is there: a segment from just before what it expects.
    pub(super) fn probe(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        let seq = conn.snd_una.plus(u32::MAX);
        self.send_segment(cx, key, seq, 0, Flags::ACK);
    }

    /// Sends a segment of an open connection, whose `len` bytes of data stand in their slot. It acknowledges, too.
    fn send_segment(&mut self, cx: &mut Cx<'_, H>, key: Key, seq: Seq, len: usize, flags: Flags) {
        let window = self.window(cx, key);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.ack_due = AckDue::No;
        conn.rcv_acked = conn.rcv_nxt;
        let draft = Draft {
            src: conn.remote,
            dst: conn.container,
            seq,
            ack: conn.rcv_nxt,
            flags,
            window,
            len,
            mss: conn.mss,
            options: None,
        };
        self.emit(cx, key, &draft);
    }

    fn emit(&mut self, cx: &mut Cx<'_, H>, key: Key, draft: &Draft) {
        let Some(conn) = self.conns.get(key) else { return };
        let flow = conn.flow;
        if draft.send(cx).is_ok() {
            let segments = draft.len.div_ceil(usize::from(draft.mss)).max(1) as u64;
            let headers = crate::packet::header_len(draft.dst.ip()) + segment::HEADER;
            let outbound = cx.flows.get(flow).is_some_and(Entry::outbound);
            // Towards the container: against its direction.
            let direction = Conn::<H::Tcp>::direction(!outbound);
            cx.flows.count(
                cx.now,
                flow,
                direction,
                segments,
                draft.len as u64 + segments * headers as u64,
            );
        }
    }

    /// The window to advertise, as it stands in the header, and remembers its right edge. It follows the free space of
    /// the host's socket and never takes back what was promised (RFC 9293 section 3.8.6).
    fn window(&mut self, cx: &mut Cx<'_, H>, key: Key) -> u16 {
        let Some(conn) = self.conns.get_mut(key) else {
            return 0;
        };
        let promised = if conn.rcv_edge.after(conn.rcv_nxt) {
            conn.rcv_edge.since(conn.rcv_nxt)
        } else {
            0
        };
        let room = match (&conn.socket, conn.recv) {
            // Nothing went to the host since there was plenty: what was promised then stands, and costs no system call
            // with each segment to the container.
            (Some(_), conn::Recv::Open) if conn.roomy => Room::default(),
            (Some(socket), conn::Recv::Open) => Room::of(socket, conn),
            (Some(_) | None, _) => Room::default(),
        };
        conn.roomy |= room.roomy;
        let Room { space, sliver, .. } = room;
        let field = (promised.max(space) >> conn.rcv_scale).min(0xffff);
        let window = field << conn.rcv_scale;
        if window > promised {
            conn.rcv_edge = conn.rcv_nxt.plus(window);
            conn.rcv_most = conn.rcv_most.max(window);
        }
        let closed = window + ROUNDING < sliver;
        if closed && let Some(socket) = &conn.socket {
            // No send has met `WouldBlock`, perhaps, so that no edge would come: ask for one.
            conn.window_closed = true;
            if cx.host.tcp_rearm(socket, token(key)).is_err() {
                cx.out.drop(None, DropReason::HostExhausted);
            }
        }
        field as u16
    }

    /// The host's socket has taken more of what it holds: tells the container if the window was closed.
    pub(super) fn window_reopened(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(socket) = &conn.socket else { return };
        let promised = if conn.rcv_edge.after(conn.rcv_nxt) {
            conn.rcv_edge.since(conn.rcv_nxt)
        } else {
            0
        };
        let Room { space, .. } = Room::of(socket, conn);
        if space == 0 {
            // Not yet; ask to be told again.
            if cx.host.tcp_rearm(socket, token(key)).is_err() {
                cx.out.drop(None, DropReason::HostExhausted);
            }
            return;
        }
        conn.window_closed = false;
        let short = std::mem::take(&mut conn.short);
        if !short && space <= promised {
            return;
        }
        self.acknowledge(cx, key);
        if short {
            // What was not taken is lost to the container until its timer tells, unless duplicates do so now.
            for _ in 0..input::DUPLICATES {
                self.acknowledge(cx, key);
            }
        }
    }
}

/// The window that a socket's send buffer has room for.
#[derive(Clone, Copy, Default)]
struct Room {
    /// Bytes to offer: none, or `sliver` or more.
    space: u32,
    /// What is less is not worth telling (RFC 9293 section 3.8.6.2.2), as the container would not use it: whoever avoids
    /// silly windows (section 3.8.6.2.1) waits for a segment, or for half of the largest window ever offered, and asks by its
    /// timer if that does not come.
    sliver: u32,
    /// Half of the buffer is free, or more.
    roomy: bool,
}

/// What the scaling of a window takes off at most.
const ROUNDING: u32 = (1 << WINDOW_SCALE) - 1;

impl Room {
    fn of<S: TcpSocket>(socket: &S, conn: &Conn<S>) -> Self {
        let found = socket.send_space(conn.piece.max(conn.mss).into());
        let free = found.free.min(1 << 30) as u32;
        let sliver = (u32::from(conn.mss).min(conn.rcv_most / 2) + ROUNDING).max(1);
        // A socket that is writable takes a segment whatever the estimate says, and makes no edge to wait for: a closed
        // window always means one that an edge opens.
        let space = if free >= sliver {
            free
        } else if found.writable {
            sliver
        } else {
            0
        };
        Self {
            space,
            sliver,
            roomy: free >= sliver && found.free >= found.capacity / 2,
        }
    }
}
