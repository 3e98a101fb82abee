//! Bytes that came behind OpenPath or MeshOpen before the path is open: the end-to-end ClientHello.

use std::sync::Arc;

use rc_proto::wire::limits::EARLY_BYTES_MAX;
use rc_transport::Leg;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::relay::PathMeter;

/// Why a leg is of no more use while its path is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NearGone {
    /// It was closed or broke: what follows from it is cancelled.
    Closed,
    /// It sent more than a ClientHello.
    TooMuch,
}

/// Collects early bytes from the near leg.
pub(super) struct EarlyBytes {
    bytes: watch::Sender<Vec<u8>>,
    meter: Arc<PathMeter>,
}

/// Sees the early bytes as they come.
#[derive(Clone)]
pub(super) struct EarlyView {
    bytes: watch::Receiver<Vec<u8>>,
}

impl EarlyBytes {
    /// Starts with what came in the same read as the request.
    ///
    /// # Errors
    /// When that is too much already.
    pub(super) fn new(first: Vec<u8>, meter: Arc<PathMeter>) -> Result<Self, NearGone> {
        if first.len() > EARLY_BYTES_MAX {
            return Err(NearGone::TooMuch);
        }
        meter.hold(first.len());
        Ok(Self { bytes: watch::Sender::new(first), meter })
    }

    pub(super) fn view(&self) -> EarlyView {
        EarlyView { bytes: self.bytes.subscribe() }
    }

    /// Reads the near leg until it is of no more use. Cancel-safe: what was read is kept.
    pub(super) async fn watch(&self, leg: &mut Leg) -> NearGone {
        let mut chunk = vec![0; 4096];
        loop {
            let count = match leg.read(&mut chunk).await {
                Ok(0) | Err(_) => return NearGone::Closed,
                Ok(count) => count,
            };
            let mut length = 0;
            self.bytes.send_modify(|bytes| {
                bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
                length = bytes.len();
            });
            self.meter.hold(count);
            if length > EARLY_BYTES_MAX {
                return NearGone::TooMuch;
            }
        }
    }

    /// What came after the first `sent` bytes.
    pub(super) fn rest(&self, sent: usize) -> Vec<u8> {
        self.bytes.borrow().get(sent..).unwrap_or_default().to_vec()
    }
}

impl Drop for EarlyBytes {
    fn drop(&mut self) {
        self.meter.release(self.bytes.borrow().len());
    }
}

impl EarlyView {
    /// What came after the first `sent` bytes.
    pub(super) fn rest(&mut self, sent: usize) -> Vec<u8> {
        self.bytes.borrow_and_update().get(sent..).unwrap_or_default().to_vec()
    }

    /// Waits for more; for ever when no more can come. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.bytes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn sixteen_kibibytes_are_held_and_given_back_and_one_more_is_refused() {
        let meter = Arc::new(PathMeter::default());
        let held = || meter.held.load(Ordering::Relaxed);
        for (count, fits) in [(16 * 1024 - 1, true), (16 * 1024, true), (16 * 1024 + 1, false)] {
            let early = EarlyBytes::new(vec![0; count], Arc::clone(&meter));
            assert_eq!(early.is_ok(), fits, "{count}");
            assert_eq!(held(), if fits { count as u64 } else { 0 });
            drop(early);
            assert_eq!(held(), 0);
        }
    }
}
