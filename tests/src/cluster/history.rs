//! One seed, one history: ten minutes of work and faults with calm stretches in between, then everything must have
//! arrived and every session must end as its application wants.

use std::time::Duration;

use rand::Rng;
use rc_proto::session::SessionConfig;
use rc_proto::session::sim::unacknowledged;
use rc_proto::wire::SessionId;
use rc_proto::wire::codes::EndCode;

use super::net::{ConnKind, Host};
use super::oracle::Counts;
use super::trace::Trace;
use super::world::World;
use super::{Mutant, application};

/// Stretches with faults, and how long each is.
const STORMS: u32 = 3;
const STORM: Duration = Duration::from_secs(180);
/// Once everything is well, everything that was written arrives within this.
const RECOVERY_MAX: Duration = Duration::from_secs(45);
/// A new session with a Target that is registered has a path within this.
const FOUND_MAX: Duration = Duration::from_secs(10);
/// An endpoint that has another address and does not know it notices within this, and has a link again.
const REGISTERED_MAX: Duration = Duration::from_secs(30);
/// Once everything is over, no state of a path is left after this.
const RESIDUE_MAX: Duration = Duration::from_secs(120);

/// What to run a history with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings of both ends of every session.
    pub config: SessionConfig,
    /// Keeps every line of the trace.
    pub keeps_trace: bool,
    /// A deliberate bug outside the session.
    pub mutant: Option<Mutant>,
}

/// What a history came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// The same for two runs of one seed.
    pub hash: u64,
    /// What it has seen.
    pub counts: Counts,
    /// Every line, when they are kept.
    pub trace: String,
    /// The first invariant that broke.
    pub violation: Option<String>,
}

/// Runs the history of `seed`.
pub fn run_seed(seed: u64, options: &Options) -> Report {
    let mut world = build(seed, options);
    let result = history(&mut world);
    report(world, result)
}

pub(super) fn report(mut world: World, result: Result<(), String>) -> Report {
    if let Err(violation) = &result {
        world.ctx.note(format_args!("VIOLATION: {violation}"));
    }
    Report {
        hash: world.ctx.trace.hash(),
        counts: world.ctx.oracle.counts,
        trace: world.ctx.trace.take(),
        violation: result.err(),
    }
}

fn build(seed: u64, options: &Options) -> World {
    let brokers = 3 + u16::try_from(seed % 3).unwrap_or(0);
    let regions = 2 + u8::try_from(seed / 3 % 2).unwrap_or(0);
    let mut world = World::new(seed, Trace::new(options.keeps_trace), brokers, regions);
    world.config = options.config.clone();
    #[cfg(feature = "mutants")]
    {
        world.ctx.mutant = options.mutant;
    }
    world.add_controller(0, 0);
    world.add_target(0, 0, regions - 1);
    world
}

fn history(world: &mut World) -> Result<(), String> {
    world.run_for(Duration::from_secs(5))?;
    let (controller, target) = (Host::Controller(0), Host::Target(0));
    for _ in 0..2 {
        begin_session(world, controller, target)?;
    }
    for storm in 0..STORMS {
        world.is_quiet = false;
        world.begin_faults(STORM);
        world.run_for(STORM)?;
        world.heal();
        caught_up(world)?;
        if storm + 1 < STORMS {
            begin_session(world, controller, target)?;
        }
    }
    end_everything(world)?;
    nothing_is_left(world)
}

/// A new session has a path within its bound, and a bulk or a standby path now and then.
pub(super) fn begin_session(world: &mut World, controller: Host, target: Host) -> Result<SessionId, String> {
    if !world.run_until(REGISTERED_MAX, |world| world.is_reachable(target))? {
        return Err(format!("{target:?} is not registered within {REGISTERED_MAX:?}"));
    }
    let Some(id) = world.start_session(controller, target) else { return Err("no such endpoint".to_owned()) };
    let is_found = world.run_until(FOUND_MAX, |world| world.is_attached(id))?;
    if !is_found {
        return Err(format!("session {id}: no path within {FOUND_MAX:?} though the Target is registered"));
    }
    let (bulk, standby) = (world.ctx.rng.random_bool(0.4), world.ctx.rng.random_bool(0.3));
    if let Some(driven) = world.controllers.get_mut(&controller).and_then(|owner| owner.driven_mut(id)) {
        if bulk {
            driven.wants_bulk();
        }
        if standby {
            driven.stand_by();
        }
    }
    world.at_end(id, true, application::open);
    Ok(id)
}

/// Everything is well and nobody writes: what was written arrives and is acknowledged.
pub(super) fn caught_up(world: &mut World) -> Result<(), String> {
    world.is_quiet = true;
    let is_done = world.run_until(RECOVERY_MAX, |world| {
        read_everything(world);
        world.ctx.oracle.unfinished().is_none() && all_acknowledged(world)
    })?;
    if is_done {
        return Ok(());
    }
    let unfinished = world.ctx.oracle.unfinished().unwrap_or_else(|| "not acknowledged".to_owned());
    Err(format!("not arrived within {RECOVERY_MAX:?} of calm: {unfinished}"))
}

fn read_everything(world: &mut World) {
    for id in world.ends.keys().copied().collect::<Vec<_>>() {
        for at_controller in [true, false] {
            world.at_end(id, at_controller, application::read_all);
        }
    }
}

fn all_acknowledged(world: &World) -> bool {
    let is_over = |id: &SessionId| world.ctx.oracle.ended.keys().any(|(ended, _)| ended == id);
    world.ends.keys().filter(|id| !is_over(id)).all(|id| {
        let ends = [world.controller_session(*id), world.target_session(*id)];
        ends.into_iter().flatten().all(|session| unacknowledged(session) == 0)
    })
}

/// Every channel is finished, every session ends, at both ends and with the code that was asked for.
pub(super) fn end_everything(world: &mut World) -> Result<(), String> {
    let open: Vec<SessionId> = world
        .ends
        .keys()
        .copied()
        .filter(|id| !world.ctx.oracle.ended.keys().any(|(ended, _)| ended == id))
        .collect();
    // A channel that one end has not heard of yet can be finished there only later.
    let is_finished = world.run_until(RECOVERY_MAX, |world| {
        for id in &open {
            for at_controller in [true, false] {
                world.at_end(*id, at_controller, application::finish_all);
            }
        }
        world.ctx.oracle.flows.values().all(|flow| flow.is_finished || flow.is_reset)
    })?;
    if !is_finished {
        return Err(format!("a channel is not known at both ends within {RECOVERY_MAX:?}"));
    }
    caught_up(world)?;
    for id in &open {
        world.ctx.oracle.may_end.insert(*id, EndCode::DONE);
        world.at_end(*id, true, |_, seat| seat.session.end(EndCode::DONE, "done"));
    }
    let is_over = world.run_until(RECOVERY_MAX, |world| {
        read_everything(world);
        open.iter().all(|id| world.ctx.oracle.ended.keys().filter(|(ended, _)| ended == id).count() == 2)
    })?;
    if is_over { Ok(()) } else { Err(format!("not every session ended within {RECOVERY_MAX:?}")) }
}

/// No path is left anywhere.
pub(super) fn nothing_is_left(world: &mut World) -> Result<(), String> {
    let residue = |world: &World| {
        let brokers = world.brokers.values().map(|broker| (broker.id.clone(), broker.residue()));
        let mut left: Vec<String> = brokers
            .filter(|(_, residue)| *residue != (0, 0, 0))
            .map(|(id, (paths, opens, legs))| format!("{id}: {paths} paths, {opens} opens, {legs} legs"))
            .collect();
        let ends = world.controllers.values().map(|owner| (owner.host, owner.residue()));
        let ends = ends.chain(world.targets.values().map(|target| (target.host, target.residue())));
        left.extend(ends.filter(|(_, legs)| *legs > 0).map(|(host, legs)| format!("{host:?}: {legs} legs")));
        let legs = world.ctx.net.ids().filter(|(_, conn)| conn.kind == ConnKind::Leg).count();
        left.extend((legs > 0).then(|| format!("{legs} connections")));
        left
    };
    if world.run_until(RESIDUE_MAX, |world| residue(world).is_empty())? {
        return Ok(());
    }
    Err(format!("left after everything is over: {}", residue(world).join("; ")))
}
