//! The listener for metrics and health checks: plain HTTP/1.1, on a listener of its own, loopback unless configured.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | `OpenMetrics` text 1.0.0, which Prometheus reads |
//! | `/live` | 200 while the daemon makes progress, else 503 with the reason: restart it |
//! | `/ready` | 200 while the daemon takes new work, else 503 with the reason: send work elsewhere |
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>; no label carries an id, so the number of
//! series is fixed. Whoever asks sends no body, gets one answer at a time, and is cut when it takes too long.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Kind, Knob};
use crate::exit::{ExitStatus, Failure};

/// Answers that are made at a time; a further request is answered 503.
const ANSWERS_MAX: usize = 4;
/// Time that one answer may take to be made.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Media type of the exposition.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The knob that every daemon has for this listener.
pub const ADDRESSES: Knob = Knob::new(
    "metrics.addresses",
    Kind::List(&Kind::SocketAddr),
    "[]",
    "Where Prometheus and health checks are answered by plain HTTP (/metrics, /live, /ready); none when empty. Keep it on loopback or an address that only the monitoring reaches.",
);

/// What a daemon shows of itself.
pub trait Observed: Send + Sync + 'static {
    /// Its metrics as they are now.
    fn registry(&self) -> Registry;

    /// Whether it makes progress.
    ///
    /// # Errors
    /// Why it does not: it should be restarted.
    fn live(&self) -> Result<(), String>;

    /// Whether it takes new work.
    ///
    /// # Errors
    /// Why it does not.
    fn ready(&self) -> Result<(), String>;
}

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct MetricsServer {
    listeners: Vec<TcpListener>,
}

impl MetricsServer {
    /// Listens on every address; none is fine.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Failure> {
        let mut listeners = Vec::new();
        for address in addresses {
            let listener =
                TcpListener::bind(address).await.map_err(|error| bind_failure(*address, &error))?;
            listeners.push(listener);
        }
        Ok(Self { listeners })
    }

    /// The real addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers until `stop`.
    pub async fn serve(self, observed: Arc<dyn Observed>, stop: CancellationToken) {
        let shown = Shown { observed, answers: Arc::new(Semaphore::new(ANSWERS_MAX)) };
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/live", get(live))
            .route("/ready", get(ready))
            .with_state(shown);
        let mut servers = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let (router, stop) = (router.clone(), stop.clone());
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a metrics connection keeps its delay");
                }
            });
            servers.spawn(async move {
                let serving = axum::serve(listener, router).into_future();
                stop.run_until_cancelled(serving).await;
            });
        }
        while servers.join_next().await.is_some() {}
    }
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let fix = "name another address in metrics.addresses, or end what listens there";
    Failure::new(ExitStatus::Usage, format_args!("cannot listen for metrics: {error}"), address, fix)
}

#[derive(Clone)]
struct Shown {
    observed: Arc<dyn Observed>,
    answers: Arc<Semaphore>,
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let Ok(_turn) = Arc::clone(&shown.answers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once\n").into_response();
    };
    let observed = Arc::clone(&shown.observed);
    let encode = move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &observed.registry()).map(|()| text)
    };
    let encoded = tokio::time::timeout(ANSWER_TIME_MAX, tokio::task::spawn_blocking(encode)).await;
    match encoded {
        Ok(Ok(Ok(text))) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be read now\n").into_response()
        }
    }
}

async fn live(State(shown): State<Shown>) -> Response {
    answer(shown.observed.live())
}

async fn ready(State(shown): State<Shown>) -> Response {
    answer(shown.observed.ready())
}

fn answer(health: Result<(), String>) -> Response {
    match health {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Half;

    impl Observed for Half {
        fn registry(&self) -> Registry {
            let mut registry = Registry::with_prefix("rc_test");
            let paths = Counter::<u64>::default();
            paths.inc_by(7);
            registry.register("paths_opened", "Paths opened", paths);
            registry
        }

        fn live(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            Err("it drains".to_owned())
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_text_and_health_names_its_reason() {
        let listen = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
        let server = MetricsServer::bind(&listen).await.unwrap();
        let addresses = server.addresses();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Arc::new(Half), stop.clone()));
        for address in addresses {
            let text = ask(address, &get("/metrics")).await;
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            assert!(text.contains("application/openmetrics-text"), "{text}");
            assert!(text.contains("rc_test_paths_opened_total 7"), "{text}");
            assert!(text.contains("# EOF"), "{text}");
            let live = ask(address, &get("/live")).await;
            assert!(live.starts_with("HTTP/1.1 200") && live.ends_with("ok\n"), "{live}");
            let ready = ask(address, &get("/ready")).await;
            assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with("it drains\n"), "{ready}");
            assert!(ask(address, &get("/other")).await.starts_with("HTTP/1.1 404"));
            let post = ask(
                address,
                "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
            assert!(post.await.starts_with("HTTP/1.1 405"));
            assert!(ask(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        }
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_knob() {
        let first = MetricsServer::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
        let taken = first.addresses();
        let failure = MetricsServer::bind(&taken).await.unwrap_err().to_string();
        assert!(
            failure.contains(&taken[0].to_string()) && failure.contains("metrics.addresses"),
            "{failure}"
        );
    }
}
