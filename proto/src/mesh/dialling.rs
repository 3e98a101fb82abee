//! Whom to dial next.
//!
//! There are two kinds of places: *contacts*, which are addresses from the configuration and from DNS whose owner
//! is not known before its certificate shows it, and *members*, whose id is known and whose addresses are hints.
//! A place is dialled when its owner is not linked, one dial at a time, with full-jitter back-off that starts over
//! once it led to a link. A contact that turns out to be this broker itself rests for [`OWN_REST`].
//!
//! Driver:
//! ```text
//! dialling.handle_resolved("seeds.example:443", &addresses);
//! while let Some(dial) = dialling.poll_dial(&members, now) { spawn it }
//! linked → dialling.handle_linked(&dial.key, &peer)    own id → handle_own(&dial.key, now)
//! failed → dialling.handle_failed(&dial.key, &members, now, &mut rng)
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;

use super::members::Members;
use crate::Moment;
use crate::wire::BrokerId;

/// Contacts that are remembered over all names.
pub const CONTACTS_MAX: usize = 256;
/// Dials in flight at a time.
pub const IN_FLIGHT_MAX: usize = 16;
/// First and longest back-off.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest back-off towards a broker that was linked lately: after a partition the mesh is whole again soon.
pub const MISSED_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a contact that is this broker itself is left alone.
pub const OWN_REST: Duration = Duration::from_secs(600);

/// What a dial is remembered by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialKey {
    /// An address of a configured or resolved name.
    Contact {
        /// The name, as configured; what the certificate must show.
        name: String,
        /// The address.
        address: SocketAddr,
    },
    /// A member; its certificate must show this id.
    Member {
        /// The id.
        broker: BrokerId,
    },
}

/// A dial to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Names the dial in the answers to it.
    pub key: DialKey,
    /// For a member: its own name, to be resolved too when it is not empty.
    pub name: String,
    /// Where to dial, in this order.
    pub addresses: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Default)]
struct Place {
    in_flight: bool,
    not_before: Moment,
    failures: u32,
    /// Who answered there last.
    owner: Option<BrokerId>,
}

/// The places to dial; see the module.
#[derive(Debug, Clone, Default)]
pub struct Dialling {
    places: BTreeMap<DialKey, Place>,
}

impl Dialling {
    /// `name` has these addresses now. An empty answer takes nothing away.
    pub fn handle_resolved(&mut self, name: &str, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let gone = |key: &DialKey, place: &Place| match key {
            DialKey::Contact { name: of, address } => {
                of == name && !addresses.contains(address) && !place.in_flight
            }
            DialKey::Member { .. } => false,
        };
        self.places.retain(|key, place| !gone(key, place));
        for address in addresses {
            if self.contacts() >= CONTACTS_MAX {
                return;
            }
            let key = DialKey::Contact { name: name.to_owned(), address: *address };
            self.places.entry(key).or_default();
        }
    }

    /// The next dial to make. Call it until it says `None`.
    pub fn poll_dial(&mut self, members: &Members, now: Moment) -> Option<Dial> {
        self.sync_members(members);
        if self.places.values().filter(|place| place.in_flight).count() >= IN_FLIGHT_MAX {
            return None;
        }
        let due = self.places.iter().find(|(key, place)| is_due(key, place, members, now));
        let key = due.map(|(key, _)| key.clone())?;
        self.places.get_mut(&key)?.in_flight = true;
        Some(dial_of(key, members))
    }

    /// The dial led to a link with `peer`, whichever of two duplicates stays.
    pub fn handle_linked(&mut self, key: &DialKey, peer: &BrokerId) {
        if let Some(place) = self.places.get_mut(key) {
            *place = Place { owner: Some(peer.clone()), ..Place::default() };
        }
    }

    /// The dial reached this broker itself.
    pub fn handle_own(&mut self, key: &DialKey, now: Moment) {
        if let Some(place) = self.places.get_mut(key) {
            *place = Place { not_before: now + OWN_REST, ..Place::default() };
        }
    }

    /// The dial failed.
    pub fn handle_failed(&mut self, key: &DialKey, members: &Members, now: Moment, rng: &mut impl Rng) {
        if let Some(place) = self.places.get_mut(key) {
            let (base, longest) = BACKOFF;
            let owner = match key {
                DialKey::Member { broker } => Some(broker),
                DialKey::Contact { .. } => place.owner.as_ref(),
            };
            let is_missed = owner.is_some_and(|owner| members.is_missed(owner, now));
            let longest = if is_missed { MISSED_BACKOFF_MAX } else { longest };
            let factor = 2_u32.checked_pow(place.failures).unwrap_or(u32::MAX);
            let span = base.saturating_mul(factor).min(longest);
            place.in_flight = false;
            place.failures = place.failures.saturating_add(1);
            place.not_before = now + base / 2 + rng.random_range(Duration::ZERO..=span);
        }
    }

    /// When a place that rests may be dialled again, the earliest after `now`.
    pub fn poll_timeout(&self, now: Moment) -> Option<Moment> {
        let resting = self.places.values().filter(|place| !place.in_flight && place.not_before > now);
        resting.map(|place| place.not_before).min()
    }

    fn contacts(&self) -> usize {
        self.places.keys().filter(|key| matches!(key, DialKey::Contact { .. })).count()
    }

    /// Every member that could be dialled has a place, and no other one has.
    fn sync_members(&mut self, members: &Members) {
        let mut wanted: BTreeMap<&BrokerId, ()> = BTreeMap::new();
        for (broker, hint) in members.unlinked() {
            if !hint.addresses.is_empty() || !hint.name.is_empty() {
                wanted.insert(broker, ());
            }
        }
        self.places.retain(|key, place| match key {
            DialKey::Contact { .. } => true,
            DialKey::Member { broker } => place.in_flight || wanted.contains_key(broker),
        });
        for broker in wanted.into_keys() {
            self.places.entry(DialKey::Member { broker: broker.clone() }).or_default();
        }
    }
}

fn is_due(key: &DialKey, place: &Place, members: &Members, now: Moment) -> bool {
    let linked = match key {
        DialKey::Contact { .. } => place.owner.as_ref().is_some_and(|owner| members.is_linked(owner)),
        DialKey::Member { broker } => members.is_linked(broker),
    };
    !linked && !place.in_flight && now >= place.not_before
}

fn dial_of(key: DialKey, members: &Members) -> Dial {
    let (name, addresses) = match &key {
        DialKey::Contact { name, address } => (name.clone(), vec![*address]),
        DialKey::Member { broker } => {
            let hint = members.unlinked().find(|(member, _)| *member == broker).map(|(_, hint)| hint);
            hint.map(|hint| (hint.name.clone(), hint.addresses.clone())).unwrap_or_default()
        }
    };
    Dial { key, name, addresses }
}
