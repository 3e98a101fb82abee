//! What happened in a daemon: a bounded ring for those who ask later, and subscribers who are told at once.
//!
//! Every event is also a log line (target `rc_event`). A slow subscriber loses the oldest events and is told how
//! many; it never holds the daemon up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::admin::{AdminError, Responder};
use crate::clock::unix_ms;

/// How many events are kept, and how far a subscriber may be behind; the oldest go first.
pub const EVENTS_MAX: usize = 1024;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Odd but normal.
    Debug,
    /// A change a user can see.
    Info,
    /// Needs a look.
    Warn,
    /// Broken.
    Error,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up from 1 in one process, without gaps.
    pub seq: u64,
    /// Wall time.
    pub unix_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in words joined by dots (`path.opened`).
    pub kind: String,
    /// With whom and how.
    pub fields: Map<String, Value>,
}

/// An event on its way into the ring.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    severity: Severity,
    kind: &'static str,
    fields: Map<String, Value>,
}

impl Entry {
    /// An event of `kind`.
    pub fn new(severity: Severity, kind: &'static str) -> Self {
        Self { severity, kind, fields: Map::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a field as its text: ids, addresses, errors.
    #[must_use]
    pub fn with_text(self, name: &str, value: impl std::fmt::Display) -> Self {
        self.with(name, value.to_string())
    }
}

/// The ring; clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug)]
struct Ring {
    last_seq: u64,
    kept: VecDeque<Arc<Event>>,
    subscribers: broadcast::Sender<Arc<Event>>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl EventLog {
    /// An empty ring.
    pub fn new() -> Self {
        let (subscribers, _) = broadcast::channel(EVENTS_MAX);
        let ring = Ring { last_seq: 0, kept: VecDeque::with_capacity(EVENTS_MAX), subscribers };
        Self { ring: Arc::new(Mutex::new(ring)) }
    }

    /// Records what happened now, tells the subscribers and writes a log line.
    pub fn record(&self, entry: Entry) -> Arc<Event> {
        log_line(&entry);
        let mut ring = self.lock();
        ring.last_seq += 1;
        let event = Arc::new(Event {
            seq: ring.last_seq,
            unix_ms: unix_ms(),
            severity: entry.severity,
            kind: entry.kind.to_owned(),
            fields: entry.fields,
        });
        if ring.kept.len() == EVENTS_MAX {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::clone(&event));
        // Nobody listening is no error.
        ring.subscribers.send(Arc::clone(&event)).unwrap_or_default();
        event
    }

    /// The events that are kept with a number above `after`, oldest first.
    pub fn since(&self, after: u64) -> Vec<Arc<Event>> {
        self.lock().kept.iter().filter(|event| event.seq > after).cloned().collect()
    }

    /// All that is kept above `after`, then everything that happens, without gap or repetition.
    pub fn subscribe(&self, after: u64) -> Subscription {
        let ring = self.lock();
        let backlog: VecDeque<_> = ring.kept.iter().filter(|event| event.seq > after).cloned().collect();
        let first_kept = ring.kept.front().map_or(ring.last_seq + 1, |event| event.seq);
        let missed = first_kept.saturating_sub(after.saturating_add(1));
        Subscription { missed, backlog, live: ring.subscribers.subscribe() }
    }

    /// Answers the admin command `events`: with `{"follow": true}` until the asker leaves, with `{"since": N}` only
    /// what came after event N. A loss is told as `{"missed": n}`.
    ///
    /// # Errors
    /// The arguments are wrong, or the asker has left.
    pub async fn serve(&self, args: &Value, responder: &mut Responder) -> Result<Value, AdminError> {
        let wanted =
            EventsArgs::deserialize(args).map_err(|error| AdminError::bad_request(error.to_string()))?;
        let mut subscription = self.subscribe(wanted.since);
        if wanted.since == 0 {
            // Whoever asks from the beginning knows that it may be gone.
            subscription.missed = 0;
        }
        while let Some(delivery) = subscription.next_if(wanted.follow).await {
            match delivery {
                Delivery::Event(event) => responder.send(&*event).await?,
                Delivery::Missed(missed) => responder.send(&serde_json::json!({ "missed": missed })).await?,
            }
        }
        Ok(Value::Null)
    }

    /// The ring is whole after each step, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsArgs {
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    since: u64,
}

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// Something happened.
    Event(Arc<Event>),
    /// So many events are lost to this subscriber, because it was slow or asked too late.
    Missed(u64),
}

/// One subscriber's place in the stream of events.
#[derive(Debug)]
pub struct Subscription {
    missed: u64,
    backlog: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<Arc<Event>>,
}

impl Subscription {
    /// The next event or loss; nothing when the ring is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Delivery> {
        if let Some(delivery) = self.next_kept() {
            return Some(delivery);
        }
        match self.live.recv().await {
            Ok(event) => Some(Delivery::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Delivery::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    fn next_kept(&mut self) -> Option<Delivery> {
        match std::mem::take(&mut self.missed) {
            0 => self.backlog.pop_front().map(Delivery::Event),
            missed => Some(Delivery::Missed(missed)),
        }
    }

    async fn next_if(&mut self, follow: bool) -> Option<Delivery> {
        if follow { self.next().await } else { self.next_kept() }
    }
}

fn log_line(entry: &Entry) {
    let (kind, fields) = (entry.kind, LazyJson(&entry.fields));
    match entry.severity {
        Severity::Debug => tracing::debug!(target: "rc_event", kind, %fields),
        Severity::Info => tracing::info!(target: "rc_event", kind, %fields),
        Severity::Warn => tracing::warn!(target: "rc_event", kind, %fields),
        Severity::Error => tracing::error!(target: "rc_event", kind, %fields),
    }
}

/// Formats only when a subscriber of the log wants the line.
struct LazyJson<'a>(&'a Map<String, Value>);

impl std::fmt::Display for LazyJson<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self.0).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(delivery: Option<Delivery>) -> u64 {
        match delivery {
            Some(Delivery::Event(event)) => event.seq,
            other => panic!("no event: {other:?}"),
        }
    }

    fn record(log: &EventLog, count: usize) {
        for number in 0..count {
            log.record(Entry::new(Severity::Debug, "test.step").with("number", number));
        }
    }

    #[test]
    fn an_event_carries_its_fields_and_a_number_without_gaps() {
        let log = EventLog::new();
        let first =
            log.record(Entry::new(Severity::Info, "path.opened").with("hops", 2).with_text("who", "a/b"));
        let second = log.record(Entry::new(Severity::Warn, "path.lost"));
        assert_eq!((first.seq, second.seq), (1, 2));
        assert_eq!(
            serde_json::to_value(&first.fields).unwrap(),
            serde_json::json!({"hops": 2, "who": "a/b"})
        );
        assert_eq!(log.since(1), [second]);
    }

    #[test]
    fn the_ring_keeps_the_newest_and_no_more_than_its_limit() {
        let log = EventLog::new();
        record(&log, EVENTS_MAX + 10);
        let kept = log.since(0);
        assert_eq!(kept.len(), EVENTS_MAX);
        assert_eq!(kept[0].seq, 11);
    }

    #[tokio::test]
    async fn a_subscriber_gets_backlog_and_news_without_gap_or_repetition() {
        let log = EventLog::new();
        record(&log, 3);
        let mut subscription = log.subscribe(1);
        record(&log, 1);
        let got =
            [seq(subscription.next().await), seq(subscription.next().await), seq(subscription.next().await)];
        assert_eq!(got, [2, 3, 4]);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_how_many_it_missed() {
        let log = EventLog::new();
        let mut subscription = log.subscribe(0);
        record(&log, EVENTS_MAX + 5);
        assert_eq!(subscription.next().await, Some(Delivery::Missed(5)));
        assert_eq!(seq(subscription.next().await), 6);
    }

    #[tokio::test]
    async fn who_asks_for_events_that_are_gone_is_told_how_many() {
        let log = EventLog::new();
        record(&log, EVENTS_MAX + 5);
        let mut subscription = log.subscribe(2);
        assert_eq!(subscription.next().await, Some(Delivery::Missed(3)));
        assert_eq!(seq(subscription.next().await), 6);
    }

    #[tokio::test]
    async fn a_subscription_ends_with_its_ring() {
        let log = EventLog::new();
        record(&log, 1);
        let mut subscription = log.subscribe(0);
        drop(log);
        assert_eq!(seq(subscription.next().await), 1);
        assert_eq!(subscription.next().await, None);
    }
}
