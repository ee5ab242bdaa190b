//! Where sockets and TLS meet: sessions, and the services that own them.

mod admission;
mod relay;
mod service;
mod session;
mod setup;

pub use service::{Capacity, Info, Phase, Service, Shared};
pub use setup::Setup;
