//! Segments from the container.

use super::conn::Recv;
use super::*;
use crate::config::{Egress, Forbidden};
use crate::flow::{NewFlow, Protocol, State, Tuple};

/// Duplicate acknowledgements that mean a loss (RFC 5681 section 3.2).
pub(super) const DUPLICATES: u8 = 3;

impl<H: TcpHost> Relay<H> {
    /// Takes a TCP packet from a container, whole (not a fragment).
    pub fn packet(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
        let seg = match Segment::parse(packet, frame) {
            Ok(seg) => seg,
            Err(reason) => return cx.drop(packet.ingress, reason),
        };
        let container = SocketAddr::new(packet.src, seg.src_port);
        let remote = SocketAddr::new(packet.dst, seg.dst_port);
        let tuple = Tuple {
            protocol: Protocol::Tcp,
            src: container,
            dst: remote,
        };
        let Some((flow, direction)) = cx.flows.lookup(&tuple) else {
            return self.stranger(cx, packet, frame, &seg, tuple);
        };
        let (owner, key) = match cx.flows.get(flow) {
            Some(e) => (e.container(), self.conns.key_at(e.data())),
            None => return,
        };
        let Some(key) = key.filter(|&k| self.conns.get(k).is_some_and(|c| c.flow == flow)) else {
            return;
        };
        if owner != packet.ingress {
            return cx.drop(packet.ingress, DropReason::Spoofed);
        }
        let segments = frame
            .offload
            .gso
            .map_or(1, |g| seg.len.div_ceil(usize::from(g.size.max(1))).max(1));
        cx.flows.count(
            cx.now,
            flow,
            direction,
            segments as u64,
            (packet.end - packet.ip) as u64,
        );
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.heard = cx.now;
        match conn.phase {
            Phase::Connecting => self.while_connecting(cx, key, &seg),
            Phase::SynAckSent => self.while_syn_ack_sent(cx, key, &seg, packet, frame),
            Phase::SynSent => self.while_syn_sent(cx, key, &seg),
            Phase::Open => self.while_open(cx, key, &seg, frame),
            Phase::TimeWait => self.while_waiting(cx, key, &seg, packet, frame, tuple),
        }
    }

    /// A segment of no connection: a SYN opens one, anything else is answered as a closed port does (RFC 9293
    /// section 3.10.7.1).
    fn stranger(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        frame: &Frame<'_>,
        seg: &Segment,
        tuple: Tuple,
    ) {
        if seg.flags.rst {
            return cx.drop(packet.ingress, DropReason::NoFlow);
        }
        if seg.flags.syn && !seg.flags.ack {
            return self.open(cx, packet, frame, seg, tuple);
        }
        if cx.config.egress == Egress::None && !cx.config.is_gateway(packet.dst) {
            cx.drop(packet.ingress, DropReason::NoEgress);
            return icmp::send_error(cx, packet.quoted(frame), None, IcmpError::Prohibited);
        }
        cx.drop(packet.ingress, DropReason::NoFlow);
        let (seq, ack) = if seg.flags.ack {
            (seg.ack, None)
        } else {
            (Seq(0), Some(seg.seq.plus(seg.sequence_len())))
        };
        let reset = Draft::reset(tuple.dst, tuple.src, seq, ack);
        let _ = reset.send(cx);
    }

    /// The container opens a connection.
    fn open(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>, seg: &Segment, tuple: Tuple) {
        let address = match cx.config.destination(tuple.dst.ip()) {
            Ok(address) => address,
            Err(why) => {
                cx.drop(packet.ingress, why.reason());
                let error = match why {
                    Forbidden::NoEgress => IcmpError::Prohibited,
                    Forbidden::HostLoopback | Forbidden::LinkLocal | Forbidden::NotUnicast => {
                        IcmpError::NetUnreachable
                    }
                };
                return icmp::send_error(cx, packet.quoted(frame), None, error);
            }
        };
        // Before the flow is entered: it would be the first to go for another's sake.
        let ticket = match cx.ticket(packet.ingress) {
            Ok(ticket) => ticket,
            Err(reason) => {
                cx.drop(packet.ingress, reason);
                return icmp::send_error(cx, packet.quoted(frame), None, IcmpError::Prohibited);
            }
        };
        let key = self.conns.next_key();
        let flow = match cx.flows.insert(
            cx.now,
            NewFlow {
                tuple,
                reply: None,
                container: packet.ingress,
                outbound: true,
                state: State::SynSent,
                data: key.index,
                shares_socket: false,
                mark: 0,
                track: None,
            },
        ) {
            Ok(flow) => flow,
            Err(reason) => {
                cx.drop(packet.ingress, reason);
                return icmp::send_error(cx, packet.quoted(frame), None, IcmpError::Prohibited);
            }
        };
        cx.flows.count(
            cx.now,
            flow,
            crate::flow::Direction::Original,
            1,
            (packet.end - packet.ip) as u64,
        );
        let (socket, connect) = match cx
            .host
            .tcp_connect(token(key), SocketAddr::new(address, tuple.dst.port()))
        {
            Ok(opened) => opened,
            Err(e) => {
                cx.flows.remove(flow);
                return refuse(
                    cx,
                    Some(packet.ingress),
                    tuple.src,
                    tuple.dst,
                    seg.seq.plus(1),
                    &e,
                );
            }
        };
        let iss = self.initial_seq(cx.now, tuple.src, tuple.dst);
        let mut conn = Conn::new(
            cx.now,
            flow,
            (socket, Some(ticket)),
            tuple.src,
            tuple.dst,
            Phase::Connecting,
            iss,
        );
        conn.rcv_nxt = seg.seq.plus(1);
        conn.rcv_edge = conn.rcv_nxt;
        adopt_options(&mut conn, cx.config.mtu, seg);
        // The window of a SYN is never scaled (RFC 7323 section 2.2).
        conn.snd_wnd = u32::from(seg.window);
        let key = self.conns.insert(conn);
        if connect == Connect::Done {
            self.answer_syn(cx, key);
        }
    }

    /// The host's connect is pending. The container is waiting; its retransmitted SYNs need no answer.
    fn while_connecting(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment) {
        let Some(conn) = self.conns.get(key) else { return };
        if seg.flags.rst {
            if seg.seq == conn.rcv_nxt || seg.seq.plus(1) == conn.rcv_nxt {
                self.abort_host(cx, key);
            }
            return;
        }
        // A SYN with another number is a new attempt from the same port: the old one is over.
        if seg.flags.syn && seg.seq.plus(1) != conn.rcv_nxt {
            self.abort_host(cx, key);
        }
    }

    fn while_syn_ack_sent(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        seg: &Segment,
        packet: &Packet,
        frame: &Frame<'_>,
    ) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if seg.flags.rst {
            if seg.seq == conn.rcv_nxt {
                self.abort_host(cx, key);
            }
            return;
        }
        if seg.flags.syn {
            if seg.seq.plus(1) == conn.rcv_nxt {
                return self.send_syn(cx, key);
            }
            // Another number: a new attempt. The next SYN opens it.
            return self.abort_host(cx, key);
        }
        if !seg.flags.ack {
            return cx.drop(packet.ingress, DropReason::Malformed);
        }
        if seg.ack != conn.snd_max {
            cx.drop(packet.ingress, DropReason::NoFlow);
            let reset = Draft::reset(conn.remote, conn.container, seg.ack, None);
            let _ = reset.send(cx);
            return;
        }
        self.established(cx, key, seg);
        self.while_open(cx, key, seg, frame);
    }

    fn while_syn_sent(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if seg.flags.ack && seg.ack != conn.snd_max {
            if !seg.flags.rst {
                let reset = Draft::reset(conn.remote, conn.container, seg.ack, None);
                let _ = reset.send(cx);
            }
            return;
        }
        if seg.flags.rst {
            if seg.flags.ack {
                self.refused_by_container(cx, key);
            }
            return;
        }
        // A bare SYN would be a simultaneous open of a tuple that the container has not been told of: ignored, our own
        // SYN is answered or comes again.
        if !(seg.flags.syn && seg.flags.ack) {
            return;
        }
        conn.rcv_nxt = seg.seq.plus(1);
        conn.rcv_edge = conn.rcv_nxt;
        adopt_options(conn, cx.config.mtu, seg);
        self.established(cx, key, seg);
        if let Some(conn) = self.conns.get_mut(key) {
            // The window of a SYN is never scaled.
            conn.snd_wnd = u32::from(seg.window);
            conn.ack_due = AckDue::Now;
            self.due.push(key);
        }
        // What the client has said by now carries the acknowledgement.
        self.pump(cx, key);
    }

    /// Our SYN is acknowledged: open.
    fn established(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if let Some((_, sent)) = conn.timing.take()
            && conn.tries == 0
        {
            conn.measured(cx.now.since(sent));
        }
        conn.phase = Phase::Open;
        conn.tries = 0;
        conn.snd_una = seg.ack;
        conn.snd_nxt = seg.ack;
        conn.snd_wnd = u32::from(seg.window) << conn.snd_scale;
        self.note_state(cx, key);
        // The timer of the SYN has done its work.
        self.restart_timer(cx.now, key);
    }

    /// Both ends are open (RFC 9293 section 3.10.7.4).
    fn while_open(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment, frame: &Frame<'_>) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if seg.flags.rst {
            // RFC 5961 section 3.2: exactly the next number resets, another within the window is asked about.
            if seg.seq == conn.rcv_nxt {
                self.abort_host(cx, key);
            } else if !conn.rcv_nxt.after(seg.seq) && !seg.seq.after(conn.rcv_edge) {
                self.acknowledge(cx, key);
            }
            return;
        }
        if seg.flags.syn {
            // RFC 5961 section 4.2: a challenge, whose answer tells a restarted container from a forged SYN. A SYN-ACK
            // that comes again is answered the same way.
            return self.acknowledge(cx, key);
        }
        if !seg.flags.ack {
            return;
        }
        if seg.ack.after(conn.snd_max) {
            return self.acknowledge(cx, key);
        }
        self.take_ack(cx, key, seg);
        if !self.take_data(cx, key, seg, frame) {
            return;
        }
        self.pump(cx, key);
        self.settle(cx, key);
    }

    /// What the segment acknowledges leaves the host's socket.
    fn take_ack(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let window = u32::from(seg.window) << conn.snd_scale;
        if window == 0 && conn.snd_wnd == 0 && seg.ack == conn.snd_una && conn.has_more() {
            // An answer to a probe: the next ones are still ever farther apart (RFC 9293 section 3.8.6.1), but go on as long
            // as they are answered.
            conn.tries = conn.tries.min(timer::PROBE_BACKOFF);
        } else {
            conn.tries = 0;
        }
        if seg.ack.after(conn.snd_una) {
            let acked = seg.ack.since(conn.snd_una);
            let fin_acked = conn.send == Send::FinSent && seg.ack.after(conn.fin_seq);
            let bytes = acked - u32::from(fin_acked);
            if bytes > 0
                && let Some(socket) = conn.socket.as_mut()
                && socket.consume(bytes as usize).is_err()
            {
                conn.failed = true;
            }
            conn.snd_una = seg.ack;
            if !conn.snd_nxt.after(seg.ack) {
                conn.snd_nxt = seg.ack;
            }
            if let Some((by, sent)) = conn.timing
                && !by.after(seg.ack)
            {
                conn.timing = None;
                conn.measured(cx.now.since(sent));
            }
            conn.duplicate_acks = 0;
            conn.snd_wnd = window;
            if fin_acked {
                conn.send = Send::FinAcked;
            }
            match conn.recover {
                // RFC 6582 section 3.2: a partial acknowledgement shows the next hole.
                Some(recover) if recover.after(seg.ack) => self.resend_first(cx, key),
                Some(_) => {
                    conn.recover = None;
                    conn.cwnd = conn.ssthresh;
                }
                None => conn.widen(acked),
            }
            self.note_state(cx, key);
            self.restart_timer(cx.now, key);
            return;
        }
        if seg.ack != conn.snd_una {
            return;
        }
        let duplicate = seg.len == 0 && !seg.flags.fin && window == conn.snd_wnd && conn.outstanding();
        let opened = window > conn.snd_wnd;
        conn.snd_wnd = window;
        if duplicate {
            conn.duplicate_acks = conn.duplicate_acks.saturating_add(1);
            if conn.recover.is_some() {
                conn.cwnd = conn.cwnd.saturating_add(u32::from(conn.mss));
            } else if conn.duplicate_acks == DUPLICATES {
                conn.narrow();
                conn.cwnd = conn.ssthresh + u32::from(DUPLICATES) * u32::from(conn.mss);
                conn.recover = Some(conn.snd_max);
                self.resend_first(cx, key);
            }
        } else if opened {
            self.restart_timer(cx.now, key);
        }
    }

    /// Hands data in order to the host. False if the connection is gone.
    fn take_data(&mut self, cx: &mut Cx<'_, H>, key: Key, seg: &Segment, frame: &Frame<'_>) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if seg.len == 0 && !seg.flags.fin {
            // A keep-alive or a zero-window probe asks from before the window; so does garbage. From within it comes a mere
            // acknowledgement, sent behind data that were lost or not taken.
            let in_window =
                seg.seq == conn.rcv_nxt || (seg.seq.after(conn.rcv_nxt) && !seg.seq.after(conn.rcv_edge));
            if !in_window {
                self.acknowledge(cx, key);
            }
            return true;
        }
        if seg.seq.after(conn.rcv_nxt) {
            // A gap. What is within the window may only have overtaken the rest; the duplicate acknowledgement asks for what
            // is missing.
            let end = seg.seq.plus(seg.len as u32);
            if conn.recv == Recv::Open && !end.after(conn.rcv_edge) {
                let port = cx.flows.get(conn.flow).map(Entry::container);
                let data = &frame.bytes()[seg.data..seg.data + seg.len];
                if let Some(port) = port {
                    self.reorder.keep(key, port, seg.seq, data, seg.flags.fin);
                }
            }
            self.acknowledge(cx, key);
            return true;
        }
        let old = conn.rcv_nxt.since(seg.seq) as usize;
        if old > seg.len || (old == seg.len && !seg.flags.fin) || conn.recv == Recv::Shut {
            // Seen before: our acknowledgement was lost.
            self.acknowledge(cx, key);
            return true;
        }
        let data = &frame.bytes()[seg.data + old..seg.data + seg.len];
        let mut taken = self.deliver(cx, key, data, seg.flags.fin);
        while !self.reorder.is_empty()
            && taken == Taken::All
            && let Some(next) = self.conns.get(key).map(|c| c.rcv_nxt)
            && let Some(held) = self.reorder.next(key, next)
        {
            let old = next.since(held.seq) as usize;
            taken = self.deliver(cx, key, &held.data[old.min(held.data.len())..], held.fin);
        }
        match taken {
            Taken::All => self.owe_ack(cx.now, key),
            // At once, so that the container learns of the narrower window now and not by its timer.
            Taken::Short => self.acknowledge(cx, key),
            Taken::Gone => {}
        }
        taken != Taken::Gone
    }

    /// Hands data that are next to the host, and the end of the stream if it is behind them.
    #[inline]
    fn deliver(&mut self, cx: &mut Cx<'_, H>, key: Key, data: &[u8], fin: bool) -> Taken {
        let Some(conn) = self.conns.get_mut(key) else {
            return Taken::Gone;
        };
        let Some(socket) = conn.socket.as_mut() else {
            return Taken::Gone;
        };
        conn.roomy = false;
        if data.len() >= usize::from(conn.mss) {
            conn.piece = data.len().min(0xffff) as u16;
        }
        let mut taken = 0;
        while taken < data.len() {
            match socket.send(&data[taken..]) {
                Ok(0) => break,
                Ok(n) => taken += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    conn.rcv_nxt = conn.rcv_nxt.plus(taken as u32);
                    self.abort(cx, key);
                    return Taken::Gone;
                }
            }
        }
        conn.rcv_nxt = conn.rcv_nxt.plus(taken as u32);
        if taken < data.len() {
            conn.window_closed = true;
            conn.short = true;
            return Taken::Short;
        }
        if fin {
            conn.rcv_nxt = conn.rcv_nxt.plus(1);
            conn.recv = Recv::Shut;
            // Where the host's stream has ended too, the socket is about to be closed, which says the same.
            if conn.send != Send::FinAcked
                && let Some(socket) = conn.socket.as_mut()
            {
                // An error here is one that reading reports too.
                let _ = socket.shutdown_send();
            }
            self.note_state(cx, key);
        }
        Taken::All
    }

    /// A segment to a connection that is over.
    fn while_waiting(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        seg: &Segment,
        packet: &Packet,
        frame: &Frame<'_>,
        tuple: Tuple,
    ) {
        // A new connection from the same port. RFC 9293 section 3.6.1 asks for a higher number lest an old duplicate
        // open one; there are none on a link without a network.
        if seg.flags.syn && !seg.flags.ack {
            self.forget(cx, key);
            return self.open(cx, packet, frame, seg, tuple);
        }
        // RFC 1337: a reset does not end TIME-WAIT; there is nothing left to reset.
        if seg.flags.rst {
            return;
        }
        // An acknowledgement as it should be needs no answer, which might be answered in turn.
        let Some(conn) = self.conns.get(key) else { return };
        if seg.sequence_len() > 0 || seg.seq != conn.rcv_nxt {
            self.acknowledge(cx, key);
        }
    }

    /// Lets go of a connection whose halves have both ended.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.recv != Recv::Shut || conn.send != Send::FinAcked || conn.phase != Phase::Open {
            return;
        }
        let closed_first = conn.closed_first;
        if conn.ack_due != AckDue::No {
            // Nothing else will carry it.
            self.acknowledge(cx, key);
        }
        if !closed_first {
            return self.forget(cx, key);
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.phase = Phase::TimeWait;
        conn.socket = None;
        conn.ticket = None;
        conn.timer = None;
        self.note_state(cx, key);
    }
}

/// What became of data for the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// It has all of them.
    All,
    /// It did not take all: the container is to send the rest again.
    Short,
    /// The connection is gone.
    Gone,
}

/// Takes MSS and window scale from the container's SYN.
fn adopt_options<S>(conn: &mut Conn<S>, mtu: u16, seg: &Segment) {
    // RFC 9293 section 3.7.1: without the option, 536 (IPv4) or 1220 (IPv6).
    let default = if conn.container.is_ipv4() { 536 } else { 1220 };
    conn.mss = seg
        .mss
        .unwrap_or(default)
        .clamp(MSS_MIN, link_mss(mtu, conn.container));
    if let Some(scale) = seg.scale {
        conn.snd_scale = scale;
        conn.rcv_scale = WINDOW_SCALE;
    }
}
