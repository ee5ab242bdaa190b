//! What the safe crates do not reach: the only folder where `unsafe` is allowed, each block with
//! its reason.
#![allow(unsafe_code)]

pub mod cpu;
pub mod openssl;
pub mod process;
pub mod socket;
