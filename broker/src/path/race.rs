//! Attempts of one open beside each other: the first far end wins, the others are closed, which cancels what follows
//! from them.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::{PathFailure, Purpose};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::far::{AttemptFault, FarEnd, OpenContext, along, invite};
use super::watch::{Look, Watch, woken};
use crate::core::registry::Registration;
use crate::core::search::Search;
use crate::links::ControlHandle;
use crate::mesh::{Located, hedge_after};

/// Attempts of one open at a time.
const ATTEMPTS_MAX: usize = 3;

/// One way to the Target.
pub(super) enum Attempt {
    /// Over its link here.
    Here(Box<Registration<ControlHandle>>),
    /// Over other brokers.
    Along(Vec<BrokerId>),
}

/// What a task of a race brings.
enum Finding {
    Here(u32, Result<FarEnd, AttemptFault>),
    Along(u32, Result<FarEnd, AttemptFault>),
    Located(Located),
}

/// An attempt that runs.
struct Runner {
    task: AbortHandle,
    /// The brokers that it goes over.
    route: Vec<BrokerId>,
}

struct Race<'c> {
    context: &'c OpenContext,
    tasks: JoinSet<Finding>,
    /// A question to the mesh is none.
    running: BTreeMap<u32, Runner>,
    next: u32,
    hedge_at: Instant,
}

impl Race<'_> {
    fn start(&mut self, attempt: Attempt) {
        let (context, mesh) = (self.context.clone(), &self.context.node.mesh);
        let number = self.next;
        self.next += 1;
        let (task, route) = match attempt {
            Attempt::Here(registration) => {
                self.hedge_at = Instant::now() + hedge_after(registration.cost_us);
                let invited =
                    async move { Finding::Here(number, Box::pin(invite(&context, *registration)).await) };
                (self.tasks.spawn(invited), Vec::new())
            }
            Attempt::Along(route) => {
                self.hedge_at = Instant::now() + mesh.hedge_after(&route);
                let brokers = route.clone();
                let opened = async move { Finding::Along(number, along_or_direct(context, route).await) };
                (self.tasks.spawn(opened), brokers)
            }
        };
        self.running.insert(number, Runner { task, route });
    }

    /// The first attempt is slow: another one beside it, or a question where else the Target is.
    fn hedge(&mut self, search: &mut Search) {
        if let Some(route) = search.next_candidate() {
            return self.start(Attempt::Along(route));
        }
        self.hedge_at = self.context.deadline + Duration::from_secs(1);
        if search.begin_locate() && self.context.node.mesh.linked_count() > 0 {
            let context = self.context.clone();
            self.tasks.spawn(async move {
                let (node, open) = (&context.node, &context.open);
                Finding::Located(node.mesh.locate(node, &open.target, open.instance, open.purpose).await)
            });
        }
    }

    /// The Target has registered somewhere meanwhile: an attempt there beside those that run.
    fn follow(&mut self, search: &mut Search, watch: &mut Option<Watch>) {
        *watch = None;
        if let Look::Here(registration) = Watch::look(self.context, watch, search) {
            return self.start(Attempt::Here(registration));
        }
        if let Some(route) = search.next_candidate() {
            self.start(Attempt::Along(route));
        }
    }

    /// For a resume a broker that says nothing is not waited for: the Controller may have a better way.
    fn located(&mut self, search: &mut Search, located: Located) {
        if located.found.is_empty() && self.context.open.purpose == Purpose::RESUME {
            let is_silent = |runner: &&Runner| runner.route.iter().any(|b| located.unknown.contains(b));
            self.running.values().filter(is_silent).for_each(|runner| runner.task.abort());
        }
        search.located(located.found, located.unknown.len());
        self.hedge_at = Instant::now();
    }
}

/// Makes one attempt, and others beside it when it is slow or the Target comes elsewhere.
pub(super) async fn attempts(
    context: &OpenContext,
    search: &mut Search,
    watch: &mut Option<Watch>,
    first: Attempt,
) -> Option<FarEnd> {
    let mut race = Race {
        context,
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
        next: 0,
        hedge_at: context.deadline,
    };
    race.start(first);
    while !race.running.is_empty() {
        let has_room = race.running.len() < ATTEMPTS_MAX;
        tokio::select! {
            biased;
            Some(done) = race.tasks.join_next() => match done {
                Ok(Finding::Located(located)) => race.located(search, located),
                Ok(Finding::Here(_, Ok(far)) | Finding::Along(_, Ok(far))) => return Some(far),
                Ok(Finding::Here(number, Err(fault))) => {
                    race.running.remove(&number);
                    search.invite_failed(fault.code());
                }
                Ok(Finding::Along(number, Err(fault))) => {
                    race.running.remove(&number);
                    search.attempt_failed(fault.code().unwrap_or(PathFailure::NOT_HERE));
                }
                Err(gone) => {
                    race.running.retain(|_, runner| runner.task.id() != gone.id());
                    if !gone.is_cancelled() {
                        search.attempt_failed(PathFailure::INTERNAL);
                    }
                }
            },
            () = woken(watch), if has_room => race.follow(search, watch),
            () = tokio::time::sleep_until(race.hedge_at), if has_room => race.hedge(search),
        }
    }
    None
}

/// A located broker is reached over a third one where that is faster, and directly when the detour fails. A route
/// that the Controller named is followed as it is.
async fn along_or_direct(context: OpenContext, route: Vec<BrokerId>) -> Result<FarEnd, AttemptFault> {
    if context.open.route != route {
        let detour = context.node.mesh.with_detour(&context.open.avoid, &route, context.node.now());
        if detour != route
            && let Ok(far) = along(context.clone(), detour).await
        {
            return Ok(far);
        }
    }
    along(context, route).await
}
