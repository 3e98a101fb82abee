//! Through which broker the next path goes, and by which route to the Target.

use std::collections::BTreeMap;
use std::time::Duration;

use super::order::BrokerView;
use crate::Moment;
use crate::wire::frame::Where;
use crate::wire::{BrokerId, InstanceId};

/// Brokers that refusals and drains have named and that are kept.
const ALTERNATES_MAX: usize = 8;
/// Brokers that one open may ask to avoid.
const AVOID_MAX: usize = 4;
/// How long a broker that could not be reached comes after the others.
const FAILED_KEPT: Duration = Duration::from_secs(30);
/// Longest time that a broker may ask us to stay away.
const STAY_AWAY_MAX: Duration = Duration::from_secs(60);

/// What is known of the brokers around a session.
#[derive(Debug, Default)]
pub(super) struct Brokers {
    /// As the driver ranks them, best first.
    view: Vec<BrokerView>,
    /// Named by others; after all of the view.
    alternates: Vec<BrokerId>,
    not_before: BTreeMap<BrokerId, Moment>,
    draining: BTreeMap<BrokerId, Moment>,
    /// Until when brokers that could not be reached come after the others.
    failed: BTreeMap<BrokerId, Moment>,
    place: Option<Where>,
}

/// One way to the Target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) via: BrokerId,
    pub(super) route: Vec<BrokerId>,
    pub(super) avoid: Vec<BrokerId>,
}

/// What a choice has to keep in mind.
pub(super) struct Doubts<'a> {
    /// Brokers of paths that are silent, lost, or to be left.
    pub(super) doubtful: &'a [BrokerId],
    /// Brokers that this move went through already, each as often as it did.
    pub(super) tried: &'a [BrokerId],
}

impl Doubts<'_> {
    fn times(&self, broker: &BrokerId) -> usize {
        self.tried.iter().filter(|tried| *tried == broker).count()
    }

    fn holds(&self, broker: &BrokerId) -> bool {
        self.doubtful.contains(broker)
    }
}

impl Brokers {
    pub(super) fn set_view(&mut self, view: Vec<BrokerView>) {
        self.view = view;
    }

    pub(super) fn note_alternates(&mut self, named: &[BrokerId]) {
        for broker in named {
            self.alternates.retain(|known| known != broker);
            self.alternates.push(broker.clone());
        }
        let surplus = self.alternates.len().saturating_sub(ALTERNATES_MAX);
        self.alternates.drain(..surplus);
    }

    pub(super) fn note_draining(&mut self, broker: BrokerId, until: Moment) {
        if self.draining.len() < ALTERNATES_MAX || self.draining.contains_key(&broker) {
            self.draining.insert(broker, until);
        }
    }

    /// The broker asks us to stay away for `span`.
    pub(super) fn stay_away(&mut self, broker: &BrokerId, span: Duration, now: Moment) {
        self.not_before.retain(|_, at| *at > now);
        self.not_before.insert(broker.clone(), now + span.min(STAY_AWAY_MAX));
    }

    /// The broker could not be reached, or its control link was lost.
    pub(super) fn note_failed(&mut self, broker: &BrokerId, now: Moment) {
        self.failed.retain(|_, until| *until > now);
        self.failed.insert(broker.clone(), now + FAILED_KEPT);
    }

    /// A path through the broker was opened.
    pub(super) fn note_worked(&mut self, broker: &BrokerId) {
        self.failed.remove(broker);
    }

    fn has_failed(&self, broker: &BrokerId, now: Moment) -> bool {
        self.failed.get(broker).is_some_and(|until| now < *until)
    }

    pub(super) fn set_place(&mut self, place: Where) {
        self.place = Some(place);
    }

    /// The instance of the Target that last told where it is.
    pub(super) fn instance(&self) -> Option<InstanceId> {
        self.place.as_ref().map(|place| place.instance)
    }

    pub(super) fn is_draining(&self, broker: &BrokerId, now: Moment) -> bool {
        self.draining.get(broker).is_some_and(|until| now < *until)
    }

    /// When a broker that is stayed away from may be asked again.
    pub(super) fn next_free(&self, now: Moment) -> Option<Moment> {
        self.not_before.values().copied().filter(|at| *at > now).min()
    }

    /// The best way that `doubts` leave: least tried (what just failed counts as tried), not draining, not doubtful, linked, best ranked.
    pub(super) fn choose(&self, doubts: &Doubts<'_>, now: Moment) -> Option<Way> {
        let known = self.view.iter().map(|view| (&view.broker, view.linked));
        let named =
            self.alternates.iter().filter(|broker| !self.view.iter().any(|view| view.broker == **broker));
        let free = known
            .chain(named.map(|broker| (broker, false)))
            .filter(|(broker, _)| self.not_before.get(*broker).is_none_or(|at| *at <= now));
        let (via, _) = free
            .enumerate()
            .min_by_key(|(rank, (broker, linked))| {
                let (times, failed) = (doubts.times(broker), self.has_failed(broker, now));
                (
                    times + usize::from(failed),
                    self.is_draining(broker, now),
                    doubts.holds(broker),
                    !linked,
                    *rank,
                )
            })?
            .1;
        Some(self.way(via, doubts, now))
    }

    /// Names a place of the Target that nothing speaks against; else the first broker locates it.
    fn way(&self, via: &BrokerId, doubts: &Doubts<'_>, now: Moment) -> Way {
        let mut avoid: Vec<BrokerId> = self
            .draining
            .iter()
            .filter(|(_, until)| now < **until)
            .map(|(broker, _)| broker.clone())
            .collect();
        let places = self.place.iter().flat_map(|place| &place.places).map(|(broker, ..)| broker);
        let sound: Vec<&BrokerId> =
            places.filter(|broker| !doubts.holds(broker) && !self.is_draining(broker, now)).collect();
        let mut route = Vec::new();
        if let Some(first) = sound.first()
            && !sound.contains(&via)
        {
            route.push((*first).clone());
        }
        if !sound.is_empty() {
            avoid.extend(doubts.doubtful.iter().cloned());
        }
        avoid.retain(|broker| broker != via && !route.contains(broker));
        avoid.sort();
        avoid.dedup();
        avoid.truncate(AVOID_MAX);
        Way { via: via.clone(), route, avoid }
    }
}
