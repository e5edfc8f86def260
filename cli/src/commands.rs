//! One module a command. Those here ask running fronts through [`crate::client`]; each renders its answer with a pure
//! function, so that what is printed is tested as text.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Result;

pub(crate) mod attach;
pub(crate) mod conntrack;
pub(crate) mod doctor;
pub(crate) mod fdb;
pub(crate) mod link;
pub(crate) mod manual;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod ps;
pub(crate) mod publish;
pub(crate) mod route;
pub(crate) mod rule;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod wire;

/// Does something with each of several: those that fail are named on standard error, do not stop the others, and make the
/// whole fail, as Docker has it.
fn each<T: Display>(all: &[T], mut what: impl FnMut(&T) -> Result<()>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for one in all {
        if let Err(e) = what(one) {
            eprintln!("pontoon: {e:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
