//! Waiting for an observable, with a deadline, instead of sleeping for a guess.

use std::time::Duration;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it holds or `deadline` has passed; whether it held.
pub async fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if tokio::time::Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// As [`eventually`], with a condition that must be awaited.
pub async fn eventually_async<F: Future<Output = bool>>(
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> bool {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        if condition().await {
            return true;
        }
        if tokio::time::Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
