//! The pipe between two legs: bytes are copied and counted, never read.
//!
//! Each direction reads into a scratch buffer of its thread and writes at once; it keeps only what the far side
//! refused, and reads no more until that is gone. So a stopped reader holds at most [`KEPT_BYTES_MAX`] here and stalls
//! its own path alone, and an idle path holds no buffer. The end of one leg ends the path: a clean end is passed on
//! as a clean end, an error end as an error end, after what was read before it.
//!
//! ```text
//! Piping --clean end--> flush, close_notify, discard what still comes
//!    |-----error end--> deliver what was read, FIN without close_notify, discard what still comes
//!    |-----stopped----> close_notify both ways
//! ```

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rc_transport::{Leg, PathIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes that one direction reads at once, and so the most that it keeps for a leg that takes no more.
pub const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that one direction moves before others get their turn.
const TURN_BYTES_MAX: usize = 128 * 1024;
/// Time in which what was read is still delivered after the other leg broke, and a closed leg is read empty.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time in which a leg takes what was written to it before its clean end: a live peer may be slow, but not for ever.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// Bytes that are discarded from a leg that was closed towards its peer.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; KEPT_BYTES_MAX].into_boxed_slice());
}

/// Bytes that a path has carried.
#[derive(Debug, Default)]
pub struct PathMeter {
    /// From the Controller's side.
    pub forward: AtomicU64,
    /// From the Target's side.
    pub backward: AtomicU64,
    /// Bytes that are held here because the next leg does not take them yet.
    pub held: AtomicU64,
}

impl PathMeter {
    /// So many more bytes are held.
    pub fn hold(&self, count: usize) {
        add(&self.held, count);
    }

    /// So many bytes are held no more.
    pub fn release(&self, count: usize) {
        self.held.fetch_sub(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }

    /// Both directions together.
    pub fn total(&self) -> u64 {
        self.forward.load(Ordering::Relaxed).wrapping_add(self.backward.load(Ordering::Relaxed))
    }
}

/// Which leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Towards the Controller.
    Near,
    /// Towards the Target.
    Far,
}

/// Why a pipe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeEnd {
    /// This leg was closed by its peer.
    Closed(Side),
    /// This leg broke.
    Broke(Side),
    /// The broker ended it.
    Stopped,
}

/// A stream that can be one leg of a pipe.
pub trait RelayLeg: AsyncRead + AsyncWrite + Unpin {
    /// Ends the writing as an error end: what was written goes out, and the peer learns that more is missing.
    fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl RelayLeg for Leg {
    fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_break_off(self, cx)
    }
}

impl RelayLeg for PathIo<Leg> {
    fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_break_off(self, cx)
    }
}

/// One leg, and what is to be written to it first.
#[derive(Debug)]
pub struct End<S> {
    /// The leg.
    pub leg: S,
    /// Written before anything from the other leg.
    pub first: Vec<u8>,
}

/// One direction.
struct Direction<'m> {
    kept: Vec<u8>,
    written: usize,
    needs_flush: bool,
    meter: &'m PathMeter,
    carried: &'m AtomicU64,
}

impl<'m> Direction<'m> {
    fn new(first: Vec<u8>, meter: &'m PathMeter, carried: &'m AtomicU64) -> Self {
        meter.hold(first.len());
        Self { kept: first, written: 0, needs_flush: false, meter, carried }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.meter.release(self.kept.len());
        self.meter.hold(rest.len());
        self.kept = rest.to_vec();
        self.written = 0;
    }

    fn keep_nothing(&mut self) {
        self.meter.release(self.kept.len());
        self.kept = Vec::new();
        self.written = 0;
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        self.meter.release(self.kept.len());
    }
}

enum Halt {
    SourceClosed,
    SourceBroke,
    SinkBroke,
}

/// Copies between two legs until one ends or `stop` is cancelled.
pub async fn relay<A, B>(
    mut near: End<A>,
    mut far: End<B>,
    meter: &PathMeter,
    stop: &CancellationToken,
) -> PipeEnd
where
    A: RelayLeg,
    B: RelayLeg,
{
    let mut forward = Direction::new(std::mem::take(&mut far.first), meter, &meter.forward);
    let mut backward = Direction::new(std::mem::take(&mut near.first), meter, &meter.backward);
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => PipeEnd::Stopped,
        end = std::future::poll_fn(|cx| {
            poll_both(cx, &mut near.leg, &mut far.leg, &mut forward, &mut backward)
        }) => end,
    };
    match end {
        PipeEnd::Stopped => {
            tokio::join!(close(near.leg), close(far.leg));
        }
        PipeEnd::Closed(Side::Near) => {
            tokio::join!(close(near.leg), finish(far.leg));
        }
        PipeEnd::Closed(Side::Far) => {
            tokio::join!(close(far.leg), finish(near.leg));
        }
        PipeEnd::Broke(Side::Near) => {
            return last_words(near.leg, far.leg, forward, Side::Near).await;
        }
        PipeEnd::Broke(Side::Far) => {
            return last_words(far.leg, near.leg, backward, Side::Far).await;
        }
    }
    end
}

fn poll_both<A, B>(
    cx: &mut Context<'_>,
    near: &mut A,
    far: &mut B,
    forward: &mut Direction<'_>,
    backward: &mut Direction<'_>,
) -> Poll<PipeEnd>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    match poll_direction(cx, near, far, forward) {
        Poll::Ready(Halt::SourceClosed) => return Poll::Ready(PipeEnd::Closed(Side::Near)),
        Poll::Ready(Halt::SourceBroke) => return Poll::Ready(PipeEnd::Broke(Side::Near)),
        Poll::Ready(Halt::SinkBroke) => return Poll::Ready(PipeEnd::Broke(Side::Far)),
        Poll::Pending => {}
    }
    match poll_direction(cx, far, near, backward) {
        Poll::Ready(Halt::SourceClosed) => Poll::Ready(PipeEnd::Closed(Side::Far)),
        Poll::Ready(Halt::SourceBroke) => Poll::Ready(PipeEnd::Broke(Side::Far)),
        Poll::Ready(Halt::SinkBroke) => Poll::Ready(PipeEnd::Broke(Side::Near)),
        Poll::Pending => Poll::Pending,
    }
}

/// Moves bytes one way until there is nothing to read, nothing can be written, or the turn is over.
fn poll_direction<A, B>(
    cx: &mut Context<'_>,
    source: &mut A,
    sink: &mut B,
    direction: &mut Direction<'_>,
) -> Poll<Halt>
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
{
    let mut turn = 0_usize;
    loop {
        if ready!(poll_kept(cx, sink, direction)).is_err() {
            return Poll::Ready(Halt::SinkBroke);
        }
        if turn >= TURN_BYTES_MAX {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let moved = SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => poll_move(cx, source, sink, direction, &mut scratch),
            // A leg that runs another pipe inside its own read is none of ours; it just costs a buffer.
            Err(_) => poll_move(cx, source, sink, direction, &mut vec![0; KEPT_BYTES_MAX]),
        });
        match moved {
            Poll::Ready(Ok(count)) => turn += count,
            Poll::Ready(Err(halt)) => return Poll::Ready(halt),
            Poll::Pending => {
                if direction.needs_flush {
                    match Pin::new(sink).poll_flush(cx) {
                        Poll::Ready(Ok(())) => direction.needs_flush = false,
                        Poll::Ready(Err(_)) => return Poll::Ready(Halt::SinkBroke),
                        Poll::Pending => {}
                    }
                }
                return Poll::Pending;
            }
        }
    }
}

/// Writes what was kept; done when nothing is left.
fn poll_kept<B: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    sink: &mut B,
    direction: &mut Direction<'_>,
) -> Poll<io::Result<()>> {
    while let Some(rest) = direction.kept.get(direction.written..).filter(|rest| !rest.is_empty()) {
        let count = ready!(Pin::new(&mut *sink).poll_write(cx, rest))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        direction.written += count;
        direction.needs_flush = true;
        add(direction.carried, count);
    }
    if direction.kept.capacity() > 0 {
        direction.keep_nothing();
    }
    Poll::Ready(Ok(()))
}

/// Reads once and writes it at once; what is refused is kept.
fn poll_move<A, B>(
    cx: &mut Context<'_>,
    source: &mut A,
    sink: &mut B,
    direction: &mut Direction<'_>,
    scratch: &mut [u8],
) -> Poll<Result<usize, Halt>>
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
{
    let mut buffer = ReadBuf::new(scratch);
    let read = match ready!(Pin::new(source).poll_read(cx, &mut buffer)) {
        Ok(()) => buffer.filled(),
        Err(_) => return Poll::Ready(Err(Halt::SourceBroke)),
    };
    if read.is_empty() {
        return Poll::Ready(Err(Halt::SourceClosed));
    }
    let mut rest = read;
    while !rest.is_empty() {
        match Pin::new(&mut *sink).poll_write(cx, rest) {
            Poll::Ready(Ok(count)) if count > 0 => {
                direction.needs_flush = true;
                add(direction.carried, count);
                rest = rest.get(count..).unwrap_or_default();
            }
            Poll::Ready(Ok(_) | Err(_)) => {
                direction.keep(rest);
                return Poll::Ready(Err(Halt::SinkBroke));
            }
            Poll::Pending => {
                direction.keep(rest);
                break;
            }
        }
    }
    Poll::Ready(Ok(read.len()))
}

fn add(carried: &AtomicU64, count: usize) {
    carried.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
}

/// One leg broke: what it sent before is still read and delivered, up to the limits. When it turns out that the peer
/// closed it in order, and only our writing came too late, that is a clean end.
async fn last_words<A, B>(mut broken: A, mut other: B, mut direction: Direction<'_>, side: Side) -> PipeEnd
where
    A: RelayLeg,
    B: RelayLeg,
{
    let mut budget = KEPT_BYTES_MAX;
    let deliver = async {
        loop {
            std::future::poll_fn(|cx| poll_kept(cx, &mut other, &mut direction)).await?;
            other.flush().await?;
            if budget == 0 {
                return Ok(false);
            }
            let mut chunk = vec![0; budget.min(16 * 1024)];
            match broken.read(&mut chunk).await {
                Ok(0) => return Ok::<bool, io::Error>(true),
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    direction.keep(chunk.get(..count).unwrap_or_default());
                }
                Err(_) => return Ok(false),
            }
        }
    };
    match timeout(LAST_WORDS, deliver).await {
        Ok(Ok(true)) => {
            drop(broken);
            finish(other).await;
            PipeEnd::Closed(side)
        }
        Ok(Ok(false)) => {
            drop(broken);
            break_off(other).await;
            PipeEnd::Broke(side)
        }
        Ok(Err(_)) | Err(_) => PipeEnd::Broke(side),
    }
}

/// Ends a leg as an error end. What it still sends is read, since a socket that is closed over unread bytes sends a
/// reset, and a reset destroys what was delivered last.
async fn break_off<S: RelayLeg>(mut leg: S) {
    let over = async {
        std::future::poll_fn(|cx| leg.poll_break_off(cx)).await?;
        discard(&mut leg).await
    };
    // The leg is over either way.
    drop(timeout(LAST_WORDS, over).await);
}

/// Ends a leg in order after everything that was written to it has gone out, however slowly its peer reads.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut leg: S) {
    if let Ok(Ok(())) = timeout(FLUSH_MAX, leg.shutdown()).await {
        drop(timeout(LAST_WORDS, discard(&mut leg)).await);
    }
}

/// Ends a leg in order: `close_notify` and FIN, then what still comes is read and discarded, so that no reset overtakes
/// what was written.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut leg: S) {
    let over = async {
        leg.shutdown().await?;
        discard(&mut leg).await
    };
    // The leg is over either way.
    drop(timeout(LAST_WORDS, over).await);
}

async fn discard<S: AsyncRead + Unpin>(leg: &mut S) -> io::Result<()> {
    let mut chunk = vec![0; 4096];
    let mut left = DISCARD_BYTES_MAX;
    while left > 0 {
        let count = leg.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
