#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::record::tests::logged;
use super::*;

fn strangers(limiter: &LogRateLimiter, n: usize) -> Vec<String> {
    let event = Event::NotAllowed { peer: &"somebody" };
    let lines = logged(|| (0..n).for_each(|_| limiter.log(&event, LogContext::PROGRAM)));
    lines.into_iter().map(|(event, _)| event).collect()
}

fn pass(limiter: &LogRateLimiter, seconds: u64) {
    let mut state = limiter.state.lock().unwrap();
    let earlier = |now: Instant| now.checked_sub(Duration::from_secs(seconds)).unwrap();
    state.refilled = earlier(state.refilled);
    state.since = earlier(state.since);
}

#[test]
fn a_burst_is_written_whole_and_the_rest_is_counted() {
    let limiter = LogRateLimiter::default();
    assert_eq!(strangers(&limiter, 1000), vec!["not-allowed-from"; 20]);
    pass(&limiter, 5);
    let lines = logged(|| limiter.log(&Event::NotAllowed { peer: &"x" }, LogContext::PROGRAM));
    let [(first, words), (second, _)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!((&first[..], &second[..]), ("lines-withheld", "not-allowed-from"));
    assert!(words.starts_with("980 more lines") && words.contains(" within 5 s"), "{words}");
}

#[test]
fn afterwards_a_second_earns_a_line_and_a_long_silence_no_more_than_a_burst() {
    let limiter = LogRateLimiter::default();
    strangers(&limiter, 20);
    for _ in 0..3 {
        pass(&limiter, 1);
        let lines = strangers(&limiter, 10);
        assert_eq!(lines.iter().filter(|line| *line == "not-allowed-from").count(), 1);
    }
    pass(&limiter, 3600);
    let lines = strangers(&limiter, 100);
    assert_eq!(lines.iter().filter(|line| *line == "not-allowed-from").count(), 20);
}

#[test]
fn the_count_is_said_once_also_when_no_stranger_comes_again() {
    let limiter = LogRateLimiter::default();
    strangers(&limiter, 23);
    let said = logged(|| {
        limiter.report_withheld();
        limiter.report_withheld();
    });
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].1.starts_with("3 more lines"), "{said:?}");
    assert!(logged(|| LogRateLimiter::default().report_withheld()).is_empty());
}
