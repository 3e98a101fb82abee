//! One seed, one history: random work and random faults, then a healthy path and everything must arrive.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{End, Flow, Pair, Violation};
use crate::session::table::Known;
use crate::session::{PathKey, SessionConfig, SessionState};
use crate::wire::ChannelId;
use crate::wire::codes::{Class, EndCode, Lane, Purpose, ResetCode};

/// What a history has seen, to tell that it was worth running.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Bytes that were read.
    pub bytes: u64,
    /// Paths that were attached.
    pub paths: u64,
    /// Channels that were opened.
    pub channels: usize,
    /// Bytes sent more than once.
    pub repeated: u64,
}

/// How much a history does.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Steps before everything is healed, at least and at most.
    acts: (u32, u32),
    /// Bytes that are written at once, at most.
    write_bytes: usize,
}

const LONG: Shape = Shape { acts: (20, 120), write_bytes: 60_000 };
const SHORT: Shape = Shape { acts: (10, 40), write_bytes: 4_000 };

const ENDS: [End; 2] = [End::Controller, End::Target];
const CLASSES: [Class; 6] =
    [Class::CONTROL, Class::INPUT, Class::CURSOR, Class::AUDIO, Class::SCREEN, Class::BULK];

/// Runs the history of `seed`.
///
/// # Errors
/// The first invariant that breaks, with the seed.
pub fn run_seed(seed: u64, config: SessionConfig) -> Result<Outcome, Violation> {
    run(seed, LONG, config).map_err(|violation| format!("seed {seed}: {violation}"))
}

/// Runs the schedule `number`: a history of a few steps and few bytes, with small buffers in two of three, so that many
/// of them are run in little time.
///
/// # Errors
/// The first invariant that breaks, with the number.
pub fn run_schedule(number: u64, config: SessionConfig) -> Result<Outcome, Violation> {
    let config = match number % 3 {
        0 => config,
        1 => SessionConfig { send_cap_bytes: 3_000, frame_payload_bytes_max: 400, ..config },
        _ => SessionConfig { receive_window_bytes: 64 * 1024, frame_payload_bytes_max: 900, ..config },
    };
    run(number, SHORT, config).map_err(|violation| format!("schedule {number}: {violation}"))
}

fn run(seed: u64, shape: Shape, config: SessionConfig) -> Result<Outcome, Violation> {
    let rng = SmallRng::seed_from_u64(seed);
    History { rng, pair: Pair::new(config), ending: false, shape }.run()
}

struct History {
    shape: Shape,
    rng: SmallRng,
    pair: Pair,
    ending: bool,
}

impl History {
    fn run(&mut self) -> Result<Outcome, Violation> {
        self.pair.attach(Purpose::NEW, Lane::INTERACTIVE)?;
        let (fewest, most) = self.shape.acts;
        for _ in 0..self.rng.random_range(fewest..most) {
            self.act()?;
            let span = Duration::from_millis(self.rng.random_range(0..60));
            self.pair.run_for(span)?;
            self.keep_attached()?;
        }
        self.heal()?;
        self.finish_everything()?;
        let status = self.pair.controller.status();
        Ok(Outcome {
            bytes: self.pair.flows.values().map(|flow| flow.read).sum(),
            paths: status.highest_epoch.0,
            channels: self.pair.flows.len() / 2,
            repeated: status.bytes_repeated,
        })
    }

    fn act(&mut self) -> Result<(), Violation> {
        match self.rng.random_range(0..100) {
            0..12 => self.open()?,
            12..45 => self.write(),
            45..70 => self.read()?,
            70..75 => self.finish(),
            75..77 => self.reset(),
            77..84 => self.kill(),
            84..89 => self.freeze(),
            89..92 => self.add_path(Purpose::HANDOVER, Lane::INTERACTIVE)?,
            92..94 => self.add_path(Purpose::RESUME, Lane::INTERACTIVE)?,
            94..96 => self.add_path(Purpose::RESUME, Lane::BULK)?,
            96..98 => self.stand_by()?,
            _ => self.pair.run_for(Duration::from_secs(self.rng.random_range(1..20)))?,
        }
        Ok(())
    }

    fn end(&mut self) -> End {
        if self.rng.random() { End::Controller } else { End::Target }
    }

    fn open(&mut self) -> Result<(), Violation> {
        let end = self.end();
        let class = CLASSES.choose(&mut self.rng).copied().unwrap_or(Class::BULK);
        let may_skip = self.rng.random_bool(0.3).then(|| self.rng.random_range(0..300));
        if self.pair.session(end).is_some() && self.pair.flows.len() < 24 {
            self.pair.open(end, class, may_skip)?;
        }
        Ok(())
    }

    fn channel(&mut self) -> Option<(ChannelId, End)> {
        let keys: Vec<(ChannelId, End)> = self.pair.flows.keys().copied().collect();
        keys.choose(&mut self.rng).copied()
    }

    fn write(&mut self) {
        let Some((id, end)) = self.channel() else { return };
        let count = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(1..20),
            1 => self.rng.random_range(1..self.shape.write_bytes / 12 + 2),
            _ => self.rng.random_range(1..self.shape.write_bytes),
        };
        // A channel that the peer does not know yet, or that is closed, takes nothing; that is no violation.
        if self.pair.write(end, id, count).is_err() {
            let _taken = self.pair.write_message(end, id, count).ok();
        }
    }

    fn read(&mut self) -> Result<(), Violation> {
        let Some((id, writer)) = self.channel() else { return Ok(()) };
        let limit = self.rng.random_range(1..100_000);
        self.pair.read(writer.other(), id, limit).map(|_| ())
    }

    fn finish(&mut self) {
        if let Some((id, end)) = self.channel() {
            let _done = self.pair.finish(end, id).ok();
        }
    }

    fn reset(&mut self) {
        let Some((id, end)) = self.channel() else { return };
        let done = self.pair.session_mut(end).map(|session| session.reset(id, ResetCode::CANCELLED, "no"));
        if let Some(Ok(())) = done {
            for writer in ENDS {
                self.pair.flows.entry((id, writer)).or_default().reset = true;
            }
        }
    }

    fn path(&mut self) -> Option<PathKey> {
        let keys: Vec<PathKey> = self.pair.wires.keys().copied().collect();
        keys.choose(&mut self.rng).copied()
    }

    fn kill(&mut self) {
        let Some(path) = self.path() else { return };
        let keep = self.rng.random_range(0..40_000);
        match self.rng.random_range(0..5) {
            0 => {
                let end = self.end();
                self.pair.lose_at(path, end);
            }
            4 => {
                let end = self.end();
                self.pair.flip_bit(path, end);
            }
            1 => self.pair.kill(path, keep, None),
            _ => {
                let notice = Duration::from_millis(self.rng.random_range(0..50));
                self.pair.kill(path, keep, Some(notice));
            }
        }
    }

    fn freeze(&mut self) {
        let (Some(path), end) = (self.path(), self.end()) else { return };
        let frozen = self.rng.random_bool(0.6);
        self.pair.freeze(path, end, frozen);
        if self.rng.random() {
            self.pair.freeze(path, end.other(), frozen);
        }
    }

    fn add_path(&mut self, purpose: Purpose, lane: Lane) -> Result<(), Violation> {
        if self.pair.wires.len() >= 6 || self.pair.heard.contains_key(&End::Controller) && self.is_over() {
            return Ok(());
        }
        let path = self.pair.attach(purpose, lane)?;
        let delay = Duration::from_millis(self.rng.random_range(1..80));
        if let Some(wire) = self.pair.wires.get_mut(&path) {
            wire.delay = delay;
        }
        Ok(())
    }

    fn stand_by(&mut self) -> Result<(), Violation> {
        let now = self.pair.now;
        let standing: Vec<PathKey> = self.pair.controller.paths();
        let activated =
            standing.iter().any(|path| self.pair.controller.activate(*path, "t".to_owned(), now).is_ok());
        if activated || self.pair.target.is_none() {
            return Ok(());
        }
        self.add_path(Purpose::STANDBY, Lane::INTERACTIVE)
    }

    fn is_over(&self) -> bool {
        self.pair.controller.status().state == SessionState::Over
    }

    /// What a driver does: another path when nothing good carries the session.
    fn keep_attached(&mut self) -> Result<(), Violation> {
        let status = self.pair.controller.status();
        let trusted = status
            .paths
            .iter()
            .any(|path| !path.suspect && path.epoch.0 > 0 && path.lane == Lane::INTERACTIVE);
        if trusted || self.is_over() {
            return Ok(());
        }
        let purpose = if status.highest_epoch.0 == 0 { Purpose::NEW } else { Purpose::RESUME };
        self.add_path(purpose, Lane::INTERACTIVE)
    }

    /// From now on a healthy path exists and stays.
    fn heal(&mut self) -> Result<(), Violation> {
        if self.rng.random() {
            for path in self.pair.wires.keys().copied().collect::<Vec<_>>() {
                self.pair.kill(path, 0, Some(Duration::ZERO));
            }
            self.pair.run_for(Duration::from_millis(1))?;
        }
        for path in self.pair.wires.keys().copied().collect::<Vec<_>>() {
            for end in ENDS {
                self.pair.freeze(path, end, false);
            }
        }
        if self.rng.random_bool(0.7) {
            self.pair.attach(Purpose::RESUME, Lane::INTERACTIVE)?;
        }
        Ok(())
    }

    fn finish_everything(&mut self) -> Result<(), Violation> {
        let keys: Vec<(ChannelId, End)> = self.pair.flows.keys().copied().collect();
        for step in 0..600 {
            for (id, end) in &keys {
                let _done = self.pair.finish(*end, *id).ok();
            }
            // A channel that the Controller has not heard of yet would be lost with the session, as it says.
            let known =
                self.pair.flows.iter().all(|((id, _), flow)| {
                    flow.reset || self.pair.controller.table.known(*id) != Known::Never
                });
            if step > 2 && known && !self.ending {
                self.ending = true;
                self.pair.controller.end(EndCode::DONE, "done");
            }
            self.pair.run_for(Duration::from_millis(200))?;
            self.pair.read_all()?;
            self.keep_attached()?;
            if self.all_ended() {
                return self.check_all();
            }
        }
        Err(format!("not finished: {}", self.describe()))
    }

    fn all_ended(&self) -> bool {
        ENDS.iter().all(|end| self.pair.heard.get(end).is_some_and(|heard| heard.ended.is_some()))
    }

    fn check_all(&self) -> Result<(), Violation> {
        for end in ENDS {
            let ended = self.pair.heard.get(&end).and_then(|heard| heard.ended);
            if ended != Some(EndCode::DONE) {
                return Err(format!("{end:?} ended with {ended:?}"));
            }
        }
        for ((id, writer), flow) in self.pair.flows.iter().filter(|(_, flow)| !flow.reset) {
            let whole = flow.read == flow.written && flow.finished && flow.ended;
            if !whole {
                return Err(format!("channel {id} from {writer:?}: {}", describe(flow)));
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let open = self.pair.flows.iter().filter(|(_, flow)| !flow.reset && !flow.ended);
        let flows: Vec<String> =
            open.map(|((id, writer), flow)| format!("{id} {writer:?} {}", describe(flow))).collect();
        let states = ENDS.map(|end| self.pair.session(end).map(|session| session.status()));
        format!("{flows:?} {states:?}")
    }
}

fn describe(flow: &Flow) -> String {
    format!("read {} of {}, finished {}, ended {}", flow.read, flow.written, flow.finished, flow.ended)
}
