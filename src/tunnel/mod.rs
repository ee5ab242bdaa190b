//! Where sockets and TLS meet: sessions, and the services that own them.

mod accept;
mod access_policy;
mod admission;
mod fair_share;
mod memory_trimmer;
mod recent_refusals;
mod registry;
mod relay;
mod resources;
mod respawn;
mod service;
mod session;
mod session_end;
mod snapshot;

pub use accept::{accept_connections, serve_connection};
pub use fair_share::OneKey;
pub use recent_refusals::RecentRefusal;
pub use registry::{SessionDetails, SessionInfo};
pub use resources::{ProcessLimits, ProcessResources, ServiceLimits};
pub use respawn::Respawn;
pub use service::{IdentityUsage, LifecyclePhase, RecentFailure, Service};
pub use session_end::SessionOutcome;
pub use snapshot::{Previous, ServiceSnapshot};
