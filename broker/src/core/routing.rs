//! How a named route is followed: each hop takes itself off the front, so a loop cannot be built.

use rc_proto::wire::BrokerId;
use rc_proto::wire::codes::PathFailure;
use rc_proto::wire::limits::ROUTE_BROKERS_MAX;

/// Where a hop sends an open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// The Target must be here.
    Here,
    /// On to the next broker.
    Onward {
        /// That broker.
        next: BrokerId,
        /// What its MeshOpen names: itself first.
        route: Vec<BrokerId>,
    },
}

/// Checks the route of an OpenPath at the ingress; an empty one asks to locate.
///
/// # Errors
/// [`PathFailure::HOP_LIMIT`] when it is too long, names a broker twice or the ingress itself.
pub fn check_named_route(own: &BrokerId, route: &[BrokerId]) -> Result<(), PathFailure> {
    let repeats =
        route.iter().enumerate().any(|(index, broker)| route.iter().skip(index + 1).any(|b| b == broker));
    if route.len() > ROUTE_BROKERS_MAX || repeats || route.contains(own) {
        return Err(PathFailure::HOP_LIMIT);
    }
    Ok(())
}

/// Takes this broker off the route of a MeshOpen that came from `peer`.
///
/// # Errors
/// [`PathFailure::HOP_LIMIT`] when this broker is not the next hop, or the rest leads back.
pub fn next_hop(
    own: &BrokerId,
    origin: &BrokerId,
    peer: &BrokerId,
    route: &[BrokerId],
) -> Result<Hop, PathFailure> {
    let Some((first, rest)) = route.split_first() else { return Err(PathFailure::HOP_LIMIT) };
    let leads_back = rest.iter().any(|broker| broker == own || broker == origin || broker == peer);
    if first != own || origin == own || rest.len() >= ROUTE_BROKERS_MAX || leads_back {
        return Err(PathFailure::HOP_LIMIT);
    }
    Ok(match rest.first() {
        None => Hop::Here,
        Some(next) => Hop::Onward { next: next.clone(), route: rest.to_vec() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(name: &str) -> BrokerId {
        format!("r/{name}").parse().unwrap()
    }

    fn route(names: &[&str]) -> Vec<BrokerId> {
        names.iter().map(|name| broker(name)).collect()
    }

    #[test]
    fn a_named_route_has_at_most_two_other_brokers() {
        let check = |names: &[&str]| check_named_route(&broker("a"), &route(names));
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["b"]), Ok(()));
        assert_eq!(check(&["b", "c"]), Ok(()));
        for refused in [&["b", "c", "d"][..], &["b", "b"], &["a"], &["b", "a"]] {
            assert_eq!(check(refused), Err(PathFailure::HOP_LIMIT), "{refused:?}");
        }
    }

    #[test]
    fn each_hop_takes_itself_off() {
        let hop = |own: &str, peer: &str, names: &[&str]| {
            next_hop(&broker(own), &broker("a"), &broker(peer), &route(names))
        };
        assert_eq!(hop("b", "a", &["b"]), Ok(Hop::Here));
        assert_eq!(hop("b", "a", &["b", "c"]), Ok(Hop::Onward { next: broker("c"), route: route(&["c"]) }));
        assert_eq!(hop("c", "b", &["c"]), Ok(Hop::Here));
    }

    #[test]
    fn a_route_that_leads_back_or_is_not_ours_is_refused() {
        let hop =
            |own: &str, names: &[&str]| next_hop(&broker(own), &broker("a"), &broker("a"), &route(names));
        for refused in [&[][..], &["c"], &["b", "b"], &["b", "a"], &["b", "c", "d"]] {
            assert_eq!(hop("b", refused), Err(PathFailure::HOP_LIMIT), "{refused:?}");
        }
        assert_eq!(hop("a", &["a"]), Err(PathFailure::HOP_LIMIT));
    }
}
