//! Clients by TCP.

use super::*;

/// A server with a simulated container that speaks TCP to it.
struct Tcp {
    server: Server,
    client: Container,
}

impl Tcp {
    fn new() -> Self {
        let mut server = Server::new();
        for addr in ["10.0.2.100", "fd00:2::100"] {
            server.rig.neighbours.pin(addr.parse().unwrap(), CONTAINER);
        }
        let config = sim::Config {
            tso: true,
            ..sim::Config::default()
        };
        Self {
            server,
            client: Container::new(config),
        }
    }

    /// Lets frames and time pass for `millis`.
    fn run(&mut self, millis: u64) {
        let mut link = crate::link::Link::new(&self.server.rig.config);
        let end = self.server.rig.now + Duration::from_millis(millis);
        while self.server.rig.now < end {
            self.server.rig.now += Duration::from_millis(1);
            self.client.poll(self.server.rig.now);
            let mut frames: VecDeque<_> = self.client.transmit().into();
            while let Some((mut bytes, offload)) = frames.pop_front() {
                if bytes[12..14] == [8, 6] {
                    link.arp(
                        &mut self.server.rig.cx(),
                        PORT,
                        &mut Frame::whole(&mut bytes, offload),
                    );
                    continue;
                }
                let frame = Frame::whole(&mut bytes, offload);
                let packet = crate::packet::Packet::parse(self.server.rig.port, &frame).unwrap();
                let mut cx = self.server.rig.cx();
                if !link.icmpv6_link(&mut cx, &packet, &frame) {
                    self.server.dns.segment(&mut cx, &packet, &frame);
                }
            }
            self.server.events();
            if self
                .server
                .dns
                .deadline()
                .is_some_and(|at| at <= self.server.rig.now)
            {
                self.server.dns.flush(&mut self.server.rig.cx());
                assert!(
                    self.server
                        .dns
                        .deadline()
                        .is_none_or(|at| at > self.server.rig.now),
                    "a deadline that stays is a loop"
                );
            }
            for frame in self.server.rig.sent() {
                self.client.receive(&frame, Offload::NONE);
            }
        }
    }

    fn connect(&mut self, to: &str) -> TcpId {
        let id = self.client.tcp_connect(at(to));
        self.run(20);
        id
    }

    fn send(&mut self, id: TcpId, message: &[u8]) {
        let framed = [&(message.len() as u16).to_be_bytes(), message].concat();
        assert_eq!(self.client.tcp_send(id, &framed), framed.len());
        self.run(20);
    }

    fn receive(&mut self, id: TcpId) -> Vec<Message> {
        self.run(20);
        let mut data = self.client.tcp_recv(id, 100_000);
        loop {
            let more = self.client.tcp_recv(id, 100_000);
            if more.is_empty() {
                break;
            }
            data.extend(more);
        }
        let mut rest = &data[..];
        let mut messages = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let (m, next) = tail.split_at(u16::from_be_bytes(*length).into());
            messages.push(Message::from_vec(m).unwrap());
            rest = next;
        }
        messages
    }

    fn far(&mut self) -> Far {
        self.server
            .rig
            .host
            .tcp
            .far
            .pop()
            .expect("a connection to a resolver")
    }
}

#[test]
fn tcp_clients_are_answered_from_here_and_from_there() {
    for (gateway, partial) in [("10.0.2.2:53", true), ("[fd00:2::2]:53", false)] {
        let mut t = Tcp::new();
        t.server.called("web", &["10.0.2.100".parse().unwrap()]);
        t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Wait);
        let id = t.connect(gateway);
        assert_eq!(t.server.dns.connections(), 1, "{partial}");
        // Several on one connection; the slow one delays nobody.
        t.send(id, &query(1, "far.example.", RecordType::A));
        t.send(id, &query(2, "web.", RecordType::A));
        let got = t.receive(id);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].metadata.id, got[0].answers.len()), (2, 1));
        let far = t.far();
        assert!(far.take(1000).is_empty(), "not before it is connected");
        far.complete();
        t.run(5);
        let sent = far.take(1000);
        let length = u16::from_be_bytes([sent[0], sent[1]]);
        assert_eq!(usize::from(length), sent.len() - 2);
        let a = answer(&sent[2..]);
        let framed = [&(a.len() as u16).to_be_bytes(), &a[..]].concat();
        // In two pieces, within the length.
        far.send(&framed[..1]);
        t.run(5);
        far.send(&framed[1..]);
        let got = t.receive(id);
        assert_eq!((got[0].metadata.id, got[0].answers.len()), (1, 1));
        assert!(far.released());
        // The client is done.
        t.client.tcp_close(id);
        t.run(50);
        assert_eq!(
            (
                t.server.dns.connections(),
                t.server.dns.outstanding(),
                t.server.open()
            ),
            (0, 0, 0)
        );
    }
}

#[test]
fn who_asks_by_tcp_is_known_by_the_port() {
    let mut t = Tcp::new();
    let view = [("db".to_owned(), vec!["10.7.0.5".parse().unwrap()])];
    t.server.dns.set_view(PORT, &view);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(1, "db.", RecordType::A));
    assert_eq!(t.receive(id)[0].answers.len(), 1);
    // Another port that speaks in this one's name.
    t.server.rig.port = PortId(99);
    t.client.tcp_send(id, &[0]);
    t.run(20);
    assert!(t.server.rig.dropped().contains(&DropReason::BadSourceAddress));
    // The container has gone, and its address with it: the next one begins anew.
    t.server.dns.detach(PORT);
    assert_eq!(t.server.dns.connections(), 0);
    t.client.tcp_abort(id);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(2, "db.", RecordType::A));
    assert!(t.receive(id)[0].answers.is_empty());
}

#[test]
fn a_client_that_has_ended_its_side_is_still_answered() {
    let mut t = Tcp::new();
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Accept);
    let id = t.connect("10.0.2.2:53");
    t.send(id, &query(1, "far.example.", RecordType::A));
    t.client.tcp_close(id);
    t.run(50);
    let far = t.far();
    let sent = far.take(1000);
    let a = answer(&sent[2..]);
    far.send(&[&(a.len() as u16).to_be_bytes(), &a[..]].concat());
    assert_eq!(t.receive(id).len(), 1);
    t.run(50);
    assert_eq!(t.server.dns.connections(), 0);
}

#[test]
fn tcp_failures_are_servfail_and_large_answers_come_whole() {
    let mut t = Tcp::new();
    let id = t.connect("10.0.2.2:53");
    // Both refuse.
    t.send(id, &query(1, "far.example.", RecordType::A));
    assert_eq!(t.receive(id)[0].metadata.response_code, ResponseCode::ServFail);
    // The first is silent, the second hangs up, until patience ends.
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Wait);
    t.server.rig.host.tcp.servers.insert(at(SECOND), Outcome::Accept);
    t.send(id, &query(2, "far.example.", RecordType::A));
    t.run(4100);
    let far = t.far();
    assert_eq!(far.remote(), at(SECOND));
    far.finish();
    t.run(4100);
    assert_eq!(t.receive(id)[0].metadata.response_code, ResponseCode::ServFail);
    assert_eq!((t.server.open(), t.server.dns.outstanding()), (0, 0));
    // More than any buffer on the way.
    t.server.rig.host.tcp.servers.insert(at(FIRST), Outcome::Accept);
    t.send(id, &query(3, "far.example.", RecordType::A));
    let far = t.far();
    let sent = far.take(1000);
    let asked = Message::from_vec(&sent[2..]).unwrap();
    let mut m = Message::response(asked.metadata.id, OpCode::Query);
    m.add_query(asked.queries[0].clone());
    let name = asked.queries[0].name();
    for i in 0..2000u32 {
        let [_, _, c, d] = i.to_be_bytes();
        m.add_answer(Record::from_rdata(
            name.clone(),
            60,
            RData::A(A::new(10, 1, c, d)),
        ));
    }
    let a = m.to_vec().unwrap();
    assert!(a.len() > 32_000);
    far.send(&[&(a.len() as u16).to_be_bytes(), &a[..]].concat());
    t.run(500);
    assert_eq!(t.receive(id)[0].answers.len(), 2000);
}

#[test]
fn idle_half_open_and_broken_connections_end() {
    let mut t = Tcp::new();
    let ids: Vec<TcpId> = (0..8).map(|_| t.connect("10.0.2.2:53")).collect();
    assert_eq!(t.server.dns.connections(), 8);
    // The ninth of one container has to wait for its turn.
    let ninth = t.connect("10.0.2.2:53");
    assert_eq!(t.server.dns.connections(), 8);
    assert!(t.server.rig.dropped().contains(&DropReason::QuotaFull));
    t.client.tcp_abort(ninth);
    // A length that no query has.
    assert_eq!(t.client.tcp_send(ids[0], &[0xff, 0xff, 1, 2, 3]), 5);
    t.run(20);
    assert_eq!(t.server.dns.connections(), 7);
    // One stops in the middle of a query, the others say nothing.
    assert_eq!(t.client.tcp_send(ids[1], &[0, 40, 1, 2, 3]), 5);
    t.run(32_000);
    assert_eq!(t.server.dns.connections(), 0);
    let again = t.connect("10.0.2.2:53");
    t.server.called("web", &["10.0.2.100".parse().unwrap()]);
    t.send(again, &query(2, "web.", RecordType::A));
    assert_eq!(t.receive(again).len(), 1);
}

#[test]
fn pipelined_questions_are_all_answered() {
    let mut t = Tcp::new();
    t.server.called("web", &["10.0.2.100".parse().unwrap()]);
    let id = t.connect("10.0.2.2:53");
    let mut all = Vec::new();
    for i in 0..500u16 {
        let q = query(i, "web.", RecordType::A);
        all.extend((q.len() as u16).to_be_bytes());
        all.extend(q);
    }
    assert_eq!(t.client.tcp_send(id, &all), all.len());
    t.run(300);
    let mut ids: Vec<u16> = t.receive(id).iter().map(|m| m.metadata.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..500).collect::<Vec<_>>());
}
