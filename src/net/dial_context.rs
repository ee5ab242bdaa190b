//! On whose behalf a target is connected to.

use super::Peer;
use crate::observe::event::LogContext;
use crate::secrets::Identity;

/// On whose behalf a connection is made.
#[derive(Debug)]
pub struct DialContext<'a> {
    /// The downstream peer.
    pub peer: &'a Peer,
    /// The identity whose key it proved.
    pub who: Option<&'a Identity>,
    /// The session, in whose name the attempts are logged.
    pub scope: LogContext<'a>,
}
