//! What is flushed, and when.

use super::*;

#[test]
fn what_was_written_is_flushed_before_the_relay_waits_for_more() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let mut upstream = Buffered { pipe, kept: Vec::new(), tried: false };
        tokio::spawn(async move {
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &TrafficMeter::default()).await
        });
        for question in [b"one", b"two"] {
            client.write_all(question).await.unwrap();
            let mut heard = [0; 3];
            let read = tokio::time::timeout(CLOSE, backend.read_exact(&mut heard));
            read.await.expect("it was never flushed").unwrap();
            assert_eq!(&heard, question);
        }
    });
}

#[test]
fn one_that_refuses_the_last_of_it_is_heard_out_as_well() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let (flush, shutdown, flushes) = (Some(ErrorKind::BrokenPipe), None, 0);
        let mut upstream = Failing { pipe, flush, shutdown, flushes };
        let run = tokio::spawn(async move {
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &TrafficMeter::default()).await
        });
        client.shutdown().await.unwrap();
        sleep(CLOSE / 2).await;
        backend.write_all(b"last words").await.unwrap();
        backend.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        let outcome = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
    });
}

#[test]
fn an_error_at_the_shutdown_that_is_no_goodbye_ends_it_at_once() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (_backend, pipe) = duplex(64);
        let shutdown = Some(ErrorKind::InvalidData);
        let mut upstream = Failing { pipe, flush: None, shutdown, flushes: 0 };
        client.shutdown().await.unwrap();
        let meter = TrafficMeter::default();
        let outcome = relay(&mut downstream, &mut upstream, IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
    });
}

#[test]
fn an_end_and_what_is_longer_than_a_batch_are_passed_on_at_once() {
    paused(async {
        let (mut client, mut backend, run) = between(3 * RELAY_BUFFER_SIZE, IDLE, CLOSE);
        let start = Instant::now();
        client.write_all(&[7; 2 * RELAY_BUFFER_SIZE + 1]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        backend.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), 2 * RELAY_BUFFER_SIZE + 1);
        backend.shutdown().await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Complete), "{outcome:?}");
        assert_eq!(ended - start, Duration::ZERO);
    });
}

#[test]
fn what_has_been_flushed_is_not_flushed_again_for_the_other_direction() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let mut upstream = Failing { pipe, flush: None, shutdown: None, flushes: 0 };
        let run = async {
            let meter = TrafficMeter::default();
            relay(&mut downstream, &mut upstream, IDLE, CLOSE, &meter).await
        };
        let talk = async {
            client.write_all(b"x").await.unwrap();
            for _ in 0..5 {
                backend.write_all(b"y").await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
            }
            (client, backend)
        };
        let (outcome, _) = tokio::join!(run, talk);
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        // The end of the handshake, and the one byte.
        assert_eq!(upstream.flushes, 2);
    });
}
