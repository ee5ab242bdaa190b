//! Key updates, a peer's and our own.

use super::*;

/// Has a peer send key updates, as it can at any time in 1.3.
async fn update_keys(peer: &mut Stream<DuplexStream>, count: usize) {
    for _ in 0..count {
        key_update::schedule_key_update(sys::ssl_mut(&mut peer.tls), false).unwrap();
        poll_fn(|cx| {
            peer.tls.get_mut().lend_buffers(0);
            let written = Pin::new(&mut peer.tls).poll_do_handshake(cx);
            peer.tls.get_mut().return_buffers(cx).unwrap();
            written
        })
        .await
        .unwrap();
    }
    peer.flush().await.unwrap();
}

/// Whether a session that has nothing to read goes on; what it was sent is dealt with.
async fn lives_on(stream: &mut Stream<DuplexStream>) -> bool {
    for _ in 0..100 {
        let mut buf = [0];
        let mut buf = ReadBuf::new(&mut buf);
        let polled =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut buf))).await;
        match polled {
            Poll::Ready(Err(error)) => {
                assert!(KeyUpdateFlood::is_cause_of(&error), "{error}");
                return false;
            }
            Poll::Ready(Ok(())) => panic!("it has read something"),
            Poll::Pending => tokio::task::yield_now().await,
        }
    }
    true
}

/// The clock is tokio's, which stands still unless a test moves it.
fn with_a_clock_at_hand<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(test)
}

#[test]
fn a_peer_that_changes_keys_once_a_minute_lives_on_and_one_that_does_nothing_else_does_not() {
    use tokio::time::advance;
    let seconds = std::time::Duration::from_secs;
    with_a_clock_at_hand(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        for minute in 0..1000 {
            update_keys(&mut two, 1).await;
            assert!(lives_on(&mut one).await, "minute {minute}");
            advance(seconds(60)).await;
        }
        // 32 within any ten seconds are not too many.
        for _ in 0..3 {
            update_keys(&mut two, 32).await;
            assert!(lives_on(&mut one).await);
            advance(seconds(11)).await;
        }
        // Nor are more, with data in between, in either direction.
        for turn in 0..10 {
            update_keys(&mut two, 32).await;
            assert!(lives_on(&mut one).await);
            let (from, to) =
                if turn % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
            from.write_all(b"x").await.unwrap();
            assert_eq!(to.read_u8().await.unwrap(), b'x');
        }
        update_keys(&mut two, 32).await;
        assert!(lives_on(&mut one).await);
        advance(seconds(9)).await;
        update_keys(&mut two, 1).await;
        assert!(!lives_on(&mut one).await, "33 within ten seconds");
    });
}

#[test]
fn a_session_deals_with_few_key_updates_in_one_turn() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        const PAIRS: usize = 500;
        for _ in 0..PAIRS {
            update_keys(&mut two, 1).await;
            two.write_all(b"x").await.unwrap();
        }
        let (mut heard, mut turns, mut seen) = (0, 0, 0);
        while heard < PAIRS {
            let mut buf = [0; 4096];
            let mut buf = ReadBuf::new(&mut buf);
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut one).poll_read(cx, &mut buf);
            let all = one.traffic().read.key_updates();
            assert!(all - seen <= 16, "{} in one turn", all - seen);
            assert!(
                all == seen || all == PAIRS as u64 || one.is_turn_over(),
                "who has more says so"
            );
            (heard, turns, seen) = (heard + buf.filled().len(), turns + 1, all);
        }
        assert!(turns >= PAIRS / 16 && seen == PAIRS as u64, "{turns} turns");
        assert_eq!(one.traffic().read.records.load(Ordering::Relaxed), PAIRS as u64);
    });
}

/// Reads `RECORDS` records of one byte and returns in how many turns, and how many of these its time ended.
async fn turns_to_read_small_records(max_turn: Duration) -> (usize, usize) {
    const RECORDS: usize = 20_000;
    let set = SecretSet::from_pairs(&[(b"alice", KEY)]);
    let (near, far) = duplex(1 << 20);
    let (server, client) = (acceptor(""), connector(""));
    let (one, two) = tokio::join!(
        server.accept(set.clone(), far),
        client.connect(set.clone(), set.first().unwrap().clone(), None, near)
    );
    let (mut one, mut two) = (one.ok().unwrap().stream, two.ok().unwrap().stream);
    one.max_turn = max_turn;
    for _ in 0..RECORDS {
        two.write_all(b"x").await.unwrap();
    }
    let (mut heard, mut turns, mut spent) = (0, 0, 0);
    while heard < RECORDS {
        let mut buf = vec![0; 65_536];
        let mut buf = ReadBuf::new(&mut buf);
        poll_fn(|cx| Pin::new(&mut one).poll_read(cx, &mut buf)).await.unwrap();
        heard += buf.filled().len();
        (turns, spent) = (turns + 1, spent + usize::from(one.is_turn_over()));
    }
    assert_eq!(one.traffic().read.records.load(Ordering::Relaxed), RECORDS as u64);
    (turns, spent)
}

#[test]
fn a_session_that_has_decrypted_for_its_time_lets_others_have_a_turn() {
    block(async {
        // No time at all: it ends at each look at the clock.
        let (turns, spent) = turns_to_read_small_records(Duration::ZERO).await;
        assert!(
            spent >= 20_000 / RECORDS_PER_CLOCK_CHECK as usize / 2,
            "{turns} turns, {spent} over"
        );
        // Time without end: a turn is what one receive brings.
        let (turns, spent) = turns_to_read_small_records(Duration::MAX).await;
        assert!(spent == 0 && turns < 100, "{turns} turns, {spent} over");
        let (server, _) = opened("1.3").await;
        assert_eq!(server.stream.max_turn, MAX_TURN);
    });
}

fn limit_records(stream: &mut Stream<DuplexStream>, records: u32) {
    stream.rekey_after(RekeyAfter { records, bytes: 1 << 40 });
}

fn updates(stream: &Stream<DuplexStream>) -> (u64, u64) {
    let TlsTraffic { read, written, .. } = &**stream.traffic();
    (read.key_updates(), written.key_updates())
}

/// Writes more at once than the wire takes while nobody reads, so that OpenSSL waits with a write.
async fn send_and_receive(stream: Stream<DuplexStream>, total: usize) -> Stream<DuplexStream> {
    let pattern: Vec<u8> = (0..total).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = tokio::io::split(stream);
    let send = async {
        for piece in pattern.chunks(2_000_000) {
            to.write_all(piece).await.unwrap();
            to.flush().await.unwrap();
        }
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut heard = Vec::new();
        from.read_to_end(&mut heard).await.unwrap();
        assert!(heard == pattern, "{} of {total} bytes, or others", heard.len());
    };
    tokio::join!(send, receive);
    from.unsplit(to)
}

#[test]
fn both_directions_change_keys_while_they_are_full_and_no_byte_is_lost() {
    const TOTAL: usize = 20_000_000;
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        two.rekey_after(RekeyAfter { records: 1 << 23, bytes: 1_000_000 });
        let (one, two) = tokio::join!(send_and_receive(one, TOTAL), send_and_receive(two, TOTAL));
        assert!(one.ended_cleanly() && two.ended_cleanly());
        let ((from_two, by_one), (from_one, by_two)) = (updates(&one), updates(&two));
        assert_eq!((from_one, from_two), (by_one, by_two), "each was read by the other side");
        // 1,220 records; 20 times a million bytes, of which a piece of two millions is one turn.
        assert!((8..=13).contains(&by_one) && (9..=21).contains(&by_two), "{by_one} {by_two}");
    });
}

#[test]
fn a_peer_that_changes_no_keys_is_asked_once_its_own_are_used_twice_as_much() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=1000_u64 {
            two.write_all(b"x").await.unwrap();
            two.flush().await.unwrap();
            assert_eq!(one.read_u8().await.unwrap(), b'x');
            // The first read behind the 200th record asks; the peer answers with its next record.
            let asked = (record - 1) / 200;
            assert!(updates(&one).1 >= asked.saturating_sub(1), "{record}: {:?}", updates(&one));
            // And the peer has to read what it was asked.
            let mut buf = [0];
            let mut buf = ReadBuf::new(&mut buf);
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut two).poll_read(cx, &mut buf).is_pending());
        }
        let (read, written) = updates(&one);
        assert!((3..=4).contains(&written) && read.abs_diff(written) <= 1, "{read} {written}");
        assert!(!one.traffic().key_overused.load(Ordering::Relaxed));
        // What it was asked for is nobody's flood.
        assert_eq!(one.traffic().unasked(), 0);
    });
}

#[test]
fn a_peer_that_does_not_answer_is_asked_once_and_told_of() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=300 {
            // It never reads, and so never hears what it is asked.
            two.write_all(b"x").await.unwrap();
            two.flush().await.unwrap();
            assert_eq!(one.read_u8().await.unwrap(), b'x');
            let overused = one.traffic().key_overused.load(Ordering::Relaxed);
            assert_eq!(overused, record >= 250, "{record}");
        }
        assert_eq!(updates(&one), (0, 1));
    });
}

#[test]
fn an_update_that_waits_to_be_written_goes_before_the_end() {
    block(async {
        let (server, client) = opened("1.3").await;
        let (mut one, mut two) = (server.stream, client.stream);
        one.announce_update(false);
        // OpenSSL takes no second one, and is not asked to.
        assert!(key_update::schedule_key_update(sys::ssl_mut(&mut one.tls), false).is_err());
        one.shutdown().await.unwrap();
        assert_eq!(two.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(two.ended_cleanly());
        assert_eq!((updates(&one), updates(&two)), ((0, 1), (1, 0)));
        // The other direction goes on.
        two.write_all(b"x").await.unwrap();
        assert_eq!(one.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn a_key_of_1_2_is_told_of_when_it_is_used_twice_as_much() {
    block(async {
        let (server, client) = opened("1.2").await;
        let (mut one, mut two) = (server.stream, client.stream);
        limit_records(&mut one, 100);
        for record in 1..=300 {
            one.write_all(b"x").await.unwrap();
            one.flush().await.unwrap();
            assert_eq!(two.read_u8().await.unwrap(), b'x');
            let overused = one.traffic().key_overused.load(Ordering::Relaxed);
            assert_eq!(overused, record >= 200, "{record}");
        }
        assert_eq!((updates(&one), updates(&two)), ((0, 0), (0, 0)));
        assert!(!two.traffic().key_overused.load(Ordering::Relaxed), "its limit is another");
    });
}
