//! Slow readers, endless streams, and peers that stall.

use super::*;

#[test]
fn the_buffer_for_a_slow_writer_is_bounded_and_given_back() {
    paused(async {
        let (mut client, mut downstream) = duplex(1 << 20);
        let (mut backend, mut upstream) = duplex(10);
        let mut direction = Direction::default();
        client.write_all(&[9; 1 << 20]).await.unwrap();
        poll_fn(|cx| {
            let polled = direction.poll(cx, &mut downstream, &mut upstream);
            assert!(polled.is_pending());
            Poll::Ready(())
        })
        .await;
        assert!((1..=RELAY_BUFFER_SIZE).contains(&direction.held.capacity()));
        let drain = tokio::spawn(async move {
            let mut all = vec![0; 1 << 20];
            backend.read_exact(&mut all).await.unwrap();
            (backend, all)
        });
        tokio::select! {
            biased;
            _ = poll_fn(|cx| direction.poll(cx, &mut downstream, &mut upstream)) => {}
            () = sleep(HOUR) => {}
        }
        assert_eq!(direction.bytes, 1 << 20);
        assert_eq!(direction.held.capacity(), 0);
        let (_backend, all) = drain.await.unwrap();
        assert!(all.iter().all(|byte| *byte == 9));
    });
}

#[test]
fn a_stream_without_end_lets_the_others_have_their_turn() {
    paused(async {
        let (mut one, mut two) = (Endless { said: 0 }, Endless { said: 0 });
        let meter = TrafficMeter::default();
        {
            let mut run = std::pin::pin!(relay(&mut one, &mut two, IDLE, CLOSE, &meter));
            for _ in 0..3 {
                let polled = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
            }
        }
        for side in [one.said, two.said] {
            assert!(side == 3 * RELAY_BUFFER_SIZE, "{side}");
        }
    });
}

/// Relays between these two until it ends: how, and after how many seconds.
async fn watched(down: &mut Watched, up: &mut Watched) -> (RelayOutcome, u64) {
    let start = Instant::now();
    let outcome = relay(down, up, IDLE, CLOSE, &TrafficMeter::default()).await;
    (outcome, start.elapsed().as_secs())
}

#[test]
fn a_session_that_one_side_stalls_is_looked_at_every_two_seconds_on_both() {
    paused(async {
        for down_says in [false, true] {
            for down_breaks in [false, true] {
                for backlog in [false, true] {
                    let says = |it| Watched::new(if it { b"x" } else { b"" });
                    let (mut down, mut up) = (says(down_says), says(!down_says));
                    let hears = if down_says { &mut up } else { &mut down };
                    // Taken by TLS and not by the socket is as good as not taken.
                    match backlog {
                        true => hears.backlog = 1,
                        false => hears.deaf = Some(Box::pin(sleep(HOUR))),
                    }
                    let breaks = if down_breaks { &mut down } else { &mut up };
                    breaks.broken = Some(Duration::from_secs(5));
                    let (outcome, took) = watched(&mut down, &mut up).await;
                    let told = format!("{outcome:?} {down_says} {down_breaks} {backlog}");
                    assert_eq!(took, 6, "{told}");
                    let (RelayOutcome::Downstream(SideError::Failed(error))
                    | RelayOutcome::Upstream(SideError::Failed(error))) = &outcome
                    else {
                        panic!("{told}");
                    };
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{told}");
                    assert_eq!(
                        matches!(outcome, RelayOutcome::Downstream(_)),
                        down_breaks,
                        "{told}"
                    );
                    assert_eq!(*down.asked.borrow(), [2, 4, 6], "{told}");
                }
            }
        }
    });
}

#[test]
fn what_is_on_its_way_is_looked_after_every_five_seconds_and_costs_no_timer_once_it_is_there() {
    paused(async {
        for down_waits in [false, true] {
            let (mut down, mut up) = (Watched::new(b"x"), Watched::new(b""));
            let waits = if down_waits { &mut down } else { &mut up };
            waits.in_flight = Duration::from_secs(12);
            let (outcome, took) = watched(&mut down, &mut up).await;
            assert!(matches!(outcome, RelayOutcome::Idle), "{outcome:?}");
            assert_eq!(took, IDLE.as_secs());
            for side in [down, up] {
                assert_eq!(*side.asked.borrow(), [5, 10, 15], "{down_waits}");
            }
        }
        let (mut down, mut up) = (Watched::new(b""), Watched::new(b""));
        watched(&mut down, &mut up).await;
        assert!(down.asked.borrow().is_empty(), "nothing was ever on its way");
    });
}

#[test]
fn who_stalled_for_a_while_is_then_looked_after_like_any_other() {
    paused(async {
        let (mut down, mut up) = (Watched::new(b"x"), Watched::new(b"").deaf_for(3));
        up.in_flight = Duration::from_secs(9);
        watched(&mut down, &mut up).await;
        assert_eq!(*up.asked.borrow(), [2, 3 + 5, 3 + 10]);
    });
}

#[test]
fn a_rate_is_that_of_the_last_full_second_or_of_the_longer_one_that_goes_on() {
    paused(async {
        let meter = TrafficMeter::default();
        let wait = |ms| sleep(Duration::from_millis(ms));
        assert_eq!(meter.rates(), (0, 0));
        wait(400).await;
        meter.count(Instant::now(), 1000, 10);
        assert_eq!(meter.rates(), (0, 0), "a second is not over");
        wait(600).await;
        assert_eq!(meter.rates(), (1000, 10));
        wait(1000).await;
        assert_eq!(meter.rates(), (500, 5));
        let second = Instant::now();
        meter.count(second, 5000, 30);
        assert_eq!((meter.up(), meter.down(), meter.touched()), (5000, 30, second));
        assert_eq!(meter.rates(), (500, 5), "of the two seconds before");
        wait(999).await;
        meter.count(Instant::now(), 9000, 40);
        assert_eq!(meter.rates(), (500, 5), "the next window goes on");
        wait(3001).await;
        assert_eq!(meter.rates(), (2000, 7));
    });
}
