//! The endpoints: control links, end-to-end paths, and the two ends of sessions.
//!
//! | module | stands for |
//! |---|---|
//! | [`keeper`] | an endpoint's control links, one or two |
//! | [`tls`] | end-to-end TLS: keys, record numbers, and that nothing altered passes |
//! | [`controller`] | the Controller's driver: it opens paths as the recovery planner says |
//! | [`target`] | the Target's driver: it joins paths, admits sessions, asks for other paths |

pub(super) mod controller;
pub(super) mod keeper;
pub(super) mod planner;
pub(super) mod seat;
pub(super) mod target;
pub(super) mod tls;

pub(super) use controller::Controller;
pub(super) use target::Target;
