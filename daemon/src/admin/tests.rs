//! The admin socket between a server and a client in one process.
