//! The one room where `unsafe` is allowed: system calls that rustix and socket2 lack, exported as safe functions.
//!
//! One file for each kernel interface. Every block says why it is sound.

pub mod datagrams;
pub mod fd;
pub mod namespace;
pub mod packet;
pub mod peer;
pub mod process;
pub mod tcp;
pub mod trap;
pub mod tun;
pub mod udp;

use std::io;

/// The result of a system call that gives -1 and `errno`, as an [`io::Result`].
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
