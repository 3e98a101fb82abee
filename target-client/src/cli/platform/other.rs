//! Systems without a Unix pty: the shell service is refused. On Windows it would be a ConPTY
//! (`CreatePseudoConsole`) with a job object in place of the process group.

use rc_proto::wire::shell::{ShellStart, WindowSize};
use tokio::io::AsyncRead;

use crate::cli::services::ServiceError;

/// Standard input of a running shell.
pub(crate) struct ShellInput(std::convert::Infallible);

/// A running shell.
pub(crate) struct ShellProcess {
    pub(crate) input: ShellInput,
    pub(crate) output: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) error_output: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) child: tokio::process::Child,
}

impl ShellInput {
    pub(crate) async fn write(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        match self.0 {}
    }
    pub(crate) async fn end(&mut self) -> std::io::Result<()> {
        match self.0 {}
    }
    pub(crate) fn resize(&self, _size: WindowSize) {
        match self.0 {}
    }
    pub(crate) fn signal(&self, _name: &str) {
        match self.0 {}
    }
    pub(crate) fn hang_up(&self) {
        match self.0 {}
    }
    pub(crate) fn kill(&self) {
        match self.0 {}
    }
}

pub(crate) fn spawn_shell(_start: &ShellStart, _run_as: Option<&str>) -> Result<ShellProcess, ServiceError> {
    let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
    Err(ServiceError::Start { program: "a shell (this system has no Unix pty)".to_owned(), source })
}

pub(crate) fn signal_of(_status: std::process::ExitStatus) -> Option<String> {
    None
}
