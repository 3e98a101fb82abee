//! Envelopes in pieces, too large, cut off, forbidden and cancelled.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::message::{JoinPath, Message, PathFailed, PathOpened, Ping, Pong};
use rc_proto::wire::{
    Alpn, Envelope, EnvelopeError, EnvelopeHeader, Ext, Incarnation, JoinSecret, MessageKind, PathId, Role,
    limits,
};
use rc_transport::{Exchange, FramingError, MessageStream, PathRefused};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

fn ping(nonce: u64) -> Message {
    Ping { nonce, ext: Ext::default() }.into()
}

/// A broker's end that reads from a Target, and the raw other end.
fn broker(capacity: usize) -> (MessageStream<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(capacity);
    (MessageStream::new(ours, Role::Target, Alpn::Control), theirs)
}

fn envelope(kind: u16, critical: bool, length: usize) -> Vec<u8> {
    Envelope { kind, critical, version: 1, body: vec![0; length] }.to_bytes()
}

#[tokio::test]
async fn messages_arrive_in_order_whatever_the_pieces() {
    let bytes: Vec<u8> = (0..40).flat_map(|nonce| ping(nonce).to_bytes().unwrap()).collect();
    for piece in [1, 3, 7, 8, 9, 100, bytes.len()] {
        let (mut stream, mut raw) = broker(piece);
        let sent = bytes.clone();
        let write = tokio::spawn(async move {
            raw.write_all(&sent).await.unwrap();
        });
        for nonce in 0..40 {
            assert_eq!(stream.recv().await.unwrap(), Some(ping(nonce)), "pieces of {piece}");
        }
        write.await.unwrap();
        assert!(matches!(stream.recv().await, Ok(None)));
    }
}

#[tokio::test]
async fn receiving_can_be_cancelled_at_every_byte() {
    let (mut stream, mut raw) = broker(4096);
    for nonce in 0..5 {
        for byte in ping(nonce).to_bytes().unwrap() {
            // A poll that is dropped after it took in what was there.
            let cancelled = tokio::time::timeout(Duration::ZERO, stream.recv()).await;
            assert!(cancelled.is_err(), "{cancelled:?}");
            raw.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(stream.recv().await.unwrap(), Some(ping(nonce)));
    }
}

#[tokio::test]
async fn a_cancelled_send_goes_out_whole_before_the_next() {
    let (ours, theirs) = duplex(5);
    let mut sender = MessageStream::new(ours, Role::Broker, Alpn::Control);
    assert!(tokio::time::timeout(Duration::ZERO, sender.send(&ping(1))).await.is_err());
    let mut receiver = MessageStream::new(theirs, Role::Target, Alpn::Control);
    let second = ping(2);
    let (sent, first) = tokio::join!(sender.send(&second), async {
        [receiver.recv().await.unwrap(), receiver.recv().await.unwrap()]
    });
    sent.unwrap();
    assert_eq!(first, [Some(ping(1)), Some(ping(2))]);
}

#[tokio::test]
async fn two_sides_that_both_have_much_to_say_do_not_block_each_other() {
    const COUNT: u64 = 5_000;
    let (one, other) = duplex(256);
    let talk = |io: DuplexStream| async move {
        let mut stream = MessageStream::new(io, Role::Broker, Alpn::Mesh);
        stream.accepted();
        for nonce in 0..COUNT {
            stream.enqueue(&ping(nonce)).unwrap();
        }
        let mut next = 0;
        while next < COUNT || !stream.is_all_sent() {
            match stream.exchange().await.unwrap() {
                Exchange::Sent => assert_eq!(stream.unsent_bytes(), 0),
                Exchange::Received(message) => {
                    assert_eq!(message.as_deref(), Some(&ping(next)));
                    next += 1;
                }
            }
        }
        stream
    };
    let both = async { tokio::join!(talk(one), talk(other)) };
    assert!(tokio::time::timeout(Duration::from_secs(10), both).await.is_ok(), "both wait for the other");
}

#[tokio::test]
async fn an_end_inside_an_envelope_is_truncation_at_each_length() {
    let bytes = ping(7).to_bytes().unwrap();
    for length in 1..bytes.len() {
        let (mut stream, mut raw) = broker(4096);
        raw.write_all(&bytes[..length]).await.unwrap();
        drop(raw);
        let error = stream.recv().await.unwrap_err();
        assert!(matches!(error, FramingError::Truncated { have } if have == length), "{length}: {error:?}");
        assert!(!error.is_misbehaviour());
    }
}

#[tokio::test]
async fn a_body_is_bounded_at_4_kib_before_acceptance_and_64_kib_after() {
    for (is_accepted, limit) in
        [(false, limits::ENVELOPE_BODY_BYTES_BEFORE_HELLO_MAX), (true, limits::ENVELOPE_BODY_BYTES_MAX)]
    {
        for (length, refused) in [(limit - 1, false), (limit, false), (limit + 1, true)] {
            let (mut stream, mut raw) = broker(128 * 1024);
            if is_accepted {
                stream.accepted();
            }
            // A type that nobody knows and that may be skipped, then a message.
            raw.write_all(&envelope(999, false, length)).await.unwrap();
            raw.write_all(&ping(3).to_bytes().unwrap()).await.unwrap();
            match stream.recv().await {
                Ok(message) => assert_eq!((message, refused), (Some(ping(3)), false), "{length}"),
                Err(error) => {
                    let expected = EnvelopeError::TooLarge { length, limit };
                    assert!(
                        matches!(&error, FramingError::Envelope(found) if *found == expected),
                        "{error:?}"
                    );
                    assert!(refused && error.is_misbehaviour());
                }
            }
        }
    }
}

#[tokio::test]
async fn an_oversize_body_is_refused_by_its_header_alone() {
    let (mut stream, mut raw) = broker(4096);
    let header = EnvelopeHeader { kind: 3, critical: true, version: 1, length: u32::MAX };
    raw.write_all(&header.to_bytes()).await.unwrap();
    assert!(matches!(stream.recv().await, Err(FramingError::Envelope(_))));
}

#[tokio::test]
async fn skipped_messages_use_up_the_budget_before_acceptance() {
    // Three envelopes, the last of which uses the budget up to one byte less, to the byte, or one byte more.
    let rest = limits::PRE_AUTH_BYTES_MAX - 3 * EnvelopeHeader::BYTES - 4000 - 4000;
    for (length, refused) in [(rest - 1, false), (rest, false), (rest + 1, true)] {
        let (mut stream, mut raw) = broker(64 * 1024);
        for length in [4000, 4000, length] {
            raw.write_all(&envelope(999, false, length)).await.unwrap();
        }
        drop(raw);
        let result = stream.recv().await;
        assert_eq!(matches!(result, Err(FramingError::Budget { limit: 8192 })), refused, "{result:?}");
        assert_eq!(matches!(result, Ok(None)), !refused, "{result:?}");
    }
}

#[tokio::test]
async fn garbage_is_an_error_and_never_a_message() {
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &envelope(3, true, 0), &envelope(3, true, 64)]
    {
        let (mut stream, mut raw) = broker(4096);
        raw.write_all(garbage).await.unwrap();
        drop(raw);
        assert!(stream.recv().await.is_err(), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_role_may_send_what_the_table_says_and_nothing_else() {
    for (role, alpn, message, allowed) in [
        (Role::Target, Alpn::Control, ping(1), true),
        (Role::TrafficManager, Alpn::Control, ping(1), true),
        (Role::RcServer, Alpn::Control, ping(1), false),
        (Role::Target, Alpn::Path, ping(1), false),
        (Role::Target, Alpn::Path, join(), true),
        (Role::Controller, Alpn::Path, join(), false),
        (Role::Target, Alpn::Control, pong(), false),
        (Role::Broker, Alpn::Control, pong(), true),
    ] {
        let (ours, mut raw) = duplex(4096);
        let mut stream = MessageStream::new(ours, role, alpn);
        raw.write_all(&message.to_bytes().unwrap()).await.unwrap();
        match stream.recv().await {
            Ok(received) => assert_eq!((received, allowed), (Some(message), true)),
            Err(FramingError::NotAllowed { role: who, alpn: on, kind }) => {
                assert_eq!((who, on, kind, allowed), (role, alpn, message.kind(), false));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn join() -> Message {
    JoinPath { path_id: PathId([1; 16]), join_secret: JoinSecret([2; 16]), ext: Ext::default() }.into()
}

fn pong() -> Message {
    Pong {
        nonce: 1,
        broker: "in/b-1".parse().unwrap(),
        incarnation: Incarnation(1),
        load: 0,
        paths: 0,
        accepting: true,
        drain_deadline_ms: None,
        mesh_healthy: true,
        ext: Ext::default(),
    }
    .into()
}

fn opened() -> PathOpened {
    PathOpened { path_id: PathId([1; 16]), hops: vec![("in/b-1".parse().unwrap(), 0)], ext: Ext::default() }
}

fn refusal(code: PathFailure) -> PathFailed {
    PathFailed {
        path_id: PathId([1; 16]),
        code,
        retry_after_ms: 0,
        alternates: Vec::new(),
        ext: Ext::default(),
    }
}

#[tokio::test]
async fn raw_bytes_of_the_same_read_are_not_lost_behind_a_message() {
    let (ours, mut raw) = duplex(4096);
    let mut stream = MessageStream::new(ours, Role::Target, Alpn::Path);
    let mut bytes = join().to_bytes().unwrap();
    bytes.extend_from_slice(b"raw bytes");
    raw.write_all(&bytes).await.unwrap();
    assert_eq!(stream.recv().await.unwrap().map(|message| message.kind()), Some(MessageKind::JoinPath));
    let (mut io, rest) = stream.into_inner();
    assert_eq!(rest, b"raw bytes");
    raw.write_all(b" and more").await.unwrap();
    drop(raw);
    let mut more = Vec::new();
    io.read_to_end(&mut more).await.unwrap();
    assert_eq!(more, b" and more");
}

#[tokio::test]
async fn a_path_writes_at_once_and_reads_what_follows_the_answer() {
    let (ours, mut raw) = duplex(4096);
    let mut stream = MessageStream::new(ours, Role::Broker, Alpn::Path);
    let request = join();
    stream.send(&request).await.unwrap();
    let mut path = stream.into_path();
    assert_eq!(path.opened(), None);
    path.write_all(b"early").await.unwrap();
    let mut seen = vec![0; request.to_bytes().unwrap().len() + 5];
    raw.read_exact(&mut seen).await.unwrap();
    assert!(seen.ends_with(b"early"));
    let mut answer = Message::from(opened()).to_bytes().unwrap();
    answer.extend_from_slice(b"hello");
    raw.write_all(&answer).await.unwrap();
    drop(raw);
    assert_eq!(path.wait_opened().await.unwrap(), &opened());
    let mut text = String::new();
    path.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn a_refused_path_says_why_on_every_read() {
    let (ours, mut raw) = duplex(4096);
    let stream = MessageStream::new(ours, Role::Broker, Alpn::Path);
    let failed = refusal(PathFailure::NOT_FOUND);
    let mut path = stream.into_path();
    raw.write_all(&Message::from(failed.clone()).to_bytes().unwrap()).await.unwrap();
    for _ in 0..2 {
        let error = path.read_u8().await.unwrap_err();
        assert_eq!(PathRefused::of(&error), Some(&PathRefused(failed.clone())));
    }
}

/// A stream whose write side is gone.
struct Broken;

impl AsyncWrite for Broken {
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
async fn a_write_that_fails_hears_the_refusal_that_lies_behind_it() {
    let failed = refusal(PathFailure::BUSY);
    let answer = Message::from(failed.clone()).to_bytes().unwrap();
    let io = tokio::io::join(&answer[..], Broken);
    let mut path = MessageStream::new(io, Role::Broker, Alpn::Path).into_path();
    let error = path.write_all(b"early").await.unwrap_err();
    assert_eq!(PathRefused::of(&error), Some(&PathRefused(failed)));
    let io = tokio::io::join(&b""[..], Broken);
    let mut path = MessageStream::new(io, Role::Broker, Alpn::Path).into_path();
    assert_eq!(path.write_all(b"early").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
