//! Our zones as records of the DNS library, made once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_server::proto::ProtoError;
use hickory_server::proto::rr::rdata::{CNAME, NS, SOA};
use hickory_server::proto::rr::{Name, RData, Record};

use crate::decide::Ttl;
use crate::name::DnsName;
use crate::zone::{Zone, Zones};

/// How often secondaries would ask, in seconds; there are none, and tools want sensible numbers.
const REFRESH_SECONDS: i32 = 3600;
const RETRY_SECONDS: i32 = 600;
const EXPIRE_SECONDS: i32 = 604_800;

/// The records at a zone's apex.
#[derive(Debug, Clone)]
pub(super) struct ApexRecords {
    soa: Record,
    name_servers: Vec<Record>,
    negative_ttl: Ttl,
}

impl ApexRecords {
    fn of(zone: &Zone) -> Result<Self, ProtoError> {
        let apex = wire_name(&zone.apex)?;
        let primary = match zone.name_servers.first() {
            Some(name) => wire_name(name)?,
            None => apex.clone(),
        };
        let soa = SOA::new(
            primary,
            wire_name(&zone.contact)?,
            zone.serial,
            REFRESH_SECONDS,
            RETRY_SECONDS,
            EXPIRE_SECONDS,
            zone.negative_ttl.seconds(),
        );
        let ttl = zone.ttl.seconds();
        let name_servers = zone
            .name_servers
            .iter()
            .map(|name| Ok(Record::from_rdata(apex.clone(), ttl, RData::NS(NS(wire_name(name)?)))))
            .collect::<Result<_, ProtoError>>()?;
        let soa = Record::from_rdata(apex, ttl, RData::SOA(soa));
        Ok(Self { soa, name_servers, negative_ttl: zone.negative_ttl.min(zone.ttl) })
    }

    /// The SOA record, under the name as it was asked.
    pub(super) fn soa(&self, owner: &Name) -> Record {
        owned_by(self.soa.clone(), owner)
    }

    /// The NS records, under the name as it was asked.
    pub(super) fn name_servers(&self, owner: &Name) -> impl Iterator<Item = Record> {
        self.name_servers.iter().map(|record| owned_by(record.clone(), owner))
    }

    /// The SOA record for a negative answer. Its TTL is how long the absence may be cached (RFC 2308 section 5): not
    /// longer than `at_most`, so that a recovery is seen as fast as a failure.
    pub(super) fn negative_soa(&self, at_most: Ttl) -> Record {
        let mut soa = self.soa.clone();
        soa.ttl = self.negative_ttl.min(at_most).seconds();
        soa
    }
}

/// The apex records of all zones.
#[derive(Debug, Clone)]
pub(super) struct ZoneRecords(BTreeMap<DnsName, ApexRecords>);

impl ZoneRecords {
    pub(super) fn of(zones: &Zones) -> Result<Self, ProtoError> {
        let each = zones.zones().map(|zone| Ok((zone.apex.clone(), ApexRecords::of(zone)?)));
        Ok(Self(each.collect::<Result<_, ProtoError>>()?))
    }

    pub(super) fn apex(&self, zone: &Zone) -> Option<&ApexRecords> {
        self.0.get(&zone.apex)
    }
}

/// An address record.
pub(super) fn address_record(owner: &Name, ttl: Ttl, address: IpAddr) -> Record {
    Record::from_rdata(owner.clone(), ttl.seconds(), RData::from(address))
}

/// An alias record.
pub(super) fn alias_record(owner: &Name, ttl: Ttl, target: &DnsName) -> Result<Record, ProtoError> {
    Ok(Record::from_rdata(owner.clone(), ttl.seconds(), RData::CNAME(CNAME(wire_name(target)?))))
}

/// The canonical form of a name in a query.
pub(super) fn canonical(name: &Name) -> DnsName {
    DnsName::from_labels(name.iter())
}

fn owned_by(mut record: Record, owner: &Name) -> Record {
    record.name = owner.clone();
    record
}

fn wire_name(name: &DnsName) -> Result<Name, ProtoError> {
    let mut wire = Name::from_ascii(name.as_str())?;
    wire.set_fqdn(true);
    Ok(wire)
}
