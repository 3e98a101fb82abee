//! The HTTP probe: one GET whose status decides. The body is not read, a redirect is not followed.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::outcome::ProbeFailure;

/// The status line is at most this long.
const STATUS_LINE_BYTES_MAX: usize = 4096;

/// What is asked over HTTP, and which answers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    /// Over TLS. The certificate is not judged: the probe asks whether the service answers, not who it is.
    pub secure: bool,
    /// Name or address for the Host header, unless a header says otherwise, and for the TLS server name.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Further headers, at most one of a name.
    pub headers: Vec<(String, String)>,
    /// Status codes that count as healthy.
    pub expected: Vec<RangeInclusive<u16>>,
}

impl HttpProbe {
    /// The request as it is sent.
    fn request(&self) -> String {
        let mut text = format!("GET {} HTTP/1.1\r\n", self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("User-Agent: rc-traffic-manager\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        text
    }

    /// Asks over a connection.
    pub(super) async fn ask(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), ProbeFailure> {
        stream.write_all(self.request().as_bytes()).await.map_err(unreachable)?;
        stream.flush().await.map_err(unreachable)?;
        let status = read_status(&mut stream).await?;
        if self.expected.iter().any(|range| range.contains(&status)) {
            Ok(())
        } else {
            Err(ProbeFailure::Status { status })
        }
    }
}

async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, ProbeFailure> {
    let mut line = Vec::with_capacity(256);
    while !line.contains(&b'\n') {
        if line.len() >= STATUS_LINE_BYTES_MAX {
            return Err(no_http());
        }
        if stream.read_buf(&mut line).await.map_err(unreachable)? == 0 {
            let reason = "the connection ended before an answer".to_owned();
            return Err(ProbeFailure::Unreachable { reason });
        }
    }
    status_of(&line).ok_or_else(no_http)
}

/// The code in `HTTP/1.1 200 OK`.
fn status_of(line: &[u8]) -> Option<u16> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (version, status) = (words.next()?, words.next()?);
    let is_http = version.starts_with("HTTP/1.");
    (is_http && status.len() == 3).then(|| status.parse().ok()).flatten()
}

fn no_http() -> ProbeFailure {
    ProbeFailure::Misbehaved { reason: "the answer is not HTTP".to_owned() }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn unreachable(error: std::io::Error) -> ProbeFailure {
    ProbeFailure::Unreachable { reason: error.to_string() }
}

/// TLS as a probe speaks it: no certificate of ours, and any certificate of theirs.
pub(super) fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = AnyCertificate(Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous() // rustls' word for "verify by these rules instead of those of the web"
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Takes every certificate: expired, self-signed, of another name.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(headers: &[(&str, &str)]) -> HttpProbe {
        HttpProbe {
            secure: false,
            host: "b1.example.net".to_owned(),
            path: "/x".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            expected: vec![200..=200],
        }
    }

    async fn asked(answer: &[u8], probe: &HttpProbe) -> Result<(), ProbeFailure> {
        let (client, mut server) = tokio::io::duplex(8192);
        server.write_all(answer).await.unwrap();
        server.shutdown().await.unwrap();
        probe.ask(client).await
    }

    #[test]
    fn m_01_m_24_and_m_26_the_request_is_a_get_with_the_host_and_the_headers() {
        let text = probe(&[("X-Probe", "1")]).request();
        assert!(text.starts_with("GET /x HTTP/1.1\r\nHost: b1.example.net\r\nX-Probe: 1\r\n"), "{text}");
        let text = probe(&[("host", "other.example")]).request();
        assert!(text.contains("host: other.example\r\n") && !text.contains("b1.example.net"), "{text}");
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn m_02_m_03_and_m_04_the_status_decides() {
        for (answer, status) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204),
            ("HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n", 301),
            ("HTTP/1.0 500 \r\n", 500),
        ] {
            let failure = asked(answer.as_bytes(), &probe(&[])).await.unwrap_err();
            assert_eq!(failure, ProbeFailure::Status { status });
        }
        asked(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nhalf", &probe(&[])).await.unwrap();
        let wide = HttpProbe { expected: vec![200..=299, 301..=301], ..probe(&[]) };
        asked(b"HTTP/1.1 301 Moved\r\n\r\n", &wide).await.unwrap();
        assert!(asked(b"HTTP/1.1 302 Moved\r\n\r\n", &wide).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_http_is_a_failure_however_long_it_is() {
        let endless = vec![b'x'; 6000];
        for (answer, label) in [
            (b"SSH-2.0-OpenSSH\r\n".as_slice(), "misbehaved"),
            (b"HTTP/1.1 2000 OK\r\n", "misbehaved"),
            (b"HTTP/1.1", "unreachable"),
            (b"", "unreachable"),
            (&endless, "misbehaved"),
        ] {
            assert_eq!(asked(answer, &probe(&[])).await.unwrap_err().label(), label, "{answer:?}");
        }
    }
}
