//! Other tools' command lines, as front ends of the same switch and gateway.
//!
//! Each is chosen by a subcommand, and by the name that the program is called by, so that whoever calls that tool by a path
//! is served by a symbolic link.

pub(crate) mod slirp4netns;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Does what a program of the name in `arguments` (the first is the name) would, if there is a front end of that name.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let (name, rest) = arguments.split_first()?;
    if Path::new(name).file_name() == Some(OsStr::new(slirp4netns::NAME)) {
        return Some(slirp4netns::main(name, rest));
    }
    // As a subcommand, without a look at all the others: its callers wait for it.
    let (command, rest) = rest.split_first()?;
    (command == slirp4netns::NAME).then(|| subcommand(rest))
}

/// Does what `pontoon slirp4netns` does with `arguments`.
pub(crate) fn subcommand(arguments: &[OsString]) -> ExitCode {
    slirp4netns::main(OsStr::new("pontoon slirp4netns"), arguments)
}
