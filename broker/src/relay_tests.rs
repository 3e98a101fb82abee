//! Tests of the pipe over in-memory streams.

use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

struct Pipe {
    near: DuplexStream,
    far: DuplexStream,
    meter: Arc<PathMeter>,
    stop: CancellationToken,
    task: JoinHandle<PipeEnd>,
}

fn pipe(socket_bytes: usize, to_near: &[u8], to_far: &[u8]) -> Pipe {
    let (near, near_leg) = duplex(socket_bytes);
    let (far, far_leg) = duplex(socket_bytes);
    let meter = Arc::new(PathMeter::default());
    let stop = CancellationToken::new();
    let (to_near, to_far) = (to_near.to_vec(), to_far.to_vec());
    let task = tokio::spawn({
        let (meter, stop) = (Arc::clone(&meter), stop.clone());
        async move {
            relay(End { leg: near_leg, first: to_near }, End { leg: far_leg, first: to_far }, &meter, &stop)
                .await
        }
    });
    Pipe { near, far, meter, stop, task }
}

#[tokio::test]
async fn what_is_to_be_written_first_comes_before_the_other_legs_bytes() {
    let mut pipe = pipe(1024, b"opened ", b"hello ");
    pipe.near.write_all(b"world").await.unwrap();
    let mut got = [0; 11];
    pipe.far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello world");
    pipe.far.write_all(b"yes").await.unwrap();
    let mut got = [0; 10];
    pipe.near.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"opened yes");
    assert_eq!(pipe.meter.forward.load(Ordering::Relaxed), 11);
    assert_eq!(pipe.meter.backward.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn both_directions_carry_megabytes_at_once_unchanged() {
    let Pipe { near, far, task, .. } = pipe(8 * 1024, b"", b"");
    let pattern =
        |seed: u8| (0..4_000_000).map(|i: u32| i.to_le_bytes()[0].wrapping_mul(seed)).collect::<Vec<u8>>();
    let talk = |stream: DuplexStream, sent: Vec<u8>, expected: Vec<u8>| async move {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = vec![0; expected.len()];
        let (wrote, read_all) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
        wrote.unwrap();
        read_all.unwrap();
        assert!(got == expected);
        (read, write)
    };
    let (a, b) = tokio::join!(talk(near, pattern(3), pattern(5)), talk(far, pattern(5), pattern(3)));
    drop(a);
    drop(b);
    assert!(matches!(task.await.unwrap(), PipeEnd::Closed(_)));
}

#[tokio::test]
async fn a_reader_that_stops_bounds_what_is_held_and_stalls_the_writer() {
    let socket = 16 * 1024;
    let mut pipe = pipe(socket, b"", b"");
    let mut sent = 0;
    let chunk = vec![7; 4096];
    while let Ok(count) =
        timeout(Duration::from_millis(200), pipe.near.write(&chunk)).await.map(Result::unwrap)
    {
        sent += count;
        assert!(sent < 1024 * 1024, "nothing stopped the writer");
    }
    assert!(sent <= 2 * socket + KEPT_BYTES_MAX, "{sent} bytes were taken");
    let mut got = vec![0; sent];
    pipe.far.read_exact(&mut got).await.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_clean_end_ends_the_other_leg_after_everything_was_delivered() {
    let mut pipe = pipe(64, b"", b"");
    let bytes = vec![9; 10_000];
    let writer = async {
        pipe.near.write_all(&bytes).await.unwrap();
        pipe.near.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(writer, pipe.far.read_to_end(&mut got));
    read.unwrap();
    assert_eq!(got.len(), 10_000);
    drop(pipe.far);
    assert_eq!(pipe.task.await.unwrap(), PipeEnd::Closed(Side::Near));
}

#[tokio::test]
async fn a_stopped_path_ends_both_legs() {
    let mut pipe = pipe(64, b"", b"");
    pipe.stop.cancel();
    let mut nothing = Vec::new();
    pipe.near.read_to_end(&mut nothing).await.unwrap();
    pipe.far.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty());
    drop((pipe.near, pipe.far));
    assert_eq!(pipe.task.await.unwrap(), PipeEnd::Stopped);
}

/// A leg that gives some bytes and then breaks, and refuses writing.
struct Breaking {
    bytes: Vec<u8>,
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl RelayLeg for Breaking {
    fn poll_break_off(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A duplex cannot end as an error; the byte in front of its end stands for it.
const BROKEN_OFF: u8 = 0xee;

impl RelayLeg for DuplexStream {
    fn poll_break_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self).poll_write(cx, &[BROKEN_OFF]))?;
        Pin::new(self).poll_shutdown(cx)
    }
}

/// A leg whose clean end takes its time, as that of a peer that reads slowly.
struct Slow {
    inner: DuplexStream,
    until: Pin<Box<tokio::time::Sleep>>,
    ended: Arc<std::sync::atomic::AtomicBool>,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, b)
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.until.as_mut().poll(cx));
        self.ended.store(true, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl RelayLeg for Slow {
    fn poll_break_off(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_waits_for_a_slow_reader_up_to_a_minute() {
    for (seconds, arrives) in [(30, true), (70, false)] {
        let (near, near_leg) = duplex(64);
        let (_far, far_leg) = duplex(64);
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let until = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
        let slow = Slow { inner: far_leg, until, ended: Arc::clone(&ended) };
        drop(near);
        let near = End { leg: near_leg, first: Vec::new() };
        let far = End { leg: slow, first: Vec::new() };
        let end = relay(near, far, &PathMeter::default(), &CancellationToken::new()).await;
        assert_eq!((end, ended.load(Ordering::Relaxed)), (PipeEnd::Closed(Side::Near), arrives), "{seconds}");
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_leg_sent_before_it_broke_is_delivered() {
    for first in [&b""[..], b"to the broken leg"] {
        let (mut far, far_leg) = duplex(100);
        let broken = Breaking { bytes: vec![5; 10_000] };
        let meter = PathMeter::default();
        let stop = CancellationToken::new();
        let mut got = Vec::new();
        let (end, read) = tokio::join!(
            relay(
                End { leg: broken, first: first.to_vec() },
                End { leg: far_leg, first: Vec::new() },
                &meter,
                &stop
            ),
            far.read_to_end(&mut got),
        );
        read.unwrap();
        assert_eq!(got.pop(), Some(BROKEN_OFF));
        assert_eq!(got, vec![5; 10_000]);
        assert_eq!(end, PipeEnd::Broke(Side::Near));
    }
}
