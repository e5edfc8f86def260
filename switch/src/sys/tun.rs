//! TAP devices (`include/uapi/linux/if_tun.h`): opening, and what the `tun-tap` crate cannot set.
//!
//! The ioctls of a TAP need no namespace but the one the device was made in at `TUNSETIFF`; all others work on a passed
//! descriptor from anywhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::check;
use crate::features::{Feature, Features};

/// Bytes of the virtio-net header before each frame of a TAP opened here.
pub const VNET_HEADER: usize = 10;

/// What the reader of a TAP lets the kernel leave undone (`TUN_F_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapOffload(libc::c_uint);

impl TapOffload {
    /// Nothing: every frame arrives whole.
    pub const NONE: Self = Self(0);
    /// Partial checksums.
    pub const CHECKSUM: Self = Self(libc::TUN_F_CSUM);
    /// Partial checksums and TCP super-frames.
    pub const TSO: Self = Self(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN);
    /// Partial checksums, TCP and UDP super-frames. The kernel takes USO4 and USO6 only together.
    pub const USO: Self = Self(Self::TSO.0 | libc::TUN_F_USO4 | libc::TUN_F_USO6);
}

/// What kind of device a descriptor is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The interface's name in its own namespace.
    pub name: String,
    /// True if a virtio-net header stands before each frame.
    pub vnet_header: bool,
}

/// Makes the TAP `name` in the current network namespace, or takes it over if it is there and free, with a virtio-net
/// header before each frame and no packet information. It goes when the last descriptor does.
///
/// Where the kernel refuses the header, or `PONTOON_FALLBACK` names `vnet-hdr`, the device is a plain one;
/// [`crate::port::tap::adopt`] tells the two apart.
///
/// # Errors
/// `ENOENT` or `EACCES` for `/dev/net/tun`, `EPERM` without `CAP_NET_ADMIN` over the namespace, `EBUSY` for a device that
/// is in use, `EINVAL` for a name that is too long.
pub fn open_tap(name: &str) -> io::Result<OwnedFd> {
    if Features::from_env().allows(Feature::VnetHdr) {
        open_vnet_tap(name)
    } else {
        open_plain_tap(name)
    }
}

/// As [`open_tap`], whatever the environment says.
pub fn open_vnet_tap(name: &str) -> io::Result<OwnedFd> {
    let fd = attach(name)?;
    // SAFETY: TUNSETPERSIST takes an integer, not a pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, 0) })?;
    Ok(fd)
}

/// As [`open_tap`], but that the TAP stays when the last descriptor goes, if it was made to.
pub fn borrow_tap(name: &str) -> io::Result<OwnedFd> {
    if Features::from_env().allows(Feature::VnetHdr) {
        attach(name)
    } else {
        open_plain_tap(name)
    }
}

/// A descriptor of the TAP `name`, with a virtio-net header where the kernel has it.
fn attach(name: &str) -> io::Result<OwnedFd> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let fd = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives past the call; the name in it ends in a zero.
    match check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return open_plain_tap(name),
        Err(e) => return Err(e),
    }
    set_vnet_header_size(fd.as_fd(), VNET_HEADER)?;
    Ok(fd)
}

/// As [`open_tap`], without the virtio-net header: frames come and go whole.
pub fn open_plain_tap(name: &str) -> io::Result<OwnedFd> {
    request(name)?;
    let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap)?;
    // SAFETY: `into_raw_fd` gives up the crate's ownership of an open descriptor, so this is its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(iface.into_raw_fd()) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    super::fd::set_nonblocking(fd.as_fd())?;
    Ok(fd)
}

/// What `fd` is.
///
/// # Errors
/// `ENOTTY` if it is no TUN or TAP device, `EBADFD` if its device is gone, `EINVAL` if it is no TAP or carries packet
/// information, which no port reads.
pub fn identify(fd: BorrowedFd<'_>) -> io::Result<Identity> {
    let mut request = request("")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives past the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: the flags are the member that TUNGETIFF fills in, and any bits are a valid `c_short`.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let name: Vec<u8> = request
        .ifr_name
        .iter()
        .map(|&c| c as u8)
        .take_while(|&c| c != 0)
        .collect();
    Ok(Identity {
        name: String::from_utf8_lossy(&name).into_owned(),
        vnet_header: flags & libc::IFF_VNET_HDR != 0,
    })
}

/// Sets the size of the virtio-net header of `fd`, in bytes: 10, or 12 with the number of merged buffers.
pub fn set_vnet_header_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which lives past the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })?;
    Ok(())
}

/// Tells the kernel what it may leave undone in frames read from `fd`.
///
/// # Errors
/// `EINVAL` if the kernel does not know one of them: ask for less.
pub fn set_offload(fd: BorrowedFd<'_>, offload: TapOffload) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer, not a pointer.
    check(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offload.0),
        )
    })?;
    Ok(())
}

/// An interface request with `name` in it.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= libc::IFNAMSIZ || name.bytes().any(|b| b == 0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}
