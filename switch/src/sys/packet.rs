//! Packet sockets (`packet(7)`) on one interface, with a virtio-net header and the VLAN tag in auxiliary data.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;
use super::tun::VNET_HEADER;

/// Room for the sockets' queues, in bytes: a queued super-frame counts with all its overhead.
const QUEUE_BYTES: libc::c_int = 16 << 20;

/// Opens a packet socket in the current network namespace for every frame that interface `index` receives: not for what
/// is sent through it, promiscuous, non-blocking, with a virtio-net header before each frame.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW` over the namespace, `ENODEV` if there is no such interface, `ENETDOWN` if it is down.
pub fn open_packet(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Protocol 0: nothing is queued before the options are set and the socket is bound.
    // SAFETY: `socket` takes no pointer; the result is checked and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, kind, 0))?) };
    set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1)?;
    let index = libc::c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    set(
        &fd,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        &promiscuous(index),
    )?;
    // The forced size needs a capability over the host; without it the system's maximum has to do.
    for (forced, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        if set(&fd, libc::SOL_SOCKET, forced, &QUEUE_BYTES).is_err() {
            set(&fd, libc::SOL_SOCKET, plain, &QUEUE_BYTES)?;
        }
    }
    // SAFETY: `sockaddr_ll` is plain data, for which all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a `sockaddr_ll` of the size given and lives past the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(fd)
}

fn promiscuous(index: libc::c_int) -> libc::packet_mreq {
    libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    }
}

/// Not in `libc` for every target; `include/uapi/linux/if_packet.h`.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// The interface that a packet socket is bound to, or `None` if that is gone.
///
/// # Errors
/// `EINVAL` if `fd` is a socket of another family, `ENOTSOCK` if it is none.
pub fn interface(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    // SAFETY: `sockaddr_ll` is plain data, for which all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to the address; both live past the call.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut size) })?;
    if libc::c_int::from(address.sll_family) != libc::AF_PACKET {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(u32::try_from(address.sll_ifindex).ok().filter(|&i| i > 0))
}

/// False if the interface of packet socket `fd` is gone, or is just going.
///
/// `ENETDOWN` is reported while an interface that is deleted still has its number and name, and nothing more is
/// reported when it loses them. So this asks in a way that waits for the deletion to be over: one more membership, for
/// which the kernel takes its lock on interfaces, and which it refuses for one that is not there.
pub fn still_there(fd: BorrowedFd<'_>) -> bool {
    let Ok(Some(index)) = interface(fd) else {
        return false;
    };
    let again = promiscuous(index as libc::c_int);
    set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &again).is_ok()
        && set(&fd, libc::SOL_PACKET, libc::PACKET_DROP_MEMBERSHIP, &again).is_ok()
}

/// True if a virtio-net header stands before each frame of packet socket `fd`.
pub fn has_vnet_header(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `value`; both live past the call.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw mut value).cast(),
            &raw mut size,
        )
    })?;
    Ok(value != 0)
}

/// The name and MTU (bytes of an IP packet) of interface `index`, in the namespace that socket `fd` was made in.
pub fn interface_mtu(fd: BorrowedFd<'_>, index: u32) -> io::Result<(String, u32)> {
    // SAFETY: `ifreq` is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_ifru.ifru_ifindex =
        libc::c_int::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: SIOCGIFNAME reads the index and writes the name of one `ifreq`, which lives past the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) })?;
    let name: Vec<u8> = request
        .ifr_name
        .iter()
        .map(|&c| c as u8)
        .take_while(|&c| c != 0)
        .collect();
    // SAFETY: SIOCGIFMTU reads the name, which the kernel has ended in a zero, and writes the MTU of one `ifreq`.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: the MTU is the member that SIOCGIFMTU fills in, and any bits are a valid `c_int`.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok((
        String::from_utf8_lossy(&name).into_owned(),
        u32::try_from(mtu).unwrap_or(0),
    ))
}

/// One frame read from a packet socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Bytes of the frame in the buffer.
    pub len: usize,
    /// The VLAN tag that the kernel took out of it: protocol identifier and control information.
    pub vlan: Option<(u16, u16)>,
    /// True if the buffer was too small and the rest is lost.
    pub truncated: bool,
}

/// Reads one frame and its virtio-net header.
///
/// # Errors
/// `EAGAIN` if none is waiting, `ENETDOWN` once after the interface went down or away.
pub fn receive(fd: BorrowedFd<'_>, header: &mut [u8; VNET_HEADER], buf: &mut [u8]) -> io::Result<Taken> {
    #[repr(C, align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut parts = [
        libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: header.len(),
        },
        libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        },
    ];
    // SAFETY: `msghdr` is plain data, for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: every pointer in the message is to a live, exclusively borrowed buffer of the length beside it.
    let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    let mut vlan = None;
    // SAFETY: `message` is as the kernel left it; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside `control`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: a non-null result of the CMSG macros is a whole header inside `control`, which is aligned for it.
        let part = unsafe { &*next };
        if part.cmsg_level == libc::SOL_PACKET && part.cmsg_type == libc::PACKET_AUXDATA {
            // SAFETY: the kernel puts a whole `tpacket_auxdata` in a message of this type; it may be unaligned.
            let aux = unsafe {
                libc::CMSG_DATA(next)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned()
            };
            vlan = tag(&aux);
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok(Taken {
        len: n.saturating_sub(header.len()),
        vlan,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0 || n < header.len(),
    })
}

/// The tag in `aux`, if there was one.
fn tag(aux: &libc::tpacket_auxdata) -> Option<(u16, u16)> {
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let known = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    Some((if known { aux.tp_vlan_tpid } else { 0x8100 }, aux.tp_vlan_tci))
}

/// Sets an option to a value of plain data.
fn set<T: Copy>(fd: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads at most `size` bytes of `value`, which is that long and lives past the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size,
        )
    })?;
    Ok(())
}
