//! Which paths a Controller opens, attaches, and gives up, so that its session outlives any broker: a pure machine
//! beside one [`Session`](crate::session::Session).
//!
//! ```text
//!            suspect, lost                              opened           ATTACHED
//!   settled ───────────────▶ recovery ─── attempts ────────────▶ attach ──────────▶ settled
//!      │                        ▲   └─ the old path speaks first: attach as standby ───▲
//!      │ drain, REPATH, ticket, │ the path that is left dies first                     │
//!      └ better, periodic ──▶ handover ── one attempt ── opened ── attach ── ATTACHED ─┘
//! ```
//! * The first attempt of a recovery starts at once, through another broker than the suspect, on a named route; the
//!   second through another broker again after max(300 ms, 3 srtt); at most three at a time. Failures are followed by
//!   100 ms·2ⁿ to 5 s with full jitter; a broker's RetryAfter is honoured.
//! * Nothing but the session itself, an end that the Target tells, or the session's window ends a session.
//! * A handover binds once it is attached; the session retires what it replaces.
//!
//! # How a driver uses it
//!
//! ```text
//! let mut plan = Planner::new(config, seed, now);
//! plan.adopt(path, epoch, opened, now);          // the path on which the session began
//! plan.handle_brokers(view);                     // and again whenever links or candidates change
//! plan.handle_ticket(ends, now);
//!
//! every event of the session:       plan.handle_session_event(&event, now)
//! a leg that ended:                 plan.handle_path_lost(path, now)        (beside session.path_lost)
//! what became of an Open:           plan.handle_opened | handle_open_failed
//! news of links and brokers:        plan.handle_drain | handle_link_lost | handle_network_changed
//! then, until nothing is left:      while let Some(action) = plan.poll_action() { … }
//! timer at plan.poll_timeout():     plan.handle_timeout(now)
//! ```
//! The driver carries every [`Action`] out at once and tells what came of it: an [`Action::Open`] always ends in
//! `handle_opened` or `handle_open_failed`, unless it was cancelled; an [`Action::Attach`] is `session.attach` and then
//! `handle_attaching`, in one step.

mod attempts;
mod brokers;
mod events;
mod follow;
mod order;
mod paths;
mod planner;
#[cfg(test)]
mod tests;
mod upkeep;

pub use order::{
    Action, AttemptId, BrokerView, OpenFailure, OpenOrder, OpenedPath, PlannerConfig, Reason, Report,
};
pub use planner::Planner;
