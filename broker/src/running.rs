//! The life of the daemon: check, listen, serve, drain, stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_daemon::admin::AdminServer;
use rc_daemon::events::{Entry, Severity};
use rc_daemon::output::{Output, Table};
use rc_daemon::ready::{Ready, ReadyFile};
use rc_daemon::shutdown::Shutdown;
use rc_daemon::{ExitStatus, Failure};
use rc_proto::wire::BrokerId;
use rc_transport::{BootClock, CredentialFiles, Credentials, LifeLeft, TcpNet};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::admin::Administration;
use crate::config::{BINARY, Config};
use crate::server::{Broker, Parts, RunningBroker, StartError};

/// How often the files of the credentials are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Runs until it has drained after SIGTERM, Ctrl-C or `rc-broker drain`; a second signal ends it at once.
pub(crate) async fn run(config: Config) -> Result<ExitStatus, Failure> {
    let shutdown = Shutdown::new();
    let signals = shutdown.on_signals();
    let _signals = signals
        .map_err(|error| Failure::new(ExitStatus::Internal, error, "installing signal handlers", ""))?;
    let (credentials, _) = own_credentials(&config)?;
    let admin = AdminServer::bind(&config.admin_socket)?;
    if config.ticket_keys.is_empty() {
        tracing::warn!("there is no ticket key: every open will be refused; see tickets.keys");
    }
    raise_file_limit();
    let parts = Parts {
        credentials: Arc::new(credentials),
        ticket_keys: config.ticket_keys,
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
    let watching = watch_credentials(Arc::clone(&broker), config.credentials, stop_watching.clone());
    let watching = tokio::spawn(watching);
    shutdown.graceful().cancelled().await;
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
    Ok(shutdown.exit_status())
}

/// Takes new credentials and revocation lists when their files change; what cannot be used is told once, and the
/// old ones stay.
async fn watch_credentials(broker: Arc<RunningBroker>, files: CredentialFiles, stop: CancellationToken) {
    let mut seen = stamps(&files);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        seen = now;
        let loaded = Credentials::load(&files).map_err(|error| error.to_string());
        let outcome =
            loaded.and_then(|new| broker.set_credentials(Arc::new(new)).map_err(|error| error.to_string()));
        let entry = match outcome {
            Ok(()) => Entry::new(Severity::Info, "credentials.replaced"),
            Err(reason) => Entry::new(Severity::Error, "credentials.refused").with("reason", reason),
        };
        drop(broker.events().record(entry.with_text("certificate", files.certificate.display())));
    }
}

/// Time and size of each file; nothing for one that cannot be seen.
fn stamps(files: &CredentialFiles) -> Vec<Option<(SystemTime, u64)>> {
    let paths = [Some(&files.certificate), Some(&files.key), Some(&files.ca), files.crl.as_ref()];
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.into_iter().flatten().map(stamp).collect()
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
    match credentials.life_left(std::time::SystemTime::now()) {
        LifeLeft::Ample(_) => {}
        LifeLeft::Low(left) => {
            tracing::warn!(certificate = %file, hours = left.as_secs() / 3600, "time to renew it: rc-certs renew");
        }
        LifeLeft::Over => {
            let what = "the certificate has expired";
            return Err(Failure::new(ExitStatus::Usage, what, file, "renew it with rc-certs renew"));
        }
    }
    Ok((credentials, id))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::from_error(ExitStatus::Usage, error)
    }
}
