//! The idle limit, the close limit, and what each counts from.

use super::*;

fn after_start(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn an_answer_that_comes_long_after_the_half_close_arrives_both_ways() {
    paused(async {
        for swapped in [false, true] {
            let (one, two, run) = between(1024, IDLE, CLOSE);
            let (mut asks, mut answers) = if swapped { (two, one) } else { (one, two) };
            asks.write_all(b"request").await.unwrap();
            asks.shutdown().await.unwrap();
            let mut request = Vec::new();
            answers.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"request");
            for _ in 0..3 {
                sleep(CLOSE - Duration::from_millis(1)).await;
                answers.write_all(b"answer").await.unwrap();
            }
            answers.shutdown().await.unwrap();
            let mut answer = Vec::new();
            asks.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answeransweranswer");
            assert!(matches!(run.await.unwrap().0, RelayOutcome::Complete));
        }
    });
}

#[test]
fn the_idle_limit_counts_from_the_last_byte_of_either_direction() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(64, Duration::from_millis(5000), CLOSE);
        sleep(Duration::from_millis(4999)).await;
        client.write_all(b"x").await.unwrap();
        sleep(Duration::from_millis(4998)).await;
        backend.write_all(b"y").await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(ended, after_start(start, 4999 + 4998 + 5000));
    });
}

#[test]
fn the_close_limit_counts_from_the_half_close_and_then_from_the_last_byte() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(64, IDLE, Duration::from_millis(700));
        sleep(Duration::from_millis(100)).await;
        client.shutdown().await.unwrap();
        sleep(Duration::from_millis(699)).await;
        backend.write_all(b"y").await.unwrap();
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::HalfClosed { .. }), "{outcome:?}");
        assert_eq!(ended, after_start(start, 100 + 699 + 700));
    });
}

#[test]
fn a_reader_that_is_merely_slow_is_under_the_idle_limit_also_after_a_half_close() {
    paused(async {
        let start = Instant::now();
        let (mut client, mut backend, run) = between(16, Duration::from_millis(9000), CLOSE / 100);
        client.shutdown().await.unwrap();
        let answer = tokio::spawn(async move {
            let _ = backend.write_all(&[7; 1000]).await;
            backend
        });
        sleep(Duration::from_millis(5000)).await;
        let mut some = [0; 10];
        client.read_exact(&mut some).await.unwrap();
        assert_eq!(some, [7; 10]);
        let (outcome, ended) = run.await.unwrap();
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(ended, after_start(start, 5000 + 9000));
        drop(answer.await);
    });
}

#[test]
fn a_limit_beyond_all_clocks_is_no_mistake() {
    paused(async {
        let (mut client, mut backend, run) = between(64, Duration::MAX, Duration::MAX);
        client.write_all(b"x").await.unwrap();
        sleep(HOUR * 24 * 60).await;
        client.shutdown().await.unwrap();
        sleep(HOUR * 24 * 60).await;
        backend.shutdown().await.unwrap();
        assert!(matches!(run.await.unwrap().0, RelayOutcome::Complete));
    });
}

#[test]
fn the_idle_limit_begins_with_the_relay_and_not_with_the_session() {
    paused(async {
        let meter = TrafficMeter::default();
        sleep(IDLE / 2).await;
        let (mut down, mut up) = (Watched::new(b""), Watched::new(b""));
        let start = Instant::now();
        let outcome = relay(&mut down, &mut up, IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
        assert_eq!(start.elapsed(), IDLE);
    });
}

#[test]
fn a_side_is_a_plain_stream_without_troubles_unless_it_says_otherwise() {
    let (side, _other) = duplex(1);
    assert!(side.ended_cleanly() && !side.proves_its_end());
    assert!(side.backlog() == 0 && side.fault().is_none() && !side.in_flight());
}

#[test]
fn the_close_limit_tells_whether_it_was_upstream_that_had_said_all() {
    paused(async {
        for down_ends in [false, true] {
            let (mut client, mut backend, run) = between(64, IDLE, CLOSE);
            let ends = if down_ends { &mut client } else { &mut backend };
            ends.shutdown().await.unwrap();
            let RelayOutcome::HalfClosed { down_ended } = run.await.unwrap().0 else {
                panic!("it did not end by the close limit");
            };
            assert_eq!(down_ended, !down_ends);
        }
    });
}
