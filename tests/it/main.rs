//! The integration tests: one binary, one file a subject, real peers over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cli;
mod config_cases;
mod control;
mod daemon;
mod differential;
mod dropin;
mod effective;
mod enumeration;
mod exec;
mod founding;
mod harness;
mod hostile;
mod inetd;
mod keyfile;
mod layers;
mod lifecycle;
mod limits;
mod manual;
mod openssl_peer;
mod options;
mod pairings;
mod proxy;
mod pyro;
mod relay;
mod reload;
mod safer;
mod sni;
mod stunnel_peer;
