//! Sessions of several paths over in-memory streams: paths die, freeze, stand by and are handed over under load.

use std::sync::Arc;
use std::time::Duration;

use rc_proto::wire::codes::{EndCode, Lane, Purpose, Refusal};
use rc_proto::wire::frame::Attach;
use rc_proto::wire::{Epoch, PathId};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::paths::Attaching;
use super::state::{AttachAnswer, PathFacts};
use super::tests::{DEADLINE, MIB, Pair, flood, id, pair_over, setup_with_window, take};
use super::*;
use crate::status::EndedBy;

const WINDOW: Duration = Duration::from_secs(120);

/// A path through a broker that the test can end or freeze.
struct Line {
    near: Option<DuplexStream>,
    far: Option<DuplexStream>,
    cut: CancellationToken,
    freeze: CancellationToken,
}

fn line() -> Line {
    let (near, mut left) = tokio::io::duplex(64 * 1024);
    let (mut right, far) = tokio::io::duplex(64 * 1024);
    let (cut, freeze) = (CancellationToken::new(), CancellationToken::new());
    let (until, frozen) = (cut.clone(), freeze.clone());
    tokio::spawn(async move {
        let carried = frozen.run_until_cancelled(
            until.run_until_cancelled(tokio::io::copy_bidirectional(&mut left, &mut right)),
        );
        if carried.await.is_none() {
            until.cancelled().await;
        }
    });
    Line { near: Some(near), far: Some(far), cut, freeze }
}

fn facts(number: u8) -> PathFacts {
    PathFacts { path: Some(PathId([number; 16])), lane: Some(Lane::INTERACTIVE), ..PathFacts::default() }
}

async fn started() -> (Pair, Line) {
    let mut first = line();
    // The Target announces 30 s more than the Controller keeps.
    let setups = [setup_with_window(1, WINDOW), setup_with_window(2, WINDOW + Duration::from_secs(30))];
    let pair = pair_over(setups, first.near.take().unwrap(), first.far.take().unwrap()).await;
    (pair, first)
}

/// What the Target read on a further path, and took.
async fn accepted(pair: &Pair, stream: DuplexStream, number: u8) -> Result<(Epoch, Attach), Refusal> {
    let mut stream = stream;
    let (attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
    match pair.target.accept_path(stream, &attach, |_| true, early, facts(number)) {
        Ok(epoch) => Ok((epoch, attach)),
        Err((stream, refused)) => {
            refuse(stream, &refused).await;
            Err(refused.code)
        }
    }
}

/// Attaches a further path as `purpose` says, and waits for the answer.
async fn further(pair: &Pair, purpose: Purpose, number: u8) -> (Line, Attaching) {
    let mut line = line();
    let core = pair.controller.shared_core();
    let mut attaching =
        core.attach_path(line.near.take().unwrap(), facts(number), purpose, "d.e.f".into(), None).unwrap();
    let (answer, taken) =
        tokio::join!(&mut attaching.answer, accepted(pair, line.far.take().unwrap(), number));
    assert!(matches!(answer.unwrap(), AttachAnswer::Attached));
    assert_eq!(taken.unwrap().0, attaching.epoch);
    (line, attaching)
}

/// Epochs of the paths that `handle` sees.
fn epochs(handle: &SessionHandle) -> Vec<u64> {
    handle.status().paths.iter().map(|path| path.epoch.0).collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it never became true");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_path_is_cut_goes_on_over_the_next_byte_exact() {
    let (mut pair, first) = started().await;
    let (near, mut far) = pair.channel("upload").await;
    let total = 12 * MIB;
    let sending = tokio::spawn(flood(near, total));
    take(&mut far, 2 * MIB).await;
    first.cut.cancel();
    until(|| epochs(&pair.controller).is_empty() && epochs(&pair.target).is_empty()).await;
    assert!(!pair.controller.is_over() && !pair.target.is_over());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (_second, attaching) = further(&pair, Purpose::RESUME, 2).await;
    assert_eq!(attaching.epoch, Epoch(2));
    super::tests::take_from(&mut far, 2 * MIB, total).await;
    let mut near = sending.await.unwrap().unwrap();
    near.shutdown().await.unwrap();
    far.shutdown().await.unwrap();
    drop((near, far));
    assert_eq!(pair.controller.close().await, Ok(()));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_path_is_overtaken_and_closes_alone() {
    let (mut pair, first) = started().await;
    let (near, mut far) = pair.channel("upload").await;
    let total = 8 * MIB;
    let sending = tokio::spawn(flood(near, total));
    take(&mut far, MIB).await;
    first.freeze.cancel();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(epochs(&pair.controller), [1], "suspect, and not given up");
    let (_second, _) = further(&pair, Purpose::RESUME, 2).await;
    super::tests::take_from(&mut far, MIB, total).await;
    until(|| epochs(&pair.controller) == [2] && epochs(&pair.target) == [2]).await;
    assert!(sending.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_handover_under_load_loses_nothing_and_retires_the_old_path() {
    let (mut pair, _first) = started().await;
    let (near, mut far) = pair.channel("upload").await;
    let total = 16 * MIB;
    let sending = tokio::spawn(flood(near, total));
    let mut taken = MIB;
    take(&mut far, taken).await;
    let mut lines = Vec::new();
    for number in 2..8 {
        let (line, _) = further(&pair, Purpose::HANDOVER, number).await;
        lines.push(line);
        super::tests::take_from(&mut far, taken, taken + MIB).await;
        taken += MIB;
        let expected = [u64::from(number)];
        until(|| epochs(&pair.controller) == expected && epochs(&pair.target) == expected).await;
    }
    super::tests::take_from(&mut far, taken, total).await;
    assert!(sending.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_further_path_the_session_ends_with_its_window_the_targets_last() {
    let (pair, first) = started().await;
    let began = tokio::time::Instant::now();
    first.cut.cancel();
    let end = pair.controller.ended().await;
    assert_eq!((end.code, end.by), (EndCode::WINDOW_EXPIRED, EndedBy::Network));
    assert_eq!(began.elapsed().as_secs(), WINDOW.as_secs());
    let end = pair.target.ended().await;
    assert_eq!((end.code, end.by), (EndCode::WINDOW_EXPIRED, EndedBy::Network));
    assert_eq!(began.elapsed().as_secs(), WINDOW.as_secs() + 30);
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_costs_nothing() {
    let setups = [setup_with_window(1, WINDOW), setup_with_window(2, WINDOW + Duration::from_secs(30))];
    let beginning = Beginning::new(&setups[0], rc_proto::wire::SessionId([7; 16]), id("pc-17"));
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let ticket = || "a.b.c".to_owned();
    let (lost, (target, offers)) =
        tokio::join!(beginning.attach(near, facts(1), ticket(), DEADLINE), async {
            let (attach, early) = read_attach(&mut far, &id("alice"), DEADLINE).await.unwrap();
            // ATTACHED goes into a pipe that nobody reads.
            let (broken, _) = tokio::io::duplex(64 * 1024);
            admit(&setups[1], id("alice"), &attach, |_| true, broken, early, facts(1), 4).ok().unwrap()
        });
    drop(far);
    assert!(
        matches!(
            lost,
            Err(crate::error::AttachError::Deadline { .. } | crate::error::AttachError::PathEnded { .. })
        ),
        "{lost:?}"
    );
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (again, taken) = tokio::join!(beginning.attach(near, facts(2), ticket(), DEADLINE), async {
        let mut far = far;
        let (attach, early) = read_attach(&mut far, &id("alice"), DEADLINE).await.unwrap();
        assert_eq!(attach.epoch, Epoch(2));
        target.accept_path(far, &attach, |_| true, early, facts(2)).map_err(|(_, refused)| refused)
    });
    assert_eq!(taken.unwrap(), Epoch(2));
    let controller = again.unwrap();
    let mut pair = Pair { controller, target, offers, setups: setups.clone() };
    let (mut near, mut far) = pair.channel("echo").await;
    near.write_all(&super::tests::pattern(0, 1000)).await.unwrap();
    take(&mut far, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_stands_by_is_used_once_its_ticket_is_judged() {
    let (mut pair, first) = started().await;
    let (near, mut far) = pair.channel("upload").await;
    let (_second, standby) = further(&pair, Purpose::STANDBY, 2).await;
    assert_eq!(standby.epoch, Epoch(0));
    let sending = tokio::spawn(flood(near, 4 * MIB));
    take(&mut far, MIB).await;
    first.cut.cancel();
    let core = pair.controller.shared_core();
    let epoch = core.with(|state, now| state.session.activate(standby.key, "g.h.i".into(), now)).unwrap();
    let request = pair.target.next_attach_request().await;
    let request = request.unwrap();
    assert_eq!((request.ticket(), request.session()), ("g.h.i", pair.target.id()));
    assert_eq!(request.accept(|_| true), Ok(epoch));
    super::tests::take_from(&mut far, MIB, 4 * MIB).await;
    assert!(sending.await.unwrap().is_ok());
    assert_eq!(epochs(&pair.controller), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_denied_or_dropped_costs_its_own_path_only() {
    let (mut pair, _first) = started().await;
    let (mut near, mut far) = pair.channel("echo").await;
    for deny in [true, false] {
        let (_line, standby) = further(&pair, Purpose::STANDBY, 2).await;
        let core = pair.controller.shared_core();
        core.with(|state, now| state.session.activate(standby.key, "g.h.i".into(), now)).unwrap();
        let request = pair.target.next_attach_request().await.unwrap();
        if deny {
            request.deny(rc_proto::wire::codes::Denial::BUSY, "not now");
        } else {
            drop(request);
        }
        until(|| epochs(&pair.controller) == [1] && epochs(&pair.target) == [1]).await;
    }
    near.write_all(&super::tests::pattern(0, 1000)).await.unwrap();
    take(&mut far, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn an_attach_that_does_not_hold_changes_nothing() {
    let (mut pair, _first) = started().await;
    let mut stale = line();
    let core = pair.controller.shared_core();
    let before = epochs(&pair.target);
    let attaching = core
        .attach_path(stale.near.take().unwrap(), facts(2), Purpose::RESUME, "d.e.f".into(), None)
        .unwrap();
    let mut stream = stale.far.take().unwrap();
    let (mut attach, early) = read_attach(&mut stream, &id("alice"), DEADLINE).await.unwrap();
    attach.epoch = Epoch(1);
    let (stream, refused) = pair.target.accept_path(stream, &attach, |_| true, early, facts(2)).unwrap_err();
    assert_eq!((refused.code, refused.highest), (Refusal::STALE_EPOCH, Epoch(1)));
    let (answer, ()) = tokio::join!(attaching.answer, refuse(stream, &refused));
    assert!(matches!(answer.unwrap(), AttachAnswer::Refused(_)));
    assert_eq!(epochs(&pair.target), before);
    let (mut near, mut far) = pair.channel("echo").await;
    near.write_all(&super::tests::pattern(0, 10)).await.unwrap();
    take(&mut far, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_standby_paths_is_bounded() {
    let (pair, _first) = started().await;
    let mut lines = Vec::new();
    for number in 2..=8 {
        lines.push(further(&pair, Purpose::STANDBY, number).await);
    }
    let mut surplus = line();
    let core = pair.controller.shared_core();
    let attaching = core
        .attach_path(surplus.near.take().unwrap(), facts(9), Purpose::STANDBY, "d.e.f".into(), None)
        .unwrap();
    let (answer, refused) = tokio::join!(attaching.answer, accepted(&pair, surplus.far.take().unwrap(), 9));
    assert_eq!(refused.unwrap_err(), Refusal::DENIED);
    assert!(matches!(answer.unwrap(), AttachAnswer::Refused(_)));
    assert!(Arc::strong_count(&core) > 1);
}
