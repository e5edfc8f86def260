use super::*;

const A: PortId = PortId(1);
const B: PortId = PortId(2);
const C: PortId = PortId(3);

const HTTP: Service = Service {
    transport: Transport::Tcp,
    port: 80,
};
const DNS: Service = Service {
    transport: Transport::Udp,
    port: 53,
};

/// A frame with `payload` behind an ethertype.
fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype.to_be_bytes(), payload].concat()
}

fn v4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0];
    ip.extend_from_slice(&fragment.to_be_bytes());
    ip.extend_from_slice(&[64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ip.extend_from_slice(payload);
    ethernet(headers::IPV4, &ip)
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, next, 255];
    ip.extend_from_slice(&[0xfd; 32]);
    ip.extend_from_slice(payload);
    ethernet(headers::IPV6, &ip)
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut b = [from.to_be_bytes(), to.to_be_bytes()].concat();
    b.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    b
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

/// A link from A to B for HTTP and DNS, and one from A to C for nothing.
fn links() -> Links {
    let mut links = Links::default();
    links.set(A, B, &[HTTP, DNS]);
    links.set(A, C, &[]);
    links
}

/// Whether the frame passes from A to B, from B to A, from A to C, and from B to C.
fn passes(bytes: &[u8]) -> [bool; 4] {
    let matter = Matter::of(bytes);
    let links = links();
    [(A, B), (B, A), (A, C), (B, C)].map(|(from, to)| links.allow(from, to, matter, false))
}

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 4;

#[test]
fn a_client_reaches_the_services_and_gets_their_answers() {
    const NONE: [bool; 4] = [false; 4];
    const THERE: [bool; 4] = [true, false, false, false];
    const BACK: [bool; 4] = [false, true, false, false];
    for build in [|p: &[u8]| v4(6, 0, p), |p: &[u8]| v6(6, p)] {
        for flags in [SYN, ACK, RST] {
            assert_eq!(passes(&build(&tcp(40000, 80, flags))), THERE, "{flags}");
            assert_eq!(passes(&build(&tcp(40000, 81, flags))), NONE, "{flags}");
        }
        for flags in [SYN_ACK, ACK, RST] {
            assert_eq!(passes(&build(&tcp(80, 40000, flags))), BACK, "{flags}");
        }
        assert_eq!(
            passes(&build(&tcp(80, 40000, SYN))),
            NONE,
            "the server does not call"
        );
        assert_eq!(passes(&build(&tcp(80, 40000, SYN | 0x20))), NONE);
        assert_eq!(passes(&build(&tcp(53, 53, ACK))), NONE, "that is UDP's");
    }
    for build in [|p: &[u8]| v4(17, 0, p), |p: &[u8]| v6(17, p)] {
        assert_eq!(passes(&build(&udp(5000, 53))), THERE);
        assert_eq!(passes(&build(&udp(53, 5000))), BACK);
        assert_eq!(passes(&build(&udp(5000, 80))), NONE, "that is TCP's");
    }
}

#[test]
fn neighbours_find_each_other_and_nothing_else_is_needed_for_that() {
    const LINKED: [bool; 4] = [true, true, true, false];
    assert_eq!(passes(&ethernet(headers::ARP, &[0; 28])), LINKED);
    for kind in [135, 136] {
        assert_eq!(passes(&v6(58, &[kind, 0, 0, 0])), LINKED, "{kind}");
    }
    // Echo, router solicitation and advertisement, redirect.
    for kind in [128, 129, 133, 134, 137] {
        assert_eq!(passes(&v6(58, &[kind, 0, 0, 0])), [false; 4], "{kind}");
    }
    // A tag changes nothing.
    let tagged = [
        &[2; 12][..],
        &[0x81, 0, 0, 5],
        &headers::ARP.to_be_bytes(),
        &[0; 28],
    ]
    .concat();
    assert_eq!(passes(&tagged), LINKED);
}

#[test]
fn errors_and_later_fragments_come_along_where_something_is_let_through() {
    const SERVED: [bool; 4] = [true, true, false, false];
    for kind in [3, 11, 12] {
        assert_eq!(passes(&v4(1, 0, &[kind, 0, 0, 0])), SERVED, "{kind}");
    }
    // Echo, source quench, redirect, timestamp.
    for kind in [0, 4, 5, 8, 13] {
        assert_eq!(passes(&v4(1, 0, &[kind, 0, 0, 0])), [false; 4], "{kind}");
    }
    for kind in 1..=4 {
        assert_eq!(passes(&v6(58, &[kind, 0, 0, 0])), SERVED, "{kind}");
        assert_eq!(passes(&v4(58, 0, &[kind, 0, 0, 0])), [false; 4], "{kind}");
    }
    for protocol in [6, 17, 1] {
        assert_eq!(passes(&v4(protocol, 100, &[1, 2, 3])), SERVED, "{protocol}");
    }
    assert_eq!(passes(&v4(47, 100, &[1, 2, 3])), [false; 4]);
    // A later fragment of IPv6, and a neighbour solicitation that pretends to be in fragments.
    assert_eq!(passes(&v6(44, &[17, 0, 1, 0, 0, 0, 0, 1, 9, 9])), SERVED);
    assert_eq!(passes(&v6(44, &[58, 0, 0, 1, 0, 0, 0, 1, 135, 0])), [false; 4]);
}

#[test]
fn what_cannot_be_read_is_not_let_through() {
    let short = tcp(40000, 80, SYN);
    for len in 0..14 {
        assert_eq!(passes(&v4(6, 0x2000, &short[..len])), [false; 4], "{len}");
    }
    assert!(
        passes(&v4(6, 0x2000, &short))[0],
        "a first fragment that shows its flags"
    );
    assert_eq!(passes(&v4(17, 0, &udp(1, 53)[..3])), [false; 4]);
    for other in [
        &[][..],
        &[2; 13],
        &ethernet(0x88b5, &[1, 2, 3]),
        &v4(132, 0, &[0; 12]),
    ] {
        assert_eq!(passes(other), [false; 4]);
    }
}

#[test]
fn a_group_is_for_finding_each_other_only() {
    let links = links();
    let group = |bytes: &[u8]| links.allow(A, B, Matter::of(bytes), true);
    assert!(group(&ethernet(headers::ARP, &[0; 28])) && group(&v6(58, &[135, 0, 0, 0])));
    assert!(!group(&v4(17, 0, &udp(5000, 53))) && !group(&v4(1, 0, &[3, 0, 0, 0])));
}

#[test]
fn links_are_exchanged_and_go_with_their_ports() {
    let mut links = links();
    let dns = Matter::of(&v4(17, 0, &udp(5000, 53)));
    links.set(A, B, &[HTTP]);
    assert!(!links.allow(A, B, dns, false));
    assert_eq!(links.iter().count(), 2);
    assert!(links.remove(A, B) && !links.remove(A, B) && !links.remove(C, A));
    links.set(B, A, &[DNS]);
    assert!(links.allow(B, A, dns, false));
    links.remove_port(A);
    assert_eq!(links.iter().count(), 0);
}
