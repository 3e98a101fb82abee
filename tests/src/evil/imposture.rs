//! What an evil broker pretends to be, and whom it joins to whom.

use std::io;
use std::time::Duration;

use rand::Rng;
use rc_proto::identity::SpiffeId;
use rc_proto::wire::{PathId, Role};
use rc_transport::{EndToEnd, Leg, MessageStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::broker::{Shared, Wanted};
use super::deed::Deed;
use super::pipe::Pipe;

/// For another path to splice with.
const PARTNER_MAX: Duration = Duration::from_millis(500);
/// For a handshake that must fail, and the answer to bytes that must be refused.
const IMPOSTURE_MAX: Duration = Duration::from_secs(5);

/// A pipe on its way between two tasks.
pub(super) struct PipeBox(Box<Pipe>);

impl std::fmt::Debug for PipeBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PipeBox")
    }
}

impl Shared {
    /// Says to a Controller that the path is open, and to be the Target.
    pub(super) async fn play_target(&self, mut stream: MessageStream<Leg>, wanted: &Wanted) {
        if stream.send(&self.opened(wanted.open.path_id)).await.is_err() {
            return;
        }
        let (leg, behind) = stream.into_inner();
        let (reading, writing) = tokio::io::split(leg);
        let io = tokio::io::join(io::Cursor::new(behind).chain(reading), writing);
        if let Ok(Ok(_)) = timeout(IMPOSTURE_MAX, EndToEnd::server(&self.credentials, io)).await {
            self.believed(format!("{} took {} for {}", wanted.controller, self.id, wanted.open.target));
        }
    }

    /// Invites the Target for a path that nobody opened, and says to be the Controller, or what one said before.
    pub(super) async fn play_controller(&self, deed: Deed, wanted: &Wanted) {
        let path_id = PathId(self.state().random.random());
        let Some(far) = self.invite(path_id, &wanted.open.target, &wanted.controller).await else { return };
        self.impose(deed, far.leg, wanted).await;
    }

    /// What is left to try once the Target has joined a path of ours.
    pub(super) async fn impose(&self, deed: Deed, mut leg: Leg, wanted: &Wanted) {
        if deed == Deed::PlayController {
            let target = SpiffeId::endpoint(self.trust_domain.clone(), Role::Target, &wanted.open.target);
            let Ok(Ok(mut end)) =
                timeout(IMPOSTURE_MAX, EndToEnd::client(&self.credentials, leg, &target)).await
            else {
                return;
            };
            // TLS 1.3 lets the client finish first; what the Target thinks of it comes with the first read.
            drop(end.write_all(&[0; 64]).await);
            if let Ok(Ok(1..)) = timeout(IMPOSTURE_MAX, end.read(&mut [0; 64])).await {
                self.believed(format!("{} answered {}", wanted.open.target, self.id));
            }
            return;
        }
        let record = self.state().record.clone();
        drop(leg.write_all(&record).await);
        drop(leg.flush().await);
        // The Target answers the recorded ClientHello with a fresh handshake, and cannot be answered in turn.
        let mut answer = vec![0; 16 << 10];
        let mut total = 0;
        while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(1), leg.read(&mut answer)).await {
            total += count;
            if total > 64 << 10 {
                self.believed(format!("{} said {total} bytes to a recording", wanted.open.target));
                return;
            }
        }
    }

    /// Exchanges the Targets of this path and of the next one that is to be spliced.
    pub(super) async fn splice(&self, pipe: Pipe) {
        let waiting = self.state().partner.take();
        if let Some(waiting) = waiting {
            let (give, given) = oneshot::channel();
            if waiting.send((PipeBox(Box::new(pipe)), give)).is_ok()
                && let Ok(PipeBox(mut pipe)) = given.await
            {
                pipe.carry(u64::MAX).await;
            }
            return;
        }
        let (offer, offered) = oneshot::channel();
        self.state().partner = Some(offer);
        let mut pipe = pipe;
        match timeout(PARTNER_MAX, offered).await {
            Ok(Ok((PipeBox(other), give))) => {
                let (mut mine, theirs) = pipe.exchange(*other);
                drop(give.send(PipeBox(Box::new(theirs))));
                mine.carry(u64::MAX).await;
            }
            Ok(Err(_)) | Err(_) => {
                pipe.carry(u64::MAX).await;
            }
        }
    }
}
