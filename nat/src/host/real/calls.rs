//! The system calls of host sockets.
//!
//! Data go by calls with any arguments. Sockets are made, and options set, of the listed kinds only: the rest of what the
//! kernel's sockets can do is out of reach of whoever gets hold of this process.

use pontoon_switch::calls::{Arg, Call};
use pontoon_switch::sys;

/// The bits of `socket(2)`'s second argument that say which type; the rest are flags.
const TYPE: u32 = 0xf;

/// Sockets of one kind.
const fn kind(domain: i32, kind: i32, protocol: i32) -> [Arg; 3] {
    [
        Arg::is(0, domain as u32),
        Arg::masked(1, TYPE, kind as u32),
        Arg::is(2, protocol as u32),
    ]
}

/// One option of sockets.
const fn option(level: i32, name: i32) -> [Arg; 2] {
    [Arg::is(1, level as u32), Arg::is(2, name as u32)]
}

/// All that a host does with its sockets, made by itself or passed to it.
pub const CALLS: &[Call] = &[
    Call::only(
        libc::SYS_socket,
        &[
            &kind(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            &kind(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            &kind(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            &kind(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            &kind(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            &kind(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        ],
        "outgoing TCP, UDP and ping sockets; no raw ones, no Unix sockets",
    ),
    Call::any(libc::SYS_bind, "an outgoing address, and a UDP flow's port"),
    Call::any(libc::SYS_connect, "outgoing TCP"),
    Call::any(libc::SYS_accept4, "published TCP"),
    Call::any(libc::SYS_sendto, "data of TCP"),
    Call::any(libc::SYS_recvfrom, "data of TCP, looked at or taken"),
    Call::any(libc::SYS_sendmsg, "a datagram with what is said of it"),
    Call::any(
        libc::SYS_recvmsg,
        "datagrams, the error queue, TCP data behind others",
    ),
    Call::any(libc::SYS_recvmmsg, "a batch of datagrams"),
    Call::any(libc::SYS_shutdown, "half of a connection ends"),
    Call::any(libc::SYS_close, "all of it does"),
    Call::any(libc::SYS_getsockname, "which port, which address"),
    Call::any(libc::SYS_getpeername, "whether it is connected"),
    Call::any(
        libc::SYS_getsockopt,
        "errors; how full a send buffer is; what a passed socket is",
    ),
    Call::only(
        libc::SYS_setsockopt,
        &[
            // TCP.
            &option(libc::SOL_SOCKET, libc::SO_OOBINLINE),
            &option(libc::SOL_SOCKET, libc::SO_LINGER),
            &option(libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            &option(libc::SOL_SOCKET, libc::SO_PEEK_OFF),
            &option(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
            &option(libc::IPPROTO_TCP, libc::TCP_NODELAY),
            // Where outgoing sockets are bound.
            &option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            &option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
            &option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            // UDP and ping.
            &option(libc::IPPROTO_UDP, libc::UDP_SEGMENT),
            &option(libc::IPPROTO_UDP, libc::UDP_GRO),
            &option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            &option(libc::IPPROTO_IP, libc::IP_RECVERR),
            &option(libc::IPPROTO_IP, libc::IP_PKTINFO),
            &option(libc::IPPROTO_IP, libc::IP_RECVTTL),
            &option(libc::IPPROTO_IP, libc::IP_RECVTOS),
            &option(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
            &option(libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            &option(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            &option(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            &option(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            // Raw ICMP sockets that were passed.
            &option(libc::SOL_RAW, sys::udp::ICMP_FILTER),
            &option(libc::IPPROTO_ICMPV6, sys::udp::ICMPV6_FILTER),
        ],
        "the options that relays set",
    ),
    Call::only(
        libc::SYS_ioctl,
        &[&[Arg::is(1, libc::TIOCOUTQ as u32)]],
        "what a send buffer holds, where the kernel does not say it better",
    ),
    Call::only(
        libc::SYS_fcntl,
        &[
            &[Arg::is(1, libc::F_GETFL as u32)],
            &[Arg::is(1, libc::F_SETFL as u32)],
        ],
        "a socket that was passed is not to block",
    ),
    Call::any(
        POLL,
        "whether a socket is writable, or closed, where the kernel does not say it better",
    ),
    Call::any(libc::SYS_ppoll, "likewise"),
    Call::any(libc::SYS_eventfd2, "the descriptor in reserve"),
];

#[cfg(target_arch = "x86_64")]
const POLL: std::ffi::c_long = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: std::ffi::c_long = libc::SYS_ppoll;
