//! Who is a member of the mesh, and whether this broker sees enough of it.
//!
//! A member that this broker was linked to within [`COUNTED`] counts; after [`KEPT`] without anybody being linked
//! to it, it is dropped. What gossip adds is only a hint where to dial: a peer that invents members can cost dials,
//! never this broker's view of its own health. One that left by Drain does not count until it is linked again.
//!
//! ```text
//!          handle_gossip          handle_linked            handle_link_lost
//! unknown ───────────────▶ Heard ───────────────▶ Linked ───────────────────▶ Down ──(1 h)──▶ unknown
//!                                                    └── handle_drain ─▶ Left ──(1 h)──▶ unknown
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use super::link::{LinkClaim, LinkDecision, decide_link};
use crate::Moment;
use crate::wire::message::PeerEntry;
use crate::wire::{BrokerId, Incarnation, limits};

/// Linked within this time counts.
pub const COUNTED: Duration = Duration::from_secs(10 * 60);
/// After this time without a link the member is dropped.
pub const KEPT: Duration = Duration::from_secs(3600);
/// Members that are remembered.
pub const MEMBERS_MAX: usize = limits::PEERS_MAX;
/// Replaced incarnations remembered per member.
const REPLACED_MAX: usize = 4;
/// Distance of two Peers messages, ± 20 %.
pub const GOSSIP_INTERVAL: Duration = Duration::from_secs(30);

/// Where a member says that it can be dialled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberHint {
    /// Its own DNS name and port.
    pub name: String,
    /// Its own addresses.
    pub addresses: Vec<SocketAddr>,
}

/// How many members are up, of those that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MeshCounts {
    /// Linked now.
    pub up: usize,
    /// Linked now or within [`COUNTED`], without those that left by Drain.
    pub counted: usize,
    /// Everything known, gossip included.
    pub known: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Presence {
    /// Known from gossip only.
    Heard { linked: Moment },
    /// Linked now.
    Linked { link: LinkClaim },
    /// Was linked until then.
    Down { since: Moment },
    /// Drained, and its link ended.
    Left { since: Moment },
}

#[derive(Debug, Clone)]
struct Member {
    hint: MemberHint,
    incarnation: Incarnation,
    presence: Presence,
    draining: bool,
    replaced: Vec<Incarnation>,
}

impl Member {
    /// When somebody was linked to it last, as far as is known.
    fn last_linked(&self, now: Moment) -> Moment {
        match &self.presence {
            Presence::Linked { .. } => now,
            Presence::Heard { linked } => *linked,
            Presence::Down { since } | Presence::Left { since } => *since,
        }
    }

    fn is_counted(&self, now: Moment) -> bool {
        match &self.presence {
            Presence::Linked { .. } => !self.draining,
            Presence::Down { since } => now.since(*since) <= COUNTED,
            Presence::Heard { .. } | Presence::Left { .. } => false,
        }
    }
}

/// The members of the mesh; see the module.
#[derive(Debug, Clone)]
pub struct Members {
    own: BrokerId,
    members: BTreeMap<BrokerId, Member>,
}

impl Members {
    /// A mesh of which only this broker is known.
    pub fn new(own: BrokerId) -> Self {
        Self { own, members: BTreeMap::new() }
    }

    /// A link's Hello or Welcome came from `peer`, proved by its certificate. Unless the decision closes the new
    /// link it stands from now on.
    pub fn handle_linked(
        &mut self,
        peer: &BrokerId,
        link: LinkClaim,
        hint: MemberHint,
        now: Moment,
    ) -> LinkDecision {
        let known = self.members.get(peer);
        let existing = known.and_then(|member| match &member.presence {
            Presence::Linked { link } => Some(link),
            Presence::Heard { .. } | Presence::Down { .. } | Presence::Left { .. } => None,
        });
        let replaced = known.map(|member| member.replaced.as_slice()).unwrap_or_default();
        let decision = decide_link(&self.own, peer, existing, replaced, &link);
        match decision {
            LinkDecision::Keep | LinkDecision::ReplaceExisting => self.stand(peer, link, hint, now),
            LinkDecision::CloseNew | LinkDecision::CloseOwn | LinkDecision::CloseOutdated => {}
        }
        decision
    }

    fn stand(&mut self, peer: &BrokerId, link: LinkClaim, hint: MemberHint, now: Moment) {
        self.make_room(now);
        let presence = Presence::Linked { link };
        let member = self.members.entry(peer.clone()).or_insert_with(|| Member {
            hint: MemberHint::default(),
            incarnation: link.incarnation,
            presence: presence.clone(),
            draining: false,
            replaced: Vec::new(),
        });
        let was_proved = !matches!(member.presence, Presence::Heard { .. });
        if was_proved && member.incarnation != link.incarnation {
            if member.replaced.len() >= REPLACED_MAX {
                member.replaced.remove(0);
            }
            member.replaced.push(member.incarnation);
        }
        member.hint = bounded(hint);
        member.incarnation = link.incarnation;
        member.presence = presence;
        member.draining = false;
    }

    /// The link that stands with `peer` has ended, by FIN, RST or three seconds of silence.
    pub fn handle_link_lost(&mut self, peer: &BrokerId, now: Moment) {
        if let Some(member) = self.members.get_mut(peer)
            && matches!(member.presence, Presence::Linked { .. })
        {
            member.presence =
                if member.draining { Presence::Left { since: now } } else { Presence::Down { since: now } };
        }
    }

    /// `peer` said that it drains: it no longer counts. Says whether that is news.
    pub fn handle_drain(&mut self, peer: &BrokerId) -> bool {
        self.members.get_mut(peer).is_some_and(|member| !std::mem::replace(&mut member.draining, true))
    }

    /// A Peers message came. Says which members are new; they are worth a dial.
    pub fn handle_gossip(&mut self, entries: &[PeerEntry], now: Moment) -> Vec<BrokerId> {
        let mut found = Vec::new();
        for entry in entries.iter().take(MEMBERS_MAX) {
            let age = Duration::from_millis(entry.age_ms.into());
            if entry.broker == self.own || age > KEPT {
                continue;
            }
            let linked = Moment::from_origin(now.since_origin().saturating_sub(age));
            if let Some(member) = self.members.get_mut(&entry.broker) {
                refresh(member, entry, linked, now);
            } else if self.members.len() < MEMBERS_MAX {
                found.push(entry.broker.clone());
                self.members.insert(entry.broker.clone(), heard_of(entry, linked));
            }
        }
        found
    }

    /// What to tell peers on Hello and every [`GOSSIP_INTERVAL`].
    pub fn gossip(&self, now: Moment) -> Vec<PeerEntry> {
        let entry = |(broker, member): (&BrokerId, &Member)| PeerEntry {
            broker: broker.clone(),
            name: member.hint.name.clone(),
            addresses: member.hint.addresses.clone(),
            incarnation: member.incarnation,
            age_ms: u32::try_from(now.since(member.last_linked(now)).as_millis()).unwrap_or(u32::MAX),
        };
        let left = |member: &Member| member.draining || matches!(member.presence, Presence::Left { .. });
        self.members.iter().filter(|(_, member)| !left(member)).map(entry).take(limits::PEERS_MAX).collect()
    }

    /// Drops members that nobody was linked to for [`KEPT`].
    pub fn handle_timeout(&mut self, now: Moment) {
        self.members.retain(|_, member| now.since(member.last_linked(now)) <= KEPT);
    }

    /// How much of the mesh is up.
    pub fn counts(&self, now: Moment) -> MeshCounts {
        let counted = self.members.values().filter(|member| member.is_counted(now));
        let (mut up, mut total) = (0, 0);
        for member in counted {
            total += 1;
            up += usize::from(matches!(member.presence, Presence::Linked { .. }));
        }
        MeshCounts { up, counted: total, known: self.members.len() }
    }

    /// False when half or more of the members that count are down. A broker that was linked and has no link left
    /// stays unhealthy until its members are dropped, however long ago the last one went down.
    pub fn is_healthy(&self, now: Moment) -> bool {
        let MeshCounts { up, counted, .. } = self.counts(now);
        if up > 0 {
            return (counted - up) * 2 < counted;
        }
        let lost = |member: &Member| match &member.presence {
            Presence::Down { since } => now.since(*since) <= KEPT,
            Presence::Heard { .. } | Presence::Linked { .. } | Presence::Left { .. } => false,
        };
        !self.members.values().any(lost)
    }

    /// Whether `peer` is linked now.
    pub fn is_linked(&self, peer: &BrokerId) -> bool {
        self.members.get(peer).is_some_and(|member| matches!(member.presence, Presence::Linked { .. }))
    }

    /// Whether `peer` was linked lately, and is not now although it did not leave.
    pub fn is_missed(&self, peer: &BrokerId, now: Moment) -> bool {
        self.members.get(peer).is_some_and(|member| match member.presence {
            Presence::Down { since } => now.since(since) <= COUNTED,
            Presence::Heard { .. } | Presence::Linked { .. } | Presence::Left { .. } => false,
        })
    }

    /// The incarnation of `peer`'s process that is linked now.
    pub fn linked_incarnation(&self, peer: &BrokerId) -> Option<Incarnation> {
        self.members.get(peer).and_then(|member| match &member.presence {
            Presence::Linked { link } => Some(link.incarnation),
            Presence::Heard { .. } | Presence::Down { .. } | Presence::Left { .. } => None,
        })
    }

    /// The members that are linked, and take what is routed to them: not those that drain.
    pub fn linked(&self) -> impl Iterator<Item = (&BrokerId, &MemberHint)> {
        self.members
            .iter()
            .filter(|(_, member)| matches!(member.presence, Presence::Linked { .. }) && !member.draining)
            .map(|(broker, member)| (broker, &member.hint))
    }

    /// Where `peer` says that it can be dialled.
    pub fn hint(&self, peer: &BrokerId) -> Option<&MemberHint> {
        self.members.get(peer).map(|member| &member.hint)
    }

    /// The members that are not linked and could be.
    pub fn unlinked(&self) -> impl Iterator<Item = (&BrokerId, &MemberHint)> {
        self.members
            .iter()
            .filter(|(_, member)| !matches!(member.presence, Presence::Linked { .. }))
            .map(|(broker, member)| (broker, &member.hint))
    }

    /// The id of this broker.
    pub fn own(&self) -> &BrokerId {
        &self.own
    }

    /// A member proved by a link displaces the one that only gossip knows and that was heard of longest ago.
    fn make_room(&mut self, now: Moment) {
        if self.members.len() < MEMBERS_MAX {
            return;
        }
        let unlinked = self.members.iter().filter(|(_, m)| !matches!(m.presence, Presence::Linked { .. }));
        let rank = |member: &Member| {
            let proved = !matches!(member.presence, Presence::Heard { .. });
            (proved, member.last_linked(now))
        };
        let weakest = unlinked.min_by_key(|(_, member)| rank(member)).map(|(broker, _)| broker.clone());
        if let Some(weakest) = weakest {
            self.members.remove(&weakest);
        }
    }
}

/// Gossip about a member that is known already moves only how long it is kept, and hints that no link has proved.
fn refresh(member: &mut Member, entry: &PeerEntry, linked: Moment, now: Moment) {
    if let Presence::Heard { linked: known } = &mut member.presence
        && linked > *known
    {
        *known = linked.min(now);
        member.hint = hint_of(entry);
        member.incarnation = entry.incarnation;
    }
}

fn heard_of(entry: &PeerEntry, linked: Moment) -> Member {
    Member {
        hint: hint_of(entry),
        incarnation: entry.incarnation,
        presence: Presence::Heard { linked },
        draining: false,
        replaced: Vec::new(),
    }
}

fn hint_of(entry: &PeerEntry) -> MemberHint {
    bounded(MemberHint { name: entry.name.clone(), addresses: entry.addresses.clone() })
}

fn bounded(mut hint: MemberHint) -> MemberHint {
    hint.addresses.truncate(limits::ADDRESSES_MAX);
    hint
}

/// When the next Peers message is due.
#[derive(Debug, Clone)]
pub struct GossipTimer {
    next: Moment,
}

impl GossipTimer {
    /// A timer whose first message is due one interval after `now`.
    pub fn new(now: Moment, rng: &mut impl Rng) -> Self {
        Self { next: now + interval(rng) }
    }

    /// Whether one is due; then the next is set.
    pub fn poll_due(&mut self, now: Moment, rng: &mut impl Rng) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + interval(rng);
        }
        due
    }

    /// When to call [`Self::poll_due`] next.
    pub fn poll_timeout(&self) -> Moment {
        self.next
    }
}

fn interval(rng: &mut impl Rng) -> Duration {
    rng.random_range(GOSSIP_INTERVAL.mul_f64(0.8)..=GOSSIP_INTERVAL.mul_f64(1.2))
}
