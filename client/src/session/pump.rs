//! Moves one path's bytes between its stream and the session, both directions in one future: reading never waits for
//! writing, and neither waits for the application.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rc_proto::session::PathKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::core::{SessionCore, Transmit};

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Rounds before the task gives way to others.
const ROUNDS_MAX: usize = 32;
/// Time to send what is left and close cleanly.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What carries a path: any byte stream whose peer is proven.
pub(crate) trait PathStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> PathStream for S {}

/// Runs until the path ends, and tells the session how. `early` are bytes that were read in front.
pub(crate) async fn pump<S: PathStream>(core: Arc<SessionCore>, key: PathKey, stream: S, early: Vec<u8>) {
    let mut pump = Pump {
        core: Arc::clone(&core),
        key,
        stream,
        out: Vec::new(),
        written: 0,
        flush_due: false,
        buffer: vec![0; READ_BYTES].into_boxed_slice(),
    };
    if !early.is_empty() {
        core.handle_bytes(key, &early);
    }
    let end = (&mut pump).await;
    let reason = match end {
        Ok(()) => {
            drop(tokio::time::timeout(CLOSE_MAX, pump.close()).await);
            String::new()
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the path was cut".to_owned(),
        Err(error) => error.to_string(),
    };
    core.path_gone(key, &reason);
}

struct Pump<S> {
    core: Arc<SessionCore>,
    key: PathKey,
    stream: S,
    out: Vec<u8>,
    written: usize,
    flush_due: bool,
    buffer: Box<[u8]>,
}

/// What one direction did in a round.
enum Progress {
    Moved,
    Waits,
    /// The session wants the path closed, and everything is written, or the stream takes no more.
    Done,
}

impl<S: PathStream> Future for Pump<S> {
    type Output = io::Result<()>;

    /// Ends with `Ok` when the session wants the path closed, with an error when the path ended first.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pump = self.get_mut();
        for _ in 0..ROUNDS_MAX {
            let wrote = pump.write(context)?;
            if matches!(wrote, Progress::Done) {
                return Poll::Ready(Ok(()));
            }
            let read = match pump.read(context) {
                Poll::Ready(read) => {
                    read?;
                    Progress::Moved
                }
                Poll::Pending => Progress::Waits,
            };
            if matches!((wrote, read), (Progress::Waits, Progress::Waits)) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: PathStream> Pump<S> {
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<Progress> {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            match self.core.poll_transmit(self.key, &mut self.out, context.waker()) {
                Transmit::Bytes => {}
                Transmit::Nothing => return Ok(self.flush(context)?.unwrap_or(Progress::Waits)),
                Transmit::Close => return Ok(self.flush(context)?.unwrap_or(Progress::Done)),
            }
        }
        let rest = self.out.get(self.written..).unwrap_or_default();
        match Pin::new(&mut self.stream).poll_write(context, rest) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => {
                self.written += count;
                self.flush_due = true;
                Ok(Progress::Moved)
            }
            Poll::Ready(Err(error)) => self.read_out(context, error),
            Poll::Pending => Ok(self.full(context)),
        }
    }

    /// The stream takes no bytes: what the session wants is noticed all the same.
    fn full(&self, context: &mut Context<'_>) -> Progress {
        if self.core.poll_close(self.key, context.waker()) { Progress::Done } else { Progress::Waits }
    }

    /// Flushes when something was written; `Some` while that is not done.
    fn flush(&mut self, context: &mut Context<'_>) -> io::Result<Option<Progress>> {
        if !self.flush_due {
            return Ok(None);
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Ok(())) => {
                self.flush_due = false;
                Ok(None)
            }
            Poll::Ready(Err(error)) => self.read_out(context, error).map(Some),
            Poll::Pending => Ok(Some(self.full(context))),
        }
    }

    /// A write failed: what the peer said before counts, so it is read first.
    fn read_out(&mut self, context: &mut Context<'_>, error: io::Error) -> io::Result<Progress> {
        for _ in 0..ROUNDS_MAX {
            match self.read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        Err(error)
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::Error::other("the other end closed the path")));
        }
        self.core.handle_bytes(self.key, buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Sends what is left, closes cleanly, and reads on until the peer has closed too, so that no reset overtakes the
    /// last bytes.
    async fn close(&mut self) {
        while self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            if self.stream.write_all(rest).await.is_err() {
                return;
            }
            self.out.clear();
            self.written = 0;
            self.core.poll_transmit(self.key, &mut self.out, Waker::noop());
        }
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0; 1024];
        while let Ok(count) = tokio::io::AsyncReadExt::read(&mut self.stream, &mut scratch).await {
            if count == 0 {
                return;
            }
        }
    }
}
