//! What the safe crates do not reach: the only folder where `unsafe` is allowed, each block with
//! its reason.
#![allow(unsafe_code)]

#[cfg(unix)]
pub mod access;
#[cfg(unix)]
pub mod account;
pub mod acl;
pub mod cgroup;
#[cfg(unix)]
pub mod children;
pub mod clock;
pub mod content;
pub mod cpu;
#[cfg(unix)]
pub mod daemon;
#[cfg(unix)]
pub mod descriptor;
#[cfg(windows)]
pub mod event_log;
pub mod file;
pub mod folder_lock;
pub mod holder;
#[cfg(target_os = "linux")]
pub mod inotify;
pub mod interfaces;
pub mod key_update;
pub mod manager;
pub mod memory;
pub mod names;
pub mod openssl;
#[cfg(unix)]
pub mod pid_file;
pub mod pipe;
#[cfg(target_os = "linux")]
mod proc;
pub mod process;
pub mod replace;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(windows)]
pub mod service;
pub mod socket;
pub mod usage;
