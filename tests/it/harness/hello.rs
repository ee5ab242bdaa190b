//! Handshakes by hand: what no library's client would send, and what travels before it is encrypted.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{WAIT_TIMEOUT, until};

/// A vector of TLS: its length in `width` bytes, and its body.
pub fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u64).to_be_bytes();
    [&len[8 - width..], body].concat()
}

pub fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &vector(2, body)[..]].concat()
}

/// A key share, and a share of any other kind, that is as good as any.
const SHARE: [u8; 32] = [9; 32];

/// A handshake message in as many records as it takes. Those of the first flight say TLS 1.0.
fn records(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind], &vector(3, body)[..]].concat();
    let record = |part: &[u8]| [&[0x16, 3, version], &vector(2, part)[..]].concat();
    message.chunks(16_384).flat_map(record).collect()
}

fn client_hello(suites: &[u8], extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vector(1, &[5; 32]),
        &vector(2, suites),
        &[1, 0],
        &vector(2, extensions),
    ]
    .concat();
    records(1, 1, &body)
}

/// A TLS 1.3 ClientHello with these key exchange modes, identities and binders.
pub fn hello_13(modes: &[u8], identities: &[&[u8]], binders: &[&[u8]]) -> Vec<u8> {
    let offers: Vec<u8> =
        identities.iter().flat_map(|name| [vector(2, name), vec![0; 4]].concat()).collect();
    hello_13_with_offers(modes, &offers, binders)
}

/// The same, with whatever bytes as the list of identities.
pub fn hello_13_with_offers(modes: &[u8], offers: &[u8], binders: &[&[u8]]) -> Vec<u8> {
    let proofs: Vec<u8> = binders.iter().flat_map(|binder| vector(1, binder)).collect();
    let share = [&[0, 0x1d], &vector(2, &SHARE)[..]].concat();
    let extensions = [
        extension(43, &vector(1, &[3, 4])),
        extension(10, &vector(2, &[0, 0x1d])),
        extension(13, &vector(2, &[4, 3, 8, 4])),
        extension(51, &vector(2, &share)),
        extension(45, &vector(1, modes)),
        extension(41, &[vector(2, offers), vector(2, &proofs)].concat()),
    ]
    .concat();
    client_hello(&[0x13, 1, 0x13, 3], &extensions)
}

/// Everything that comes back, which for a refusal is one alert.
pub fn answer(to: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut stream = connect(to);
    stream.write_all(hello).expect("sent");
    rest(stream)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).expect("a limit");
    stream
}

fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

/// A stranger who claims an identity without its key, up to the answer that this gets: an alert. How
/// long the answer took, from when the identity was sent.
pub trait Stranger {
    fn claim(&self, to: SocketAddr, identity: &[u8]) -> (Vec<u8>, Duration);
}

impl Stranger for super::Tls {
    fn claim(&self, to: SocketAddr, identity: &[u8]) -> (Vec<u8>, Duration) {
        match self {
            super::Tls::V12 => claim_12(to, identity),
            super::Tls::V13 => {
                let (mut answers, lasted) = claim_lists(to, &[&[identity]]);
                (answers.remove(0), lasted)
            }
        }
    }
}

/// A TLS 1.2 ClientHello that offers ECDHE-PSK-CHACHA20-POLY1305.
pub fn hello_12() -> Vec<u8> {
    hello_12_with_groups(&[0x001d])
}

/// The same with these groups, in this order.
fn hello_12_with_groups(groups: &[u16]) -> Vec<u8> {
    let list: Vec<u8> = groups.iter().flat_map(|group| group.to_be_bytes()).collect();
    let extensions = [extension(10, &vector(2, &list)), extension(11, &vector(1, &[0]))];
    client_hello(&[0xcc, 0xac], &extensions.concat())
}

/// Strangers at once, each with a list of identities for TLS 1.3 and without a key. What each of them is
/// answered, and how long it took from the first list to the first byte of the last answer.
pub fn claim_lists(to: SocketAddr, lists: &[&[&[u8]]]) -> (Vec<Vec<u8>>, Duration) {
    let hello = |list: &&[&[u8]]| hello_13(&[1], list, &vec![&[0; 32][..]; list.len()]);
    let hellos: Vec<_> = lists.iter().map(hello).collect();
    let mut streams: Vec<_> = lists.iter().map(|_| connect(to)).collect();
    let start = Instant::now();
    for (stream, hello) in streams.iter_mut().zip(&hellos) {
        stream.write_all(hello).expect("sent");
    }
    let mut first = [0];
    let mut begun = Vec::new();
    for stream in &mut streams {
        stream.read_exact(&mut first).expect("an answer");
        begun.push(first);
    }
    let lasted = start.elapsed();
    let whole = |(first, stream): ([u8; 1], TcpStream)| [&first[..], &rest(stream)].concat();
    (begun.into_iter().zip(streams).map(whole).collect(), lasted)
}

/// Sends a ClientHello of TLS 1.2 and reads the server's flight.
fn server_flight_12(to: SocketAddr, hello: &[u8]) -> (TcpStream, Vec<u8>) {
    const SERVER_HELLO_DONE: u8 = 14;
    let mut stream = connect(to);
    stream.write_all(hello).expect("sent");
    let mut heard = Vec::new();
    while !messages(&heard).iter().any(|(kind, _)| *kind == SERVER_HELLO_DONE) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).expect("the server's part");
        assert!(count > 0, "the server went on to the identity: {heard:02x?}");
        heard.extend_from_slice(&piece[..count]);
    }
    (stream, heard)
}

/// The group that a TLS 1.2 server chooses of those that a client names, in this order.
pub fn chosen_group(to: SocketAddr, groups: &[u16]) -> u16 {
    const SERVER_KEY_EXCHANGE: u8 = 12;
    let (_stream, heard) = server_flight_12(to, &hello_12_with_groups(groups));
    let all = messages(&heard);
    let (_, body) = all.iter().find(|(kind, _)| *kind == SERVER_KEY_EXCHANGE).expect("an exchange");
    // An identity hint, the type of a named curve, the curve (RFC 5489, 2; RFC 8422, 5.4).
    let hint = usize::from(u16::from_be_bytes([body[0], body[1]]));
    assert_eq!(body[2 + hint], 3);
    u16::from_be_bytes([body[3 + hint], body[4 + hint]])
}

/// ECDHE-PSK-CHACHA20-POLY1305 up to a Finished that nobody can read.
fn claim_12(to: SocketAddr, identity: &[u8]) -> (Vec<u8>, Duration) {
    let (mut stream, _) = server_flight_12(to, &hello_12());
    let exchange = [vector(2, identity), vector(1, &SHARE)].concat();
    let mut said = records(3, 16, &exchange);
    said.extend([0x14, 3, 3, 0, 1, 1]);
    said.extend([&[0x16, 3, 3], &vector(2, &[0; 32])[..]].concat());
    let start = Instant::now();
    stream.write_all(&said).expect("sent");
    let mut first = [0];
    stream.read_exact(&mut first).expect("an answer");
    let lasted = start.elapsed();
    ([&first[..], &rest(stream)].concat(), lasted)
}

/// The whole handshake messages of a stream, up to where it is encrypted: type and body.
pub fn messages(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut text) = (stream, Vec::new());
    while let [0x16, 3, _, high, low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(body) = tail.get(..len) else { break };
        text.extend_from_slice(body);
        rest = &tail[len..];
    }
    let (mut rest, mut found) = (&text[..], Vec::new());
    while let [kind, a, b, c, tail @ ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(body) = tail.get(..len) else { break };
        found.push((*kind, body.to_vec()));
        rest = &tail[len..];
    }
    found
}

/// A ClientHello or a ServerHello, taken apart.
#[derive(Debug)]
pub struct Hello {
    pub session: Vec<u8>,
    /// All that a client offers, or the one that a server took.
    pub suites: Vec<u16>,
    pub compression: Vec<u8>,
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// The first message of a side.
    pub fn of(stream: &[u8]) -> Self {
        let found = messages(stream);
        let (kind, body) = found.first().expect("a hello");
        let is_client = match kind {
            1 => true,
            2 => false,
            other => panic!("handshake message {other} comes first"),
        };
        let mut rest = &body[34..];
        let mut take = |width: usize| {
            let len = rest[..width].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let body = rest[width..width + len].to_vec();
            rest = &rest[width + len..];
            body
        };
        let session = take(1);
        let (suites, compression) = if is_client {
            (take(2), take(1))
        } else {
            let fixed = rest[..3].to_vec();
            rest = &rest[3..];
            (fixed[..2].to_vec(), fixed[2..].to_vec())
        };
        let extensions = if rest.is_empty() { Vec::new() } else { rest[2..].to_vec() };
        let mut rest = &extensions[..];
        let mut found = Vec::new();
        while let [a, b, c, d, tail @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*c, *d]));
            found.push((u16::from_be_bytes([*a, *b]), tail[..len].to_vec()));
            rest = &tail[len..];
        }
        Self { session, suites: numbers(&suites), compression, extensions: found }
    }

    pub fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(other, _)| *other == kind).map(|(_, body)| &body[..])
    }

    /// The kinds of extension, in no particular order.
    pub fn kinds(&self) -> Vec<u16> {
        let mut kinds: Vec<_> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds
    }
}

/// Numbers of two bytes each.
pub fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// Stands between two ends, passes everything on, and keeps a copy of both directions.
pub struct RecordingProxy {
    address: SocketAddr,
    up: Arc<Mutex<Vec<u8>>>,
    down: Arc<Mutex<Vec<u8>>>,
}

impl RecordingProxy {
    /// For one connection.
    pub fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the tap");
        let address = listener.local_addr().expect("its address");
        let (up, down) = (Arc::default(), Arc::default());
        let copies = (Arc::clone(&up), Arc::clone(&down));
        std::thread::spawn(move || {
            let Ok((client, _)) = listener.accept() else { return };
            let server = connect(to);
            let back = (server.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
            std::thread::spawn(move || carry(back.0, back.1, &copies.1));
            carry(client, server, &copies.0);
        });
        Self { address, up, down }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the client has said.
    pub fn up(&self) -> Vec<u8> {
        self.up.lock().unwrap().clone()
    }

    /// What the server has said.
    pub fn down(&self) -> Vec<u8> {
        self.down.lock().unwrap().clone()
    }

    /// Both hellos, once they have passed.
    pub fn hellos(&self) -> (Hello, Hello) {
        until("both hellos", WAIT_TIMEOUT, || {
            let (up, down) = (self.up(), self.down());
            (!messages(&up).is_empty() && !messages(&down).is_empty())
                .then(|| (Hello::of(&up), Hello::of(&down)))
        })
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, copy: &Mutex<Vec<u8>>) {
    let _ = from.set_read_timeout(None);
    let mut piece = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        copy.lock().unwrap().extend_from_slice(&piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
