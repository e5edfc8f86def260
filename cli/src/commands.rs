//! One module a command. Those here ask running networks through [`crate::client`]; each renders its answer with a pure
//! function, so that what is printed is tested as text.

pub(crate) mod conntrack;
pub(crate) mod doctor;
pub(crate) mod fdb;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod stats;
