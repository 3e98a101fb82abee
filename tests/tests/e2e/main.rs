//! Real brokers, targets and controllers as processes, over real sockets.

mod bad_input;
mod bytes;
mod control;
mod ssh;
mod support;
