#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::config::model::Dialect;

fn bind(
    listen: &Listen,
    siblings: &[Listen],
    options: &[Resolved<SocketOption>],
) -> io::Result<Vec<Listener>> {
    let outcome = super::bind(listen, siblings, options, &mut BusyRetry::new(&mut |_| {}));
    let (listeners, absent) = outcome.all_or_nothing()?;
    assert_eq!(absent, [""; 0]);
    Ok(listeners)
}

fn listen(at: Endpoint) -> Listen {
    Listen { at: Resolved::default(at, Dialect::Native), optional: false }
}

fn tcp(ip: &str, port: u16) -> Listen {
    let host = Host::Ip(ip.parse().unwrap());
    listen(Endpoint::Tcp { host, port })
}

fn port_of(listener: &Listener) -> u16 {
    listener.address().parse::<SocketAddr>().unwrap().port()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn accepts(listener: &Listener) -> bool {
    match &listener.kind {
        ListenerKind::Tcp(listener) => listener.accept().is_ok(),
        #[cfg(unix)]
        ListenerKind::Unix(_, listener) => listener.accept().is_ok(),
    }
}

#[test]
fn the_address_says_the_real_port() {
    let bound = bind(&tcp("127.0.0.1", 0), &[], &[]).unwrap();
    assert_eq!(bound.len(), 1);
    TcpStream::connect(bound[0].address()).unwrap();
    assert!(accepts(&bound[0]));
}

#[test]
fn both_wildcards_share_a_port_and_each_serves_its_own_family() {
    if !has_ipv6() {
        return;
    }
    let v4 = bind(&tcp("0.0.0.0", 0), &[], &[]).unwrap();
    let port = port_of(&v4[0]);
    let both = [tcp("0.0.0.0", port), tcp("::", port)];
    let v6 = bind(&both[1], &both, &[]).unwrap();
    let _one = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(accepts(&v4[0]) && !accepts(&v6[0]));
    let _two = TcpStream::connect(("::1", port)).unwrap();
    assert!(accepts(&v6[0]) && !accepts(&v4[0]));
}

#[test]
fn an_ipv6_wildcard_alone_serves_both_families() {
    if !has_ipv6() {
        return;
    }
    let alone = [tcp("::", 0)];
    let bound = bind(&alone[0], &alone, &[]).unwrap();
    let port = port_of(&bound[0]);
    for host in ["127.0.0.1", "::1"] {
        let _stream = TcpStream::connect((host, port)).unwrap();
        assert!(accepts(&bound[0]), "{host}");
    }
}

#[test]
fn a_busy_address_is_tried_again_until_it_is_free() {
    let before = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = before.local_addr().unwrap().port();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(before);
    });
    let bound = bind(&tcp("127.0.0.1", port), &[], &[]).unwrap();
    assert!(leaving.is_finished() || leaving.join().is_ok());
    assert_eq!(bound[0].address(), format!("127.0.0.1:{port}"));
}

#[test]
fn an_address_that_stays_busy_is_an_error_that_names_it() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let start = Instant::now();
    let error = bind(&tcp("127.0.0.1", address.port()), &[], &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&address.to_string()), "{error}");
    assert!((BUSY_RETRY_TIME..BUSY_RETRY_TIME * 10).contains(&start.elapsed()));
}

#[test]
fn an_address_that_is_not_ours_is_an_error_unless_it_was_only_implied() {
    // RFC 5737 and RFC 3849: nobody has these.
    for ip in ["192.0.2.1", "2001:db8::1"] {
        let mut listen = tcp(ip, 0);
        let error = bind(&listen, &[], &[]).unwrap_err();
        assert!(error.to_string().contains(ip), "{error}");
        listen.optional = true;
        assert_eq!(bind(&listen, &[], &[]).unwrap().len(), 0);
    }
}

#[cfg(unix)]
#[test]
fn a_socket_that_a_crash_left_behind_is_replaced_and_goes_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let bound = bind(&listen(Endpoint::Unix(path.clone())), &[], &[]).unwrap();
    assert_eq!(bound[0].address(), path.to_str().unwrap());
    let _stream = UnixStream::connect(&path).unwrap();
    assert!(accepts(&bound[0]));
    drop(bound);
    assert!(!path.exists());
}

#[cfg(unix)]
#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let live = UnixListener::bind(&path).unwrap();
    let error = bind(&listen(Endpoint::Unix(path.clone())), &[], &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"still here").unwrap();
    drop(stream);
    // Whoever looked whether it lives did not connect: that would have reached its target.
    let mut heard = String::new();
    live.accept().unwrap().0.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "still here");
}

#[cfg(unix)]
#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    std::fs::write(&path, "important").unwrap();
    let start = Instant::now();
    let error = bind(&listen(Endpoint::Unix(path.clone())), &[], &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(start.elapsed() < BUSY_RETRY_TIME, "no waiting helps");
    assert_eq!(std::fs::read(&path).unwrap(), b"important");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_unlinked_unless_another_program_has_put_its_own_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let ours = bind(&listen(Endpoint::Unix(path.clone())), &[], &[]).unwrap();
    drop(ours);
    assert!(!path.exists());
    let ours = bind(&listen(Endpoint::Unix(path.clone())), &[], &[]).unwrap();
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    drop(ours);
    let _caller = UnixStream::connect(&path).expect("theirs is still there");
    assert!(theirs.accept().is_ok());
}

#[test]
fn who_has_a_busy_port_is_told_at_once_and_all_addresses_wait_on_one_clock() {
    let holders =
        [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let start = Instant::now();
    let mut told = Vec::new();
    let mut tell = |text: &str| told.push((start.elapsed(), text.to_owned()));
    let mut busy = BusyRetry::new(&mut tell);
    for holder in &holders {
        let at = tcp("127.0.0.1", holder.local_addr().unwrap().port());
        let outcome = super::bind(&at, &[], &[], &mut busy);
        assert_eq!(outcome.missing[0].1.kind(), io::ErrorKind::AddrInUse);
    }
    let took = start.elapsed();
    assert!(took >= BUSY_RETRY_TIME && took < 2 * BUSY_RETRY_TIME, "{took:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 < BUSY_RETRY_TIME, "at once: {told:?}");
    for ((_, words), holder) in told.iter().zip(&holders) {
        assert!(words.contains(&holder.local_addr().unwrap().to_string()), "{words}");
        if cfg!(target_os = "linux") {
            assert!(words.contains(&format!("pid {}", std::process::id())), "{words}");
        }
    }
}
