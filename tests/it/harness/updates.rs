//! A TLS 1.3 peer that changes its keys as often as a test wants: OpenSSL, which lets a program ask for it.

use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use foreign_types_shared::ForeignTypeRef;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
};

use super::openssl::present;
use super::{IDENTITY, KEY, WAIT_TIMEOUT};

// SAFETY: the declaration of <openssl/ssl.h>; the crate does not bind it.
unsafe extern "C" {
    fn SSL_key_update(ssl: *mut openssl_sys::SSL, kind: c_int) -> c_int;
}

/// A socket that keeps what is written until it is told to send it, in one piece.
#[derive(Debug)]
pub struct Holding {
    socket: TcpStream,
    held: Option<Vec<u8>>,
}

impl Read for Holding {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(buf)
    }
}

impl Write for Holding {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match &mut self.held {
            Some(held) => held.extend_from_slice(buf),
            None => self.socket.write_all(buf)?,
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One end of a session.
pub struct Updater(SslStream<Holding>);

fn tls13(mut builder: SslContextBuilder) -> SslContextBuilder {
    // Whom it talks to is not the question here.
    builder.set_verify(SslVerifyMode::NONE);
    builder.set_min_proto_version(Some(SslVersion::TLS1_3)).expect("1.3");
    builder
}

fn holding(socket: TcpStream) -> Holding {
    socket.set_nodelay(true).expect("an option");
    socket.set_read_timeout(Some(WAIT_TIMEOUT)).expect("a limit");
    socket.set_write_timeout(Some(WAIT_TIMEOUT)).expect("a limit");
    Holding { socket, held: None }
}

fn client_context() -> SslContext {
    let mut builder = tls13(SslContext::builder(SslMethod::tls_client()).expect("a context"));
    present(&mut builder, IDENTITY, KEY);
    builder.build()
}

fn server_context() -> SslContext {
    let mut builder = tls13(SslContext::builder(SslMethod::tls_server()).expect("a context"));
    builder.set_psk_server_callback(|_, _, secret| {
        secret[..KEY.len()].copy_from_slice(KEY.as_bytes());
        Ok(KEY.len())
    });
    builder.build()
}

impl Updater {
    /// A client with the key of the tests.
    pub fn connect(to: SocketAddr) -> Self {
        let ssl = Ssl::new(&client_context()).expect("an SSL object");
        let socket = TcpStream::connect(to).expect("a connection");
        Self(ssl.connect(holding(socket)).expect("a session"))
    }

    /// The server's end of the next connection.
    pub fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().expect("a connection");
        let ssl = Ssl::new(&server_context()).expect("an SSL object");
        Self(ssl.accept(holding(socket)).expect("a session"))
    }

    /// From here on everything is held.
    pub fn hold(&mut self) {
        self.0.get_mut().held.get_or_insert_default();
    }

    /// Takes what was held.
    pub fn take_held(&mut self) -> Vec<u8> {
        self.0.get_mut().held.take().unwrap_or_default()
    }

    /// The socket, for what was taken.
    #[allow(dead_code, reason = "tests/faults alone has a use for it")]
    pub fn socket(&self) -> TcpStream {
        self.0.get_ref().socket.try_clone().expect("a copy")
    }

    /// Sends what was held. The other end may have closed.
    pub fn send_held(&mut self) -> std::io::Result<()> {
        let held = self.take_held();
        self.0.get_mut().socket.write_all(&held)
    }

    /// One key update; `request` asks for one in return.
    pub fn update(&mut self, request: bool) {
        // SAFETY: a live SSL, which is borrowed alone.
        let done = unsafe { SSL_key_update(self.0.ssl().as_ptr(), request.into()) };
        assert_eq!(done, 1, "{}", openssl::error::ErrorStack::get());
        self.0.do_handshake().expect("it is written");
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("written");
    }

    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("as much to read");
        bytes
    }

    /// Whether the other end is gone, however it left.
    pub fn is_gone(&mut self) -> bool {
        self.0.read(&mut [0; 256]).map_or(true, |count| count == 0)
    }
}
