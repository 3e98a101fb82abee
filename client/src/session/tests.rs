use std::io;
use std::sync::Arc;
use std::time::Duration;

use rc_proto::session::SessionConfig;
use rc_proto::wire::codes::{Class, Denial, EndCode, Lane, ResetCode};
use rc_proto::wire::frame::Refused;
use rc_proto::wire::{EndpointId, InstanceId, PathId, ServiceName, SessionId};
use rc_transport::EndToEnd;
use rc_transport::testing::TestCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pump::PathStream;
use super::*;
use crate::error::{AttachError, OpenError};
use crate::status::{EndedBy, SessionEnd};
use crate::testing::TokioClock;

pub(super) const MIB: usize = 1024 * 1024;
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// A session that its last path takes with it.
fn setup(instance: u8) -> SessionSetup {
    setup_with_window(instance, Duration::ZERO)
}

pub(super) fn setup_with_window(instance: u8, resume_window: Duration) -> SessionSetup {
    SessionSetup {
        instance: InstanceId([instance; 16]),
        config: SessionConfig { resume_window, ..SessionConfig::default() },
        clock: Arc::new(TokioClock::start()),
        events: crate::event::EventLog::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    }
}

fn facts() -> PathFacts {
    PathFacts { path: Some(PathId([9; 16])), lane: Some(Lane::INTERACTIVE), ..PathFacts::default() }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(super) fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

/// Two ends of one session over an in-memory pipe.
pub(super) struct Pair {
    pub(super) controller: SessionHandle,
    pub(super) target: SessionHandle,
    pub(super) offers: OfferQueue,
    pub(super) setups: [SessionSetup; 2],
}

async fn target_side(
    setup: &SessionSetup,
    mut stream: impl PathStream,
    permits: fn(&ServiceName) -> bool,
    offers_max: usize,
) -> (SessionHandle, OfferQueue) {
    let (attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
    assert_eq!(attach.ticket, "a.b.c");
    admit(setup, id("alice"), &attach, permits, stream, early, facts(), offers_max)
        .map_err(|_| "refused")
        .unwrap()
}

async fn pair_with(pipe_bytes: usize, permits: fn(&ServiceName) -> bool, offers_max: usize) -> Pair {
    let (near, far) = tokio::io::duplex(pipe_bytes);
    pair_between([setup(1), setup(2)], near, far, permits, offers_max).await
}

async fn pair_between(
    setups: [SessionSetup; 2],
    near: impl PathStream,
    far: impl PathStream,
    permits: fn(&ServiceName) -> bool,
    offers_max: usize,
) -> Pair {
    let session = SessionId([7; 16]);
    let (controller, (target, offers)) = tokio::join!(
        attach(&setups[0], session, id("pc-17"), near, facts(), "a.b.c".into(), DEADLINE),
        target_side(&setups[1], far, permits, offers_max),
    );
    Pair { controller: controller.unwrap(), target, offers, setups }
}

/// The same over streams of the caller.
pub(super) async fn pair_over(
    setups: [SessionSetup; 2],
    near: impl PathStream,
    far: impl PathStream,
) -> Pair {
    pair_between(setups, near, far, |_| true, 16).await
}

async fn pair() -> Pair {
    pair_with(64 * 1024, |_| true, 16).await
}

impl Pair {
    /// Opens a channel and accepts it at the other end.
    pub(super) async fn channel(&mut self, service: &str) -> (Channel, Channel) {
        let service = name(service);
        let (near, far) = tokio::join!(self.controller.open(&service, OpenOptions::default()), async {
            self.offers.next().await.unwrap().accept().unwrap()
        });
        (near.unwrap(), far)
    }

    /// Both sides' tasks have ended.
    pub(super) async fn settled(self) {
        let Self { controller, target, offers, setups } = self;
        drop((controller, target, offers));
        for setup in setups {
            setup.tasks.close();
            setup.tasks.wait().await;
        }
    }
}

/// Bytes whose every position is recognisable.
pub(super) fn pattern(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

pub(super) async fn flood(mut channel: Channel, total: usize) -> io::Result<Channel> {
    let mut sent = 0;
    while sent < total {
        let count = (total - sent).min(40_000);
        channel.write_all(&pattern(sent, count)).await?;
        sent += count;
    }
    Ok(channel)
}

pub(super) async fn take(channel: &mut (impl tokio::io::AsyncRead + Unpin), total: usize) {
    take_from(channel, 0, total).await;
}

/// Reads from position `taken` to position `total`, and checks each byte.
pub(super) async fn take_from(
    channel: &mut (impl tokio::io::AsyncRead + Unpin),
    mut taken: usize,
    total: usize,
) {
    let mut buffer = vec![0; 64 * 1024];
    while taken < total {
        let room = buffer.len().min(total - taken);
        let count = channel.read(&mut buffer[..room]).await.unwrap();
        assert!(count > 0, "ended after {taken} bytes");
        assert_eq!(buffer[..count], pattern(taken, count), "at {taken}");
        taken += count;
    }
}

#[tokio::test(start_paused = true)]
async fn an_echo_comes_back_and_the_ends_travel_both_ways() {
    let mut pair = pair().await;
    let (mut near, mut far) = pair.channel("echo").await;
    near.write_all(b"hello").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = String::new();
    far.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    far.write_all(heard.to_uppercase().as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HELLO");
    drop((near, far));
    assert_eq!(pair.controller.close().await, Ok(()));
    let end = pair.target.ended().await;
    assert_eq!((end.code, end.by), (EndCode::DONE, EndedBy::Peer));
    pair.settled().await;
}

#[tokio::test]
async fn both_directions_at_full_speed_do_not_deadlock() {
    let mut pair = pair_with(20_000, |_| true, 16).await;
    let (near, far) = pair.channel("sink").await;
    let total = 24 * MIB;
    let (mut near_read, near_write) = tokio::io::split(near);
    let (mut far_read, far_write) = tokio::io::split(far);
    async fn send(mut half: tokio::io::WriteHalf<Channel>, total: usize) {
        let mut sent = 0;
        while sent < total {
            let count = (total - sent).min(40_000);
            half.write_all(&pattern(sent, count)).await.unwrap();
            sent += count;
        }
        half.shutdown().await.unwrap();
    }
    let writers = [tokio::spawn(send(near_write, total)), tokio::spawn(send(far_write, total))];
    let readers = [
        tokio::spawn(async move { take(&mut near_read, total).await }),
        tokio::spawn(async move { take(&mut far_read, total).await }),
    ];
    for task in writers.into_iter().chain(readers) {
        task.await.unwrap();
    }
    let status = pair.controller.status();
    assert_eq!((status.sent_bytes, status.received_bytes), (total as u64, total as u64));
    pair.controller.close().await.unwrap();
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_reads_does_not_stop_another() {
    let mut pair = pair().await;
    let (stuck, _unread) = pair.channel("stuck").await;
    let (mut near, mut far) = pair.channel("free").await;
    let flooding = tokio::spawn(flood(stuck, 8 * MIB));
    let sending = tokio::spawn(async move {
        near.write_all(&pattern(0, 3 * MIB)).await.unwrap();
        near
    });
    take(&mut far, 3 * MIB).await;
    sending.await.unwrap();
    assert!(!flooding.is_finished());
    flooding.abort();
}

#[tokio::test(start_paused = true)]
async fn dropping_a_channel_that_was_not_shut_down_resets_it() {
    let mut pair = pair().await;
    let (near, mut far) = pair.channel("echo").await;
    drop(near);
    let error = far.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let reset = error.get_ref().unwrap().downcast_ref::<ChannelReset>().unwrap();
    assert_eq!(reset.code, ResetCode::CANCELLED);
    assert_eq!(far.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(far);
    assert_eq!(pair.controller.close().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_channel_dropped_after_its_shutdown_is_still_delivered() {
    let mut pair = pair().await;
    let (mut near, mut far) = pair.channel("upload").await;
    let total = 700_000;
    let reading = tokio::spawn(async move {
        take(&mut far, total).await;
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        far.shutdown().await.unwrap();
    });
    near.write_all(&pattern(0, total)).await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    assert_eq!(pair.controller.close().await, Ok(()));
    reading.await.unwrap();
}

/// Writes until the other end, which does not read, takes no more.
async fn stuff(channel: &mut Channel) -> usize {
    let mut sent = 0;
    while let Ok(count) =
        tokio::time::timeout(Duration::from_millis(200), channel.write(&pattern(sent, 40_000))).await
    {
        sent += count.unwrap();
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_channel_dropped_with_its_input_unread_delivers_its_last_words() {
    for read_late in [false, true] {
        let mut pair = pair().await;
        let (mut near, mut far) = pair.channel("shell").await;
        assert!(stuff(&mut near).await > MIB);
        far.write_all(b"hi\nexit status 3").await.unwrap();
        far.shutdown().await.unwrap();
        drop(far);
        if read_late {
            // The writer goes on until the reset has come.
            let error = loop {
                match near.write(&[0; 40_000]).await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hi\nexit status 3", "read late: {read_late}");
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
        drop(near);
        assert_eq!(pair.controller.close().await, Ok(()));
        pair.settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_reset_is_read_before_its_error() {
    let mut pair = pair().await;
    let (mut near, mut far) = pair.channel("echo").await;
    far.write_all(b"half an ans").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    far.reset(ResetCode::SERVICE_FAILED, "the pty is gone");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut heard = [0; 11];
    near.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"half an ans");
    for _ in 0..2 {
        assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reset_behind_a_wait_for_delivery_takes_no_byte_away() {
    let mut pair = pair_with(4096, |_| true, 16).await;
    let (mut near, mut far) = pair.channel("pipe:x").await;
    let failing = tokio::spawn(async move {
        far.write_all(&pattern(0, MIB)).await.unwrap();
        far.delivered().await;
        far.reset(ResetCode::SERVICE_FAILED, "status 3");
    });
    let mut received = Vec::new();
    let error = near.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(received == pattern(0, MIB), "{} bytes came", received.len());
    failing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_delivery_ends_with_the_channel_or_its_session() {
    let mut pair = pair().await;
    let (near, mut far) = pair.channel("pipe:x").await;
    let (held, mut other) = pair.channel("pipe:y").await;
    for channel in [&mut far, &mut other] {
        channel.write_all(&pattern(0, 1000)).await.unwrap();
    }
    near.reset(ResetCode::CANCELLED, "");
    tokio::time::timeout(DEADLINE, far.delivered()).await.unwrap();
    pair.controller.disconnect(EndCode::DISCONNECTED, "");
    tokio::time::timeout(DEADLINE, other.delivered()).await.unwrap();
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn channels_that_were_reset_unread_make_room_when_they_are_dropped() {
    let mut pair = pair().await;
    for round in 0..200 {
        let opening = tokio::time::timeout(DEADLINE, pair.channel("echo"));
        let Ok((near, mut far)) = opening.await else { panic!("no room in round {round}") };
        far.write_all(b"unread").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        far.reset(ResetCode::CANCELLED, "");
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(near);
        assert!(pair.controller.status().channels.is_empty(), "{round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_takes_no_bytes_is_still_given_up_and_closed() {
    let (mut pair, freeze) = tamperable(Tampering::Freeze).await;
    let (mut near, _far) = pair.channel("upload").await;
    freeze.cancel();
    assert!(stuff(&mut near).await > 64 * 1024);
    let began = tokio::time::Instant::now();
    let end = pair.controller.ended().await;
    assert_eq!(end.code, EndCode::WINDOW_EXPIRED);
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    pair.setups[0].tasks.close();
    let closed = tokio::time::timeout(Duration::from_secs(3), pair.setups[0].tasks.wait()).await;
    assert!(closed.is_ok(), "the path's pump goes on");
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_ends_although_the_path_takes_no_bytes() {
    let (mut pair, freeze) = tamperable(Tampering::Freeze).await;
    let (mut near, _far) = pair.channel("upload").await;
    freeze.cancel();
    assert!(stuff(&mut near).await > 64 * 1024);
    pair.controller.disconnect(EndCode::DISCONNECTED, "stop");
    pair.controller.ended().await;
    pair.setups[0].tasks.close();
    let closed = tokio::time::timeout(Duration::from_secs(3), pair.setups[0].tasks.wait()).await;
    assert!(closed.is_ok(), "the path's pump goes on");
}

#[tokio::test(start_paused = true)]
async fn a_reset_carries_its_code_and_words() {
    let mut pair = pair().await;
    let (mut near, far) = pair.channel("echo").await;
    far.reset(ResetCode::SERVICE_FAILED, "the pty is gone");
    let error = near.read(&mut [0; 8]).await.unwrap_err();
    let reset = error.get_ref().unwrap().downcast_ref::<ChannelReset>().unwrap();
    assert_eq!((reset.code, reset.message.as_str()), (ResetCode::SERVICE_FAILED, "the pty is gone"));
}

#[tokio::test(start_paused = true)]
async fn each_way_to_refuse_an_offer_has_its_error() {
    type Refuse = fn(PendingChannel);
    let cases: [(Refuse, &str); 4] = [
        (|offer| offer.refuse(ResetCode::NO_SUCH_SERVICE, ""), "the target offers no service x"),
        (|offer| offer.refuse(ResetCode::REFUSED, "not now"), "x was refused: not now"),
        (drop, "x was refused"),
        (|offer| offer.refuse(ResetCode::SERVICE_FAILED, "no pty"), "x failed at the target: no pty"),
    ];
    let mut pair = pair().await;
    let service = name("x");
    for (refuse, words) in cases {
        let (opened, ()) = tokio::join!(pair.controller.open(&service, OpenOptions::default()), async {
            refuse(pair.offers.next().await.unwrap());
        });
        assert_eq!(opened.unwrap_err().to_string(), words);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_the_ticket_does_not_permit_is_refused_by_the_library() {
    let mut pair = pair_with(64 * 1024, |service| service.as_str() == "echo", 16).await;
    let error = pair.controller.open(&name("shell"), OpenOptions::default()).await.unwrap_err();
    assert!(matches!(&error, OpenError::NotPermitted { service } if *service == name("shell")), "{error:?}");
    let (_near, _far) = pair.channel("echo").await;
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_open_ends_at_its_deadline_and_is_withdrawn() {
    let mut pair = pair().await;
    let options = OpenOptions::default().deadline(Duration::from_secs(3));
    let service = name("shell");
    let (opened, offer) = tokio::join!(pair.controller.open(&service, options), pair.offers.next());
    assert!(matches!(opened, Err(OpenError::Deadline { .. })), "{opened:?}");
    let offer = offer.unwrap();
    offer.withdrawn().await;
    assert!(!offer.is_wanted());
    assert_eq!(offer.accept().unwrap_err(), Withdrawn { service });
}

#[tokio::test(start_paused = true)]
async fn offers_beyond_the_limit_are_refused_as_too_many() {
    let pair = pair_with(64 * 1024, |_| true, 1).await;
    let controller = pair.controller.clone();
    let first = tokio::spawn(async move { controller.open(&name("a"), OpenOptions::default()).await });
    tokio::task::yield_now().await;
    let error = pair.controller.open(&name("b"), OpenOptions::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::TooMany { .. }), "{error:?}");
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn the_class_of_a_channel_reaches_the_other_side() {
    let mut pair = pair().await;
    let options = OpenOptions::default().class(Class::INPUT);
    let service = name("keys");
    let (opened, offer) = tokio::join!(pair.controller.open(&service, options), async {
        let offer = pair.offers.next().await.unwrap();
        let class = offer.class();
        (class, offer.accept().unwrap())
    });
    assert_eq!((opened.unwrap().class(), offer.0), (Class::INPUT, Class::INPUT));
}

/// What happens to a pipe in the middle of a session.
#[derive(Clone, Copy, PartialEq)]
enum Tampering {
    /// It ends.
    Cut,
    /// It stays open and carries nothing more: what a frozen broker looks like.
    Freeze,
}

/// A session whose pipe the test can tamper with: what both ends write passes through here.
async fn tamperable(tampering: Tampering) -> (Pair, CancellationToken) {
    let setups = [setup(1), setup(2)];
    let (near, mut left) = tokio::io::duplex(64 * 1024);
    let (mut right, far) = tokio::io::duplex(64 * 1024);
    let cut = CancellationToken::new();
    let until = cut.clone();
    tokio::spawn(async move {
        until.run_until_cancelled(tokio::io::copy_bidirectional(&mut left, &mut right)).await;
        if tampering == Tampering::Freeze {
            std::future::pending::<()>().await;
        }
    });
    let (controller, (target, offers)) = tokio::join!(
        attach(&setups[0], SessionId([7; 16]), id("pc-17"), near, facts(), "a.b.c".into(), DEADLINE),
        target_side(&setups[1], far, |_| true, 16),
    );
    (Pair { controller: controller.unwrap(), target, offers, setups }, cut)
}

#[tokio::test(start_paused = true)]
async fn a_session_with_no_window_is_lost_with_its_last_path_on_both_sides() {
    let (mut pair, cut) = tamperable(Tampering::Cut).await;
    let (mut near, mut far) = pair.channel("echo").await;
    far.write_all(b"last words").await.unwrap();
    let mut heard = [0; 10];
    near.read_exact(&mut heard).await.unwrap();
    cut.cancel();
    for handle in [&pair.controller, &pair.target] {
        let end = handle.ended().await;
        assert_eq!((end.code, end.by), (EndCode::WINDOW_EXPIRED, EndedBy::Network));
    }
    let error = near.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    let end = error.get_ref().unwrap().downcast_ref::<SessionEnd>().unwrap();
    assert_eq!(end.code, EndCode::WINDOW_EXPIRED);
    let opened = pair.controller.open(&name("echo"), OpenOptions::default()).await;
    assert!(matches!(opened, Err(OpenError::SessionEnded { .. })), "{opened:?}");
    assert!(pair.offers.next().await.is_none());
    drop((near, far));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_falls_silent_while_it_stays_open_is_given_up() {
    let (mut pair, freeze) = tamperable(Tampering::Freeze).await;
    let (mut near, _far) = pair.channel("echo").await;
    freeze.cancel();
    near.write_all(b"is anybody there").await.unwrap();
    let began = tokio::time::Instant::now();
    let end = pair.controller.ended().await;
    assert_eq!(end.code, EndCode::WINDOW_EXPIRED);
    assert!(end.detail.contains("not heard"), "{end}");
    let waited = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(16)).contains(&waited), "{waited:?}");
}

/// A broker that copies bytes, and flips a bit of the first that flow to the right once `flip` is cancelled.
fn flipping_broker(left: DuplexStream, right: DuplexStream, flip: CancellationToken) {
    let (mut left_read, mut left_write) = tokio::io::split(left);
    let (mut right_read, mut right_write) = tokio::io::split(right);
    tokio::spawn(async move { tokio::io::copy(&mut right_read, &mut left_write).await });
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        let mut flipped = false;
        while let Ok(count @ 1..) = left_read.read(&mut buffer).await {
            if flip.is_cancelled() && !std::mem::replace(&mut flipped, true) {
                buffer[count - 1] ^= 0x10;
            }
            if right_write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test]
async fn a_bit_flipped_by_the_broker_costs_the_path_and_delivers_nothing() {
    let ca = TestCa::new("mesh.test");
    let (alice, pc) = (ca.credentials("controller/alice", &[]), ca.credentials("target/pc-17", &[]));
    let wanted = ca.id("target/pc-17");
    let (near, left) = tokio::io::duplex(64 * 1024);
    let (right, far) = tokio::io::duplex(64 * 1024);
    let flip = CancellationToken::new();
    flipping_broker(left, right, flip.clone());
    let (near, far) = tokio::join!(EndToEnd::client(&alice, near, &wanted), EndToEnd::server(&pc, far));
    let setups = [setup(1), setup(2)];
    let (controller, (target, offers)) = tokio::join!(
        attach(&setups[0], SessionId([7; 16]), id("pc-17"), near.unwrap(), facts(), "a.b.c".into(), DEADLINE),
        target_side(&setups[1], far.unwrap(), |_| true, 16),
    );
    let mut pair = Pair { controller: controller.unwrap(), target, offers, setups };
    let (mut near, mut far) = pair.channel("echo").await;
    near.write_all(b"whole").await.unwrap();
    let mut heard = [0; 16];
    assert_eq!(far.read(&mut heard).await.unwrap(), 5);
    flip.cancel();
    near.write_all(b"altered on the way").await.unwrap();
    let error = far.read(&mut heard).await.unwrap_err();
    let end = error.get_ref().unwrap().downcast_ref::<SessionEnd>().unwrap();
    assert_eq!((end.code, end.by), (EndCode::WINDOW_EXPIRED, EndedBy::Network));
    assert_eq!(pair.target.status().received_bytes, 5);
    assert_eq!(pair.controller.ended().await.code, EndCode::WINDOW_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn a_ping_measures_the_way_to_the_other_endpoint() {
    let (pair, cut) = tamperable(Tampering::Cut).await;
    for _ in 0..3 {
        assert!(pair.controller.ping().await.unwrap() < Duration::from_millis(50));
    }
    let (one, other) = tokio::join!(pair.controller.ping(), pair.target.ping());
    assert!(one.is_ok() && other.is_ok());
    cut.cancel();
    let end = pair.controller.ended().await;
    assert_eq!(pair.controller.ping().await, Err(end));
}

#[tokio::test(start_paused = true)]
async fn whoever_sits_in_front_ends_a_session_at_once() {
    let mut pair = pair().await;
    let (mut near, far) = pair.channel("shell").await;
    pair.target.disconnect(EndCode::DISCONNECTED, "the user said stop");
    let end = pair.controller.ended().await;
    assert_eq!((end.code, end.by), (EndCode::DISCONNECTED, EndedBy::Peer));
    assert!(near.read(&mut [0; 8]).await.is_err());
    drop((near, far));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_and_channel_ends_the_session() {
    let mut pair = pair().await;
    let (mut near, mut far) = pair.channel("echo").await;
    let target = pair.target.clone();
    drop(pair.controller);
    near.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    far.read_exact(&mut heard).await.unwrap();
    drop(near);
    drop(far);
    let end = target.ended().await;
    assert_eq!((end.code, end.by), (EndCode::DONE, EndedBy::Peer));
}

#[tokio::test(start_paused = true)]
async fn a_denied_attach_tells_the_controller_why() {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let setup = setup(1);
    let refusing = async {
        let (attach, _) = read_attach(&mut far, &id("alice"), DEADLINE).await.unwrap();
        let refused = Refused {
            reason: "it has started another session".into(),
            ..Refused::denied(Denial::TICKET_USED, InstanceId([2; 16]))
        };
        assert_eq!(attach.session, SessionId([7; 16]));
        refuse(far, &refused).await;
    };
    let attaching = attach(&setup, SessionId([7; 16]), id("pc-17"), near, facts(), "a.b.c".into(), DEADLINE);
    let (attached, ()) = tokio::join!(attaching, refusing);
    let error = attached.unwrap_err();
    assert!(matches!(&error, AttachError::Denied { denial: Denial::TICKET_USED, .. }), "{error:?}");
    assert!(error.to_string().contains("it has started another session"), "{error}");
    let began = tokio::time::Instant::now();
    setup.tasks.close();
    setup.tasks.wait().await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_answer_is_given_up_at_the_deadline() {
    let (near, _far) = tokio::io::duplex(64 * 1024);
    let setup = setup(1);
    let attached =
        attach(&setup, SessionId([7; 16]), id("pc-17"), near, facts(), "a.b.c".into(), DEADLINE).await;
    assert!(matches!(attached, Err(AttachError::Deadline { .. })), "{attached:?}");
    setup.tasks.close();
    setup.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_carries_garbage_first_is_refused() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        near.write_all(garbage).await.unwrap();
        drop(near);
        let read = read_attach(&mut far, &id("alice"), DEADLINE).await.map_err(AttachError::from);
        assert!(
            matches!(read, Err(AttachError::Protocol { .. } | AttachError::PathEnded { .. })),
            "{read:?}"
        );
    }
    let (_near, mut far) = tokio::io::duplex(64);
    let read = read_attach(&mut far, &id("alice"), DEADLINE).await.map_err(AttachError::from);
    assert!(matches!(read, Err(AttachError::Deadline { .. })), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attach_of_another_version_is_to_be_told_so() {
    let (mut near, mut far) = tokio::io::duplex(64);
    // Type 64 is ATTACH; its version 9 comes later.
    near.write_all(&[0x80, 64, 0, 9, 0, 0, 0, 0]).await.unwrap();
    let read = read_attach(&mut far, &id("alice"), DEADLINE).await;
    assert!(matches!(read, Err(Unread::Version(AttachError::Protocol { .. }))), "{read:?}");
}
