//! Two sessions over a line with a rate and a queue: what input waits for beside bulk, and how much of the line bulk
//! takes. No byte is checked here, so that minutes at 100 Mbit/s take seconds.
//!
//! ```text
//! session ─▶ connection (holds what it may not send yet) ─▶ queue ─▶ line: rate, distance ─▶ session
//! ```
//! The connection is as TCP's: it may have so much under way, twice as much after each round trip, and delivers in order,
//! so a loss holds up what is behind it for a round trip.

use std::collections::VecDeque;
use std::time::Duration;

use super::{End, Violation};
use crate::Moment;
use crate::session::attach::read_first;
use crate::session::{PathKey, ReadOutcome, Session, SessionConfig, SessionEvent};
use crate::wire::ChannelId;
use crate::wire::codes::{Class, Lane, Purpose};
use crate::wire::frame::OpenOptions;
use crate::wire::{InstanceId, SessionId};

const PATH: PathKey = PathKey(1);
const ENDS: [End; 2] = [End::Controller, End::Target];
/// Unsent bytes that a connection takes ahead.
const UNSENT_BYTES: usize = 32 * 1024;
const RECORD_BYTES: usize = 16;
const RECORD_INTERVAL: Duration = Duration::from_millis(10);
static BLOCK: [u8; 64 * 1024] = [0x5a; 64 * 1024];

/// The line between two ends, the same both ways.
#[derive(Debug, Clone)]
pub struct Line {
    /// Bits a second, and what they become at times since the start.
    pub rates: Vec<(Duration, u64)>,
    /// Both ways together, without any queue.
    pub round_trip: Duration,
    /// Bytes that a new connection may have under way; it doubles each round trip. `None`: any number.
    pub first_bytes: Option<u64>,
    /// Each so long something is lost.
    pub loss_each: Option<Duration>,
    /// From then on, each way takes so much longer.
    pub detour: Option<(Duration, Duration)>,
}

/// What the applications do.
#[derive(Debug, Clone)]
pub struct Load {
    /// Bulk channels that the Controller writes to without a pause.
    pub to_target: usize,
    /// The same from the Target.
    pub to_controller: usize,
    /// Bytes a second that the readers of bulk take; `None`: all at once.
    pub read_rate: Option<u64>,
    /// Bulk is written for the first of these spans, then not for the second, and so on.
    pub pauses: Option<(Duration, Duration)>,
    /// What is measured comes after this.
    pub warm_up: Duration,
    /// How long is measured.
    pub span: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Input's round trips over the line's, ascending.
    pub added: Vec<Duration>,
    /// Part of the line that bulk took, to the Target and to the Controller.
    pub used: [f64; 2],
}

impl Figures {
    /// The added round trip that so many of a hundred stay below.
    pub fn added_percentile(&self, percent: usize) -> Duration {
        let at = (self.added.len() * percent / 100).min(self.added.len().saturating_sub(1));
        self.added.get(at).copied().unwrap_or_default()
    }
}

/// One direction.
#[derive(Debug)]
struct Way {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// May be under way, and is.
    may: Option<u64>,
    under_way: u64,
    /// Arrivals, and when what arrived is known to have.
    line: VecDeque<(Moment, Vec<u8>)>,
    known: VecDeque<(Moment, u64)>,
    free_at: Moment,
    /// Nothing is delivered before: a loss is being repaired.
    held_until: Moment,
    next_loss: Option<Moment>,
}

/// The input: when the records that have not come back were sent, and when the next one is.
struct Records {
    sent: VecDeque<Moment>,
    next: Moment,
}

struct Rig<'a> {
    line: &'a Line,
    load: &'a Load,
    began: Moment,
    now: Moment,
    sessions: [Session; 2],
    ways: [Way; 2],
    bulk: [Vec<ChannelId>; 2],
    input: ChannelId,
    records: Records,
    measured: Figures,
    taken: [u64; 2],
    read_credit: [u64; 2],
}

/// Runs the load over the line.
///
/// # Errors
/// When the session breaks, or input does not come back.
pub fn run(line: &Line, load: &Load, config: &SessionConfig) -> Result<Figures, Violation> {
    let mut rig = Rig::new(line, load, config)?;
    rig.run_until(rig.began + Duration::from_secs(1) + line.round_trip * 3)?;
    rig.begin()?;
    let from = rig.now + load.warm_up;
    rig.run_until(from)?;
    rig.measured.added.clear();
    rig.taken = [0, 0];
    rig.run_until(from + load.span)?;
    let mut figures = std::mem::take(&mut rig.measured);
    if figures.added.is_empty() {
        return Err("no input came back".to_owned());
    }
    figures.added.sort();
    let whole = rig.rate() as f64 * load.span.as_secs_f64() / 8.0;
    figures.used = rig.taken.map(|bytes| bytes as f64 / whole);
    Ok(figures)
}

fn at(end: End) -> usize {
    usize::from(end == End::Target)
}

impl<'a> Rig<'a> {
    fn new(line: &'a Line, load: &'a Load, config: &SessionConfig) -> Result<Self, Violation> {
        let began = Moment::from_origin(Duration::from_secs(1000));
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut controller =
            Session::controller(config.clone(), SessionId([7; 16]), InstanceId([1; 16]), began);
        controller
            .attach(PATH, Purpose::NEW, Lane::INTERACTIVE, "ticket".to_owned(), began)
            .map_err(|error| text(&error))?;
        let mut first = Vec::new();
        controller.poll_transmit(PATH, began, 16 * 1024, &mut first);
        let (attach, used) = read_first(&first).map_err(|error| text(&error))?.ok_or("no ATTACH")?;
        let mut target = Session::target(config.clone(), attach.session, InstanceId([2; 16]), began);
        target.accept_attach(PATH, &attach, |_| true, began).map_err(|refused| format!("{refused:?}"))?;
        if used != first.len() {
            return Err("bytes behind ATTACH".to_owned());
        }
        let input = controller
            .open("echo".parse().map_err(|error| text(&error))?, Class::INPUT, OpenOptions::default())
            .map_err(|error| text(&error))?;
        let way = || Way {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            may: line.first_bytes,
            under_way: 0,
            line: VecDeque::new(),
            known: VecDeque::new(),
            free_at: began,
            held_until: began,
            next_loss: line.loss_each.map(|each| began + each),
        };
        Ok(Self {
            line,
            load,
            began,
            now: began,
            sessions: [controller, target],
            ways: [way(), way()],
            bulk: [Vec::new(), Vec::new()],
            input,
            records: Records { sent: VecDeque::new(), next: began },
            measured: Figures::default(),
            taken: [0, 0],
            read_credit: [0, 0],
        })
    }

    /// Opens the bulk channels.
    fn begin(&mut self) -> Result<(), Violation> {
        for (end, count) in ENDS.into_iter().zip([self.load.to_target, self.load.to_controller]) {
            for _ in 0..count {
                let service = "sink".parse().map_err(|error| format!("{error}"))?;
                let session = self.session(end)?;
                let opened = session.open(service, Class::BULK, OpenOptions::default());
                let id = opened.map_err(|error| error.to_string())?;
                self.bulk.get_mut(at(end)).ok_or("no such end")?.push(id);
            }
        }
        Ok(())
    }

    fn session(&mut self, end: End) -> Result<&mut Session, Violation> {
        self.sessions.get_mut(at(end)).ok_or_else(|| "no such end".to_owned())
    }

    /// Whether bulk is written now.
    fn writes(&self) -> bool {
        let since = self.now.since(self.began).as_micros();
        self.load.pauses.is_none_or(|(on, off)| since % (on + off).as_micros() < on.as_micros())
    }

    /// How long one way takes now.
    fn distance(&self) -> Duration {
        let longer = self.line.detour.filter(|(from, _)| self.began + *from <= self.now);
        self.line.round_trip / 2 + longer.map_or(Duration::ZERO, |(_, longer)| longer)
    }

    fn rate(&self) -> u64 {
        let past = self.line.rates.iter().take_while(|(from, _)| self.began + *from <= self.now);
        past.last().map_or(1, |(_, rate)| *rate)
    }

    fn run_until(&mut self, until: Moment) -> Result<(), Violation> {
        loop {
            self.applications()?;
            for end in ENDS {
                self.transmit(end)?;
            }
            let Some(next) = self.next_moment().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.arrive()?;
            for end in ENDS {
                let now = self.now;
                let session = self.session(end)?;
                if session.poll_timeout().is_some_and(|at| at <= now) {
                    session.handle_timeout(now);
                }
            }
        }
        self.now = until;
        Ok(())
    }

    fn next_moment(&self) -> Option<Moment> {
        let timers = self.sessions.iter().filter_map(Session::poll_timeout);
        // A driver's timer takes a while too.
        let timers = timers.map(|at| at.max(self.now + Duration::from_micros(100)));
        let ways = self.ways.iter().flat_map(|way| {
            let arrives = way.line.front().map(|(at, _)| (*at).max(way.held_until));
            [arrives, way.known.front().map(|(at, _)| *at)].into_iter().flatten()
        });
        timers.chain(ways).chain([self.records.next]).min()
    }

    /// Input is written each 10 ms and echoed, bulk is written and read.
    fn applications(&mut self) -> Result<(), Violation> {
        let (now, input) = (self.now, self.input);
        if self.records.next <= now {
            let taken = self.session(End::Controller)?.write(input, &[1; RECORD_BYTES]);
            if taken != Ok(RECORD_BYTES) {
                return Err(format!("input is not taken: {taken:?}"));
            }
            self.records.sent.push_back(now);
            self.records.next = now + RECORD_INTERVAL;
            self.read_credit = self.read_credit.map(|credit| {
                let more = self.load.read_rate.unwrap_or(u64::MAX / 200) / 100;
                if self.load.read_rate.is_some() { credit + more } else { u64::MAX }
            });
        }
        for end in ENDS {
            let bulk = self.bulk.get(at(end)).cloned().unwrap_or_default();
            let writes = self.writes();
            for id in bulk.iter().filter(|_| writes) {
                while self.session(end)?.write(*id, &BLOCK) == Ok(BLOCK.len()) {}
            }
            let peers = self.bulk.get(at(end.other())).cloned().unwrap_or_default();
            self.events(end)?;
            for id in peers {
                self.read_bulk(end, id)?;
            }
            self.read_input(end)?;
        }
        Ok(())
    }

    fn events(&mut self, end: End) -> Result<(), Violation> {
        while let Some(event) = self.session(end)?.poll_event() {
            if let SessionEvent::Offered { channel, .. } = event {
                self.session(end)?.accept(channel).map_err(|error| error.to_string())?;
            } else if matches!(
                event,
                SessionEvent::Suspect(_) | SessionEvent::Dead(_) | SessionEvent::Aborted { .. }
            ) {
                return Err(format!("{end:?}: {event:?}"));
            }
        }
        Ok(())
    }

    fn read_bulk(&mut self, end: End, id: ChannelId) -> Result<(), Violation> {
        loop {
            let Some(credit) = self.read_credit.get(at(end)).copied() else { return Ok(()) };
            let session = self.session(end)?;
            let Ok(waiting) = session.peek(id).map(<[u8]>::len) else { return Ok(()) };
            let count = u64::try_from(waiting).unwrap_or(u64::MAX).min(credit);
            if count == 0 {
                return Ok(());
            }
            session.consume(id, usize::try_from(count).unwrap_or(usize::MAX));
            if let (Some(taken), Some(credit)) =
                (self.taken.get_mut(at(end.other())), self.read_credit.get_mut(at(end)))
            {
                *taken += count;
                *credit -= if self.load.read_rate.is_some() { count } else { 0 };
            }
        }
    }

    /// The Target sends input back; the Controller notes when it came.
    fn read_input(&mut self, end: End) -> Result<(), Violation> {
        let (input, now, round_trip) = (self.input, self.now, self.line.round_trip);
        let mut record = [0; RECORD_BYTES];
        loop {
            let session = self.session(end)?;
            match session.read(input, &mut record) {
                Ok(ReadOutcome::Bytes(RECORD_BYTES)) => {}
                Ok(ReadOutcome::Empty) | Err(_) => return Ok(()),
                Ok(other) => return Err(format!("input: {other:?}")),
            }
            if end == End::Target {
                session.write(input, &record).map_err(|error| error.to_string())?;
            } else {
                let sent = self.records.sent.pop_front().ok_or("input came back twice")?;
                self.measured.added.push(now.since(sent).saturating_sub(round_trip));
            }
        }
    }

    fn transmit(&mut self, end: End) -> Result<(), Violation> {
        let (now, rate, distance) = (self.now, self.rate(), self.distance());
        loop {
            if let Some(way) = self.ways.get_mut(at(end)) {
                way.release(now, rate, distance);
                if way.waiting_bytes >= UNSENT_BYTES {
                    return Ok(());
                }
            }
            let session = self.session(end)?;
            let budget = session.transmit_budget(PATH);
            let mut bytes = Vec::new();
            if !session.poll_transmit(PATH, now, budget, &mut bytes) {
                return Ok(());
            }
            if let Some(way) = self.ways.get_mut(at(end)) {
                way.waiting_bytes += bytes.len();
                way.waiting.push_back(bytes);
            }
        }
    }

    fn arrive(&mut self) -> Result<(), Violation> {
        let (now, distance) = (self.now, self.distance());
        for end in ENDS {
            let Some(way) = self.ways.get_mut(at(end)) else { continue };
            way.lose(now, self.line.loss_each, distance * 2);
            let mut came = Vec::new();
            while way.held_until <= now && way.line.front().is_some_and(|(at, _)| *at <= now) {
                let Some((_, bytes)) = way.line.pop_front() else { break };
                way.known.push_back((now + distance, bytes.len() as u64));
                came.push(bytes);
            }
            way.learn(now);
            for bytes in came {
                let fault = self.session(end.other())?.handle_bytes(PATH, &bytes, now).err();
                if let Some(fault) = fault {
                    return Err(fault.to_string());
                }
            }
        }
        Ok(())
    }
}

impl Way {
    /// Lets go what may go.
    fn release(&mut self, now: Moment, rate: u64, distance: Duration) {
        while self.may.is_none_or(|may| self.under_way < may)
            && let Some(bytes) = self.waiting.pop_front()
        {
            self.waiting_bytes -= bytes.len();
            self.under_way += bytes.len() as u64;
            let micros = (bytes.len() as u64 * 8_000_000).div_ceil(rate);
            self.free_at = self.free_at.max(now) + Duration::from_micros(micros);
            self.line.push_back((self.free_at + distance, bytes));
        }
    }

    /// The sending end hears what has arrived.
    fn learn(&mut self, now: Moment) {
        while self.known.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, bytes)) = self.known.pop_front() else { return };
            self.under_way -= bytes;
            self.may = self.may.map(|may| if self.under_way + bytes >= may / 2 { may + bytes } else { may });
        }
    }

    fn lose(&mut self, now: Moment, each: Option<Duration>, round_trip: Duration) {
        if let (Some(at), Some(each)) = (self.next_loss, each)
            && at <= now
        {
            self.held_until = now + round_trip;
            self.next_loss = Some(now + each);
        }
    }
}
