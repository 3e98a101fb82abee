//! An open's watch for its Target: installed with the first look-up that finds nothing, taken back when the search
//! ends.

use rc_proto::wire::EndpointId;
use tokio::sync::oneshot;

use super::far::OpenContext;
use crate::core::registry::{Found, ParkId, Registration, Settled};
use crate::core::search::Search;
use crate::links::{ControlHandle, SharedNode};

/// Where a look-up found the Target.
pub(super) enum Look {
    /// Its control link ends here.
    Here(Box<Registration<ControlHandle>>),
    /// Not here; the watch is installed, and what was announced is known to the search.
    Elsewhere,
    /// More opens watch this Target than may.
    Full,
}

pub(super) struct Watch {
    node: SharedNode,
    target: EndpointId,
    park: ParkId,
    woken: oneshot::Receiver<()>,
    /// The receiver has given its one answer.
    is_woken: bool,
}

impl Watch {
    /// Looks the Target up. Without a watch one is installed in the same operation, when the Target is not here.
    pub(super) fn look(context: &OpenContext, watch: &mut Option<Self>, search: &mut Search) -> Look {
        let (node, target) = (&context.node, &context.open.target);
        if watch.is_some() {
            let found = node.presence.find(target, context.open.instance);
            return found.map_or(Look::Elsewhere, |found| Look::Here(Box::new(found)));
        }
        let (wake, woken) = oneshot::channel();
        match node.presence.find_or_park(target, context.open.instance, wake) {
            Found::Here(registration) => Look::Here(Box::new(registration)),
            Found::Parked { park, hints } => {
                search.add_candidates(node.mesh.candidates(&hints));
                let (node, target) = (SharedNode::clone(node), target.clone());
                *watch = Some(Self { node, target, park, woken, is_woken: false });
                Look::Elsewhere
            }
            Found::Full => Look::Full,
        }
    }

    /// Whether a registration or an announcement has come.
    pub(super) fn was_woken(&mut self) -> bool {
        self.is_woken || !matches!(self.woken.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    /// Waits for one. Cancel-safe.
    pub(super) async fn woken(&mut self) {
        if !self.is_woken {
            // A sender that was dropped unused is news as well.
            (&mut self.woken).await.unwrap_or_default();
            self.is_woken = true;
        }
    }

    /// Everything else was tried: counts as parked from now on.
    pub(super) fn settle(&self) -> Settled {
        self.node.presence.settle(&self.target, self.park)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.node.presence.unpark(&self.target, self.park));
    }
}

/// Waits until `watch` is woken; for ever without one. Cancel-safe.
pub(super) async fn woken(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.woken().await,
        None => std::future::pending().await,
    }
}
