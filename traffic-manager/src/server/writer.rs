//! Writes a response into a buffer that is used again and again.

use std::net::IpAddr;

use super::message::{CD, CLASS_IN, HEADER_BYTES, OPCODE_MASK, QR, Query, RD, kind};
use crate::decide::{ClientSubnet, Ttl};

/// Where a name stands in the message that is written: a compression pointer to it (RFC 1035 section 4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NameAt(u16);

impl NameAt {
    /// The name of the question.
    pub(super) const QUESTION: Self = Self(12);

    /// The name that begins `bytes` later inside this one.
    pub(super) fn later(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(u16::try_from(bytes).unwrap_or(0)))
    }
}

/// Bytes of an OPT record without options.
const OPT_HEAD_BYTES: usize = 11;

/// Option codes of EDNS.
pub(super) mod option {
    pub(crate) const NSID: u16 = 3;
    pub(crate) const CLIENT_SUBNET: u16 = 8;
}

/// What the OPT record of a response says.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyEdns<'r> {
    /// Bytes of a UDP message that we take and hold to.
    pub(super) payload: u16,
    /// Copied from the query.
    pub(super) dnssec_ok: bool,
    /// The subnet of the query with the scope of the answer.
    pub(super) subnet: Option<(ClientSubnet, u8)>,
    /// Who we are, when that was asked.
    pub(super) nsid: Option<&'r [u8]>,
}

/// The records of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// What was asked for.
    Answer,
    /// The SOA record of a negative answer.
    Authority,
}

/// A response that is being written.
#[derive(Debug)]
pub(super) struct Writer<'b> {
    out: &'b mut Vec<u8>,
    question_end: usize,
    answers: u16,
    authority: u16,
}

impl<'b> Writer<'b> {
    /// Begins the response to `query`: the header is filled in by [`Self::finish`].
    pub(super) fn new(out: &'b mut Vec<u8>, query: &Query<'_>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        if let Some(question) = query.question {
            out.extend_from_slice(question.bytes);
        }
        let question_end = out.len();
        Self { out, question_end, answers: 0, authority: 0 }
    }

    /// Adds a record whose data is there already; says where the data begins.
    pub(super) fn record(
        &mut self,
        section: Section,
        owner: NameAt,
        kind: u16,
        ttl: Ttl,
        data: &[u8],
    ) -> NameAt {
        self.u16(0xc000 | owner.0);
        self.u16(kind);
        self.u16(CLASS_IN);
        self.out.extend_from_slice(&ttl.seconds().to_be_bytes());
        self.u16(u16::try_from(data.len()).unwrap_or(0));
        let at = NameAt(u16::try_from(self.out.len()).unwrap_or(0));
        self.out.extend_from_slice(data);
        match section {
            Section::Answer => self.answers += 1,
            Section::Authority => self.authority += 1,
        }
        at
    }

    /// Adds an address record to the answers.
    pub(super) fn address(&mut self, owner: NameAt, ttl: Ttl, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.record(Section::Answer, owner, kind::A, ttl, &address.octets()),
            IpAddr::V6(address) => self.record(Section::Answer, owner, kind::AAAA, ttl, &address.octets()),
        };
    }

    /// How many records the answer has.
    pub(super) const fn answer_count(&self) -> u16 {
        self.answers
    }

    /// Takes all records back: a part of an answer would be taken for the whole by some.
    pub(super) fn clear_records(&mut self) {
        self.out.truncate(self.question_end);
        (self.answers, self.authority) = (0, 0);
    }

    /// Bytes so far.
    pub(super) const fn length(&self) -> usize {
        self.out.len()
    }

    /// Adds the OPT record, when the query had one, and fills in the header. `bits` are the header bits beyond those
    /// that every response has; `code` may be one of the extended codes.
    pub(super) fn finish(self, query: &Query<'_>, bits: u16, code: u16, edns: Option<&ReplyEdns<'_>>) {
        let Self { out, answers, authority, question_end } = self;
        if let Some(edns) = edns {
            write_opt(out, edns, code);
        }
        let flags = QR | (query.flags & (OPCODE_MASK | RD | CD)) | bits | (code & 0x0f);
        let questions = u16::from(question_end > HEADER_BYTES);
        let header = [query.id, flags, questions, answers, authority, u16::from(edns.is_some())];
        for (place, word) in out.chunks_exact_mut(2).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }

    fn u16(&mut self, number: u16) {
        self.out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Bytes that the OPT record will take.
pub(super) fn opt_bytes(edns: &ReplyEdns<'_>) -> usize {
    let subnet = edns.subnet.map_or(0, |(subnet, _)| 8 + usize::from(subnet.source_prefix).div_ceil(8));
    OPT_HEAD_BYTES + subnet + edns.nsid.map_or(0, |nsid| 4 + nsid.len())
}

fn write_opt(out: &mut Vec<u8>, edns: &ReplyEdns<'_>, code: u16) {
    let [_, extended] = (code >> 4).to_be_bytes();
    let flags = if edns.dnssec_ok { 0x8000_u16 } else { 0 };
    let options = u16::try_from(opt_bytes(edns) - OPT_HEAD_BYTES).unwrap_or(0);
    out.push(0);
    out.extend_from_slice(&kind::OPT.to_be_bytes());
    out.extend_from_slice(&edns.payload.to_be_bytes());
    // Where a TTL would stand: the upper bits of the code, version 0, the flags.
    out.extend_from_slice(&[extended, 0]);
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&options.to_be_bytes());
    write_options(out, edns);
}

fn write_options(out: &mut Vec<u8>, edns: &ReplyEdns<'_>) {
    let head = |out: &mut Vec<u8>, code: u16, bytes: usize| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(&u16::try_from(bytes).unwrap_or(0).to_be_bytes());
    };
    if let Some(nsid) = edns.nsid {
        head(out, option::NSID, nsid.len());
        out.extend_from_slice(nsid);
    }
    if let Some((subnet, scope)) = edns.subnet {
        let given = usize::from(subnet.source_prefix).div_ceil(8);
        head(out, option::CLIENT_SUBNET, 4 + given);
        let family: u8 = if subnet.address.is_ipv4() { 1 } else { 2 };
        out.extend_from_slice(&[0, family, subnet.source_prefix, scope]);
        match subnet.address {
            IpAddr::V4(address) => out.extend(address.octets().iter().take(given)),
            IpAddr::V6(address) => out.extend(address.octets().iter().take(given)),
        }
    }
}
