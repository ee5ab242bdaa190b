//! How a server end resumes sessions: with tickets, and by ID for clients that have none.

use std::sync::Arc;
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::sha::sha256;
use openssl::ssl::SslSessionRef;

use super::session_store::{self, SessionStore};
use super::ticket::Tickets;
use crate::config::model::{PskHash, TlsConfig, TlsSwitch};
use crate::secrets::{Claim, PeerKeys, SecretSet};
use crate::sys::openssl as sys;
use crate::sys::session_ids::{self, IdContext};

/// What a service resumes sessions with. A reload hands it on.
#[derive(Debug)]
pub(super) struct ServerSessions {
    /// Ties a session to the service, and to whatever makes sessions unlike.
    pub(super) context: IdContext,
    /// None where the file says `NO_TICKET`.
    pub(super) tickets: Option<Tickets>,
    /// For clients without tickets.
    pub(super) store: SessionStore,
}

impl ServerSessions {
    /// Those of the service of that name, if it resumes sessions; its earlier ones stay good.
    ///
    /// # Errors
    /// There are no random numbers, or the library has no HMAC.
    pub(super) fn new(
        tls: &TlsConfig,
        hash: PskHash,
        service: &str,
        previous: Option<&Self>,
    ) -> Result<Option<Arc<Self>>, ErrorStack> {
        if !tls.resumes() {
            return Ok(None);
        }
        // A session of the other kind could be opened, and would end the handshake (RFC 7627, 5.3).
        let switch = tls.switches.iter().rfind(|(s, _)| *s == TlsSwitch::NoExtendedMasterSecret);
        let extended = !switch.is_some_and(|(_, on)| *on);
        let label = format!("{}\0{extended}\0{service}", hash.name());
        let tickets = match tls.issues_tickets() {
            true => {
                let previous = previous.and_then(|old| old.tickets.as_ref());
                Some(Tickets::new(&tls.resumption, label.as_bytes(), previous)?)
            }
            false => None,
        };
        let context = sha256(label.as_bytes());
        let previous = previous.filter(|old| old.context == context).map(|old| &old.store);
        let store = SessionStore::new(&tls.resumption, previous);
        Ok(Some(Arc::new(Self { context, tickets, store })))
    }

    /// The claim that the tag of a resumed session of 1.2 or less is worth under the keys of now.
    pub(super) fn claim(&self, keys: &PeerKeys, tag: &[u8]) -> Option<Claim> {
        let in_ticket = self.tickets.as_ref().and_then(|tickets| tickets.claim(keys, tag));
        in_ticket.or_else(|| session_store::claim(keys, tag))
    }

    /// The claim that the session of a ticket is worth under the keys of now, if it is not too old.
    pub(super) fn ticket_claim(&self, keys: &PeerKeys, session: &SslSessionRef) -> Option<Claim> {
        let tickets = self.tickets.as_ref().filter(|_| self.is_current(session))?;
        tickets.claim(keys, sys::session_tag(session)?)
    }

    /// Whether the session of a ticket can be resumed as far as service and age go.
    pub(super) fn is_current(&self, session: &SslSessionRef) -> bool {
        // A ticket that was made under the same secret by a program that set no context is foreign too:
        // OpenSSL would find that out when there is no way back to the key.
        session_ids::has_id_context(session, &self.context)
            && self.tickets.as_ref().is_some_and(|tickets| tickets.is_fresh(session))
    }

    /// Replaces ticket keys whose time is over, and drops sessions that are too old or whose keys are not
    /// these.
    pub(super) fn expire(&self, secrets: &SecretSet, now: Instant) {
        if let Some(tickets) = &self.tickets {
            tickets.rotate(now);
        }
        self.store.retain(secrets, now);
    }
}
