//! Holds every list and text of a message to its limit, on both ends.

use std::net::SocketAddr;

use super::{Message, OpenPath};
use crate::wire::ids::BrokerId;
use crate::wire::limits;

/// Names the first field that is outside its range.
pub(super) fn check(message: &Message) -> Result<(), &'static str> {
    match message {
        Message::Hello(m) => check_name_and_addresses(&m.name, &m.addresses),
        Message::Welcome(m) => {
            check_name_and_addresses(&m.name, &m.addresses)?;
            check_alternates(&m.alternates)
        }
        Message::Register(m) => at_most(&m.scores, limits::SCORES_MAX, "scores"),
        Message::ScoreReport(m) => at_most(&m.scores, limits::SCORES_MAX, "scores"),
        Message::RetryAfter(m) => check_alternates(&m.alternates),
        Message::Drain(m) => check_alternates(&m.alternates),
        Message::PathFailed(m) => check_alternates(&m.alternates),
        Message::OpenPath(m) => check_open(m),
        Message::MeshOpen(m) => {
            if m.controller_certificate.serial.len() > 20 {
                return Err("serial");
            }
            check_open(&m.open)
        }
        Message::Invite(m) => check_name_and_addresses(&m.name, &m.addresses),
        Message::PathOpened(m) => at_most(&m.hops, limits::ROUTE_BROKERS_MAX + 1, "hops"),
        Message::Peers(m) => {
            at_most(&m.peers, limits::PEERS_MAX, "peers")?;
            m.peers.iter().try_for_each(|peer| check_name_and_addresses(&peer.name, &peer.addresses))
        }
        Message::Matrix(m) => at_most(&m.round_trips, limits::MATRIX_ENTRIES_MAX, "round_trips"),
        Message::Deny(m) => {
            if m.kid.len() > limits::TEXT_BYTES_MAX {
                return Err("kid");
            }
            check_part(m.part, m.parts)
        }
        Message::Crl(m) => check_part(m.part, m.parts),
        Message::Ping(_)
        | Message::Pong(_)
        | Message::Registered(_)
        | Message::Superseded(_)
        | Message::Unregister(_)
        | Message::JoinPath(_)
        | Message::ClosePath(_)
        | Message::PathClosed(_)
        | Message::Locate(_)
        | Message::Here(_)
        | Message::NotHere(_)
        | Message::Announce(_) => Ok(()),
    }
}

fn at_most<T>(list: &[T], limit: usize, field: &'static str) -> Result<(), &'static str> {
    if list.len() > limit { Err(field) } else { Ok(()) }
}

fn check_name_and_addresses(name: &str, addresses: &[SocketAddr]) -> Result<(), &'static str> {
    if name.len() > limits::TEXT_BYTES_MAX {
        return Err("name");
    }
    at_most(addresses, limits::ADDRESSES_MAX, "addresses")
}

fn check_alternates(alternates: &[(BrokerId, String)]) -> Result<(), &'static str> {
    at_most(alternates, limits::ALTERNATES_MAX, "alternates")?;
    if alternates.iter().any(|(_, name)| name.len() > limits::TEXT_BYTES_MAX) {
        return Err("alternates");
    }
    Ok(())
}

fn check_open(open: &OpenPath) -> Result<(), &'static str> {
    at_most(open.ticket.as_bytes(), limits::TICKET_BYTES_MAX, "ticket")?;
    at_most(&open.route, limits::ROUTE_BROKERS_MAX, "route")?;
    at_most(&open.avoid, limits::AVOID_BROKERS_MAX, "avoid")
}

fn check_part(part: u16, parts: u16) -> Result<(), &'static str> {
    if part < parts { Ok(()) } else { Err("part") }
}
