//! A stranger cannot find out by the clock which identities exist.

use std::time::Duration;

use crate::harness::hello::Stranger;
use crate::harness::{Backend, Gate, KEY, Tls, secret, server_toml};

/// So many claims of identities that exist, and as many of ones that do not.
const TRIALS: usize = 1000;

/// How far from a coin a guess may be.
const BOUNDS: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// Names of one length: known if even.
fn name(number: usize) -> String {
    format!("client{number:04}")
}

/// What a stranger learns from the times of both classes.
#[derive(Debug)]
struct Guess {
    /// The share of pairs in which the unknown one took longer: the area under the curve.
    area: f64,
    /// How often the best limit between short and long is right, with times that it has seen.
    threshold: f64,
}

impl Guess {
    fn is_a_coin(&self) -> bool {
        BOUNDS.contains(&self.area) && BOUNDS.contains(&self.threshold)
    }
}

fn guess(known: &[Duration], unknown: &[Duration]) -> Guess {
    let mut all: Vec<_> = known.iter().map(|time| (time, false)).collect();
    all.extend(unknown.iter().map(|time| (time, true)));
    all.sort_unstable();
    let (mut below, mut pairs, mut best) = (0_usize, 0_usize, 0_usize);
    for (place, (_, is_unknown)) in all.iter().enumerate() {
        if *is_unknown {
            pairs += below;
        } else {
            below += 1;
        }
        // Everything so far is called known, the rest unknown; or the other way round.
        let right = below + unknown.len() - (place + 1 - below);
        best = best.max(right.max(all.len() - right));
    }
    Guess {
        area: pairs as f64 / (known.len() * unknown.len()) as f64,
        threshold: best as f64 / all.len() as f64,
    }
}

/// The trials of one version, one class and the other by turns, in an order that neither gains from.
fn measure(tls: Tls) -> Guess {
    let backend = Backend::echo();
    let keys: String = (0..TRIALS).map(|n| secret(&name(2 * n), &format!("{n:04}{KEY}"))).collect();
    let gate = Gate::new().file("psk.txt", &keys).toml(&server_toml(backend.address(), ""));
    let gate = gate.start();
    let to = gate.address("tls");
    let (mut times, mut answers) = ([Vec::new(), Vec::new()], Vec::new());
    // The first ones pay for caches.
    for number in 0..20 {
        tls.claim(to, name(number).as_bytes());
    }
    for trial in 0..TRIALS {
        for turn in [trial % 2, 1 - trial % 2] {
            let (answer, time) = tls.claim(to, name(2 * trial + turn).as_bytes());
            times[turn].push(time);
            answers.push(answer);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "all get one alert: {answers:02x?}");
    assert_eq!(backend.accepted(), 0);
    // What was measured is what it is called.
    gate.wait_logged("wrong key for identity \"client0002\"");
    gate.wait_logged("unknown identity \"client0001\"");
    guess(&times[0], &times[1])
}

fn expect_a_coin(tls: Tls) {
    let first = measure(tls);
    println!("{}: {first:?} over {TRIALS} trials a class", tls.name());
    if !first.is_a_coin() {
        // One in some hundred runs is out of bounds by chance; two in a row are not.
        let again = measure(tls);
        println!("{}: {again:?}, again", tls.name());
        assert!(again.is_a_coin(), "{}: {first:?}, then {again:?}", tls.name());
    }
}

#[test]
fn the_clock_does_not_tell_a_known_identity_from_an_unknown_one_in_1_2() {
    expect_a_coin(Tls::V12);
}

#[test]
fn the_clock_does_not_tell_a_known_identity_from_an_unknown_one_in_1_3() {
    expect_a_coin(Tls::V13);
}

#[test]
fn a_difference_of_a_tenth_of_the_spread_would_be_seen() {
    let times = |offset: u64| -> Vec<_> {
        (0..1000_u64).map(|n| Duration::from_nanos(n * 7919 % 1000 + offset)).collect()
    };
    assert!(guess(&times(0), &times(0)).is_a_coin());
    let apart = guess(&times(0), &times(100));
    assert!(!apart.is_a_coin() && apart.area > 0.55, "{apart:?}");
    let turned = guess(&times(100), &times(0));
    assert!(!turned.is_a_coin() && turned.area < 0.45, "{turned:?}");
    let never = guess(&times(0), &times(5000));
    assert_eq!((never.area, never.threshold), (1.0, 1.0));
}
