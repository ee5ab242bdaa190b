#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;

const LIMIT: Duration = Duration::from_millis(400);

fn block<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() }
}

fn live() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Addresses at which nobody listens, but which nobody else gets meanwhile.
fn dead(n: usize) -> Vec<(socket2::Socket, SocketAddr)> {
    let bound = || {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    };
    (0..n).map(|_| bound()).collect()
}

fn dialer(targets: &[SocketAddr], failover: Failover) -> Dialer {
    let targets = targets.iter().copied().map(endpoint).collect();
    Dialer::new(targets, failover, LIMIT, None, Vec::new())
}

async fn reached(dialer: &Dialer) -> String {
    dialer.dial().await.unwrap().2
}

#[test]
fn by_priority_the_first_that_answers_is_taken_every_time() {
    block(async {
        let (_one, first) = live();
        let (_two, second) = live();
        let gone = dead(1);
        let dialer = dialer(&[gone[0].1, first, second], Failover::Priority);
        for _ in 0..3 {
            let (socket, target, address) = dialer.dial().await.unwrap();
            assert_eq!((address, target), (first.to_string(), endpoint(first)));
            let Socket::Tcp(stream) = socket else {
                panic!("no TCP");
            };
            assert!(stream.nodelay().unwrap());
        }
    });
}

#[test]
fn round_robin_takes_them_in_turn_and_passes_over_the_dead() {
    block(async {
        let (_one, first) = live();
        let (_two, second) = live();
        let gone = dead(1);
        let all = dialer(&[first, second], Failover::RoundRobin);
        let [a, b] = [first.to_string(), second.to_string()];
        for wanted in [&a, &b, &a, &b] {
            assert_eq!(reached(&all).await, *wanted);
        }
        let some = dialer(&[first, gone[0].1, second], Failover::RoundRobin);
        for wanted in [&a, &b, &b, &a] {
            assert_eq!(reached(&some).await, *wanted);
        }
    });
}

#[test]
fn when_nobody_answers_every_address_is_named_with_its_reason() {
    block(async {
        let gone = dead(3);
        let addresses: Vec<_> = gone.iter().map(|(_, address)| *address).collect();
        let error = dialer(&addresses, Failover::Priority).dial().await.unwrap_err();
        let text = error.to_string();
        let parts: Vec<_> = text.split("; ").collect();
        assert_eq!(parts.len(), 3, "{text}");
        for (part, address) in parts.iter().zip(&addresses) {
            assert!(part.starts_with(&format!("{address}: ")), "{text}");
            assert!(part.contains("refused"), "{text}");
        }
    });
}

/// A listener whose queue is full: the kernel answers no more.
fn silent() -> Option<(socket2::Socket, Vec<TcpStream>, SocketAddr)> {
    let (listener, address) = dead(1).remove(0);
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => return Some((listener, waiting, address)),
        }
    }
    None // This kernel has another idea of a queue.
}

#[test]
fn the_limit_is_for_each_address_and_the_next_is_tried_after_it() {
    let (Some(one), Some(two)) = (silent(), silent()) else {
        return;
    };
    block(async {
        let (_good, address) = live();
        let start = Instant::now();
        let dialer_to = |targets: &[SocketAddr]| dialer(targets, Failover::Priority);
        assert_eq!(reached(&dialer_to(&[one.2, two.2, address])).await, address.to_string());
        assert!((LIMIT * 2..LIMIT * 10).contains(&start.elapsed()));

        let error = dialer_to(&[one.2, two.2]).dial().await.unwrap_err();
        let (a, b) = (one.2, two.2);
        assert_eq!(
            error.to_string(),
            format!("{a}: no answer within {LIMIT:?}; {b}: no answer within {LIMIT:?}")
        );
    });
}

#[test]
fn no_host_means_this_machine_over_either_family() {
    block(async {
        let (_listener, address) = live();
        let target = Endpoint::Tcp { host: Host::Unspecified, port: address.port() };
        let dialer = Dialer::new(vec![target], Failover::Priority, LIMIT, None, Vec::new());
        assert_eq!(reached(&dialer).await, address.to_string());
    });
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_a_target_like_any_other() {
    block(async {
        let directory = tempfile::tempdir().unwrap();
        let (good, gone) = (directory.path().join("good"), directory.path().join("gone"));
        let _listener = std::os::unix::net::UnixListener::bind(&good).unwrap();
        let to = |paths: &[&std::path::PathBuf]| {
            let targets = paths.iter().map(|path| Endpoint::Unix(path.to_path_buf()));
            Dialer::new(targets.collect(), Failover::Priority, LIMIT, None, Vec::new())
        };
        let (socket, target, _) = to(&[&gone, &good]).dial().await.unwrap();
        assert!(matches!(socket, Socket::Unix(_)));
        assert_eq!(target, Endpoint::Unix(good));
        let error = to(&[&gone]).dial().await.unwrap_err().to_string();
        assert!(error.contains(gone.to_str().unwrap()), "{error}");
    });
}
