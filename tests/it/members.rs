//! Clients that know the key, many at once, and a relay that takes its time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVersion};

use crate::harness::openssl::present;
use crate::harness::{IDENTITY, KEY, Tls};

/// How long a client waits for each step.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// What a client sends, and expects back.
const MESSAGE: [u8; 100] = [b'm'; 100];

/// A client's settings, with the key of the tests.
pub fn member(tls: Tls) -> SslContext {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
    let version = match tls {
        Tls::V12 => SslVersion::TLS1_2,
        Tls::V13 => SslVersion::TLS1_3,
    };
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.set_cipher_list("ECDHE-PSK-CHACHA20-POLY1305").expect("a suite");
    present(&mut builder, IDENTITY, KEY);
    builder.build()
}

fn connect(to: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(to).map_err(|error| format!("connecting: {error}"))?;
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(CLIENT_PATIENCE)).expect("a limit");
    Ok(stream)
}

/// Connects and completes a handshake.
pub fn shake(context: &SslContext, to: SocketAddr) -> Result<SslStream<TcpStream>, String> {
    let ssl = Ssl::new(context).expect("an SSL object");
    ssl.connect(connect(to)?).map_err(|error| format!("shaking hands: {error}"))
}

/// A hundred bytes there and back.
pub fn exchange(stream: &mut (impl Read + Write)) -> Result<(), String> {
    let mut back = [0; MESSAGE.len()];
    let done = stream.write_all(&MESSAGE).and_then(|()| stream.read_exact(&mut back));
    done.map_err(|error| format!("exchanging: {error}"))?;
    if back == MESSAGE { Ok(()) } else { Err("other bytes came back".to_owned()) }
}

/// So many clients at once, each of whom does that. What went wrong, by its words.
pub fn herd(count: usize, each: impl Fn() -> Result<(), String> + Sync) -> Vec<String> {
    std::thread::scope(|scope| {
        let spawn = |_| {
            let thread = std::thread::Builder::new().stack_size(128 * 1024);
            thread.spawn_scoped(scope, &each).expect("a thread")
        };
        let all: Vec<_> = (0..count).map(spawn).collect();
        all.into_iter().filter_map(|thread| thread.join().expect("no panic").err()).collect()
    })
}

/// A herd that connects by TLS, exchanges a hundred bytes and closes.
pub fn tls_herd(count: usize, tls: Tls, to: SocketAddr) -> Vec<String> {
    let context = member(tls);
    herd(count, || {
        let mut stream = shake(&context, to)?;
        exchange(&mut stream)?;
        let _ = stream.shutdown();
        Ok(())
    })
}

/// The same of applications, before a client end.
pub fn plain_herd(count: usize, to: SocketAddr) -> Vec<String> {
    herd(count, || exchange(&mut connect(to)?))
}

/// Stands before a server, and passes on whatever comes so much later, in both directions.
pub fn delayed(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the relay");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let copy = |stream: &TcpStream| stream.try_clone().expect("a copy");
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            carry(copy(&near), copy(&far), delay);
            carry(far, near, delay);
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (at, bytes) in receiver {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            if sender.send((Instant::now() + delay, piece[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

/// A TCP connection from one of 65,536 addresses of this machine.
pub fn connect_from(number: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let [high, low] = number.to_be_bytes();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0)).into())?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}
