//! The life of the daemon: check, listen, serve, drain, stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rc_daemon::admin::AdminServer;
use rc_daemon::events::{Entry, Severity};
use rc_daemon::output::{Output, Table};
use rc_daemon::ready::{Ready, ReadyFile};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::identity::ticket::DENY_LIST_BYTES_MAX;
use rc_proto::wire::BrokerId;
use rc_transport::{BootClock, CredentialFiles, Credentials, LifeLeft, TcpNet};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::admin::Administration;
use crate::config::{BINARY, Config};
use crate::core::drain::DrainCause;
use crate::server::{Broker, Parts, RunningBroker, StartError};
use crate::tickets::TicketGate;

/// How often the files of the credentials are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How often the life that is left of the certificate is judged.
const JUDGE_LIFE_EVERY: Duration = Duration::from_secs(3600);

/// Runs until it has drained after SIGTERM, Ctrl-C or `rc-broker drain`; a second signal ends it at once.
pub(crate) async fn run(config: Config) -> Result<ExitStatus, Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.on_signals();
    let _signals = signals
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    // Before they are read, so that no change is missed.
    let seen = (stamps(&config.credentials), config.deny_list.as_deref().and_then(stamp));
    let (credentials, _) = own_credentials(&config)?;
    let deny_list = own_deny_list(&config)?;
    let admin = AdminServer::bind(&config.admin_socket)?;
    if config.ticket_keys.is_empty() {
        tracing::warn!("there is no ticket key: every open will be refused; see tickets.keys");
    }
    raise_file_limit();
    let parts = Parts {
        credentials: Arc::new(credentials),
        ticket_keys: config.ticket_keys,
        deny_list,
        net: Arc::new(TcpNet),
        clock: Arc::new(BootClock),
    };
    let broker = Arc::new(Broker::start(config.broker, parts).await?);
    if !broker.can_be_dialled() {
        tracing::warn!("other brokers cannot dial this one: set advertise.name or advertise.addresses");
    }
    let admin_stop = CancellationToken::new();
    let administration = Administration { broker: Arc::clone(&broker), shutdown: shutdown.clone() };
    let admin = tokio::spawn(admin.serve(Arc::new(administration), admin_stop.clone()));
    let ready = Ready::new(BINARY)
        .listening("broker", broker.addresses().iter().copied())
        .admin(&config.admin_socket);
    let ready = config.ready_file.as_ref().map(|path| ReadyFile::write(path, &ready)).transpose()?;

    let stop_watching = CancellationToken::new();
    let files = (config.credentials, config.deny_list);
    let watching = watch(Arc::clone(&broker), files, seen, stop_watching.clone());
    let watching = tokio::spawn(watching);
    let cause = tokio::select! {
        biased;
        () = shutdown.graceful().cancelled() => DrainCause::Request,
        cause = broker.draining() => cause,
    };
    tokio::select! {
        biased;
        () = shutdown.immediate().cancelled() => {}
        () = broker.drain() => {}
    }
    drop(ready);
    stop_watching.cancel();
    broker.stop().await;
    // It ends at its next look at the token.
    drop(watching.await);
    admin_stop.cancel();
    // It ends within its own grace.
    drop(admin.await);
    match cause {
        DrainCause::Request => Ok(shutdown.exit_status()),
        // Whoever supervises the process starts it anew.
        DrainCause::StuckWorker => Ok(ExitStatus::Internal),
    }
}

/// Takes new credentials, revocation lists and lists of revoked tickets when their files change; what cannot be used
/// is told once, and the old ones stay. Warns each hour while the certificate has little life left.
async fn watch(
    broker: Arc<RunningBroker>,
    (files, deny_list): (CredentialFiles, Option<PathBuf>),
    (mut seen, mut deny_seen): (Vec<Option<Stamp>>, Option<Stamp>),
    stop: CancellationToken,
) {
    let mut life_at = Instant::now() + JUDGE_LIFE_EVERY;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let now = stamps(&files);
        if now != seen {
            seen = now;
            take_credentials(&broker, &files);
        }
        if let Some(file) = &deny_list {
            let now = stamp(file);
            if now != deny_seen {
                deny_seen = now;
                take_deny_list(&broker, file);
            }
        }
        if Instant::now() >= life_at {
            life_at = Instant::now() + JUDGE_LIFE_EVERY;
            if let Some(warning) = life_warning(&broker.credentials(), SystemTime::now()) {
                tracing::warn!("{warning}");
                let entry = Entry::new(Severity::Warn, "certificate.ending");
                drop(broker.events().record(entry.with("reason", warning)));
            }
        }
    }
}

fn take_credentials(broker: &RunningBroker, files: &CredentialFiles) {
    let loaded = Credentials::load(files).map_err(|error| error.to_string());
    let outcome =
        loaded.and_then(|new| broker.set_credentials(Arc::new(new)).map_err(|error| error.to_string()));
    let entry = match outcome {
        Ok(()) => Entry::new(Severity::Info, "credentials.replaced"),
        Err(reason) => Entry::new(Severity::Error, "credentials.refused").with("reason", reason),
    };
    drop(broker.events().record(entry.with_text("certificate", files.certificate.display())));
}

/// Takes the list of revoked tickets. There is no such file before the first ticket is revoked.
fn take_deny_list(broker: &RunningBroker, file: &Path) {
    let entry = match read_deny_list(file) {
        Ok(None) => return,
        Ok(Some(text)) => match broker.set_deny_list(&text) {
            Ok(true) => Entry::new(Severity::Info, "tickets.denied"),
            Ok(false) => return,
            Err(error) => Entry::new(Severity::Error, "deny-list.refused").with_text("reason", error),
        },
        Err(error) => Entry::new(Severity::Error, "deny-list.refused").with_text("reason", error),
    };
    drop(broker.events().record(entry.with_text("file", file.display())));
}

/// The list to start with, when its file is there: one that cannot be used is an error, since it would let revoked
/// tickets through.
fn own_deny_list(config: &Config) -> Result<Option<String>, Failure> {
    let Some(file) = &config.deny_list else { return Ok(None) };
    let refuse = |reason: String| {
        let fix = "correct tickets.deny, or write the list anew with rc-certs revoke --ticket";
        Failure::new(
            ExitStatus::Usage,
            format_args!("the list of revoked tickets: {reason}"),
            file.display(),
            fix,
        )
    };
    let text = read_deny_list(file).map_err(|error| refuse(error.to_string()))?;
    if let Some(text) = &text {
        let gate = TicketGate::new(config.ticket_keys.clone());
        gate.deny(text).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(text)
}

fn read_deny_list(file: &Path) -> std::io::Result<Option<String>> {
    let size = match std::fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if usize::try_from(size).is_ok_and(|size| size <= DENY_LIST_BYTES_MAX) {
        std::fs::read_to_string(file).map(Some)
    } else {
        let what = format!("{size} bytes are more than {DENY_LIST_BYTES_MAX}");
        Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
    }
}

/// What to tell the operator of a certificate that has a fifth of its life left, or less.
fn life_warning(credentials: &Credentials, now: SystemTime) -> Option<String> {
    let file = credentials.certificate_file().display();
    match credentials.life_left(now) {
        LifeLeft::Ample(_) => None,
        LifeLeft::Low(left) => {
            let hours = left.as_secs() / 3600;
            Some(format!("{file}: the certificate ends in {hours} h: renew it with `rc-certs renew {file}`"))
        }
        LifeLeft::Over => Some(format!(
            "{file}: the certificate has expired and every peer refuses it: renew it with `rc-certs renew {file}`"
        )),
    }
}

/// Time and size of a file.
type Stamp = (SystemTime, u64);

/// Time and size of each file; nothing for one that cannot be seen.
fn stamps(files: &CredentialFiles) -> Vec<Option<Stamp>> {
    let paths = [Some(&files.certificate), Some(&files.key), Some(&files.ca), files.crl.as_ref()];
    paths.into_iter().flatten().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Each connection is a file: takes as many as the system allows this process.
#[cfg(unix)]
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(not(unix))]
fn raise_file_limit() {}

/// `check-config`: everything that `run` would refuse, short of listening.
pub(crate) fn check(config: &Config, output: Output) -> Result<ExitStatus, Failure> {
    let (credentials, id) = own_credentials(config)?;
    drop(own_deny_list(config)?);
    let mut table = Table::new(&["WHAT", "VALUE"]);
    let listening: Vec<String> = config.broker.listen.iter().map(ToString::to_string).collect();
    table.row(["broker", id.as_str()]);
    table.row(["trust domain", credentials.spiffe_id().trust_domain().as_str()]);
    table.row(["listen", &listening.join(", ")]);
    table.row(["seeds", &config.broker.seeds.len().to_string()]);
    table.row(["ticket keys", &config.ticket_keys.len().to_string()]);
    let answer = json!({
        "ok": true,
        "broker": id,
        "trust_domain": credentials.spiffe_id().trust_domain(),
        "listen": listening,
        "seeds": config.broker.seeds.len(),
        "ticket_keys": config.ticket_keys.len(),
    });
    output.answer(&answer, &table)?;
    Ok(ExitStatus::Ok)
}

fn own_credentials(config: &Config) -> Result<(Credentials, BrokerId), Failure> {
    let credentials = Credentials::load(&config.credentials)
        .map_err(|error| Failure::from_error(ExitStatus::Usage, error))?;
    let file = config.credentials.certificate.display();
    let Some(id) = credentials.spiffe_id().broker_id() else {
        return Err(StartError::NotABroker {
            id: credentials.spiffe_id().to_string(),
            file: file.to_string(),
        }
        .into());
    };
    let differs =
        |wanted: &Option<String>, found: &str| wanted.as_ref().is_some_and(|wanted| wanted != found);
    if differs(&config.region, id.region()) || differs(&config.id, id.id()) {
        let fix = "name the right certificate, or correct identity.region and identity.id";
        return Err(Failure::new(ExitStatus::Usage, format_args!("the certificate is of {id}"), file, fix));
    }
    let now = SystemTime::now();
    if credentials.life_left(now) == LifeLeft::Over {
        let what = "the certificate has expired";
        let fix = format!("renew it with `rc-certs renew {file}`");
        return Err(Failure::new(ExitStatus::Usage, what, file, fix));
    }
    if let Some(warning) = life_warning(&credentials, now) {
        tracing::warn!("{warning}");
    }
    Ok((credentials, id))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::from_error(ExitStatus::Usage, error)
    }
}

#[cfg(test)]
mod tests {
    use rc_transport::testing::{Blueprint, TestCa};

    use super::*;

    #[test]
    fn a_certificate_with_a_fifth_of_its_life_left_names_its_file_and_the_command() {
        let ca = TestCa::new("mesh.test");
        let now = SystemTime::now();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let (not_before, not_after) = (now - hours(80), now + hours(20));
        let blueprint = Blueprint { not_before, not_after, ..Blueprint::of(&ca.id("broker/in/b1"), &[]) };
        let files = ca.issue_as(&blueprint);
        let credentials = Credentials::load(&files).unwrap();
        assert_eq!(life_warning(&credentials, now - hours(1)), None);
        let warning = life_warning(&credentials, now + hours(1)).unwrap();
        let file = files.certificate.display();
        assert!(warning.contains("19 h") || warning.contains("18 h"), "{warning}");
        assert!(warning.contains(&format!("rc-certs renew {file}")), "{warning}");
        assert!(life_warning(&credentials, not_after + hours(1)).unwrap().contains("expired"));
    }
}
