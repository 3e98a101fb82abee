//! The authority as its callers see it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rc_proto::identity::ticket::{
    DenyList, DenyLists, Presented, Start, Ticket, TicketKeys, UsedTickets, judge_at_broker, judge_at_target,
};
use rc_proto::wire::Role;
use rc_transport::{CredentialFiles, Credentials, verify_with};
use tempfile::TempDir;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::*;

use crate::reading::CertificateFacts;
use crate::*;

fn authority() -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path(), &"mesh.test".parse().unwrap()).unwrap();
    (dir, authority)
}

fn request(role: Role) -> LeafRequest {
    let id = if role == Role::Broker { "in/broker-3" } else { "a-1" };
    let request = LeafRequest::new(role, id);
    if matches!(role, Role::Broker | Role::RcServer) { request.dns_name("Name.mesh.test.") } else { request }
}

fn files_of(leaf: &IssuedFiles) -> CredentialFiles {
    CredentialFiles {
        certificate: leaf.certificate.clone(),
        key: leaf.key.clone(),
        ca: leaf.ca.clone(),
        crl: Some(leaf.crl.clone()),
    }
}

fn der(file: &Path) -> Vec<u8> {
    parse_x509_pem(&fs::read(file).unwrap()).unwrap().1.contents
}

fn crl_of(authority: &Authority) -> (u64, Vec<String>, i64) {
    let bytes = der(&authority.crl_file());
    let (_, list) = CertificateRevocationList::from_der(&bytes).unwrap();
    let serials = list
        .iter_revoked_certificates()
        .map(|entry| crate::reading::hex_serial(entry.raw_serial()))
        .collect();
    let number = list.crl_number().unwrap().to_string().parse().unwrap();
    (number, serials, list.next_update().unwrap().timestamp() - list.last_update().timestamp())
}

#[test]
fn a_leaf_of_every_role_and_key_kind_is_accepted_by_the_transport() {
    let (_dir, authority) = authority();
    for role in Role::ALL {
        for key_kind in [KeyKind::P256, KeyKind::Ed25519] {
            let leaf = authority.issue(&request(role).key_kind(key_kind).replacing()).unwrap();
            let credentials = Credentials::load(&files_of(&leaf)).unwrap();
            assert_eq!(credentials.spiffe_id(), &leaf.id);
            assert_eq!(credentials.role(), role);
            assert_eq!(credentials.key_thumbprint(), leaf.thumbprint.0);
        }
    }
}

#[test]
fn a_leaf_says_exactly_what_its_role_needs() {
    let (_dir, authority) = authority();
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for role in Role::ALL {
        let leaf = authority.issue(&request(role)).unwrap();
        let bytes = der(&leaf.certificate);
        let (rest, certificate) = X509Certificate::from_der(&bytes).unwrap();
        assert!(rest.is_empty());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.any && !usage.code_signing && usage.other.is_empty());
        assert_eq!(usage.server_auth, role.is_tls_server(), "{role}");
        let key_usage = certificate.key_usage().unwrap().unwrap();
        assert!(key_usage.critical);
        assert_eq!(key_usage.value.flags, 1, "digitalSignature alone");
        assert!(!certificate.is_ca());
        let facts = CertificateFacts::of(&certificate).unwrap();
        assert_eq!(facts.uri_names, [leaf.id.to_string()]);
        let dns_names: &[&str] =
            if matches!(role, Role::Broker | Role::RcServer) { &["name.mesh.test"] } else { &[] };
        assert_eq!(facts.dns_names, dns_names);
        let ca = CertificateFacts::read(&leaf.ca).unwrap();
        assert!(!facts.subject_key_id.is_empty());
        assert_eq!(facts.authority_key_id, ca.subject_key_id);
        assert_eq!(facts.serial.len(), 32);
        assert!((before - 60..=before - 55).contains(&facts.not_before), "begin is backdated by 60 s");
        assert_eq!(facts.not_after - facts.not_before, default_life(role).as_secs() + 60);
    }
}

#[test]
fn the_ca_lives_ten_years_and_may_sign_leaves_and_lists_only() {
    let (_dir, authority) = authority();
    let bytes = der(&authority.ca_file());
    let (_, ca) = X509Certificate::from_der(&bytes).unwrap();
    let constraints = ca.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = ca.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    let facts = CertificateFacts::of(&ca).unwrap();
    assert_eq!(facts.not_after - facts.not_before, 3650 * 86_400 + 60);
    assert!(
        ca.extensions()
            .iter()
            .any(|e| matches!(e.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)))
    );
}

#[test]
fn default_lives_are_two_days_for_endpoints_and_thirty_for_the_others() {
    for role in Role::ALL {
        let days = if matches!(role, Role::Controller | Role::Target) { 2 } else { 30 };
        assert_eq!(default_life(role), Duration::from_secs(days * 86_400), "{role}");
    }
}

#[test]
fn a_life_is_from_5_seconds_to_90_days() {
    let (_dir, authority) = authority();
    let (min, max) = (5, 90 * 86_400);
    for (seconds, accepted) in
        [(min - 1, false), (min, true), (min + 1, true), (max - 1, true), (max, true), (max + 1, false)]
    {
        let request = request(Role::Target).life(Duration::from_secs(seconds)).replacing();
        match authority.issue(&request) {
            Ok(leaf) => {
                assert!(accepted, "{seconds}");
                let facts = CertificateFacts::read(&leaf.certificate).unwrap();
                assert_eq!(facts.not_after - facts.not_before, seconds + 60);
            }
            Err(error) => {
                assert!(!accepted && matches!(error, CertsError::Life { .. }), "{seconds}: {error}")
            }
        }
    }
}

#[test]
fn a_leaf_may_begin_earlier_or_later_but_not_outlive_the_ca() {
    let (_dir, authority) = authority();
    let day = Duration::from_secs(86_400);
    let past = request(Role::Target).life(day).starts_at(SystemTime::now() - 2 * day);
    let leaf = authority.issue(&past).unwrap();
    assert!(leaf.not_after < SystemTime::now());
    assert!(Credentials::load(&files_of(&leaf)).is_err(), "an expired leaf is not used");
    let late = request(Role::Controller).starts_at(SystemTime::now() + CA_LIFE);
    assert!(matches!(authority.issue(&late), Err(CertsError::OutlivesAuthority { .. })));
}

#[test]
fn what_a_request_may_not_say_is_refused() {
    let (_dir, authority) = authority();
    let refused = |request: LeafRequest| authority.issue(&request).unwrap_err();
    assert!(matches!(refused(LeafRequest::new(Role::Broker, "no-region")), CertsError::Identity(_)));
    assert!(matches!(refused(LeafRequest::new(Role::Target, "A")), CertsError::Identity(_)));
    assert!(matches!(refused(LeafRequest::new(Role::Target, "../x")), CertsError::Identity(_)));
    let named = LeafRequest::new(Role::Target, "a").dns_name("a.test");
    assert!(matches!(refused(named), CertsError::DnsNameForRole { role: Role::Target }));
    for name in ["", "*.mesh.test", "a..b", "-a.test", "10.0.0.1", "a b", "a_b.test", &"a".repeat(64)] {
        let error = refused(LeafRequest::new(Role::Broker, "in/b").dns_name(name));
        assert!(matches!(error, CertsError::DnsName { .. }), "{name:?}: {error}");
    }
    let many = (0..33).fold(LeafRequest::new(Role::Broker, "in/b"), |r, i| r.dns_name(format!("b{i}.test")));
    assert!(matches!(refused(many), CertsError::TooManyDnsNames { count: 33, limit: 32 }));
    assert_eq!(fs::read_dir(authority.dir()).unwrap().count(), 5, "nothing was written");
}

#[test]
fn nothing_is_replaced_unasked() {
    let (dir, authority) = authority();
    let leaf = authority.issue(&request(Role::Target)).unwrap();
    let before = fs::read(&leaf.key).unwrap();
    let again = authority.issue(&request(Role::Target)).unwrap_err();
    assert!(again.to_string().ends_with("exists already: say --force to replace it"), "{again}");
    assert_eq!(fs::read(&leaf.key).unwrap(), before);
    let ca = fs::read(authority.ca_file()).unwrap();
    assert!(Authority::create(dir.path(), &"mesh.test".parse().unwrap()).is_err());
    assert_eq!(fs::read(authority.ca_file()).unwrap(), ca);
}

#[cfg(unix)]
#[test]
fn every_private_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, authority) = authority();
    authority.add_ticket_key(None).unwrap();
    authority.issue(&request(Role::Target)).unwrap();
    let mut private = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".key") || name == "authority.json" {
            assert_eq!(mode, 0o600, "{name}");
            private += 1;
        }
    }
    assert_eq!(private, 4);
    fs::set_permissions(dir.path().join("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Authority::open(dir.path()).unwrap_err().to_string();
    assert!(refused.ends_with("can be read by others (mode 0640): chmod 600 it"), "{refused}");
}

#[test]
fn renewal_keeps_the_key_the_names_and_the_life_unless_told_otherwise() {
    let (_dir, authority) = authority();
    let leaf = authority.issue(&request(Role::Broker).life(Duration::from_secs(3600))).unwrap();
    let first = CertificateFacts::read(&leaf.certificate).unwrap();
    let key = fs::read(&leaf.key).unwrap();
    let renewed = authority.renew(&RenewRequest::new(&leaf.certificate)).unwrap();
    let second = CertificateFacts::read(&leaf.certificate).unwrap();
    assert_eq!((&renewed.certificate, &renewed.key), (&leaf.certificate, &leaf.key));
    assert_eq!(renewed.thumbprint, leaf.thumbprint);
    assert_eq!(fs::read(&leaf.key).unwrap(), key);
    assert_ne!(renewed.serial, leaf.serial);
    assert_eq!((&second.uri_names, &second.dns_names), (&first.uri_names, &first.dns_names));
    assert_eq!(second.not_after - second.not_before, 3660);
    let life = Some(Duration::from_secs(60));
    let request = RenewRequest { new_key: true, life, ..RenewRequest::new(&leaf.certificate) };
    let rekeyed = authority.renew(&request).unwrap();
    assert_ne!(rekeyed.thumbprint, leaf.thumbprint);
    assert_ne!(fs::read(&leaf.key).unwrap(), key);
    Credentials::load(&files_of(&rekeyed)).unwrap();
}

#[test]
fn renewal_refuses_what_is_revoked_foreign_or_has_another_key() {
    let (_dir, authority) = authority();
    let (_other_dir, other) = self::authority();
    let leaf = authority.issue(&request(Role::Target)).unwrap();
    let foreign = other.issue(&request(Role::Target)).unwrap();
    let refused = |request: &RenewRequest| authority.renew(request).unwrap_err();
    assert!(matches!(refused(&RenewRequest::new(&foreign.certificate)), CertsError::OtherAuthority { .. }));
    let mixed = RenewRequest { key: Some(foreign.key), ..RenewRequest::new(&leaf.certificate) };
    assert!(matches!(refused(&mixed), CertsError::KeyMismatch { .. }));
    authority.revoke(&RevokeRequest::Certificate(leaf.certificate.clone())).unwrap();
    assert!(matches!(refused(&RenewRequest::new(&leaf.certificate)), CertsError::Revoked { .. }));
}

#[test]
fn renewal_refuses_a_forgery_that_names_our_key_and_what_has_run_out() {
    let (_dir, authority) = authority();
    let leaf = authority.issue(&request(Role::Target)).unwrap();
    let mut pem = pem_bytes(&leaf.certificate);
    // The last byte belongs to the signature.
    *pem.last_mut().unwrap() ^= 1;
    write_pem(&leaf.certificate, &pem);
    let forged = authority.renew(&RenewRequest::new(&leaf.certificate)).unwrap_err();
    assert!(matches!(forged, CertsError::OtherAuthority { .. }), "{forged}");
    let past = SystemTime::now() - Duration::from_secs(3600);
    let old = LeafRequest::new(Role::Target, "old").starts_at(past).life(Duration::from_secs(60));
    let old = authority.issue(&old).unwrap();
    let expired = authority.renew(&RenewRequest::new(&old.certificate)).unwrap_err();
    assert!(matches!(expired, CertsError::Expired { .. }), "{expired}");
}

fn pem_bytes(file: &Path) -> Vec<u8> {
    use base64::Engine as _;
    let text = fs::read_to_string(file).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}

fn write_pem(file: &Path, der: &[u8]) {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    fs::write(file, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")).unwrap();
}

#[test]
fn the_list_is_empty_at_first_and_its_number_only_goes_up() {
    let (_dir, authority) = authority();
    assert_eq!(crl_of(&authority), (1, vec![], 30 * 86_400));
    let leaf = authority.issue(&request(Role::Target)).unwrap();
    let revoked = authority.revoke(&RevokeRequest::Certificate(leaf.certificate.clone())).unwrap();
    assert_eq!(revoked, vec![leaf.serial.clone()]);
    assert_eq!(crl_of(&authority), (2, vec![leaf.serial.clone()], 30 * 86_400));
    assert_eq!(authority.revoke(&RevokeRequest::Serial(leaf.serial.clone())).unwrap(), Vec::<String>::new());
    assert_eq!(authority.write_crl(Duration::from_secs(60)).unwrap(), 4);
    let reopened = Authority::open(authority.dir()).unwrap();
    assert_eq!(crl_of(&reopened), (4, vec![leaf.serial], 60));
}

#[test]
fn an_identity_is_revoked_with_all_its_certificates_and_nothing_else() {
    let (_dir, authority) = authority();
    let first = authority.issue(&request(Role::Target)).unwrap();
    let second = authority.renew(&RenewRequest::new(&first.certificate)).unwrap();
    let kept = authority.issue(&request(Role::Controller)).unwrap();
    let mut revoked = authority.revoke(&RevokeRequest::Identity(first.id.clone())).unwrap();
    revoked.sort();
    let mut expected = [first.serial, second.serial];
    expected.sort();
    assert_eq!(revoked, expected);
    assert!(!crl_of(&authority).1.contains(&kept.serial));
    let nobody = RevokeRequest::Identity("spiffe://mesh.test/target/nobody".parse().unwrap());
    assert!(matches!(authority.revoke(&nobody), Err(CertsError::NothingToRevoke { .. })));
    assert!(matches!(
        authority.revoke(&RevokeRequest::Serial("00ff".to_owned())),
        Err(CertsError::NothingToRevoke { .. })
    ));
}

#[test]
fn two_processes_never_use_one_number_twice() {
    let (dir, _authority) = authority();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let dir = dir.path().to_owned();
            std::thread::spawn(move || {
                let authority = Authority::open(&dir).unwrap();
                (0..5).map(|_| authority.write_crl(CRL_LIFE).unwrap()).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut numbers: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=21).collect::<Vec<_>>());
}

#[test]
fn a_minted_ticket_is_accepted_by_broker_and_target_until_it_is_denied() {
    let (_dir, authority) = authority();
    authority.add_ticket_key(None).unwrap();
    let alice = authority.issue(&request(Role::Controller)).unwrap();
    let request = TicketRequest::for_certificate(
        &alice.certificate,
        "pc-17".parse().unwrap(),
        vec!["shell".parse().unwrap()],
    )
    .unwrap();
    let text = authority.mint_ticket(&request).unwrap();
    assert_ne!(text, authority.mint_ticket(&request).unwrap(), "each has a jti of its own");
    let keys = TicketKeys::parse(&fs::read_to_string(authority.ticket_keys_file()).unwrap()).unwrap();
    let ticket = Ticket::parse(&text).unwrap().verify(&verify_with(&keys)).unwrap();
    let target = "spiffe://mesh.test/target/pc-17".parse().unwrap();
    let presented = Presented { controller: &alice.id, key: &alice.thumbprint, target: &target };
    let now = ticket.claims().iat;
    let mut lists = DenyLists::default();
    judge_at_broker(&ticket, &presented, now, &lists).unwrap();
    let start = Start::New(rc_proto::wire::SessionId([1; 16]));
    let mut used = UsedTickets::without_history(now);
    judge_at_target(&ticket, &presented, now, &lists, start, &mut used).unwrap();
    assert_eq!((ticket.claims().start_by - now, ticket.claims().exp - now), (300, 43_200));
    assert_eq!(authority.deny_ticket(ticket.claims().jti, ticket.claims().exp).unwrap(), 1);
    let list = fs::read_to_string(authority.deny_list_file()).unwrap();
    lists.adopt(DenyList::parse(list.trim()).unwrap().verify(&verify_with(&keys)).unwrap());
    assert!(judge_at_broker(&ticket, &presented, now, &lists).is_err());
}

#[test]
fn ticket_keys_rotate_and_a_removed_one_signs_and_verifies_nothing() {
    let (_dir, authority) = authority();
    let alice = authority.issue(&request(Role::Controller)).unwrap();
    let request = TicketRequest::for_certificate(
        &alice.certificate,
        "pc-17".parse().unwrap(),
        vec!["*".parse().unwrap()],
    )
    .unwrap();
    assert!(matches!(authority.mint_ticket(&request), Err(CertsError::NoTicketKey { .. })));
    let first = authority.add_ticket_key(None).unwrap();
    let second = authority.add_ticket_key(Some("next".parse().unwrap())).unwrap();
    assert_eq!(Ticket::parse(&authority.mint_ticket(&request).unwrap()).unwrap().kid(), &second);
    let old = TicketRequest { kid: Some(first.clone()), ..request.clone() };
    let by_first = Ticket::parse(&authority.mint_ticket(&old).unwrap()).unwrap();
    assert!(by_first.clone().verify(&verify_with(&authority.ticket_keys().unwrap())).is_ok());
    authority.remove_ticket_key(&first).unwrap();
    assert!(by_first.verify(&verify_with(&authority.ticket_keys().unwrap())).is_err());
    assert!(matches!(authority.mint_ticket(&old), Err(CertsError::NoSuchTicketKey { .. })));
    assert!(matches!(authority.remove_ticket_key(&first), Err(CertsError::NoSuchTicketKey { .. })));
    assert!(authority.add_ticket_key(Some(second)).is_err(), "an id is not used twice");
}

#[test]
fn a_ticket_without_sense_is_not_minted() {
    let (_dir, authority) = authority();
    authority.add_ticket_key(None).unwrap();
    let target = authority.issue(&request(Role::Target)).unwrap();
    let shell = || vec!["shell".parse().unwrap()];
    let of_target = TicketRequest::for_certificate(&target.certificate, "pc-17".parse().unwrap(), shell());
    assert!(matches!(of_target, Err(CertsError::Content { .. })));
    let alice = authority.issue(&request(Role::Controller)).unwrap();
    let good = TicketRequest::for_certificate(&alice.certificate, "pc-17".parse().unwrap(), shell()).unwrap();
    let none = TicketRequest { permissions: vec![], ..good.clone() };
    assert!(matches!(authority.mint_ticket(&none), Err(CertsError::NoPermission)));
    let late =
        TicketRequest { start_by: Duration::from_secs(61), life: Duration::from_secs(60), ..good.clone() };
    assert!(matches!(authority.mint_ticket(&late), Err(CertsError::TicketTimes { .. })));
    let perm: rc_proto::identity::ticket::Permission = "shell".parse().unwrap();
    let many = TicketRequest { permissions: vec![perm; 33], ..good };
    assert!(matches!(authority.mint_ticket(&many), Err(CertsError::Ticket(_))));
}

#[test]
fn a_damaged_or_missing_authority_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Authority::open(dir.path()).unwrap_err().to_string();
    assert!(missing.contains("make one with `rc-certs init"), "{missing}");
    let (dir, _authority) = authority();
    fs::write(dir.path().join("authority.json"), "{").unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(CertsError::Content { .. })));
}

#[cfg(feature = "testing")]
#[test]
fn a_flawed_leaf_is_refused_by_the_transport_and_warned_of_by_inspect() {
    let (_dir, authority) = authority();
    for flaw in [Flaw::KeyUsage, Flaw::NoKeyUsage, Flaw::TwoUriNames, Flaw::NoUriName] {
        let leaf = authority.issue_flawed(&request(Role::Controller).replacing(), flaw).unwrap();
        assert!(Credentials::load(&files_of(&leaf)).is_err(), "{flaw:?}");
        assert_eq!(inspect(&leaf.certificate, None).unwrap()[0].warnings.len(), 1, "{flaw:?}");
    }
}
