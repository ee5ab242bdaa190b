//! What the safe crates do not reach: the only folder where `unsafe` is allowed, each block with
//! its reason.
#![allow(unsafe_code)]

#[cfg(unix)]
pub mod account;
pub mod cpu;
#[cfg(unix)]
pub mod daemon;
#[cfg(unix)]
pub mod descriptor;
pub mod file;
pub mod manager;
pub mod openssl;
#[cfg(unix)]
pub mod pid_file;
pub mod process;
pub mod socket;
