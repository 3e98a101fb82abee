//! Takes the answers from a running broker.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::{CounterStatus, LinkStatus, MeshStatus, PathStatus, RegistrationStatus, Status, UsageStatus};
use crate::control::{peer_name, peer_role};
use crate::core::paths::PathState;
use crate::node::{Node, millis};

pub(crate) fn status(node: &Node, listening: &[SocketAddr]) -> Status {
    let now = node.now();
    let (phase, usage) = (node.lifetime.phase(), node.usage());
    let counts = node.mesh.counts(now);
    Status {
        id: node.own.id.clone(),
        incarnation: node.own.incarnation,
        listening: listening.to_vec(),
        advertised: (node.own.name.clone(), node.own.addresses.clone()),
        accepting: phase.is_accepting(),
        drain_deadline_ms: phase.deadline_ms(now),
        drain_cause: phase.cause(),
        load: node.load(),
        usage: UsageStatus {
            paths: usage.paths,
            registrations: usage.registrations,
            control_links: usage.control_links,
            waiting_legs: node.paths.waiting.count(),
            tracked_targets: node.presence.tracked_count(),
            tasks: node.lifetime.tasks.len(),
            held_bytes: node.paths.held_bytes(),
        },
        mesh: MeshStatus {
            healthy: node.mesh.is_healthy(now),
            linked: node.mesh.linked_count(),
            counted: counts.counted,
            known: counts.known,
        },
        counters: counters(node),
    }
}

fn counters(node: &Node) -> CounterStatus {
    let counters = &node.record.counters;
    CounterStatus {
        connections: counters.connections.load(Ordering::Relaxed),
        connections_silent: counters.connections_silent.load(Ordering::Relaxed),
        connections_refused: counters.connections_refused.load(Ordering::Relaxed),
        connections_over_rate: counters.connections_over_rate.load(Ordering::Relaxed),
        messages_refused: counters.messages_refused.load(Ordering::Relaxed),
        paths_opened: counters.paths_opened.load(Ordering::Relaxed),
        paths_failed: counters.paths_failed.load(Ordering::Relaxed),
        bytes_carried: counters.bytes_carried.load(Ordering::Relaxed),
    }
}

pub(crate) fn links(node: &Node) -> Vec<LinkStatus> {
    let peers = node.mesh.links().into_iter().map(|(id, link)| LinkStatus {
        role: "broker",
        id: id.to_string(),
        remote: link.remote,
        dialled: Some(link.dialled),
        round_trip_us: Some(link.round_trip_us()),
    });
    let endpoints = node.links.all().into_iter().map(|(_, link)| LinkStatus {
        role: peer_role(&link.peer),
        id: peer_name(&link.peer).to_owned(),
        remote: link.remote,
        dialled: None,
        round_trip_us: None,
    });
    peers.chain(endpoints).collect()
}

pub(crate) fn paths(node: &Node) -> Vec<PathStatus> {
    let now = node.now();
    let status = |entry: crate::core::paths::PathEntry<crate::path::PathHandle>| {
        let (to, since) = match entry.state {
            PathState::Opening => (None, None),
            PathState::Open { to, since } => (to, Some(since)),
        };
        let meter = &entry.handle.meter;
        PathStatus {
            path: entry.request.path,
            controller: entry.request.controller,
            target: entry.request.target,
            purpose: entry.request.purpose,
            lane: entry.request.lane,
            part: entry.request.part,
            from: entry.request.from,
            to,
            open: since.is_some(),
            age_ms: since.map(|since| millis(now.since(since))),
            bytes: (meter.forward.load(Ordering::Relaxed), meter.backward.load(Ordering::Relaxed)),
        }
    };
    node.paths.all().into_iter().map(status).collect()
}

pub(crate) fn registrations(node: &Node) -> Vec<RegistrationStatus> {
    let status = |(target, found): (_, crate::core::registry::Registration<_>)| RegistrationStatus {
        target,
        instance: found.claim.instance,
        generation: found.claim.generation,
        role: found.claim.role,
        round_trip_us: found.cost_us,
    };
    node.presence.registrations().into_iter().map(status).collect()
}
