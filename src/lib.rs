//! pskgate: a plain connection carried through TLS that a pre-shared key authenticated.
//!
//! Start reading in [`tunnel`]'s `session.rs`: one file reads as one connection. The folders are
//! layers, and each may import only from those before it:
//! `sys · secrets · config · observe · net · tls · tunnel · daemon · cli`.
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
#[doc(hidden)]
#[cfg(all(unix, any(test, fuzzing)))]
pub mod fuzzing;
pub mod net;
pub mod observe;
pub mod secrets;
pub mod sys;
pub mod tls;
pub mod tunnel;
