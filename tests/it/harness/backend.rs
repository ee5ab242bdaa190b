//! The plain sides: what pskgate connects to, and what connects to it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use super::{WAIT_TIMEOUT, until};

/// How a connection ended for the side that read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// An orderly end: everything that was sent has arrived.
    Fin,
    /// A reset: nobody can take what arrived for the whole.
    Rst,
}

/// Reads to the end: what came, and which end it was.
pub fn read_to_end(mut from: impl Read) -> (Vec<u8>, ConnectionEnd) {
    let mut all = Vec::new();
    let mut piece = [0_u8; 16 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return (all, ConnectionEnd::Fin),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (all, ConnectionEnd::Rst);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("no end came, after {} bytes: {error}", all.len()),
        }
    }
}

/// A plain connection to pskgate or to a peer.
pub struct PlainClient(pub TcpStream);

impl PlainClient {
    pub fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to)
            .unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(WAIT_TIMEOUT)).unwrap();
        Self(stream)
    }

    pub fn send(&self, bytes: &[u8]) {
        (&self.0).write_all(bytes).expect("the connection takes what is sent");
    }

    /// Sends, and expects the same bytes back.
    pub fn echo(&self, bytes: &[u8]) {
        self.send(bytes);
        let mut back = vec![0; bytes.len()];
        (&self.0).read_exact(&mut back).expect("the echo comes back");
        assert!(back == bytes, "the echo differs: {back:?} instead of {bytes:?}");
    }

    /// No more will be sent.
    pub fn shut(&self) {
        self.0.shutdown(Shutdown::Write).expect("the write side can be shut");
    }

    /// Reads to the end.
    pub fn rest(&self) -> (Vec<u8>, ConnectionEnd) {
        read_to_end(&self.0)
    }

    /// How it ends; what came before does not matter.
    pub fn end(&self) -> ConnectionEnd {
        self.rest().1
    }

    /// Resets the connection.
    pub fn reset(self) {
        reset(self.0);
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger can be set");
}

/// What became of one connection to a backend.
#[derive(Debug, Default, Clone)]
struct BackendConnection {
    bytes: Vec<u8>,
    ended: Option<ConnectionEnd>,
}

#[derive(Default)]
struct BackendRecords {
    seen: Mutex<Vec<BackendConnection>>,
    over: AtomicBool,
}

/// What stands behind a server end: counts who comes, and remembers what they sent and how they went.
pub struct Backend {
    address: SocketAddr,
    book: Arc<BackendRecords>,
}

impl Backend {
    /// Runs `serve` in a thread for each connection. What it returns is kept as what was seen.
    pub fn new(
        serve: impl Fn(&TcpStream) -> Option<(Vec<u8>, ConnectionEnd)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the backend");
        let address = listener.local_addr().unwrap();
        let book = Arc::new(BackendRecords::default());
        let (serve, in_thread) = (Arc::new(serve), Arc::clone(&book));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if in_thread.over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(5 * WAIT_TIMEOUT)).unwrap();
                stream.set_write_timeout(Some(5 * WAIT_TIMEOUT)).unwrap();
                let number = {
                    let mut seen = in_thread.seen.lock().unwrap();
                    seen.push(BackendConnection::default());
                    seen.len() - 1
                };
                let (serve, book) = (Arc::clone(&serve), Arc::clone(&in_thread));
                std::thread::spawn(move || {
                    let result = serve(&stream);
                    if let Some((bytes, ended)) = result {
                        book.seen.lock().unwrap()[number] =
                            BackendConnection { bytes, ended: Some(ended) };
                    }
                });
            }
        });
        Self { address, book }
    }

    /// Sends everything back, and after the peer's end ends too.
    pub fn echo() -> Self {
        Self::new(|stream| {
            let mut piece = vec![0_u8; 64 * 1024];
            let (mut from, mut to) = (stream, stream);
            loop {
                match from.read(&mut piece) {
                    Ok(0) => return Some((Vec::new(), ConnectionEnd::Fin)),
                    Ok(count) => {
                        if to.write_all(&piece[..count]).is_err() {
                            return Some((Vec::new(), ConnectionEnd::Rst));
                        }
                    }
                    Err(_) => return Some((Vec::new(), ConnectionEnd::Rst)),
                }
            }
        })
    }

    /// Says nothing, and remembers everything.
    pub fn sink() -> Self {
        Self::new(|stream| Some(read_to_end(stream)))
    }

    /// Says nothing, and what it has got can be seen while more may come.
    pub fn recorder() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the backend");
        let address = listener.local_addr().unwrap();
        let book = Arc::new(BackendRecords::default());
        let in_thread = Arc::clone(&book);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if in_thread.over.load(Ordering::Acquire) {
                    return;
                }
                in_thread.seen.lock().unwrap().push(BackendConnection::default());
                let (book, mut stream) = (Arc::clone(&in_thread), stream.expect("a connection"));
                std::thread::spawn(move || {
                    let mut piece = [0_u8; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut piece) {
                        book.seen.lock().unwrap()[number].bytes.extend_from_slice(&piece[..count]);
                    }
                });
            }
        });
        Self { address, book }
    }

    /// What a recorder has got over connection `number` so far.
    pub fn so_far(&self, number: usize) -> Vec<u8> {
        self.book
            .seen
            .lock()
            .unwrap()
            .get(number)
            .map(|seen| seen.bytes.clone())
            .unwrap_or_default()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have come.
    pub fn accepted(&self) -> usize {
        self.book.seen.lock().unwrap().len()
    }

    /// Waits for the end of connection `number` (from 0): what it had sent, and how it ended.
    pub fn wait_end(&self, number: usize) -> (Vec<u8>, ConnectionEnd) {
        until(&format!("the end of backend connection {number}"), WAIT_TIMEOUT, || {
            let seen = self.book.seen.lock().unwrap();
            let one = seen.get(number)?;
            one.ended.map(|ended| (one.bytes.clone(), ended))
        })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.book.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}
