//! What endpoints measured to each broker, by the network that they are in: for the latency table of the traffic
//! manager. No identity is kept, and what nobody confirms is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use rc_proto::Moment;
use rc_proto::wire::{BrokerId, limits};

use super::admission::AddressBlock;

/// Networks that are kept; the one that was heard of longest ago makes room.
pub const NETWORKS_MAX: usize = 4_096;
/// What nobody confirms for so long is forgotten.
pub const KEPT: Duration = Duration::from_secs(6 * 3600);
/// The largest score that counts, ms: more is as bad.
pub const SCORE_MAX_MS: u32 = 60_000;
/// The shortest distance of two reports over one link; more often tells nothing new.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Of a new measurement, the part that it moves the mean by.
const WEIGHT: u64 = 8;

#[derive(Debug, Clone, Copy)]
struct Cell {
    mean_us: u64,
    reports: u32,
    at: Moment,
}

#[derive(Debug, Default)]
struct Network {
    cells: BTreeMap<BrokerId, Cell>,
    at: Moment,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ScoreRow {
    /// The network: a /24, or a /56 of IPv6.
    pub network: AddressBlock,
    /// To which broker.
    pub broker: BrokerId,
    /// The mean, latest measurements first, in µs.
    pub mean_us: u64,
    /// How many reports it comes from.
    pub reports: u32,
    /// Age of the last one, ms.
    pub age_ms: u64,
}

/// The table.
#[derive(Debug, Default)]
pub struct Scores {
    networks: BTreeMap<AddressBlock, Network>,
}

impl Scores {
    /// Takes what an endpoint in `network` measured `age` ago: broker and score in ms.
    pub fn handle_report(
        &mut self,
        network: AddressBlock,
        scores: &[(BrokerId, u32)],
        age: Duration,
        now: Moment,
    ) {
        let at = Moment::from_origin(now.since_origin().saturating_sub(age));
        if scores.is_empty() || now.since(at) > KEPT {
            return;
        }
        self.make_room(network);
        let known = self.networks.entry(network).or_default();
        known.at = known.at.max(at);
        for (broker, ms) in scores.iter().take(limits::SCORES_MAX) {
            let score_us = u64::from((*ms).min(SCORE_MAX_MS)) * 1000;
            if !known.cells.contains_key(broker) && known.cells.len() >= limits::SCORES_MAX {
                continue;
            }
            let cell =
                known.cells.entry(broker.clone()).or_insert(Cell { mean_us: score_us, reports: 0, at });
            cell.mean_us = (cell.mean_us * (WEIGHT - 1) + score_us) / WEIGHT;
            cell.reports = cell.reports.saturating_add(1);
            cell.at = cell.at.max(at);
        }
    }

    /// Forgets what nobody confirmed for [`KEPT`]; called now and then.
    pub fn sweep(&mut self, now: Moment) {
        self.networks.retain(|_, network| {
            network.cells.retain(|_, cell| now.since(cell.at) <= KEPT);
            !network.cells.is_empty()
        });
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.networks.clear();
    }

    /// The table, by network and broker.
    pub fn rows(&self, now: Moment) -> Vec<ScoreRow> {
        let row = |network: &AddressBlock, broker: &BrokerId, cell: &Cell| ScoreRow {
            network: *network,
            broker: broker.clone(),
            mean_us: cell.mean_us,
            reports: cell.reports,
            age_ms: u64::try_from(now.since(cell.at).as_millis()).unwrap_or(u64::MAX),
        };
        let of = |(network, known): (&AddressBlock, &Network)| {
            known.cells.iter().map(|(broker, cell)| row(network, broker, cell)).collect::<Vec<_>>()
        };
        self.networks.iter().flat_map(of).collect()
    }

    fn make_room(&mut self, network: AddressBlock) {
        if self.networks.len() < NETWORKS_MAX || self.networks.contains_key(&network) {
            return;
        }
        let oldest = self.networks.iter().min_by_key(|(_, known)| known.at).map(|(network, _)| *network);
        if let Some(oldest) = oldest {
            self.networks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(s))
    }

    fn network(text: &str) -> AddressBlock {
        AddressBlock::of(text.parse().unwrap())
    }

    fn broker(number: usize) -> BrokerId {
        format!("r/b{number}").parse().unwrap()
    }

    #[test]
    fn endpoints_of_one_network_share_a_line_and_one_of_them_moves_it_a_little() {
        let mut scores = Scores::default();
        for (address, ms) in [("192.0.2.1", 80), ("192.0.2.99", 160), ("198.51.100.1", 10)] {
            scores.handle_report(network(address), &[(broker(1), ms)], Duration::ZERO, at(100));
        }
        let rows = scores.rows(at(101));
        let told: Vec<_> =
            rows.iter().map(|row| (row.network.to_string(), row.mean_us, row.reports)).collect();
        let expected = [("192.0.2.0/24".to_owned(), 90_000, 2), ("198.51.100.0/24".to_owned(), 10_000, 1)];
        assert_eq!(told, expected);
        assert!(rows.iter().all(|row| row.age_ms == 1_000));
    }

    #[test]
    fn what_nobody_confirms_is_forgotten_and_old_news_is_not_taken() {
        let mut scores = Scores::default();
        let start = 10 * 3600;
        let report = |scores: &mut Scores, number, age| {
            scores.handle_report(network("192.0.2.1"), &[(broker(number), 1)], age, at(start));
        };
        report(&mut scores, 1, Duration::ZERO);
        report(&mut scores, 2, Duration::from_secs(3600));
        report(&mut scores, 3, KEPT + Duration::from_secs(1));
        assert_eq!(scores.rows(at(start)).len(), 2);
        scores.sweep(at(start) + KEPT);
        assert_eq!(scores.rows(at(start)).len(), 1);
        scores.sweep(at(start) + KEPT + Duration::from_secs(1));
        assert!(scores.networks.is_empty());
        report(&mut scores, 1, Duration::ZERO);
        scores.forget();
        assert!(scores.networks.is_empty());
    }

    #[test]
    fn neither_networks_nor_brokers_nor_scores_grow_beyond_their_bounds() {
        let mut scores = Scores::default();
        for number in 0..u32::try_from(NETWORKS_MAX).unwrap() + 10 {
            let address = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + (number << 8)));
            let now = at(u64::from(number));
            scores.handle_report(AddressBlock::of(address), &[(broker(0), u32::MAX)], Duration::ZERO, now);
        }
        assert_eq!(scores.networks.len(), NETWORKS_MAX);
        assert!(!scores.networks.contains_key(&network("11.0.9.1")));
        assert!(scores.networks.contains_key(&network("11.0.10.1")));
        assert!(scores.rows(at(0)).iter().all(|row| row.mean_us == 60_000_000));
        for number in 0..limits::SCORES_MAX + 1 {
            let now = at(9_999);
            scores.handle_report(network("192.0.2.1"), &[(broker(number), 1)], Duration::ZERO, now);
        }
        let known = scores.networks.get(&network("192.0.2.1")).unwrap();
        assert_eq!(known.cells.len(), limits::SCORES_MAX);
    }
}
