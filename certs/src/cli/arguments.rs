//! What `rc-certs` takes on its command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rc_daemon::cli::{CommonArgs, CompletionsArgs, LONG_VERSION, ManArgs};
use rc_daemon::exit::EXIT_CODES_HELP;
use rc_proto::identity::ticket::{KeyId, Permission};
use rc_proto::wire::{EndpointId, Role, TrustDomain};

use super::BINARY;
use crate::leaf::KeyKind;

const EXAMPLES: &str = "\
Examples:
  rc-certs init pki --trust-domain mesh.example
  rc-certs issue broker in/broker-1 --dir pki --dns broker.mesh.example
  rc-certs issue controller alice --dir pki
  rc-certs ticket --dir pki --controller alice --target pc-17 --perm shell --perm 'tcp:*'
  rc-certs renew pki/controller-alice.pem --dir pki
  rc-certs revoke pki/controller-alice.pem --dir pki
  rc-certs inspect pki/controller-alice.pem";

/// Makes certificates, revocation lists and tickets
#[derive(Debug, Parser)]
#[command(name = BINARY, version = LONG_VERSION, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES_HELP}"))]
#[command(mut_arg("config", |arg| arg.hide(true)), mut_arg("set", |arg| arg.hide(true)))]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a CA, its empty revocation list and a ticket key
    #[command(after_help = "Example:\n  rc-certs init pki --trust-domain mesh.example")]
    Init(AuthorityArgs),
    /// Make a CA and its empty revocation list only
    #[command(after_help = "Example:\n  rc-certs ca pki --trust-domain mesh.example --key-type ed25519")]
    Ca(AuthorityArgs),
    /// Issue a certificate with a new key
    #[command(
        after_help = "Examples:\n  rc-certs issue broker in/broker-1 --dns broker.mesh.example\n  rc-certs issue target pc-17 --life 12h --out /etc/rc-mesh"
    )]
    Issue(IssueArgs),
    /// Issue a certificate again, by default with its key and for as long as before
    #[command(after_help = "Example:\n  rc-certs renew pki/broker-in-broker-1.pem --dir pki")]
    Renew(RenewArgs),
    /// Write a new revocation list with the next number
    #[command(after_help = "Example:\n  rc-certs crl --dir pki --next-update 30d")]
    Crl(CrlArgs),
    /// Revoke certificates, or a ticket, and write the new list
    #[command(
        after_help = "Examples:\n  rc-certs revoke pki/controller-alice.pem\n  rc-certs revoke spiffe://mesh.example/target/pc-17\n  rc-certs revoke --ticket alice.ticket"
    )]
    Revoke(RevokeArgs),
    /// Make, list or remove the keys that sign tickets
    #[command(
        after_help = "Examples:\n  rc-certs ticket-key --dir pki\n  rc-certs ticket-key --dir pki --list\n  rc-certs ticket-key --dir pki --remove 3f9c0a51d2e4b687"
    )]
    TicketKey(TicketKeyArgs),
    /// Mint a ticket: what lets a Controller open a path to a Target
    #[command(
        after_help = "Example:\n  rc-certs ticket --controller alice --target pc-17 --perm shell --perm 'tcp:*' --start-by 5m --exp 12h"
    )]
    Ticket(TicketArgs),
    /// Say what a certificate, list, key or ticket is, and what is wrong with it
    #[command(after_help = "Example:\n  rc-certs inspect pki/ca.pem pki/crl.pem pki/controller-alice.key")]
    Inspect(InspectArgs),
    /// Print the version and the commit it was built from
    Version,
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, or write all pages into a directory
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(super) struct DirArgs {
    /// Directory of the authority
    #[arg(long, value_name = "DIR", default_value = ".", env = "RC_CERTS_DIR")]
    pub(super) dir: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum KeyType {
    /// ECDSA over P-256
    #[default]
    P256,
    /// Ed25519
    Ed25519,
}

impl From<KeyType> for KeyKind {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::P256 => Self::P256,
            KeyType::Ed25519 => Self::Ed25519,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct AuthorityArgs {
    /// Directory of the authority; made when it is missing
    pub(super) dir: PathBuf,
    /// Name of the mesh, a lower-case DNS name; part of every identity
    #[arg(long, value_name = "NAME")]
    pub(super) trust_domain: TrustDomain,
    /// Kind of the CA's key
    #[arg(long, value_enum, default_value_t)]
    pub(super) key_type: KeyType,
    /// Replace an authority that is there; everything it issued becomes worthless
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// broker, controller, target, rc-server or traffic-manager
    #[arg(value_parser = role)]
    pub(super) role: Role,
    /// REGION/ID for a broker, ID for the others
    pub(super) id: String,
    #[command(flatten)]
    pub(super) dir: DirArgs,
    /// DNS name that it is dialled by (broker, rc-server); may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) dns: Vec<String>,
    /// Life, 5s to 90d [default: 48h for controller and target, 30d for the others]
    #[arg(long, value_parser = duration)]
    pub(super) life: Option<Duration>,
    /// Kind of its key
    #[arg(long, value_enum, default_value_t)]
    pub(super) key_type: KeyType,
    /// Where its files go [default: the authority's directory]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Replace files of the same names
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenewArgs {
    /// The present certificate; it is replaced
    pub(super) certificate: PathBuf,
    #[command(flatten)]
    pub(super) dir: DirArgs,
    /// Its key [default: the certificate's name with the ending .key]
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Draw a new key; tickets bound to the old one no longer fit
    #[arg(long)]
    pub(super) new_key: bool,
    /// Its next life, 5s to 90d [default: as long as before]
    #[arg(long, value_parser = duration)]
    pub(super) life: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct CrlArgs {
    #[command(flatten)]
    pub(super) dir: DirArgs,
    /// Time until the next list is due
    #[arg(long, value_parser = duration, default_value = "30d")]
    pub(super) next_update: Duration,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// A certificate file, a serial number in hexadecimal, or a SPIFFE id for all that it holds
    #[arg(required_unless_present = "ticket", conflicts_with = "ticket")]
    pub(super) what: Option<String>,
    /// Deny the ticket in this file
    #[arg(long, value_name = "FILE")]
    pub(super) ticket: Option<PathBuf>,
    #[command(flatten)]
    pub(super) dir: DirArgs,
}

#[derive(Debug, Args)]
pub(super) struct TicketKeyArgs {
    #[command(flatten)]
    pub(super) dir: DirArgs,
    /// Id of the new key [default: the start of the key's digest]
    #[arg(long, conflicts_with_all = ["list", "remove"])]
    pub(super) kid: Option<KeyId>,
    /// List the keys
    #[arg(long, conflicts_with = "remove")]
    pub(super) list: bool,
    /// Remove a key: tickets that it signed are refused once the set is loaded again
    #[arg(long, value_name = "KID")]
    pub(super) remove: Option<KeyId>,
}

#[derive(Debug, Args)]
pub(super) struct TicketArgs {
    #[command(flatten)]
    pub(super) dir: DirArgs,
    /// Id of the Controller that it is for
    #[arg(long, value_name = "ID")]
    pub(super) controller: EndpointId,
    /// Id of the Target that it opens
    #[arg(long, value_name = "ID")]
    pub(super) target: EndpointId,
    /// A service that it permits, or the start of names followed by '*'; may be repeated
    #[arg(long, value_name = "SERVICE", required = true)]
    pub(super) perm: Vec<Permission>,
    /// Certificate whose key it is bound to [default: controller-<ID>.pem of the authority's directory]
    #[arg(long, value_name = "FILE")]
    pub(super) controller_cert: Option<PathBuf>,
    /// How long it may start a new session
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub(super) start_by: Duration,
    /// How long that session may run
    #[arg(long, value_parser = duration, default_value = "12h")]
    pub(super) exp: Duration,
    /// The key that signs [default: the last one made]
    #[arg(long)]
    pub(super) kid: Option<KeyId>,
    /// Write it to this file (0600) instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Replace the file
    #[arg(long, requires = "out")]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The files
    #[arg(required = true)]
    pub(super) files: Vec<PathBuf>,
    /// Public ticket keys to check signatures with
    #[arg(long, value_name = "FILE")]
    pub(super) keys: Option<PathBuf>,
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_segment(text).ok_or_else(|| {
        let roles: Vec<&str> = Role::ALL.into_iter().map(Role::segment).collect();
        format!("not one of {}", roles.join(", "))
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write for example 30s, 5m, 12h or 30d"))
}
