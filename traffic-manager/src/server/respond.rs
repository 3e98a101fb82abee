//! From the bytes of a query to the bytes of the response, without any socket. UDP and TCP both answer by this one
//! function, so they cannot differ in anything but the size.

use std::net::IpAddr;

use rand::Rng;

use super::catalog::{Catalog, Found, NameKey, ZoneRecords, wire_name};
use super::client_subnet;
use super::message::{AA, CLASS_IN, Cursor, Edns, Query, Question, TC, code, kind};
use super::serving::Serving;
use super::writer::{NameAt, ReplyEdns, Section, Writer, opt_bytes, option};
use crate::decide::{Answer, AskedType, Asker, ClientSubnet, Maps, Snapshot, Ttl, View, decide};
use crate::name::DnsName;
use crate::zone::{Node, Zones};

/// The limit of UDP answers to clients without EDNS, and the least that any has to take (RFC 6891 section 6.2.5).
const UDP_BYTES_MIN: u16 = 512;
/// The largest UDP answer that we send: fits an IPv6 packet of minimal MTU (RFC 9715).
pub(super) const UDP_BYTES_MAX: u16 = 1232;

/// Aliases that are followed for one query; a longer chain, or a loop, ends there.
const ALIASES_MAX: usize = 8;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram: answers are short.
    Udp,
    /// A stream.
    Tcp,
}

/// What was done with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The response code, extended bits included.
    pub(super) code: u16,
    /// Whether it has what was asked for.
    pub(super) has_answers: bool,
    /// Whether it did not fit.
    pub(super) is_truncated: bool,
    /// The profile that answered.
    pub(super) profile: Option<usize>,
}

/// What replies are made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served<'s> {
    pub(super) zones: &'s Zones,
    pub(super) catalog: &'s Catalog,
    pub(super) snapshot: &'s Snapshot,
    pub(super) maps: &'s Maps,
    pub(super) nsid: Option<&'s [u8]>,
}

impl<'s> Served<'s> {
    pub(super) fn of(serving: &'s Serving, snapshot: &'s Snapshot, maps: &'s Maps) -> Self {
        let Serving { zones, catalog, nsid, .. } = serving;
        Self { zones, catalog, snapshot, maps, nsid: nsid.as_deref() }
    }
}

/// Options of a query that matter to us.
#[derive(Debug, Default, Clone, Copy)]
struct Options {
    subnet: Option<ClientSubnet>,
    wants_nsid: bool,
}

/// Writes the response to one query into `out`, as the server does, without its limit of responses; says whether there
/// is one.
pub fn answer(
    serving: &Serving,
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    rng: &mut impl Rng,
    out: &mut Vec<u8>,
) -> bool {
    let (snapshot, maps) = (serving.snapshot().load(), serving.maps().load());
    respond(&Served::of(serving, &snapshot, &maps), message, source, transport, rng, out).is_some()
}

/// Writes the response to `message` into `out`; `None` for what must not be answered.
pub(super) fn respond(
    served: &Served<'_>,
    message: &[u8],
    source: IpAddr,
    transport: Transport,
    rng: &mut impl Rng,
    out: &mut Vec<u8>,
) -> Option<Outcome> {
    let query = Query::read(message)?;
    let options = query.edns.map_or(Some(Options::default()), |edns| read_options(edns.options));
    let mut edns = query.edns.as_ref().map(reply_edns);
    if let (Some(edns), Some(options)) = (&mut edns, &options) {
        edns.nsid = served.nsid.filter(|_| options.wants_nsid);
    }
    let mut writer = Writer::new(out, &query);
    let (question, options) = match judge(&query, options) {
        Ok(sound) => sound,
        Err(code) => {
            writer.finish(&query, 0, code, edns.as_ref());
            return Some(Outcome { code, has_answers: false, is_truncated: false, profile: None });
        }
    };
    let asker = Asker { asked: asked_type(question.kind), source, subnet: options.subnet };
    let mut answering = Answering { served, writer: &mut writer, kind: question.kind, asker, scope: 0 };
    let Some(content) = answering.answer(&question, rng) else {
        let code = code::REFUSED;
        writer.finish(&query, 0, code, edns.as_ref());
        return Some(Outcome { code, has_answers: false, is_truncated: false, profile: None });
    };
    let scope = answering.scope;
    if let Some(edns) = &mut edns {
        edns.subnet = options.subnet.map(|subnet| (subnet, scope));
    }
    let has_answers = writer.answer_count() > 0;
    let is_truncated = !fits(&writer, edns.as_ref(), transport);
    let bits = if is_truncated {
        writer.clear_records();
        AA | TC
    } else {
        AA
    };
    writer.finish(&query, bits, content.code, edns.as_ref());
    Some(Outcome { code: content.code, has_answers, is_truncated, profile: content.profile })
}

/// The shortest response that makes an honest client ask again over TCP: for sources that ask too much over UDP.
pub(super) fn shorten(message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let query = Query::read(message)?;
    let edns = query.edns.as_ref().map(reply_edns);
    Writer::new(out, &query).finish(&query, TC, code::NO_ERROR, edns.as_ref());
    Some(())
}

fn fits(writer: &Writer<'_>, edns: Option<&ReplyEdns<'_>>, transport: Transport) -> bool {
    let limit = match transport {
        Transport::Udp => edns.map_or(UDP_BYTES_MIN, |edns| edns.payload),
        Transport::Tcp => u16::MAX,
    };
    writer.length() + edns.map_or(0, opt_bytes) <= usize::from(limit)
}

/// The one question of a query that we can answer at all, or why we cannot. The opcode comes first: what follows the
/// header means something else under another one.
fn judge<'q>(query: &Query<'q>, options: Option<Options>) -> Result<(Question<'q>, Options), u16> {
    if query.opcode() != 0 {
        return Err(code::NOT_IMP);
    }
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return Err(code::BAD_VERS);
    }
    let (Some(question), 1, false, Some(options)) =
        (query.question, query.question_count, query.is_malformed, options)
    else {
        return Err(code::FORM_ERR);
    };
    if question.class != CLASS_IN || matches!(question.kind, kind::AXFR | kind::IXFR) {
        return Err(code::REFUSED);
    }
    Ok((question, options))
}

/// `None` when they do not read, or a client subnet among them is malformed or there twice.
fn read_options(bytes: &[u8]) -> Option<Options> {
    let (mut cursor, mut found) = (Cursor::new(bytes), Options::default());
    while !cursor.is_at_end() {
        let (code, length) = (cursor.u16()?, cursor.u16()?);
        let data = cursor.bytes(usize::from(length))?;
        match code {
            option::NSID => found.wants_nsid = true,
            option::CLIENT_SUBNET => {
                let subnet = client_subnet::parse(data).ok()?;
                if found.subnet.replace(subnet).is_some() {
                    return None;
                }
            }
            _ => {}
        }
    }
    Some(found)
}

/// Our part of EDNS. The size is also the limit that UDP answers keep to.
fn reply_edns<'r>(asked: &Edns<'_>) -> ReplyEdns<'r> {
    let payload = asked.payload.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX);
    ReplyEdns { payload, dnssec_ok: asked.dnssec_ok, subnet: None, nsid: None }
}

/// What an answer says, apart from its records.
struct Content {
    code: u16,
    profile: Option<usize>,
}

/// One answer on its way into the message.
struct Answering<'a, 's, 'b> {
    served: &'a Served<'s>,
    writer: &'a mut Writer<'b>,
    kind: u16,
    asker: Asker,
    scope: u8,
}

/// A name whose records are written, and the zone around it.
#[derive(Clone, Copy)]
struct Owner<'z> {
    name: NameAt,
    /// Bytes of the whole name.
    bytes: usize,
    zone: &'z ZoneRecords,
}

/// What stands at a name for the type that was asked, with how long its absence may be cached.
#[derive(Clone)]
enum Standing {
    Written,
    NoData(Ttl),
    NameError(Ttl),
    /// An alias was written; its target stands in the message here.
    Alias(NameAt, Box<[u8]>),
}

impl Answering<'_, '_, '_> {
    /// Follows aliases from the question's name through our zones. `None`: the name is not ours.
    fn answer(&mut self, question: &Question<'_>, rng: &mut impl Rng) -> Option<Content> {
        let mut content = Content { code: code::NO_ERROR, profile: None };
        let (mut key, mut name) = (NameKey::of(question.name)?, NameAt::QUESTION);
        for hop in 0..=ALIASES_MAX {
            let bytes = key.as_bytes().len();
            let (owner, is_apex, node) = match self.served.catalog.find(key.as_bytes()) {
                Found::OutOfZone if hop == 0 => return None,
                // Whoever asked goes on from there.
                Found::OutOfZone => break,
                Found::Absent(zone) => {
                    self.negative(Owner { name, bytes, zone }, Ttl::MAX);
                    content.code = code::NX_DOMAIN;
                    break;
                }
                Found::Present { zone, is_apex, node } => (Owner { name, bytes, zone }, is_apex, node),
            };
            if let Node::Profile(position) | Node::Flattened(position) = node {
                content.profile = content.profile.or(Some(*position));
            }
            let standing = self.standing(owner, node, rng)?;
            // The apex always exists, whatever a profile there says, and has its own records beside it.
            let has_apex_records = is_apex && self.apex(owner);
            match standing {
                Standing::Alias(target, wire) if !matches!(self.kind, kind::CNAME | kind::ANY) => {
                    (key, name) = (NameKey::of(&wire)?, target);
                    continue;
                }
                Standing::NoData(at_most) if !has_apex_records => self.negative(owner, at_most),
                Standing::NameError(at_most) if !has_apex_records => {
                    self.negative(owner, at_most);
                    content.code = if is_apex { code::NO_ERROR } else { code::NX_DOMAIN };
                }
                Standing::Alias(..) | Standing::NoData(_) | Standing::NameError(_) | Standing::Written => {}
            }
            break;
        }
        Some(content)
    }

    /// Writes what stands at a name.
    fn standing(&mut self, owner: Owner<'_>, node: &Node, rng: &mut impl Rng) -> Option<Standing> {
        Some(match node {
            Node::Empty => Standing::NoData(Ttl::MAX),
            Node::Addresses { ttl, addresses } => self.fixed(owner, *ttl, addresses),
            Node::Alias { ttl, target } => self.alias(owner, *ttl, target),
            Node::Profile(position) | Node::Flattened(position) => self.of_profile(owner, *position, rng)?,
        })
    }

    fn alias(&mut self, owner: Owner<'_>, ttl: Ttl, target: &DnsName) -> Standing {
        let wire = wire_name(target);
        let at = self.writer.record(Section::Answer, owner.name, kind::CNAME, ttl, &wire);
        Standing::Alias(at, wire)
    }

    /// Says whether there was something to write.
    fn apex(&mut self, owner: Owner<'_>) -> bool {
        let (is_any, zone) = (self.kind == kind::ANY, owner.zone);
        if is_any || self.kind == kind::SOA {
            self.writer.record(Section::Answer, owner.name, kind::SOA, zone.ttl, &zone.soa);
        }
        if is_any || self.kind == kind::NS {
            for server in &zone.name_servers {
                self.writer.record(Section::Answer, owner.name, kind::NS, zone.ttl, server);
            }
        }
        matches!(self.kind, kind::ANY | kind::SOA | kind::NS)
    }

    fn of_profile(&mut self, owner: Owner<'_>, position: usize, rng: &mut impl Rng) -> Option<Standing> {
        let Served { zones, snapshot, maps, .. } = *self.served;
        let profile = zones.profile(position)?;
        let view = View { profiles: zones.profiles(), snapshot, maps };
        let decision = decide(&view, position, &self.asker, rng);
        self.scope = self.scope.max(decision.scope_prefix);
        Some(match decision.answer {
            Answer::Addresses(addresses) => {
                for address in addresses {
                    self.writer.address(owner.name, profile.ttl, address);
                }
                Standing::Written
            }
            Answer::Name(name) => self.alias(owner, profile.ttl, &name),
            Answer::NoData => Standing::NoData(profile.ttl),
            Answer::NameError => Standing::NameError(profile.ttl),
        })
    }

    fn fixed(&mut self, owner: Owner<'_>, ttl: Ttl, addresses: &[IpAddr]) -> Standing {
        let mut standing = Standing::NoData(ttl);
        for address in addresses.iter().filter(|address| self.asker.asked.takes(**address)) {
            self.writer.address(owner.name, ttl, *address);
            standing = Standing::Written;
        }
        standing
    }

    /// The SOA record of a negative answer. Its TTL is how long the absence may be cached (RFC 2308 section 5): not
    /// longer than `at_most`, so that a recovery is seen as fast as a failure.
    fn negative(&mut self, owner: Owner<'_>, at_most: Ttl) {
        let apex = owner.name.later(owner.bytes.saturating_sub(owner.zone.apex_bytes));
        let ttl = owner.zone.negative_ttl.min(at_most);
        self.writer.record(Section::Authority, apex, kind::SOA, ttl, &owner.zone.soa);
    }
}

const fn asked_type(asked: u16) -> AskedType {
    match asked {
        kind::A => AskedType::A,
        kind::AAAA => AskedType::Aaaa,
        kind::ANY => AskedType::Any,
        _ => AskedType::Other,
    }
}
