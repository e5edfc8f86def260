//! What the gateway does for its link: ARP, NDP, DHCP, router advertisements.

use std::collections::HashMap;
use std::net::IpAddr;

use pontoon_switch::MacAddr;

/// Who has which address.
#[derive(Debug, Default)]
pub struct Neighbours {
    pinned: HashMap<IpAddr, MacAddr>,
}

impl Neighbours {
    /// The Ethernet address of the container that has `addr`.
    pub fn lookup(&self, addr: IpAddr) -> Option<MacAddr> {
        self.pinned.get(&addr).copied()
    }

    /// Notes for good that `mac` has `addr`: an attached container, whatever is heard on the wire.
    pub fn pin(&mut self, addr: IpAddr, mac: MacAddr) {
        self.pinned.insert(addr, mac);
    }
}
