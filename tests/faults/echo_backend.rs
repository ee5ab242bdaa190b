//! A backend for a thousand connections at once: one thread sends everything back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::delayed_line::Host;

/// What the kernel keeps until this thread accepts it.
const QUEUE_CONNECTIONS: u32 = 4096;

pub struct EchoBackend {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EchoBackend {
    /// On the loopback of this host.
    pub fn start(host: &Host) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let thread = host.run(move || async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port for the backend");
            let listener = socket.listen(QUEUE_CONNECTIONS).expect("a listener");
            ready.send(listener.local_addr().expect("its address")).expect("told");
            let serve = async {
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(echo(stream));
                }
            };
            tokio::select! { () = serve => {}, _ = stopped => {} }
        });
        let address = address.recv().expect("a backend");
        Self { address, accepted, stop: Some(stop), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have come.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for EchoBackend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        if stream.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
