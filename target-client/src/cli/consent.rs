//! Whether somebody in front of the machine is asked before a channel is given.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use rc_daemon::output::notice;
use tokio::sync::{Mutex, mpsc};

use crate::offer::Offer;

/// Lines that were typed and not read yet; older ones are dropped when a question begins.
const TYPED_LINES_MAX: usize = 4;

/// When a channel is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Whatever the ticket permits.
    Allow,
    /// After a yes on the terminal.
    Ask {
        /// How long a question waits.
        timeout: Duration,
    },
}

/// Asks one question at a time.
#[derive(Debug, Clone)]
pub(super) struct Consent {
    policy: Policy,
    typed: Option<Arc<Mutex<mpsc::Receiver<String>>>>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go ahead.
    Yes,
    /// No, for this reason.
    No(&'static str),
    /// Nobody waits for the answer any more.
    Withdrawn,
}

impl Consent {
    /// Reads the terminal when the policy is to ask and there is one.
    pub(super) fn new(policy: Policy) -> Self {
        let ask = matches!(policy, Policy::Ask { .. }) && std::io::stdin().is_terminal();
        Self { policy, typed: ask.then(|| Arc::new(Mutex::new(read_terminal()))) }
    }

    /// Decides about one offer.
    pub(super) async fn ask(&self, offer: &Offer) -> Verdict {
        let Policy::Ask { timeout } = self.policy else { return Verdict::Yes };
        let Some(typed) = &self.typed else {
            return Verdict::No("consent is required and nobody is at the terminal");
        };
        let question = async {
            // The time to answer begins when the question is shown, not while another one is.
            let mut typed = typed.lock().await;
            while typed.try_recv().is_ok() {}
            notice(&format!("{} asks for {}. Allow? [y/N]", offer.controller(), offer.service()));
            tokio::time::timeout(timeout, typed.recv()).await
        };
        tokio::select! {
            answer = question => match answer {
                Ok(Some(line)) => verdict(&line),
                Ok(None) => Verdict::No("the terminal was closed"),
                Err(_elapsed) => {
                    notice("No answer: refused.");
                    Verdict::No("nobody answered in time")
                }
            },
            () = offer.withdrawn() => {
                notice(&format!("{} no longer asks.", offer.controller()));
                Verdict::Withdrawn
            }
        }
    }
}

fn verdict(line: &str) -> Verdict {
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Verdict::Yes,
        _ => Verdict::No("the person in front of the machine said no"),
    }
}

/// Lines from the terminal. The thread ends with the process: a blocking read cannot be cancelled.
fn read_terminal() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(line) {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        assert_eq!(verdict("y"), Verdict::Yes);
        assert_eq!(verdict(" YES \n"), Verdict::Yes);
        for line in ["", "n", "yep", "no", "y y"] {
            assert!(matches!(verdict(line), Verdict::No(_)), "{line:?}");
        }
    }
}
