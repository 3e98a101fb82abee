//! Closes so that what was written last still arrives: a socket closed over unread bytes sends a reset, and a reset
//! destroys the answer.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest time that is spent on a peer that was refused.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read and discarded from it.
const DISCARD_BYTES_MAX: usize = 256 * 1024;
/// One read.
const CHUNK_BYTES: usize = 4096;

/// Shuts the write side, then reads and discards until the peer closes, 2 s or 256 KiB.
pub(crate) async fn close_after_refusal<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) {
    let discard = async {
        // The refusal is out or lost; there is nobody left to tell.
        if io.shutdown().await.is_err() {
            return;
        }
        let mut left = DISCARD_BYTES_MAX;
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            match io.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    if tokio::time::timeout(LINGER, discard).await.is_err() {
        tracing::debug!("a refused peer kept its side open");
    }
}
