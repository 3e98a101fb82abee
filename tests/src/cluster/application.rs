//! What the applications of a session do: open, write, finish, give up. What is read is compared by the oracle.

use rand::Rng;
use rand::seq::IndexedRandom;
use rc_proto::session::sim::End;
use rc_proto::wire::codes::{Class, ResetCode};
use rc_proto::wire::frame::OpenOptions;
use rc_proto::wire::{ChannelId, SessionId};

use super::ctx::Ctx;
use super::endpoint::seat::Seat;
use super::names;

/// Channels of one session in its life.
const CHANNELS_MAX: usize = 10;
const CLASSES: [Class; 6] =
    [Class::CONTROL, Class::INPUT, Class::CURSOR, Class::AUDIO, Class::SCREEN, Class::BULK];

/// Does one thing at one end of a session.
pub(super) fn act(ctx: &mut Ctx, seat: &mut Seat) {
    match ctx.rng.random_range(0..100) {
        0..20 => open(ctx, seat),
        20..86 => write(ctx, seat),
        86..92 => finish(ctx, seat),
        92..94 => reset(ctx, seat),
        _ => {
            seat.is_reading = !seat.is_reading;
            if seat.is_reading {
                read_all(ctx, seat);
            }
        }
    }
}

/// The channels of a session, ascending.
pub(super) fn channels(ctx: &Ctx, id: SessionId) -> Vec<ChannelId> {
    let flows = ctx.oracle.flows.keys().filter(|(session, _, end)| *session == id && *end == End::Controller);
    flows.map(|(_, channel, _)| *channel).collect()
}

/// Opens a channel of a random class; some carry messages that may be skipped.
pub(super) fn open(ctx: &mut Ctx, seat: &mut Seat) {
    if channels(ctx, seat.id).len() >= CHANNELS_MAX {
        return;
    }
    let class = CLASSES.choose(&mut ctx.rng).copied().unwrap_or(Class::BULK);
    let may_skip_ms = ctx.rng.random_bool(0.25).then(|| ctx.rng.random_range(0..2000));
    if let Ok(channel) = seat.session.open(names::service(), class, OpenOptions { may_skip_ms }) {
        ctx.oracle.counts.channels += 1;
        for writer in [End::Controller, End::Target] {
            let flow = ctx.oracle.flows.entry((seat.id, channel, writer)).or_default();
            flow.has_messages = may_skip_ms.is_some();
        }
    }
}

/// Writes mostly little, now and then a lot.
pub(super) fn write(ctx: &mut Ctx, seat: &mut Seat) {
    let Some(channel) = channels(ctx, seat.id).choose(&mut ctx.rng).copied() else { return };
    let count = match ctx.rng.random_range(0..10) {
        0..5 => ctx.rng.random_range(1..200),
        5..9 => ctx.rng.random_range(1..6_000),
        _ => ctx.rng.random_range(1..120_000),
    };
    write_to(ctx, seat, channel, count);
}

/// Writes so much of the pattern to a channel.
pub(super) fn write_to(ctx: &mut Ctx, seat: &mut Seat, channel: ChannelId, count: usize) {
    let at = (seat.id, channel, seat.end);
    let Some(flow) = ctx.oracle.flows.get(&at) else { return };
    if flow.is_finished || flow.is_reset {
        return;
    }
    let taken = if flow.has_messages {
        let count = count.min(8_000);
        let bytes = ctx.oracle.pattern(at, count);
        let is_taken = seat.session.write_message(channel, &bytes, ctx.now).unwrap_or(false);
        if is_taken { count } else { 0 }
    } else {
        let bytes = ctx.oracle.pattern(at, count.min(seat.session.write_room(channel)));
        seat.session.write(channel, &bytes).unwrap_or(0)
    };
    ctx.oracle.wrote(at, taken);
}

fn finish(ctx: &mut Ctx, seat: &mut Seat) {
    if let Some(channel) = channels(ctx, seat.id).choose(&mut ctx.rng).copied() {
        finish_one(ctx, seat, channel);
    }
}

fn finish_one(ctx: &mut Ctx, seat: &mut Seat, channel: ChannelId) {
    if seat.session.finish(channel).is_ok()
        && let Some(flow) = ctx.oracle.flows.get_mut(&(seat.id, channel, seat.end))
    {
        flow.is_finished = true;
    }
}

/// Finishes this end's direction of every channel.
pub(super) fn finish_all(ctx: &mut Ctx, seat: &mut Seat) {
    for channel in channels(ctx, seat.id) {
        finish_one(ctx, seat, channel);
    }
}

fn reset(ctx: &mut Ctx, seat: &mut Seat) {
    let Some(channel) = channels(ctx, seat.id).choose(&mut ctx.rng).copied() else { return };
    if seat.session.reset(channel, ResetCode::CANCELLED, "").is_ok() {
        ctx.oracle.reset(seat.id, channel);
    }
}

/// Reads whatever a slow application has left.
pub(super) fn read_all(ctx: &mut Ctx, seat: &mut Seat) {
    seat.is_reading = true;
    for channel in channels(ctx, seat.id) {
        seat.read(ctx, channel);
    }
}
