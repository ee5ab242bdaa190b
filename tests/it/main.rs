//! The integration tests: one binary, one file a subject, real peers over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cli;
mod config_cases;
mod differential;
mod enumeration;
mod founding;
mod harness;
mod hostile;
mod keyfile;
mod layers;
mod lifecycle;
mod limits;
mod openssl_peer;
mod pyro;
mod relay;
mod reload;
mod stunnel_peer;
