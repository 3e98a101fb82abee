//! Revocation: the CRL for certificates and the deny list for tickets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::DenyClaims;
use rc_proto::wire::Jti;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;

use crate::authority::Authority;
use crate::error::CertsError;
use crate::files::{self, Existing, Readers};
use crate::leaf::{DAY_S, unix_seconds, whole_seconds};
use crate::reading::{CertificateFacts, hex, hex_serial, unhex};
use crate::register::{Register, Revoked};

/// Time from one CRL to its nextUpdate when nothing else is said.
pub const CRL_LIFE: Duration = Duration::from_secs(30 * DAY_S);
pub(crate) const CRL: &str = "crl.pem";
const DENY_LIST: &str = "deny.jws";

/// What to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokeRequest {
    /// The certificate in a file.
    Certificate(PathBuf),
    /// The certificate of this serial number, in hexadecimal.
    Serial(String),
    /// Every certificate that is still valid of this identity.
    Identity(SpiffeId),
}

impl Authority {
    /// The CA's revocation list.
    pub fn crl_file(&self) -> PathBuf {
        self.dir().join(CRL)
    }

    /// The deny list; it is there once a ticket was denied.
    pub fn deny_list_file(&self) -> PathBuf {
        self.dir().join(DENY_LIST)
    }

    /// Writes a new CRL with the next number; the number.
    ///
    /// # Errors
    /// When it cannot be written, or `life` is not positive.
    pub fn write_crl(&self, life: Duration) -> Result<u64, CertsError> {
        self.revoke_with(life, |_, _| Ok(Vec::new())).map(|(number, _)| number)
    }

    /// Revokes certificates and writes a new CRL; the serials that it newly lists.
    ///
    /// # Errors
    /// When nothing that was issued fits, or a file cannot be read or written.
    pub fn revoke(&self, request: &RevokeRequest) -> Result<Vec<String>, CertsError> {
        let found = match request {
            RevokeRequest::Certificate(file) => Some(self.read_own(file)?),
            RevokeRequest::Serial(_) | RevokeRequest::Identity(_) => None,
        };
        let (_, serials) = self.revoke_with(CRL_LIFE, |register, now| match request {
            RevokeRequest::Certificate(_) => {
                Ok(found.map(|found| found.into_entry(now)).into_iter().collect())
            }
            RevokeRequest::Serial(serial) => {
                let serial = unhex(&serial.replace(':', "").to_ascii_lowercase())
                    .map(|bytes| hex_serial(&bytes))
                    .unwrap_or_else(|| serial.clone());
                let issued = register
                    .issued
                    .get(&serial)
                    .ok_or_else(|| CertsError::NothingToRevoke { what: format!("serial {serial}") })?;
                let entry = Revoked { id: issued.id.clone(), not_after: issued.not_after, revoked_at: now };
                Ok(vec![(serial, entry)])
            }
            RevokeRequest::Identity(id) => {
                let of_id = register.issued.iter().filter(|(_, issued)| issued.id == *id);
                let entries: Vec<_> = of_id
                    .map(|(serial, issued)| {
                        let entry = Revoked { id: id.clone(), not_after: issued.not_after, revoked_at: now };
                        (serial.clone(), entry)
                    })
                    .collect();
                if entries.is_empty() {
                    return Err(CertsError::NothingToRevoke { what: id.to_string() });
                }
                Ok(entries)
            }
        })?;
        Ok(serials)
    }

    /// Denies one ticket, whose `exp` is `end_unix_s`, and writes a new deny list; its number.
    ///
    /// # Errors
    /// When there is no ticket key, or a file cannot be written.
    pub fn deny_ticket(&self, jti: Jti, end_unix_s: u64) -> Result<u64, CertsError> {
        self.deny_with(|register| {
            register.denied_tickets.insert(hex(&jti.0), end_unix_s);
        })
    }

    /// The one way that the CRL changes: register first, so its number is never used twice.
    fn revoke_with(
        &self,
        life: Duration,
        choose: impl FnOnce(&Register, u64) -> Result<Vec<(String, Revoked)>, CertsError>,
    ) -> Result<(u64, Vec<String>), CertsError> {
        self.update(|register| {
            let now = SystemTime::now();
            let now_s = unix_seconds(now).ok_or(CertsError::Clock)?;
            let mut added = Vec::new();
            for (serial, entry) in choose(register, now_s)? {
                if !register.revoked.contains_key(&serial) {
                    register.revoked.insert(serial.clone(), entry);
                    added.push(serial);
                }
            }
            register.crl_number += 1;
            register.store(self.dir(), Existing::Replace, now_s)?;
            let crl = self.sign_crl(register, now, life)?;
            files::write(&self.crl_file(), &crl, Readers::Everybody, Existing::Replace)?;
            Ok((register.crl_number, added))
        })
    }

    fn sign_crl(&self, register: &Register, now: SystemTime, life: Duration) -> Result<String, CertsError> {
        let entry = |(serial, revoked): (&String, &Revoked)| {
            let revoked_at = i64::try_from(revoked.revoked_at).unwrap_or(0);
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&unhex(serial)?),
                revocation_time: OffsetDateTime::from_unix_timestamp(revoked_at).ok()?,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let params = CertificateRevocationListParams {
            this_update: whole_seconds(now)?,
            next_update: whole_seconds(now + life)?,
            crl_number: SerialNumber::from(register.crl_number),
            issuing_distribution_point: None,
            revoked_certs: register.revoked.iter().filter_map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    fn deny_with(&self, change: impl FnOnce(&mut Register)) -> Result<u64, CertsError> {
        let signer = self.ticket_signer(None)?;
        self.update(|register| {
            let now_s = unix_seconds(SystemTime::now()).ok_or(CertsError::Clock)?;
            change(register);
            register.deny_number += 1;
            register.store(self.dir(), Existing::Replace, now_s)?;
            let jti = |text: &String| unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Jti);
            let claims = DenyClaims {
                number: register.deny_number,
                iat: now_s,
                jti: register.denied_tickets.keys().filter_map(jti).collect(),
                sub: BTreeSet::new(),
            };
            let list = signer.sign_deny_list(&claims)?;
            files::write(
                &self.deny_list_file(),
                &format!("{list}\n"),
                Readers::Everybody,
                Existing::Replace,
            )?;
            Ok(register.deny_number)
        })
    }

    fn read_own(&self, file: &Path) -> Result<Found, CertsError> {
        let facts = CertificateFacts::read(file)?;
        let id = facts.spiffe_id(file)?;
        if !self.issued_by_us(&facts) {
            return Err(CertsError::OtherAuthority { file: file.to_owned() });
        }
        Ok(Found { id, facts })
    }
}

/// A certificate of ours.
struct Found {
    id: SpiffeId,
    facts: CertificateFacts,
}

impl Found {
    fn into_entry(self, now_s: u64) -> (String, Revoked) {
        let entry = Revoked { id: self.id, not_after: self.facts.not_after, revoked_at: now_s };
        (self.facts.serial, entry)
    }
}
