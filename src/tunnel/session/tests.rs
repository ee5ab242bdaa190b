//! What a session's two sides tell of themselves, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::config::model::Keepalive;
use crate::net;
use crate::tls;
use crate::tls::fuzzing::{acceptor, connector, secrets};
use crate::tunnel::relay::RelayStream;

/// Two ends of a connection that keepalive watches.
async fn connected() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let second = Duration::from_secs(1);
    let keepalive = Keepalive { idle: 15 * second, interval: 5 * second, count: 3 };
    for end in [&near, &far] {
        net::keepalive(end, &keepalive).unwrap();
    }
    (Socket::Tcp(near), Socket::Tcp(far))
}

async fn secured() -> (tls::Stream<Socket>, tls::Stream<Socket>) {
    let (near, far) = connected().await;
    let who = secrets().first().unwrap().clone();
    let (near, far) = tokio::join!(
        connector().connect(secrets(), who, None, near),
        acceptor().accept(secrets(), far),
    );
    let (Ok(near), Ok(far)) = (near, far) else { panic!("they have the same key") };
    (near.stream, far.stream)
}

/// Waits for what becomes true by itself.
async fn soon(what: &str, is: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < limit, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Writes until nothing more is taken, and then a moment: one in which a busy machine, too, gets to a piece.
async fn fill(side: &mut (impl AsyncWriteExt + Unpin)) {
    let moment = Duration::from_millis(500);
    while timeout(moment, side.write(&[7; 16 << 10])).await.is_ok() {}
}

fn reset(socket: Socket) {
    socket.reset_on_close(true);
}

#[tokio::test]
async fn a_plain_side_tells_what_is_on_its_way_and_what_became_of_its_peer() {
    let (mut near, far) = connected().await;
    let fault = |side: &Socket| RelayStream::fault(side);
    assert!(!RelayStream::in_flight(&near) && fault(&near).is_none());
    fill(&mut near).await;
    soon("a peer that owes an acknowledgement", || RelayStream::in_flight(&near)).await;
    assert!(fault(&near).is_none());
    reset(far);
    soon("the reset", || fault(&near).is_some()).await;
}

#[tokio::test]
async fn a_tls_side_tells_the_same_and_what_is_still_with_it() {
    let (mut near, far) = secured().await;
    let fault = |side: &tls::Stream<Socket>| RelayStream::fault(side);
    // A client's last words of the handshake go with the first data.
    near.flush().await.unwrap();
    soon("nothing that is on its way", || !RelayStream::in_flight(&near)).await;
    assert!(fault(&near).is_none() && RelayStream::backlog(&near) == 0);
    fill(&mut near).await;
    assert!(RelayStream::backlog(&near) > 1);
    soon("a peer that owes an acknowledgement", || RelayStream::in_flight(&near)).await;
    assert!(fault(&near).is_none());
    reset(far.into_socket().unwrap());
    soon("the reset", || fault(&near).is_some()).await;
}

#[tokio::test]
async fn a_tls_side_proves_its_end_and_is_not_believed_without() {
    for orderly in [true, false] {
        let (mut near, mut far) = secured().await;
        assert!(RelayStream::proves_its_end(&near) && !RelayStream::ended_cleanly(&near));
        if orderly {
            far.shutdown().await.unwrap();
        } else {
            let Socket::Tcp(far) = far.into_socket().unwrap() else { panic!("it is TCP") };
            SockRef::from(&far).shutdown(std::net::Shutdown::Write).unwrap();
            drop(far);
        }
        let mut rest = Vec::new();
        let _ = near.read_to_end(&mut rest).await;
        assert_eq!((RelayStream::ended_cleanly(&near), rest), (orderly, Vec::new()));
    }
}
