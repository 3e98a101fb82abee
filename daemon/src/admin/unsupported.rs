//! Where there are no Unix sockets. The Windows equivalent is a named pipe with an access control list.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{AdminBindError, AdminClientError, AdminHandler};

/// The listening admin socket; cannot be made here.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
}

impl AdminServer {
    /// Makes the socket.
    ///
    /// # Errors
    /// Always [`AdminBindError::Unsupported`].
    pub fn bind(_path: &Path) -> Result<Self, AdminBindError> {
        Err(AdminBindError::Unsupported)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop`.
    pub async fn serve(self, _handler: Arc<dyn AdminHandler>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}

/// Where the named pipe of `binary` would be.
pub fn default_path(binary: &str) -> PathBuf {
    PathBuf::from(format!(r"\\.\pipe\rc-mesh-{binary}"))
}

type Halves = (Box<dyn AsyncRead + Send + Sync + Unpin>, Box<dyn AsyncWrite + Send + Sync + Unpin>);

pub(super) async fn connect(_path: &Path) -> Result<Halves, AdminClientError> {
    Err(AdminClientError::Unsupported)
}
