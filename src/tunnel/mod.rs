//! Where sockets and TLS meet: sessions, and the services that own them.

mod admission;
mod crowd;
mod ending;
mod fair_share;
mod names;
mod policy;
mod relay;
mod respawn;
mod roster;
mod service;
mod session;
mod setup;

pub use fair_share::OneKey;
pub use respawn::Respawn;
pub use roster::{Info, Reached};
pub use service::{Failure, Limits, Phase, Room, Service, Shared, Use};
pub use setup::{Previous, Setup};
