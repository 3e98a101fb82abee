//! Fits [`respond`](super::respond) to the DNS library.

use std::sync::Arc;

use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::client_subnet;
use super::counters::Counters;
use super::records::ZoneRecords;
use super::respond::{Incoming, Reply, Served, respond};
use crate::decide::Maps;
use crate::monitor::LatestSnapshot;
use crate::zone::Zones;

/// Bytes of a header.
const HEADER_BYTES: usize = 12;
/// Bytes of an OPT record without options, and of the largest client subnet.
const OPT_BYTES: usize = 11 + 4 + 4 + 16;
/// The limit of UDP answers to clients without EDNS (RFC 1035 section 4.2.1).
const PLAIN_UDP_BYTES_MAX: usize = 512;

/// Answers queries from the zones and the latest snapshot.
pub(super) struct Handler {
    pub(super) zones: Arc<Zones>,
    pub(super) records: ZoneRecords,
    pub(super) snapshot: LatestSnapshot,
    pub(super) maps: Maps,
    pub(super) counters: Arc<Counters>,
}

impl Handler {
    fn reply(&self, request: &Request) -> Reply {
        let snapshot = self.snapshot.load();
        let (zones, records, maps) = (&self.zones, &self.records, &self.maps);
        let served = Served { zones, records, snapshot: &snapshot, maps };
        let incoming = Incoming {
            metadata: &request.metadata,
            queries: request.queries.queries(),
            edns: request.edns.as_ref(),
            subnet: match request.edns {
                Some(_) => client_subnet::of_query(request.as_slice()),
                None => Ok(None),
            },
            source: request.src().ip().to_canonical(),
        };
        let mut reply = respond(&served, &incoming, &mut rand::rng());
        self.counters.count(reply.metadata.response_code, !reply.answers.is_empty(), reply.profile);
        if request.protocol() == Protocol::Udp && !fits(request, &reply) {
            self.counters.count_truncation();
            truncate(&mut reply);
        }
        reply
    }
}

/// An answer that does not fit goes without records: a part of one would be taken for the whole by some, and the OPT
/// record has to stay.
fn truncate(reply: &mut Reply) {
    reply.metadata.truncation = true;
    reply.answers.clear();
    reply.authority.clear();
}

fn fits(request: &Request, reply: &Reply) -> bool {
    let limit = reply.edns.as_ref().map_or(PLAIN_UDP_BYTES_MAX, |edns| usize::from(edns.max_payload()));
    let question = request.queries.as_bytes().len();
    let records = reply.answers.iter().chain(&reply.authority);
    let at_most = HEADER_BYTES + question + OPT_BYTES + records.map(uncompressed_bytes).sum::<usize>();
    at_most <= limit || encoded_bytes(request, reply).is_some_and(|bytes| bytes <= limit)
}

/// At least as many bytes as the record takes in a message.
fn uncompressed_bytes(record: &Record) -> usize {
    record.to_bytes().map_or(usize::MAX / 4096, |bytes| bytes.len())
}

/// The message's size with compressed names.
fn encoded_bytes(request: &Request, reply: &Reply) -> Option<usize> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::MAX);
    let builder = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref());
    let message = builder.build(reply.metadata, &reply.answers, &reply.authority, [], []);
    let sent = message.destructive_emit(&mut encoder).ok()?;
    (!sent.truncation).then_some(bytes.len())
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request);
        let builder = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref());
        let message = builder.build(reply.metadata, &reply.answers, &reply.authority, [], []);
        match response_handle.send_response(message).await {
            Ok(sent) => sent,
            Err(error) => not_sent(reply.metadata, &error),
        }
    }
}

fn not_sent(mut metadata: Metadata, error: &NetError) -> ResponseInfo {
    tracing::debug!(%error, "an answer could not be sent");
    metadata.response_code = ResponseCode::ServFail;
    Header { metadata, counts: HeaderCounts::default() }.into()
}
