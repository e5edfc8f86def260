//! VLANs (IEEE 802.1Q): which one a frame belongs to, and with which tag it leaves.
//!
//! ```text
//! a port's mode        a frame comes in                        a frame of VLAN v goes out
//! Transparent          tagged v: v       untagged: 0           tagged v; of VLAN 0 as it came
//! Untagged             untagged: 0                             v = 0: as it came
//! Access(own)          untagged or tagged own: own             v = own: untagged
//! Trunk                tagged v that it carries: v             v = native: untagged
//!                      untagged: native, if it has one         other v that it carries: tagged
//! ```
//!
//! What a line does not name is dropped (`vlan`). VLAN 0 is the network without tags, that of [`VlanMode::Transparent`] and
//! [`VlanMode::Untagged`] ports and, unless told otherwise, of the station; no access port or trunk is on it. A tag with identifier 0 is a priority, not a VLAN:
//! such a frame counts as untagged.
//!
//! A frame with two tags must not come out of its first one: whoever sits on an access port could otherwise put a tag of
//! another VLAN behind his own and have a trunk take the first away (VLAN hopping). So access ports take no second tag, and
//! where the first would be taken out the frame goes no further.
//!
//! A tag is put in by moving the twelve bytes before it into the headroom, and taken out by moving them back: the payload stays
//! where it is, and what the virtio-net header counts from the frame's first byte moves along.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::{Checksum, Frame, VLAN_LEN, VlanTag};
use crate::headers::{ETHERNET_LEN, is_vlan};
use crate::{DropReason, headers};

/// A VLAN's number, 1 to 4094.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

/// What is not a VLAN's number, or a list of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no VLAN: expected 1 to 4094")]
pub struct BadVlan(String);

impl VlanId {
    /// The largest.
    pub const MAX: Self = Self(4094);

    /// VLAN `id`, if there is such a number.
    pub const fn new(id: u16) -> Option<Self> {
        match id {
            1..=4094 => Some(Self(id)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u16> for VlanId {
    type Error = BadVlan;
    fn try_from(id: u16) -> Result<Self, BadVlan> {
        Self::new(id).ok_or_else(|| BadVlan(id.to_string()))
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> Self {
        id.0
    }
}

impl FromStr for VlanId {
    type Err = BadVlan;
    fn from_str(s: &str) -> Result<Self, BadVlan> {
        let id = s.parse().ok().and_then(Self::new);
        id.ok_or_else(|| BadVlan(s.to_owned()))
    }
}

/// A set of VLANs, written `10,20-29`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VlanSet(Box<[u64; 64]>);

impl Default for VlanSet {
    fn default() -> Self {
        Self(Box::new([0; 64]))
    }
}

impl VlanSet {
    /// All there are.
    pub fn all() -> Self {
        (1..=VlanId::MAX.0).map(VlanId).collect()
    }

    /// Adds one.
    pub fn insert(&mut self, id: VlanId) {
        self.0[usize::from(id.0 / 64)] |= 1 << (id.0 % 64);
    }

    /// True if `id` is in it; VLAN 0 never is.
    pub fn contains(&self, id: u16) -> bool {
        let word = self.0.get(usize::from(id / 64));
        word.is_some_and(|word| word >> (id % 64) & 1 != 0)
    }

    /// Those in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = VlanId> + '_ {
        (1..=VlanId::MAX.0).filter(|&id| self.contains(id)).map(VlanId)
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(ids: I) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

impl fmt::Display for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids = self.iter().map(VlanId::get).peekable();
        let mut comma = "";
        while let Some(first) = ids.next() {
            let mut last = first;
            while let Some(next) = ids.next_if_eq(&(last + 1)) {
                last = next;
            }
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for VlanSet {
    type Err = BadVlan;
    fn from_str(list: &str) -> Result<Self, BadVlan> {
        let mut set = Self::default();
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (VlanId, VlanId) = (first.parse()?, last.parse()?);
            if first > last {
                return Err(BadVlan(part.to_owned()));
            }
            (first.0..=last.0).for_each(|id| set.insert(VlanId(id)));
        }
        Ok(set)
    }
}

impl TryFrom<String> for VlanSet {
    type Error = BadVlan;
    fn try_from(s: String) -> Result<Self, BadVlan> {
        s.parse()
    }
}

impl From<VlanSet> for String {
    fn from(set: VlanSet) -> Self {
        set.to_string()
    }
}

/// Which VLANs a port is on, and where tags are put in and taken out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanMode {
    /// All of them, each frame with its tag as it came.
    #[default]
    Transparent,
    /// None: the network without tags only.
    Untagged,
    /// This one only, without a tag: what is behind the port knows nothing of VLANs.
    Access(VlanId),
    /// Several, each frame with its tag.
    Trunk {
        /// The one whose frames are without a tag, in and out. It need not be in `allowed`.
        native: Option<VlanId>,
        /// The others.
        allowed: VlanSet,
    },
}

/// The VLANs in which an address that is bound to a port belongs to it for good.
pub(crate) enum Bound<'m> {
    One(u16),
    Many(Option<VlanId>, &'m VlanSet),
}

impl Bound<'_> {
    pub(crate) fn each(&self, mut f: impl FnMut(u16)) {
        match self {
            Self::One(vlan) => f(*vlan),
            Self::Many(native, allowed) => {
                native.iter().for_each(|id| f(id.0));
                allowed.iter().for_each(|id| f(id.0));
            }
        }
    }
}

impl VlanMode {
    /// The VLAN of a frame that comes in with the outer tag `tag` (0: none, or a priority), or `None` if it is none of the
    /// port's. `stacked`: another tag is behind that one.
    pub(crate) fn enters(&self, tag: u16, stacked: bool) -> Option<u16> {
        match self {
            Self::Transparent => Some(tag),
            Self::Untagged => (!stacked && tag == 0).then_some(0),
            Self::Access(own) => (!stacked && (tag == 0 || tag == own.0)).then_some(own.0),
            Self::Trunk { native, .. } if tag == 0 => native.filter(|_| !stacked).map(VlanId::get),
            Self::Trunk { .. } => self.leaves(tag).map(|_| tag),
        }
    }

    /// How a frame of `vlan` goes out; `None` if it does not.
    pub(crate) fn leaves(&self, vlan: u16) -> Option<Form> {
        match self {
            Self::Transparent if vlan == 0 => Some(Form::AsItCame),
            Self::Untagged => (vlan == 0).then_some(Form::AsItCame),
            Self::Transparent => Some(Form::Tagged(vlan)),
            Self::Access(own) => (own.0 == vlan).then_some(Form::Untagged),
            Self::Trunk { native, .. } if native.is_some_and(|own| own.0 == vlan) => Some(Form::Untagged),
            Self::Trunk { allowed, .. } => allowed.contains(vlan).then_some(Form::Tagged(vlan)),
        }
    }

    /// Where an address that is bound to the port is bound. On a transparent port that is the network without tags: static
    /// entries for all that it might carry would be four thousand, and nobody asked for VLANs there.
    pub(crate) fn bound(&self) -> Bound<'_> {
        match self {
            Self::Transparent | Self::Untagged => Bound::One(0),
            Self::Access(own) => Bound::One(own.0),
            Self::Trunk { native, allowed } => Bound::Many(*native, allowed),
        }
    }

    /// True if a bound address has a static entry in `vlan`, which the port carries.
    pub(crate) fn binds(&self, vlan: u16) -> bool {
        match self {
            Self::Transparent | Self::Untagged => vlan == 0,
            Self::Access(_) | Self::Trunk { .. } => true,
        }
    }
}

/// How a frame is written to a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As it came.
    AsItCame,
    /// With the tag of this VLAN; a priority that it came with is kept.
    Tagged(u16),
    /// Without a tag.
    Untagged,
}

impl Form {
    /// Brings `frame` into this form. Nothing is done if it is in it.
    ///
    /// # Errors
    /// [`DropReason::Vlan`] if taking the tag out would bare another, or a checksum that begins in it. [`DropReason::Refused`]
    /// if there is no headroom for a tag.
    pub(crate) fn apply(self, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        match (self, frame.vlan()) {
            (Self::AsItCame, _) | (Self::Untagged, None) => Ok(()),
            (Self::Tagged(vlan), Some(tag)) => {
                if tag.id() != vlan {
                    let tci = tag.tci & !0x0fff | vlan;
                    frame.bytes_mut()[14..16].copy_from_slice(&tci.to_be_bytes());
                }
                Ok(())
            }
            (Self::Tagged(vlan), None) => {
                let tag = VlanTag {
                    tpid: 0x8100,
                    tci: vlan,
                };
                frame.push_vlan(tag).then_some(()).ok_or(DropReason::Refused)
            }
            (Self::Untagged, Some(_)) => {
                let inside = match frame.offload.checksum {
                    Checksum::Partial { start, .. } => usize::from(start) < ETHERNET_LEN + VLAN_LEN,
                    Checksum::Complete | Checksum::Valid => false,
                };
                if inside || is_stacked(frame.bytes()) {
                    return Err(DropReason::Vlan);
                }
                frame.pop_vlan();
                Ok(())
            }
        }
    }
}

/// True if there is a tag behind the outer tag of the frame `bytes`.
pub(crate) fn is_stacked(bytes: &[u8]) -> bool {
    let outer = headers::be16(bytes, 12).is_some_and(is_vlan);
    outer && headers::be16(bytes, 16).is_some_and(is_vlan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HEADROOM, Offload};
    use crate::offload::tests::{Kind, super_frame};

    fn id(n: u16) -> VlanId {
        VlanId::new(n).expect("a VLAN")
    }

    #[test]
    fn numbers_and_lists_are_read_and_written() {
        assert_eq!((VlanId::new(0), VlanId::new(4095)), (None, None));
        assert_eq!("4094".parse(), Ok(VlanId::MAX));
        for bad in ["0", "4095", "-1", "", "x", "70000"] {
            assert_eq!(bad.parse::<VlanId>(), Err(BadVlan(bad.into())));
        }
        let set: VlanSet = "30, 10,11,12,4094".parse().expect("a list");
        assert_eq!(set.to_string(), "10-12,30,4094");
        assert_eq!(set, "10-12,30,4094".parse().expect("a list"));
        assert!(set.contains(12) && !set.contains(13) && !set.contains(0) && !set.contains(u16::MAX));
        assert_eq!(VlanSet::all().to_string(), "1-4094");
        assert_eq!(VlanSet::default().to_string(), "");
        for bad in ["20-10", "1-", "1-5000", "ten"] {
            assert!(bad.parse::<VlanSet>().is_err(), "{bad}");
        }
        let mode = VlanMode::Trunk {
            native: Some(id(3)),
            allowed: set,
        };
        let text = serde_json::to_string(&mode).expect("text");
        assert_eq!(text, r#"{"trunk":{"native":3,"allowed":"10-12,30,4094"}}"#);
        assert_eq!(serde_json::from_str::<VlanMode>(&text).expect("a mode"), mode);
    }

    #[test]
    fn modes_in_a_table() {
        let access = VlanMode::Access(id(10));
        let trunk = |native: Option<u16>| VlanMode::Trunk {
            native: native.map(id),
            allowed: "20,30".parse().expect("a list"),
        };
        let enters = |mode: &VlanMode| [0, 10, 20, 40].map(|tag| mode.enters(tag, false));
        assert_eq!(
            enters(&VlanMode::Transparent),
            [Some(0), Some(10), Some(20), Some(40)]
        );
        assert_eq!(enters(&access), [Some(10), Some(10), None, None]);
        assert_eq!(enters(&trunk(None)), [None, None, Some(20), None]);
        assert_eq!(enters(&trunk(Some(10))), [Some(10), Some(10), Some(20), None]);
        // A second tag: only behind one that stays.
        assert_eq!((access.enters(0, true), access.enters(10, true)), (None, None));
        let native = trunk(Some(10));
        assert_eq!(
            (native.enters(0, true), native.enters(20, true)),
            (None, Some(20))
        );
        let leaves = |mode: &VlanMode| [0, 10, 20, 40].map(|vlan| mode.leaves(vlan));
        let (tagged, untagged) = (|v| Some(Form::Tagged(v)), Some(Form::Untagged));
        assert_eq!(
            leaves(&VlanMode::Transparent),
            [Some(Form::AsItCame), tagged(10), tagged(20), tagged(40)]
        );
        assert_eq!(leaves(&access), [None, untagged, None, None]);
        assert_eq!(leaves(&trunk(None)), [None, None, tagged(20), None]);
        assert_eq!(leaves(&trunk(Some(10))), [None, untagged, tagged(20), None]);
    }

    #[test]
    fn forms_there_and_back_keep_a_super_frame_whole() {
        for kind in Kind::ALL {
            let (bytes, offload) = super_frame(kind, None, 0, 5000, 1000);
            let mut buf = vec![0; HEADROOM];
            buf.extend_from_slice(&bytes);
            let end = buf.len();
            let mut frame = Frame::new(&mut buf, HEADROOM, end, offload);
            for _ in 0..2 {
                assert_eq!(Form::Tagged(7).apply(&mut frame), Ok(()));
                assert_eq!(frame.vlan().map(VlanTag::id), Some(7));
                let said = Offload::decode(&frame.offload.encode(), frame.bytes());
                assert_eq!(said, Ok(frame.offload), "{kind:?}");
                assert_ne!(frame.offload, offload);
            }
            for form in [Form::Untagged, Form::AsItCame, Form::Untagged] {
                assert_eq!(form.apply(&mut frame), Ok(()));
                assert_eq!((frame.bytes(), frame.offload), (&bytes[..], offload), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_priority_is_kept_in_a_tag() {
        let tag = VlanTag {
            tpid: 0x8100,
            tci: 0xe000,
        };
        let (mut bytes, offload) = super_frame(Kind::Tcp4, Some(tag), 0, 3000, 1000);
        let mut frame = Frame::whole(&mut bytes, offload);
        assert_eq!(Form::Tagged(10).apply(&mut frame), Ok(()));
        assert_eq!(frame.vlan().map(|t| t.tci), Some(0xe00a));
        assert_eq!(frame.offload, offload);
    }

    #[test]
    fn no_second_tag_and_no_checksum_comes_out_of_the_first() {
        let mut stacked = [0x81, 0, 0, 10, 0x81, 0, 0, 20, 0x08, 0];
        let mut bytes = [&[2; 12][..], &stacked].concat();
        let before = bytes.clone();
        let untag = |bytes: &mut [u8], offload| Form::Untagged.apply(&mut Frame::whole(bytes, offload));
        assert_eq!(untag(&mut bytes, Offload::NONE), Err(DropReason::Vlan));
        assert_eq!(bytes, before);
        stacked[4] = 0;
        let mut bytes = [&[2; 12][..], &stacked].concat();
        let partial = |start| Offload {
            checksum: Checksum::Partial { start, offset: 0 },
            gso: None,
        };
        assert_eq!(untag(&mut bytes, partial(17)), Err(DropReason::Vlan));
        assert_eq!(untag(&mut bytes, partial(18)), Ok(()));
    }
}
