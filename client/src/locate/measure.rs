//! Runs one [`Measurement`] over a connection.

use rc_proto::select::{Measurement, Sample, Warmth};
use tokio_util::sync::CancellationToken;

use super::probe_link::{ProbeFailure, ProbeLink};
use crate::reach::Reach;

/// Probes `link` until five samples are there or `closed` is cancelled; what was measured until then counts.
pub(crate) async fn measure(
    reach: &Reach,
    link: &mut ProbeLink,
    warmth: Warmth,
    closed: &CancellationToken,
) -> Result<Vec<Sample>, ProbeFailure> {
    let mut measurement = Measurement::new(warmth, reach.now());
    let mut samples = Vec::new();
    while !measurement.is_finished() {
        let due = measurement.poll_probe(reach.now(), &mut rand::rng());
        if let Some(nonce) = due {
            link.send_probe(nonce).await?;
            continue;
        }
        let deadline = measurement.poll_timeout();
        tokio::select! {
            biased;
            () = closed.cancelled() => measurement.close(),
            pong = link.next_pong(reach) => samples.extend(measurement.handle_pong(pong?.nonce, reach.now())),
            () = reach.nap_until(deadline) => samples.extend(measurement.handle_timeout(reach.now())),
        }
    }
    Ok(samples)
}
