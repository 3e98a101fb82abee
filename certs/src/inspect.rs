//! Reads any file of the authority and says what it is, what it says, and what is wrong with it.

use std::path::Path;
use std::time::SystemTime;

use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{DenyList, Ticket, TicketKeys};
use rc_transport::verify_with;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Map, Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::rfc3339;
use crate::error::CertsError;
use crate::files;
use crate::leaf::{KeyKind, unix_seconds};
use crate::reading::{CertificateFacts, hex, hex_serial};

/// One thing found in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is: `certificate`, `crl`, `private key`, `ticket`, `deny list` or `ticket keys`.
    pub kind: &'static str,
    /// What it says, by name.
    pub fields: Map<String, Value>,
    /// What is wrong with it, each with what to do.
    pub warnings: Vec<String>,
}

impl Finding {
    fn new(kind: &'static str) -> Self {
        Self { kind, fields: Map::new(), warnings: Vec::new() }
    }

    fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Warns of a validity that is over, not begun, or has a fifth or less left.
    fn judge_life(&mut self, begin: u64, end: u64, now: u64, remedy: &str) {
        self.field("not_before", rfc3339(begin));
        self.field("not_after", rfc3339(end));
        let left = end.saturating_sub(now);
        self.field("seconds_left", left);
        if now > end {
            self.warnings.push(format!("it ran out on {}: {remedy}", rfc3339(end)));
        } else if now < begin {
            let begin = rfc3339(begin);
            self.warnings.push(format!("it becomes valid only on {begin}: check this machine's clock"));
        } else if left.saturating_mul(5) <= end.saturating_sub(begin) {
            self.warnings.push(format!("a fifth of its life or less is left: {remedy}"));
        }
    }
}

/// Says what is in `file`; the signatures of tickets and deny lists are checked when `keys` are given.
///
/// # Errors
/// When the file cannot be read, or holds nothing that this project uses.
pub fn inspect(file: &Path, keys: Option<&TicketKeys>) -> Result<Vec<Finding>, CertsError> {
    let text = zeroize::Zeroizing::new(files::read(file)?);
    let now = unix_seconds(SystemTime::now()).ok_or(CertsError::Clock)?;
    let content = |reason: &str| CertsError::Content { file: file.to_owned(), reason: reason.to_owned() };
    let trimmed = text.trim();
    if trimmed.starts_with('{') {
        let keys = TicketKeys::parse(trimmed).map_err(|error| content(&error.to_string()))?;
        return Ok(vec![of_keys(&keys)]);
    }
    if trimmed.matches('.').count() == 2 && !trimmed.contains(char::is_whitespace) {
        return of_token(trimmed, keys, now).map(|finding| vec![finding]);
    }
    let mut findings = Vec::new();
    for item in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = item.map_err(|_| content("a PEM item in it is damaged"))?;
        let der = zeroize::Zeroizing::new(der);
        let finding = if kind == SectionKind::Certificate {
            of_certificate(&der, file, now)
        } else if kind == SectionKind::Crl {
            of_crl(&der, now)
        } else if matches!(
            kind,
            SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey
        ) {
            of_private_key(&der, file)
        } else {
            continue;
        };
        findings.push(finding.map_err(content)?);
    }
    if findings.is_empty() {
        return Err(content(
            "is no certificate, revocation list, key, ticket, deny list or set of ticket keys",
        ));
    }
    Ok(findings)
}

fn of_certificate(der: &[u8], file: &Path, now: u64) -> Result<Finding, &'static str> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| "its certificate is not X.509 in DER")?;
    let facts = CertificateFacts::of(&certificate)?;
    let mut finding = Finding::new("certificate");
    finding.field("subject", certificate.subject().to_string());
    finding.field("issuer", certificate.issuer().to_string());
    finding.field("serial", facts.serial.clone());
    let is_ca = certificate.is_ca();
    finding.field("ca", is_ca);
    finding.field("uri_names", facts.uri_names.clone());
    finding.field("dns_names", facts.dns_names.clone());
    if let Some(thumbprint) = facts.thumbprint {
        finding.field("key_thumbprint", thumbprint.to_string());
    } else {
        finding.warnings.push("its key is neither P-256, P-384 nor Ed25519: issue it again".to_owned());
    }
    let remedy = if is_ca {
        "make a new CA with `rc-certs init` and issue every certificate again".to_owned()
    } else {
        format!("rc-certs renew {}", file.display())
    };
    finding.judge_life(facts.not_before, facts.not_after, now, &remedy);
    if !is_ca {
        judge_leaf(&mut finding, &certificate, &facts);
    }
    Ok(finding)
}

fn judge_leaf(finding: &mut Finding, certificate: &X509Certificate<'_>, facts: &CertificateFacts) {
    let usage = certificate.extended_key_usage().ok().flatten();
    let (client, server) =
        usage.map_or((false, false), |usage| (usage.value.client_auth, usage.value.server_auth));
    finding.field("client_auth", client);
    finding.field("server_auth", server);
    if facts.authority_key_id.is_empty() {
        finding.warnings.push("it has no authority key identifier: issue it again".to_owned());
    }
    let role = match facts.uri_names.as_slice() {
        [uri] => uri.parse::<SpiffeId>().map(|id| id.role()).map_err(|error| error.to_string()),
        names => Err(format!("it has {} URI names instead of one SPIFFE id", names.len())),
    };
    match role {
        Err(reason) => finding.warnings.push(format!("no peer will accept it: {reason}")),
        Ok(role) => {
            finding.field("role", role.to_string());
            if !client || (role.is_tls_server() && !server) {
                finding
                    .warnings
                    .push(format!("its extended key usage does not fit the role {role}: issue it again"));
            }
        }
    }
}

fn of_crl(der: &[u8], now: u64) -> Result<Finding, &'static str> {
    let (_, list) =
        CertificateRevocationList::from_der(der).map_err(|_| "its revocation list is not X.509 in DER")?;
    let mut finding = Finding::new("crl");
    finding.field("issuer", list.issuer().to_string());
    finding.field("number", list.crl_number().map_or(Value::Null, |number| number.to_string().into()));
    let serials: Vec<String> =
        list.iter_revoked_certificates().map(|entry| hex_serial(entry.raw_serial())).collect();
    finding.field("revoked", serials);
    let begin = u64::try_from(list.last_update().timestamp()).unwrap_or(0);
    match list.next_update() {
        Some(end) => {
            let end = u64::try_from(end.timestamp()).unwrap_or(0);
            finding.judge_life(begin, end, now, "run `rc-certs crl` and give the new list to the brokers");
        }
        None => finding.warnings.push("it has no nextUpdate: make a new one with `rc-certs crl`".to_owned()),
    }
    Ok(finding)
}

fn of_private_key(der: &[u8], file: &Path) -> Result<Finding, &'static str> {
    let key = rcgen::KeyPair::try_from(der).map_err(|_| "its private key is of no kind that is used here")?;
    let mut finding = Finding::new("private key");
    let kind = match crate::authority::kind_of(&key) {
        KeyKind::P256 => "P-256",
        KeyKind::Ed25519 => "Ed25519",
    };
    finding.field("key", kind);
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    if let Some(thumbprint) = rc_transport::key_thumbprint(&spki) {
        finding.field("key_thumbprint", thumbprint.to_string());
    }
    if let Some(mode) = files::exposed_mode(file) {
        let file = file.display();
        finding.warnings.push(format!("it can be read by others (mode {mode:04o}): chmod 600 {file}"));
    }
    Ok(finding)
}

fn of_keys(keys: &TicketKeys) -> Finding {
    let mut finding = Finding::new("ticket keys");
    finding.field("kids", keys.iter().map(|(kid, _)| kid.to_string()).collect::<Vec<_>>());
    if keys.is_empty() {
        finding
            .warnings
            .push("it holds no key, so every ticket is refused: run `rc-certs ticket-key`".to_owned());
    }
    finding
}

fn of_token(text: &str, keys: Option<&TicketKeys>, now: u64) -> Result<Finding, CertsError> {
    match Ticket::parse(text) {
        Ok(ticket) => {
            let claims = ticket.unverified_claims()?;
            let mut finding = Finding::new("ticket");
            finding.field("kid", ticket.kid().to_string());
            finding.field("issuer", claims.iss.clone());
            finding.field("controller", claims.sub.to_string());
            finding.field("target", claims.aud.to_string());
            finding.field("permissions", claims.perm.iter().map(ToString::to_string).collect::<Vec<_>>());
            finding.field("jti", hex(&claims.jti.0));
            finding.field("key_thumbprint", claims.cnf.to_string());
            finding.field("start_by", rfc3339(claims.start_by));
            finding.judge_life(claims.nbf, claims.exp, now, "mint another with `rc-certs ticket`");
            if now > claims.start_by && now <= claims.exp {
                let start_by = rfc3339(claims.start_by);
                finding
                    .warnings
                    .push(format!("it starts no new session since {start_by}; it only resumes one"));
            }
            let checked = keys.map(|keys| ticket.verify(&verify_with(keys)).map(|_| ()));
            finding.note_signature(checked);
            Ok(finding)
        }
        Err(ticket_error) => {
            let Ok(list) = DenyList::parse(text) else { return Err(ticket_error.into()) };
            let claims = list.unverified_claims()?;
            let mut finding = Finding::new("deny list");
            finding.field("kid", list.kid().to_string());
            finding.field("number", claims.number);
            finding.field("issued", rfc3339(claims.iat));
            finding.field("tickets", claims.jti.iter().map(|jti| hex(&jti.0)).collect::<Vec<_>>());
            finding.field("controllers", json!(claims.sub));
            let checked = keys.map(|keys| list.verify(&verify_with(keys)).map(|_| ()));
            finding.note_signature(checked);
            Ok(finding)
        }
    }
}

impl Finding {
    fn note_signature(&mut self, checked: Option<Result<(), rc_proto::identity::ticket::TicketError>>) {
        match checked {
            None => self.field("signature", "not checked (--keys FILE checks it)"),
            Some(Ok(())) => self.field("signature", "holds"),
            Some(Err(error)) => {
                self.field("signature", "refused");
                self.warnings.push(error.to_string());
            }
        }
    }
}
