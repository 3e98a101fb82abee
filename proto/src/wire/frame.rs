//! Frames inside end-to-end TLS.
