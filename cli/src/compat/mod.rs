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
    // `pontoon slirp4netns …`
    let (command, rest) = rest.split_first()?;
    (command == slirp4netns::NAME).then(|| {
        let mut called = name.clone();
        called.push(" ");
        called.push(command);
        slirp4netns::main(&called, rest)
    })
}
