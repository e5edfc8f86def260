//! Timers: one a connection, all in one queue.

use std::time::Duration;

use super::*;

/// SYNs or SYN-ACKs sent in vain before the connection is given up: after 63 seconds, as the kernel's defaults do.
const SYN_TRIES: u8 = 6;
/// Retransmissions or probes without any answer before the container is taken for gone (RFC 9293 section 3.8.3: R2 is at
/// least 100 seconds; this comes to more than ten minutes).
const TRIES: u8 = 15;
/// How often the time between two probes of a closed window doubles while they are answered: to less than a minute.
pub(super) const PROBE_BACKOFF: u8 = 8;
/// Silence after which the container is asked whether it is there (RFC 9293 section 3.8.4: at least two hours).
const KEEP_ALIVE: Duration = Duration::from_secs(2 * 3600);
/// Silence after which the host's kernel is told to do the same with the far side, which short connections are spared.
const WATCH_AFTER: Duration = Duration::from_secs(60);
/// Time between two such questions. The link is this machine: there is no reason to be as patient as across the world.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Such questions without an answer before the container is taken for gone.
const KEEP_ALIVE_TRIES: u8 = 9;

impl<H: TcpHost> Relay<H> {
    /// Makes sure that the connection's timer is set for what it is waiting for, without moving one that is.
    pub(super) fn schedule(&mut self, now: Instant, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let at = match wanted(conn, now) {
            Some(at) => at,
            None => {
                conn.timer = None;
                return;
            }
        };
        // A retransmission timer that runs is not pushed back by another segment (RFC 6298 section 5.1).
        conn.timer = Some(conn.timer.filter(|&t| t > now && t <= at).unwrap_or(at));
        self.enqueue(key);
    }

    /// Sets the connection's timer anew: progress was made (RFC 6298 section 5.3).
    pub(super) fn restart_timer(&mut self, now: Instant, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.timer = None;
        }
        self.schedule(now, key);
    }

    fn enqueue(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(at) = conn.timer else { return };
        if conn.queued.is_none_or(|q| at < q) {
            // The later record goes: left behind, it would stay for up to two hours, one more with each exchange.
            if let Some(later) = conn.queued.replace(at) {
                self.timers.remove(&(later, key.index, key.generation));
            }
            self.timers.insert((at, key.index, key.generation));
        }
    }

    /// Follows the timers that have run out.
    pub(super) fn run_timers(&mut self, cx: &mut Cx<'_, H>) {
        while let Some(&(at, index, generation)) = self.timers.first() {
            if at > cx.now {
                return;
            }
            self.timers.pop_first();
            let key = Key { index, generation };
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            conn.queued = None;
            match conn.timer {
                None => {}
                Some(timer) if timer > cx.now => self.enqueue(key),
                Some(_) => {
                    conn.timer = None;
                    self.fire(cx, key);
                }
            }
        }
    }

    fn fire(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        match conn.phase {
            Phase::Connecting | Phase::TimeWait => return,
            Phase::SynAckSent | Phase::SynSent => {
                conn.tries += 1;
                conn.timing = None;
                if conn.tries >= SYN_TRIES {
                    return self.abort(cx, key);
                }
                self.send_syn(cx, key);
            }
            Phase::Open if conn.outstanding() => {
                conn.tries += 1;
                if conn.tries > TRIES {
                    return self.abort(cx, key);
                }
                // RFC 6298 section 5.4 and RFC 5681 section 3.1: from the first unacknowledged byte, slowly.
                conn.narrow();
                conn.cwnd = u32::from(conn.mss);
                conn.recover = None;
                conn.duplicate_acks = 0;
                conn.snd_nxt = conn.snd_una;
                if conn.snd_wnd == 0 {
                    // The window has closed over it: what comes back to a probe tells how far.
                    self.probe(cx, key);
                } else {
                    self.pump(cx, key);
                }
            }
            Phase::Open if conn.has_more() => {
                conn.tries += 1;
                if conn.tries > TRIES {
                    return self.abort(cx, key);
                }
                self.probe(cx, key);
            }
            Phase::Open => {
                if !conn.watched
                    && let Some(socket) = conn.socket.as_mut()
                {
                    conn.watched = true;
                    // Unwatched, the connection lives on: until its timeout in the table, or until somebody sends.
                    let _ = socket.keep_alive();
                }
                if cx.now.since(conn.heard) >= KEEP_ALIVE {
                    conn.tries += 1;
                    if conn.tries > KEEP_ALIVE_TRIES {
                        return self.abort(cx, key);
                    }
                    self.probe(cx, key);
                }
            }
        }
        self.schedule(cx.now, key);
    }
}

/// When the connection's timer is to run out, in the state it is in.
fn wanted<S>(conn: &Conn<S>, now: Instant) -> Option<Instant> {
    match conn.phase {
        Phase::Connecting | Phase::TimeWait => None,
        Phase::SynAckSent | Phase::SynSent => Some(now + conn.rto()),
        Phase::Open if conn.outstanding() || conn.has_more() => Some(now + conn.rto()),
        Phase::Open if conn.tries > 0 => Some(now + KEEP_ALIVE_INTERVAL),
        Phase::Open if !conn.watched => Some(now + WATCH_AFTER),
        Phase::Open => Some((conn.heard + KEEP_ALIVE).max(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sim::SimHost;
    use crate::rig::Rig;

    fn open_conn(relay: &mut Relay<SimHost>, rig: &mut Rig) -> Key {
        let at = SocketAddr::from(([10, 0, 2, 100], 1));
        let server = SocketAddr::from(([198, 51, 100, 10], 80));
        let index = relay.conns.next_key();
        rig.host
            .tcp
            .servers
            .insert(server, crate::host::sim::tcp::Outcome::Accept);
        let (socket, _) = rig.host.tcp_connect(token(index), server).unwrap();
        let flow = FlowId {
            index: 0,
            generation: 0,
        };
        let conn = Conn::new(rig.now, flow, (socket, None), at, server, Phase::Open, Seq(0));
        relay.conns.insert(conn)
    }

    /// Requests and answers for an hour on one connection, and a thousand short connections.
    #[test]
    fn the_queue_has_at_most_one_record_of_each_connection() {
        let mut rig = Rig::new();
        let mut relay = Relay::new((1, 2));
        let key = open_conn(&mut relay, &mut rig);
        relay.schedule(rig.now, key);
        for _ in 0..10_000 {
            rig.now += Duration::from_millis(350);
            relay.run_timers(&mut rig.cx());
            let conn = relay.conns.get_mut(key).unwrap();
            conn.heard = rig.now;
            conn.snd_max = conn.snd_una.plus(1);
            relay.schedule(rig.now, key);
            let conn = relay.conns.get_mut(key).unwrap();
            conn.snd_una = conn.snd_max;
            relay.restart_timer(rig.now, key);
            assert!(relay.timers.len() <= 1);
        }
        for _ in 0..1000 {
            let short = open_conn(&mut relay, &mut rig);
            relay.schedule(rig.now, short);
            assert!(relay.timers.len() <= 2);
            relay.forget(&mut rig.cx(), short);
        }
        assert_eq!(relay.timers.len(), relay.conns.len());
    }
}
