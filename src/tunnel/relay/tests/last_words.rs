//! Peers that take no more, and what they still say.

use super::*;

#[test]
fn a_peer_that_takes_no_more_is_heard_out_and_its_end_is_the_end() {
    for kind in GONE {
        paused(async {
            let mut client = actor("more and more", Ending::Silent, None);
            let mut backend = actor("last words", Ending::Clean, Some(kind));
            let (outcome, took) = relayed(&mut client, &mut backend).await;
            let RelayOutcome::Upstream(SideError::Failed(error)) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(error.kind(), if RESET.contains(&kind) { RESET[0] } else { kind });
            assert_eq!(client.heard, b"last words");
            assert!(took < CLOSE);
            // After a reset the words are passed on, and their end is not.
            assert_eq!(client.shut, !RESET.contains(&kind), "{kind:?}");
        });
    }
}

#[test]
fn an_end_that_the_peer_proves_counts_after_a_reset_too() {
    paused(async {
        let mut client = actor("more and more", Ending::Silent, None);
        let mut backend = actor("last words", Ending::Clean, Some(ErrorKind::ConnectionReset));
        backend.proves = true;
        let (outcome, _) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))), "{outcome:?}");
        assert!(client.heard == b"last words" && client.shut);
    });
}

#[test]
fn a_peer_that_takes_no_more_and_says_nothing_is_left_at_the_close_limit() {
    paused(async {
        let mut client = actor("more", Ending::Silent, None);
        let mut backend = actor("", Ending::Silent, Some(ErrorKind::BrokenPipe));
        let (outcome, _) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::HalfClosed { .. }), "{outcome:?}");
    });
}

#[test]
fn after_a_long_silence_a_refusal_still_leaves_the_close_limit_for_the_last_words() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        let run = tokio::spawn(async move {
            let meter = TrafficMeter::default();
            relay(&mut downstream, &mut Deaf(pipe), IDLE, CLOSE, &meter).await
        });
        sleep(CLOSE * 4).await;
        client.write_all(b"still there?").await.unwrap();
        sleep(CLOSE / 2).await;
        let last = tokio::spawn(async move {
            backend.write_all(b"goodbye").await.unwrap();
            backend.shutdown().await.unwrap();
            backend
        });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye");
        assert!(matches!(run.await.unwrap(), RelayOutcome::Upstream(SideError::Failed(_))));
        drop(last.await);
    });
}

#[test]
fn a_peer_that_is_gone_when_its_write_side_is_shut_has_had_everything() {
    paused(async {
        let (mut client, mut downstream) = duplex(64);
        let (mut backend, pipe) = duplex(64);
        client.shutdown().await.unwrap();
        backend.shutdown().await.unwrap();
        let meter = TrafficMeter::default();
        let outcome = relay(&mut downstream, &mut Deaf(pipe), IDLE, CLOSE, &meter).await;
        assert!(matches!(outcome, RelayOutcome::Complete), "{outcome:?}");
    });
}

#[test]
fn two_peers_that_both_take_no_more_are_not_waited_for() {
    paused(async {
        let mut client = actor("more", Ending::Silent, Some(ErrorKind::BrokenPipe));
        let mut backend = actor("more", Ending::Silent, Some(ErrorKind::ConnectionReset));
        let (outcome, took) = relayed(&mut client, &mut backend).await;
        assert!(
            matches!(
                outcome,
                RelayOutcome::Upstream(SideError::Failed(_))
                    | RelayOutcome::Downstream(SideError::Failed(_))
            ),
            "{outcome:?}"
        );
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn an_error_that_is_no_goodbye_ends_it_at_once() {
    paused(async {
        let mut client = actor("more", Ending::Silent, None);
        let mut backend = actor("", Ending::Silent, Some(ErrorKind::InvalidData));
        let (outcome, took) = relayed(&mut client, &mut backend).await;
        assert!(matches!(outcome, RelayOutcome::Upstream(SideError::Failed(_))));
        assert!(took < Duration::from_secs(1));
    });
}

#[test]
fn a_cut_stream_delivers_what_it_had_and_is_never_passed_on_as_an_end() {
    paused(async {
        for ending in [Ending::Truncated, Ending::Error] {
            let mut client = actor("", Ending::Silent, None);
            // The client takes this in small pieces and late.
            let mut backend = actor("half an answer", ending, None);
            backend.most = 100;
            let (outcome, _) = relayed(&mut client, &mut backend).await;
            assert!(matches!(outcome, RelayOutcome::Upstream(_)), "{outcome:?}");
            assert!(client.shutting.is_none());
            if ending == Ending::Truncated {
                assert_eq!(client.heard, b"half an answer");
            }
        }
    });
}
