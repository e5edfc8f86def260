//! The links that the gateway stands on besides its switch.
//!
//! Flows know their links by number ([`Between`]). A link to the world that is lost, because its interface was taken away and is made
//! anew, or the network that it leads to starts again, keeps its number until it is back: its flows stay in the table, their packets
//! are answered as those to anywhere without a way ([`Links::may_leave`]), and go on when the link has the same address again. Those to
//! an address that it does not have any more end when it has another one of the same IP version and is not about to have theirs
//! ([`Links::is_stranded`]): where two routers give two prefixes, those of the later one may end. A link to another network has no such
//! grace: what is behind it may be somebody else.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut, Index, IndexMut};

use pontoon_switch::{Instant, PortId};

use super::Side;
use super::config::{LinkKind, UplinkConfig};
use super::uplink::Uplink;
use crate::config::Config;
use crate::flow::{Entry, Tuple};
use crate::fragment::Reassembler;

/// A link's number in the entries of its flows; 0 is the network's own link. No number is that of two links at a time.
pub(super) type Number = u16;

/// A link of the gateway's own.
#[derive(Debug)]
pub(super) struct Link {
    number: Number,
    uplink: Uplink,
    /// Fragments that came by it.
    pub(super) fragments: Reassembler,
    /// True if flows of an earlier link are its own now.
    inherits: bool,
}

impl Deref for Link {
    type Target = Uplink;

    fn deref(&self) -> &Uplink {
        &self.uplink
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Uplink {
        &mut self.uplink
    }
}

/// The links that a flow came by and leaves by, as [`Entry::data`] has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Between {
    pub(super) from: Number,
    pub(super) to: Number,
}

impl Between {
    pub(super) fn of(entry: &Entry) -> Self {
        let data = entry.data();
        Self {
            from: (data >> 16) as Number,
            to: data as Number,
        }
    }

    pub(super) fn data(self) -> u32 {
        u32::from(self.from) << 16 | u32::from(self.to)
    }
}

/// The links, each at its place.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: Vec<Link>,
    /// The number given last.
    last_number: Number,
    /// The number of a link to the world that was lost.
    lost: Option<Number>,
}

impl Index<usize> for Links {
    type Output = Link;

    fn index(&self, at: usize) -> &Link {
        &self.all[at]
    }
}

impl IndexMut<usize> for Links {
    fn index_mut(&mut self, at: usize) -> &mut Link {
        &mut self.all[at]
    }
}

impl Links {
    /// One more link, by `port`.
    pub(super) fn add(&mut self, now: Instant, port: PortId, config: UplinkConfig, secret: (u64, u64)) {
        let inherited = is_world(&config).then(|| self.lost.take()).flatten();
        let number = inherited.unwrap_or_else(|| self.free_number());
        self.all.push(Link {
            number,
            uplink: Uplink::new(port, config, secret, now),
            fragments: Reassembler::of_world(),
            inherits: inherited.is_some(),
        });
    }

    /// A number that no link has; not that of the last one to go either, if that can be helped.
    fn free_number(&mut self) -> Number {
        let taken = |number| self.lost == Some(number) || self.all.iter().any(|l| l.number == number);
        let mut number = self.last_number;
        loop {
            number = number.wrapping_add(1).max(1);
            if !taken(number) {
                self.last_number = number;
                return number;
            }
        }
    }

    /// Takes the link at `at` away: the number of flows that are to end with it, if they are.
    pub(super) fn remove(&mut self, at: usize) -> Option<Number> {
        let gone = self.all.remove(at);
        if is_world(gone.config()) {
            self.lost = Some(gone.number);
            None
        } else {
            Some(gone.number)
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.all.iter_mut()
    }

    /// The place of the link of `port`.
    pub(super) fn of(&self, port: PortId) -> Option<usize> {
        self.all.iter().position(|l| l.port() == port)
    }

    /// The place of the link of that number.
    pub(super) fn numbered(&self, number: Number) -> Option<usize> {
        self.all.iter().position(|l| l.number == number)
    }

    /// The place of the link to the world.
    pub(super) fn world(&self) -> Option<usize> {
        self.all.iter().position(|l| is_world(l.config()))
    }

    /// The number of a side.
    pub(super) fn number(&self, side: Side) -> Number {
        match side {
            Side::Lan => 0,
            Side::Link(at) => self.all[at].number,
        }
    }

    /// The number of the link to the world, also while that is lost.
    pub(super) fn number_of_world(&self) -> Option<Number> {
        self.world().map(|at| self.all[at].number).or(self.lost)
    }

    /// True if flows of a lost link are those of the link at `at` now.
    pub(super) fn inherits(&self, at: usize) -> bool {
        self.all[at].inherits
    }

    /// True if a flow's packet from `came` may leave to that side as from `leaves`: not so for one of a lost link to whose address the
    /// next one has no right, or none yet.
    pub(super) fn may_leave(&self, side: Side, came: IpAddr, leaves: IpAddr) -> bool {
        match side {
            Side::Lan => true,
            Side::Link(at) => {
                let link = &self.all[at];
                !link.inherits || came == leaves || link.owns(leaves)
            }
        }
    }

    /// True for a flow of a lost link, now that the link at `at`, which has its place, has got the address `gained`: the flow is
    /// translated to an address of the same IP version that the new one does not have and does not try either. `to` is the tuple that
    /// its packets leave with.
    pub(super) fn is_stranded(
        &self,
        config: &Config,
        at: usize,
        gained: IpAddr,
        entry: &Entry,
        to: &Tuple,
    ) -> bool {
        let link = &self.all[at];
        let Between { from, to: by } = Between::of(entry);
        let (came, leaves) = (entry.tuple(), to);
        let gone = |addr: IpAddr| addr.is_ipv4() == gained.is_ipv4() && !link.claims(addr);
        let masqueraded = by == link.number && leaves.src.ip() != came.src.ip();
        let led = leaves.dst.ip() != came.dst.ip();
        // A hairpin is between containers, by the address outside or by the gateway's own at home.
        let published = from == link.number && led;
        let hairpin = from == 0 && by == 0 && led && !config.is_gateway(came.dst.ip());
        (masqueraded && gone(leaves.src.ip())) || ((published || hairpin) && gone(came.dst.ip()))
    }
}

fn is_world(config: &UplinkConfig) -> bool {
    matches!(config.kind, LinkKind::World { .. })
}
