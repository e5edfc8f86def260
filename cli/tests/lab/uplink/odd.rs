//! Packets that no kernel sends, made by scapy (`odd.py`) at either end of the router.

use pontoon_fixtures::lab::require;

use super::{Log, Site};

/// What came of a conversation of `odd.py`.
fn converse(site: &Site<'_>, conversation: &str, log: &mut Log) {
    require("/usr/lib/python3/dist-packages/scapy");
    site.world.write("/tmp/odd.py", include_str!("odd.py"));
    let pid = site.a.pid.to_string();
    let said = site
        .world
        .host()
        .cmd(["/usr/bin/python3", "/tmp/odd.py", &pid, "server", conversation])
        .run()
        .ok();
    log.all(&said);
}

either_way! {
    /// Options, extension headers and flags are carried, and a checksum that was wrong is wrong afterwards; of a header that is wrong nothing
    /// can be believed.
    fn headers(world, way, log) {
        converse(&Site::new(world, way), "headers", log);
    } says "
        a flow: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62
        a flow, v6: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62
        out, options: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62, options NOP RR
        out, no UDP checksum: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62, wrong checksums: none of UDP
        out, a wrong UDP checksum: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62, wrong checksums: transport
        out, a wrong header checksum: nothing
        out, hop limit 1: back: 10.44.0.1 > 10.44.0.2, ttl 64, ICMP 11/0, about 10.44.0.2:5000 > 198.51.100.10:6000
        out, the reserved flag: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62, reserved flag
        out, a wrong UDP checksum, v6: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62, wrong checksums: transport
        out, hop-by-hop: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62, HopByHop
        out, destination options: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62, DestOpt
        out, hop limit 1, v6: back: fd44::1 > fd44::2, hlim 64, ICMPv6 3/0, about fd44::2:5000 > 2001:db8:2::10:6000
        back, options: 198.51.100.10:6000 > 10.44.0.2:5000, ttl 62, options NOP RR
        back, no UDP checksum: 198.51.100.10:6000 > 10.44.0.2:5000, ttl 62, wrong checksums: none of UDP
        back, a wrong UDP checksum: 198.51.100.10:6000 > 10.44.0.2:5000, ttl 62, wrong checksums: transport
        back, a wrong header checksum: nothing
        back, hop limit 1: back: 198.51.100.254 > 198.51.100.10, ttl 64, ICMP 11/0, about 198.51.100.10:6000 > 100.64.7.77:5000
        back, the reserved flag: 198.51.100.10:6000 > 10.44.0.2:5000, ttl 62, reserved flag
        back, a wrong UDP checksum, v6: 2001:db8:2::10:6000 > fd44::2:5000, hlim 62, wrong checksums: transport
        back, hop-by-hop: 2001:db8:2::10:6000 > fd44::2:5000, hlim 62, HopByHop
        back, destination options: 2001:db8:2::10:6000 > fd44::2:5000, hlim 62, DestOpt
        back, hop limit 1, v6: back: 2001:db8:2::fe > 2001:db8:2::10, hlim 64, ICMPv6 3/0, about 2001:db8:2::10:6000 > 2001:db8:7::77:5000
    "
}

either_way! {
    /// Other protocols are known by their addresses alone. To the world Pontoon is no host that could say which it has.
    fn protocols(world, way, log) {
        converse(&Site::new(world, way), "protocols", log);
    } says "
        out, 47: 100.64.7.77 > 198.51.100.10, ttl 62, protocol 47
        back, 47: 198.51.100.10 > 10.44.0.2, ttl 62, protocol 47
        out, 47, v6: 2001:db8:7::77 > 2001:db8:2::10, hlim 62, protocol 47
        back, 47, v6: 2001:db8:2::10 > fd44::2, hlim 62, protocol 47
        out, 50: 100.64.7.77 > 198.51.100.10, ttl 62, protocol 50
        back, 50: 198.51.100.10 > 10.44.0.2, ttl 62, protocol 50
        out, 50, v6: 2001:db8:7::77 > 2001:db8:2::10, hlim 62, protocol 50
        back, 50, v6: 2001:db8:2::10 > fd44::2, hlim 62, protocol 50
        out, 99: 100.64.7.77 > 198.51.100.10, ttl 62, protocol 99
        back, 99: 198.51.100.10 > 10.44.0.2, ttl 62, protocol 99
        out, 99, v6: 2001:db8:7::77 > 2001:db8:2::10, hlim 62, protocol 99
        back, 99, v6: 2001:db8:2::10 > fd44::2, hlim 62, protocol 99
        unasked, 98: back: 100.64.7.77 > 198.51.100.10, ttl 63, ICMP 3/2, about 198.51.100.10 > 100.64.7.77
        of a stranger, 47: back: 100.64.7.77 > 198.51.100.11, ttl 63, ICMP 3/2, about 198.51.100.11 > 100.64.7.77
    "
}

either_way! {
    /// In whatever order they come, within bounds. What has no whole packet for whom it is meant may or may not be held back.
    fn fragments(world, way, log) {
        converse(&Site::new(world, way), "fragments", log);
    } says "
        a flow: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62
        a flow, v6: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62
        out, in order: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, backwards: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, the middle last: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, one missing: no whole datagram
        out, one twice: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, two at once: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, two at once: 100.64.7.77:5000 > 198.51.100.10:6000, 2008 bytes
        out, overlapping: no whole datagram
        out, v6, in order: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, backwards: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, the middle last: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, one missing: no whole datagram
        out, v6, one twice: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, two at once: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, two at once: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, 2008 bytes
        out, v6, overlapping: no whole datagram
        out, too long: no whole datagram
        back, in order: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, backwards: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, the middle last: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, one missing: no whole datagram
        back, one twice: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, two at once: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, two at once: 198.51.100.10:6000 > 10.44.0.2:5000, 2008 bytes
        back, overlapping: no whole datagram
        back, v6, in order: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, backwards: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, the middle last: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, one missing: no whole datagram
        back, v6, one twice: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, two at once: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, two at once: 2001:db8:2::10:6000 > fd44::2:5000, 2008 bytes
        back, v6, overlapping: no whole datagram
        back, too long: no whole datagram
    "
}

either_way! {
    /// Errors are told to whom the packet within was from, which is translated as well, and only if there is such a flow
    /// (RFC 5508). Source quench is none any more (RFC 6633).
    fn errors(world, way, log) {
        converse(&Site::new(world, way), "errors", log);
    } says "
        a flow: 100.64.7.77:5000 > 198.51.100.10:6000, ttl 62
        a flow, v6: 2001:db8:7::77:5000 > 2001:db8:2::10:6000, hlim 62
        port unreachable: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 3/3, about 10.44.0.2:5000 > 198.51.100.10:6000
        host unreachable: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 3/1, about 10.44.0.2:5000 > 198.51.100.10:6000
        fragmentation needed: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 3/4 mtu 1300, about 10.44.0.2:5000 > 198.51.100.10:6000
        time exceeded: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 11/0, about 10.44.0.2:5000 > 198.51.100.10:6000
        parameter problem: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 12/0, about 10.44.0.2:5000 > 198.51.100.10:6000
        kernel| source quench: 203.0.113.99 > 10.44.0.2, ttl 62, ICMP 4/0, about 10.44.0.2:5000 > 198.51.100.10:6000
        pontoon| source quench: nothing
        of another flow: nothing
        of another's packet: nothing
        cut short: nothing
        with a wrong checksum: nothing
        no route, v6: 2001:db8:3::99 > fd44::2, hlim 62, ICMPv6 1/0, about fd44::2:5000 > 2001:db8:2::10:6000
        port unreachable, v6: 2001:db8:3::99 > fd44::2, hlim 62, ICMPv6 1/4, about fd44::2:5000 > 2001:db8:2::10:6000
        too big, v6: 2001:db8:3::99 > fd44::2, hlim 62, ICMPv6 2/0 mtu 1300, about fd44::2:5000 > 2001:db8:2::10:6000
        time exceeded, v6: 2001:db8:3::99 > fd44::2, hlim 62, ICMPv6 3/0, about fd44::2:5000 > 2001:db8:2::10:6000
        of another flow, v6: nothing
        the container's: 100.64.7.77 > 198.51.100.10, ttl 62, ICMP 3/2, about 198.51.100.10:6000 > 100.64.7.77:5000
        the container's, v6: 2001:db8:7::77 > 2001:db8:2::10, hlim 62, ICMPv6 1/1, about 2001:db8:2::10:6000 > 2001:db8:7::77:5000
        the container's, of nothing: nothing
    "
}

either_way! {
    /// What is in the window passes, what is far outside does not, in either direction. To what is dropped of a flow the kernel answers as
    /// the host that it is as well, and by that ends the connection at the other end; a reset in answer to a SYN has to acknowledge it
    /// (RFC 9293 section 3.10.7.3), which the kernel does not look at; and what comes from the middle of a connection that is
    /// not there is the beginning of one to the kernel, while Pontoon tells the container that there is none.
    fn tcp(world, way, log) {
        converse(&Site::new(world, way), "tcp", log);
    } says "
        SYN: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP S seq 1000 ack 0
        SYN-ACK: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP SA seq 5000 ack 1001
        ACK: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP A seq 1001 ack 5001
        data: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP PA seq 1001 ack 5001
        data back: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP PA seq 5001 ack 1006
        acknowledged: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP A seq 1006 ack 5006
        a reset far outside: nothing
        a reset with nothing acknowledged, far outside: nothing
        kernel| data far outside: back: 100.64.7.77:4000 > 198.51.100.10:80, ttl 63, TCP R seq 1006 ack 0
        pontoon| data far outside: nothing
        kernel| an acknowledgement of what was never sent: back: 100.64.7.77:4000 > 198.51.100.10:80, ttl 63, TCP R seq 5001006 ack 0
        pontoon| an acknowledgement of what was never sent: nothing
        data after that: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP PA seq 1006 ack 5006
        and back: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP PA seq 5006 ack 1011
        a repetition: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP PA seq 5006 ack 1011
        an urgent byte: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP PAU seq 1011 ack 5010 urgent 1
        a keep-alive: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP A seq 1010 ack 5010
        its answer: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP A seq 5010 ack 1012
        none of the flags: nothing
        SYN and FIN: nothing
        all of them: nothing
        congestion marks: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP PAEC seq 1012 ack 5010
        a wrong checksum: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP PA seq 5010 ack 1013, wrong checksums: transport
        FIN: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP FA seq 1013 ack 5010
        half closed: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP PA seq 5010 ack 1014
        FIN back: 198.51.100.10:80 > 10.44.0.2:4000, ttl 62, TCP FA seq 5014 ack 1014
        the last: 100.64.7.77:4000 > 198.51.100.10:80, ttl 62, TCP A seq 1014 ack 5015
        SYN: 100.64.7.77:4001 > 198.51.100.10:80, ttl 62, TCP S seq 1000 ack 0
        SYN-ACK: 198.51.100.10:80 > 10.44.0.2:4001, ttl 62, TCP SA seq 5000 ack 1001
        ACK: 100.64.7.77:4001 > 198.51.100.10:80, ttl 62, TCP A seq 1001 ack 5001
        the right reset: 198.51.100.10:80 > 10.44.0.2:4001, ttl 62, TCP RA seq 5001 ack 1001
        data after the reset: 198.51.100.10:80 > 10.44.0.2:4001, ttl 62, TCP PA seq 5001 ack 1001
        SYN: 100.64.7.77:4002 > 198.51.100.10:80, ttl 62, TCP S seq 1000 ack 0
        refused: 198.51.100.10:80 > 10.44.0.2:4002, ttl 62, TCP RA seq 0 ack 1001
        SYN: 100.64.7.77:4003 > 198.51.100.10:80, ttl 62, TCP S seq 1000 ack 0
        kernel| a blind reset of a SYN: 198.51.100.10:80 > 10.44.0.2:4003, ttl 62, TCP R seq 77 ack 0
        pontoon| a blind reset of a SYN: nothing
        a refusal of another SYN: nothing
        kernel| SYN-ACK after it: back: 100.64.7.77:4003 > 198.51.100.10:80, ttl 63, TCP R seq 1001 ack 0
        pontoon| SYN-ACK after it: 198.51.100.10:80 > 10.44.0.2:4003, ttl 62, TCP SA seq 5000 ack 1001
        kernel| the middle of a flow that is not there: 100.64.7.77:4004 > 198.51.100.10:80, ttl 62, TCP PA seq 1 ack 1
        pontoon| the middle of a flow that is not there: back: 198.51.100.10:80 > 10.44.0.2:4004, ttl 64, TCP R seq 1 ack 0
        kernel| its FIN: 100.64.7.77:4004 > 198.51.100.10:80, ttl 62, TCP FA seq 1 ack 1
        pontoon| its FIN: back: 198.51.100.10:80 > 10.44.0.2:4004, ttl 64, TCP R seq 1 ack 0
        kernel| its reset: 100.64.7.77:4004 > 198.51.100.10:80, ttl 62, TCP R seq 1 ack 0
        pontoon| its reset: nothing
        unasked data: back: 100.64.7.77:4005 > 198.51.100.10:80, ttl 63, TCP R seq 1 ack 0
        an unasked SYN-ACK: back: 100.64.7.77:4005 > 198.51.100.10:80, ttl 63, TCP R seq 1 ack 0
        an unasked reset: nothing
        SYN: 2001:db8:7::77:4006 > 2001:db8:2::10:80, hlim 62, TCP S seq 1000 ack 0
        SYN-ACK: 2001:db8:2::10:80 > fd44::2:4006, hlim 62, TCP SA seq 5000 ack 1001
        ACK: 2001:db8:7::77:4006 > 2001:db8:2::10:80, hlim 62, TCP A seq 1001 ack 5001
        data, v6: 2001:db8:7::77:4006 > 2001:db8:2::10:80, hlim 62, TCP PA seq 1001 ack 5001
        a reset far outside, v6: nothing
        data back, v6: 2001:db8:2::10:80 > fd44::2:4006, hlim 62, TCP PA seq 5001 ack 1006
        the right reset, v6: 2001:db8:2::10:80 > fd44::2:4006, hlim 62, TCP RA seq 5006 ack 1006
        simultaneous SYN: 100.64.7.77:4007 > 198.51.100.10:80, ttl 62, TCP S seq 1000 ack 0
        simultaneous SYN back: 198.51.100.10:80 > 10.44.0.2:4007, ttl 62, TCP S seq 5000 ack 0
        simultaneous SYN-ACK: 100.64.7.77:4007 > 198.51.100.10:80, ttl 62, TCP SA seq 1000 ack 5001
        simultaneous SYN-ACK back: 198.51.100.10:80 > 10.44.0.2:4007, ttl 62, TCP SA seq 5000 ack 1001
        simultaneous data: 100.64.7.77:4007 > 198.51.100.10:80, ttl 62, TCP PA seq 1001 ack 5001
    "
}
