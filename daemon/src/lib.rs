//! What every binary of the project shares: layered configuration, logging, admin socket, exit codes.
#![forbid(unsafe_code)]
