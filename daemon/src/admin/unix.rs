//! The admin socket as a Unix socket: who may bind it, who may connect, and what a crash leaves behind.
//!
//! A lock file beside the socket is held while the daemon lives, so two daemons that start at once cannot both take
//! the socket, and a socket whose lock is free is a leftover.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::exchange::{Responder, converse};
use super::{AdminBindError, AdminClientError, AdminError, AdminHandler, CONNECTIONS_MAX};

/// What Linux takes for the path of a socket, without its closing zero; other systems take a little less.
const PATH_MAX_BYTES: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// How long to wait when the system has no descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The listening admin socket; dropping it removes the socket.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    socket: SocketFile,
}

/// The socket's file and the lock that says that it is in use.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the admin socket stays behind");
        }
    }
}

impl AdminServer {
    /// Makes the socket, 0600, in a directory that is made 0700 when it is not there; needs a tokio runtime.
    ///
    /// # Errors
    /// Another daemon answers on it, something else is in its place, its directory is open to others, or the
    /// operating system refuses.
    pub fn bind(path: &Path) -> Result<Self, AdminBindError> {
        if path.as_os_str().len() > PATH_MAX_BYTES {
            return Err(AdminBindError::PathTooLong { path: path.to_owned() });
        }
        let failed = |source| AdminBindError::Io { path: path.to_owned(), source };
        prepare_directory(path)?;
        let lock = take_lock(path)?;
        remove_leftover(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let found = fs::symlink_metadata(path).map_err(failed)?;
        let socket = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()), _lock: lock };
        Ok(Self { listener, socket })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.socket.path
    }

    /// Answers until `stop`; then every connection ends, at the latest after [`GRACE`](super::GRACE).
    pub async fn serve(self, handler: Arc<dyn AdminHandler>, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an admin connection failed");
                    }
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if !may_ask(&stream) => {
                    tracing::warn!(path = %self.path().display(), "admin connection of another user refused");
                }
                Ok((stream, _)) => {
                    let (handler, stop) = (Arc::clone(&handler), stop.clone());
                    let full = connections.len() >= CONNECTIONS_MAX;
                    if full {
                        refuse(&stream);
                    } else {
                        connections.spawn(attend(stream, handler, stop));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

async fn attend(stream: UnixStream, handler: Arc<dyn AdminHandler>, stop: CancellationToken) {
    let (reader, writer) = stream.into_split();
    converse(reader, Responder::new(writer), handler, stop).await;
}

/// One line that fits into the socket's buffer, without waiting for the asker.
fn refuse(stream: &UnixStream) {
    let busy = AdminError::new(AdminError::BUSY, "too many admin connections: close one and try again");
    let mut line = serde_json::to_vec(&super::Line::Error(busy)).unwrap_or_default();
    line.push(b'\n');
    if let Err(error) = stream.try_write(&line) {
        tracing::debug!(%error, "a refused admin connection was already gone");
    }
}

/// The daemon answers its own user and root.
fn may_ask(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid(), geteuid().as_raw()))
}

/// Whether a process of user `own` does what a process of user `peer` asks.
pub(super) const fn is_trusted(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// The command line believes its own user and root, and root believes everybody.
fn may_answer(stream: &UnixStream) -> bool {
    may_ask(stream) || geteuid().is_root()
}

/// The directory has to be ours (or root's) and closed to writing by others.
fn prepare_directory(path: &Path) -> Result<(), AdminBindError> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| AdminBindError::Io { path: directory.to_owned(), source };
    match DirBuilder::new().mode(0o700).recursive(true).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let found = fs::metadata(directory).map_err(failed)?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let ours = owner == 0 || owner == geteuid().as_raw();
    if ours && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(AdminBindError::UnsafeDirectory { directory: directory.to_owned(), owner, mode })
}

/// Locks `<socket>.lock` for the life of this process and writes our process id into it.
fn take_lock(path: &Path) -> Result<File, AdminBindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let failed = |source| AdminBindError::Io { path: lock_path.clone(), source };
    let mut options = OpenOptions::new();
    let mut lock = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = holder(&mut lock);
            return Err(AdminBindError::AlreadyRunning { path: path.to_owned(), pid });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    lock.set_len(0).map_err(failed)?;
    lock.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
    Ok(lock)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Removes a socket that nobody answers on.
fn remove_leftover(path: &Path) -> Result<(), AdminBindError> {
    let failed = |source| AdminBindError::Io { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(AdminBindError::InTheWay { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(stream) => {
            let pid = rustix::net::sockopt::socket_peercred(&stream)
                .ok()
                .map(|peer| peer.pid.as_raw_nonzero().get());
            let pid = pid.and_then(|pid| u32::try_from(pid).ok());
            Err(AdminBindError::AlreadyRunning { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Where the admin socket of `binary` is when nobody sets it: `/run/rc-mesh` for root, else the user's runtime
/// directory, else a directory of this user in `/tmp`.
pub fn default_path(binary: &str) -> PathBuf {
    let user = geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    default_path_for(binary, user.as_raw(), runtime)
}

pub(super) fn default_path_for(binary: &str, user: u32, runtime: Option<PathBuf>) -> PathBuf {
    let directory = match (user, runtime) {
        (0, _) => PathBuf::from("/run/rc-mesh"),
        (_, Some(runtime)) => runtime.join("rc-mesh"),
        (user, None) => PathBuf::from(format!("/tmp/rc-mesh-{user}")),
    };
    directory.join(format!("{binary}.sock"))
}

type Halves = (Box<dyn AsyncRead + Send + Sync + Unpin>, Box<dyn AsyncWrite + Send + Sync + Unpin>);

pub(super) async fn connect(path: &Path) -> Result<Halves, AdminClientError> {
    let path = || path.to_owned();
    let stream = UnixStream::connect(path()).await.map_err(|source: io::Error| {
        let kind = source.kind();
        if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            AdminClientError::NotRunning { path: path() }
        } else if kind == ErrorKind::PermissionDenied {
            AdminClientError::NotPermitted { path: path() }
        } else {
            AdminClientError::Broken { path: path(), source }
        }
    })?;
    // A socket that somebody else put there would learn our requests and make up the answers.
    if !may_answer(&stream) {
        return Err(AdminClientError::NotPermitted { path: path() });
    }
    let (reader, writer) = stream.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}
