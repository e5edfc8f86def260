//! Datagram sockets (UDP, ping, raw ICMP) with control messages: local address, TTL, TOS, segment size, error queue.
//!
//! Addresses and control messages are laid out as bytes here (`sockaddr_in`, `sockaddr_in6`, `cmsghdr`;
//! `include/uapi/linux/{in,in6,socket,errqueue}.h`), so that unsafe code is left with three system calls.

use std::io::{self, IoSlice};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// `UDP_SEGMENT` and `UDP_GRO` take no more datagrams at once (`UDP_MAX_SEGMENTS`; 64 before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// The option of raw ICMP sockets that says which types come in (`include/uapi/linux/icmp.h`): a set bit keeps its type out.
pub const ICMP_FILTER: libc::c_int = 1;

/// The same of raw ICMPv6 sockets (`include/uapi/linux/icmpv6.h`).
pub const ICMPV6_FILTER: libc::c_int = 1;

const SOL_UDP: libc::c_int = libc::IPPROTO_UDP;
const WORD: usize = size_of::<usize>();
/// `cmsghdr`: a length of a word's size, level and type.
const CMSG_HEADER: usize = WORD + 8;
/// `sockaddr_in6`, the longer of the two.
const NAME: usize = 28;

/// A datagram to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Where to; the port is ignored by ping and raw sockets over IPv4 and must be 0 or the protocol over IPv6.
    pub remote: SocketAddr,
    /// The source address, if the socket is not to choose.
    pub local: Option<IpAddr>,
    /// TTL or hop limit, if not the socket's.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
    /// Segment size in bytes, for `UDP_SEGMENT`.
    pub segment: Option<u16>,
}

/// A received datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Bytes in the buffer.
    pub len: usize,
    /// The sender.
    pub remote: SocketAddr,
    /// The local address to answer from.
    pub local: Option<IpAddr>,
    /// TTL or hop limit.
    pub hop_limit: Option<u8>,
    /// TOS or traffic class.
    pub tos: u8,
    /// Segment size, if `UDP_GRO` joined several.
    pub segment: Option<u16>,
    /// True if the datagram was longer than the buffer.
    pub truncated: bool,
}

/// One entry of an error queue (`struct sock_extended_err`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuedError {
    /// Where the datagram it is about was going.
    pub remote: SocketAddr,
    /// `ee_errno`.
    pub errno: i32,
    /// `ee_origin`: one of `libc::SO_EE_ORIGIN_*`.
    pub origin: u8,
    /// `ee_type`: the ICMP type.
    pub kind: u8,
    /// `ee_code`: the ICMP code.
    pub code: u8,
    /// `ee_info`: the path's MTU for `EMSGSIZE`.
    pub info: u32,
    /// Who sent the ICMP error.
    pub offender: Option<IpAddr>,
    /// Bytes of the datagram's payload in the buffer.
    pub len: usize,
}

/// Asks for everything that [`recv`] and [`recv_error`] report: error queue, local address, TTL, TOS.
pub fn report_all(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let options = if v6 {
        [
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        ]
    } else {
        [
            (libc::IPPROTO_IP, libc::IP_RECVERR),
            (libc::IPPROTO_IP, libc::IP_PKTINFO),
            (libc::IPPROTO_IP, libc::IP_RECVTTL),
            (libc::IPPROTO_IP, libc::IP_RECVTOS),
        ]
    };
    options
        .into_iter()
        .try_for_each(|(level, name)| set(fd, level, name, 1))
}

/// Lets the kernel join datagrams of one sender (`UDP_GRO`; Linux 5.0).
///
/// # Errors
/// `ENOPROTOOPT` where the kernel does not know it.
pub fn set_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, SOL_UDP, libc::UDP_GRO, 1)
}

/// True if the kernel knows `UDP_SEGMENT` (Linux 4.18) for `fd`, a UDP socket.
pub fn has_gso(fd: BorrowedFd<'_>) -> bool {
    set(fd, SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Forbids fragmentation (DF, and no fragments of the host's making) or allows it.
///
/// Forbidden is `IP_PMTUDISC_DO`: a datagram over the path's MTU fails with `EMSGSIZE` and leaves that MTU in the error
/// queue. Allowed is `IP_PMTUDISC_DONT`.
pub fn set_dont_fragment(fd: BorrowedFd<'_>, v6: bool, forbidden: bool) -> io::Result<()> {
    if v6 {
        let mode = if forbidden {
            libc::IPV6_PMTUDISC_DO
        } else {
            libc::IPV6_PMTUDISC_DONT
        };
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)
    } else {
        let mode = if forbidden {
            libc::IP_PMTUDISC_DO
        } else {
            libc::IP_PMTUDISC_DONT
        };
        set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
    }
}

/// Lets only echo replies into a raw ICMP socket (`ICMP_FILTER`, `ICMP6_FILTER`). Errors come by the error queue anyway.
pub fn filter_echo_replies(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    if v6 {
        let mut blocked = [u32::MAX; 8];
        blocked[129 / 32] &= !(1 << (129 % 32));
        set_value(fd, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &blocked)
    } else {
        set_value(fd, libc::SOL_RAW, ICMP_FILTER, &!1u32)
    }
}

/// Sends one datagram of `parts`, without blocking.
///
/// # Errors
/// Those of `sendmsg(2)`; also an error that was waiting on the socket, which the call takes off it.
pub fn send(fd: BorrowedFd<'_>, how: &Outgoing, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let (mut name, name_len) = encode_name(how.remote);
    let mut control = Control::new();
    match how.remote {
        SocketAddr::V4(_) => {
            control.push(libc::IPPROTO_IP, libc::IP_TOS, &i32::from(how.tos).to_ne_bytes());
            if let Some(ttl) = how.hop_limit {
                control.push(libc::IPPROTO_IP, libc::IP_TTL, &i32::from(ttl).to_ne_bytes());
            }
            if let Some(IpAddr::V4(local)) = how.local {
                // `struct in_pktinfo`: interface, source address, (unused) destination.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
        }
        SocketAddr::V6(_) => {
            control.push(
                libc::IPPROTO_IPV6,
                libc::IPV6_TCLASS,
                &i32::from(how.tos).to_ne_bytes(),
            );
            if let Some(hops) = how.hop_limit {
                control.push(
                    libc::IPPROTO_IPV6,
                    libc::IPV6_HOPLIMIT,
                    &i32::from(hops).to_ne_bytes(),
                );
            }
            if let Some(IpAddr::V6(local)) = how.local {
                // `struct in6_pktinfo`: source address, interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }
    if let Some(size) = how.segment {
        control.push(SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }
    // SAFETY: `msghdr` is plain data, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name_len as libc::socklen_t;
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = control.bytes.as_mut_ptr().cast();
    message.msg_controllen = control.len as _;
    // SAFETY: name, parts (`IoSlice` has the layout of `iovec`) and control messages are buffers of the lengths given,
    // which the kernel only reads and which live past the call.
    let sent = unsafe {
        libc::sendmsg(
            fd.as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives one datagram, without blocking.
///
/// # Errors
/// `WouldBlock` if there is none; also an error that was waiting on the socket, which the call takes off it.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Incoming> {
    let message = receive(fd, buf, 0)?;
    let truncated = message.flags & libc::MSG_TRUNC != 0;
    incoming(
        message.len,
        truncated,
        &message.name,
        messages(message.control.filled()),
    )
}

/// Datagrams that [`recv_many`] takes at most.
pub const MAX_BATCH: usize = 32;

/// Receives up to `bufs.len()` datagrams, [`MAX_BATCH`] at most, one into each buffer, without blocking. What is known
/// of each is given to `each`, in order. How many there were: fewer than buffers mean that there was no more, or an error
/// that the next call meets.
///
/// # Errors
/// `WouldBlock` if there is none; also an error that was waiting on the socket, which the call takes off it.
pub fn recv_many<'b>(
    fd: BorrowedFd<'_>,
    bufs: impl Iterator<Item = &'b mut [u8]>,
    mut each: impl FnMut(Incoming),
) -> io::Result<usize> {
    let mut names = [[0u8; NAME]; MAX_BATCH];
    let mut controls = [[0u64; CONTROL_IN / 8]; MAX_BATCH];
    // SAFETY: `iovec` and `mmsghdr` are plain data, for which all zeroes are valid.
    let (mut parts, mut headers): ([libc::iovec; MAX_BATCH], [libc::mmsghdr; MAX_BATCH]) =
        unsafe { (zeroed(), zeroed()) };
    let mut count = 0;
    for (n, buf) in bufs.take(MAX_BATCH).enumerate() {
        parts[n].iov_base = buf.as_mut_ptr().cast();
        parts[n].iov_len = buf.len();
        let header = &mut headers[n].msg_hdr;
        header.msg_name = names[n].as_mut_ptr().cast();
        header.msg_namelen = NAME as libc::socklen_t;
        header.msg_iov = &raw mut parts[n];
        header.msg_iovlen = 1;
        header.msg_control = controls[n].as_mut_ptr().cast();
        header.msg_controllen = CONTROL_IN as _;
        count = n + 1;
    }
    // SAFETY: the first `count` headers point to names, control messages and buffers of the lengths given, all writable
    // and apart from each other, which live past the call; no timeout is given.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for n in 0..received {
        let header = &headers[n].msg_hdr;
        let mut control = [0; CONTROL_IN];
        for (to, from) in control.chunks_exact_mut(8).zip(&controls[n]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        let filled = header.msg_controllen.min(CONTROL_IN);
        let len = (headers[n].msg_len as usize).min(parts[n].iov_len);
        let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
        each(incoming(len, truncated, &names[n], messages(&control[..filled]))?);
    }
    Ok(received)
}

/// Bytes of control messages of a received datagram: local address (of IPv6 40), TTL, TOS and segment size (24 each).
const CONTROL_IN: usize = 128;

fn incoming<'c>(
    len: usize,
    truncated: bool,
    name: &[u8],
    control: impl Iterator<Item = (libc::c_int, libc::c_int, &'c [u8])>,
) -> io::Result<Incoming> {
    let remote = decode_name(name).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let mut incoming = Incoming {
        len,
        remote,
        local: None,
        hop_limit: None,
        tos: 0,
        segment: None,
        truncated,
    };
    for (level, kind, data) in control {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                incoming.local = bytes_at::<4>(data, 4).map(|b| Ipv4Addr::from(b).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                incoming.local = bytes_at::<16>(data, 0).map(|b| Ipv6Addr::from(b).into());
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                incoming.hop_limit = int(data).and_then(|n| u8::try_from(n).ok());
            }
            // IP_TOS comes as one byte, whatever was set.
            (libc::IPPROTO_IP, libc::IP_TOS) => incoming.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => incoming.tos = int(data).unwrap_or(0) as u8,
            (SOL_UDP, libc::UDP_GRO) => {
                incoming.segment = int(data).and_then(|n| u16::try_from(n).ok()).filter(|&n| n > 0);
            }
            _ => {}
        }
    }
    Ok(incoming)
}

/// Takes the next entry of the error queue, and what it has of the datagram it is about into `buf`.
pub fn recv_error(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Option<QueuedError>> {
    loop {
        let message = match receive(fd, buf, libc::MSG_ERRQUEUE) {
            Ok(message) => message,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        let found = messages(message.control.filled()).find_map(|(level, kind, data)| {
            matches!(
                (level, kind),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            )
            .then_some(data)
        });
        // Entries of other kinds (timestamps, zero-copy) are not asked for and passed over.
        let (Some(data), Some(remote)) = (found, decode_name(&message.name)) else {
            continue;
        };
        let (Some(errno), Some([origin, kind, code]), Some(info)) =
            (int(data), bytes_at::<3>(data, 4), bytes_at::<4>(data, 8))
        else {
            continue;
        };
        return Ok(Some(QueuedError {
            remote,
            errno,
            origin,
            kind,
            code,
            info: u32::from_ne_bytes(info),
            offender: data.get(16..).and_then(decode_name).map(|a| a.ip()),
            len: message.len,
        }));
    }
}

struct Message {
    len: usize,
    flags: libc::c_int,
    name: [u8; NAME],
    control: Control,
}

fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], flags: libc::c_int) -> io::Result<Message> {
    let mut name = [0u8; NAME];
    let mut control = Control::new();
    let mut part = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: `msghdr` is plain data, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = NAME as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.as_mut_ptr().cast();
    message.msg_controllen = control.bytes.len() as _;
    // SAFETY: name, part and control are writable buffers of the lengths given and live past the call.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags | libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    control.len = (message.msg_controllen as usize).min(control.bytes.len());
    Ok(Message {
        len: len.min(buf.len()),
        flags: message.msg_flags,
        name,
        control,
    })
}

/// A buffer of control messages: enough for all of those above at once.
struct Control {
    bytes: [u8; 256],
    len: usize,
}

impl Control {
    fn new() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let at = self.len;
        let header = &mut self.bytes[at..];
        header[..WORD].copy_from_slice(&(CMSG_HEADER + data.len()).to_ne_bytes());
        header[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        header[WORD + 4..CMSG_HEADER].copy_from_slice(&kind.to_ne_bytes());
        header[CMSG_HEADER..CMSG_HEADER + data.len()].copy_from_slice(data);
        self.len = at + (CMSG_HEADER + data.len()).next_multiple_of(WORD);
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The control messages in `rest`: level, type, data.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> + '_ {
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(bytes_at::<WORD>(rest, 0)?);
        let (level, kind) = (int(rest.get(WORD..)?)?, int(rest.get(WORD + 4..)?)?);
        let data = rest.get(CMSG_HEADER..len)?;
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

fn bytes_at<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn int(data: &[u8]) -> Option<libc::c_int> {
    bytes_at(data, 0).map(libc::c_int::from_ne_bytes)
}

fn encode_name(address: SocketAddr) -> ([u8; NAME], usize) {
    let mut name = [0; NAME];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(a) => {
            name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            name[4..8].copy_from_slice(&a.ip().octets());
            (name, 16)
        }
        SocketAddr::V6(a) => {
            name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            name[8..24].copy_from_slice(&a.ip().octets());
            name[24..28].copy_from_slice(&a.scope_id().to_ne_bytes());
            (name, NAME)
        }
    }
}

fn decode_name(name: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes_at(name, 2)?);
    match libc::c_int::from(u16::from_ne_bytes(bytes_at(name, 0)?)) {
        libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(bytes_at::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(bytes_at(name, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(bytes_at::<16>(name, 8)?), port, 0, scope).into())
        }
        _ => None,
    }
}

fn set(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set_value(fd, level, name, &value)
}

fn set_value<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which lives past the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const *value).cast(), size) })?;
    Ok(())
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
