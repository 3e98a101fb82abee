//! Work that takes a while, with the link read meanwhile.

use std::collections::VecDeque;
use std::pin::pin;

use super::control::{ControlLink, LinkEvent};

/// News of a link that wait while something else is done; more stay in the link.
const WAITING_MAX: usize = 32;

/// Does `work` and reads the link meanwhile; what comes is put into `waiting`. `None` when the work came to nothing, or
/// when news for which `ends` holds made it pointless.
pub(super) async fn alongside<T>(
    link: &mut ControlLink,
    work: impl Future<Output = Option<T>>,
    ends: fn(&LinkEvent) -> bool,
    waiting: &mut VecDeque<LinkEvent>,
) -> Option<T> {
    let mut work = pin!(Box::pin(work));
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            event = link.next_event(), if !ended && waiting.len() < WAITING_MAX => {
                let ends = ends(&event);
                ended = ends_the_link(&event);
                waiting.push_back(event);
                if ends {
                    return None;
                }
            }
        }
    }
}

/// A round of probes waits for nothing that matters more.
pub(super) fn ends_a_round(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Drain(_) | LinkEvent::Superseded(_)) || ends_the_link(event)
}

/// Nothing comes behind it.
fn ends_the_link(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Moved { .. } | LinkEvent::Ended(_))
}

/// A move goes on when the broker that is left goes first.
pub(super) fn ends_a_move(event: &LinkEvent) -> bool {
    matches!(event, LinkEvent::Superseded(_))
}
