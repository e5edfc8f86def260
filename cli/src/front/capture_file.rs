//! The file of a container's captured frames, made by the front, written by the packet process.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;

/// A capture file that is removed again, if it was not there before, unless it is kept.
#[derive(Debug)]
pub(super) struct CaptureFile {
    /// The file, open for writing.
    pub(super) file: File,
    new: Option<PathBuf>,
}

impl CaptureFile {
    /// Makes the file at `path`, or opens one that is there.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let what = || format!("cannot write the capture file {}", path.display());
        if !path.is_absolute() {
            bail!("{}: an absolute path is needed", what());
        }
        let mut options = File::options();
        options.write(true).mode(0o600);
        match options.create_new(true).open(path) {
            Ok(file) => Ok(Self {
                file,
                new: Some(path.to_owned()),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                // A pipe that nobody reads would hold everybody up: it is refused at once. One that is read is written to
                // as a file is.
                let file = options
                    .create_new(false)
                    .truncate(true)
                    .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
                    .open(path)
                    .with_context(what)?;
                let flags = rustix::fs::fcntl_getfl(&file).with_context(what)?;
                rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK).with_context(what)?;
                Ok(Self { file, new: None })
            }
            Err(e) => Err(e).with_context(what),
        }
    }

    /// Lets it stay.
    pub(super) fn keep(mut self) {
        self.new = None;
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        if let Some(path) = &self.new {
            // It is empty; that is all that is wrong if it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}
