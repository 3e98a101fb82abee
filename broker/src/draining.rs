//! Drain: tells everybody on every path where to go and when, and waits until this broker may stop.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_daemon::events::Severity;
use rc_proto::wire::message::Drain;
use rc_proto::wire::{BrokerId, Ext, PathId};
use rc_transport::ControlPeer;
use tokio::time::sleep;

use crate::core::drain::{
    DrainCause, Hearer, Phase, Remains, SESSION_KEPT, SLOTS_PER_DRAIN_MAX, hearers_behind, own_hearers, slots,
};
use crate::core::paths::PathRequest;
use crate::node::{Node, millis};

/// How often a draining broker looks whether it may stop.
const POLL: Duration = Duration::from_millis(50);

/// Starts to drain; `false` when it drains already.
pub(crate) fn begin(node: &Node, cause: DrainCause) -> bool {
    let (now, deadline) = (node.now(), node.timers.drain);
    let began = node.lifetime.phase.send_if_modified(|phase| {
        let serves = phase.is_accepting();
        if serves {
            *phase = Phase::Draining { deadline: now + deadline, cause };
        }
        serves
    });
    if !began {
        return false;
    }
    let severity = if cause == DrainCause::Request { Severity::Info } else { Severity::Error };
    let entry = node.event(severity, "broker.draining").with("paths", node.paths.count());
    node.record(entry.with("deadline_ms", millis(deadline)).with("cause", cause.label()));
    let paths = node.paths.requests();
    let ids: Vec<PathId> = paths.iter().map(|(request, _)| request.path).collect();
    let slots: BTreeMap<PathId, u32> =
        slots(&ids, deadline, node.timers.drain_spread, &mut rand::rng()).into_iter().collect();
    tell_everybody(node, millis(deadline), own_hearers(&paths, &slots));
    true
}

/// Every peer and every endpoint hears it; who has paths here also hears when each is to move.
fn tell_everybody(node: &Node, deadline_ms: u32, mut hearers: BTreeMap<Hearer, Vec<(PathId, u32)>>) {
    for (peer, link) in node.mesh.links() {
        let slots = hearers.remove(&Hearer::Peer(peer)).unwrap_or_default();
        in_parts(deadline_ms, &[], slots).into_iter().for_each(|drain| link.send(drain));
    }
    let alternates = node.alternates();
    for (_, link) in node.links.all() {
        let hearer = match &link.peer {
            ControlPeer::Controller(id) => Hearer::Controller(id.clone()),
            ControlPeer::Target(id) => Hearer::Target(id.clone()),
            ControlPeer::TrafficManager(_) => continue,
        };
        let slots = hearers.get(&hearer).cloned().unwrap_or_default();
        for drain in in_parts(deadline_ms, &alternates, slots) {
            link.handle.send(drain);
        }
    }
}

/// One word, or several when there are more slots than one carries.
fn in_parts(deadline_ms: u32, alternates: &[(BrokerId, String)], slots: Vec<(PathId, u32)>) -> Vec<Drain> {
    let part =
        |slots: Vec<_>| Drain { deadline_ms, alternates: alternates.to_vec(), slots, ext: Ext::none() };
    if slots.is_empty() {
        return vec![part(slots)];
    }
    slots.chunks(SLOTS_PER_DRAIN_MAX).map(|slots| part(slots.to_vec())).collect()
}

/// A path that opens while this broker drains has missed the word that everybody got: it moves at once.
pub(crate) fn tell_late(node: &Node, request: &PathRequest, to: Option<&BrokerId>) {
    let Some(deadline_ms) = node.lifetime.phase().deadline_ms(node.now()) else { return };
    let paths = [(request.clone(), to.cloned())];
    let alternates = node.alternates();
    for (hearer, slots) in own_hearers(&paths, &BTreeMap::new()) {
        tell(node, &hearer, &Drain { deadline_ms, alternates: alternates.clone(), slots, ext: Ext::none() });
    }
}

/// `peer` said that paths have to move, since it stops or a broker behind it does: whoever else is on them is told.
pub(crate) fn pass_on(node: &Node, peer: &BrokerId, drain: &Drain) {
    let stops = drain.peer().unwrap_or_else(|| peer.clone());
    let mut alternates = node.alternates();
    alternates.retain(|(broker, _)| *broker != stops);
    for (hearer, slots) in hearers_behind(peer, &drain.slots, &node.paths.requests()) {
        for part in in_parts(drain.deadline_ms, &alternates, slots) {
            tell(node, &hearer, &part.of_peer(&stops));
        }
    }
}

fn tell(node: &Node, hearer: &Hearer, drain: &Drain) {
    let endpoint = match hearer {
        Hearer::Peer(peer) => return node.mesh.send_to(peer, drain.clone()),
        Hearer::Controller(id) => ControlPeer::Controller(id.clone()),
        Hearer::Target(id) => ControlPeer::Target(id.clone()),
    };
    for link in node.links.of(&endpoint) {
        link.send(drain.clone());
    }
}

/// Waits until this broker, which drains, may stop.
pub(crate) async fn wait(node: &Node) {
    let mut empty_since = None;
    loop {
        let now = node.now();
        let remains = Remains {
            paths: node.paths.count(),
            registrations: node.presence.registration_count(),
            has_alternate: !node.alternates().is_empty(),
            broke_lately: node.paths.broke_within(SESSION_KEPT, now),
        };
        // A resume may open a path at any moment, also while idle Targets are waited for.
        empty_since = if remains.paths == 0 { empty_since.or(Some(now)) } else { None };
        if node.lifetime.phase().may_stop(remains, empty_since, now) {
            return;
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_carries_a_thousand_slots_at_most_and_fits_into_a_message() {
        for (count, parts) in [(0, 1), (999, 1), (1_000, 1), (1_001, 2), (10_000, 10)] {
            let slots: Vec<_> = (0..count).map(|number| (PathId([0xff; 16]), u32::MAX - number)).collect();
            let alternate = ("r/".to_owned() + &"b".repeat(64)).parse().unwrap();
            let alternates = vec![(alternate, "n".repeat(255)); 16];
            let words = in_parts(60_000, &alternates, slots.clone());
            assert_eq!(words.len(), parts, "{count}");
            let told: Vec<_> = words.iter().flat_map(|word| word.slots.clone()).collect();
            assert_eq!(told, slots);
            for word in words {
                assert!(rc_proto::wire::message::Message::from(word).to_bytes().is_ok(), "{count}");
            }
        }
    }
}
