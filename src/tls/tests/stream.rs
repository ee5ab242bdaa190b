//! What a TLS stream delivers, and how it ends.

use super::*;

#[test]
fn close_notify_is_a_clean_end_and_leaves_the_other_direction_open() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.shutdown().await.unwrap();
            let mut rest = Vec::new();
            assert_eq!(server.read_to_end(&mut rest).await.unwrap(), 0);
            assert!(server.ended_cleanly() && !client.ended_cleanly());
            server.write_all(b"late").await.unwrap();
            let mut late = [0; 4];
            client.read_exact(&mut late).await.unwrap();
            assert_eq!(&late, b"late");
            server.shutdown().await.unwrap();
            assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 0);
            assert!(client.ended_cleanly());
        }
    });
}

#[test]
fn a_stream_that_is_cut_ends_but_not_cleanly() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.write_all(b"half").await.unwrap();
            drop(client);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"half");
            assert!(!server.ended_cleanly());
        }
    });
}

#[test]
fn what_came_before_a_broken_record_is_read_before_the_error() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.write_all(b"good").await.unwrap();
            client.flush().await.unwrap();
            let mut pipe = client.into_socket().unwrap();
            // Application data of 32 bytes that nobody encrypted.
            pipe.write_all(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat()).await.unwrap();
            let mut heard = [0; 99];
            assert_eq!(server.read(&mut heard).await.unwrap(), 4);
            assert_eq!(&heard[..4], b"good");
            server.read(&mut heard).await.unwrap_err();
        }
    });
}

#[test]
fn what_the_socket_has_not_taken_is_told() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            assert!(client.socket().is_some());
            assert_eq!(client.backlog(), 0);
            // The pipe takes 64 kB.
            assert_eq!(client.write(&[7; 200_000]).await.unwrap(), 200_000);
            assert!((130_000..200_000).contains(&client.backlog()), "{}", client.backlog());
            let mut heard = vec![0; 200_000];
            let (flushed, read) = tokio::join!(client.flush(), server.read_exact(&mut heard));
            flushed.unwrap();
            read.unwrap();
            assert_eq!(client.backlog(), 0);
        }
    });
}

#[test]
fn nothing_is_said_behind_the_end() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let (mut server, mut client) = (server.stream, client.stream);
            echo(&mut client, &mut server).await;
            client.shutdown().await.unwrap();
            client.write(b"and").await.unwrap_err();
            assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
            assert!(server.ended_cleanly());
        }
    });
}

#[test]
fn a_record_that_was_tampered_with_is_an_error_and_no_end() {
    block(async {
        for version in VERSIONS {
            let (server, client) = opened(version).await;
            let mut server = server.stream;
            let mut socket = client.stream.into_socket().unwrap();
            socket.write_all(&[23, 3, 3, 0, 30]).await.unwrap();
            socket.write_all(&[0x5a; 30]).await.unwrap();
            let mut rest = Vec::new();
            let error = server.read_to_end(&mut rest).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert!(rest.is_empty() && !server.ended_cleanly());
        }
    });
}

#[test]
fn much_data_through_a_narrow_pipe_arrives_whole() {
    block(async {
        for version in VERSIONS {
            let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
            let lines = only(version);
            let (server, client) = (acceptor(&lines), connector(&lines));
            let (near, far) = duplex(777);
            let (one, two) = tokio::join!(
                server.accept(set.clone(), far),
                client.connect(set.clone(), set.first().unwrap().clone(), None, near)
            );
            let (mut one, mut two) = (one.unwrap().stream, two.unwrap().stream);
            let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            let mut heard = Vec::new();
            let (_, read) = tokio::join!(
                async {
                    one.write_all(&sent).await.unwrap();
                    one.shutdown().await.unwrap();
                },
                two.read_to_end(&mut heard)
            );
            read.unwrap();
            assert!(heard == sent && two.ended_cleanly());
        }
    });
}

/// Counts the sends and receives of whoever holds it.
struct Counted {
    pipe: DuplexStream,
    sends: Arc<AtomicUsize>,
    receives: Arc<AtomicUsize>,
}

impl Counted {
    fn pair() -> (Self, DuplexStream) {
        let (near, far) = duplex(1 << 22);
        (Self { pipe: near, sends: Arc::default(), receives: Arc::default() }, far)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        self.receives.fetch_add(usize::from(polled.is_ready()), Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sends.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[test]
fn a_client_sends_twice_up_to_its_first_data_and_receives_once() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let lines = only("1.3");
        let (server, client) = (acceptor(&lines), connector(&lines));
        let (near, far) = Counted::pair();
        let (sends, receives) = (near.sends.clone(), near.receives.clone());
        let accept = async {
            let mut stream = server.accept(set.clone(), far).await.unwrap().stream;
            let mut heard = [0; 8];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        };
        let connect = async {
            let who = set.first().unwrap().clone();
            let shaken = client.connect_unflushed(set.clone(), who, None, None, near).await;
            let mut stream = shaken.map_err(|f| f.cause).unwrap().stream;
            stream.write_all(b"question").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let (heard, _stream) = tokio::join!(accept, connect);
        assert_eq!(&heard, b"question");
        // The ClientHello; what proves the key, and the data.
        assert_eq!(sends.load(Ordering::Relaxed), 2);
        assert_eq!(receives.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_client_with_nothing_to_say_is_proven_at_a_flush() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        let lines = only("1.3");
        let (server, client) = (acceptor(&lines), connector(&lines));
        let (near, far) = duplex(1 << 16);
        let accept = async {
            let mut stream = server.accept(set.clone(), far).await.unwrap().stream;
            stream.write_all(b"the server speaks first").await.unwrap();
            stream
        };
        let connect = async {
            let who = set.first().unwrap().clone();
            let shaken = client.connect_unflushed(set.clone(), who, None, None, near).await;
            let mut stream = shaken.map_err(|f| f.cause).unwrap().stream;
            stream.flush().await.unwrap();
            let mut heard = [0; 23];
            stream.read_exact(&mut heard).await.unwrap();
            heard
        };
        let (_stream, heard) = tokio::join!(accept, connect);
        assert_eq!(&heard, b"the server speaks first");
    });
}

#[test]
fn a_batch_of_records_is_one_send_and_one_receive_and_comes_before_the_end_behind_it() {
    block(async {
        let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
        for version in VERSIONS {
            let lines = only(version);
            let (server, client) = (acceptor(&lines), connector(&lines));
            let (near, far) = Counted::pair();
            let (sends, receives) = (near.sends.clone(), near.receives.clone());
            let who = set.first().unwrap().clone();
            let (accepted, connected) = tokio::join!(
                server.accept(set.clone(), far),
                client.connect(set.clone(), who, None, near)
            );
            let mut peer = accepted.map_err(|f| f.cause).unwrap().stream;
            let mut stream = connected.map_err(|f| f.cause).unwrap().stream;
            let said: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            sends.store(0, Ordering::Relaxed);
            assert_eq!(stream.write(&said).await.unwrap(), said.len());
            assert_eq!(sends.load(Ordering::Relaxed), 1, "{version}");
            let mut heard = vec![0; said.len()];
            peer.read_exact(&mut heard).await.unwrap();
            assert!(heard == said);
            peer.write_all(&said).await.unwrap();
            peer.shutdown().await.unwrap();
            receives.store(0, Ordering::Relaxed);
            let mut heard = vec![0; 300_000];
            let got = stream.read(&mut heard).await.unwrap();
            assert_eq!(receives.load(Ordering::Relaxed), 1, "{version}");
            assert!(heard[..got] == said);
            assert_eq!(stream.read(&mut heard).await.unwrap(), 0);
            assert!(stream.ended_cleanly());
        }
    });
}

#[test]
fn a_reader_with_little_room_loses_nothing_of_what_one_receive_brought() {
    block(async {
        let (one, two) = opened("1.3").await;
        let (mut one, mut two) = (one.stream, two.stream);
        let said: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        one.write_all(&said).await.unwrap();
        one.shutdown().await.unwrap();
        let (mut all, mut some) = (Vec::new(), [0; 1000]);
        while let n @ 1.. = two.read(&mut some).await.unwrap() {
            all.extend_from_slice(&some[..n]);
        }
        assert!(all == said && two.ended_cleanly());
    });
}
