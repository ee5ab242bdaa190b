#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::config::model::Dialect;
use crate::observe::event::LogContext;

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
    dialer_to(targets.iter().copied().map(endpoint).collect(), failover)
}

fn dialer_to(targets: Vec<Endpoint>, failover: Failover) -> Dialer {
    let candidate = |at: Endpoint| Resolved::default(at, Dialect::Native);
    let target = Target::Connect(targets.into_iter().map(candidate).collect());
    Dialer::new(target, failover, None, LIMIT, None, Vec::new())
}

async fn dial(dialer: &Dialer) -> Result<UpstreamConnection, DialError> {
    let context = DialContext { peer: &Peer::Local, who: None, scope: LogContext::PROGRAM };
    dialer.dial(&context, None).await
}

async fn reached(dialer: &Dialer) -> String {
    dial(dialer).await.unwrap().address
}

#[test]
fn by_priority_the_first_that_answers_is_taken_every_time() {
    block(async {
        let (_one, first) = live();
        let (_two, second) = live();
        let gone = dead(1);
        let dialer = dialer(&[gone[0].1, first, second], Failover::Priority);
        for _ in 0..3 {
            let UpstreamConnection { socket, endpoint: target, address, .. } =
                dial(&dialer).await.unwrap();
            assert_eq!((address, target), (first.to_string(), Some(endpoint(first))));
            let stream = socket.as_tcp().expect("TCP");
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
        // The start is by chance; from there they take turns.
        let one = reached(&all).await;
        let other = reached(&all).await;
        assert_ne!(one, other);
        assert_eq!([reached(&all).await, reached(&all).await], [one, other]);
        let some = dialer(&[first, gone[0].1, second], Failover::RoundRobin);
        let mut taken = Vec::new();
        for _ in 0..6 {
            taken.push(reached(&some).await);
        }
        // The one behind the dead takes its turns as well.
        let times = |who: SocketAddr| taken.iter().filter(|at| **at == who.to_string()).count();
        assert_eq!((times(first), times(second)), (2, 4), "{taken:?}");
    });
}

#[test]
fn when_nobody_answers_every_address_is_named_with_its_reason() {
    block(async {
        let gone = dead(3);
        let addresses: Vec<_> = gone.iter().map(|(_, address)| *address).collect();
        let error = dial(&dialer(&addresses, Failover::Priority)).await.unwrap_err();
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
fn silent() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let (listener, address) = dead(1).remove(0);
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => return (listener, waiting, address),
        }
    }
    panic!("this kernel's queue of connections has no end");
}

#[test]
fn the_limit_is_for_each_address_and_the_next_is_tried_after_it() {
    let (one, two) = (silent(), silent());
    block(async {
        let (_good, address) = live();
        let start = Instant::now();
        let by_priority = |targets: &[SocketAddr]| dialer(targets, Failover::Priority);
        assert_eq!(reached(&by_priority(&[one.2, two.2, address])).await, address.to_string());
        assert!((LIMIT * 2..LIMIT * 50).contains(&start.elapsed()));

        let error = dial(&by_priority(&[one.2, two.2])).await.unwrap_err();
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
        let dialer = dialer_to(vec![target], Failover::Priority);
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
            dialer_to(targets.collect(), Failover::Priority)
        };
        let UpstreamConnection { socket, endpoint, .. } = dial(&to(&[&gone, &good])).await.unwrap();
        assert!(matches!(socket, Socket::Unix(_)));
        assert_eq!(endpoint, Some(Endpoint::Unix(good)));
        let error = dial(&to(&[&gone])).await.unwrap_err().to_string();
        assert!(error.contains(gone.to_str().unwrap()), "{error}");
    });
}

#[test]
fn who_goes_back_is_not_given_the_next_turn_and_takes_none() {
    block(async {
        let (_one, first) = live();
        let (_two, second) = live();
        let dialer = dialer(&[first, second], Failover::RoundRobin);
        let context = DialContext { peer: &Peer::Local, who: None, scope: LogContext::PROGRAM };
        let turn = reached(&dialer).await;
        for _ in 0..3 {
            let again = dialer.dial(&context, Some(&turn)).await.unwrap();
            assert_eq!(again.address, turn);
        }
        let next = reached(&dialer).await;
        assert_ne!(next, turn);
        // It is not among them any more.
        let gone = dialer.dial(&context, Some("192.0.2.1:1")).await.unwrap();
        assert_eq!(gone.address, turn);
    });
}
