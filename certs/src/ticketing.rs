//! Ticket keys and the tickets they sign.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rand::Rng as _;
use rc_proto::identity::SpiffeId;
use rc_proto::identity::ticket::{KeyId, KeyThumbprint, Permission, TicketClaims, TicketKeys};
use rc_proto::wire::{EndpointId, Jti, Role};
use rc_transport::TicketSigner;

use crate::authority::Authority;
use crate::error::CertsError;
use crate::files::{self, Existing, Readers};
use crate::leaf::unix_seconds;
use crate::reading::CertificateFacts;
use crate::register::Register;

/// Time to start a session with a ticket when nothing else is said.
pub const TICKET_START_BY: Duration = Duration::from_secs(5 * 60);
/// Time that a ticket's session may run when nothing else is said.
pub const TICKET_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
const PUBLIC_KEYS: &str = "ticket-keys.json";
/// Name under which tickets say who issued them.
const ISSUER_ID: &str = "rc-certs";

/// A ticket to mint.
#[derive(Debug, Clone)]
pub struct TicketRequest {
    /// The Controller it is for.
    pub controller: SpiffeId,
    /// Thumbprint of the key in the Controller's certificate.
    pub key_thumbprint: KeyThumbprint,
    /// Id of the Target that it opens.
    pub target: EndpointId,
    /// What it permits there.
    pub permissions: Vec<Permission>,
    /// How long a new session may start with it.
    pub start_by: Duration,
    /// How long paths of that session may be opened with it.
    pub life: Duration,
    /// When it is issued and begins to be valid; `None` for now.
    pub starts_at: Option<SystemTime>,
    /// The key that signs; `None` for the last one made.
    pub kid: Option<KeyId>,
}

impl TicketRequest {
    /// A ticket of the default times for the Controller in a certificate file.
    ///
    /// # Errors
    /// When the file holds no Controller's certificate.
    pub fn for_certificate(
        certificate: &Path,
        target: EndpointId,
        permissions: Vec<Permission>,
    ) -> Result<Self, CertsError> {
        let facts = CertificateFacts::read(certificate)?;
        let controller = facts.spiffe_id(certificate)?;
        if controller.role() != Role::Controller {
            let reason = format!("belongs to {controller}, and tickets are for controllers");
            return Err(CertsError::Content { file: certificate.to_owned(), reason });
        }
        let key_thumbprint =
            facts.thumbprint.ok_or_else(|| CertsError::KeyKind { file: certificate.to_owned() })?;
        Ok(Self::new(controller, key_thumbprint, target, permissions))
    }

    /// A ticket of the default times.
    pub fn new(
        controller: SpiffeId,
        key_thumbprint: KeyThumbprint,
        target: EndpointId,
        permissions: Vec<Permission>,
    ) -> Self {
        Self {
            controller,
            key_thumbprint,
            target,
            permissions,
            start_by: TICKET_START_BY,
            life: TICKET_LIFE,
            starts_at: None,
            kid: None,
        }
    }
}

impl Authority {
    /// The public ticket keys, for brokers and Targets.
    pub fn ticket_keys_file(&self) -> PathBuf {
        self.dir().join(PUBLIC_KEYS)
    }

    /// The public ticket keys; none before the first was made.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn ticket_keys(&self) -> Result<TicketKeys, CertsError> {
        let file = self.ticket_keys_file();
        if !file.exists() {
            return Ok(TicketKeys::default());
        }
        let text = files::read(&file)?;
        TicketKeys::parse(&text).map_err(|error| CertsError::Content { file, reason: error.to_string() })
    }

    /// The key that signs when none is named.
    ///
    /// # Errors
    /// When the register is damaged.
    pub fn signing_key_id(&self) -> Result<Option<KeyId>, CertsError> {
        Ok(Register::load(self.dir())?.ticket_key)
    }

    /// Makes a ticket key, which signs from now on; older ones stay acceptable until they are removed.
    ///
    /// # Errors
    /// When its id is taken, or a file cannot be written.
    pub fn add_ticket_key(&self, kid: Option<KeyId>) -> Result<KeyId, CertsError> {
        let mut signer = TicketSigner::generate()?;
        if let Some(kid) = kid {
            signer = signer.with_kid(kid);
        }
        self.update(|register| {
            let mut keys = self.ticket_keys()?;
            keys.insert(signer.kid().clone(), signer.public_key())?;
            let private = self.ticket_key_file(signer.kid());
            files::write(&private, &signer.to_pem()?, Readers::Owner, Existing::Keep)?;
            files::write(&self.ticket_keys_file(), &keys.to_json(), Readers::Everybody, Existing::Replace)?;
            register.ticket_key = Some(signer.kid().clone());
            Ok(signer.kid().clone())
        })
    }

    /// Takes a key out of the public set: its tickets are refused wherever the set is loaded next. The private half is
    /// deleted.
    ///
    /// # Errors
    /// When there is no such key, or a file cannot be written.
    pub fn remove_ticket_key(&self, kid: &KeyId) -> Result<(), CertsError> {
        self.update(|register| {
            let mut keys = self.ticket_keys()?;
            if !keys.remove(kid) {
                return Err(CertsError::NoSuchTicketKey { kid: kid.clone() });
            }
            files::write(&self.ticket_keys_file(), &keys.to_json(), Readers::Everybody, Existing::Replace)?;
            let file = self.ticket_key_file(kid);
            if let Err(source) = std::fs::remove_file(&file)
                && source.kind() != std::io::ErrorKind::NotFound
            {
                return Err(files::FileError::Write { file, source }.into());
            }
            if register.ticket_key.as_ref() == Some(kid) {
                register.ticket_key = keys.iter().next().map(|(kid, _)| kid.clone());
            }
            Ok(())
        })
    }

    /// Mints a ticket: the compact JWS.
    ///
    /// # Errors
    /// When there is no ticket key, or the request does not hold.
    pub fn mint_ticket(&self, request: &TicketRequest) -> Result<String, CertsError> {
        if request.permissions.is_empty() {
            return Err(CertsError::NoPermission);
        }
        if request.start_by < Duration::from_secs(1) || request.start_by > request.life {
            return Err(CertsError::TicketTimes { start_by: request.start_by, life: request.life });
        }
        let start =
            unix_seconds(request.starts_at.unwrap_or_else(SystemTime::now)).ok_or(CertsError::Clock)?;
        let domain = self.trust_domain();
        let claims = TicketClaims {
            iss: format!("spiffe://{domain}/{}/{ISSUER_ID}", Role::RcServer),
            sub: request.controller.clone(),
            aud: SpiffeId::endpoint(domain.clone(), Role::Target, &request.target),
            iat: start,
            nbf: start,
            jti: Jti(rand::rng().random()),
            perm: request.permissions.clone(),
            cnf: request.key_thumbprint,
            start_by: start.saturating_add(request.start_by.as_secs()),
            exp: start.saturating_add(request.life.as_secs()),
        };
        Ok(self.ticket_signer(request.kid.as_ref())?.sign_ticket(&claims)?)
    }

    /// The private half of `kid`, or of the last key made.
    pub(crate) fn ticket_signer(&self, kid: Option<&KeyId>) -> Result<TicketSigner, CertsError> {
        let kid = match kid {
            Some(kid) => kid.clone(),
            None => self
                .signing_key_id()?
                .ok_or_else(|| CertsError::NoTicketKey { dir: self.dir().to_owned() })?,
        };
        let file = self.ticket_key_file(&kid);
        if !file.exists() {
            return Err(CertsError::NoSuchTicketKey { kid });
        }
        Ok(TicketSigner::from_pem(&files::read_private(&file)?)?.with_kid(kid))
    }

    fn ticket_key_file(&self, kid: &KeyId) -> PathBuf {
        self.dir().join(format!("ticket-{kid}.key"))
    }
}

/// Empties the public set of an authority that is replaced: nothing signs for the new one yet.
pub(crate) fn forget_keys(dir: &Path) -> Result<(), CertsError> {
    let file = dir.join(PUBLIC_KEYS);
    if file.exists() {
        files::write(&file, &TicketKeys::default().to_json(), Readers::Everybody, Existing::Replace)?;
    }
    Ok(())
}
