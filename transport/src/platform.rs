//! Everything that depends on the operating system: socket options that not every system has, and file permissions.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;

/// Unsent bytes that the kernel takes ahead of the network: what a later, more urgent frame waits behind.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOT_SENT_BYTES_MAX: u32 = 32 * 1024;

/// Ends a connection whose data stays unacknowledged for `limit`, where the system can.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
pub(crate) fn set_user_timeout(socket: &SockRef<'_>, limit: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(limit))
}

/// Other systems have no such option; keep-alive and the protocol's own timers remain.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "fuchsia")))]
pub(crate) fn set_user_timeout(_socket: &SockRef<'_>, _limit: Duration) -> io::Result<()> {
    Ok(())
}

/// Bounds the unsent backlog, where the system can.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn bound_unsent(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)
}

/// Other systems size their send buffers themselves.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn bound_unsent(_socket: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// A listener may be opened again at once after its process ended.
#[cfg(unix)]
pub(crate) fn reuse_address(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// On Windows this option would let a second process take the port over.
#[cfg(not(unix))]
pub(crate) fn reuse_address(_socket: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// The permission bits of a file that others than its owner may use; `None` when there are none.
#[cfg(unix)]
pub(crate) fn exposed_mode(file: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file)?.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Elsewhere the directory's access list protects the key.
#[cfg(not(unix))]
pub(crate) fn exposed_mode(_file: &Path) -> io::Result<Option<u32>> {
    Ok(None)
}

/// The time since boot, suspend included.
#[cfg(target_os = "linux")]
pub(crate) fn since_origin() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time since the first call, on the monotonic clock.
#[cfg(not(target_os = "linux"))]
pub(crate) fn since_origin() -> Duration {
    static STARTED: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    STARTED.get_or_init(std::time::Instant::now).elapsed()
}
