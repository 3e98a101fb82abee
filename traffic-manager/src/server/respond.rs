//! From a parsed query to the reply, without any socket.

use std::net::IpAddr;

use hickory_server::proto::op::{Edns, LowerQuery, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::opt;
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use rand::Rng;

use super::client_subnet::Malformed;
use super::records::{ApexRecords, ZoneRecords, address_record, alias_record, canonical};
use crate::decide::{Answer, AskedType, Asker, ClientSubnet, Maps, Snapshot, Ttl, View, decide};
use crate::zone::{Found, Node, Zones};

/// The least UDP answer size that a client has to take (RFC 6891 section 6.2.5).
const UDP_BYTES_MIN: u16 = 512;
/// The largest UDP answer that we send: fits an IPv6 packet of minimal MTU (RFC 9715).
const UDP_BYTES_MAX: u16 = 1232;

/// What replies are made from.
#[derive(Debug)]
pub(super) struct Served<'s> {
    pub(super) zones: &'s Zones,
    pub(super) records: &'s ZoneRecords,
    pub(super) snapshot: &'s Snapshot,
    pub(super) maps: &'s Maps,
}

/// A query that could be read.
#[derive(Debug)]
pub(super) struct Incoming<'q> {
    pub(super) metadata: &'q Metadata,
    pub(super) queries: &'q [LowerQuery],
    pub(super) edns: Option<&'q Edns>,
    pub(super) subnet: Result<Option<ClientSubnet>, Malformed>,
    pub(super) source: IpAddr,
}

/// The reply to one query.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) metadata: Metadata,
    pub(super) edns: Option<Edns>,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    /// The profile that was asked for.
    pub(super) profile: Option<usize>,
}

/// What an answer says, apart from header and EDNS.
struct Content {
    code: ResponseCode,
    answers: Vec<Record>,
    authority: Vec<Record>,
    scope_prefix: u8,
    profile: Option<usize>,
}

impl Content {
    fn positive(answers: Vec<Record>) -> Self {
        let code = ResponseCode::NoError;
        Self { code, answers, authority: Vec::new(), scope_prefix: 0, profile: None }
    }

    fn negative(code: ResponseCode, soa: Record) -> Self {
        Self { code, answers: Vec::new(), authority: vec![soa], scope_prefix: 0, profile: None }
    }
}

/// Judges a query and answers it.
pub(super) fn respond(served: &Served<'_>, incoming: &Incoming<'_>, rng: &mut impl Rng) -> Reply {
    let edns = incoming.edns.map(reply_edns);
    let mut metadata = Metadata::response_from_request(incoming.metadata);
    let judged = judge(incoming).and_then(|(query, subnet)| {
        let content = answer(served, query, subnet, incoming.source, rng).ok_or(ResponseCode::Refused)?;
        Ok((content, subnet))
    });
    let (content, subnet) = match judged {
        Ok(sound) => sound,
        Err(code) => {
            metadata.response_code = code;
            return Reply { metadata, edns, answers: Vec::new(), authority: Vec::new(), profile: None };
        }
    };
    metadata.authoritative = true;
    metadata.response_code = content.code;
    let edns = edns.map(|mut edns| {
        if let Some(subnet) = subnet {
            let echo = opt::ClientSubnet::new(subnet.address, subnet.source_prefix, content.scope_prefix);
            edns.options_mut().insert(opt::EdnsOption::Subnet(echo));
        }
        edns
    });
    let Content { answers, authority, profile, .. } = content;
    Reply { metadata, edns, answers, authority, profile }
}

/// The one question of a query that we can answer at all, or why we cannot. The opcode comes first: what follows the
/// header means something else under another one.
fn judge<'q>(incoming: &Incoming<'q>) -> Result<(&'q LowerQuery, Option<ClientSubnet>), ResponseCode> {
    if incoming.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if incoming.edns.is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    let [query] = incoming.queries else { return Err(ResponseCode::FormErr) };
    let subnet = incoming.subnet.map_err(|Malformed| ResponseCode::FormErr)?;
    let kind = query.query_type();
    if query.query_class() != DNSClass::IN || kind == RecordType::AXFR || kind == RecordType::IXFR {
        return Err(ResponseCode::Refused);
    }
    Ok((query, subnet))
}

/// Our part of EDNS. The size is also the limit that the DNS library holds a UDP answer to.
fn reply_edns(asked: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(asked.max_payload().clamp(UDP_BYTES_MIN, UDP_BYTES_MAX));
    edns.set_dnssec_ok(asked.flags().dnssec_ok);
    edns
}

/// `None`: the name is not ours.
fn answer(
    served: &Served<'_>,
    query: &LowerQuery,
    subnet: Option<ClientSubnet>,
    source: IpAddr,
    rng: &mut impl Rng,
) -> Option<Content> {
    let owner = query.original().name();
    let kind = query.query_type();
    let name = canonical(owner);
    let (zone, node) = match served.zones.find(&name) {
        Found::OutOfZone => return None,
        Found::Absent(zone) => {
            let soa = served.records.apex(zone)?.negative_soa(Ttl::MAX);
            return Some(Content::negative(ResponseCode::NXDomain, soa));
        }
        Found::Present(zone, node) => (zone, node),
    };
    let apex = served.records.apex(zone)?;
    let is_apex = zone.apex == name;
    let mut content = match node {
        Node::Empty => no_data(apex, Ttl::MAX),
        Node::Addresses { ttl, addresses } => fixed(owner, kind, *ttl, addresses, apex),
        Node::Alias { ttl, target } => Content::positive(vec![alias_record(owner, *ttl, target).ok()?]),
        Node::Profile(position) | Node::Flattened(position) => {
            let asker = Asker { asked: asked_type(kind), source, subnet };
            of_profile(served, *position, owner, &asker, apex, rng)?
        }
    };
    if is_apex {
        add_apex(&mut content, apex, owner, kind);
    }
    Some(content)
}

/// The zone's own records beside whatever else stands at its apex, which always exists.
fn add_apex(content: &mut Content, apex: &ApexRecords, owner: &Name, kind: RecordType) {
    let is_any = kind == RecordType::ANY;
    if is_any || kind == RecordType::SOA {
        content.answers.push(apex.soa(owner));
    }
    if is_any || kind == RecordType::NS {
        content.answers.extend(apex.name_servers(owner));
    }
    content.code = ResponseCode::NoError;
    if !content.answers.is_empty() {
        content.authority.clear();
    }
}

fn of_profile(
    served: &Served<'_>,
    position: usize,
    owner: &Name,
    asker: &Asker,
    apex: &ApexRecords,
    rng: &mut impl Rng,
) -> Option<Content> {
    let profile = served.zones.profile(position)?;
    let view = View { profiles: served.zones.profiles(), snapshot: served.snapshot, maps: served.maps };
    let decision = decide(&view, position, asker, rng);
    let content = match decision.answer {
        Answer::Addresses(addresses) => Content::positive(
            addresses.into_iter().map(|address| address_record(owner, profile.ttl, address)).collect(),
        ),
        Answer::Name(target) => Content::positive(vec![alias_record(owner, profile.ttl, &target).ok()?]),
        Answer::NoData => no_data(apex, profile.ttl),
        Answer::NameError => Content::negative(ResponseCode::NXDomain, apex.negative_soa(profile.ttl)),
    };
    Some(Content { scope_prefix: decision.scope_prefix, profile: Some(position), ..content })
}

fn fixed(owner: &Name, kind: RecordType, ttl: Ttl, addresses: &[IpAddr], apex: &ApexRecords) -> Content {
    let is_asked = |address: &&IpAddr| match asked_type(kind) {
        AskedType::A => address.is_ipv4(),
        AskedType::Aaaa => address.is_ipv6(),
        AskedType::Any => true,
        AskedType::Other => false,
    };
    let answers: Vec<Record> =
        addresses.iter().filter(is_asked).map(|address| address_record(owner, ttl, *address)).collect();
    if answers.is_empty() { no_data(apex, ttl) } else { Content::positive(answers) }
}

fn no_data(apex: &ApexRecords, at_most: Ttl) -> Content {
    Content::negative(ResponseCode::NoError, apex.negative_soa(at_most))
}

fn asked_type(kind: RecordType) -> AskedType {
    if kind == RecordType::A {
        AskedType::A
    } else if kind == RecordType::AAAA {
        AskedType::Aaaa
    } else if kind == RecordType::ANY {
        AskedType::Any
    } else {
        AskedType::Other
    }
}
