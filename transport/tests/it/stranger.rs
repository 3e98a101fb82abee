//! What a client that breaks the rules sees on the wire: raw bytes and a TLS client of its own making.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use crate::support::Door;
use rc_transport::testing::{Blueprint, TestCa};
use rc_transport::{AcceptError, CredentialFiles, PeerFault};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Counts the bytes that come in.
struct Counting {
    stream: TcpStream,
    read: usize,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.read += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client that trusts the CA by the rules of the web, with or without a certificate.
fn client(ca: &TestCa, files: Option<&CredentialFiles>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.ca_file()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => builder
            .with_client_auth_cert(
                CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_file(&files.key).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Dials by hand; returns the alert, and how many bytes came after the client was done with its handshake.
async fn knock(door: &Door, config: ClientConfig) -> (Result<AlertDescription, String>, usize) {
    let stream = TcpStream::connect(door.address()).await.unwrap();
    let name = ServerName::try_from(crate::support::SERVICE).unwrap();
    let counting = Counting { stream, read: 0 };
    let (error, read) =
        match TlsConnector::from(Arc::new(config)).connect(name, counting).into_fallible().await {
            Ok(mut tls) => {
                let before = tls.get_ref().0.read;
                let result = tls.read(&mut [0; 16]).await;
                let after = tls.get_ref().0.read - before;
                (result.map(|count| format!("{count} bytes")), after)
            }
            Err((error, counting)) => (Err(error), counting.read),
        };
    let alert = match error {
        Ok(what) => Err(what),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
            _ => Err(format!("{error:?}")),
        },
    };
    (alert, read)
}

#[tokio::test]
async fn every_bad_certificate_costs_the_same_bytes_on_the_wire() {
    let ca = TestCa::new("mesh.test");
    let foreign = TestCa::new("mesh.test");
    let id = ca.id("target/pc-1");
    let good = || Blueprint::of(&id, &[]);
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let revoked = ca.issue(&id, &[]);
    ca.revoke(&revoked);
    let door = Door::open(&ca).await;
    let list = [
        ca.issue_as(&Blueprint { not_before: now - 2 * hour, not_after: now - hour, ..good() }),
        ca.issue_as(&Blueprint { not_before: now + hour, ..good() }),
        ca.issue_as(&Blueprint { client_auth: false, server_auth: false, ..good() }),
        ca.issue_as(&Blueprint { uri_names: vec![id.to_string(), id.to_string()], ..good() }),
        ca.issue(&ca.id("rc-server/main"), &[]),
        foreign.issue(&id, &[]),
        revoked,
    ];
    for files in &list {
        let (heard, refused) =
            tokio::join!(knock(&door, client(&ca, Some(files), &["rc-ctl/1"])), door.accept());
        // One encrypted alert: 5 bytes of header, 2 of alert, 1 of type, 16 of tag.
        assert_eq!(heard, (Ok(AlertDescription::CertificateUnknown), 24), "{refused:?}");
        assert!(matches!(refused, Err(AcceptError::Certificate { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn no_certificate_is_refused_by_the_alert_that_says_so() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let (heard, refused) = tokio::join!(knock(&door, client(&ca, None, &["rc-ctl/1"])), door.accept());
    assert_eq!(heard, (Ok(AlertDescription::CertificateRequired), 24));
    assert!(matches!(refused, Err(AcceptError::NoCertificate)), "{refused:?}");
}

#[tokio::test]
async fn wrong_and_missing_protocols_get_the_same_alert_before_any_certificate() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    for alpn in [&[][..], &["h2", "http/1.1"], &["rc-e2e/1"], &["rc-ctl/2"], &["rc-ctl/1\u{7}"]] {
        let (heard, refused) = tokio::join!(knock(&door, client(&ca, Some(&files), alpn)), door.accept());
        assert_eq!(heard, (Ok(AlertDescription::NoApplicationProtocol), 7), "{alpn:?}");
        let Err(AcceptError::Protocol { offered }) = refused else { panic!("{refused:?}") };
        assert_eq!(offered.len(), alpn.len());
        assert!(offered.iter().all(|name| !name.contains('\u{7}')));
    }
    let several = client(&ca, Some(&files), &["h2", "rc-ctl/1"]);
    let name = ServerName::try_from(crate::support::SERVICE).unwrap();
    let dial = async {
        let stream = TcpStream::connect(door.address()).await.unwrap();
        TlsConnector::from(Arc::new(several)).connect(name, stream).await
    };
    let (dialled, accepted) = tokio::join!(dial, door.accept());
    assert!(dialled.is_ok() && accepted.is_ok(), "one of ours among others is enough");
}

/// A TLS 1.2 `ClientHello` as an old client sends it, with one of our protocols.
fn tls12_hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, body: &[u8]| {
        extensions.extend_from_slice(&kind.to_be_bytes());
        extensions.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        extensions.extend_from_slice(body);
    };
    extension(10, &[0, 2, 0, 29]); // supported_groups: x25519
    extension(11, &[1, 0]); // ec_point_formats
    extension(13, &[0, 2, 4, 3]); // signature_algorithms: ecdsa_secp256r1_sha256
    extension(16, b"\x00\x09\x08rc-ctl/1");
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite, no compression
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    let length = u16::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1];
    hello.extend_from_slice(&(length + 4).to_be_bytes());
    hello.extend_from_slice(&[1, 0]);
    hello.extend_from_slice(&length.to_be_bytes());
    hello.extend_from_slice(&body);
    hello
}

#[tokio::test]
async fn tls_1_2_is_refused_with_protocol_version() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let client = async {
        let mut stream = TcpStream::connect(door.address()).await.unwrap();
        stream.write_all(&tls12_hello()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (answer, refused) = tokio::join!(client, door.accept());
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "{refused:?}");
    assert!(matches!(refused, Err(AcceptError::Tls { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_no_proof() {
    let ca = TestCa::new("mesh.test");
    let door = Door::open(&ca).await;
    let files = ca.issue(&ca.id("target/pc-1"), &[]);
    let other = ca.issue(&ca.id("target/pc-2"), &[]);
    let mut config = client(&ca, Some(&files), &["rc-ctl/1"]);
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(PrivateKeyDer::from_pem_file(&other.key).unwrap())
        .unwrap();
    let stolen = Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(stolen));
    let (heard, refused) = tokio::join!(knock(&door, config), door.accept());
    assert_eq!(heard, (Ok(AlertDescription::CertificateUnknown), 24));
    assert!(
        matches!(refused, Err(AcceptError::Certificate { fault: PeerFault::NoProof, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_alert_is_not_destroyed_by_what_the_client_sent_meanwhile() {
    let ca = TestCa::new("mesh.test");
    let revoked = ca.issue(&ca.id("target/pc-1"), &[]);
    ca.revoke(&revoked);
    let door = Door::open(&ca).await;
    let config = client(&ca, Some(&revoked), &["rc-path/1"]);
    let name = ServerName::try_from(crate::support::SERVICE).unwrap();
    let dial = async {
        let stream = TcpStream::connect(door.address()).await.unwrap();
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        // More than the socket buffers of the refusing side will have read when it refuses.
        drop(tls.write_all(&[0; 64 * 1024]).await);
        tls.read(&mut [0; 16]).await.unwrap_err().to_string()
    };
    let (heard, refused) = tokio::join!(dial, door.accept());
    assert!(heard.contains("CertificateUnknown"), "{heard}");
    assert!(
        matches!(refused, Err(AcceptError::Certificate { fault: PeerFault::Revoked { .. }, .. })),
        "{refused:?}"
    );
}
