//! A hostile container: what it can reach, what it can do to another, and what is left when everything has been used up.
//!
//! Each test runs the real binary in a world of its own, as root or as an ordinary user, as `pontoon run` with a victim on
//! the same network or as `pontoon slirp4netns`. What the container sends is made by `pontoon_fixtures::hostile` and sent by
//! `lab-hostile`; it takes minutes, and the figures want a machine that does nothing else, so it is a part of its own.
#![forbid(unsafe_code)]

/// A test body that runs as root and as an ordinary user, each in a world of its own.
macro_rules! each_user {
    ($(#[doc = $doc:literal])* fn $name:ident($world:ident, $who:ident) $body:block) => {
        $(#[doc = $doc])*
        mod $name {
            use super::*;
            fn body($world: &pontoon_fixtures::lab::World, $who: pontoon_fixtures::lab::Who) $body
            #[test]
            fn as_root() {
                body(&$crate::world(), pontoon_fixtures::lab::Who::Root);
            }
            #[test]
            fn as_user() {
                body(&$crate::world(), pontoon_fixtures::lab::Who::User);
            }
        }
    };
}

mod descriptors;
mod floods;
mod reach;
mod site;

use pontoon_fixtures::lab::World;

/// A world with the binary under test in it.
fn world() -> World {
    World::new(env!("CARGO_BIN_EXE_pontoon"))
}
