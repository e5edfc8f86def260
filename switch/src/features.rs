//! Optional kernel features, and the override that forces their fall-backs.
//!
//! Whatever a kernel may lack is probed once where it is first needed and has a fall-back. `PONTOON_FALLBACK`, a
//! comma-separated list of the names below or `all`, makes the program behave as if the kernel lacked them, so that the
//! fall-backs are tested on kernels that have everything.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that forces fall-backs.
pub const VARIABLE: &str = "PONTOON_FALLBACK";

/// Something a kernel may lack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Feature {
    /// A virtio-net header on TAP devices; without it each frame is whole and none is a super-frame.
    VnetHdr,
    /// TCP super-frames on TAP devices.
    Tso,
    /// UDP super-frames on TAP devices (Linux 6.2).
    Uso,
    /// `SO_PEEK_OFF` on TCP sockets (Linux 6.9, for IPv6 6.11).
    PeekOff,
    /// `UDP_SEGMENT` and `UDP_GRO` on host sockets.
    UdpGso,
    /// `SO_MEMINFO`, for the free space of a socket.
    MemInfo,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::VnetHdr,
        Self::Tso,
        Self::Uso,
        Self::PeekOff,
        Self::UdpGso,
        Self::MemInfo,
    ];

    /// The name in `PONTOON_FALLBACK`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VnetHdr => "vnet-hdr",
            Self::Tso => "tso",
            Self::Uso => "uso",
            Self::PeekOff => "peek-off",
            Self::UdpGso => "udp-gso",
            Self::MemInfo => "meminfo",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which features may be used where the kernel has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    denied: u8,
}

/// A name in `PONTOON_FALLBACK` that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{VARIABLE}: `{0}` is no feature: expected `all` or some of vnet-hdr, tso, uso, peek-off, udp-gso, meminfo"
)]
pub struct UnknownFeature(String);

impl Features {
    /// Whatever the kernel has.
    pub const ALL: Self = Self { denied: 0 };

    /// What the environment allows, read once. A value that cannot be understood is reported in the log and forces
    /// every fall-back, so that a mistyped name does not pass for a test of one.
    pub fn from_env() -> Self {
        static FEATURES: OnceLock<Features> = OnceLock::new();
        *FEATURES.get_or_init(|| match std::env::var(VARIABLE).unwrap_or_default().parse() {
            Ok(features) => features,
            Err(e) => {
                tracing::error!("{e}; forcing every fall-back");
                Self::ALL.without_any()
            }
        })
    }

    /// True if `feature` may be used where the kernel has it.
    pub const fn allows(self, feature: Feature) -> bool {
        self.denied & (1 << feature as u8) == 0
    }

    /// The same without `feature`.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self {
            denied: self.denied | 1 << feature as u8,
        }
    }

    /// Without any: every fall-back.
    #[must_use]
    pub fn without_any(self) -> Self {
        Feature::ALL.into_iter().fold(self, Self::without)
    }
}

impl Default for Features {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromStr for Features {
    type Err = UnknownFeature;
    fn from_str(list: &str) -> Result<Self, UnknownFeature> {
        let mut features = Self::ALL;
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            features = match Feature::ALL.into_iter().find(|f| f.name() == name) {
                Some(feature) => features.without(feature),
                None if name == "all" => features.without_any(),
                None => return Err(UnknownFeature(name.to_owned())),
            };
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lists() {
        assert_eq!("".parse(), Ok(Features::ALL));
        let f: Features = "tso, peek-off,".parse().expect("known");
        assert!(!f.allows(Feature::Tso) && !f.allows(Feature::PeekOff) && f.allows(Feature::VnetHdr));
        let none: Features = "all".parse().expect("known");
        assert!(Feature::ALL.into_iter().all(|x| !none.allows(x)));
        assert_eq!("tso,usso".parse::<Features>(), Err(UnknownFeature("usso".into())));
    }
}
