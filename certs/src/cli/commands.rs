//! The subcommands.

use std::fmt::Write as _;
use std::path::Path;

use rc_proto::identity::ticket::{Ticket, TicketKeys};
use serde_json::{Value, json};

use super::Answer;
use super::arguments::{
    AuthorityArgs, CrlArgs, InspectArgs, IssueArgs, RenewArgs, RevokeArgs, TicketArgs, TicketKeyArgs,
};
use crate::authority::{Authority, AuthorityOptions, IssuedFiles, RenewRequest, rfc3339};
use crate::error::CertsError;
use crate::files::{self, Existing, Readers};
use crate::inspect::Finding;
use crate::leaf::{LeafRequest, unix_seconds};
use crate::revocation::RevokeRequest;
use crate::ticketing::TicketRequest;

pub(super) fn init(args: &AuthorityArgs) -> Result<Answer, CertsError> {
    let authority = make(args)?;
    let kid = authority.add_ticket_key(None)?;
    let (dir, domain) = (args.dir.display(), &args.trust_domain);
    let value = json!({
        "dir": args.dir, "trust_domain": domain, "ca": authority.ca_file(), "crl": authority.crl_file(),
        "ticket_keys": authority.ticket_keys_file(), "kid": kid,
    });
    let text = format!(
        "The authority of {domain} is in {dir}: CA, empty revocation list, ticket key {kid}.\n\
         Keep ca.key and ticket-{kid}.key there; brokers and targets get ca.pem, crl.pem and ticket-keys.json.\n\
         Next:\n  \
         rc-certs issue broker in/broker-1 --dir {dir} --dns broker-1.{domain}\n  \
         rc-certs issue target pc-17 --dir {dir}\n  \
         rc-certs issue controller alice --dir {dir}\n  \
         rc-certs ticket --dir {dir} --controller alice --target pc-17 --perm shell\n"
    );
    Ok(Answer::new(value, text))
}

pub(super) fn ca(args: &AuthorityArgs) -> Result<Answer, CertsError> {
    let authority = make(args)?;
    let value = json!({
        "dir": args.dir, "trust_domain": args.trust_domain, "ca": authority.ca_file(), "crl": authority.crl_file(),
    });
    let (dir, domain) = (args.dir.display(), &args.trust_domain);
    let next = format!("Next:\n  rc-certs ticket-key --dir {dir}\n  rc-certs issue ROLE ID --dir {dir}\n");
    let text = format!("The CA of {domain} and its empty revocation list are in {dir}.\n{next}");
    Ok(Answer::new(value, text))
}

fn make(args: &AuthorityArgs) -> Result<Authority, CertsError> {
    let options =
        AuthorityOptions { key_kind: args.key_type.into(), existing: Existing::with_force(args.force) };
    Authority::create_with(&args.dir, &args.trust_domain, options)
}

pub(super) fn issue(args: &IssueArgs) -> Result<Answer, CertsError> {
    let request = LeafRequest {
        dns_names: args.dns.clone(),
        key_kind: args.key_type.into(),
        life: args.life,
        out_dir: args.out.clone(),
        existing: Existing::with_force(args.force),
        ..LeafRequest::new(args.role, args.id.clone())
    };
    Ok(issued(&Authority::open(&args.dir.dir)?.issue(&request)?))
}

pub(super) fn renew(args: &RenewArgs) -> Result<Answer, CertsError> {
    let request = RenewRequest {
        certificate: args.certificate.clone(),
        key: args.key.clone(),
        new_key: args.new_key,
        life: args.life,
    };
    Ok(issued(&Authority::open(&args.dir.dir)?.renew(&request)?))
}

fn issued(leaf: &IssuedFiles) -> Answer {
    let not_after = rfc3339(unix_seconds(leaf.not_after).unwrap_or(0));
    let value = json!({
        "id": leaf.id, "certificate": leaf.certificate, "key": leaf.key, "ca": leaf.ca, "crl": leaf.crl,
        "serial": leaf.serial, "not_after": not_after, "key_thumbprint": leaf.thumbprint,
    });
    let text = format!(
        "{}\n  certificate  {}\n  key          {}\n  serial       {}\n  valid until  {not_after}\n",
        leaf.id,
        leaf.certificate.display(),
        leaf.key.display(),
        leaf.serial
    );
    Answer::new(value, text)
}

pub(super) fn crl(args: &CrlArgs) -> Result<Answer, CertsError> {
    let authority = Authority::open(&args.dir.dir)?;
    let number = authority.write_crl(args.next_update)?;
    let file = authority.crl_file();
    let text = format!("{} has number {number}; give it to the brokers.\n", file.display());
    Ok(Answer::new(json!({ "crl": file, "number": number }), text))
}

pub(super) fn revoke(args: &RevokeArgs) -> Result<Answer, CertsError> {
    let authority = Authority::open(&args.dir.dir)?;
    if let Some(file) = &args.ticket {
        return deny(&authority, file);
    }
    let what = args.what.as_deref().unwrap_or_default();
    let is_serial = what.chars().all(|c| c.is_ascii_hexdigit() || c == ':') && !Path::new(what).exists();
    let request = if what.starts_with("spiffe://") {
        RevokeRequest::Identity(what.parse()?)
    } else if is_serial {
        RevokeRequest::Serial(what.to_owned())
    } else {
        RevokeRequest::Certificate(what.into())
    };
    let serials = authority.revoke(&request)?;
    let crl = authority.crl_file();
    let said = if serials.is_empty() { "nothing new".to_owned() } else { serials.join(", ") };
    let text = format!("Revoked: {said}.\nGive {} to the brokers.\n", crl.display());
    Ok(Answer::new(json!({ "revoked": serials, "crl": crl }), text))
}

fn deny(authority: &Authority, file: &Path) -> Result<Answer, CertsError> {
    let ticket = Ticket::parse(files::read(file)?.trim())?;
    let ticket = ticket.verify(&rc_transport::verify_with(&authority.ticket_keys()?))?;
    let number = authority.deny_ticket(ticket.claims().jti, ticket.claims().exp)?;
    let list = authority.deny_list_file();
    let jti = ticket.claims().jti;
    let text = format!("Denied the ticket {jti}.\nGive {} to the brokers.\n", list.display());
    Ok(Answer::new(json!({ "jti": jti, "deny_list": list, "number": number }), text))
}

pub(super) fn ticket_key(args: &TicketKeyArgs) -> Result<Answer, CertsError> {
    let authority = Authority::open(&args.dir.dir)?;
    let file = authority.ticket_keys_file();
    let text = if args.list {
        String::new()
    } else if let Some(kid) = &args.remove {
        authority.remove_ticket_key(kid)?;
        format!("Removed {kid}. Give {} to the brokers and targets.\n", file.display())
    } else {
        let kid = authority.add_ticket_key(args.kid.clone())?;
        format!("{kid} signs from now on. Give {} to the brokers and targets first.\n", file.display())
    };
    let kids: Vec<String> = authority.ticket_keys()?.iter().map(|(kid, _)| kid.to_string()).collect();
    let signing = authority.signing_key_id()?;
    let mut text = text;
    for kid in &kids {
        let mark =
            if signing.as_ref().is_some_and(|signing| signing.as_str() == kid) { "  (signs)" } else { "" };
        text.push_str(&format!("  {kid}{mark}\n"));
    }
    Ok(Answer::new(json!({ "ticket_keys": file, "kids": kids, "signing": signing }), text))
}

pub(super) fn ticket(args: &TicketArgs) -> Result<Answer, CertsError> {
    let authority = Authority::open(&args.dir.dir)?;
    let certificate = args
        .controller_cert
        .clone()
        .unwrap_or_else(|| args.dir.dir.join(format!("controller-{}.pem", args.controller)));
    let request = TicketRequest {
        start_by: args.start_by,
        life: args.exp,
        kid: args.kid.clone(),
        ..TicketRequest::for_certificate(&certificate, args.target.clone(), args.perm.clone())?
    };
    if request.controller.endpoint_id().as_ref() != Some(&args.controller) {
        let reason = format!("belongs to {}, not to the controller {}", request.controller, args.controller);
        return Err(CertsError::Content { file: certificate, reason });
    }
    let ticket = authority.mint_ticket(&request)?;
    match &args.out {
        None => Ok(Answer::new(json!({ "ticket": ticket }), format!("{ticket}\n"))),
        Some(file) => {
            files::write(file, &format!("{ticket}\n"), Readers::Owner, Existing::with_force(args.force))?;
            Ok(Answer::new(json!({ "file": file }), format!("The ticket is in {}.\n", file.display())))
        }
    }
}

pub(super) fn inspect(args: &InspectArgs) -> Result<Answer, CertsError> {
    let keys = match &args.keys {
        None => None,
        Some(file) => Some(TicketKeys::parse(&files::read(file)?)?),
    };
    let mut answer = Answer { values: Vec::new(), text: String::new() };
    for file in &args.files {
        for finding in crate::inspect::inspect(file, keys.as_ref())? {
            describe(&finding, file, &mut answer.text);
            answer.values.push(json!({
                "file": file, "kind": finding.kind, "fields": finding.fields, "warnings": finding.warnings,
            }));
        }
    }
    Ok(answer)
}

fn describe(finding: &Finding, file: &Path, text: &mut String) {
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        writeln!(text, "  {name:<16}{value}").unwrap_or_default();
    };
    line("file", &format!("{} ({})", file.display(), finding.kind));
    for (name, value) in &finding.fields {
        line(name, &plain(value));
    }
    for warning in &finding.warnings {
        line("WARNING", warning);
    }
    text.push('\n');
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
