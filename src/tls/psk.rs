//! The pre-shared key in a handshake: what the callbacks answer, and what the finished handshake
//! proves.
//!
//! A callback only knows what a stranger *claims*. What counts is what the handshake *used*: in 1.3
//! the selected session, which carries the serial of the key it was made from; in 1.2 a suite whose
//! key exchange is the PSK, because then both Finished messages hang on it; and where a session is
//! resumed, in either, the session again, which carries whose it was and an HMAC of the key that it had.
//! [`Handshake::granted`] is the one place where a claim becomes a Grant, and [`proven`] what it asks.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{
    ClientHelloResponse, Ssl, SslContextBuilder, SslRef, SslSession, SslSessionRef, SslVersion,
};
use zeroize::Zeroizing;

use super::cache::{Cache, SessionPurpose};
use super::client_hello::{
    ClientHelloInfo, MAX_KEPT_SUITES, OfferRejection, PskAnswer, rfc4279_suite,
};
use super::hello_extensions::{host_name, in_clients_order, lists_tls13, offers, offers_psk_suite};
use super::offers::{Versions, is_psk};
use super::resumption::ServerSessions;
use super::session_store;
use super::ticket::{TicketKeyGeneration, Tickets};
use super::{HandshakeProgress, ServerNames, SniCandidate};
use crate::config::model::PskHash;
use crate::secrets::{Claim, Grant, Identity, PeerKeys};
use crate::sys::{openssl as sys, session_ids};

/// `pre_shared_key` (RFC 9846, 4.3.11; RFC 8446, 4.2.11).
const PRE_SHARED_KEY: u16 = 41;

/// `psk_key_exchange_modes` (RFC 9846, 4.3.9; RFC 8446, 4.2.9), and of them the one with (EC)DHE.
const PSK_MODES: u16 = 45;
const PSK_DHE_KE: u8 = 1;

/// `supported_groups` (RFC 8422, 5.1; RFC 9846, 4.3.7).
const SUPPORTED_GROUPS: u16 = 10;
/// `supported_versions` (RFC 9846, 4.3.1).
const SUPPORTED_VERSIONS: u16 = 43;

/// `server_name` (RFC 6066, 3).
const SERVER_NAME: u16 = 0;

/// The tag of a session made from a decoy: no serial is ever 0.
const DECOY_TAG: [u8; 8] = [0; 8];

/// What one handshake knows of keys. Lives on its SSL object from before the first message until
/// the handshake ends; then the table of secrets is taken away again.
pub(super) struct Handshake {
    secrets: Option<PeerKeys>,
    hash: PskHash,
    versions: Versions,
    role: HandshakeRole,
    /// The services that the client can ask for. Taken by its first ClientHello, before any key is looked
    /// for.
    names: Option<Arc<dyn ServerNames>>,
}

enum HandshakeRole {
    /// Boxed: it is gone when the handshake is over.
    Server(Box<ClientHelloInfo>),
    Client(ClientCredentials),
    /// A server's that is over.
    Served(Option<Remainder>),
}

/// What a server end needs of a handshake that is over, when the keys have gone.
enum Remainder {
    /// In 1.3: the ticket that is made with the first data.
    DueTicket { tickets: Tickets, tag: Box<[u8]> },
    /// Up to 1.2: where its session is kept. A fatal alert ends that.
    StoredSession { sessions: Arc<ServerSessions>, id: Box<[u8]> },
}

impl Remainder {
    /// Of a handshake that hangs on that claim, which `secrets` has.
    fn of(seen: ClientHelloInfo, secrets: &PeerKeys, claim: &Claim, tls13: bool) -> Option<Self> {
        let sessions = seen.sessions?;
        if !tls13 {
            return Some(Self::StoredSession { sessions, id: seen.session_id? });
        }
        let tickets = sessions.tickets.clone()?;
        // What was resumed is resumed again under the same tag.
        let tag = match seen.ticket {
            Some(ticket) => ticket.tag,
            None => tickets.tag(secrets, claim)?.into(),
        };
        Some(Self::DueTicket { tickets, tag })
    }
}

/// What a client end says of itself.
struct ClientCredentials {
    identity: Identity,
    /// Until the server has given something to resume with.
    resumption: Option<Box<ClientResumption>>,
}

/// What a client end that resumes sessions does with them.
pub(super) struct ClientResumption {
    pub(super) cache: Cache,
    pub(super) purpose: SessionPurpose,
    /// The session that was offered beside the key, and when it was got.
    pub(super) offered: Option<(SslSession, Instant)>,
    /// The handshake has been found good: what the server gives from here on is worth keeping.
    granted: bool,
}

impl ClientResumption {
    pub(super) fn new(cache: Cache, purpose: SessionPurpose) -> Self {
        let offered = cache.find(&purpose);
        Self { cache, purpose, offered, granted: false }
    }
}

/// The tag of a session that a client keeps: that of the key's own sessions, and one byte more.
fn kept_tag(claim: &Claim) -> [u8; 9] {
    let mut tag = [1; 9];
    tag[..8].copy_from_slice(&claim.serial().to_bytes());
    tag
}

fn slot() -> Result<Index<Ssl, Handshake>, ErrorStack> {
    static SLOT: OnceLock<Index<Ssl, Handshake>> = OnceLock::new();
    match SLOT.get() {
        Some(slot) => Ok(*slot),
        None => {
            let new = Ssl::new_ex_index()?;
            Ok(*SLOT.get_or_init(|| new))
        }
    }
}

fn handshake(ssl: &mut SslRef) -> Option<&mut Handshake> {
    ssl.ex_data_mut(slot().ok()?)
}

impl Handshake {
    pub(super) fn server(
        ssl: &mut SslRef,
        secrets: PeerKeys,
        (hash, versions): (PskHash, Versions),
        sessions: Option<Arc<ServerSessions>>,
        names: Option<Arc<dyn ServerNames>>,
    ) -> Result<(), ErrorStack> {
        let seen = ClientHelloInfo { sessions, ..ClientHelloInfo::default() };
        let role = HandshakeRole::Server(Box::new(seen));
        ssl.set_ex_data(slot()?, Self { secrets: Some(secrets), hash, versions, role, names });
        Ok(())
    }

    pub(super) fn client(
        ssl: &mut SslRef,
        secrets: PeerKeys,
        identity: Identity,
        (hash, versions): (PskHash, Versions),
        resumption: Option<ClientResumption>,
    ) -> Result<(), ErrorStack> {
        if let Some(session) = resumption.as_ref().and_then(|r| r.offered.as_ref()) {
            let (session, _) = session;
            sys::offer_resumption(ssl, session)?;
        }
        let resumption = resumption.map(Box::new);
        let role = HandshakeRole::Client(ClientCredentials { identity, resumption });
        let this = Self { secrets: Some(secrets), hash, versions, role, names: None };
        ssl.set_ex_data(slot()?, this);
        Ok(())
    }

    /// A handshake came to nothing, or what came after it to a fatal alert: its session is not resumed again
    /// (RFC 5246, 7.2.2).
    pub(super) fn failed(ssl: &SslRef) {
        let Some(this) = slot().ok().and_then(|slot| ssl.ex_data(slot)) else { return };
        match &this.role {
            HandshakeRole::Client(presented) => {
                if let Some(ClientResumption {
                    cache, purpose, offered: Some((_, since)), ..
                }) = presented.resumption.as_deref()
                {
                    cache.forget(purpose, *since);
                }
            }
            HandshakeRole::Server(seen) => {
                if let (Some(sessions), Some(id)) = (&seen.sessions, &seen.session_id) {
                    sessions.store.forget(id);
                }
            }
            HandshakeRole::Served(Some(Remainder::StoredSession { sessions, id })) => {
                sessions.store.forget(id);
            }
            HandshakeRole::Served(_) => {}
        }
    }

    /// How far a server end's handshake has come that waits for its client.
    pub(super) fn progress(ssl: &SslRef) -> HandshakeProgress {
        let Some(seen) = Self::seen(ssl).filter(|seen| seen.hello) else {
            return HandshakeProgress::Reading;
        };
        if !sys::is_tls13(ssl) {
            return HandshakeProgress::Unproven;
        }
        // OpenSSL has verified the binder of whatever it goes on with; a decoy's never is.
        match (ssl.session_reused(), seen.identity(), seen.binder) {
            (true, Some((who, true)), Some(binder)) => {
                HandshakeProgress::Shown(Identity::new(who), binder)
            }
            (true, ..) => HandshakeProgress::Unproven,
            (false, ..) => HandshakeProgress::Retried,
        }
    }

    /// The versions that this end offers or accepts.
    pub(super) fn versions(ssl: &SslRef) -> Option<Versions> {
        Some(ssl.ex_data(slot().ok()?)?.versions)
    }

    /// What a server end saw, for the words of a refusal.
    pub(super) fn seen(ssl: &SslRef) -> Option<&ClientHelloInfo> {
        match &ssl.ex_data(slot().ok()?)?.role {
            HandshakeRole::Server(seen) => Some(seen),
            HandshakeRole::Client(_) | HandshakeRole::Served(_) => None,
        }
    }

    /// Called once, after the handshake: takes the secrets off the SSL object and says who, if
    /// anybody, proved a key, and whether by what an earlier handshake had settled with it.
    pub(super) fn granted(ssl: &mut SslRef) -> Option<(Grant, bool)> {
        let proven = proven(ssl);
        let tls13 = sys::is_tls13(ssl);
        let this = handshake(ssl)?;
        this.names = None;
        let secrets = this.secrets.take();
        let Proven { claim, resumed } = proven?;
        if let HandshakeRole::Server(seen) = &mut this.role {
            let seen = std::mem::take(&mut **seen);
            let rest = secrets.and_then(|secrets| Remainder::of(seen, &secrets, &claim, tls13));
            this.role = HandshakeRole::Served(rest);
        }
        keep(ssl, &claim, resumed);
        Some((claim.into_grant(), resumed))
    }

    /// Whether a ticket of 1.3 is to be made with the first data.
    pub(super) fn owes_ticket(ssl: &SslRef) -> bool {
        let this = slot().ok().and_then(|slot| ssl.ex_data(slot));
        this.is_some_and(|this| {
            matches!(this.role, HandshakeRole::Served(Some(Remainder::DueTicket { .. })))
        })
    }
}

/// A claim and what its proof was.
struct Proven {
    claim: Claim,
    resumed: bool,
}

/// Whose key, if anybody's, this handshake hangs on.
///
/// In 1.3 `session_reused` is true of every accepted PSK, and a peer that was authenticated by a
/// certificate shows one; but only the tag of the selected session says *which* key it was.
fn proven(ssl: &mut SslRef) -> Option<Proven> {
    if ssl.peer_certificate().is_some() {
        return None;
    }
    let tls13 = sys::is_tls13(ssl);
    let tag = match ssl.session_reused() {
        true => Some(sys::selected_tag(ssl)?.to_vec()),
        // In 1.3 this is a handshake without any PSK.
        false if tls13 => return None,
        false => {
            ssl.current_cipher().filter(|suite| is_psk(suite.name()))?;
            None
        }
    };
    let this = handshake(ssl)?;
    let secrets = this.secrets.as_ref()?;
    match &this.role {
        HandshakeRole::Server(seen) => match (tag, &seen.ticket) {
            (Some(tag), _) if !tls13 => {
                let claim = seen.sessions.as_ref()?.claim(secrets, &tag)?;
                Some(Proven { claim, resumed: true })
            }
            (Some(tag), Some(ticket)) => {
                let claim = (*tag == *ticket.tag).then(|| ticket.claim.clone())?;
                Some(Proven { claim, resumed: true })
            }
            (tag, _) => {
                let claim = seen.answer.as_ref()?.given.claim()?.clone();
                let same = tag.is_none_or(|tag| tag == claim.serial().to_bytes());
                same.then_some(Proven { claim, resumed: false })
            }
        },
        HandshakeRole::Client(presented) => {
            let (_, claim) = secrets.find(presented.identity.as_bytes())?;
            match tag {
                None => Some(Proven { claim, resumed: false }),
                Some(tag) if tls13 && tag == claim.serial().to_bytes() => {
                    Some(Proven { claim, resumed: false })
                }
                Some(tag) => {
                    presented.resumption.as_ref()?.offered.as_ref()?;
                    (tag == kept_tag(&claim)).then_some(Proven { claim, resumed: true })
                }
            }
        }
        HandshakeRole::Served(_) => None,
    }
}

/// A client end's handshake was good. In 1.2 its session is there already; in 1.3 it comes later.
fn keep(ssl: &mut SslRef, claim: &Claim, resumed: bool) {
    let tls13 = sys::is_tls13(ssl);
    let session = ssl.session().map(|session| session.to_owned());
    let Some(HandshakeRole::Client(ClientCredentials { resumption, .. })) =
        handshake(ssl).map(|this| &mut this.role)
    else {
        return;
    };
    if tls13 {
        if let Some(resuming) = resumption {
            (resuming.granted, resuming.offered) = (true, None);
        }
        return;
    }
    let Some(mut resuming) = resumption.take() else { return };
    let offered = resuming.offered.take();
    let Some(session) = session.filter(|session| sys::is_resumable(session)) else {
        return;
    };
    // The server may have given another ticket for the same.
    if offered.is_some_and(|(offered, _)| std::ptr::eq::<SslSessionRef>(&*offered, &*session)) {
        return;
    }
    let tag = kept_tag(claim);
    match resumed {
        true => resuming.cache.renew(&resuming.purpose, &session, &tag),
        false => resuming.cache.keep(&resuming.purpose, &session, &tag),
    }
}

/// A server has given a client end something to resume with.
fn received(ssl: &mut SslRef, session: SslSession) {
    if !sys::is_tls13(ssl) {
        return;
    }
    if let Some(HandshakeRole::Client(ClientCredentials { resumption, .. })) =
        handshake(ssl).map(|this| &mut this.role)
        && resumption.as_ref().is_some_and(|resuming| resuming.granted)
        // One is enough: a server's second one would only take the place of the first.
        && let Some(resuming) = resumption.take()
        && let Some(tag) = sys::session_tag(&session).and_then(|tag| tag.first_chunk::<8>())
    {
        resuming.cache.keep(&resuming.purpose, &session, &[&tag[..], &[1]].concat());
    }
}

/// A 1.3 suite of that hash: the session that carries an external PSK must name one.
fn suite(hash: PskHash) -> [u8; 2] {
    match hash {
        PskHash::Sha256 => [0x13, 0x01],
        PskHash::Sha384 => [0x13, 0x02],
    }
}

/// Makes a context demand the key of whoever connects to it.
pub(super) fn install_server(
    context: &mut SslContextBuilder,
    groups: Arc<str>,
) -> Result<(), ErrorStack> {
    slot()?;
    context.set_client_hello_callback(move |ssl, _| {
        let read = guarded(|| {
            let chosen = choose_service(ssl)?;
            follow_clients_groups(ssl, chosen.as_ref().unwrap_or(&groups))?;
            if let Some(sessions) = sessions(ssl) {
                session_ids::set_id_context(ssl, &sessions.context)?;
            }
            read_hello(ssl);
            Ok(())
        });
        match read {
            Some(Ok(())) => Ok(ClientHelloResponse::SUCCESS),
            Some(Err(error)) => Err(error),
            // Without a choice there must be no key either.
            None => Err(ErrorStack::get()),
        }
    });
    sys::set_psk_find_callback::<Callbacks>(context);
    sys::set_ticket_callbacks::<Callbacks>(context)?;
    sys::set_psk_write_callback::<Callbacks>(context);
    session_ids::set_session_lookup_callbacks::<Callbacks>(context);
    context.set_new_session_callback(|ssl, session| {
        let _ = guarded(|| keep_by_id(ssl, &session));
    });
    Ok(())
}

/// Makes a context present its key to whoever it connects to.
pub(super) fn install_client(context: &mut SslContextBuilder) -> Result<(), ErrorStack> {
    slot()?;
    sys::set_psk_offer_callback::<Callbacks>(context);
    context.set_new_session_callback(|ssl, session| {
        let _ = guarded(|| received(ssl, session));
    });
    context.set_psk_client_callback(|ssl, _hint, identity_out, key_out| {
        if sys::is_tls13(ssl) {
            return Ok(0);
        }
        Ok(guarded(|| present_tls12(ssl, identity_out, key_out)).flatten().unwrap_or(0))
    });
    Ok(())
}

/// A panic in a callback of the openssl crate would end the process; here it ends the handshake.
fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).ok()
}

/// Settles which service the client wants, and makes its settings those of this handshake. Each
/// service's own keys decide, in 1.3 too: from here on there are no others. A second ClientHello, after
/// a HelloRetryRequest, cannot choose again. Returns the groups of a service that was chosen now.
fn choose_service(ssl: &mut SslRef) -> Result<Option<Arc<str>>, ErrorStack> {
    let name =
        sys::client_hello_extension(ssl, SERVER_NAME).and_then(host_name).map(<[u8]>::to_vec);
    let Some(this) = handshake(ssl) else { return Ok(None) };
    let Some(names) = this.names.take() else { return Ok(None) };
    let Some(SniCandidate { acceptor, secrets }) = name.and_then(|name| names.choose(&name)) else {
        return Ok(None);
    };
    this.secrets = Some(secrets);
    this.hash = acceptor.hash;
    this.versions = acceptor.built.range.into();
    if let HandshakeRole::Server(seen) = &mut this.role {
        seen.sessions = acceptor.sessions;
    }
    let built = acceptor.built;
    // This moves suites, the security level and DH parameters, and nothing of the rest.
    ssl.set_ssl_context(&built.context)?;
    ssl.set_min_proto_version(Some(built.range.0))?;
    ssl.set_max_proto_version(Some(built.range.1))?;
    sys::set_groups(ssl, &built.groups)?;
    sys::replace_options(ssl, built.options);
    Ok(Some(built.groups))
}

/// Lets the client's order of groups decide up to TLS 1.2, where OpenSSL would follow that of the suites:
/// wolfSSL 5.5 lists P-256 before X25519, and cannot use X25519 with ECDHE-PSK. In TLS 1.3 the client's key
/// shares decide.
fn follow_clients_groups(ssl: &mut SslRef, groups: &str) -> Result<(), ErrorStack> {
    if sys::client_hello_extension(ssl, SUPPORTED_VERSIONS).is_some() {
        return Ok(());
    }
    let Some(body) = sys::client_hello_extension(ssl, SUPPORTED_GROUPS) else { return Ok(()) };
    let list = in_clients_order(groups, body.get(2..).unwrap_or_default());
    sys::set_groups(ssl, &list)
}

/// Settles, before OpenSSL looks at any identity, which of a 1.3 client's offers will be answered:
/// the first that is known, or is a ticket of this service that is good now; otherwise the last, with a
/// decoy. Tickets of other servers, and those whose key is gone, which clients put before their PSK, are
/// passed over in the first case and harmless in the second. Runs again after a HelloRetryRequest, with
/// the same outcome for the same list.
///
/// Which entry is answered depends on who is known, and OpenSSL looks at the binders only as far as
/// that entry: a list whose binders are cut short or of a wrong length would fail in one way or
/// another, depending on the names in it. Such a list is not answered at all.
///
/// OpenSSL also tries as a ticket whatever stands before that entry, which takes microseconds for each name
/// of 32 bytes or more. It is told to do without where no ticket was found good here.
fn read_hello(ssl: &mut SslRef) {
    let body = sys::client_hello_extension(ssl, PRE_SHARED_KEY).map(<[u8]>::to_vec);
    let modes = sys::client_hello_extension(ssl, PSK_MODES).and_then(|body| body.split_first());
    let without_dhe = modes.is_some_and(|(_, modes)| !modes.contains(&PSK_DHE_KE));
    let suites = ssl.client_hello_ciphers().unwrap_or_default();
    let (has_psk_suite, rfc4279_suite) = (offers_psk_suite(suites), rfc4279_suite(suites));
    let suites = suites.get(..2 * MAX_KEPT_SUITES).unwrap_or(suites).into();
    let listed = sys::client_hello_extension(ssl, SUPPORTED_VERSIONS);
    let versions = Versions::of_client(listed, ssl.client_hello_legacy_version());
    let tls13 = sys::allows_tls13(ssl)
        && sys::client_hello_extension(ssl, SUPPORTED_VERSIONS).is_some_and(lists_tls13);
    // A second ClientHello has to lead to the suite of the first.
    sys::enable_psk_write::<Callbacks>(ssl, true);
    let Some(this) = handshake(ssl) else { return };
    let HandshakeRole::Server(seen) = &mut this.role else { return };
    seen.hello = true;
    seen.offered = body.is_some() || has_psk_suite;
    seen.rfc4279_suite = rfc4279_suite;
    (seen.suites, seen.versions) = (suites, versions);
    seen.unfit = match body {
        None => Some(OfferRejection::Missing),
        Some(_) => without_dhe.then_some(OfferRejection::Mode),
    };
    (seen.answer, seen.ticket, seen.stale, seen.binder) = (None, None, None, None);
    seen.too_many = None;
    let (Some(secrets), Some(body)) = (&this.secrets, body) else { return };
    let Some(offers) = offers(&body) else { return };
    seen.choose_offer(secrets, this.hash, &offers);
    seen.tickets_withheld =
        tls13 && seen.tickets().is_some() && seen.ticket.is_none() && seen.answer.is_some();
    if seen.tickets_withheld {
        sys::set_tickets_allowed(ssl, false);
    }
}

struct Callbacks;

/// The answer of a handshake, if it is the one to this identity.
fn answer_to<'a>(ssl: &'a SslRef, identity: &[u8]) -> Option<(&'a Handshake, &'a PskAnswer)> {
    let this = ssl.ex_data(slot().ok()?)?;
    let HandshakeRole::Server(seen) = &this.role else {
        return None;
    };
    let answer = seen.answer.as_ref()?;
    (*answer.identity == *identity).then_some((this, answer))
}

impl sys::FindPsk for Callbacks {
    fn find(ssl: &mut SslRef, identity: &[u8]) -> Option<SslSession> {
        // The callback for 1.2 has no part in this, and would be called for each name that nobody has: a list
        // that begins with a name that exists would be refused 2 microseconds sooner.
        sys::enable_psk_write::<Self>(ssl, false);
        let (this, answer) = answer_to(ssl, identity)?;
        // As much is done for the offers behind a known name as OpenSSL does for those before an unknown one.
        for _ in 0..answer.offers_behind {
            std::hint::black_box(answer_to(std::hint::black_box(ssl), identity).is_some());
        }
        let HandshakeRole::Server(seen) = &this.role else { return None };
        let tag = answer.given.claim().map_or(DECOY_TAG, |claim| claim.serial().to_bytes());
        let key = answer.given.key(this.secrets.as_ref()?)?;
        let session = sys::new_psk_session(ssl, suite(this.hash), key, &tag).ok()?;
        let withheld = seen.tickets_withheld;
        if withheld {
            // The handshake may still end with a new one.
            sys::set_tickets_allowed(ssl, true);
        }
        Some(session)
    }
}

impl sys::TicketHandler for Callbacks {
    type Keys = std::sync::Arc<TicketKeyGeneration>;

    /// The last that is asked for a ticket.
    fn seal(ssl: &mut SslRef) -> Option<Self::Keys> {
        match &mut handshake(ssl)?.role {
            HandshakeRole::Server(seen) => seen.tickets()?.sealing().ok(),
            HandshakeRole::Served(rest) => match rest.take()? {
                Remainder::DueTicket { tickets, .. } => tickets.sealing().ok(),
                Remainder::StoredSession { .. } => None,
            },
            HandshakeRole::Client(_) => None,
        }
    }

    fn open(ssl: &mut SslRef, name: &[u8; 16], iv: &[u8; 16]) -> Option<(Self::Keys, bool)> {
        let tls13 = sys::is_tls13(ssl);
        let HandshakeRole::Server(seen) = &handshake(ssl)?.role else { return None };
        if tls13 {
            let head = &seen.ticket.as_ref()?.head;
            if head[..16] != name[..] || head[16..] != iv[..] {
                return None;
            }
        }
        let (keys, latest) = seen.tickets()?.opening(name)?;
        Some((keys, !latest))
    }

    fn issue(ssl: &mut SslRef) -> Option<(Vec<u8>, i32)> {
        if let HandshakeRole::Served(rest) = &handshake(ssl)?.role {
            let Some(Remainder::DueTicket { tickets, tag }) = rest else { return None };
            return Some((tag.to_vec(), tickets.seconds()));
        }
        // In 1.2 it is a part of the handshake.
        let Proven { claim, .. } = proven(ssl)?;
        let tickets = Handshake::seen(ssl)?.tickets()?.clone();
        let tag = tickets.tag(handshake(ssl)?.secrets.as_ref()?, &claim)?;
        Some((tag, tickets.seconds()))
    }

    fn accepts(ssl: &mut SslRef, session: &SslSessionRef) -> bool {
        let tls13 = sys::is_tls13(ssl);
        let version = match ssl.version2() {
            Some(SslVersion::TLS1_3) => sys::is_tls13_session(session),
            version => {
                version == Some(session.protocol_version()) && has_allowed_suite(ssl, session)
            }
        };
        let Some(this) = handshake(ssl) else { return false };
        let (HandshakeRole::Server(seen), Some(secrets)) = (&this.role, &this.secrets) else {
            return false;
        };
        let good = |sessions: &Arc<ServerSessions>| match &seen.ticket {
            // Its HMAC was compared in the ClientHello; OpenSSL opens no other.
            Some(ticket) if tls13 => {
                sys::session_tag(session) == Some(&*ticket.tag) && sessions.is_current(session)
            }
            _ => sessions.ticket_claim(secrets, session).is_some(),
        };
        version && seen.sessions.as_ref().is_some_and(good)
    }
}

/// Up to 1.2 a resumed session keeps its suite, and OpenSSL asks the client's list only.
fn has_allowed_suite(ssl: &SslRef, session: &SslSessionRef) -> bool {
    let suite = sys::session_suite(session).map(|suite| suite.name()).filter(|name| is_psk(name));
    suite.is_some_and(|name| {
        sys::context_suites(ssl.ssl_context()).iter().any(|one| one.name() == name)
    })
}

impl sys::WritePsk for Callbacks {
    fn write(ssl: &mut SslRef, identity: &[u8], out: &mut [u8]) -> Option<usize> {
        // OpenSSL asks in 1.3 too, for an identity that `find` gave nothing for.
        if sys::is_tls13(ssl) { None } else { answer_tls12(ssl, identity, out) }
    }
}

fn sessions(ssl: &mut SslRef) -> Option<Arc<ServerSessions>> {
    match &handshake(ssl)?.role {
        HandshakeRole::Server(seen) => seen.sessions.clone(),
        HandshakeRole::Client(_) | HandshakeRole::Served(_) => None,
    }
}

impl session_ids::SessionLookup for Callbacks {
    fn find(ssl: &mut SslRef, id: &[u8]) -> Option<SslSession> {
        // In 1.3 a ticket is opened or nothing is resumed.
        if sys::is_tls13(ssl) {
            return None;
        }
        let session = sessions(ssl)?.store.find(id, Instant::now())?;
        if ssl.version2() != Some(session.protocol_version()) || !has_allowed_suite(ssl, &session) {
            return None;
        }
        let suite = sys::session_suite(&session)?.protocol_id();
        let Handshake { role: HandshakeRole::Server(seen), secrets: Some(secrets), .. } =
            handshake(ssl)?
        else {
            return None;
        };
        // RFC 5246, 7.4.1.2: the client offers the session's suite as well. OpenSSL would end the handshake
        // of one that does not.
        let is_offered = seen.suites.chunks_exact(2).any(|offered| offered == suite);
        let claim = session_store::claim(secrets, sys::session_tag(&session)?);
        if !is_offered || claim.is_none() {
            return None;
        }
        seen.session_id = Some(id.into());
        Some(session)
    }

    fn is_resumable(ssl: &mut SslRef) -> bool {
        sessions(ssl).is_some()
    }
}

/// The key of a handshake is proven, and its session has an ID.
fn keep_by_id(ssl: &mut SslRef, session: &SslSessionRef) {
    if sys::is_tls13(ssl) {
        return;
    }
    let Some(Proven { claim, resumed: false }) = proven(ssl) else { return };
    if let Some(HandshakeRole::Server(seen)) = handshake(ssl).map(|this| &mut this.role)
        && let Some(sessions) = &seen.sessions
    {
        sessions.store.keep(session, &claim, Instant::now());
        seen.session_id = Some(session.id().into());
    }
}

fn answer_tls12(ssl: &mut SslRef, identity: &[u8], out: &mut [u8]) -> Option<usize> {
    let this = handshake(ssl)?;
    let secrets = this.secrets.as_ref()?;
    let HandshakeRole::Server(seen) = &mut this.role else {
        return None;
    };
    seen.offered = true;
    // Of what was offered for 1.3 nothing counts any more.
    (seen.ticket, seen.stale) = (None, None);
    let answer = seen.answer.insert(PskAnswer::find(secrets, identity, 0)?);
    let key = answer.given.key(secrets)?;
    out.get_mut(..key.len())?.copy_from_slice(key);
    Some(key.len())
}

impl sys::OfferPsk for Callbacks {
    fn offer(ssl: &mut SslRef, hash: Option<Nid>) -> Option<(&[u8], SslSession)> {
        let this = handshake(ssl)?;
        let ours = match this.hash {
            PskHash::Sha256 => MessageDigest::sha256(),
            PskHash::Sha384 => MessageDigest::sha384(),
        };
        if hash.is_some_and(|chosen| chosen != ours.type_()) {
            return None;
        }
        let secrets = this.secrets.clone()?;
        let HandshakeRole::Client(presented) = &this.role else {
            return None;
        };
        let (suite, identity) = (suite(this.hash), presented.identity.clone());
        let (key, claim) = secrets.find(identity.as_bytes())?;
        let tag = claim.serial().to_bytes();
        let session = sys::new_psk_session(ssl, suite, key.expose(), &tag).ok()?;
        // Borrowed from the handshake on the SSL, where it stays put until OpenSSL has copied it.
        let HandshakeRole::Client(presented) = &handshake(ssl)?.role else {
            return None;
        };
        Some((presented.identity.as_bytes(), session))
    }
}

fn present_tls12(ssl: &mut SslRef, identity_out: &mut [u8], key_out: &mut [u8]) -> Option<usize> {
    let this = handshake(ssl)?;
    let HandshakeRole::Client(presented) = &this.role else {
        return None;
    };
    let name = presented.identity.as_bytes();
    let (key, _) = this.secrets.as_ref()?.find(name)?;
    // OpenSSL wants a C string; identities never hold a NUL, and 255 bytes leave room for this one.
    let terminated = Zeroizing::new([name, &[0]].concat());
    identity_out.get_mut(..terminated.len())?.copy_from_slice(&terminated);
    key_out.get_mut(..key.len())?.copy_from_slice(key.expose());
    Some(key.len())
}
