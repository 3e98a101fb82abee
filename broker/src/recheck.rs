//! Judges the peers of live connections again: a revocation list may have come, a certificate may have run out, since
//! their handshake. And takes new credentials from their files.

use std::sync::Arc;
use std::time::SystemTime;

use rc_daemon::events::Severity;
use rc_proto::wire::codes::PathEnd;
use rc_transport::Credentials;

use crate::node::Node;

/// Ends every control link, mesh link and path whose certificates no longer hold.
pub(crate) fn recheck(node: &Node) {
    let (credentials, now) = (node.mesh.credentials(), SystemTime::now());
    for (_, link) in node.links.all() {
        if let Err(fault) = credentials.recheck_certificate(&link.certificate, now) {
            link.handle.close();
            let entry = node.event(Severity::Warn, "link.revoked");
            node.record(
                entry.with_text("peer", crate::control::peer_text(&link.peer)).with_text("reason", fault),
            );
        }
    }
    for (peer, link) in node.mesh.links() {
        if let Err(fault) = credentials.recheck_certificate(link.certificate(), now) {
            link.close();
            let entry = node.event(Severity::Warn, "mesh.revoked");
            node.record(entry.with_text("peer", peer).with_text("reason", fault));
        }
    }
    for path in node.paths.all() {
        let fault = path
            .handle
            .certificates()
            .find_map(|certificate| credentials.recheck_certificate(certificate, now).err());
        if let Some(fault) = fault {
            path.handle.stop(PathEnd::REVOKED);
            let entry = node.event(Severity::Warn, "path.revoked").with_text("path", path.request.path);
            node.record(entry.with_text("reason", fault));
        }
    }
}

/// Why new credentials are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate is of {found}, this broker is {own}: put its own files back, or restart it as the other one"
)]
pub struct OtherIdentity {
    found: String,
    own: String,
}

/// Uses other credentials of the same identity from the next handshake on, and judges every live peer by them.
pub(crate) fn replace(
    node: &Node,
    acceptor: &rc_transport::Acceptor,
    credentials: Arc<Credentials>,
) -> Result<(), OtherIdentity> {
    let own = node.mesh.credentials().spiffe_id().clone();
    if *credentials.spiffe_id() != own {
        return Err(OtherIdentity { found: credentials.spiffe_id().to_string(), own: own.to_string() });
    }
    acceptor.set_credentials(Arc::clone(&credentials));
    node.mesh.set_credentials(credentials);
    recheck(node);
    Ok(())
}
