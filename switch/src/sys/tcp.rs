//! TCP socket options and receive forms that the libraries lack.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a socket's send buffer holds, in bytes of kernel memory (`SO_MEMINFO`, `include/uapi/linux/sock_diag.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendBuffer {
    /// Its size now (`SK_MEMINFO_SNDBUF`); autotuning changes it.
    pub size: u32,
    /// Queued in it (`SK_MEMINFO_WMEM_QUEUED`), overhead included.
    pub queued: u32,
}

const SO_MEMINFO: libc::c_int = 55;
const SK_MEMINFO_SNDBUF: usize = 3;
const SK_MEMINFO_WMEM_QUEUED: usize = 5;

/// Asks how full a socket's send buffer is.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 4.12.
pub fn send_buffer(fd: BorrowedFd<'_>) -> io::Result<SendBuffer> {
    let mut info = [0u32; 16];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `len` are valid for writes, and `len` is the size of `info` in bytes.
    let r = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(SendBuffer {
        size: info[SK_MEMINFO_SNDBUF],
        queued: info[SK_MEMINFO_WMEM_QUEUED],
    })
}

/// Bytes in a TCP socket's send queue that the peer has not acknowledged (`SIOCOUTQ`).
///
/// # Errors
/// `EINVAL` for a listening socket.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut n: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int to the address given.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut n) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(n.max(0) as u32)
}

/// Sets the offset from which the next `MSG_PEEK` reads (`SO_PEEK_OFF`). It then advances with each peek and goes back
/// when bytes are consumed.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel has it not for TCP (before Linux 6.9, IPv6 6.11).
pub fn set_peek_offset(fd: BorrowedFd<'_>, offset: i32) -> io::Result<()> {
    // SAFETY: the option value is one int, valid for reads.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if r != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Copies received bytes into `buf` without consuming them, from the peek offset if one is set.
///
/// # Errors
/// `EAGAIN` if there is none; a pending error of the socket, once.
pub fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buf` is valid for writes of its length.
    let n = unsafe {
        libc::recv(
            fd.as_raw_fd(),
            buf.as_mut_ptr().cast(),
            buf.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Copies received bytes into `skip` and then `buf` without consuming them: a peek at an offset where the kernel has no
/// `SO_PEEK_OFF`. Returns the bytes in `buf`; the end of the stream is told from too few bytes by `None`.
///
/// # Errors
/// As [`peek`].
pub fn peek_behind(fd: BorrowedFd<'_>, skip: &mut [u8], buf: &mut [u8]) -> io::Result<Option<usize>> {
    let mut parts = [
        libc::iovec {
            iov_base: skip.as_mut_ptr().cast(),
            iov_len: skip.len(),
        },
        libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        },
    ];
    // SAFETY: a zeroed `msghdr` is valid: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    // SAFETY: both parts are valid for writes of their lengths and outlive the call.
    let n = unsafe {
        libc::recvmsg(
            fd.as_raw_fd(),
            &raw mut message,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    if n == 0 {
        return Ok(None);
    }
    Ok(Some(n.saturating_sub(skip.len())))
}

/// Consumes `n` received bytes without copying them (`MSG_TRUNC` on a stream). Returns how many there were.
///
/// # Errors
/// As for `recv`.
pub fn discard(fd: BorrowedFd<'_>, n: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket copies nothing, so that the null buffer is never written to (tcp(7)).
    let got = unsafe {
        libc::recv(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            n,
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Leaves the choice of a port to `connect` after a bind to an address (`IP_BIND_ADDRESS_NO_PORT`), so that ports in
/// TIME-WAIT towards others are no hindrance.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 4.2.
pub fn set_bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is one int, valid for reads.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if r != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
