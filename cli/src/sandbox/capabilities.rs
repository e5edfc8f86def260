//! Capabilities, and the ways to gain them (`capabilities(7)`).
//!
//! What is emptied: effective, permitted and inheritable set, the ambient set, the bounding set; what is locked: the
//! securebits, so that being user 0 means nothing. The last two need `CAP_SETPCAP`: an ordinary user has it in the user
//! namespace that the empty root has made, and where he has not, `no_new_privs` says the same for every program executed.
//!
//! The process leaves no core file, which would have a container's data in it, and unless its [`Inspection`] says
//! otherwise nobody but root looks into its memory.

use anyhow::{Context, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
};

use super::{Inspection, Keep};

impl Keep {
    /// What stays.
    pub(super) fn set(self) -> CapabilitySet {
        match self {
            Self::Nothing => CapabilitySet::empty(),
            Self::LowPorts => CapabilitySet::NET_BIND_SERVICE,
        }
    }
}

/// Gives up what is not kept, for good.
pub(super) fn give_up(keep: Keep, inspection: Inspection) -> Result<()> {
    set_no_new_privs(true).context("cannot give up new privileges")?;
    let had = capabilities(None).context("cannot read the capabilities")?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        forget_how(keep.set());
    }
    // Older than any kernel this runs on, but not there in every sandbox.
    let _ = clear_ambient_capability_set();
    hold(had.permitted & keep.set())?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("cannot forbid core files")?;
    match inspection {
        // This keeps even a program that core files are piped to from getting one.
        Inspection::Root => set_dumpable_behavior(DumpableBehavior::NotDumpable),
        Inspection::Owner => Ok(()),
    }
    .context("cannot forbid core dumps")
}

/// What the process is permitted now.
pub(super) fn permitted() -> Result<CapabilitySet> {
    Ok(capabilities(None)
        .context("cannot read the capabilities")?
        .permitted)
}

/// Takes back what has been gained since there was `had`.
pub(super) fn gain_nothing(had: CapabilitySet) -> Result<()> {
    if permitted()? != had {
        hold(had)?;
    }
    Ok(())
}

/// Keeps `kept` and nothing else.
fn hold(kept: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("cannot give up capabilities")
}

/// Empties the bounding set and locks the securebits. Where one of these fails, `no_new_privs` holds all the same.
fn forget_how(kept: CapabilitySet) {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // It ends at the last one that the kernel has.
        if !kept.contains(one) && remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    type Bits = CapabilitiesSecureBits;
    let locked = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    let _ = set_capabilities_secure_bits(locked);
}
