//! Who may open a path, register or shake hands now, and whose slot is later.
//!
//! Opens pass a bucket of their identity and the gate of the whole broker, in the order resume, handover, standby,
//! new; registrations pass a gate of their own, those of sessions first. Who is refused gets a slot of its own, so
//! that a herd comes back spread out. Called under a lock by the paths, the control links and the listener.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::codes::{Purpose, RegistrationRole};
use rc_proto::wire::{EndpointId, limits as wire_limits};

use super::gate::{Bucket, Gate, Rate};
use super::limits::Limits;

/// Buckets kept of one kind; full ones are forgotten first, since they say nothing.
const BUCKETS_MAX: usize = 65_536;
/// Registers of one identity, whether they are news or not: each is told to the mesh.
const REGISTERS_OF_ONE: Rate = Rate { per_second: 2, burst: 10 };
/// What opens leave for the purposes before theirs, per mille of the burst: resume, handover, standby, new.
const OPEN_SHARES: [u16; 4] = [0, 125, 250, 500];
/// The same of registrations: those for resumes and the second ones of running sessions, all others.
const REGISTRATION_SHARES: [u16; 2] = [0, 250];

/// Buckets by key, bounded.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    buckets: BTreeMap<K, Bucket>,
}

impl<K: Ord + Clone> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, buckets: BTreeMap::new() }
    }

    fn take(&mut self, key: &K, now: Moment) -> Result<(), Duration> {
        if !self.buckets.contains_key(key) && self.buckets.len() >= BUCKETS_MAX {
            self.forget_full(now);
        }
        if !self.buckets.contains_key(key) && self.buckets.len() >= BUCKETS_MAX {
            return Err(Duration::from_secs(1));
        }
        let rate = self.rate;
        let bucket = self.buckets.entry(key.clone()).or_insert_with(|| Bucket::full(rate, now));
        bucket.take(rate, now)
    }

    fn forget_full(&mut self, now: Moment) {
        let rate = self.rate;
        self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
    }
}

/// A block of addresses that shares a bucket: a /24 or a /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressBlock(IpAddr);

impl AddressBlock {
    /// The block of an address; an IPv4-mapped one counts as IPv4.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & 0xffff_ff00)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !((1_u128 << 72) - 1))),
        })
    }
}

impl std::fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = if self.0.is_ipv4() { 24 } else { 56 };
        write!(f, "{}/{length}", self.0)
    }
}

impl serde::Serialize for AddressBlock {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What may start now.
#[derive(Debug)]
pub struct Admission {
    connections: Buckets<AddressBlock>,
    opens: Buckets<EndpointId>,
    all_opens: Gate<EndpointId, 4>,
    registers: Buckets<EndpointId>,
    registrations: Gate<EndpointId, 2>,
    parked: BTreeMap<EndpointId, usize>,
    handshakes: BTreeMap<AddressBlock, usize>,
    handshakes_per_block: usize,
}

impl Admission {
    /// All buckets full.
    pub fn new(limits: &Limits, now: Moment) -> Self {
        let opens = Rate { per_second: limits.opens_per_second, burst: limits.opens_burst };
        let registrations =
            Rate { per_second: limits.registrations_per_second, burst: limits.registrations_burst };
        Self {
            connections: Buckets::new(Rate {
                per_second: limits.connections_per_second,
                burst: limits.connections_burst,
            }),
            opens: Buckets::new(Rate {
                per_second: wire_limits::OPENS_PER_SECOND_MAX,
                burst: wire_limits::OPENS_BURST_MAX,
            }),
            all_opens: Gate::new(opens, OPEN_SHARES, now),
            registers: Buckets::new(REGISTERS_OF_ONE),
            registrations: Gate::new(registrations, REGISTRATION_SHARES, now),
            parked: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            handshakes_per_block: limits.handshakes_per_block(),
        }
    }

    /// Whether a connection from this address may shake hands now. Loopback is not limited: what shares it is
    /// this machine.
    pub fn admit_connection(&mut self, address: IpAddr, now: Moment) -> bool {
        address.to_canonical().is_loopback() || self.connections.take(&AddressBlock::of(address), now).is_ok()
    }

    /// Whether one more handshake with this address's block may run; each yes is given back by
    /// [`Self::end_handshake`]. Loopback is not limited.
    pub fn begin_handshake(&mut self, address: IpAddr) -> bool {
        if address.to_canonical().is_loopback() {
            return true;
        }
        let running = self.handshakes.entry(AddressBlock::of(address)).or_default();
        let fits = *running < self.handshakes_per_block;
        *running += usize::from(fits);
        fits
    }

    /// A handshake with this address is over.
    pub fn end_handshake(&mut self, address: IpAddr) {
        let block = AddressBlock::of(address);
        if let Some(running) = self.handshakes.get_mut(&block) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.handshakes.remove(&block);
            }
        }
    }

    /// Whether this Controller may open a path now.
    ///
    /// # Errors
    /// The time until its slot.
    pub fn admit_open(
        &mut self,
        controller: &EndpointId,
        purpose: Purpose,
        now: Moment,
    ) -> Result<(), Duration> {
        self.opens.take(controller, now)?;
        let class = match purpose {
            Purpose::RESUME => 0,
            Purpose::HANDOVER => 1,
            Purpose::STANDBY => 2,
            _ => 3,
        };
        self.all_opens.admit(controller, class, now)
    }

    /// Whether this Target may register now. What is here already is no newcomer.
    ///
    /// # Errors
    /// The time until its slot.
    pub fn admit_registration(
        &mut self,
        target: &EndpointId,
        role: RegistrationRole,
        is_here: bool,
        now: Moment,
    ) -> Result<(), Duration> {
        self.registers.take(target, now)?;
        if is_here {
            return Ok(());
        }
        let class = usize::from(role == RegistrationRole::PRIMARY);
        self.registrations.admit(target, class, now)
    }

    /// Whether one more open of this Controller may wait for an absent Target; each yes is given back by
    /// [`Self::end_park`].
    pub fn begin_park(&mut self, controller: &EndpointId) -> bool {
        let parked = self.parked.entry(controller.clone()).or_default();
        let fits = *parked < wire_limits::PARKED_PER_CONTROLLER_MAX;
        *parked += usize::from(fits);
        fits
    }

    /// An open of this Controller waits no more.
    pub fn end_park(&mut self, controller: &EndpointId) {
        if let Some(parked) = self.parked.get_mut(controller) {
            *parked = parked.saturating_sub(1);
            if *parked == 0 {
                self.parked.remove(controller);
            }
        }
    }

    /// Forgets what says nothing any more; called now and then.
    pub fn sweep(&mut self, now: Moment) {
        self.connections.forget_full(now);
        self.opens.forget_full(now);
        self.registers.forget_full(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(name: &str) -> EndpointId {
        name.parse().unwrap()
    }

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn an_identity_opens_twenty_at_once_and_five_a_second() {
        let mut admission = Admission::new(&Limits::default(), at(0));
        let alice = controller("alice");
        let admitted = |admission: &mut Admission, ms| {
            (0..100).filter(|_| admission.admit_open(&alice, Purpose::NEW, at(ms)).is_ok()).count()
        };
        assert_eq!(admitted(&mut admission, 0), 20);
        assert_eq!(admitted(&mut admission, 199), 0);
        assert_eq!(admitted(&mut admission, 1_199), 5);
        assert!(admission.admit_open(&controller("bob"), Purpose::NEW, at(1_199)).is_ok());
    }

    #[test]
    fn the_wait_that_is_told_is_enough() {
        let mut admission = Admission::new(&Limits::default(), at(0));
        let alice = controller("alice");
        let wait = loop {
            if let Err(wait) = admission.admit_open(&alice, Purpose::NEW, at(0)) {
                break wait;
            }
        };
        assert_eq!(wait, Duration::from_millis(200));
        assert!(admission.admit_open(&alice, Purpose::NEW, at(0) + wait).is_ok());
    }

    #[test]
    fn an_identity_that_comes_back_with_many_sessions_gets_a_slot_for_each() {
        let mut admission = Admission::new(&Limits::default(), at(0));
        let alice = controller("alice");
        let waits: Vec<_> = (0..30)
            .filter_map(|_| admission.admit_open(&alice, Purpose::RESUME, at(0)).err())
            .map(|wait| wait.as_millis())
            .collect();
        assert_eq!(waits, (1..=10).map(|slot| slot * 200).collect::<Vec<_>>());
    }

    #[test]
    fn new_opens_leave_room_for_standby_handover_and_resume_in_this_order() {
        let limits = Limits { opens_burst: 80, opens_per_second: 10, ..Limits::default() };
        let mut admission = Admission::new(&limits, at(0));
        let mut number = 0;
        let mut admitted = |purpose| {
            let mut count = 0;
            loop {
                number += 1;
                if admission.admit_open(&controller(&format!("c{number}")), purpose, at(0)).is_err() {
                    return count;
                }
                count += 1;
            }
        };
        assert_eq!(
            [Purpose::NEW, Purpose::STANDBY, Purpose::HANDOVER, Purpose::RESUME].map(&mut admitted),
            [40, 20, 10, 10]
        );
    }

    /// Endpoints that each come at their moment, first a Target's registration and then its Controller's resume, and
    /// come back at the slots that they are told. Returns when the last one was through.
    fn last_through(admission: &mut Admission, arrivals: &[u64], has_session: bool) -> u64 {
        let mut queue: std::collections::BTreeSet<(u64, usize, bool)> =
            arrivals.iter().enumerate().map(|(who, ms)| (*ms, who, false)).collect();
        let mut last = 0;
        let mut steps = 0..20 * arrivals.len();
        while let Some((ms, who, is_open)) = queue.pop_first() {
            assert!(steps.next().is_some(), "{who} never gets in");
            let name = controller(&format!("e{who}"));
            let admitted = if is_open {
                admission.admit_open(&name, Purpose::RESUME, at(ms))
            } else {
                admission.admit_registration(&name, RegistrationRole::PRIMARY, false, at(ms))
            };
            match admitted {
                Ok(()) if has_session && !is_open => drop(queue.insert((ms, who, true))),
                Ok(()) => last = last.max(ms),
                Err(wait) => {
                    let wait = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap();
                    assert!(queue.insert((ms + wait, who, is_open)));
                }
            }
        }
        last
    }

    #[test]
    fn a_thousand_sessions_of_a_killed_broker_are_back_within_ten_seconds() {
        // All at the one broker that is left, within half a second of each other.
        let mut admission = Admission::new(&Limits::default(), at(0));
        let arrivals: Vec<u64> = (0..1_000).map(|who| who / 2).collect();
        let last = last_through(&mut admission, &arrivals, true);
        assert!(last <= 2_000, "{last} ms");
    }

    #[test]
    fn ten_thousand_idle_targets_are_registered_again_within_ninety_seconds() {
        let spread = super::super::limits::reconnect_spread(10_000).as_millis();
        let spread = u64::try_from(spread).unwrap();
        for arrivals in [
            (0..10_000).map(|who| who * spread / 10_000).collect::<Vec<_>>(),
            // Such that know nothing of the spread.
            vec![0; 10_000],
        ] {
            let mut admission = Admission::new(&Limits::default(), at(0));
            let last = last_through(&mut admission, &arrivals, false);
            assert!(last <= 60_000, "{last} ms");
        }
    }

    #[test]
    fn an_identity_registers_ten_times_at_once_and_twice_a_second_also_when_it_is_here() {
        let mut admission = Admission::new(&Limits::default(), at(0));
        let mut admitted = |ms| {
            let admit = |_: &u32| {
                let pc = controller("pc-1");
                admission.admit_registration(&pc, RegistrationRole::PRIMARY, true, at(ms)).is_ok()
            };
            (0..20).filter(admit).count()
        };
        assert_eq!([0, 499, 500, 2_500].map(&mut admitted), [10, 0, 1, 4]);
    }

    #[test]
    fn registrations_of_sessions_come_before_those_of_idle_targets() {
        let limits = Limits { registrations_burst: 8, registrations_per_second: 1, ..Limits::default() };
        let mut admission = Admission::new(&limits, at(0));
        let mut number = 0;
        let mut admitted = |role| {
            let mut count = 0;
            loop {
                number += 1;
                if admission
                    .admit_registration(&controller(&format!("t{number}")), role, false, at(0))
                    .is_err()
                {
                    return count;
                }
                count += 1;
            }
        };
        assert_eq!([RegistrationRole::PRIMARY, RegistrationRole::STANDBY].map(&mut admitted), [6, 2]);
    }

    #[test]
    fn a_refused_herd_gets_slots_that_spread() {
        let limits = Limits { opens_burst: 2, opens_per_second: 10, ..Limits::default() };
        let mut admission = Admission::new(&limits, at(0));
        let mut slots = Vec::new();
        for number in 0..12 {
            if let Err(slot) =
                admission.admit_open(&controller(&format!("c{number}")), Purpose::RESUME, at(0))
            {
                slots.push(slot.as_millis());
            }
        }
        assert_eq!(slots, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    }

    #[test]
    fn a_controller_waits_for_absent_targets_with_four_opens() {
        let mut admission = Admission::new(&Limits::default(), at(0));
        let alice = controller("alice");
        assert_eq!([(); 5].map(|()| admission.begin_park(&alice)), [true, true, true, true, false]);
        admission.end_park(&alice);
        assert!(admission.begin_park(&alice));
        (0..4).for_each(|_| admission.end_park(&alice));
        assert!(admission.parked.is_empty());
    }

    #[test]
    fn connections_are_counted_by_24_and_by_56() {
        let limits = Limits { connections_burst: 3, connections_per_second: 1, ..Limits::default() };
        let mut admission = Admission::new(&limits, at(0));
        let mut admitted = |text: &str| admission.admit_connection(text.parse().unwrap(), at(0));
        assert_eq!([1, 2, 3, 4].map(|last| admitted(&format!("192.0.2.{last}"))), [true, true, true, false]);
        assert!(admitted("192.0.3.1"));
        assert!(!admitted("::ffff:192.0.2.9"));
        assert_eq!(
            [1, 2, 3, 4].map(|last| admitted(&format!("2001:db8:0:1{last:02x}::1"))),
            [true, true, true, false]
        );
        assert!(admitted("2001:db8:0:200::1"));
        assert!((0..10).all(|_| admitted("127.0.0.1")));
    }

    #[test]
    fn a_block_of_addresses_takes_an_eighth_of_the_handshakes_and_no_less_than_eight() {
        for (handshakes, share) in [(4096, 512), (64, 8), (1, 8), (80, 10)] {
            let mut admission = Admission::new(&Limits { handshakes, ..Limits::default() }, at(0));
            let address = |last: usize| format!("192.0.2.{}", last % 256).parse().unwrap();
            assert!((0..share).all(|last| admission.begin_handshake(address(last))), "{handshakes}");
            assert!(!admission.begin_handshake(address(7)));
            assert!(admission.begin_handshake("192.0.3.1".parse().unwrap()));
            admission.end_handshake(address(1));
            assert!(admission.begin_handshake(address(7)));
            (0..=share).for_each(|last| admission.end_handshake(address(last)));
            admission.end_handshake("192.0.3.1".parse().unwrap());
            assert!(admission.handshakes.is_empty());
        }
    }

    #[test]
    fn strangers_cannot_grow_the_table_beyond_its_bound() {
        let limits = Limits { connections_burst: 1, connections_per_second: 1, ..Limits::default() };
        let mut admission = Admission::new(&limits, at(0));
        for number in 0..u32::try_from(BUCKETS_MAX).unwrap() + 100 {
            let address = Ipv4Addr::from_bits(0x0b00_0000 + (number << 8));
            admission.admit_connection(IpAddr::V4(address), at(0));
        }
        assert_eq!(admission.connections.buckets.len(), BUCKETS_MAX);
        admission.sweep(at(10_000));
        assert_eq!(admission.connections.buckets.len(), 0);
    }
}
