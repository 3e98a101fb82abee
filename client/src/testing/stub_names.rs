//! Names from a table, each answer after its own time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use rc_transport::{AddressAnswer, BoxFuture, Family, LookupError};

use crate::reach::Names;

type Answer = (Duration, Result<Vec<IpAddr>, LookupError>);

/// What each name and family answers; all else does not exist.
#[derive(Default)]
pub(crate) struct StubNames {
    answers: Mutex<BTreeMap<(String, Family), Answer>>,
}

impl StubNames {
    /// Answers with addresses after `delay`; their family decides which question it is.
    pub(crate) fn answer(&self, name: &str, addresses: &[&str], delay: Duration) {
        let parsed: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let family = if parsed[0].is_ipv6() { Family::V6 } else { Family::V4 };
        self.set(name, family, (delay, Ok(parsed)));
    }

    /// Both families fail after `delay`.
    pub(crate) fn fail(&self, name: &str, error: &LookupError, delay: Duration) {
        for family in [Family::V4, Family::V6] {
            self.set(name, family, (delay, Err(error.clone())));
        }
    }

    fn set(&self, name: &str, family: Family, answer: Answer) {
        self.answers.lock().unwrap().insert((name.to_owned(), family), answer);
    }
}

impl Names for StubNames {
    fn lookup<'a>(
        &'a self,
        name: &'a str,
        family: Family,
    ) -> BoxFuture<'a, Result<AddressAnswer, LookupError>> {
        Box::pin(async move {
            let answer = self.answers.lock().unwrap().get(&(name.to_owned(), family)).cloned();
            let missing = LookupError::NoData { name: name.to_owned(), family };
            let (delay, answer) = answer.unwrap_or((Duration::ZERO, Err(missing)));
            tokio::time::sleep(delay).await;
            answer.map(|addresses| AddressAnswer { addresses, ttl: Duration::from_secs(60) })
        })
    }
}
