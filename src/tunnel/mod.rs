//! Where sockets and TLS meet: sessions, and the services that own them.

mod accept;
mod admission;
mod crowd;
mod ending;
mod fair_share;
mod policy;
mod relay;
mod resources;
mod respawn;
mod roster;
mod service;
mod session;
mod setup;

pub use accept::{accept_connections, serve_connection};
pub use fair_share::OneKey;
pub use resources::{Limits, Room, Shared};
pub use respawn::Respawn;
pub use roster::{Info, Reached};
pub use service::{Failure, Phase, Service, Use};
pub use setup::{Previous, Setup};
