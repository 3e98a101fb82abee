//! Every subcommand through the command line.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;
use tempfile::TempDir;

use super::arguments::Arguments;
use super::*;

/// Runs one command line in the authority's directory and gives its answer.
fn answer(dir: &TempDir, line: &str) -> Result<Answer, CertsError> {
    let dir = dir.path().display().to_string();
    let words = line.split_whitespace().map(|word| word.replace("DIR", &dir));
    let arguments = Arguments::try_parse_from(std::iter::once(BINARY.to_owned()).chain(words))
        .unwrap_or_else(|e| panic!("{e}"));
    execute(&arguments.verb)
}

fn code(line: &[&str]) -> ExitCode {
    run(std::iter::once(BINARY).chain(line.iter().copied()).map(OsString::from))
}

fn field<'a>(answer: &'a Answer, name: &str) -> &'a Value {
    &answer.values[0][name]
}

fn path(value: &Value) -> &Path {
    Path::new(value.as_str().unwrap())
}

fn ready() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    answer(&dir, "init DIR/pki --trust-domain mesh.test").unwrap();
    dir
}

#[test]
fn the_command_line_is_sound_and_every_subcommand_has_help() {
    Arguments::command().debug_assert();
    for verb in Arguments::command().get_subcommands() {
        let name = verb.get_name();
        assert_eq!(code(&[name, "--help"]), ExitCode::SUCCESS, "{name}");
        assert!(verb.get_about().is_some(), "{name}");
        let is_common = matches!(name, "version" | "completions" | "man" | "help");
        assert!(is_common || verb.get_after_help().is_some(), "{name} has an example");
    }
}

#[test]
fn init_makes_an_authority_and_names_the_next_commands() {
    let dir = tempfile::tempdir().unwrap();
    let made = answer(&dir, "init DIR/pki --trust-domain mesh.test").unwrap();
    for name in ["ca", "crl", "ticket_keys"] {
        assert!(path(field(&made, name)).is_file(), "{name}");
    }
    let kid = field(&made, "kid").as_str().unwrap();
    assert!(dir.path().join(format!("pki/ticket-{kid}.key")).is_file());
    for line in made.text.lines().filter_map(|line| line.trim().strip_prefix("rc-certs ")) {
        answer(&dir, line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let again = answer(&dir, "init DIR/pki --trust-domain mesh.test").unwrap_err();
    assert!(again.is_usage(), "{again}");
    answer(&dir, "init DIR/pki --trust-domain mesh.test --force --key-type ed25519").unwrap();
    answer(&dir, "issue target pc-18 --dir DIR/pki").unwrap();
    let keys = answer(&dir, "ticket-key --dir DIR/pki --list").unwrap();
    assert_ne!(
        field(&keys, "kids"),
        &serde_json::json!([kid]),
        "the replaced authority's ticket key is gone"
    );
    assert_eq!(field(&keys, "kids").as_array().unwrap().len(), 1);
}

#[test]
fn ca_makes_no_ticket_key() {
    let dir = tempfile::tempdir().unwrap();
    let made = answer(&dir, "ca DIR/pki --trust-domain mesh.test").unwrap();
    assert!(path(field(&made, "crl")).is_file());
    assert!(!dir.path().join("pki/ticket-keys.json").exists());
    answer(&dir, "ticket-key --dir DIR/pki --kid k1").unwrap();
    let listed = answer(&dir, "ticket-key --dir DIR/pki --list").unwrap();
    assert_eq!(field(&listed, "kids"), &serde_json::json!(["k1"]));
    assert_eq!(field(&listed, "signing"), "k1");
    let removed = answer(&dir, "ticket-key --dir DIR/pki --remove k1").unwrap();
    assert_eq!(field(&removed, "kids"), &serde_json::json!([]));
}

#[test]
fn issue_renew_crl_and_revoke_work_on_the_files_they_name() {
    let dir = ready();
    let line =
        "issue broker in/broker-3 --dir DIR/pki --dns b3.mesh.test --life 1h --key-type ed25519 --out DIR/b3";
    let issued = answer(&dir, line).unwrap();
    assert_eq!(path(field(&issued, "certificate")), dir.path().join("b3/broker-in-broker-3.pem"));
    assert_eq!(field(&issued, "id"), "spiffe://mesh.test/broker/in/broker-3");
    let renewed = answer(&dir, "renew DIR/b3/broker-in-broker-3.pem --dir DIR/pki").unwrap();
    assert_eq!(field(&renewed, "key_thumbprint"), field(&issued, "key_thumbprint"));
    let rekeyed =
        answer(&dir, "renew DIR/b3/broker-in-broker-3.pem --dir DIR/pki --new-key --life 2h").unwrap();
    assert_ne!(field(&rekeyed, "key_thumbprint"), field(&issued, "key_thumbprint"));
    let list = answer(&dir, "crl --dir DIR/pki --next-update 7d").unwrap();
    assert_eq!(field(&list, "number"), 2);
    let revoked = answer(&dir, "revoke DIR/b3/broker-in-broker-3.pem --dir DIR/pki").unwrap();
    assert_eq!(field(&revoked, "revoked"), &serde_json::json!([field(&rekeyed, "serial")]));
    let serial = field(&renewed, "serial").as_str().unwrap().to_uppercase();
    let revoked = answer(&dir, &format!("revoke {serial} --dir DIR/pki")).unwrap();
    assert_eq!(field(&revoked, "revoked"), &serde_json::json!([field(&renewed, "serial")]));
    let revoked = answer(&dir, "revoke spiffe://mesh.test/broker/in/broker-3 --dir DIR/pki").unwrap();
    assert_eq!(field(&revoked, "revoked"), &serde_json::json!([field(&issued, "serial")]));
}

#[test]
fn a_ticket_goes_to_stdout_or_to_a_private_file_and_can_be_denied() {
    let dir = ready();
    answer(&dir, "issue controller alice --dir DIR/pki").unwrap();
    answer(&dir, "issue controller bob --dir DIR/pki").unwrap();
    let line = "ticket --dir DIR/pki --controller alice --target pc-17 --perm shell --perm tcp:*";
    let printed = answer(&dir, line).unwrap();
    assert_eq!(printed.text.trim_end(), field(&printed, "ticket").as_str().unwrap());
    assert_eq!(printed.text.lines().count(), 1);
    answer(&dir, &format!("{line} --start-by 1m --exp 1h --out DIR/t")).unwrap();
    assert!(answer(&dir, &format!("{line} --out DIR/t")).unwrap_err().is_usage());
    answer(&dir, &format!("{line} --out DIR/t --force")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(dir.path().join("t")).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let swapped = format!("{line} --controller-cert DIR/pki/controller-bob.pem");
    let refused = answer(&dir, &swapped).unwrap_err().to_string();
    assert!(refused.ends_with("belongs to spiffe://mesh.test/controller/bob, not to the controller alice"));
    let denied = answer(&dir, "revoke --ticket DIR/t --dir DIR/pki").unwrap();
    assert_eq!(field(&denied, "number"), 1);
    let seen = answer(&dir, "inspect DIR/pki/deny.jws --keys DIR/pki/ticket-keys.json").unwrap();
    assert_eq!(seen.values[0]["fields"]["tickets"], serde_json::json!([field(&denied, "jti")]));
    assert_eq!(seen.values[0]["fields"]["signature"], "holds");
}

#[test]
fn inspect_tells_every_kind_of_file_apart() {
    let dir = ready();
    answer(&dir, "issue controller alice --dir DIR/pki").unwrap();
    answer(&dir, "ticket --dir DIR/pki --controller alice --target pc-17 --perm shell --out DIR/pki/t")
        .unwrap();
    for (file, kind) in [
        ("ca.pem", "certificate"),
        ("ca.key", "private key"),
        ("crl.pem", "crl"),
        ("ticket-keys.json", "ticket keys"),
        ("controller-alice.pem", "certificate"),
        ("controller-alice.key", "private key"),
        ("t", "ticket"),
    ] {
        let seen = answer(&dir, &format!("inspect DIR/pki/{file} --keys DIR/pki/ticket-keys.json")).unwrap();
        assert_eq!(field(&seen, "kind"), kind, "{file}");
        assert_eq!(field(&seen, "warnings"), &serde_json::json!([]), "{file}");
        assert!(seen.text.contains(kind), "{}", seen.text);
        let key = fs::read_to_string(dir.path().join("pki/ca.key")).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!seen.text.contains(secret), "no private key is shown");
    }
    let kid = fs::read_dir(dir.path().join("pki"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("ticket-") && name.ends_with(".key"))
        .unwrap();
    let seen = answer(&dir, &format!("inspect DIR/pki/{kid}")).unwrap();
    assert_eq!(seen.values[0]["fields"]["key"], "Ed25519");
    let garbage = dir.path().join("garbage");
    fs::write(&garbage, "nothing").unwrap();
    assert!(answer(&dir, "inspect DIR/garbage").unwrap_err().is_usage());
}

#[test]
fn inspect_warns_at_a_fifth_of_life_left_with_the_renewing_command() {
    use crate::{Authority, LeafRequest};
    use std::time::{Duration, SystemTime};
    let dir = ready();
    let authority = Authority::open(&dir.path().join("pki")).unwrap();
    let life = Duration::from_secs(100_000);
    for (age, warned) in
        [(79_000, None), (81_000, Some("a fifth of its life or less is left")), (101_000, Some("it ran out"))]
    {
        let request = LeafRequest::new(rc_proto::wire::Role::Target, "pc-17").life(life).replacing();
        let leaf = authority.issue(&request.starts_at(SystemTime::now() - Duration::from_secs(age))).unwrap();
        let seen = answer(&dir, "inspect DIR/pki/target-pc-17.pem").unwrap();
        let warnings = seen.values[0]["warnings"].as_array().unwrap();
        match warned {
            None => assert!(warnings.is_empty(), "{warnings:?}"),
            Some(start) => {
                let text = warnings[0].as_str().unwrap();
                assert!(text.starts_with(start), "{text}");
                assert!(text.ends_with(&format!("rc-certs renew {}", leaf.certificate.display())), "{text}");
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn inspect_warns_of_a_key_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = ready();
    let key = dir.path().join("pki/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let seen = answer(&dir, "inspect DIR/pki/ca.key").unwrap();
    let warning = seen.values[0]["warnings"][0].as_str().unwrap();
    assert_eq!(warning, format!("it can be read by others (mode 0644): chmod 600 {}", key.display()));
}

#[test]
fn exit_codes_are_0_for_done_and_2_for_a_wrong_request() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let pki = pki.to_str().unwrap();
    assert_eq!(code(&["init", pki, "--trust-domain", "mesh.test"]), ExitCode::SUCCESS);
    assert_eq!(code(&["--json", "issue", "target", "pc-17", "--dir", pki]), ExitCode::SUCCESS);
    for usage in [
        &["init", pki, "--trust-domain", "mesh.test"] as &[&str],
        &["init", pki, "--trust-domain", "NOT A NAME"],
        &["issue", "king", "a", "--dir", pki],
        &["issue", "target", "b", "--dir", pki, "--life", "91d"],
        &["issue", "target", "b", "--dir", pki, "--life", "soon"],
        &["crl", "--dir", "/nowhere/at/all"],
        &["revoke", "--dir", pki],
        &["ticket", "--dir", pki, "--controller", "x", "--target", "y"],
        &["inspect", "/nowhere/at/all"],
        &["version", "--set", "a.b=1"],
        &["fly"],
    ] {
        assert_eq!(code(usage), ExitCode::from(2), "{usage:?}");
    }
    for done in [&["version"] as &[&str], &["version", "--json"], &["completions", "bash"], &["man"]] {
        assert_eq!(code(done), ExitCode::SUCCESS, "{done:?}");
    }
}
