//! Standard input as bytes that arrive as they are typed or written, without buffering a whole block.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Chunks read ahead; the reading thread waits when they are not taken.
const CHUNKS_MAX: usize = 4;
/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// Standard input, read by a thread of its own: a blocking read cannot be cancelled, so the thread is left behind
/// when the process ends.
pub(super) struct StandardInput {
    chunks: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    current: Vec<u8>,
    taken: usize,
}

impl StandardInput {
    pub(super) fn new() -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let chunk = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Self { chunks, current: Vec::new(), taken: 0 }
    }
}

impl AsyncRead for StandardInput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.taken == self.current.len() {
            match ready!(self.chunks.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(chunk)) => {
                    self.current = chunk;
                    self.taken = 0;
                }
            }
        }
        let rest = self.current.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}
