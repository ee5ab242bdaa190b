//! The integration tests: one binary, one file a subject, real peers over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cli;
mod config_cases;
mod daemon;
mod dead_peers;
mod differential;
mod doctor;
mod dropin;
mod effective;
mod enumeration;
mod exec;
mod explain;
mod founding;
mod harness;
mod hostile;
mod http;
mod inetd;
mod keyfile;
mod keys;
mod layers;
mod lifecycle;
mod limits;
mod manual;
mod openssl_peer;
mod options;
mod page;
mod pairings;
mod policy;
mod proxy;
mod pyro;
mod relay;
mod reload;
mod safer;
mod sni;
mod stunnel_peer;
mod supervised;
