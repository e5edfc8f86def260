//! What a service manager is told: the protocol of `sd_notify(3)`, a datagram of words to the socket in `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// That whoever depends on us may go on.
pub(crate) const READY: &str = "READY=1";

/// That we are about to end.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, if there is one that wants to hear.
pub(crate) fn tell(words: &str) -> io::Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => send(&address(&name)?, words),
        Some(_) | None => Ok(()),
    }
}

/// A path, or an abstract name after an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(name),
    }
}

fn send(to: &SocketAddr, words: &str) -> io::Result<()> {
    // A manager that does not read must not hold us up.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(words.as_bytes(), to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_hear_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let hidden = format!("@pontoon-notify-{}", std::process::id());
        for name in [path.as_os_str(), OsStr::new(&hidden)] {
            let to = address(name).unwrap();
            assert!(send(&to, READY).is_err(), "nobody is there");
            let manager = UnixDatagram::bind_addr(&to).unwrap();
            send(&to, READY).unwrap();
            let mut heard = [0; 64];
            let n = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..n], b"READY=1");
        }
    }
}
