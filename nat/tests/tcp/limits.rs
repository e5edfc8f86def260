//! A share of the table, of sockets and of descriptors that is used up.

use super::*;

#[test]
fn a_container_out_of_its_share_is_refused_and_others_go_on() {
    let mut c = config();
    c.max_flows_per_container = 3;
    let mut w = World::new(sim::Config::default(), c);
    let open_ones: Vec<_> = (0..3).map(|_| open(&mut w, SERVER)).collect();
    w.container.tcp_connect(SERVER);
    w.pass(SECOND / 2);
    assert_eq!(w.dropped(DropReason::QuotaFull), 1);
    assert_eq!(w.container.take_errors().len(), 1);
    for (id, far) in &open_ones {
        upload(&mut w, *id, far, b"alive", 10);
    }
}

#[test]
fn closed_connections_give_their_share_of_sockets_back() {
    let mut w = World::plain();
    w.gateway.limit_sockets(1);
    for n in 1..6 {
        let (id, far) = open(&mut w, SERVER);
        let refused = w.container.tcp_connect(SERVER);
        w.pass(SECOND / 2);
        assert_eq!(w.dropped(DropReason::QuotaFull), n);
        assert_eq!(w.container.take_errors().len(), 1);
        // It would ask again, and get in.
        w.container.tcp_abort(refused);
        upload(&mut w, id, &far, b"alive", 10);
        close(&mut w, id, &far);
    }
}

#[test]
fn a_host_out_of_descriptors_refuses_and_goes_on() {
    let mut w = World::plain();
    w.gateway.host_mut().tcp.descriptors = Some(2);
    let (a, far_a) = open(&mut w, SERVER);
    let (_, _) = open(&mut w, SERVER);
    w.container.tcp_connect(SERVER);
    w.pass(SECOND / 2);
    assert_eq!(w.dropped(DropReason::HostExhausted), 1);
    assert_eq!(w.container.take_errors().len(), 1);
    upload(&mut w, a, &far_a, b"alive", 10);
}
