//! The daemon's side of one connection: requests in, answers out, over any byte stream.

use std::io;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    AdminError, AdminHandler, GRACE, IDLE_MAX, Line, REPLY_MAX_BYTES, REQUEST_MAX_BYTES, Request, WRITE_MAX,
};

/// Streams the items of an answer.
pub struct Responder {
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

impl Responder {
    pub(super) fn new(writer: impl AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self { writer: Box::new(writer) }
    }

    /// Sends one item; waits while the asker reads slowly, at most [`WRITE_MAX`].
    ///
    /// # Errors
    /// The asker has left or does not read, or the item has no JSON form or is too long for one line.
    pub async fn send(&mut self, item: &impl Serialize) -> Result<(), AdminError> {
        let value =
            serde_json::to_value(item).map_err(|error| AdminError::new(AdminError::INTERNAL, error))?;
        self.write(&Line::Item(value)).await
    }

    async fn write(&mut self, line: &Line) -> Result<(), AdminError> {
        let mut text =
            serde_json::to_vec(line).map_err(|error| AdminError::new(AdminError::INTERNAL, error))?;
        if text.len() > REPLY_MAX_BYTES {
            return Err(AdminError::new(AdminError::INTERNAL, "the answer is too long for one line"));
        }
        text.push(b'\n');
        match timeout(WRITE_MAX, self.writer.write_all(&text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(AdminError::new(AdminError::GONE, error)),
            Err(_) => Err(AdminError::new(AdminError::GONE, "the asker does not read")),
        }
    }

    /// The last line of an answer; an answer that is too long becomes the error that says so.
    pub(super) async fn end(&mut self, outcome: Result<Value, AdminError>) -> Result<(), AdminError> {
        let line = outcome.map_or_else(Line::Error, Line::Ok);
        match self.write(&line).await {
            Err(error) if error.code == AdminError::INTERNAL => self.write(&Line::Error(error)).await,
            written => written,
        }
    }
}

/// Answers requests until the asker leaves, is idle for too long, or the daemon stops.
pub(super) async fn converse(
    reader: impl AsyncRead + Unpin,
    mut responder: Responder,
    handler: Arc<dyn AdminHandler>,
    stop: CancellationToken,
) {
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            line = timeout(IDLE_MAX, read_line(&mut reader, REQUEST_MAX_BYTES)) => line,
        };
        let outcome = match line {
            Ok(Ok(Some(line))) => match serde_json::from_slice::<Request>(&line) {
                Ok(request) => answer(handler.as_ref(), request, &mut responder, &mut reader, &stop).await,
                Err(error) => Err(AdminError::bad_request(format_args!("not a request: {error}"))),
            },
            Ok(Err(ReadError::TooLong)) => {
                let error =
                    AdminError::bad_request(format_args!("a request is at most {REQUEST_MAX_BYTES} bytes"));
                responder.end(Err(error)).await.unwrap_or_default();
                return;
            }
            Ok(Ok(None) | Err(ReadError::Io(_))) | Err(_) => return,
        };
        if responder.end(outcome).await.is_err() {
            return;
        }
    }
}

/// Runs the handler; when the asker leaves or the daemon stops, it gets [`GRACE`] to end.
async fn answer(
    handler: &dyn AdminHandler,
    request: Request,
    responder: &mut Responder,
    reader: &mut (impl AsyncBufRead + Unpin),
    stop: &CancellationToken,
) -> Result<Value, AdminError> {
    let mut work = handler.handle(request, responder);
    let why = tokio::select! {
        biased;
        outcome = &mut work => return outcome,
        () = left(reader) => AdminError::new(AdminError::GONE, "the asker left"),
        () = stop.cancelled() => AdminError::new(AdminError::INTERNAL, "the daemon is stopping"),
    };
    timeout(GRACE, work).await.unwrap_or(Err(why))
}

/// Resolves when the other side has closed; never when it has sent more.
async fn left(reader: &mut (impl AsyncBufRead + Unpin)) {
    let more = matches!(reader.fill_buf().await, Ok(bytes) if !bytes.is_empty());
    if more {
        std::future::pending().await
    }
}

/// Why no line came.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Longer than allowed.
    TooLong,
    /// The stream failed, or ended inside a line.
    Io(io::Error),
}

/// Reads one line of at most `max` bytes, without its end; nothing at the end of the stream.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    max: usize,
) -> Result<Option<Vec<u8>>, ReadError> {
    let mut line = Vec::new();
    loop {
        let bytes = reader.fill_buf().await.map_err(ReadError::Io)?;
        if bytes.is_empty() {
            let cut = || ReadError::Io(io::ErrorKind::UnexpectedEof.into());
            return if line.is_empty() { Ok(None) } else { Err(cut()) };
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(bytes.len());
        if line.len() + taken > max {
            return Err(ReadError::TooLong);
        }
        line.extend(bytes.iter().take(taken));
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}
