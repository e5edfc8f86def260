//! Several datagrams of a connected socket by one call: `sendmmsg(2)` and `recvmmsg(2)` without addresses or control
//! messages, for load generators.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

/// No call takes more datagrams.
pub const MOST: usize = 64;

/// Sends `data` as `count` datagrams, at most [`MOST`]; how many were sent. Blocks as the socket does.
///
/// # Errors
/// Those of `sendmmsg(2)`, if not one was sent.
pub fn send_repeated(fd: BorrowedFd<'_>, data: &[u8], count: usize) -> io::Result<usize> {
    let mut part = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: `mmsghdr` is plain data, for which all zeroes are valid.
    let mut messages: [libc::mmsghdr; MOST] = unsafe { zeroed() };
    let count = count.min(MOST);
    for message in &mut messages[..count] {
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` messages, all of which point at `part`, and that at `data`, are only read by the kernel but
    // for their lengths, and live past the call.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives datagrams into `buf`, `each` bytes for every one (what is longer is cut), and puts their lengths in `lens`. As
/// many as both and [`MOST`] allow; how many came. Blocks as the socket does until there is one, and not for more.
///
/// # Errors
/// Those of `recvmmsg(2)`, if not one was received.
///
/// # Panics
/// If `each` is 0.
pub fn recv_several(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    each: usize,
    lens: &mut [usize],
) -> io::Result<usize> {
    // SAFETY: `iovec` and `mmsghdr` are plain data, for which all zeroes are valid.
    let (mut parts, mut messages): ([libc::iovec; MOST], [libc::mmsghdr; MOST]) =
        unsafe { (zeroed(), zeroed()) };
    let mut count = 0;
    for ((chunk, part), message) in buf
        .chunks_exact_mut(each)
        .zip(&mut parts)
        .zip(&mut messages)
        .take(lens.len())
    {
        part.iov_base = chunk.as_mut_ptr().cast();
        part.iov_len = chunk.len();
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: each of the first `count` messages points at one part, and that at a chunk of `buf` of its own with the length
    // given; all live past the call. There is no timeout.
    let received = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (len, message) in lens.iter_mut().zip(&messages[..received]) {
        *len = message.msg_len as usize;
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn runs_of_datagrams_go_and_come() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
        b.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(send_repeated(a.as_fd(), b"pontoon", 5).unwrap(), 5);
        assert_eq!(send_repeated(a.as_fd(), b"long ago, far away", 1).unwrap(), 1);
        let (mut buf, mut lens) = ([0; 40], [0; 9]);
        // Room for four of ten bytes.
        assert_eq!(recv_several(b.as_fd(), &mut buf, 10, &mut lens).unwrap(), 4);
        assert_eq!(lens, [7, 7, 7, 7, 0, 0, 0, 0, 0]);
        assert_eq!(&buf[30..37], b"pontoon");
        let mut lens = [0; 1];
        assert_eq!(recv_several(b.as_fd(), &mut buf, 10, &mut lens).unwrap(), 1);
        assert_eq!(recv_several(b.as_fd(), &mut buf, 10, &mut lens).unwrap(), 1);
        assert_eq!((&buf[..10], lens), (&b"long ago, "[..], [10]), "cut");
        let none = recv_several(b.as_fd(), &mut buf, 10, &mut lens).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }
}
