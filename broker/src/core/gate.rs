//! Admission in an order of classes: a token bucket of which each class leaves a share for those before it, and slots
//! for those who have to wait.
//!
//! A slot is a promise: it is the moment at which the bucket, after everything promised before, has room for one more.
//! Whoever comes back at its slot is admitted, however many newcomers there are; so a herd of any size is refused
//! once, spreads over the spare capacity, and is through after (herd − burst) ÷ rate. A promise that nobody claims is
//! forgotten after [`GRACE`]. A class never waits for promises made to classes behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rc_proto::Moment;

/// What one token counts as: nanoseconds times a rate per second come out without a rest.
const TOKEN: u64 = 1_000_000_000;
/// The farthest slot that is promised.
pub const SLOT_MAX: Duration = Duration::from_secs(30);
/// How late whoever was promised a slot may come.
pub const GRACE: Duration = Duration::from_secs(2);
/// Who comes so little before its slot is told the rest of it.
const EARLY: Duration = Duration::from_millis(20);
/// Promises that are remembered.
pub const PROMISES_MAX: usize = 65_536;

/// Rate and burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens at once.
    pub burst: u32,
}

impl Rate {
    fn full(self) -> u64 {
        u64::from(self.burst) * TOKEN
    }

    /// The time in which `tokens` come.
    fn time_of(self, tokens: u64) -> Duration {
        Duration::from_nanos(tokens.div_ceil(u64::from(self.per_second.max(1))))
    }
}

/// Tokens at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    level: u64,
    at: Moment,
    /// Slots up to here are given away.
    slots_to: Moment,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now: Moment) -> Self {
        Self { level: rate.full(), at: now, slots_to: now }
    }

    fn refill(&mut self, rate: Rate, now: Moment) {
        let elapsed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let gained = elapsed.saturating_mul(u64::from(rate.per_second));
        self.level = self.level.saturating_add(gained).min(rate.full());
        self.at = self.at.max(now);
    }

    /// Whether nothing was taken lately.
    pub fn is_full(&mut self, rate: Rate, now: Moment) -> bool {
        self.refill(rate, now);
        self.level == rate.full()
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time to a slot of its own, when there is none.
    pub fn take(&mut self, rate: Rate, now: Moment) -> Result<(), Duration> {
        self.refill(rate, now);
        if let Some(left) = self.level.checked_sub(TOKEN) {
            self.level = left;
            return Ok(());
        }
        let soonest = now + rate.time_of(TOKEN - self.level);
        let slot = soonest.max(self.slots_to).min(now + SLOT_MAX);
        self.slots_to = slot + rate.time_of(TOKEN);
        Err(slot.since(now))
    }
}

/// The gate of one resource; class 0 comes first.
#[derive(Debug)]
pub struct Gate<K, const CLASSES: usize> {
    rate: Rate,
    bucket: Bucket,
    /// Tokens that each class leaves for those before it.
    reserves: [u64; CLASSES],
    /// Tokens promised to each class.
    promised: [u64; CLASSES],
    promises: BTreeSet<(usize, K, Moment)>,
    by_slot: BTreeMap<Moment, Vec<(usize, K)>>,
    /// Slots beyond the farthest one: only spread, not promised.
    beyond: u32,
}

impl<K: Ord + Clone, const CLASSES: usize> Gate<K, CLASSES> {
    /// An open gate. Each class leaves its share of the burst, per mille, for those before it.
    pub fn new(rate: Rate, shares: [u16; CLASSES], now: Moment) -> Self {
        let reserve = |share: u16| rate.full() / 1000 * u64::from(share.min(1000));
        Self {
            rate,
            bucket: Bucket::full(rate, now),
            reserves: shares.map(reserve),
            promised: [0; CLASSES],
            promises: BTreeSet::new(),
            by_slot: BTreeMap::new(),
            beyond: 0,
        }
    }

    /// Whether `who` may pass now, as one of `class`.
    ///
    /// # Errors
    /// The time until its slot.
    pub fn admit(&mut self, who: &K, class: usize, now: Moment) -> Result<(), Duration> {
        let class = class.min(CLASSES.saturating_sub(1));
        self.bucket.refill(self.rate, now);
        self.forget_unclaimed(now);
        let before: u64 = self.promised.iter().take(class).sum();
        if let Some(slot) = self.next_slot_of(who, class, now) {
            if slot > now {
                return Err(slot.since(now));
            }
            self.take_back(class, who, slot);
            if self.take(before) {
                return Ok(());
            }
        }
        let own = self.promised.get(class).copied().unwrap_or(0);
        let kept = before + own + self.reserves.get(class).copied().unwrap_or(0);
        if self.take(kept) {
            return Ok(());
        }
        let wait = self.rate.time_of((kept + TOKEN).saturating_sub(self.bucket.level));
        Err(self.promise(class, who, wait, now))
    }

    /// Promises that nobody has claimed yet.
    pub fn waiting(&self) -> usize {
        self.promises.len()
    }

    /// Takes a token while `kept` stay.
    fn take(&mut self, kept: u64) -> bool {
        let left = self.bucket.level.checked_sub(TOKEN).filter(|left| *left >= kept);
        self.bucket.level = left.unwrap_or(self.bucket.level);
        left.is_some()
    }

    /// The earliest slot of `who` that is due, or as good as.
    fn next_slot_of(&self, who: &K, class: usize, now: Moment) -> Option<Moment> {
        let from = (class, who.clone(), Moment::ORIGIN);
        let to = (class, who.clone(), now + EARLY);
        self.promises.range(from..=to).next().map(|(_, _, slot)| *slot)
    }

    fn promise(&mut self, class: usize, who: &K, wait: Duration, now: Moment) -> Duration {
        if wait > SLOT_MAX || self.promises.len() >= PROMISES_MAX {
            let spread = self.rate.per_second.max(1).saturating_mul(30);
            self.beyond = (self.beyond + 1) % spread;
            return SLOT_MAX + self.rate.time_of(TOKEN) * self.beyond;
        }
        let slot = now + wait;
        if self.promises.insert((class, who.clone(), slot)) {
            self.by_slot.entry(slot).or_default().push((class, who.clone()));
            if let Some(promised) = self.promised.get_mut(class) {
                *promised += TOKEN;
            }
        }
        wait
    }

    fn take_back(&mut self, class: usize, who: &K, slot: Moment) {
        if self.promises.remove(&(class, who.clone(), slot))
            && let Some(promised) = self.promised.get_mut(class)
        {
            *promised = promised.saturating_sub(TOKEN);
        }
    }

    fn forget_unclaimed(&mut self, now: Moment) {
        while let Some(slot) = self.by_slot.first_key_value().map(|(slot, _)| *slot) {
            if slot + GRACE > now {
                return;
            }
            for (class, who) in self.by_slot.remove(&slot).unwrap_or_default() {
                self.take_back(class, &who, slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    fn gate(per_second: u32, burst: u32) -> Gate<u32, 4> {
        Gate::new(Rate { per_second, burst }, [0, 125, 250, 500], at(0))
    }

    /// Everybody comes at its moment, and again at the slot that it is told: when each got in, and how often each was
    /// refused.
    fn herd(
        gate: &mut Gate<u32, 4>,
        arrivals: impl IntoIterator<Item = (u64, u32, usize)>,
    ) -> Vec<(u32, u64, u32)> {
        let mut queue: BTreeSet<(Moment, u32, usize, u32)> =
            arrivals.into_iter().map(|(ms, who, class)| (at(ms), who, class, 0)).collect();
        let mut admitted = Vec::new();
        while let Some((now, who, class, refusals)) = queue.pop_first() {
            match gate.admit(&who, class, now) {
                Ok(()) => {
                    let ms = u64::try_from(now.since_origin().as_millis()).unwrap();
                    admitted.push((who, ms, refusals));
                }
                Err(wait) => {
                    assert!(refusals < 50, "{who} never gets in");
                    // As a message tells it: whole ms, rounded up.
                    let wait = Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap());
                    assert!(queue.insert((now + wait, who, class, refusals + 1)));
                }
            }
        }
        admitted
    }

    #[test]
    fn a_herd_is_refused_once_and_gets_in_as_fast_as_there_is_room() {
        let mut gate = gate(500, 1_000);
        let admitted = herd(&mut gate, (0..5_000).map(|who| (u64::from(who) / 100, who, 0)));
        assert!(admitted.iter().all(|(_, _, refusals)| *refusals <= 1));
        let last = admitted.iter().map(|(_, ms, _)| *ms).max().unwrap();
        assert!((7_900..8_100).contains(&last), "{last} ms");
        for second in 0..8 {
            let from = second * 1000;
            let within = admitted.iter().filter(|(_, ms, _)| (from..from + 1000).contains(ms)).count();
            assert!(within <= if second == 0 { 1_501 } else { 502 }, "{within} in second {second}");
        }
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn newcomers_do_not_take_what_was_promised() {
        let mut gate = gate(10, 4);
        let herd_then_newcomers =
            (0..24).map(|who| (0, who, 0)).chain((100..140).map(|who| (u64::from(who) * 10, who, 0)));
        let admitted = herd(&mut gate, herd_then_newcomers);
        for (who, ms, refusals) in &admitted {
            assert!(*refusals <= 1, "{who} was refused {refusals} times");
            assert!(*who >= 100 || *ms <= 2_000, "{who} got in at {ms} ms");
        }
        assert_eq!(admitted.len(), 64);
    }

    #[test]
    fn a_class_does_not_wait_for_promises_made_to_those_behind_it() {
        let mut gate = gate(100, 100);
        let new = (0..1_000).map(|who| (0, who, 3));
        let resumes = (2_000..2_150).map(|who| (50, who, 0));
        let admitted = herd(&mut gate, new.chain(resumes));
        let last = |from: u32, to: u32| {
            admitted.iter().filter(|(who, ..)| (from..to).contains(who)).map(|(_, ms, _)| *ms).max().unwrap()
        };
        assert!(last(2_000, 2_150) <= 1_100, "{}", last(2_000, 2_150));
        assert!((9_000..13_000).contains(&last(0, 1_000)), "{}", last(0, 1_000));
    }

    #[test]
    fn each_class_leaves_its_share_for_those_before_it() {
        let mut gate = gate(10, 80);
        let mut who = 0;
        let mut admitted = |class| {
            let mut count = 0;
            loop {
                who += 1;
                if gate.admit(&who, class, at(0)).is_err() {
                    return count;
                }
                count += 1;
            }
        };
        assert_eq!([admitted(3), admitted(2), admitted(1), admitted(0)], [40, 20, 10, 10]);
    }

    #[test]
    fn who_does_not_come_back_blocks_nobody_for_longer_than_the_grace() {
        let mut gate = gate(10, 1);
        assert!(gate.admit(&0, 0, at(0)).is_ok());
        let slots: Vec<_> = (1..=3).map(|who| gate.admit(&who, 0, at(0)).unwrap_err().as_millis()).collect();
        assert_eq!(slots, [100, 200, 300]);
        assert_eq!(gate.waiting(), 3);
        assert!(gate.admit(&9, 0, at(300) + GRACE).is_ok());
        assert_eq!((gate.waiting(), gate.by_slot.len()), (0, 0));
    }

    #[test]
    fn who_comes_a_little_early_keeps_its_slot() {
        let mut gate = gate(10, 1);
        assert!(gate.admit(&0, 0, at(0)).is_ok());
        assert_eq!(gate.admit(&1, 0, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(gate.admit(&1, 0, at(90)), Err(Duration::from_millis(10)));
        assert!(gate.admit(&1, 0, at(100)).is_ok());
    }

    #[test]
    fn slots_beyond_the_farthest_still_spread_and_are_not_remembered() {
        let mut gate = gate(10, 1);
        let waits: Vec<_> = (0..1_000).filter_map(|who| gate.admit(&who, 0, at(0)).err()).collect();
        assert_eq!(gate.waiting(), 300);
        let beyond: BTreeSet<_> = waits.iter().filter(|wait| **wait > SLOT_MAX).collect();
        assert!(beyond.len() >= 299, "{}", beyond.len());
        assert!(waits.iter().all(|wait| *wait <= SLOT_MAX * 2));
    }

    #[test]
    fn many_small_steps_refill_as_much_as_one_large_one() {
        let rate = Rate { per_second: 500, burst: 1_000 };
        let mut bucket = Bucket::full(rate, at(0));
        while bucket.take(rate, at(0)).is_ok() {}
        let mut taken = 0;
        for step in 1..=1_000 {
            let now = Moment::from_origin(Duration::from_micros(step * 1_900));
            taken += usize::from(bucket.take(rate, now).is_ok());
        }
        assert!((940..=951).contains(&taken), "{taken}");
    }
}
