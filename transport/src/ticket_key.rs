//! The cryptography of tickets and deny lists: Ed25519 signatures, and the thumbprint of a certificate's key.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rc_proto::identity::ticket::{
    DenyClaims, KeyId, KeyThumbprint, KeyVerdict, PublicJwk, SIGNATURE_BYTES, SigningInput, TicketClaims,
    TicketError, TicketKeys,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// Bytes of the key's digest that its default id shows, as hexadecimal.
const DEFAULT_KEY_ID_BYTES: usize = 8;

/// Why a text is not a usable ticket key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketSignerError {
    /// No PEM item `PRIVATE KEY`.
    #[error("it holds no PEM item PRIVATE KEY (PKCS#8)")]
    Pem,
    /// The key in it is of another kind, or damaged.
    #[error("its private key is not an Ed25519 key in PKCS#8")]
    NotEd25519,
    /// The operating system gave no randomness.
    #[error("no randomness for a new key")]
    NoRandomness,
}

/// A private key that signs tickets and deny lists. Only issuers hold one; no broker does.
pub struct TicketSigner {
    kid: KeyId,
    key: Ed25519KeyPair,
}

impl fmt::Debug for TicketSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSigner").field("kid", &self.kid).field("key", &"***").finish()
    }
}

impl TicketSigner {
    /// Draws a new key; its id is the start of the SHA-256 of its public half.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, TicketSignerError> {
        Ed25519KeyPair::generate().map_err(|_| TicketSignerError::NoRandomness).and_then(Self::from_key)
    }

    /// Reads a key as [`Self::to_pem`] writes it, with the default id.
    ///
    /// # Errors
    /// When the text is not an Ed25519 key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, TicketSignerError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| TicketSignerError::Pem)?;
        let key =
            Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| TicketSignerError::NotEd25519)?;
        Self::from_key(key)
    }

    fn from_key(key: Ed25519KeyPair) -> Result<Self, TicketSignerError> {
        let kid = default_key_id(key.public_key().as_ref()).ok_or(TicketSignerError::NotEd25519)?;
        Ok(Self { kid, key })
    }

    /// The same key under another id.
    #[must_use]
    pub fn with_kid(self, kid: KeyId) -> Self {
        Self { kid, ..self }
    }

    /// The private key as PKCS#8 in PEM.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, TicketSignerError> {
        let document = self.key.to_pkcs8v1().map_err(|_| TicketSignerError::NotEd25519)?;
        Ok(Zeroizing::new(pem("PRIVATE KEY", document.as_ref())))
    }

    /// The key's id.
    pub fn kid(&self) -> &KeyId {
        &self.kid
    }

    /// The public half, for [`TicketKeys::insert`].
    pub fn public_key(&self) -> [u8; 32] {
        // An Ed25519 public key always has 32 bytes.
        self.key.public_key().as_ref().try_into().unwrap_or_default()
    }

    /// The compact ticket.
    ///
    /// # Errors
    /// When a claim breaks its rule, or the ticket would be too long.
    pub fn sign_ticket(&self, claims: &TicketClaims) -> Result<String, TicketError> {
        self.sign(claims.to_signing_input(&self.kid)?)
    }

    /// The compact deny list.
    ///
    /// # Errors
    /// When the list would be too long.
    pub fn sign_deny_list(&self, claims: &DenyClaims) -> Result<String, TicketError> {
        self.sign(claims.to_signing_input(&self.kid)?)
    }

    fn sign(&self, input: SigningInput) -> Result<String, TicketError> {
        let signature = self.key.sign(input.as_bytes());
        let signature = <[u8; SIGNATURE_BYTES]>::try_from(signature.as_ref())
            .map_err(|_| TicketError::SignatureLength { length: signature.as_ref().len() })?;
        Ok(input.sign_with(&signature))
    }
}

/// The signature check to hand to `UnverifiedTicket::verify` and `UnverifiedDenyList::verify`.
pub fn verify_with(keys: &TicketKeys) -> impl Fn(&KeyId, &[u8], &[u8; SIGNATURE_BYTES]) -> KeyVerdict + '_ {
    move |kid, signed, signature| {
        let Some(public_key) = keys.public_key(kid) else { return KeyVerdict::UnknownKey };
        match UnparsedPublicKey::new(&ED25519, public_key).verify(signed, signature) {
            Ok(()) => KeyVerdict::Holds,
            Err(_) => KeyVerdict::BadSignature,
        }
    }
}

/// RFC 7638 thumbprint of the key in a DER `SubjectPublicKeyInfo`; `None` when it is neither P-256, P-384 nor Ed25519.
pub fn key_thumbprint(spki_der: &[u8]) -> Option<KeyThumbprint> {
    let input = PublicJwk::from_spki_der(spki_der)?.thumbprint_input();
    digest(&SHA256, input.as_bytes()).as_ref().try_into().ok().map(KeyThumbprint)
}

fn default_key_id(public_key: &[u8]) -> Option<KeyId> {
    let hash = digest(&SHA256, public_key);
    let id: String =
        hash.as_ref().iter().take(DEFAULT_KEY_ID_BYTES).map(|byte| format!("{byte:02x}")).collect();
    id.parse().ok()
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rc_proto::identity::ticket::{DenyList, Ticket};
    use rc_proto::wire::Jti;

    fn claims() -> TicketClaims {
        TicketClaims {
            iss: "test".to_owned(),
            sub: "spiffe://mesh.test/controller/alice".parse().unwrap(),
            aud: "spiffe://mesh.test/target/pc-17".parse().unwrap(),
            iat: 1000,
            nbf: 1000,
            jti: Jti([7; 16]),
            perm: vec!["shell".parse().unwrap()],
            cnf: KeyThumbprint([9; 32]),
            start_by: 1300,
            exp: 5000,
        }
    }

    fn keys_of(signer: &TicketSigner) -> TicketKeys {
        let mut keys = TicketKeys::default();
        keys.insert(signer.kid().clone(), signer.public_key()).unwrap();
        keys
    }

    #[test]
    fn a_signed_ticket_verifies_and_a_key_survives_its_file() {
        let signer = TicketSigner::from_pem(&TicketSigner::generate().unwrap().to_pem().unwrap()).unwrap();
        let text = signer.sign_ticket(&claims()).unwrap();
        let ticket = Ticket::parse(&text).unwrap().verify(&verify_with(&keys_of(&signer))).unwrap();
        assert_eq!(ticket.claims(), &claims());
        assert_eq!(ticket.kid(), signer.kid());
    }

    #[test]
    fn a_ticket_of_another_key_or_with_one_bit_flipped_is_refused() {
        let signer = TicketSigner::generate().unwrap();
        let other = TicketSigner::generate().unwrap();
        let text = signer.sign_ticket(&claims()).unwrap();
        let (ours, theirs) = (keys_of(&signer), keys_of(&other));
        let parsed = Ticket::parse(&text).unwrap();
        let kid = signer.kid().clone();
        assert_eq!(
            parsed.clone().verify(&verify_with(&theirs)),
            Err(TicketError::UnknownKey { kid: kid.clone() })
        );
        let impostor = other.with_kid(kid.clone());
        let forged = Ticket::parse(&impostor.sign_ticket(&claims()).unwrap()).unwrap();
        assert_eq!(forged.verify(&verify_with(&ours)), Err(TicketError::BadSignature { kid }));
        for position in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[position] ^= 1 << bit;
                let flipped = String::from_utf8(bytes).unwrap();
                let accepted =
                    Ticket::parse(&flipped).and_then(|ticket| ticket.verify(&verify_with(&ours))).is_ok();
                assert!(!accepted, "bit {bit} of byte {position}");
            }
        }
    }

    #[test]
    fn a_deny_list_is_no_ticket_and_a_ticket_no_deny_list() {
        let signer = TicketSigner::generate().unwrap();
        let denied = DenyClaims { number: 1, iat: 1, jti: [Jti([7; 16])].into(), sub: [].into() };
        let list = signer.sign_deny_list(&denied).unwrap();
        let verified = DenyList::parse(&list).unwrap().verify(&verify_with(&keys_of(&signer))).unwrap();
        assert_eq!(verified.claims(), &denied);
        assert!(matches!(Ticket::parse(&list), Err(TicketError::Type { .. })));
        let ticket = signer.sign_ticket(&claims()).unwrap();
        assert!(matches!(DenyList::parse(&ticket), Err(TicketError::Type { .. })));
    }

    #[test]
    fn the_thumbprint_of_the_rfc_8037_key_is_the_rfc_8037_thumbprint() {
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend([
            0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
            0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
        ]);
        assert_eq!(key_thumbprint(&spki).unwrap().to_string(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(key_thumbprint(&spki[1..]), None);
    }

    #[test]
    fn a_signer_never_shows_its_key() {
        let signer = TicketSigner::generate().unwrap().with_kid("k1".parse().unwrap());
        assert_eq!(format!("{signer:?}"), r#"TicketSigner { kid: "k1", key: "***" }"#);
        assert_eq!(TicketSigner::from_pem("nothing").unwrap_err(), TicketSignerError::Pem);
    }
}
