//! Messages with descriptors over `SOCK_SEQPACKET` pairs, between the processes of one network.
//!
//! A message is one JSON value and arrives whole or not at all, with its descriptors (`SCM_RIGHTS`). The kernel takes at
//! most 253 descriptors with a message and a message of about the socket's send buffer, so long lists go in pages.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pontoon_switch::calls::Call;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The most descriptors sent with one message; the kernel's own limit (`SCM_MAX_FD`) is 253.
pub(crate) const MAX_FDS: usize = 250;

/// The largest message, in bytes.
const MAX_MESSAGE: usize = 256 << 10;

/// The system calls of an end that is used.
pub(crate) const CALLS: &[Call] = &[
    Call::any(libc::SYS_recvmsg, "a message and its descriptors"),
    Call::any(libc::SYS_sendmsg, "an answer"),
    Call::any(libc::SYS_close, "descriptors that are not wanted"),
];

/// One end of a pair.
#[derive(Debug)]
pub(crate) struct FdSocket {
    fd: OwnedFd,
    buf: Box<[u8]>,
}

impl FdSocket {
    /// Two ends connected to each other, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(a), b))
    }

    /// The end that `fd` is.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        // A message has to fit the buffer with the kernel's overhead; where the limit is lower, sending says so.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&fd, 2 * MAX_MESSAGE);
        Self {
            fd,
            buf: vec![0; MAX_MESSAGE].into_boxed_slice(),
        }
    }

    /// The end that was inherited as standard input.
    pub(crate) fn from_stdin() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Self::new(fd))
    }

    /// Another handle of the same end.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.fd.try_clone()?))
    }

    /// Bounds how long [`FdSocket::recv`] waits; it then fails with `WouldBlock`.
    pub(crate) fn set_timeout(&self, timeout: Option<std::time::Duration>) -> io::Result<()> {
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        set_socket_timeout(&self.fd, Timeout::Recv, timeout)?;
        set_socket_timeout(&self.fd, Timeout::Send, timeout)?;
        Ok(())
    }

    /// Sends `message` with `fds`, at most [`MAX_FDS`] of them.
    ///
    /// # Errors
    /// `EPIPE` if the other end is closed, `EMSGSIZE` for a message that is too long, `ETOOMANYREFS` at the limit of
    /// descriptors on their way.
    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if fds.len() > MAX_FDS || bytes.len() > MAX_MESSAGE {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        loop {
            match rustix::net::sendmsg(
                &self.fd,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next message and its descriptors; `None` once the other end is closed.
    ///
    /// # Errors
    /// `WouldBlock` after the timeout, `InvalidData` for a message that is cut short, lost descriptors (this process is
    /// at its limit of open files) or is not a `T`.
    pub(crate) fn recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive(RecvFlags::empty())
    }

    /// As [`FdSocket::recv`], without waiting.
    pub(crate) fn try_recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.receive(RecvFlags::DONTWAIT)
    }

    fn receive<T: DeserializeOwned>(&mut self, flags: RecvFlags) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut parts = [IoSliceMut::new(&mut self.buf)];
            match rustix::net::recvmsg(
                &self.fd,
                &mut parts,
                &mut control,
                flags | RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            let what = "a message was cut short or lost descriptors: the limit of open files is reached";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Some((serde_json::from_slice(&self.buf[..got.bytes])?, fds)))
    }
}

impl AsFd for FdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_values_and_descriptors_and_tells_the_end() {
        let (a, b) = FdSocket::pair().expect("pair");
        let mut b = FdSocket::new(b);
        let file = tempfile::tempfile().expect("file");
        a.send(&vec!["x"; 3], &[file.as_fd(), a.as_fd()]).expect("send");
        let (value, fds) = b.recv::<Vec<String>>().expect("recv").expect("open");
        assert_eq!((value.len(), fds.len()), (3, 2));
        assert_eq!(
            b.try_recv::<u8>().expect_err("empty").kind(),
            io::ErrorKind::WouldBlock
        );
        drop(fds);
        drop(a);
        assert!(b.recv::<u8>().expect("recv").is_none());
    }

    #[test]
    fn a_full_batch_of_descriptors_arrives_whole() {
        let (a, b) = FdSocket::pair().expect("pair");
        let mut b = FdSocket::new(b);
        let file = tempfile::tempfile().expect("file");
        a.send(&1u8, &vec![file.as_fd(); MAX_FDS]).expect("send");
        assert_eq!(b.recv::<u8>().expect("recv").expect("open").1.len(), MAX_FDS);
        assert!(a.send(&1u8, &vec![file.as_fd(); MAX_FDS + 1]).is_err());
    }
}
