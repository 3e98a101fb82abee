//! Tests of the mesh view.

mod joining;
mod locating;
mod routing;

use std::time::Duration;

use crate::Moment;
use crate::wire::BrokerId;

fn id(text: &str) -> BrokerId {
    format!("r/{text}").parse().unwrap()
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn at(value_ms: u64) -> Moment {
    Moment::from_origin(ms(value_ms))
}

fn minutes(count: u64) -> Moment {
    at(count * 60_000)
}
