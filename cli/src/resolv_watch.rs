//! A watch on the host's resolv.conf: on its directory, and on the directory of the file that it is a link to, because
//! such files are replaced rather than written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::resolv::HOST_FILE;

/// The watch.
#[derive(Debug)]
pub(crate) struct ResolvWatch {
    file: PathBuf,
    inotify: Option<OwnedFd>,
    seen: Option<Vec<u8>>,
}

impl ResolvWatch {
    /// Watches the host's file. Where the kernel refuses, its changes go unseen, which the log says.
    pub(crate) fn new() -> Self {
        Self::of(Path::new(HOST_FILE))
    }

    fn of(file: &Path) -> Self {
        let mut this = Self {
            file: file.to_owned(),
            inotify: None,
            seen: std::fs::read(file).ok(),
        };
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => {
                this.inotify = Some(fd);
                this.add_watches();
            }
            Err(e) => tracing::warn!("changes of {HOST_FILE} will not be seen: {e}"),
        }
        this
    }

    /// A watch that is there already is only renewed.
    fn add_watches(&self) {
        let Some(fd) = &self.inotify else { return };
        let in_directory = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB;
        let add = |path: &Path, flags| {
            if let Err(e) = inotify::add_watch(fd, path, flags) {
                tracing::warn!(
                    "changes of {HOST_FILE} may go unseen: cannot watch {}: {}",
                    path.display(),
                    io::Error::from(e)
                );
            }
        };
        let real = std::fs::canonicalize(&self.file).ok();
        for directory in [Some(self.file.as_path()), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::parent)
        {
            add(directory, in_directory);
        }
        if let Some(real) = real {
            // A file that something is mounted over is written to without the directory's knowing.
            add(&real, WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY);
        }
    }

    /// Readable when something may have changed.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Takes what waits to be read; true if the file's text is another now.
    pub(crate) fn changed(&mut self) -> bool {
        if let Some(fd) = &self.inotify {
            let mut buf = [0; 4096];
            while rustix::io::read(fd, &mut buf).is_ok_and(|n| n > 0) {}
        }
        let now = std::fs::read(&self.file).ok();
        if self.seen == now {
            return false;
        }
        self.seen = now;
        // It may be a link to somewhere else by now.
        self.add_watches();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_ready(watch: &ResolvWatch) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(
            watch.fd().expect("inotify"),
            PollFlags::IN,
        )];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            }),
        )
        .expect("poll")
            > 0
    }

    #[test]
    fn sees_writes_replacements_and_links_that_move() {
        let dir = tempfile::tempdir().expect("directory");
        let (etc, run, other) = (
            dir.path().join("etc"),
            dir.path().join("run"),
            dir.path().join("other"),
        );
        for d in [&etc, &run, &other] {
            std::fs::create_dir(d).expect("mkdir");
        }
        let file = etc.join("resolv.conf");
        std::fs::write(run.join("stub"), "a").expect("write");
        std::fs::write(other.join("stub"), "c").expect("write");
        std::os::unix::fs::symlink(run.join("stub"), &file).expect("link");
        let mut watch = ResolvWatch::of(&file);
        assert!(!watch.changed());
        std::fs::write(run.join("new"), "b").expect("write");
        std::fs::rename(run.join("new"), run.join("stub")).expect("rename");
        assert!(is_ready(&watch) && watch.changed() && !watch.changed());
        std::os::unix::fs::symlink(other.join("stub"), etc.join("next")).expect("link");
        std::fs::rename(etc.join("next"), &file).expect("rename");
        assert!(is_ready(&watch) && watch.changed());
        std::fs::write(other.join("stub"), "d").expect("write");
        assert!(is_ready(&watch) && watch.changed());
    }
}
