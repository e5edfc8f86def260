//! The directory of the control sockets, its owner's alone: `NAME.sock` for each private network that runs, and
//! `daemon.sock` for the daemon.
//!
//! | who | where |
//! |---|---|
//! | anyone who sets it | `$PONTOON_RUNTIME_DIR` |
//! | root | `/run/pontoon` |
//! | a user with a session | `$XDG_RUNTIME_DIR/pontoon`, else `/run/user/UID/pontoon` |
//! | anyone else | `/tmp/pontoon-UID` |
//!
//! A socket whose front was killed stays behind. Whoever makes or removes one holds a lock on the directory, so that a
//! stale socket is told from one that is about to be listened on.
//!
//! Root of a user namespace, to whom `/run` does not belong, is a user. A directory that is a symbolic link, somebody
//! else's, or open to others is refused: whoever can write there could stand in for a network.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// What ends the name of a control socket.
const SUFFIX: &str = ".sock";
/// Longest path of a Unix socket, without the ending zero: `sun_path` in `unix(7)`.
const MAX_SOCKET_PATH: usize = 107;

/// The daemon's socket has the name that no private network may have.
pub(crate) const DAEMON: &str = "daemon";

/// How long a front may take from its first line in the log to its socket.
const START_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// Why there is no directory of control sockets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// An environment variable that is no absolute path.
    #[error("{0}={1} is not an absolute path: unset it or give one")]
    Relative(&'static str, PathBuf),
    /// It cannot be made, looked at or read.
    #[error("cannot {0} the directory of control sockets {1}: {2}")]
    Io(&'static str, PathBuf, io::Error),
    /// A file or a symbolic link.
    #[error("{0}, where control sockets belong, is not a directory: remove it")]
    NotADirectory(PathBuf),
    /// Another user's.
    #[error(
        "{0}, where control sockets belong, is user {1}'s and not user {2}'s: remove it, or set XDG_RUNTIME_DIR"
    )]
    NotOurs(PathBuf, u32, u32),
    /// Open to other users.
    #[error("{0}, where control sockets belong, has mode {1:03o} and is open to other users: chmod 700 it")]
    Open(PathBuf, u32),
    /// No socket can be bound there.
    #[error(
        "the path of the control socket {0} is longer than {MAX_SOCKET_PATH} bytes: set a shorter XDG_RUNTIME_DIR or name"
    )]
    TooLong(PathBuf),
    /// The network is running already.
    #[error("network {0} is running already: join it with --network {0}, or choose another name")]
    Running(String),
    /// The daemon is running already.
    #[error("a daemon listens on {0} already: end it first, or choose another socket with --socket")]
    DaemonRunning(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on the control socket {0}: {1}")]
    Listen(PathBuf, io::Error),
}

/// What the choice depends on.
struct Surroundings {
    uid: u32,
    pontoon: Option<PathBuf>,
    xdg: Option<PathBuf>,
    run: PathBuf,
    tmp: PathBuf,
}

impl Surroundings {
    fn ours() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        Self {
            uid: rustix::process::geteuid().as_raw(),
            pontoon: path("PONTOON_RUNTIME_DIR"),
            xdg: path("XDG_RUNTIME_DIR"),
            run: "/run".into(),
            tmp: "/tmp".into(),
        }
    }

    fn locate(&self) -> Result<PathBuf, ControlError> {
        let owned = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == self.uid);
        for (name, value) in [
            ("PONTOON_RUNTIME_DIR", &self.pontoon),
            ("XDG_RUNTIME_DIR", &self.xdg),
        ] {
            if let Some(path) = value.as_ref().filter(|p| p.is_relative()) {
                return Err(ControlError::Relative(name, path.clone()));
            }
        }
        if let Some(dir) = &self.pontoon {
            return Ok(dir.clone());
        }
        if self.uid == 0 && owned(&self.run) {
            return Ok(self.run.join("pontoon"));
        }
        let session = self.xdg.clone().filter(|dir| owned(dir)).or_else(|| {
            let dir = self.run.join("user").join(self.uid.to_string());
            owned(&dir).then_some(dir)
        });
        Ok(match session {
            Some(dir) => dir.join("pontoon"),
            None => self.tmp.join(format!("pontoon-{}", self.uid)),
        })
    }

    fn verify(&self, dir: &Path) -> Result<(), ControlError> {
        let found = fs::symlink_metadata(dir).map_err(|e| ControlError::Io("look at", dir.to_owned(), e))?;
        if !found.is_dir() {
            return Err(ControlError::NotADirectory(dir.to_owned()));
        }
        if found.uid() != self.uid {
            return Err(ControlError::NotOurs(dir.to_owned(), found.uid(), self.uid));
        }
        if found.mode() & 0o077 != 0 {
            return Err(ControlError::Open(dir.to_owned(), found.mode() & 0o777));
        }
        Ok(())
    }

    fn create(&self) -> Result<PathBuf, ControlError> {
        let dir = self.locate()?;
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(ControlError::Io("make", dir, e)),
        }
        self.verify(&dir)?;
        Ok(dir)
    }

    fn existing(&self) -> Result<Option<PathBuf>, ControlError> {
        let dir = self.locate()?;
        match self.verify(&dir) {
            Ok(()) => Ok(Some(dir)),
            Err(ControlError::Io(_, _, e)) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Where control sockets belong, whether or not the directory is there.
pub(crate) fn control_dir() -> Result<PathBuf, ControlError> {
    Surroundings::ours().locate()
}

/// The directory, made if it is not there, and verified: for whoever puts a socket into it.
pub(crate) fn create_control_dir() -> Result<PathBuf, ControlError> {
    Surroundings::ours().create()
}

/// The directory if it is there, verified: for whoever looks for sockets.
pub(crate) fn existing_control_dir() -> Result<Option<PathBuf>, ControlError> {
    Surroundings::ours().existing()
}

/// The daemon's socket: what `PONTOON_SOCKET` says, or the one in the control directory.
pub(crate) fn daemon_socket() -> Result<PathBuf, ControlError> {
    const NAME: &str = "PONTOON_SOCKET";
    match std::env::var_os(NAME)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
    {
        Some(path) if path.is_relative() => Err(ControlError::Relative(NAME, path)),
        Some(path) => Ok(path),
        None => socket_path(&control_dir()?, DAEMON),
    }
}

/// The path of a network's socket in `dir`.
pub(crate) fn socket_path(dir: &Path, network: &str) -> Result<PathBuf, ControlError> {
    let path = dir.join(format!("{network}{SUFFIX}"));
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        Err(ControlError::TooLong(path))
    } else {
        Ok(path)
    }
}

/// The private networks that have a socket in `dir`, sorted by name; whether anyone listens there is not looked at.
pub(crate) fn sockets(dir: &Path) -> Result<Vec<(String, PathBuf)>, ControlError> {
    let failed = |e| ControlError::Io("read", dir.to_owned(), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.file_name();
        let name = file.to_str().and_then(|f| f.strip_suffix(SUFFIX));
        if let Some(name) = name.filter(|&n| n != DAEMON && crate::args::parse_name(n).is_ok()) {
            found.push((name.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Listens on the socket of `network` in `dir`, in place of one that was left behind.
pub(crate) fn listen(dir: &Path, network: &str) -> Result<(UnixListener, PathBuf), ControlError> {
    let path = socket_path(dir, network)?;
    let listener = listen_at(dir, &path, || ControlError::Running(network.to_owned()))?;
    Ok((listener, path))
}

/// Listens on the daemon's socket, in place of one that was left behind. Its directory is there.
pub(crate) fn listen_daemon(path: &Path) -> Result<UnixListener, ControlError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(ControlError::TooLong(path.to_owned()));
    }
    listen_at(directory_of(path), path, || {
        ControlError::DaemonRunning(path.to_owned())
    })
}

/// Closes the daemon's socket and removes it.
pub(crate) fn remove_daemon(path: &Path, listener: UnixListener) {
    // An error leaves a socket behind that whoever next meets it removes.
    let lock = lock(directory_of(path));
    drop(listener);
    if lock.is_ok() && is_stale(path) {
        let _ = fs::remove_file(path);
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn listen_at(
    dir: &Path,
    path: &Path,
    running: impl FnOnce() -> ControlError,
) -> Result<UnixListener, ControlError> {
    let _lock = lock(dir)?;
    if path.symlink_metadata().is_ok() {
        if !is_stale(path) {
            return Err(running());
        }
        fs::remove_file(path).map_err(|e| ControlError::Listen(path.to_owned(), e))?;
    }
    // The directory's mode is what keeps others out: the kernel asks for search permission on it at each connect. Where
    // the daemon's lies elsewhere, whoever comes is looked at all the same.
    UnixListener::bind(path).map_err(|e| ControlError::Listen(path.to_owned(), e))
}

/// Whether the front of the private network of that name listens.
pub(crate) fn is_running(dir: &Path, network: &str) -> bool {
    socket_path(dir, network).is_ok_and(|path| path.exists() && !is_stale(&path))
}

/// Removes the socket at `path` in `dir` if nobody listens on it.
pub(crate) fn remove_if_stale(dir: &Path, path: &Path) -> Result<(), ControlError> {
    let _lock = lock(dir)?;
    if is_stale(path) {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(ControlError::Io("tidy", dir.to_owned(), e));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The log of a network's front and packet process in `dir`. It goes when the network does.
pub(crate) fn log_path(dir: &Path, network: &str) -> PathBuf {
    dir.join(format!("{network}.log"))
}

/// Removes the socket at `path` of a front that is ending, with its log, unless another front has taken its place.
pub(crate) fn remove(dir: &Path, network: &str, listener: UnixListener) {
    let Ok(path) = socket_path(dir, network) else {
        return;
    };
    let Ok(_lock) = lock(dir) else { return };
    drop(listener);
    if is_stale(&path) {
        // Whoever was quicker has done what is to be done.
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(log_path(dir, network));
    }
}

/// Removes what killed fronts have left in `dir`: sockets that nobody listens on, and logs without a socket. What cannot
/// be removed now is tried again by whoever comes next.
pub(crate) fn sweep(dir: &Path) {
    let (Ok(found), Ok(_lock)) = (sockets(dir), lock(dir)) else {
        return;
    };
    for (network, path) in found.into_iter().filter(|(_, path)| is_stale(path)) {
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(log_path(dir, &network));
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|e| e == "log");
        // A front that is just being started has a log and no socket yet.
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .ok()
            .and_then(|t| t.elapsed().ok());
        if is_log && !path.with_extension("sock").exists() && age.is_some_and(|a| a > START_TIME) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the log of `network` in `dir`, whose front was killed, unless another front has taken its place.
pub(crate) fn remove_log(dir: &Path, network: &str) {
    let (Ok(path), Ok(_lock)) = (socket_path(dir, network), lock(dir)) else {
        return;
    };
    if !path.exists() {
        let _ = fs::remove_file(log_path(dir, network));
    }
}

fn is_stale(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Keeps everyone else from making and removing sockets in `dir` while the file is open.
fn lock(dir: &Path) -> Result<fs::File, ControlError> {
    let failed = |e| ControlError::Io("lock", dir.to_owned(), e);
    let file = fs::File::open(dir).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn place(root: &Path) -> Surroundings {
        let uid = rustix::process::geteuid().as_raw();
        fs::create_dir_all(root.join("tmp")).unwrap();
        Surroundings {
            uid,
            pontoon: None,
            xdg: None,
            run: root.join("run"),
            tmp: root.join("tmp"),
        }
    }

    #[test]
    fn the_best_place_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut at = place(root);
        at.uid = 12345;
        assert_eq!(at.locate().unwrap(), root.join("tmp/pontoon-12345"));
        // Somebody else's session is not ours to use.
        at.xdg = Some(root.to_owned());
        assert_eq!(at.locate().unwrap(), root.join("tmp/pontoon-12345"));
        at.uid = rustix::process::geteuid().as_raw();
        assert_eq!(at.locate().unwrap(), root.join("pontoon"));
        at.xdg = None;
        let session = root.join("run/user").join(at.uid.to_string());
        fs::create_dir_all(&session).unwrap();
        let expected = if at.uid == 0 {
            root.join("run/pontoon")
        } else {
            session.join("pontoon")
        };
        assert_eq!(at.locate().unwrap(), expected);
        at.pontoon = Some(root.join("p"));
        assert_eq!(at.locate().unwrap(), root.join("p"));
        at.pontoon = Some("p".into());
        assert!(matches!(
            at.locate(),
            Err(ControlError::Relative("PONTOON_RUNTIME_DIR", _))
        ));
    }

    #[test]
    fn it_is_made_for_us_alone_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let at = place(root.path());
        assert_eq!(at.existing().unwrap(), None);
        let dir = at.create().unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(at.create().unwrap(), dir);
        assert_eq!(at.existing().unwrap(), Some(dir));
    }

    #[test]
    fn what_others_could_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut at = place(root.path());
        let dir = at.create().unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o770)).unwrap();
        assert!(matches!(at.create(), Err(ControlError::Open(_, 0o770))));
        assert!(matches!(at.existing(), Err(ControlError::Open(_, 0o770))));
        fs::remove_dir(&dir).unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        symlink(&elsewhere, &dir).unwrap();
        assert!(matches!(at.create(), Err(ControlError::NotADirectory(_))));
        fs::remove_file(&dir).unwrap();
        at.create().unwrap();
        at.pontoon = Some(dir);
        at.uid += 1;
        assert!(matches!(at.existing(), Err(ControlError::NotOurs(..))));
    }

    #[test]
    fn sockets_are_known_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        for file in ["web.sock", "db.sock", "web.lock", ".sock", "-x.sock", "README"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let names: Vec<_> = sockets(root.path())
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["db", "web"]);
        assert!(matches!(
            socket_path(root.path(), &"n".repeat(120)),
            Err(ControlError::TooLong(_))
        ));
        assert_eq!(
            socket_path(Path::new("/run/pontoon"), "web").unwrap(),
            Path::new("/run/pontoon/web.sock")
        );
    }

    #[test]
    fn what_killed_fronts_left_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let (live, live_path) = listen(dir, "live").unwrap();
        let (dead, dead_path) = listen(dir, "dead").unwrap();
        drop(dead);
        fs::write(log_path(dir, "dead"), "x").unwrap();
        fs::write(log_path(dir, "live"), "x").unwrap();
        // Without a socket, one from long ago and one of a front that is just being started.
        let old = fs::File::create(log_path(dir, "old")).unwrap();
        old.set_modified(std::time::SystemTime::now() - 2 * START_TIME)
            .unwrap();
        fs::write(log_path(dir, "new"), "x").unwrap();
        sweep(dir);
        assert!(!log_path(dir, "old").exists() && log_path(dir, "new").exists());
        remove_log(dir, "new");
        remove_log(dir, "live");
        assert!(!log_path(dir, "new").exists());
        assert!(live_path.exists() && log_path(dir, "live").exists());
        assert!(!dead_path.exists() && !log_path(dir, "dead").exists());
        remove(dir, "live", live);
        assert!(!live_path.exists() && !log_path(dir, "live").exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let (first, path) = listen(dir, "web").unwrap();
        assert!(matches!(listen(dir, "web"), Err(ControlError::Running(_))));
        remove_if_stale(dir, &path).unwrap();
        assert!(path.exists());
        drop(first);
        let (second, path) = listen(dir, "web").unwrap();
        UnixStream::connect(&path).unwrap();
        drop(second);
        remove_if_stale(dir, &path).unwrap();
        assert!(!path.exists());
        remove_if_stale(dir, &path).unwrap();
    }
}
