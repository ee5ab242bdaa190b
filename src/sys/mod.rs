//! What differs from one operating system to the next, and what the safe crates do not reach: the only folder where
//! `unsafe` is allowed, each block with its reason. About half of the files have none.
#![allow(unsafe_code)]

#[cfg(unix)]
pub mod access;
#[cfg(unix)]
pub mod account;
pub mod acl;
pub mod address_holder;
#[cfg(unix)]
pub mod background;
pub mod cgroup;
#[cfg(unix)]
pub mod children;
pub mod clock;
pub mod cpu;
#[cfg(unix)]
pub mod descriptor;
#[cfg(windows)]
pub mod event_log;
pub mod file;
pub mod file_digest;
pub mod file_edit;
pub mod folder_lock;
#[cfg(target_os = "linux")]
pub mod inotify;
pub mod interfaces;
pub mod key_update;
pub mod memory;
pub mod openssl;
#[cfg(unix)]
pub mod pid_file;
pub mod pipe;
#[cfg(target_os = "linux")]
mod proc;
pub mod process;
pub mod resolver;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(windows)]
pub mod service_control;
pub mod service_manager;
pub mod session_ids;
pub mod socket;
#[cfg(unix)]
pub mod unit_file;
pub mod usage;
