//! Whether the peer still speaks on one path.
//!
//! ```text
//!            PING or DATA unanswered ≥ D/2 and silence ≥ D        silence ≥ 3 D
//!   Trusted ───────────────────────────────────────────▶ Suspect ─────────────▶ Dead
//!      ▲                anything received                   │
//!      └────────────────────────────────────────────────────┘
//! ```
//! `D = clamp(4·srtt + 500 ms, 1.5 s, 5 s)`. Proof of life is what the peer sent, never what was sent to it. A
//! tick that comes late gives no verdict, up to three times in one silence: it may be our own. A PING counts from when
//! it was asked for, so that a path which takes no byte any more is judged like one that brings none.

use std::time::Duration;

use crate::Moment;

/// DATA within this time makes a path active.
const ACTIVE: Duration = Duration::from_secs(30);
/// Silence before a PING on an active path, at most.
const ACTIVE_SILENCE_MAX: Duration = Duration::from_millis(500);
/// Silence before a PING on an idle path.
pub const IDLE_SILENCE: Duration = Duration::from_secs(15);
/// A tick that comes this late gives no verdict.
pub(super) const TICK_LATE_MAX: Duration = Duration::from_millis(200);
const SUSPICION_MIN: Duration = Duration::from_millis(1500);
const SUSPICION_MAX: Duration = Duration::from_secs(5);
const SUSPICION_BASE: Duration = Duration::from_millis(500);
/// Late ticks in one silence that give the peer its time to answer again. Who is late every time still gets a verdict.
const LATE_TICKS_MAX: u8 = 3;

/// What a tick found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Unchanged,
    /// The path has just become suspect.
    Suspect,
    /// The path is dead.
    Dead,
}

/// One PING, wanted or on its way.
#[derive(Debug, Clone, Copy)]
struct Ping {
    nonce: u64,
    /// The time to answer runs from here: a path that does not take the PING does not answer it either.
    asked: Moment,
    /// `None` until it is written to the path.
    sent: Option<Moment>,
}

/// Liveness of one path.
#[derive(Debug)]
pub(super) struct Liveness {
    heard: Moment,
    /// The oldest DATA sent since the peer was last heard.
    unanswered: Option<Moment>,
    data: Option<Moment>,
    ping: Option<Ping>,
    next_nonce: u64,
    srtt: Option<Duration>,
    /// PINGs answered, and the round trip of the last one.
    answered: (u32, Duration),
    suspect: bool,
    /// No tick is due before, so none is late that comes then: set after a late tick, and when a path turns active.
    not_before: Moment,
    /// Late ticks since the peer was last heard.
    late_ticks: u8,
}

impl Liveness {
    /// A path that starts now; its first PING is due at once, for a first round trip.
    pub(super) fn new(now: Moment) -> Self {
        Self {
            heard: now,
            unanswered: None,
            data: None,
            ping: Some(Ping { nonce: 0, asked: now, sent: None }),
            next_nonce: 1,
            srtt: None,
            answered: (0, Duration::ZERO),
            suspect: false,
            not_before: now,
            late_ticks: 0,
        }
    }

    /// Smoothed round trip, once a PING was answered.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// How many PINGs were answered, and the round trip of the last one.
    pub(super) fn answered(&self) -> (u32, Duration) {
        self.answered
    }

    /// Whether the path is suspect.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// When the peer was last heard.
    pub(super) fn heard(&self) -> Moment {
        self.heard
    }

    /// Silence from which a path with an unanswered probe is suspect.
    fn suspicion(&self) -> Duration {
        match self.srtt {
            Some(srtt) => (4 * srtt + SUSPICION_BASE).clamp(SUSPICION_MIN, SUSPICION_MAX),
            None => SUSPICION_MAX,
        }
    }

    fn is_active(&self, now: Moment) -> bool {
        self.data.is_some_and(|data| now.since(data) < ACTIVE)
    }

    fn ping_silence(&self, now: Moment) -> Duration {
        if self.is_active(now) { (self.suspicion() / 3).min(ACTIVE_SILENCE_MAX) } else { IDLE_SILENCE }
    }

    /// The peer sent something; returns whether that clears a suspicion.
    pub(super) fn received(&mut self, now: Moment) -> bool {
        self.heard = now;
        self.unanswered = None;
        self.late_ticks = 0;
        if self.ping_overdue().is_some_and(|at| now >= at) {
            return false;
        }
        std::mem::take(&mut self.suspect)
    }

    /// When an unanswered PING makes the path suspect though other frames arrive.
    fn ping_overdue(&self) -> Option<Moment> {
        self.ping.map(|ping| ping.asked + self.suspicion() * 3)
    }

    /// DATA went either way. The PINGs of an active path are due from then on, not from when it was idle.
    pub(super) fn data(&mut self, now: Moment) {
        if !self.is_active(now) {
            self.not_before = self.not_before.max(now);
        }
        self.data = Some(now);
    }

    /// DATA was sent, which the peer answers.
    pub(super) fn sent(&mut self, now: Moment) {
        self.unanswered.get_or_insert(now);
    }

    /// A measured round trip.
    pub(super) fn sample(&mut self, round_trip: Duration) {
        self.srtt = Some(self.srtt.map_or(round_trip, |srtt| (srtt * 7 + round_trip) / 8));
    }

    /// The nonce of the PING that is to be sent now.
    pub(super) fn take_ping(&mut self, now: Moment) -> Option<u64> {
        let ping = self.ping.as_mut()?;
        if ping.sent.is_some() {
            return None;
        }
        ping.sent = Some(now);
        Some(ping.nonce)
    }

    /// Whether [`Self::take_ping`] has one.
    pub(super) fn has_ping(&self) -> bool {
        self.ping.is_some_and(|ping| ping.sent.is_none())
    }

    /// A PONG came; unknown nonces count as nothing. Returns whether that clears a suspicion.
    pub(super) fn pong(&mut self, nonce: u64, now: Moment) -> bool {
        match self.ping {
            Some(Ping { nonce: expected, sent: Some(sent), .. }) if expected == nonce => {
                let round_trip = now.since(sent);
                self.sample(round_trip);
                self.answered = (self.answered.0.wrapping_add(1), round_trip);
                self.ping = None;
                std::mem::take(&mut self.suspect)
            }
            Some(_) | None => false,
        }
    }

    /// Wants a PING, unless one is on its way.
    pub(super) fn ask(&mut self, now: Moment) {
        if self.ping.is_none() {
            self.ping = Some(Ping { nonce: self.next_nonce, asked: now, sent: None });
            self.next_nonce += 1;
        }
    }

    /// Judges the path.
    pub(super) fn tick(&mut self, now: Moment) -> Verdict {
        if self.is_late(now) && self.late_ticks < LATE_TICKS_MAX {
            self.late_ticks += 1;
            self.not_before = now;
            self.unanswered = None;
            self.ping = None;
            self.ask(now);
            return Verdict::Unchanged;
        }
        let silence = now.since(self.heard);
        if silence >= self.ping_silence(now) {
            self.ask(now);
        }
        if self.dead_at().is_some_and(|at| now >= at) {
            return Verdict::Dead;
        }
        if !self.suspect && self.suspect_at().is_some_and(|at| now >= at) {
            self.suspect = true;
            return Verdict::Suspect;
        }
        Verdict::Unchanged
    }

    /// Since when the peer owes an answer.
    fn owed_since(&self) -> Option<Moment> {
        [self.unanswered, self.ping.map(|ping| ping.asked)].into_iter().flatten().min()
    }

    fn suspect_at(&self) -> Option<Moment> {
        let d = self.suspicion();
        let by_silence = self.owed_since().map(|probe| (self.heard + d).max(probe + d / 2));
        [by_silence, self.ping_overdue()].into_iter().flatten().min()
    }

    fn dead_at(&self) -> Option<Moment> {
        let d = self.suspicion();
        self.owed_since().map(|probe| (self.heard + d * 3).max(probe + d * 5 / 2))
    }

    /// When the next tick should come, seen from now.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let ping = if self.ping.is_some() { None } else { Some(self.next_ping_at()) };
        let suspect = if self.suspect { None } else { self.suspect_at() };
        [ping, suspect, self.dead_at()].into_iter().flatten().min().map(|at| at.max(self.not_before))
    }

    fn next_ping_at(&self) -> Moment {
        let active = self.heard + (self.suspicion() / 3).min(ACTIVE_SILENCE_MAX);
        match self.data {
            Some(data) if active < data + ACTIVE => active,
            Some(_) | None => self.heard + IDLE_SILENCE,
        }
    }

    fn is_late(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|at| now.since(at) > TICK_LATE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    /// An active path with a round trip of 100 ms, so D is 1.5 s; its peer was heard last at 0.
    fn active() -> Liveness {
        let mut live = Liveness::new(at(0));
        assert_eq!(live.take_ping(at(0)), Some(0));
        live.pong(0, at(100));
        live.received(at(0));
        live.data(at(0));
        live
    }

    /// Ticks at each deadline, sending what is asked for; returns the verdicts with their times.
    fn run(live: &mut Liveness, until: u64) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        while let Some(deadline) = live.deadline().filter(|deadline| *deadline <= at(until)) {
            let verdict = live.tick(deadline);
            if verdict != Verdict::Unchanged {
                verdicts.push((u64::try_from(deadline.since_origin().as_millis()).unwrap(), verdict));
            }
            live.take_ping(deadline);
            if verdict == Verdict::Dead {
                break;
            }
        }
        verdicts
    }

    #[test]
    fn a_silent_active_path_is_suspect_at_d_and_dead_at_three() {
        assert_eq!(run(&mut active(), 10_000), [(1500, Verdict::Suspect), (4500, Verdict::Dead)]);
    }

    #[test]
    fn the_interval_follows_the_round_trip_within_its_bounds() {
        for (rtt, d) in [(0, 1500), (250, 1500), (251, 1504), (1124, 4996), (1125, 5000), (3000, 5000)] {
            let mut live = Liveness::new(at(0));
            live.sample(Duration::from_millis(rtt));
            assert_eq!(live.suspicion(), Duration::from_millis(d), "{rtt}");
        }
    }

    #[test]
    fn an_idle_path_is_asked_every_15_s() {
        let mut live = active();
        live.data = None;
        assert_eq!(live.deadline(), Some(at(15_000)));
        assert_eq!(run(&mut live, 60_000), [(15_750, Verdict::Suspect), (18_750, Verdict::Dead)]);
    }

    #[test]
    fn anything_received_clears_a_suspicion() {
        let mut live = active();
        assert_eq!(run(&mut live, 1500), [(1500, Verdict::Suspect)]);
        assert!(live.received(at(1600)));
        assert!(!live.is_suspect());
    }

    #[test]
    fn a_tick_over_200_ms_late_gives_no_verdict() {
        for (late, verdict) in [
            (199, Verdict::Suspect),
            (200, Verdict::Suspect),
            (201, Verdict::Unchanged),
            (60_000, Verdict::Unchanged),
        ] {
            let mut live = active();
            live.tick(at(500));
            live.take_ping(at(500));
            assert_eq!(live.deadline(), Some(at(1500)));
            assert_eq!(live.tick(at(1500 + late)), verdict, "{late}");
        }
    }

    #[test]
    fn after_a_late_tick_the_peer_gets_half_d_to_answer() {
        let mut live = active();
        live.tick(at(7_200_000));
        assert_eq!(live.take_ping(at(7_200_000)), Some(1));
        assert_eq!(live.deadline(), Some(at(7_200_750)));
        assert_eq!(live.tick(at(7_200_750)), Verdict::Suspect);
    }

    #[test]
    fn a_ping_unanswered_for_three_d_is_suspect_though_frames_arrive() {
        let mut live = active();
        live.tick(at(500));
        live.take_ping(at(500));
        for ms in (600..5000).step_by(100) {
            live.received(at(ms));
            assert_eq!(live.tick(at(ms)), Verdict::Unchanged, "{ms}");
        }
        assert_eq!(live.tick(at(5000)), Verdict::Suspect);
    }

    /// As [`run`], but each tick comes `late` ms late, and the path takes no PING.
    fn run_stuck(live: &mut Liveness, late: u64, until: u64) -> Vec<(u64, Verdict)> {
        let mut verdicts = Vec::new();
        let mut now = at(0);
        while let Some(deadline) = live.deadline().filter(|deadline| *deadline <= at(until)) {
            now = now.max(deadline) + Duration::from_millis(late);
            let verdict = live.tick(now);
            if verdict != Verdict::Unchanged {
                verdicts.push((u64::try_from(now.since_origin().as_millis()).unwrap(), verdict));
            }
            if verdict == Verdict::Dead {
                break;
            }
        }
        verdicts
    }

    #[test]
    fn a_path_that_takes_no_ping_is_suspect_at_d_and_dead_at_three() {
        assert_eq!(run_stuck(&mut active(), 0, 60_000), [(1500, Verdict::Suspect), (4500, Verdict::Dead)]);
    }

    #[test]
    fn an_idle_path_that_turns_active_and_stays_silent_is_judged_from_then() {
        let mut live = active();
        live.data = None;
        live.data(at(10_000));
        live.sent(at(10_000));
        assert_eq!(live.deadline(), Some(at(10_000)));
        assert_eq!(run_stuck(&mut live, 0, 60_000), [(10_750, Verdict::Suspect), (13_750, Verdict::Dead)]);
    }

    #[test]
    fn a_ping_that_was_asked_before_other_frames_came_still_counts_when_they_stop() {
        let mut live = active();
        live.tick(at(500));
        live.take_ping(at(500));
        live.received(at(600));
        assert_eq!(run_stuck(&mut live, 0, 60_000), [(2100, Verdict::Suspect), (5100, Verdict::Dead)]);
    }

    #[test]
    fn ticks_that_are_always_late_postpone_the_verdict_and_do_not_prevent_it() {
        for late in [201, 1000, 5000] {
            let verdicts = run_stuck(&mut active(), late, 3_600_000);
            assert_eq!(
                verdicts.last().map(|(_, verdict)| *verdict),
                Some(Verdict::Dead),
                "{late}: {verdicts:?}"
            );
        }
    }
}
