//! Warns while there is time to renew the certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rc_transport::{Credentials, LifeLeft};
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::reach::Reach;
use crate::status::whole_ms;

/// Between two looks at the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Looks at the certificate in use now and every hour until `stop`.
pub(crate) async fn watch_certificate(reach: Arc<Reach>, stop: CancellationToken) {
    loop {
        if let Some(event) = warning(&reach.credentials(), SystemTime::now()) {
            if let Event::CertificateLow { file, left_ms, renew } = &event {
                tracing::warn!(file, left_ms, "the certificate ends soon: run `{renew}`");
            }
            reach.events.publish(event);
        }
        if stop.run_until_cancelled(reach.pause(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// The warning for a certificate that has a fifth of its life or less.
fn warning(credentials: &Credentials, now: SystemTime) -> Option<Event> {
    let left_ms = match credentials.life_left(now) {
        LifeLeft::Ample(_) => return None,
        LifeLeft::Low(left) => whole_ms(left),
        LifeLeft::Over => 0,
    };
    let file = credentials.certificate_file().display().to_string();
    let renew = format!("rc-certs renew {file}");
    Some(Event::CertificateLow { file, left_ms, renew })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_fifth_of_its_life_before_the_end_a_certificate_is_named_with_its_remedy() {
        let credentials = World::new().ca.credentials("controller/alice", &[]);
        let end = credentials.not_after();
        assert_eq!(warning(&credentials, end - Duration::from_secs(5 * 3600)), None);
        let event = warning(&credentials, end - Duration::from_secs(4 * 3600)).unwrap();
        let Event::CertificateLow { file, left_ms, renew } = event else { panic!("{event:?}") };
        assert_eq!((file.as_str(), left_ms), (credentials.certificate_file().to_str().unwrap(), 14_400_000));
        assert_eq!(renew, format!("rc-certs renew {file}"));
        let after = warning(&credentials, end + Duration::from_secs(1)).unwrap();
        assert!(matches!(after, Event::CertificateLow { left_ms: 0, .. }), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_looks_at_its_certificate_when_it_starts_and_every_hour() {
        let world = World::new();
        let mut blueprint = rc_transport::testing::Blueprint::of(&world.ca.id("controller/alice"), &[]);
        blueprint.not_before = SystemTime::now() - Duration::from_secs(3600);
        blueprint.not_after = SystemTime::now() + Duration::from_secs(600);
        let low = Credentials::load(&world.ca.issue_as(&blueprint)).unwrap();
        let reach = world.reach("controller/alice");
        reach.connector.set_credentials(Arc::new(low));
        let mut events = reach.events.follow();
        let stop = CancellationToken::new();
        let watch = tokio::spawn(watch_certificate(Arc::clone(&reach), stop.clone()));
        let began = tokio::time::Instant::now();
        for hours in 0..3 {
            assert!(matches!(events.next().await, Some(Event::CertificateLow { .. })));
            assert_eq!(began.elapsed().as_secs() / 3600, hours);
        }
        stop.cancel();
        watch.await.unwrap();
    }
}
