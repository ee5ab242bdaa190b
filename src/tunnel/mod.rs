//! Where sockets and TLS meet: sessions, and the services that own them.

mod admission;
mod relay;
mod service;
mod session;
mod setup;

pub use service::{Info, Limits, Phase, Service, Shared};
pub use setup::Setup;
