//! A service that is probed, and does what a script says.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rc_transport::testing::{Blueprint, TestCa};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// What is done with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Status 200; over TCP nothing more than the connection.
    Ok,
    /// This status.
    Status(u16),
    /// The connection ends at once.
    Drop,
    /// No answer.
    Hang,
}

#[derive(Debug)]
struct Script {
    first: VecDeque<Act>,
    then: Act,
}

/// What to do, and what was seen.
#[derive(Debug)]
pub(crate) struct Shared {
    script: Mutex<Script>,
    heads: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// Connections that the other side has ended.
    ended: Mutex<usize>,
}

impl Shared {
    /// The next act; it counts as seen.
    pub(crate) fn next(&self, head: String) -> Act {
        let mut script = self.script.lock().unwrap();
        self.heads.lock().unwrap().push(head);
        script.first.pop_front().unwrap_or(script.then)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Https,
    /// HTTPS that wants to see a certificate of the client.
    HttpsWithClientCertificate,
    /// HTTPS whose certificate has expired.
    HttpsExpired,
    Tcp,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
}

impl Fake {
    pub(crate) fn new(speaks: Speaks, first: &[Act], then: Act) -> Self {
        let script = Mutex::new(Script { first: first.iter().copied().collect(), then });
        let shared = Arc::new(Shared {
            script,
            heads: Mutex::default(),
            stop: AtomicBool::new(false),
            ended: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (serving, tls) = (Arc::clone(&shared), tls(speaks));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (shared, tls) = (Arc::clone(&serving), tls.clone());
                std::thread::spawn(move || serve(stream, speaks, tls, &shared));
            }
        });
        Self { address, shared }
    }

    /// How many probes came.
    pub(crate) fn seen(&self) -> usize {
        self.shared.heads.lock().unwrap().len()
    }

    /// The requests that came, as far as they are HTTP.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// How many connections the other side has ended.
    pub(crate) fn ended(&self) -> usize {
        *self.shared.ended.lock().unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listener; it may be gone already.
        drop(TcpStream::connect(self.address));
    }
}

fn tls(speaks: Speaks) -> Option<Arc<ServerConfig>> {
    let ca = TestCa::new("fakes.test");
    let id = ca.id("rc-server/fake");
    let blueprint = match speaks {
        Speaks::Http | Speaks::Tcp => return None,
        Speaks::Https | Speaks::HttpsWithClientCertificate => Blueprint::of(&id, &["elsewhere.test"]),
        Speaks::HttpsExpired => {
            let day = Duration::from_secs(86_400);
            let fresh = Blueprint::of(&id, &["elsewhere.test"]);
            Blueprint {
                not_before: fresh.not_before - 3 * day,
                not_after: fresh.not_before - 2 * day,
                ..fresh
            }
        }
    };
    let files = ca.issue_as(&blueprint);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.unwrap();
    let certificates = |path: &std::path::Path| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
    };
    let builder = if speaks == Speaks::HttpsWithClientCertificate {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&ca.ca_file()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    Some(Arc::new(builder.with_single_cert(certificates(&files.certificate), key).unwrap()))
}

fn serve(stream: TcpStream, speaks: Speaks, tls: Option<Arc<ServerConfig>>, shared: &Shared) {
    match tls {
        Some(config) => answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), shared),
        None if speaks == Speaks::Tcp => {
            let mut stream = stream;
            if shared.next(String::new()) == Act::Drop {
                return;
            }
            let ended = stream.read(&mut [0; 64]).map_or(0, |length| length);
            assert_eq!(ended, 0, "a TCP probe sends nothing");
            *shared.ended.lock().unwrap() += 1;
        }
        None => answer(stream, shared),
    }
}

fn answer(mut stream: impl Read + Write, shared: &Shared) {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => {
                // No request is a probe that failed on its way.
                shared.next(String::new());
                return;
            }
            Ok(length) => head.extend_from_slice(&part[..length]),
        }
    }
    let status = match shared.next(String::from_utf8(head).unwrap()) {
        Act::Ok => 200,
        Act::Status(status) => status,
        Act::Drop => return,
        Act::Hang => {
            // Until the other side gives up.
            drop(stream.read(&mut part));
            return;
        }
    };
    let body = "any body \u{0} at all";
    let head = format!(
        "HTTP/1.1 {status} Words\r\nLocation: /elsewhere\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A prober that has seen enough is gone already.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.flush()));
}
