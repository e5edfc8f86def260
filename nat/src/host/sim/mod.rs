//! A simulated host: sockets in memory whose far ends a test holds.
//!
//! Everything is single-threaded and happens when the test says so; readiness is collected as tokens, which the test (or
//! [`SimHost::take_ready`]'s caller) hands to the gateway, edge-triggered as the real poll does.

pub mod ping;
pub mod tcp;
pub mod udp;

use std::cell::RefCell;
use std::rc::Rc;

use pontoon_switch::Ready;

use super::Token;

/// Readiness that the gateway has not been told of.
pub type Events = Rc<RefCell<Vec<(Token, Ready)>>>;

/// A host whose network is a test.
#[derive(Debug, Default)]
pub struct SimHost {
    /// Readiness that the gateway has not been told of.
    pub events: Events,
    /// TCP.
    pub tcp: tcp::Net,
    /// UDP.
    pub udp: Rc<RefCell<udp::Net>>,
    /// Echo.
    pub ping: Rc<RefCell<ping::Net>>,
}

impl SimHost {
    /// The readiness that has come up, in order; merged for a token that reported twice.
    pub fn take_ready(&mut self) -> Vec<(Token, Ready)> {
        let mut merged: Vec<(Token, Ready)> = Vec::new();
        for (token, ready) in self.events.borrow_mut().drain(..) {
            match merged.iter_mut().find(|(t, _)| *t == token) {
                Some((_, r)) => {
                    r.readable |= ready.readable;
                    r.writable |= ready.writable;
                    r.error |= ready.error;
                    r.hangup |= ready.hangup;
                }
                None => merged.push((token, ready)),
            }
        }
        merged
    }
}
