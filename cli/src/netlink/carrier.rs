//! Whether an interface has a carrier, and how one hears that it may have changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Netlink;

/// `RTNLGRP_LINK` of linux/rtnetlink.h: the group that is told of every change of an interface.
const GROUP: u32 = 1;

/// The carrier of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Carrier {
    /// Whether it is there. An interface that is down has none.
    pub(crate) there: bool,
    /// How often it has come, by the kernel's own count (Linux 4.16 and later; 0 before).
    pub(crate) came: u32,
}

impl Carrier {
    /// That of an interface as the kernel describes it.
    pub(super) fn of(message: &LinkMessage) -> Self {
        let came = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::CarrierUpCount(count) => Some(*count),
            _ => None,
        });
        Self {
            there: message.header.flags.contains(LinkFlags::LowerUp),
            came: came.unwrap_or(0),
        }
    }

    /// Whether it is there and was not all the time since it was as `before`.
    pub(crate) fn is_back_since(self, before: Self) -> bool {
        self.there && (!before.there || self.came != before.came)
    }
}

impl Netlink {
    /// The carrier of interface `index`.
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface.
    pub(crate) fn carrier(&mut self, index: u32) -> io::Result<Carrier> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        match self.ask(RouteNetlinkMessage::GetLink(link), NLM_F_REQUEST)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(Carrier::of(&link)),
            Some(_) | None => Err(Errno::NODEV.into()),
        }
    }
}

/// A bell that rings when interfaces of the network namespace that it was made in change. What it tells beyond that is not read: where
/// there was more than fits its queue some of it is lost, and how things are now is to be asked anyway.
pub(crate) struct Bell {
    socket: Socket,
}

impl Bell {
    /// Hangs one up in the current network namespace. It takes no privilege.
    pub(crate) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        socket.add_membership(GROUP)?;
        Ok(Self { socket })
    }

    /// Takes what has been told, all of it.
    pub(crate) fn hush(&self) {
        // Messages are cut to what fits.
        let mut buf = [0u8; 16];
        loop {
            match self.socket.recv(&mut &mut buf[..], 0) {
                Ok(_) => {}
                Err(e) => match Errno::from_io_error(&e) {
                    // Told once, when some were lost.
                    Some(Errno::NOBUFS | Errno::INTR) => {}
                    Some(_) | None => return,
                },
            }
        }
    }
}

impl AsFd for Bell {
    /// Readable when it rings.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_is_back_when_it_came_meanwhile() {
        let carrier = |there, came| Carrier { there, came };
        let (before, gone) = (carrier(true, 3), carrier(false, 3));
        assert!(!before.is_back_since(before) && !gone.is_back_since(before));
        assert!(carrier(true, 4).is_back_since(gone));
        assert!(
            carrier(true, 4).is_back_since(before),
            "it went and came between two looks"
        );
        assert!(
            carrier(true, 0).is_back_since(carrier(false, 0)),
            "a kernel that does not count"
        );
        assert!(!carrier(false, 4).is_back_since(gone), "it came and went again");
    }

    #[test]
    fn the_loopbacks_carrier_is_asked_for_by_its_index() {
        let mut netlink = Netlink::open().expect("a socket");
        let lo = netlink.link("lo").expect("the loopback");
        assert_eq!(netlink.carrier(lo.index).expect("a carrier"), lo.carrier);
        assert_eq!(lo.carrier.there, lo.up);
        let error = netlink
            .carrier(i32::MAX.cast_unsigned())
            .expect_err("no such interface");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NODEV));
        let bell = Bell::new().expect("a bell");
        // Whatever else happens on this machine, it ends.
        bell.hush();
    }
}
