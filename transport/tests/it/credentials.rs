//! What is refused when our own credentials are loaded, and what the refusal says.

use std::fs;
use std::time::{Duration, SystemTime};

use rc_proto::wire::Role;
use rc_transport::testing::{Blueprint, TestCa};
use rc_transport::{CredentialError, CredentialFiles, Credentials, LifeLeft, Peer, PeerFault};

fn ca() -> TestCa {
    TestCa::new("mesh.test")
}

fn fault(files: &CredentialFiles) -> PeerFault {
    match Credentials::load(files) {
        Err(CredentialError::Certificate { file, fault }) => {
            assert_eq!(file, files.certificate);
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sound_credentials_of_every_role_and_key_kind_load() {
    let ca = ca();
    let paths = ["broker/in/b-1", "controller/alice", "target/pc-1", "rc-server/main", "traffic-manager/t"];
    for (path, role) in paths.into_iter().zip([
        Role::Broker,
        Role::Controller,
        Role::Target,
        Role::RcServer,
        Role::TrafficManager,
    ]) {
        for ed25519 in [false, true] {
            let id = ca.id(path);
            let files = ca.issue_as(&Blueprint { ed25519, ..Blueprint::of(&id, &["Mesh.Example"]) });
            let credentials = Credentials::load(&files).unwrap();
            assert_eq!((credentials.spiffe_id(), credentials.role()), (&id, role));
            assert_eq!(credentials.dns_names(), ["mesh.example"]);
            let named = credentials.certificate_ref();
            assert_eq!(named.key_thumbprint, credentials.key_thumbprint());
            assert_ne!(named.key_thumbprint, [0; 32]);
            assert_eq!(named.serial.len(), 1);
        }
    }
}

#[test]
fn each_bad_own_certificate_is_refused_with_its_cause() {
    let ca = ca();
    let id = ca.id("broker/in/b-1");
    let good = || Blueprint::of(&id, &[]);
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let check = |blueprint: Blueprint| fault(&ca.issue_as(&blueprint));
    assert!(matches!(
        check(Blueprint { not_after: now - hour, not_before: now - 2 * hour, ..good() }),
        PeerFault::Expired { ago_seconds: 3600..3700 }
    ));
    assert!(matches!(
        check(Blueprint { not_before: now + hour, ..good() }),
        PeerFault::NotYetValid { ahead_seconds: 3500..=3600 }
    ));
    assert!(
        matches!(check(Blueprint { client_auth: false, ..good() }), PeerFault::Purpose { missing } if missing.contains("client"))
    );
    assert!(
        matches!(check(Blueprint { server_auth: false, ..good() }), PeerFault::Purpose { missing } if missing.contains("server"))
    );
    let two = vec![id.to_string(), "spiffe://mesh.test/broker/in/b-2".to_owned()];
    assert_eq!(check(Blueprint { uri_names: two, ..good() }), PeerFault::UriNames { count: 2 });
    let odd = vec![id.to_string(), "::not a uri::".to_owned()];
    assert_eq!(check(Blueprint { uri_names: odd, ..good() }), PeerFault::UriNames { count: 2 });
    assert_eq!(check(Blueprint { uri_names: vec![], ..good() }), PeerFault::UriNames { count: 0 });
    let other = vec!["https://mesh.test/broker/in/b-1".to_owned()];
    assert!(matches!(check(Blueprint { uri_names: other, ..good() }), PeerFault::Identity(_)));
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let (ours, theirs) = (ca(), TestCa::new("mesh.test"));
    let mut files = theirs.issue(&theirs.id("target/pc-1"), &[]);
    files.ca = ours.ca_file();
    files.crl = None;
    assert_eq!(fault(&files), PeerFault::OtherAuthority { issuer: "test CA of mesh.test".to_owned() });
}

#[test]
fn a_revoked_own_certificate_is_refused() {
    let ca = ca();
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    let other = ca.issue(&ca.id("target/pc-2"), &[]);
    ca.revoke(&files);
    assert_eq!(fault(&files), PeerFault::Revoked { serial: "01".to_owned() });
    assert!(Credentials::load(&other).is_ok());
}

#[test]
fn a_live_peer_is_judged_again_by_a_later_list_and_by_its_end() {
    let ca = ca();
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    let target = Credentials::load(&files).unwrap();
    let peer = Peer { id: target.spiffe_id().clone(), certificate: target.certificate_ref() };
    let broker = ca.issue(&ca.id("broker/in/b-1"), &[]);
    let now = SystemTime::now();
    let before = Credentials::load(&broker).unwrap();
    assert_eq!(before.recheck(&peer, now), Ok(()));
    let late = peer.certificate.not_after_ms + 2000;
    let late = SystemTime::UNIX_EPOCH + Duration::from_millis(late);
    assert_eq!(before.recheck(&peer, late), Err(PeerFault::Expired { ago_seconds: 2 }));
    ca.revoke(&files);
    let after = Credentials::load(&broker).unwrap();
    assert_eq!(after.recheck(&peer, now), Err(PeerFault::Revoked { serial: "01".to_owned() }));
}

#[test]
fn a_revocation_list_that_no_ca_of_ours_signed_is_refused() {
    let (ours, theirs) = (ca(), ca());
    let mut files = ours.issue(&ours.id("target/pc-1"), &[]);
    files.crl = theirs.issue(&theirs.id("target/pc-1"), &[]).crl;
    let error = Credentials::load(&files).unwrap_err();
    assert!(matches!(&error, CredentialError::Pem { file, .. } if Some(file) == files.crl.as_ref()));
    assert!(error.to_string().contains("none of the CAs signed"), "{error}");
}

#[test]
fn a_list_over_the_mesh_is_taken_when_it_is_newer_and_signed() {
    let ca = ca();
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    let target = Credentials::load(&files).unwrap();
    let peer = Peer { id: target.spiffe_id().clone(), certificate: target.certificate_ref() };
    let broker = ca.credentials("broker/in/b-1", &[]);
    let [old] = broker.revocation_lists() else { panic!() };
    assert_eq!((old.number(), old.issuer_sha256()), (1, peer.certificate.issuer_sha256));
    assert!(old.next_update().unwrap() > SystemTime::now());
    assert!(broker.with_revocation_list(old.der()).unwrap().is_none(), "no newer");
    ca.revoke(&files);
    let elsewhere = ca.credentials("broker/us/b-2", &[]);
    let newer = elsewhere.revocation_lists()[0].der().to_vec();
    let updated = broker.with_revocation_list(&newer).unwrap().unwrap();
    assert_eq!(updated.revocation_lists()[0].number(), 2);
    assert!(broker.recheck(&peer, SystemTime::now()).is_ok());
    assert!(updated.recheck(&peer, SystemTime::now()).is_err());
    assert!(updated.with_revocation_list(old.der()).unwrap().is_none(), "older");
    for at in 0..newer.len() {
        let mut flipped = newer.clone();
        flipped[at] ^= 1;
        assert!(broker.with_revocation_list(&flipped).is_err(), "byte {at}");
        assert!(broker.with_revocation_list(&newer[..at]).is_err(), "length {at}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = ca();
    let mut files = ca.issue(&ca.id("target/pc-1"), &[]);
    files.key = ca.issue(&ca.id("target/pc-2"), &[]).key;
    assert!(matches!(Credentials::load(&files), Err(CredentialError::Mismatch { .. })));
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused_with_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let ca = ca();
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)] {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let result = Credentials::load(&files);
        assert_eq!(result.is_err(), refused, "{mode:o}");
        if let Err(error) = result {
            let text = error.to_string();
            assert!(text.contains("chmod 600") && text.contains(&format!("{mode:04o}")), "{text}");
        }
    }
}

#[test]
fn missing_empty_and_damaged_files_are_named() {
    let ca = ca();
    let good = ca.issue(&ca.id("target/pc-1"), &[]);
    let named = |files: CredentialFiles, file: &std::path::Path| {
        let error = Credentials::load(&files).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", file.display())), "{error}");
    };
    let missing = ca.directory().join("missing");
    named(CredentialFiles { certificate: missing.clone(), ..good.clone() }, &missing);
    named(CredentialFiles { key: missing.clone(), ..good.clone() }, &missing);
    named(CredentialFiles { ca: missing.clone(), ..good.clone() }, &missing);
    named(CredentialFiles { crl: Some(missing.clone()), ..good.clone() }, &missing);
    let damaged = ca.directory().join("damaged");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
    named(CredentialFiles { certificate: damaged.clone(), ..good.clone() }, &damaged);
    named(CredentialFiles { ca: damaged.clone(), ..good.clone() }, &damaged);
    let empty = ca.directory().join("empty");
    fs::write(&empty, "").unwrap();
    named(CredentialFiles { certificate: empty.clone(), ..good.clone() }, &empty);
    named(CredentialFiles { ca: empty.clone(), ..good.clone() }, &empty);
    named(CredentialFiles { crl: Some(empty.clone()), ..good }, &empty);
}

#[test]
fn life_is_low_at_a_fifth() {
    let ca = ca();
    let start = SystemTime::now() - Duration::from_secs(10);
    let blueprint = Blueprint {
        not_before: start,
        not_after: start + Duration::from_secs(1000),
        ..Blueprint::of(&ca.id("target/pc-1"), &[])
    };
    let credentials = Credentials::load(&ca.issue_as(&blueprint)).unwrap();
    let end = credentials.not_after();
    let at = |left: u64| credentials.life_left(end - Duration::from_secs(left));
    assert_eq!(at(201), LifeLeft::Ample(Duration::from_secs(201)));
    assert_eq!(at(200), LifeLeft::Low(Duration::from_secs(200)));
    assert_eq!(at(0), LifeLeft::Over);
    assert_eq!(credentials.life_left(end + Duration::from_secs(1)), LifeLeft::Over);
}
