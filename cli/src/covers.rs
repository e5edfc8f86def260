//! The container's own resolv.conf, hosts and hostname, in the place of the host's.
//!
//! # Theory of operation
//!
//! Each is a file bound over the host's. When the host replaces its file by renaming another over it, as resolvers'
//! managers do, the kernel takes the cover away with the file it covered, in every mount namespace (`detach_mounts` in
//! the kernel's fs/namespace.c). So the outer process, whose mount namespace the container's is a slave of, watches the
//! directories and covers anew; what it mounts propagates into the container's namespace. For a moment the container
//! may see the host's file; and what came by propagation is not locked, so that the container's root could take it away.
//! Neither is a secret: what must stay hidden is the control directory, whose mask is mounted once, and locked.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

/// Files of the host's `/etc` that the container has its own of.
pub(crate) const OWN_FILES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

/// What stands in those files until process 1 writes them; by it they are told from the host's.
pub(crate) const UNWRITTEN: &[u8] = b"# pontoon: not written yet\n";

/// The files that cover the host's, for as long as the outer process lives.
#[derive(Debug)]
pub(crate) struct Covers {
    control: PathBuf,
    // Held open, so that the text outlives the mount.
    files: Vec<(PathBuf, File)>,
}

/// Hides the control directory under an empty one and covers the host's `names` in `/etc`.
pub(crate) fn hide(control: &Path, names: &[&str]) -> Result<Covers> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("cannot make the mounts private")?;
    // From here on to the container's namespace only, which is a slave of this one.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .context("cannot let mounts reach the container")?;
    let at = || format!("cannot mount over {}", control.display());
    // The files live in a file system that is mounted where the mask is about to be, and taken away from there again.
    mount(
        "pontoon",
        control,
        "tmpfs",
        quiet | MountFlags::NOEXEC,
        c"size=1m,mode=0755",
    )
    .with_context(at)?;
    let mut files = Vec::new();
    for &name in names {
        let file = control.join(name);
        write_for_all(&file, UNWRITTEN).with_context(|| format!("cannot write {}", file.display()))?;
        let target = Path::new("/etc").join(name);
        let covered = match mount_bind(&file, &target) {
            Ok(()) => Ok(()),
            // Not there, or a link that leads nowhere.
            Err(rustix::io::Errno::NOENT) => cover_missing(control, &file, &target),
            Err(e) => Err(e.into()),
        };
        match (covered, name) {
            (Ok(()), _) => {
                let held = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
                files.push((target, held));
            }
            (Err(e), "resolv.conf") => return Err(e.context(format!("cannot cover {}", target.display()))),
            (Err(e), _) => tracing::info!("cannot cover {}: {e:#}", target.display()),
        }
    }
    unmount(control, UnmountFlags::DETACH).with_context(at)?;
    let empty = quiet | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("pontoon", control, "tmpfs", empty, c"size=4k,mode=0700").with_context(at)?;
    // The covers of files count on the first file system, which stays while they do.
    Ok(Covers {
        control: control.to_owned(),
        files,
    })
}

/// Writes a file that the container's every user may read, whatever the umask.
fn write_for_all(file: &Path, text: &[u8]) -> std::io::Result<()> {
    std::fs::write(file, text)?;
    std::fs::set_permissions(file, Permissions::from_mode(0o644))
}

/// Makes `target` in an overlay of the host's `/etc`, of which the host sees nothing, and covers it.
fn cover_missing(control: &Path, file: &Path, target: &Path) -> Result<()> {
    let (upper, work) = (control.join("etc"), control.join("work"));
    if !upper.exists() {
        std::fs::create_dir(&upper)?;
        std::fs::create_dir(&work)?;
        let options = format!(
            "lowerdir=/etc,upperdir={},workdir={},userxattr",
            upper.display(),
            work.display()
        );
        mount(
            "pontoon",
            "/etc",
            "overlay",
            MountFlags::NOSUID | MountFlags::NODEV,
            CString::new(options)?.as_c_str(),
        )
        .context("it is not there, and /etc cannot be overlaid to make it")?;
    }
    if std::fs::symlink_metadata(target).is_ok() {
        std::fs::remove_file(target).context("it is a link that leads nowhere")?;
    }
    std::fs::write(target, "")?;
    mount_bind(file, target)?;
    Ok(())
}

impl Covers {
    /// Covers anew what the host replaces, for ever, in a thread of its own.
    pub(crate) fn keep(mut self) {
        if self.files.is_empty() {
            return;
        }
        let kept = std::thread::Builder::new().name("covers".into()).spawn(move || {
            if let Err(e) = self.watch() {
                tracing::warn!("files that the host replaces will show in the container: {e:#}");
            }
        });
        if let Err(e) = kept {
            tracing::warn!("files that the host replaces will show in the container: no thread: {e}");
        }
    }

    fn watch(&mut self) -> Result<()> {
        let fd = inotify::init(CreateFlags::CLOEXEC).context("cannot watch directories")?;
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        let mut buf = [0; 4096];
        loop {
            // Links may lead elsewhere by now; a directory that is watched already is only renewed.
            for directory in self.directories() {
                inotify::add_watch(&fd, &directory, flags)
                    .with_context(|| format!("cannot watch {}", directory.display()))?;
            }
            for i in 0..self.files.len() {
                if self.is_lost(i)
                    && let Err(e) = self.cover(i)
                {
                    tracing::warn!("cannot cover {} again: {e:#}", self.files[i].0.display());
                }
            }
            rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut buf)).context("cannot read the watch")?;
        }
    }

    /// Where the files are, and where they really are if they are links.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let real = self
            .files
            .iter()
            .filter_map(|(f, _)| std::fs::canonicalize(f).ok());
        let all = self.files.iter().map(|(f, _)| f.clone()).chain(real);
        all.filter_map(|f| f.parent().map(Path::to_owned)).collect()
    }

    fn is_lost(&self, i: usize) -> bool {
        let (path, held) = &self.files[i];
        match (std::fs::metadata(path), held.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            // Not there for the moment: what comes next is an event of its own.
            (Err(_), _) | (_, Err(_)) => false,
        }
    }

    /// A lost cover's mount is gone, and its file with it but for the text.
    fn cover(&mut self, i: usize) -> Result<()> {
        let mut text = Vec::new();
        let (path, held) = &mut self.files[i];
        held.rewind()?;
        held.read_to_end(&mut text)?;
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("pontoon", &self.control, "tmpfs", quiet, c"size=1m,mode=0755")?;
        let file = self.control.join("again");
        let covered = write_for_all(&file, &text)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(mount_bind(&file, &*path)?))
            .and_then(|()| Ok(File::open(&file)?));
        unmount(&self.control, UnmountFlags::DETACH)?;
        *held = covered?;
        Ok(())
    }
}
