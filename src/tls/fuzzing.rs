//! What must hold of everything that a stranger says in a handshake.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::hello_extensions::{host_name, offers, offers_psk_suite};
use super::*;
use crate::config::model::NamePattern;
use crate::config::{Format, load_text};
use crate::fuzzing::{Canned, Parts, assert_plain, finished};
use crate::observe::event::{Event, LogContext};
use crate::observe::fuzzing::check;
use crate::secrets::SecretSet;

/// Nobody who is not told it can finish a handshake.
const KEY: &[u8] = b"a key that no fuzzer will ever guess";

/// The body of `pre_shared_key` with any bytes in it: what is read is all of it, or nothing. And the same
/// bytes as `server_name` and as a list of suites.
pub fn psk_extension(body: &[u8]) {
    if let Some(read) = offers(body) {
        let size = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
        let (mut identities, mut binders) = (Vec::new(), Vec::new());
        // Behind the length of the list, and that of the first name.
        let mut at = 4;
        for offer in &read {
            at += offer.identity.len();
            let age = &body[at..at + 4];
            at += 4 + 2;
            identities.extend([&size(offer.identity)[..], offer.identity, age].concat());
            binders.extend([&[offer.binder.len() as u8], offer.binder].concat());
        }
        let whole = [&size(&identities)[..], &identities, &size(&binders), &binders].concat();
        assert_eq!(whole, body);
    }
    if let Some(name) = host_name(body) {
        assert!(name.len() + 5 <= body.len() && body[2] == 0);
        let lower = name.to_ascii_lowercase();
        if let Ok(text) = std::str::from_utf8(name) {
            let pattern = NamePattern::new(text.trim_start_matches('*'));
            assert_eq!(pattern.matches(&lower), !text.starts_with('*'));
            assert!(NamePattern::new(&format!("*{text}")).matches(name));
        }
    }
    let odd = body.len() % 2;
    assert_eq!(offers_psk_suite(body), offers_psk_suite(&body[..body.len() - odd]));
}

pub(crate) fn secrets() -> Arc<SecretSet> {
    static SECRETS: OnceLock<Arc<SecretSet>> = OnceLock::new();
    SECRETS.get_or_init(|| SecretSet::from_pairs(&[(b"client1", KEY)])).clone()
}

fn service(mode: &str) -> (TlsConfig, PskHash) {
    let text = format!(
        "[services.s]\nmode = \"{mode}\"\naccept = \"127.0.0.1:1\"\nconnect = \"127.0.0.1:2\"\n\
         psk-secrets = \"x\"\n"
    );
    let read = load_text(text.as_bytes(), Path::new("t.toml"), Path::new("/"), Format::Toml);
    let Ok((mut config, _)) = read else { panic!("{text}") };
    let service = config.services.remove(0);
    let psk = &service.psk;
    (service.tls, psk.hash.value)
}

pub(crate) fn acceptor() -> &'static Acceptor {
    static ACCEPTOR: OnceLock<Acceptor> = OnceLock::new();
    ACCEPTOR.get_or_init(|| {
        let (tls, hash) = service("server");
        Acceptor::new(&tls, hash, &mut Vec::new()).unwrap_or_else(|error| panic!("{error:?}"))
    })
}

pub(crate) fn connector() -> &'static Connector {
    static CONNECTOR: OnceLock<Connector> = OnceLock::new();
    CONNECTOR.get_or_init(|| {
        let (tls, hash) = service("client");
        Connector::new(&tls, hash, &mut Vec::new()).unwrap_or_else(|error| panic!("{error:?}"))
    })
}

type Shaken<'a> = Result<EstablishedTls<Canned<'a>>, HandshakeError<Canned<'a>>>;

fn refused(shaken: Shaken<'_>) {
    let Err(failure) = shaken else { panic!("somebody without the key was let in") };
    let (cause, openssl) = (&failure.cause, failure.openssl);
    assert_plain(&cause.to_string());
    assert!(!cause.name().is_empty() && !cause.to_string().is_empty());
    let identity = cause.identity();
    let who: &dyn std::fmt::Display = match &identity {
        Some(identity) => identity,
        None => &"nobody",
    };
    let at = &"192.0.2.1:5";
    check(
        &Event::Refused { peer: at, who: Some(who), cause, name: cause.name(), openssl },
        LogContext { service: Some("plc"), session: Some(1), ..LogContext::PROGRAM },
    );
    check(
        &Event::HandshakeFailed { peer: at, who, target: at, cause, name: cause.name(), openssl },
        LogContext::PROGRAM,
    );
    if let Some(stream) = failure.stream {
        let heard = &stream.heard;
        // Handshake, alert, or the change of ciphers that is there for the sake of old firewalls.
        assert!(heard.is_empty() || matches!(heard[0], 20..=22), "{heard:02x?}");
        assert!(heard.len() < 1 << 16, "{} bytes for a stranger", heard.len());
    }
}

struct OneName;

impl ServerNames for OneName {
    fn choose(&self, name: &[u8]) -> Option<SniCandidate> {
        let is_meant = NamePattern::new("*.plc.example").matches(name);
        is_meant.then(|| SniCandidate { acceptor: acceptor().clone(), secrets: secrets().into() })
    }
}

/// What a client says to a server end: any bytes, or, with an even first byte, a ClientHello with any
/// bytes in the parts that this program reads itself, and any bytes behind it.
pub fn client_hello(data: &[u8]) {
    let mut parts = Parts(data);
    let kind = parts.byte();
    let piece = if kind & 2 == 0 { usize::MAX } else { usize::from(kind / 4) + 1 };
    let flight = if kind & 1 == 1 { parts.0.to_vec() } else { hello(&mut parts, kind) };
    // A server end reads the beginning itself, as far as it looks like a ClientHello.
    let whole = (0..=flight.len()).find(|n| inspect(&flight[..*n]) != FirstBytes::Incomplete);
    let (opening, flight) = flight.split_at(whole.unwrap_or_default());
    assert!(opening.len() <= MAX_OPENING_SIZE);
    let peer = Canned { says: flight, piece, heard: Vec::new() };
    let incoming = Incoming { names: Some(Arc::new(OneName)), opening: opening.to_vec() };
    refused(finished(acceptor().accept_with(secrets(), incoming, peer, |_| {})));
}

/// What a server says to a client end.
pub fn server_flight(data: &[u8]) {
    let (first, says) = data.split_first().unwrap_or((&0, &[]));
    let piece = if *first == 0 { usize::MAX } else { usize::from(*first) };
    let peer = Canned { says, piece, heard: Vec::new() };
    let secrets = secrets();
    let Some(who) = secrets.first().cloned() else { return };
    refused(finished(connector().connect(secrets, who, Some("a.plc.example"), peer)));
}

fn vector(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length, &body[..body.len().min(u16::MAX.into())]].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(body)].concat()
}

/// A ClientHello (RFC 8446, 4.1.2) in a record, and what follows.
fn hello(parts: &mut Parts<'_>, kind: u8) -> Vec<u8> {
    let (suites, name, modes) = (parts.part(), parts.part(), parts.part());
    let (identity, binder, more) = (parts.part(), parts.part(), parts.part());
    let suites = if suites.is_empty() { &[0x13, 0x01, 0x00, 0xa8, 0xc0, 0x37][..] } else { suites };
    let modes = if modes.is_empty() { &[1, 1][..] } else { modes };
    let mut extensions = Vec::new();
    if kind & 8 == 0 {
        extensions.extend(extension(43, &[4, 3, 4, 3, 3]));
    }
    extensions.extend(extension(10, &vector(&[0, 0x1d, 0, 0x17])));
    extensions.extend(extension(13, &vector(&[4, 3, 8, 4])));
    extensions.extend(extension(51, &vector(&[&[0, 0x1d][..], &vector(&[9; 32])].concat())));
    extensions.extend(extension(45, modes));
    if !name.is_empty() {
        extensions.extend(extension(0, &vector(&[&[0][..], &vector(name)].concat())));
    }
    let offered = match kind & 0x30 {
        0x00 => {
            let identities = [&vector(identity)[..], &[0; 4]].concat();
            let binders = [&[binder.len() as u8][..], binder].concat();
            Some([vector(&identities), vector(&binders)].concat())
        }
        0x10 => {
            // Two: one that is known behind one that may be anything.
            let identities =
                [&vector(identity)[..], &[0; 4], &vector(b"client1"), &[0; 4]].concat();
            let binders = [&[binder.len() as u8][..], binder, &[32], &[7; 32]].concat();
            Some([vector(&identities), vector(&binders)].concat())
        }
        0x20 => Some([identity, binder, more].concat()),
        _ => None,
    };
    extensions.extend(offered.map(|body| extension(41, &body)).unwrap_or_default());
    let body =
        [&[3, 3][..], &[5; 32], &[0], &vector(suites), &[1, 0], &vector(&extensions)].concat();
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &vector(&message), parts.0].concat()
}
