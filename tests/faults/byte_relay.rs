//! A relay of bytes that delays what it carries. TCP's own round trips stay short: nothing but the ends'
//! handshake shows how far they are from each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::delayed_line::Host;

pub struct ByteRelay {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ByteRelay {
    /// Carries every connection to `target`, from the address that it came from, half of `rtt` each way.
    pub fn start(target: SocketAddr, rtt: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port for the relay");
        // As many as come at once: the standard library's own queue holds 128.
        lengthen_queue(&listener);
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("an option");
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = Host::here().run(move || async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let serve = async {
                while let Ok((client, peer)) = listener.accept().await {
                    tokio::spawn(connect_both(client, peer.ip(), target, rtt / 2));
                }
            };
            tokio::select! { () = serve => {}, _ = stopped => {} }
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ByteRelay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A longer queue for a socket that listens already.
pub fn lengthen_queue(listener: &std::net::TcpListener) {
    const QUEUE_CONNECTIONS: i32 = 4096;
    SockRef::from(listener).listen(QUEUE_CONNECTIONS).expect("a longer queue");
}

async fn connect_both(client: TcpStream, from: IpAddr, target: SocketAddr, delay: Duration) {
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        if from != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind((from, 0).into())?;
        }
        socket.connect(target).await
    };
    let server = connect.await;
    let Ok(server) = server else {
        reset(&client);
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let ((client_in, client_out), (server_in, server_out)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(carry(client_in, server_out, delay));
    carry(server_in, client_out, delay).await;
    let _ = up.await;
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// What arrived, and when it goes on. Nothing stands for a reset, an empty piece for the end.
type Piece = (Instant, Option<Vec<u8>>);

/// One direction to its end. An end goes on as an end, a reset as a reset.
async fn carry(mut from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) {
    let (sender, receiver) = mpsc::unbounded_channel::<Piece>();
    let writer = tokio::spawn(deliver(receiver, to));
    loop {
        let mut piece = vec![0; 16 << 10];
        let read = from.read(&mut piece).await;
        let bytes = read.ok().map(|count| piece[..count].to_vec());
        let is_last = bytes.as_ref().is_none_or(Vec::is_empty);
        if sender.send((Instant::now() + delay, bytes)).is_err() || is_last {
            break;
        }
    }
    drop(sender);
    let _ = writer.await;
}

async fn deliver(mut pieces: mpsc::UnboundedReceiver<Piece>, mut to: OwnedWriteHalf) {
    while let Some((due, bytes)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        match bytes {
            None => {
                reset(to.as_ref());
                return;
            }
            Some(bytes) if bytes.is_empty() => {
                let _ = to.shutdown().await;
                return;
            }
            Some(bytes) => {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
